//! Everything in table 0, for old switches that have no other. What one slice has at a switch in
//! three tables becomes the product of its ways in and its destinations there: each way in with each
//! destination is one rule, which does at once what the three did one after the other. Pure.
//!
//! The higher of two ways in stays higher whatever the destination, and behind one way in the
//! higher destination stays higher: so the same rules meet the same frames. Where two would send a
//! frame back to where it came from the product drops it, since without a rule it would meet the
//! next lower destination, the border. What a member's port brings beyond that meets the rule that
//! closes the port, and what a cable or a border brings in a slice's VLAN meets one that drops it.
//!
//! Access rules have no place in one table: a slice with a gateway is refused where its frames would
//! be judged.

use super::{ACCESS, ADMIT, FORWARD, FlowKey, Program, Purpose, Rule, Then};
use crate::fabric::{Intent, network::Network};
use dtn_api::Name;
use dtn_openflow::{Field, Match};
use std::{collections::BTreeMap, mem::discriminant};

/// Most rules of a slice at such a switch: 64 ways in to 64 destinations. Old switches keep rules
/// with addresses in a TCAM of a few thousand entries, and other slices want their part of it.
pub const MOST: usize = 4096;

/// Brings what one slice has at each of these switches into one table, where that is all there is;
/// otherwise why it cannot be had, and then it is to be in no switch at all.
pub(super) fn fold(
    network: &Network,
    intent: &Intent,
    programs: &mut BTreeMap<Name, Program>,
) -> Result<(), String> {
    for (name, program) in programs {
        if !network.switch(name).is_some_and(|s| s.single_table) {
            continue;
        }
        let enters = intent.members.iter().any(|m| m.at.switch == *name)
            || intent.border.as_ref().is_some_and(|b| b.at.switch == *name);
        if intent.access.is_some() && enters {
            return Err(format!(
                "it has a gateway, and its frames enter at the switch {name}, which has one table \
                 (tables = 1): who may pass a gateway cannot be decided there; have its members and \
                 its border at switches with three tables"
            ));
        }
        program.flows = product(name, &program.flows)?;
    }
    Ok(())
}

/// How much stands between two ways in, or two destinations, of neighbouring priority.
fn rank(purpose: Purpose) -> u16 {
    match purpose {
        Purpose::Deliver => 4,
        Purpose::Onward => 3,
        Purpose::Beyond => 2,
        _ => 1,
    }
}

fn product(
    switch: &Name,
    flows: &BTreeMap<FlowKey, Rule>,
) -> Result<BTreeMap<FlowKey, Rule>, String> {
    let lets_in = |rule: &Rule| matches!(rule.then, Then::Admit { .. } | Then::Arrive { .. });
    let ways: Vec<_> = flows.iter().filter(|(_, rule)| lets_in(rule)).collect();
    let ends: Vec<_> = flows
        .iter()
        .filter(|(key, rule)| key.table == FORWARD && rule.purpose != Purpose::Isolate)
        .collect();
    let count = ways.len() * ends.len();
    if count > MOST {
        return Err(format!(
            "the switch {switch} has one table (tables = 1), where {} ways in to {} destinations \
             are up to {count} rules, and a slice may have {MOST}: have fewer members in it, or \
             spread them over switches",
            ways.len(),
            ends.len()
        ));
    }
    // what a port drops for all slices stands in table 0 already
    let closed = flows
        .iter()
        .filter(|(key, rule)| key.table == ADMIT && !lets_in(rule));
    let mut all: BTreeMap<_, _> = closed.map(|(k, r)| (k.clone(), r.clone())).collect();
    for (way, enters) in ways {
        for (end, leaves) in &ends {
            // a packet is no neighbour discovery: that enters by rules of its own, above
            if enters.purpose == Purpose::Admit && leaves.purpose == Purpose::Flood {
                continue;
            }
            let Some(matches) = both(&way.matches, &end.matches) else {
                continue;
            };
            let key = FlowKey {
                table: ADMIT,
                priority: way.priority + rank(leaves.purpose),
                from: way.from.clone(),
                matches,
            };
            let rule = Rule {
                purpose: purpose(enters),
                then: through(way, enters, leaves),
                ..enters.clone()
            };
            all.insert(key, rule);
        }
        if let Then::Arrive { .. } = enters.then {
            let rule = Rule {
                purpose: Purpose::Stray,
                then: Then::Drop,
                ..enters.clone()
            };
            all.insert(way.clone(), rule);
        }
    }
    Ok(all)
}

/// What a way in is called when it leads to its destination at once.
fn purpose(enters: &Rule) -> Purpose {
    match enters.then {
        Then::Arrive { table: ACCESS } => Purpose::Entering,
        Then::Arrive { .. } => Purpose::Transit,
        _ if enters.purpose == Purpose::Neighbour => Purpose::Asking,
        _ => Purpose::Sending,
    }
}

fn through(way: &FlowKey, enters: &Rule, leaves: &Rule) -> Then {
    let exit = match &leaves.then {
        Then::Out(exit) if way.from.as_ref() == Some(&exit.port) => return Then::Drop,
        Then::Out(exit) => Some(exit.clone()),
        Then::Flood => None,
        _ => return Then::Drop,
    };
    let (guard, arrives) = match enters.then {
        Then::Admit { guard, .. } => (guard, false),
        _ => (None, true),
    };
    Then::Through {
        guard,
        arrives,
        exit,
    }
}

/// The frames that both are for, without the tag, which only a rule of another table could have
/// written; `None` when there are none.
fn both(way: &Match, end: &Match) -> Option<Match> {
    let end: Vec<&Field> = end
        .0
        .iter()
        .filter(|field| !matches!(field, Field::Metadata { .. }))
        .collect();
    // ways in and destinations share fields without masks only: two values are never both true
    let apart = way.0.iter().any(|a| {
        let same = |b: &&&Field| discriminant(a) == discriminant(**b);
        end.iter().filter(same).any(|b| a != *b)
    });
    (!apart).then(|| Match::new(way.0.iter().chain(end).cloned()))
}

#[cfg(test)]
#[path = "single_tests.rs"]
mod tests;
