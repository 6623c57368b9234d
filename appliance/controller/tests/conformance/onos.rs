//! The fabric `onos` over a double of ONOS.

use super::{Ground, site};
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{Fabric, onos::Onos};

use crate::double::{Double, Rig};

const OWNER: &str = "here/1";
/// An application that forwards around slices.
const FORWARDS: &str = "org.onosproject.fwd";
/// A meter of it; the double's own numbers stay below.
const METER: u32 = 4000;
/// Priority of the rule that says whose an application is.
const MARK: u16 = 2;

/// A double of ONOS with two switches.
pub(crate) struct Core {
    rig: Rig,
    fabric: Arc<Onos>,
    stop: CancellationToken,
}
impl Core {
    pub(crate) async fn start() -> Self {
        let rig = Rig::start().await;
        let stop = CancellationToken::new();
        let fabric = rig.fabric(OWNER, site(), &stop).await;
        Self { rig, fabric, stop }
    }
    fn look<T>(&self, look: impl FnOnce(&Double) -> T) -> T {
        look(&self.rig.double.lock().unwrap())
    }
}
impl Drop for Core {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Whether a rule is the mark that says whose the application is: no slice's, and it stays.
fn mark(flow: &Value) -> bool {
    flow["priority"] == MARK
}

impl Ground for Core {
    fn fabric(&self) -> Arc<dyn Fabric> {
        self.fabric.clone()
    }
    fn again(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {
            self.stop.cancel();
            self.stop = CancellationToken::new();
            self.fabric = self.rig.fabric(OWNER, site(), &self.stop).await;
        })
    }
    fn ours(&self) -> BTreeSet<String> {
        self.written().into_keys().collect()
    }
    fn written(&self) -> BTreeMap<String, f64> {
        self.look(|double| {
            let flows = double.flows.iter().filter(|(_, flow)| !mark(flow));
            let flows = flows.map(|(id, flow)| (id.clone(), flow["written"].as_f64().unwrap()));
            let meters = double.meters.keys().filter(|id| **id != METER);
            let meters = meters.map(|id| (format!("meter {id}"), 0.0));
            let hosts = double.hosts.keys().map(|mac| (format!("host {mac}"), 0.0));
            flows.chain(meters).chain(hosts).collect()
        })
    }
    fn tamper(&self) {
        self.rig.set(|double| {
            let of = |id: &&String| id.starts_with("\"of:0000000000000001\" 20 20000");
            let rule = double.flows.keys().find(of).cloned().unwrap();
            double.flows.remove(&rule);
        });
    }
    fn intrude(&self) -> &'static str {
        self.rig.set(|double| {
            double.applications.push(FORWARDS);
            double.foreign_meter(METER);
        });
        FORWARDS
    }
    fn intruder(&self) -> bool {
        self.look(|double| double.meters.contains_key(&METER))
    }
    fn lose(&mut self) {
        self.rig.set(|double| double.away = true);
    }
    fn find(&mut self) {
        self.rig.set(|double| double.away = false);
    }
    fn traffic(&self) {
        self.rig.set(|double| {
            for meter in double.meters.values_mut() {
                for (name, more) in [("packets", 10), ("bytes", 1000)] {
                    let counted = meter[name].as_u64().unwrap();
                    meter[name] = json!(counted + more);
                }
            }
        });
    }
}
