//! Who may pass the gateway of a slice: its access rules as rules of table 10. Pure. What they mean is
//! said by `decide` of dtn-api, and by nothing here.
//!
//! They stand at the switches where frames of the slice enter: what goes to the gateway is judged
//! where its sender is, what comes from it where it is itself, and nothing is judged twice. From the
//! highest priority down:
//!
//! * what the gateway itself says or is told passes, as does what finds hardware addresses;
//! * what it brings from outside with an address of inside is dropped: sources of members are held
//!   to their ports by table 0, and nobody outside is one of them;
//! * the rules, by their numbers; an `allow` with its answers, addresses and ports exchanged. Whether
//!   an answer answers something is not asked: that is for the gateway's host, which knows
//!   connections;
//! * what says that a packet could not be delivered passes inwards where anything is allowed, since
//!   without it no sender learns the path's MTU (RFC 1191, RFC 8201);
//! * whatever else goes to the gateway or comes from it is dropped, and counted;
//! * everything else of the slice passes: members among themselves.
//!
//! A switch finds no ports in a fragment, and an Open vSwitch takes them as 0 (its `frags=normal`), in
//! the first one too: fragments meet the rules that ask for no port, or for 0 among others.
//!
//! A switch cannot exchange many rules at once. What drops goes in before what passes and is taken
//! out after it ([`crate::fabric::difference::Step`]), so that while a list changes what passes is
//! allowed by the old list or by the new one, and the last rule, that drops, is never away.

use super::{
    Purpose, Then,
    frames::{ARP, IPV4, IPV6, any_discovery, tagged},
    ports::masked,
};
use crate::fabric::Access;
use dtn_api::{
    MacAddress,
    gateway::{AccessAction, AccessMatch, AccessRule, Direction, PortRange, Protocol},
};
use dtn_openflow::{Field, Match};
use ipnet::IpNet;
use std::{collections::BTreeSet, net::IpAddr};

/// Most rules of table 10 that the access rules of one slice may become; a switch has room for some
/// ten thousand.
pub const MOST: usize = 16_384;

/// ICMP types that are about another packet: destination unreachable, time exceeded, parameter
/// problem (RFC 792).
const ERRORS_V4: [u8; 3] = [3, 11, 12];
/// The same of ICMPv6, with packet too big (RFC 4443 §3).
const ERRORS_V6: [u8; 4] = [1, 2, 3, 4];

/// Whose frames enter at a switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Entering {
    /// The gateway's.
    pub(super) gateway: bool,
    /// Those of members that are not it.
    pub(super) members: bool,
    /// Those of another domain.
    pub(super) border: bool,
}

/// A rule of table 10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) purpose: Purpose,
    /// The access rule's number; 0 where it is none.
    pub(super) number: u16,
    pub(super) matches: Match,
    pub(super) then: Then,
}

/// The priority of an access rule: the lower its number, the higher.
pub const fn priority(number: u16) -> u16 {
    Purpose::Allow.place().1.saturating_sub(number)
}

/// How many rules of table 10 an access rule becomes at most, for each family of addresses.
pub fn weight(rule: &AccessRule) -> usize {
    let ways = rule.ways();
    let each = ways.iter().map(|(_, packets)| {
        let ports = blocks(&packets.src_ports).len() * blocks(&packets.dst_ports).len();
        ports * protocols(packets).len()
    });
    each.sum()
}

/// Whether an access rule asks for ports under a mask: for more than one, and not for all.
pub fn has_ranges(rule: &AccessRule) -> bool {
    let lists = [&rule.packets.src_ports, &rule.packets.dst_ports];
    let blocks = lists.into_iter().flat_map(|ports| blocks(ports));
    let masks = blocks.flatten().map(|(_, mask)| mask);
    masks.into_iter().any(|mask| mask != 0 && mask != u16::MAX)
}

/// Why the rules cannot be had; then the gateway is shut, and only what it says itself passes.
pub(super) fn refusal(access: &Access) -> Option<String> {
    let families = families(&access.subnets).len();
    let all: usize = access.rules.iter().map(weight).sum::<usize>() * families;
    (all > MOST).then(|| {
        format!(
            "its access rules take {all} rules in a switch, more than {MOST}, so its gateway is \
             shut: write fewer of them, or ranges of ports that begin and end at multiples of a \
             power of two"
        )
    })
}

