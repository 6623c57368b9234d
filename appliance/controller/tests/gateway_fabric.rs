//! What a fabric with switches is told of a gateway, what it may refuse, and what is said of what it
//! counts: the whole engine in this process, with a double of a fabric, which has no switches.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dtn_api::{
    HostId, Name, Problem,
    gateway::{AccessRule, Count, StandingRule},
    host::{Enforcement, Host},
    lease::LeaseRequest,
    problem::Kind,
    slice::{Member, Slice, SliceSpec},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vdnd::{
    auth::Principal,
    authority::Authority,
    engine::{Engine, Once, Only, run_clock},
    fabric::{
        Fabric, Intent, Verdict,
        edge::Edge,
        network::{Network, Switch},
    },
    store::Embedded,
    topology::Graph,
};

/// How long something that must happen may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);
const ADMIN: &Principal = &Principal::Admin;

/// Pretends to have switches: it keeps what it is told, counts what it is given, and has no rules
/// with ports.
struct Double {
    edge: Edge,
    network: Network,
    told: Mutex<Vec<Intent>>,
    counts: Mutex<BTreeMap<(Uuid, u16), Count>>,
}
impl Fabric for Double {
    fn name(&self) -> &'static str {
        "double"
    }
    fn topology(&self, hosts: &BTreeMap<HostId, Host>) -> Graph {
        self.edge.topology(hosts)
    }
    fn node(&self, member: &Member) -> Option<String> {
        self.edge.node(member)
    }
    fn refuses(&self, _: &SliceSpec, _: &BTreeMap<HostId, Host>) -> Option<Problem> {
        None
    }
    fn refuses_rule(&self, rule: &AccessRule) -> Option<String> {
        (!rule.packets.dst_ports.is_empty()).then(|| "it has no ports".to_owned())
    }
    fn verify(
        &self,
        slice: &Slice,
        hosts: &BTreeMap<HostId, Host>,
        reports: &BTreeMap<HostId, Enforcement>,
    ) -> Verdict {
        self.edge.verify(slice, hosts, reports)
    }
    fn trouble(&self) -> Option<String> {
        None
    }
    fn network(&self) -> Option<&Network> {
        Some(&self.network)
    }
    fn intend(&self, intents: Vec<Intent>) {
        *self.told.lock().unwrap() = intents;
    }
    fn decided(&self) -> BTreeMap<(Uuid, u16), Count> {
        self.counts.lock().unwrap().clone()
    }
}
impl Double {
    /// The numbers of the rules that it was told of a slice; none before its gateway is there.
    fn rules(&self, slice: Uuid) -> Option<Vec<u16>> {
        let told = self.told.lock().unwrap();
        let access = told
            .iter()
            .find(|one| one.slice == slice)?
            .access
            .as_ref()?;
        Some(access.rules.iter().map(|rule| rule.priority).collect())
    }
}

