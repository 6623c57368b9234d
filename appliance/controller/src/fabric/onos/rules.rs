//! Rules as ONOS's REST has them. Pure.
//!
//! The design is that of every fabric with switches; REST can say a part of it only in other words:
//! the tag is in the tunnel id, since no instruction writes metadata; a slice's flood is a list of
//! outputs, so that it needs no group; and ARP is told by the sender's hardware address alone, since
//! no criterion looks into it.

use super::criteria::{criterion, tunnel};
use crate::fabric::program::{FORWARD, GuardKey, Resolved, frames::ARP, number_of};
use dtn_api::{MacAddress, gateway::Count};
use dtn_openflow::{Action, Field, Instruction, VLAN_PRESENT};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use uuid::Uuid;

/// Set in the tunnel id of the mark that says whose the rules of the application are; no slice's
/// tag is that high.
const MARK: u64 = 0x6474_0000_0000;
const MARK_PRIORITY: u16 = 2;

/// A rule's place in a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) device: String,
    pub(super) table: u8,
    pub(super) priority: u16,
    /// What frames must be, in one spelling.
    pub(super) criteria: BTreeSet<String>,
}

/// A rule that shall be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) slice: Option<Uuid>,
    pub(super) criteria: Vec<Value>,
    pub(super) instructions: Vec<Value>,
    /// Whether its meter is there.
    pub(super) ready: bool,
    /// The number of the access rule for which it counts; 0 for what none allows.
    pub(super) number: Option<u16>,
}
impl Wanted {
    /// What it does, in one spelling.
    pub(super) fn treatment(&self) -> Vec<String> {
        treatment(&self.instructions)
    }
    /// As `POST /flows` takes it.
    pub(super) fn body(&self, key: &Key) -> Value {
        json!({
            "priority": key.priority,
            "timeout": 0,
            "isPermanent": true,
            "deviceId": key.device,
            "tableId": key.table,
            "selector": {"criteria": self.criteria},
            "treatment": {"instructions": self.instructions},
        })
    }
}

/// A rule that ONOS has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) key: Key,
    pub(super) id: String,
    pub(super) state: String,
    pub(super) treatment: Vec<String>,
    /// The slice's tag that it looks for or writes.
    pub(super) tag: Option<u64>,
    pub(super) meter: Option<u32>,
    /// What has met it.
    pub(super) count: Count,
    mac: Option<MacAddress>,
}
impl Held {
    /// Whether the switch has it.
    pub(super) fn added(&self) -> bool {
        self.state == "ADDED"
    }
    /// Whose guard its meter is.
    pub(super) fn guard(&self) -> Option<(GuardKey, u32)> {
        let tag = u16::try_from(self.tag?).ok()?;
        Some((
            GuardKey {
                tag,
                mac: self.mac?,
            },
            self.meter?,
        ))
    }
    /// Whose mark it is.
    pub(super) fn mark(&self) -> Option<u32> {
        let tag = self.tag?;
        (self.key.priority == MARK_PRIORITY && tag & !0xffff_ffff == MARK).then_some(tag as u32)
    }
    /// In words.
    pub(super) fn words(&self) -> String {
        words(&self.key, &self.treatment)
    }
}

/// A rule in words.
pub(super) fn words(key: &Key, treatment: &[String]) -> String {
    let criteria: Vec<&str> = key.criteria.iter().map(String::as_str).collect();
    let then = match treatment {
        [] => "drop".to_owned(),
        some => some.join(", "),
    };
    format!(
        "table {} priority {} {} -> {then}",
        key.table,
        key.priority,
        criteria.join(" ")
    )
}

/// The mark of an owner on a device: a rule that no frame meets.
pub(super) fn mark(device: &str, owner: u32) -> (Key, Wanted) {
    let criteria = vec![tunnel(MARK | u64::from(owner))];
    let key = Key {
        device: device.to_owned(),
        table: FORWARD,
        priority: MARK_PRIORITY,
        criteria: spelled(&criteria),
    };
    let instructions = vec![json!({"type": "NOACTION"})];
    (
        key,
        Wanted {
            slice: None,
            criteria,
            instructions,
            ready: true,
            number: None,
        },
    )
}

