//! Late calls, used-again numbers, full disks and spoilt configurations: nobody else's link is
//! touched, and the NIC comes home.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;

use bench::{Bench, NIC, code, good};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};

const HOST_DEVICE: &str = "vdn-host-device";
const MACVLAN: &str = "vdn-macvlan";

fn attached(class: &str) -> (Bench, Value, Value) {
    let bench = Bench::new();
    let conf = bench.conf(json!({}));
    bench.prepare("u1", class);
    let plugin = if class == "shared" {
        MACVLAN
    } else {
        HOST_DEVICE
    };
    let result = good(&bench.call(&bench.verb(plugin, "ADD", "u1"), &conf));
    (bench, conf, result)
}

#[test]
fn a_late_del_for_the_old_container_leaves_the_new_one_attached() {
    let (bench, conf, _) = attached("dedicated");
    let mut late = bench.verb(HOST_DEVICE, "DEL", "u1");
    late.container = Some("c-old");
    good(&bench.call(&late, &conf));
    assert!(bench.link_in_pod("data0").is_some(), "it is not its own");
    assert!(bench.files("releases").is_empty());
    good(&bench.call(&bench.verb(HOST_DEVICE, "DEL", "u1"), &conf));
    bench.assert_home("after the DEL of its own container");
    let locks = bench.folder.path().join("run/dtn/locks");
    assert_eq!(
        std::fs::read_dir(locks).unwrap().count(),
        0,
        "no lock is left"
    );
}

#[test]
fn a_del_gets_through_whatever_became_of_the_configuration() {
    let (bench, mut conf, _) = attached("dedicated");
    conf["mtu"] = json!(5);
    conf["ipam"] = json!({"type": "../x"});
    conf["prevResult"] = json!({"ips": "none"});
    conf["linkInContainer"] = json!(true);
    assert_eq!(
        code(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u2"), &conf)),
        2
    );
    conf["linkInContainer"] = json!(false);
    assert_eq!(
        code(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u2"), &conf)),
        7
    );
    good(&bench.call(&bench.verb(HOST_DEVICE, "DEL", "u1"), &conf));
    bench.assert_home("after a DEL with a spoilt configuration");
}

#[test]
fn a_route_that_went_is_noticed() {
    let (bench, _, result) = attached("dedicated");
    let check = bench.conf(json!({"prevResult": result}));
    good(&bench.call(&bench.verb(HOST_DEVICE, "CHECK", "u1"), &check));
    bench.ip_in_pod("route del 10.30.0.0/16");
    let output = bench.call(&bench.verb(HOST_DEVICE, "CHECK", "u1"), &check);
    assert_eq!(code(&output), 102);
    assert!(String::from_utf8_lossy(&output.stdout).contains("10.30.0.0/16"));
}

#[test]
fn a_full_disk_stops_an_add_before_it_begins_and_keeps_no_nic_away() {
    let bench = Bench::new();
    let conf = bench.conf(json!({}));
    bench.prepare("u1", "dedicated");
    let mut add = bench.verb(HOST_DEVICE, "ADD", "u1");
    add.disk_full = true;
    assert_eq!(code(&bench.call(&add, &conf)), 5);
    bench.assert_home("after an ADD without room for its record");
    assert!(bench.link_in_pod("data0").is_none());
    assert!(bench.files("attachments").is_empty());

    good(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf));
    let mut del = bench.verb(HOST_DEVICE, "DEL", "u1");
    del.disk_full = true;
    let output = bench.call(&del, &conf);
    assert_eq!(
        code(&output),
        11,
        "the lease is not yet on its way: {output:?}"
    );
    bench.assert_home("after a DEL without room");
    good(&bench.call(&bench.verb(HOST_DEVICE, "DEL", "u1"), &conf));
    assert_eq!(bench.files("releases").len(), 1);
    assert!(bench.files("attachments").is_empty());
}

#[test]
fn a_lease_that_is_used_again_is_taken_out_of_the_queue() {
    let (bench, conf, _) = attached("dedicated");
    good(&bench.call(&bench.verb(HOST_DEVICE, "DEL", "u1"), &conf));
    assert_eq!(bench.files("releases").len(), 1);
    good(&bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf));
    assert!(bench.files("releases").is_empty());
    good(&bench.call(&bench.verb(HOST_DEVICE, "DEL", "u1"), &conf));
}

