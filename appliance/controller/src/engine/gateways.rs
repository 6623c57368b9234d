//! Gateways: declared by their nodes, withdrawn, and what their hosts report.

use super::{Decision, Engine, check_version, not_found};
use crate::{
    access::AccessRow,
    auth::{self, Principal},
    gateways::{self, GatewayRow},
    leases::LeaseRow,
    slices::Booking,
    state::{Change, State},
};
use dtn_api::{
    HostId, Name, Problem,
    gateway::{Gateway, GatewayReport, GatewaySpec},
    host::HostKind,
    lease::LeaseState,
    problem::Kind,
    slice::Condition,
};
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
};

/// A declaration that changes nothing is written down this often, in seconds: it says that the
/// gateway is still there.
const REFRESH: i64 = 60;

impl Engine {
    /// Declares a gateway; the same again is success.
    pub async fn declare_gateway(
        &self,
        who: &Principal,
        name: &Name,
        spec: GatewaySpec,
        if_match: Option<u64>,
    ) -> Result<Gateway, Problem> {
        auth::own_node(who, &spec.node)?;
        gateways::check(name, &spec, &self.config().addresses)?;
        self.decide(who, |state, now| {
            let before = state.gateways.get(name);
            check_version(if_match, before.map_or(0, |row| row.version), "the gateway")?;
            if let Some(before) = before.filter(|row| row.spec.node != spec.node) {
                let other = &before.spec.node;
                let problem = format!(
                    "gateway {name} is declared by node {other} already: choose another name, or \
                     delete it first"
                );
                return Err(Problem::new(Kind::NameTaken, problem));
            }
            inside(state, name, &spec)?;
            if let Some(before) = before.filter(|row| row.spec.host != spec.host)
                && let Some(slices) = having(state, &before.spec.host, now)
            {
                let problem = format!(
                    "gateway {name} cannot come in by another NIC while it is the gateway of \
                     {slices}: end what has it first"
                );
                return Err(Problem::new(Kind::StateConflict, problem).at("/host", "has changed"));
            }
            let version = |state: &State| state.access.get(name).map_or(0, |row| row.version);
            let fresh = |row: &GatewayRow| now.duration_since(row.seen_at).as_secs() < REFRESH;
            if let Some(same) = before.filter(|row| row.spec == spec && fresh(row)) {
                return Ok(Decision::only(
                    same.seen(version(state), self.report_of(name)),
                ));
            }
            let changed = before.is_none_or(|row| row.spec != spec);
            let detail = format!("gateway {name} of node {}", spec.node);
            let row = GatewayRow {
                name: name.clone(),
                version: before.map_or(1, |row| row.version + u64::from(changed)),
                seen_at: now,
                spec,
            };
            let rules = state.access.get(name).cloned();
            let rules = rules.unwrap_or_else(|| AccessRow::empty(name, state.revision + 1));
            let mut decision = Decision::only(row.seen(rules.version, self.report_of(name)));
            if !state.access.contains_key(name) {
                decision = decision.change(Change::Access(rules));
            }
            if changed {
                decision = decision.event("gateway.declared", None, detail);
            }
            Ok(decision.change(Change::Gateway(Box::new(row))))
        })
        .await
    }

    /// Forgets a gateway with its rules; success when there is none. One that a slice has stays.
    pub async fn withdraw_gateway(
        &self,
        who: &Principal,
        name: &Name,
        if_match: Option<u64>,
    ) -> Result<(), Problem> {
        self.decide(who, |state, now| {
            let Some(row) = state.gateways.get(name) else {
                return Ok(Decision::only(()));
            };
            auth::own_node(who, &row.spec.node)?;
            check_version(if_match, row.version, "the gateway")?;
            if let Some(slices) = having(state, &row.spec.host, now) {
                let problem =
                    format!("gateway {name} is the gateway of {slices}: end what has it first");
                return Err(Problem::new(Kind::StateConflict, problem));
            }
            let rules = state.access.get(name).map_or(0, |row| row.rules.len());
            let detail = format!("gateway {name} with {rules} access rules");
            Ok(Decision::only(())
                .event("gateway.removed", None, detail)
                .change(Change::NoAccess(name.clone()))
                .change(Change::NoGateway(name.clone())))
        })
        .await?;
        self.reports().remove(name);
        Ok(())
    }

    /// Every gateway.
    pub async fn gateways(&self) -> Vec<Gateway> {
        self.look(|state, _| {
            let rows = state.gateways.values();
            rows.map(|row| self.gateway_in(state, row)).collect()
        })
        .await
    }
    /// One gateway.
    pub async fn gateway(&self, name: &Name) -> Result<Gateway, Problem> {
        self.look(|state, _| {
            let row = declared(state, name)?;
            Ok(self.gateway_in(state, row))
        })
        .await
    }
    fn gateway_in(&self, state: &State, row: &GatewayRow) -> Gateway {
        let version = state.access.get(&row.name).map_or(0, |rules| rules.version);
        row.seen(version, self.report_of(&row.name))
    }