/// The rules of table 10 at a switch, without the one that passes everything else. `own` are the
/// gateway's addresses in the slice.
pub(super) fn judgements(
    tag: u16,
    access: &Access,
    own: &[IpAddr],
    entering: Entering,
) -> Vec<Judgement> {
    let mut pen = Pen {
        tag,
        gateway: access.gateway,
        all: Vec::new(),
    };
    let inward = entering.members || entering.border;
    if entering.border {
        pen.resolve();
    }
    for ip in own {
        if entering.gateway {
            let from = net(true, IpNet::from(*ip));
            pen.write(Purpose::Own, Direction::Inbound, from);
        }
        if inward {
            let to = net(false, IpNet::from(*ip));
            pen.write(Purpose::Own, Direction::Outbound, to);
        }
    }
    if entering.gateway {
        for subnet in &access.subnets {
            pen.write(Purpose::Posed, Direction::Inbound, net(true, *subnet));
        }
    }
    if refusal(access).is_none() {
        let families = families(&access.subnets);
        for rule in &access.rules {
            pen.judge(rule, &families, entering.gateway, inward);
        }
        let allowed = |rule: &AccessRule| rule.action == AccessAction::Allow;
        if entering.gateway && access.rules.iter().any(allowed) {
            for v6 in &families {
                pen.errors(*v6);
            }
        }
    }
    pen.write(Purpose::Denied, Direction::Inbound, Vec::new());
    pen.write(Purpose::Denied, Direction::Outbound, Vec::new());
    pen.all
}

/// Writes rules of table 10.
struct Pen {
    tag: u16,
    gateway: MacAddress,
    all: Vec<Judgement>,
}
impl Pen {
    fn put(&mut self, purpose: Purpose, number: u16, matches: Match) {
        let then = match purpose {
            Purpose::Posed | Purpose::Deny | Purpose::Denied => Then::Drop,
            _ => Then::Pass,
        };
        self.all.push(Judgement {
            purpose,
            number,
            matches,
            then,
        });
    }
    /// For what goes one way through the gateway.
    fn way(&mut self, purpose: Purpose, number: u16, way: Direction, mut fields: Vec<Field>) {
        let (value, mask) = (self.gateway.bytes(), None);
        fields.push(match way {
            Direction::Inbound => Field::EthSrc { value, mask },
            Direction::Outbound => Field::EthDst { value, mask },
        });
        let matches = tagged(self.tag, fields);
        self.put(purpose, number, matches);
    }
    fn write(&mut self, purpose: Purpose, way: Direction, fields: Vec<Field>) {
        self.way(purpose, 0, way, fields);
    }
    /// What comes over a border has not been told apart at a member's port.
    fn resolve(&mut self) {
        let arp = tagged(self.tag, vec![Field::EthType(ARP)]);
        let discovery = any_discovery().map(|matches| tagged(self.tag, matches.0));
        for matches in [arp].into_iter().chain(discovery) {
            self.put(Purpose::Resolve, 0, matches);
        }
    }
    fn judge(&mut self, rule: &AccessRule, families: &BTreeSet<bool>, inward: bool, outward: bool) {
        let purpose = match rule.action {
            AccessAction::Allow => Purpose::Allow,
            AccessAction::Deny => Purpose::Deny,
        };
        for (way, packets) in rule.ways() {
            let here = match way {
                Direction::Inbound => inward,
                Direction::Outbound => outward,
            };
            if !here {
                continue;
            }
            for v6 in families {
                for fields in of(&packets, *v6) {
                    self.way(purpose, rule.priority, way, fields);
                }
            }
        }
    }
    fn errors(&mut self, v6: bool) {
        let kinds: Vec<Field> = if v6 {
            ERRORS_V6.map(Field::Icmpv6Type).to_vec()
        } else {
            ERRORS_V4.map(Field::Icmpv4Type).to_vec()
        };
        for kind in kinds {
            let proto = Field::IpProto(Protocol::Icmp.number(v6));
            let fields = vec![family(v6), proto, kind];
            self.write(Purpose::Error, Direction::Inbound, fields);
        }
    }
}

