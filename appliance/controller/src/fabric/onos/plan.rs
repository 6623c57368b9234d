//! What is to be done in ONOS, from what it has and what is wanted. Pure; it is asked again until
//! nothing is left, and each time gives only what may be done now: what forwards before what admits,
//! a rule only once its meter is there, a meter away only when no rule has it any more.

use super::{
    access::{Order, shut},
    rules::{Held, Key, Wanted, mark, rules, words},
    survey::{Survey, device},
};
use crate::fabric::{
    Counters, Difference, Intent,
    network::Network,
    program::{ADMIT, GuardKey, MeterSpec, programs, resolve},
};
use dtn_api::{Name, gateway::Count};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;

/// Longest time that something may be on its way to a switch: what ONOS gives an operation before
/// it forgets about it without a word.
pub(super) const PENDING: Duration = Duration::from_secs(30);

/// What is known between two looks.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Which meter is whose: rules of ours say so, and what was made says so before them.
    pub(super) made: BTreeMap<(String, GuardKey), u32>,
    /// Meters of ours.
    pub(super) ours: BTreeSet<(String, u32)>,
    /// What is on its way, and since when.
    since: BTreeMap<String, Instant>,
}

/// A meter to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Make {
    pub(super) device: String,
    pub(super) guard: GuardKey,
    pub(super) spec: MeterSpec,
    pub(super) slice: Uuid,
    pub(super) switch: Name,
}

