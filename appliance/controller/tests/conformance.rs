//! What every fabric must do, written once against [`Fabric`] and run for each: `edge`; `openflow` with
//! real Open vSwitch; `onos` with a double of ONOS, and once more with a real ONOS core and Open vSwitch
//! where there is such a core (`tests/onos`). A case says of every fabric whether it is for it, and why
//! not; that is printed, and a case that says nothing does not compile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "conformance/mod.rs"]
mod conformance;
mod double;
mod onos_core;
mod switch;
mod wish;

use conformance::{
    Case, Core,
    For::{self, It, Not},
    Ground, Hosts, MEMBERS, Real, Switches, border, conform, declared, enforced, gated, member,
    spec, touched, wanted, why_not, within,
};
use dtn_api::{
    gateway::AccessRule,
    problem::Kind,
    slice::{Member, Role},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use uuid::Uuid;
use vdnd::fabric::{Counters, Difference};
use wish::{LONG, MUCH, TWO, slice, until};

/// How long a fabric is given to do what it must not.
const PATIENCE: Duration = Duration::from_secs(1);

macro_rules! case {
    ($name:ident, $edge:expr, $openflow:expr, $onos:expr, $core:expr) => {
        Case {
            name: stringify!($name),
            run: |ground| Box::pin($name(ground)),
            edge: $edge,
            openflow: $openflow,
            onos: $onos,
            core: $core,
        }
    };
}

const NOTHING_WRITTEN: For = Not("it writes nothing anywhere: hosts pace themselves");
const NOTHING_READ: For = Not("it has no part of its own that could be away or be changed");
const NOTHING_COUNTED: For = Not("it counts nothing: what hosts send is counted at the hosts");
static CASES: [Case; 12] = [
    case!(the_topology_has_what_is_configured, It, It, It, It),
    case!(
        what_cannot_be_enforced_is_refused_where_it_stands,
        It,
        It,
        It,
        It
    ),
    case!(nothing_is_enforced_before_it_was_read_back, It, It, It, It),
    case!(a_new_object_adopts_what_is_there, It, It, It, It),
    case!(
        the_same_wish_twice_changes_nothing,
        NOTHING_WRITTEN,
        It,
        It,
        It
    ),
    case!(nothing_of_ours_is_left, NOTHING_WRITTEN, It, It, It),
    case!(
        what_is_somebody_elses_stays_and_is_said,
        NOTHING_WRITTEN,
        It,
        It,
        It
    ),
    case!(
        a_refused_slice_leaves_the_others_alone,
        NOTHING_WRITTEN,
        It,
        It,
        It
    ),
    case!(trouble_is_said_in_words_and_ends, NOTHING_READ, It, It, It),
    case!(a_check_names_what_was_changed, NOTHING_READ, It, It, It),
    case!(counters_only_grow, NOTHING_COUNTED, It, It, It),
    case!(
        access_rules_are_had_and_counted,
        NOTHING_COUNTED,
        It,
        It,
        It
    ),
];

/// The links of the site, both ways, and all that is asked for can be reached.
async fn the_topology_has_what_is_configured(ground: &mut dyn Ground) {
    let (fabric, hosts) = (ground.fabric(), declared());
    let graph = fabric.topology(&hosts);
    let capacity = |from: &str, to: Option<&str>| {
        let mut links = graph.links();
        let link = links.find(|l| l.from == from && to.is_none_or(|to| l.to == to));
        let link = link.unwrap_or_else(|| panic!("{from} is joined to nothing"));
        let back = graph.links().find(|l| l.from == link.to && l.to == from);
        assert_eq!(back.map(|b| b.capacity_bps), Some(link.capacity_bps));
        (link.capacity_bps, link.mtu)
    };
    let wan = Member::of_border(border().name);
    let mut nodes = Vec::new();
    for (id, host) in &hosts {
        let member = Member::of_host(id.clone(), Role::Endpoint);
        let node = fabric.node(&member).unwrap();
        assert_eq!(capacity(&node, None), (host.spec.capacity_bps, 1500));
        nodes.push(node);
    }
    let node = fabric.node(&wan).unwrap();
    assert_eq!(capacity(&node, None), (border().capacity_bps, border().mtu));
    nodes.push(node);
    let cables = fabric.network().map_or(&[][..], |network| &network.cables);
    for cable in cables {
        let [a, b] = &cable.ends;
        let (a, b) = (a.switch.as_str(), b.switch.as_str());
        assert_eq!(capacity(a, Some(b)), (cable.capacity_bps, cable.mtu));
    }
    assert_eq!(graph.links().count(), 2 * (nodes.len() + cables.len()));
    assert!(graph.tree(&nodes, &|_| true).is_some(), "{nodes:?}");
}

async fn what_cannot_be_enforced_is_refused_where_it_stands(ground: &mut dyn Ground) {
    let (fabric, hosts) = (ground.fabric(), declared());
    for mode in ["pair", "hose"] {
        assert_eq!(fabric.refuses(&spec(mode), &hosts), None, "{mode}");
    }
    let refused = fabric.refuses(&spec("aggregate"), &hosts).unwrap();
    let as_kind = dtn_api::Problem::new(Kind::UnenforceableQos, "");
    assert_eq!(refused.kind, as_kind.kind);
    assert!(
        refused.detail.contains("ask for mode pair or hose"),
        "{refused:?}"
    );
    let [fault] = refused.errors.as_slice() else {
        panic!("one fault: {refused:?}");
    };
    assert_eq!(fault.pointer, "/qos/mode");
    assert!(fault.detail.contains("aggregate"), "{fault:?}");
}

async fn nothing_is_enforced_before_it_was_read_back(ground: &mut dyn Ground) {
    ground.lose();
    let wish = wanted();
    ground.fabric().intend(vec![wish.clone()]);
    let began = Instant::now();
    // through ONOS two seconds go by before a slice can be there at all
    while began.elapsed() < 3 * PATIENCE {
        let why = why_not(ground, wish.slice).expect("nobody has been asked");
        assert!(!why.is_empty());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ground.find();
    ground.fabric().intend(vec![wish.clone()]);
    enforced(ground, &wish).await;
}

async fn a_new_object_adopts_what_is_there(ground: &mut dyn Ground) {
    let wish = wanted();
    ground.fabric().intend(vec![wish.clone()]);
    enforced(ground, &wish).await;
    let before = ground.written();
    ground.again().await;
    tokio::time::sleep(PATIENCE).await;
    assert_eq!(touched(ground, &before), [""; 0], "it was told nothing yet");
    ground.fabric().intend(vec![wish.clone()]);
    enforced(ground, &wish).await;
    assert_eq!(touched(ground, &before), [""; 0]);
    assert_eq!(ground.written().len(), before.len());
}

async fn the_same_wish_twice_changes_nothing(ground: &mut dyn Ground) {
    let wish = wanted();
    ground.fabric().intend(vec![wish.clone()]);
    enforced(ground, &wish).await;
    let before = ground.written();
    assert!(!before.is_empty());
    tokio::time::sleep(PATIENCE).await;
    ground.fabric().intend(vec![wish.clone()]);
    assert_eq!(why_not(ground, wish.slice), None, "it is there still");
    tokio::time::sleep(PATIENCE).await;
    assert_eq!(touched(ground, &before), [""; 0]);
    assert_eq!(ground.written().len(), before.len());
    assert_eq!(why_not(ground, wish.slice), None);
}

async fn nothing_of_ours_is_left(ground: &mut dyn Ground) {
    assert_eq!(ground.ours(), BTreeSet::new());
    let wish = wanted();
    ground.fabric().intend(vec![wish.clone()]);
    enforced(ground, &wish).await;
    assert!(!ground.ours().is_empty());
    ground.fabric().intend(Vec::new());
    assert!(why_not(ground, wish.slice).is_some(), "it is not wanted");
    until("nothing is left", || ground.ours().is_empty()).await;
    // what programs the switches may tell of them a moment later
    let began = Instant::now();
    let mut found = ground.fabric().check().await;
    while !found.is_empty() && began.elapsed() < LONG {
        tokio::time::sleep(Duration::from_millis(100)).await;
        found = ground.fabric().check().await;
    }
    assert_eq!(found, []);
    for switch in ground.fabric().switches() {
        until("the fabric knows it", || {
            let all = ground.fabric().switches();
            let now = all.iter().find(|s| s.name == switch.name);
            now.is_some_and(|s| s.meters == 0)
        })
        .await;
    }
}

async fn what_is_somebody_elses_stays_and_is_said(ground: &mut dyn Ground) {
    let wish = wanted();
    ground.fabric().intend(vec![wish.clone()]);
    enforced(ground, &wish).await;
    until("all is well", || ground.fabric().trouble().is_none()).await;
    let named = ground.intrude();
    ground.fabric().intend(vec![wish.clone()]);
    until("it is said", || {
        let trouble = ground.fabric().trouble();
        trouble.is_some_and(|trouble| trouble.contains(named))
    })
    .await;
    enforced(ground, &wish).await;
    ground.fabric().intend(Vec::new());
    until("nothing of ours is left", || ground.ours().is_empty()).await;
    assert!(ground.intruder(), "it is not ours to take away");
}

async fn a_refused_slice_leaves_the_others_alone(ground: &mut dyn Ground) {
    let wish = wanted();
    ground.fabric().intend(vec![wish.clone()]);
    enforced(ground, &wish).await;
    let before = ground.written();
    tokio::time::sleep(PATIENCE).await;
    // a port that no switch has
    let members = vec![member((3, "edge1/nowhere")), member((4, "edge2/neither"))];
    let other = slice(8, MUCH, members, &TWO);
    ground.fabric().intend(vec![wish.clone(), other.clone()]);
    until("it is said why", || {
        why_not(ground, other.slice).is_some_and(|why| why.contains("no port n"))
    })
    .await;
    enforced(ground, &wish).await;
    assert_eq!(touched(ground, &before), [""; 0]);
}

async fn trouble_is_said_in_words_and_ends(ground: &mut dyn Ground) {
    let wish = wanted();
    ground.fabric().intend(vec![wish.clone()]);
    enforced(ground, &wish).await;
    until("all is well", || ground.fabric().trouble().is_none()).await;
    ground.lose();
    ground.fabric().intend(vec![wish.clone()]);
    until("each switch is named", || {
        let trouble = ground.fabric().trouble();
        trouble.is_some_and(|t| TWO.iter().all(|name| t.contains(name)))
    })
    .await;
    until("nothing is said on faith", || {
        why_not(ground, wish.slice).is_some_and(|why| why.contains("not connected"))
    })
    .await;
    let kinds: Vec<String> = kinds(ground.fabric().check().await);
    assert_eq!(kinds, ["unreachable", "unreachable"]);
    ground.find();
    ground.fabric().intend(vec![wish.clone()]);
    enforced(ground, &wish).await;
    until("all is well", || ground.fabric().trouble().is_none()).await;
}
fn kinds(differences: Vec<Difference>) -> Vec<String> {
    differences.into_iter().map(|d| d.kind).collect()
}

async fn a_check_names_what_was_changed(ground: &mut dyn Ground) {
    let wish = wanted();
    ground.fabric().intend(vec![wish.clone()]);
    enforced(ground, &wish).await;
    assert_eq!(ground.fabric().check().await, []);
    let before = ground.ours().len();
    let mut found = Vec::new();
    // what is mended by itself before it is asked for is taken away again
    for _ in 0..5 {
        ground.tamper();
        found = ground.fabric().check().await;
        if !found.is_empty() {
            break;
        }
        until("it is as it was", || ground.ours().len() == before).await;
    }
    let [gone] = found.as_slice() else {
        panic!("one rule was taken away: {found:#?}");
    };
    assert_eq!(
        (gone.switch.as_str(), gone.kind.as_str()),
        ("edge1", "missing")
    );
    assert_eq!(gone.slice, Some(wish.slice));
    assert!(gone.what.contains("table 20"), "{}", gone.what);
    ground.fabric().intend(vec![wish.clone()]);
    until("it is made good", || ground.ours().len() == before).await;
    enforced(ground, &wish).await;
    assert_eq!(ground.fabric().check().await, []);
}

async fn counters_only_grow(ground: &mut dyn Ground) {
    let wish = wanted();
    let other = slice(
        8,
        MUCH,
        MEMBERS.map(|(n, at)| member((n + 2, at))).to_vec(),
        &TWO,
    );
    ground.fabric().intend(vec![wish.clone()]);
    enforced(ground, &wish).await;
    let mut last = Counters::default();
    // what else is wanted does not begin them anew
    for wishes in [
        vec![wish.clone()],
        vec![other.clone(), wish.clone()],
        vec![wish.clone()],
    ] {
        ground.fabric().intend(wishes);
        enforced(ground, &wish).await;
        ground.traffic();
        until("it has grown", || {
            let all = ground.fabric().counters();
            let now = all.get(&wish.slice).copied().unwrap_or_default();
            let less = [
                (now.packets, last.packets),
                (now.bytes, last.bytes),
                (now.dropped_packets, last.dropped_packets),
                (now.dropped_bytes, last.dropped_bytes),
            ];
            assert!(
                less.iter().all(|(now, last)| now >= last),
                "{now:?} {last:?}"
            );
            let grown = now.packets > last.packets && now.bytes > last.bytes;
            last = now;
            grown
        })
        .await;
    }
    assert_eq!(last.dropped_packets, 0, "it kept to the rate");
}

async fn access_rules_are_had_and_counted(ground: &mut dyn Ground) {
    let ranges = r#"{"priority":100,"action":"allow","direction":"outbound","match":{"proto":"tcp","dst_ports":["443","50000-51000"]}}"#;
    let plain = r#"{"priority":90,"action":"allow","direction":"outbound","match":{"proto":"tcp","dst_ports":["443"]}}"#;
    let rule = |text: &str| serde_json::from_str::<AccessRule>(text).unwrap();
    assert_eq!(ground.fabric().refuses_rule(&rule(plain)), None);
    let mut had = BTreeMap::from([(90, plain)]);
    match ground.fabric().refuses_rule(&rule(ranges)) {
        None => drop(had.insert(100, ranges)),
        Some(why) => println!("  a rule with ranges is refused: {why}"),
    }
    for (number, text) in had {
        let wish = gated(text);
        ground.fabric().intend(vec![wish.clone()]);
        enforced(ground, &wish).await;
        assert_eq!(ground.fabric().check().await, []);
        // 0 is what no rule allows
        until("its numbers are there", || {
            let decided = ground.fabric().decided();
            let numbers: Vec<(Uuid, u16)> = decided.into_keys().collect();
            numbers == [(wish.slice, 0), (wish.slice, number)]
        })
        .await;
    }
    ground.fabric().intend(vec![wanted()]);
    enforced(ground, &wanted()).await;
    until("nothing is decided any more", || {
        ground.fabric().decided().is_empty()
    })
    .await;
}

#[test]
fn edge() {
    let run = |case: &Case| within(async || (case.run)(&mut Hosts::start()).await);
    conform("edge", &CASES, |case| case.edge, run);
}

#[test]
fn openflow() {
    let run = |case: &'static Case| {
        switch::with_switches(&format!("conformance: {}", case.name), async |rig| {
            (case.run)(&mut Switches::start(rig).await).await;
        });
    };
    conform("openflow", &CASES, |case| case.openflow, run);
}

#[test]
fn onos() {
    let run = |case: &Case| {
        within(async || (case.run)(&mut Core::start().await).await);
    };
    conform("onos", &CASES, |case| case.onos, run);
}

/// There is one core, so all cases have one ground, one after the other.
#[test]
fn onos_core() {
    if !onos_core::there("conformance on an ONOS core") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut ground = runtime.block_on(Real::start());
    let run = |case: &Case| {
        runtime.block_on(async {
            ground.anew().await;
            (case.run)(&mut ground).await;
        });
    };
    conform("onos with a real core", &CASES, |case| case.core, run);
    runtime.block_on(ground.anew());
}

/// Every case is for a fabric, and every fabric has a case.
#[test]
fn each_case_is_for_somebody() {
    let mut names = BTreeSet::new();
    let mut own = [0; 4];
    for case in &CASES {
        assert!(names.insert(case.name), "{} is there twice", case.name);
        let of = [case.edge, case.openflow, case.onos, case.core];
        let of = of.map(|of| usize::from(matches!(of, It)));
        assert!(of.contains(&1), "{} is for nobody", case.name);
        for (sum, of) in own.iter_mut().zip(of) {
            *sum += of;
        }
    }
    println!(
        "cases of edge, openflow, onos, onos with a real core: {own:?} of {}",
        names.len()
    );
    assert!(!own.contains(&0), "{own:?}");
}
