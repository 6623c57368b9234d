//! A switch that holds what messages have made, and is as strict as a real one: what refers to
//! something must find it, and what is deleted takes along what refers to it.

use super::Frame;
use crate::fabric::{
    difference::Found,
    program::{ACCESS, FlowId},
};
use dtn_openflow::{
    Action, Field, FlowCommand, FlowStats, Frame as Wire, GroupCommand, GroupDesc, Instruction,
    Message, MeterCommand, MeterConfig,
};
use std::collections::BTreeMap;

/// A switch.
#[derive(Debug, Clone, Default)]
pub(in crate::fabric) struct Held {
    pub(in crate::fabric) flows: BTreeMap<FlowId, FlowStats>,
    pub(in crate::fabric) groups: BTreeMap<u32, GroupDesc>,
    pub(in crate::fabric) meters: BTreeMap<u32, MeterConfig>,
    /// Some of the messages that belong together are still to come.
    pub(in crate::fabric) between: bool,
}

/// What a switch says that it has.
#[derive(Default)]
pub(in crate::fabric) struct Said {
    pub(in crate::fabric) flows: Vec<FlowStats>,
    pub(in crate::fabric) groups: Vec<GroupDesc>,
    pub(in crate::fabric) meters: Vec<MeterConfig>,
}
impl Said {
    pub(in crate::fabric) fn found(&self) -> Found<'_> {
        Found {
            flows: &self.flows,
            groups: &self.groups,
            meters: &self.meters,
        }
    }
}

impl Held {
    pub(in crate::fabric) fn say(&self) -> Said {
        Said {
            flows: self.flows.values().cloned().collect(),
            groups: self.groups.values().cloned().collect(),
            meters: self.meters.values().cloned().collect(),
        }
    }

    /// Does what a message says, after it was on the wire.
    pub(in crate::fabric) fn apply(&mut self, message: &Message) {
        let sent = Wire {
            xid: 1,
            message: message.clone(),
        };
        let read = Wire::decode(&sent.encode()).unwrap();
        assert_eq!(read, sent, "the wire changes it");
        match read.message {
            Message::FlowMod(flow) => {
                let id = FlowId {
                    table: flow.table_id,
                    priority: flow.priority,
                    matches: flow.matches.clone(),
                };
                match flow.command {
                    FlowCommand::Add => {
                        self.refers(&flow.instructions);
                        let stats = FlowStats {
                            table_id: flow.table_id,
                            priority: flow.priority,
                            cookie: flow.cookie,
                            matches: flow.matches,
                            instructions: flow.instructions,
                            ..FlowStats::default()
                        };
                        self.flows.insert(id, stats);
                    }
                    FlowCommand::DeleteStrict => {
                        let ours = |is: &FlowStats| is.cookie & flow.cookie_mask == flow.cookie;
                        if self.flows.get(&id).is_some_and(ours) {
                            self.flows.remove(&id);
                        }
                    }
                    other => panic!("{other:?} is never sent"),
                }
            }
            Message::GroupMod(group) => {
                let id = group.group_id;
                let had = self.groups.remove(&id).is_some();
                match group.command {
                    GroupCommand::Add => assert!(!had, "group {id} is there already"),
                    GroupCommand::Modify => assert!(had, "group {id} is not there"),
                    GroupCommand::Delete => {
                        self.flows.retain(|_, flow| !uses_group(flow, id));
                        return;
                    }
                    GroupCommand::Other(_) => panic!("no such command"),
                }
                let desc = GroupDesc {
                    kind: group.kind,
                    group_id: id,
                    buckets: group.buckets,
                };
                self.groups.insert(id, desc);
            }
            Message::MeterMod(meter) => {
                let id = meter.meter_id;
                let had = self.meters.remove(&id).is_some();
                match meter.command {
                    MeterCommand::Add => assert!(!had, "meter {id} is there already"),
                    MeterCommand::Modify => assert!(had, "meter {id} is not there"),
                    MeterCommand::Delete => {
                        let used = |f: &FlowStats| f.instructions.contains(&Instruction::Meter(id));
                        let users = self.flows.values().filter(|f| used(f)).count();
                        assert_eq!(users, 0, "meter {id} takes flows with it");
                        return;
                    }
                    MeterCommand::Other(_) => panic!("no such command"),
                }
                let config = MeterConfig {
                    flags: meter.flags,
                    meter_id: id,
                    bands: meter.bands,
                };
                self.meters.insert(id, config);
            }
            other => panic!("{other:?} changes nothing"),
        }
    }

