//! `dtnd` as a node's driver, against a real API server, with the rights that it is installed with:
//! what is published, what the kubelet asks for on the sockets, and what is left after a crash, a
//! reboot and a claim that went away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod apiserver;
mod site;

use apiserver::{ApiServer, NODE, driver, pod_of, registration};
use dtn_api::{LOCAL_BASE, local::Status};
use dtnd::cluster::contracts::{
    dra::{
        Claim, NodePrepareResourceResponse, NodePrepareResourcesRequest,
        NodeUnprepareResourcesRequest,
    },
    registration::{InfoRequest, RegistrationStatus},
};
use serde_json::{Value, json};
use site::{Daemon, Site, skipped, until};
use std::path::{Path, PathBuf};

struct Node {
    site: Site,
    api: ApiServer,
    kubelet: PathBuf,
}

impl Node {
    /// A host with a dedicated and a shared NIC, and a cluster that it is a node of.
    fn new(test: &str) -> Option<Self> {
        Self::without(test, &[])
    }
    /// The same with an API server that lacks these features, as an older one does.
    fn without(test: &str, features: &[&str]) -> Option<Self> {
        let site = Site::new(test)?;
        let Some(api) = ApiServer::start(&site, features) else {
            skipped(test, "Kubernetes is not built: tests/kubernetes/make.sh");
            return None;
        };
        site.nic("data0");
        site.nic("data1");
        let kubelet = site.dir.path().join("kubelet");
        std::fs::create_dir_all(kubelet.join("plugins_registry")).unwrap();
        let agent = api.agent(&site);
        site.config(&format!(
            "version = 1\n[host]\nname = \"{NODE}\"\n[kubernetes]\nkubeconfig = \"{}\"\n\
             kubelet-dir = \"{}\"\n\
             [[nic]]\nname = \"data0\"\nclass = \"dedicated\"\nspeed = \"10Gbit\"\n\
             [[nic]]\nname = \"data1\"\nclass = \"shared\"\nspeed = \"10Gbit\"\n",
            agent.display(),
            kubelet.display()
        ));
        Some(Self { site, api, kubelet })
    }

    async fn prepare(&self, claim: &Claim) -> NodePrepareResourceResponse {
        let mut driver = until("the driver answers", || driver(&self.kubelet)).await;
        let request = NodePrepareResourcesRequest {
            claims: vec![claim.clone()],
        };
        let answer = driver.node_prepare_resources(request).await.unwrap();
        answer.into_inner().claims.remove(&claim.uid).unwrap()
    }
    async fn unprepare(&self, claim: &Claim) -> String {
        let mut driver = until("the driver answers", || driver(&self.kubelet)).await;
        let request = NodeUnprepareResourcesRequest {
            claims: vec![claim.clone()],
        };
        let answer = driver.node_unprepare_resources(request).await.unwrap();
        answer.into_inner().claims[&claim.uid].error.clone()
    }
    fn slice(&self) -> Option<Value> {
        let name = format!("{NODE}-dtn.appliance");
        self.api.get(&self.site, "resourceslice", &name)
    }
    fn prepared(&self, claim: &str) -> PathBuf {
        let file = format!("run/dtn/prepared/{}.json", pod_of(claim));
        self.site.root().join(file)
    }
    async fn told(&self, claim: &str, wanted: &[(&str, bool)]) {
        let wanted: Vec<(String, bool)> = wanted.iter().map(|(t, s)| ((*t).into(), *s)).collect();
        until(&format!("{claim} shows {wanted:?}"), async || {
            let shown = self.api.conditions(&self.site, claim);
            (shown == wanted).then_some(())
        })
        .await;
    }
}

