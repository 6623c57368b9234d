//! Pure: what a gateway forwards, as the packet filter of its namespace.
//!
//! Order of what a packet meets: from one slice to another it never goes; what comes from a slice
//! has a source of that slice, what comes from outside has none of it; then the access rules in the
//! order of their numbers, as [`dtn_api::gateway::decide`] means them; then it is dropped and
//! counted. The namespace itself answers ping, errors and neighbour discovery to its own addresses,
//! and nothing else.

use super::filter::{Filter, chain};
use super::packets::{self, Expr};
use dtn_api::{
    IfName, Name,
    gateway::{AccessAction, AccessRule, Direction},
};
use ipnet::IpNet;
use serde_json::{Value, json};
use uuid::Uuid;

/// The interface towards the external network.
pub const OUTSIDE: &str = "outside";
/// What no rule allowed, on its way out.
pub const DENIED_OUTBOUND: &str = "denied_outbound";
/// What no rule allowed, on its way in.
pub const DENIED_INBOUND: &str = "denied_inbound";
/// First packets of a rule that are logged each second, and at once.
const LOGGED: (u32, u32) = (5, 10);

/// A slice that a gateway forwards for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Which.
    pub id: Uuid,
    /// Its tenant.
    pub tenant: Name,
    /// Its name.
    pub name: Name,
    /// The gateway's interface in it.
    pub ifname: IfName,
    /// The gateway's addresses in it, with the prefix length of the slice's subnets.
    pub addresses: Vec<IpNet>,
}

impl Served {
    /// The subnets of the slice.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.addresses.iter().map(IpNet::trunc)
    }
}

/// The interface in a gateway's namespace for a slice: always the same for the same slice. The last
/// bytes of an id are chance, its first are time.
pub fn ifname(slice: Uuid) -> Option<IfName> {
    let text = slice.simple().to_string();
    format!("s{}", &text[text.len() - 12..]).parse().ok()
}

/// The name of the counter of a rule.
pub fn counter(number: u16) -> String {
    format!("rule_{number}")
}

/// The rule of a counter's name.
pub fn number(counter: &str) -> Option<u16> {
    counter.strip_prefix("rule_")?.parse().ok()
}

/// Everything that the filter is made of.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The gateway.
    pub name: &'a Name,
    /// Its own addresses outside.
    pub outside: &'a [IpNet],
    /// Whether members are seen with them.
    pub nat: bool,
    /// The slices.
    pub slices: &'a [Served],
    /// The rules that are in force now, in order.
    pub rules: &'a [&'a AccessRule],
}

/// The whole filter.
pub fn filter(wanted: &Wanted<'_>) -> Filter {
    let mut filter = Filter::default();
    filter.counter(DENIED_OUTBOUND);
    filter.counter(DENIED_INBOUND);
    for rule in wanted.rules {
        filter.counter(&counter(rule.priority));
    }
    filter.chain(chain("forward", "forward", 0, "drop"));
    filter.chain(chain("input", "input", 0, "drop"));
    filter.chain(chain("output", "output", 0, "accept"));
    let related = wanted
        .rules
        .iter()
        .any(|rule| rule.action == AccessAction::Allow);
    for slice in wanted.slices {
        forward(&mut filter, wanted, slice, related);
    }
    // from one slice to another, and back to where it came from
    let inner = wanted.slices.iter().map(|slice| slice.ifname.as_str());
    let inner: Vec<&str> = inner.collect();
    if !inner.is_empty() {
        let rest = vec![
            packets::meta("iifname", json!({ "set": inner })),
            json!({"counter": DENIED_OUTBOUND}),
            json!({"drop": null}),
        ];
        filter.rule("forward", "no other way leads out of a slice", rest);
    }
    let rest = vec![json!({"counter": DENIED_INBOUND}), json!({"drop": null})];
    filter.rule("forward", "and none into one", rest);
    input(&mut filter, wanted);
    // a redirect would send a member past the rules
    for (protocol, kind) in [("icmp", "redirect"), ("icmpv6", "nd-redirect")] {
        let rule = vec![
            packets::payload(protocol, "type", json!(kind)),
            json!({"drop": null}),
        ];
        filter.rule("output", "no redirects", rule);
    }
    if wanted.nat {
        nat(&mut filter, wanted);
    }
    filter
}

