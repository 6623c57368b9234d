//! Killed between any two steps, and nothing is lost: needs the feature `failpoints`.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;

use bench::{Bench, good};
use dtn_cni::{
    failpoint,
    reconcile::{self, Leases},
    record,
};
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt;

/// What may come after the kill.
const WAYS_HOME: [&str; 6] = ["DEL", "DEL twice", "GC", "reconcile", "no UID", "ADD again"];

fn go_home(bench: &Bench, plugin: &str, conf: &Value, way: &str, why: &str) {
    match way {
        "DEL" => drop(good(&bench.call(&bench.verb(plugin, "DEL", "u1"), conf))),
        "DEL twice" => {
            good(&bench.call(&bench.verb(plugin, "DEL", "u1"), conf));
            good(&bench.call(&bench.verb(plugin, "DEL", "u1"), conf));
        }
        "GC" => {
            let gc = bench.conf(json!({"cni.dev/valid-attachments": null}));
            good(&bench.call(&bench.verb(plugin, "GC", "gc"), &gc));
        }
        "reconcile" => reconcile(bench),
        "no UID" => {
            // the runtime has lost the pod's UID: the container's ID is enough
            let mut del = bench.verb(plugin, "DEL", "u1");
            del.args = Some("IgnoreUnknown=1".into());
            good(&bench.call(&del, conf));
        }
        _ => {
            // a runtime may try again without DEL: attached, unless it was attached already
            let again = bench.call(&bench.verb(plugin, "ADD", "u1"), conf);
            assert!(bench.link_in_pod("data0").is_some(), "{why}: {again:?}");
            good(&bench.call(&bench.verb(plugin, "DEL", "u1"), conf));
        }
    }
}

/// As the supervisor does it: from the records alone, in its own process.
fn reconcile(bench: &Bench) {
    let places = bench.places();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (records, unreadable) = record::list(&places);
        assert!(unreadable.is_empty(), "{unreadable:?}");
        for record in records {
            let done = reconcile::reconcile(&places, &record.key, None, Leases::Release);
            runtime.block_on(done).unwrap();
        }
    };
    bench.host.run_blocking(work).unwrap();
}

fn assert_clean(bench: &Bench, why: &str) {
    bench.assert_home(why);
    assert!(bench.link_in_pod("data0").is_none(), "{why}");
    let left: Vec<_> = bench
        .files("attachments")
        .into_iter()
        .filter(|name| name.ends_with(".json"))
        .collect();
    assert!(left.is_empty(), "{why}: {left:?}");
}

#[test]
fn killed_at_any_step_a_dedicated_nic_comes_home() {
    killed_at_any_step("vdn-host-device", "dedicated");
}

#[test]
fn killed_at_any_step_a_shared_nic_loses_its_child() {
    killed_at_any_step("vdn-macvlan", "shared");
}

fn killed_at_any_step(plugin: &str, class: &str) {
    // the rest are those of the chain alone
    for point in failpoint::ALL
        .into_iter()
        .filter(|point| !point.starts_with("chain"))
    {
        for way in WAYS_HOME {
            let why = format!("{plugin} killed at {point}, then {way}");
            let bench = Bench::new();
            let conf = bench.conf(json!({}));
            bench.prepare("u1", class);
            let verb = if point.starts_with("add") {
                "ADD"
            } else {
                "DEL"
            };
            if verb == "DEL" {
                good(&bench.call(&bench.verb(plugin, "ADD", "u1"), &conf));
            }
            let mut call = bench.verb(plugin, verb, "u1");
            call.failpoint = Some(point);
            let killed = bench.call(&call, &conf);
            // the shell and nsenter have become the plugin, so the signal is seen here
            assert_eq!(killed.status.signal(), Some(9), "{why}: {killed:?}");
            go_home(&bench, plugin, &conf, way, &why);
            assert_clean(&bench, &why);
            if verb == "DEL" || way != "ADD again" {
                // whoever recorded a lease has queued its release
                let recorded = point != "add-before-record";
                assert_eq!(!bench.files("releases").is_empty(), recorded, "{why}");
            }
        }
    }
}

/// A chain brings in several: killed at the steps of the first or the second of them.
#[test]
fn killed_at_any_step_of_a_chain_everything_comes_home() {
    const PLUGIN: &str = "vdn-chain";
    for (point, time) in failpoint::ALL.iter().flat_map(|p| [(p, 1), (p, 2)]) {
        let ways = match time {
            1 => WAYS_HOME.as_slice(),
            _ => &["DEL", "reconcile", "ADD again"],
        };
        for way in ways {
            let why = format!("{PLUGIN} killed at {point}, time {time}, then {way}");
            let bench = Bench::new();
            bench.second_nic("ens2");
            let conf = bench.conf(json!({"prevResult": {"cniVersion": "1.1.0"}}));
            let claims = [
                bench.prepared("data0", "dedicated", bench::NIC, "dtn-claim", 2),
                bench.prepared("data1", "shared", "ens2", "dtn-claim", 3),
            ];
            bench.prepare_all("u1", "kubernetes", &claims);
            let verb = if point.starts_with("del") {
                good(&bench.call(&bench.verb(PLUGIN, "ADD", "u1"), &conf));
                "DEL"
            } else {
                "ADD"
            };
            let point = format!("{point}:{time}");
            let mut call = bench.verb(PLUGIN, verb, "u1");
            call.failpoint = Some(&point);
            let killed = bench.call(&call, &conf);
            assert_eq!(killed.status.signal(), Some(9), "{why}: {killed:?}");
            go_home(&bench, PLUGIN, &conf, way, &why);
            assert_clean(&bench, &why);
            assert!(bench.link_in_pod("data1").is_none(), "{why}");
            // a pin that a kill left is of no sandbox on record: the supervisor sweeps such
            let killed_late = point.starts_with("del-after-record") && time == 2;
            assert!(
                killed_late || bench.pins().is_empty(),
                "{why}: {:?}",
                bench.pins()
            );
            assert!(
                bench.files("releases").is_empty(),
                "{why}: the leases are the claims'"
            );
        }
    }
}
