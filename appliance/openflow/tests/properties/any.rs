//! Any message there is, in the form in which it is read: matches made by `Match::new`, bodies
//! without a name as long as their padding wants them.

use crate::replies::reply;
use dtn_openflow::{
    Action, Band, Bucket, Features, Field, FlowCommand, FlowMod, FlowRemoved, FlowStatsRequest,
    GroupCommand, GroupKind, GroupMod, Instruction, Match, Message, MeterCommand, MeterMod,
    MultipartRequest, PacketIn, PacketOut, Port,
};
use proptest::{collection::vec, prelude::*};
use std::net::{Ipv4Addr, Ipv6Addr};

type Mac = [u8; 6];

fn numbered() -> impl Strategy<Value = Field> {
    let exact = prop_oneof![
        any::<u32>().prop_map(Field::InPort),
        any::<u16>().prop_map(Field::EthType),
        any::<u8>().prop_map(Field::VlanPcp),
        any::<u8>().prop_map(Field::IpProto),
        any::<u16>().prop_map(Field::ArpOp),
        any::<Mac>().prop_map(Field::ArpSha),
        any::<Mac>().prop_map(Field::ArpTha),
        any::<u8>().prop_map(Field::Icmpv4Type),
        any::<u8>().prop_map(Field::Icmpv6Type),
        any::<u8>().prop_map(Field::Icmpv6Code),
        any::<Ipv6Addr>().prop_map(Field::Ipv6NdTarget),
        any::<Mac>().prop_map(Field::Ipv6NdSll),
        any::<Mac>().prop_map(Field::Ipv6NdTll),
    ];
    type Masked<T> = (T, Option<T>);
    let wide = any::<Masked<u64>>().prop_flat_map(|(value, mask)| {
        prop_oneof![
            Just(Field::Metadata { value, mask }),
            Just(Field::TunnelId { value, mask })
        ]
    });
    let mac = any::<Masked<Mac>>().prop_flat_map(|(value, mask)| {
        prop_oneof![
            Just(Field::EthDst { value, mask }),
            Just(Field::EthSrc { value, mask })
        ]
    });
    let port = any::<Masked<u16>>().prop_flat_map(|(value, mask)| {
        prop_oneof![
            Just(Field::VlanVid { value, mask }),
            Just(Field::TcpSrc { value, mask }),
            Just(Field::TcpDst { value, mask }),
            Just(Field::UdpSrc { value, mask }),
            Just(Field::UdpDst { value, mask }),
            Just(Field::SctpSrc { value, mask }),
            Just(Field::SctpDst { value, mask }),
        ]
    });
    let v4 = any::<Masked<Ipv4Addr>>().prop_flat_map(|(addr, mask)| {
        prop_oneof![
            Just(Field::Ipv4Src { addr, mask }),
            Just(Field::Ipv4Dst { addr, mask }),
            Just(Field::ArpSpa { addr, mask }),
            Just(Field::ArpTpa { addr, mask }),
        ]
    });
    let v6 = any::<Masked<Ipv6Addr>>().prop_flat_map(|(addr, mask)| {
        prop_oneof![
            Just(Field::Ipv6Src { addr, mask }),
            Just(Field::Ipv6Dst { addr, mask })
        ]
    });
    prop_oneof![exact, wide, mac, port, v4, v6]
}

/// A field; one without a name is of a class, or has a number, that none here has.
pub(crate) fn field() -> impl Strategy<Value = Field> {
    let class = prop_oneof![Just(0_u16), Just(1), Just(0xffff)];
    let number = prop_oneof![Just((0x8000_u16, 1_u8)), (class, 0_u8..128)];
    let other = (number, any::<bool>(), vec(any::<u8>(), 0..24));
    let other = other.prop_map(|((class, field), has_mask, data)| Field::Other {
        class,
        field,
        has_mask,
        data,
    });
    prop_oneof![4 => numbered(), 1 => other]
}

pub(crate) fn matches() -> impl Strategy<Value = Match> {
    vec(field(), 0..6).prop_map(Match::new)
}

/// What follows the four bytes of kind and length.
pub(crate) fn body() -> impl Strategy<Value = Vec<u8>> {
    (0_usize..4).prop_flat_map(|eights| vec(any::<u8>(), 4 + 8 * eights))
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        any::<(u32, u16)>().prop_map(|(port, max_len)| Action::Output { port, max_len }),
        any::<u32>().prop_map(Action::Group),
        any::<u16>().prop_map(Action::PushVlan),
        Just(Action::PopVlan),
        field().prop_map(Action::SetField),
        any::<u32>().prop_map(Action::SetQueue),
        (prop_oneof![Just(24_u16), Just(0xffff)], body())
            .prop_map(|(kind, body)| Action::Other { kind, body }),
    ]
}

