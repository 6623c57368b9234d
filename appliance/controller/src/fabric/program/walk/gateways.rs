//! Who passes a gateway: exactly whom `decide` lets pass, at every instant of a change whom the old
//! rules or the new ones let pass, and nobody into another slice.

use super::{
    Arrival, Body, Frame, Ip,
    held::Held,
    site::{Site, Wish, place, sites, wishes},
    walk,
};
use crate::fabric::{Access, Attached, Intent};
use dtn_api::{
    MacAddress, Name,
    gateway::{
        AccessAction, AccessMatch, AccessRule, Direction, Packet, PortRange, Protocol, decide,
    },
};
use proptest::{prelude::*, sample::select};
use std::{collections::BTreeMap, net::IpAddr};

const STRANGER: MacAddress = MacAddress::new([2, 0, 0, 0, 9, 9]);
const OUTSIDE: [&str; 5] = [
    "192.0.2.1",
    "192.0.2.70",
    "198.51.100.7",
    "2001:db8::7",
    "2001:db8:1::1",
];
const NETS: [&str; 9] = [
    "10.0.0.0/24",
    "10.0.0.0/29",
    "10.0.0.3/32",
    "192.0.2.0/24",
    "192.0.2.64/26",
    "fd00::/64",
    "fd00::/125",
    "2001:db8::/32",
    "2001:db8::7/128",
];
const PORTS: [u16; 6] = [0, 22, 443, 1000, 1500, 65_535];
const RANGES: [&str; 6] = [
    "22",
    "0-65535",
    "443-1000",
    "444-1499",
    "1000-1500",
    "1-65535",
];

/// A rule as a list may have it: ports only where there are some.
fn rule() -> impl Strategy<Value = (AccessAction, Direction, AccessMatch)> {
    let net = || proptest::option::weighted(0.4, select(&NETS[..]));
    let proto = select(vec![
        None,
        Some(Protocol::Tcp),
        Some(Protocol::Udp),
        Some(Protocol::Sctp),
        Some(Protocol::Icmp),
    ]);
    let ports = || proptest::collection::vec(select(&RANGES[..]), 0..3);
    let heads = (any::<bool>(), any::<bool>());
    (heads, net(), net(), proto, ports(), ports()).prop_map(
        |((deny, inbound), src, dst, proto, src_ports, dst_ports)| {
            let ranges = |texts: Vec<&str>| -> Vec<PortRange> {
                let ported = proto.is_some_and(Protocol::has_ports);
                let texts = texts.into_iter().filter(|_| ported);
                texts.map(|text| text.parse().unwrap()).collect()
            };
            let packets = AccessMatch {
                src: src.map(|net| net.parse().unwrap()),
                dst: dst.map(|net| net.parse().unwrap()),
                proto,
                src_ports: ranges(src_ports),
                dst_ports: ranges(dst_ports),
            };
            let action = [AccessAction::Allow, AccessAction::Deny][usize::from(deny)];
            let way = [Direction::Outbound, Direction::Inbound][usize::from(inbound)];
            (action, way, packets)
        },
    )
}
/// A list of some, numbered at random.
fn rules() -> impl Strategy<Value = Vec<AccessRule>> {
    proptest::collection::btree_map(1..30_u16, rule(), 0..6).prop_map(|rules| {
        let rules = rules.into_iter();
        let of = |(priority, (action, direction, packets))| AccessRule {
            priority,
            action,
            direction,
            slice: None,
            tenant: "default".parse().unwrap(),
            packets,
            stateful: false,
            schedule: None,
            log: false,
            note: String::new(),
        };
        rules.map(of).collect()
    })
}

/// What packets carry: protocol, ports, type.
type Carried = (Option<Protocol>, (u16, u16), u8);
fn carried() -> impl Strategy<Value = Vec<Carried>> {
    let proto = select(vec![
        None,
        Some(Protocol::Tcp),
        Some(Protocol::Udp),
        Some(Protocol::Sctp),
        Some(Protocol::Icmp),
    ]);
    let ports = (select(&PORTS[..]), select(&PORTS[..]));
    let kinds = select(vec![3_u8, 11, 8, 4, 128, 1]);
    proptest::collection::vec((proto, ports, kinds), 4..8)
}

/// A packet for a switch, and the same for `decide`.
fn packet(way: Direction, from: IpAddr, to: IpAddr, (proto, ports, kind): Carried) -> (Ip, Packet) {
    let ported = proto.is_some_and(Protocol::has_ports);
    let ports = if ported { ports } else { (0, 0) };
    let number = proto.map_or(47, |proto| proto.number(from.is_ipv6()));
    let ip = Ip {
        from,
        to,
        proto: number,
        ports,
        kind,
    };
    let packet = Packet {
        direction: way,
        src: from,
        dst: to,
        proto,
        src_port: ports.0,
        dst_port: ports.1,
    };
    (ip, packet)
}

