//! Pods of a cluster without `vdn-chain`: the cluster's only network, which asks for each pod's own
//! interface, and plugins that Multus calls. Multus itself is not here (tests/kubernetes has it): its order
//! of calls is kept by hand, with what it hands over and what it forgets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;

use bench::{Bench, Call, NIC, code, good};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
};

const HOST_DEVICE: &str = "vdn-host-device";
const MACVLAN: &str = "vdn-macvlan";

/// A supervisor that answers with what it was told to, puts that into the file as the real one does,
/// and takes notices.
fn supervisor(bench: &Bench, key: &str, interfaces: &[Value]) {
    let socket = bench.places().socket;
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    bench.prepare_all(key, "kubernetes", interfaces);
    let file = bench.places().prepared().join(format!("{key}.json"));
    let prepared = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    // it ends with the test's process; its socket goes with the bench's folder
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = vec![0; 65_536];
            let count = stream.read(&mut asked).unwrap_or(0);
            let asked = String::from_utf8_lossy(&asked[..count]).into_owned();
            let body = if asked.contains("/cni/prepare") {
                std::fs::write(&file, &prepared).unwrap();
                prepared.clone()
            } else {
                b"null".to_vec()
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.into_bytes(), body].concat());
        }
    });
}
fn is_prepared(bench: &Bench, key: &str) -> bool {
    bench
        .places()
        .prepared()
        .join(format!("{key}.json"))
        .exists()
}
fn primary<'a>(bench: &Bench, verb: &'a str) -> Call<'a> {
    Call {
        ifname: "eth0",
        ..bench.verb(MACVLAN, verb, "u1")
    }
}

#[test]
fn the_only_network_asks_for_eth0_and_its_del_gives_it_back_without_a_supervisor() {
    let bench = Bench::new();
    let conf = bench.conf(json!({"name": "pods", "slice": "pods"}));
    let eth0 = bench.prepared("eth0", "shared", NIC, "pods", 3);
    supervisor(&bench, "u1", &[eth0]);
    let result = good(&bench.call(&primary(&bench, "ADD"), &conf));
    assert_eq!(result["ips"][0]["address"], "10.20.0.12/24");
    assert!(is_prepared(&bench, "u1"));
    // the supervisor is gone
    std::fs::remove_file(bench.places().socket).unwrap();
    good(&bench.call(&primary(&bench, "DEL"), &conf));
    assert!(bench.link_in_pod("eth0").is_none());
    assert_eq!(
        bench.files("releases").len(),
        1,
        "its lease is on its way back"
    );
    assert!(
        !is_prepared(&bench, "u1"),
        "the next sandbox of the pod has to ask anew"
    );
    assert!(bench.pins().is_empty());
    good(&bench.call(&primary(&bench, "DEL"), &conf));
    assert_eq!(code(&bench.call(&primary(&bench, "ADD"), &conf)), 11);
}

#[test]
fn what_an_add_asked_for_and_could_not_use_goes_back_with_its_del() {
    let bench = Bench::new();
    let conf = bench.conf(json!({"name": "pods", "slice": "pods"}));
    let mut eth0 = bench.prepared("eth0", "shared", NIC, "pods", 3);
    // larger than the NIC's
    eth0["mtu"] = json!(9001);
    supervisor(&bench, "u1", &[eth0]);
    code(&bench.call(&primary(&bench, "ADD"), &conf));
    assert!(is_prepared(&bench, "u1") && bench.files("releases").is_empty());
    std::fs::remove_file(bench.places().socket).unwrap();
    good(&bench.call(&primary(&bench, "DEL"), &conf));
    assert!(!is_prepared(&bench, "u1"));
    assert_eq!(bench.files("releases").len(), 1);
}

#[test]
fn a_claim_is_not_taken_for_the_pod_s_own_network() {
    let bench = Bench::new();
    bench.second_nic("ens2");
    let conf = bench.conf(json!({"name": "pods", "slice": "pods"}));
    let claim = bench.prepared("data0", "shared", "ens2", "dtn-claim", 2);
    let eth0 = bench.prepared("eth0", "shared", NIC, "pods", 3);
    supervisor(&bench, "u1", &[claim.clone(), eth0]);
    // the claim alone was prepared, before the sandbox
    bench.prepare_all("u1", "kubernetes", &[claim]);
    let result = good(&bench.call(&primary(&bench, "ADD"), &conf));
    assert_eq!(result["ips"][0]["address"], "10.20.0.12/24");
    let mut behind = bench.conf(json!({"name": "pods", "prevResult": result}));
    behind.as_object_mut().unwrap().remove("ipam");
    let chain = |verb| Call {
        ifname: "eth0",
        ..bench.verb("vdn-chain", verb, "u1")
    };
    let result = good(&bench.call(&chain("ADD"), &behind));
    assert_eq!(result["interfaces"][1]["name"], "data0");
    // both networks have one name, and each has a collection
    for (call, extra) in [
        (bench.verb(MACVLAN, "GC", "gc"), json!({"slice": "pods"})),
        (bench.verb("vdn-chain", "GC", "gc"), json!({})),
    ] {
        let mut gc = bench.conf(extra);
        gc["name"] = json!("pods");
        let container = bench.record("u1")["interfaces"][0]["container_id"].clone();
        gc["cni.dev/valid-attachments"] = json!([{"containerID": container, "ifname": "eth0"}]);
        good(&bench.call(&call, &gc));
    }
    assert!(bench.link_in_pod("eth0").is_some() && bench.link_in_pod("data0").is_some());
    good(&bench.call(&chain("DEL"), &behind));
    assert!(bench.link_in_pod("data0").is_none() && bench.link_in_pod("eth0").is_some());
    good(&bench.call(&primary(&bench, "DEL"), &conf));
    let left = std::fs::read(bench.places().prepared().join("u1.json")).unwrap();
    let left: Value = serde_json::from_slice(&left).unwrap();
    assert_eq!(
        left["interfaces"].as_array().unwrap().len(),
        1,
        "the claim is still prepared"
    );
    assert!(bench.pins().is_empty());
}

