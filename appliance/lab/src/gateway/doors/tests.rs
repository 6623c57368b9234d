//! What is to be heard under which rules.

#![allow(clippy::unwrap_used, reason = "a test fails with what it could not do")]

use super::*;
use crate::gateway::host;

const INSIDE: [&str; 2] = ["10.20.0.12", "fd00:20::12"];

fn all() -> Vec<Door> {
    let inside = INSIDE.map(|ip| ip.parse().unwrap());
    doors(&inside, &host(0))
}

#[test]
fn every_service_is_knocked_at_from_the_address_of_its_family() {
    let all = all();
    assert_eq!(all.len(), 8);
    for door in &all {
        assert_eq!(door.from.is_ipv6(), door.to.is_ipv6(), "{door:?}");
    }
    let count = |rules: Standing| all.iter().filter(|door| rules.lets(door)).count();
    let standing = |out, into| Standing { out, into };
    assert_eq!(count(standing(false, false)), 0);
    assert_eq!(count(standing(true, false)), 4, "two ports of three, twice");
    assert_eq!(count(standing(false, true)), 2);
    assert_eq!(count(standing(true, true)), 6);
}

#[test]
fn the_rules_mean_what_the_trial_expects_of_them() {
    for fabric in [Fabric::Edge, Fabric::Onos] {
        let out = ports(fabric, ALLOWED);
        assert_eq!(out.len(), if fabric == Fabric::Onos { 2 } else { 1 });
        mean(&[
            rule(OUT, Direction::Outbound, &out).unwrap(),
            rule(IN, Direction::Inbound, &[SERVICE.to_string()]).unwrap(),
        ]);
    }
}

fn mean(rules: &[AccessRule]) {
    for (rules, standing) in [
        (&rules[..0], Standing::default()),
        (
            &rules[..1],
            Standing {
                out: true,
                into: false,
            },
        ),
        (
            rules,
            Standing {
                out: true,
                into: true,
            },
        ),
    ] {
        for door in all() {
            let packet = dtn_api::gateway::Packet {
                direction: door.direction,
                src: door.from,
                dst: door.to.ip(),
                proto: Some(Protocol::Tcp),
                src_port: 40000,
                dst_port: door.to.port(),
            };
            let decided = dtn_api::gateway::decide(rules, &packet);
            assert_eq!(decided.is_some(), standing.lets(&door), "{door:?}");
        }
    }
}