/// What goes between one slice and the external network.
fn forward(filter: &mut Filter, wanted: &Wanted<'_>, slice: &Served, related: bool) {
    let ways = [
        (Direction::Outbound, "out", slice.ifname.as_str(), OUTSIDE),
        (Direction::Inbound, "in", OUTSIDE, slice.ifname.as_str()),
    ];
    for (direction, word, from, to) in ways {
        let name = format!("{word}_{}", slice.ifname);
        filter.chain(json!({ "name": name }));
        let jump = vec![
            packets::meta("iifname", json!(from)),
            packets::meta("oifname", json!(to)),
            json!({"jump": {"target": name}}),
        ];
        filter.rule("forward", &format!("{direction} of {}", slice.name), jump);
        let denied = match direction {
            Direction::Outbound => DENIED_OUTBOUND,
            Direction::Inbound => DENIED_INBOUND,
        };
        let own: Vec<IpNet> = slice.subnets().collect();
        let all: Vec<IpNet> = wanted.slices.iter().flat_map(Served::subnets).collect();
        for v6 in [false, true] {
            for check in impossible(direction, &own, &all, v6, denied) {
                filter.rule(&name, "addresses that cannot be", check);
            }
        }
        for rule in wanted.rules {
            if rule.is_for(&slice.tenant, &slice.name) {
                access(filter, wanted.name, &name, direction, rule);
            }
        }
        if direction == Direction::Inbound && related {
            errors(filter, &name);
        }
        let rest = vec![json!({ "counter": denied }), json!({"drop": null})];
        filter.rule(&name, "nothing allows it", rest);
    }
}

/// Addresses that a packet cannot have, in one family: what leaves a slice comes from it and goes to
/// none, what comes from outside comes from no slice, whichever that is.
fn impossible(
    direction: Direction,
    own: &[IpNet],
    all: &[IpNet],
    v6: bool,
    denied: &str,
) -> Vec<Vec<Expr>> {
    let of_family = |nets: &[IpNet]| -> Vec<IpNet> {
        let nets = nets.iter().copied();
        nets.filter(|net| net.addr().is_ipv6() == v6).collect()
    };
    let (own, all) = (of_family(own), of_family(all));
    let mut checks = match direction {
        Direction::Outbound if own.is_empty() => vec![vec![packets::family(v6)]],
        Direction::Outbound => vec![
            vec![packets::family(v6), packets::not_within("saddr", &own, v6)],
            vec![packets::family(v6), packets::within("daddr", &all, v6)],
        ],
        Direction::Inbound if all.is_empty() => Vec::new(),
        Direction::Inbound => vec![vec![
            packets::family(v6),
            packets::within("saddr", &all, v6),
        ]],
    };
    for check in &mut checks {
        check.extend([json!({ "counter": denied }), json!({"drop": null})]);
    }
    checks
}

/// One access rule in one direction, where it says something about it.
fn access(
    filter: &mut Filter,
    gateway: &Name,
    chain: &str,
    direction: Direction,
    rule: &AccessRule,
) {
    let number = rule.priority;
    for (nth, (way, what)) in rule.ways().into_iter().enumerate() {
        if way != direction {
            continue;
        }
        let answer = nth > 0;
        for mut found in packets::of(&what) {
            if answer && rule.stateful {
                found.push(packets::state(&["established"]));
                found.push(
                    json!({"match": {"op": "==", "left": {"ct": {"key": "direction"}},
                                            "right": "reply"}}),
                );
            }
            let comment = match answer {
                false => format!("rule {number}"),
                true => format!("rule {number}, answers"),
            };
            if rule.log {
                let mut log = found.clone();
                log.push(json!({"limit": {"rate": LOGGED.0, "burst": LOGGED.1, "per": "second"}}));
                let prefix = format!("dtn-gateway {gateway} rule {number} ");
                log.push(json!({"log": {"prefix": prefix, "level": "info"}}));
                filter.rule(chain, &format!("{comment}, log"), log);
            }
            found.push(json!({"counter": counter(number)}));
            found.push(match rule.action {
                AccessAction::Allow => json!({"accept": null}),
                AccessAction::Deny => json!({"drop": null}),
            });
            filter.rule(chain, &comment, found);
        }
    }
}

