//! A frame walked through the programs of all switches: the rules held against their purpose.
//!
//! * [`held`]: a switch that holds what messages have made.
//! * [`site`]: networks and slices of any shape.
//! * `properties`: what must be true of every one of them.
//! * `transitions`: and on the way from one state to the next.

pub(in crate::fabric) mod held;
mod properties;
pub(in crate::fabric) mod site;
mod transitions;

use super::frames::{ARP, IPV4, IPV6};
use dtn_api::{MacAddress, Name};
use dtn_openflow::{Field, VLAN_PRESENT};
use held::Held;
use site::Site;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

/// A frame, as far as rules look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) src: MacAddress,
    pub(super) dst: MacAddress,
    /// The outermost last.
    pub(super) vlans: Vec<u16>,
    pub(super) body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// UDP over IPv4.
    V4 {
        from: Ipv4Addr,
    },
    /// UDP over IPv6.
    V6 {
        from: Ipv6Addr,
    },
    Arp {
        sha: MacAddress,
        spa: Ipv4Addr,
    },
    /// Neighbour discovery of an ICMPv6 type.
    Nd {
        kind: u8,
        from: Ipv6Addr,
        target: Ipv6Addr,
    },
}

fn covers<const N: usize>(have: [u8; N], value: [u8; N], mask: Option<[u8; N]>) -> bool {
    let mask = mask.unwrap_or([0xff; N]);
    (0..N).all(|n| have[n] & mask[n] == value[n])
}

impl Frame {
    pub(super) fn new(src: MacAddress, dst: MacAddress, body: Body) -> Self {
        let vlans = Vec::new();
        Self {
            src,
            dst,
            vlans,
            body,
        }
    }
    /// Whether a field of a match is true of it.
    pub(super) fn is(&self, field: &Field, in_port: u32, metadata: u64) -> bool {
        match *field {
            Field::InPort(port) => port == in_port,
            Field::Metadata { value, mask } => metadata & mask.unwrap_or(u64::MAX) == value,
            Field::EthDst { value, mask } => covers(self.dst.bytes(), value, mask),
            Field::EthSrc { value, mask } => covers(self.src.bytes(), value, mask),
            Field::EthType(kind) => {
                kind == match self.body {
                    Body::V4 { .. } => IPV4,
                    Body::Arp { .. } => ARP,
                    Body::V6 { .. } | Body::Nd { .. } => IPV6,
                }
            }
            Field::VlanVid {
                value: 0,
                mask: None,
            } => self.vlans.is_empty(),
            Field::VlanVid { value, mask: None } => {
                self.vlans.last().map(|vlan| vlan | VLAN_PRESENT) == Some(value)
            }
            Field::IpProto(proto) => {
                proto
                    == match self.body {
                        Body::Nd { .. } => 58,
                        _ => 17,
                    }
            }
            Field::Ipv4Src { addr, mask } => match self.body {
                Body::V4 { from } => covers(from.octets(), addr.octets(), mask.map(|m| m.octets())),
                _ => panic!("an IPv4 address is asked of {self:?}"),
            },
            Field::Ipv6Src { addr, mask } => match self.body {
                Body::V6 { from } | Body::Nd { from, .. } => {
                    covers(from.octets(), addr.octets(), mask.map(|m| m.octets()))
                }
                _ => panic!("an IPv6 address is asked of {self:?}"),
            },
            Field::Icmpv6Type(wanted) => match self.body {
                Body::Nd { kind, .. } => kind == wanted,
                _ => panic!("a type of discovery is asked of {self:?}"),
            },
            Field::Icmpv6Code(code) => code == 0,
            Field::Ipv6NdTarget(wanted) => match self.body {
                Body::Nd { target, .. } => target == wanted,
                _ => panic!("a target is asked of {self:?}"),
            },
            Field::ArpSpa { addr, mask: None } => match self.body {
                Body::Arp { spa, .. } => spa == addr,
                _ => panic!("ARP is asked of {self:?}"),
            },
            Field::ArpSha(wanted) => match self.body {
                Body::Arp { sha, .. } => sha.bytes() == wanted,
                _ => panic!("ARP is asked of {self:?}"),
            },
            ref other => panic!("no rule of ours has {other:?}"),
        }
    }
}

/// A frame that has left the fabric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Where.
    pub(super) at: (Name, u32),
    /// As what.
    pub(super) frame: Frame,
    /// The meters that it met, with their switches.
    pub(super) meters: Vec<(Name, u32)>,
}

/// Where a frame comes out that enters here.
pub(super) fn walk(
    site: &Site,
    switches: &BTreeMap<Name, Held>,
    from: &(Name, u32),
    frame: Frame,
) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    let mut flying = vec![(from.clone(), frame, Vec::new(), 0)];
    while let Some(((switch, port), frame, mut meters, hops)) = flying.pop() {
        assert!(hops <= switches.len(), "{frame:?} goes round");
        let (met, out) = switches[&switch].run(port, frame);
        meters.extend(met.into_iter().map(|id| (switch.clone(), id)));
        for (port, frame) in out {
            let at = (switch.clone(), port);
            match site.wires.get(&at) {
                Some(far) => flying.push((far.clone(), frame, meters.clone(), hops + 1)),
                None => arrivals.push(Arrival {
                    at,
                    frame,
                    meters: meters.clone(),
                }),
            }
        }
    }
    arrivals
}
