//! What a flow can look at, and what a set-field action writes: OXM fields (§7.2.3.2, numbers from
//! the table of §7.2.3.7).

use crate::{
    DecodeError,
    read::{Fixed, Reader},
    write::{Octets, Writer},
};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The bit of [`Field::VlanVid`] that says that there is a tag (`OFPVID_PRESENT`); the lower twelve
/// bits are the VLAN. A value of 0 without it says that there is none.
pub const VLAN_PRESENT: u16 = 0x1000;

/// The class of the fields that the specification itself numbers (`OFPXMC_OPENFLOW_BASIC`).
const BASIC: u16 = 0x8000;

/// A field of a packet with the value it must have; with a mask, only the bits set in it count.
///
/// A field with a mask that has no mask here, and any that has no name here, is `Other`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(
    missing_docs,
    reason = "`value`, `addr` and `mask` are said once, above"
)]
pub enum Field {
    /// The port of the switch that the packet came in at.
    InPort(u32),
    /// What an earlier table wrote beside the packet.
    Metadata { value: u64, mask: Option<u64> },
    /// Destination MAC address.
    EthDst {
        value: [u8; 6],
        mask: Option<[u8; 6]>,
    },
    /// Source MAC address.
    EthSrc {
        value: [u8; 6],
        mask: Option<[u8; 6]>,
    },
    /// Ethernet type, behind the VLAN tags.
    EthType(u16),
    /// VLAN, with [`VLAN_PRESENT`].
    VlanVid { value: u16, mask: Option<u16> },
    /// VLAN priority, three bits.
    VlanPcp(u8),
    /// IPv4 protocol or IPv6 next header.
    IpProto(u8),
    /// IPv4 source.
    Ipv4Src {
        addr: Ipv4Addr,
        mask: Option<Ipv4Addr>,
    },
    /// IPv4 destination.
    Ipv4Dst {
        addr: Ipv4Addr,
        mask: Option<Ipv4Addr>,
    },
    /// TCP source port.
    TcpSrc { value: u16, mask: Option<u16> },
    /// TCP destination port.
    TcpDst { value: u16, mask: Option<u16> },
    /// UDP source port.
    UdpSrc { value: u16, mask: Option<u16> },
    /// UDP destination port.
    UdpDst { value: u16, mask: Option<u16> },
    /// SCTP source port.
    SctpSrc { value: u16, mask: Option<u16> },
    /// SCTP destination port.
    SctpDst { value: u16, mask: Option<u16> },
    /// ICMP type: 3, 11 and 12 say that a packet could not be delivered (RFC 792).
    Icmpv4Type(u8),
    /// ARP operation: 1 asks, 2 answers.
    ArpOp(u16),
    /// ARP sender's IPv4 address.
    ArpSpa {
        addr: Ipv4Addr,
        mask: Option<Ipv4Addr>,
    },
    /// ARP target's IPv4 address.
    ArpTpa {
        addr: Ipv4Addr,
        mask: Option<Ipv4Addr>,
    },
    /// ARP sender's MAC address.
    ArpSha([u8; 6]),
    /// ARP target's MAC address.
    ArpTha([u8; 6]),
    /// IPv6 source.
    Ipv6Src {
        addr: Ipv6Addr,
        mask: Option<Ipv6Addr>,
    },
    /// IPv6 destination.
    Ipv6Dst {
        addr: Ipv6Addr,
        mask: Option<Ipv6Addr>,
    },
    /// ICMPv6 type: 135 and 136 are neighbour solicitation and advertisement.
    Icmpv6Type(u8),
    /// ICMPv6 code.
    Icmpv6Code(u8),
    /// The address a neighbour message is about.
    Ipv6NdTarget(Ipv6Addr),
    /// Source link-layer address in a neighbour solicitation.
    Ipv6NdSll([u8; 6]),
    /// Target link-layer address in a neighbour advertisement.
    Ipv6NdTll([u8; 6]),
    /// The logical port's own label, such as a VXLAN network identifier.
    TunnelId { value: u64, mask: Option<u64> },
    /// Any other field.
    Other {
        /// The OXM class: 0x8000 basic, 0x0000 and 0x0001 Nicira, 0xffff experimenter.
        class: u16,
        /// The number in its class, seven bits.
        field: u8,
        /// Whether the second half of `data` is a mask.
        has_mask: bool,
        /// Value and mask as they are on the wire, 255 bytes at most.
        data: Vec<u8>,
    },
}

