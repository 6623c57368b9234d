//! What is done to a switch that has something else than it shall have.

use super::{Changes, Step, difference};
use crate::fabric::program::{
    Resolved,
    walk::{
        held::{Held, Said},
        site::{Site, Wish, switch},
    },
};
use dtn_api::slice::Class;
use dtn_openflow::{
    Action, Band, Field, FlowCommand, FlowStats, Instruction, Match, Message, MeterConfig,
    PORT_CONTROLLER, PORT_NORMAL,
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A switch with a slice of two pods, and what is wanted of it.
fn programmed() -> (Site, Held, Resolved) {
    let site = Site::of(&[]);
    let intent = site.intent(&Wish {
        slice: 1,
        tag: 5,
        class: Class::Guaranteed,
        rate_bps: 1_000_000_000,
        hosts: [0, 1].into(),
        label: Some(200),
    });
    let mut switches = BTreeMap::new();
    let intents = [intent];
    site.program(&intents, &mut switches, |_| ());
    let (mut wanted, _) = site.wanted(&intents, &switches);
    let name = switch(0);
    (
        site,
        switches.remove(&name).unwrap(),
        wanted.remove(&name).unwrap(),
    )
}
fn changes(wanted: &Resolved, said: &Said) -> Changes {
    difference("s0", wanted, &said.found())
}
fn kinds(changes: &Changes) -> Vec<(&str, Option<Uuid>)> {
    let of = changes.differences();
    of.map(|d| (d.kind.as_str(), d.slice)).collect()
}
fn flow(priority: u16, instructions: Vec<Instruction>) -> FlowStats {
    FlowStats {
        priority,
        cookie: 42,
        instructions,
        ..FlowStats::default()
    }
}
fn out(port: u32) -> Vec<Instruction> {
    vec![Instruction::ApplyActions(vec![Action::Output {
        port,
        max_len: 0,
    }])]
}
const SLICE: Option<Uuid> = Some(Uuid::from_u128(1));

#[test]
fn what_is_right_is_left_alone() {
    let (_, held, wanted) = programmed();
    let mut said = held.say();
    // said another way, it is the same
    for flow in &mut said.flows {
        flow.instructions.reverse();
        (flow.duration_sec, flow.packet_count) = (9, 9);
        for instruction in &mut flow.instructions {
            if let Instruction::ApplyActions(actions) = instruction {
                for action in actions {
                    if let Action::Output { max_len, .. } = action {
                        *max_len = 0xffff;
                    }
                }
            }
        }
    }
    for group in &mut said.groups {
        group.buckets.reverse();
        for bucket in &mut group.buckets {
            (bucket.weight, bucket.watch_port) = (1, 0);
        }
    }
    said.flows.reverse();
    assert_eq!(changes(&wanted, &said), Changes::default());
}

#[test]
fn what_is_somebody_elses_is_said_and_not_touched() {
    let (_, held, wanted) = programmed();
    let mut said = held.say();
    said.flows.extend([
        flow(0, out(PORT_NORMAL)),
        flow(40_000, out(7)),
        flow(40_001, out(PORT_CONTROLLER)),
        flow(40_002, vec![]),
        flow(40_003, vec![Instruction::Meter(9)]),
        flow(40_004, vec![Instruction::GotoTable(20)]),
    ]);
    said.meters.push(MeterConfig {
        flags: 0,
        meter_id: 9,
        bands: vec![],
    });
    let changes = changes(&wanted, &said);
    assert!(changes.is_empty());
    let whats: Vec<_> = changes.differences().map(|d| d.what.as_str()).collect();
    assert_eq!(
        whats,
        [
            "table 0 priority 0 all -> port normal",
            "table 0 priority 40000 all -> port 7",
            "table 0 priority 40004 all -> table 20"
        ]
    );
    assert!(
        kinds(&changes)
            .iter()
            .all(|kind| *kind == ("foreign", None))
    );
    // what nobody uses goes
    said.flows.clear();
    let wanted = Resolved::default();
    let changes = super::difference("s0", &wanted, &said.found());
    assert_eq!(changes.at(Step::Retire).len(), 3);
}

#[test]
fn a_changed_rule_is_replaced_in_its_place() {
    let (_, mut held, wanted) = programmed();
    let delivers = |flow: &&mut FlowStats| flow.priority == 20_000;
    let changed = held.flows.values_mut().find(delivers).unwrap();
    changed.instructions = out(99);
    let changes = changes(&wanted, &held.say());
    assert_eq!(kinds(&changes), [("other", SLICE)]);
    assert_eq!(changes.len(), 1);
    let [Message::FlowMod(message)] = changes.at(Step::Forward).as_slice() else {
        panic!("{changes:?}");
    };
    assert_eq!(message.command, FlowCommand::Add);
    assert_eq!(
        changes.differences().next().unwrap().what,
        "table 20 priority 20000 metadata=5 eth_dst=02:00:00:00:01:00 -> port 1; it is \
         table 20 priority 20000 metadata=5 eth_dst=02:00:00:00:01:00 -> port 99"
    );
}

#[test]
fn one_that_would_end_by_itself_is_not_the_same() {
    let (_, mut held, wanted) = programmed();
    held.flows.values_mut().next().unwrap().hard_timeout = 60;
    assert_eq!(changes(&wanted, &held.say()).len(), 1);
}

#[test]
fn a_rule_of_ours_that_nobody_wants_goes() {
    let (_, held, wanted) = programmed();
    let mut said = held.say();
    said.flows.push(FlowStats {
        table_id: 20,
        cookie: 0x6474_0000_0007_0006,
        matches: Match::new([Field::Metadata {
            value: 7,
            mask: None,
        }]),
        ..flow(20_000, out(1))
    });
    let changes = changes(&wanted, &said);
    assert_eq!(kinds(&changes), [("extra", None)]);
    let [Message::FlowMod(message)] = changes.at(Step::Clear).as_slice() else {
        panic!("{changes:?}");
    };
    assert_eq!(message.command, FlowCommand::DeleteStrict);
    assert_eq!(message.cookie_mask, 0xffff_0000_0000_0000);
}

#[test]
fn meters_and_groups_are_mended() {
    let (_, mut held, wanted) = programmed();
    held.groups.clear();
    held.meters.remove(&2);
    held.meters.get_mut(&1).unwrap().bands = vec![Band::Drop {
        rate: 1,
        burst_size: 1,
    }];
    let changes = changes(&wanted, &held.say());
    assert_eq!(
        kinds(&changes),
        [("missing", SLICE), ("other", SLICE), ("missing", SLICE)]
    );
    assert_eq!(changes.at(Step::Furnish).len(), changes.len());
    for message in changes.at(Step::Furnish) {
        held.apply(message);
    }
    assert!(super::difference("s0", &wanted, &held.say().found()).is_empty());
}

/// A switch that comes back empty, or with half of what it had, gets what it lacks.
#[test]
fn what_was_lost_is_made_again() {
    let (site, held, wanted) = programmed();
    let empty = changes(&wanted, &Said::default());
    let all = wanted.flows.len() + wanted.groups.len() + wanted.meters.len();
    assert_eq!(empty.len(), all);
    assert!(empty.differences().all(|d| d.kind == "missing"));
    let mut half = held.clone();
    let mut keep = false;
    half.flows.retain(|_, _| {
        keep = !keep;
        keep
    });
    let changes = changes(&wanted, &half.say());
    assert_eq!(changes.len(), held.flows.len() - half.flows.len());
    assert_eq!(site.network.switches.len(), 1);
}
