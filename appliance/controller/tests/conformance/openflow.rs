//! The fabric `openflow` over two Open vSwitches. What they hold is asked by `ovs-ofctl`.

use super::{GATEWAY, Ground, MEMBERS, site};
use futures_util::future::LocalBoxFuture;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{Fabric, openflow::OpenFlow};

use crate::{
    switch::{
        Rig, flow_ages,
        host::{Host, talk},
    },
    wish::{TWO, start, until},
};

/// How long it may take to ask a switch for its rules, so that their age says when they were written.
const ASKING: Duration = Duration::from_millis(300);

/// Two switches with a cable, the members and a gateway.
pub(crate) struct Switches {
    rig: Rig,
    fabric: Arc<OpenFlow>,
    stop: CancellationToken,
    hosts: [Host; 2],
    _gateway: Host,
    began: Instant,
}
impl Switches {
    pub(crate) async fn start(rig: Rig) -> Self {
        for (name, id) in TWO.iter().zip(1..) {
            rig.switch(name, id);
        }
        rig.cable(TWO[0], TWO[1]);
        let [(one, _), (two, _)] = MEMBERS;
        let hosts = [rig.host("edge1", "ha", one), rig.host("edge2", "hb", two)];
        let gateway = rig.host("edge2", "hg", GATEWAY.0);
        let stop = CancellationToken::new();
        let fabric = start(site(), "127.0.0.1:0".parse().unwrap(), &stop).await;
        for name in TWO {
            rig.connect(name, &format!("tcp:{}", fabric.address()));
        }
        until("the switches are there", || fabric.trouble().is_none()).await;
        Self {
            rig,
            fabric,
            stop,
            hosts,
            _gateway: gateway,
            began: Instant::now(),
        }
    }
}
impl Drop for Switches {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Ground for Switches {
    fn fabric(&self) -> Arc<dyn Fabric> {
        self.fabric.clone()
    }
    fn again(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {
            let address = self.fabric.address();
            self.stop.cancel();
            until("the port is free", || TcpListener::bind(address).is_ok()).await;
            self.stop = CancellationToken::new();
            self.fabric = start(site(), address, &self.stop).await;
            let fabric = self.fabric.clone();
            until("the switches have come", || fabric.trouble().is_none()).await;
        })
    }
    fn ours(&self) -> BTreeSet<String> {
        let all = TWO.iter().flat_map(|name| {
            let lines = self.rig.dump(name).into_iter();
            lines.map(move |line| format!("{name}: {line}"))
        });
        all.collect()
    }
    fn written(&self) -> BTreeMap<String, f64> {
        let mut written = BTreeMap::new();
        for name in TWO {
            let (asked, ages) = loop {
                let asked = Instant::now();
                let ages = flow_ages(&self.rig, name);
                if asked.elapsed() < ASKING {
                    break (asked.duration_since(self.began).as_secs_f64(), ages);
                }
            };
            let rules = ages.into_iter();
            written.extend(rules.map(|(rule, age)| (format!("{name}: {rule}"), asked - age)));
            // these have no age: another one has another number or says something else
            let held = self.rig.dump(name).into_iter();
            let others = held.filter(|line| line.contains("_id="));
            written.extend(others.map(|line| (format!("{name}: {line}"), 0.0)));
        }
        written
    }
    fn tamper(&self) {
        let rule = "del-flows table=20,metadata=7,dl_dst=02:00:00:00:00:02";
        self.rig.ofctl(rule, "edge1");
    }
    fn intrude(&self) -> &'static str {
        let rule = "add-flow table=0,priority=40000,in_port=99,actions=NORMAL";
        self.rig.ofctl(rule, "edge1");
        "somebody else"
    }
    fn intruder(&self) -> bool {
        self.rig.ofctl("dump-flows", "edge1").contains("NORMAL")
    }
    fn lose(&mut self) {
        self.rig.kill();
    }
    fn find(&mut self) {
        self.rig.forward();
    }
    fn traffic(&self) {
        assert!(talk(&self.hosts[0], &self.hosts[1]));
    }
}
