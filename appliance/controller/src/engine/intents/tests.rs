//! What the fabric is told of a slice with a gateway.

use super::intents;
use crate::{
    access::AccessRow,
    fabric::network::{Network, Switch},
    gateways::GatewayRow,
    leases::LeaseRow,
    members::NIC_LABEL,
    slices::{self, Action},
    state::{Change, State},
};
use dtn_api::{MacAddress, gateway::AccessRule};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

const NEAR: &str = "02:00:00:00:00:01";
const GATE: &str = "02:00:00:00:00:07";
/// The gateway's own interface in the slice.
const CHILD: &str = "02:00:00:00:07:01";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}
fn read<T: serde::de::DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}
fn network() -> Network {
    let port = |nic: &str, at: &str| (nic.to_owned(), at.parse().unwrap());
    Network {
        switches: vec![Switch {
            name: "edge1".parse().unwrap(),
            datapath_id: 1,
            single_table: false,
        }],
        cables: Vec::new(),
        ports: [port("dtn/data0", "edge1/1"), port("gate/data0", "edge1/2")].into(),
        borders: Vec::new(),
    }
}
fn lease(client: &str, mac: &str, node: &str, ip: &str) -> LeaseRow {
    read(
        json!({"lease": {"id": Uuid::from_u128(client.len() as u128),
        "slice_id": Uuid::from_u128(1), "client_id": client, "mac": mac, "ips": [ip], "mtu": 9000,
        "t1": at(300), "t2": at(525), "expires_at": at(600), "state": "bound", "version": 1},
        "lifetime": 600, "node": node}),
    )
}
fn rule(number: u16, more: Value) -> AccessRule {
    let mut rule = json!({"priority": number, "action": "allow", "direction": "outbound"});
    for (field, value) in more.as_object().unwrap() {
        rule[field] = value.clone();
    }
    read(rule)
}
fn state() -> State {
    let mut state = State::default();
    for (node, mac) in [("dtn", NEAR), ("gate", GATE)] {
        state.apply(Change::Host(read(json!({"id": format!("{mac}-none"),
            "spec": {"kind": "nic", "node": node, "nic": "data0", "capacity_bps": 1, "mtu": 9000},
            "location": {"device": "edge1", "port": 1}, "seen_at": at(0), "version": 1}))));
    }
    let gateway: GatewayRow = read(json!({"name": "internet", "seen_at": at(0), "version": 1,
        "spec": {"node": "gate", "host": format!("{GATE}-none"), "networks": ["0.0.0.0/0"],
            "outside": ["192.0.2.2/24"]}}));
    state.apply(Change::Gateway(Box::new(gateway)));
    let window = json!({"start": at(100), "end": at(200)});
    let rules = AccessRow::empty(&"internet".parse().unwrap(), 0).replaced(vec![
        rule(30, json!({"slice": "lhc"})),
        rule(10, json!({"schedule": window})),
        rule(20, json!({"slice": "cms"})),
        rule(40, json!({"slice": "lhc", "tenant": "other"})),
    ]);
    state.apply(Change::Access(rules));
    let spec = read(
        json!({"name": "lhc", "qos": {"class": "guaranteed", "rate_bps": 1000},
        "members": [{"host": format!("{NEAR}-none")}, {"host": format!("{GATE}-none"), "role": "gateway"}],
        "schedule": {"start": at(0), "end": at(1000)},
        "addressing": {"ipv4": {"cidr": "10.20.0.0/24", "gateway": "10.20.0.1"}}}),
    );
    let held = slices::hold(Uuid::from_u128(1), spec, Vec::new(), at(0));
    let none = Default::default();
    let mut booking = slices::act(&held, Action::Commit, &none, at(0)).unwrap();
    booking.tag = Some(7);
    state.apply(Change::Booking(Box::new(booking)));
    state.apply(Change::Lease(lease(
        "pod",
        "02:00:00:00:01:01",
        "dtn",
        "10.20.0.2/24",
    )));
    state
}
fn numbers(state: &State, second: i64) -> Option<Vec<u16>> {
    let told = intents(state, &network(), at(second)).remove(0);
    let access = told.access?;
    Some(access.rules.iter().map(|rule| rule.priority).collect())
}

