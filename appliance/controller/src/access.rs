//! Access rules (vNAC): what may stand in a list, and how a list changes. Pure. What a list means is
//! said by `decide` of dtn-api, and in words by [`explain`].

pub mod explain;

use crate::fabric::program::{
    access::{MOST, weight},
    ports::masked,
};
use dtn_api::{
    Name, Problem,
    gateway::{
        AccessMatch, AccessRule, LAST_RULE, LONGEST_NOTE, MOST_PORTS, MOST_RULES, PortRange,
        Protocol,
    },
    problem::Kind,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most masked matches that the ports of one rule may become in a switch. A switch has room for some
/// thousand rules, and each of these is one.
const MOST_MASKED: usize = 256;

/// The access rules of a gateway as they are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRow {
    /// The gateway.
    pub gateway: Name,
    /// In the order of their numbers, which are unique.
    pub rules: Vec<KeptRule>,
    /// Counts changes. It begins at the store's revision, so that a gateway that is declared anew
    /// under an old name has no version that another list had.
    pub version: u64,
}

/// A rule with the version of the list in which it last changed: its own ETag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRule {
    /// The rule.
    pub rule: AccessRule,
    /// When it last changed.
    pub changed: u64,
}

impl AccessRow {
    /// No rules: nothing passes.
    pub fn empty(gateway: &Name, version: u64) -> Self {
        Self {
            gateway: gateway.clone(),
            rules: Vec::new(),
            version,
        }
    }
    /// The rules, in order.
    pub fn rules(&self) -> impl Iterator<Item = &AccessRule> {
        self.rules.iter().map(|kept| &kept.rule)
    }
    /// The rule of this number.
    pub fn find(&self, number: u16) -> Option<&KeptRule> {
        self.rules.iter().find(|kept| kept.rule.priority == number)
    }
    /// The rules that are for a slice and in force, in order.
    pub fn standing(&self, tenant: &Name, slice: &Name, now: Timestamp) -> Vec<AccessRule> {
        let wanted = |rule: &&AccessRule| rule.is_for(tenant, slice) && rule.in_force(now);
        self.rules().filter(wanted).cloned().collect()
    }
    /// The whole list in place of this one. What stays as it was keeps its version; when all of it
    /// does, so does the list.
    #[must_use]
    pub fn replaced(&self, rules: Vec<AccessRule>) -> Self {
        let version = self.version + 1;
        let numbered: BTreeMap<u16, AccessRule> = rules
            .into_iter()
            .map(|rule| (rule.priority, rule))
            .collect();
        let kept = |rule: AccessRule| match self.find(rule.priority) {
            Some(same) if same.rule == rule => same.clone(),
            _ => KeptRule {
                rule,
                changed: version,
            },
        };
        let rules: Vec<KeptRule> = numbered.into_values().map(kept).collect();
        if rules == self.rules {
            return self.clone();
        }
        Self {
            gateway: self.gateway.clone(),
            rules,
            version,
        }
    }
    /// The same with one rule, new or in place of the one of its number.
    #[must_use]
    pub fn with(&self, rule: AccessRule) -> Self {
        let others = self.rules().filter(|r| r.priority != rule.priority);
        let mut rules: Vec<AccessRule> = others.cloned().collect();
        rules.push(rule);
        self.replaced(rules)
    }
    /// The same without one rule.
    #[must_use]
    pub fn without(&self, number: u16) -> Self {
        let others = self.rules().filter(|rule| rule.priority != number);
        self.replaced(others.cloned().collect())
    }
    /// How another list differs from this one, for the audit: numbers of rules.
    pub fn difference(&self, next: &Self) -> String {
        let of = |row: &Self| -> BTreeMap<u16, AccessRule> {
            row.rules().map(|r| (r.priority, r.clone())).collect()
        };
        let (old, new) = (of(self), of(next));
        let added = new.keys().filter(|n| !old.contains_key(n)).count();
        let removed = old.keys().filter(|n| !new.contains_key(n)).count();
        let changed = |(n, rule): &(&u16, &AccessRule)| old.get(n).is_some_and(|r| r != *rule);
        let changed = new.iter().filter(changed).count();
        format!("{added} added, {changed} changed, {removed} removed")
    }
}

/// Everything that is wrong with a whole list.
pub fn check_list(rules: &[AccessRule]) -> Result<(), Problem> {
    let mut wrong = Problem::new(
        Kind::InvalidRequest,
        "the access rules are not valid, and nothing was changed",
    );
    if let Some(why) = too_many(rules) {
        wrong = wrong.at("/items", why);
    }
    let mut seen: BTreeMap<u16, usize> = BTreeMap::new();
    for (n, rule) in rules.iter().enumerate() {
        let at = format!("/items/{n}");
        if let Some(first) = seen.get(&rule.priority) {
            wrong = wrong.at(
                format!("{at}/priority"),
                format!(
                    "number {} is taken by /items/{first}: each rule has a number of its own",
                    rule.priority
                ),
            );
        } else {
            seen.insert(rule.priority, n);
        }
        for (field, why) in faults(rule) {
            wrong = wrong.at(format!("{at}{field}"), why);
        }
    }
    match wrong.errors.is_empty() {
        true => Ok(()),
        false => Err(wrong),
    }
}

