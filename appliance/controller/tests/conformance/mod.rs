//! What enforces a fabric in the cases, and what can be done to it behind the fabric's back.

mod case;
mod hosts;
mod onos;
mod openflow;
mod real;

pub(crate) use case::{Case, For, conform, within};
pub(crate) use hosts::Hosts;
pub(crate) use onos::Core;
pub(crate) use openflow::Switches;
pub(crate) use real::Real;

use dtn_api::{HostId, Name, host::Enforcement};
use futures_util::future::LocalBoxFuture;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use uuid::Uuid;
use vdnd::fabric::{
    Access, Attached, Border, Fabric, Intent,
    network::{Network, Place},
};

use crate::wish::{MUCH, TWO, network, slice, until};

/// A fabric over what enforces it.
pub(crate) trait Ground {
    /// The fabric as it is now.
    fn fabric(&self) -> Arc<dyn Fabric>;
    /// Ends the fabric and makes another one over the same.
    fn again(&mut self) -> LocalBoxFuture<'_, ()>;
    /// What there is of slices of ours, a line each, as somebody else sees it.
    fn ours(&self) -> BTreeSet<String>;
    /// When each of these was written: seconds, or a running number. Of what was written again it is
    /// more than [`AGAIN`] later.
    fn written(&self) -> BTreeMap<String, f64>;
    /// Takes a rule of the slice of [`wanted`] away from `edge1`.
    fn tamper(&self);
    /// Puts something there that is somebody else's and would carry traffic around slices; what it is
    /// called in words.
    fn intrude(&self) -> &'static str;
    /// Whether that is still there.
    fn intruder(&self) -> bool;
    /// Nobody can be asked any more.
    fn lose(&mut self);
    /// Everybody is there again.
    fn find(&mut self);
    /// Traffic of the members of [`wanted`] meets their guards.
    fn traffic(&self);
    /// What the nodes report of their senders now.
    fn reports(&self) -> BTreeMap<HostId, Enforcement> {
        hosts::reports()
    }
}

/// What differs less was not written again: how long it may take to ask a switch on a busy machine.
pub(crate) const AGAIN: f64 = 0.5;

/// The two members of a slice over the two switches, and the gateway beside the second one.
pub(crate) const MEMBERS: [(u8, &str); 2] = [(1, "edge1/ha"), (2, "edge2/hb")];
const GATEWAY: (u8, &str) = (20, "edge2/hg");

pub(crate) fn member((n, at): (u8, &str)) -> Attached {
    Attached {
        mac: dtn_api::MacAddress::new([2, 0, 0, 0, 0, n]),
        ips: vec![[10, 0, 0, n].into(), format!("fd00::{n}").parse().unwrap()],
        at: at.parse().unwrap(),
    }
}
/// A slice of both.
pub(crate) fn wanted() -> Intent {
    slice(7, MUCH, MEMBERS.map(member).to_vec(), &TWO)
}
/// The same with a gateway that has this rule alone.
pub(crate) fn gated(rule: &str) -> Intent {
    let mut intent = wanted();
    let gateway = member(GATEWAY);
    intent.access = Some(Access {
        gateway: gateway.mac,
        subnets: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        rules: vec![serde_json::from_str(rule).unwrap()],
    });
    intent.members.push(gateway);
    intent
}
/// The border link of the domain, at a port of the second switch.
pub(crate) fn border() -> Border {
    let name = |text: &str| text.parse::<Name>().unwrap();
    Border {
        name: name("wan"),
        peer_domain: name("seoul"),
        peer_ref: name("wan"),
        capacity_bps: 40_000_000_000,
        latency_us: 0,
        mtu: 9000,
        labels: Default::default(),
        at: Some("edge2/border".parse().unwrap()),
    }
}
/// The site as it is configured: two switches and a cable, the members' ports, the border.
pub(crate) fn site() -> Network {
    let at = |(n, at): (u8, &str)| (format!("node{n}/eth0"), at.parse::<Place>().unwrap());
    Network {
        ports: MEMBERS.map(at).into(),
        borders: vec![border()],
        ..network(&TWO)
    }
}

/// Waits until the fabric says of a slice that it is enforced.
pub(crate) async fn enforced(ground: &dyn Ground, intent: &Intent) {
    let slice = hosts::kept(intent.slice);
    let what = format!("{} is enforced", intent.name);
    let fabric = ground.fabric();
    until(&what, || {
        let verdict = fabric.verify(&slice, &hosts::declared(), &ground.reports());
        verdict.enforced
    })
    .await;
}
/// Why the fabric says that a slice is not enforced.
pub(crate) fn why_not(ground: &dyn Ground, id: Uuid) -> Option<String> {
    let verdict = ground
        .fabric()
        .verify(&hosts::kept(id), &hosts::declared(), &ground.reports());
    (!verdict.enforced).then_some(verdict.reason)
}
/// What of this was written again or has gone since.
pub(crate) fn touched(ground: &dyn Ground, since: &BTreeMap<String, f64>) -> Vec<String> {
    let now = ground.written();
    let same = |(what, then): &(&String, &f64)| now.get(*what).is_some_and(|n| n - *then < AGAIN);
    let touched = since.iter().filter(|entry| !same(entry));
    touched.map(|(what, _)| what.clone()).collect()
}
pub(crate) use hosts::{declared, spec};