/// Whether rules let a packet pass; errors about others pass inwards where anything may.
fn passes(rules: &[AccessRule], packet: &Packet, kind: u8) -> bool {
    let allows = |rule: &AccessRule| rule.action == AccessAction::Allow;
    let errors: &[u8] = match packet.src {
        IpAddr::V4(_) => &[3, 11, 12],
        IpAddr::V6(_) => &[1, 2, 3, 4],
    };
    let error = packet.direction == Direction::Inbound
        && packet.proto == Some(Protocol::Icmp)
        && errors.contains(&kind);
    match decide(rules, packet) {
        Some(rule) => allows(rule),
        None => error && rules.iter().any(allows),
    }
}

/// A slice of which one member is a gateway.
#[derive(Clone)]
struct Gated {
    intent: Intent,
    gateway: Attached,
}
impl Gated {
    fn of(site: &Site, wish: &Wish, rules: Vec<AccessRule>) -> Option<Self> {
        let gateway = site.host(*wish.hosts.iter().next()?);
        let mut intent = site.intent(wish);
        intent.access = Some(Access {
            gateway: gateway.mac,
            subnets: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
            rules,
        });
        Some(Self { intent, gateway })
    }
    fn rules(&self) -> &[AccessRule] {
        let access = self.intent.access.as_ref();
        access.map_or(&[], |access| &access.rules)
    }
    fn members(&self) -> impl Iterator<Item = &Attached> {
        let members = self.intent.members.iter();
        members.filter(|member| member.mac != self.gateway.mac)
    }
    fn without(&self) -> Intent {
        let mut intent = self.intent.clone();
        intent.members.retain(|m| m.mac != self.gateway.mac);
        intent.access = None;
        intent
    }
}

