//! The one task that makes ONOS have what is wanted, and reads it back.

use super::{
    Shared,
    apply::Apply,
    hosts,
    plan::{self, Plan},
    rules::{Held, Key, Wanted},
    survey::{Survey, survey},
};
use crate::fabric::{
    Difference, Intent,
    openflow::{
        lock,
        standing::{Standing, Told, standing},
    },
};
use dtn_api::Name;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often all is read, when nobody asks for anything.
const REST: Duration = Duration::from_secs(10);
/// How often what is on its way is looked after: ONOS asks the switches only every few seconds.
const SOON: Duration = Duration::from_millis(500);

/// Until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut pause = REST;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            // a notice is as good as the end of the pause
            _ = timeout(pause, shared.wake.notified()) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            settled = pass(&shared) => pause = if settled { REST } else { SOON },
        }
    }
}

/// What is wanted held against what ONOS has, and nothing done.
pub(super) async fn check(shared: &Shared) -> Vec<Difference> {
    let _one = shared.working.lock().await;
    let Some((_, intents)) = lock(&shared.state).wanted.clone() else {
        return Vec::new();
    };
    let unreachable = |switch: String, what: String| Difference {
        switch,
        kind: "unreachable".into(),
        slice: None,
        what,
    };
    let seen = match survey(&shared.client, &shared.network, &shared.app).await {
        Ok(seen) => seen,
        Err(failure) => {
            let all = shared.network.switches.iter();
            return all
                .map(|s| unreachable(s.name.to_string(), failure.to_string()))
                .collect();
        }
    };
    let mut memory = shared.memory.lock().await;
    let plan = plan::plan(
        &shared.network,
        &intents,
        &seen,
        &mut memory,
        shared.mark,
        Instant::now(),
    );
    let away = shared.network.switches.iter().filter_map(|switch| {
        let why = away(&seen, &switch.name)?;
        Some(unreachable(switch.name.to_string(), why))
    });
    away.chain(plan.differences).collect()
}

/// Why nothing can be said of a switch.
fn away(seen: &Survey, name: &Name) -> Option<String> {
    match seen.devices.get(name) {
        None => Some(format!("the switch {name} is not known to ONOS")),
        Some(device) if !device.available => Some(format!(
            "the switch {name} is not connected to ONOS: it goes on with the rules that it has"
        )),
        Some(_) => None,
    }
}

/// One pass; whether there is nothing left to do.
async fn pass(shared: &Shared) -> bool {
    let _one = shared.working.lock().await;
    let Some((number, intents)) = lock(&shared.state).wanted.clone() else {
        return true;
    };
    let mut seen = match survey(&shared.client, &shared.network, &shared.app).await {
        Ok(seen) => seen,
        Err(failure) => {
            shared.absent(&failure.to_string());
            return true;
        }
    };
    if let Some(why) = taken(shared, &seen).await {
        shared.absent(&why);
        return true;
    }
    let mut memory = shared.memory.lock().await;
    let mut ledger = shared.ledger.lock().await;
    let now = Instant::now();
    let unclear = ledger.recall(&seen, &mut memory, now);
    seen.warnings.extend(unclear);
    let mut plan = plan::plan(
        &shared.network,
        &intents,
        &seen,
        &mut memory,
        shared.mark,
        now,
    );
    if let Err(e) = ledger.before(&seen, &memory, &plan, now).await {
        let why = format!("{e:#}: no meter is asked for that would not be known again");
        tracing::warn!("{why}");
        for make in plan.make.drain(..) {
            let error = (make.switch, Some(make.slice), why.clone());
            plan.errors.insert(0, error);
        }
    }
    shared.drifted(number, &plan);
    let hosts = hosts::changes(&shared.network, &intents, &seen, &shared.owner);
    let settled = plan.settled() && hosts == hosts::Changes::default();
    // a switch that is away comes back by itself
    let idle = settled || plan.idle() && hosts == hosts::Changes::default();
    let mut told = Told::default();
    for switch in &shared.network.switches {
        match away(&seen, &switch.name) {
            None => {
                told.seen.insert(switch.name.clone());
            }
            Some(why) => {
                told.away.insert(switch.name.clone(), why);
            }
        }
    }
    told.errors.clone_from(&plan.errors);
    if !settled {
        // what is not there any more is not said to be there while it is made good
        shared.stand(&intents, &told);
        let mut apply = Apply::new(shared);
        let mut done = apply.begin(&plan, hosts, &mut memory).await;
        ledger.after(&apply.done, now).await;
        if done.is_ok() {
            done = apply.finish(&plan, &mut memory).await;
            ledger.after(&apply.done, now).await;
        }
        if let Err(failure) = done {
            shared.absent(&failure.to_string());
            return false;
        }
        for (switch, slice, why) in apply.failures {
            match switch {
                Some(switch) => told.errors.insert(0, (switch, slice, why)),
                None => lock(&shared.state).warn(why),
            }
        }
    }
    shared.note(number, &intents, seen, plan, &told, settled);
    idle
}

