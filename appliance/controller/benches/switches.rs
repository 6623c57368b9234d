//! What the fabric `openflow` costs: time from a request until it is read back from the switches,
//! rules per second beside `ovs-ofctl` on the same rules, time to put right what somebody deleted,
//! memory per switch. Nothing is judged here, and no test runs it. On Open vSwitch with its userspace datapath, as root:
//! `cargo bench -p vdnd --bench switches`. One line each, and all of it as JSON at the end.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on panics")]

#[allow(dead_code, reason = "nothing of a model is looked at here")]
#[path = "../tests/model/mod.rs"]
mod model;
#[path = "../tests/switch/mod.rs"]
mod switch;
#[path = "../tests/wish/mod.rs"]
mod wish;

use dtn_api::MacAddress;
use model::Make;
use serde_json::{Map, Value, json};
use std::{
    io::Read,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use switch::{Rig, with_switches};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{Attached, Fabric, Intent, openflow::OpenFlow};
use wish::{MUCH, ONE, network, programmed, slice, start, until};

/// Slices that are added one by one.
const SLICES: u16 = 100;
/// Slices that a fabric with only few holds.
const FEW: u16 = 3;
/// Rules at once, at least.
const RULES: u64 = 10_000;
/// Slices and their members that make as many rules: some eleven for each member.
const MANY: (u16, u32) = (25, 40);
/// How often a bulk change is timed; the median counts.
const ROUNDS: usize = 3;
/// How often all rules are deleted and nobody says so: it takes anything up to the wait and a look.
const UNAIDED: usize = 9;
/// Model switches whose memory is taken.
const MODELS: usize = 100;

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("models") {
        return models(arguments.next().unwrap().parse().unwrap());
    }
    let mut figures = Map::new();
    // first, while nothing else has been allocated here
    memory(&mut figures);
    with_switches("requests on 2 switches", async |rig| {
        requests(&rig, 2, &mut figures).await;
    });
    with_switches("requests on 10 switches", async |rig| {
        requests(&rig, 10, &mut figures).await;
    });
    with_switches("rules at once", async |rig| {
        rules(&rig, &mut figures).await;
    });
    println!("{}", Value::Object(figures));
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}
/// The smallest time that this share of all does not exceed (nearest rank).
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    quantile(&times, 0.5)
}
/// Prints and keeps a distribution.
fn spread(figures: &mut Map<String, Value>, name: &str, what: &str, mut times: Vec<Duration>) {
    times.sort();
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| ms(quantile(&times, share)));
    let count = times.len();
    println!("{what}: p50 {p50} ms, p99 {p99} ms, max {max} ms, of {count}");
    let value = json!({"p50_ms": p50, "p99_ms": p99, "max_ms": max, "count": count});
    figures.insert(name.to_owned(), value);
}

