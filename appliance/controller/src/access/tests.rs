//! Lists of access rules, and what is said of packets.

use super::explain::{Asked, Served, decided, explain};
use super::*;
use crate::gateways::GatewayRow;
use dtn_api::gateway::{AccessAction, Direction, Packet, decide};
use proptest::prelude::*;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}
fn rule(json: Value) -> AccessRule {
    serde_json::from_value(json).unwrap()
}
fn row(rules: Vec<AccessRule>) -> AccessRow {
    AccessRow::empty(&"internet".parse().unwrap(), 0).replaced(rules)
}
fn pointers(problem: &Problem) -> Vec<&str> {
    problem.errors.iter().map(|e| e.pointer.as_str()).collect()
}
fn served() -> Served {
    Served {
        name: "lhc".parse().unwrap(),
        tenant: dtn_api::slice::default_tenant(),
        subnets: vec![
            "10.20.0.0/24".parse().unwrap(),
            "fd00::/64".parse().unwrap(),
        ],
        window: dtn_api::slice::Schedule {
            start: at(0),
            end: at(1000),
        },
    }
}
fn gateway() -> GatewayRow {
    GatewayRow {
        name: "internet".parse().unwrap(),
        spec: serde_json::from_value(json!({"node": "dtn", "host": "02:00:00:00:00:01-none",
            "networks": ["0.0.0.0/0"], "outside": ["192.0.2.2/24"]}))
        .unwrap(),
        seen_at: at(0),
        version: 1,
    }
}

#[test]
fn every_fault_of_a_list_is_named_at_once_with_its_place() {
    let ranges: Vec<String> = (0..33).map(|n| format!("{}", n * 2)).collect();
    let list = [
        json!({"priority": 0, "action": "allow", "direction": "outbound"}),
        json!({"priority": 10000, "action": "allow", "direction": "outbound", "tenant": "cms"}),
        json!({"priority": 7, "action": "allow", "direction": "outbound",
            "match": {"src": "10.0.0.0/8", "dst": "2001:db8::/32"}}),
        json!({"priority": 7, "action": "deny", "direction": "inbound",
            "match": {"dst_ports": ["443"]}, "note": "x".repeat(257)}),
        json!({"priority": 8, "action": "deny", "direction": "inbound",
            "match": {"proto": "icmp", "src": "10.0.0.1/8", "src_ports": ["1"]},
            "schedule": {"start": at(5).to_string(), "end": at(5).to_string()}}),
        json!({"priority": 9, "action": "allow", "direction": "inbound",
            "match": {"proto": "tcp", "src_ports": ["1-65534"], "dst_ports": ["1-1022"]}}),
        json!({"priority": 10, "action": "allow", "direction": "inbound",
            "match": {"proto": "udp", "src_ports": ranges}}),
    ];
    let rules: Vec<AccessRule> = list.into_iter().map(rule).collect();
    let problem = check_list(&rules).unwrap_err();
    assert_eq!(
        pointers(&problem),
        [
            "/items/0/priority",
            "/items/1/priority",
            "/items/1/tenant",
            "/items/2/match/dst",
            "/items/3/priority",
            "/items/3/note",
            "/items/3/match/dst_ports",
            "/items/4/schedule/end",
            "/items/4/match/src",
            "/items/4/match/src_ports",
            "/items/5/match/dst_ports",
            "/items/6/match/src_ports",
        ],
        "{problem}"
    );
    let masks = &problem.errors[10].detail;
    assert!(masks.contains("30 x 18 = 540"), "{masks}");
    let many: Vec<AccessRule> = (0..=MOST_RULES as u16)
        .map(|n| rule(json!({"priority": n + 1, "action": "deny", "direction": "inbound"})))
        .collect();
    assert_eq!(pointers(&check_list(&many).unwrap_err()), ["/items"]);
    check_list(&many[1..]).unwrap();
    // each of them would do, and all of them would fill a switch
    let wide = |n: u16| {
        rule(
            json!({"priority": n, "action": "deny", "direction": "inbound",
            "match": {"proto": "tcp", "dst_ports": ["1-65534"]}}),
        )
    };
    let wide: Vec<AccessRule> = (1..=274).map(wide).collect();
    let problem = check_list(&wide).unwrap_err();
    assert_eq!(pointers(&problem), ["/items"]);
    assert!(
        problem.errors[0].detail.contains("16440 of theirs"),
        "{problem}"
    );
    check_list(&wide[1..]).unwrap();
    let other = check_one(5, &many[0]).unwrap_err();
    assert_eq!(pointers(&other), ["/priority"]);
}