/// Why the application is somebody else's. Before anything of ours is there, our mark is, and no
/// other.
async fn taken(shared: &Shared, seen: &Survey) -> Option<String> {
    let others = plan::others(seen, shared.mark);
    let own: Vec<&Held> = seen
        .flows
        .iter()
        .filter(|held| held.mark() == Some(shared.mark))
        .collect();
    let refused = |other: u32| {
        format!(
            "the application {} in ONOS is another controller's (mark {other:08x}, ours is {:08x}): \
             give this one a fabric.app-id of its own; if the other is gone for good, DELETE \
             /onos/v1/flows/application/{} and start vdnd again",
            shared.app, shared.mark, shared.app
        )
    };
    if let Some(why) = lock(&shared.state).taken.clone() {
        return Some(why);
    }
    let first = others.first().copied();
    if let Some(other) = first
        && (own.is_empty() || other < shared.mark)
    {
        let why = refused(other);
        lock(&shared.state).taken = Some(why.clone());
        // both came at once: the one that gives way takes its own mark back
        if let Err(failure) = Apply::new(shared).delete(own.into_iter()).await {
            tracing::warn!("{failure}");
        }
        return Some(why);
    }
    if own.is_empty() && !seen.devices.is_empty() {
        let marks: Vec<(Key, Wanted)> = shared
            .network
            .switches
            .iter()
            .filter(|switch| seen.devices.contains_key(&switch.name))
            .map(|switch| {
                super::rules::mark(&super::survey::device(switch.datapath_id), shared.mark)
            })
            .collect();
        let mut apply = Apply::new(shared);
        if let Err(failure) = apply.post(&marks).await {
            return Some(failure.to_string());
        }
        let again = format!("/flows/application/{}", shared.app);
        let marks = match shared.client.get(&again).await {
            Ok(answer) => super::rules::read(&answer),
            Err(failure) => return Some(failure.to_string()),
        };
        let other = marks
            .iter()
            .filter_map(Held::mark)
            .find(|mark| *mark < shared.mark);
        if let Some(other) = other {
            let why = refused(other);
            lock(&shared.state).taken = Some(why.clone());
            let own = marks.iter().filter(|held| held.mark() == Some(shared.mark));
            if let Err(failure) = apply.delete(own).await {
                tracing::warn!("{failure}");
            }
            return Some(why);
        }
    }
    None
}

/// How far each slice is.
fn standings(intents: &[Intent], told: &Told) -> BTreeMap<Uuid, (Intent, Standing)> {
    let one = |intent: &Intent| (intent.slice, (intent.clone(), standing(intent, told)));
    intents.iter().map(one).collect()
}

impl Shared {
    /// How far slices are by what was read, before anything is done.
    fn stand(&self, intents: &[Intent], told: &Told) {
        let standings = standings(intents, told);
        let mut state = lock(&self.state);
        if state.standings != standings {
            state.standings = standings;
            drop(state);
            self.changed.notify_one();
        }
    }
    /// Nothing can be said of any slice now; rules in the switches stay.
    pub(super) fn absent(&self, why: &str) {
        let mut state = lock(&self.state);
        let news = state.absent.as_deref() != Some(why);
        state.absent = Some(why.to_owned());
        state.settled = None;
        for (_, standing) in state.standings.values_mut() {
            *standing = Standing::Not(why.to_owned());
        }
        if news {
            tracing::warn!("{why}");
            state.tell(("onos.lost", None, why.to_owned()));
            drop(state);
            self.changed.notify_one();
        }
    }
    /// Says what has changed in what was all there.
    fn drifted(&self, number: u64, plan: &Plan) {
        let mut state = lock(&self.state);
        if state.settled != Some(number) {
            return;
        }
        for Difference {
            switch,
            kind,
            slice,
            what,
        } in plan.differences.iter().take(super::TOLD)
        {
            state.tell(("switch.drift", *slice, format!("{switch}: {kind}: {what}")));
        }
        if let Some(more) = plan
            .differences
            .len()
            .checked_sub(super::TOLD)
            .filter(|n| *n > 0)
        {
            state.tell(("switch.drift", None, format!("and {more} more")));
        }
    }
    fn note(
        &self,
        number: u64,
        intents: &Arc<[Intent]>,
        seen: Survey,
        plan: Plan,
        told: &Told,
        settled: bool,
    ) {
        let mut state = lock(&self.state);
        if state.absent.take().is_some() {
            state.tell(("onos.connected", None, "ONOS answers".into()));
        }
        let standings = standings(intents, told);
        for switch in &self.network.switches {
            let was = state
                .seen
                .as_ref()
                .and_then(|s| s.devices.get(&switch.name))
                .map(|d| d.available);
            let is = seen.devices.get(&switch.name).map(|d| d.available);
            let name = &switch.name;
            match (was.unwrap_or(false), is.unwrap_or(false)) {
                (false, true) => state.tell((
                    "switch.connected",
                    None,
                    format!("{name} is available in ONOS"),
                )),
                (true, false) => state.tell((
                    "switch.lost",
                    None,
                    format!("{name} is not available in ONOS"),
                )),
                _ => {}
            }
        }
        let news = state.standings != standings || state.seen.as_ref() != Some(&seen);
        state.standings = standings;
        state.counters = plan.counters;
        state.decided = plan.decided;
        state.held = plan.held;
        state.seen = Some(seen);
        state.settled = settled.then_some(number);
        if settled {
            state.warnings.clear();
        }
        drop(state);
        if news {
            self.changed.notify_one();
        }
    }
}
