//! The fabric `onos` over a real ONOS core and two Open vSwitches. What the switches hold is asked by
//! `ovs-ofctl`, and who is a host by the core.

use super::{GATEWAY, Ground, MEMBERS, site};
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{Fabric, onos::Onos};

use crate::{
    onos_core::{APP, CHANNEL, ask, config, post},
    switch::{
        Rig,
        host::{Host, talk},
    },
    wish::{LONG, TWO, until},
};

const OWNER: &str = "here/1";
/// An application that forwards around slices; here it does nothing but be active.
const FORWARDS: &str = "org.onosproject.fwd";
/// The rate of a meter of somebody else, which no slice here has, in kbit/s.
const METER: u64 = 7_777;
/// How the rule that says whose the application is can be told: no slice's, and it stays.
const MARK: &str = "tun_id=0x6474";
/// How long it may take to ask a switch for its rules, so that their age says when they were written.
const ASKING: Duration = Duration::from_millis(300);

/// The core, with two switches, a cable, the members and a gateway.
pub(crate) struct Real {
    rig: Rig,
    fabric: Arc<Onos>,
    stop: CancellationToken,
    hosts: [Host; 2],
    _gateway: Host,
    began: Instant,
    lost: bool,
}
impl Real {
    pub(crate) async fn start() -> Self {
        let rig = Rig::start();
        for (name, id) in TWO.iter().zip(1..) {
            rig.switch(name, id);
        }
        rig.cable(TWO[0], TWO[1]);
        let [(one, _), (two, _)] = MEMBERS;
        let hosts = [rig.host("edge1", "ha", one), rig.host("edge2", "hb", two)];
        let gateway = rig.host("edge2", "hg", GATEWAY.0);
        for name in TWO {
            rig.connect(name, CHANNEL);
        }
        let stop = CancellationToken::new();
        Self {
            rig,
            fabric: start(&stop).await,
            stop,
            hosts,
            _gateway: gateway,
            began: Instant::now(),
            lost: false,
        }
    }
    /// As it was at the beginning, whatever a case has left.
    pub(crate) async fn anew(&mut self) {
        if self.lost {
            self.find();
        }
        if self.intruder() {
            ask(
                &format!("/applications/{FORWARDS}"),
                &["--request", "DELETE"],
            );
            for (device, id) in foreign() {
                ask(&format!("/meters/{device}/{id}"), &["--request", "DELETE"]);
            }
        }
        // what an object had begun it ends itself: of a meter that no rule names yet, or any more, no
        // other one knows whose it is
        self.has_switches().await;
        let began = Instant::now();
        while !self.ours().is_empty() || self.intruder() {
            let left = self.ours();
            assert!(
                began.elapsed() < LONG,
                "left after {LONG:?}: {left:#?}, of somebody else {:?}; the core says {}\n{}",
                foreign(),
                ask("/meters", &[]),
                ask(&format!("/flows/application/{APP}"), &[])
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.again().await;
        self.has_switches().await;
    }
    /// Nothing is wanted; it looks again at once as long as a switch is not there.
    async fn has_switches(&self) {
        until("the core has the switches", || {
            self.fabric.intend(Vec::new());
            self.fabric.trouble().is_none()
        })
        .await;
    }
}
impl Drop for Real {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn start(stop: &CancellationToken) -> Arc<Onos> {
    Onos::start(site(), config(OWNER), stop.clone())
        .await
        .unwrap()
}

fn told(path: &str, list: &str) -> Vec<Value> {
    // an application is known from its first rule on: until then the answer has no such list
    let answer: Value = serde_json::from_str(&ask(path, &[])).unwrap();
    answer[list].as_array().cloned().unwrap_or_default()
}
/// The meters of somebody else: device and id.
fn foreign() -> Vec<(String, u32)> {
    let meters = told("/meters", "meters").into_iter();
    let foreign = meters.filter(|meter| meter["bands"][0]["rate"] == METER);
    foreign
        .map(|meter| {
            let text = |name: &str| meter[name].as_str().unwrap();
            // it is written in hexadecimal and told in decimal
            let id = u32::from_str_radix(text("id"), 16).unwrap();
            (text("deviceId").to_owned(), id)
        })
        .collect()
}

impl Ground for Real {
    fn fabric(&self) -> Arc<dyn Fabric> {
        self.fabric.clone()
    }
    fn again(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {
            self.stop.cancel();
            self.stop = CancellationToken::new();
            self.fabric = start(&self.stop).await;
        })
    }
    fn ours(&self) -> BTreeSet<String> {
        self.written().into_keys().collect()
    }
    fn written(&self) -> BTreeMap<String, f64> {
        let mut written = BTreeMap::new();
        for name in TWO {
            let (asked, rules) = loop {
                let asked = Instant::now();
                let rules = self.rig.ofctl("dump-flows", name);
                if asked.elapsed() < ASKING {
                    break (asked.duration_since(self.began).as_secs_f64(), rules);
                }
            };
            for rule in rules.lines().filter(|line| line.contains("table=")) {
                if rule.contains(MARK) {
                    continue;
                }
                let between = |from: &str, to: char| {
                    let rest = &rule[rule.find(from).unwrap() + from.len()..];
                    rest[..rest.find(to).unwrap()].to_owned()
                };
                let age: f64 = between("duration=", 's').parse().unwrap();
                let what = &rule[rule.find("priority=").unwrap()..];
                let what = format!("{name}: table={} {what}", between("table=", ','));
                written.insert(what, asked - age);
            }
            // these have no age: another one has another number or says something else
            let meters = self.rig.ofctl("dump-meters", name);
            let numbered = meters.split("meter=").skip(1);
            let ours = numbered.filter(|meter| !meter.contains(&format!("rate={METER} ")));
            written.extend(ours.map(|meter| (format!("{name}: meter {}", meter.trim()), 0.0)));
        }
        let hosts = told("/hosts", "hosts").into_iter();
        let ours = hosts.filter(|host| host["annotations"]["dtnOwner"] == OWNER);
        written.extend(ours.map(|host| (format!("host {}", host["mac"]), 0.0)));
        written
    }
    fn tamper(&self) {
        let path = format!("/flows/application/{APP}");
        let rules = || told(&path, "flows").into_iter();
        let is = |rule: &Value| {
            let device = rule["deviceId"] == "of:0000000000000001";
            device && rule["tableId"] == 20 && rule["priority"] == 20_000
        };
        let rule = rules().find(is).unwrap();
        let id = rule["id"].as_str().unwrap();
        let at = format!("/flows/of:0000000000000001/{id}");
        ask(&at, &["--request", "DELETE"]);
        // the core forgets it when the switch has done so
        let began = Instant::now();
        while rules().any(|left| left["id"] == rule["id"]) {
            assert!(began.elapsed() < LONG, "{rule} is there still");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    fn intrude(&self) -> &'static str {
        let application = format!(
            r#"<app name="{FORWARDS}" origin="a test" version="1.0.0" category="default" url="" title="x" featuresRepo="" features="" apps=""><description>x</description></app>"#
        );
        post("/applications", "application/octet-stream", &application);
        ask(
            &format!("/applications/{FORWARDS}/active"),
            &["--request", "POST"],
        );
        let meter = json!({
            "deviceId": "of:0000000000000001", "unit": "KB_PER_SEC", "burst": true,
            "bands": [{"type": "DROP", "rate": METER, "burstSize": 8000}],
        });
        post(
            "/meters/of:0000000000000001",
            "application/json",
            &meter.to_string(),
        );
        FORWARDS
    }
    fn intruder(&self) -> bool {
        !foreign().is_empty()
    }
    fn lose(&mut self) {
        self.lost = true;
        self.rig.kill();
    }
    fn find(&mut self) {
        self.lost = false;
        self.rig.forward();
    }
    fn traffic(&self) {
        assert!(talk(&self.hosts[0], &self.hosts[1]));
    }
}
