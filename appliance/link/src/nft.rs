//! Packet filters of a namespace, set by `nft(8)` in one transaction and read back.
//!
//! Invariant: a transaction is taken whole or not at all (nf_tables commits a batch at once), and no
//! packet meets a half of it. The program and not netlink is spoken to: its JSON
//! (libnftables-json(5)) is a documented interface, the bytes below it differ between kernels.

use crate::{Error, Netns, Result};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, process::Stdio, time::Duration};
use tokio::{io::AsyncWriteExt, process::Command};

/// The program, found by `PATH`.
const PROGRAM: &str = "nft";
/// How long it may take. A thousand rules are set in under half a second.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a counter has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Their bytes, from the network header on.
    pub bytes: u64,
}

/// A chain as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// What becomes of packets that no rule decides about; none where nothing calls it by itself.
    pub policy: Option<String>,
    /// How many rules it has.
    pub rules: usize,
}

/// A table as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Its chains by name.
    pub chains: BTreeMap<String, Chain>,
    /// Its named counters by name.
    pub counters: BTreeMap<String, Counter>,
}

/// Sets what the commands say (`{"nftables": […]}`), all of them in one transaction.
pub async fn apply(netns: &Netns, commands: &Value) -> Result<()> {
    let doing = format!(
        "setting the packet filter of the network namespace {}",
        netns.name()
    );
    let input = commands.to_string();
    match run(netns, &doing, &["-j", "-f", "-"], input.as_bytes()).await? {
        Ok(_) => Ok(()),
        Err(words) => Err(Error::invalid(doing, words)),
    }
}

/// Reads a table with its counters; `None` when it is not there.
pub async fn table(netns: &Netns, family: &str, name: &str) -> Result<Option<Table>> {
    let doing = format!(
        "reading the table {family} {name} of the network namespace {}",
        netns.name()
    );
    // the list of tables first: the words for a table that is not there are for people
    let listed = read(netns, &doing, &["-j", "list", "tables"]).await?;
    let there = objects(&listed).any(|object| {
        object.get("table").is_some_and(|table| {
            table.get("family").and_then(Value::as_str) == Some(family)
                && table.get("name").and_then(Value::as_str) == Some(name)
        })
    });
    if !there {
        return Ok(None);
    }
    let listed = read(netns, &doing, &["-j", "list", "table", family, name]).await?;
    Table::from_json(&listed)
        .map(Some)
        .ok_or_else(|| Error::invalid(doing, "the answer of nft is not understood"))
}

/// The version of the program, in its own words; an error with a remedy where there is none.
pub async fn version() -> Result<String> {
    let own = Netns::current()?;
    let doing = "looking for the program that sets packet filters";
    match run(&own, doing, &["--version"], &[]).await? {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(words) => Err(Error::invalid(doing, words)),
    }
}

impl Table {
    /// From the answer of `nft -j list table`.
    fn from_json(listed: &Value) -> Option<Self> {
        let mut table = Self::default();
        for object in objects(listed) {
            if let Some(chain) = object.get("chain") {
                let name = chain.get("name")?.as_str()?.to_owned();
                let policy = chain.get("policy").and_then(Value::as_str);
                table.chains.entry(name).or_default().policy = policy.map(str::to_owned);
            } else if let Some(counter) = object.get("counter") {
                let name = counter.get("name")?.as_str()?.to_owned();
                let counter = Counter::deserialize(counter).ok()?;
                table.counters.insert(name, counter);
            } else if let Some(rule) = object.get("rule") {
                let chain = rule.get("chain")?.as_str()?.to_owned();
                table.chains.entry(chain).or_default().rules += 1;
            }
        }
        Some(table)
    }
}

fn objects(listed: &Value) -> impl Iterator<Item = &Value> {
    listed
        .get("nftables")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

async fn read(netns: &Netns, doing: &str, arguments: &[&str]) -> Result<Value> {
    let text = run(netns, doing, arguments, &[])
        .await?
        .map_err(|words| Error::invalid(doing, words))?;
    serde_json::from_str(&text).map_err(|e| Error::invalid(doing, format!("nft answered: {e}")))
}

/// Runs the program in the namespace: what it printed, or its words when it refused.
async fn run(
    netns: &Netns,
    doing: &str,
    arguments: &[&str],
    input: &[u8],
) -> Result<std::result::Result<String, String>> {
    let runtime = tokio::runtime::Handle::try_current()
        .map_err(|_| Error::invalid(doing, "there is no tokio runtime to wait for nft on"))?;
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        // its words are compared and shown, in one language
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // a process is born into the namespace of the thread that starts it
    let started = netns.run(move || {
        let _in_runtime = runtime.enter();
        command.spawn()
    });
    let mut child = started.await?.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::invalid(
            doing,
            "there is no program nft: install nftables (apt-get install nftables)",
        ),
        _ => Error::io(format!("{doing}: starting nft"), e),
    })?;
    let exchange = async {
        if let Some(mut pipe) = child.stdin.take() {
            // a program that refuses early does not read it all; its words say why
            let _ = pipe.write_all(input).await;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(DEADLINE, exchange).await {
        Ok(done) => done.map_err(|e| Error::io(format!("{doing}: waiting for nft"), e))?,
        Err(_) => {
            return Err(Error::TimedOut {
                doing: doing.to_owned(),
                within: DEADLINE,
                seen: "nft was still running, and was ended".to_owned(),
            });
        }
    };
    if output.status.success() {
        return Ok(Ok(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    Ok(Err(words(&output.stderr, &output.status.to_string())))
}

/// What the program said when it refused, on one line.
fn words(said: &[u8], status: &str) -> String {
    let text = String::from_utf8_lossy(said);
    let lines = text.lines().map(str::trim);
    let told: Vec<&str> = lines
        // lines that only point at a column of the line above
        .filter(|line| !line.is_empty() && !line.chars().all(|c| c == '^' || c == '~' || c == ' '))
        .collect();
    match told.is_empty() {
        true => format!("nft ended with {status} and said nothing"),
        false => format!("nft: {}", told.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_chains_with_their_rules_and_counters() {
        let listed = serde_json::json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "inet", "name": "dtn", "handle": 1}},
            {"counter": {"family": "inet", "name": "rule_10", "table": "dtn", "handle": 4,
                         "packets": 7, "bytes": 420}},
            {"chain": {"family": "inet", "table": "dtn", "name": "forward", "type": "filter",
                       "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "inet", "table": "dtn", "name": "out_x"}},
            {"rule": {"family": "inet", "table": "dtn", "chain": "out_x", "expr": []}},
            {"rule": {"family": "inet", "table": "dtn", "chain": "out_x", "expr": []}},
        ]});
        let table = Table::from_json(&listed).unwrap();
        assert_eq!(table.chains["forward"].policy.as_deref(), Some("drop"));
        assert_eq!(table.chains["forward"].rules, 0);
        assert_eq!(table.chains["out_x"].rules, 2);
        let seen = table.counters["rule_10"];
        assert_eq!((seen.packets, seen.bytes), (7, 420));
    }

    #[test]
    fn the_words_of_a_refusal_come_on_one_line() {
        let said = b"Error: No such file or directory\nlist table inet nope\n      ^^^^\n";
        assert_eq!(
            words(said, "exit status: 1"),
            "nft: Error: No such file or directory; list table inet nope"
        );
        assert!(words(b"", "signal: 9").contains("signal: 9"));
    }
}
