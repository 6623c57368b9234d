//! `vdn-chain` behind another network: pods without a claim pass as they came whatever is broken on our
//! side, those with one get all of it or nothing, and it goes home with them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;

use bench::{Bench, Call, NIC, code, good};
use dtn_link::Netns;
use serde_json::{Value, json};
use std::fs;

const CHAIN: &str = "vdn-chain";
const SECOND: &str = "ens2";

/// What the cluster's own network came to.
fn before(bench: &Bench) -> Value {
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "cni0", "mac": "02:00:00:00:00:01"},
            {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": bench.pod().proc_path()}],
        "ips": [{"address": "10.244.0.5/24", "gateway": "10.244.0.1", "interface": 1}],
        "routes": [{"dst": "0.0.0.0/0"}], "dns": {}, "odd": {"kept": [1.5]},
    })
}
fn conf(bench: &Bench, extra: Value) -> Value {
    let mut conf = bench.conf(json!({"name": "cbr0", "type": CHAIN, "prevResult": before(bench)}));
    conf.as_object_mut().unwrap().remove("ipam");
    for (key, value) in extra.as_object().unwrap() {
        conf[key] = value.clone();
    }
    conf
}
fn verb<'a>(bench: &Bench, verb: &'a str, key: &'a str) -> Call<'a> {
    Call {
        ifname: "eth0",
        ..bench.verb(CHAIN, verb, key)
    }
}
/// A host with two NICs, and a pod with a claim of each class.
fn prepared() -> Bench {
    let bench = Bench::new();
    bench.second_nic(SECOND);
    prepare(&bench, "u1");
    bench
}
fn prepare(bench: &Bench, key: &str) {
    let claims = [
        bench.prepared("data0", "dedicated", NIC, "dtn-claim", 2),
        bench.prepared("data1", "shared", SECOND, "dtn-claim", 3),
    ];
    bench.prepare_all(key, "kubernetes", &claims);
}
fn assert_nothing_left(bench: &Bench, why: &str) {
    bench.assert_home(why);
    for name in ["data0", "data1"] {
        assert!(bench.link_in_pod(name).is_none(), "{why}: {name}");
    }
    let left: Vec<_> = bench
        .files("attachments")
        .into_iter()
        .filter(|f| f.ends_with(".json"))
        .collect();
    assert!(left.is_empty(), "{why}: {left:?}");
    assert!(bench.pins().is_empty(), "{why}: {:?}", bench.pins());
}

#[test]
fn a_pod_without_a_claim_passes_as_it_came_whatever_is_broken_on_our_side() {
    type Break = fn(&Bench);
    let breaks: [(&str, Break); 6] = [
        ("nothing is there at all", |_| {}),
        ("the folder of what is prepared is a file", |bench| {
            fs::create_dir_all(bench.folder.path().join("run/dtn")).unwrap();
            fs::write(bench.folder.path().join("run/dtn/prepared"), "x").unwrap();
        }),
        ("the state is a file", |bench| {
            fs::create_dir_all(bench.folder.path().join("var/lib")).unwrap();
            fs::write(bench.state(), "x").unwrap();
        }),
        ("records are torn", |bench| {
            fs::create_dir_all(bench.state().join("attachments")).unwrap();
            fs::write(bench.state().join("attachments/u9.json"), "{").unwrap();
        }),
        ("what another pod was prepared is torn", |bench| {
            fs::create_dir_all(bench.folder.path().join("run/dtn/prepared")).unwrap();
            fs::write(bench.folder.path().join("run/dtn/prepared/u9.json"), "{").unwrap();
        }),
        ("the supervisor takes calls and answers none", |bench| {
            let socket = bench.places().socket;
            fs::create_dir_all(socket.parent().unwrap()).unwrap();
            // it listens until the test's process ends
            std::mem::forget(std::os::unix::net::UnixListener::bind(socket).unwrap());
        }),
    ];
    for (why, broken) in breaks {
        let bench = Bench::new();
        broken(&bench);
        let conf = conf(&bench, json!({}));
        assert_eq!(
            good(&bench.call(&verb(&bench, "ADD", "u1"), &conf)),
            before(&bench),
            "{why}"
        );
        for other in ["CHECK", "STATUS", "DEL", "DEL"] {
            good(&bench.call(&verb(&bench, other, "u1"), &conf));
        }
        // a runtime that tells no UID
        let mut bare = verb(&bench, "DEL", "u1");
        bare.args = Some("IgnoreUnknown=1".into());
        good(&bench.call(&bare, &conf));
        bench.assert_home(why);
        assert!(bench.pins().is_empty(), "{why}");
        assert!(
            bench.places().run.join("locks").symlink_metadata().is_err(),
            "{why}: nothing was locked"
        );
    }
}

#[test]
fn a_version_that_is_not_known_harms_a_pod_with_a_claim_alone() {
    let bench = prepared();
    let newer = conf(&bench, json!({"cniVersion": "9.0.0"}));
    assert_eq!(
        good(&bench.call(&verb(&bench, "ADD", "u2"), &newer)),
        before(&bench)
    );
    assert_eq!(code(&bench.call(&verb(&bench, "ADD", "u1"), &newer)), 1);
    good(&bench.call(&verb(&bench, "DEL", "u1"), &newer));
    assert_nothing_left(&bench, "another version");
}