/// Everything that is wrong with one rule, which the path calls by its number.
pub fn check_one(number: u16, rule: &AccessRule) -> Result<(), Problem> {
    let mut wrong = Problem::new(
        Kind::InvalidRequest,
        format!("access rule {number} is not valid, and nothing was changed"),
    );
    if rule.priority != number {
        let own = rule.priority;
        wrong = wrong.at(
            "/priority",
            format!("{own} is not the number in the path, {number}"),
        );
    }
    for (field, why) in faults(rule) {
        wrong = wrong.at(field, why);
    }
    match wrong.errors.is_empty() {
        true => Ok(()),
        false => Err(wrong),
    }
}

/// Why there are too many rules, if there are.
pub fn too_many(rules: &[AccessRule]) -> Option<String> {
    if rules.len() > MOST_RULES {
        let many = rules.len();
        return Some(format!("{many} rules are more than {MOST_RULES}"));
    }
    // in a slice of both families; what is taken here is never too much for a switch later
    let all: usize = rules.iter().map(|rule| 2 * weight(rule)).sum();
    (all > MOST).then(|| {
        format!(
            "switches match ports under masks, and these rules take {all} of theirs, more than \
             {MOST}: write ranges that begin and end at multiples of a power of two, as \
             49152-65535, or fewer of them"
        )
    })
}

/// How many masked matches the ports become that packets come from, and those that they go to.
fn blocks(packets: &AccessMatch) -> (usize, usize) {
    let of = |ports: &[PortRange]| -> usize {
        let each = ports.iter().map(|r| masked(r.first(), r.last()).len());
        each.sum::<usize>().max(1)
    };
    (of(&packets.src_ports), of(&packets.dst_ports))
}

/// What is wrong with a rule, as pairs of a pointer and words.
fn faults(rule: &AccessRule) -> Vec<(String, String)> {
    let mut faults: Vec<(String, String)> = Vec::new();
    let mut fault = |at: &str, why: String| faults.push((at.to_owned(), why));
    if !(1..=LAST_RULE).contains(&rule.priority) {
        let why = format!("{} is not from 1 to {LAST_RULE}", rule.priority);
        fault("/priority", why);
    }
    if rule.slice.is_none() && rule.tenant != dtn_api::slice::default_tenant() {
        let why = "says whose the slice is, and no slice is named: name one, or leave it out";
        fault("/tenant", why.to_owned());
    }
    if let Some(window) = rule.schedule
        && window.end <= window.start
    {
        let why = format!("{} is not after {}", window.end, window.start);
        fault("/schedule/end", why);
    }
    if rule.note.len() > LONGEST_NOTE || rule.note.chars().any(char::is_control) {
        let why = format!("at most {LONGEST_NOTE} bytes without control characters");
        fault("/note", why);
    }
    packet_faults(&rule.packets, &mut fault);
    faults
}

fn packet_faults(packets: &AccessMatch, fault: &mut impl FnMut(&str, String)) {
    let nets = [("/match/src", packets.src), ("/match/dst", packets.dst)];
    for (at, net) in nets {
        if let Some(net) = net
            && net.trunc() != net
        {
            let whole = net.trunc();
            fault(
                at,
                format!("{net} has bits below its prefix: write {whole}"),
            );
        }
    }
    if let (Some(src), Some(dst)) = (packets.src, packets.dst)
        && src.addr().is_ipv4() != dst.addr().is_ipv4()
    {
        let why = format!("{dst} is of the other family than {src}: write a rule for each family");
        fault("/match/dst", why);
    }
    let lists = [
        ("/match/src_ports", &packets.src_ports),
        ("/match/dst_ports", &packets.dst_ports),
    ];
    for (at, ports) in lists {
        if !ports.is_empty() && !packets.proto.is_some_and(Protocol::has_ports) {
            let why = "only tcp, udp and sctp have ports: name one of them as proto";
            fault(at, why.to_owned());
        }
        if ports.len() > MOST_PORTS {
            let many = ports.len();
            fault(at, format!("{many} ranges are more than {MOST_PORTS}"));
        }
    }
    let (from, to) = blocks(packets);
    if from * to > MOST_MASKED {
        let at = match packets.dst_ports.is_empty() {
            true => "/match/src_ports",
            false => "/match/dst_ports",
        };
        let why = format!(
            "switches match ports under masks, and these take {from} x {to} = {} matches, more than \
             {MOST_MASKED}: write ranges that begin and end at multiples of a power of two, as \
             49152-65535, or fewer of them",
            from * to
        );
        fault(at, why);
    }
}

#[cfg(test)]
mod tests;
