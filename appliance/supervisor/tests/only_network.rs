//! macvlan as a cluster's only network, with the real `dtnd`, controller and plugin: the host reaches
//! the pods of its own node and they it, by a link that takes packets of nobody else; and whatever the
//! runtime forgot comes home. There is no runtime here: its calls are made as it makes them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

// each test file uses a part of it
#[allow(dead_code, reason = "gateways are another test's")]
mod gate;
mod site;

use dtn_api::{
    MacAddress,
    host::Host,
    lease::{Lease, LeaseState},
    slice::{List, Slice},
};
use dtn_link::Netns;
use gate::{World, arrives, run, socket};
use serde_json::{Value, json};
use site::until;
use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PORT: u16 = 7000;
/// The member that is no pod of this node.
const STRANGER: MacAddress = MacAddress::new([2, 0, 0, 0, 0, 0x51]);

/// Not a test by itself: the controller's process.
#[test]
#[ignore = "is the controller's process of the other tests"]
fn controller_process() {
    gate::controller();
}

/// A sandbox that a runtime made.
struct Pod {
    netns: Netns,
    uid: String,
    ips: Vec<IpAddr>,
}
impl Pod {
    fn ip(&self, v6: bool) -> IpAddr {
        *self.ips.iter().find(|ip| ip.is_ipv6() == v6).unwrap()
    }
}

