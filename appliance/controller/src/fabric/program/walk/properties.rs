//! What must be true of every network and all slices on it.

use super::{
    Arrival, Body, Frame,
    held::Held,
    site::{NICS, Site, Wish, mixed_sites, place, switch, wishes},
    walk,
};
use crate::fabric::{
    Attached, Intent,
    program::frames::{ADVERTISEMENT, SOLICITATION, link_local},
};
use dtn_api::{MacAddress, Name, slice::Class};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

pub(super) const BROADCAST: MacAddress = MacAddress::new([0xff; 6]);
pub(super) const V6_NODES: MacAddress = MacAddress::new([0x33, 0x33, 0, 0, 0, 1]);
const V4_MDNS: MacAddress = MacAddress::new([1, 0, 0x5e, 0, 0, 0xfb]);
const STRANGER: MacAddress = MacAddress::new([2, 0, 0, 0, 9, 9]);

/// What a member may send of its own.
pub(super) fn packets(member: &Attached) -> Vec<Body> {
    let packet = |ip: &IpAddr| match *ip {
        IpAddr::V4(from) => Body::V4 { from },
        IpAddr::V6(from) => Body::V6 { from },
    };
    member.ips.iter().map(packet).collect()
}
fn solicit(from: Ipv6Addr) -> Body {
    Body::Nd {
        kind: SOLICITATION,
        from,
        target: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xff),
    }
}
fn advertise(from: Ipv6Addr, target: Ipv6Addr) -> Body {
    Body::Nd {
        kind: ADVERTISEMENT,
        from,
        target,
    }
}
/// How a member finds others, and lets itself be found.
pub(super) fn discoveries(member: &Attached) -> Vec<(MacAddress, Body)> {
    let sha = member.mac;
    let own = link_local(member.mac);
    let of = |ip: &IpAddr| match *ip {
        IpAddr::V4(spa) => vec![(BROADCAST, Body::Arp { sha, spa })],
        IpAddr::V6(ip) => [
            solicit(ip),
            solicit(own),
            solicit("fe80::1234".parse().unwrap()),
            solicit(Ipv6Addr::UNSPECIFIED),
            advertise(ip, ip),
            advertise(own, ip),
            advertise(own, own),
        ]
        .map(|body| (V6_NODES, body))
        .to_vec(),
    };
    member.ips.iter().flat_map(of).collect()
}