pub(crate) fn instruction() -> impl Strategy<Value = Instruction> {
    prop_oneof![
        any::<u8>().prop_map(Instruction::GotoTable),
        any::<(u64, u64)>().prop_map(|(value, mask)| Instruction::WriteMetadata { value, mask }),
        vec(action(), 0..4).prop_map(Instruction::WriteActions),
        vec(action(), 0..4).prop_map(Instruction::ApplyActions),
        Just(Instruction::ClearActions),
        any::<u32>().prop_map(Instruction::Meter),
        (prop_oneof![Just(7_u16), Just(0xffff)], body())
            .prop_map(|(kind, body)| Instruction::Other { kind, body }),
    ]
}

pub(crate) fn band() -> impl Strategy<Value = Band> {
    prop_oneof![
        any::<(u32, u32)>().prop_map(|(rate, burst_size)| Band::Drop { rate, burst_size }),
        any::<(u32, u32, u8)>().prop_map(|(rate, burst_size, prec_level)| Band::DscpRemark {
            rate,
            burst_size,
            prec_level
        }),
        (3_u16.., body()).prop_map(|(kind, body)| Band::Other { kind, body }),
    ]
}

pub(crate) fn bucket() -> impl Strategy<Value = Bucket> {
    (any::<(u16, u32, u32)>(), vec(action(), 0..4)).prop_map(|(numbers, actions)| Bucket {
        weight: numbers.0,
        watch_port: numbers.1,
        watch_group: numbers.2,
        actions,
    })
}

pub(crate) fn group_kind() -> impl Strategy<Value = GroupKind> {
    prop_oneof![
        Just(GroupKind::All),
        Just(GroupKind::Select),
        Just(GroupKind::Indirect),
        Just(GroupKind::FastFailover),
        (4_u8..).prop_map(GroupKind::Other),
    ]
}

pub(crate) fn port() -> impl Strategy<Value = Port> {
    (any::<(u32, Mac, [u32; 8])>(), "[^\0]{0,5}").prop_map(|((port_no, hw_addr, n), name)| Port {
        port_no,
        hw_addr,
        // fifteen bytes at most
        name: name.chars().take(3).collect(),
        config: n[0],
        state: n[1],
        curr: n[2],
        advertised: n[3],
        supported: n[4],
        peer: n[5],
        curr_speed: n[6],
        max_speed: n[7],
    })
}

fn flow_mod() -> impl Strategy<Value = Message> {
    let command = prop_oneof![
        Just(FlowCommand::Add),
        Just(FlowCommand::Modify),
        Just(FlowCommand::ModifyStrict),
        Just(FlowCommand::Delete),
        Just(FlowCommand::DeleteStrict),
        (5_u8..).prop_map(FlowCommand::Other),
    ];
    let numbers = any::<(u8, [u64; 2], [u32; 3], [u16; 4])>();
    let parts = (command, numbers, matches(), vec(instruction(), 0..4));
    parts.prop_map(
        |(command, (table_id, wide, long, short), matches, instructions)| {
            Message::FlowMod(FlowMod {
                cookie: wide[0],
                cookie_mask: wide[1],
                table_id,
                command,
                idle_timeout: short[0],
                hard_timeout: short[1],
                priority: short[2],
                buffer_id: long[0],
                out_port: long[1],
                out_group: long[2],
                flags: short[3],
                matches,
                instructions,
            })
        },
    )
}

fn flow_removed() -> impl Strategy<Value = Message> {
    let numbers = any::<([u64; 3], [u8; 2], [u32; 2], [u16; 3])>();
    (numbers, matches()).prop_map(|((wide, byte, long, short), matches)| {
        Message::FlowRemoved(FlowRemoved {
            cookie: wide[0],
            priority: short[0],
            reason: byte[0],
            table_id: byte[1],
            duration_sec: long[0],
            duration_nsec: long[1],
            idle_timeout: short[1],
            hard_timeout: short[2],
            packet_count: wide[1],
            byte_count: wide[2],
            matches,
        })
    })
}

