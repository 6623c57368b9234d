//! Makes the switches hold what is wanted, again and again, and notes what has been read back.

use super::{
    Shared, Wanted, closed,
    failure::Failure,
    look::{self, Connection, Look},
    rounds::every,
    session::{Session, lock},
    standing::{Standing, Told, standing},
    switches::Settled,
};
use crate::fabric::program::{Programs, Refusal, programs, punt};
use dtn_api::{
    Name,
    fabric::{Counters, Difference},
};
use dtn_openflow::Message;
use futures_util::future::join_all;
use std::{
    collections::BTreeMap,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::fabric::difference::{STEPS, Step};
use crate::fabric::program::{GROUP, GROUP_MASK, tag_of};

/// How often the switches are looked at when nothing happens.
const LOOK: Duration = Duration::from_secs(10);
/// How often the guards' counters are read.
const COUNT: Duration = Duration::from_secs(2);
/// Differences of one switch that are told one by one; the rest is a number.
const TOLD: usize = 20;
/// Longest time for which somebody who asks for the differences waits for passes to end.
const BUSY: Duration = Duration::from_secs(20);

/// Looks and programs until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let work = async {
        loop {
            tokio::select! {
                () = shared.wake.notified() => {}
                _ = looks.tick() => {}
            }
            pass(&shared).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Counts until `stop`: apart from [`run`], so that a switch that does not answer holds up no slice.
pub(super) async fn counts(shared: Arc<Shared>, stop: CancellationToken) {
    every(COUNT, stop, || count(&shared)).await;
}

/// A look at every switch that is connected. Those that do not answer are let go: they come again.
async fn look_at(
    shared: &Shared,
    programs: &Programs,
    which: impl Fn(&Name) -> bool,
) -> (Vec<Look>, BTreeMap<Name, String>) {
    let connected: Vec<Connection> = lock(&shared.state)
        .switches
        .iter()
        .filter(|(name, _)| which(name))
        .map(|(name, switch)| Connection {
            name: name.clone(),
            session: switch.session.clone(),
            max_meter: switch.max_meter,
            guards: switch.guards.clone(),
        })
        .collect();
    let looks = connected.into_iter().filter_map(|connection| {
        let program = programs.switches.get(&connection.name)?;
        Some(look::look(connection, program))
    });
    let (mut seen, mut failed) = (Vec::new(), BTreeMap::new());
    for look in join_all(looks).await {
        match look {
            Ok(look) => seen.push(look),
            Err((name, session, failure)) => {
                failed.insert(name.clone(), fallen(&name, &session, &failure));
            }
        }
    }
    (seen, failed)
}

/// A switch did not do what it was asked: in words.
fn fallen(name: &Name, session: &Session, failure: &Failure) -> String {
    let why = format!("the switch {name} cannot be programmed: {failure}");
    // an answer that was late may come for another question
    session.close(failure.to_string());
    why
}

async fn pass(shared: &Shared) {
    let _one = shared.working.lock().await;
    let Some(wanted) = lock(&shared.state).wanted.clone() else {
        return;
    };
    let began = Instant::now();
    let mut programs = programs(&shared.network, &wanted.intents);
    punt(&mut programs, &shared.network, *lock(&shared.punts));
    let (mut seen, mut failed) = look_at(shared, &programs, |_| true).await;
    drifted(shared, &wanted, &seen);

    let mut told = Told::default();
    let mut changed = Vec::new();
    let mut sent = 0;
    for look in seen.iter().filter(|look| !look.changes.is_empty()) {
        changed.push(look.name.clone());
        sent += look.changes.len();
    }
    for step in STEPS {
        let slices: BTreeMap<u16, Uuid> = wanted.intents.iter().map(|i| (i.tag, i.slice)).collect();
        let work = seen.iter_mut().filter_map(|look| {
            let messages = mem::take(look.changes.steps.get_mut(step as usize)?);
            (!messages.is_empty()).then(|| apply(look, step, messages, &slices))
        });
        for (name, session, done) in join_all(work).await {
            match done {
                Ok(refused) => {
                    if step == Step::Deny {
                        closed::shut(&mut seen, &refused);
                    }
                    told.errors.extend(refused);
                }
                Err(failure) => {
                    failed.insert(name.clone(), fallen(&name, &session, &failure));
                }
            }
        }
        seen.retain(|look| !failed.contains_key(&look.name));
    }
    if !changed.is_empty() {
        // what the switches say now is what counts
        let (again, lost) = look_at(shared, &programs, |name| {
            changed.contains(name) && !failed.contains_key(name)
        })
        .await;
        seen.retain(|look| !changed.contains(&look.name));
        seen.extend(again);
        failed.extend(lost);
        tracing::info!(
            "{sent} changes on {} switch(es) in {} ms",
            changed.len(),
            began.elapsed().as_millis()
        );
    }
    note(shared, &wanted, &programs, seen, failed, told);
}

/// Sends one step's messages to one switch.
async fn apply(
    look: &Look,
    step: Step,
    messages: Vec<Message>,
    slices: &BTreeMap<u16, Uuid>,
) -> (
    Name,
    Arc<Session>,
    Result<Vec<(Name, Option<Uuid>, String)>, Failure>,
) {
    let asked = match step {
        Step::Shut => "the removal of rules that admit",
        Step::Clear => "the removal of rules that forward",
        Step::Furnish => "meters and groups",
        Step::Deny => "access rules that drop",
        Step::Allow => "access rules that let pass",
        Step::Forward => "rules that forward",
        Step::Revoke => "the removal of access rules that let pass",
        Step::Lift => "the removal of access rules that drop",
        Step::Admit => "rules that admit",
        Step::Retire => "the removal of meters",
    };
    let of: Vec<Option<Uuid>> = messages.iter().map(|m| whose(look, m, slices)).collect();
    let refused = look.session.apply(messages, asked).await.map(|refused| {
        let words = |(number, cause)| {
            let slice = of.get(number).copied().flatten();
            let why = format!("the switch {} refused {asked}: {cause}", look.name);
            tracing::warn!("{why}");
            (look.name.clone(), slice, why)
        };
        refused.into_iter().map(words).collect()
    });
    (look.name.clone(), look.session.clone(), refused)
}

/// The slice that a message is for.
fn whose(look: &Look, message: &Message, slices: &BTreeMap<u16, Uuid>) -> Option<Uuid> {
    let tag = match message {
        Message::FlowMod(flow) => tag_of(flow.cookie)?,
        Message::GroupMod(group) if group.group_id & GROUP_MASK == GROUP => {
            u16::try_from(group.group_id & !GROUP_MASK).ok()?
        }
        Message::MeterMod(meter) => {
            let meter = look.wanted.meters.get(&meter.meter_id)?;
            return Some(meter.slice);
        }
        _ => return None,
    };
    slices.get(&tag).copied()
}

/// Says what has changed in a switch that had all that is wanted.
fn drifted(shared: &Shared, wanted: &Wanted, seen: &[Look]) {
    let mut state = lock(&shared.state);
    for look in seen.iter().filter(|look| !look.changes.is_empty()) {
        let settled = state
            .switches
            .get(&look.name)
            .and_then(|s| s.settled.as_ref());
        let same = settled.is_some_and(|s| s.number == wanted.number && s.ports == look.ports);
        if !same {
            continue;
        }
        let ours = look
            .changes
            .differences
            .iter()
            .filter(|d| d.kind != FOREIGN);
        let words = ours
            .clone()
            .take(TOLD)
            .map(|d| (d.slice, format!("{} on {}: {}", d.kind, d.switch, d.what)));
        let words: Vec<_> = words.collect();
        let more = ours.count().saturating_sub(TOLD);
        for (slice, detail) in words {
            tracing::warn!("a switch was changed behind our back: {detail}");
            state.tell(("switch.drift", slice, detail));
        }
        if more > 0 {
            let detail = format!("and {more} more differences on {}", look.name);
            tracing::warn!("{detail}");
            state.tell(("switch.drift", None, detail));
        }
    }
}

const FOREIGN: &str = "foreign";

/// Notes what has been read back.
fn note(
    shared: &Shared,
    wanted: &Wanted,
    programs: &Programs,
    seen: Vec<Look>,
    failed: BTreeMap<Name, String>,
    mut told: Told,
) {
    let mut state = lock(&shared.state);
    // so far there is in it what switches refused
    for (_, slice, why) in &told.errors {
        if !state.complaints.contains(why) {
            state.tell(("switch.error", *slice, why.clone()));
        }
    }
    state.complaints = told.errors.iter().map(|(.., why)| why.clone()).collect();
    for (name, why) in failed {
        told.away.insert(name, why);
    }
    let mut others = Vec::new();
    for look in &seen {
        let Some(switch) = state.switches.get_mut(&look.name) else {
            continue;
        };
        if !Arc::ptr_eq(&switch.session, &look.session) {
            continue;
        }
        let foreign: Vec<&Difference> = look
            .changes
            .differences
            .iter()
            .filter(|d| d.kind == FOREIGN)
            .collect();
        let trouble = foreign.first().map(|first| {
            format!(
                "{} rule(s) of somebody else can carry traffic around the slices, the first is: {}",
                foreign.len(),
                first.what
            )
        });
        if trouble.is_some() && trouble != switch.trouble {
            others.extend(trouble.iter().map(|t| format!("{}: {t}", look.name)));
        }
        switch.trouble = trouble;
        (switch.rules, switch.meters) = look.ours;
        if look.listens && !switch.listens {
            shared.probe.notify_one();
        }
        switch.listens = look.listens;
        switch.guards = look.wanted.meters.clone();
        switch.settled = look.changes.is_empty().then(|| Settled {
            number: wanted.number,
            held: look.held,
            ports: look.ports.clone(),
        });
        told.seen.insert(look.name.clone());
        for Refusal { slice, reason } in &look.down {
            let error = (look.name.clone(), Some(*slice), reason.clone());
            told.errors.push(error);
        }
        for refusal in &look.refused {
            let why = format!("{}: {}", look.name, refusal.reason);
            told.errors
                .push((look.name.clone(), Some(refusal.slice), why));
        }
        for difference in &look.changes.differences {
            if difference.kind != FOREIGN && difference.slice.is_some() {
                let why = format!(
                    "{} on the switch {}: {}",
                    difference.kind, look.name, difference.what
                );
                told.errors.push((look.name.clone(), difference.slice, why));
            }
        }
    }
    for detail in others {
        tracing::warn!("{detail}");
        state.tell(("switch.foreign", None, detail));
    }
    state.passes.done = Some(tokio::time::Instant::now());
    let standings: BTreeMap<Uuid, _> = wanted
        .intents
        .iter()
        .map(|intent| {
            let refused = programs.refused.iter().find(|r| r.slice == intent.slice);
            let standing = match refused {
                Some(refusal) => Standing::Not(refusal.reason.clone()),
                None => standing(intent, &told),
            };
            (intent.slice, (intent.clone(), standing))
        })
        .collect();
    if state.standings != standings {
        state.standings = standings;
        drop(state);
        shared.changed.notify_one();
    }
}

/// Reads the guards' counters.
async fn count(shared: &Shared) {
    let metered: Vec<_> = lock(&shared.state)
        .switches
        .values()
        .filter(|switch| !switch.guards.is_empty())
        .map(|switch| (switch.session.clone(), switch.guards.clone()))
        .collect();
    let counts = metered
        .iter()
        .map(|(session, ours)| look::count(session, ours));
    let mut all: BTreeMap<Uuid, Counters> = BTreeMap::new();
    for counted in join_all(counts).await {
        let counted = match counted {
            Ok(counted) => counted,
            // every two seconds: a connection that ended is told elsewhere
            Err(failure) => {
                tracing::debug!("counters were not read: {failure}");
                continue;
            }
        };
        for (slice, of) in counted {
            let sum = all.entry(slice).or_default();
            sum.packets += of.packets;
            sum.bytes += of.bytes;
            sum.dropped_packets += of.dropped_packets;
            sum.dropped_bytes += of.dropped_bytes;
        }
    }
    lock(&shared.state).counters = all;
}

/// Holds what is wanted against what the switches have now.
pub(super) async fn check(shared: &Shared) -> Vec<Difference> {
    let Ok(_one) = timeout(BUSY, shared.working.lock()).await else {
        return vec![Difference {
            switch: String::new(),
            kind: "unreachable".to_owned(),
            slice: None,
            what: format!(
                "the fabric is busy: the switches have been worked on for {} s, and were not \
                 looked at for this question; ask again",
                BUSY.as_secs()
            ),
        }];
    };
    let wanted = lock(&shared.state).wanted.clone();
    let intents = wanted.as_ref().map_or(&[][..], |wanted| &wanted.intents);
    let mut programs = programs(&shared.network, intents);
    // before anything is wanted nothing is asked of a switch
    if wanted.is_some() {
        punt(&mut programs, &shared.network, *lock(&shared.punts));
    }
    let (seen, mut failed) = look_at(shared, &programs, |_| true).await;
    for switch in &shared.network.switches {
        if !seen.iter().any(|look| look.name == switch.name) {
            failed
                .entry(switch.name.clone())
                .or_insert_with(|| format!("the switch {} is not connected", switch.name));
        }
    }
    let missing = |switch: &str, slice, what: String| Difference {
        switch: switch.to_owned(),
        kind: "missing".to_owned(),
        slice: Some(slice),
        what,
    };
    let unreachable = failed.into_iter().map(|(name, what)| Difference {
        switch: name.to_string(),
        kind: "unreachable".to_owned(),
        slice: None,
        what,
    });
    let mut all: Vec<Difference> = unreachable.collect();
    for refusal in programs.refused {
        all.push(missing("", refusal.slice, refusal.reason));
    }
    for look in seen {
        all.extend(look.changes.differences);
        for refusal in look.refused {
            all.push(missing(look.name.as_str(), refusal.slice, refusal.reason));
        }
    }
    all
}
