//! How work on the switches stands: which of them are to be read, what may be done where, what has
//! been. Pure; [`super::reconcile`] does what comes out of here. `S` is how a switch is spoken with.

use super::{
    look::{Has, Look, Owners},
    standing::Told,
    units::{Stand, Unit, Way, units, ways},
    wish::Wish,
    work::{Refused, Task, Work, steps},
};
use crate::fabric::{
    Intent,
    program::{GuardKey, Programs},
};
use dtn_api::Name;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;

/// How often work for a slice is begun at a switch before it is let be until the next look at all of
/// them, or the next wish: once more than is needed, since somebody may have changed something meanwhile.
const TRIES: u8 = 2;
/// How long a switch on which some work has ended is not read while other work is under way there: what
/// ends together is read once.
const GATHER: Duration = Duration::from_millis(50);

/// Everything that is known of work on the switches.
pub(super) struct Board<S> {
    pub(super) wish: Option<Wish>,
    seats: BTreeMap<Name, Seat<S>>,
    /// What switches have refused, by tag, in words.
    refusals: BTreeMap<(Name, u16), Vec<String>>,
    /// Numbers that were given out.
    numbers: u64,
}

/// A switch that is connected.
struct Seat<S> {
    session: S,
    /// This connection's number.
    id: u64,
    max_meter: u32,
    /// It is to be read.
    due: bool,
    /// Until when it is not, while work is under way there.
    wait: Option<Instant>,
    /// It is being read.
    reading: bool,
    /// What is being read does not count: work there has ended meanwhile.
    spoiled: bool,
    /// How often it was read.
    reads: u64,
    look: Option<Look>,
    /// Of which tags it may have something else than is wanted, without anybody's doing; of all as
    /// long as it was not read.
    unsure: Option<BTreeSet<u16>>,
    tries: BTreeMap<u16, u8>,
    /// For which slices work was begun since they were last seen to be as they should.
    worked: BTreeSet<u16>,
    under_way: BTreeMap<u64, UnderWay>,
}

/// What is being done at a switch.
struct UnderWay {
    tags: BTreeSet<u16>,
    /// Those of them that are as they shall be when it has ended, unless something else is wanted by then.
    sure: BTreeSet<u16>,
    ways: BTreeSet<Way>,
    meters: Vec<(u32, GuardKey)>,
}

/// A switch that is to be read.
#[derive(Debug, Clone)]
pub(super) struct Reading<S> {
    pub(super) name: Name,
    pub(super) session: S,
    pub(super) max_meter: u32,
    id: u64,
    /// The how manieth time it is.
    pub(super) turn: u64,
}

/// What differs though nobody here has changed it.
pub(super) type Drift = Vec<(Option<Uuid>, String)>;

impl<S> Default for Board<S> {
    fn default() -> Self {
        Self {
            wish: None,
            seats: BTreeMap::new(),
            refusals: BTreeMap::new(),
            numbers: 0,
        }
    }
}

impl<S> Seat<S> {
    /// What it was last seen to have counts.
    fn fresh(&self) -> bool {
        self.look.is_some() && !self.due && !self.reading
    }
    /// Something is to be done there, as far as is known.
    fn differs(&self) -> bool {
        let look = self.look.as_ref().filter(|_| self.fresh());
        look.is_some_and(|look| !look.changes.is_empty())
    }
    fn busy(&self) -> BTreeSet<u16> {
        let all = self.under_way.values().flat_map(|work| &work.tags);
        all.copied().collect()
    }
    fn stand(&self) -> Stand<'_> {
        let spent = self.tries.iter().filter(|(_, tries)| **tries >= TRIES);
        Stand {
            changes: self
                .look
                .as_ref()
                .filter(|_| self.fresh())
                .map(|l| &l.changes),
            busy: self.busy(),
            ways: self
                .under_way
                .values()
                .flat_map(|work| &work.ways)
                .collect(),
            spent: spent.map(|(tag, _)| *tag).collect(),
        }
    }
}