#[test]
fn all_claims_come_in_are_told_and_go_home() {
    let bench = prepared();
    let conf = conf(&bench, json!({}));
    let result = good(&bench.call(&verb(&bench, "ADD", "u1"), &conf));
    let names: Vec<_> = result["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["name"].clone())
        .collect();
    assert_eq!(names, ["cni0", "eth0", "data0", "data1"]);
    let mut others = result.clone();
    others["interfaces"].as_array_mut().unwrap().truncate(2);
    assert_eq!(
        others,
        before(&bench),
        "addresses of claims are no addresses of the pod"
    );
    assert_eq!(result["interfaces"][2]["mtu"], 1500);
    for (name, address) in [("data0", "10.20.0.11"), ("data1", "10.20.0.12")] {
        let link = bench.link_in_pod(name).unwrap();
        assert!(link["addr_info"].to_string().contains(address), "{link}");
    }
    let record = bench.record("u1");
    assert_eq!(record["interfaces"][0]["behind"], "cbr0");
    assert_eq!(record["interfaces"][0]["network"], "dtn-claim");
    assert_eq!(
        bench.pins().len(),
        1,
        "the sandbox is pinned while a NIC is in it"
    );

    let mut check = conf.clone();
    check["prevResult"] = result;
    good(&bench.call(&verb(&bench, "CHECK", "u1"), &check));
    bench.ip_in_pod("link set data1 down");
    assert_eq!(code(&bench.call(&verb(&bench, "CHECK", "u1"), &check)), 102);

    good(&bench.call(&verb(&bench, "DEL", "u1"), &check));
    assert_nothing_left(&bench, "after DEL");
    // the claim's leases go back with the claim
    assert!(bench.files("releases").is_empty());
    assert!(bench.places().prepared().join("u1.json").exists());
    good(&bench.call(&verb(&bench, "DEL", "u1"), &check));
    // a new sandbox of the same pod
    good(&bench.call(&verb(&bench, "ADD", "u1"), &conf));
    let unprepared = bench.places().prepared().join("u1.json");
    fs::remove_file(unprepared).unwrap();
    good(&bench.call(&verb(&bench, "DEL", "u1"), &conf));
    assert_nothing_left(&bench, "after the second DEL");
    assert_eq!(
        bench.files("releases").len(),
        2,
        "nobody else gives them back any more"
    );
}

#[test]
fn a_pod_does_not_start_without_what_it_was_promised_before_the_machine_restarted() {
    let bench = prepared();
    let conf = conf(&bench, json!({}));
    fs::remove_dir_all(bench.places().prepared()).unwrap();
    fs::create_dir_all(bench.places().claims()).unwrap();
    fs::write(bench.places().claims().join("torn.json"), "{").unwrap();
    let entry = json!({"version": 1, "pod": {"uid": "u1", "name": "p"}, "devices": []});
    fs::write(bench.places().claims().join("c1.json"), entry.to_string()).unwrap();
    assert_eq!(code(&bench.call(&verb(&bench, "ADD", "u1"), &conf)), 11);
    assert_eq!(
        good(&bench.call(&verb(&bench, "ADD", "u2"), &conf)),
        before(&bench)
    );
    prepare(&bench, "u1");
    good(&bench.call(&verb(&bench, "ADD", "u1"), &conf));
    good(&bench.call(&verb(&bench, "DEL", "u1"), &conf));
    assert_nothing_left(&bench, "after the restart");
}

#[test]
fn all_of_them_or_none() {
    let bench = prepared();
    let conf = conf(&bench, json!({}));
    // the second NIC is not there
    bench.ip(&format!("link del {SECOND}"));
    let refused = bench.call(&verb(&bench, "ADD", "u1"), &conf);
    assert_eq!(code(&refused), 7);
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        said.contains("attaching data1") && said.contains(SECOND),
        "{said}"
    );
    assert_nothing_left(&bench, "after an ADD that failed");
    assert!(
        bench.files("releases").is_empty(),
        "the pod is still prepared"
    );
    good(&bench.call(&verb(&bench, "DEL", "u1"), &conf));
    // what was prepared for the pod is torn: it must not start without its NIC
    fs::write(bench.places().prepared().join("u1.json"), "{").unwrap();
    assert_eq!(code(&bench.call(&verb(&bench, "ADD", "u1"), &conf)), 5);
    good(&bench.call(&verb(&bench, "DEL", "u1"), &conf));
}

#[test]
fn first_of_a_list_it_says_where_it_belongs() {
    let bench = prepared();
    let mut alone = conf(&bench, json!({}));
    alone.as_object_mut().unwrap().remove("prevResult");
    for key in ["u1", "u2"] {
        let refused = bench.call(&verb(&bench, "ADD", key), &alone);
        assert_eq!(code(&refused), 7);
        assert!(String::from_utf8_lossy(&refused.stdout).contains("put it last"));
    }
}

