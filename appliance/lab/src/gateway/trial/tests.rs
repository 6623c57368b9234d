//! What is to be heard under which rules, and what counts as counted.

#![allow(clippy::unwrap_used, reason = "a test fails with what it could not do")]

use super::*;

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
    let rules = [
        rule(OUT, Direction::Outbound, ALLOWED).unwrap(),
        rule(IN, Direction::Inbound, (SERVICE, SERVICE)).unwrap(),
    ];
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
            &rules[..],
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

#[test]
fn what_nobody_has_counted_is_named() {
    let gateway: Gateway = serde_json::from_value(serde_json::json!({
        "name": NAME,
        "spec": {
            "node": "dtn1", "host": "02:00:5e:10:00:01-none", "networks": ["0.0.0.0/0"],
            "outside": ["198.51.100.2/24"]
        },
        "rules_version": 2,
        "report": { "rules_version": 2, "slices": [], "read_at": "2026-01-01T00:00:00Z" },
        "seen_at": "2026-01-01T00:00:00Z",
        "version": 1
    }))
    .unwrap();
    let count = |packets| serde_json::json!({ "packets": packets, "bytes": 60 * packets });
    let standing = |packets: u64| -> StandingRules {
        let items: Vec<_> = [
            rule(OUT, Direction::Outbound, ALLOWED).unwrap(),
            rule(IN, Direction::Inbound, (SERVICE, SERVICE)).unwrap(),
        ]
        .into_iter()
        .map(|rule| {
            let mut item = serde_json::to_value(rule).unwrap();
            item["in_force"] = true.into();
            item["host"] = count(packets);
            item["switches"] = count(packets);
            item
        })
        .collect();
        serde_json::from_value(serde_json::json!({
            "items": items, "version": 2, "denied_host": count(packets),
            "denied_switches": count(packets)
        }))
        .unwrap()
    };
    let none: Vec<String> = Vec::new();
    // without switches the host drops both ways; with some it sees nothing that leaves unallowed
    assert_eq!(missing(&gateway, &standing(1), 1, 1, None), none);
    assert_eq!(missing(&gateway, &standing(1), 0, 1, Some(3)), none);
    assert_eq!(missing(&gateway, &standing(1), 0, 1, None).len(), 1);
    assert_eq!(missing(&gateway, &standing(1), 1, 0, Some(0)).len(), 2);
    assert_eq!(missing(&gateway, &standing(0), 1, 1, Some(1)).len(), 5);
    let mut old = gateway.clone();
    old.report.as_mut().unwrap().rules_version = 1;
    let said = missing(&old, &standing(1), 1, 1, None);
    assert!(said[0].contains("version Some(1)"), "{said:?}");
}
