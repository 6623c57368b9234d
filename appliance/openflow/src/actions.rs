//! What is done to a packet (§7.2.4).

use crate::{DecodeError, Field, read::Reader, write::Writer};

/// For [`Action::Output`] to the controller: the whole packet, none of it kept in the switch
/// (`OFPCML_NO_BUFFER`).
pub const CONTROLLER_NO_BUFFER: u16 = 0xffff;

/// One thing done to a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Send it out.
    Output {
        /// A port's number or one of the reserved ones.
        port: u32,
        /// Bytes sent when the port is the controller; it has no meaning otherwise.
        max_len: u16,
    },
    /// Hand it to a group.
    Group(u32),
    /// Put a VLAN tag of this Ethernet type (0x8100, 0x88a8) in front.
    PushVlan(u16),
    /// Take the outermost VLAN tag off.
    PopVlan,
    /// Write a field; it has no mask in this version of the protocol.
    SetField(Field),
    /// Choose the queue of the port it leaves at.
    SetQueue(u32),
    /// Any other action.
    Other {
        /// `OFPAT_`, 0xffff for an experimenter's.
        kind: u16,
        /// What follows kind and length; filled up with zeros to a multiple of eight with them.
        body: Vec<u8>,
    },
}

impl Action {
    pub(crate) fn write(&self, writer: &mut Writer) {
        let what = "action";
        match self {
            Self::Output { port, max_len } => writer.element(what, 0, |writer| {
                writer.put(*port);
                writer.put(*max_len);
            }),
            Self::PushVlan(kind) => writer.element(what, 17, |writer| writer.put(*kind)),
            Self::PopVlan => writer.element(what, 18, |writer| writer.zeros(4)),
            Self::SetQueue(queue) => writer.element(what, 21, |writer| writer.put(*queue)),
            Self::Group(group) => writer.element(what, 22, |writer| writer.put(*group)),
            Self::SetField(field) => writer.element(what, 25, |writer| field.write(writer)),
            Self::Other { kind, body } => writer.element(what, *kind, |writer| writer.slice(body)),
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (kind, mut body) = reader.element("action")?;
        Ok(match kind {
            0 => {
                let (port, max_len) = (body.get()?, body.get()?);
                body.skip(6)?;
                body.finished()?;
                Self::Output { port, max_len }
            }
            17 => {
                let kind = body.get()?;
                body.skip(2)?;
                body.finished()?;
                Self::PushVlan(kind)
            }
            18 => {
                body.skip(4)?;
                body.finished()?;
                Self::PopVlan
            }
            21 => Self::SetQueue(only(body)?),
            22 => Self::Group(only(body)?),
            25 => Self::SetField(Field::read(&mut body)?),
            _ => Self::Other {
                kind,
                body: body.rest().to_vec(),
            },
        })
    }
}

/// The four bytes that are all there is.
fn only(mut body: Reader<'_>) -> Result<u32, DecodeError> {
    let value = body.get()?;
    body.finished()?;
    Ok(value)
}