impl Field {
    /// Class and number, by which a match is put in order.
    pub(crate) fn number(&self) -> (u16, u8) {
        let field = match self {
            Self::InPort(_) => 0,
            Self::Metadata { .. } => 2,
            Self::EthDst { .. } => 3,
            Self::EthSrc { .. } => 4,
            Self::EthType(_) => 5,
            Self::VlanVid { .. } => 6,
            Self::VlanPcp(_) => 7,
            Self::IpProto(_) => 10,
            Self::Ipv4Src { .. } => 11,
            Self::Ipv4Dst { .. } => 12,
            Self::TcpSrc { .. } => 13,
            Self::TcpDst { .. } => 14,
            Self::UdpSrc { .. } => 15,
            Self::UdpDst { .. } => 16,
            Self::SctpSrc { .. } => 17,
            Self::SctpDst { .. } => 18,
            Self::Icmpv4Type(_) => 19,
            Self::ArpOp(_) => 21,
            Self::ArpSpa { .. } => 22,
            Self::ArpTpa { .. } => 23,
            Self::ArpSha(_) => 24,
            Self::ArpTha(_) => 25,
            Self::Ipv6Src { .. } => 26,
            Self::Ipv6Dst { .. } => 27,
            Self::Icmpv6Type(_) => 29,
            Self::Icmpv6Code(_) => 30,
            Self::Ipv6NdTarget(_) => 31,
            Self::Ipv6NdSll(_) => 32,
            Self::Ipv6NdTll(_) => 33,
            Self::TunnelId { .. } => 38,
            Self::Other { class, field, .. } => return (*class, *field),
        };
        (BASIC, field)
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        let (class, field) = self.number();
        writer.put(class);
        let mut oxm = Oxm { writer, field };
        match self {
            Self::InPort(value) => oxm.exact(*value),
            Self::Metadata { value, mask } | Self::TunnelId { value, mask } => {
                oxm.masked(*value, *mask);
            }
            Self::EthDst { value, mask } | Self::EthSrc { value, mask } => {
                oxm.masked(*value, *mask);
            }
            Self::EthType(value) | Self::ArpOp(value) => oxm.exact(*value),
            Self::VlanVid { value, mask }
            | Self::TcpSrc { value, mask }
            | Self::TcpDst { value, mask }
            | Self::UdpSrc { value, mask }
            | Self::UdpDst { value, mask }
            | Self::SctpSrc { value, mask }
            | Self::SctpDst { value, mask } => oxm.masked(*value, *mask),
            Self::VlanPcp(value)
            | Self::IpProto(value)
            | Self::Icmpv4Type(value)
            | Self::Icmpv6Type(value)
            | Self::Icmpv6Code(value) => oxm.exact(*value),
            Self::Ipv4Src { addr, mask }
            | Self::Ipv4Dst { addr, mask }
            | Self::ArpSpa { addr, mask }
            | Self::ArpTpa { addr, mask } => oxm.masked(*addr, *mask),
            Self::ArpSha(value)
            | Self::ArpTha(value)
            | Self::Ipv6NdSll(value)
            | Self::Ipv6NdTll(value) => oxm.exact(*value),
            Self::Ipv6Src { addr, mask } | Self::Ipv6Dst { addr, mask } => {
                oxm.masked(*addr, *mask);
            }
            Self::Ipv6NdTarget(addr) => oxm.exact(*addr),
            Self::Other { has_mask, data, .. } => {
                let length = oxm.writer.narrow("match field", data.len());
                oxm.head(*has_mask, length);
                oxm.writer.slice(data);
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut head = reader.named("match field");
        let (class, bits, length): (u16, u8, u8) = (head.get()?, head.get()?, head.get()?);
        let mut body = reader.part("match field", 4 + usize::from(length))?;
        body.skip(4)?;
        let (field, has_mask) = (bits >> 1, bits & 1 == 1);
        let known = if class == BASIC {
            Self::basic(field, has_mask, body)?
        } else {
            None
        };
        Ok(known.unwrap_or_else(|| Self::Other {
            class,
            field,
            has_mask,
            data: body.rest().to_vec(),
        }))
    }

    /// The field by its number; none when it has no name here, or a mask that has no place here.
    fn basic(field: u8, has_mask: bool, body: Reader<'_>) -> Result<Option<Self>, DecodeError> {
        if has_mask && !matches!(field, 2..=4 | 6 | 11..=18 | 22 | 23 | 26 | 27 | 38) {
            return Ok(None);
        }
        let payload = Payload { has_mask, body };
        Ok(Some(match field {
            0 => Self::InPort(payload.exact()?),
            2 => payload.masked(|value, mask| Self::Metadata { value, mask })?,
            3 => payload.masked(|value, mask| Self::EthDst { value, mask })?,
            4 => payload.masked(|value, mask| Self::EthSrc { value, mask })?,
            5 => Self::EthType(payload.exact()?),
            6 => payload.masked(|value, mask| Self::VlanVid { value, mask })?,
            7 => Self::VlanPcp(payload.exact()?),
            10 => Self::IpProto(payload.exact()?),
            11 => payload.masked(|addr, mask| Self::Ipv4Src { addr, mask })?,
            12 => payload.masked(|addr, mask| Self::Ipv4Dst { addr, mask })?,
            13 => payload.masked(|value, mask| Self::TcpSrc { value, mask })?,
            14 => payload.masked(|value, mask| Self::TcpDst { value, mask })?,
            15 => payload.masked(|value, mask| Self::UdpSrc { value, mask })?,
            16 => payload.masked(|value, mask| Self::UdpDst { value, mask })?,
            17 => payload.masked(|value, mask| Self::SctpSrc { value, mask })?,
            18 => payload.masked(|value, mask| Self::SctpDst { value, mask })?,
            19 => Self::Icmpv4Type(payload.exact()?),
            21 => Self::ArpOp(payload.exact()?),
            22 => payload.masked(|addr, mask| Self::ArpSpa { addr, mask })?,
            23 => payload.masked(|addr, mask| Self::ArpTpa { addr, mask })?,
            24 => Self::ArpSha(payload.exact()?),
            25 => Self::ArpTha(payload.exact()?),
            26 => payload.masked(|addr, mask| Self::Ipv6Src { addr, mask })?,
            27 => payload.masked(|addr, mask| Self::Ipv6Dst { addr, mask })?,
            29 => Self::Icmpv6Type(payload.exact()?),
            30 => Self::Icmpv6Code(payload.exact()?),
            31 => Self::Ipv6NdTarget(payload.exact()?),
            32 => Self::Ipv6NdSll(payload.exact()?),
            33 => Self::Ipv6NdTll(payload.exact()?),
            38 => payload.masked(|value, mask| Self::TunnelId { value, mask })?,
            _ => return Ok(None),
        }))
    }
}

/// A field being written, its class done.
struct Oxm<'a> {
    writer: &'a mut Writer,
    field: u8,
}

impl Oxm<'_> {
    fn head(&mut self, has_mask: bool, length: u8) {
        self.writer.put(self.field << 1 | u8::from(has_mask));
        self.writer.put(length);
    }

    fn exact<T: Octets>(&mut self, value: T) {
        self.head(false, T::SIZE);
        self.writer.put(value);
    }

    fn masked<T: Octets>(&mut self, value: T, mask: Option<T>) {
        let Some(mask) = mask else {
            return self.exact(value);
        };
        self.head(true, 2 * T::SIZE);
        self.writer.put(value);
        self.writer.put(mask);
    }
}

/// What follows the head of a field that was received.
struct Payload<'a> {
    has_mask: bool,
    body: Reader<'a>,
}

impl Payload<'_> {
    fn exact<T: Fixed>(mut self) -> Result<T, DecodeError> {
        let value = self.body.get()?;
        self.body.finished()?;
        Ok(value)
    }

    fn masked<T: Fixed>(
        mut self,
        field: impl FnOnce(T, Option<T>) -> Field,
    ) -> Result<Field, DecodeError> {
        let value = self.body.get()?;
        let mask = self.has_mask.then(|| self.body.get()).transpose()?;
        self.body.finished()?;
        Ok(field(value, mask))
    }
}