#[test]
fn multus_gives_its_own_names_and_what_was_prepared_is_found_all_the_same() {
    let bench = Bench::new();
    bench.second_nic("ens2");
    let claims = [
        bench.prepared("data0", "dedicated", NIC, "dtn-claim", 2),
        bench.prepared("data1", "shared", "ens2", "dtn-claim", 3),
    ];
    bench.prepare_all("u1", "kubernetes", &claims);
    // one delegate after the other; each a network of its own, and no result of another is handed on
    let delegates = [
        (HOST_DEVICE, "net1", "dtn-dedicated"),
        (MACVLAN, "net2", "dtn-shared"),
    ];
    let call = |plugin, verb, ifname| {
        Call {
        ifname,
        args: Some("IgnoreUnknown=true;K8S_POD_NAMESPACE=n;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c-u1;K8S_POD_UID=u1".into()),
        ..bench.verb(plugin, verb, "u1")
    }
    };
    let mut results = Vec::new();
    for (plugin, ifname, network) in delegates {
        let conf = bench.conf(json!({"name": network, "runtimeConfig": {}}));
        let result = good(&bench.call(&call(plugin, "ADD", ifname), &conf));
        assert_eq!(result["interfaces"][0]["name"], ifname);
        let mut check = conf;
        check["prevResult"] = result.clone();
        good(&bench.call(&call(plugin, "CHECK", ifname), &check));
        results.push(result);
    }
    assert_eq!(results[0]["ips"][0]["address"], "10.20.0.11/24");
    assert_eq!(bench.record("u1")["interfaces"][1]["prepared_as"], "data1");
    let third = bench.conf(json!({"name": "dtn-shared"}));
    // the third network of this class has no claim, and nobody to ask
    assert_eq!(code(&bench.call(&call(MACVLAN, "ADD", "net3"), &third)), 11);
    // in the opposite order, from its cache: without runtimeConfig
    for (plugin, ifname, network) in delegates.into_iter().rev() {
        let cached = bench.conf(json!({"name": network}));
        good(&bench.call(&call(plugin, "DEL", ifname), &cached));
        assert!(bench.link_in_pod(ifname).is_none());
    }
    bench.assert_home("after Multus");
    assert!(bench.files("releases").is_empty() && is_prepared(&bench, "u1"));
    assert!(bench.pins().is_empty());
}

#[test]
fn of_two_claims_that_fit_the_network_has_to_say_which() {
    let bench = Bench::new();
    bench.second_nic("ens2");
    let claims = [
        bench.prepared("data0", "shared", NIC, "dtn-claim", 2),
        bench.prepared("data1", "shared", "ens2", "dtn-claim", 3),
    ];
    bench.prepare_all("u1", "kubernetes", &claims);
    let call = |ifname| Call {
        ifname,
        ..bench.verb(MACVLAN, "ADD", "u1")
    };
    let refused = bench.call(&call("net1"), &bench.conf(json!({})));
    assert_eq!(code(&refused), 7);
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(said.contains("data0 data1"), "{said}");
    // what the driver publishes as the device of a NIC without a PCI address
    let named = bench.conf(json!({"runtimeConfig": {"deviceID": "ens2"}}));
    let result = good(&bench.call(&call("net1"), &named));
    assert_eq!(result["ips"][0]["address"], "10.20.0.12/24");
    // the other one is the only one that is left
    let result = good(&bench.call(&call("net2"), &bench.conf(json!({}))));
    assert_eq!(result["ips"][0]["address"], "10.20.0.11/24");
    for ifname in ["net2", "net1"] {
        let del = Call {
            ifname,
            ..bench.verb(MACVLAN, "DEL", "u1")
        };
        good(&bench.call(&del, &bench.conf(json!({}))));
    }
    assert!(bench.pins().is_empty());
}