#[test]
fn what_does_not_change_keeps_its_version() {
    let allow = |n: u16| rule(json!({"priority": n, "action": "allow", "direction": "outbound"}));
    let deny = |n: u16| rule(json!({"priority": n, "action": "deny", "direction": "outbound"}));
    let first = row(vec![allow(20), allow(10)]);
    assert_eq!(first.version, 1);
    let numbers: Vec<u16> = first.rules().map(|r| r.priority).collect();
    assert_eq!(numbers, [10, 20]);
    assert_eq!(first.replaced(vec![allow(10), allow(20)]), first);
    let second = first.with(deny(20));
    assert_eq!(second.version, 2);
    assert_eq!(second.find(10).unwrap().changed, 1);
    assert_eq!(second.find(20).unwrap().changed, 2);
    assert_eq!(second.without(30), second);
    let third = second.replaced(vec![deny(20), allow(5)]);
    assert_eq!(third.find(20).unwrap().changed, 2);
    assert_eq!(
        second.difference(&third),
        "1 added, 0 changed, 1 removed",
        "for the audit"
    );
}

#[test]
fn a_packet_is_explained_with_its_answer() {
    let rules = [
        rule(
            json!({"priority": 50, "action": "deny", "direction": "outbound",
            "match": {"dst": "192.0.2.66/32"}}),
        ),
        rule(
            json!({"priority": 100, "action": "allow", "direction": "outbound", "stateful": true,
            "match": {"dst": "192.0.2.0/24", "proto": "tcp", "dst_ports": ["443"]}}),
        ),
        rule(
            json!({"priority": 200, "action": "allow", "direction": "inbound",
            "match": {"proto": "icmp"},
            "schedule": {"start": at(50).to_string(), "end": at(60).to_string()}}),
        ),
    ];
    let ask = |src: &str, dst: &str, proto: &str, port: &str, second: i64| {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let asked = Asked {
            src: given(src),
            dst: given(dst),
            proto: given(proto),
            dst_port: given(port),
            at: Some(at(second).to_string()),
            ..Asked::default()
        };
        let mut other = served();
        other.name = "cms".parse().unwrap();
        other.subnets = vec!["10.20.1.0/24".parse().unwrap()];
        let slices = [served(), other];
        explain(&gateway(), &rules, &slices, &asked.understood(at(0))?)
    };
    let out = ask("10.20.0.5", "192.0.2.7", "tcp", "443", 1).unwrap();
    assert_eq!(out.direction, Direction::Outbound);
    assert_eq!(out.packet.why, "rule 100 allows it");
    assert_eq!(
        out.answer.why,
        "rule 100 allows it as an answer, while the gateway knows what it answers"
    );
    // who begins something answers nothing, whatever port it comes from
    let asked = Asked {
        src: Some("192.0.2.7".into()),
        dst: Some("10.20.0.5".into()),
        proto: Some("tcp".into()),
        src_port: Some("443".into()),
        dst_port: Some("40000".into()),
        ..Asked::default()
    };
    let question = asked.understood(at(1)).unwrap();
    let back = explain(&gateway(), &rules, &[served()], &question).unwrap();
    assert_eq!(back.direction, Direction::Inbound);
    assert_eq!(back.packet.why, "no rule allows it: dropped");
    let denied = ask("10.20.0.5", "192.0.2.66", "tcp", "443", 1).unwrap();
    assert_eq!(denied.packet.why, "rule 50 drops it");
    assert_eq!(denied.packet.rule.unwrap().priority, 50);
    let asleep = ask("192.0.2.7", "10.20.0.5", "icmp", "", 60).unwrap();
    assert!(
        asleep.packet.why.contains("rule 200 does, from"),
        "{asleep:?}"
    );
    let awake = ask("192.0.2.7", "10.20.0.5", "icmp", "", 50).unwrap();
    assert_eq!(awake.packet.action, AccessAction::Allow);
    let late = ask("10.20.0.5", "192.0.2.7", "tcp", "443", 1000).unwrap();
    assert!(late.packet.why.contains("carries traffic from"), "{late:?}");
    let across = ask("10.20.0.5", "10.20.1.5", "tcp", "443", 1).unwrap();
    assert!(
        across.packet.why.contains("joins no two slices"),
        "{across:?}"
    );
    // what cannot be answered
    let within = ask("10.20.0.5", "10.20.0.6", "tcp", "443", 1).unwrap_err();
    assert_eq!(pointers(&within), ["/dst"]);
    let nowhere = ask("192.0.2.7", "192.0.2.8", "", "", 1).unwrap_err();
    assert_eq!(pointers(&nowhere), ["/src"]);
    let bad = Asked {
        slice: Some("-".into()),
        src: Some("10.20.0".into()),
        proto: Some("gre".into()),
        dst_port: Some("70000".into()),
        at: Some("noon".into()),
        ..Asked::default()
    };
    let bad = bad.understood(at(0)).unwrap_err();
    assert_eq!(
        pointers(&bad),
        ["/slice", "/src", "/proto", "/dst_port", "/at", "/dst"]
    );
    let families = ask("10.20.0.5", "2001:db8::1", "icmp", "443", 1).unwrap_err();
    assert_eq!(pointers(&families), ["/dst_port", "/dst"]);
    let no_port = ask("10.20.0.5", "192.0.2.7", "tcp", "", 1).unwrap_err();
    assert_eq!(pointers(&no_port), ["/dst_port"]);
}