    /// What a gateway's host has read back. It says so again and again, so it is not written down;
    /// that its trouble comes or goes is.
    pub async fn report_gateway(
        &self,
        who: &Principal,
        name: &Name,
        report: GatewayReport,
    ) -> Result<Gateway, Problem> {
        gateways::check_report(&report)?;
        self.decide(who, |state, _| {
            let row = declared(state, name)?;
            auth::own_node(who, &row.spec.node)?;
            let before = self.report_of(name).and_then(|report| report.trouble);
            let rules = state.access.get(name).map_or(0, |rules| rules.version);
            let decision = Decision::only(row.seen(rules, Some(report.clone())));
            Ok(match (&before, &report.trouble) {
                (was, Some(now)) if was.as_ref() != Some(now) => {
                    let detail = format!("gateway {name}: {now}");
                    decision.event("gateway.trouble", None, detail)
                }
                (Some(_), None) => decision.event("gateway.well", None, format!("gateway {name}")),
                _ => decision,
            })
        })
        .await
        .inspect(|_| {
            let said = (Timestamp::now(), report);
            self.reports().insert(name.clone(), said);
        })
    }

    /// What is to be said of a slice's gateway, where it has one.
    pub(super) fn gateway_of(
        &self,
        state: &State,
        booking: &Booking,
        now: Timestamp,
    ) -> Option<Condition> {
        let row = gateways::of_slice(&state.gateways, &booking.slice.spec)?;
        let leased = leased(state, row, booking).is_some();
        let seen = self.gateway_in(state, row);
        let silence = self
            .reports()
            .get(&row.name)
            .map(|(at, _)| now.duration_since(*at));
        let id = booking.slice.id;
        Some(gateways::serving(&seen, id, leased, silence))
    }

    pub(super) fn report_of(&self, name: &Name) -> Option<GatewayReport> {
        self.reports().get(name).map(|(_, report)| report.clone())
    }
    fn reports(&self) -> MutexGuard<'_, BTreeMap<Name, (Timestamp, GatewayReport)>> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lease that a gateway holds in a slice now.
pub(super) fn leased<'a>(
    state: &'a State,
    gateway: &GatewayRow,
    booking: &Booking,
) -> Option<&'a LeaseRow> {
    let client = gateway.client();
    state.leases.values().find(|row| {
        row.lease.slice_id == booking.slice.id
            && row.lease.state == LeaseState::Bound
            && row.lease.client_id == client
            && row.node.as_ref() == Some(&gateway.spec.node)
    })
}

/// A gateway that is declared.
pub(super) fn declared<'a>(state: &'a State, name: &Name) -> Result<&'a GatewayRow, Problem> {
    let row = state.gateways.get(name);
    row.ok_or_else(|| not_found("gateway", name))
}

/// Refuses a gateway whose NIC towards the slices is not its own.
fn inside(state: &State, name: &Name, spec: &GatewaySpec) -> Result<(), Problem> {
    let refused = |kind: Kind, why: String| {
        Err(Problem::new(kind, format!("gateway {name} cannot be declared so")).at("/host", why))
    };
    let host = &spec.host;
    let Some(known) = state.hosts.get(host) else {
        let why = format!("{host} is not declared: declare the NIC first");
        return refused(Kind::NotFound, why);
    };
    if known.spec.node != spec.node {
        let why = format!("{host} is a NIC of node {}", known.spec.node);
        return refused(Kind::Forbidden, why);
    }
    if known.spec.kind != HostKind::Nic {
        return refused(
            Kind::StateConflict,
            format!("{host} is a pod's, and no NIC"),
        );
    }
    let other = state.gateways.values();
    let mut other = other.filter(|row| row.spec.host == *host && row.name != *name);
    match other.next() {
        Some(other) => {
            let why = format!(
                "{host} is the NIC of gateway {}: one NIC, one gateway",
                other.name
            );
            refused(Kind::StateConflict, why)
        }
        None => Ok(()),
    }
}

/// The slices that are booked and have this host as their gateway, in words with their names.
fn having(state: &State, host: &HostId, now: Timestamp) -> Option<String> {
    let booked = state.bookings.values().filter(|b| b.slice.booked_at(now));
    let names: Vec<&str> = booked
        .map(|booking| &booking.slice.spec)
        .filter(|spec| gateways::member(spec) == Some(host))
        .map(|spec| spec.name.as_str())
        .collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("slice {one}")),
        [rest @ .., last] => Some(format!("slices {} and {last}", rest.join(", "))),
    }
}
