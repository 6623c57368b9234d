//! The fabric `edge`: the hosts enforce, and their nodes say so. And the hosts of all fabrics.

use super::{Ground, MEMBERS, border};
use dtn_api::{
    HostId,
    host::{Enforcement, Host, HostKind, HostSpec},
    lease::Location,
    slice::{
        DataPlane, Lifecycle, Member, Provision, Reservation, Role, Slice, SliceSpec, SliceStatus,
    },
};
use futures_util::future::LocalBoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use uuid::Uuid;
use vdnd::fabric::{Fabric, edge::Edge};

use crate::wish::MUCH;

fn id(n: u8) -> HostId {
    format!("02:00:00:00:00:{n:02x}-none").parse().unwrap()
}
/// The hosts that are declared: the members, each with a speed of its own.
pub(crate) fn declared() -> BTreeMap<HostId, Host> {
    let host = |(n, _): (u8, &str)| {
        let spec = HostSpec {
            kind: HostKind::Nic,
            node: format!("node{n}").parse().unwrap(),
            nic: "eth0".parse().unwrap(),
            capacity_bps: 10_000_000_000 * u64::from(n),
            mtu: 1500,
            location: None,
            ips: Vec::new(),
            permitted: true,
        };
        let host = Host {
            id: id(n),
            spec,
            location: Location {
                device: String::new(),
                port: 0,
            },
            seen_at: Timestamp::now(),
            version: 1,
        };
        (host.id.clone(), host)
    };
    MEMBERS.map(host).into()
}
/// What their nodes report when they pace them.
pub(super) fn reports() -> BTreeMap<HostId, Enforcement> {
    let report = |(n, _): (u8, &str)| {
        let report = Enforcement {
            rate_bps: MUCH,
            by: "htb".into(),
            read_at: Timestamp::now(),
        };
        (id(n), report)
    };
    MEMBERS.map(report).into()
}
/// What is asked for between them.
pub(crate) fn spec(mode: &str) -> SliceSpec {
    let now = Timestamp::now();
    let members = MEMBERS.map(|(n, _)| Member::of_host(id(n), Role::Endpoint));
    let spec = json!({
        "name": "slice-7",
        "qos": {"class": "guaranteed", "rate_bps": MUCH, "mode": mode},
        "members": members,
        "schedule": {"start": now, "end": now + SignedDuration::from_hours(1)},
    });
    serde_json::from_value(spec).unwrap()
}
/// The slice as the controller keeps it.
pub(super) fn kept(id: Uuid) -> Slice {
    Slice {
        id,
        spec: spec("pair"),
        status: SliceStatus {
            reservation: Reservation::Committed,
            provision: Provision::Provisioned,
            lifecycle: Lifecycle::Created,
            data_plane: DataPlane::Activating,
            generation: 1,
            observed_generation: 0,
            hold_expires_at: None,
            links: Vec::new(),
            conditions: Vec::new(),
        },
        stitch: None,
        version: 1,
        created_at: Timestamp::now(),
    }
}

/// Hosts that pace themselves.
pub(crate) struct Hosts {
    fabric: Arc<Edge>,
    silent: bool,
}
impl Hosts {
    pub(crate) fn start() -> Self {
        Self {
            fabric: Arc::new(Edge::new(vec![border()])),
            silent: false,
        }
    }
}
/// What is asked of switches in cases that are not for hosts.
const NO_SWITCH: &str = "the case is not for a fabric without switches";

impl Ground for Hosts {
    fn fabric(&self) -> Arc<dyn Fabric> {
        self.fabric.clone()
    }
    fn again(&mut self) -> LocalBoxFuture<'_, ()> {
        self.fabric = Arc::new(Edge::new(vec![border()]));
        Box::pin(std::future::ready(()))
    }
    fn ours(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }
    fn written(&self) -> BTreeMap<String, f64> {
        BTreeMap::new()
    }
    fn tamper(&self) {
        panic!("{NO_SWITCH}");
    }
    fn intrude(&self) -> &'static str {
        panic!("{NO_SWITCH}");
    }
    fn intruder(&self) -> bool {
        panic!("{NO_SWITCH}");
    }
    fn lose(&mut self) {
        self.silent = true;
    }
    fn find(&mut self) {
        self.silent = false;
    }
    fn traffic(&self) {
        panic!("{NO_SWITCH}");
    }
    fn reports(&self) -> BTreeMap<HostId, Enforcement> {
        match self.silent {
            true => BTreeMap::new(),
            false => reports(),
        }
    }
}
