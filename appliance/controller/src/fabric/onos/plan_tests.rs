use super::*;
use crate::fabric::{
    Attached,
    network::Switch,
    onos::{
        rules,
        survey::{self, Device},
    },
};
use dtn_api::{MacAddress, slice::Class};
use serde_json::Value;

fn recorded(text: &str) -> Value {
    serde_json::from_str::<Value>(text).unwrap()["body"].clone()
}
fn network() -> Network {
    Network {
        switches: vec![Switch {
            name: "edge1".parse().unwrap(),
            datapath_id: 1,
            single_table: false,
        }],
        ..Network::default()
    }
}
/// What was recorded: one member's rule for IPv6 with its meter.
fn wish(rate_bps: u64) -> Intent {
    Intent {
        slice: Uuid::from_u128(1),
        name: "red".parse().unwrap(),
        tag: 7,
        class: Class::Guaranteed,
        rate_bps,
        burst_ms: 10,
        members: vec![Attached {
            mac: MacAddress::new([2, 0, 0, 0, 0, 1]),
            ips: vec!["fd00::1".parse().unwrap()],
            at: "edge1/1".parse().unwrap(),
        }],
        border: None,
        cables: BTreeSet::new(),
        access: None,
    }
}
fn seen(flows: &str, meters: &str) -> Survey {
    let ports = recorded(include_str!("../../../tests/onos/recorded/ports.json"));
    let device: Device = survey::read_device(&ports, &ports);
    Survey {
        devices: [("edge1".parse().unwrap(), device)].into(),
        flows: rules::read(&recorded(flows)),
        meters: survey::read_meters(&recorded(meters)),
        ..Survey::default()
    }
}
fn added() -> Survey {
    seen(
        include_str!("../../../tests/onos/recorded/flows_added.json"),
        include_str!("../../../tests/onos/recorded/meters_added.json"),
    )
}
fn pending() -> Survey {
    seen(
        include_str!("../../../tests/onos/recorded/flows_pending.json"),
        include_str!("../../../tests/onos/recorded/meters_pending.json"),
    )
}
fn at(survey: &Survey, memory: &mut Memory, intents: &[Intent], now: Instant) -> Plan {
    plan(&network(), intents, survey, memory, 5, now)
}

#[test]
fn a_rule_and_its_meter_are_known_again_after_a_start() {
    let mut memory = Memory::default();
    let plan = at(&added(), &mut memory, &[wish(20_000_000)], Instant::now());
    assert!(plan.make.is_empty(), "{:?}", plan.make);
    let text = "table 0 priority 30000 ";
    let again = plan.differences.iter().find(|d| d.what.starts_with(text));
    assert_eq!(again, None, "the one that is there is as wanted");
    assert!(
        plan.admit.is_empty(),
        "nobody is let in before the rest is there"
    );
    assert!(!plan.forward.is_empty());
    assert_eq!(memory.made.len(), 1);
}

#[test]
fn a_rule_names_its_meter_in_hexadecimal() {
    let hexadecimal = |text: &str, of: &str| {
        let (from, to) = (format!("\"{of}\": \"4\""), format!("\"{of}\": \"1a\""));
        assert!(text.contains(&from));
        text.replace(&from, &to)
    };
    let flows = include_str!("../../../tests/onos/recorded/flows_added.json");
    let meters = include_str!("../../../tests/onos/recorded/meters_added.json");
    let survey = seen(&hexadecimal(flows, "meterId"), &hexadecimal(meters, "id"));
    let mut memory = Memory::default();
    let plan = at(&survey, &mut memory, &[wish(20_000_000)], Instant::now());
    assert!(plan.make.is_empty(), "{:?}", plan.make);
    let text = "table 0 priority 30000 ";
    let again = plan.differences.iter().find(|d| d.what.starts_with(text));
    assert_eq!(again, None, "the one that is there is as wanted");
    assert_eq!(memory.made.into_values().collect::<Vec<_>>(), [26]);
}

#[test]
fn another_rate_is_another_meter_and_the_old_rule_stays_until_then() {
    let plan = at(
        &added(),
        &mut Memory::default(),
        &[wish(40_000_000)],
        Instant::now(),
    );
    assert_eq!(plan.make.len(), 1);
    assert!(plan.shut.is_empty() && plan.retire.is_empty());
}

#[test]
fn who_leaves_is_shut_out_first_and_the_meter_goes_when_no_rule_has_it() {
    let mut memory = Memory::default();
    let mut survey = added();
    let plan = at(&survey, &mut memory, &[], Instant::now());
    assert_eq!(plan.shut.len(), 1);
    assert!(plan.retire.is_empty());
    assert!(!plan.idle());
    for held in &mut survey.flows {
        held.state = "PENDING_REMOVE".into();
    }
    let plan = at(&survey, &mut memory, &[], Instant::now());
    assert!(plan.shut.is_empty() && plan.retire.is_empty());
    assert!(!plan.idle(), "the meter waits for the rule's end");
    survey.flows.clear();
    let plan = at(&survey, &mut memory, &[], Instant::now());
    assert_eq!(plan.retire.len(), 1);
    // nor is one lost that no rule has had yet
    let mut memory = Memory::default();
    let key = GuardKey {
        tag: 9,
        mac: MacAddress::new([2; 6]),
    };
    memory.made.insert((device(1), key), 4);
    assert_eq!(
        at(&survey, &mut memory, &[], Instant::now()).retire.len(),
        1
    );
    // never a meter that is not known to be ours
    let plan = at(&survey, &mut Memory::default(), &[], Instant::now());
    assert!(plan.retire.is_empty());
}

#[test]
fn what_is_on_its_way_for_too_long_has_failed() {
    let mut memory = Memory::default();
    let (wish, survey, began) = ([wish(20_000_000)], pending(), Instant::now());
    let why = |memory: &mut Memory, now| {
        let plan = at(&survey, memory, &wish, now);
        let all: Vec<String> = plan.errors.into_iter().map(|(_, _, why)| why).collect();
        all.join("; ")
    };
    let first = why(&mut memory, began);
    assert!(
        first.contains("meter 4 of edge1 is on its way (PENDING_ADD)"),
        "{first}"
    );
    let later = why(&mut memory, began + PENDING);
    assert!(!later.contains("has failed"), "{later}");
    let late = why(&mut memory, began + PENDING + Duration::from_secs(1));
    assert!(late.contains("meter 4 of edge1 has failed"), "{late}");
}

#[test]
fn anothers_mark_is_seen() {
    let (key, rule) = mark(&device(1), 9);
    let mut body = rule.body(&key);
    body["id"] = "1".into();
    body["state"] = "ADDED".into();
    let survey = Survey {
        flows: rules::read(&serde_json::json!({"flows": [body]})),
        ..Survey::default()
    };
    assert_eq!(others(&survey, 5), BTreeSet::from([9]));
    assert!(others(&survey, 9).is_empty());
}
