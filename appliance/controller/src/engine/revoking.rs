//! Revocation: from the commit on, no certificate of a host or a domain opens anything, and what it
//! had is ended in the same commit, so that nothing is left to hang on somebody who is gone.
//!
//! What a host's own kernel does cannot be undone from here: with switches its slices lose their
//! rules, with the fabric `edge` the port has to be shut.

use super::{Decision, Engine, not_found};
use crate::{
    auth::{CLUSTER_ROLE, NODE_ROLE, Principal},
    enrolled, leases,
    slices::{Action, Booking},
    state::{Change, PeerRow, State},
    stitches::Owed,
};
use dtn_api::{
    HostId, Name, Problem,
    domain::InviteKind,
    node::{Revocation, Revoke, Revoked},
    problem::Kind,
    stitch::StitchState,
};
use jiff::Timestamp;
use std::collections::BTreeSet;

/// Longest reason that is kept, in bytes.
const LONGEST_REASON: usize = 500;

impl Engine {
    /// Takes a host out of the domain. The same again finds nothing left to do.
    pub async fn revoke_node(
        &self,
        who: &Principal,
        name: &Name,
        wish: &Revoke,
    ) -> Result<Revoked, Problem> {
        check(wish)?;
        let key = (NODE_ROLE.to_owned(), name.clone());
        let done = self
            .decide(who, |state, now| {
                let row = state.enrolled.get(&key);
                let own = of_node(state, name);
                if row.is_none() && own.is_empty() {
                    return Err(not_found("host", name));
                }
                let before = row.and_then(|row| row.revoked.clone());
                let revocation = before.clone().unwrap_or_else(|| because(who, wish, now));
                let row = enrolled::revoked(row, NODE_ROLE, name, revocation.clone(), now);
                let mut done = Revoked {
                    hosts: own.len() as u64,
                    ..nothing_ended(name, revocation)
                };
                let mut decision = Decision::only(());
                if before.is_none() {
                    let detail = format!("{name}{}", words(wish));
                    decision = decision.event("host.revoked", None, detail);
                }
                decision = decision.change(Change::Enrolled(Box::new(row)));
                if before.is_none() {
                    decision
                        .changes
                        .extend(open_invitations(state, InviteKind::Host, name));
                }
                decision = self.end_slices(state, &own, &mut done, decision, now)?;
                for lease in state
                    .leases
                    .values()
                    .filter(|row| row.node.as_ref() == Some(name))
                {
                    if let Some(released) = leases::release(lease, now) {
                        done.leases += 1;
                        decision = decision.change(Change::Lease(released));
                    }
                }
                for gateway in state.gateways.values().filter(|row| row.spec.node == *name) {
                    let rules = state
                        .access
                        .get(&gateway.name)
                        .map_or(0, |row| row.rules.len());
                    done.gateways.push(gateway.name.clone());
                    decision = decision
                        .event(
                            "gateway.removed",
                            None,
                            format!("gateway {} with {rules} access rules", gateway.name),
                        )
                        .change(Change::NoAccess(gateway.name.clone()))
                        .change(Change::NoGateway(gateway.name.clone()));
                }
                for id in own {
                    decision = decision.change(Change::NoHost(id));
                }
                Ok(Decision {
                    answer: done,
                    changes: decision.changes,
                    events: decision.events,
                })
            })
            .await?;
        self.owed.notify_one();
        Ok(done)
    }

    /// Keeps the controller of a cluster out. It owns nothing: NICs, leases and slices are the hosts'
    /// and stay. The same again finds nothing left to do.
    pub async fn revoke_cluster(
        &self,
        who: &Principal,
        name: &Name,
        wish: &Revoke,
    ) -> Result<Revoked, Problem> {
        check(wish)?;
        let key = (CLUSTER_ROLE.to_owned(), name.clone());
        self.decide(who, |state, now| {
            let row = state.enrolled.get(&key);
            let row = row.ok_or_else(|| not_found("cluster", name))?;
            let before = row.revoked.clone();
            let revocation = before.clone().unwrap_or_else(|| because(who, wish, now));
            let next = enrolled::revoked(Some(row), CLUSTER_ROLE, name, revocation.clone(), now);
            let mut decision = Decision::only(nothing_ended(name, revocation));
            if before.is_none() {
                let detail = format!("{name}{}", words(wish));
                decision = decision.event("cluster.revoked", None, detail);
                decision
                    .changes
                    .extend(open_invitations(state, InviteKind::Cluster, name));
            }
            Ok(decision.change(Change::Enrolled(Box::new(next))))
        })
        .await
    }