#[test]
fn a_record_of_another_boot_touches_no_sandbox() {
    let (bench, conf, _) = attached("shared");
    let mut record = bench.record("u1");
    record["boot_id"] = json!("00000000-0000-0000-0000-000000000000");
    bench.set_record("u1", &record);
    good(&bench.call(&bench.verb(MACVLAN, "DEL", "u1"), &conf));
    assert!(
        bench.link_in_pod("data0").is_some(),
        "this link is of this boot"
    );
    assert!(bench.files("attachments").is_empty());
    assert_eq!(bench.files("releases").len(), 1);
}

/// A process in a namespace, ended with the test.
struct Resident(Child);

impl Resident {
    fn of(netns: &dtn_link::Netns) -> Self {
        let child = Command::new("nsenter")
            .arg(format!("--net={}", netns.proc_path().display()))
            .args(["sh", "-c", "echo in; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn();
        let mut resident = Self(child.unwrap());
        let mut word = [0; 3];
        let output = resident.0.stdout.as_mut().unwrap();
        std::io::Read::read_exact(output, &mut word).unwrap();
        resident
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_sandbox_that_only_has_the_inode_must_have_the_link_as_well() {
    for (class, plugin) in [("dedicated", HOST_DEVICE), ("shared", MACVLAN)] {
        let (bench, conf, _) = attached(class);
        let _resident = Resident::of(bench.pod());
        let truth = bench.record("u1");
        // the path is gone; the pod's process is still there, and so is the NIC
        let mut record = truth.clone();
        record["interfaces"][0]["netns"] = json!("/run/netns/dtn-cni-test-vanished");
        // the same inode was given to another pod, whose link has the same index
        record["interfaces"][0]["mac"] = json!("02:00:00:00:00:ee");
        bench.set_record("u1", &record);
        good(&bench.call(&bench.verb(plugin, "DEL", "u1"), &conf));
        assert!(bench.link_in_pod("data0").is_some(), "{class}: not its own");

        record["interfaces"][0]["mac"] = truth["interfaces"][0]["mac"].clone();
        bench.set_record("u1", &record);
        good(&bench.call(&bench.verb(plugin, "DEL", "u1"), &conf));
        assert!(bench.link_in_pod("data0").is_none(), "{class}");
        bench.assert_home(class);
    }
}

#[test]
fn a_child_that_is_made_again_has_its_address_again() {
    let bench = Bench::new();
    let mut conf = bench.conf(json!({"master": NIC}));
    conf.as_object_mut().unwrap().remove("ipam");
    let mac = |conf: &Value, args: Option<&str>| {
        let mut add = bench.verb(MACVLAN, "ADD", "u1");
        add.args = args.map(str::to_owned);
        let result = good(&bench.call(&add, conf));
        let mut del = bench.verb(MACVLAN, "DEL", "u1");
        del.args = args.map(str::to_owned);
        good(&bench.call(&del, conf));
        result["interfaces"][0]["mac"].as_str().unwrap().to_owned()
    };
    assert_eq!(mac(&conf, None), mac(&conf, None));
    let args = Some("IgnoreUnknown=1;MAC=02:00:00:00:00:03");
    conf["mac"] = json!("02:00:00:00:00:02");
    assert_eq!(mac(&conf, None), "02:00:00:00:00:02");
    assert_eq!(mac(&conf, args), "02:00:00:00:00:03");
    conf["runtimeConfig"] = json!({"mac": "02:00:00:00:00:04"});
    assert_eq!(mac(&conf, args), "02:00:00:00:00:04");
}

#[test]
fn a_spoilt_record_is_told_and_does_not_stop_the_runtime() {
    let (bench, conf, _) = attached("dedicated");
    let truth = bench.record("u1");
    for spoilt in ["", "{\"version\":1", "{\"version\":99}", "[1]"] {
        let file = bench.state().join("attachments/u1.json");
        std::fs::write(&file, spoilt).unwrap();
        let output = bench.call(&bench.verb(HOST_DEVICE, "DEL", "u1"), &conf);
        good(&output);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(log.contains("u1.json"), "{log}");
        let gc = bench.conf(json!({"cni.dev/valid-attachments": []}));
        code(&bench.call(&bench.verb(HOST_DEVICE, "GC", "gc"), &gc));
        let add = bench.call(&bench.verb(HOST_DEVICE, "ADD", "u1"), &conf);
        assert_eq!(code(&add), 5, "nothing is built on it");
    }
    bench.set_record("u1", &truth);
    good(&bench.call(&bench.verb(HOST_DEVICE, "DEL", "u1"), &conf));
    bench.assert_home("after the record was put right");
}