fn read<T: serde::de::DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}
fn name(text: &str) -> Name {
    text.parse().unwrap()
}
fn rule(number: u16, more: Value) -> AccessRule {
    let mut rule = json!({"priority": number, "action": "allow", "direction": "outbound"});
    for (field, value) in more.as_object().unwrap() {
        rule[field] = value.clone();
    }
    read(rule)
}
fn host(n: u8) -> HostId {
    format!("02:00:00:00:00:0{n}-none").parse().unwrap()
}
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LONG, "never seen: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An engine with a host, two gateways and the clock running.
struct Rig {
    engine: Arc<Engine>,
    fabric: Arc<Double>,
    _ends: tokio_util::sync::DropGuard,
    _folder: tempfile::TempDir,
}
impl Rig {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vdnd.toml");
        let text = "version = 1\n[domain]\nname = \"daejeon\"\n[listen]\naddress = \"127.0.0.1:0\"\n\
                    [addresses]\nipv4 = \"10.20.0.0/16\"\n";
        std::fs::write(&file, text).unwrap();
        let config = vdnd::config::load(&file).unwrap().config;
        let keys = folder.path().join("keys");
        let now = Timestamp::now();
        let authority = Authority::open(&keys, &config.domain, &config.names, now).unwrap();
        let store = Embedded::open(&folder.path().join("store.redb")).unwrap();
        let port = |nic: &str, at: &str| (nic.to_owned(), at.parse().unwrap());
        let fabric = Arc::new(Double {
            edge: Edge::new(Vec::new()),
            network: Network {
                switches: vec![Switch {
                    name: name("edge1"),
                    datapath_id: 1,
                    single_table: false,
                }],
                ports: [
                    port("dtn/data0", "edge1/1"),
                    port("gate/data0", "edge1/2"),
                    port("gate/data1", "edge1/3"),
                ]
                .into(),
                ..Network::default()
            },
            told: Mutex::default(),
            counts: Mutex::default(),
        });
        let engine = Engine::start(config, authority, Arc::new(store), fabric.clone());
        let engine = Arc::new(engine.await.unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(run_clock(engine.clone(), stop.clone()));
        for (n, node, nic) in [
            (1, "dtn", "data0"),
            (2, "gate", "data0"),
            (3, "gate", "data1"),
        ] {
            let spec = json!({"kind": "nic", "node": node, "nic": nic,
                "capacity_bps": 10_000_000_000_u64, "mtu": 9000});
            engine.declare(ADMIN, &host(n), read(spec)).await.unwrap();
        }
        for (n, gateway) in [(2, "internet"), (3, "other")] {
            let spec = json!({"node": "gate", "host": host(n), "networks": ["0.0.0.0/0"],
                "outside": ["192.0.2.2/24"]});
            let gateway = name(gateway);
            let declared = engine.declare_gateway(ADMIN, &gateway, read(spec), None);
            declared.await.unwrap();
        }
        Self {
            engine,
            fabric,
            _ends: stop.drop_guard(),
            _folder: folder,
        }
    }
    /// A slice with a gateway, which has taken its lease.
    async fn slice(&self, text: &str, gateway: &str, by: u8) -> Uuid {
        let now = Timestamp::now();
        let spec = json!({"name": text, "qos": {"class": "guaranteed", "rate_bps": 1000},
            "members": [{"host": host(1)}, {"host": host(by), "role": "gateway"}],
            "schedule": {"start": now, "end": now + SignedDuration::from_hours(1)}, "commit": true});
        let once = |path: &str| Once::new(ADMIN, Some(text), path, &[]).unwrap();
        let made = self.engine.ask(ADMIN, &once("/slices"), read(spec)).await;
        let id = made.unwrap().body.id;
        let client = format!("gateway:{gateway}");
        let mac = dtn_api::MacAddress::local_from(&format!("{text}{client}"));
        let request: LeaseRequest = read(json!({"client_id": client, "mac": mac}));
        let once = Once::new(ADMIN, Some(&format!("{text}-lease")), "/leases", &[]).unwrap();
        self.engine.lease(ADMIN, &once, id, &request).await.unwrap();
        id
    }
    async fn put(&self, gateway: &str, rules: Vec<AccessRule>) -> Result<(), Problem> {
        let gateway = name(gateway);
        let done = self
            .engine
            .replace_access(ADMIN, &gateway, rules, None, false);
        done.await.map(|_| ())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fabric_is_told_what_stands_and_again_when_a_schedule_begins_and_ends() {
    let rig = Rig::start().await;
    let slice = rig.slice("lhc", "internet", 2).await;
    let told = |rules: &[u16]| rig.fabric.rules(slice).as_deref() == Some(rules);
    until("nothing passes at first", || told(&[])).await;
    // real seconds pass here, since nobody but the clock is to tell
    let start = Timestamp::now() + SignedDuration::from_secs(3);
    let end = start + SignedDuration::from_secs(3);
    let window = json!({"schedule": {"start": start, "end": end}});
    rig.put("internet", vec![rule(20, window), rule(10, json!({}))])
        .await
        .unwrap();
    until("what is always in force", || told(&[10])).await;
    until("its time has come", || told(&[10, 20])).await;
    assert!(Timestamp::now() >= start);
    until("its time is over", || told(&[10])).await;
    assert!(Timestamp::now() >= end);
    rig.put("internet", Vec::new()).await.unwrap();
    until("nothing passes again", || told(&[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_the_fabric_cannot_have_is_refused_with_its_place() {
    let rig = Rig::start().await;
    let ports = json!({"match": {"proto": "tcp", "dst_ports": ["443"]}});
    let list = vec![rule(10, json!({})), rule(20, ports.clone())];
    let problem = rig.put("internet", list).await.unwrap_err();
    assert!(problem.is(Kind::UnenforceableQos), "{problem}");
    assert_eq!(problem.errors[0].pointer, "/items/1/match");
    let internet = name("internet");
    let one = rule(20, ports);
    let single = rig.engine.set_access(ADMIN, &internet, 20, one, Only::Any);
    let problem = single.await.unwrap_err();
    assert_eq!(problem.errors[0].pointer, "/match");
    let rules = rig.engine.access(ADMIN, &internet).await.unwrap();
    assert!(rules.items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_switches_count_is_said_of_the_gateway_that_it_is_about() {
    let rig = Rig::start().await;
    let (a, b) = (
        rig.slice("lhc", "internet", 2).await,
        rig.slice("cms", "internet", 2).await,
    );
    let strange = rig.slice("ska", "other", 3).await;
    for gateway in ["internet", "other"] {
        rig.put(gateway, vec![rule(10, json!({}))]).await.unwrap();
    }
    let count = |packets: u64| Count {
        packets,
        bytes: packets * 100,
    };
    *rig.fabric.counts.lock().unwrap() = [
        ((a, 10), count(1)),
        ((b, 10), count(2)),
        ((b, 0), count(4)),
        ((strange, 10), count(8)),
        ((Uuid::nil(), 10), count(16)),
    ]
    .into();
    let internet = name("internet");
    let rules = rig.engine.access(ADMIN, &internet).await.unwrap();
    assert_eq!(rules.items[0].switches, Some(count(3)));
    assert_eq!(rules.denied_switches, Some(count(4)));
    let (one, _): (StandingRule, u64) = rig.engine.access_rule(ADMIN, &internet, 10).await.unwrap();
    assert_eq!(one.switches, Some(count(3)));
    assert_eq!(one.host, count(0), "its host has reported nothing");
    let totals = rig.engine.access_totals().await;
    let of = |place: &str, action: &str| {
        let found = totals.iter().find(|(name, at, what, _)| {
            name.as_str() == "internet" && *at == place && *what == action
        });
        found.map(|(.., count)| count.packets)
    };
    assert_eq!(of("switches", "allowed"), Some(3));
    assert_eq!(of("switches", "denied"), Some(4));
}