    /// Ends the slices that rest on NICs which go; of those that have two ends left, these go on.
    fn end_slices(
        &self,
        state: &State,
        own: &BTreeSet<HostId>,
        done: &mut Revoked,
        mut decision: Decision<()>,
        now: Timestamp,
    ) -> Result<Decision<()>, Problem> {
        let booked = state.bookings.values();
        for booking in booked.filter(|booking| booking.slice.booked_at(now)) {
            let members = &booking.slice.spec.members;
            let gone = |host: &Option<HostId>| host.as_ref().is_some_and(|host| own.contains(host));
            if !members.iter().any(|member| gone(&member.host)) {
                continue;
            }
            let name = booking.slice.spec.name.clone();
            let left = members.iter().filter(|member| !gone(&member.host)).count();
            if left >= 2 {
                let mut next = booking.clone();
                next.slice.spec.members.retain(|member| !gone(&member.host));
                next.reports.retain(|host, _| !own.contains(host));
                next.idle.retain(|host, _| !own.contains(host));
                self.book_less(state, &mut next)?;
                next.slice.version += 1;
                let next = self.observed(state, next, now);
                decision = decision.change(Change::Booking(Box::new(next)));
                done.left.push(name);
            } else {
                decision = self.end_one(state, booking, decision, "its host was revoked", now)?;
                done.ended.push(name);
            }
        }
        Ok(decision)
    }

    /// Ends one slice, and with it its stitch: the other domain is told until it has answered.
    fn end_one(
        &self,
        state: &State,
        booking: &Booking,
        mut decision: Decision<()>,
        why: &str,
        now: Timestamp,
    ) -> Result<Decision<()>, Problem> {
        let ended = self.acted(state, booking, Action::Terminate, now)?;
        decision.changes.extend(ended.changes);
        decision.events.extend(ended.events);
        let stitch = booking.slice.stitch.and_then(|id| state.stitches.get(&id));
        if let Some(row) = stitch.filter(|row| !row.over()) {
            let next = row
                .to(StitchState::Terminating)
                .because(why)
                .owing(Some(Owed::Terminate));
            decision = decision
                .event("stitch.terminating", Some(row.stitch.id), why)
                .change(Change::Stitch(next));
        }
        Ok(decision)
    }

    /// Ends the federation with a domain. It is told that the stitches are over, and is listed as
    /// revoked for a day. The same again finds nothing left to do.
    pub async fn revoke_domain(
        &self,
        who: &Principal,
        name: &Name,
        wish: &Revoke,
    ) -> Result<Revoked, Problem> {
        check(wish)?;
        let done = self
            .decide(who, |state, now| {
                let row = state
                    .peers
                    .get(name)
                    .ok_or_else(|| not_found("domain", name))?;
                let before = row.revoked.clone();
                let revocation = before.clone().unwrap_or_else(|| because(who, wish, now));
                let mut done = nothing_ended(name, revocation.clone());
                let mut decision = Decision::only(());
                if before.is_none() {
                    let next = PeerRow {
                        revoked: Some(revocation),
                        version: row.version + 1,
                        ..row.clone()
                    };
                    decision = decision
                        .event("domain.revoked", None, format!("{name}{}", words(wish)))
                        .change(Change::Peer(next));
                    decision
                        .changes
                        .extend(open_invitations(state, InviteKind::Domain, name));
                }
                for row in state
                    .stitches
                    .values()
                    .filter(|row| row.stitch.peer == *name && !row.over())
                {
                    let Some(booking) = state.bookings.get(&row.stitch.slice_id) else {
                        continue;
                    };
                    if row.stitch.state == StitchState::Terminating {
                        continue;
                    }
                    let why = format!("the federation with domain {name} was ended");
                    decision = self.end_one(state, booking, decision, &why, now)?;
                    done.ended.push(booking.slice.spec.name.clone());
                }
                Ok(Decision {
                    answer: done,
                    changes: decision.changes,
                    events: decision.events,
                })
            })
            .await?;
        self.peers_changed.notify_waiters();
        self.owed.notify_one();
        Ok(done)
    }
}

/// Its NICs, and the pods on them.
fn of_node(state: &State, name: &Name) -> BTreeSet<HostId> {
    let hosts = state.hosts.values().filter(|host| host.spec.node == *name);
    hosts.map(|host| host.id.clone()).collect()
}

/// What would let it in again without the admin's word: invitations that were not used, or whose answer
/// may be asked for again.
fn open_invitations(state: &State, kind: InviteKind, name: &Name) -> Vec<Change> {
    let rows = state.invitations.values();
    rows.filter(|row| row.kind == kind && row.name == *name)
        .map(|row| Change::NoInvitation(row.id))
        .collect()
}

/// The account of a revocation before anything was ended by it.
fn nothing_ended(name: &Name, revocation: Revocation) -> Revoked {
    Revoked {
        name: name.clone(),
        revocation,
        ended: Vec::new(),
        left: Vec::new(),
        leases: 0,
        gateways: Vec::new(),
        hosts: 0,
    }
}

fn because(who: &Principal, wish: &Revoke, now: Timestamp) -> Revocation {
    Revocation {
        at: now,
        by: who.to_string(),
        reason: wish.reason.clone(),
    }
}

fn words(wish: &Revoke) -> String {
    let reason = wish.reason.as_ref();
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

fn check(wish: &Revoke) -> Result<(), Problem> {
    match &wish.reason {
        Some(reason) if reason.len() > LONGEST_REASON || reason.chars().any(char::is_control) => {
            let problem = Problem::new(Kind::InvalidRequest, "the revocation is not valid");
            let why = format!("one line of at most {LONGEST_REASON} bytes");
            Err(problem.at("/reason", why))
        }
        _ => Ok(()),
    }
}
