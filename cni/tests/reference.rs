//! Side by side with Debian's reference plugins, where the behaviour is standard; and another
//! project's IPAM plugin as our delegate.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;

use bench::{Bench, NIC, code, good, skip};
use serde_json::{Value, json};
use std::path::Path;

fn reference(name: &str) -> Option<String> {
    let path = format!("/usr/lib/cni/{name}");
    if Path::new(&path).is_file() {
        return Some(path);
    }
    skip(&format!("no {path}: install containernetworking-plugins"));
    None
}

/// A network with fixed addresses, of a version that both speak.
fn fixed(bench: &Bench, extra: Value) -> Value {
    let mut conf = bench.conf(extra);
    conf["cniVersion"] = json!("0.4.0");
    conf["ipam"] = json!({"type": "static",
        "addresses": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1"}, {"address": "fd09::2/64"}],
        "routes": [{"dst": "10.10.0.0/16", "gw": "10.9.0.1"}]});
    conf
}

/// What must be the same: everything but the parts that are made anew each time.
fn essence(mut result: Value) -> Value {
    // Debian's build prints an empty one for 1.0.0 as well, newer ones of the reference do not
    if result["cniVersion"] == "1.0.0" && result["dns"] == json!({}) {
        result.as_object_mut().unwrap().remove("dns");
    }
    if result.get("interfaces").is_some() {
        result["interfaces"][0]["sandbox"] = json!("S");
        result["interfaces"][0]["mac"] = json!("M");
    }
    result
}

/// What Debian's reference plugins (1.1.1) speak.
const COMMON: [&str; 6] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"];

#[test]
fn results_are_those_of_the_reference_plugins() {
    let kinds = [
        ("vdn-host-device", "host-device", "device"),
        ("vdn-macvlan", "macvlan", "master"),
    ];
    for (version, (ours, theirs, nic)) in COMMON.iter().flat_map(|v| kinds.map(|kind| (v, kind))) {
        let Some(path) = reference(theirs) else {
            return;
        };
        let answer = |plugin: &str| {
            let bench = Bench::new();
            let mut conf = fixed(&bench, json!({nic: NIC, "type": theirs}));
            conf["cniVersion"] = json!(version);
            let result = good(&bench.call(&bench.verb(plugin, "ADD", "u1"), &conf));
            let routes = bench.ip_in_pod("route");
            if matches!(*version, "0.4.0" | "1.0.0") {
                let mut check = conf.clone();
                check["prevResult"] = result.clone();
                good(&bench.call(&bench.verb(plugin, "CHECK", "u1"), &check));
            }
            good(&bench.call(&bench.verb(plugin, "DEL", "u1"), &conf));
            assert!(
                bench.link(NIC).is_some() && bench.link_in_pod("data0").is_none(),
                "{plugin}"
            );
            (
                essence(result),
                routes.contains("10.10.0.0/16 via 10.9.0.1"),
            )
        };
        assert_eq!(answer(ours), answer(&path), "{ours} {version}");
    }
}

#[test]
fn a_delegate_that_fails_leaves_the_nic_home() {
    if reference("static").is_none() {
        return;
    }
    let bench = Bench::new();
    let mut conf = fixed(&bench, json!({"device": NIC}));
    conf["ipam"]["addresses"] = json!([{"address": "no address"}]);
    code(&bench.call(&bench.verb("vdn-host-device", "ADD", "u1"), &conf));
    bench.assert_home("after the delegate's failure");
    conf["ipam"] = json!({"type": "dtn-no-such-plugin"});
    assert_eq!(
        code(&bench.call(&bench.verb("vdn-host-device", "ADD", "u1"), &conf)),
        7
    );
    bench.assert_home("after a delegate that is not there");
    assert!(bench.files("attachments").is_empty());
}

#[test]
fn a_delegates_address_is_free_again_without_any_configuration() {
    let Some(_) = reference("host-local") else {
        return;
    };
    let bench = Bench::new();
    let store = bench.folder.path().join("ipam");
    let mut conf = bench.conf(json!({"device": NIC}));
    // one address: it can be had a second time only if it was given back
    conf["ipam"] = json!({"type": "host-local", "dataDir": store,
        "ranges": [[{"subnet": "10.8.0.0/24", "rangeStart": "10.8.0.5", "rangeEnd": "10.8.0.5"}]]});
    conf["cniVersion"] = json!("1.0.0");
    good(&bench.call(&bench.verb("vdn-host-device", "ADD", "u1"), &conf));
    // DEL with nothing but a name: the record holds the rest
    let bare = bench.conf(json!({"cniVersion": "1.0.0", "ipam": {"type": "vdn-ipam"}}));
    good(&bench.call(&bench.verb("vdn-host-device", "DEL", "u1"), &bare));
    bench.assert_home("after the bare DEL");
    let again = good(&bench.call(&bench.verb("vdn-host-device", "ADD", "u2"), &conf));
    assert_eq!(again["ips"][0]["address"], "10.8.0.5/24");
    good(&bench.call(&bench.verb("vdn-host-device", "DEL", "u2"), &conf));
}
