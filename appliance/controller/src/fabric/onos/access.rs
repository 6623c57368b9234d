//! Access rules through ONOS: what REST can say of them, and in which order they change. Pure.
//!
//! REST takes a mask on ports and says of it only that there is one: in ONOS 2.5 the codec's entries
//! for the masked criteria are written over by those for what it does not know. Rules that differ in
//! their masks alone could not be told apart when they are read back, so a range of ports is refused.
//!
//! ONOS orders nothing within a call, and says later, or never, that a switch has a rule. So what
//! drops goes in, and has been read back, before what lets pass, and before there is a way to the
//! gateway; what is not wanted any more goes when all that is wanted is there, what drops last.

use super::rules::{Held, Key, Wanted};
use crate::fabric::{
    Intent,
    program::{ACCESS, FORWARD, Refusal, access},
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What is wanted with the gateways shut whose rules ONOS cannot have, and why.
pub(super) fn shut(intents: &[Intent]) -> (Vec<Intent>, Vec<Refusal>) {
    let mut refused = Vec::new();
    let mut intents = intents.to_vec();
    for intent in &mut intents {
        let Some(access) = &mut intent.access else {
            continue;
        };
        let ranges = access.rules.iter().find(|rule| access::has_ranges(rule));
        if let Some(rule) = ranges {
            refused.push(Refusal {
                slice: intent.slice,
                reason: format!(
                    "access rule {} has a range of ports, which ONOS's REST does not give back as \
                     it was written, so the gateway is shut: name the ports one by one, or leave \
                     them out",
                    rule.priority
                ),
            });
            access.rules.clear();
        }
    }
    (intents, refused)
}

/// What of the access rules has to wait for what.
#[derive(Debug, Default)]
pub(super) struct Order {
    slices: BTreeMap<u64, Uuid>,
    /// Where rules that drop are not there yet.
    drops: BTreeSet<(String, Uuid)>,
    /// Where rules of the access table that let pass are not there yet.
    passes: BTreeSet<(String, Uuid)>,
    /// Tags that have rules which forward and are not wanted.
    ways: BTreeSet<u64>,
    /// Where rules of the access table that let pass are not wanted.
    surplus: BTreeSet<(String, u64)>,
}
impl Order {
    pub(super) fn of<'a>(
        intents: &[Intent],
        missing: impl Iterator<Item = (&'a Key, &'a Wanted)>,
        extra: impl Iterator<Item = &'a Held>,
    ) -> Self {
        let mut order = Self {
            slices: intents.iter().map(|i| (i.tag.into(), i.slice)).collect(),
            ..Self::default()
        };
        for (key, rule) in missing.filter(|(key, _)| key.table == ACCESS) {
            let at = rule.slice.map(|slice| (key.device.clone(), slice));
            match rule.treatment().is_empty() {
                true => order.drops.extend(at),
                false => order.passes.extend(at),
            }
        }
        for held in extra {
            match held.key.table {
                FORWARD => order.ways.extend(held.tag),
                ACCESS if !held.treatment.is_empty() => {
                    let at = held.tag.map(|tag| (held.key.device.clone(), tag));
                    order.surplus.extend(at);
                }
                _ => {}
            }
        }
        order
    }
    /// Whether a rule that is not there may be made now.
    pub(super) fn makes(&self, key: &Key, rule: &Wanted) -> bool {
        let Some(slice) = rule.slice else {
            return true;
        };
        match key.table {
            ACCESS if rule.treatment().is_empty() => true,
            ACCESS => !self.drops.contains(&(key.device.clone(), slice)),
            FORWARD => !self.drops.iter().any(|(_, of)| *of == slice),
            _ => true,
        }
    }
    /// Whether a rule that is not wanted may be taken away now.
    pub(super) fn clears(&self, held: &Held) -> bool {
        let Some(tag) = held.tag.filter(|_| held.key.table == ACCESS) else {
            return true;
        };
        let device = held.key.device.clone();
        let settled = self.slices.get(&tag).is_none_or(|slice| {
            let at = (device.clone(), *slice);
            !self.drops.contains(&at) && !self.passes.contains(&at)
        });
        let last = !held.treatment.is_empty()
            || !self.ways.contains(&tag) && !self.surplus.contains(&(device, tag));
        settled && last
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
