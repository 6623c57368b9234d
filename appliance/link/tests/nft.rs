//! Packet filters of a namespace, against `nft` itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use dtn_link::{Netns, nft};
use serde_json::json;

fn table() -> serde_json::Value {
    json!({"add": {"table": {"family": "inet", "name": "t"}}})
}
fn counter(name: &str) -> serde_json::Value {
    json!({"add": {"counter": {"family": "inet", "table": "t", "name": name}}})
}

#[tokio::test]
async fn a_transaction_is_taken_whole_or_not_at_all_and_stays_in_its_namespace() {
    if !nix::unistd::geteuid().is_root() || nft::version().await.is_err() {
        println!("skipped nft: needs root and nftables");
        return;
    }
    let (here, there) = (
        Netns::create_unnamed().unwrap(),
        Netns::create_unnamed().unwrap(),
    );
    assert_eq!(nft::table(&here, "inet", "t").await.unwrap(), None);
    let good = json!({"nftables": [table(), counter("seen"),
        {"add": {"chain": {"family": "inet", "table": "t", "name": "f", "type": "filter",
                           "hook": "forward", "prio": 0, "policy": "drop"}}},
        {"add": {"rule": {"family": "inet", "table": "t", "chain": "f",
                          "expr": [{"counter": "seen"}, {"accept": null}]}}}]});
    nft::apply(&here, &good).await.unwrap();
    let found = nft::table(&here, "inet", "t").await.unwrap().unwrap();
    assert_eq!(found.chains["f"].policy.as_deref(), Some("drop"));
    assert_eq!(found.chains["f"].rules, 1);
    assert_eq!(found.counters["seen"], nft::Counter::default());
    assert_eq!(nft::table(&there, "inet", "t").await.unwrap(), None);

    // its last command cannot be done: the first is not done either
    let bad = json!({"nftables": [counter("more"),
        {"delete": {"chain": {"family": "inet", "table": "t", "name": "nope"}}}]});
    let error = nft::apply(&here, &bad).await.unwrap_err().to_string();
    assert!(
        error.contains("nft: ") && error.contains("No such file"),
        "{error}"
    );
    assert_eq!(nft::table(&here, "inet", "t").await.unwrap(), Some(found));
}
