use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}
fn slice(class: &str, start: i64, end: i64) -> Slice {
    serde_json::from_value(serde_json::json!({
        "id": Uuid::from_u128(1),
        "spec": {
            "name": "lhc", "qos": {"class": class, "rate_bps": 600_000_000_u64},
            "members": [], "schedule": {"start": at(start), "end": at(end)},
        },
        "status": {
            "reservation": "committed", "provision": "provisioned", "lifecycle": "created",
            "data_plane": "active", "generation": 1, "observed_generation": 1,
        },
        "version": 1, "created_at": at(0),
    }))
    .unwrap()
}
fn binding(ends: i64) -> SliceBinding {
    SliceBinding {
        id: Uuid::from_u128(1),
        name: "lhc".parse().unwrap(),
        class: Class::Guaranteed,
        rate_bps: 600_000_000,
        ends_at: at(ends),
        share_bps: None,
    }
}
fn view(slices: Vec<Slice>, heard: bool, trouble: &str) -> SliceView {
    SliceView {
        slices,
        read_at: heard.then(|| at(0)),
        trouble: trouble.into(),
    }
}

#[test]
fn the_rate_is_the_slice_s_while_it_carries_and_a_hundredth_otherwise() {
    let speed = Some(Rate::from_bps(10_000_000_000));
    let (full, rest) = (600_000_000, 100_000_000);
    let table = [
        (
            "carries",
            view(vec![slice("guaranteed", 0, 100)], true, ""),
            50,
            full,
        ),
        (
            "not begun",
            view(vec![slice("guaranteed", 60, 100)], true, ""),
            50,
            rest,
        ),
        (
            "over",
            view(vec![slice("guaranteed", 0, 40)], true, ""),
            50,
            rest,
        ),
        (
            "extended",
            view(vec![slice("guaranteed", 0, 900)], true, ""),
            500,
            full,
        ),
        (
            "no promise",
            view(vec![slice("best_effort", 0, 100)], true, ""),
            50,
            rest,
        ),
        ("lost", view(vec![], true, ""), 50, rest),
        ("silent", view(vec![], true, "no answer"), 50, full),
        ("just started", view(vec![], false, ""), 50, full),
        ("silent, over", view(vec![], false, "no answer"), 150, rest),
    ];
    for (what, view, now, expected) in table {
        let found = wanted(&binding(100), &view, at(now), speed);
        assert_eq!(found.bps(), expected, "{what}");
    }
    assert_eq!(best_effort(None), LEAST);
    assert_eq!(best_effort(Some(Rate::from_bps(10_000_000))), LEAST);
}

#[test]
fn pods_share_a_slice_on_one_nic_and_not_across_nics() {
    let sender = |key: &str, nic: &str, binding: Option<SliceBinding>| Sender {
        key: key.into(),
        ifname: "data0".parse().unwrap(),
        nic: nic.into(),
        binding,
        rate: Rate::from_bps(900),
    };
    let mut all = [
        sender("a", "n1", Some(binding(1))),
        sender("b", "n1", Some(binding(1))),
        sender("c", "n1", Some(binding(1))),
        sender("d", "n2", Some(binding(1))),
        sender("e", "n1", None),
    ];
    share(&mut all);
    let rates: Vec<u64> = all.iter().map(|sender| sender.rate.bps()).collect();
    assert_eq!(rates, [300, 300, 300, 900, 900]);
    // an agreed part is no part of another NIC's
    let mut agreed = all.clone();
    for sender in &mut agreed {
        sender.rate = Rate::from_bps(900_000_000);
    }
    for at in [0, 3] {
        agreed[at].binding.as_mut().unwrap().share_bps = Some(500_000_000);
    }
    share(&mut agreed);
    let rates: Vec<u64> = agreed.iter().map(|s| s.rate.bps() / 1_000_000).collect();
    assert_eq!(rates, [500, 200, 200, 500, 900]);
}
