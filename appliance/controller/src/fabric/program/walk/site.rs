//! Networks and slices of any shape.

use super::held::Held;
use crate::fabric::{
    Attached, Border, BorderEnd, Intent,
    difference::{STEPS, difference},
    network::{Cable, Network, Place, PortRef, Switch},
    program::{Refusal, Resolved, assign, guards_of, programs, resolve},
};
use crate::labels::Labels;
use dtn_api::{MacAddress, Name, slice::Class};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use uuid::Uuid;

/// A wired network, whose ports have numbers.
#[derive(Debug, Clone, Default)]
pub(in crate::fabric) struct Site {
    pub(in crate::fabric) network: Network,
    pub(in crate::fabric) ports: BTreeMap<Name, BTreeMap<String, u32>>,
    /// Both ends of every cable, each by the other.
    pub(super) wires: BTreeMap<(Name, u32), (Name, u32)>,
}

/// How many ports for NICs every switch has.
pub(super) const NICS: usize = 3;

pub(in crate::fabric) fn switch(n: usize) -> Name {
    format!("s{n}").parse().unwrap()
}
pub(in crate::fabric) fn place(at: usize, port: &str) -> Place {
    format!("s{at}/{port}").parse().unwrap()
}

impl Site {
    /// Switch 0 and one more for each entry, which is the switch that it is joined to; a border at
    /// switch 0.
    pub(in crate::fabric) fn of(parents: &[usize]) -> Self {
        let mut site = Self::default();
        for n in 0..=parents.len() {
            site.network.switches.push(Switch {
                name: switch(n),
                datapath_id: n as u64 + 1,
                single_table: false,
            });
            for nic in 0..NICS {
                site.port(&place(n, &format!("nic{nic}")));
            }
        }
        for (n, parent) in parents.iter().enumerate() {
            let child = n + 1;
            let ends = [
                place(child, &format!("to-s{parent}")),
                place(*parent, &format!("to-s{child}")),
            ];
            let [a, b] = [site.port(&ends[0]), site.port(&ends[1])];
            site.wires.insert(a.clone(), b.clone());
            site.wires.insert(b, a);
            site.network.cables.push(Cable {
                ends,
                capacity_bps: 10_000_000_000,
                mtu: 9000,
            });
        }
        let at = place(0, "border");
        site.port(&at);
        site.network.borders.push(Border {
            name: "wan".parse().unwrap(),
            peer_domain: "far".parse().unwrap(),
            peer_ref: "wan".parse().unwrap(),
            capacity_bps: 10_000_000_000,
            latency_us: 1000,
            mtu: 9000,
            labels: Labels::default(),
            at: Some(at),
        });
        site
    }
    fn port(&mut self, at: &Place) -> (Name, u32) {
        let PortRef::Name(name) = &at.port else {
            panic!("{at} has a number already");
        };
        let ports = self.ports.entry(at.switch.clone()).or_default();
        let number = u32::try_from(ports.len()).unwrap() + 1;
        ports.insert(name.clone(), number);
        (at.switch.clone(), number)
    }
    /// A port by its number.
    pub(in crate::fabric) fn at(&self, place: &Place) -> (Name, u32) {
        let number = match &place.port {
            PortRef::Name(name) => self.ports[&place.switch][name],
            PortRef::Number(number) => *number,
        };
        (place.switch.clone(), number)
    }
    /// The cables that join these switches, and no more.
    fn tree(&self, ends: &BTreeSet<Name>) -> BTreeSet<[Name; 2]> {
        let mut cables: BTreeSet<[Name; 2]> = self
            .network
            .cables
            .iter()
            .map(|cable| {
                let mut pair = cable.ends.clone().map(|end| end.switch);
                pair.sort();
                pair
            })
            .collect();
        loop {
            let at = |name: &Name| cables.iter().filter(|c| c.contains(name)).count();
            let twig = cables
                .iter()
                .find(|c| c.iter().any(|name| at(name) == 1 && !ends.contains(name)))
                .cloned();
            match twig {
                Some(twig) => cables.remove(&twig),
                None => return cables,
            };
        }
    }

    pub(in crate::fabric) fn intent(&self, wish: &Wish) -> Intent {
        let border = wish.label.map(|label| BorderEnd {
            link: "wan".parse().unwrap(),
            at: place(0, "border"),
            label,
        });
        let members: Vec<Attached> = wish.hosts.iter().map(|host| self.host(*host)).collect();
        let ends = members.iter().map(|m| m.at.switch.clone());
        let ends = ends.chain(border.iter().map(|b| b.at.switch.clone()));
        Intent {
            slice: Uuid::from_u128(wish.slice),
            name: format!("slice-{}", wish.slice).parse().unwrap(),
            tag: wish.tag,
            class: wish.class,
            rate_bps: wish.rate_bps,
            burst_ms: 10,
            cables: self.tree(&ends.collect()),
            access: None,
            members,
            border,
        }
    }

