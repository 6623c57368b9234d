//! Packets handed to the controller (§7.4.1) and by it (§7.3.7).

use crate::{Action, DecodeError, Match, NO_BUFFER, PORT_CONTROLLER, read::Reader, write::Writer};

/// A packet that a flow sent to the controller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketIn {
    /// Where the switch keeps it, or [`NO_BUFFER`].
    pub buffer_id: u32,
    /// Bytes of the whole packet, of which `data` may be the beginning.
    pub total_len: u16,
    /// Why: 0 no flow matched, 1 an action said so, 2 its time to live ran out.
    pub reason: u8,
    /// The table it came from.
    pub table_id: u8,
    /// The cookie of the flow that sent it.
    pub cookie: u64,
    /// Its port and metadata.
    pub matches: Match,
    /// The packet from its Ethernet header on.
    pub data: Vec<u8>,
}

impl PacketIn {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.put(self.buffer_id);
        writer.put(self.total_len);
        writer.put(self.reason);
        writer.put(self.table_id);
        writer.put(self.cookie);
        self.matches.write(writer);
        // two bytes, so that the packet's IP header stands on a multiple of four
        writer.zeros(2);
        writer.slice(&self.data);
    }

    pub(crate) fn read(mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        let buffer_id = reader.get()?;
        let total_len = reader.get()?;
        let reason = reader.get()?;
        let table_id = reader.get()?;
        let cookie = reader.get()?;
        let matches = Match::read(&mut reader)?;
        reader.skip(2)?;
        Ok(Self {
            buffer_id,
            total_len,
            reason,
            table_id,
            cookie,
            matches,
            data: reader.rest().to_vec(),
        })
    }
}

/// A packet for the switch to send.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketOut {
    /// The packet kept in the switch, or [`NO_BUFFER`] and it is in `data`.
    pub buffer_id: u32,
    /// The port it is treated as having come in at; [`PORT_CONTROLLER`] when at none.
    pub in_port: u32,
    /// What is done with it.
    pub actions: Vec<Action>,
    /// The packet from its Ethernet header on.
    pub data: Vec<u8>,
}

impl PacketOut {
    /// This packet, treated so.
    pub fn new(data: Vec<u8>, actions: Vec<Action>) -> Self {
        Self {
            buffer_id: NO_BUFFER,
            in_port: PORT_CONTROLLER,
            actions,
            data,
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.put(self.buffer_id);
        writer.put(self.in_port);
        let length_at = writer.position();
        writer.zeros(8);
        let start = writer.position();
        for action in &self.actions {
            action.write(writer);
        }
        writer.length("action list", length_at, start);
        writer.slice(&self.data);
    }

    pub(crate) fn read(mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        let buffer_id = reader.get()?;
        let in_port = reader.get()?;
        let length: u16 = reader.get()?;
        reader.skip(6)?;
        Ok(Self {
            buffer_id,
            in_port,
            actions: reader
                .part("action list", usize::from(length))?
                .all(Action::read)?,
            data: reader.rest().to_vec(),
        })
    }
}
