//! Notes what has been read back, and tells what has happened.

use super::{
    Shared,
    board::{Board, Drift, Reading},
    look::Look,
    session::Session,
    session::lock,
    standing::{Standing, standing},
    switches::Settled,
    wish::Wish,
    work::Refused,
};
use dtn_api::Name;
use std::{collections::BTreeMap, sync::Arc};
use tokio::time::Instant;

/// Differences of one switch that are told one by one; the rest is a number.
const TOLD: usize = 20;

/// A switch has been read. `alone`: nothing is being done there.
pub(super) fn read(
    shared: &Shared,
    reading: &Reading<Arc<Session>>,
    look: &Look,
    alone: bool,
    drift: Drift,
) {
    let name = &reading.name;
    let mut state = lock(&shared.state);
    let more = drift.len().saturating_sub(TOLD);
    for (slice, detail) in drift.into_iter().take(TOLD) {
        tracing::warn!("a switch was changed behind our back: {detail}");
        state.tell(("switch.drift", slice, detail));
    }
    if more > 0 {
        let detail = format!("and {more} more differences on {name}");
        tracing::warn!("{detail}");
        state.tell(("switch.drift", None, detail));
    }
    let Some(switch) = state.switches.get_mut(name) else {
        return;
    };
    if !Arc::ptr_eq(&switch.session, &reading.session) {
        return;
    }
    let foreign = &look.changes.foreign;
    let trouble = foreign.first().map(|first| {
        format!(
            "{} rule(s) of somebody else can carry traffic around the slices, the first is: {}",
            foreign.len(),
            first.what
        )
    });
    let news = trouble.clone().filter(|_| trouble != switch.trouble);
    switch.trouble = trouble;
    (switch.rules, switch.meters) = look.ours;
    if look.listens && !switch.listens {
        shared.probe.notify_one();
    }
    switch.listens = look.listens;
    switch.guards = look.guards.clone();
    switch.looked = Instant::now();
    if !look.changes.is_empty() {
        // the doubt was right, so the same number is doubted again
        switch.doubted = None;
    }
    switch.settled = (alone && look.changes.is_empty()).then_some(Settled {
        turn: reading.turn,
        held: look.held,
    });
    if let Some(why) = news {
        let detail = format!("{name}: {why}");
        tracing::warn!("{detail}");
        state.tell(("switch.foreign", None, detail));
    }
}

/// Something is being done at these switches: what was read back does not hold any more.
pub(super) fn begun<'a>(shared: &Shared, names: impl Iterator<Item = &'a Name>) {
    let mut state = lock(&shared.state);
    for name in names {
        if let Some(switch) = state.switches.get_mut(name) {
            switch.settled = None;
        }
    }
}

/// What switches have refused that they had not refused before.
pub(super) fn refused(shared: &Shared, wish: &Wish, news: Vec<Refused>) {
    let mut state = lock(&shared.state);
    for (_, tag, why) in news {
        state.tell(("switch.error", wish.slices.get(&tag).copied(), why));
    }
}

/// How the slices stand.
pub(super) fn standings(
    shared: &Shared,
    board: &Board<Arc<Session>>,
    failed: &BTreeMap<Name, String>,
) {
    let Some(wish) = &board.wish else { return };
    let mut state = lock(&shared.state);
    let state = &mut *state;
    let there = |name: &Name, session: &Arc<Session>| {
        let known = state.switches.get(name);
        !session.ended() && known.is_some_and(|known| Arc::ptr_eq(&known.session, session))
    };
    let (mut standings, mut changed) = (BTreeMap::new(), false);
    for intent in wish.intents.iter() {
        let refused = wish.refused.iter().find(|r| r.slice == intent.slice);
        let now = match refused {
            Some(refusal) => Some(Standing::Not(refusal.reason.clone())),
            None => board.told(intent, there).map(|mut told| {
                told.away.clone_from(failed);
                standing(intent, &told)
            }),
        };
        let before = state.standings.remove(&intent.slice);
        let before = before.filter(|(of, _)| of == intent);
        let stands = match (now, before) {
            // until it is known again, what was known of it counts
            (None, before) => before,
            (Some(now), Some((of, before))) => {
                changed |= before != now;
                Some((of, now))
            }
            (Some(now), None) => {
                changed = true;
                Some((intent.clone(), now))
            }
        };
        standings.extend(stands.map(|stands| (intent.slice, stands)));
    }
    changed |= !state.standings.is_empty();
    state.standings = standings;
    if changed {
        shared.changed.notify_one();
    }
}