fn some_rule() -> impl Strategy<Value = AccessRule> {
    let nets = || {
        prop_oneof![
            Just(None),
            Just(Some("10.20.0.0/24")),
            Just(Some("10.20.0.8/29")),
            Just(Some("192.0.2.0/24")),
            Just(Some("192.0.2.64/26")),
        ]
    };
    let ports = || prop_oneof![Just(None), Just(Some("0-1023")), Just(Some("1024-65535"))];
    let proto = prop_oneof![Just(None), Just(Some("tcp")), Just(Some("udp"))];
    (
        (1_u16..40, any::<bool>(), any::<bool>(), any::<bool>()),
        (nets(), nets(), proto, ports(), ports()),
        (any::<bool>(), any::<bool>()),
    )
        .prop_map(
            |((n, allow, out, stateful), (src, dst, proto, sp, dp), (named, asleep))| {
                let mut json = json!({"priority": n, "stateful": stateful, "match": {}});
                json["action"] = json!(if allow { "allow" } else { "deny" });
                json["direction"] = json!(if out { "outbound" } else { "inbound" });
                let texts = [("src", src), ("dst", dst), ("proto", proto)];
                for (field, value) in texts.into_iter().filter(|(_, v)| v.is_some()) {
                    json["match"][field] = json!(value);
                }
                for (field, ports) in [("src_ports", sp), ("dst_ports", dp)] {
                    if let Some(ports) = ports.filter(|_| proto.is_some()) {
                        json["match"][field] = json!([ports]);
                    }
                }
                if named {
                    json["slice"] = json!(if asleep { "lhc" } else { "cms" });
                }
                if asleep {
                    json["schedule"] =
                        json!({"start": at(5).to_string(), "end": at(9).to_string()});
                }
                rule(json)
            },
        )
}
fn some_packet() -> impl Strategy<Value = Packet> {
    (
        any::<bool>(),
        0_u8..16,
        0_u8..128,
        any::<bool>(),
        any::<u16>(),
        any::<u16>(),
    )
        .prop_map(|(out, inside, outside, tcp, src_port, dst_port)| {
            let proto = Some(if tcp { Protocol::Tcp } else { Protocol::Udp });
            let packet = Packet {
                direction: Direction::Outbound,
                src: [10, 20, 0, inside].into(),
                dst: [192, 0, 2, outside].into(),
                proto,
                src_port,
                dst_port,
            };
            if out { packet } else { packet.answer() }
        })
}

proptest! {
    /// Whatever is written over whatever: the list is the new one, in order, under one number each,
    /// and a version that was seen stands for one list only.
    #[test]
    fn a_list_is_replaced_whole_and_in_order(
        old in proptest::collection::vec(some_rule(), 0..12),
        new in proptest::collection::vec(some_rule(), 0..12),
    ) {
        let old = row(old);
        let next = old.replaced(new.clone());
        let numbers: Vec<u16> = next.rules().map(|r| r.priority).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        sorted.dedup();
        prop_assert_eq!(&numbers, &sorted);
        prop_assert_eq!(check_list(&new).is_ok(), numbers.len() == new.len());
        prop_assert!(next.rules().all(|rule| new.contains(rule)));
        prop_assert!(new.iter().all(|rule| next.find(rule.priority).is_some()));
        prop_assert_eq!(next.version == old.version, next.rules == old.rules);
        prop_assert!(next.rules.iter().all(|kept| kept.changed <= next.version));
        prop_assert_eq!(next.replaced(new), next);
    }
    /// What is explained is what the rules that stand decide, one by one.
    #[test]
    fn what_is_explained_is_what_is_decided(
        rules in proptest::collection::vec(some_rule(), 0..12),
        packet in some_packet(),
        second in 0_i64..12,
    ) {
        let row = row(rules);
        let slice = served();
        let all: Vec<AccessRule> = row.rules().cloned().collect();
        let standing = row.standing(&slice.tenant, &slice.name, at(second));
        let (said, answer) = decided(&all, &slice, &packet, at(second));
        let action = |of: Option<&AccessRule>| of.map_or(AccessAction::Deny, |rule| rule.action);
        // what begins something is no answer to a rule that looks at the connection
        let opens = |rule: &&AccessRule| !rule.stateful
            || (rule.direction == packet.direction && rule.packets.has(&packet));
        let first = decide(standing.iter().filter(opens), &packet);
        prop_assert_eq!(said.action, action(first));
        prop_assert_eq!(said.rule.as_ref(), first);
        if said.action == AccessAction::Allow {
            let back = decide(&standing, &packet.answer());
            prop_assert_eq!(answer.action, action(back));
            prop_assert_eq!(answer.rule.as_ref(), back);
        }
        prop_assert_eq!(said.why.contains("no rule"), said.rule.is_none());
    }
}