struct Looked<'a> {
    site: &'a Site,
    switches: &'a BTreeMap<Name, Held>,
}
impl Looked<'_> {
    fn send(&self, at: &(Name, u32), frame: Frame) -> Vec<Arrival> {
        walk(self.site, self.switches, at, frame)
    }
    /// Whether a frame comes out at this port and nowhere else.
    fn comes(&self, from: &Attached, to: &Attached, ip: Ip) -> bool {
        let frame = Frame::new(from.mac, to.mac, Body::Ip(ip));
        let arrivals = self.send(&self.site.at(&from.at), frame);
        let there = self.site.at(&to.at);
        assert!(
            arrivals
                .iter()
                .all(|a| a.at == there && a.frame.vlans.is_empty())
        );
        assert!(arrivals.len() <= 1, "{ip:?} comes twice");
        !arrivals.is_empty()
    }
    /// Every packet between members and outside, with whether it comes through.
    fn each(&self, gated: &Gated, carried: &[Carried], mut saw: impl FnMut(Packet, u8, bool)) {
        let here = self.site.at(&gated.gateway.at);
        for member in gated.members().filter(|m| self.site.at(&m.at) != here) {
            for own in &member.ips {
                // a family that the gateway lacks does not come in there
                let has = |ip: &IpAddr| ip.is_ipv4() == own.is_ipv4();
                if !gated.gateway.ips.iter().any(has) {
                    continue;
                }
                let outside = OUTSIDE.iter().map(|ip| ip.parse::<IpAddr>().unwrap());
                for out in outside.filter(|ip| ip.is_ipv4() == own.is_ipv4()) {
                    for of in carried {
                        let (ip, meant) = packet(Direction::Outbound, *own, out, *of);
                        saw(meant, of.2, self.comes(member, &gated.gateway, ip));
                        let (ip, meant) = packet(Direction::Inbound, out, *own, *of);
                        saw(meant, of.2, self.comes(&gated.gateway, member, ip));
                    }
                }
            }
        }
    }
    /// What the gateway and members say to each other, and what nobody may say.
    fn own(&self, gated: &Gated, carried: &[Carried]) {
        let gateway = &gated.gateway;
        let apart = |m: &&Attached| self.site.at(&m.at) != self.site.at(&gateway.at);
        for member in gated.members().filter(apart) {
            for own in &gateway.ips {
                let like = |ip: &&IpAddr| ip.is_ipv4() == own.is_ipv4();
                for (ip, of) in member.ips.iter().filter(like).zip(carried) {
                    let (there, _) = packet(Direction::Inbound, *own, *ip, *of);
                    assert!(self.comes(gateway, member, there), "the gateway speaks");
                    let (back, _) = packet(Direction::Outbound, *ip, *own, *of);
                    assert!(self.comes(member, gateway, back), "it is spoken to");
                    // a member's address, and one of the subnet that nobody has
                    let free: IpAddr = match ip {
                        IpAddr::V4(_) => "10.0.0.200".parse().unwrap(),
                        IpAddr::V6(_) => "fd00::200".parse().unwrap(),
                    };
                    for posed in [*ip, free] {
                        let (ip, _) = packet(Direction::Inbound, posed, *ip, *of);
                        assert!(!self.comes(gateway, member, ip), "{posed} from outside");
                    }
                }
            }
            for other in gated.members() {
                if self.site.at(&other.at) == self.site.at(&member.at) {
                    continue;
                }
                for (ip, of) in member.ips.iter().zip(carried) {
                    let outside = OUTSIDE.iter().map(|ip| ip.parse::<IpAddr>().unwrap());
                    let mut like = outside.filter(|o| o.is_ipv4() == ip.is_ipv4());
                    let (ip, _) = packet(Direction::Outbound, *ip, like.next().unwrap(), *of);
                    assert!(self.comes(member, other, ip), "members among themselves");
                }
            }
        }
    }
    /// What another domain sends to the gateway is judged where it comes in.
    fn border(&self, gated: &Gated, carried: &[Carried]) {
        let Some(border) = &gated.intent.border else {
            return;
        };
        let (at, there) = (self.site.at(&border.at), self.site.at(&gated.gateway.at));
        let far: IpAddr = "10.0.0.99".parse().unwrap();
        for of in carried {
            let (ip, meant) = packet(Direction::Outbound, far, OUTSIDE[0].parse().unwrap(), *of);
            let mut frame = Frame::new(STRANGER, gated.gateway.mac, Body::Ip(ip));
            frame.vlans = vec![border.label];
            let came = self.send(&at, frame);
            let allowed = passes(gated.rules(), &meant, of.2);
            assert_eq!(
                came.len(),
                usize::from(allowed),
                "{meant:?} over the border"
            );
            assert!(came.iter().all(|a| a.at == there));
            if gated.gateway.ips.iter().any(IpAddr::is_ipv4) {
                let (ip, meant) = packet(Direction::Inbound, OUTSIDE[0].parse().unwrap(), far, *of);
                let frame = Frame::new(gated.gateway.mac, STRANGER, Body::Ip(ip));
                let came = self.send(&there, frame);
                let allowed = passes(gated.rules(), &meant, of.2);
                assert_eq!(came.len(), usize::from(allowed), "{meant:?} to beyond");
                assert!(
                    came.iter()
                        .all(|a| a.at == at && a.frame.vlans == [border.label])
                );
            }
        }
        // the gateway is found from there, and finds who is there
        let (sha, spa) = (STRANGER, "10.0.0.99".parse().unwrap());
        let mut frame = Frame::new(STRANGER, gated.gateway.mac, Body::Arp { sha, spa });
        frame.vlans = vec![border.label];
        assert_eq!(
            self.send(&at, frame).len(),
            1,
            "an answer to the gateway's ARP"
        );
    }
    /// What strangers send through the gateway stays in its slice.
    fn apart(&self, gated: &Gated, others: &[Intent], carried: &[Carried]) {
        for other in others.iter().filter(|o| o.slice != gated.intent.slice) {
            for to in &other.members {
                let at = self.site.at(&gated.gateway.at);
                if self.site.at(&to.at) == at {
                    continue;
                }
                for (ip, of) in to.ips.iter().zip(carried) {
                    let like = |out: &&&str| out.contains(':') == ip.is_ipv6();
                    let out = OUTSIDE.iter().find(like).unwrap().parse().unwrap();
                    let (ip, _) = packet(Direction::Inbound, out, *ip, *of);
                    let frame = Frame::new(gated.gateway.mac, to.mac, Body::Ip(ip));
                    let came = self.send(&at, frame);
                    let beyond = gated.intent.border.iter();
                    let beyond: Vec<_> = beyond.map(|b| self.site.at(&b.at)).collect();
                    assert!(came.iter().all(|a| beyond.contains(&a.at)), "{came:?}");
                }
            }
        }
    }
}

