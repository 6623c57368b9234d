//! Small programs, to the letter, and what cannot be programmed.

use super::{
    MeterSpec, Purpose, assign, cookie, programs, resolve, tag_of, text,
    walk::site::{Site, Wish, place, switch},
};
use crate::fabric::{Attached, Intent, network::PortRef};
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
fn refusals(site: &Site, intents: &[Intent]) -> Vec<String> {
    let programs = programs(&site.network, intents);
    programs.refused.into_iter().map(|r| r.reason).collect()
}

/// A slice of two pods at two switches, with a border at the first.
#[test]
fn the_rules_of_a_small_slice() {
    let site = Site::of(&[0]);
    let intent = site.intent(&Wish {
        label: Some(200),
        ..wish(&[0, 1])
    });
    let mut lines = Vec::new();
    let (wanted, refused) = site.wanted(&[intent], &BTreeMap::new());
    assert_eq!(refused, []);
    for (name, resolved) in &wanted {
        lines.push(format!("{name} {:?}", site.ports[name]));
        let meters = resolved.meters.iter();
        lines.extend(meters.map(|(id, meter)| text::meter(*id, meter.spec)));
        let groups = resolved.groups.iter();
        lines.extend(groups.map(|(id, group)| text::group(*id, &group.buckets)));
        let flows = resolved.flows.iter().rev();
        lines.extend(flows.map(|(id, flow)| text::flow(id, &flow.instructions)));
    }
    insta::assert_snapshot!("small_slice", lines.join("\n"));
}

#[test]
fn a_cookie_says_whose_a_flow_is() {
    assert_eq!(cookie(5, Purpose::Admit), 0x6474_0000_0005_0001);
    assert_eq!(tag_of(cookie(4094, Purpose::Isolate)), Some(4094));
    assert_eq!(tag_of(0), None);
    assert_eq!(tag_of(0x6475_0000_0005_0001), None);
}

#[test]
fn who_promises_nothing_has_no_guard() {
    let site = Site::of(&[]);
    let intent = site.intent(&Wish {
        class: Class::BestEffort,
        ..wish(&[0, 1])
    });
    assert_eq!(MeterSpec::of(&intent), None);
    let programs = programs(&site.network, &[intent]);
    assert!(programs.switches[&switch(0)].guards.is_empty());
}

#[test]
fn every_switch_has_a_program() {
    let site = Site::of(&[0, 1, 1]);
    let programs = programs(&site.network, &[site.intent(&wish(&[0, 1]))]);
    assert_eq!(programs.switches.len(), 4);
    let without = |n| programs.switches[&switch(n)].flows.is_empty();
    assert_eq!([0, 1, 2, 3].map(without), [false, false, true, true]);
}

#[test]
fn what_cannot_be_programmed_is_said() {
    let site = Site::of(&[0, 1]);
    let good = site.intent(&wish(&[0, 1, 2]));
    assert!(refusals(&site, std::slice::from_ref(&good)).is_empty());
    let refused = |change: &dyn Fn(&mut Intent)| {
        let mut intent = good.clone();
        change(&mut intent);
        refusals(&site, &[intent]).join("; ")
    };
    let pair = |a, b| [switch(a), switch(b)];
    assert_eq!(
        refused(&|i| i.tag = 4095),
        "its tag 4095 is no VLAN (1 to 4094)"
    );
    assert_eq!(
        refused(&|i| i.rate_bps = 0),
        "it promises a rate and the rate is 0"
    );
    assert_eq!(
        refused(&|i| assert!(i.cables.remove(&pair(1, 2)))),
        "its cables do not join s0 to s2"
    );
    assert_eq!(
        refused(&|i| assert!(i.cables.insert(pair(0, 2)))),
        "no cable joins s0 to s2"
    );
    assert_eq!(
        refused(&|i| i.members[0].at = place(7, "nic0")),
        "switch s7 is not in the network"
    );
    assert_eq!(
        refused(&|i| i.members[0].at = place(0, "to-s1")),
        "02:00:00:00:01:00 is at s0/to-s1, which is a cable's or a border's port"
    );
    assert_eq!(
        refused(&|i| i.members[0].mac = MacAddress::new([0xff; 6])),
        "ff:ff:ff:ff:ff:ff at s0/nic0 is no hardware address of a station"
    );
    assert_eq!(
        refused(&|i| i.members[1].mac = i.members[0].mac),
        "02:00:00:00:01:00 is a member of it twice"
    );
}

#[test]
fn a_ring_is_refused() {
    let mut site = Site::of(&[0, 1]);
    let mut cable = site.network.cables[0].clone();
    cable.ends = [place(0, "to-s2"), place(2, "to-s0")];
    site.network.cables.push(cable);
    let mut intent = site.intent(&wish(&[0, 1, 2]));
    intent.cables = [[0, 1], [0, 2], [1, 2]].map(|pair| pair.map(switch)).into();
    assert_eq!(
        refusals(&site, &[intent]),
        ["its cables make a ring, in which a broadcast would not end"]
    );
}

/// The one with the higher id is left out, whichever comes first, and the other is whole.
#[test]
fn of_two_that_cannot_be_told_apart_one_is_programmed() {
    let site = Site::of(&[0]);
    let first = site.intent(&Wish {
        label: Some(200),
        ..wish(&[0, 1])
    });
    let other = |hosts: &[u8], tag, label| {
        site.intent(&Wish {
            slice: 2,
            tag,
            label,
            ..wish(hosts)
        })
    };
    for (second, reason) in [
        (other(&[2, 3], 5, None), "its tag 5 is slice slice-1's"),
        (
            other(&[2, 3], 6, Some(200)),
            "its label 200 on border wan is slice slice-1's",
        ),
        (
            other(&[1, 2], 6, None),
            "02:00:00:00:01:01 at s1/1 is slice slice-1's member already",
        ),
    ] {
        let alone = programs(&site.network, std::slice::from_ref(&first)).switches;
        for intents in [
            [first.clone(), second.clone()],
            [second.clone(), first.clone()],
        ] {
            let both = programs(&site.network, &intents);
            let reasons: Vec<_> = both.refused.iter().map(|r| r.reason.as_str()).collect();
            assert_eq!(reasons, [reason]);
            assert_eq!(both.switches, alone);
        }
    }
}

