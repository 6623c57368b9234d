//! Leases: granted, renewed and given back. Whose they are is looked at here, which addresses they
//! have is decided in [`crate::leases`].

use super::{Decision, Engine, Once, bookings, not_found};
use crate::{
    auth::{self, Principal},
    dhcp,
    gateways::{self, GatewayRow},
    leases::{self, Asker, LeaseRow},
    state::{Change, State},
};
use dtn_api::{
    HostId, MacAddress, Name, Problem,
    lease::{Lease, LeaseRequest, RenewResult, Route},
    problem::Kind,
    slice::Slice,
};
use std::{collections::BTreeSet, net::IpAddr};
use uuid::Uuid;

/// Most leases in one renewal.
const MOST_AT_ONCE: usize = 1000;

impl Engine {
    /// The client's lease, and whether it was made now. The client's id makes it idempotent; the
    /// key of the request is honoured beside it.
    pub async fn lease(
        &self,
        who: &Principal,
        once: &Once,
        slice: Uuid,
        request: &LeaseRequest,
    ) -> Result<(Lease, bool), Problem> {
        let node = match who {
            Principal::Node(name) => Some(name.clone()),
            _ => None,
        };
        self.decide(who, |state, now| {
            // a key that was used for another request is a mistake of the caller
            once.find(state)?;
            let booking = state
                .bookings
                .get(&slice)
                .ok_or_else(|| not_found("slice", &slice))?;
            bookings::in_slice(state, who, &booking.slice.spec.members)?;
            let rows = state.leases_of(slice);
            if let Some(other) = rows
                .iter()
                .find(|row| row.lease.client_id == request.client_id && row.occupies())
            {
                own(who, other)?;
            }
            not_by_dhcp(&request.client_id)?;
            let gateway = gateway(state, who, &booking.slice, request)?;
            let asker = Asker {
                id: Uuid::now_v7(),
                routes: match gateway {
                    Some(_) => Vec::new(),
                    None => routes(state, slice),
                },
                gateway: gateway.is_some(),
                node: gateway.map_or(node, |row| Some(row.spec.node.clone())),
            };
            if let Some(why) = anothers(state, &rows, request, asker.node.as_ref()) {
                let problem = format!("{} is another node's in the domain", request.mac);
                return Err(Problem::new(Kind::AddressInConflict, problem).at("/mac", why));
            }
            let mut foreign = foreign_addresses(state, request.mac);
            foreign.extend(self.offered(slice, request.mac, now));
            let grant = leases::grant(&booking.slice, &rows, &foreign, request, &asker, now)?;
            let lease = grant.row.lease.clone();
            let mut decision = Decision::only((lease.clone(), grant.fresh));
            if state.leases.get(&lease.id) == Some(&grant.row) {
                return Ok(decision);
            }
            if let Some(old) = grant.replaces {
                decision = decision.change(Change::NoLease(old));
            }
            // a NIC that goes into a pod takes its hardware address along: its host asks no more
            let id = dhcp::client(request.mac);
            let by_dhcp = rows.iter().find(|row| row.lease.client_id == id);
            if let Some(back) = by_dhcp.and_then(|row| leases::release(row, now)) {
                let detail = format!("of {id}: {} has its hardware address", lease.client_id);
                decision = decision
                    .event("lease.released", Some(back.lease.id), detail)
                    .change(Change::Lease(back));
            }
            if grant.fresh {
                let ips: Vec<_> = lease.ips.iter().map(ToString::to_string).collect();
                let detail = format!("{} to {}", ips.join(" "), lease.client_id);
                decision = decision.event("lease.bound", Some(lease.id), detail);
            }
            decision = decision.change(once.keep(&lease.id, None, now));
            Ok(decision.change(Change::Lease(grant.row)))
        })
        .await
    }

    /// One lease that the caller may see.
    pub async fn lease_of(&self, who: &Principal, id: Uuid) -> Result<Lease, Problem> {
        self.look(|state, _| {
            let row = state
                .leases
                .get(&id)
                .ok_or_else(|| not_found("lease", &id))?;
            own(who, row)?;
            Ok(row.lease.clone())
        })
        .await
    }

    /// Starts the lifetime anew.
    pub async fn renew(&self, who: &Principal, id: Uuid) -> Result<Lease, Problem> {
        let mut results = self.renew_all(who, &[id]).await?;
        let one = results.pop();
        match one {
            Some(RenewResult {
                lease: Some(lease), ..
            }) => Ok(lease),
            Some(RenewResult {
                problem: Some(problem),
                ..
            }) => Err(problem),
            _ => Err(not_found("lease", &id)),
        }
    }

