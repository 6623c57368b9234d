//! What time does: holds run out, windows end, leases expire, domains fall silent, debts are paid.

use super::{Decision, Engine, REPLY_SECONDS, stitching};
use crate::{
    admission::later_by,
    auth::Principal,
    leases::{self, Aged},
    slices,
    state::{Change, EVENTS_KEPT, State},
    stitches,
};
use dtn_api::Problem;
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often other domains are asked for their document.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How soon a debt is tried again.
const DEBT: Duration = Duration::from_secs(2);

/// Runs until it is stopped.
pub async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let ticks = async {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            if let Err(problem) = engine.age().await {
                tracing::error!("keeping up with time: {problem}");
            }
        }
    };
    let beats = async {
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            beat.tick().await;
            for domain in engine.domains().await {
                if let Err(problem) = engine.refresh(&domain.name).await {
                    tracing::warn!("the document of domain {}: {problem}", domain.name);
                }
            }
        }
    };
    let debts = async {
        loop {
            for stitch in engine.debts().await {
                engine.tell(stitch).await;
            }
            tokio::select! {
                () = engine.owed.notified() => {}
                () = tokio::time::sleep(DEBT) => {}
            }
        }
    };
    tokio::select! {
        () = ticks => {}
        () = beats => {}
        () = debts => {}
        () = stop.cancelled() => {}
    }
}

impl Engine {
    /// One look at the time.
    pub(crate) async fn age(&self) -> Result<(), Problem> {
        self.decide(&Principal::Admin, |state, now| {
            let mut decision = Decision::only(());
            self.age_slices(state, now, &mut decision);
            age_leases(state, now, &mut decision);
            forget(state, now, &mut decision);
            Ok(decision)
        })
        .await
    }

    fn age_slices(&self, state: &State, now: Timestamp, decision: &mut Decision<()>) {
        for booking in state.bookings.values() {
            if slices::forgotten(booking, now) {
                decision.changes.push(Change::NoBooking(booking.slice.id));
                continue;
            }
            // a coordinator that has decided to commit has committed its own end with it
            if let Some((next, what)) = slices::age(booking, now) {
                let detail = format!("slice {}", next.slice.spec.name);
                decision.events.push((what, Some(next.slice.id), detail));
                decision.changes.push(Change::Booking(next));
                continue;
            }
            let seen = self.observed(state, booking.clone(), now);
            if seen != *booking {
                decision.changes.push(Change::Booking(seen));
            }
        }
        for row in stitching::aged(state, now) {
            let detail = row.stitch.reason.clone().unwrap_or_default();
            decision
                .events
                .push(("stitch.ended", Some(row.stitch.id), detail));
            decision.changes.push(Change::Stitch(row));
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
    let extra = state.events.len().saturating_sub(EVENTS_KEPT);
    decision.changes.extend(
        state
            .events
            .keys()
            .take(extra)
            .map(|seq| Change::NoEvent(*seq)),
    );
}
