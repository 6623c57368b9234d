//! What time does: holds run out, windows end, leases expire, domains fall silent, debts are paid.

use super::{Decision, Engine, REPLY_SECONDS};
use crate::{
    admission::later_by,
    auth::Principal,
    leases::{self, Aged},
    slices,
    state::{Change, EVENTS_KEPT, State},
    stitches,
};
use dtn_api::{Problem, domain::PeerState};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often time is looked at, when nothing else is a reason to.
const TICK: Duration = Duration::from_millis(500);
/// How often other domains are asked for their document.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How soon the first document of a domain is asked for again.
const FIRST: Duration = Duration::from_secs(1);
/// How soon a debt is tried again.
const DEBT: Duration = Duration::from_secs(2);

/// Runs until it is stopped.
pub async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let ticks = async {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = engine.fabric.changed() => {}
            }
            if let Err(problem) = engine.age().await {
                tracing::error!("keeping up with time: {problem}");
            }
        }
    };
    let beats = async {
        loop {
            // all at once: one that does not answer holds up nobody
            let all = engine.domains().await.into_iter().map(|domain| {
                let engine = engine.clone();
                async move {
                    if domain.state == PeerState::Revoked {
                        return;
                    }
                    if let Err(problem) = engine.tell_keys(&domain.name).await {
                        tracing::warn!("telling our keys to domain {}: {problem}", domain.name);
                    }
                    if let Err(problem) = engine.refresh(&domain.name).await {
                        tracing::warn!("the document of domain {}: {problem}", domain.name);
                    }
                }
            });
            futures_util::future::join_all(all).await;
            engine.carry_turn().await;
            // one that has just federated may not know us yet: its first document is asked for soon
            let known = engine.domains().await;
            let new = known
                .iter()
                .any(|domain| domain.document.is_none() && domain.state != PeerState::Revoked)
                || engine.authority.turn().is_turning();
            tokio::select! {
                () = engine.peers_changed() => {}
                () = tokio::time::sleep(if new { FIRST } else { HEARTBEAT }) => {}
            }
        }
    };
    let debts = async {
        loop {
            let all = engine.debts().await.into_iter().map(|stitch| {
                let engine = engine.clone();
                async move { engine.tell(stitch).await }
            });
            futures_util::future::join_all(all).await;
            tokio::select! {
                () = engine.owed.notified() => {}
                () = tokio::time::sleep(DEBT) => {}
            }
        }
    };
    let wishes = async {
        loop {
            engine.tell_fabric().await;
            tokio::select! {
                () = engine.changed.notified() => {}
                // windows start and end by themselves
                () = tokio::time::sleep(TICK) => {}
            }
        }
    };
    tokio::select! {
        () = ticks => {}
        () = wishes => {}
        () = beats => {}
        () = debts => {}
        () = stop.cancelled() => {}
    }
}

impl Engine {
    /// One look at the time.
    pub async fn age(&self) -> Result<(), Problem> {
        let happened = {
            let mut unwritten = self.unwritten.lock().unwrap_or_else(|e| e.into_inner());
            unwritten.extend(self.fabric.happened());
            unwritten.clone()
        };
        let written = happened.len();
        self.decide(&Principal::Itself, |state, now| {
            let mut decision = Decision::only(());
            self.age_slices(state, now, &mut decision);
            age_leases(state, now, &mut decision);
            self.age_switches(state, now, &mut decision);
            forget(state, now, &mut decision);
            decision.events.extend(happened);
            Ok(decision)
        })
        .await?;
        // only what is durable is forgotten
        let mut unwritten = self.unwritten.lock().unwrap_or_else(|e| e.into_inner());
        unwritten.drain(..written);
        Ok(())
    }

    fn age_slices(&self, state: &State, now: Timestamp, decision: &mut Decision<()>) {
        for booking in state.bookings.values() {
            if slices::forgotten(booking, now) {
                decision.changes.push(Change::NoBooking(booking.slice.id));
                continue;
            }
            let (next, what) = match slices::age(booking, now) {
                Some((next, what)) => (next, Some(what)),
                None => (self.observed(state, booking.clone(), now), None),
            };
            let row = booking.slice.stitch.and_then(|id| state.stitches.get(&id));
            if let Some(row) = row.and_then(|row| stitches::follow(row, &next.slice, now)) {
                let detail = row.stitch.reason.clone().unwrap_or_default();
                let id = Some(row.stitch.id);
                decision.events.push(("stitch.ended", id, detail));
                decision.changes.push(Change::Stitch(row));
            }
            if let Some(what) = what {
                let detail = format!("slice {}", next.slice.spec.name);
                decision.events.push((what, Some(next.slice.id), detail));
            }
            let next = match self.age_members(state, &next, now) {
                None => next,
                Some((mut next, left)) => {
                    if let Some(left) = left {
                        next.slice.version += 1;
                        let detail = format!("slice {}: {left} was idle", next.slice.spec.name);
                        let id = Some(next.slice.id);
                        decision.events.push(("slice.left", id, detail));
                    }
                    next
                }
            };
            if next != *booking {
                decision.changes.push(Change::Booking(Box::new(next)));
            }
        }
        for row in state
            .stitches
            .values()
            .filter(|row| stitches::forgotten(row, now))
        {
            decision.changes.push(Change::NoStitch(row.stitch.id));
        }
    }
}

fn age_leases(state: &State, now: Timestamp, decision: &mut Decision<()>) {
    for row in state.leases.values() {
        match leases::age(row, false, now) {
            Aged::Same => {}
            Aged::Quarantined(next) => {
                let detail = format!("of {}", next.lease.client_id);
                decision
                    .events
                    .push(("lease.expired", Some(next.lease.id), detail));
                decision.changes.push(Change::Lease(*next));
            }
            Aged::Freed(next) => decision.changes.push(Change::Lease(*next)),
            Aged::Forgotten => decision.changes.push(Change::NoLease(row.lease.id)),
        }
    }
}

/// What nobody needs to know any more.
fn forget(state: &State, now: Timestamp, decision: &mut Decision<()>) {
    for (key, kept) in &state.replies {
        if now >= later_by(kept.at, REPLY_SECONDS) {
            decision.changes.push(Change::NoReply(key.clone()));
        }
    }
    for row in state.invitations.values() {
        // used ones are kept as long: their answer may be asked for again
        if now >= later_by(row.expires_at, REPLY_SECONDS) {
            decision.changes.push(Change::NoInvitation(row.id));
        }
    }
    // listed as revoked for a day, so that who looks knows what became of it
    for row in state.peers.values() {
        let over = |at| now >= later_by(at, REPLY_SECONDS);
        if row.revoked.as_ref().is_some_and(|revoked| over(revoked.at)) {
            decision.changes.push(Change::NoPeer(row.name.clone()));
        }
    }
    let extra = state.events.len().saturating_sub(EVENTS_KEPT);
    decision.changes.extend(
        state
            .events
            .keys()
            .take(extra)
            .map(|seq| Change::NoEvent(*seq)),
    );
}
