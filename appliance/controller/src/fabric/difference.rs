//! What a switch has, held against what it shall have: the messages that make it so, in the order
//! that leaks nothing, and the same in words; apart for every slice, which its tag tells. Pure; called
//! on every look at a switch.
//!
//! Flows without the mark of ours in their cookie are never touched. Those of them that can carry
//! frames are said, since they may do so around the slices. A meter has no mark: one that nothing
//! wants goes, unless a flow of somebody else uses it.

mod changes;

pub use changes::{Changes, Part, STEPS, Step, Steps};

use super::{
    Difference,
    program::{
        ACCESS, ADMIT, COOKIE, COOKIE_MASK, FlowId, GROUP_MASK, Group, Meter, MeterSpec, Purpose,
        Resolved, guards_of, tag_of, text,
    },
};
use dtn_openflow::{
    Action, Bucket, FlowStats, GroupCommand, GroupDesc, GroupKind, GroupMod, Instruction,
    METER_MAX, Message, MeterCommand, MeterConfig, MeterMod, PORT_CONTROLLER,
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What a switch says that it has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Found<'a> {
    /// All its flows, not only those of ours.
    pub flows: &'a [FlowStats],
    /// Its meters.
    pub meters: &'a [MeterConfig],
    /// Its groups.
    pub groups: &'a [GroupDesc],
}

/// What is to be done at this switch, so that it has what is wanted.
pub fn difference(switch: &str, wanted: &Resolved, found: &Found<'_>) -> Changes {
    let mut work = Work {
        switch,
        tag: 0,
        changes: Changes::default(),
    };
    let ours = work.flows(wanted, found.flows);
    work.groups(wanted, found.groups, &used(found.flows, &ours, group_of));
    let foreign = used(found.flows, &ours, meter_of);
    work.meters(wanted, found.meters, &foreign, &owners(found.flows));
    work.changes
}

/// Whose the meters are that flows of ours use.
fn owners(flows: &[FlowStats]) -> BTreeMap<u32, u16> {
    let guards = guards_of(flows).into_iter();
    guards
        .flat_map(|(guard, ids)| ids.into_iter().map(move |id| (id, guard.tag)))
        .collect()
}

/// The ids that flows of somebody else refer to.
fn used(
    flows: &[FlowStats],
    ours: &BTreeSet<FlowId>,
    of: fn(&FlowStats) -> BTreeSet<u32>,
) -> BTreeSet<u32> {
    let foreign = flows.iter().filter(|flow| !ours.contains(&id_of(flow)));
    foreign.flat_map(of).collect()
}
fn meter_of(flow: &FlowStats) -> BTreeSet<u32> {
    let meter = |i: &Instruction| match i {
        Instruction::Meter(id) => Some(*id),
        _ => None,
    };
    flow.instructions.iter().filter_map(meter).collect()
}
fn group_of(flow: &FlowStats) -> BTreeSet<u32> {
    let group = |action: &Action| match action {
        Action::Group(id) => Some(*id),
        _ => None,
    };
    actions(flow).filter_map(group).collect()
}
fn actions(flow: &FlowStats) -> impl Iterator<Item = &Action> {
    flow.instructions.iter().flat_map(|i| match i {
        Instruction::ApplyActions(actions) | Instruction::WriteActions(actions) => {
            actions.as_slice()
        }
        _ => &[],
    })
}

fn id_of(flow: &FlowStats) -> FlowId {
    FlowId {
        table: flow.table_id,
        priority: flow.priority,
        matches: flow.matches.clone(),
    }
}

/// Whether a flow can bring a frame anywhere but to the controller.
fn carries(flow: &FlowStats) -> bool {
    flow.instructions.iter().any(|i| match i {
        Instruction::ApplyActions(actions) | Instruction::WriteActions(actions) => {
            actions.iter().any(|action| match action {
                Action::Output { port, .. } => *port != PORT_CONTROLLER,
                Action::Group(_) | Action::Other { .. } => true,
                _ => false,
            })
        }
        Instruction::GotoTable(_) | Instruction::Other { .. } => true,
        _ => false,
    })
}

/// Whether a rule of the access table is the one that passes on what no access rule is about. It goes
/// with the rules that forward, so that slices without a gateway take no steps of their own.
fn judges_nobody(cookie: u64) -> bool {
    cookie & COOKIE_MASK == COOKIE && cookie as u16 == Purpose::Pass as u16
}