/// A member with an address of either family. There is a number for each, in all slices.
fn member(at: &str, number: u32) -> Attached {
    let [_, a, b, c] = number.to_be_bytes();
    let v6 = format!("fd00::{a:x}:{b:x}:{c:x}");
    Attached {
        mac: MacAddress::new([2, 0, 0, a, b, c]),
        ips: vec![
            format!("10.{a}.{b}.{c}").parse().unwrap(),
            v6.parse().unwrap(),
        ],
        at: at.parse().unwrap(),
    }
}
/// The port of a switch where its members are.
fn port(switch: &str) -> String {
    format!("{switch}-h")
}
/// Switches in a row, with a port for members each, and a fabric that all of them have come to.
async fn fabric(rig: &Rig, names: &[&str], stop: &CancellationToken) -> std::sync::Arc<OpenFlow> {
    let fabric = switch::fabric(rig, names, stop).await;
    for name in names {
        let port = port(name);
        rig.vsctl(&format!(
            "add-port {name} {port} -- set interface {port} type=internal"
        ));
        // who is behind a port that is down is told as not there
        switch::run(Command::new("ip").args(["link", "set", "dev", &port, "up"]));
    }
    connected(&fabric, names.len()).await;
    fabric
}
async fn connected(fabric: &OpenFlow, count: usize) {
    until("the switches have come", || {
        let all = fabric.switches();
        all.iter().filter(|switch| switch.connected).count() == count
    })
    .await;
}
/// Waits until the switches have what is wanted and nothing else.
async fn as_wanted(fabric: &OpenFlow) {
    let began = Instant::now();
    loop {
        let open = fabric.check().await;
        let Some(first) = open.first() else { return };
        assert!(began.elapsed() < wish::LONG, "{first:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
/// Says what is wanted now; how long until this slice is read back from all its switches.
async fn request(fabric: &OpenFlow, wanted: &[Intent], new: &Intent) -> Duration {
    let began = Instant::now();
    fabric.intend(wanted.to_vec());
    programmed(fabric, &[new]).await;
    began.elapsed()
}

/// Time from a request until it is programmed, on so many switches in a row, with a member of each
/// slice at either end.
async fn requests(rig: &Rig, switches: usize, figures: &mut Map<String, Value>) {
    let names: Vec<String> = (1..=switches).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let stop = CancellationToken::new();
    let fabric = fabric(rig, &names, &stop).await;
    let ends = [names[0], names[switches - 1]].map(|name| format!("{name}/{}", port(name)));
    let new = |tag: u16| {
        let members = ends.iter().zip(0..).map(|(at, end)| {
            let number = u32::from(tag) * 2 + end;
            member(at, number)
        });
        slice(tag, MUCH, members.collect(), &names)
    };
    let mut wanted: Vec<Intent> = (1..=FEW).map(new).collect();
    fabric.intend(wanted.clone());
    as_wanted(&fabric).await;
    let mut times = Vec::new();
    for tag in 1000..1000 + SLICES {
        wanted.push(new(tag));
        times.push(request(&fabric, &wanted, &wanted[FEW as usize]).await);
        wanted.pop();
        fabric.intend(wanted.clone());
        as_wanted(&fabric).await;
    }
    spread(
        figures,
        &format!("request_{switches}_switches_few"),
        &format!("request to programmed, {switches} switches that hold {FEW} slices"),
        times,
    );
    wanted.clear();
    fabric.intend(Vec::new());
    as_wanted(&fabric).await;
    let mut times = Vec::new();
    for tag in 1..=SLICES {
        wanted.push(new(tag));
        times.push(request(&fabric, &wanted, &wanted[wanted.len() - 1]).await);
    }
    spread(
        figures,
        &format!("request_{switches}_switches_growing"),
        &format!("request to programmed, {switches} switches, slices 1 to {SLICES} one by one"),
        times,
    );
    stop.cancel();
}

/// Rules per second beside `ovs-ofctl`, and what it takes to put all of them right.
async fn rules(rig: &Rig, figures: &mut Map<String, Value>) {
    let stop = CancellationToken::new();
    let fabric = fabric(rig, &ONE, &stop).await;
    let name = ONE[0];
    let at = format!("{name}/{}", port(name));
    let (slices, members) = MANY;
    let new = |tag: u16| {
        let first = u32::from(tag) * members;
        let members = (first..first + members).map(|number| member(&at, number));
        slice(tag, MUCH, members.collect(), &ONE)
    };
    let wanted: Vec<Intent> = (1..=slices).map(new).collect();
    // once before what is timed: the member's port has been told of by then
    fabric.intend(wanted.clone());
    as_wanted(&fabric).await;
    let all: Vec<&Intent> = wanted.iter().collect();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        fabric.intend(Vec::new());
        as_wanted(&fabric).await;
        let began = Instant::now();
        fabric.intend(wanted.clone());
        programmed(&fabric, &all).await;
        times.push(began.elapsed());
    }
    let ours = median(times);
    let count = fabric.switches()[0].rules;
    assert!(count >= RULES, "{count} rules");

    // until it notices is in the last one: nobody tells that rules were deleted
    let mut woken = Vec::new();
    for _ in 0..ROUNDS {
        rig.ofctl("del-flows", name);
        let began = Instant::now();
        fabric.intend(wanted.clone());
        as_wanted(&fabric).await;
        woken.push(began.elapsed());
    }
    let woken = ms(median(woken));
    let mut alone = Vec::new();
    // with the rule by which switches find each other
    let whole = rig.ofctl("dump-aggregate", name);
    let whole = whole
        .split_whitespace()
        .find(|w| w.starts_with("flow_count="))
        .unwrap();
    for _ in 0..UNAIDED {
        rig.ofctl("del-flows", name);
        let began = Instant::now();
        // a check would have the switch looked at
        until("it is made good", || {
            let there = rig.ofctl("dump-aggregate", name);
            there.split_whitespace().any(|word| word == whole)
        })
        .await;
        alone.push(began.elapsed());
        as_wanted(&fabric).await;
    }
    println!("reconcile of {count} rules that were deleted: {woken} ms once it looks");
    spread(
        figures,
        "reconcile_unaided",
        "the same with the wait until it notices, which it asks for every 2 s",
        alone,
    );

    // somebody else writes the same rules, beside the same groups and meters; the controller stays
    // configured: a switch whose last one is taken away forgets all rules
    let dump = rig.ofctl("dump-flows --no-stats --no-names", name);
    let lines: Vec<&str> = dump.lines().filter(|l| l.contains("cookie=")).collect();
    assert_eq!(format!("flow_count={}", lines.len()), whole);
    stop.cancel();
    let file = rig.path("rules");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let peer = |options: &str| {
        let times = (0..ROUNDS).map(|_| {
            rig.ofctl("del-flows", name);
            let began = Instant::now();
            rig.ofctl(&format!("add-flows {}{options}", file.display()), name);
            began.elapsed()
        });
        let took = median(times.collect());
        let there = rig.ofctl("dump-aggregate", name);
        assert!(
            there.split_whitespace().any(|word| word == whole),
            "{there}"
        );
        took
    };
    let (plain, bundled) = (peer(""), peer(" --bundle"));
    let began = Instant::now();
    rig.ofctl("dump-flows", name);
    let dumped = began.elapsed();
    let rate = |time: Duration| (count as f64 / time.as_secs_f64()).round();
    let ratio = |time: Duration| (time.as_secs_f64() / ours.as_secs_f64() * 100.0).round() / 100.0;
    let meters = u32::from(slices) * members;
    println!(
        "rules at once: {count} in {} ms, {} rules/s (with {meters} meters, {slices} groups, and \
         read back); ovs-ofctl add-flows, rules alone: {} rules/s, with --bundle {} rules/s \
         (its dump of them takes {} ms more); ours / its: {} and {}",
        ms(ours),
        rate(ours),
        rate(plain),
        rate(bundled),
        ms(dumped),
        ratio(plain),
        ratio(bundled),
    );
    figures.insert(
        "rules".to_owned(),
        json!({
            "rules": count,
            "meters": meters,
            "groups": slices,
            "ms": ms(ours),
            "per_second": rate(ours),
            "ovs_ofctl_per_second": rate(plain),
            "ovs_ofctl_bundle_per_second": rate(bundled),
            "ovs_ofctl_dump_ms": ms(dumped),
            "ratio": ratio(plain),
            "ratio_bundle": ratio(bundled),
        }),
    );
    figures.insert("reconcile".to_owned(), json!({"rules": count, "ms": woken}));
}

/// Resident memory of this process in kB (VmRSS, proc_pid_status(5)).
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
fn model_names() -> Vec<String> {
    (1..=MODELS).map(|n| format!("s{n}")).collect()
}
/// The model switches in a process of their own; ended when it is dropped.
struct Models(Child);
impl Drop for Models {
    fn drop(&mut self) {
        // it may have ended by itself, which is what the bench then says
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
/// That process: until nobody holds its standard input any more.
fn models(to: SocketAddr) {
    let runtime = runtime();
    let _switches: Vec<_> = runtime.block_on(async {
        let names = model_names();
        let mut switches = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let mut make = Make::new(index as u64 + 1, &[]);
            make.ports = vec![port(name)];
            for other in [index.checked_sub(1), Some(index + 1)] {
                let other = other.and_then(|other| names.get(other));
                make.ports
                    .extend(other.map(|other| format!("{name}-{other}")));
            }
            switches.push(make.connect(to).await);
        }
        switches
    });
    let _ = std::io::stdin().read(&mut [0]);
}
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Memory per switch: with its connection alone, and with what it holds.
fn memory(figures: &mut Map<String, Value>) {
    let names = model_names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let runtime = runtime();
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let fabric = start(network(&names), "127.0.0.1:0".parse().unwrap(), &stop).await;
        let before = resident();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["models", &fabric.address().to_string()])
            .stdin(Stdio::piped())
            .spawn();
        let _models = Models(child.unwrap());
        connected(&fabric, MODELS).await;
        let idle = resident();
        // ten slices over nearly all of them, with a member at every tenth switch
        let new = |n: usize| {
            let members = (n..MODELS).step_by(10).map(|at| {
                let place = format!("{}/{}", names[at], port(names[at]));
                member(&place, (n * MODELS + at) as u32)
            });
            slice(
                n as u16 + 1,
                MUCH,
                members.collect(),
                &names[n..=MODELS - 10 + n],
            )
        };
        let wanted: Vec<Intent> = (0..10).map(new).collect();
        fabric.intend(wanted.clone());
        programmed(&fabric, &wanted.iter().collect::<Vec<_>>()).await;
        let holding = resident();
        let rules: u64 = fabric.switches().iter().map(|switch| switch.rules).sum();
        let each = |kb: i64| ((kb - before) as f64 / MODELS as f64 * 10.0).round() / 10.0;
        println!(
            "memory: {} kB per switch connected, {} kB with its rules, of {MODELS} switches with \
             {rules} rules ({before} kB before, {holding} kB after)",
            each(idle),
            each(holding),
        );
        figures.insert(
            "memory".to_owned(),
            json!({
                "switches": MODELS,
                "rules": rules,
                "connected_kb_per_switch": each(idle),
                "holding_kb_per_switch": each(holding),
            }),
        );
        stop.cancel();
    });
}
