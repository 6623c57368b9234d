//! The rules of one slice at every switch of its tree.

use super::{
    ACCESS, Exit, FORWARD, FlowKey, GROUP, GroupSpec, Guard, GuardKey, MeterSpec, Program,
    Programs, Purpose, Refusal, Rule, Then,
    access::{self, Entering, Judgement},
    frames, single,
};
use crate::fabric::{
    Attached, Intent,
    network::{Network, Place, PortRef},
};
use dtn_api::{MacAddress, Name, slice::Class};
use dtn_openflow::Match;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use uuid::Uuid;

/// What all switches shall hold for these slices. A slice that cannot be programmed is in no switch
/// at all; of two that cannot be told apart the one with the higher id is left out.
pub fn programs(network: &Network, intents: &[Intent]) -> Programs {
    let mut all = Programs {
        switches: network
            .switches
            .iter()
            .map(|switch| (switch.name.clone(), Program::default()))
            .collect(),
        refused: Vec::new(),
    };
    for Place { switch, port } in trunks(network) {
        if let Some(program) = all.switches.get_mut(switch) {
            program.trunks.insert(port.clone());
        }
    }
    let mut taken = Taken::default();
    let mut intents: Vec<&Intent> = intents.iter().collect();
    intents.sort_by_key(|intent| intent.slice);
    for intent in intents {
        let written = taken
            .admits(network, intent)
            .and_then(|()| Tree::of(network, intent))
            .and_then(|tree| {
                let names = tree.switches.keys();
                let mut own = names.map(|n| ((*n).clone(), Program::default())).collect();
                write(&tree, intent, &mut own);
                single::fold(network, intent, &mut own)?;
                Ok(own)
            });
        match written {
            Ok(own) => {
                taken.take(intent);
                for (name, own) in own {
                    let program = all.switches.entry(name).or_default();
                    program.flows.extend(own.flows);
                    program.groups.extend(own.groups);
                    program.guards.extend(own.guards);
                }
                // its gateway alone is shut: members among themselves go on
                let shut = intent.access.as_ref().and_then(access::refusal);
                let slice = intent.slice;
                all.refused
                    .extend(shut.map(|reason| Refusal { slice, reason }));
            }
            Err(reason) => all.refused.push(Refusal {
                slice: intent.slice,
                reason,
            }),
        }
    }
    all
}

/// The ports of cables and borders.
fn trunks(network: &Network) -> impl Iterator<Item = &Place> {
    let cables = network.cables.iter().flat_map(|cable| &cable.ends);
    cables.chain(network.borders.iter().filter_map(|b| b.at.as_ref()))
}

