//! What a flow does with a packet that it matched (§7.2.5).

use crate::{Action, DecodeError, read::Reader, write::Writer};

/// One instruction of a flow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Instruction {
    /// Go on in a later table.
    GotoTable(u8),
    /// Write beside the packet, where the mask has ones.
    WriteMetadata {
        /// The bits.
        value: u64,
        /// Which of them are written.
        mask: u64,
    },
    /// Add to the actions done when the packet leaves the last table.
    WriteActions(Vec<Action>),
    /// Do these now, in this order.
    ApplyActions(Vec<Action>),
    /// Forget the actions written so far.
    ClearActions,
    /// Count the packet against a meter, which may drop it.
    Meter(u32),
    /// Any other instruction.
    Other {
        /// `OFPIT_`, 0xffff for an experimenter's.
        kind: u16,
        /// What follows kind and length; filled up with zeros to a multiple of eight with them.
        body: Vec<u8>,
    },
}

impl Instruction {
    pub(crate) fn write(&self, writer: &mut Writer) {
        let what = "instruction";
        match self {
            Self::GotoTable(table) => writer.element(what, 1, |writer| writer.put(*table)),
            Self::WriteMetadata { value, mask } => writer.element(what, 2, |writer| {
                writer.zeros(4);
                writer.put(*value);
                writer.put(*mask);
            }),
            Self::WriteActions(actions) => write_actions(writer, 3, actions),
            Self::ApplyActions(actions) => write_actions(writer, 4, actions),
            Self::ClearActions => write_actions(writer, 5, &[]),
            Self::Meter(meter) => writer.element(what, 6, |writer| writer.put(*meter)),
            Self::Other { kind, body } => writer.element(what, *kind, |writer| writer.slice(body)),
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (kind, mut body) = reader.element("instruction")?;
        Ok(match kind {
            1 => {
                let table = body.get()?;
                body.skip(3)?;
                body.finished()?;
                Self::GotoTable(table)
            }
            2 => {
                body.skip(4)?;
                let (value, mask) = (body.get()?, body.get()?);
                body.finished()?;
                Self::WriteMetadata { value, mask }
            }
            3 => Self::WriteActions(read_actions(body)?),
            4 => Self::ApplyActions(read_actions(body)?),
            // the specification has no actions here; a switch may leave some bytes all the same
            5 => Self::ClearActions,
            6 => {
                let meter = body.get()?;
                body.finished()?;
                Self::Meter(meter)
            }
            _ => Self::Other {
                kind,
                body: body.rest().to_vec(),
            },
        })
    }
}

fn write_actions(writer: &mut Writer, kind: u16, actions: &[Action]) {
    writer.element("instruction", kind, |writer| {
        writer.zeros(4);
        for action in actions {
            action.write(writer);
        }
    });
}

fn read_actions(mut body: Reader<'_>) -> Result<Vec<Action>, DecodeError> {
    body.skip(4)?;
    body.all(Action::read)
}