/// What a device shall hold. Where ONOS answers ARP itself, slices do not see any.
pub(super) fn rules(
    device: &str,
    resolved: &Resolved,
    proxyarp: bool,
) -> Result<BTreeMap<Key, Wanted>, String> {
    let mut rules = BTreeMap::new();
    for (id, flow) in &resolved.flows {
        if proxyarp && id.matches.0.contains(&Field::EthType(ARP)) {
            continue;
        }
        let mut criteria = Vec::new();
        for field in &id.matches.0 {
            criteria.extend(criterion(field)?);
        }
        let mut instructions = Vec::new();
        for instruction in &flow.instructions {
            said(instruction, resolved, &mut instructions)?;
        }
        if instructions.is_empty() {
            instructions.push(json!({"type": "NOACTION"}));
        }
        let key = Key {
            device: device.to_owned(),
            table: id.table,
            priority: id.priority,
            criteria: spelled(&criteria),
        };
        let ready = !flow.instructions.contains(&Instruction::Meter(0));
        // a member's several addresses are one rule for ARP
        rules.insert(
            key,
            Wanted {
                slice: flow.slice,
                criteria,
                instructions,
                ready,
                number: number_of(flow.cookie),
            },
        );
    }
    Ok(rules)
}

fn said(
    instruction: &Instruction,
    resolved: &Resolved,
    into: &mut Vec<Value>,
) -> Result<(), String> {
    match instruction {
        Instruction::Meter(id) => into.push(json!({"type": "METER", "meterId": id.to_string()})),
        Instruction::GotoTable(table) => into.push(json!({"type": "TABLE", "tableId": table})),
        Instruction::WriteMetadata { value, .. } => {
            into.push(json!({"type": "L2MODIFICATION", "subtype": "TUNNEL_ID", "tunnelId": value}));
        }
        Instruction::ApplyActions(actions) => {
            for action in actions {
                match action {
                    Action::Group(id) => flood(*id, resolved, into)?,
                    other => into.push(act(other)?),
                }
            }
        }
        other => return Err(format!("ONOS's REST has no instruction for {other:?}")),
    }
    Ok(())
}

/// A group's exits one after another: first those without a tag, then those with it, which take it
/// on once.
fn flood(group: u32, resolved: &Resolved, into: &mut Vec<Value>) -> Result<(), String> {
    let buckets = resolved
        .groups
        .get(&group)
        .map(|g| g.buckets.as_slice())
        .unwrap_or_default();
    let pushes = |actions: &[Action]| actions.iter().any(|a| matches!(a, Action::PushVlan(_)));
    let (tagged, plain): (Vec<_>, Vec<_>) = buckets.iter().partition(|b| pushes(&b.actions));
    let mut pushed = false;
    for bucket in plain.into_iter().chain(tagged) {
        for action in &bucket.actions {
            if matches!(action, Action::PushVlan(_)) {
                if pushed {
                    continue;
                }
                pushed = true;
            }
            into.push(act(action)?);
        }
    }
    Ok(())
}

fn act(action: &Action) -> Result<Value, String> {
    let l2 = |subtype: &str| json!({"type": "L2MODIFICATION", "subtype": subtype});
    Ok(match action {
        Action::Output { port, .. } => json!({"type": "OUTPUT", "port": port.to_string()}),
        Action::PopVlan => l2("VLAN_POP"),
        Action::PushVlan(kind) => {
            let mut push = l2("VLAN_PUSH");
            push["ethernetType"] = json!(format!("0x{kind:x}"));
            push
        }
        Action::SetField(Field::VlanVid { value, .. }) => {
            let mut set = l2("VLAN_ID");
            set["vlanId"] = json!(value & !VLAN_PRESENT);
            set
        }
        other => return Err(format!("ONOS's REST has no instruction for {other:?}")),
    })
}

