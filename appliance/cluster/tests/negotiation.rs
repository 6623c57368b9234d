//! The program against a real API server, with the rights that it is installed with, and a real
//! controller of a domain: what claims are told, and that nothing is lost or promised twice when
//! any of them goes away.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use cluster::{ApiServer, Copy, Domain, join, skipped, until};
use serde_json::json;
use std::path::Path;

const TEST: &str = "negotiation";

#[test]
fn claims_are_negotiated_and_survive_whatever_goes_away() {
    // the domain's controller runs in this process
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::Builder::new()
        .prefix("dtn-cluster-")
        .tempdir()
        .unwrap();
    let dir = folder.path();
    let Some(mut api) = ApiServer::start(dir) else {
        return skipped(TEST, "Kubernetes is not built: tests/kubernetes/make.sh");
    };
    let mut domain = Domain::start(dir);
    joining(dir, &domain);
    let config = api.controller();
    let first = Copy::start(dir, &config, "first");
    until("the first leads", || match api.leader() {
        leader if leader.starts_with("first_") => Ok(()),
        other => Err(other),
    });
    let second = Copy::start(dir, &config, "second");
    what_is_asked_is_answered(&api, &domain);
    what_the_node_says_stays(&api, &domain, "share");
    what_the_node_says_stays(&api, &domain, "whole");

    // the domain's controller goes away and comes back
    domain.down();
    api.claim("silent", &json!({"slice": "belle", "rate": "1Gbit"}));
    let why = api.waits_for("silent", "ControllerSilent", 0);
    assert!(why.contains("does not answer"), "{why}");
    assert_eq!(api.said("large").unwrap().2, 8, "what is agreed stays");
    domain.up();
    domain.slice("belle", 5);
    api.waits_for("silent", "Agreed", 1);

    // the API server goes away and comes back
    api.down();
    until("it goes on without an API server", || {
        match first.asked("/healthz") {
            Some((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    api.up();
    api.claim("after", &json!({"slice": "belle", "rate": "1Gbit"}));
    api.waits_for("after", "Agreed", 1);

    // the leader dies without a word
    let leader = api.leader();
    let (dies, stays) = match leader.starts_with("first_") {
        true => (first, second),
        false => (second, first),
    };
    dies.kill();
    api.claim("orphan", &json!({"slice": "belle", "rate": "4Gbit"}));
    let why = api.waits_for("orphan", "Waiting", 0);
    assert!(why.contains("has 3Gbit of 5Gbit left"), "{why}");
    assert!(api.leader().starts_with(stays.name));
    let metrics = stays.asked("/metrics").unwrap().1;
    for line in [
        "dtn_cluster_leads 1",
        "dtn_cluster_claims{state=\"waiting\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }

    // one that is asked to end gives the Lease up
    let third = Copy::start(dir, &config, "third");
    until("the third has seen the cluster", || {
        match third.asked("/readyz") {
            Some((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    stays.stop();
    until("the third leads", || match api.leader() {
        leader if leader.starts_with("third_") => Ok(()),
        other => Err(other),
    });
    api.kubectl(&["delete", "resourceclaim", "silent", "after"], "");
    api.waits_for("orphan", "Agreed", 4);
    // everything that is agreed of it, in the end
    let agreed: u64 = ["orphan", "small"]
        .iter()
        .filter_map(|c| Some(api.said(c)?.2))
        .sum();
    assert!(agreed <= 10);
    third.stop();
}

/// The invitation is good for one identity, which joining again keeps.
fn joining(dir: &Path, domain: &Domain) {
    let word = domain.invitation();
    let joined = join(dir, &word);
    assert!(
        joined.status.success(),
        "{}",
        String::from_utf8_lossy(&joined.stderr)
    );
    assert!(join(dir, &word).status.success(), "again is success");
    let other = join(&dir.join("other"), &word);
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(
        !other.status.success() && said.contains("was used"),
        "{said}"
    );
}

fn what_is_asked_is_answered(api: &ApiServer, domain: &Domain) {
    let lhc = domain.slice("lhc", 10);
    api.claim("large", &json!({"slice": "lhc", "rate": "8Gbit"}));
    api.waits_for("large", "Agreed", 8);
    assert_eq!(
        api.device("large")["data"]["agreement"]["sliceId"],
        lhc["id"]
    );
    api.claim("small", &json!({"slice": "lhc", "rate": "3Gbit"}));
    let why = api.waits_for("small", "Waiting", 0);
    assert!(
        why.contains("has 2Gbit of 10Gbit left") && why.contains("3Gbit are wanted"),
        "{why}"
    );
    // the pod is told, and the claim; once
    let on_pod = until("the pod is told", || match api.events("Pod", "pod-small") {
        events if events.is_empty() => Err("nothing".into()),
        events => Ok(events),
    });
    assert_eq!(
        on_pod,
        [("Waiting".to_owned(), format!("claim small: {why}"))]
    );
    let on_claim = api.events("ResourceClaim", "small");
    assert_eq!(on_claim, [("Waiting".to_owned(), why)]);
    api.claim(
        "wrong",
        &json!({"slice": "lhc", "rate": "much", "mtu": 9, "sliec": "x"}),
    );
    let why = api.waits_for("wrong", "InvalidParameters", 0);
    for field in ["/parameters/rate", "/parameters/mtu", "/parameters/sliec"] {
        assert!(why.contains(field), "{field}: {why}");
    }
    api.claim("nothing", &json!({}));
    // a pod ends, its claim goes: who waits has its place
    api.kubectl(&["delete", "resourceclaim", "large", "wrong"], "");
    api.waits_for("small", "Agreed", 3);
    api.claim(
        "large",
        &json!({"slice": "lhc", "rate": "9Gbit", "leastRate": "7Gbit"}),
    );
    api.waits_for("large", "Agreed", 7);
    api.kubectl(&["delete", "resourceclaim", "large"], "");
    // a claim without a slice is nobody's to answer
    assert_eq!(api.said("nothing"), None);
    api.kubectl(&["delete", "resourceclaim", "small"], "");
    api.claim("large", &json!({"slice": "lhc", "rate": "8Gbit"}));
    api.waits_for("large", "Agreed", 8);
    // a slice that is extended is told
    let before = api.device("large")["data"]["agreement"]["endsAt"].clone();
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(3);
    domain.act(&lhc, "extend", &json!({"end": end}));
    until(
        "the new end",
        || match api.device("large")["data"]["agreement"]["endsAt"].clone() {
            now if now != before => Ok(()),
            now => Err(now.to_string()),
        },
    );
}

/// Two write one status: neither takes away what is the other's.
fn what_the_node_says_stays(api: &ApiServer, domain: &Domain, claim: &str) {
    let short = domain.slice(&format!("slice-of-{claim}"), 2);
    api.claim(
        claim,
        &json!({"slice": format!("slice-of-{claim}"), "rate": "1Gbit"}),
    );
    api.waits_for(claim, "Agreed", 1);
    api.prepared(claim);
    domain.act(&short, "terminate", &json!({}));
    let why = api.waits_for(claim, "SliceOver", 1);
    assert!(why.contains("best effort"), "{why}");
    let device = api.device(claim);
    let kinds: Vec<&str> = device["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds.len(), 2, "{device}");
    assert!(
        kinds.contains(&"Prepared") && kinds.contains(&"Negotiated"),
        "{device}"
    );
    assert_eq!(device["networkData"]["interfaceName"], "data0");
    let told = until("the pod is told", || {
        let events = api.events("Pod", &format!("pod-{claim}"));
        match events.iter().any(|(reason, _)| reason == "SliceOver") {
            true => Ok(events),
            false => Err(format!("{events:?}")),
        }
    });
    assert_eq!(told.len(), 2, "agreed, and over: {told:?}");
}