/// What is to be done now, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Rules that admit whom nobody wants.
    pub(super) shut: Vec<Held>,
    /// Other rules that nobody wants.
    pub(super) clear: Vec<Held>,
    pub(super) make: Vec<Make>,
    pub(super) forward: Vec<(Key, Wanted)>,
    pub(super) admit: Vec<(Key, Wanted)>,
    pub(super) retire: Vec<(String, u32)>,
    /// The same in words, with what must wait.
    pub(super) differences: Vec<Difference>,
    /// What is not there yet, by switch and slice.
    pub(super) errors: Vec<(Name, Option<Uuid>, String)>,
    /// What the slices' meters have counted.
    pub(super) counters: BTreeMap<Uuid, Counters>,
    /// What the access rules have decided about, by slice and number.
    pub(super) decided: BTreeMap<(Uuid, u16), Count>,
    /// Rules and meters of ours by switch.
    pub(super) held: BTreeMap<Name, (u64, u64)>,
    /// Whether something is on its way to a switch that is there.
    waiting: bool,
}
impl Plan {
    /// Whether there is nothing to do and nothing to wait for before ONOS or a switch changes.
    pub(super) fn idle(&self) -> bool {
        !self.waiting
            && self.shut.is_empty()
            && self.clear.is_empty()
            && self.make.is_empty()
            && self.forward.is_empty()
            && self.admit.is_empty()
            && self.retire.is_empty()
    }
    /// Whether all that is wanted is there, and nothing else.
    pub(super) fn settled(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Others whose mark is on the application's rules.
pub(super) fn others(survey: &Survey, owner: u32) -> BTreeSet<u32> {
    survey
        .flows
        .iter()
        .filter_map(Held::mark)
        .filter(|mark| *mark != owner)
        .collect()
}

/// The plan.
pub(super) fn plan(
    network: &Network,
    intents: &[Intent],
    survey: &Survey,
    memory: &mut Memory,
    owner: u32,
    now: Instant,
) -> Plan {
    let remembered = memory.since.clone();
    let mut work = Work {
        network,
        survey,
        now,
        remembered,
        waits: BTreeSet::new(),
        plan: Plan::default(),
    };
    work.remember(memory);
    let (intents, closed) = shut(intents);
    let intents = intents.as_slice();
    let programs = programs(network, intents);
    for refusal in programs.refused.iter().chain(&closed) {
        // told of every switch, so that it is found at the first one
        let intent = intents.iter().find(|intent| intent.slice == refusal.slice);
        let at = intent.and_then(|intent| intent.switches().into_iter().next());
        if let Some(at) = at {
            work.plan
                .errors
                .push((at.clone(), Some(refusal.slice), refusal.reason.clone()));
        }
    }
    let mut wanted = BTreeMap::new();
    let mut used = BTreeSet::new();
    for (name, program) in &programs.switches {
        let Some(id) = network
            .switch(name)
            .map(|switch| device(switch.datapath_id))
        else {
            continue;
        };
        let Some(seen) = survey.devices.get(name) else {
            continue;
        };
        let mut ids = BTreeMap::new();
        for (key, guard) in &program.guards {
            let meter = work.guard(name, &id, *key, guard.spec, guard.slice, memory, &used);
            if let Some(meter) = meter {
                used.insert((id.clone(), meter));
                let added = survey.meters.get(&(id.clone(), meter)).filter(|m| m.added);
                if let Some(meter) = added {
                    let of = work.plan.counters.entry(guard.slice).or_default();
                    of.packets += meter.counters.packets;
                    of.bytes += meter.counters.bytes;
                    of.dropped_packets += meter.counters.dropped_packets;
                    of.dropped_bytes += meter.counters.dropped_bytes;
                }
                ids.insert(*key, if added.is_some() { meter } else { 0 });
            } else {
                ids.insert(*key, 0);
            }
        }
        let (resolved, refused) = resolve(program, &seen.ports, &ids);
        for refusal in refused {
            work.plan
                .errors
                .push((name.clone(), Some(refusal.slice), refusal.reason));
        }
        match rules(&id, &resolved, survey.proxyarp) {
            Ok(rules) => wanted.extend(rules.into_iter().map(|(key, rule)| (key, (name, rule)))),
            Err(why) => work.plan.errors.push((name.clone(), None, why)),
        }
        let (key, rule) = mark(&id, owner);
        wanted.insert(key, (name, rule));
    }
    if survey.proxyarp {
        for intent in intents {
            if let Some(border) = &intent.border {
                let why = "ONOS's proxyarp takes all ARP to itself and knows no member beyond the \
                           border: deactivate org.onosproject.proxyarp, slices carry their ARP \
                           themselves";
                work.plan
                    .errors
                    .push((border.at.switch.clone(), Some(intent.slice), why.into()));
            }
        }
    }
    work.flows(intents, &wanted);
    work.meters(&used, memory);
    work.plan.waiting = !work.waits.is_empty();
    memory.since.retain(|what, _| work.waits.contains(what));
    for what in work.waits {
        memory.since.entry(what).or_insert(now);
    }
    work.plan
}

struct Work<'a> {
    network: &'a Network,
    survey: &'a Survey,
    now: Instant,
    remembered: BTreeMap<String, Instant>,
    waits: BTreeSet<String>,
    plan: Plan,
}
impl Work<'_> {
    /// What rules of ours say of meters.
    fn remember(&self, memory: &mut Memory) {
        for held in &self.survey.flows {
            if let Some((_, id)) = held.guard() {
                memory.ours.insert((held.key.device.clone(), id));
            }
        }
        let there =
            |device: &String, id: u32| self.survey.meters.contains_key(&(device.clone(), id));
        memory.ours.retain(|(device, id)| there(device, *id));
        memory.made.retain(|(device, _), id| there(device, *id));
        // one whose member left before any rule had it
        let made = memory.made.iter();
        memory
            .ours
            .extend(made.map(|((device, _), id)| (device.clone(), *id)));
    }
    fn say(&mut self, switch: &str, kind: &str, slice: Option<Uuid>, what: String) {
        self.plan.differences.push(Difference {
            switch: switch.to_owned(),
            kind: kind.to_owned(),
            slice,
            what,
        });
    }
    /// Notes that something is on its way; in words, since when too long.
    fn wait(&mut self, what: &str, state: &str, memory: Option<Instant>) -> String {
        self.waits.insert(what.to_owned());
        match memory.map(|since| self.now.duration_since(since)) {
            Some(long) if long > PENDING => format!(
                "{what} has failed: ONOS says {state} for {} s, so the switch did not take it",
                long.as_secs()
            ),
            _ => format!("{what} is on its way ({state})"),
        }
    }