/// One spelling of each: ONOS writes numbers as text and the other way round.
fn spelled(criteria: &[Value]) -> BTreeSet<String> {
    criteria.iter().map(spelling).collect()
}
fn spelling(value: &Value) -> String {
    let Some(object) = value.as_object() else {
        return word(value);
    };
    let part = |name: &str| object.get(name).map(word);
    let head = part("subtype").or_else(|| part("type")).unwrap_or_default();
    let mut rest: Vec<String> = object
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "type" | "subtype"))
        .map(|(name, value)| format!("{name}={}", word(value)))
        .collect();
    rest.sort();
    [head].into_iter().chain(rest).collect::<Vec<_>>().join(" ")
}
fn word(value: &Value) -> String {
    let Some(text) = value.as_str() else {
        return value.to_string();
    };
    if let Ok(ip) = text.parse::<IpAddr>() {
        ip.to_string()
    } else if let Ok(net) = text.parse::<IpNet>() {
        net.to_string()
    } else {
        text.to_ascii_lowercase()
    }
}
/// Actions in their order, then meter and table, which have none.
fn treatment(instructions: &[Value]) -> Vec<String> {
    let kind = |v: &Value| {
        v.get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let mut list: Vec<(u8, String)> = instructions
        .iter()
        .filter_map(|value| {
            let order = match kind(value).as_str() {
                "NOACTION" => return None,
                "METER" => 1,
                "TABLE" => 2,
                _ => 0,
            };
            Some((order, spelling(value)))
        })
        .collect();
    list.sort_by_key(|(order, _)| *order);
    list.into_iter().map(|(_, text)| text).collect()
}

/// The rules in an answer of `GET /flows/…`; what cannot be read is no rule of ours.
pub(super) fn read(answer: &Value) -> Vec<Held> {
    let flows = answer.get("flows").and_then(Value::as_array);
    flows.into_iter().flatten().filter_map(one).collect()
}
/// A number that ONOS may write as text.
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
/// The id of a meter in an answer, where ONOS writes it in hexadecimal; what it is told, in paths and in
/// rules, it reads in decimal.
pub(super) fn meter_id(value: &Value) -> Option<u32> {
    u32::from_str_radix(value.as_str()?, 16).ok()
}
/// An instruction of an answer as it would be told.
fn as_told(mut instruction: Value) -> Value {
    if instruction.get("type") == Some(&json!("METER"))
        && let Some(id) = instruction.get("meterId").and_then(meter_id)
    {
        instruction["meterId"] = json!(id.to_string());
    }
    instruction
}
fn one(flow: &Value) -> Option<Held> {
    let list = |outer: &str, inner: &str| {
        let list = flow.get(outer).and_then(|o| o.get(inner)?.as_array());
        list.cloned().unwrap_or_default()
    };
    let text = |name: &str| flow.get(name).and_then(Value::as_str).map(str::to_owned);
    let small = |name: &str| flow.get(name).and_then(number);
    let criteria = list("selector", "criteria");
    let instructions: Vec<Value> = list("treatment", "instructions")
        .into_iter()
        .map(as_told)
        .collect();
    let field = |of: &[Value], kind: &str, name: &str| {
        let is = |v: &&Value| [v.get("type"), v.get("subtype")].contains(&Some(&json!(kind)));
        of.iter().find(is).and_then(|v| v.get(name)).cloned()
    };
    let tag = field(&criteria, "TUNNEL_ID", "tunnelId")
        .or_else(|| field(&instructions, "TUNNEL_ID", "tunnelId"));
    let mac = field(&criteria, "ETH_SRC", "mac");
    let meter = field(&instructions, "METER", "meterId");
    Some(Held {
        key: Key {
            device: text("deviceId")?,
            table: small("tableId")?.try_into().ok()?,
            priority: small("priority")?.try_into().ok()?,
            criteria: spelled(&criteria),
        },
        id: text("id")?,
        state: text("state")?,
        treatment: treatment(&instructions),
        tag: tag.as_ref().and_then(number),
        meter: meter
            .as_ref()
            .and_then(number)
            .and_then(|id| id.try_into().ok()),
        count: Count {
            packets: small("packets").unwrap_or_default(),
            bytes: small("bytes").unwrap_or_default(),
        },
        mac: mac
            .as_ref()
            .and_then(|m| m.as_str()?.to_ascii_lowercase().parse().ok()),
    })
}
