//! A frame walked through the programs of all switches: the rules held against their purpose.
//!
//! * [`held`]: a switch that holds what messages have made.
//! * [`site`]: networks and slices of any shape.
//! * `properties`: what must be true of every one of them.
//! * `transitions`: and on the way from one state to the next.
//! * `gateways`: who passes a gateway, and while its rules change.

mod gateways;
pub(in crate::fabric) mod held;
pub(in crate::fabric) mod properties;
pub(in crate::fabric) mod site;
pub(in crate::fabric) mod transitions;

use super::frames::{ARP, IPV4, IPV6};
use dtn_api::{MacAddress, Name};
use dtn_openflow::{Field, VLAN_PRESENT};
use held::Held;
use site::Site;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
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

fn v4(have: IpAddr, addr: Ipv4Addr, mask: Option<Ipv4Addr>) -> bool {
    match have {
        IpAddr::V4(ip) => covers(ip.octets(), addr.octets(), mask.map(|m| m.octets())),
        IpAddr::V6(ip) => panic!("an IPv4 address is asked of a packet with {ip}"),
    }
}
fn v6(have: IpAddr, addr: Ipv6Addr, mask: Option<Ipv6Addr>) -> bool {
    match have {
        IpAddr::V6(ip) => covers(ip.octets(), addr.octets(), mask.map(|m| m.octets())),
        IpAddr::V4(ip) => panic!("an IPv6 address is asked of a packet with {ip}"),
    }
}

/// A packet, as far as access rules look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ip {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) proto: u8,
    /// Source and destination, where the protocol has some.
    pub(super) ports: (u16, u16),
    /// The type, where it is ICMP.
    pub(super) kind: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Ip(Ip),
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

impl Body {
    /// What it is as a packet.
    fn ip(&self) -> Option<Ip> {
        let packet = |from: IpAddr, to: IpAddr, proto, kind| {
            let ports = (0, 0);
            Some(Ip {
                from,
                to,
                proto,
                ports,
                kind,
            })
        };
        match *self {
            Self::Ip(ip) => Some(ip),
            Self::V4 { from } => packet(from.into(), Ipv4Addr::UNSPECIFIED.into(), 17, 0),
            Self::V6 { from } => packet(from.into(), Ipv6Addr::UNSPECIFIED.into(), 17, 0),
            Self::Nd { kind, from, .. } => {
                packet(from.into(), Ipv6Addr::UNSPECIFIED.into(), 58, kind)
            }
            Self::Arp { .. } => None,
        }
    }
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
    fn packet(&self) -> Ip {
        let packet = self.body.ip();
        packet.unwrap_or_else(|| panic!("a packet is asked of {self:?}"))
    }
    fn port(&self, proto: u8, source: bool, value: u16, mask: Option<u16>) -> bool {
        let packet = self.packet();
        assert_eq!(packet.proto, proto, "a port is asked of {self:?}");
        let (from, to) = packet.ports;
        let port = if source { from } else { to };
        port & mask.unwrap_or(u16::MAX) == value
    }
    fn kind(&self, proto: u8) -> u8 {
        let packet = self.packet();
        assert_eq!(packet.proto, proto, "a type is asked of {self:?}");
        packet.kind
    }
    /// Whether a field of a match is true of it.
    pub(super) fn is(&self, field: &Field, in_port: u32, metadata: u64) -> bool {
        match *field {
            Field::InPort(port) => port == in_port,
            Field::Metadata { value, mask } => metadata & mask.unwrap_or(u64::MAX) == value,
            Field::EthDst { value, mask } => covers(self.dst.bytes(), value, mask),
            Field::EthSrc { value, mask } => covers(self.src.bytes(), value, mask),
            Field::EthType(kind) => {
                kind == match self.body.ip() {
                    None => ARP,
                    Some(ip) if ip.from.is_ipv4() => IPV4,
                    Some(_) => IPV6,
                }
            }
            Field::VlanVid {
                value: 0,
                mask: None,
            } => self.vlans.is_empty(),
            Field::VlanVid { value, mask: None } => {
                self.vlans.last().map(|vlan| vlan | VLAN_PRESENT) == Some(value)
            }
            Field::IpProto(proto) => self.packet().proto == proto,
            Field::Ipv4Src { addr, mask } => v4(self.packet().from, addr, mask),
            Field::Ipv4Dst { addr, mask } => v4(self.packet().to, addr, mask),
            Field::Ipv6Src { addr, mask } => v6(self.packet().from, addr, mask),
            Field::Ipv6Dst { addr, mask } => v6(self.packet().to, addr, mask),
            Field::TcpSrc { value, mask } => self.port(6, true, value, mask),
            Field::TcpDst { value, mask } => self.port(6, false, value, mask),
            Field::UdpSrc { value, mask } => self.port(17, true, value, mask),
            Field::UdpDst { value, mask } => self.port(17, false, value, mask),
            Field::SctpSrc { value, mask } => self.port(132, true, value, mask),
            Field::SctpDst { value, mask } => self.port(132, false, value, mask),
            Field::Icmpv4Type(kind) => self.kind(1) == kind,
            Field::Icmpv6Type(kind) => self.kind(58) == kind,
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