    /// Starts the lifetime of many anew, each by itself, in one commit.
    pub async fn renew_all(
        &self,
        who: &Principal,
        ids: &[Uuid],
    ) -> Result<Vec<RenewResult>, Problem> {
        if ids.len() > MOST_AT_ONCE {
            return Err(
                Problem::new(Kind::InvalidRequest, "too many leases in one renewal")
                    .at("/ids", format!("at most {MOST_AT_ONCE}")),
            );
        }
        self.decide(who, |state, now| {
            let mut decision = Decision::only(Vec::new());
            for id in ids {
                let renewed = state
                    .leases
                    .get(id)
                    .ok_or_else(|| not_found("lease", id))
                    .and_then(|row| own(who, row).map(|()| row))
                    .and_then(|row| leases::renew(row, now));
                let renewed = renewed.map(|row| with_routes(state, row));
                let result = match renewed {
                    Ok(row) => {
                        let lease = row.lease.clone();
                        decision.changes.push(Change::Lease(row));
                        RenewResult {
                            id: *id,
                            lease: Some(lease),
                            problem: None,
                        }
                    }
                    Err(problem) => RenewResult {
                        id: *id,
                        lease: None,
                        problem: Some(problem),
                    },
                };
                decision.answer.push(result);
            }
            Ok(decision)
        })
        .await
    }

    /// Gives a lease back; success when there is none.
    pub async fn release(&self, who: &Principal, id: Uuid) -> Result<(), Problem> {
        self.decide(who, |state, now| {
            let Some(row) = state.leases.get(&id) else {
                return Ok(Decision::only(()));
            };
            own(who, row)?;
            let Some(released) = leases::release(row, now) else {
                return Ok(Decision::only(()));
            };
            let detail = format!("of {}", row.lease.client_id);
            Ok(Decision::only(())
                .event("lease.released", Some(id), detail)
                .change(Change::Lease(released)))
        })
        .await
    }

    /// Leases that the caller may see, of one slice or one node.
    pub async fn leases(
        &self,
        who: &Principal,
        slice: Option<Uuid>,
        node: Option<&Name>,
    ) -> Vec<Lease> {
        self.look(|state, _| {
            let wanted = |row: &&LeaseRow| {
                slice.is_none_or(|id| row.lease.slice_id == id)
                    && node.is_none_or(|name| row.node.as_ref() == Some(name))
                    && row.occupies()
                    && own(who, row).is_ok()
            };
            state
                .leases
                .values()
                .filter(wanted)
                .map(|row| row.lease.clone())
                .collect()
        })
        .await
    }
}

/// The gateway that asks for its own lease, if it is one. Nobody else has such a client id.
fn gateway<'a>(
    state: &'a State,
    who: &Principal,
    slice: &Slice,
    request: &LeaseRequest,
) -> Result<Option<&'a GatewayRow>, Problem> {
    let Some(name) = request.client_id.strip_prefix(gateways::CLIENT) else {
        return Ok(None);
    };
    let found = gateways::of_slice(&state.gateways, &slice.spec);
    let row = found.filter(|row| row.name.as_str() == name);
    let row = row.ok_or_else(|| {
        let problem = format!(
            "slice {} has no gateway {name}: a client id that begins with {} is a gateway's",
            slice.spec.name,
            gateways::CLIENT
        );
        Problem::new(Kind::StateConflict, problem).at("/client_id", "is no gateway of the slice")
    })?;
    auth::own_node(who, &row.spec.node)?;
    Ok(Some(row))
}

/// Client ids that are no one's who asks over REST.
fn not_by_dhcp(client_id: &str) -> Result<(), Problem> {
    let kept = [dhcp::CLIENT, dhcp::DECLINED];
    let Some(prefix) = kept.iter().find(|prefix| client_id.starts_with(**prefix)) else {
        return Ok(());
    };
    let problem =
        format!("client ids that begin with {prefix} are those of hosts that ask by DHCP");
    let why = "choose another one";
    Err(Problem::new(Kind::InvalidRequest, problem).at("/client_id", why))
}

/// What members of a slice reach beyond it.
pub(super) fn routes(state: &State, slice: Uuid) -> Vec<Route> {
    let spec = state.bookings.get(&slice).map(|b| &b.slice.spec);
    let gateway = spec.and_then(|spec| gateways::of_slice(&state.gateways, spec));
    let addressing = spec.and_then(|spec| spec.addressing.as_ref());
    match (gateway, addressing) {
        (Some(gateway), Some(addressing)) => gateways::routes(&gateway.spec, addressing),
        _ => Vec::new(),
    }
}
/// A renewed lease with its routes as they are now; the gateway itself has none.
fn with_routes(state: &State, mut row: LeaseRow) -> LeaseRow {
    if !row.lease.client_id.starts_with(gateways::CLIENT) {
        row.lease.routes = routes(state, row.lease.slice_id);
    }
    row
}