/// ICMP errors about conversations that pass: without them no path MTU is found (RFC 8201).
fn errors(filter: &mut Filter, chain: &str) {
    for (protocol, kinds) in packets::ERRORS {
        let rule = vec![
            packets::payload(protocol, "type", json!({ "set": kinds })),
            packets::state(&["related"]),
            json!({"accept": null}),
        ];
        filter.rule(chain, "errors about what passes", rule);
    }
}

/// What the gateway itself takes.
fn input(filter: &mut Filter, wanted: &Wanted<'_>) {
    let inner = wanted.slices.iter();
    let inner = inner.map(|slice| (slice.ifname.as_str(), &slice.addresses[..], true));
    let outer = std::iter::once((OUTSIDE, wanted.outside, false));
    // neighbours: advertisements and solicitations have link-local and multicast addresses
    let neighbours = [
        "nd-neighbor-solicit",
        "nd-neighbor-advert",
        "mld-listener-query",
    ];
    let rule = vec![
        packets::payload("icmpv6", "type", json!({ "set": neighbours })),
        json!({"accept": null}),
    ];
    filter.rule("input", "neighbours", rule);
    for (ifname, addresses, of_slice) in inner.chain(outer) {
        for v6 in [false, true] {
            let mut own: Vec<IpNet> = addresses
                .iter()
                .copied()
                .filter(|net| net.addr().is_ipv6() == v6)
                .collect();
            if own.is_empty() {
                continue;
            }
            let subnets: Vec<IpNet> = own.iter().map(IpNet::trunc).collect();
            own.iter_mut()
                .for_each(|net| *net = IpNet::from(net.addr()));
            let (protocol, mut kinds) = match v6 {
                false => ("icmp", packets::ERRORS[0].1.to_vec()),
                true => ("icmpv6", packets::ERRORS[1].1.to_vec()),
            };
            kinds.extend(["echo-request", "echo-reply"]);
            let mut rule = vec![
                packets::meta("iifname", json!(ifname)),
                packets::within("daddr", &own, v6),
            ];
            let slices: Vec<IpNet> = wanted
                .slices
                .iter()
                .flat_map(Served::subnets)
                .filter(|net| net.addr().is_ipv6() == v6)
                .collect();
            match of_slice {
                true => rule.push(packets::within("saddr", &subnets, v6)),
                false if slices.is_empty() => {}
                false => rule.push(packets::not_within("saddr", &slices, v6)),
            }
            rule.push(packets::payload(protocol, "type", json!({ "set": kinds })));
            rule.push(json!({"accept": null}));
            filter.rule("input", "ping and errors to its own addresses", rule);
        }
    }
}

/// Members are seen from outside with the gateway's address.
fn nat(filter: &mut Filter, wanted: &Wanted<'_>) {
    // priority of source NAT in the kernel's include/uapi/linux/netfilter_ipv4.h
    let mut base: Value = chain("nat", "postrouting", 100, "accept");
    base["type"] = json!("nat");
    filter.chain(base);
    for slice in wanted.slices {
        for v6 in [false, true] {
            let own: Vec<IpNet> = slice
                .subnets()
                .filter(|net| net.addr().is_ipv6() == v6)
                .collect();
            if own.is_empty() {
                continue;
            }
            let rule = vec![
                packets::meta("oifname", json!(OUTSIDE)),
                packets::within("saddr", &own, v6),
                json!({"masquerade": null}),
            ];
            filter.rule("nat", &format!("members of {}", slice.name), rule);
        }
    }
}
