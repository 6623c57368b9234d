//! A program with the numbers that only a connected switch has: ports and meters.

use super::{
    FORWARD, GuardKey, MeterSpec, Program, Purpose, Refusal, Rule, Then, cookie_of, frames::DOT1Q,
};
use crate::fabric::network::PortRef;
use dtn_openflow::{
    Action, Bucket, CONTROLLER_NO_BUFFER, Field, FlowCommand, FlowMod, Instruction, Match, Message,
    PORT_CONTROLLER, VLAN_PRESENT,
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
};
use uuid::Uuid;

/// A flow's place in a switch; two flows never have the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowId {
    /// Its table.
    pub table: u8,
    /// The higher one wins.
    pub priority: u16,
    /// Which frames, with the port that they come from.
    pub matches: Match,
}

/// What a flow does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The slice; none for a flow of a port that slices share.
    pub slice: Option<Uuid>,
    /// Whose it is and what for ([`cookie_of`]).
    pub cookie: u64,
    /// In the order in which a switch does them (OpenFlow 1.3.5 §5.9); none drops.
    pub instructions: Vec<Instruction>,
}

/// A group of kind `all`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The slice.
    pub slice: Uuid,
    /// An exit each.
    pub buckets: Vec<Bucket>,
}

/// A meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    /// The slice.
    pub slice: Uuid,
    /// Whose guard it is.
    pub guard: GuardKey,
    /// What it lets pass.
    pub spec: MeterSpec,
}

/// What a switch shall hold, as OpenFlow has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The flows.
    pub flows: BTreeMap<FlowId, Flow>,
    /// The groups, by id.
    pub groups: BTreeMap<u32, Group>,
    /// The meters, by id.
    pub meters: BTreeMap<u32, Meter>,
}

impl FlowId {
    /// The message that makes the flow; one that has its place already is replaced at once, without
    /// a moment in which there is none (OpenFlow 1.3.5 §6.4), and keeps its counters.
    pub fn add(&self, flow: &Flow) -> Message {
        Message::FlowMod(FlowMod {
            cookie: flow.cookie,
            instructions: flow.instructions.clone(),
            ..self.change(FlowCommand::Add)
        })
    }
    /// The message that deletes the flow, if its cookie is ours.
    pub fn delete(&self) -> Message {
        Message::FlowMod(FlowMod {
            cookie: super::COOKIE,
            cookie_mask: super::COOKIE_MASK,
            ..self.change(FlowCommand::DeleteStrict)
        })
    }
    fn change(&self, command: FlowCommand) -> FlowMod {
        FlowMod {
            command,
            table_id: self.table,
            priority: self.priority,
            matches: self.matches.clone(),
            ..FlowMod::default()
        }
    }
}

/// A port that a switch does not have.
struct NoPort<'a>(&'a PortRef);
impl fmt::Display for NoPort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the switch has no port {}", self.0)
    }
}

/// What a port is used for. The same port may be written by its name and by its number, which can
/// be told only here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Members are there, without VLAN.
    Member,
    /// A cable or a border is there, and slices are told apart by their VLANs.
    Trunk,
}

struct Ports<'a> {
    numbers: &'a BTreeMap<String, u32>,
    /// How each port of a cable or a border is written.
    trunks: BTreeMap<u32, Vec<&'a PortRef>>,
}
impl<'a> Ports<'a> {
    fn of(numbers: &'a BTreeMap<String, u32>, program: &'a Program) -> Self {
        let mut trunks: BTreeMap<u32, Vec<&PortRef>> = BTreeMap::new();
        for port in &program.trunks {
            if let Ok(number) = number(numbers, port) {
                trunks.entry(number).or_default().push(port);
            }
        }
        Self { numbers, trunks }
    }
    fn number(&self, port: &PortRef, used: Use) -> Result<u32, String> {
        let number = number(self.numbers, port).map_err(|e| e.to_string())?;
        match (used, self.trunks.get(&number).map(Vec::as_slice)) {
            (Use::Member, Some([trunk, ..])) => Err(format!(
                "the port {port} of a member is the port {trunk} of a cable or a border (its \
                 number is {number}): correct the [[port]]"
            )),
            (Use::Trunk, Some(all @ [_, _, ..])) => Err(format!(
                "the ports {} of cables or borders are one port (its number is {number})",
                all.iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" and ")
            )),
            _ => Ok(number),
        }
    }
    fn out(&self, exit: &super::Exit) -> Result<Vec<Action>, String> {
        let used = match exit.label {
            None => Use::Member,
            Some(_) => Use::Trunk,
        };
        let port = self.number(&exit.port, used)?;
        let mut actions = Vec::new();
        if let Some(label) = exit.label {
            let (value, mask) = (label | VLAN_PRESENT, None);
            actions.push(Action::PushVlan(DOT1Q));
            actions.push(Action::SetField(Field::VlanVid { value, mask }));
        }
        actions.push(Action::Output { port, max_len: 0 });
        Ok(actions)
    }
}

fn number<'a>(numbers: &BTreeMap<String, u32>, port: &'a PortRef) -> Result<u32, NoPort<'a>> {
    let number = match port {
        PortRef::Name(name) => numbers.get(name),
        PortRef::Number(number) => numbers.values().find(|have| *have == number),
    };
    number.copied().ok_or(NoPort(port))
}

