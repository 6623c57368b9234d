//! Whatever is done in whatever order: nothing crosses, all is as wanted at the end, and who is slow
//! holds up nobody else. The switches are models that hold what they are told.

use super::{
    Wanted,
    board::{Board, Reading},
    look::Has,
    standing::{Standing, standing},
    wish::Wish,
    work::Work,
};
use crate::fabric::{
    Intent,
    difference::{STEPS, difference},
    program::{
        Programs, programs,
        walk::{
            held::Held,
            properties::holds,
            site::{Site, Wish as Asked, mixed_sites, switch, wishes},
            transitions::nothing_crosses,
        },
    },
};
use dtn_api::{Name, slice::Class};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};
use tokio::time::Instant;

/// Work that is being done: which step, and which of its parts have done it.
struct Doing {
    work: Work<()>,
    step: usize,
    left: Vec<usize>,
}

/// A reading: what the switch had when it was asked.
type Read = (Reading<()>, Option<Has>);

/// Switches, and the board by which they are worked on.
struct World {
    site: Site,
    board: Board<()>,
    held: BTreeMap<Name, Held>,
    programs: Programs,
    reads: Vec<Read>,
    works: Vec<Doing>,
    /// Who does nothing for now.
    slow: BTreeSet<Name>,
    drift: usize,
    number: u64,
    /// It goes on with whatever happens.
    now: Instant,
}

impl World {
    fn new(site: Site) -> Self {
        let mut board = Board::default();
        let mut held = BTreeMap::new();
        for switch in &site.network.switches {
            board.seat(switch.name.clone(), (), 1000);
            let all = Held {
                between: true,
                ..Held::default()
            };
            held.insert(switch.name.clone(), all);
        }
        Self {
            site,
            board,
            held,
            programs: Programs::default(),
            reads: Vec::new(),
            works: Vec::new(),
            slow: BTreeSet::new(),
            drift: 0,
            number: 0,
            now: Instant::now(),
        }
    }
    fn want(&mut self, intents: &[Intent]) {
        self.number += 1;
        let number = self.number;
        let intents = intents.to_vec().into();
        let wanted = Wanted { number, intents };
        self.programs = programs(&self.site.network, &wanted.intents);
        let refused = self.programs.refused.clone();
        let wish = Wish::new(&wanted, refused, self.board.wish.as_ref());
        self.board.want(wish);
        self.begin();
    }
    fn begin(&mut self) {
        for work in self.board.begin() {
            let left = (0..work.parts.len()).collect();
            let mut doing = Doing {
                work,
                step: 0,
                left,
            };
            doing.skip();
            self.works.push(doing);
        }
        self.now += Duration::from_secs(1);
        let reads = self.board.readings(self.now);
        self.reads
            .extend(reads.into_iter().map(|read| (read, None)));
        self.end();
    }
    /// Works that have done all.
    fn end(&mut self) {
        while let Some(n) = self
            .works
            .iter()
            .position(|doing| doing.step == STEPS.len())
        {
            let work = self.works.remove(n).work;
            let part =
                |task: &super::work::Task<()>| (task.name.clone(), task.seat, task.tags.clone());
            let parts: Vec<_> = work.parts.iter().map(part).collect();
            assert!(self.board.ended(work.id, &parts, &[], self.now).is_empty());
            self.begin();
        }
    }
    /// What could happen next: a reading, or a step of a work at a switch.
    fn turns(&self) -> Vec<(bool, usize, usize)> {
        let fast = |name: &Name| !self.slow.contains(name);
        let reads = self.reads.iter().enumerate();
        let reads = reads.filter(|(_, (read, _))| fast(&read.name));
        let reads = reads.map(|(n, _)| (true, n, 0));
        let works = self.works.iter().enumerate().flat_map(|(n, doing)| {
            let parts = doing.left.iter().enumerate();
            let parts = parts.filter(|(_, part)| fast(&doing.work.parts[**part].name));
            parts.map(move |(at, _)| (false, n, at)).collect::<Vec<_>>()
        });
        reads.chain(works).collect()
    }
    /// One of it happens; whether a switch has been changed. None when nothing can happen any more.
    fn turn(&mut self, pick: usize) -> Option<bool> {
        let turns = self.turns();
        let (read, n, at) = *turns.get(pick.checked_rem(turns.len())?)?;
        if read {
            let name = self.reads[n].0.name.clone();
            if self.reads[n].1.is_none() {
                let said = self.held[&name].say();
                self.reads[n].1 = Some(Has {
                    ports: self.site.ports[&name].clone(),
                    off: BTreeSet::new(),
                    flows: said.flows,
                    meters: said.meters,
                    groups: said.groups,
                });
                return Some(false);
            }
            let (reading, has) = self.reads.remove(n);
            let drift = self.board.read(&reading, has.unwrap(), &self.programs);
            self.drift += drift.map_or(0, |drift| drift.len());
            self.begin();
            return Some(false);
        }
        let doing = &mut self.works[n];
        let task = &mut doing.work.parts[doing.left.remove(at)];
        let messages = mem::take(&mut task.steps[doing.step]);
        let held = self.held.get_mut(&task.name).unwrap();
        for (_, message) in &messages {
            held.apply(message);
        }
        if doing.left.is_empty() {
            doing.step += 1;
            doing.skip();
        }
        self.end();
        Some(!messages.is_empty())
    }
    /// Until nothing can happen any more.
    fn run(&mut self) {
        let mut turns = 0;
        while self.turn(turns * 7).is_some() {
            turns += 1;
            assert!(turns < 100_000, "it does not end");
        }
    }
    fn stands(&self, intent: &Intent) -> Option<Standing> {
        let told = self.board.told(intent, |_, _| true)?;
        Some(standing(intent, &told))
    }
}
impl Doing {
    /// On to the next step in which there is something to be done.
    fn skip(&mut self) {
        let has = |task: &super::work::Task<()>, step: usize| !task.steps[step].is_empty();
        let next = (self.step..STEPS.len())
            .find(|step| self.work.parts.iter().any(|task| has(task, *step)));
        self.step = next.unwrap_or(STEPS.len());
        let parts = self.work.parts.iter().enumerate();
        let with = parts.filter(|(_, task)| self.step < STEPS.len() && has(task, self.step));
        self.left = with.map(|(n, _)| n).collect();
    }
}

