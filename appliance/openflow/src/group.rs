//! Groups: one packet to several places, or to one of several (§7.3.4.3).

use crate::{Action, DecodeError, PORT_ANY, read::Reader, write::Writer};

/// The highest group number a controller may use (`OFPG_MAX`).
pub const GROUP_MAX: u32 = 0xffff_ff00;
/// All groups, when they are deleted or read (`OFPG_ALL`).
pub const GROUP_ALL: u32 = 0xffff_fffc;
/// No group in particular (`OFPG_ANY`).
pub const GROUP_ANY: u32 = 0xffff_ffff;

/// What a [`GroupMod`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupCommand {
    /// Add; a number in use is refused.
    Add,
    /// Change one that is there.
    Modify,
    /// Delete, and with it the flows that use it.
    Delete,
    /// A command the specification does not have; a switch refuses it.
    Other(u16),
}

impl GroupCommand {
    fn number(self) -> u16 {
        match self {
            Self::Add => 0,
            Self::Modify => 1,
            Self::Delete => 2,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u16) -> Self {
        match number {
            0 => Self::Add,
            1 => Self::Modify,
            2 => Self::Delete,
            other => Self::Other(other),
        }
    }
}

/// Which buckets a packet goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKind {
    /// Every one, a copy each; never out of the port it came in at.
    All,
    /// One, chosen by weight.
    Select,
    /// The only one.
    Indirect,
    /// The first whose watched port or group is alive.
    FastFailover,
    /// An experimenter's, 128 and above.
    Other(u8),
}

impl GroupKind {
    fn number(self) -> u8 {
        match self {
            Self::All => 0,
            Self::Select => 1,
            Self::Indirect => 2,
            Self::FastFailover => 3,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::All,
            1 => Self::Select,
            2 => Self::Indirect,
            3 => Self::FastFailover,
            other => Self::Other(other),
        }
    }
}

/// One way out of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// Its share, in a group of kind select; 0 otherwise.
    pub weight: u16,
    /// The port whose being up makes the bucket usable; [`PORT_ANY`] for none.
    pub watch_port: u32,
    /// The group whose being alive makes the bucket usable; [`GROUP_ANY`] for none.
    pub watch_group: u32,
    /// What is done to the packet.
    pub actions: Vec<Action>,
}

impl Bucket {
    /// A bucket that does this and watches nothing.
    pub fn new(actions: Vec<Action>) -> Self {
        Self {
            weight: 0,
            watch_port: PORT_ANY,
            watch_group: GROUP_ANY,
            actions,
        }
    }

    fn write(&self, writer: &mut Writer) {
        let start = writer.position();
        writer.zeros(2);
        writer.put(self.weight);
        writer.put(self.watch_port);
        writer.put(self.watch_group);
        writer.zeros(4);
        for action in &self.actions {
            action.write(writer);
        }
        writer.length("group bucket", start, start);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length: u16 = reader.named("group bucket").get()?;
        let mut bucket = reader.part("group bucket", usize::from(length))?;
        bucket.skip(2)?;
        let weight = bucket.get()?;
        let watch_port = bucket.get()?;
        let watch_group = bucket.get()?;
        bucket.skip(4)?;
        Ok(Self {
            weight,
            watch_port,
            watch_group,
            actions: bucket.all(Action::read)?,
        })
    }
}

/// A change of the groups.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupMod {
    /// What is done.
    pub command: GroupCommand,
    /// Which buckets a packet goes through.
    pub kind: GroupKind,
    /// Which group, up to [`GROUP_MAX`], or [`GROUP_ALL`] in a deletion.
    pub group_id: u32,
    /// The ways out.
    pub buckets: Vec<Bucket>,
}

impl GroupMod {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.put(self.command.number());
        writer.put(self.kind.number());
        writer.zeros(1);
        writer.put(self.group_id);
        for bucket in &self.buckets {
            bucket.write(writer);
        }
    }

    pub(crate) fn read(mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        let command = GroupCommand::from_number(reader.get()?);
        let kind = GroupKind::from_number(reader.get()?);
        reader.skip(1)?;
        Ok(Self {
            command,
            kind,
            group_id: reader.get()?,
            buckets: reader.all(Bucket::read)?,
        })
    }
}

/// A group as it is in the switch (§7.3.5.9).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupDesc {
    /// Which buckets a packet goes through.
    pub kind: GroupKind,
    /// Which group.
    pub group_id: u32,
    /// The ways out.
    pub buckets: Vec<Bucket>,
}

impl GroupDesc {
    pub(crate) fn write(&self, writer: &mut Writer) {
        let start = writer.position();
        writer.zeros(2);
        writer.put(self.kind.number());
        writer.zeros(1);
        writer.put(self.group_id);
        for bucket in &self.buckets {
            bucket.write(writer);
        }
        writer.length("group", start, start);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length: u16 = reader.named("group").get()?;
        let mut entry = reader.part("group", usize::from(length))?;
        entry.skip(2)?;
        let kind = GroupKind::from_number(entry.get()?);
        entry.skip(1)?;
        Ok(Self {
            kind,
            group_id: entry.get()?,
            buckets: entry.all(Bucket::read)?,
        })
    }
}
