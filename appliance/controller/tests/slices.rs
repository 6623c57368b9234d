//! The life of a slice, without I/O: every way in, every way out, and what time does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dtn_api::{
    problem::Kind,
    slice::{DataPlane, Lifecycle, Provision, Reservation, SliceSpec},
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;
use vdnd::{
    admission::{Ledger, Share},
    fabric::Verdict,
    slices::{self, Action, Booking},
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}
fn spec(change: impl FnOnce(&mut Value)) -> SliceSpec {
    let mut json = json!({
        "name": "lhc",
        "qos": {"class": "guaranteed", "rate_bps": 600},
        "members": [{"host": "02:00:00:00:00:01-none"}, {"border_link": "wan"}],
        "schedule": {"start": at(100).to_string(), "end": at(200).to_string()},
        "hold_seconds": 60,
    });
    change(&mut json);
    serde_json::from_value(json).unwrap()
}
fn wan() -> Vec<Share> {
    vec![Share {
        link: "site-switch>wan".into(),
        capacity_bps: 1000,
        times: 1,
    }]
}
fn held() -> Booking {
    slices::hold(Uuid::from_u128(1), spec(|_| {}), wan(), at(0))
}
fn act(booking: &Booking, action: Action, second: i64) -> Result<Booking, dtn_api::Problem> {
    slices::act(booking, action, &Ledger::default(), at(second))
}
fn verdict(present: bool, enforced: bool) -> Verdict {
    Verdict {
        enforced,
        present,
        reason: "read back".into(),
    }
}

#[test]
fn a_hold_is_committed_before_it_runs_out_or_never() {
    let committed = act(&held(), Action::Commit, 59).unwrap();
    let status = &committed.slice.status;
    assert_eq!(status.reservation, Reservation::Committed);
    assert_eq!(status.provision, Provision::Provisioned);
    assert_eq!(status.hold_expires_at, None);
    assert_eq!(
        act(&committed, Action::Commit, 60).unwrap(),
        committed,
        "twice is success"
    );
    assert!(
        act(&held(), Action::Commit, 60)
            .unwrap_err()
            .is(Kind::HoldExpired)
    );
    let (out, what) = slices::age(&held(), at(60)).unwrap();
    assert_eq!(
        (out.slice.status.reservation, what),
        (Reservation::TimedOut, "slice.timed-out")
    );
    assert!(slices::age(&held(), at(59)).is_none());
    assert!(
        act(&out, Action::Commit, 61)
            .unwrap_err()
            .is(Kind::HoldExpired)
    );
    assert_eq!(act(&out, Action::Abort, 61).unwrap(), out);
}

#[test]
fn a_hold_that_ran_out_books_as_little_as_one_that_was_aborted() {
    let aborted = act(&held(), Action::Abort, 10).unwrap();
    let (expired, _) = slices::age(&held(), at(60)).unwrap();
    let window = held().slice.spec.schedule;
    // even before anybody has looked at the clock
    for booking in [&aborted, &expired, &held()] {
        let ledger = slices::ledger([booking].into_iter(), None, at(60));
        assert_eq!(ledger.peak("site-switch>wan", &window), 0);
    }
    let booked = slices::ledger([&held()].into_iter(), None, at(59));
    assert_eq!(booked.peak("site-switch>wan", &window), 600);
    assert!(
        act(&aborted, Action::Commit, 11)
            .unwrap_err()
            .is(Kind::StateConflict)
    );
}

#[test]
fn a_committed_slice_ends_by_its_window_or_by_request() {
    let committed = act(&held(), Action::Commit, 1).unwrap();
    assert!(
        act(&committed, Action::Abort, 2)
            .unwrap_err()
            .is(Kind::StateConflict)
    );
    let (over, _) = slices::age(&committed, at(200)).unwrap();
    assert_eq!(over.slice.status.lifecycle, Lifecycle::PassedEndTime);
    let ended = act(&committed, Action::Terminate, 150).unwrap();
    assert_eq!(ended.slice.status.lifecycle, Lifecycle::Terminated);
    assert_eq!(ended.slice.status.provision, Provision::Released);
    for gone in [&over, &ended] {
        assert_eq!(act(gone, Action::Terminate, 201).unwrap(), *gone);
        assert!(act(gone, Action::Provision, 201).is_err());
        assert!(act(gone, Action::Extend(at(300)), 201).is_err());
        let after = i64::from(slices::KEPT_SECONDS);
        assert!(!slices::forgotten(gone, at(149 + after)));
        assert!(slices::forgotten(gone, at(200 + after)));
    }
}

