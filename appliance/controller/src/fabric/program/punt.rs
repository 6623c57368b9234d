//! Rules that hand frames to the controller, for fabrics in which frames come here: what tells how
//! switches are joined, and, where the controller answers them, questions for neighbours and what hosts
//! ask by DHCP.
//!
//! DHCP is taken from the ports where the site has written that a NIC is, whether the NIC is in a slice
//! or not: who gets nothing should be told of, and what a NIC may have is looked at here. It is what
//! goes to all or to this controller's own address; what goes to another server is a slice's as any
//! packet. It stands above what lets a member in: a member asks for more time from its address.

use super::{FlowKey, Neighbours, Program, Programs, Purpose, Rule, Then, asks, frames};
use crate::{dhcp::SERVER, fabric::network::Network};
use dtn_openflow::Match;
use std::net::Ipv4Addr;

/// What comes here beside link discovery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Punts {
    /// Who answers a member that asks for a neighbour.
    pub neighbours: Neighbours,
    /// Whether hosts get their addresses by DHCP.
    pub dhcp: bool,
}

/// Adds the rules that hand frames over to what the switches shall hold.
pub fn punt(programs: &mut Programs, network: &Network, punts: Punts) {
    for (name, program) in &mut programs.switches {
        if punts.neighbours == Neighbours::Proxy {
            asks::ask(program);
        }
        discover(program);
        if !punts.dhcp {
            continue;
        }
        for place in network.ports.values().filter(|at| at.switch == *name) {
            let questions = [Ipv4Addr::BROADCAST, SERVER].map(frames::dhcp);
            for matches in questions.into_iter().chain([frames::who_has(SERVER)]) {
                let (key, rule) = handed(Purpose::Lease, matches);
                let from = Some(place.port.clone());
                program.flows.insert(FlowKey { from, ..key }, rule);
            }
        }
    }
}

fn discover(program: &mut Program) {
    let (key, rule) = handed(Purpose::Discover, frames::link_discovery());
    program.flows.insert(key, rule);
}

/// A rule of no slice, from any port.
fn handed(purpose: Purpose, matches: Match) -> (FlowKey, Rule) {
    let (table, priority) = purpose.place();
    let key = FlowKey {
        table,
        priority,
        from: None,
        matches,
    };
    let rule = Rule {
        slice: None,
        tag: 0,
        purpose,
        number: 0,
        then: Then::Controller,
    };
    (key, rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::network::Switch;
    use dtn_openflow::Field;

    #[test]
    fn dhcp_is_taken_from_ports_of_nics_alone() {
        let switch = |name: &str, datapath_id| Switch {
            name: name.parse().unwrap(),
            datapath_id,
            single_table: false,
        };
        let network = Network {
            switches: vec![switch("edge1", 1), switch("edge2", 2)],
            ports: [("scope/eth0".to_owned(), "edge1/7".parse().unwrap())].into(),
            ..Network::default()
        };
        let rules = |punts| {
            let mut all = super::super::programs(&network, &[]);
            punt(&mut all, &network, punts);
            let of = |name: &str| {
                let program = &all.switches[&name.parse().unwrap()];
                let flows = program.flows.iter();
                let lease = flows.filter(|(_, rule)| rule.purpose == Purpose::Lease);
                lease.map(|(key, _)| key.clone()).collect::<Vec<_>>()
            };
            [of("edge1"), of("edge2")]
        };
        assert_eq!(rules(Punts::default()), [vec![], vec![]]);
        let [here, elsewhere] = rules(Punts {
            dhcp: true,
            ..Punts::default()
        });
        assert_eq!(elsewhere, []);
        assert_eq!(here.len(), 3);
        for key in &here {
            assert_eq!(key.from, Some(crate::fabric::network::PortRef::Number(7)));
            assert!(key.priority > Purpose::Neighbour.place().1, "{key:?}");
            let untagged = Field::VlanVid {
                value: 0,
                mask: None,
            };
            assert!(key.matches.0.contains(&untagged), "{key:?}");
        }
    }
}