    /// A pod that can be a member: the same number is always the same pod. They have IPv4, IPv6 or
    /// both; some share a port, some ports are named and some numbered.
    pub(super) fn host(&self, n: u8) -> Attached {
        let n = usize::from(n);
        let switches = self.network.switches.len();
        let port = place(n % switches, &format!("nic{}", n / switches % NICS));
        let number = self.at(&port).1;
        let low = u8::try_from(n).unwrap();
        let v4 = IpAddr::V4(Ipv4Addr::new(10, 0, 0, low + 1));
        let v6 = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(low) + 1));
        Attached {
            mac: MacAddress::new([2, 0, 0, 0, 1, low]),
            ips: match n % 3 {
                0 => vec![v4],
                1 => vec![v6],
                _ => vec![v4, v6],
            },
            at: match n % 2 {
                0 => port,
                _ => Place {
                    port: PortRef::Number(number),
                    ..port
                },
            },
        }
    }

    /// What is wanted of every switch, with what could not be had.
    pub(in crate::fabric) fn wanted(
        &self,
        intents: &[Intent],
        switches: &BTreeMap<Name, Held>,
    ) -> (BTreeMap<Name, Resolved>, Vec<Refusal>) {
        let programs = programs(&self.network, intents);
        let mut refused = programs.refused;
        let mut wanted = BTreeMap::new();
        for (name, program) in &programs.switches {
            let said = switches.get(name).map(Held::say).unwrap_or_default();
            let guards = guards_of(&said.flows);
            let (ids, without) = assign(&guards, &said.meters, &program.guards, 1000);
            assert!(without.is_empty());
            let (resolved, missing) = resolve(program, &self.ports[name], &ids);
            refused.extend(missing);
            wanted.insert(name.clone(), resolved);
        }
        (wanted, refused)
    }

    /// Brings all switches from what they hold to what is wanted, and looks after every step.
    pub(in crate::fabric) fn program(
        &self,
        intents: &[Intent],
        switches: &mut BTreeMap<Name, Held>,
        mut look: impl FnMut(&BTreeMap<Name, Held>),
    ) -> Vec<Refusal> {
        let (wanted, refused) = self.wanted(intents, switches);
        let changes: BTreeMap<&Name, _> = wanted
            .iter()
            .map(|(name, resolved)| {
                let said = switches.get(name).map(Held::say).unwrap_or_default();
                (name, difference(name.as_str(), resolved, &said.found()))
            })
            .collect();
        for step in STEPS {
            for (name, changes) in &changes {
                let held = switches.entry((*name).clone()).or_default();
                held.between = true;
                for message in changes.at(step) {
                    held.apply(message);
                }
                look(switches);
            }
        }
        switches.values_mut().for_each(|held| held.between = false);
        refused
    }
}

/// A slice as a test wants it.
#[derive(Debug, Clone)]
pub(in crate::fabric) struct Wish {
    pub(in crate::fabric) slice: u128,
    pub(in crate::fabric) tag: u16,
    pub(in crate::fabric) class: Class,
    pub(in crate::fabric) rate_bps: u64,
    pub(in crate::fabric) hosts: BTreeSet<u8>,
    pub(in crate::fabric) label: Option<u16>,
}

/// Trees of one to ten switches.
pub(super) fn sites() -> impl Strategy<Value = Site> {
    proptest::collection::vec(any::<prop::sample::Index>(), 0..10).prop_map(|picks| {
        let parents: Vec<usize> = picks
            .iter()
            .enumerate()
            .map(|(n, pick)| pick.index(n + 1))
            .collect();
        Site::of(&parents)
    })
}

/// The same, of which any switch may have one table only.
pub(in crate::fabric) fn mixed_sites() -> impl Strategy<Value = Site> {
    let folded = proptest::collection::vec(any::<bool>(), 11);
    (sites(), folded).prop_map(|(mut site, folded)| {
        for (switch, single) in site.network.switches.iter_mut().zip(folded) {
            switch.single_table = single;
        }
        site
    })
}

/// Slices of pods, no pod in two of them, no two with the same tag or label.
pub(in crate::fabric) fn wishes(slices: std::ops::Range<u128>) -> impl Strategy<Value = Vec<Wish>> {
    let count = usize::try_from(slices.end - slices.start).unwrap();
    let class = prop_oneof![
        Just(Class::Guaranteed),
        Just(Class::Dedicated),
        Just(Class::BestEffort)
    ];
    let slice = (class, 1_u64..10_000_000_000, any::<bool>());
    let tags = Just((1..=5_u16).collect::<Vec<_>>()).prop_shuffle();
    let labels = Just((201..=205_u16).collect::<Vec<_>>()).prop_shuffle();
    // whose each of the pods is; the last is nobody's
    let owners = proptest::collection::vec(0..=count, 24);
    (
        proptest::collection::vec(slice, count),
        tags,
        labels,
        owners,
    )
        .prop_map(move |(given, tags, labels, owners)| {
            let mut wishes = Vec::new();
            for (n, (class, rate_bps, border)) in given.into_iter().enumerate() {
                let hosts = (0_u8..)
                    .zip(&owners)
                    .filter(|(_, owner)| **owner == n)
                    .map(|(host, _)| host)
                    .collect();
                wishes.push(Wish {
                    slice: slices.start + n as u128,
                    tag: tags[n],
                    class,
                    rate_bps,
                    hosts,
                    label: border.then_some(labels[n]),
                });
            }
            wishes
        })
}
