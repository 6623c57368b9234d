use super::*;

fn nic(name: &str, class: Option<NicClass>, last: u8) -> Nic {
    serde_json::from_value(serde_json::json!({
        "name": name, "identity": {"ifindex": last, "netns_inode": 1},
        "mac": MacAddress::new([2, 0, 0, 0, 0, last]), "class": class, "carrier": true,
        "speed": "10Gbit", "mtu": 9000, "driver": "veth",
    }))
    .unwrap()
}
fn wish(class: NicClass, name: Option<&str>) -> Wish {
    Wish {
        key: "u1".into(),
        pod: PodIdentity {
            uid: "u1".into(),
            name: "t1".into(),
            namespace: "default".into(),
            engine: "podman".into(),
        },
        network: "dtn".into(),
        ifname: "data0".parse().unwrap(),
        class,
        nic: name.map(|name| name.parse().unwrap()),
        slice: None,
        memory: None,
        streams: 8,
        terms: Terms::default(),
    }
}
fn slice_of(last: u8) -> Slice {
    serde_json::from_value(serde_json::json!({
        "id": uuid::Uuid::from_u128(1),
        "spec": {
            "name": "lhc", "qos": {"class": "guaranteed", "rate_bps": 600_000_000_u64, "mode": "hose"},
            "members": [{"host": HostId::untagged(MacAddress::new([2, 0, 0, 0, 0, last]))}],
            "schedule": {"start": "2030-01-01T00:00:00Z", "end": "2030-01-02T00:00:00Z"},
        },
        "status": {
            "reservation": "committed", "provision": "provisioned", "lifecycle": "created",
            "data_plane": "active", "generation": 1, "observed_generation": 1,
        },
        "version": 1, "created_at": "2030-01-01T00:00:00Z",
    }))
    .unwrap()
}

#[test]
fn another_nic_joins_an_open_slice_where_no_member_is_free() {
    use NicClass::Dedicated;
    let nics = [nic("d", Some(Dedicated), 4), nic("e", Some(Dedicated), 5)];
    let open = |member: u8| {
        let mut slice = slice_of(member);
        slice.spec.open = true;
        slice
    };
    let name = |wish: &Wish, slice: &Slice| {
        choose(&nics, wish, Some(slice)).map(|nic| nic.name.to_string())
    };
    assert_eq!(
        name(&wish(Dedicated, None), &open(5)).unwrap(),
        "e",
        "a member first"
    );
    assert_eq!(name(&wish(Dedicated, None), &open(9)).unwrap(), "d");
    assert_eq!(name(&wish(Dedicated, Some("d")), &open(5)).unwrap(), "d");
    let closed = name(&wish(Dedicated, Some("d")), &slice_of(5)).unwrap_err();
    assert!(
        closed.to_string().contains("dtnctl slice join lhc"),
        "{closed}"
    );
    // it is no way around what keeps a NIC back
    let shared = name(&wish(NicClass::Shared, None), &open(9)).unwrap_err();
    assert!(
        shared.to_string().contains("given as dedicated"),
        "{shared}"
    );
}

#[test]
fn the_first_free_nic_of_class_and_slice_is_taken() {
    use NicClass::{Dedicated, Shared};
    let mut taken = nic("a", Some(Dedicated), 1);
    taken.used_by = vec!["other".into()];
    let mut guarded = nic("b", Some(Dedicated), 2);
    guarded.guarded = vec!["it carries the default route: no".into()];
    let nics = [
        taken,
        guarded,
        nic("c", Some(Shared), 3),
        nic("d", Some(Dedicated), 4),
        nic("e", Some(Dedicated), 5),
        nic("f", None, 6),
    ];
    let name = |wish: &Wish, slice: Option<&Slice>| {
        choose(&nics, wish, slice).map(|nic| nic.name.to_string())
    };
    assert_eq!(name(&wish(Dedicated, None), None).unwrap(), "d");
    assert_eq!(
        name(&wish(Dedicated, None), Some(&slice_of(5))).unwrap(),
        "e"
    );
    assert_eq!(name(&wish(Shared, None), None).unwrap(), "c");
    assert_eq!(name(&wish(Dedicated, Some("e")), None).unwrap(), "e");
    for (named, words) in [
        ("a", "other has it"),
        ("b", "default route"),
        ("c", "given as shared"),
        ("f", "does not give it"),
        ("x", "no NIC x"),
    ] {
        let problem = name(&wish(Dedicated, Some(named)), None).unwrap_err();
        assert!(problem.to_string().contains(words), "{named}: {problem}");
    }
    let none = name(&wish(Dedicated, None), Some(&slice_of(3))).unwrap_err();
    assert!(none.is(Kind::StateConflict));
    assert_eq!(none.errors.len(), 5, "{none}");
    let mut own = nic("a", Some(Dedicated), 1);
    own.used_by = vec!["u1".into()];
    assert!(choose(&[own], &wish(Dedicated, None), None).is_ok());
}
