//! Hosts: NICs that nodes declare, and pods on them.

use super::{Decision, Engine, not_found};
use crate::{
    auth::{self, Principal},
    fabric::{
        edge::SITE_SWITCH,
        network::{Network, PortRef},
    },
    state::{Change, State},
};
use dtn_api::{
    HostId, Problem,
    host::{Host, HostKind, HostSpec},
    lease::Location,
    problem::Kind,
};
use jiff::Timestamp;

/// A declaration that changes nothing is written down this often, in seconds: it says that the
/// host is still there.
const REFRESH: i64 = 60;

impl Engine {
    /// Declares a host; the same again is success.
    pub async fn declare(
        &self,
        who: &Principal,
        id: &HostId,
        spec: HostSpec,
    ) -> Result<Host, Problem> {
        auth::own_node(who, &spec.node)?;
        if spec.capacity_bps == 0 || !(68..=65_535).contains(&spec.mtu) {
            return Err(
                Problem::new(Kind::InvalidRequest, format!("host {id} is not valid"))
                    .at("/capacity_bps", "capacity above 0, MTU from 68 to 65535"),
            );
        }
        if !id.mac().is_unicast() {
            return Err(Problem::new(
                Kind::InvalidRequest,
                format!("{id} is no host's address"),
            ));
        }
        self.decide(who, |state, now| {
            let before = state.hosts.get(id);
            if let Some(before) = before {
                auth::own_node(who, &before.spec.node).map_err(|_| {
                    let other = &before.spec.node;
                    let problem = format!("host {id} is declared by node {other} already");
                    Problem::new(Kind::AddressInConflict, problem)
                })?;
            }
            if let Some(before) = before.filter(|host| becomes_another(&host.spec, &spec))
                && let Some(slice) = rests_on(state, id, now)
            {
                let (was, nic) = (before.spec.kind.word(), &before.spec.nic);
                let problem = format!(
                    "host {id} is declared as {was} of {nic}, and slice {slice} rests on that: end the \
                     slice first"
                );
                return Err(Problem::new(Kind::StateConflict, problem));
            }
            let fresh = |host: &Host| now.duration_since(host.seen_at).as_secs() < REFRESH;
            if let Some(same) = before.filter(|host| host.spec == spec && fresh(host)) {
                return Ok(Decision::only(same.clone()));
            }
            let location = spec
                .location
                .clone()
                .or_else(|| before.map(|host| host.location.clone()))
                .unwrap_or_else(|| free_port(state));
            let location = match self.fabric.network() {
                None => location,
                Some(network) => plugged_in(network, &spec),
            };
            let host = Host {
                id: id.clone(),
                location,
                seen_at: now,
                version: before.map_or(1, |host| host.version + u64::from(host.spec != spec)),
                spec,
            };
            Ok(Decision::only(host.clone()).change(Change::Host(host)))
        })
        .await
    }

    /// Forgets a host. One that a slice rests on stays.
    pub async fn undeclare(&self, who: &Principal, id: &HostId) -> Result<(), Problem> {
        self.decide(who, |state, now| {
            let Some(host) = state.hosts.get(id) else {
                return Ok(Decision::only(()));
            };
            auth::own_node(who, &host.spec.node)?;
            if let Some(slice) = rests_on(state, id, now) {
                let problem = format!("slice {slice} rests on host {id}: end it first");
                return Err(Problem::new(Kind::StateConflict, problem));
            }
            if let Some(row) = state.gateways.values().find(|row| row.spec.host == *id) {
                let name = &row.name;
                let problem = format!("host {id} is the NIC of gateway {name}: delete that first");
                return Err(Problem::new(Kind::StateConflict, problem));
            }
            Ok(Decision::only(()).change(Change::NoHost(id.clone())))
        })
        .await
    }

    /// One host.
    pub async fn host(&self, id: &HostId) -> Result<Host, Problem> {
        self.look(|state, _| {
            state
                .hosts
                .get(id)
                .cloned()
                .ok_or_else(|| not_found("host", id))
        })
        .await
    }
}

/// Whether it would count for another thing in its slices: a pod sits on a booked NIC, and a NIC is
/// booked itself. A NIC may get another name.
fn becomes_another(before: &HostSpec, now: &HostSpec) -> bool {
    before.kind != now.kind || (before.kind == HostKind::Pod && before.nic != now.nic)
}

/// Where the site's wiring has a NIC. One that is not in it is nowhere, and no path leads to it.
fn plugged_in(network: &Network, spec: &HostSpec) -> Location {
    let place = network.ports.get(&format!("{}/{}", spec.node, spec.nic));
    Location {
        device: place.map_or_else(String::new, |place| place.switch.to_string()),
        port: match place.map(|place| &place.port) {
            Some(PortRef::Number(number)) => *number,
            Some(PortRef::Name(_)) | None => 0,
        },
    }
}

/// The switch of the fabric `edge` has as many ports as it needs.
fn free_port(state: &State) -> Location {
    let used = |port: u32| {
        state
            .hosts
            .values()
            .any(|h| h.location.device == SITE_SWITCH && h.location.port == port)
    };
    let port = (1..).find(|port| !used(*port)).unwrap_or(u32::MAX);
    Location {
        device: SITE_SWITCH.to_owned(),
        port,
    }
}

fn rests_on(state: &State, id: &HostId, now: Timestamp) -> Option<String> {
    let booked = state
        .bookings
        .values()
        .filter(|booking| booking.slice.booked_at(now));
    booked
        .map(|booking| &booking.slice.spec)
        .find(|spec| {
            spec.members
                .iter()
                .any(|member| member.host.as_ref() == Some(id))
        })
        .map(|spec| spec.name.to_string())
}
