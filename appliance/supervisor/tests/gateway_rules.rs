//! The packet filter of a gateway: golden, and held against the one definition of what access rules
//! mean by a reader of filters that knows nothing of gateways.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use dtn_api::{
    Name,
    gateway::{AccessAction, AccessRule, Direction, Packet, Protocol, decide},
};
use dtn_link::nft::{Chain, Counter, Table};
use dtnd::gateway::{
    filter::{self, Filter},
    rules::{self, Served, Wanted},
};
use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::IpAddr};
use uuid::Uuid;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}
fn served(id: u128, slice: &str, third: u8) -> Served {
    let id = Uuid::from_u128(id);
    Served {
        id,
        tenant: name("default"),
        name: name(slice),
        ifname: rules::ifname(id).unwrap(),
        addresses: vec![
            format!("10.20.{third}.1/24").parse().unwrap(),
            format!("fd20:{third}::1/64").parse().unwrap(),
        ],
    }
}
fn outside() -> Vec<IpNet> {
    vec![
        "192.0.2.2/24".parse().unwrap(),
        "2001:db8::2/64".parse().unwrap(),
    ]
}
fn filter_of(slices: &[Served], rules: &[AccessRule], nat: bool) -> Filter {
    let rules: Vec<&AccessRule> = rules.iter().collect();
    rules::filter(&Wanted {
        name: &name("internet"),
        outside: &outside(),
        nat,
        slices,
        rules: &rules,
    })
}
fn shown(commands: &Value) -> String {
    let all = commands["nftables"].as_array().unwrap();
    let lines: Vec<String> = all.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
fn some_rules() -> Vec<AccessRule> {
    serde_json::from_value(json!([
        {"priority": 10, "action": "deny", "direction": "outbound", "log": true,
         "match": {"dst": "192.0.2.66/32"}},
        {"priority": 20, "action": "allow", "direction": "outbound", "slice": "lhc",
         "match": {"dst": "192.0.2.0/24", "proto": "tcp", "dst_ports": ["443", "50000-51000"]}},
        {"priority": 30, "action": "allow", "direction": "outbound", "stateful": true,
         "match": {"proto": "icmp"}},
        {"priority": 40, "action": "allow", "direction": "inbound", "slice": "other",
         "match": {"src": "2001:db8::/32", "proto": "udp"}},
    ]))
    .unwrap()
}

#[test]
fn a_gateway_without_slices_forwards_nothing() {
    insta::assert_snapshot!(shown(&filter_of(&[], &[], false).transaction(None, 0)));
}

#[test]
fn slices_and_rules_are_chains_and_named_counters() {
    let slices = [served(1, "lhc", 7), served(2, "other", 8)];
    let filter = filter_of(&slices, &some_rules(), true);
    insta::assert_snapshot!(shown(&filter.transaction(None, 12)));
}

/// The table that a kernel has after a transaction on an empty one.
fn kernel(commands: &Value) -> Table {
    let mut table = Table::default();
    for command in commands["nftables"].as_array().unwrap() {
        let add = &command["add"];
        if let Some(chain) = add.get("chain") {
            let policy = chain.get("policy").and_then(Value::as_str);
            let chain_name = chain["name"].as_str().unwrap().to_owned();
            let entry = Chain {
                policy: policy.map(str::to_owned),
                rules: 0,
            };
            table.chains.insert(chain_name, entry);
        } else if let Some(counter) = add.get("counter") {
            let counter = counter["name"].as_str().unwrap().to_owned();
            table.counters.insert(counter, Counter::default());
        } else if let Some(rule) = add.get("rule") {
            let chain = rule["chain"].as_str().unwrap();
            table.chains.get_mut(chain).unwrap().rules += 1;
        }
    }
    table
}

#[test]
fn a_change_keeps_the_counters_and_takes_away_what_is_stale() {
    let slices = [served(1, "lhc", 7), served(2, "other", 8)];
    let rules = some_rules();
    let before = filter_of(&slices, &rules, true);
    let there = kernel(&before.transaction(None, 12));
    assert!(before.is(&there, 12));
    assert!(!before.is(&there, 13));
    assert_eq!(filter::mark(&there), Some((12, before.digest())));
    let after = filter_of(&slices[..1], &rules[1..2], false);
    assert!(!after.is(&there, 12));
    insta::assert_snapshot!(shown(&after.transaction(Some(&there), 13)));
    // what somebody changed by hand is seen
    let mut open = there.clone();
    open.chains.get_mut("forward").unwrap().policy = Some("accept".into());
    let mut fewer = there.clone();
    fewer.chains.get_mut("forward").unwrap().rules -= 1;
    let mut more = there.clone();
    more.chains.insert("strange".into(), Chain::default());
    let mut uncounted = there;
    uncounted.counters.remove("rule_20");
    for changed in [open, fewer, more, uncounted] {
        assert!(!before.is(&changed, 12), "{changed:?}");
    }
}

/// A packet as the filter sees it.
struct Seen<'a> {
    iif: &'a str,
    oif: &'a str,
    packet: Packet,
    /// It answers a connection that the kernel knows.
    reply: bool,
}

