//! Makes the switches hold what is wanted, again and again: one task that begins what [`Board`] says,
//! and waits for nothing but the next thing that has ended.

use super::{
    Shared, Wanted,
    board::{Board, Reading},
    check::{Question, Questions},
    failure::Failure,
    look::{self, Has},
    notes,
    session::{Session, lock},
    wish::Wish,
    work::{self, Ended},
};
use crate::fabric::program::{Programs, programs, punt};
use dtn_api::Name;
use futures_util::{
    FutureExt,
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt},
};
use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// How often the switches are looked at when nothing happens.
const LOOK: Duration = Duration::from_secs(10);
/// How long nothing may be to be done before what was worked out for it is given back.
const IDLE: Duration = Duration::from_secs(1);

type Switch = Arc<Session>;
type Read = (Reading<Switch>, Result<Has, Failure>);

/// What is to be done, and what is being done.
struct Rounds {
    shared: Arc<Shared>,
    board: Board<Switch>,
    /// What all switches shall hold by the wish of this number; worked out when it is needed.
    programs: Option<(u64, Programs)>,
    reads: FuturesUnordered<BoxFuture<'static, Read>>,
    works: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// Why switches are not there, in words.
    failed: BTreeMap<Name, String>,
    questions: Questions,
}

/// What has happened.
enum Next {
    Woken,
    Tick,
    Read(Reading<Switch>, Result<Has, Failure>),
    Ended(Ended),
    Asked(Question),
    Due,
    Idle,
}

/// Looks and programs until `stop`. Those who ask what differs come by `asked`.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut asked: mpsc::Receiver<Question>,
    stop: CancellationToken,
) {
    let mut rounds = Rounds {
        shared: shared.clone(),
        board: Board::default(),
        programs: None,
        reads: FuturesUnordered::new(),
        works: FuturesUnordered::new(),
        failed: BTreeMap::new(),
        questions: Questions::default(),
    };
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let rests = rounds.reads.is_empty() && rounds.works.is_empty();
        let idle = rests && rounds.programs.is_some();
        let gathered = rounds.board.next();
        let next = tokio::select! {
            () = stop.cancelled() => return,
            () = shared.wake.notified() => Next::Woken,
            _ = looks.tick() => Next::Tick,
            Some((reading, has)) = rounds.reads.next(), if !rounds.reads.is_empty() => {
                Next::Read(reading, has)
            }
            Some(ended) = rounds.works.next(), if !rounds.works.is_empty() => Next::Ended(ended),
            Some(question) = asked.recv() => Next::Asked(question),
            () = sleep_until(rounds.questions.by()) => Next::Due,
            () = sleep_until(gathered.unwrap_or_else(Instant::now)), if gathered.is_some() => {
                Next::Due
            }
            () = tokio::time::sleep(IDLE), if idle => Next::Idle,
        };
        match next {
            Next::Woken => rounds.gather(),
            Next::Tick => {
                rounds.gather();
                rounds.board.look_at_all();
            }
            Next::Read(reading, has) => rounds.read(reading, has),
            Next::Ended(ended) => rounds.ended(ended),
            Next::Asked(question) => {
                rounds.gather();
                rounds
                    .questions
                    .ask(question, &mut rounds.board, &shared.network);
            }
            Next::Due => {}
            Next::Idle => rounds.programs = None,
        }
        // what has come in meanwhile, so that it is looked at together
        while let Some(Some((reading, has))) = rounds.reads.next().now_or_never() {
            rounds.read(reading, has);
        }
        while let Some(Some(ended)) = rounds.works.next().now_or_never() {
            rounds.ended(ended);
        }
        rounds.go_on();
    }
}

