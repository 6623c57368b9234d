//! One way to write each field: a switch may answer with a mask of all ones where none was sent, or
//! leave out a field whose mask asks for nothing; compared, they must be equal.

use crate::Field;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A value whose bits can be masked.
trait Bits: Copy + PartialEq {
    const ALL: Self;
    const NONE: Self;
    fn and(self, mask: Self) -> Self;
}

macro_rules! integers {
    ($($kind:ty),*) => {$(
        impl Bits for $kind {
            const ALL: Self = Self::MAX;
            const NONE: Self = 0;
            fn and(self, mask: Self) -> Self {
                self & mask
            }
        }
    )*};
}

integers!(u16, u64);

impl Bits for [u8; 6] {
    const ALL: Self = [0xff; 6];
    const NONE: Self = [0; 6];
    fn and(self, mask: Self) -> Self {
        std::array::from_fn(|at| self[at] & mask[at])
    }
}

impl Bits for Ipv4Addr {
    const ALL: Self = Self::BROADCAST;
    const NONE: Self = Self::UNSPECIFIED;
    fn and(self, mask: Self) -> Self {
        Self::from_bits(self.to_bits() & mask.to_bits())
    }
}

impl Bits for Ipv6Addr {
    const ALL: Self = Self::from_bits(u128::MAX);
    const NONE: Self = Self::UNSPECIFIED;
    fn and(self, mask: Self) -> Self {
        Self::from_bits(self.to_bits() & mask.to_bits())
    }
}

/// The same condition in its shortest form; none when it holds for every packet.
fn settled<T: Bits>(
    value: T,
    mask: Option<T>,
    all: T,
    field: impl FnOnce(T, Option<T>) -> Field,
) -> Option<Field> {
    match mask.map(|mask| mask.and(all)) {
        None => Some(field(value, None)),
        Some(mask) if mask == T::NONE => None,
        Some(mask) if mask == all => Some(field(value.and(all), None)),
        Some(mask) => Some(field(value.and(mask), Some(mask))),
    }
}

/// The field in its one form; none when its mask lets every packet through.
pub(crate) fn canonical(field: Field) -> Option<Field> {
    macro_rules! masked {
        ($name:ident, $value:ident, $mask:ident, $all:expr) => {
            settled($value, $mask, $all, |$value, $mask| Field::$name {
                $value,
                $mask,
            })
        };
    }
    match field {
        Field::Metadata { value, mask } => masked!(Metadata, value, mask, u64::ALL),
        Field::EthDst { value, mask } => masked!(EthDst, value, mask, <[u8; 6]>::ALL),
        Field::EthSrc { value, mask } => masked!(EthSrc, value, mask, <[u8; 6]>::ALL),
        // thirteen bits: the twelve of the VLAN and the one that says that there is a tag
        Field::VlanVid { value, mask } => masked!(VlanVid, value, mask, 0x1fff),
        Field::Ipv4Src { addr, mask } => masked!(Ipv4Src, addr, mask, Ipv4Addr::ALL),
        Field::Ipv4Dst { addr, mask } => masked!(Ipv4Dst, addr, mask, Ipv4Addr::ALL),
        Field::TcpSrc { value, mask } => masked!(TcpSrc, value, mask, u16::ALL),
        Field::TcpDst { value, mask } => masked!(TcpDst, value, mask, u16::ALL),
        Field::UdpSrc { value, mask } => masked!(UdpSrc, value, mask, u16::ALL),
        Field::UdpDst { value, mask } => masked!(UdpDst, value, mask, u16::ALL),
        Field::SctpSrc { value, mask } => masked!(SctpSrc, value, mask, u16::ALL),
        Field::SctpDst { value, mask } => masked!(SctpDst, value, mask, u16::ALL),
        Field::ArpSpa { addr, mask } => masked!(ArpSpa, addr, mask, Ipv4Addr::ALL),
        Field::ArpTpa { addr, mask } => masked!(ArpTpa, addr, mask, Ipv4Addr::ALL),
        Field::Ipv6Src { addr, mask } => masked!(Ipv6Src, addr, mask, Ipv6Addr::ALL),
        Field::Ipv6Dst { addr, mask } => masked!(Ipv6Dst, addr, mask, Ipv6Addr::ALL),
        Field::TunnelId { value, mask } => masked!(TunnelId, value, mask, u64::ALL),
        exact => Some(exact),
    }
}