impl Seen<'_> {
    fn v6(&self) -> bool {
        self.packet.src.is_ipv6()
    }
    fn number(&self) -> u64 {
        self.packet
            .proto
            .map_or(47, |proto| u64::from(proto.number(self.v6())))
    }
    /// What a left side is in this packet; `None`: the packet has no such thing.
    fn value(&self, left: &Value) -> Option<Value> {
        if let Some(key) = left["meta"]["key"].as_str() {
            return Some(match key {
                "iifname" => json!(self.iif),
                "oifname" => json!(self.oif),
                "nfproto" => json!(if self.v6() { "ipv6" } else { "ipv4" }),
                "l4proto" => json!(self.number()),
                other => panic!("{other}"),
            });
        }
        if let Some(key) = left["ct"]["key"].as_str() {
            return Some(match (key, self.reply) {
                ("state", true) => json!("established"),
                ("state", false) => json!("new"),
                ("direction", true) => json!("reply"),
                ("direction", false) => json!("original"),
                other => panic!("{other:?}"),
            });
        }
        let ports = self.packet.proto.is_some_and(|proto| proto.has_ports());
        let (protocol, field) = (
            left["payload"]["protocol"].as_str()?,
            left["payload"]["field"].as_str()?,
        );
        match (protocol, field) {
            ("ip", _) if self.v6() => None,
            ("ip6", _) if !self.v6() => None,
            ("ip" | "ip6", "saddr") => Some(json!(self.packet.src.to_string())),
            ("ip" | "ip6", "daddr") => Some(json!(self.packet.dst.to_string())),
            ("th", "sport") => ports.then(|| json!(self.packet.src_port)),
            ("th", "dport") => ports.then(|| json!(self.packet.dst_port)),
            // no packet here is an ICMP error
            ("icmp" | "icmpv6", "type") => None,
            other => panic!("{other:?}"),
        }
    }
    fn is(value: &Value, right: &Value) -> bool {
        if let Some(set) = right.get("set").or(right.as_array().map(|_| right)) {
            return set
                .as_array()
                .unwrap()
                .iter()
                .any(|one| Self::is(value, one));
        }
        if let Some(range) = right.get("range") {
            return range[0].as_u64() <= value.as_u64() && value.as_u64() <= range[1].as_u64();
        }
        if let Some(prefix) = right.get("prefix") {
            let net = format!("{}/{}", prefix["addr"].as_str().unwrap(), prefix["len"]);
            let net: IpNet = net.parse().unwrap();
            return net.contains(&value.as_str().unwrap().parse::<IpAddr>().unwrap());
        }
        value == right
    }
    /// The verdict of a chain with the counter that it was counted in.
    fn walk(&self, commands: &Value, chain: &str) -> Option<(&'static str, Option<String>)> {
        for command in commands["nftables"].as_array().unwrap() {
            let rule = &command["add"]["rule"];
            if rule["chain"] != chain {
                continue;
            }
            let mut counted = None;
            for expr in rule["expr"].as_array().unwrap() {
                if let Some(found) = expr.get("match") {
                    let Some(value) = self.value(&found["left"]) else {
                        break;
                    };
                    if Self::is(&value, &found["right"]) == (found["op"] == "!=") {
                        break;
                    }
                } else if let Some(counter) = expr.get("counter") {
                    counted = counter.as_str().map(str::to_owned);
                } else if let Some(target) = expr["jump"]["target"].as_str() {
                    if let Some(verdict) = self.walk(commands, target) {
                        return Some(verdict);
                    }
                } else if expr.get("accept").is_some() {
                    return Some(("accept", counted));
                } else if expr.get("drop").is_some() {
                    return Some(("drop", counted));
                }
            }
        }
        None
    }
}