    fn refers(&self, instructions: &[Instruction]) {
        for instruction in instructions {
            match instruction {
                Instruction::Meter(id) => assert!(self.meters.contains_key(id), "no meter {id}"),
                Instruction::ApplyActions(actions) => {
                    for action in actions {
                        if let Action::Group(id) = action {
                            assert!(self.groups.contains_key(id), "no group {id}");
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// The meters that a frame meets, and where it goes out as what.
    pub(super) fn run(&self, in_port: u32, mut frame: Frame) -> (Vec<u32>, Vec<(u32, Frame)>) {
        let (mut table, mut metadata) = (0, 0);
        let (mut met, mut out) = (Vec::new(), Vec::new());
        loop {
            let mut matching: Vec<&FlowStats> = self
                .flows
                .values()
                .filter(|flow| flow.table_id == table)
                // fields stand behind what they require, so one that is not true ends the look
                .filter(|f| f.matches.0.iter().all(|m| frame.is(m, in_port, metadata)))
                .collect();
            // of two that stand alike a switch may take either, so the one that lets more pass is taken
            matching.sort_by_key(|flow| {
                let ends = flow.instructions.is_empty();
                (std::cmp::Reverse(flow.priority), ends)
            });
            let Some(flow) = matching.first() else {
                return (met, out);
            };
            if let Some(second) = matching.get(1) {
                // parts of one access rule do the same; while one takes the place of another of its
                // number, either may decide
                assert!(
                    flow.priority != second.priority
                        || flow.instructions == second.instructions
                        || (self.between && table == ACCESS),
                    "{frame:?} meets {flow:?} or {second:?}"
                );
            }
            let mut next = None;
            for instruction in &flow.instructions {
                match instruction {
                    Instruction::Meter(id) => met.push(*id),
                    Instruction::WriteMetadata { value, mask } => {
                        metadata = metadata & !mask | value & mask;
                    }
                    Instruction::ApplyActions(actions) => {
                        self.act(in_port, &mut frame, actions, &mut out);
                    }
                    Instruction::GotoTable(to) => next = Some(*to),
                    other => panic!("no rule of ours has {other:?}"),
                }
            }
            match next {
                Some(to) => {
                    assert!(to > table, "table {to} is not after {table}");
                    table = to;
                }
                None => return (met, out),
            }
        }
    }

    fn act(
        &self,
        in_port: u32,
        frame: &mut Frame,
        actions: &[Action],
        out: &mut Vec<(u32, Frame)>,
    ) {
        for action in actions {
            match action {
                Action::PushVlan(_) => frame.vlans.push(0),
                Action::PopVlan => assert!(frame.vlans.pop().is_some(), "no VLAN to take off"),
                Action::SetField(Field::VlanVid { value, .. }) => {
                    *frame.vlans.last_mut().expect("a VLAN to write") = value & 0xfff;
                }
                // what came from a port never goes back there
                Action::Output { port, .. } if *port == in_port => {}
                Action::Output { port, .. } => out.push((*port, frame.clone())),
                Action::Group(id) => {
                    for bucket in &self.groups[id].buckets {
                        self.act(in_port, &mut frame.clone(), &bucket.actions, out);
                    }
                }
                other => panic!("no rule of ours has {other:?}"),
            }
        }
    }
}

fn uses_group(flow: &FlowStats, id: u32) -> bool {
    flow.instructions.iter().any(|i| match i {
        Instruction::ApplyActions(actions) => actions.contains(&Action::Group(id)),
        _ => false,
    })
}