fn request() -> impl Strategy<Value = MultipartRequest> {
    let flows = (any::<bool>(), any::<(u8, u32, u32, u64, u64)>(), matches());
    prop_oneof![
        Just(MultipartRequest::Desc),
        flows.prop_map(|(sum, n, matches)| {
            let kind = if sum {
                MultipartRequest::Aggregate
            } else {
                MultipartRequest::Flow
            };
            kind(FlowStatsRequest {
                table_id: n.0,
                out_port: n.1,
                out_group: n.2,
                cookie: n.3,
                cookie_mask: n.4,
                matches,
            })
        }),
        Just(MultipartRequest::Table),
        any::<u32>().prop_map(|port| MultipartRequest::PortStats { port }),
        Just(MultipartRequest::GroupDesc),
        any::<u32>().prop_map(|id| MultipartRequest::Meter { id }),
        any::<u32>().prop_map(|id| MultipartRequest::MeterConfig { id }),
        Just(MultipartRequest::MeterFeatures),
        Just(MultipartRequest::PortDesc),
        (14_u16.., body()).prop_map(|(kind, body)| MultipartRequest::Other { kind, body }),
    ]
}

fn short() -> impl Strategy<Value = Message> {
    let data = || vec(any::<u8>(), 0..40);
    let features = any::<(u64, u32, u8, u8, u32)>().prop_map(|n| {
        Message::FeaturesReply(Features {
            datapath_id: n.0,
            n_buffers: n.1,
            n_tables: n.2,
            auxiliary_id: n.3,
            capabilities: n.4,
        })
    });
    prop_oneof![
        prop::collection::btree_set(1_u8.., 1..6).prop_map(|versions| Message::Hello {
            versions: versions.into_iter().collect()
        }),
        (any::<(u16, u16)>(), data()).prop_map(|((kind, code), data)| Message::Error {
            kind,
            code,
            data
        }),
        data().prop_map(Message::EchoRequest),
        data().prop_map(Message::EchoReply),
        Just(Message::FeaturesRequest),
        features,
        any::<(u16, u16)>().prop_map(|(flags, miss_send_len)| Message::SetConfig {
            flags,
            miss_send_len
        }),
        (any::<u8>(), port()).prop_map(|(reason, port)| Message::PortStatus { reason, port }),
        any::<(u32, u64)>().prop_map(|(role, generation_id)| Message::RoleRequest {
            role,
            generation_id
        }),
        any::<(u32, u64)>().prop_map(|(role, generation_id)| Message::RoleReply {
            role,
            generation_id
        }),
        Just(Message::BarrierRequest),
        Just(Message::BarrierReply),
        (30_u8.., data()).prop_map(|(kind, body)| Message::Other { kind, body }),
    ]
}

fn packets() -> impl Strategy<Value = Message> {
    let data = || vec(any::<u8>(), 0..80);
    let incoming = (any::<(u32, u16, u8, u8, u64)>(), matches(), data());
    let outgoing = (any::<(u32, u32)>(), vec(action(), 0..4), data());
    prop_oneof![
        incoming.prop_map(|(n, matches, data)| Message::PacketIn(PacketIn {
            buffer_id: n.0,
            total_len: n.1,
            reason: n.2,
            table_id: n.3,
            cookie: n.4,
            matches,
            data,
        })),
        outgoing.prop_map(|((buffer_id, in_port), actions, data)| {
            Message::PacketOut(PacketOut {
                buffer_id,
                in_port,
                actions,
                data,
            })
        }),
    ]
}

fn changes() -> impl Strategy<Value = Message> {
    let group_command = prop_oneof![
        Just(GroupCommand::Add),
        Just(GroupCommand::Modify),
        Just(GroupCommand::Delete),
        (3_u16..).prop_map(GroupCommand::Other),
    ];
    let meter_command = prop_oneof![
        Just(MeterCommand::Add),
        Just(MeterCommand::Modify),
        Just(MeterCommand::Delete),
        (3_u16..).prop_map(MeterCommand::Other),
    ];
    let group = (
        group_command,
        group_kind(),
        any::<u32>(),
        vec(bucket(), 0..4),
    );
    let meter = (meter_command, any::<(u16, u32)>(), vec(band(), 0..4));
    prop_oneof![
        2 => flow_mod(),
        1 => group.prop_map(|(command, kind, group_id, buckets)| Message::GroupMod(GroupMod {
            command, kind, group_id, buckets
        })),
        1 => meter.prop_map(|(command, (flags, meter_id), bands)| Message::MeterMod(MeterMod {
            command, flags, meter_id, bands
        })),
    ]
}

/// A message of any kind.
pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        1 => short(),
        1 => packets(),
        2 => changes(),
        1 => flow_removed(),
        1 => request().prop_map(Message::MultipartRequest),
        2 => (any::<bool>(), reply())
            .prop_map(|(more, body)| Message::MultipartReply { more, body }),
    ]
}