#[test]
fn a_collection_takes_what_is_behind_this_network_and_no_container_that_is_valid() {
    let bench = prepared();
    let own = conf(&bench, json!({}));
    good(&bench.call(&verb(&bench, "ADD", "u1"), &own));
    let gc = |name: &str, valid: Option<Value>| {
        let mut gc = conf(&bench, json!({"name": name}));
        gc.as_object_mut().unwrap().remove("prevResult");
        if let Some(valid) = valid {
            gc["cni.dev/valid-attachments"] = valid;
        }
        good(&bench.call(&verb(&bench, "GC", "gc"), &gc));
        bench.link_in_pod("data0").is_some() && bench.link_in_pod("data1").is_some()
    };
    let container = bench.record("u1")["interfaces"][0]["container_id"].clone();
    let valid = json!([{"containerID": container, "ifname": "eth0"}]);
    assert!(gc("cbr0", None), "no list");
    assert!(gc("cbr0", Some(valid)), "the container is valid");
    assert!(
        gc("other", Some(json!([]))),
        "another network knows nothing of it"
    );
    // nor does one of our own networks on this host
    for plugin in ["vdn-macvlan", "vdn-host-device"] {
        let mut list = bench.conf(json!({"name": "cbr0", "cni.dev/valid-attachments": []}));
        list["type"] = json!(plugin);
        good(&bench.call(&bench.verb(plugin, "GC", "gc"), &list));
    }
    assert!(bench.link_in_pod("data0").is_some());
    assert!(!gc(
        "cbr0",
        Some(json!([{"containerID": "c-other", "ifname": "eth0"}]))
    ));
    assert_nothing_left(&bench, "after GC");
}

#[test]
fn a_late_del_for_an_old_container_leaves_the_new_one_attached() {
    let bench = prepared();
    let conf = conf(&bench, json!({}));
    good(&bench.call(&verb(&bench, "ADD", "u1"), &conf));
    let mut late = verb(&bench, "DEL", "u1");
    late.container = Some("c-old");
    good(&bench.call(&late, &conf));
    assert!(bench.link_in_pod("data0").is_some());
    // the UID is lost, the network has another name, the sandbox is not told: the container is enough
    let mut bare = verb(&bench, "DEL", "u1");
    (bare.args, bare.netns) = (Some("IgnoreUnknown=1".into()), None);
    let mut renamed = conf;
    renamed["name"] = json!("renamed");
    good(&bench.call(&bare, &renamed));
    assert_nothing_left(&bench, "after the bare DEL");
}

#[test]
fn what_multus_attached_before_is_not_attached_again() {
    let bench = prepared();
    let nad = bench.conf(json!({"name": "lhc"}));
    good(&bench.call(&bench.verb("vdn-host-device", "ADD", "u1"), &nad));
    let result = good(&bench.call(&verb(&bench, "ADD", "u1"), &conf(&bench, json!({}))));
    assert_eq!(
        result["interfaces"].as_array().unwrap().len(),
        3,
        "{result}"
    );
    assert!(bench.link_in_pod("data0").is_some() && bench.link_in_pod("data1").is_some());
    good(&bench.call(&verb(&bench, "DEL", "u1"), &conf(&bench, json!({}))));
    assert!(
        bench.link_in_pod("data0").is_some(),
        "it is Multus' to take home"
    );
    good(&bench.call(&bench.verb("vdn-host-device", "DEL", "u1"), &nad));
    assert_nothing_left(&bench, "after both");
}

#[test]
fn a_nic_outlives_a_sandbox_that_the_runtime_removed_without_del() {
    let mut bench = prepared();
    let path = bench.folder.path().join("netns-of-the-runtime");
    bench.pod().bind(&path).unwrap();
    let mut add = verb(&bench, "ADD", "u1");
    add.netns = Some(path.clone());
    let conf = conf(&bench, json!({}));
    good(&bench.call(&add, &conf));
    let rescue = |bench: &Bench| {
        let places = bench.places();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let done = dtn_cni::reconcile::abandoned(&places, "u1");
            runtime.unwrap().block_on(done).unwrap()
        };
        bench.host.run_blocking(work).unwrap()
    };
    assert!(
        rescue(&bench).is_empty(),
        "a pod that runs keeps what it has"
    );
    // all that holds the sandbox now is our pin
    dtn_link::netns::unbind(&path).unwrap();
    bench.pod = None;
    let home = rescue(&bench);
    assert_eq!(home.len(), 2, "{home:?}");
    bench.assert_home("after the rescue");
    assert!(bench.pins().is_empty());
    assert!(rescue(&bench).is_empty(), "twice is once");
    // a veth without the pin would have been destroyed
    bench.pod = Some(Netns::create_unnamed().unwrap());
    good(&bench.call(&verb(&bench, "ADD", "u1"), &conf));
    good(&bench.call(&verb(&bench, "DEL", "u1"), &conf));
    assert_nothing_left(&bench, "after the next sandbox");
}