fn an_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (7_u8..10, 1_u8..5).prop_map(|(c, d)| IpAddr::from([10, 20, c, d])),
        (1_u8..3, 1_u8..5).prop_map(|(c, d)| IpAddr::from([192, 0, c, d])),
        (7_u16..10, 1_u16..4).prop_map(|(b, h)| IpAddr::from([0xfd20, b, 0, 0, 0, 0, 0, h])),
        (1_u16..4).prop_map(|h| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, h])),
    ]
}
fn two_ends() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let one_family = |ends: &(IpAddr, IpAddr)| ends.0.is_ipv4() == ends.1.is_ipv4();
    (an_address(), an_address()).prop_filter("one family", one_family)
}
fn a_net() -> impl Strategy<Value = Option<IpNet>> {
    let prefixes = prop_oneof![Just(0_u8), Just(16), Just(24), Just(31), Just(255)];
    prop::option::of((an_address(), prefixes).prop_map(|(ip, prefix)| {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, prefix.min(longest)).unwrap().trunc()
    }))
}
fn a_protocol() -> impl Strategy<Value = Option<Protocol>> {
    use Protocol::{Icmp, Sctp, Tcp, Udp};
    prop::option::of(prop::sample::select(vec![Tcp, Udp, Sctp, Icmp]))
}
fn ports() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(
        (1_u16..8, 0_u16..4).prop_map(|(first, more)| format!("{first}-{}", first + more)),
        0..3,
    )
}
fn a_rule() -> impl Strategy<Value = AccessRule> {
    let slices = prop::sample::select(vec![None, Some("lhc"), Some("other"), Some("none")]);
    let words = (any::<bool>(), any::<bool>(), any::<bool>(), slices);
    (words, a_net(), a_net(), a_protocol(), ports(), ports()).prop_map(
        |((allow, out, stateful, slice), src, dst, proto, src_ports, dst_ports)| {
            let has_ports = proto.is_some_and(|proto| proto.has_ports());
            let kept = |ports: Vec<String>| if has_ports { ports } else { Vec::new() };
            serde_json::from_value(json!({
                "priority": 1,
                "action": if allow { "allow" } else { "deny" },
                "direction": if out { "outbound" } else { "inbound" },
                "slice": slice, "stateful": stateful,
                "match": {"src": src, "dst": dst, "proto": proto,
                          "src_ports": kept(src_ports), "dst_ports": kept(dst_ports)},
            }))
            .unwrap()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]
    #[test]
    fn the_filter_decides_as_the_rules_mean(
        mut rules in prop::collection::vec(a_rule(), 0..6),
        ends in two_ends(),
        proto in a_protocol(),
        ports in (0_u16..12, 0_u16..12),
        which in 0_usize..2,
        out in any::<bool>(),
        reply in any::<bool>(),
    ) {
        for (rule, number) in rules.iter_mut().zip(1..) {
            rule.priority = number;
        }
        let slices = [served(1, "lhc", 7), served(2, "other", 8)];
        let slice = &slices[which];
        let commands = filter_of(&slices, &rules, false).transaction(None, 1);
        let direction = if out { Direction::Outbound } else { Direction::Inbound };
        let packet = Packet { direction, src: ends.0, dst: ends.1, proto,
                              src_port: ports.0, dst_port: ports.1 };
        let (inner, outer) = (slice.ifname.as_str(), rules::OUTSIDE);
        let (iif, oif) = if out { (inner, outer) } else { (outer, inner) };
        let verdict = Seen { iif, oif, packet, reply }.walk(&commands, "forward").unwrap();

        let of_any = |ip| slices.iter().flat_map(|one| one.subnets()).any(|net| net.contains(&ip));
        let possible = match direction {
            Direction::Outbound => {
                slice.subnets().any(|net| net.contains(&packet.src)) && !of_any(packet.dst)
            }
            Direction::Inbound => !of_any(packet.src),
        };
        let of_slice: Vec<AccessRule> = rules
            .iter()
            .filter(|rule| rule.is_for(&slice.tenant, &slice.name))
            .cloned()
            .map(|mut rule| {
                // an answer to nothing that is known is no answer
                if rule.stateful && !reply && rule.direction != direction {
                    rule.direction = direction;
                    rule.packets.dst = Some("203.0.113.0/32".parse().unwrap());
                }
                rule
            })
            .collect();
        let denied = if out { rules::DENIED_OUTBOUND } else { rules::DENIED_INBOUND };
        let expected = match decide(&of_slice, &packet) {
            _ if !possible => ("drop", denied.to_owned()),
            None => ("drop", denied.to_owned()),
            Some(rule) => (
                match rule.action {
                    AccessAction::Allow => "accept",
                    AccessAction::Deny => "drop",
                },
                rules::counter(rule.priority),
            ),
        };
        prop_assert_eq!(verdict, (expected.0, Some(expected.1)));

        // from one slice to another never, whatever the rules say
        let other = slices[1 - which].ifname.as_str();
        let across = Seen { iif: inner, oif: other, packet, reply };
        prop_assert_eq!(across.walk(&commands, "forward").unwrap().0, "drop");
    }
}

#[test]
fn every_counter_of_a_rule_has_its_number() {
    let all: BTreeMap<u16, String> = [1, 20, 9999].map(|n| (n, rules::counter(n))).into();
    for (number, counter) in all {
        assert_eq!(rules::number(&counter), Some(number));
    }
    assert_eq!(rules::number(rules::DENIED_INBOUND), None);
}
