use super::*;
use crate::slices;
use serde_json::{Value, json};
use uuid::Uuid;

fn read<T: serde::de::DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}
fn id(n: u8) -> HostId {
    format!("02:00:00:00:00:{n:02x}-none").parse().unwrap()
}
/// `n<n>/data0`.
fn nic(n: u8) -> Host {
    read(json!({"id": id(n),
        "spec": {"kind": "nic", "node": format!("n{n}"), "nic": "data0", "capacity_bps": 1, "mtu": 9000},
        "location": {"device": "edge1", "port": n}, "seen_at": at(0), "version": 1}))
}
fn hosts() -> BTreeMap<HostId, Host> {
    (1..=3).map(|n| (id(n), nic(n))).collect()
}
fn booking(change: impl FnOnce(&mut Value)) -> Booking {
    let mut spec = json!({"name": "hall",
        "qos": {"class": "guaranteed", "rate_bps": 1000, "mode": "hose"}, "open": true,
        "members": [{"host": id(1)}, {"host": id(2)}, {"host": id(3), "joined": true}],
        "schedule": {"start": at(0), "end": at(1000)}});
    change(&mut spec);
    let held = slices::hold(Uuid::from_u128(1), read(spec), Vec::new(), at(0));
    let none = Default::default();
    slices::act(&held, slices::Action::Commit, &none, at(0)).unwrap()
}
fn lease(mac: &str, node: Option<&str>, label: Option<&str>) -> LeaseRow {
    let labels = label.map_or(json!({}), |label| json!({NIC_LABEL: label}));
    read(
        json!({"lease": {"id": Uuid::nil(), "slice_id": Uuid::from_u128(1), "client_id": "pod",
        "mac": mac, "ips": ["10.20.0.2/24"], "mtu": 9000, "t1": at(1), "t2": at(2),
        "expires_at": at(3), "state": "bound", "labels": labels, "version": 1},
        "lifetime": 600, "node": node}),
    )
}

#[test]
fn an_interface_sits_on_the_nic_that_it_is_or_that_it_names() {
    let child = "02:00:00:00:01:01";
    let cases = [
        ("02:00:00:00:00:03", None, None, true),
        (child, None, None, false),
        (child, Some("n3"), None, true),
        (child, Some("n3"), Some("data0"), true),
        (child, Some("n3"), Some("data1"), false),
        (child, Some("n1"), Some("data0"), false),
    ];
    for (mac, node, label, sits) in cases {
        let row = lease(mac, node, label);
        let on = |row: &LeaseRow| sits_on(row, &nic(3), &hosts());
        assert_eq!(on(&row), sits, "{mac} {node:?} {label:?}");
        let back = crate::leases::release(&row, at(1)).unwrap();
        assert!(!on(&back), "it was given back");
    }
    // a NIC that asks for itself, without a label, sits on no other of its node
    let mut other = nic(4);
    other.spec.node = "n3".parse().unwrap();
    let hosts = BTreeMap::from([(id(3), nic(3)), (id(4), other.clone())]);
    let row = lease("02:00:00:00:00:04", Some("n3"), None);
    assert!(sits_on(&row, &other, &hosts) && !sits_on(&row, &nic(3), &hosts));
}

#[test]
fn only_nics_that_joined_by_themselves_become_idle() {
    let hosts = hosts();
    let mut booking = booking(|_| {});
    let on_it = lease("02:00:00:00:01:01", Some("n3"), Some("data0"));
    let see =
        |booking: &Booking, leases: &[&LeaseRow], second| idle(booking, &hosts, leases, at(second));
    assert_eq!(see(&booking, &[&on_it], 5), BTreeMap::new());
    booking.idle = see(&booking, &[], 5);
    assert_eq!(booking.idle, BTreeMap::from([(id(3), at(5))]));
    // it is counted from the first time that nothing was on it
    assert_eq!(see(&booking, &[], 50), booking.idle);
    assert_eq!(see(&booking, &[&on_it], 51), BTreeMap::new());
    // one that is not declared any more has nothing on it
    assert_eq!(
        idle(&booking, &BTreeMap::new(), &[&on_it], at(60)),
        booking.idle
    );
}

#[test]
fn who_may_join_is_said_with_the_remedy() {
    let may = |booking: &Booking, itself, second| may_join(booking, &nic(4), itself, at(second));
    let hall = booking(|_| {});
    may(&hall, true, 1).unwrap();
    let closed = booking(|spec| spec["open"] = json!(false));
    may(&closed, false, 1).unwrap();
    let border = |spec: &mut Value| spec["members"][0] = json!({"border_link": "wan"});
    let pair = |spec: &mut Value| spec["qos"]["mode"] = json!("pair");
    let cases = [
        (
            may(&closed, true, 1),
            Kind::Forbidden,
            "dtnctl slice join hall n4/data0",
        ),
        (may(&hall, true, 1000), Kind::StateConflict, "it has ended"),
        (
            may(&booking(pair), false, 1),
            Kind::StateConflict,
            "mode hose",
        ),
        (
            may(&booking(border), false, 1),
            Kind::StateConflict,
            "another domain",
        ),
    ];
    for (answer, kind, words) in cases {
        let problem = answer.unwrap_err();
        assert!(problem.is(kind), "{words}: {problem}");
        assert!(problem.detail.contains(words), "{words}: {problem}");
    }
    for (field, body) in [
        ("/host", json!({"host": id(5)})),
        ("/host", json!({"border_link": "wan"})),
        ("/role", json!({"role": "gateway"})),
        ("/joined", json!({"joined": true})),
    ] {
        let problem = check(&id(4), &read(body)).unwrap_err();
        assert_eq!(problem.errors[0].pointer, field, "{problem}");
    }
    check(&id(4), &read(json!({}))).unwrap();
}

#[test]
fn who_may_leave_is_said_with_the_remedy() {
    let hall = booking(|_| {});
    let leave = |booking: &Booking, leases: &[&LeaseRow]| {
        may_leave(booking, &nic(3), leases.iter().copied(), &hosts())
    };
    leave(&hall, &[]).unwrap();
    let two = booking(|spec| spec["members"] = json!([{"host": id(2)}, {"host": id(3)}]));
    // the other that is left has joined, and goes again
    let joined = json!([{"host": id(1)}, {"host": id(3)}, {"host": id(2), "joined": true}]);
    let joined = booking(|spec| spec["members"] = joined);
    let gateway = booking(|spec| spec["members"][2] = json!({"host": id(3), "role": "gateway"}));
    let row = lease("02:00:00:00:00:03", Some("n3"), None);
    let rows = [&row];
    let cases = [
        (&hall, &rows[..], "dtnctl undeploy"),
        (&joined, &[][..], "too few"),
        (&two, &[][..], "dtnctl slice release hall"),
        (&gateway, &[][..], "its gateway's"),
    ];
    for (booking, leases, words) in cases {
        let problem = leave(booking, leases).unwrap_err();
        assert!(problem.is(Kind::StateConflict), "{problem}");
        assert!(problem.detail.contains(words), "{words}: {problem}");
    }
}
