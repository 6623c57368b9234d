//! Access rules of a gateway: read with how they stand, written, and explained.

use super::{Decision, Engine, check_version, gateways::declared, not_found};
use crate::{
    access::{
        self, AccessRow, KeptRule,
        explain::{Asked, Served, explain},
    },
    addresses,
    auth::{self, Principal},
    gateways,
    state::{Change, State},
};
use dtn_api::{
    Name, Problem,
    gateway::{AccessRule, Count, Explanation, StandingRule, StandingRules},
    problem::Kind,
};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// What has been counted about a gateway's rules, by number; 0 is what no rule allowed.
struct Counted {
    host: BTreeMap<u16, Count>,
    switches: Option<BTreeMap<u16, Count>>,
}
impl Counted {
    fn standing(&self, kept: &KeptRule, now: Timestamp) -> StandingRule {
        let of = |counts: &BTreeMap<u16, Count>, number: u16| {
            counts.get(&number).copied().unwrap_or_default()
        };
        let number = kept.rule.priority;
        StandingRule {
            rule: kept.rule.clone(),
            in_force: kept.rule.in_force(now),
            host: of(&self.host, number),
            switches: self.switches.as_ref().map(|counts| of(counts, number)),
        }
    }
    fn all(&self, row: &AccessRow, now: Timestamp) -> StandingRules {
        let denied = |counts: &BTreeMap<u16, Count>| counts.get(&0).copied().unwrap_or_default();
        StandingRules {
            items: row
                .rules
                .iter()
                .map(|kept| self.standing(kept, now))
                .collect(),
            version: row.version,
            denied_host: denied(&self.host),
            denied_switches: self.switches.as_ref().map(denied),
        }
    }
}

impl Engine {
    /// The rules of a gateway with how they stand.
    pub async fn access(&self, who: &Principal, name: &Name) -> Result<StandingRules, Problem> {
        self.look(|state, now| {
            let row = readable(state, who, name)?;
            Ok(self.counted(state, name).all(row, now))
        })
        .await
    }
    /// One rule with how it stands, and its version.
    pub async fn access_rule(
        &self,
        who: &Principal,
        name: &Name,
        number: u16,
    ) -> Result<(StandingRule, u64), Problem> {
        self.look(|state, now| {
            let row = readable(state, who, name)?;
            let kept = row.find(number).ok_or_else(|| no_rule(name, number))?;
            let standing = self.counted(state, name).standing(kept, now);
            Ok((standing, kept.changed))
        })
        .await
    }

    /// The whole list in place of the one that is there; all of it or nothing. With `dry_run` it is
    /// only said what would come of it.
    pub async fn replace_access(
        &self,
        who: &Principal,
        name: &Name,
        rules: Vec<AccessRule>,
        if_match: Option<u64>,
        dry_run: bool,
    ) -> Result<StandingRules, Problem> {
        access::check_list(&rules)?;
        self.can_have(
            rules
                .iter()
                .enumerate()
                .map(|(n, rule)| (format!("/items/{n}"), rule)),
        )?;
        self.decide(who, |state, now| {
            let row = readable(state, who, name)?;
            check_version(if_match, row.version, "the list of access rules")?;
            let next = row.replaced(rules);
            let answer = self.counted(state, name).all(&next, now);
            Ok(match dry_run {
                true => Decision::only(answer),
                false => written("access.replaced", row, next, answer),
            })
        })
        .await
    }

    /// Refuses rules that the fabric cannot have; each with its place.
    fn can_have<'a>(
        &self,
        rules: impl Iterator<Item = (String, &'a AccessRule)>,
    ) -> Result<(), Problem> {
        let kind = self.fabric.name();
        let mut wrong = Problem::new(
            Kind::UnenforceableQos,
            format!("the fabric {kind} cannot have these access rules, and nothing was changed"),
        );
        for (at, rule) in rules {
            if let Some(why) = self.fabric.refuses_rule(rule) {
                wrong = wrong.at(format!("{at}/match"), why);
            }
        }
        match wrong.errors.is_empty() {
            true => Ok(()),
            false => Err(wrong),
        }
    }

    /// One rule, new or in place of the one of its number; whether it is new, and its version.
    pub async fn set_access(
        &self,
        who: &Principal,
        name: &Name,
        number: u16,
        rule: AccessRule,
        only: Only,
    ) -> Result<(StandingRule, u64, bool), Problem> {
        access::check_one(number, &rule)?;
        self.can_have([(String::new(), &rule)].into_iter())?;
        self.decide(who, |state, now| {
            let row = readable(state, who, name)?;
            let before = row.find(number);
            match (only, before) {
                (Only::New, Some(_)) => {
                    return Err(Problem::new(
                        Kind::VersionMismatch,
                        format!("gateway {name} has a rule {number} already, and If-None-Match: * asks for a new one"),
                    ));
                }
                (Only::Version(wanted), Some(kept)) => {
                    check_version(Some(wanted), kept.changed, &rule_of(number))?;
                }
                (Only::Version(_), None) => {
                    return Err(Problem::new(
                        Kind::VersionMismatch,
                        format!("gateway {name} has no rule {number} any more: leave If-Match out to make it anew"),
                    ));
                }
                (Only::New, None) | (Only::Any, _) => {}
            }
            let next = row.with(rule);
            let all: Vec<AccessRule> = next.rules().cloned().collect();
            if let Some(why) = access::too_many(&all) {
                return Err(Problem::new(
                    Kind::StateConflict,
                    format!("gateway {name} cannot have rule {number} too: {why}"),
                ));
            }
            let kept = next.find(number).ok_or_else(|| no_rule(name, number))?;
            let standing = self.counted(state, name).standing(kept, now);
            let answer = (standing, kept.changed, before.is_none());
            Ok(written("access.set", row, next, answer).detailed(&format!("rule {number}")))
        })
        .await
    }