/// A call of the plugin on the host, as the runtime makes it.
fn call(world: &World, verb: &str, uid: &str, netns: &Netns) -> Result<Value, Value> {
    let run = world.site.root().join("run/dtn");
    let conf = json!({
        "cniVersion": "1.1.0", "name": "pods", "type": "vdn-macvlan", "slice": "pods",
        "mode": "bridge", "ipam": {"type": "vdn-ipam"}, "runDir": run,
        "stateDir": world.site.root().join("var/lib/dtn"), "socket": run.join("dtnd.sock"),
    });
    let test = std::env::current_exe().unwrap();
    let plugin = test.parent().unwrap().parent().unwrap().join("vdn-macvlan");
    // as the daemon is started: in the mounts that stay
    let dtnd = world.dtnd();
    let mut command = Command::new(dtnd.get_program());
    command.args(dtnd.get_args().take_while(|word| *word != "--"));
    let mut child = command
        .arg("--")
        .arg(plugin)
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", format!("c-{uid}"))
        .env("CNI_NETNS", netns.proc_path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin")
        .env(
            "CNI_ARGS",
            format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p-{uid};K8S_POD_UID={uid}"
            ),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(conf.to_string().as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if output.status.success() {
        Ok(said)
    } else {
        Err(said)
    }
}
fn add(world: &World, uid: &str) -> Pod {
    let netns = Netns::create_unnamed().unwrap();
    run(&netns, "ip link set lo up");
    let result = call(world, "ADD", uid, &netns);
    let result = result.unwrap_or_else(|e| panic!("{e}\n{}", world.site.log()));
    let nets = result["ips"].as_array().unwrap().iter();
    let ips = nets.map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap());
    Pod {
        ips: ips.map(|ip| ip.parse().unwrap()).collect(),
        uid: uid.to_owned(),
        netns,
    }
}

/// Whether the host reaches a pod, and the pod answers it.
fn reached(world: &World, pod: &Pod, v6: bool) -> bool {
    let any: IpAddr = match v6 {
        true => Ipv6Addr::UNSPECIFIED.into(),
        false => Ipv4Addr::UNSPECIFIED.into(),
    };
    let host = socket(&world.site.netns, any, 0);
    let inner = socket(&pod.netns, pod.ip(v6), PORT);
    let source = arrives(&host, &inner, SocketAddr::new(pod.ip(v6), PORT));
    source.is_some_and(|source| arrives(&inner, &host, source).is_some())
}
async fn is_reached(world: &World, pod: &Pod) {
    for v6 in [false, true] {
        until("the host and its pod reach each other", async || {
            reached(world, pod, v6).then_some(())
        })
        .await;
    }
}
fn shims(world: &World) -> Vec<Value> {
    let all: Vec<Value> = serde_json::from_str(&world.site.run("ip -j addr")).unwrap();
    let is_shim = |link: &Value| {
        link["ifname"]
            .as_str()
            .is_some_and(|n| n.starts_with("vdnshim"))
    };
    all.into_iter().filter(is_shim).collect()
}
async fn leases(world: &World, slice: &Slice, of: &str) -> usize {
    let path = format!("/vdn/v1/slices/{}/leases", slice.id);
    let all: List<Lease> = world.admin.get(&path).await.unwrap();
    let is_of = |l: &&Lease| l.state == LeaseState::Bound && l.client_id.starts_with(of);
    all.items.iter().filter(is_of).count()
}
fn files(world: &World, folder: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(world.site.root().join(folder)) else {
        return Vec::new();
    };
    entries.map(|e| e.unwrap().path()).collect()
}
fn left(world: &World) -> Vec<PathBuf> {
    let mut left = Vec::new();
    for folder in [
        "var/lib/dtn/attachments",
        "var/lib/dtn/releases",
        "run/dtn/prepared",
        "run/dtn/netns",
    ] {
        left.extend(files(world, folder));
    }
    let is_a_probe = |path: &Path| path.file_name().is_some_and(|name| name == "_probe");
    left.retain(|path| !is_a_probe(path));
    left
}

async fn slice(world: &World) -> Slice {
    let own = until("the NIC is declared", async || {
        let hosts: List<Host> = world.admin.get("/vdn/v1/hosts").await.unwrap();
        hosts
            .items
            .into_iter()
            .find(|host| host.spec.nic == "data1".parse().unwrap())
    })
    .await;
    let peer = json!({"kind": "nic", "node": "peer", "nic": "stranger",
        "capacity_bps": 10_000_000_000_u64, "mtu": 1500});
    let _: Host = world.put(&format!("/hosts/{STRANGER}-none"), &peer).await;
    let start = jiff::Timestamp::now();
    let end = start + jiff::SignedDuration::from_hours(1);
    let wish = json!({
        "name": "pods", "qos": {"class": "best_effort", "rate_bps": 0},
        "members": [{"host": own.id}, {"host": format!("{STRANGER}-none")}],
        "schedule": {"start": start, "end": end}, "commit": true,
    });
    world
        .admin
        .post_once("/vdn/v1/slices", "pods", &wish)
        .await
        .unwrap()
}

/// A member on the wire with an address of the slice.
async fn stranger(world: &World, slice: &Slice) -> (Netns, IpAddr) {
    let path = format!("/vdn/v1/slices/{}/leases", slice.id);
    let request = json!({"client_id": "test:stranger", "mac": STRANGER});
    let lease: Lease = world.admin.post_once(&path, &path, &request).await.unwrap();
    let netns = Netns::create_unnamed().unwrap();
    world.site.run(&format!(
        "ip link add link far-data1 name st0 address {STRANGER} type macvlan mode bridge"
    ));
    world.site.run(&format!(
        "ip link set st0 netns {}",
        netns.proc_path().display()
    ));
    run(&netns, "ip link set st0 up");
    let net = lease.ips.iter().find(|net| net.addr().is_ipv4()).unwrap();
    run(&netns, &format!("ip addr add {net} dev st0"));
    (netns, net.addr())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_reaches_its_own_pods_and_what_the_runtime_forgot_comes_home() {
    let Some(world) = World::new("only-network").await else {
        return;
    };
    world.configure(false, false);
    let daemon = world.join().await;
    let slice = slice(&world).await;
    let first = add(&world, "u1");
    let second = add(&world, "u2");
    is_reached(&world, &first).await;
    is_reached(&world, &second).await;
    assert_eq!(
        shims(&world).len(),
        1,
        "one for all pods of a NIC and slice"
    );
    assert_eq!(leases(&world, &slice, "host:").await, 1);
    assert_eq!(leases(&world, &slice, "kubernetes:").await, 2);

    // who is not a pod of this node reaches the pods, and not the host
    let (netns, address) = stranger(&world, &slice).await;
    let outer = socket(&netns, address, 0);
    let pod = socket(&first.netns, first.ip(false), PORT);
    let at = SocketAddr::new(first.ip(false), PORT);
    until("a member reaches the pod", async || {
        arrives(&outer, &pod, at)
    })
    .await;
    let shim = shims(&world).remove(0);
    let addresses = shim["addr_info"].as_array().unwrap();
    let own = addresses.iter().find(|a| a["family"] == "inet").unwrap();
    assert_eq!(own["prefixlen"], 32, "no way to the whole slice");
    let own: IpAddr = own["local"].as_str().unwrap().parse().unwrap();
    let host = socket(&world.site.netns, own, PORT);
    // by the child itself: what the NIC's own address takes is the host's to say
    let mac = shim["address"].as_str().unwrap();
    run(
        &netns,
        &format!("ip neigh replace {own} lladdr {mac} dev st0"),
    );
    assert!(arrives(&outer, &host, SocketAddr::new(own, PORT)).is_none());

    // the daemon is away, and the runtime removes a sandbox without a word
    daemon.kill();
    drop(pod);
    let gone = first.ips.clone();
    drop(first);
    assert!(
        reached(&world, &second, false),
        "it does not need the daemon"
    );
    let daemon = world.start();
    until("what was in it is home", async || {
        let one = files(&world, "var/lib/dtn/attachments").len() == 1;
        (one && leases(&world, &slice, "kubernetes:").await == 1).then_some(())
    })
    .await;
    until("no way leads there", async || {
        let ways = world.site.run("ip route") + &world.site.run("ip -6 route");
        (!gone.iter().any(|ip| ways.contains(&format!("{ip} ")))).then_some(())
    })
    .await;
    is_reached(&world, &second).await;
    assert_eq!(
        shims(&world)[0]["ifindex"],
        shim["ifindex"],
        "it was not made anew"
    );

    // the last one goes
    call(&world, "DEL", &second.uid, &second.netns).unwrap();
    until("nothing is left", async || {
        let leased =
            leases(&world, &slice, "host:").await + leases(&world, &slice, "kubernetes:").await;
        (leased == 0 && shims(&world).is_empty() && left(&world).is_empty()).then_some(())
    })
    .await;
    drop(daemon);
}
