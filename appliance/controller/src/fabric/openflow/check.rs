//! Holds what is wanted against what the switches have now, for somebody who asks.

use super::{
    Shared,
    board::{Board, Reading},
    look::{self, Look, Owners},
    session::{Session, lock},
};
use crate::fabric::{
    Difference,
    network::Network,
    program::{Refusal, programs},
};
use dtn_api::Name;
use futures_util::future::join_all;
use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// Longest time for which somebody who asks waits for work on a switch to end.
const BUSY: Duration = Duration::from_secs(20);
/// Nobody asks.
const NEVER: Duration = Duration::from_secs(1 << 20);

/// Who asks, and is told.
pub(super) type Question = oneshot::Sender<Vec<Difference>>;

/// What was asked and is not answered yet.
#[derive(Default)]
pub(super) struct Questions(Vec<Open>);

struct Open {
    tell: Question,
    by: Instant,
    /// The switches that are to be read for it, and from which time on that counts.
    open: BTreeMap<Name, u64>,
    unreachable: Vec<Difference>,
    refused: Vec<Difference>,
    found: BTreeMap<Name, Vec<Difference>>,
}

fn unreachable(name: &Name, what: String) -> Difference {
    Difference {
        switch: name.to_string(),
        kind: "unreachable".to_owned(),
        slice: None,
        what,
    }
}
fn missing(switch: &str, refusal: &Refusal) -> Difference {
    Difference {
        switch: switch.to_owned(),
        kind: "missing".to_owned(),
        slice: Some(refusal.slice),
        what: refusal.reason.clone(),
    }
}
fn found(name: &Name, look: &Look) -> Vec<Difference> {
    let refused = look.refused.iter().map(|r| missing(name.as_str(), r));
    look.changes.differences().cloned().chain(refused).collect()
}

impl Questions {
    /// When the first of them is to be answered whatever is known.
    pub(super) fn by(&self) -> Instant {
        let first = self.0.iter().map(|question| question.by).min();
        first.unwrap_or_else(|| Instant::now() + NEVER)
    }
    /// Takes in a question: every switch is read for it.
    pub(super) fn ask(
        &mut self,
        tell: Question,
        board: &mut Board<Arc<Session>>,
        network: &Network,
    ) {
        let refused = board.wish.iter().flat_map(|wish| &wish.refused);
        let mut question = Open {
            tell,
            by: Instant::now() + BUSY,
            open: BTreeMap::new(),
            unreachable: Vec::new(),
            refused: refused.map(|r| missing("", r)).collect(),
            found: BTreeMap::new(),
        };
        for switch in &network.switches {
            let name = &switch.name;
            match board.look_at(name) {
                Some(turn) => {
                    question.open.insert(name.clone(), turn);
                }
                None => {
                    let why = format!("the switch {name} is not connected");
                    question.unreachable.push(unreachable(name, why));
                }
            }
        }
        self.0.push(question);
    }
    /// A switch has been read. `alone`: nothing was being done there.
    pub(super) fn read(&mut self, reading: &Reading<Arc<Session>>, look: &Look, alone: bool) {
        let name = &reading.name;
        for question in self.0.iter_mut().filter(|_| alone) {
            if question
                .open
                .get(name)
                .is_some_and(|turn| reading.turn >= *turn)
            {
                question.open.remove(name);
                question.found.insert(name.clone(), found(name, look));
            }
        }
    }
    /// A switch is not there any more.
    pub(super) fn lost(&mut self, name: &Name, why: Option<&str>) {
        for question in &mut self.0 {
            if question.open.remove(name).is_some() {
                let gone = || format!("the switch {name} is not connected");
                let why = why.map_or_else(gone, ToOwned::to_owned);
                question.unreachable.push(unreachable(name, why));
            }
        }
    }
    /// Answers those of which all is known, or that have waited for long enough.
    pub(super) fn answer(&mut self) {
        let now = Instant::now();
        let all = mem::take(&mut self.0);
        let done = |question: &Open| question.open.is_empty() || question.by <= now;
        let (done, open): (Vec<_>, Vec<_>) = all.into_iter().partition(done);
        self.0 = open;
        for question in done {
            let busy = question.open.keys().map(|name| {
                let why = format!(
                    "the switch {name} has been worked on for {} s, and was not looked at for this \
                     question: ask again",
                    BUSY.as_secs()
                );
                unreachable(name, why)
            });
            let mut all = question.unreachable;
            all.extend(busy);
            all.extend(question.refused);
            all.extend(question.found.into_values().flatten());
            // who asked may have gone
            let _ = question.tell.send(all);
        }
    }
}

/// Holds what is wanted against what the switches have now.
pub(super) async fn check(shared: &Shared) -> Vec<Difference> {
    if lock(&shared.state).wanted.is_none() {
        return unasked(shared).await;
    }
    let (tell, told) = oneshot::channel();
    let asked = shared.asks.send(tell).await;
    match (asked, told.await) {
        (Ok(()), Ok(all)) => all,
        _ => vec![Difference {
            switch: String::new(),
            kind: "unreachable".to_owned(),
            slice: None,
            what: lock(&shared.state).passes.ended.clone().unwrap_or_else(|| {
                "the switches are not looked at any more: the controller ends".to_owned()
            }),
        }],
    }
}

/// The same before anything is wanted: nothing is asked of a switch yet, and nothing is done there.
async fn unasked(shared: &Shared) -> Vec<Difference> {
    let there: BTreeMap<Name, (Arc<Session>, u32)> = lock(&shared.state)
        .switches
        .iter()
        .map(|(name, switch)| (name.clone(), (switch.session.clone(), switch.max_meter)))
        .collect();
    let programs = programs(&shared.network, &[]);
    let looks = programs.switches.iter().map(async |(name, program)| {
        let Some((session, max_meter)) = there.get(name) else {
            let why = format!("the switch {name} is not connected");
            return vec![unreachable(name, why)];
        };
        match look::read(session, *max_meter).await {
            Ok(has) => {
                let look = Look::of(name, has, *max_meter, Owners::default(), program);
                found(name, &look)
            }
            Err(failure) => {
                let why = format!("the switch {name} cannot be read: {failure}");
                session.close(failure.to_string());
                vec![unreachable(name, why)]
            }
        }
    });
    join_all(looks).await.into_iter().flatten().collect()
}
