//! Flows: added, changed, deleted (§7.3.4.2), and gone by themselves (§7.4.2).

use crate::{DecodeError, GROUP_ANY, Instruction, Match, PORT_ANY, read::Reader, write::Writer};

/// No packet is kept in the switch for this message (`OFP_NO_BUFFER`).
pub const NO_BUFFER: u32 = 0xffff_ffff;
/// Every table, when flows are deleted or read (`OFPTT_ALL`).
pub const TABLE_ALL: u8 = 0xff;

/// Tell when the flow is gone (`OFPFF_SEND_FLOW_REM`).
pub const FLOW_SEND_REMOVED: u16 = 1 << 0;
/// Refuse a flow that overlaps one of the same priority (`OFPFF_CHECK_OVERLAP`).
pub const FLOW_CHECK_OVERLAP: u16 = 1 << 1;
/// Start the counters again when it replaces a flow (`OFPFF_RESET_COUNTS`).
pub const FLOW_RESET_COUNTS: u16 = 1 << 2;
/// Do not count packets (`OFPFF_NO_PKT_COUNTS`).
pub const FLOW_NO_PACKET_COUNTS: u16 = 1 << 3;
/// Do not count bytes (`OFPFF_NO_BYT_COUNTS`).
pub const FLOW_NO_BYTE_COUNTS: u16 = 1 << 4;

/// What a [`FlowMod`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowCommand {
    /// Add, in place of one with the same match and priority.
    Add,
    /// Change the instructions of all flows that the match covers.
    Modify,
    /// Change those of the one flow with this match and priority.
    ModifyStrict,
    /// Delete all flows that the match covers.
    Delete,
    /// Delete the one flow with this match and priority.
    DeleteStrict,
    /// A command the specification does not have; a switch refuses it.
    Other(u8),
}

impl FlowCommand {
    fn number(self) -> u8 {
        match self {
            Self::Add => 0,
            Self::Modify => 1,
            Self::ModifyStrict => 2,
            Self::Delete => 3,
            Self::DeleteStrict => 4,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Add,
            1 => Self::Modify,
            2 => Self::ModifyStrict,
            3 => Self::Delete,
            4 => Self::DeleteStrict,
            other => Self::Other(other),
        }
    }
}

/// A change of the flow tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowMod {
    /// The controller's own mark on the flow.
    pub cookie: u64,
    /// For changes and deletions: only flows whose cookie equals `cookie` in these bits; 0 for any.
    pub cookie_mask: u64,
    /// The table, [`TABLE_ALL`] in deletions only.
    pub table_id: u8,
    /// What is done.
    pub command: FlowCommand,
    /// Seconds without a packet after which the flow goes; 0 for never.
    pub idle_timeout: u16,
    /// Seconds after which the flow goes; 0 for never.
    pub hard_timeout: u16,
    /// Of the flows that match, the one with the highest priority counts.
    pub priority: u16,
    /// A packet kept in the switch that is sent through the flow, or [`NO_BUFFER`].
    pub buffer_id: u32,
    /// For deletions: only flows with an output to this port; [`PORT_ANY`] for any.
    pub out_port: u32,
    /// For deletions: only flows with an output to this group; [`GROUP_ANY`] for any.
    pub out_group: u32,
    /// `FLOW_…` bits.
    pub flags: u16,
    /// Which packets.
    pub matches: Match,
    /// What is done with them; none is a drop.
    pub instructions: Vec<Instruction>,
}

impl Default for FlowMod {
    /// A flow for every packet in table 0, of the lowest priority, that drops; no condition on
    /// cookies, ports and groups.
    fn default() -> Self {
        Self {
            cookie: 0,
            cookie_mask: 0,
            table_id: 0,
            command: FlowCommand::Add,
            idle_timeout: 0,
            hard_timeout: 0,
            priority: 0,
            buffer_id: NO_BUFFER,
            out_port: PORT_ANY,
            out_group: GROUP_ANY,
            flags: 0,
            matches: Match::default(),
            instructions: Vec::new(),
        }
    }
}

impl FlowMod {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.put(self.cookie);
        writer.put(self.cookie_mask);
        writer.put(self.table_id);
        writer.put(self.command.number());
        writer.put(self.idle_timeout);
        writer.put(self.hard_timeout);
        writer.put(self.priority);
        writer.put(self.buffer_id);
        writer.put(self.out_port);
        writer.put(self.out_group);
        writer.put(self.flags);
        writer.zeros(2);
        self.matches.write(writer);
        for instruction in &self.instructions {
            instruction.write(writer);
        }
    }

    pub(crate) fn read(mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        let cookie = reader.get()?;
        let cookie_mask = reader.get()?;
        let table_id = reader.get()?;
        let command = FlowCommand::from_number(reader.get()?);
        let idle_timeout = reader.get()?;
        let hard_timeout = reader.get()?;
        let priority = reader.get()?;
        let buffer_id = reader.get()?;
        let out_port = reader.get()?;
        let out_group = reader.get()?;
        let flags = reader.get()?;
        reader.skip(2)?;
        Ok(Self {
            cookie,
            cookie_mask,
            table_id,
            command,
            idle_timeout,
            hard_timeout,
            priority,
            buffer_id,
            out_port,
            out_group,
            flags,
            matches: Match::read(&mut reader)?,
            instructions: reader.all(Instruction::read)?,
        })
    }
}

/// A flow that is gone, told because it had [`FLOW_SEND_REMOVED`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowRemoved {
    /// The controller's own mark on the flow.
    pub cookie: u64,
    /// Its priority.
    pub priority: u16,
    /// Why: 0 idle, 1 at its hard timeout, 2 deleted, 3 its group was deleted.
    pub reason: u8,
    /// Its table.
    pub table_id: u8,
    /// How long it was there, whole seconds.
    pub duration_sec: u32,
    /// And nanoseconds beyond them.
    pub duration_nsec: u32,
    /// The idle timeout it had, seconds.
    pub idle_timeout: u16,
    /// The hard timeout it had, seconds.
    pub hard_timeout: u16,
    /// Packets it matched.
    pub packet_count: u64,
    /// Bytes in them.
    pub byte_count: u64,
    /// Which packets.
    pub matches: Match,
}

impl FlowRemoved {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.put(self.cookie);
        writer.put(self.priority);
        writer.put(self.reason);
        writer.put(self.table_id);
        writer.put(self.duration_sec);
        writer.put(self.duration_nsec);
        writer.put(self.idle_timeout);
        writer.put(self.hard_timeout);
        writer.put(self.packet_count);
        writer.put(self.byte_count);
        self.matches.write(writer);
    }

    pub(crate) fn read(mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        let removed = Self {
            cookie: reader.get()?,
            priority: reader.get()?,
            reason: reader.get()?,
            table_id: reader.get()?,
            duration_sec: reader.get()?,
            duration_nsec: reader.get()?,
            idle_timeout: reader.get()?,
            hard_timeout: reader.get()?,
            packet_count: reader.get()?,
            byte_count: reader.get()?,
            matches: Match::read(&mut reader)?,
        };
        reader.finished()?;
        Ok(removed)
    }
}