struct Looked<'a> {
    site: &'a Site,
    switches: &'a BTreeMap<Name, Held>,
    intent: &'a Intent,
}
impl Looked<'_> {
    fn send(&self, from: &Attached, src: MacAddress, dst: MacAddress, body: Body) -> Vec<Arrival> {
        let at = self.site.at(&from.at);
        walk(self.site, self.switches, &at, Frame::new(src, dst, body))
    }
    /// Where the slice is, but for one port, and with which VLAN a frame comes out there.
    fn everywhere_else(&self, but: &(Name, u32)) -> BTreeSet<((Name, u32), Vec<u16>)> {
        let members = self.intent.members.iter();
        let members = members.map(|m| (self.site.at(&m.at), Vec::new()));
        let border = self.intent.border.iter();
        let border = border.map(|b| (self.site.at(&b.at), vec![b.label]));
        members.chain(border).filter(|(at, _)| at != but).collect()
    }
    /// Each arrival once, as it was sent, and by the one meter of the sender's switch.
    fn arrived(
        &self,
        from: &Attached,
        arrivals: &[Arrival],
        body: Body,
        wanted: &BTreeSet<((Name, u32), Vec<u16>)>,
    ) {
        let came: BTreeSet<_> = arrivals
            .iter()
            .map(|a| (a.at.clone(), a.frame.vlans.clone()))
            .collect();
        assert_eq!(&came, wanted, "from {from:?}: {body:?}");
        assert_eq!(arrivals.len(), came.len(), "something comes twice");
        for arrival in arrivals {
            assert_eq!(arrival.frame.body, body);
            let met: Vec<&Name> = arrival.meters.iter().map(|(switch, _)| switch).collect();
            match self.intent.class {
                Class::BestEffort => assert!(met.is_empty()),
                _ => assert_eq!(met, [&from.at.switch]),
            }
        }
    }

    /// What a member may do.
    fn reaches(&self, from: &Attached) {
        let here = self.site.at(&from.at);
        for body in packets(from) {
            for to in &self.intent.members {
                let there = self.site.at(&to.at);
                // behind one port the host brings it over itself
                let wanted = (there != here).then_some((there, Vec::new()));
                let arrivals = self.send(from, from.mac, to.mac, body);
                self.arrived(from, &arrivals, body, &wanted.into_iter().collect());
            }
            let border = self.intent.border.iter();
            let beyond = border.map(|b| (self.site.at(&b.at), vec![b.label]));
            let arrivals = self.send(from, from.mac, STRANGER, body);
            self.arrived(from, &arrivals, body, &beyond.collect());
        }
        for (to, body) in discoveries(from) {
            let arrivals = self.send(from, from.mac, to, body);
            self.arrived(from, &arrivals, body, &self.everywhere_else(&here));
        }
    }

    /// What nobody may do.
    fn keeps_in(&self, from: &Attached) {
        let own = |ip: Ipv6Addr| from.ips.contains(&IpAddr::V6(ip));
        let nowhere = |src, dst, body| {
            let arrivals = self.send(from, src, dst, body);
            assert!(arrivals.is_empty(), "{src} sends {body:?} to {dst}");
        };
        for body in packets(from) {
            for to in [BROADCAST, V4_MDNS, V6_NODES] {
                nowhere(from.mac, to, body);
            }
            nowhere(STRANGER, V6_NODES, body);
        }
        let (v4, v6) = (
            Ipv4Addr::new(10, 0, 0, 200),
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 200),
        );
        for to in self.intent.members.iter().filter(|m| m.mac != from.mac) {
            for body in packets(from) {
                nowhere(STRANGER, to.mac, body);
                // its own address is in the frame, the hardware address is another's
                let neighbour = to.at.switch == from.at.switch
                    && self.site.at(&to.at) == self.site.at(&from.at);
                if !neighbour {
                    nowhere(to.mac, to.mac, body);
                }
                let mut tagged = Frame::new(from.mac, to.mac, body);
                for vlan in [self.intent.tag, 1, 4094] {
                    tagged.vlans = vec![vlan];
                    let at = self.site.at(&from.at);
                    let arrivals = walk(self.site, self.switches, &at, tagged.clone());
                    assert!(arrivals.is_empty(), "with VLAN {vlan}");
                }
            }
            // others' addresses, and one that nobody has
            for stolen in to.ips.iter().copied().chain([v4.into(), v6.into()]) {
                match stolen {
                    IpAddr::V4(ip) => {
                        nowhere(from.mac, to.mac, Body::V4 { from: ip });
                        let sha = from.mac;
                        nowhere(from.mac, BROADCAST, Body::Arp { sha, spa: ip });
                    }
                    IpAddr::V6(ip) => {
                        nowhere(from.mac, to.mac, Body::V6 { from: ip });
                        nowhere(from.mac, V6_NODES, solicit(ip));
                        for source in [link_local(from.mac), ip].into_iter().chain(
                            from.ips.iter().filter_map(|ip| match ip {
                                IpAddr::V6(ip) => Some(*ip),
                                IpAddr::V4(_) => None,
                            }),
                        ) {
                            assert!(!own(ip));
                            nowhere(from.mac, V6_NODES, advertise(source, ip));
                            nowhere(from.mac, to.mac, advertise(source, ip));
                        }
                    }
                }
            }
            for ip in &from.ips {
                if let IpAddr::V4(spa) = *ip {
                    let sha = to.mac;
                    nowhere(from.mac, BROADCAST, Body::Arp { sha, spa });
                }
            }
        }
    }

    /// What comes from the other domain.
    fn comes_from_beyond(&self) {
        let Some(border) = &self.intent.border else {
            return;
        };
        let at = self.site.at(&border.at);
        let send = |dst, vlans: Vec<u16>, body| {
            let mut frame = Frame::new(STRANGER, dst, body);
            frame.vlans = vlans;
            walk(self.site, self.switches, &at, frame)
        };
        let body = Body::V4 {
            from: Ipv4Addr::new(10, 0, 0, 200),
        };
        let label = vec![border.label];
        for member in &self.intent.members {
            let arrivals = send(member.mac, label.clone(), body);
            assert_eq!(arrivals.len(), 1);
            assert_eq!(arrivals[0].at, self.site.at(&member.at));
            assert!(arrivals[0].frame.vlans.is_empty() && arrivals[0].meters.is_empty());
            for wrong in [vec![], vec![4000], vec![self.intent.tag]] {
                assert!(send(member.mac, wrong, body).is_empty());
            }
        }
        // not back, and no other broadcast
        assert!(send(STRANGER, label.clone(), body).is_empty());
        assert!(send(BROADCAST, label.clone(), body).is_empty());
        let (sha, spa) = (STRANGER, Ipv4Addr::new(10, 0, 0, 200));
        let arrivals = send(BROADCAST, label, Body::Arp { sha, spa });
        let came: BTreeSet<_> = arrivals
            .iter()
            .map(|a| (a.at.clone(), a.frame.vlans.clone()))
            .collect();
        assert_eq!(came, self.everywhere_else(&at));
        assert_eq!(arrivals.len(), came.len());
    }
}

pub(in crate::fabric) fn holds(site: &Site, switches: &BTreeMap<Name, Held>, wishes: &[Wish]) {
    let intents: Vec<Intent> = wishes.iter().map(|wish| site.intent(wish)).collect();
    for intent in &intents {
        let looked = Looked {
            site,
            switches,
            intent,
        };
        for member in &intent.members {
            looked.reaches(member);
            looked.keeps_in(member);
        }
        looked.comes_from_beyond();
    }
    // somebody who is in no slice sends what everyone in one may send
    let members: Vec<&Attached> = intents.iter().flat_map(|i| &i.members).collect();
    for member in &members {
        let ports = (0..site.network.switches.len())
            .flat_map(|n| (0..NICS).map(move |nic| (n, place(n, &format!("nic{nic}")))));
        for (n, port) in ports {
            assert_eq!(port.switch, switch(n));
            let at = site.at(&port);
            if at == site.at(&member.at) {
                continue;
            }
            for to in &members {
                for body in packets(member) {
                    let frame = Frame::new(member.mac, to.mac, body);
                    assert!(walk(site, switches, &at, frame).is_empty());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Members of a slice reach each other, once and by one meter; nobody reaches anything else.
    #[test]
    fn slices_are_whole_and_apart(site in mixed_sites(), wishes in wishes(1..4)) {
        let intents: Vec<Intent> = wishes.iter().map(|wish| site.intent(wish)).collect();
        let mut switches = BTreeMap::new();
        let refused = site.program(&intents, &mut switches, |_| ());
        prop_assert_eq!(refused, Vec::new());
        holds(&site, &switches, &wishes);
    }
}
