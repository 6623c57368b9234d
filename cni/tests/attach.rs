//! The real plugins on real links: into the pod, as wished, and home again as it was.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;

use bench::{Bench, MAC, NIC, code, good};
use serde_json::json;

const HOST_DEVICE: &str = "vdn-host-device";
const MACVLAN: &str = "vdn-macvlan";

#[test]
fn a_dedicated_nic_goes_into_the_pod_without_dtnd_and_comes_home_as_it_was() {
    let bench = Bench::new();
    let conf = bench.conf(json!({}));
    bench.prepare("u1", "dedicated");
    let result = good(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf));
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(result["interfaces"][0]["name"], "data0");
    assert_eq!(result["interfaces"][0]["mac"], MAC);
    assert_eq!(result["interfaces"][0]["mtu"], 1500);
    assert_eq!(result["ips"][0]["address"], "10.20.0.11/24");
    assert_eq!(result["ips"][1]["interface"], 0);

    assert!(bench.link(NIC).is_none(), "it has left the host");
    let there = bench.link_in_pod("data0").unwrap();
    assert_eq!(there["mtu"], 1500);
    let addresses = there["addr_info"].to_string();
    for ip in ["10.20.0.11", "fd00:20::b"] {
        assert!(addresses.contains(ip), "{addresses}");
    }
    // the link-local address may still be looking for duplicates; those of the lease may not
    let given = |ip: &&serde_json::Value| ip["scope"] == "global";
    let mut leased = there["addr_info"].as_array().unwrap().iter().filter(given);
    assert!(leased.all(|ip| ip["tentative"].is_null()), "{addresses}");
    assert!(
        bench
            .ip_in_pod("route")
            .contains("10.30.0.0/16 via 10.20.0.1 dev data0")
    );
    let class = bench.tc_in_pod("class show dev data0");
    assert!(class.contains("rate 950Mbit ceil 950Mbit"), "{class}");

    let check = bench.conf(json!({"prevResult": result}));
    good(&bench.call(&bench.verb(HOST_DEVICE, "CHECK", "u1"), &check));
    assert_eq!(
        code(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf)),
        100
    );
    good(&bench.call(&bench.verb(HOST_DEVICE, "CHECK", "u1"), &check));

    good(&bench.call(&bench.verb(HOST_DEVICE, "DEL", "u1"), &conf));
    bench.assert_home("after DEL");
    assert!(bench.files("attachments").is_empty());
    let release = "0192f0c0-0000-7000-8000-000000000002.json";
    assert_eq!(
        bench.files("releases"),
        [release],
        "the lease is on its way back"
    );
    good(&bench.call(&bench.verb(HOST_DEVICE, "DEL", "u1"), &conf));
    bench.assert_home("after the second DEL");
}

#[test]
fn a_shared_nic_stays_on_the_host_and_its_child_goes() {
    let bench = Bench::new();
    let conf = bench.conf(json!({}));
    bench.prepare("u1", "shared");
    let result = good(&bench.call(&bench.verb(MACVLAN, "ADD", "u1"), &conf));
    assert_eq!(result["interfaces"][0]["mac"], "02:00:00:00:00:b2");
    bench.assert_home("the parent is as it was");
    let child = bench.link_in_pod("data0").unwrap();
    assert_eq!(child["linkinfo"]["info_kind"], "macvlan");
    assert_eq!(child["linkinfo"]["info_data"]["mode"], "bridge");
    assert!(
        bench
            .tc_in_pod("class show dev data0")
            .contains("rate 950Mbit")
    );
    let check = bench.conf(json!({"prevResult": result}));
    good(&bench.call(&bench.verb(MACVLAN, "CHECK", "u1"), &check));
    good(&bench.call(&bench.verb(MACVLAN, "DEL", "u1"), &conf));
    assert!(bench.link_in_pod("data0").is_none());
    assert!(bench.files("attachments").is_empty());
}

