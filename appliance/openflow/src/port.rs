//! Ports of a switch (§7.2.1).

use crate::{DecodeError, read::Reader, write::Writer};

/// The highest number of a real port (`OFPP_MAX`).
pub const PORT_MAX: u32 = 0xffff_ff00;
/// Out of the port it came in at, which must be said so (`OFPP_IN_PORT`).
pub const PORT_IN_PORT: u32 = 0xffff_fff8;
/// Through the flow tables, in a packet-out only (`OFPP_TABLE`).
pub const PORT_TABLE: u32 = 0xffff_fff9;
/// As a switch without OpenFlow would (`OFPP_NORMAL`).
pub const PORT_NORMAL: u32 = 0xffff_fffa;
/// All ports of a VLAN but the one it came in at (`OFPP_FLOOD`).
pub const PORT_FLOOD: u32 = 0xffff_fffb;
/// All ports but the one it came in at (`OFPP_ALL`).
pub const PORT_ALL: u32 = 0xffff_fffc;
/// To the controller (`OFPP_CONTROLLER`).
pub const PORT_CONTROLLER: u32 = 0xffff_fffd;
/// To the switch's own network stack (`OFPP_LOCAL`).
pub const PORT_LOCAL: u32 = 0xffff_fffe;
/// No port in particular (`OFPP_ANY`).
pub const PORT_ANY: u32 = 0xffff_ffff;

/// Reason of a port status: the port is new (`OFPPR_ADD`).
pub const PORT_ADDED: u8 = 0;
/// Reason of a port status: the port is gone (`OFPPR_DELETE`).
pub const PORT_DELETED: u8 = 1;
/// Reason of a port status: something about it changed (`OFPPR_MODIFY`).
pub const PORT_MODIFIED: u8 = 2;

/// In [`Port::config`]: taken down by an administrator (`OFPPC_PORT_DOWN`).
pub const PORT_ADMIN_DOWN: u32 = 1 << 0;
/// In [`Port::config`]: drops what it receives (`OFPPC_NO_RECV`).
pub const PORT_NO_RECEIVE: u32 = 1 << 2;
/// In [`Port::state`]: no physical link (`OFPPS_LINK_DOWN`).
pub const PORT_LINK_DOWN: u32 = 1 << 0;

/// A port of a switch.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Its number.
    pub port_no: u32,
    /// Its MAC address.
    pub hw_addr: [u8; 6],
    /// Its name, 15 bytes at most.
    pub name: String,
    /// What an administrator set: `OFPPC_` bits.
    pub config: u32,
    /// What is so: `OFPPS_` bits.
    pub state: u32,
    /// Features in use: `OFPPF_` bits, as the three below.
    pub curr: u32,
    /// Features offered to the other end.
    pub advertised: u32,
    /// Features it could have.
    pub supported: u32,
    /// Features the other end offers.
    pub peer: u32,
    /// Its rate now, kbit/s.
    pub curr_speed: u32,
    /// Its highest rate, kbit/s.
    pub max_speed: u32,
}

impl Port {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.put(self.port_no);
        writer.zeros(4);
        writer.put(self.hw_addr);
        writer.zeros(2);
        writer.text("port name", &self.name, 16);
        writer.put(self.config);
        writer.put(self.state);
        writer.put(self.curr);
        writer.put(self.advertised);
        writer.put(self.supported);
        writer.put(self.peer);
        writer.put(self.curr_speed);
        writer.put(self.max_speed);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut port = reader.part("port", 64)?;
        let port_no = port.get()?;
        port.skip(4)?;
        let hw_addr = port.get()?;
        port.skip(2)?;
        Ok(Self {
            port_no,
            hw_addr,
            name: port.text(16)?,
            config: port.get()?,
            state: port.get()?,
            curr: port.get()?,
            advertised: port.get()?,
            supported: port.get()?,
            peer: port.get()?,
            curr_speed: port.get()?,
            max_speed: port.get()?,
        })
    }
}
