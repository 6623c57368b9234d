//! A small slice in one table, to the letter, and what has no place there.

use super::MOST;
use crate::fabric::{
    Access, Attached, Intent,
    program::{
        ADMIT, Programs, assign, guards_of, programs, text,
        walk::site::{Site, Wish, place, switch},
    },
};
use dtn_api::{MacAddress, slice::Class};
use std::collections::BTreeMap;

fn wish(hosts: &[u8]) -> Wish {
    Wish {
        slice: 1,
        tag: 5,
        class: Class::Guaranteed,
        rate_bps: 1_000_000_000,
        hosts: hosts.iter().copied().collect(),
        label: None,
    }
}
/// Switches in a row, of which the first has one table.
fn site(parents: &[usize]) -> Site {
    let mut site = Site::of(parents);
    site.network.switches[0].single_table = true;
    site
}
fn reasons(programs: &Programs) -> Vec<&str> {
    let refused = programs.refused.iter();
    refused.map(|refusal| refusal.reason.as_str()).collect()
}
/// Pods with one IPv4 address each, at a port of the first switch.
fn pods(count: usize) -> Vec<Attached> {
    let pod = |n: usize| {
        let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
        Attached {
            mac: MacAddress::new([2, 0, 0, 1, high, low]),
            ips: vec![std::net::Ipv4Addr::new(10, 1, high, low).into()],
            at: place(0, "nic0"),
        }
    };
    (0..count).map(pod).collect()
}

/// The slice that is told in three tables beside this.
#[test]
fn the_rules_of_a_small_slice_in_one_table() {
    let site = site(&[0]);
    let intent = site.intent(&Wish {
        label: Some(200),
        ..wish(&[0, 1])
    });
    let (wanted, refused) = site.wanted(&[intent], &BTreeMap::new());
    assert_eq!(refused, []);
    let resolved = &wanted[&switch(0)];
    let mut lines = vec![format!("s0 {:?}", site.ports[&switch(0)])];
    let meters = resolved.meters.iter();
    lines.extend(meters.map(|(id, meter)| text::meter(*id, meter.spec)));
    let groups = resolved.groups.iter();
    lines.extend(groups.map(|(id, group)| text::group(*id, &group.buckets)));
    for (id, flow) in resolved.flows.iter().rev() {
        let words = text::flow(id, &flow.instructions);
        lines.push(format!("{:#018x} {words}", flow.cookie));
        assert_eq!(id.table, ADMIT);
    }
    insta::assert_snapshot!("small_slice_in_one_table", lines.join("\n"));
    assert!(wanted[&switch(1)].flows.keys().any(|id| id.table > ADMIT));
}

#[test]
fn meters_keep_their_members_when_the_controller_starts_again() {
    let site = site(&[]);
    let intents = [site.intent(&wish(&[0, 1, 2]))];
    let mut switches = BTreeMap::new();
    assert_eq!(site.program(&intents, &mut switches, |_| ()), []);
    let said = switches[&switch(0)].say();
    let program = &programs(&site.network, &intents).switches[&switch(0)];
    let found = guards_of(&said.flows);
    assert_eq!(found.len(), 3);
    let (ids, _) = assign(&found, &said.meters, &program.guards, 1000);
    assert!(ids.iter().all(|(key, id)| found[key] == [*id].into()));
}

#[test]
fn a_slice_of_too_many_rules_is_refused_with_the_figure() {
    let site = site(&[]);
    let mut intent = site.intent(&wish(&[]));
    // each has a way in for packets and one for ARP; beside them three rules flood
    intent.members = pods(43);
    let fits = programs(&site.network, std::slice::from_ref(&intent));
    assert_eq!(reasons(&fits), [""; 0]);
    assert!(fits.switches[&switch(0)].flows.len() <= MOST);
    intent.members = pods(44);
    let refused = programs(&site.network, &[intent]);
    assert_eq!(
        reasons(&refused),
        [
            "the switch s0 has one table (tables = 1), where 88 ways in to 47 destinations are up \
             to 4136 rules, and a slice may have 4096: have fewer members in it, or spread them \
             over switches"
        ]
    );
    assert!(refused.switches[&switch(0)].flows.is_empty());
}

#[test]
fn a_gateway_is_refused_where_its_slice_enters_and_not_where_it_passes() {
    let mut site = site(&[0, 0]);
    let with_gateway = |site: &Site, hosts: &[u8]| -> Intent {
        let mut intent = site.intent(&wish(hosts));
        intent.access = Some(Access {
            gateway: intent.members[0].mac,
            subnets: Vec::new(),
            rules: Vec::new(),
        });
        intent
    };
    let here = programs(&site.network, &[with_gateway(&site, &[0, 1])]);
    let why = reasons(&here);
    assert!(
        why.len() == 1 && why[0].contains("enter at the switch s0"),
        "{why:?}"
    );
    assert!(here.switches.values().all(|p| p.flows.is_empty()));
    let passing = programs(&site.network, &[with_gateway(&site, &[1, 2])]);
    assert_eq!(reasons(&passing), [""; 0]);
    let core = &passing.switches[&switch(0)].flows;
    assert!(!core.is_empty() && core.keys().all(|key| key.table == ADMIT));
    site.network.switches[0].single_table = false;
    let three = programs(&site.network, &[with_gateway(&site, &[0, 1])]);
    assert_eq!(reasons(&three), [""; 0]);
}
