//! Pure: a packet filter as a whole, and the one transaction that makes the kernel's like it.
//!
//! The counters stay when the rules are replaced, so that nothing is counted twice or forgotten.
//! What the kernel has tells what it was made from by the name of one more counter, which nothing
//! counts in: version of the access rules and a digest of the whole filter.

use super::packets::Expr;
use dtn_link::nft::Table;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// Family and name of the table.
pub const TABLE: (&str, &str) = ("inet", "dtn");
/// Beginning of the name that tells what the filter was made from.
const MARK: &str = "version_";

/// A packet filter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    chains: Vec<Value>,
    counters: BTreeSet<String>,
    rules: Vec<Value>,
}

/// A chain that the kernel calls by itself.
pub(super) fn chain(name: &str, hook: &str, priority: i32, policy: &str) -> Value {
    json!({"name": name, "type": "filter", "hook": hook, "prio": priority, "policy": policy})
}

fn of_table(mut object: Value) -> Value {
    object["family"] = json!(TABLE.0);
    object["table"] = json!(TABLE.1);
    object
}
fn name_of(object: &Value) -> &str {
    object.get("name").and_then(Value::as_str).unwrap_or("")
}

impl Filter {
    pub(super) fn chain(&mut self, chain: Value) {
        self.chains.push(of_table(chain));
    }
    pub(super) fn counter(&mut self, name: &str) {
        self.counters.insert(name.to_owned());
    }
    pub(super) fn rule(&mut self, chain: &str, comment: &str, expressions: Vec<Expr>) {
        self.rules.push(of_table(
            json!({"chain": chain, "comment": comment, "expr": expressions}),
        ));
    }

    /// What tells this filter from every other: a digest of all of it.
    pub fn digest(&self) -> String {
        let all = json!([self.chains, self.counters, self.rules]).to_string();
        let digest = ring::digest::digest(&ring::digest::SHA256, all.as_bytes());
        digest.as_ref()[..8]
            .iter()
            .fold(String::new(), |mut text, byte| {
                // writing into a string does not fail
                let _ = write!(text, "{byte:02x}");
                text
            })
    }

    /// Whether the kernel's table is this one, made from access rules of this version.
    pub fn is(&self, there: &Table, version: u64) -> bool {
        let wanted = self.rules_of_chains();
        let rules = self.chains.iter().all(|chain| {
            let name = name_of(chain);
            there.chains.get(name).is_some_and(|found| {
                found.rules == wanted.get(name).copied().unwrap_or(0)
                    && found.policy.as_deref() == chain.get("policy").and_then(Value::as_str)
            })
        });
        rules
            && there.chains.len() == self.chains.len()
            && mark(there) == Some((version, self.digest()))
            && self
                .counters
                .iter()
                .all(|name| there.counters.contains_key(name))
    }
    fn rules_of_chains(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        let chains = self.rules.iter();
        for chain in chains.filter_map(|rule| rule.get("chain")?.as_str()) {
            *counts.entry(chain).or_default() += 1;
        }
        counts
    }

    /// The commands that make the kernel's table this one, to be given to nft in one transaction.
    pub fn transaction(&self, there: Option<&Table>, version: u64) -> Value {
        let none = Table::default();
        let there = there.unwrap_or(&none);
        let table = json!({"family": TABLE.0, "name": TABLE.1});
        let mark = format!("{MARK}{version}_{}", self.digest());
        let mut commands = vec![
            json!({"add": {"table": table}}),
            // the rules only: chains and counters stay
            json!({"flush": {"table": table}}),
        ];
        // a chain of another policy is made anew
        let stale = |name: &str, found: &dtn_link::nft::Chain| {
            let own = self.chains.iter().find(|chain| name_of(chain) == name);
            own.is_none_or(|chain| {
                chain.get("policy").and_then(Value::as_str) != found.policy.as_deref()
            })
        };
        for (name, _) in there.chains.iter().filter(|(n, found)| stale(n, found)) {
            commands.push(json!({"delete": {"chain": of_table(json!({ "name": name }))}}));
        }
        commands.extend(
            self.chains
                .iter()
                .map(|chain| json!({"add": {"chain": chain}})),
        );
        let wanted = self.counters.iter().map(String::as_str);
        let wanted: BTreeSet<&str> = wanted.chain([mark.as_str()]).collect();
        let counter = |name: &str| json!({"counter": of_table(json!({ "name": name }))});
        for name in wanted
            .iter()
            .filter(|name| !there.counters.contains_key(**name))
        {
            commands.push(json!({"add": counter(name)}));
        }
        commands.extend(self.rules.iter().map(|rule| json!({"add": {"rule": rule}})));
        for name in there.counters.keys() {
            if !wanted.contains(name.as_str()) {
                commands.push(json!({"delete": counter(name)}));
            }
        }
        json!({ "nftables": commands })
    }
}

/// Version of the access rules and digest of the filter that a table was made from.
pub fn mark(there: &Table) -> Option<(u64, String)> {
    let mut marks = there.counters.keys().filter_map(|name| {
        let (version, digest) = name.strip_prefix(MARK)?.split_once('_')?;
        Some((version.parse().ok()?, digest.to_owned()))
    });
    marks.next().filter(|_| marks.next().is_none())
}
