//! Which changes at which switches are one piece of work, and which of them may begin: pure.
//!
//! The order of steps holds within a **unit**, and units do not wait for each other. A unit is what is
//! to be done for one slice at the switches of its tree; or for several slices, where a rule goes from
//! one to the other. So a switch that is slow holds up the slices that go through it, and no others.
//!
//! That is enough, since a frame is told by its slice's tag, and comes into a switch of a tree by rules
//! of that tag alone: from members there, from a border there, and from cables of the tree. Once each
//! switch of the tree has shut out what is not wanted, nothing that other switches still hold of the
//! same tag, of a slice that has ended or has been elsewhere, gets in; and no new rule leads there. What
//! such switches hold is taken away at each for itself.
//!
//! What belongs to a port and to no slice (tag 0) drops more than is dropped otherwise, or hands over.
//! It comes with every unit, no later than what it is there for, and goes when nothing else is to be
//! done at the switch.

use crate::fabric::{
    difference::{Changes, Step},
    program::ADMIT,
};
use dtn_api::Name;
use dtn_openflow::Message;
use std::collections::{BTreeMap, BTreeSet};

/// A rule's place in a switch's table of who gets in.
pub(super) type Way = (u16, dtn_openflow::Match);

/// How a switch stands.
#[derive(Debug, Default)]
pub(super) struct Stand<'a> {
    /// What is to be done there; none while it has to be read first.
    pub(super) changes: Option<&'a Changes>,
    /// Tags that are being worked on there.
    pub(super) busy: BTreeSet<u16>,
    /// The ways in that this work makes or takes away.
    pub(super) ways: BTreeSet<&'a Way>,
    /// Tags that are let be for now: it was of no use.
    pub(super) spent: BTreeSet<u16>,
}

/// A piece of work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unit {
    /// Whose rules change.
    pub(super) tags: BTreeSet<u16>,
    /// Where.
    pub(super) switches: BTreeSet<Name>,
    /// Where it is all that is to be done, so that what is of no slice goes with it.
    pub(super) whole: BTreeSet<Name>,
}

impl Stand<'_> {
    /// Nothing that is under way there is in the way of these slices.
    fn free(&self, tags: &BTreeSet<u16>) -> bool {
        self.changes.is_some() && self.busy.is_disjoint(tags)
    }
    /// Something is to be done there for these slices.
    fn differs(&self, tags: &BTreeSet<u16>) -> bool {
        let has = |changes: &Changes| tags.iter().any(|tag| changes.parts.contains_key(tag));
        self.changes.is_some_and(has)
    }
    /// It can be done now.
    fn ready(&self, tags: &BTreeSet<u16>) -> bool {
        let Some(changes) = self.changes else {
            return false;
        };
        // what is under way might undo it
        let crosses = !self.ways.is_empty() && {
            let mut ways = tags.iter().flat_map(|tag| ways(changes, *tag));
            ways.any(|way| self.ways.contains(&way))
        };
        self.free(tags) && self.spent.is_disjoint(tags) && !crosses
    }
}

/// The ways in that are to be made or taken away for a slice.
pub(super) fn ways(changes: &Changes, tag: u16) -> impl Iterator<Item = Way> {
    let steps = changes.parts.get(&tag).map(|part| &part.steps);
    steps.into_iter().flatten().flatten().filter_map(|message| {
        let Message::FlowMod(flow) = message else {
            return None;
        };
        (flow.table_id == ADMIT).then(|| (flow.priority, flow.matches.clone()))
    })
}

/// What may begin now. `trees` has the switches of every slice that is wanted, by its tag; of those
/// that are not in `stands` nothing can be had.
pub(super) fn units(
    stands: &BTreeMap<&Name, Stand<'_>>,
    trees: &BTreeMap<u16, BTreeSet<Name>>,
) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut begin = |tags: &BTreeSet<u16>, switches: BTreeSet<Name>| {
        // what has the same switches waits for nobody else together
        match units.iter_mut().find(|unit| unit.switches == switches) {
            Some(unit) => unit.tags.extend(tags),
            None => units.push(Unit {
                tags: tags.clone(),
                switches,
                whole: BTreeSet::new(),
            }),
        }
    };
    for tags in together(stands) {
        let tree: BTreeSet<&Name> = tags.iter().filter_map(|t| trees.get(t)).flatten().collect();
        let within = || stands.iter().filter(|(name, _)| tree.contains(**name));
        let mut all = BTreeSet::new();
        if within().all(|(_, stand)| stand.free(&tags)) {
            let differs = within().filter(|(_, stand)| stand.differs(&tags));
            all = differs.map(|(name, _)| (*name).clone()).collect();
        }
        let mut changed = all.iter().filter_map(|name| stands.get(name));
        let ready = changed.all(|stand| stand.ready(&tags));
        if ready && !all.is_empty() {
            begin(&tags, all);
        }
        let elsewhere = stands.iter().filter(|(name, _)| !tree.contains(**name));
        for (name, stand) in elsewhere {
            if stand.differs(&tags) && stand.ready(&tags) {
                begin(&tags, BTreeSet::from([(*name).clone()]));
            }
        }
    }
    for (name, stand) in stands {
        let Some(changes) = stand.changes else {
            continue;
        };
        let nobodys = BTreeSet::from([0]);
        if !stand.differs(&nobodys) {
            continue;
        }
        let all: BTreeSet<u16> = changes.parts.keys().copied().filter(|t| *t > 0).collect();
        let mut own = units.iter_mut().filter(|u| u.switches.contains(*name));
        match own.find(|unit| unit.tags.is_superset(&all)) {
            Some(unit) if stand.busy.is_empty() => {
                unit.whole.insert((*name).clone());
            }
            _ if stand.ready(&nobodys) => {
                let whole = all.is_empty() && stand.busy.is_empty();
                let adds = changes.parts.get(&0).is_some_and(|part| {
                    let of = part.steps.get(Step::Admit as usize);
                    of.is_some_and(|messages| !messages.is_empty())
                });
                if whole || adds {
                    let switches = BTreeSet::from([(*name).clone()]);
                    units.push(Unit {
                        tags: nobodys,
                        whole: if whole {
                            switches.clone()
                        } else {
                            BTreeSet::new()
                        },
                        switches,
                    });
                }
            }
            _ => {}
        }
    }
    units
}

/// The tags of which something is to be done, those together of which one takes over from another.
fn together(stands: &BTreeMap<&Name, Stand<'_>>) -> Vec<BTreeSet<u16>> {
    let changes = || stands.values().filter_map(|stand| stand.changes);
    let tags: BTreeSet<u16> = changes().flat_map(|c| c.parts.keys().copied()).collect();
    let mut all: Vec<BTreeSet<u16>> = tags
        .into_iter()
        .filter(|tag| *tag > 0)
        .map(|tag| BTreeSet::from([tag]))
        .collect();
    let moves: BTreeSet<(u16, u16)> = changes().flat_map(|c| &c.moves).copied().collect();
    for (from, to) in moves {
        if from == 0 || to == 0 {
            continue;
        }
        let (joined, rest): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|tags| tags.contains(&from) || tags.contains(&to));
        all = rest;
        // the one that is left may have nothing else to do, and it is in its tree too
        let joined = joined.into_iter().flatten().chain([from, to]);
        all.push(joined.collect());
    }
    all
}
