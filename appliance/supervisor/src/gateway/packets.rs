//! Pure: which packets an access rule is about, in the words of libnftables-json(5).

use dtn_api::gateway::{AccessMatch, PortRange, Protocol};
use ipnet::IpNet;
use serde_json::{Value, json};

/// One expression of a rule.
pub(super) type Expr = Value;

/// ICMP errors by protocol: what RFC 1812 and RFC 4890 want to pass.
pub(super) const ERRORS: [(&str, &[&str]); 2] = [
    (
        "icmp",
        &[
            "destination-unreachable",
            "time-exceeded",
            "parameter-problem",
        ],
    ),
    (
        "icmpv6",
        &[
            "destination-unreachable",
            "packet-too-big",
            "time-exceeded",
            "parameter-problem",
        ],
    ),
];

/// A fact about a packet is this, or one of this.
pub(super) fn meta(key: &str, right: Value) -> Expr {
    json!({"match": {"op": "==", "left": {"meta": {"key": key}}, "right": right}})
}

/// A field of a packet is this, or one of this.
pub(super) fn payload(protocol: &str, field: &str, right: Value) -> Expr {
    json!({"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": field}},
                     "right": right}})
}

/// It is of this family.
pub(super) fn family(v6: bool) -> Expr {
    meta("nfproto", json!(if v6 { "ipv6" } else { "ipv4" }))
}

/// What the connection tracking of the kernel says of it.
pub(super) fn state(states: &[&str]) -> Expr {
    json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": states}})
}

/// `saddr` or `daddr` is in one of these networks, which are all of one family.
pub(super) fn within(field: &str, nets: &[IpNet], v6: bool) -> Expr {
    addressed("==", field, nets, v6)
}

/// `saddr` or `daddr` is in none of these networks.
pub(super) fn not_within(field: &str, nets: &[IpNet], v6: bool) -> Expr {
    addressed("!=", field, nets, v6)
}

fn addressed(op: &str, field: &str, nets: &[IpNet], v6: bool) -> Expr {
    let protocol = if v6 { "ip6" } else { "ip" };
    // overlapping intervals in one set are refused
    let nets: Vec<Value> = IpNet::aggregate(&nets.to_vec()).iter().map(net).collect();
    let right = match &nets[..] {
        [one] => one.clone(),
        _ => json!({ "set": nets }),
    };
    json!({"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}},
                     "right": right}})
}

fn net(net: &IpNet) -> Value {
    match net.prefix_len() == net.max_prefix_len() {
        true => json!(net.addr().to_string()),
        false => json!({"prefix": {"addr": net.network().to_string(), "len": net.prefix_len()}}),
    }
}

/// The packets of a rule, as alternatives that each are one rule of the filter; none where no packet
/// can be described so.
pub(super) fn of(what: &AccessMatch) -> Vec<Vec<Expr>> {
    let families = what.src.iter().chain(&what.dst);
    let families: Vec<bool> = families.map(|net| net.addr().is_ipv6()).collect();
    let mut found = Vec::new();
    for v6 in [false, true] {
        if families.iter().any(|other| *other != v6) {
            continue;
        }
        let Some(transport) = transport(what, v6) else {
            continue;
        };
        let mut expressions = Vec::new();
        let any = |net: &&IpNet| net.prefix_len() > 0;
        let ends = [("saddr", &what.src), ("daddr", &what.dst)];
        let limited = ends
            .iter()
            .filter_map(|(field, net)| Some((*field, net.as_ref().filter(any)?)));
        for (field, net) in limited {
            expressions.push(within(field, &[*net], v6));
        }
        // where nothing else tells the family, and it matters
        let icmp = what.proto == Some(Protocol::Icmp);
        if expressions.is_empty() && (icmp || !families.is_empty()) {
            expressions.push(family(v6));
        }
        let both = families.is_empty() && !icmp;
        expressions.extend(transport);
        found.push(expressions);
        if both {
            break;
        }
    }
    found
}

/// Protocol and ports; `None` where no packet has these.
fn transport(what: &AccessMatch, v6: bool) -> Option<Vec<Expr>> {
    let ports = !(what.src_ports.is_empty() && what.dst_ports.is_empty());
    let mut expressions = Vec::new();
    match what.proto {
        Some(proto) if ports && !proto.has_ports() => return None,
        Some(proto) => expressions.push(meta("l4proto", json!(proto.number(v6)))),
        None if ports => {
            let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
            let numbers: Vec<u8> = all.iter().map(|proto| proto.number(v6)).collect();
            expressions.push(meta("l4proto", json!({ "set": numbers })));
        }
        None => {}
    }
    for (field, ranges) in [("sport", &what.src_ports), ("dport", &what.dst_ports)] {
        if !ranges.is_empty() {
            expressions.push(payload("th", field, port_set(ranges)));
        }
    }
    Some(expressions)
}

/// Ranges as one set: in order, and those that meet or overlap as one.
fn port_set(ranges: &[PortRange]) -> Value {
    let mut ends: Vec<(u16, u16)> = ranges.iter().map(|r| (r.first(), r.last())).collect();
    ends.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ends {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    let set: Vec<Value> = merged
        .into_iter()
        .map(|(first, last)| match first == last {
            true => json!(first),
            false => json!({"range": [first, last]}),
        })
        .collect();
    json!({ "set": set })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(text: &str) -> Vec<Vec<Expr>> {
        of(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn ports_that_meet_or_overlap_are_one_range() {
        let ranges: Vec<PortRange> = ["443", "50-60", "55-70", "71", "0", "65535"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        assert_eq!(
            port_set(&ranges),
            json!({"set": [0, {"range": [50, 71]}, 443, 65535]})
        );
    }

    #[test]
    fn a_rule_without_addresses_is_about_both_families_in_one() {
        assert_eq!(described("{}"), [Vec::<Expr>::new()]);
        assert_eq!(described(r#"{"proto":"tcp","dst_ports":["443"]}"#).len(), 1);
        let ping = described(r#"{"proto":"icmp"}"#);
        assert_eq!(ping.len(), 2, "ICMP has a number for each family");
        assert_eq!(ping[1][1], meta("l4proto", json!(58)));
    }

    #[test]
    fn what_no_packet_can_be_is_no_rule() {
        assert_eq!(
            described(r#"{"src":"10.0.0.0/8","dst":"2001:db8::/32"}"#),
            Vec::<Vec<Expr>>::new()
        );
        assert!(described(r#"{"proto":"icmp","dst_ports":["1"]}"#).is_empty());
        // everything of one family is said by the family
        assert_eq!(described(r#"{"dst":"0.0.0.0/0"}"#), [vec![family(false)]]);
    }
}
