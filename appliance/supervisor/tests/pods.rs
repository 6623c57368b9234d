//! Pods with a real podman, the real plugins and real links, in a capsule: deployed into a slice on
//! a dedicated and on a shared NIC, seen by `ip` and `tc`, killed and restarted in every way, and
//! taken down until nothing is left.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod capsule;
mod site;

use capsule::{Capsule, sh};
use dtn_api::{
    HostId, MacAddress,
    client::Client,
    domain::Invitation,
    local::{Join, LocalSlice, Pod, PodPhase, Status},
    nic::Nic,
    slice::{List, Slice},
};
use serde_json::json;
use site::{problem, until};
use std::path::Path;

/// Of the slice, bits per second.
const RATE: u64 = 600_000_000;

#[test]
fn pods_live_through_everything_and_leave_nothing() {
    capsule::run(
        "pods_live_through_everything_and_leave_nothing",
        "in_the_capsule",
    );
}

#[test]
#[ignore = "is run in the capsule by the other test"]
fn in_the_capsule() {
    let Some(capsule) = Capsule::furnished() else {
        return;
    };
    rustls::crypto::ring::default_provider()
        .install_default()
        .unwrap();
    capsule.cable();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(story(&capsule));
}

/// The controller, as tasks of this process. A client of its socket.
async fn controller(capsule: &Capsule) -> Client {
    let root = capsule.folder.join("vdnd");
    std::fs::create_dir_all(&root).unwrap();
    let file = root.join("vdnd.toml");
    let text = "version = 1\n[domain]\nname = \"daejeon\"\n[listen]\naddress = \"127.0.0.1:7443\"\n\
                [addresses]\nipv4 = \"10.64.0.0/16\"\nipv6 = \"fd64::/48\"\n";
    std::fs::write(&file, text).unwrap();
    let config = vdnd::config::load(&file).unwrap().config;
    let socket = root.join("run/dtn/vdnd.sock");
    tokio::spawn(async move { vdnd::run(config, &root, Default::default()).await });
    until("the controller answers", async || {
        std::os::unix::net::UnixStream::connect(&socket).ok()
    })
    .await;
    Client::unix(&socket, capsule::LONG).unwrap()
}

