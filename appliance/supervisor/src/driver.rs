//! Carries negotiations out: one task for each, which writes the case to disk, does what
//! [`crate::negotiate::step`] asks for, and comes back with what happened.
//!
//! The file of a case is written before its action is done, so a process that was killed finds all
//! of them again, with the same idempotency keys.

mod calls;
mod files;

pub(crate) use calls::{end_slice, end_stitch};

use crate::{
    Host,
    negotiate::{Action, Case, Event, Step, later, resume, step},
};
use dtn_api::{
    HostId, Name, Problem,
    local::{Ask, Negotiation},
    nic::Nic,
    problem::Kind,
};
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// How often an agreed slice is read back.
const READ_BACK: Duration = Duration::from_secs(20);
/// How long a finished negotiation can be asked for.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// A NIC that was unfit in so many looks in a row (10 s apart) is lost.
const LOOKS: u32 = 3;
/// How long someone who asks is kept waiting for an answer.
const PATIENCE: Duration = Duration::from_secs(75);

/// All negotiations of this host.
#[derive(Debug, Clone)]
pub struct Negotiations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Arc<Host>,
    entries: Mutex<BTreeMap<Uuid, Entry>>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Entry {
    shown: watch::Receiver<Case>,
    events: mpsc::Sender<Event>,
    /// Looks in a row in which its NIC was unfit.
    unfit: u32,
}

