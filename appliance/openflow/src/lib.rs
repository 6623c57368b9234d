//! OpenFlow 1.3.5 (wire version 4) as Rust types: what a controller and a switch say to each other,
//! encoded and decoded. No socket and no clock in here; the controller owns the sessions, a test
//! may stand in for a switch with the same types.
//!
//! * [`Frame`]: one message with its transaction id; [`frame_length`] cuts a stream into frames.
//! * [`Message`]: every kind of message; what this crate has no name for stays whole in an `Other`.
//! * [`Match`], [`Field`], [`Instruction`], [`Action`]: what a flow says.
//! * [`FlowMod`], [`MeterMod`], [`GroupMod`]: what programs a switch.
//! * [`MultipartRequest`], [`MultipartReply`]: what reads it back.
//!
//! Two promises: decoding foreign bytes never panics and never allocates beyond a small multiple of
//! the frame it was given (65,535 bytes at most), and a [`Match`] that came from a switch is equal
//! to the one that was sent, whatever order and masks the switch wrote it in.
//!
//! Section numbers are those of the OpenFlow Switch Specification 1.3.5.

mod actions;
mod canonical;
mod error;
mod fields;
mod flow;
mod frame;
mod group;
mod instructions;
mod matches;
mod message;
mod meter;
mod multipart;
mod packet;
mod port;
mod read;
mod refusal;
mod replies;
mod statistics;
mod write;

pub use actions::{Action, CONTROLLER_NO_BUFFER};
pub use error::{DecodeError, TooLong};
pub use fields::{Field, VLAN_PRESENT};
pub use flow::{
    FLOW_CHECK_OVERLAP, FLOW_NO_BYTE_COUNTS, FLOW_NO_PACKET_COUNTS, FLOW_RESET_COUNTS,
    FLOW_SEND_REMOVED, FlowCommand, FlowMod, FlowRemoved, NO_BUFFER, TABLE_ALL,
};
pub use frame::{Frame, MAX_FRAME, VERSION, frame_length};
pub use group::{
    Bucket, GROUP_ALL, GROUP_ANY, GROUP_MAX, GroupCommand, GroupDesc, GroupKind, GroupMod,
};
pub use instructions::Instruction;
pub use matches::Match;
pub use message::{Features, Message, ROLE_EQUAL, ROLE_MASTER, ROLE_NO_CHANGE, ROLE_SLAVE};
pub use meter::{
    Band, METER_ALL, METER_BURST, METER_CONTROLLER, METER_KBPS, METER_MAX, METER_PKTPS,
    METER_STATS, MeterCommand, MeterConfig, MeterMod,
};
pub use multipart::{FlowStatsRequest, MultipartRequest};
pub use packet::{PacketIn, PacketOut};
pub use port::{
    PORT_ADDED, PORT_ADMIN_DOWN, PORT_ALL, PORT_ANY, PORT_CONTROLLER, PORT_DELETED, PORT_FLOOD,
    PORT_IN_PORT, PORT_LINK_DOWN, PORT_LOCAL, PORT_MAX, PORT_MODIFIED, PORT_NO_RECEIVE,
    PORT_NORMAL, PORT_TABLE, Port,
};
pub use refusal::refusal;
pub use replies::MultipartReply;
pub use statistics::{
    AggregateStats, BandStats, Description, FlowStats, MeterFeatures, MeterStats, PortStats,
    TableStats,
};