/// The slices with the first one gated.
fn intents(site: &Site, wishes: &[Wish], gated: &Gated) -> Vec<Intent> {
    let mut all: Vec<Intent> = wishes.iter().map(|wish| site.intent(wish)).collect();
    all[0] = gated.intent.clone();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_packet_passes_when_the_rules_let_it(site in sites(), wishes in wishes(1..3), rules in rules(), carried in carried()) {
        let Some(gated) = Gated::of(&site, &wishes[0], rules) else { return Ok(()) };
        let all = intents(&site, &wishes, &gated);
        let mut switches = BTreeMap::new();
        let refused = site.program(&all, &mut switches, |_| ());
        prop_assert_eq!(refused, Vec::new());
        let (site, switches) = (&site, &switches);
        let looked = Looked { site, switches };
        looked.each(&gated, &carried, |packet, kind, came| {
            assert_eq!(came, passes(gated.rules(), &packet, kind), "{packet:?}");
        });
        looked.own(&gated, &carried);
        looked.border(&gated, &carried);
        looked.apart(&gated, &all, &carried);
    }

    /// While rules change, what passes is allowed by the old ones or by the new ones.
    #[test]
    fn nothing_passes_between_two_lists_that_neither_allows(site in sites(), wishes in wishes(1..2), old in rules(), new in rules(), carried in carried()) {
        let Some(was) = Gated::of(&site, &wishes[0], old) else { return Ok(()) };
        let Some(is) = Gated::of(&site, &wishes[0], new) else { return Ok(()) };
        let mut switches = BTreeMap::new();
        site.program(&intents(&site, &wishes, &was), &mut switches, |_| ());
        site.program(&intents(&site, &wishes, &is), &mut switches, |now| {
            let looked = Looked { site: &site, switches: now };
            looked.each(&is, &carried[..2], |packet, kind, came| {
                let either = [&was, &is].iter().any(|of| passes(of.rules(), &packet, kind));
                assert!(!came || either, "{packet:?} passes between");
            });
        });
        let looked = Looked { site: &site, switches: &switches };
        looked.each(&is, &carried, |packet, kind, came| {
            assert_eq!(came, passes(is.rules(), &packet, kind), "{packet:?}");
        });
    }

    /// A gateway that comes or goes is not reached around its rules, by nobody and not over a border.
    #[test]
    fn a_gateway_comes_and_goes_behind_its_rules(site in sites(), wishes in wishes(1..2), rules in rules(), carried in carried()) {
        let Some(gated) = Gated::of(&site, &wishes[0], rules) else { return Ok(()) };
        let without = [gated.without()];
        let with = [gated.intent.clone()];
        let mut switches = BTreeMap::new();
        site.program(&without, &mut switches, |_| ());
        let border = place(0, "border");
        let judged = |now: &BTreeMap<Name, Held>| {
            let looked = Looked { site: &site, switches: now };
            looked.seen(&gated, &carried[..2], &border);
        };
        site.program(&with, &mut switches, judged);
        site.program(&without, &mut switches, judged);
        let mut again = BTreeMap::new();
        site.program(&without, &mut again, |_| ());
        for (name, held) in &switches {
            let flows = |held: &Held| held.flows.keys().cloned().collect::<Vec<_>>();
            prop_assert_eq!(flows(held), flows(&again[name]));
        }
    }
}

impl Looked<'_> {
    /// Whatever comes to the gateway or from it is allowed.
    fn seen(&self, gated: &Gated, carried: &[Carried], border: &crate::fabric::network::Place) {
        let there = self.site.at(&gated.gateway.at);
        let out: IpAddr = OUTSIDE[0].parse().unwrap();
        for of in carried {
            for member in gated.members() {
                for own in member.ips.iter().filter(|ip| ip.is_ipv4()) {
                    let (ip, meant) = packet(Direction::Outbound, *own, out, *of);
                    let frame = Frame::new(member.mac, gated.gateway.mac, Body::Ip(ip));
                    let came = self.send(&self.site.at(&member.at), frame);
                    let reached = came.iter().any(|a| a.at == there);
                    assert!(!reached || passes(gated.rules(), &meant, of.2), "{meant:?}");
                    let (ip, meant) = packet(Direction::Inbound, out, *own, *of);
                    let frame = Frame::new(gated.gateway.mac, member.mac, Body::Ip(ip));
                    let reached = !self.send(&there, frame).is_empty();
                    assert!(!reached || passes(gated.rules(), &meant, of.2), "{meant:?}");
                }
            }
            if let Some(end) = &gated.intent.border {
                let far = "10.0.0.99".parse().unwrap();
                let (ip, meant) = packet(Direction::Outbound, far, out, *of);
                let mut frame = Frame::new(STRANGER, gated.gateway.mac, Body::Ip(ip));
                frame.vlans = vec![end.label];
                let came = self.send(&self.site.at(border), frame);
                let reached = came.iter().any(|a| a.at == there);
                assert!(!reached || passes(gated.rules(), &meant, of.2), "{meant:?}");
            }
        }
    }
}