/// The families of addresses that a slice has; true is IPv6.
fn families(subnets: &[IpNet]) -> BTreeSet<bool> {
    subnets
        .iter()
        .map(|net| matches!(net, IpNet::V6(_)))
        .collect()
}
fn family(v6: bool) -> Field {
    Field::EthType(if v6 { IPV6 } else { IPV4 })
}

/// Packets from or to a network.
fn net(from: bool, net: IpNet) -> Vec<Field> {
    let address = match net {
        IpNet::V4(net) => {
            let (addr, mask) = (net.network(), Some(net.netmask()));
            match from {
                true => Field::Ipv4Src { addr, mask },
                false => Field::Ipv4Dst { addr, mask },
            }
        }
        IpNet::V6(net) => {
            let (addr, mask) = (net.network(), Some(net.netmask()));
            match from {
                true => Field::Ipv6Src { addr, mask },
                false => Field::Ipv6Dst { addr, mask },
            }
        }
    };
    vec![family(matches!(net, IpNet::V6(_))), address]
}

/// The packets of one family that a match is about, each once; none where it names the other one.
fn of(packets: &AccessMatch, v6: bool) -> Vec<Vec<Field>> {
    let nets = [(true, packets.src), (false, packets.dst)];
    let other = |net: IpNet| matches!(net, IpNet::V6(_)) != v6;
    if nets.iter().any(|(_, net)| net.is_some_and(other)) {
        return Vec::new();
    }
    let mut base = vec![family(v6)];
    for (from, there) in nets {
        base.extend(there.into_iter().flat_map(|there| net(from, there)));
    }
    let mut all = Vec::new();
    let (sources, targets) = (blocks(&packets.src_ports), blocks(&packets.dst_ports));
    for proto in protocols(packets) {
        for source in &sources {
            for target in &targets {
                let mut fields = base.clone();
                if let Some(proto) = proto {
                    fields.push(Field::IpProto(proto.number(v6)));
                    fields.extend(source.and_then(|block| port(proto, true, block)));
                    fields.extend(target.and_then(|block| port(proto, false, block)));
                }
                all.push(fields);
            }
        }
    }
    all
}

/// The protocols that a match must name in a switch: where it asks for ports, those that have some.
fn protocols(packets: &AccessMatch) -> Vec<Option<Protocol>> {
    let ports = !(packets.src_ports.is_empty() && packets.dst_ports.is_empty());
    match packets.proto {
        Some(proto) if ports && !proto.has_ports() => Vec::new(),
        Some(proto) => vec![Some(proto)],
        None if ports => [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .map(Some)
            .to_vec(),
        None => vec![None],
    }
}

fn port(proto: Protocol, from: bool, (value, mask): (u16, u16)) -> Option<Field> {
    let mask = Some(mask);
    Some(match (proto, from) {
        (Protocol::Tcp, true) => Field::TcpSrc { value, mask },
        (Protocol::Tcp, false) => Field::TcpDst { value, mask },
        (Protocol::Udp, true) => Field::UdpSrc { value, mask },
        (Protocol::Udp, false) => Field::UdpDst { value, mask },
        (Protocol::Sctp, true) => Field::SctpSrc { value, mask },
        (Protocol::Sctp, false) => Field::SctpDst { value, mask },
        (Protocol::Icmp, _) => return None,
    })
}

/// Ports as values under masks, each port in one of them; where any will do, nothing is asked.
fn blocks(ports: &[PortRange]) -> Vec<Option<(u16, u16)>> {
    if ports.is_empty() {
        return vec![None];
    }
    let mut sorted: Vec<(u16, u16)> = ports.iter().map(|r| (r.first(), r.last())).collect();
    sorted.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (first, last) in sorted {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    let all = joined.into_iter().flat_map(|(a, b)| masked(a, b));
    all.map(Some).collect()
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