    /// The meter of a guard; one is made where there is none.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call, all of different kinds"
    )]
    fn guard(
        &mut self,
        name: &Name,
        device: &str,
        key: GuardKey,
        spec: MeterSpec,
        slice: Uuid,
        memory: &mut Memory,
        used: &BTreeSet<(String, u32)>,
    ) -> Option<u32> {
        let at = (device.to_owned(), key);
        let own = self
            .survey
            .flows
            .iter()
            .filter(|held| held.key.device == device);
        let by_rules = own
            .filter_map(Held::guard)
            .filter(|(of, _)| *of == key)
            .map(|(_, id)| id);
        let known = memory.made.get(&at).copied();
        let fits = |id: &u32| {
            let id = (device.to_owned(), *id);
            self.survey
                .meters
                .get(&id)
                .is_some_and(|m| m.spec == Some(spec))
                && !used.contains(&id)
        };
        let found = known.into_iter().chain(by_rules).find(fits);
        let text = crate::fabric::program::text::meter(found.unwrap_or(0), spec);
        let Some(id) = found else {
            self.plan.errors.push((
                name.clone(),
                Some(slice),
                format!("its meter on {name} is being made"),
            ));
            self.say(name.as_str(), "missing", Some(slice), text);
            if self.survey.devices.get(name).is_some_and(|d| d.available) {
                let (device, switch) = (device.to_owned(), name.clone());
                self.plan.make.push(Make {
                    device,
                    guard: key,
                    spec,
                    slice,
                    switch,
                });
            }
            return None;
        };
        memory.made.insert(at, id);
        let there = (device.to_owned(), id);
        memory.ours.insert(there.clone());
        if self
            .survey
            .meters
            .get(&there)
            .is_some_and(|meter| !meter.added)
        {
            let what = format!("meter {id} of {name}");
            let since = self.since(&what);
            let why = self.wait(&what, "PENDING_ADD", since);
            self.say(name.as_str(), "missing", Some(slice), text);
            self.plan.errors.push((name.clone(), Some(slice), why));
        }
        Some(id)
    }

    fn switch_of(&self, id: &str) -> String {
        let known = self
            .network
            .switches
            .iter()
            .find(|s| device(s.datapath_id) == id);
        known.map_or_else(|| id.to_owned(), |switch| switch.name.to_string())
    }

    fn flows(&mut self, intents: &[Intent], wanted: &BTreeMap<Key, (&Name, Wanted)>) {
        let survey = self.survey;
        let have: BTreeMap<&Key, &Held> =
            survey.flows.iter().map(|held| (&held.key, held)).collect();
        let known: BTreeSet<String> = survey
            .devices
            .keys()
            .filter_map(|name| self.network.switch(name))
            .map(|switch| device(switch.datapath_id))
            .collect();
        let there: BTreeSet<String> = survey
            .devices
            .iter()
            .filter(|(_, seen)| seen.available)
            .filter_map(|(name, _)| self.network.switch(name))
            .map(|switch| device(switch.datapath_id))
            .collect();
        let extra = |held: &&Held| !wanted.contains_key(&held.key) && held.mark().is_none();
        let missing = wanted.iter().filter(|(key, (_, rule))| {
            !have
                .get(key)
                .is_some_and(|h| h.added() && h.treatment == rule.treatment())
        });
        let order = Order::of(
            intents,
            missing.map(|(key, (_, rule))| (key, rule)),
            survey.flows.iter().filter(extra),
        );
        // members that leave and are still let in: their tag goes to nobody before
        let mut leaving = BTreeSet::new();
        for held in &survey.flows {
            if !extra(&held) {
                continue;
            }
            // the ports of a device that ONOS does not have are not known: nothing is said of it
            let configured = self
                .network
                .switches
                .iter()
                .any(|s| device(s.datapath_id) == held.key.device);
            if configured && !known.contains(&held.key.device) {
                continue;
            }
            let step = if held.key.table == ADMIT {
                &mut self.plan.shut
            } else {
                &mut self.plan.clear
            };
            let going = held.state == "PENDING_REMOVE" || held.state == "REMOVED";
            if !going && order.clears(held) {
                step.push(held.clone());
            }
            // what waits for its end, as its meter does, is not left until the next time
            if going && there.contains(&held.key.device) {
                self.waits
                    .insert(format!("{}: {}", held.key.device, held.words()));
            }
            if held.key.table == ADMIT {
                leaving.extend(held.tag);
            }
            let switch = self.switch_of(&held.key.device);
            self.say(&switch, "extra", None, held.words());
        }
        let mut open: BTreeSet<Uuid> = intents
            .iter()
            .filter(|intent| {
                let there = |name: &&Name| survey.devices.get(*name).is_some_and(|d| d.available);
                !intent.switches().iter().all(there) || leaving.contains(&u64::from(intent.tag))
            })
            .map(|intent| intent.slice)
            .collect();
        let mut admits = Vec::new();
        for (key, (name, rule)) in wanted {
            let held = have.get(key).copied();
            let count = self.plan.held.entry((*name).clone()).or_default();
            let same = held.is_some_and(|held| held.treatment == rule.treatment());
            if let Some(held) = held.filter(|held| same && held.added()) {
                count.0 += 1;
                if let (Some(slice), Some(number)) = (rule.slice, rule.number) {
                    *self.plan.decided.entry((slice, number)).or_default() += held.count;
                }
                continue;
            }
            let text = words(key, &rule.treatment());
            let available = survey.devices.get(*name).is_some_and(|d| d.available);
            let (kind, why, send) = match held {
                None => ("missing", "its rules are being made".to_owned(), true),
                Some(_) if !same => ("other", "its rules are being changed".to_owned(), true),
                Some(held) => {
                    let what = format!("on {name}: {text}");
                    let since = self.since(&what);
                    // a rule that has failed is tried again
                    (
                        "missing",
                        self.wait(&what, &held.state, since),
                        held.state != "PENDING_ADD",
                    )
                }
            };
            self.say(name.as_str(), kind, rule.slice, text);
            self.plan.errors.push(((*name).clone(), rule.slice, why));
            if key.table != ADMIT || rule.slice.is_none() {
                open.extend(rule.slice);
                if send && available && order.makes(key, rule) {
                    self.plan.forward.push((key.clone(), rule.clone()));
                }
            } else if send && available && rule.ready {
                admits.push((key.clone(), rule.clone()));
            }
        }
        admits.retain(|(_, rule)| rule.slice.is_some_and(|slice| !open.contains(&slice)));
        self.plan.admit = admits;
    }
    fn since(&self, what: &str) -> Option<Instant> {
        self.remembered.get(what).copied()
    }

    fn meters(&mut self, used: &BTreeSet<(String, u32)>, memory: &Memory) {
        let by_rules: BTreeSet<(String, u32)> = self
            .survey
            .flows
            .iter()
            .filter_map(|held| Some((held.key.device.clone(), held.meter?)))
            .collect();
        for at in &memory.ours {
            if used.contains(at) {
                let name = self.switch_of(&at.0).parse::<Name>();
                if let Ok(name) = name {
                    self.plan.held.entry(name).or_default().1 += 1;
                }
                continue;
            }
            let switch = self.switch_of(&at.0);
            self.say(&switch, "extra", None, format!("meter {}", at.1));
            if !by_rules.contains(at) {
                self.plan.retire.push(at.clone());
            }
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
