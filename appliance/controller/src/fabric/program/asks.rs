//! Questions for a neighbour come to the controller, which answers out of what it knows of a slice,
//! instead of going to everyone in it. Pure.
//!
//! What is derived stands above the rule that lets a member's ARP or neighbour discovery in, and
//! asks for all that it asks for: so a question comes here only from a member's port, with its
//! hardware address and one of its own addresses, and the cookie says in which slice. What is not for
//! all goes on by that rule: answers, and the questions by which a kernel makes sure of a neighbour
//! that it knows. So does what tries whether an address is free, which its holder has to hear.

use super::{FlowKey, Program, Purpose, Rule, Then, frames};
use dtn_openflow::{Field, Match};
use std::net::Ipv6Addr;

/// Above [`Purpose::Ask`]: what tells all that an address is the sender's own asks nothing.
const TOLD: u16 = Purpose::Ask.place().1 + 10;

/// Who answers a member that asks for a neighbour's hardware address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Neighbours {
    /// The neighbour: the question goes to everyone in the slice.
    #[default]
    Flood,
    /// The controller, for who is a member here.
    Proxy,
}

/// Adds the rules that hand over questions.
pub(super) fn ask(program: &mut Program) {
    let mut more = Vec::new();
    for (key, rule) in &program.flows {
        if rule.purpose != Purpose::Neighbour {
            continue;
        }
        let derived = |priority, fields: Vec<Field>| FlowKey {
            priority,
            matches: Match::new(key.matches.0.iter().cloned().chain(fields)),
            ..key.clone()
        };
        let question = match kind(&key.matches) {
            Some(Kind::Arp(told)) => {
                more.push((derived(TOLD, vec![told]), rule.clone()));
                frames::request()
            }
            Some(Kind::Solicitation) => vec![frames::to_v6_multicast()],
            None => continue,
        };
        let asks = Rule {
            purpose: Purpose::Ask,
            then: Then::Controller,
            ..rule.clone()
        };
        more.push((derived(Purpose::Ask.place().1, question), asks));
    }
    program.flows.extend(more);
}

enum Kind {
    /// ARP; with what tells its own address.
    Arp(Field),
    /// A question for an IPv6 neighbour, from an address.
    Solicitation,
}
fn kind(matches: &Match) -> Option<Kind> {
    let solicits = matches.0.contains(&Field::Icmpv6Type(frames::SOLICITATION));
    matches.0.iter().find_map(|field| match field {
        Field::ArpSpa { addr, mask: None } => Some(Kind::Arp(Field::ArpTpa {
            addr: *addr,
            mask: None,
        })),
        Field::Ipv6Src { addr, .. } => {
            (solicits && *addr != Ipv6Addr::UNSPECIFIED).then_some(Kind::Solicitation)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::program::{
        ADMIT, Programs, Punts, programs, punt,
        walk::site::{Site, Wish},
    };
    use dtn_api::slice::Class;

    #[test]
    fn every_question_of_a_member_comes_here_and_nothing_else() {
        let site = Site::of(&[0]);
        let intent = site.intent(&Wish {
            slice: 1,
            tag: 5,
            class: Class::Guaranteed,
            rate_bps: 1_000_000_000,
            hosts: [0, 1].into(),
            label: Some(200),
        });
        let mut all = programs(&site.network, std::slice::from_ref(&intent));
        let before = all.clone();
        let punt = |all: &mut Programs, neighbours| {
            let dhcp = false;
            punt(all, &site.network, Punts { neighbours, dhcp });
        };
        punt(&mut all, Neighbours::Flood);
        let asks = |all: &Programs| {
            let flows = all.switches.values().flat_map(|program| &program.flows);
            let asks = flows.filter(|(_, rule)| rule.purpose == Purpose::Ask);
            asks.map(|(key, rule)| (key.clone(), rule.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(asks(&all), []);
        punt(&mut all, Neighbours::Proxy);
        let asked = asks(&all);
        assert!(!asked.is_empty());
        for (key, rule) in &asked {
            assert_eq!((key.table, key.priority), (ADMIT, 30_250));
            assert_eq!((rule.tag, &rule.then), (intent.tag, &Then::Controller));
            assert!(key.from.is_some(), "{key:?}");
            // all that lets a member's frame in is asked of its question too
            let from = before.switches.values().flat_map(|program| &program.flows);
            let mut lets_in = from.filter(|(known, rule)| {
                rule.purpose == Purpose::Neighbour
                    && known.from == key.from
                    && known.matches.0.iter().all(|f| key.matches.0.contains(f))
            });
            assert!(lets_in.next().is_some(), "{key:?}");
        }
        // an IPv4 address, an IPv6 address and a link-local one of each member
        let questions: usize = intent
            .members
            .iter()
            .map(|member| {
                let v6 = member.ips.iter().filter(|ip| ip.is_ipv6()).count();
                member.ips.len() + usize::from(v6 > 0)
            })
            .sum();
        assert_eq!(asked.len(), questions);
        // what was there is as it was
        for (name, program) in &before.switches {
            let now = &all.switches[name].flows;
            assert!(
                program
                    .flows
                    .iter()
                    .all(|(key, rule)| now.get(key) == Some(rule))
            );
        }
    }
}