impl<S: Clone> Board<S> {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
    /// The connection of a switch that is known here.
    pub(super) fn session(&self, name: &Name) -> Option<&S> {
        self.seats.get(name).map(|seat| &seat.session)
    }
    /// The switches that are connected.
    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.seats.keys()
    }
    /// A switch has connected.
    pub(super) fn seat(&mut self, name: Name, session: S, max_meter: u32) {
        let id = self.number();
        self.leave(&name);
        let seat = Seat {
            session,
            id,
            max_meter,
            due: true,
            wait: None,
            reading: false,
            spoiled: false,
            reads: 0,
            look: None,
            unsure: None,
            tries: BTreeMap::new(),
            worked: BTreeSet::new(),
            under_way: BTreeMap::new(),
        };
        self.seats.insert(name, seat);
    }
    /// A switch is not connected any more.
    pub(super) fn leave(&mut self, name: &Name) {
        self.seats.remove(name);
        self.refusals.retain(|(at, _), _| at != name);
    }
    /// Something else is wanted.
    pub(super) fn want(&mut self, wish: Wish) {
        let before = self.wish.take();
        let news = before.as_ref().map(|before| wish.news(before));
        for (name, seat) in &mut self.seats {
            let differs = wish.differs_at(name, before.as_ref());
            let open = seat.look.as_ref().is_none_or(|l| !l.changes.is_empty());
            seat.due |= differs || open;
            seat.tries.clear();
            let Some(mut news) = news.clone() else {
                seat.unsure = None;
                continue;
            };
            news.extend(differs.then_some(0));
            // what is under way makes it as it was wanted before
            for work in seat.under_way.values_mut() {
                work.sure.retain(|tag| !news.contains(tag));
            }
            seat.worked.retain(|tag| !news.contains(tag));
            if let Some(unsure) = &mut seat.unsure {
                unsure.extend(news);
            }
        }
        self.wish = Some(wish);
    }
    /// Every switch is to be read, whatever is known of it; one that is being read is not read twice.
    pub(super) fn look_at_all(&mut self) {
        for seat in self.seats.values_mut() {
            seat.due |= !seat.reading;
            seat.tries.clear();
        }
    }
    /// A switch is to be read once more; which time that will be.
    pub(super) fn look_at(&mut self, name: &Name) -> Option<u64> {
        let seat = self.seats.get_mut(name)?;
        seat.due = true;
        seat.tries.clear();
        Some(seat.reads + 1)
    }
    /// A switch's ports have changed, so that it shall hold something else.
    pub(super) fn ports(&mut self, name: &Name, is: impl FnOnce(&Look) -> bool) {
        if let Some(seat) = self.seats.get_mut(name)
            && !seat.due
            && !seat.reading
            && seat.look.as_ref().is_some_and(|look| !is(look))
        {
            seat.due = true;
            seat.unsure = None;
        }
    }
    /// What is to be read now.
    pub(super) fn readings(&mut self, now: Instant) -> Vec<Reading<S>> {
        if self.wish.is_none() {
            return Vec::new();
        }
        let due = self.seats.iter_mut();
        let due = due.filter(|(_, seat)| {
            let waits = seat.wait.is_some_and(|until| until > now);
            seat.due && !seat.reading && (seat.under_way.is_empty() || !waits)
        });
        due.map(|(name, seat)| {
            (seat.due, seat.reading, seat.spoiled) = (false, true, false);
            seat.wait = None;
            seat.reads += 1;
            Reading {
                name: name.clone(),
                session: seat.session.clone(),
                max_meter: seat.max_meter,
                id: seat.id,
                turn: seat.reads,
            }
        })
        .collect()
    }
    /// When something more is to be read, though nothing happens.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = self.seats.values().filter(|seat| seat.due && !seat.reading);
        due.filter_map(|seat| seat.wait).min()
    }
    /// Takes in what a switch has; what in it nobody here has done. None when it does not count.
    pub(super) fn read(
        &mut self,
        reading: &Reading<S>,
        has: Has,
        programs: &Programs,
    ) -> Option<Drift> {
        let name = &reading.name;
        let seat = self.seats.get_mut(name).filter(|s| s.id == reading.id)?;
        seat.reading = false;
        if std::mem::take(&mut seat.spoiled) {
            return None;
        }
        let program = programs.switches.get(name)?;
        let owners = Owners {
            before: seat.look.as_ref().map(|look| &look.guards),
            busy: seat
                .under_way
                .values()
                .flat_map(|w| w.meters.clone())
                .collect(),
        };
        let look = Look::of(name, has, seat.max_meter, owners, program);
        let before = seat.look.as_ref();
        if before.is_some_and(|l| (&l.ports, &l.off) != (&look.ports, &look.off)) {
            seat.unsure = None;
        }
        let busy = seat.busy();
        let parts = || look.changes.parts.iter();
        let mut drift = Vec::new();
        if let Some(unsure) = &seat.unsure {
            for (tag, part) in parts().filter(|(tag, _)| !unsure.contains(tag)) {
                // a meter that is about to go is nobody's for a moment
                if busy.contains(tag) || *tag == 0 && !busy.is_empty() {
                    continue;
                }
                let differences = part.differences.iter();
                drift.extend(differences.map(|d| {
                    let words = format!("{} on {}: {}", d.kind, d.switch, d.what);
                    (d.slice, words)
                }));
            }
        }
        let open: BTreeSet<u16> = parts().map(|(tag, _)| *tag).chain(busy).collect();
        seat.tries.retain(|tag, _| open.contains(tag));
        seat.worked.retain(|tag| open.contains(tag));
        seat.unsure = Some(open);
        let differs = |tag| look.changes.parts.contains_key(&tag);
        self.refusals
            .retain(|(at, tag), _| at != name || differs(*tag));
        seat.look = Some(look);
        Some(drift)
    }
    /// What a switch has been seen to have last, and whether nothing is being done there.
    pub(super) fn seen(&self, name: &Name) -> Option<(&Look, bool)> {
        let seat = self.seats.get(name)?;
        Some((seat.look.as_ref()?, seat.under_way.is_empty()))
    }

    /// What is to be begun now.
    pub(super) fn begin(&mut self) -> Vec<Work<S>> {
        let Some(wish) = &self.wish else {
            return Vec::new();
        };
        if !self.seats.values().any(Seat::differs) {
            return Vec::new();
        }
        let stands = self.seats.iter().map(|(name, seat)| (name, seat.stand()));
        let units = units(&stands.collect(), &wish.trees);
        units.iter().map(|unit| self.work(unit)).collect()
    }
    fn work(&mut self, unit: &Unit) -> Work<S> {
        let id = self.number();
        let mut parts = Vec::new();
        for name in &unit.switches {
            let Some(seat) = self.seats.get_mut(name) else {
                continue;
            };
            let Some((look, wanted)) = seat
                .look
                .as_ref()
                .and_then(|l| l.wanted.clone().map(|w| (l, w)))
            else {
                continue;
            };
            let mut tags = unit.tags.clone();
            tags.extend(unit.whole.contains(name).then_some(0));
            let of_tags = |key: &GuardKey| tags.contains(&key.tag);
            let meters = wanted.meters.iter().map(|(id, meter)| (*id, meter.guard));
            let under_way = UnderWay {
                ways: tags
                    .iter()
                    .flat_map(|tag| ways(&look.changes, *tag))
                    .collect(),
                meters: meters.filter(|(_, key)| of_tags(key)).collect(),
                tags: tags.clone(),
                // unless it was of no use before
                sure: tags
                    .iter()
                    .filter(|tag| !seat.worked.contains(tag))
                    .copied()
                    .collect(),
            };
            seat.under_way.insert(id, under_way);
            for tag in &tags {
                *seat.tries.entry(*tag).or_default() += 1;
                seat.worked.insert(*tag);
            }
            parts.push(Task {
                name: name.clone(),
                session: seat.session.clone(),
                steps: steps(&look.changes, &tags),
                wanted,
                seat: seat.id,
                tags,
            });
        }
        Work { id, parts }
    }
    /// Takes in that a work has ended, with what was refused; which of that is news. `parts` are those
    /// of its parts that were not let go.
    pub(super) fn ended(
        &mut self,
        id: u64,
        parts: &[(Name, u64, BTreeSet<u16>)],
        refused: &[Refused],
        now: Instant,
    ) -> Vec<Refused> {
        let before = self.refusals.clone();
        for (name, seat, tags) in parts {
            let Some(seat) = self.seats.get_mut(name).filter(|s| s.id == *seat) else {
                continue;
            };
            let sure = seat.under_way.remove(&id).map(|work| work.sure);
            let sure = sure.unwrap_or_default();
            seat.due = true;
            seat.wait = seat.wait.or(Some(now + GATHER));
            seat.spoiled = seat.reading;
            for tag in tags {
                self.refusals.remove(&(name.clone(), *tag));
                let said = |(at, of, _): &&Refused| at == name && of == tag;
                if refused.iter().any(|r| said(&r)) {
                    seat.tries.insert(*tag, TRIES);
                } else if let Some(unsure) = seat.unsure.as_mut().filter(|_| sure.contains(tag)) {
                    // from now on it is as it was made
                    unsure.remove(tag);
                }
            }
        }
        let mut news = Vec::new();
        for (name, tag, why) in refused {
            let key = (name.clone(), *tag);
            let known = before.get(&key).is_some_and(|all| all.contains(why));
            let all = self.refusals.entry(key).or_default();
            if !all.contains(why) {
                all.push(why.clone());
                if !known {
                    news.push((name.clone(), *tag, why.clone()));
                }
            }
        }
        news
    }

    /// What its switches say of a slice; none while one of them is being read or worked on for it.
    /// `there` says which of them are connected still.
    pub(super) fn told(&self, intent: &Intent, there: impl Fn(&Name, &S) -> bool) -> Option<Told> {
        let tree = || {
            let tree = self.wish.as_ref()?.trees.get(&intent.tag)?;
            Some(
                tree.iter()
                    .filter_map(|name| self.seats.get_key_value(name)),
            )
        };
        let open = |(name, seat): (&Name, &Seat<S>)| {
            let works = seat.under_way.values();
            let busy = || works.clone().any(|work| work.tags.contains(&intent.tag));
            (!seat.fresh() || busy()) && there(name, &seat.session)
        };
        if tree().into_iter().flatten().any(open) {
            return None;
        }
        let mut told = Told::default();
        let slice = Some(intent.slice);
        for name in intent.switches() {
            let seat = self.seats.get(name);
            let Some(seat) = seat.filter(|seat| there(name, &seat.session)) else {
                continue;
            };
            let look = seat.look.as_ref()?;
            told.seen.insert(name.clone());
            let mut error = |why: String| told.errors.push((name.clone(), slice, why));
            let refusals = self.refusals.get(&(name.clone(), intent.tag));
            refusals.into_iter().flatten().cloned().for_each(&mut error);
            let own = |of: Uuid| of == intent.slice;
            for down in look.down.iter().filter(|down| own(down.slice)) {
                error(down.reason.clone());
            }
            for refusal in look.refused.iter().filter(|r| own(r.slice)) {
                error(format!("{name}: {}", refusal.reason));
            }
            let part = look.changes.parts.get(&intent.tag);
            let differences = part.into_iter().flat_map(|part| &part.differences);
            for of in differences.filter(|d| d.slice == slice) {
                error(format!("{} on the switch {name}: {}", of.kind, of.what));
            }
        }
        Some(told)
    }
}