#[test]
fn what_a_pod_did_to_its_nic_is_undone() {
    let bench = Bench::new();
    let conf = bench.conf(json!({}));
    bench.prepare("u1", "dedicated");
    let result = good(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf));
    bench.ip_in_pod("link set data0 down");
    bench.ip_in_pod("link set data0 name eth0 alias eth0 address 02:66:66:66:66:66 mtu 1400");
    bench.ip_in_pod("link set eth0 promisc on");
    // a link of the pod's own under the name that was given to the NIC
    bench.ip_in_pod("link add data0 type veth peer name x");
    let check = bench.conf(json!({"prevResult": result}));
    assert_eq!(
        code(&bench.call(&bench.verb(HOST_DEVICE, "CHECK", "u1"), &check)),
        102
    );
    good(&bench.call(&bench.verb(HOST_DEVICE, "DEL", "u1"), &conf));
    bench.assert_home("after DEL");
    assert!(
        bench.link_in_pod("data0").is_some(),
        "the pod's own link is the pod's"
    );
    assert!(bench.link_in_pod("eth0").is_none());
}

#[test]
fn a_name_that_was_taken_meanwhile_does_not_keep_the_nic_away() {
    let bench = Bench::new();
    let conf = bench.conf(json!({}));
    bench.prepare("u1", "dedicated");
    good(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf));
    bench.ip(&format!("link add {NIC} type veth peer name other"));
    let output = bench.call(&bench.verb(HOST_DEVICE, "DEL", "u1"), &conf);
    good(&output);
    assert!(bench.link_in_pod("data0").is_none());
    assert_eq!(bench.link("dtn0").unwrap()["address"], MAC);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("dtn0"),
        "the log says so: {output:?}"
    );
}

#[test]
fn del_needs_no_sandbox_no_configuration_and_no_dtnd() {
    let mut bench = Bench::new();
    let conf = bench.conf(json!({}));
    bench.prepare("u1", "dedicated");
    good(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf));
    // no CNI_NETNS: the record knows the sandbox
    let mut del = bench.verb(HOST_DEVICE, "DEL", "u1");
    del.netns = None;
    good(&bench.call(&del, &conf));
    bench.assert_home("DEL without a sandbox's path");

    // the sandbox has died: a veth dies with it, and that is told, not retried for ever
    bench.prepare("u2", "dedicated");
    good(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u2"), &conf));
    let mut del = bench.verb(HOST_DEVICE, "DEL", "u2");
    del.netns = Some("/run/netns/dtn-cni-test-vanished".into());
    bench.pod = None;
    wait_for_the_veth_to_die(&bench);
    let output = bench.call(&del, &conf);
    good(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("ended with its sandbox"));
    assert!(bench.files("attachments").is_empty());
    good(&bench.call(&bench.verb(HOST_DEVICE, "DEL", "never-seen"), &conf));
}

/// The kernel takes a namespace down in the background; its veth's peer on the host goes last.
fn wait_for_the_veth_to_die(bench: &Bench) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while bench.link("wire0").is_some() {
        assert!(std::time::Instant::now() < end, "the namespace lives on");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn one_nic_goes_to_one_of_two_pods() {
    let bench = Bench::new();
    let other = dtn_link::Netns::create_unnamed().unwrap();
    let conf = bench.conf(json!({}));
    bench.prepare("u1", "dedicated");
    bench.prepare("u2", "dedicated");
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf));
        let mut call = bench.verb(HOST_DEVICE, "ADD", "u2");
        call.netns = Some(other.proc_path());
        let second = bench.call(&call, &conf);
        (first.join().unwrap(), second)
    });
    let (winner, loser) = if first.status.success() {
        (first, second)
    } else {
        (second, first)
    };
    good(&winner);
    assert_eq!(code(&loser), 101);
    assert_eq!(bench.files("attachments").len(), 1);
    for key in ["u1", "u2"] {
        good(&bench.call(&bench.verb(HOST_DEVICE, "DEL", key), &conf));
    }
    bench.assert_home("after both DELs");
}