#[test]
fn a_later_end_is_admitted_for_the_longer_window_only() {
    let committed = act(&held(), Action::Commit, 1).unwrap();
    let longer = act(&committed, Action::Extend(at(300)), 2).unwrap();
    assert_eq!(longer.slice.spec.schedule.end, at(300));
    assert!(longer.slice.status.generation > committed.slice.status.generation);
    assert_eq!(act(&longer, Action::Extend(at(300)), 3).unwrap(), longer);
    assert!(
        act(&longer, Action::Extend(at(250)), 3)
            .unwrap_err()
            .is(Kind::InvalidRequest)
    );
    // somebody else has the time after
    let mut others = Ledger::default();
    let next = dtn_api::slice::Schedule {
        start: at(200),
        end: at(400),
    };
    others.book(
        Uuid::from_u128(2),
        dtn_api::slice::Class::Guaranteed,
        600,
        next,
        &wan(),
    );
    let problem = slices::act(&committed, Action::Extend(at(201)), &others, at(2)).unwrap_err();
    assert!(problem.is(Kind::InsufficientBandwidth));
    assert_eq!(problem.available_bps(), Some(350));
}

#[test]
fn the_data_plane_is_active_only_when_it_was_read_back() {
    let committed = act(&held(), Action::Commit, 1).unwrap();
    let see = |booking: &Booking, present, enforced, silent: Option<&str>, second| {
        slices::observe(booking, &verdict(present, enforced), silent, at(second))
            .unwrap_or_else(|| booking.clone())
    };
    let plane = |booking: &Booking| booking.slice.status.data_plane;
    let early = see(&committed, true, true, None, 50);
    assert_eq!(
        plane(&early),
        DataPlane::Deactivated,
        "its window has not begun"
    );
    let waiting = see(&early, false, false, None, 100);
    assert_eq!(plane(&waiting), DataPlane::Activating);
    let active = see(&waiting, true, true, None, 101);
    assert_eq!(plane(&active), DataPlane::Active);
    assert_eq!(
        active.slice.status.observed_generation,
        active.slice.status.generation
    );
    assert!(slices::observe(&active, &verdict(true, true), None, at(102)).is_none());
    assert_eq!(
        plane(&see(&active, true, false, None, 102)),
        DataPlane::Degraded
    );
    let released = act(&active, Action::Release, 103).unwrap();
    assert_eq!(
        plane(&see(&released, true, true, None, 103)),
        DataPlane::Deactivated
    );
    // a silent peer degrades what is stitched, and takes nothing away
    let mut stitched = active.clone();
    stitched.slice.stitch = Some(Uuid::from_u128(9));
    let silent = see(&stitched, true, true, Some("busan"), 104);
    assert_eq!(plane(&silent), DataPlane::Degraded);
    assert!(silent.slice.booked_at(at(104)));
    assert!(
        silent
            .slice
            .status
            .conditions
            .iter()
            .any(|c| c.kind == "PeerHeard" && !c.status)
    );
}

#[test]
fn every_fault_of_a_request_is_named_at_once() {
    let bad = spec(|json| {
        json["qos"] = json!({"class": "guaranteed", "rate_bps": 0, "burst_ms": 0});
        json["members"] = json!([{"host": "02:00:00:00:00:01-none"}, {}]);
        json["schedule"]["end"] = json!(at(100).to_string());
        json["hold_seconds"] = json!(901);
        json["addressing"] = json!({"ipv4": {"cidr": "fd00::/64"}, "mtu": 100});
    });
    let problem = slices::check(&bad, 86_400, at(0)).unwrap_err();
    let pointers: Vec<&str> = problem.errors.iter().map(|e| e.pointer.as_str()).collect();
    for pointer in [
        "/schedule/end",
        "/qos/rate_bps",
        "/qos/burst_ms",
        "/hold_seconds",
        "/members/1",
        "/addressing/ipv4",
        "/addressing/mtu",
    ] {
        assert!(
            pointers.contains(&pointer),
            "{pointer} is missing in {pointers:?}"
        );
    }
    slices::check(&spec(|_| {}), 100, at(0)).unwrap();
    assert!(
        slices::check(&spec(|_| {}), 99, at(0)).is_err(),
        "the window is too long"
    );
    assert!(
        slices::check(&spec(|_| {}), 86_400, at(200)).is_err(),
        "it is past"
    );
}