/// What tells slices apart, by who has it.
#[derive(Default)]
struct Taken<'a> {
    tags: BTreeMap<u16, &'a Name>,
    labels: BTreeMap<(&'a Place, u16), &'a Name>,
    members: BTreeMap<(&'a Place, MacAddress), &'a Name>,
}
impl<'a> Taken<'a> {
    fn admits(&self, network: &Network, intent: &Intent) -> Result<(), String> {
        let vlan = |what: &str, value: u16| match value {
            1..=4094 => Ok(()),
            _ => Err(format!("its {what} {value} is no VLAN (1 to 4094)")),
        };
        vlan("tag", intent.tag)?;
        if let Some(other) = self.tags.get(&intent.tag) {
            return Err(format!("its tag {} is slice {other}'s", intent.tag));
        }
        if intent.class != Class::BestEffort && intent.rate_bps == 0 {
            return Err("it promises a rate and the rate is 0".into());
        }
        if let Some(border) = &intent.border {
            vlan("border label", border.label)?;
            if let Some(other) = self.labels.get(&(&border.at, border.label)) {
                return Err(format!(
                    "its label {} on border {} is slice {other}'s",
                    border.label, border.link
                ));
            }
        }
        let trunks: BTreeSet<&Place> = trunks(network)
            .chain(intent.border.iter().map(|border| &border.at))
            .collect();
        let mut macs = BTreeSet::new();
        for Attached { mac, at, .. } in &intent.members {
            if !mac.is_unicast() {
                return Err(format!("{mac} at {at} is no hardware address of a station"));
            }
            if !macs.insert(mac) {
                return Err(format!("{mac} is a member of it twice"));
            }
            if trunks.contains(at) {
                return Err(format!(
                    "{mac} is at {at}, which is a cable's or a border's port"
                ));
            }
            if let Some(other) = self.members.get(&(at, *mac)) {
                return Err(format!("{mac} at {at} is slice {other}'s member already"));
            }
        }
        Ok(())
    }
    fn take(&mut self, intent: &'a Intent) {
        self.tags.insert(intent.tag, &intent.name);
        if let Some(border) = &intent.border {
            self.labels.insert((&border.at, border.label), &intent.name);
        }
        for member in &intent.members {
            self.members.insert((&member.at, member.mac), &intent.name);
        }
    }
}

/// The switches of a slice, each with its ports on the cables to its neighbours.
struct Tree<'a> {
    switches: BTreeMap<&'a Name, BTreeMap<&'a Name, &'a PortRef>>,
}
impl<'a> Tree<'a> {
    fn of(network: &'a Network, intent: &'a Intent) -> Result<Self, String> {
        let ends = intent
            .members
            .iter()
            .map(|member| &member.at.switch)
            .chain(intent.border.iter().map(|border| &border.at.switch));
        let mut switches: BTreeMap<&Name, BTreeMap<&Name, &PortRef>> = ends
            .chain(intent.cables.iter().flatten())
            .map(|name| (name, BTreeMap::new()))
            .collect();
        if let Some(name) = switches.keys().find(|n| network.switch(n).is_none()) {
            return Err(format!("switch {name} is not in the network"));
        }
        for [a, b] in &intent.cables {
            for (from, to) in [(a, b), (b, a)] {
                let Some(place) = network.towards(from, to) else {
                    return Err(format!("no cable joins {from} to {to}"));
                };
                switches.entry(from).or_default().insert(to, &place.port);
            }
        }
        let tree = Self { switches };
        let Some(first) = tree.switches.keys().next() else {
            return Ok(tree);
        };
        let reached = tree.towards(first);
        if let Some(apart) = tree
            .switches
            .keys()
            .find(|name| *name != first && !reached.contains_key(*name))
        {
            return Err(format!("its cables do not join {first} to {apart}"));
        }
        // connected and one cable fewer than switches is a tree (the two directions of each count)
        let cables: usize = tree.switches.values().map(BTreeMap::len).sum();
        if cables / 2 >= tree.switches.len() {
            return Err("its cables make a ring, in which a broadcast would not end".into());
        }
        Ok(tree)
    }
    /// From every other switch that is joined to this one: the port that leads towards it.
    fn towards(&self, target: &'a Name) -> BTreeMap<&'a Name, &'a PortRef> {
        let mut ports = BTreeMap::new();
        let mut at = vec![target];
        while let Some(near) = at.pop() {
            for far in self.switches.get(near).into_iter().flat_map(BTreeMap::keys) {
                if *far == target || ports.contains_key(far) {
                    continue;
                }
                if let Some(port) = self.switches.get(far).and_then(|n| n.get(near)) {
                    ports.insert(*far, *port);
                    at.push(far);
                }
            }
        }
        ports
    }
}

/// Writes rules of one slice into one switch.
struct Pen<'a> {
    slice: Uuid,
    tag: u16,
    program: &'a mut Program,
}
impl Pen<'_> {
    fn rule(&mut self, purpose: Purpose, from: Option<&PortRef>, matches: Match, then: Then) {
        let (_, priority) = purpose.place();
        self.numbered(purpose, 0, priority, from, matches, then);
    }
    fn numbered(
        &mut self,
        purpose: Purpose,
        number: u16,
        priority: u16,
        from: Option<&PortRef>,
        matches: Match,
        then: Then,
    ) {
        let (table, _) = purpose.place();
        let key = FlowKey {
            table,
            priority,
            from: from.cloned(),
            matches,
        };
        // what a port that several slices enter by drops, it drops for all of them
        let shared = matches!(purpose, Purpose::Closed | Purpose::Forged);
        let rule = Rule {
            slice: (!shared).then_some(self.slice),
            tag: if shared { 0 } else { self.tag },
            purpose,
            number,
            then,
        };
        self.program.flows.insert(key, rule);
    }
    /// Who may pass the slice's gateway.
    fn judge(&mut self, judgements: Vec<Judgement>) {
        for Judgement {
            purpose,
            number,
            matches,
            then,
        } in judgements
        {
            let priority = match number {
                0 => purpose.place().1,
                number => access::priority(number),
            };
            self.numbered(purpose, number, priority, None, matches, then);
        }
    }
    /// A member's way in, and whatever else its port brings. A gateway brings what others sent too.
    fn admit(&mut self, member: &Attached, guard: Option<MeterSpec>, gateway: bool) {
        let key = GuardKey {
            tag: self.tag,
            mac: member.mac,
        };
        if let Some(spec) = guard {
            let slice = self.slice;
            self.program.guards.insert(key, Guard { slice, spec });
        }
        let admit = |table| Then::Admit {
            guard: guard.map(|_| key),
            table,
        };
        let (mac, from) = (member.mac, Some(&member.at.port));
        let mut v6 = Vec::new();
        for ip in &member.ips {
            self.rule(
                Purpose::Admit,
                from,
                frames::packets(mac, *ip),
                admit(ACCESS),
            );
            if gateway {
                let frames = frames::strangers(mac, *ip);
                self.rule(Purpose::Stranger, from, frames, admit(ACCESS));
            }
            match ip {
                IpAddr::V4(ip) => self.rule(
                    Purpose::Neighbour,
                    from,
                    frames::arp(mac, *ip),
                    admit(FORWARD),
                ),
                IpAddr::V6(ip) => v6.push(*ip),
            }
        }
        if !v6.is_empty() {
            for frames in frames::neighbour_discovery(mac, &v6) {
                self.rule(Purpose::Neighbour, from, frames, admit(FORWARD));
            }
            for frames in frames::any_discovery() {
                self.rule(Purpose::Forged, from, frames, Then::Drop);
            }
        }
        self.rule(Purpose::Closed, from, frames::anything(), Then::Drop);
    }
}

