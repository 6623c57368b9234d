//! The page as a scraper reads it.

use super::*;
use crate::cluster::counts::{Asked, Call, Counts};
use dtn_api::{Problem, problem::Kind};
use std::time::Duration;

/// The page with the series of each metric in order: they stand in none.
fn sorted(page: &str) -> String {
    let mut sorted: Vec<&str> = Vec::new();
    let mut from = 0;
    for line in page.lines() {
        if line.starts_with('#') {
            from = sorted.len() + 1;
        }
        sorted.push(line);
        sorted[from..].sort_unstable();
    }
    sorted.join("\n")
}
/// A node on which a claim was prepared at the second attempt.
fn node() -> Node {
    let counts = Counts::default();
    let refused = Err(Problem::new(Kind::BackendUnavailable, "not agreed yet"));
    counts.answered(
        Asked::Prepare,
        &refused as &Result<(), Problem>,
        Duration::from_secs(10),
    );
    counts.answered(Asked::Prepare, &Ok(()), Duration::from_millis(80));
    counts.called(Call::ToPrepare, &Ok(()));
    counts.called(Call::ToTell, &Ok(()));
    Node {
        registered: true,
        publishing: true,
        devices: 2,
        tainted: 1,
        prepared: 1,
        counts,
        ..Node::default()
    }
}

#[test]
fn the_page_is_what_a_scraper_reads() {
    let nic: Nic = serde_json::from_value(serde_json::json!({
        "name": "data0", "identity": {}, "mac": "02:00:00:00:00:01", "class": "dedicated",
        "carrier": true, "speed": "10Gbit", "mtu": 9000, "driver": "veth",
        "used_by": ["u-1"],
    }))
    .unwrap();
    let slice: LocalSlice = serde_json::from_value(serde_json::json!({
        "slice": {
            "id": uuid::Uuid::from_u128(1),
            "spec": {
                "name": "lhc", "qos": {"class": "guaranteed", "rate_bps": 600_000_000_u64},
                "members": [],
                "schedule": {"start": "2027-01-01T00:00:00Z", "end": "2027-01-02T00:00:00Z"},
            },
            "status": {
                "reservation": "committed", "provision": "provisioned",
                "lifecycle": "created", "data_plane": "active", "generation": 1,
                "observed_generation": 1,
            },
            "version": 1, "created_at": "2027-01-01T00:00:00Z",
        },
        "ceiling": "595Mbit",
        "paced": [{"pod": "p", "ifname": "data", "rate": "600Mbit", "by": "htb"}],
    }))
    .unwrap();
    let gateway: LocalGateway = serde_json::from_value(serde_json::json!({
        "name": "internet", "inside": "data1", "outside": "ext0",
        "addresses": ["192.0.2.2/24"], "nat": false, "netns": "/run/dtn/netns/gateway-internet",
        "slices": [], "rules_version": 7, "rules": {"100": {"packets": 3, "bytes": 300}},
        "denied_inbound": {"packets": 1, "bytes": 60}, "read_at": "2027-01-01T00:00:00Z",
    }))
    .unwrap();
    let snapshot = Snapshot {
        ready: true,
        nics: vec![nic],
        slices: vec![slice],
        ending: vec!["lhc".into()],
        leases: LeaseCounts {
            used: 1,
            unused: Some(0),
            renewals: 3,
            ..LeaseCounts::default()
        },
        pods: BTreeMap::from([("running".into(), 1)]),
        gateways: vec![gateway],
        kubernetes: Some(node()),
        attachments: vec![AttachmentCounters {
            pod: "p\"q".into(),
            ifname: "data".into(),
            link: LinkCounters {
                tx_bytes: 7,
                ..LinkCounters::default()
            },
            retransmitted: 2,
        }],
        host: HostFacts {
            memory_bytes: 8,
            busy: 0.5,
            disks: vec![("/srv/dtn".into(), 10, 5)],
            ..HostFacts::default()
        },
        ..Snapshot::default()
    };
    let page = render(&snapshot).unwrap();
    assert!(!page.contains("_total_total"), "{page}");
    insta::assert_snapshot!(sorted(&page));
}