#[test]
fn bad_calls_change_nothing() {
    let bench = Bench::new();
    let conf = bench.conf(json!({}));
    // nothing prepared, nobody to ask
    assert_eq!(
        code(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf)),
        11
    );
    // prepared for the other plugin
    bench.prepare("u1", "shared");
    assert_eq!(
        code(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf)),
        7
    );
    // the pod has that name already
    bench.prepare("u1", "dedicated");
    bench.ip_in_pod("link add data0 type veth peer name x");
    assert_eq!(
        code(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf)),
        103
    );
    bench.ip_in_pod("link del data0");
    // the host's own namespace, no namespace, a folder
    for (netns, expected) in [
        (bench.host.proc_path(), 8),
        ("/nowhere".into(), 8),
        ("/tmp".into(), 8),
    ] {
        let mut add = bench.verb(HOST_DEVICE, "ADD", "u1");
        add.netns = Some(netns);
        assert_eq!(code(&bench.call(&add, &conf)), expected);
    }
    // an MTU above the NIC's on a child: nothing is left of the try
    bench.prepare("u2", "shared");
    bench.ip("link set wire0 mtu 1400");
    bench.ip(&format!("link set {NIC} mtu 1400"));
    code(&bench.call(&bench.verb(MACVLAN, "ADD", "u2"), &conf));
    bench.ip(&format!("link set {NIC} mtu 9000"));
    bench.assert_home("after all that was refused");
    assert!(bench.files("attachments").is_empty());
    assert!(bench.link_in_pod("data0").is_none());
}

#[test]
fn the_nic_with_the_default_route_is_never_taken() {
    let bench = Bench::new();
    bench.ip("route add default via 192.0.2.1");
    bench.prepare("u1", "dedicated");
    let output = bench.call(
        &bench.verb(HOST_DEVICE, "ADD", "u1"),
        &bench.conf(json!({})),
    );
    assert_eq!(code(&output), 7);
    assert!(String::from_utf8_lossy(&output.stdout).contains("default route"));
    bench.assert_home("after the refusal");
}

#[test]
fn gc_collects_what_is_not_valid_and_nothing_else() {
    let bench = Bench::new();
    let conf = bench.conf(json!({}));
    bench.prepare("u1", "dedicated");
    good(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf));
    let gc = |extra| good(&bench.call(&bench.verb(HOST_DEVICE, "GC", "gc"), &bench.conf(extra)));
    let key = "cni.dev/valid-attachments";
    gc(json!({}));
    gc(json!({key: [{"containerID": "c-u1", "ifname": "data0"}]}));
    gc(json!({"name": "another", key: null}));
    assert!(bench.link_in_pod("data0").is_some(), "still attached");
    gc(json!({key: [{"containerID": "c-u1", "ifname": "other"}]}));
    bench.assert_home("after GC");
    assert!(bench.files("attachments").is_empty());
}

#[test]
fn status_tells_the_truth() {
    let bench = Bench::new();
    let status = |extra| bench.call(&bench.verb(HOST_DEVICE, "STATUS", "s"), &bench.conf(extra));
    assert_eq!(code(&status(json!({}))), 50, "dtnd is not there");
    let plain = json!({"ipam": {"type": "static"}, "device": NIC});
    good(&status(plain));
    assert_eq!(
        code(&status(
            json!({"ipam": {"type": "static"}, "device": "nope"})
        )),
        50
    );
    assert_eq!(code(&status(json!({"cniVersion": "1.0.0"}))), 1);
}

#[test]
fn an_old_version_without_addresses_is_refused_and_the_nic_is_home() {
    let bench = Bench::new();
    let mut conf = bench.conf(json!({"cniVersion": "0.2.0", "device": NIC}));
    conf.as_object_mut().unwrap().remove("ipam");
    assert_eq!(
        code(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf)),
        999
    );
    bench.assert_home("after an ADD whose result has no shape");
    conf["cniVersion"] = json!("0.4.0");
    let result = good(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf));
    assert_eq!(result["dns"], json!({}));
    good(&bench.call(&bench.verb(HOST_DEVICE, "DEL", "u1"), &conf));
    bench.assert_home("after DEL");
}