/// A port or a meter that is not there takes only what needs it.
#[test]
fn what_a_switch_lacks_takes_no_more_than_its_own() {
    let site = Site::of(&[]);
    let mut intent = site.intent(&wish(&[0, 1]));
    intent.members.push(Attached {
        mac: MacAddress::new([2, 0, 0, 0, 1, 9]),
        ips: vec!["10.0.0.9".parse().unwrap()],
        at: place(0, "gone"),
    });
    let program = &programs(&site.network, &[intent]).switches[&switch(0)];
    let (ids, _) = assign(&BTreeMap::new(), &[], &program.guards, 2);
    assert_eq!(ids.len(), 2, "the third gets no meter");
    let mut ports = site.ports[&switch(0)].clone();
    let (resolved, refused) = resolve(program, &ports, &ids);
    let reasons: Vec<_> = refused.iter().map(|r| r.reason.as_str()).collect();
    assert_eq!(reasons, ["the switch has no port gone"]);
    let of = |resolved: &super::Resolved, mac: u8| {
        let mac = format!("02:00:00:00:01:0{mac}");
        let flows = resolved.flows.iter();
        flows
            .map(|(id, flow)| text::flow(id, &flow.instructions))
            .filter(|line| line.contains(&mac))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of(&resolved, 9),
        ["table 20 priority 20000 metadata=5 eth_dst=02:00:00:00:01:09 -> drop"]
    );
    assert_eq!(resolved.groups.values().next().unwrap().buckets.len(), 2);
    // now it is plugged in and there is no meter for it
    ports.insert("gone".into(), 77);
    let (resolved, refused) = resolve(program, &ports, &ids);
    let reasons: Vec<_> = refused.iter().map(|r| r.reason.as_str()).collect();
    assert_eq!(reasons, ["the switch has no meter for 02:00:00:00:01:09"]);
    assert_eq!(
        of(&resolved, 9),
        ["table 20 priority 20000 metadata=5 eth_dst=02:00:00:00:01:09 -> port 77"]
    );
    assert!(of(&resolved, 0).len() > 2);
}

/// The same port by name and by number is found out when the numbers are known.
#[test]
fn two_names_of_one_port_are_one_port() {
    let site = Site::of(&[]);
    let first = site.intent(&wish(&[0]));
    let mut second = site.intent(&Wish {
        slice: 2,
        tag: 6,
        ..wish(&[0])
    });
    let (_, number) = site.at(&second.members[0].at);
    second.members[0].at.port = PortRef::Number(number);
    let (wanted, refused) = site.wanted(&[first, second], &BTreeMap::new());
    assert!(!refused.is_empty());
    assert!(
        refused[0]
            .reason
            .starts_with("another slice has this already")
    );
    assert_eq!(wanted[&switch(0)].meters.len(), 2);
}

/// A member at a cable's port that is written by its number would get what is in the cable.
#[test]
fn a_member_is_not_let_in_at_a_cable_that_is_written_otherwise() {
    let site = Site::of(&[0]);
    let through = site.intent(&wish(&[0, 1]));
    let (_, number) = site.at(&place(0, "to-s1"));
    let mut other = site.intent(&Wish {
        slice: 2,
        tag: 6,
        ..wish(&[2])
    });
    other.members[0].at = place(0, "to-s1");
    other.members[0].at.port = PortRef::Number(number);
    let (alone, _) = site.wanted(std::slice::from_ref(&through), &BTreeMap::new());
    let (wanted, refused) = site.wanted(&[through, other.clone()], &BTreeMap::new());
    let all = refused.iter().all(|refusal| refusal.slice == other.slice);
    assert!(all && !refused.is_empty(), "{refused:?}");
    let why = &refused[0].reason;
    assert!(
        why.starts_with(&format!(
            "the port {number} of a member is the port to-s1 of a cable or a border"
        )),
        "{why}"
    );
    let (alone, wanted) = (&alone[&switch(0)], &wanted[&switch(0)]);
    for (id, flow) in &wanted.flows {
        let told = text::flow(id, &flow.instructions);
        match alone.flows.get(id) {
            Some(before) => assert_eq!(before, flow),
            None => assert!(!told.contains("in_port"), "{told}"),
        }
    }
    let its = &wanted.groups[&(super::GROUP | 6)];
    assert_eq!(its.buckets, []);
}

/// Two cables of which one is written by the number of the other.
#[test]
fn two_cables_at_one_port_are_refused() {
    let mut site = Site::of(&[0, 0]);
    let (_, number) = site.at(&place(0, "to-s1"));
    let ends = site.network.cables.iter_mut().flat_map(|c| &mut c.ends);
    let second = ends.into_iter().find(|end| **end == place(0, "to-s2"));
    second.unwrap().port = PortRef::Number(number);
    let (_, refused) = site.wanted(&[site.intent(&wish(&[0, 1]))], &BTreeMap::new());
    let why = format!("the ports to-s1 and {number} of cables or borders are one port");
    assert!(
        refused.iter().any(|r| r.reason.starts_with(&why)),
        "{refused:?}"
    );
}
