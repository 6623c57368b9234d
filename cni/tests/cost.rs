//! What it costs a pod without a claim that `vdn-chain` is behind its network, beside plugins of the
//! reference that are chained as usual. Figures are printed and hold up no test: they are of this build
//! and this machine.
//!
//! `cargo test -p dtn-cni --release --test cost -- --nocapture`
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;

use bench::{Bench, good, skip};
use serde_json::json;
use std::{
    path::Path,
    time::{Duration, Instant},
};

const ROUNDS: usize = 40;

#[test]
fn passing_by() {
    let bench = Bench::new();
    // a host that is in use: other pods have claims, records and the like
    for n in 0..50 {
        bench.prepare(&format!("other{n}"), "shared");
    }
    let before = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}],
        "ips": [{"address": "10.244.0.5/24", "interface": 0}]});
    let conf = bench.conf(json!({"cniVersion": "1.0.0", "name": "cbr0", "prevResult": before}));
    let portmap = "/usr/lib/cni/portmap";
    let mut plugins = vec!["vdn-chain", "/bin/true"];
    match Path::new(portmap).is_file() {
        true => plugins.push(portmap),
        false => skip(&format!(
            "no {portmap}: install containernetworking-plugins"
        )),
    }
    let mut took: Vec<Vec<Duration>> = vec![Vec::new(); plugins.len()];
    // in turn, so that what else the machine does is in all of them
    for _ in 0..ROUNDS {
        for (plugin, took) in plugins.iter().zip(&mut took) {
            for verb in ["ADD", "DEL"] {
                let call = bench.verb(plugin, verb, "u1");
                let began = Instant::now();
                let output = bench.call(&call, &conf);
                if verb == "ADD" {
                    took.push(began.elapsed());
                }
                if *plugin != "/bin/true" {
                    good(&output);
                }
            }
        }
    }
    for (plugin, mut took) in plugins.into_iter().zip(took) {
        took.sort();
        let at = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1e3;
        println!(
            "ADD by {plugin}: p50 {:.1} ms, p90 {:.1} ms",
            at(50),
            at(90)
        );
    }
}