async fn nics(client: &Client) -> Vec<Nic> {
    let all: List<Nic> = client.get("/dtn/v1/nics").await.unwrap();
    all.items
}
async fn mac(client: &Client, name: &str) -> MacAddress {
    let nics = nics(client).await;
    nics.iter()
        .find(|nic| nic.name.as_str() == name)
        .unwrap()
        .mac
}
async fn pod(client: &Client, name: &str) -> Pod {
    client.get(&format!("/dtn/v1/pods/{name}")).await.unwrap()
}
async fn runs(client: &Client, name: &str) -> Pod {
    until("the pod runs", async || {
        let pod = pod(client, name).await;
        let rate = pod.interfaces.first().and_then(|i| i.rate);
        (pod.phase == PodPhase::Running && rate.is_some_and(|r| r.bps() == RATE)).then_some(pod)
    })
    .await
}
/// A command in the sandbox of a pod.
fn inside(pod: &Pod, line: &str) -> String {
    sh(&format!("nsenter --net={} -- {line}", pod.netns))
}
fn left(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

async fn story(capsule: &Capsule) {
    let vdn = controller(capsule).await;
    let mut dtnd = capsule.dtnd();
    let client = capsule.client();
    let before = sh("ip -o link show data0; ip -o addr show data0");
    let body = json!({"kind": "host", "name": "dtn1"});
    let invitation: Invitation = vdn.post("/vdn/v1/invitations", &body).await.unwrap();
    let _: Status = client
        .post("/dtn/v1/join", &Join { invitation })
        .await
        .unwrap();
    until("both NICs are declared", async || {
        let hosts: List<serde_json::Value> = vdn.get("/vdn/v1/hosts").await.unwrap();
        (hosts.items.len() == 2).then_some(())
    })
    .await;
    let (first, second) = (mac(&client, "data0").await, mac(&client, "data1").await);
    let now = jiff::Timestamp::now();
    let hour = jiff::SignedDuration::from_hours(1);
    let spec = json!({
        "name": "lhc", "qos": {"class": "guaranteed", "rate_bps": RATE},
        "members": [{"host": HostId::untagged(first)}, {"host": HostId::untagged(second)}],
        "schedule": {"start": now, "end": now + hour}, "commit": true,
        "addressing": {"ipv4": {"cidr": "10.64.1.0/24"}, "ipv6": {"cidr": "fd64:0:0:1::/64"}, "mtu": 9000},
    });
    let slice: Slice = vdn
        .post_once("/vdn/v1/slices", "once", &spec)
        .await
        .unwrap();

    // what cannot be is told, and nothing is left of it
    let wrong = json!({"template": "sleeper", "name": "wrong", "nic_class": "dedicated", "slice": "no-such"});
    let refused = problem(client.post::<_, Pod>("/dtn/v1/pods", &wrong).await);
    assert!(refused.detail.contains("no slice no-such"), "{refused}");
    assert_eq!(pod(&client, "wrong").await.phase, PodPhase::Failed);
    client.delete("/dtn/v1/pods/wrong", None).await.unwrap();
    assert!(left(&capsule.root().join("var/lib/dtn/pods")).is_empty());

    // dedicated: the NIC itself is in the pod, with its lease, its settings and its pace
    let ask = |name: &str, class: &str| json!({"template": "sleeper", "name": name, "nic_class": class, "slice": "lhc"});
    let deployed: Pod = client
        .post("/dtn/v1/pods", &ask("t1", "dedicated"))
        .await
        .unwrap();
    assert_eq!(deployed.phase, PodPhase::Running, "{deployed:?}");
    let one = runs(&client, "t1").await;
    let again: Pod = client
        .post("/dtn/v1/pods", &ask("t1", "dedicated"))
        .await
        .unwrap();
    assert_eq!(again.uid, one.uid);
    let interface = &one.interfaces[0];
    assert_eq!(
        (interface.nic.as_str(), interface.ips.len(), interface.mtu),
        ("data0", 2, 9000)
    );
    let tc = inside(&one, "tc class show dev data0");
    assert!(tc.contains("rate 600Mbit"), "{tc}");
    assert!(inside(&one, "ip link show data0").contains(&first.to_string()));
    let rmem = sh(&format!(
        "nsenter --net={} -- unshare -m sh -c 'mount -t proc proc /proc 2>/dev/null; cat /proc/sys/net/ipv4/tcp_rmem'",
        one.netns
    ));
    assert!(!rmem.contains("6291456"), "not tuned: {rmem}");
    until("the slice is said to be enforced", async || {
        let slice: Slice = vdn
            .get(&format!("/vdn/v1/slices/{}", slice.id))
            .await
            .unwrap();
        (slice.status.data_plane == dtn_api::slice::DataPlane::Active).then_some(())
    })
    .await;
    let local: LocalSlice = client.get("/dtn/v1/slices/lhc").await.unwrap();
    assert_eq!(local.paced.len(), 1, "{local:?}");
    let logs: serde_json::Value = client.get("/dtn/v1/pods/t1/logs").await.unwrap();
    assert!(logs["iperf3"].as_str().unwrap().contains("up"), "{logs}");

    // shared: a macvlan child on the other NIC, and the two pods reach each other over the cable
    let _: Pod = client
        .post("/dtn/v1/pods", &ask("t2", "shared"))
        .await
        .unwrap();
    let two = runs(&client, "t2").await;
    let address = two.interfaces[0].ips[0]
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    inside(&one, &format!("busybox ping -c 1 -W 20 -s 8900 {address}"));

    // a rate that somebody took away comes back
    inside(&one, "tc qdisc del dev data0 root");
    until("it is paced again", async || {
        inside(&one, "tc class show dev data0")
            .contains("rate 600Mbit")
            .then_some(())
    })
    .await;

    // dtnd is killed: traffic does not care, and it knows all of it when it is back
    drop(dtnd);
    inside(&one, &format!("busybox ping -c 1 -W 20 {address}"));
    dtnd = capsule.dtnd();
    let known = runs(&client, "t1").await;
    assert_eq!((&known.uid, &known.interfaces), (&one.uid, &one.interfaces));

    // the pod is stopped by hand, and started: a new sandbox, the same NIC and addresses in it
    capsule.podman(&["pod", "stop", "t1"]);
    until("it is said to be stopped", async || {
        let pod = pod(&client, "t1").await;
        (pod.phase == PodPhase::Degraded && pod.message.contains("stopped")).then_some(())
    })
    .await;
    capsule.podman(&["pod", "start", "t1"]);
    until("it is attached again", async || {
        let pod = pod(&client, "t1").await;
        let there = pod.phase == PodPhase::Running && pod.interfaces.first()?.rate.is_some();
        (there && pod.interfaces == one.interfaces).then_some(())
    })
    .await;
    inside(&one, &format!("busybox ping -c 1 -W 20 {address}"));

    // it is removed by hand: its NIC is home, its lease given back, and the book forgets it
    capsule.podman(&["pod", "rm", "--force", "t2"]);
    until("what it had is given back", async || {
        let all: List<Pod> = client.get("/dtn/v1/pods").await.unwrap();
        (all.items.len() == 1).then_some(())
    })
    .await;

    // dtnd is killed in the middle of a deploy, wherever that is, and goes on with it
    client.delete("/dtn/v1/pods/t1", None).await.unwrap();
    for pause in [30_u64, 300, 700, 1100, 1500, 2000] {
        let name = format!("k{pause}");
        let (asking, body) = (capsule.client(), ask(&name, "dedicated"));
        let asked =
            tokio::spawn(async move { asking.post::<_, Pod>("/dtn/v1/pods", &body).await.is_ok() });
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        drop(dtnd);
        asked.await.unwrap();
        dtnd = capsule.dtnd();
        // before its entry was written there is nothing to go on with
        let listed: List<Pod> = client.get("/dtn/v1/pods").await.unwrap();
        if !listed.items.is_empty() {
            runs(&client, &name).await;
            client
                .delete(&format!("/dtn/v1/pods/{name}"), None)
                .await
                .unwrap();
        }
    }

    // and nothing is left
    let root = capsule.root();
    until("all leases are back", async || {
        let leases: List<dtn_api::lease::Lease> = vdn.get("/vdn/v1/leases").await.unwrap();
        let bound =
            |lease: &&dtn_api::lease::Lease| lease.state == dtn_api::lease::LeaseState::Bound;
        (leases.items.iter().filter(bound).count() == 0).then_some(())
    })
    .await;
    for folder in [
        "var/lib/dtn/pods",
        "var/lib/dtn/attachments",
        "run/dtn/prepared",
        "run/dtn/netns",
    ] {
        assert_eq!(left(&root.join(folder)), Vec::<String>::new(), "{folder}");
    }
    assert_eq!(capsule.podman(&["pod", "ps", "--quiet"]), "");
    let plain = |text: &str| {
        text.split("qlen")
            .next()
            .unwrap()
            .split("UP")
            .next()
            .unwrap()
            .to_owned()
    };
    let after = sh("ip -o link show data0; ip -o addr show data0");
    assert!(
        after.contains(&first.to_string()) && after.contains("mtu 9000"),
        "{after}"
    );
    assert_eq!(plain(&after).is_empty(), plain(&before).is_empty());
    drop(dtnd);
}