    /// Takes a rule out; success when there is none.
    pub async fn remove_access(
        &self,
        who: &Principal,
        name: &Name,
        number: u16,
        if_match: Option<u64>,
    ) -> Result<(), Problem> {
        self.decide(who, |state, _| {
            let row = readable(state, who, name)?;
            let Some(kept) = row.find(number) else {
                return Ok(Decision::only(()));
            };
            check_version(if_match, kept.changed, &rule_of(number))?;
            let next = row.without(number);
            Ok(written("access.removed", row, next, ()).detailed(&format!("rule {number}")))
        })
        .await
    }

    /// What happens to a packet at a gateway, and why.
    pub async fn explain_access(
        &self,
        who: &Principal,
        name: &Name,
        asked: &Asked,
    ) -> Result<Explanation, Problem> {
        self.look(|state, now| {
            let row = readable(state, who, name)?;
            let question = asked.understood(now)?;
            let gateway = declared(state, name)?;
            let rules: Vec<AccessRule> = row.rules().cloned().collect();
            explain(gateway, &rules, &served(state, name, now), &question)
        })
        .await
    }

    /// What the gateway's host and the switches have counted.
    fn counted(&self, state: &State, name: &Name) -> Counted {
        let report = self.report_of(name);
        let mut host = BTreeMap::new();
        if let Some(report) = report {
            let mut denied = report.denied_outbound;
            denied += report.denied_inbound;
            host = report.rules;
            host.insert(0, denied);
        }
        let switches = self.fabric.network().is_some().then(|| {
            let mut sums: BTreeMap<u16, Count> = BTreeMap::new();
            for ((slice, number), count) in self.fabric.decided() {
                let spec = state.bookings.get(&slice).map(|b| &b.slice.spec);
                let gateway = spec.and_then(|spec| gateways::of_slice(&state.gateways, spec));
                if gateway.is_some_and(|row| row.name == *name) {
                    *sums.entry(number).or_default() += count;
                }
            }
            sums
        });
        Counted { host, switches }
    }

    /// What gateways let pass and what they denied: by gateway, where it was counted, and whether it
    /// passed or was denied by a rule or by none.
    pub async fn access_totals(&self) -> Vec<(Name, &'static str, &'static str, Count)> {
        self.look(|state, _| {
            let mut totals = Vec::new();
            for (name, row) in &state.access {
                let counted = self.counted(state, name);
                let places = [("host", Some(counted.host)), ("switches", counted.switches)];
                for (place, counts) in places {
                    let Some(counts) = counts else { continue };
                    let (mut allowed, mut denied) = (Count::default(), Count::default());
                    for (number, count) in counts {
                        let rule = row.find(number).map(|kept| kept.rule.action);
                        match rule {
                            Some(dtn_api::gateway::AccessAction::Allow) => allowed += count,
                            _ => denied += count,
                        }
                    }
                    totals.push((name.clone(), place, "allowed", allowed));
                    totals.push((name.clone(), place, "denied", denied));
                }
            }
            totals
        })
        .await
    }
}

/// What a rule must be for a write of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// Anything: it may be there or not.
    Any,
    /// Not there (`If-None-Match: *`).
    New,
    /// There, with this version (`If-Match`).
    Version(u64),
}

/// The rules of a gateway, for whom may read them: a node reads its own gateway's.
fn readable<'a>(state: &'a State, who: &Principal, name: &Name) -> Result<&'a AccessRow, Problem> {
    let gateway = declared(state, name)?;
    auth::own_node(who, &gateway.spec.node)?;
    let row = state.access.get(name);
    row.ok_or_else(|| not_found("gateway", name))
}

/// A list that is written, with what is said of it; nothing when it is the same.
fn written<T>(what: &'static str, row: &AccessRow, next: AccessRow, answer: T) -> Decision<T> {
    if next == *row {
        return Decision::only(answer);
    }
    let detail = format!("gateway {}: {}", row.gateway, row.difference(&next));
    Decision::only(answer)
        .event(what, None, detail)
        .change(Change::Access(next))
}
impl<T> Decision<T> {
    /// The same, with more said of what happened.
    fn detailed(mut self, more: &str) -> Self {
        for (_, _, detail) in &mut self.events {
            *detail = format!("{detail} ({more})");
        }
        self
    }
}

/// The slices that are booked and have this gateway.
fn served(state: &State, name: &Name, now: Timestamp) -> Vec<Served> {
    let booked = state.bookings.values().filter(|b| b.slice.booked_at(now));
    booked
        .map(|booking| &booking.slice.spec)
        .filter(|spec| {
            gateways::of_slice(&state.gateways, spec).is_some_and(|row| row.name == *name)
        })
        .map(|spec| Served {
            name: spec.name.clone(),
            tenant: spec.tenant.clone(),
            subnets: spec
                .addressing
                .as_ref()
                .map(|addressing| addresses::subnets(addressing).collect())
                .unwrap_or_default(),
            window: spec.schedule,
        })
        .collect()
}

fn rule_of(number: u16) -> String {
    format!("access rule {number}")
}
fn no_rule(gateway: &Name, number: u16) -> Problem {
    Problem::new(
        Kind::NotFound,
        format!("gateway {gateway} has no access rule {number}"),
    )
}