fn intents(site: &Site, wishes: &[Asked]) -> Vec<Intent> {
    wishes.iter().map(|wish| site.intent(wish)).collect()
}

/// Nothing is left to be done at any switch.
fn done(world: &World, all: &[Intent]) {
    let (wanted, _) = world.site.wanted(all, &world.held);
    for (name, resolved) in &wanted {
        let said = world.held[name].say();
        let changes = difference(name.as_str(), resolved, &said.found());
        assert!(changes.is_empty(), "{name}: {changes:#?}");
        assert_eq!(said.meters.len(), resolved.meters.len());
    }
    for intent in all {
        assert_eq!(world.stands(intent), Some(Standing::Programmed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// From one wish to the next and, before that is done, to another one; some switches answer late,
    /// others at once, and each step may be done at any switch of a work first.
    #[test]
    fn nothing_crosses_whoever_is_first(
        site in mixed_sites(),
        old in wishes(1..4),
        new in wishes(3..6),
        last in wishes(5..8),
        picks in proptest::collection::vec((any::<u16>(), 0..8_u8), 400),
    ) {
        let [old, new, asked] = [&old, &new, &last].map(|wishes| intents(&site, wishes));
        let all: Vec<Intent> = old.iter().chain(&new).chain(&asked).cloned().collect();
        let mut world = World::new(site);
        let names: Vec<Name> = world.held.keys().cloned().collect();
        world.want(&old);
        world.run();
        done(&world, &old);
        world.want(&new);
        let half = picks.len() / 2;
        for (n, (pick, change)) in picks.into_iter().enumerate() {
            if n == half {
                world.want(&asked);
            }
            if change == 0 {
                // who was slow goes on, and another one is slow
                world.slow = BTreeSet::from([names[usize::from(pick) % names.len()].clone()]);
            }
            if world.turn(pick.into()) == Some(true) {
                nothing_crosses(&world.site, &world.held, &all);
            }
        }
        world.slow.clear();
        world.run();
        done(&world, &asked);
        world.held.values_mut().for_each(|held| held.between = false);
        holds(&world.site, &world.held, &last);
        prop_assert_eq!(world.drift, 0, "nobody else was there");
    }

    /// A switch that does nothing holds up the slices that go through it and no others.
    #[test]
    fn who_is_slow_holds_up_nobody_else(
        site in mixed_sites(),
        old in wishes(1..4),
        slow in any::<prop::sample::Index>(),
        rate in 1_u64..1 << 40,
    ) {
        let mut world = World::new(site);
        let before = intents(&world.site, &old);
        let name = world.held.keys().nth(slow.index(world.held.len())).unwrap().clone();
        world.slow = [name.clone()].into();
        let elsewhere = |world: &World, all: &[Intent]| {
            for intent in all {
                let through = intent.switches().contains(&name);
                let stands = world.stands(intent) == Some(Standing::Programmed);
                assert_eq!(stands, !through, "{}", intent.name);
            }
        };
        // it has not been read yet
        world.want(&before);
        world.run();
        elsewhere(&world, &before);
        world.slow.clear();
        world.run();
        done(&world, &before);
        // it has, and other rates and other slices with the same tags are wanted
        world.slow = [name.clone()].into();
        let mut new = old;
        for wish in &mut new {
            wish.slice += 10;
            wish.rate_bps = rate;
        }
        let after = intents(&world.site, &new);
        world.want(&after);
        world.run();
        elsewhere(&world, &after);
        world.slow.clear();
        world.run();
        done(&world, &after);
        prop_assert_eq!(world.drift, 0);
    }
}

/// Two slices, of two switches that have nothing to do with each other.
fn two() -> (World, [Intent; 2]) {
    let site = Site::of(&[0, 0]);
    let slice = |slice, host| {
        site.intent(&Asked {
            slice,
            tag: u16::try_from(slice).unwrap(),
            class: Class::Guaranteed,
            rate_bps: 1_000_000,
            // two ports of one switch
            hosts: [host, host + 3].into(),
            label: None,
        })
    };
    let both = [slice(1, 1), slice(2, 2)];
    (World::new(site), both)
}

#[test]
fn what_a_wish_does_not_touch_is_not_read_again() {
    let (mut world, [red, blue]) = two();
    world.want(std::slice::from_ref(&red));
    world.run();
    world.want(&[red.clone(), blue.clone()]);
    let read: Vec<Name> = world
        .reads
        .iter()
        .map(|(read, _)| read.name.clone())
        .collect();
    assert_eq!(read, [switch(2)]);
    world.run();
    done(&world, &[red, blue]);
}

#[test]
fn what_is_deleted_while_work_is_under_way_is_told_and_made_good() {
    let (mut world, [red, blue]) = two();
    world.want(std::slice::from_ref(&red));
    world.run();
    let mut faster = red.clone();
    faster.rate_bps *= 2;
    world.want(&[faster.clone(), blue.clone()]);
    // the switch has been read for the new wish, and somebody is there before all is done
    while world.works.is_empty() {
        world.turn(0);
    }
    let own = world.held.get_mut(&switch(1)).unwrap();
    own.flows.retain(|id, _| id.table != 20);
    world.run();
    assert!(world.drift > 0);
    done(&world, &[faster, blue]);
}

#[test]
fn what_was_begun_for_an_older_wish_is_nobodys_doing() {
    let (mut world, [red, _]) = two();
    world.want(std::slice::from_ref(&red));
    world.run();
    let [mut faster, mut fastest] = [red.clone(), red];
    faster.rate_bps *= 2;
    fastest.rate_bps *= 3;
    world.want(&[faster]);
    while world.works.is_empty() {
        world.turn(0);
    }
    world.want(std::slice::from_ref(&fastest));
    world.run();
    done(&world, &[fastest]);
    assert_eq!(world.drift, 0);
}