/// Why a node cannot have a hardware address: another node has it, so frames of the one would pass
/// as the other's, and those of a gateway with any source.
fn anothers(
    state: &State,
    rows: &[&LeaseRow],
    request: &LeaseRequest,
    node: Option<&Name>,
) -> Option<String> {
    let node = node?;
    let nic = state.hosts.get(&HostId::untagged(request.mac));
    if let Some(nic) = nic.filter(|nic| nic.spec.node != *node) {
        return Some(format!("it is that of a NIC of node {}", nic.spec.node));
    }
    // one that has run out is bound again when it is renewed
    let same = |row: &&&LeaseRow| row.occupies() && row.lease.mac == request.mac;
    let mut held = rows.iter().filter(same);
    let other = held.find(|row| row.node.as_ref().is_some_and(|other| other != node))?;
    Some(format!("{} has a lease with it", other.lease.client_id))
}

/// Whose it is: the node's that asked for it; of one that an operator asked for, the node's that its
/// label says.
fn own(who: &Principal, row: &LeaseRow) -> Result<(), Problem> {
    match (&row.node, who) {
        (Some(node), _) => auth::own_node(who, node),
        (None, Principal::Node(name))
            if row.lease.labels.get("node").map(String::as_str) != Some(name.as_str()) =>
        {
            let problem = format!("lease {} is an operator's", row.lease.id);
            Err(Problem::new(Kind::Forbidden, problem))
        }
        (None, _) => Ok(()),
    }
}

/// Addresses that hosts with another MAC are known by.
pub(super) fn foreign_addresses(state: &State, mac: MacAddress) -> BTreeSet<IpAddr> {
    let others = state.hosts.values().filter(|host| host.id.mac() != mac);
    others
        .flat_map(|host| host.spec.ips.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_operators_lease_is_no_hosts_but_the_one_that_it_names() {
        let row = |labels: serde_json::Value, node: Option<&str>| -> LeaseRow {
            serde_json::from_value(json!({"lease": {"id": Uuid::nil(), "slice_id": Uuid::nil(),
                "client_id": "pod", "mac": "02:00:00:00:07:01", "ips": ["10.20.0.1/24"],
                "mtu": 9000, "t1": "2026-01-01T00:00:00Z", "t2": "2026-01-01T00:00:00Z",
                "expires_at": "2026-01-01T00:00:00Z", "state": "bound", "version": 1,
                "labels": labels}, "lifetime": 600, "node": node}))
            .unwrap()
        };
        let node = |name: &str| Principal::Node(name.parse().unwrap());
        let (of_dtn, labelled) = (
            row(json!({}), Some("dtn")),
            row(json!({"node": "dtn"}), None),
        );
        for (who, row, may) in [
            (node("dtn"), &of_dtn, true),
            (node("other"), &of_dtn, false),
            (node("dtn"), &labelled, true),
            (node("other"), &labelled, false),
            (node("dtn"), &row(json!({}), None), false),
            (Principal::Operator, &labelled, true),
            (Principal::Operator, &of_dtn, true),
        ] {
            assert_eq!(own(&who, row).is_ok(), may, "{who} {:?}", row.node);
        }
    }

    #[test]
    fn a_hardware_address_is_one_nodes_until_its_lease_is_given_back() {
        let read = |state: &str| -> LeaseRow {
            serde_json::from_value(json!({"lease": {"id": Uuid::nil(), "slice_id": Uuid::nil(),
                "client_id": "gateway:out", "mac": "02:00:00:00:07:01", "ips": ["10.20.0.1/24"],
                "mtu": 9000, "t1": "2026-01-01T00:00:00Z", "t2": "2026-01-01T00:00:00Z",
                "expires_at": "2026-01-01T00:00:00Z", "state": state, "version": 1},
                "lifetime": 600, "node": "gate"}))
            .unwrap()
        };
        let request: LeaseRequest = serde_json::from_value(json!({
            "client_id": "pod", "mac": "02:00:00:00:07:01"}))
        .unwrap();
        let [own, other] = ["gate", "dtn"].map(|name| name.parse::<Name>().unwrap());
        let bound = read("bound");
        let back = leases::release(&bound, bound.lease.t1).unwrap();
        for (row, taken) in [(read("quarantined"), true), (bound, true), (back, false)] {
            let whose = |node| anothers(&State::default(), &[&row], &request, node);
            assert_eq!(whose(Some(&other)).is_some(), taken, "{row:?}");
            assert_eq!(whose(Some(&own)), None, "{row:?}");
        }
    }
}
