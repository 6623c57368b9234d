//! What may be said of a slice: pure, from what has been read back.

use crate::fabric::{Intent, Verdict, network::Network};
use dtn_api::{
    HostId, Name, Problem,
    host::Host,
    problem::Kind,
    slice::{Class, Mode, SliceSpec},
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// How far a slice is in the switches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::fabric) enum Standing {
    /// Read back from each of its switches.
    Programmed,
    /// Why not, in words.
    Not(String),
}

/// What the switches have told in one pass.
#[derive(Debug, Default)]
pub(in crate::fabric) struct Told {
    /// Those that were looked at.
    pub(in crate::fabric) seen: BTreeSet<Name>,
    /// Why others were not.
    pub(in crate::fabric) away: BTreeMap<Name, String>,
    /// What a switch lacks or has refused, with its slice.
    pub(in crate::fabric) errors: Vec<(Name, Option<Uuid>, String)>,
}

/// How far a slice is, after a pass over the switches.
pub(in crate::fabric) fn standing(intent: &Intent, told: &Told) -> Standing {
    for name in intent.switches() {
        if !told.seen.contains(name) {
            let why = told.away.get(name).cloned();
            return Standing::Not(why.unwrap_or_else(|| away(name)));
        }
    }
    let own = |error: &&(Name, Option<Uuid>, String)| error.1 == Some(intent.slice);
    match told.errors.iter().find(own) {
        Some((_, _, why)) => Standing::Not(why.clone()),
        None => Standing::Programmed,
    }
}

/// What is said of a slice on a switch that is away.
pub(in crate::fabric) fn away(name: &Name) -> String {
    format!("the switch {name} is not connected: it goes on with the rules that it has")
}

impl Intent {
    /// The switches that the slice goes through.
    pub(in crate::fabric) fn switches(&self) -> BTreeSet<&Name> {
        let members = self.members.iter().map(|member| &member.at.switch);
        let border = self.border.iter().map(|border| &border.at.switch);
        members
            .chain(border)
            .chain(self.cables.iter().flatten())
            .collect()
    }
}

/// Joins what the hosts report with what the switches hold.
pub(in crate::fabric) fn verdict(senders: Verdict, standing: Standing, switches: usize) -> Verdict {
    let switched = match standing {
        Standing::Programmed => Ok(format!("programmed into {switches} switch(es)")),
        Standing::Not(why) => Err(why),
    };
    match (senders.enforced, switched) {
        (true, Ok(switched)) => Verdict {
            reason: format!("{}; {switched}, read back", senders.reason),
            ..senders
        },
        (false, Ok(_)) => senders,
        (_, Err(why)) => Verdict {
            enforced: false,
            // a host's own trouble comes first: nothing is sent before it is away
            reason: match (senders.enforced, senders.present) {
                (false, true) => format!("{}; {why}", senders.reason),
                (false, false) => senders.reason,
                (true, _) => why,
            },
            ..senders
        },
    }
}

/// Why this quality of service cannot be enforced, given the switches that cannot meter.
pub(in crate::fabric) fn refusal(
    network: &Network,
    unmetered: &BTreeSet<Name>,
    spec: &SliceSpec,
    hosts: &BTreeMap<HostId, Host>,
) -> Option<Problem> {
    let refused = |why: String| Problem::new(Kind::UnenforceableQos, why);
    if spec.qos.mode == Mode::Aggregate {
        let why = "every sender has a guard of its own at its own switch, so a total over several \
                   senders cannot be kept: ask for mode pair or hose";
        let at = "aggregate is not enforced by switches";
        return Some(refused(why.to_owned()).at("/qos/mode", at));
    }
    if spec.qos.class == Class::BestEffort {
        return None;
    }
    spec.members.iter().find_map(|member| {
        let host = hosts.get(member.host.as_ref()?)?;
        let name = &network.place(host)?.switch;
        unmetered.contains(name).then(|| {
            let why = format!(
                "the switch {name}, where {} is, cannot meter (its meter features say 0), so \
                 nothing would stop a sender above its rate: ask for class best_effort, or use a \
                 switch with meters",
                host.id
            );
            refused(why).at("/qos/class", "the switch cannot meter")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }
    fn intent() -> Intent {
        Intent {
            slice: Uuid::from_u128(1),
            name: name("red"),
            tag: 1,
            class: Class::Guaranteed,
            rate_bps: 1,
            burst_ms: 10,
            members: Vec::new(),
            border: None,
            cables: [[name("core"), name("edge1")]].into(),
            access: None,
        }
    }

    #[test]
    fn a_slice_is_programmed_when_each_of_its_switches_says_so() {
        let intent = intent();
        let mut told = Told::default();
        told.seen.insert(name("edge1"));
        let Standing::Not(why) = standing(&intent, &told) else {
            panic!("core was not looked at");
        };
        assert!(why.contains("core is not connected"), "{why}");
        told.away.insert(name("core"), "it has fallen".into());
        let fallen = Standing::Not("it has fallen".into());
        assert_eq!(standing(&intent, &told), fallen);
        told.seen.insert(name("core"));
        assert_eq!(standing(&intent, &told), Standing::Programmed);
        let other = Some(Uuid::from_u128(2));
        told.errors.push((name("core"), other, "not ours".into()));
        told.errors.push((name("core"), None, "nobody's".into()));
        assert_eq!(standing(&intent, &told), Standing::Programmed);
        told.errors
            .push((name("core"), Some(intent.slice), "full".into()));
        assert_eq!(standing(&intent, &told), Standing::Not("full".into()));
    }

    #[test]
    fn a_verdict_needs_the_hosts_and_the_switches() {
        let senders = |enforced, present| Verdict {
            enforced,
            present,
            reason: "the hosts".into(),
        };
        let not = || Standing::Not("the switches".into());
        let said = |senders, standing| {
            let verdict = verdict(senders, standing, 3);
            (verdict.enforced, verdict.present, verdict.reason)
        };
        let all = "the hosts; programmed into 3 switch(es), read back";
        let cases = [
            (senders(true, true), Standing::Programmed, true, all),
            (senders(true, true), not(), false, "the switches"),
            (
                senders(false, true),
                Standing::Programmed,
                false,
                "the hosts",
            ),
            (
                senders(false, true),
                not(),
                false,
                "the hosts; the switches",
            ),
            (senders(false, false), not(), false, "the hosts"),
        ];
        for (senders, standing, enforced, reason) in cases {
            let present = senders.present;
            assert_eq!(
                said(senders, standing),
                (enforced, present, reason.to_owned())
            );
        }
    }
}