/// Whether a rule of table 0 only carries on what was let in elsewhere.
fn carries_on(cookie: u64) -> bool {
    cookie & COOKIE_MASK == COOKIE && cookie as u16 == Purpose::Transit as u16
}

/// The instructions as we write them: a switch may say them in another order, and say a length for
/// ports that have none.
fn settled(instructions: &[Instruction]) -> Vec<Instruction> {
    let mut settled: Vec<Instruction> = instructions
        .iter()
        .map(|i| match i {
            Instruction::ApplyActions(list) => Instruction::ApplyActions(plain(list)),
            Instruction::WriteActions(list) => Instruction::WriteActions(plain(list)),
            other => other.clone(),
        })
        .collect();
    // the order in which a switch does them (OpenFlow 1.3.5 §5.9)
    settled.sort_by_key(|i| match i {
        Instruction::Meter(_) => 0,
        Instruction::ApplyActions(_) => 1,
        Instruction::ClearActions => 2,
        Instruction::WriteActions(_) => 3,
        Instruction::WriteMetadata { .. } => 4,
        Instruction::GotoTable(_) => 5,
        Instruction::Other { .. } => 6,
    });
    settled
}
fn plain(actions: &[Action]) -> Vec<Action> {
    let plain = |action: &Action| match action {
        Action::Output { port, .. } if *port != PORT_CONTROLLER => Action::Output {
            port: *port,
            max_len: 0,
        },
        other => other.clone(),
    };
    actions.iter().map(plain).collect()
}
/// What the buckets of a group of kind all do; their weights and watches mean nothing there.
fn ways(buckets: &[Bucket]) -> BTreeSet<Vec<Action>> {
    buckets.iter().map(|b| plain(&b.actions)).collect()
}