/// A line of the daemon's metrics, by what stands before the value.
fn metric(daemon: &Daemon, name: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {page}"))
        .trim()
        .to_owned()
}
fn read(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}
fn parameters(extra: Value) -> Value {
    let mut all = json!({"apiVersion": "dtn.appliance/v1", "kind": "InterfaceRequest"});
    for (name, value) in extra.as_object().unwrap() {
        all[name] = value.clone();
    }
    all
}
async fn check(daemon: &Daemon) -> dtn_api::local::Check {
    let status: Status = daemon
        .client()
        .get(&format!("{LOCAL_BASE}/status"))
        .await
        .unwrap();
    let mut checks = status.checks.into_iter();
    checks.find(|check| check.name == "kubernetes").unwrap()
}

#[tokio::test]
async fn nics_are_published_and_the_kubelet_is_answered() {
    let Some(node) = Node::new("nics_are_published_and_the_kubelet_is_answered") else {
        return;
    };
    let daemon = node.site.start();
    let slice = until("the NICs are published", async || node.slice()).await;
    assert_eq!(slice["metadata"]["ownerReferences"][0]["name"], NODE);
    let devices = slice["spec"]["devices"].as_array().unwrap();
    let names: Vec<&str> = devices
        .iter()
        .map(|d| d["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["data0", "data1"], "{}", node.site.log());
    assert_eq!(devices[0]["allowMultipleAllocations"], Value::Null);
    assert_eq!(devices[1]["allowMultipleAllocations"], true);
    assert_eq!(devices[1]["capacity"]["bandwidth"]["value"], "10G");
    // a veth has no card, and says so, so that a selector may ask
    for attribute in ["rdma", "virtualFunction"] {
        assert_eq!(devices[0]["attributes"][attribute]["bool"], false);
    }

    // before the kubelet asked, that is what is missing
    let before = check(&daemon).await;
    assert!(
        !before.ok && before.detail.contains("kubelet"),
        "{before:?}"
    );
    assert_eq!(metric(&daemon, "dtn_kubernetes_registered{}"), "0");
    let mut kubelet = until("it introduces itself", || registration(&node.kubelet)).await;
    let info = kubelet.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (info.r#type.as_str(), info.name.as_str()),
        ("DRAPlugin", "dtn.appliance")
    );
    assert!(info.supported_versions.contains(&"v1.DRAPlugin".to_owned()));
    assert!(Path::new(&info.endpoint).starts_with(&node.kubelet));
    let status = RegistrationStatus {
        plugin_registered: true,
        error: String::new(),
    };
    kubelet.notify_registration_status(status).await.unwrap();
    let after = check(&daemon).await;
    assert!(after.ok && after.detail.contains("2 NICs"), "{after:?}");
    assert_eq!(metric(&daemon, "dtn_kubernetes_registered{}"), "1");

    // a kubelet that starts takes it away; a NIC that loses its carrier is not for new pods
    let generation = |slice: &Value| slice["spec"]["pool"]["generation"].as_i64().unwrap();
    let name = format!("{NODE}-dtn.appliance");
    node.api
        .kubectl(&node.site, &["delete", "resourceslice", &name], "");
    let again = until("it is published again", async || node.slice()).await;
    assert!(generation(&again) > generation(&slice));
    node.site.run("ip link set far-data0 down");
    let dark = until("a NIC without carrier is tainted", async || {
        let slice = node.slice()?;
        (slice["spec"]["devices"][0]["taints"][0]["effect"] == "NoSchedule").then_some(slice)
    })
    .await;
    assert!(generation(&dark) > generation(&again));
    let tainted = "dtn_kubernetes_devices{state=\"tainted\"}";
    until("metrics tell of the taint", async || {
        (metric(&daemon, tainted) == "1").then_some(())
    })
    .await;

    // nothing is written while nothing changes
    let version = dark["metadata"]["resourceVersion"].clone();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(
        node.slice().unwrap()["metadata"]["resourceVersion"],
        version
    );
    // sockets that somebody removed are made again
    std::fs::remove_file(&info.endpoint).unwrap();
    until("the driver answers again", || driver(&node.kubelet)).await;
}

#[tokio::test]
async fn a_claim_is_prepared_once_and_given_back_whatever_happens_between() {
    let test = "a_claim_is_prepared_once_and_given_back_whatever_happens_between";
    let Some(mut node) = Node::new(test) else {
        return;
    };
    let daemon = node.site.start();
    until("the NICs are published", async || node.slice()).await;
    let wanted = parameters(json!({"interface": "wan0"}));
    let claim = node.api.claim(&node.site, "one", "data0", &wanted);
    let answer = node.prepare(&claim).await;
    assert_eq!(answer.error, "", "{}", node.site.log());
    assert_eq!(answer.devices[0].device_name, "data0");
    let first = read(&node.prepared("one"));
    let interface = &first["interfaces"][0];
    assert_eq!(interface["network"], "dtn-claim");
    assert_eq!(
        (&interface["ifname"], &interface["nic_name"]),
        (&json!("wan0"), &json!("data0"))
    );
    assert_eq!(first["pod"]["engine"], "kubernetes");
    node.told("one", &[("Prepared", true), ("Ready", false)])
        .await;

    // one NIC for one pod, and the reason is said
    let second = node
        .api
        .claim(&node.site, "two", "data0", &parameters(json!({})));
    let refused = node.prepare(&second).await;
    assert!(refused.error.contains("has it"), "{}", refused.error);
    assert!(!node.prepared("two").exists());

    // metrics have both, and what it cost: one call for each, and none by a plugin, which has no way
    let calls = "dtn_kubernetes_kubelet_call_seconds_count{verb=\"prepare\",result=";
    for result in ["ok", "state-conflict"] {
        let counted = metric(&daemon, &format!("{calls}\"{result}\"}}"));
        assert_eq!(counted, "1", "{result}");
    }
    let asked = "dtn_kubernetes_api_calls_total{purpose=\"prepare\",verb=\"get\",result=\"ok\"}";
    assert_eq!(metric(&daemon, asked), "2");
    let prepared = "dtn_kubernetes_claims{state=\"prepared\"}";
    assert_eq!(metric(&daemon, prepared), "1");

    // the API server away, and dtnd killed: what is prepared is answered from the disk
    node.api.down();
    daemon.kill();
    let daemon = node.site.start();
    let again = node.prepare(&claim).await;
    assert_eq!((again.error.as_str(), again.devices.len()), ("", 1));
    assert_eq!(read(&node.prepared("one")), first);

    // a reboot takes /run away, and the kubelet does not ask again
    daemon.kill();
    std::fs::remove_dir_all(node.site.root().join("run/dtn")).unwrap();
    let daemon = node.site.start();
    until("it is there after a reboot", async || {
        node.prepared("one").exists().then_some(())
    })
    .await;
    assert_eq!(
        read(&node.prepared("one"))["interfaces"],
        first["interfaces"]
    );

    // the way back needs no API server either, and twice is once
    assert_eq!(node.unprepare(&claim).await, "");
    assert!(!node.prepared("one").exists());
    assert_eq!(metric(&daemon, prepared), "0");
    assert_eq!(node.unprepare(&claim).await, "");
    node.api.up(&node.site);
    let third = node.prepare(&second).await;
    assert_eq!(third.error, "", "{}", node.site.log());

    // a kubelet that lost its state asks for the claim's next pod
    let next = json!({"status": {"reservedFor": [{"resource": "pods", "name": "next",
        "uid": pod_of("next")}]}});
    node.api.patch_claim(&node.site, "two", &next);
    assert_eq!(node.prepare(&second).await.error, "");
    assert!(node.prepared("next").exists() && !node.prepared("two").exists());

    // a claim that is gone is taken back without the kubelet
    node.api.kubectl(
        &node.site,
        &["delete", "resourceclaim", "two", "--wait=false"],
        "",
    );
    let finalizers = json!({"metadata": {"finalizers": null}}).to_string();
    let patch = [
        "patch",
        "resourceclaim",
        "two",
        "--type=merge",
        "-p",
        &finalizers,
    ];
    let _ = node.api.get(&node.site, "resourceclaim", "two").map(|_| {
        node.api.kubectl(&node.site, &patch, "");
    });
    until("what nobody uses is taken back", async || {
        (!node.prepared("next").exists()).then_some(())
    })
    .await;
    drop(daemon);
}

#[tokio::test]
async fn what_cannot_be_prepared_is_told_and_leaves_nothing() {
    let Some(node) = Node::new("what_cannot_be_prepared_is_told_and_leaves_nothing") else {
        return;
    };
    let daemon = node.site.start();
    until("the NICs are published", async || node.slice()).await;
    for (name, extra, words) in [
        ("bad", json!({"rate": "much", "mtu": 7}), "/parameters/mtu"),
        ("slice", json!({"slice": "lhc"}), "is dtn-cluster running?"),
    ] {
        let claim = node
            .api
            .claim(&node.site, name, "data0", &parameters(extra));
        let answer = node.prepare(&claim).await;
        assert!(answer.error.contains(words), "{name}: {}", answer.error);
        assert!(answer.devices.is_empty() && !node.prepared(name).exists());
    }
    let gone = node
        .api
        .claim(&node.site, "gone", "data9", &parameters(json!({})));
    let answer = node.prepare(&gone).await;
    assert!(
        answer.error.contains("data9 is not on this node"),
        "{}",
        answer.error
    );

    // what the controller says is what the pod's events say
    let no = "slice lhc has 2.0 Gb/s left until 14:00";
    node.api.patch_claim(
        &node.site,
        "slice",
        &json!({"status": {"devices": [{"driver": "dtn.appliance", "pool": NODE, "device": "data0",
            "conditions": [{"type": "Negotiated", "status": "False", "reason": "Waits",
                "message": no, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}]}}),
    );
    let uid = node.api.get(&node.site, "resourceclaim", "slice").unwrap();
    let claim = Claim {
        namespace: "default".into(),
        name: "slice".into(),
        uid: uid["metadata"]["uid"].as_str().unwrap().into(),
    };
    assert_eq!(node.prepare(&claim).await.error, no);
    let stale = Claim {
        uid: "another".into(),
        ..claim
    };
    let answer = node.prepare(&stale).await;
    assert!(answer.error.contains("made anew"), "{}", answer.error);
    let left = std::fs::read_dir(node.site.root().join("var/lib/dtn/claims")).unwrap();
    assert_eq!(left.count(), 0);
    drop(daemon);
}

#[tokio::test]
async fn an_older_api_server_is_given_what_it_keeps() {
    let older = [
        "DRAConsumableCapacity",
        "DRADeviceTaints",
        "DRADeviceTaintRules",
    ];
    let test = "an_older_api_server_is_given_what_it_keeps";
    let Some(node) = Node::without(test, &older) else {
        return;
    };
    let daemon = node.site.start();
    let slice = until("the NICs are published", async || node.slice()).await;
    let names = |slice: &Value| -> Vec<String> {
        let devices = slice["spec"]["devices"].as_array().cloned();
        let names = devices.unwrap_or_default();
        names
            .iter()
            .map(|d| d["name"].as_str().unwrap().into())
            .collect()
    };
    assert_eq!(names(&slice), ["data0"], "{}", node.site.log());
    let why = check(&daemon).await.detail;
    assert!(
        why.contains("data1: a shared NIC") && why.contains("DRAConsumableCapacity"),
        "{why}"
    );
    // what cannot be tainted is left out while nobody has it
    node.site.run("ip link set far-data0 down");
    until("a NIC without carrier is left out", async || {
        names(&node.slice()?).is_empty().then_some(())
    })
    .await;
}
