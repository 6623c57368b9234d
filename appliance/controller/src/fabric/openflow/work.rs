//! Work on switches: what is to be done for some slices, step by step at all the switches of it.

use super::{closed, failure::Failure, session::Session};
use crate::fabric::{
    difference::{Changes, STEPS, Step},
    program::Resolved,
};
use dtn_api::Name;
use dtn_openflow::Message;
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Whose each message of a step is, and the message.
pub(super) type Told = [Vec<(u16, Message)>; STEPS.len()];

/// What a switch did not do: which switch, whose it was, in words.
pub(super) type Refused = (Name, u16, String);

/// Work that is to be done. `S` is how a switch is spoken with.
#[derive(Debug)]
pub(super) struct Work<S> {
    pub(super) id: u64,
    pub(super) parts: Vec<Task<S>>,
}

/// The part of a work that one switch has.
#[derive(Debug)]
pub(super) struct Task<S> {
    pub(super) name: Name,
    pub(super) session: S,
    pub(super) steps: Told,
    /// All that the switch shall hold.
    pub(super) wanted: Arc<Resolved>,
    /// The number of its connection.
    pub(super) seat: u64,
    /// Whose it is.
    pub(super) tags: BTreeSet<u16>,
}

/// How work has ended.
pub(super) struct Ended {
    pub(super) id: u64,
    /// Its switches, with the numbers of their connections and whose it was there.
    pub(super) parts: Vec<(Name, u64, BTreeSet<u16>)>,
    pub(super) refused: Vec<Refused>,
    /// Switches that did not answer.
    pub(super) failed: Vec<(Name, Arc<Session>, Failure)>,
    /// Messages of it.
    pub(super) sent: usize,
    pub(super) took: Duration,
}

/// What is to be done at a switch for these tags. What is of no slice comes along, and goes only with
/// its own tag, 0.
pub(super) fn steps(changes: &Changes, tags: &BTreeSet<u16>) -> Told {
    let mut all = Told::default();
    for (tag, part) in &changes.parts {
        for (step, messages) in STEPS.iter().zip(&part.steps) {
            let comes = *tag == 0 && *step == Step::Admit;
            if (comes || tags.contains(tag))
                && let Some(told) = all.get_mut(*step as usize)
            {
                told.extend(messages.iter().map(|message| (*tag, message.clone())));
            }
        }
    }
    all
}

/// Does it. A switch that fails is left out from then on; the others go on.
pub(super) async fn run(mut work: Work<Arc<Session>>, slices: BTreeMap<u16, Uuid>) -> Ended {
    let began = Instant::now();
    let of = |task: &Task<Arc<Session>>| (task.name.clone(), task.seat, task.tags.clone());
    let messages = work.parts.iter().flat_map(|task| &task.steps);
    let mut ended = Ended {
        id: work.id,
        parts: work.parts.iter().map(of).collect(),
        refused: Vec::new(),
        failed: Vec::new(),
        sent: messages.map(Vec::len).sum(),
        took: Duration::ZERO,
    };
    for step in STEPS {
        let sends = work.parts.iter_mut().filter_map(|task| {
            let messages = mem::take(task.steps.get_mut(step as usize)?);
            (!messages.is_empty()).then(|| apply(task, step, messages))
        });
        for (name, session, done) in join_all(sends).await {
            match done {
                Ok(refused) => {
                    if step == Step::Deny {
                        closed::shut(&mut work.parts, &refused, &slices);
                    }
                    ended.refused.extend(refused);
                }
                Err(failure) => {
                    work.parts.retain(|task| task.name != name);
                    ended.failed.push((name, session, failure));
                }
            }
        }
    }
    ended.took = began.elapsed();
    ended
}

/// Sends one step's messages to one switch.
async fn apply(
    task: &Task<Arc<Session>>,
    step: Step,
    messages: Vec<(u16, Message)>,
) -> (Name, Arc<Session>, Result<Vec<Refused>, Failure>) {
    let asked = words(step);
    let (tags, messages): (Vec<u16>, Vec<Message>) = messages.into_iter().unzip();
    let refused = task.session.apply(messages, asked).await.map(|refused| {
        let refused = refused.into_iter().filter_map(|(number, cause)| {
            let why = format!("the switch {} refused {asked}: {cause}", task.name);
            tracing::warn!("{why}");
            Some((task.name.clone(), *tags.get(number)?, why))
        });
        refused.collect()
    });
    (task.name.clone(), task.session.clone(), refused)
}

fn words(step: Step) -> &'static str {
    match step {
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
    }
}
