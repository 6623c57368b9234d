//! A gateway whole: the real `dtnd`, the controller as a process of this test's own program, real
//! `nft`, and members, gateway and external network in namespaces of their own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod gate;
mod site;

use dtn_api::{
    lease::{Lease, LeaseState},
    local::Status,
    slice::List,
};
use dtn_link::{inventory, nft, qdisc};
use gate::{FAR, Member, OWN, World, arrives, run, socket};
use serde_json::{Value, json};
use site::{Daemon, LONG, until};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Not a test by itself: the controller's process.
#[test]
#[ignore = "is the controller's process of the other tests"]
fn controller_process() {
    gate::controller();
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
fn allow(number: u16, direction: &str, packets: Value) -> Value {
    json!({"priority": number, "action": "allow", "direction": direction, "match": packets})
}
fn udp(port: &str) -> Value {
    json!({"proto": "udp", "dst_ports": [port]})
}

/// Whether datagrams of both families go from a member to a port outside, and what is answered.
fn goes_out(world: &World, member: &Member, port: u16) -> [(bool, bool); 2] {
    [false, true].map(|v6| {
        let far = ip(FAR[usize::from(v6)]);
        let inner = socket(&member.netns, member.ip(v6), 0);
        let outer = socket(&world.outside, far, port);
        let source = arrives(&inner, &outer, SocketAddr::new(far, port));
        let back = source.is_some_and(|source| arrives(&outer, &inner, source).is_some());
        (source.is_some(), back)
    })
}
/// Whether datagrams of both families come in from a port outside to one of a member.
fn comes_in(world: &World, member: &Member, from: u16, port: u16) -> [bool; 2] {
    [false, true].map(|v6| {
        let far = ip(FAR[usize::from(v6)]);
        let outer = socket(&world.outside, far, from);
        let inner = socket(&member.netns, member.ip(v6), port);
        arrives(&outer, &inner, SocketAddr::new(member.ip(v6), port)).is_some()
    })
}
const PASSES: [(bool, bool); 2] = [(true, true); 2];
const DROPPED: [(bool, bool); 2] = [(false, false); 2];

async fn table(world: &World) -> nft::Table {
    let found = nft::table(&world.gateway(), "inet", "dtn").await.unwrap();
    found.unwrap()
}
async fn packets(world: &World, counter: &str) -> u64 {
    table(world).await.counters[counter].packets
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_allows_passes_and_nothing_else() {
    let Some(world) = World::new("gateway-rules").await else {
        return;
    };
    world.configure(true, false);
    let daemon = world.join().await;
    let lhc = world.member("lhc", 11).await;
    let other = world.member("other", 12).await;
    let seen = world.seen(&daemon).await;
    assert_eq!(seen.trouble, None, "{}", world.site.log());
    assert_eq!(seen.slices.len(), 2);

    paced(&world, &lhc).await;

    // nothing is allowed yet, either way, and it is counted
    assert_eq!(goes_out(&world, &lhc, 5000), DROPPED);
    assert_eq!(comes_in(&world, &lhc, 6000, 5000), [false; 2]);
    assert!(packets(&world, "denied_outbound").await >= 2);
    assert!(packets(&world, "denied_inbound").await >= 2);

    // allowed for one slice, with its answers
    let mut rule = allow(100, "outbound", udp("5000-5001"));
    rule["slice"] = json!("lhc");
    let took = world.rules(json!([rule])).await;
    println!("a rule was in the kernel, and told to be, {took:?} after it was made");
    assert_eq!(goes_out(&world, &lhc, 5000), PASSES, "{}", world.site.log());
    assert_eq!(goes_out(&world, &lhc, 5001), PASSES);
    assert_eq!(goes_out(&world, &lhc, 5002), DROPPED);
    assert_eq!(goes_out(&world, &other, 5000), DROPPED);
    assert_eq!(comes_in(&world, &lhc, 6000, 5000), [false; 2]);
    assert!(packets(&world, "rule_100").await >= 8);
    // the controller is told what was counted
    let counted = until("the counters are told", async || {
        let report = world.told().await.report?;
        let count = report.rules.get(&100)?;
        (count.packets >= 8).then_some(report)
    })
    .await;
    assert!(counted.denied_outbound.packets > 0 && counted.denied_inbound.packets > 0);

    // from outside in, and a deny that goes before
    let far: Vec<Value> = vec![
        json!({"priority": 10, "action": "deny", "direction": "inbound",
               "match": {"proto": "udp", "dst_ports": ["7001"]}}),
        allow(20, "inbound", udp("7000-7001")),
    ];
    world.rules(json!(far)).await;
    assert_eq!(comes_in(&world, &lhc, 6000, 7000), [true; 2]);
    assert_eq!(comes_in(&world, &other, 6000, 7000), [true; 2]);
    assert_eq!(comes_in(&world, &lhc, 6000, 7001), [false; 2]);
    assert_eq!(goes_out(&world, &lhc, 5000), DROPPED, "taken away again");

    // everything is allowed: still not from one slice to another, and with no strange source
    let all = json!([
        allow(1, "outbound", json!({})),
        allow(2, "inbound", json!({}))
    ]);
    world.rules(all).await;
    assert_eq!(goes_out(&world, &lhc, 5000), PASSES);
    for v6 in [false, true] {
        let inner = socket(&lhc.netns, lhc.ip(v6), 0);
        let theirs = socket(&other.netns, other.ip(v6), 5000);
        let at = SocketAddr::new(other.ip(v6), 5000);
        assert_eq!(arrives(&inner, &theirs, at), None, "slice to slice");
    }
    spoofed(&world, &lhc).await;
    drop(daemon);
}

/// What the gateway sends into a slice is paced to its rate, and told; what it sends outside is not.
async fn paced(world: &World, member: &Member) {
    let conn = world.gateway().connect().await.unwrap();
    let rate = async |name: &str| {
        let link = inventory::link_by_name(&conn, name).await.unwrap();
        let pacing = qdisc::current_pacing(&conn, link.index).await.unwrap();
        pacing.map(|pacing| pacing.rate.bps())
    };
    let inner = dtnd::gateway::rules::ifname(member.slice.id).unwrap();
    until("the gateway is paced", async || {
        (rate(inner.as_str()).await == Some(500_000_000)).then_some(())
    })
    .await;
    assert_eq!(rate("outside").await, None);
}

/// Sources that cannot be are dropped both ways, and counted.
async fn spoofed(world: &World, member: &Member) {
    let strange = [ip("10.64.250.9"), ip("fd64:0:0:ffff::9")];
    let stolen = member.lease.ips.iter().map(|net| match net.addr() {
        IpAddr::V4(a) => IpAddr::from([a.octets()[0], a.octets()[1], a.octets()[2], 200]),
        IpAddr::V6(a) => {
            let mut s = a.segments();
            s[7] = 0x200;
            IpAddr::from(s)
        }
    });
    for (v6, (strange, stolen)) in [false, true]
        .into_iter()
        .zip(strange.into_iter().zip(stolen))
    {
        let far = ip(FAR[usize::from(v6)]);
        let nodad = if v6 { " nodad" } else { "" };
        run(
            &member.netns,
            &format!("ip addr add {strange} dev lo{nodad}"),
        );
        let before = packets(world, "denied_outbound").await;
        let inner = socket(&member.netns, strange, 0);
        let outer = socket(&world.outside, far, 5000);
        assert_eq!(arrives(&inner, &outer, SocketAddr::new(far, 5000)), None);
        assert_eq!(packets(world, "denied_outbound").await, before + 1);

        run(
            &world.outside,
            &format!("ip addr add {stolen} dev lo{nodad}"),
        );
        let before = packets(world, "denied_inbound").await;
        let outer = socket(&world.outside, stolen, 0);
        let inner = socket(&member.netns, member.ip(v6), 5000);
        let at = SocketAddr::new(member.ip(v6), 5000);
        assert_eq!(arrives(&outer, &inner, at), None);
        assert_eq!(packets(world, "denied_inbound").await, before + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_rule_lets_in_only_what_answers_and_nat_hides_the_members() {
    let Some(world) = World::new("gateway-state").await else {
        return;
    };
    world.configure(true, false);
    let daemon = world.join().await;
    let lhc = world.member("lhc", 11).await;
    // what looks like an answer passes without state
    world
        .rules(json!([allow(100, "outbound", udp("5000"))]))
        .await;
    assert_eq!(comes_in(&world, &lhc, 5000, 40_000), [true; 2]);
    let mut stateful = allow(100, "outbound", udp("5000"));
    stateful["stateful"] = json!(true);
    world.rules(json!([stateful])).await;
    assert_eq!(comes_in(&world, &lhc, 5000, 40_001), [false; 2]);
    assert_eq!(goes_out(&world, &lhc, 5000), PASSES);

    // a port that nobody has: the error about it comes back, though no rule is about ICMP
    for v6 in [false, true] {
        let far = SocketAddr::new(ip(FAR[usize::from(v6)]), 5000);
        let inner = socket(&lhc.netns, lhc.ip(v6), 0);
        inner.connect(far).unwrap();
        inner.send(b"anybody?").unwrap();
        let refused = inner.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }

    // members are seen with their own addresses, and with the gateway's once it translates
    let source_of = |v6: bool| {
        let far = ip(FAR[usize::from(v6)]);
        let inner = socket(&lhc.netns, lhc.ip(v6), 0);
        let outer = socket(&world.outside, far, 5000);
        arrives(&inner, &outer, SocketAddr::new(far, 5000)).map(|source| source.ip())
    };
    for v6 in [false, true] {
        assert_eq!(source_of(v6), Some(lhc.ip(v6)));
    }
    drop(daemon);
    world.configure(true, true);
    let daemon = world.start();
    until("it translates", async || {
        world.seen_or_none(&daemon).await.filter(|seen| seen.nat)
    })
    .await;
    for v6 in [false, true] {
        assert_eq!(source_of(v6), Some(ip(OWN[usize::from(v6)])));
    }
    assert_eq!(goes_out(&world, &lhc, 5000), PASSES, "answers find back");
    assert_eq!(comes_in(&world, &lhc, 5000, 40_002), [false; 2]);
}

/// Sends a numbered datagram every few milliseconds to an echo outside, until it is told to end.
/// How many were sent, and how many came back.
fn flow(world: &World, member: &Member, v6: bool, stop: &Arc<AtomicBool>) -> Flow {
    let far = SocketAddr::new(ip(FAR[usize::from(v6)]), 5000);
    let outer = socket(&world.outside, far.ip(), far.port());
    let inner = socket(&member.netns, member.ip(v6), 0);
    let ended = stop.clone();
    let echo = std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while !ended.load(Ordering::Relaxed) {
            if let Ok((n, from)) = outer.recv_from(&mut bytes) {
                let _ = outer.send_to(&bytes[..n], from);
            }
        }
    });
    let ended = stop.clone();
    let back = inner.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let mut sent = 0_u32;
        while !ended.load(Ordering::Relaxed) {
            inner.send_to(&sent.to_be_bytes(), far).unwrap();
            sent += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        sent
    });
    let ended = stop.clone();
    let receiver = std::thread::spawn(move || {
        let mut seen = std::collections::BTreeSet::new();
        let mut bytes = [0; 64];
        // one more wait after the end: what is on its way arrives
        loop {
            match back.recv_from(&mut bytes) {
                Ok((4, _)) => {
                    seen.insert(bytes[..4].to_owned());
                }
                _ if ended.load(Ordering::Relaxed) => return seen.len(),
                _ => {}
            }
        }
    });
    Flow {
        sender,
        receiver,
        echo,
    }
}
struct Flow {
    sender: std::thread::JoinHandle<u32>,
    receiver: std::thread::JoinHandle<usize>,
    echo: std::thread::JoinHandle<()>,
}
impl Flow {
    /// Sent and lost.
    fn end(self) -> (u32, i64) {
        let sent = self.sender.join().unwrap();
        let seen = self.receiver.join().unwrap();
        self.echo.join().unwrap();
        (sent, i64::from(sent) - i64::try_from(seen).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_allowed_flow_is_lost_while_rules_daemon_and_controller_come_and_go() {
    let Some(mut world) = World::new("gateway-flow").await else {
        return;
    };
    world.configure(true, false);
    let daemon = world.join().await;
    let lhc = world.member("lhc", 11).await;
    let base = allow(100, "outbound", udp("5000"));
    world.rules(json!([base])).await;
    let namespace = world.gateway().inode();
    let stop = Arc::new(AtomicBool::new(false));
    let flows = [false, true].map(|v6| flow(&world, &lhc, v6, &stop));
    // lists that have only the one rule in common, as long as a real one
    let mut slowest = Duration::ZERO;
    for round in 0..5_u16 {
        let more = (0..200_u16).map(|n| allow(200 + n, "inbound", udp(&(n + round).to_string())));
        let rules: Vec<Value> = std::iter::once(base.clone()).chain(more).collect();
        slowest = slowest.max(world.rules(json!(rules)).await);
    }
    println!("the slowest of 5 lists of 201 rules was in the kernel after {slowest:?}");
    // straight into the kernel, as quickly as it goes
    let gateway = world.gateway();
    let began = Instant::now();
    let counted = packets(&world, "rule_100").await;
    drop(daemon);
    let listed = run(&gateway, "nft -s list table inet dtn");
    let again = format!("table inet dtn\nflush table inet dtn\n{listed}");
    let file = world.site.dir.path().join("again.nft");
    std::fs::write(&file, again).unwrap();
    let command = format!("nft -f {}", file.display());
    for _ in 0..50 {
        run(&gateway, &command);
    }
    println!("50 transactions of 200 rules in {:?}", began.elapsed());
    // the daemon is away; then the controller; both come back
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(packets(&world, "rule_100").await > counted, "it goes on");
    world.kill_controller();
    let daemon = world.start();
    let seen = until("it is adopted without a controller", async || {
        let seen = world.seen_or_none(&daemon).await?;
        (!seen.slices.is_empty() && seen.rules_version > 0).then_some(seen)
    })
    .await;
    assert_eq!(seen.slices[0].id, lhc.slice.id);
    daemon.kill();
    world.start_controller();
    let daemon = world.start();
    world.rules(json!([base])).await;
    stop.store(true, Ordering::Relaxed);
    for (flow, family) in flows.into_iter().zip(["IPv4", "IPv6"]) {
        let (sent, lost) = flow.end();
        println!("{family}: {sent} sent, {lost} lost");
        assert!(sent > 500, "{sent}");
        assert_eq!(lost, 0, "of {sent} of {family}\n{}", world.site.log());
    }
    assert_eq!(world.gateway().inode(), namespace);
    let log = world.site.log();
    let attached = log.matches("action=Attach").count();
    assert_eq!(attached, 2, "an interface was attached anew\n{log}");
    // what somebody changes by hand is set right
    run(&world.gateway(), "nft flush ruleset");
    until("the filter is back", async || {
        let there = nft::table(&world.gateway(), "inet", "dtn").await.unwrap();
        there.filter(|there| there.chains["forward"].policy.as_deref() == Some("drop"))
    })
    .await;
    drop(daemon);
}

/// What can be seen of the NIC outside from the host.
async fn outside_of_host(world: &World) -> Option<inventory::LinkState> {
    let conn = world.site.netns.connect().await.unwrap();
    let mut link = inventory::link_by_name(&conn, "ext0").await.ok()?;
    link.counters = Default::default();
    Some(link)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_it_comes_up_again_and_everything_goes_home() {
    let Some(world) = World::new("gateway-killed").await else {
        return;
    };
    let before = outside_of_host(&world).await.unwrap();
    world.configure(true, false);
    drop(world.join().await);
    let daemon = world.start();
    let lhc = world.member("lhc", 11).await;
    world
        .rules(json!([allow(100, "outbound", udp("5000"))]))
        .await;
    drop(daemon);
    // killed while it sets everything up, and while it takes everything home; and then up or home
    for point in UP.iter().chain(&HOME) {
        for then_up in [true, false] {
            let upwards = UP.contains(point);
            world.configure(!upwards, false);
            let daemon = world.start();
            match upwards {
                true => home(&world, &before, &lhc).await,
                false => up(&world, &daemon, &lhc, point).await,
            }
            daemon.kill();
            world.configure(upwards, false);
            stopped_at(&world, point);
            world.configure(then_up, false);
            let daemon = world.start();
            match then_up {
                true => up(&world, &daemon, &lhc, point).await,
                false => home(&world, &before, &lhc).await,
            }
            daemon.kill();
        }
    }
    world.configure(true, false);
    // the slice ends: its interface goes, the gateway stays
    let daemon = world.start();
    let path = format!("/vdn/v1/slices/{}", lhc.slice.id);
    end(&world, &path).await;
    until("the gateway serves nobody", async || {
        let seen = world.seen_or_none(&daemon).await?;
        (seen.slices.is_empty() && seen.trouble.is_none()).then_some(())
    })
    .await;
    let status: Status = daemon.client().get("/dtn/v1/status").await.unwrap();
    let check = status.checks.iter().find(|c| c.name == "gateway internet");
    assert!(check.unwrap().ok, "{status:?}");
    until("its lease is given back", async || {
        let all: List<Lease> = world.admin.get("/vdn/v1/leases").await.unwrap();
        let held = |l: &&Lease| l.client_id == "gateway:internet" && l.state == LeaseState::Bound;
        all.items.iter().find(held).is_none().then_some(())
    })
    .await;
}

/// Steps of the way up.
const UP: [&str; 6] = [
    "namespace-made",
    "namespace-bound",
    "leased",
    "attaching",
    "attached-outside",
    "attached-inside",
];
/// Steps of the way home.
const HOME: [&str; 4] = ["left", "home", "unbound", "told"];

/// Runs a `dtnd` until it reaches a step, and kills it there.
fn stopped_at(world: &World, point: &str) {
    let file = world.site.dir.path().join("stopped");
    let log = std::fs::File::create(&file).unwrap();
    let mut command = world.dtnd();
    command.env("DTND_STOP_AT", point).stderr(log);
    let mut daemon = gate::Killed(command.spawn().unwrap());
    let began = Instant::now();
    let said = || std::fs::read_to_string(&file).unwrap();
    while !said().contains(&format!("dtnd: stopped at {point}")) {
        assert!(began.elapsed() < LONG, "{point} is not reached\n{}", said());
        assert_eq!(daemon.0.try_wait().unwrap(), None, "{}", said());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until it forwards.
async fn up(world: &World, daemon: &Daemon, member: &Member, why: &str) {
    until("it forwards", async || {
        let seen = world.seen_or_none(daemon).await?;
        (seen.trouble.is_none() && !seen.slices.is_empty()).then_some(())
    })
    .await;
    let log = world.site.log();
    assert_eq!(goes_out(world, member, 5000), PASSES, "{why}\n{log}");
}

/// Waits until everything of the gateway is home.
async fn home(world: &World, before: &inventory::LinkState, member: &Member) {
    until("everything is home", async || {
        let folder = world.site.root().join("var/lib/dtn/gateways");
        (std::fs::read_dir(folder).unwrap().count() == 0).then_some(())
    })
    .await;
    let now = outside_of_host(world).await;
    let now = now.unwrap_or_else(|| panic!("ext0 is lost\n{}", world.site.log()));
    let shown = |link: &inventory::LinkState| {
        let link = link.clone();
        (
            link.name,
            link.altnames,
            link.mac,
            link.mtu,
            link.up,
            link.tx_queue_len,
        )
    };
    assert_eq!(shown(&now), shown(before));
    assert!(!world.pin().exists());
    let root = world.site.root();
    for left in ["var/lib/dtn/attachments", "run/dtn/prepared"] {
        let files = std::fs::read_dir(root.join(left)).unwrap();
        let files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        assert!(files.is_empty(), "{left}: {files:?}");
    }
    assert_eq!(goes_out(world, member, 5000), DROPPED);
    until("the controller is told", async || {
        let report = world.told().await.report?;
        let why = report.trouble?;
        why.contains("taken out of the configuration").then_some(())
    })
    .await;
}

async fn end(world: &World, path: &str) {
    let began = Instant::now();
    loop {
        let slice: dtn_api::slice::Slice = world.admin.get(path).await.unwrap();
        let tag = format!("\"v{}\"", slice.version);
        let headers = [("if-match", tag.as_str())];
        let action = format!("{path}/actions/terminate");
        let done = world
            .admin
            .call::<_, Value>(http::Method::POST, &action, &headers, None::<&()>)
            .await;
        match done {
            Ok(_) => return,
            Err(e) => assert!(began.elapsed() < LONG, "{e}"),
        }
    }
}