impl Negotiations {
    /// None yet.
    pub fn new(host: Arc<Host>) -> Self {
        Self(Arc::new(Inner {
            host,
            entries: Mutex::default(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Takes up what was under way when the last process ended. Returns how many there are.
    pub fn recover(&self) -> Result<usize, Problem> {
        let now = Timestamp::now();
        let cases = files::load(&self.0.host.places)?;
        let count = cases.len();
        for case in cases {
            if case.step.is_final() && later(case.end.max(case.asked_at), KEPT) < now {
                files::remove(&self.0.host.places, case.id)?;
                continue;
            }
            let (case, actions) = resume(case, now);
            if !case.step.is_final() {
                tracing::info!(slice = %case.ask.name, step = ?case.step, "taking up a negotiation");
            }
            self.run(case, actions);
        }
        Ok(count)
    }

    /// Asks. The same wish for a slice that is being had, or stands, is that negotiation.
    pub async fn ask(&self, ask: Ask) -> Result<Negotiation, Problem> {
        check(&ask, Timestamp::now())?;
        if self.0.host.uplink.identity().is_none() {
            return Err(crate::uplink::not_joined());
        }
        let shown = {
            let mut entries = self.entries();
            let living = entries.values().find(|entry| {
                let case = entry.shown.borrow();
                !case.step.is_final()
                    && case.ask.name == ask.name
                    && case.ask.tenant == ask.tenant
                    && !case.ask.dry_run
            });
            match living {
                Some(entry) if entry.shown.borrow().ask == ask => entry.shown.clone(),
                Some(entry) if !ask.dry_run => {
                    let case = entry.shown.borrow();
                    return Err(Problem::new(
                        Kind::NameTaken,
                        format!(
                            "slice {} is {:?} already, for another wish (negotiation {}): end it \
                             with dtnctl slice release {}, or choose another name",
                            ask.name, case.step, case.id, ask.name
                        ),
                    ));
                }
                _ => {
                    let (case, actions) = Case::open(Uuid::now_v7(), ask, Timestamp::now());
                    files::write(&self.0.host.places, &case)?;
                    self.start(&mut entries, case, actions)
                }
            }
        };
        Ok(settled(shown).await.shown())
    }

    /// One negotiation.
    pub fn get(&self, id: Uuid) -> Option<Negotiation> {
        let entries = self.entries();
        entries.get(&id).map(|entry| entry.shown.borrow().shown())
    }

    /// Every case, oldest first.
    pub fn cases(&self) -> Vec<Case> {
        let entries = self.entries();
        entries.values().map(|e| e.shown.borrow().clone()).collect()
    }

    /// Ends the negotiation of a slice and gives back what it has. `None` when there is none.
    pub async fn withdraw(&self, name: &Name) -> Option<Negotiation> {
        let (events, mut shown) = {
            let entries = self.entries();
            let entry = entries.values().find(|entry| {
                let case = entry.shown.borrow();
                !case.step.is_final() && case.ask.name == *name
            })?;
            (entry.events.clone(), entry.shown.clone())
        };
        // a task that is gone has ended its case
        let _ = events.send(Event::Withdrawn).await;
        let over = shown.wait_for(|case| case.step.is_final());
        let _ = timeout(PATIENCE, over).await;
        let case = shown.borrow().clone();
        Some(case.shown())
    }

    /// Reads an agreed slice back now: it was extended, or something is said to have happened.
    pub fn look(&self, slice: Uuid) {
        self.send(Event::Tick, |case| case.slice_id == Some(slice));
    }

    /// Tells every agreed case how its NIC is now.
    pub fn nics(&self, nics: &[Nic]) {
        let mut entries = self.entries();
        for entry in entries.values_mut() {
            let case = entry.shown.borrow().clone();
            let (Step::Agreed, Some(limit)) = (case.step, &case.nic) else {
                continue;
            };
            let nic = nics
                .iter()
                .find(|nic| HostId::untagged(nic.mac) == limit.host || nic.name == limit.name);
            match unfit(nic) {
                None => entry.unfit = 0,
                Some(why) => {
                    entry.unfit += 1;
                    if entry.unfit >= LOOKS {
                        entry.unfit = 0;
                        let _ = entry.events.try_send(Event::NicLost(why));
                    }
                    continue;
                }
            }
            if let Some(speed) = nic.and_then(|nic| nic.speed)
                && speed != limit.speed
            {
                let _ = entry.events.try_send(Event::Speed(speed));
            }
        }
    }

    /// Forgets what has been over for a day.
    pub fn forget(&self, now: Timestamp) {
        let over =
            |case: &Case| case.step.is_final() && later(case.end.max(case.asked_at), KEPT) < now;
        let old: Vec<Uuid> = {
            let entries = self.entries();
            let cases = entries.values().map(|entry| entry.shown.borrow());
            cases
                .filter(|case| over(case))
                .map(|case| case.id)
                .collect()
        };
        for id in old {
            match files::remove(&self.0.host.places, id) {
                Ok(()) => {
                    self.entries().remove(&id);
                }
                Err(problem) => tracing::warn!("forgetting a negotiation: {problem}"),
            }
        }
    }

    fn send(&self, event: Event, to: impl Fn(&Case) -> bool) {
        for entry in self.entries().values() {
            if to(&entry.shown.borrow()) {
                // a full queue holds a reason to look already
                let _ = entry.events.try_send(event.clone());
            }
        }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<Uuid, Entry>> {
        self.0.entries.lock().unwrap_or_else(|e| e.into_inner())
    }
    fn run(&self, case: Case, actions: Vec<Action>) {
        let mut entries = self.entries();
        self.start(&mut entries, case, actions);
    }
    fn start(
        &self,
        entries: &mut BTreeMap<Uuid, Entry>,
        case: Case,
        actions: Vec<Action>,
    ) -> watch::Receiver<Case> {
        let (events, inbox) = mpsc::channel(16);
        let (show, shown) = watch::channel(case.clone());
        entries.insert(
            case.id,
            Entry {
                shown: shown.clone(),
                events,
                unfit: 0,
            },
        );
        let host = self.0.host.clone();
        self.0.tasks.spawn(carry(host, case, actions, inbox, show));
        shown
    }
}

/// Why the NIC of an agreed slice can carry it no more. A NIC in a sandbox is the pod's matter: its
/// carrier is told there.
fn unfit(nic: Option<&Nic>) -> Option<String> {
    match nic {
        None => Some("it is not on this host any more".into()),
        Some(nic) if !nic.guarded.is_empty() => Some(nic.guarded.join("; ")),
        Some(nic) if !nic.used_by.is_empty() => None,
        Some(nic) if !nic.up => Some("it is switched off".into()),
        Some(nic) if !nic.carrier => Some("it has no carrier".into()),
        Some(_) => None,
    }
}

/// All that is wrong with a wish in itself.
fn check(ask: &Ask, now: Timestamp) -> Result<(), Problem> {
    let mut problem = Problem::new(Kind::InvalidRequest, "the wish cannot be met as it is");
    let zero = |rate: Option<dtn_api::Rate>| rate.is_some_and(|rate| rate.bps() == 0);
    if zero(ask.rate) {
        problem = problem.at("/rate", "must be more than 0");
    }
    if zero(ask.min_rate) {
        problem = problem.at("/min_rate", "must be more than 0");
    }
    if let (Some(rate), Some(least)) = (ask.rate, ask.min_rate)
        && least > rate
    {
        problem = problem.at(
            "/min_rate",
            format!("{least} is more than the rate of {rate}"),
        );
    }
    match (&ask.remote, &ask.gateway) {
        (None, None) => {
            problem = problem.at(
                "/remote",
                "a slice has two ends: name the domain of the other, and its endpoint as node/nic \
                 where there are several (--to DOMAIN[/NODE/NIC]), or a gateway of this domain \
                 (--gateway NAME)",
            );
        }
        (Some(_), Some(_)) => {
            problem = problem.at(
                "/gateway",
                "a slice that is asked for here ends at a NIC of some domain or at a gateway, not \
                 at both: leave one of them out",
            );
        }
        _ => {}
    }
    if ask.duration.millis() < 1000 {
        problem = problem.at("/duration", "must be at least 1s");
    }
    if ask
        .start
        .is_some_and(|start| later(start, ask.duration.duration()) <= now)
    {
        problem = problem.at("/start", "the whole window is in the past");
    }
    if problem.errors.is_empty() {
        Ok(())
    } else {
        Err(problem)
    }
}

/// One that cannot go on for the host's own sake is answered at once, with the reason.
async fn settled(mut shown: watch::Receiver<Case>) -> Case {
    let settled = shown.wait_for(|case| case.step.is_settled() || case.unkept.is_some());
    let _ = timeout(PATIENCE, settled).await;
    shown.borrow().clone()
}

/// Carries one case to its end.
async fn carry(
    host: Arc<Host>,
    mut case: Case,
    mut actions: Vec<Action>,
    mut inbox: mpsc::Receiver<Event>,
    show: watch::Sender<Case>,
) {
    loop {
        // the deed only after the record: on a full disk it waits, and the deadline does not
        if let Err(problem) = files::write_async(&host.places, &case).await {
            tracing::error!(slice = %case.ask.name, "{problem}");
            show.send_modify(|shown| {
                shown.unkept = Some(format!("it goes on once it can be written down: {problem}"));
            });
            sleep(Duration::from_secs(2)).await;
            let (overdue, more) = step(case, Event::Tick, Timestamp::now());
            case = overdue;
            if !more.is_empty() {
                actions = more;
            }
            continue;
        }
        show.send_replace(case.clone());
        if case.step.is_final() {
            tracing::info!(slice = %case.ask.name, step = ?case.step, reason = case.reason, "negotiation over");
            return;
        }
        let wake = actions.iter().find_map(|action| match action {
            Action::Wake(at) => Some(*at),
            _ => None,
        });
        let deed = actions
            .iter()
            .find(|action| !matches!(action, Action::Wake(_)));
        let event = match deed {
            Some(action) => calls::carry_out(&host, &case, action).await,
            None => next(&case, wake, &mut inbox).await,
        };
        let before = case.step;
        (case, actions) = step(case, event, Timestamp::now());
        if case.step != before {
            tracing::info!(slice = %case.ask.name, from = ?before, to = ?case.step, reason = case.reason, "negotiation");
        }
    }
}

/// What happens next when nothing is to be done: someone says something, or time passes.
async fn next(case: &Case, wake: Option<Timestamp>, inbox: &mut mpsc::Receiver<Event>) -> Event {
    let now = Timestamp::now();
    let wake = wake.unwrap_or_else(|| later(now, READ_BACK));
    let wake = match case.step {
        Step::Agreed => wake.min(case.end),
        _ => wake,
    };
    let pause = wake
        .duration_since(now)
        .try_into()
        .unwrap_or(Duration::ZERO);
    tokio::select! {
        event = inbox.recv() => event.unwrap_or(Event::Tick),
        // a clock that runs a little early must not lead to a busy loop
        () = sleep(pause.max(Duration::from_millis(50))) => Event::Tick,
    }
}