#[test]
fn what_is_not_built_is_named() {
    let wish = spec(|json| {
        json["path"] = json!({"strategy": "disjoint", "avoid": ["x"], "max_latency_us": 3, "protection": "1+1"});
    });
    let problem = slices::check(&wish, 86_400, at(0)).unwrap_err();
    assert!(problem.is(Kind::NotBuilt), "{problem}");
    assert_eq!(problem.status, 422);
    let pointers: Vec<&str> = problem.errors.iter().map(|e| e.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        [
            "/path/strategy",
            "/path/max_latency_us",
            "/path/avoid",
            "/path/protection"
        ]
    );
    slices::check(
        &spec(|json| json["path"] = json!({"strategy": "tree", "protection": "none"})),
        86_400,
        at(0),
    )
    .unwrap();
}

#[test]
fn a_slice_has_one_gateway_at_most_and_its_address_is_a_hosts() {
    let host = |n: u8| format!("02:00:00:00:00:0{n}-none");
    let wish = |members: Value, addressing: Value| {
        spec(|json| {
            json["qos"]["mode"] = json!("hose");
            json["members"] = members;
            json["addressing"] = addressing;
        })
    };
    let check = |spec: &SliceSpec| slices::check(spec, 86_400, at(0));
    let gateway = |n: u8| json!({"host": host(n), "role": "gateway"});
    let end = |n: u8| json!({"host": host(n)});
    let with = |ip: &str| json!({"ipv4": {"cidr": "10.0.0.0/24", "gateway": ip}});
    check(&wish(json!([end(1), gateway(2)]), with("10.0.0.9"))).unwrap();
    let pointers = |spec: &SliceSpec| -> Vec<String> {
        let problem = check(spec).unwrap_err();
        assert!(problem.is(Kind::InvalidRequest), "{problem}");
        problem.errors.into_iter().map(|e| e.pointer).collect()
    };
    let two = wish(json!([gateway(1), end(2), gateway(3)]), with("10.0.0.9"));
    assert_eq!(pointers(&two), ["/members/2/role"]);
    let link = json!({"border_link": "wan", "role": "gateway"});
    let border = wish(json!([end(1), link]), with("10.0.0.9"));
    assert_eq!(
        pointers(&border),
        ["/members/1/role", "/addressing/ipv4/gateway"]
    );
    let none = wish(json!([end(1), end(2)]), with("10.0.0.9"));
    assert_eq!(pointers(&none), ["/addressing/ipv4/gateway"]);
    for edge in ["10.0.0.0", "10.0.0.255", "10.0.1.1", "fd00::1"] {
        let spec = wish(json!([end(1), gateway(2)]), with(edge));
        assert_eq!(pointers(&spec), ["/addressing/ipv4"], "{edge}");
    }
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Commit),
        Just(Action::Abort),
        Just(Action::Provision),
        Just(Action::Release),
        Just(Action::Terminate),
        (0_i64..400).prop_map(|second| Action::Extend(at(second))),
    ]
}

proptest! {
    /// Any actions at any times: what is refused changes nothing, what is done twice is done once,
    /// what has ended stays ended and books nothing, and only a committed slice is provisioned.
    #[test]
    fn no_way_leads_back_from_an_end(steps in proptest::collection::vec((action(), 0_i64..60), 1..20)) {
        let mut booking = held();
        let mut second = 0;
        let mut ended = false;
        for (action, wait) in steps {
            second += wait;
            if let Some((next, _)) = slices::age(&booking, at(second)) {
                booking = next;
            }
            if let Ok(next) = act(&booking, action, second) {
                prop_assert_eq!(&act(&next, action, second).unwrap(), &next);
                prop_assert!(next == booking || next.slice.version == booking.slice.version + 1);
                booking = next;
            }
            let status = &booking.slice.status;
            let over = status.lifecycle != Lifecycle::Created
                || matches!(status.reservation, Reservation::TimedOut | Reservation::Aborted);
            prop_assert!(over || !ended);
            ended = over;
            prop_assert_eq!(booking.slice.booked_at(at(second)), !over);
            prop_assert_eq!(booking.ended_at.is_some(), over);
            if status.provision == Provision::Provisioned {
                prop_assert!(status.reservation == Reservation::Committed && !over);
            }
        }
    }
}