/// What a rule does; words instead of it when the switch lacks what it needs.
fn instructions(
    rule: &Rule,
    ports: &Ports<'_>,
    meters: &BTreeMap<GuardKey, u32>,
) -> Result<Vec<Instruction>, String> {
    let tagged = Instruction::WriteMetadata {
        value: u64::from(rule.tag),
        mask: u64::MAX,
    };
    let metered = |guard: Option<GuardKey>| {
        let meter = guard.map(|key| match meters.get(&key) {
            Some(id) => Ok(Instruction::Meter(*id)),
            None => Err(format!("the switch has no meter for {}", key.mac)),
        });
        meter.transpose()
    };
    let flood = Action::Group(super::GROUP | u32::from(rule.tag));
    Ok(match &rule.then {
        Then::Admit { guard, table } => {
            let meter = metered(*guard)?;
            let then = [tagged, Instruction::GotoTable(*table)];
            meter.into_iter().chain(then).collect()
        }
        Then::Arrive { table } => vec![
            Instruction::ApplyActions(vec![Action::PopVlan]),
            tagged,
            Instruction::GotoTable(*table),
        ],
        Then::Pass => vec![Instruction::GotoTable(FORWARD)],
        Then::Out(exit) => vec![Instruction::ApplyActions(ports.out(exit)?)],
        Then::Flood => vec![Instruction::ApplyActions(vec![flood])],
        Then::Through {
            guard,
            arrives,
            exit,
        } => {
            let meter = metered(*guard)?;
            let mut actions = Vec::new();
            actions.extend(arrives.then_some(Action::PopVlan));
            match exit {
                Some(exit) => actions.extend(ports.out(exit)?),
                None => actions.push(flood),
            }
            let out = Instruction::ApplyActions(actions);
            meter.into_iter().chain([out]).collect()
        }
        Then::Controller => {
            let (port, max_len) = (PORT_CONTROLLER, CONTROLLER_NO_BUFFER);
            vec![Instruction::ApplyActions(vec![Action::Output {
                port,
                max_len,
            }])]
        }
        Then::Drop => Vec::new(),
    })
}

/// The program with the switch's port numbers, and the meters that [`super::assign`] has given.
/// What needs a port or a meter that is not there is left out and said, with its slice; the rest of
/// the slice works on. A frame for a member whose port is not there is dropped. A member whose port
/// is a cable's or a border's, written otherwise, is left out in the same way.
pub fn resolve(
    program: &Program,
    ports: &BTreeMap<String, u32>,
    meters: &BTreeMap<GuardKey, u32>,
) -> (Resolved, Vec<Refusal>) {
    let ports = Ports::of(ports, program);
    let mut resolved = Resolved::default();
    let mut refused = BTreeSet::new();
    for (key, rule) in &program.flows {
        let mut refuse = |reason: String| {
            refused.extend(rule.slice.map(|slice| Refusal { slice, reason }));
        };
        let used = match rule.purpose {
            Purpose::Arrive | Purpose::Transit | Purpose::Entering | Purpose::Stray => Use::Trunk,
            _ => Use::Member,
        };
        let from = key.from.as_ref().map(|port| ports.number(port, used));
        let from = match from.transpose() {
            Ok(from) => from.map(Field::InPort),
            Err(reason) => {
                refuse(reason);
                continue;
            }
        };
        let instructions = match instructions(rule, &ports, meters) {
            Ok(instructions) => instructions,
            Err(reason) => {
                refuse(reason);
                match rule.then {
                    Then::Admit { .. } => continue,
                    _ => Vec::new(),
                }
            }
        };
        let id = FlowId {
            table: key.table,
            priority: key.priority,
            matches: Match::new(key.matches.0.iter().cloned().chain(from)),
        };
        let flow = Flow {
            slice: rule.slice,
            cookie: cookie_of(rule.tag, rule.purpose, rule.number),
            instructions,
        };
        match resolved.flows.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(flow);
            }
            Entry::Occupied(entry) if *entry.get() != flow => refuse(format!(
                "another slice has this already: {}",
                super::text::flow(entry.key(), &flow.instructions)
            )),
            Entry::Occupied(_) => {}
        }
    }
    for (id, spec) in &program.groups {
        let mut buckets = BTreeSet::new();
        for exit in &spec.exits {
            match ports.out(exit) {
                Ok(actions) => {
                    buckets.insert(Bucket::new(actions));
                }
                Err(reason) => {
                    refused.insert(Refusal {
                        slice: spec.slice,
                        reason,
                    });
                }
            }
        }
        let group = Group {
            slice: spec.slice,
            buckets: buckets.into_iter().collect(),
        };
        resolved.groups.insert(*id, group);
    }
    for (key, guard) in &program.guards {
        if let Some(id) = meters.get(key) {
            let meter = Meter {
                slice: guard.slice,
                guard: *key,
                spec: guard.spec,
            };
            resolved.meters.insert(*id, meter);
        }
    }
    (resolved, refused.into_iter().collect())
}