struct Work<'a> {
    switch: &'a str,
    /// Whose what is looked at is.
    tag: u16,
    changes: Changes,
}
impl Work<'_> {
    fn part(&mut self) -> &mut Part {
        self.changes.parts.entry(self.tag).or_default()
    }
    fn send(&mut self, step: Step, message: Message) {
        if let Some(messages) = self.part().steps.get_mut(step as usize) {
            messages.push(message);
        }
    }
    fn differs(&self, kind: &str, slice: Option<Uuid>, what: String) -> Difference {
        Difference {
            switch: self.switch.to_owned(),
            kind: kind.to_owned(),
            slice,
            what,
        }
    }
    fn say(&mut self, kind: &str, slice: Option<Uuid>, what: String) {
        let difference = self.differs(kind, slice, what);
        self.part().differences.push(difference);
    }

    /// Which flows of the switch are ours, or are where ours shall be.
    fn flows(&mut self, wanted: &Resolved, found: &[FlowStats]) -> BTreeSet<FlowId> {
        let mut have: BTreeMap<FlowId, &FlowStats> = BTreeMap::new();
        for flow in found {
            let id = id_of(flow);
            // one of somebody else's that has the place of ours is replaced like any other
            if flow.cookie & COOKIE_MASK == COOKIE || wanted.flows.contains_key(&id) {
                have.insert(id, flow);
            } else if carries(flow) {
                let what = text::flow(&id, &flow.instructions);
                let foreign = self.differs("foreign", None, what);
                self.changes.foreign.push(foreign);
            }
        }
        for (id, flow) in have
            .iter()
            .filter(|(id, _)| !wanted.flows.contains_key(*id))
        {
            let step = match (id.table, flow.instructions.is_empty()) {
                (ADMIT, _) => Step::Shut,
                (ACCESS, true) => Step::Lift,
                (ACCESS, false) if !judges_nobody(flow.cookie) => Step::Revoke,
                _ => Step::Clear,
            };
            self.tag = tag_of(flow.cookie).unwrap_or(0);
            self.send(step, id.delete());
            self.say("extra", None, text::flow(id, &flow.instructions));
        }
        for (id, flow) in &wanted.flows {
            let kind = match have.get(id) {
                None => "missing",
                Some(is) => {
                    let same = is.cookie == flow.cookie
                        && (is.idle_timeout, is.hard_timeout) == (0, 0)
                        && settled(&is.instructions) == settled(&flow.instructions);
                    if same {
                        continue;
                    }
                    "other"
                }
            };
            let step = match (id.table, flow.instructions.is_empty()) {
                (ADMIT, _) if !carries_on(flow.cookie) => Step::Admit,
                (ACCESS, true) => Step::Deny,
                (ACCESS, false) if !judges_nobody(flow.cookie) => Step::Allow,
                _ => Step::Forward,
            };
            self.tag = tag_of(flow.cookie).unwrap_or(0);
            // who gets into another slice leaves the old one first: its tag may be a new slice's
            // by the time that this step comes
            let before = have.get(id).and_then(|is| tag_of(is.cookie));
            if let Some(before) = before.filter(|before| *before != self.tag) {
                self.changes.moves.insert((before, self.tag));
                if step == Step::Admit {
                    self.send(Step::Shut, id.delete());
                }
            }
            self.send(step, id.add(flow));
            let what = text::flow(id, &flow.instructions);
            let what = match have.get(id) {
                Some(is) => format!("{what}; it is {}", text::flow(id, &is.instructions)),
                None => what,
            };
            self.say(kind, flow.slice, what);
        }
        have.into_keys().collect()
    }

    fn groups(&mut self, wanted: &Resolved, found: &[GroupDesc], foreign: &BTreeSet<u32>) {
        let have: BTreeMap<u32, &GroupDesc> = found.iter().map(|g| (g.group_id, g)).collect();
        for (id, group) in &have {
            let ours = id & GROUP_MASK == super::program::GROUP;
            if ours && !wanted.groups.contains_key(id) && !foreign.contains(id) {
                self.tag = group_tag(*id);
                let message = group_mod(GroupCommand::Delete, *id, Vec::new());
                self.send(Step::Clear, message);
                self.say("extra", None, text::group(*id, &group.buckets));
            }
        }
        for (id, Group { slice, buckets }) in &wanted.groups {
            let (command, kind) = match have.get(id) {
                None => (GroupCommand::Add, "missing"),
                Some(is) if is.kind == GroupKind::All && ways(&is.buckets) == ways(buckets) => {
                    continue;
                }
                Some(_) => (GroupCommand::Modify, "other"),
            };
            self.tag = group_tag(*id);
            let message = group_mod(command, *id, buckets.clone());
            self.send(Step::Furnish, message);
            self.say(kind, Some(*slice), text::group(*id, buckets));
        }
    }

    fn meters(
        &mut self,
        wanted: &Resolved,
        found: &[MeterConfig],
        foreign: &BTreeSet<u32>,
        owners: &BTreeMap<u32, u16>,
    ) {
        let have: BTreeMap<u32, &MeterConfig> = found.iter().map(|m| (m.meter_id, m)).collect();
        // above are the switch's own, for what it sends to the controller
        for (id, meter) in have.range(..=METER_MAX) {
            if !wanted.meters.contains_key(id) && !foreign.contains(id) {
                self.tag = owners.get(id).copied().unwrap_or(0);
                let message = meter_mod(MeterCommand::Delete, *id, None);
                self.send(Step::Retire, message);
                self.say("extra", None, text::meter_of(*id, &meter.bands));
            }
        }
        for (id, Meter { slice, spec, guard }) in &wanted.meters {
            let (command, kind) = match have.get(id) {
                None => (MeterCommand::Add, "missing"),
                Some(is) if MeterSpec::read(is) == Some(*spec) => continue,
                Some(_) => (MeterCommand::Modify, "other"),
            };
            self.tag = guard.tag;
            let message = meter_mod(command, *id, Some(*spec));
            self.send(Step::Furnish, message);
            self.say(kind, Some(*slice), text::meter(*id, *spec));
        }
    }
}

/// Whose a group of ours is.
fn group_tag(id: u32) -> u16 {
    u16::try_from(id & !GROUP_MASK).unwrap_or(0)
}

fn group_mod(command: GroupCommand, group_id: u32, buckets: Vec<Bucket>) -> Message {
    Message::GroupMod(GroupMod {
        command,
        kind: GroupKind::All,
        group_id,
        buckets,
    })
}
fn meter_mod(command: MeterCommand, meter_id: u32, spec: Option<MeterSpec>) -> Message {
    let (flags, bands) = spec.map(MeterSpec::meter).unwrap_or_default();
    Message::MeterMod(MeterMod {
        command,
        flags,
        meter_id,
        bands,
    })
}

#[cfg(test)]
mod tests;