#[test]
fn the_fabric_is_told_who_may_pass_as_time_goes_by() {
    let mut state = state();
    assert_eq!(numbers(&state, 150), None, "the gateway is not there yet");
    let own = lease("gateway:internet", CHILD, "gate", "10.20.0.1/24");
    // somebody who calls himself the gateway is not it
    let other = LeaseRow {
        node: Some("dtn".parse().unwrap()),
        ..own.clone()
    };
    state.apply(Change::Lease(other));
    assert_eq!(numbers(&state, 150), None);
    state.apply(Change::Lease(own.clone()));
    for (second, rules) in [
        (99, vec![30]),
        (100, vec![10, 30]),
        (199, vec![10, 30]),
        (200, vec![30]),
    ] {
        assert_eq!(numbers(&state, second), Some(rules), "at {second}");
    }
    let told = intents(&state, &network(), at(0)).remove(0);
    let access = told.access.unwrap();
    assert_eq!(access.gateway, CHILD.parse::<MacAddress>().unwrap());
    assert_eq!(access.subnets, ["10.20.0.0/24".parse().unwrap()]);
    let ports: BTreeMap<String, String> = told
        .members
        .iter()
        .map(|member| (member.mac.to_string(), member.at.to_string()))
        .collect();
    assert_eq!(ports[CHILD], "edge1/2");
    // a gateway without a port is no gateway to the switches
    let mut unwired = network();
    unwired.ports.remove("gate/data0");
    assert_eq!(intents(&state, &unwired, at(0)).remove(0).access, None);
    // nor is one that has given its lease back
    let gone = crate::leases::release(&own, at(1)).unwrap();
    state.apply(Change::Lease(gone));
    assert_eq!(numbers(&state, 1), None);
}

#[test]
fn a_gateway_and_a_member_on_one_node_have_a_nic_each() {
    let mut state = state();
    let third = "02:00:00:00:00:09";
    state.apply(Change::Host(read(json!({"id": format!("{third}-none"),
        "spec": {"kind": "nic", "node": "gate", "nic": "data1", "capacity_bps": 1, "mtu": 9000},
        "location": {"device": "edge1", "port": 3}, "seen_at": at(0), "version": 1}))));
    let mut booking = state.bookings[&Uuid::from_u128(1)].clone();
    booking
        .slice
        .spec
        .members
        .push(read(json!({"host": format!("{third}-none")})));
    state.apply(Change::Booking(Box::new(booking)));
    let mut network = network();
    network
        .ports
        .insert("gate/data1".into(), "edge1/3".parse().unwrap());
    state.apply(Change::Lease(lease(
        "gateway:internet",
        CHILD,
        "gate",
        "10.20.0.1/24",
    )));
    state.apply(Change::Lease(lease(
        "neighbour",
        "02:00:00:00:02:02",
        "gate",
        "10.20.0.3/24",
    )));
    let told = intents(&state, &network, at(0)).remove(0);
    let at = |mac: &str| {
        let member = told.members.iter().find(|one| one.mac.to_string() == mac);
        member.map(|one| one.at.to_string())
    };
    assert_eq!(at(CHILD).as_deref(), Some("edge1/2"));
    assert_eq!(at("02:00:00:00:02:02").as_deref(), Some("edge1/3"));
}

#[test]
fn of_several_nics_of_a_node_a_lease_names_the_one_that_it_sits_on() {
    let mut state = state();
    let other = "02:00:00:00:00:09";
    state.apply(Change::Host(read(json!({"id": format!("{other}-none"),
        "spec": {"kind": "nic", "node": "dtn", "nic": "data1", "capacity_bps": 1, "mtu": 9000},
        "location": {"device": "edge1", "port": 3}, "seen_at": at(0), "version": 1}))));
    let mut booking = state.bookings[&Uuid::from_u128(1)].clone();
    let member = read(json!({"host": format!("{other}-none"), "joined": true}));
    booking.slice.spec.members.push(member);
    state.apply(Change::Booking(Box::new(booking)));
    let mut network = network();
    let port = "edge1/3".parse().unwrap();
    network.ports.insert("dtn/data1".into(), port);
    let lease = lease("pod", "02:00:00:00:01:01", "dtn", "10.20.0.2/24");
    let sits = |state: &State| {
        let told = intents(state, &network, at(0)).remove(0);
        let member = told.members.iter().find(|one| one.mac == lease.lease.mac);
        member.map(|one| one.at.to_string())
    };
    assert_eq!(sits(&state), None, "it does not say");
    let mut rows = Vec::new();
    for nic in ["data0", "data1"] {
        let mut labelled = lease.clone();
        labelled.lease.labels.insert(NIC_LABEL.into(), nic.into());
        rows.push(labelled);
    }
    let ports: Vec<_> = rows
        .into_iter()
        .map(|row| {
            state.apply(Change::Lease(row));
            sits(&state)
        })
        .collect();
    assert_eq!(
        ports,
        [Some("edge1/1".to_owned()), Some("edge1/3".to_owned())]
    );
}