fn write(tree: &Tree<'_>, intent: &Intent, switches: &mut BTreeMap<Name, Program>) {
    let tag = intent.tag;
    let guard = MeterSpec::of(intent);
    let paths: BTreeMap<&Name, BTreeMap<&Name, &PortRef>> = tree
        .switches
        .keys()
        .map(|target| (*target, tree.towards(target)))
        .collect();
    // by the cable that leads towards a switch, with the slice's tag as VLAN
    let onward = |from: &Name, to: &Name| {
        let port = (*paths.get(to)?.get(from)?).clone();
        let label = Some(tag);
        Some(Exit { port, label })
    };
    let access = intent.access.as_ref();
    let gateway = access.map(|access| access.gateway);
    let own = intent.members.iter().find(|m| Some(m.mac) == gateway);
    let own = own.map_or(&[][..], |member| &member.ips);
    for (name, neighbours) in &tree.switches {
        let Some(program) = switches.get_mut(*name) else {
            continue;
        };
        let mut pen = Pen {
            slice: intent.slice,
            tag,
            program,
        };
        let mut exits = BTreeSet::new();
        let mut entering = Entering::default();
        for port in neighbours.values() {
            pen.rule(
                Purpose::Arrive,
                Some(port),
                frames::labelled(tag),
                Then::Arrive { table: FORWARD },
            );
            exits.insert(Exit {
                port: (*port).clone(),
                label: Some(tag),
            });
        }
        for member in &intent.members {
            let (purpose, exit) = if member.at.switch == **name {
                let is = Some(member.mac) == gateway;
                pen.admit(member, guard, is);
                entering.gateway |= is;
                entering.members |= !is;
                let port = member.at.port.clone();
                let exit = Exit { port, label: None };
                // a set: several members behind one port hear a broadcast once
                exits.insert(exit.clone());
                (Purpose::Deliver, exit)
            } else {
                match onward(name, &member.at.switch) {
                    Some(exit) => (Purpose::Onward, exit),
                    None => continue,
                }
            };
            pen.rule(purpose, None, frames::to(tag, member.mac), Then::Out(exit));
        }
        if let Some(border) = &intent.border {
            let exit = if border.at.switch == **name {
                let port = &border.at.port;
                let label = frames::labelled(border.label);
                // always, so that a gateway that comes later is never reached around its rules
                let then = Then::Arrive { table: ACCESS };
                pen.rule(Purpose::Arrive, Some(port), label, then);
                entering.border = true;
                let exit = Exit {
                    port: port.clone(),
                    label: Some(border.label),
                };
                exits.insert(exit.clone());
                Some(exit)
            } else {
                onward(name, &border.at.switch)
            };
            if let Some(exit) = exit {
                pen.rule(Purpose::Beyond, None, frames::to_one(tag), Then::Out(exit));
            }
        }
        if let Some(access) = access.filter(|_| entering != Entering::default()) {
            pen.judge(access::judgements(tag, access, own, entering));
        }
        pen.rule(Purpose::Pass, None, frames::of(tag), Then::Pass);
        for frames in frames::to_all(tag) {
            pen.rule(Purpose::Flood, None, frames, Then::Flood);
        }
        pen.rule(Purpose::Isolate, None, frames::of(tag), Then::Drop);
        let slice = intent.slice;
        let group = GroupSpec { slice, exits };
        pen.program.groups.insert(GROUP | u32::from(tag), group);
    }
}
