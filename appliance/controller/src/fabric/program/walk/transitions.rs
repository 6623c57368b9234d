//! On the way from one set of slices to another nothing crosses from a slice to another either,
//! though tags, labels and pods change owners.

use super::{
    Frame,
    properties::{discoveries, holds, packets},
    site::{Site, Wish, mixed_sites, wishes},
    walk,
};
use crate::fabric::{Intent, difference::difference, program::walk::held::Held};
use dtn_api::{Name, slice::Class};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Where frames of a pod may come out: in any slice that it is in, before or after.
fn allowed(site: &Site, host: u8, slices: &[Intent]) -> BTreeSet<((Name, u32), Vec<u16>)> {
    let pod = site.host(host);
    slices
        .iter()
        .filter(|intent| intent.members.contains(&pod))
        .flat_map(|intent| {
            let members = intent.members.iter().map(|m| (site.at(&m.at), Vec::new()));
            let border = intent.border.iter();
            members.chain(border.map(|b| (site.at(&b.at), vec![b.label])))
        })
        .collect()
}

pub(in crate::fabric) fn nothing_crosses(
    site: &Site,
    switches: &BTreeMap<Name, Held>,
    slices: &[Intent],
) {
    for host in 0..24 {
        let pod = site.host(host);
        let allowed = allowed(site, host, slices);
        let mut frames: Vec<Frame> = discoveries(&pod)
            .into_iter()
            .map(|(to, body)| Frame::new(pod.mac, to, body))
            .collect();
        for to in (0..24).map(|to| site.host(to).mac) {
            let packets = packets(&pod).into_iter();
            frames.extend(packets.map(|body| Frame::new(pod.mac, to, body)));
        }
        for frame in frames {
            for arrival in walk(site, switches, &site.at(&pod.at), frame) {
                let came = (arrival.at, arrival.frame.vlans);
                assert!(allowed.contains(&came), "pod {host} comes out at {came:?}");
                assert!(arrival.meters.len() <= 1);
            }
        }
    }
}

/// Pods that stay in their slice reach each other, once, by one meter where a rate is promised.
fn goes_on(site: &Site, switches: &BTreeMap<Name, Held>, wish: &Wish, staying: &BTreeSet<u8>) {
    for from in staying {
        for to in staying {
            let (from, to) = (site.host(*from), site.host(*to));
            if site.at(&from.at) == site.at(&to.at) {
                continue;
            }
            for body in packets(&from) {
                let frame = Frame::new(from.mac, to.mac, body);
                let arrivals = walk(site, switches, &site.at(&from.at), frame);
                assert_eq!(arrivals.len(), 1, "{from:?} to {to:?}");
                let meters = usize::from(wish.class != Class::BestEffort);
                assert_eq!(arrivals[0].meters.len(), meters);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Rates change, pods come and go: for those who stay there is no moment without.
    #[test]
    fn who_stays_is_not_interrupted(site in mixed_sites(), old in wishes(1..4), rates in proptest::array::uniform3(1_u64..1 << 40), moved in 0..24_u8) {
        let mut new = old.clone();
        for (wish, rate) in new.iter_mut().zip(rates) {
            wish.rate_bps = rate;
            // it leaves, or it comes
            if !wish.hosts.remove(&moved) && old.iter().all(|w| !w.hosts.contains(&moved)) {
                wish.hosts.insert(moved);
                break;
            }
        }
        let intents = |wishes: &[Wish]| -> Vec<Intent> {
            wishes.iter().map(|wish| site.intent(wish)).collect()
        };
        let mut switches = BTreeMap::new();
        site.program(&intents(&old), &mut switches, |_| ());
        site.program(&intents(&new), &mut switches, |now| {
            for (was, is) in old.iter().zip(&new) {
                goes_on(&site, now, is, &was.hosts.intersection(&is.hosts).copied().collect());
            }
        });
        holds(&site, &switches, &new);
    }

    #[test]
    fn nothing_crosses_on_the_way(site in mixed_sites(), old in wishes(1..4), new in wishes(3..6)) {
        let intents = |wishes: &[_]| -> Vec<Intent> {
            wishes.iter().map(|wish| site.intent(wish)).collect()
        };
        let (before, after) = (intents(&old), intents(&new));
        let both: Vec<Intent> = before.iter().chain(&after).cloned().collect();
        let mut switches = BTreeMap::new();
        site.program(&before, &mut switches, |_| ());
        site.program(&after, &mut switches, |now| nothing_crosses(&site, now, &both));
        holds(&site, &switches, &new);
        // and then there is nothing left to do
        let (wanted, _) = site.wanted(&after, &switches);
        for (name, resolved) in &wanted {
            let said = switches[name].say();
            let changes = difference(name.as_str(), resolved, &said.found());
            prop_assert!(changes.is_empty() && changes.foreign.is_empty());
            prop_assert_eq!(said.meters.len(), resolved.meters.len());
        }
        site.program(&[], &mut switches, |_| ());
        for held in switches.values() {
            prop_assert!(held.flows.is_empty() && held.groups.is_empty() && held.meters.is_empty());
        }
    }
}