impl Rounds {
    /// Which switches are there, and what is wanted of them.
    fn gather(&mut self) {
        let mut state = lock(&self.shared.state);
        let wanted = state.wanted.clone();
        let mut there = BTreeMap::new();
        for (name, switch) in &mut state.switches {
            if !switch.session.ended() {
                let doubted = mem::take(&mut switch.stale);
                there.insert(
                    name.clone(),
                    (switch.session.clone(), switch.max_meter, doubted),
                );
            }
        }
        state.passes.done = Some(Instant::now());
        drop(state);
        let gone = self.board.names().filter(|name| !there.contains_key(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.lost(&name, None);
        }
        for (name, (session, max_meter, doubted)) in there {
            let known = self.board.session(&name);
            if !known.is_some_and(|known| Arc::ptr_eq(known, &session)) {
                self.failed.remove(&name);
                self.board.seat(name, session, max_meter);
                continue;
            }
            if doubted {
                self.board.look_at(&name);
            }
            let (ports, off) = session.ports();
            let same = |look: &look::Look| (&look.ports, &look.off) == (&ports, &off);
            self.board.ports(&name, same);
        }
        let Some(wanted) = wanted else { return };
        let before = self.board.wish.as_ref();
        if before.is_some_and(|before| before.number == wanted.number) {
            return;
        }
        let programs = self.shared.programs(&wanted);
        let wish = Wish::new(&wanted, programs.refused.clone(), before);
        self.programs = Some((wanted.number, programs));
        self.board.want(wish);
    }

    /// A switch is not there any more.
    fn lost(&mut self, name: &Name, why: Option<String>) {
        self.board.leave(name);
        self.questions.lost(name, why.as_deref());
        if let Some(why) = why {
            self.failed.insert(name.clone(), why);
        }
    }
    /// A switch did not do what it was asked.
    fn fallen(&mut self, name: &Name, session: &Switch, failure: &Failure) {
        // an answer that was late may come for another question
        session.close(failure.to_string());
        let known = self.board.session(name);
        if known.is_some_and(|known| Arc::ptr_eq(known, session)) {
            let why = format!("the switch {name} cannot be programmed: {failure}");
            self.lost(name, Some(why));
        }
    }

    /// A switch has been read.
    fn read(&mut self, reading: Reading<Switch>, has: Result<Has, Failure>) {
        let name = &reading.name;
        let has = match has {
            Ok(has) => has,
            Err(failure) => return self.fallen(name, &reading.session, &failure),
        };
        let wanted = lock(&self.shared.state).wanted.clone();
        let (Some(wish), Some(wanted)) = (&self.board.wish, wanted) else {
            return;
        };
        if self
            .programs
            .as_ref()
            .is_none_or(|(of, _)| *of != wish.number)
        {
            let intents = wish.intents.clone();
            let wanted = Wanted { intents, ..wanted };
            self.programs = Some((wish.number, self.shared.programs(&wanted)));
        }
        let Some((_, programs)) = &self.programs else {
            return;
        };
        let Some(drift) = self.board.read(&reading, has, programs) else {
            return;
        };
        if let Some((look, alone)) = self.board.seen(name) {
            notes::read(&self.shared, &reading, look, alone, drift);
            self.questions.read(&reading, look, alone);
        }
        let (ports, off) = reading.session.ports();
        let same = |look: &look::Look| (&look.ports, &look.off) == (&ports, &off);
        self.board.ports(name, same);
    }

    /// Some work has ended.
    fn ended(&mut self, ended: Ended) {
        for (name, session, failure) in &ended.failed {
            self.fallen(name, session, failure);
        }
        tracing::info!(
            "{} changes on {} switch(es) in {} ms",
            ended.sent,
            ended.parts.len(),
            ended.took.as_millis()
        );
        let (parts, refused) = (&ended.parts, &ended.refused);
        let news = self.board.ended(ended.id, parts, refused, Instant::now());
        if let Some(wish) = &self.board.wish {
            notes::refused(&self.shared, wish, news);
        }
    }

    /// Begins what can be begun, and says how slices stand.
    fn go_on(&mut self) {
        for work in self.board.begin() {
            notes::begun(&self.shared, work.parts.iter().map(|task| &task.name));
            let slices = self.board.wish.as_ref().map(|wish| wish.slices.clone());
            let work = work::run(work, slices.unwrap_or_default());
            self.works.push(Box::pin(work));
        }
        for reading in self.board.readings(Instant::now()) {
            self.reads.push(Box::pin(async move {
                let has = look::read(&reading.session, reading.max_meter).await;
                (reading, has)
            }));
        }
        notes::standings(&self.shared, &self.board, &self.failed);
        self.questions.answer();
    }
}

impl Shared {
    /// What all switches shall hold.
    pub(super) fn programs(&self, wanted: &Wanted) -> Programs {
        let mut programs = programs(&self.network, &wanted.intents);
        punt(&mut programs, &self.network, *lock(&self.punts));
        programs
    }
}
