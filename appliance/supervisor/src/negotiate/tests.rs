//! The rules as tables, and what must hold whatever happens.

use super::*;
use dtn_api::{
    Span,
    slice::{
        Class, DataPlane, Lifecycle, Provision, RemoteEnd, Reservation, Role, SliceSpec,
        SliceStatus,
    },
};
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}
fn mbit(rate: u64) -> Rate {
    Rate::from_bps(rate * 1_000_000)
}
fn ask(rate: Option<u64>, min: Option<u64>, wait: u64) -> Ask {
    Ask {
        name: "lhc".parse().unwrap(),
        tenant: dtn_api::slice::default_tenant(),
        class: Class::Guaranteed,
        rate: rate.map(mbit),
        min_rate: min.map(mbit),
        start: None,
        duration: Span::from_secs(3600),
        nic: None,
        nic_class: NicClass::Dedicated,
        gateway: None,
        remote: Some(RemoteEnd {
            domain: "busan".parse().unwrap(),
            endpoint: None,
            border_link: None,
        }),
        wait: Span::from_secs(wait),
        dry_run: false,
    }
}
fn nic(speed: u64) -> Event {
    let mac = dtn_api::MacAddress::new([2, 0, 0, 0, 0, 1]);
    Event::Nic(NicLimit {
        name: "data0".parse().unwrap(),
        host: HostId::untagged(mac),
        speed: mbit(speed),
        far: None,
    })
}
fn available(most: u64, first_fit: Option<i64>) -> Event {
    Event::Available(Availability {
        max_rate_bps: mbit(most).bps(),
        limited_by: "busan:wan".into(),
        first_fit: first_fit.map(|start| Schedule {
            start: at(start),
            end: at(start + 3600),
        }),
    })
}
fn held() -> Event {
    Event::Held {
        slice_id: Uuid::from_u128(1),
        stitch_id: Some(Uuid::from_u128(2)),
    }
}
fn trouble(retryable: bool) -> Event {
    Event::Failed(Trouble {
        why: "the controller is away".into(),
        retryable,
        bandwidth: false,
    })
}
fn slice(case: &Case, reservation: Reservation, lifecycle: Lifecycle) -> Box<Slice> {
    Box::new(Slice {
        id: Uuid::from_u128(1),
        spec: SliceSpec {
            name: case.ask.name.clone(),
            tenant: case.ask.tenant.clone(),
            qos: dtn_api::slice::Qos {
                class: case.ask.class,
                rate_bps: 1,
                mode: dtn_api::slice::Mode::Pair,
                excess: dtn_api::slice::Excess::Drop,
                burst_ms: 10,
            },
            members: vec![],
            open: false,
            schedule: case.plan.as_ref().map_or(
                Schedule {
                    start: at(0),
                    end: at(3600),
                },
                |plan| plan.schedule,
            ),
            path: None,
            addressing: None,
            auto_provision: true,
            commit: false,
            hold_seconds: HOLD_SECONDS,
            labels: Default::default(),
        },
        status: SliceStatus {
            reservation,
            provision: Provision::Provisioned,
            lifecycle,
            data_plane: DataPlane::Active,
            generation: 1,
            observed_generation: 1,
            hold_expires_at: None,
            links: vec![],
            conditions: vec![],
        },
        stitch: None,
        version: 1,
        created_at: at(0),
    })
}
/// Runs events one second apart.
fn run(ask: Ask, events: Vec<Event>) -> (Case, Vec<Action>) {
    let (mut case, mut actions) = Case::open(Uuid::from_u128(7), ask, at(0));
    for (second, event) in (1..).zip(events) {
        (case, actions) = step(case, event, at(second));
    }
    (case, actions)
}
fn agreed() -> Case {
    let events = vec![nic(10_000), available(950, None), held(), Event::Committed];
    let (case, _) = run(ask(Some(600), None, 0), events);
    let back = slice(&case, Reservation::Committed, Lifecycle::Created);
    step(case, Event::Read(back), at(5)).0
}

#[test]
fn what_is_taken_is_decided_by_wish_network_and_nic() {
    // asked, least, NIC, network → rate taken or refused with what would fit, and what limits
    let table = [
        (Some(600), None, 10_000, 950, Ok(600), "busan:wan"),
        (Some(950), None, 10_000, 950, Ok(950), "busan:wan"),
        (Some(951), None, 10_000, 950, Err(950), "busan:wan"),
        (Some(951), Some(500), 10_000, 950, Ok(950), "busan:wan"),
        (Some(951), Some(951), 10_000, 950, Err(950), "busan:wan"),
        (None, None, 10_000, 950, Ok(950), "busan:wan"),
        (None, Some(960), 10_000, 950, Err(950), "busan:wan"),
        (None, None, 10_000, 0, Err(0), "busan:wan"),
        (Some(951), None, 1_000, 5_000, Err(950), "host:data0"),
        (None, None, 1_000, 5_000, Ok(950), "host:data0"),
    ];
    for (rate, least, speed, most, expected, limit) in table {
        let events = vec![nic(speed), available(most, None)];
        let (case, actions) = run(ask(rate, least, 0), events);
        let name = format!("{rate:?} {least:?} {speed} {most}");
        match expected {
            Ok(taken) => {
                assert_eq!(actions, [Action::Hold], "{name}");
                assert_eq!(case.plan.as_ref().unwrap().rate, mbit(taken), "{name}");
            }
            Err(fits) => {
                assert_eq!((case.step, actions.len()), (Step::Refused, 0), "{name}");
                assert_eq!(case.offer.as_ref().unwrap().rate, mbit(fits), "{name}");
                assert!(case.reason.contains(limit), "{name}: {}", case.reason);
                if rate.is_some() {
                    assert!(case.reason.contains("would fit"), "{name}: {}", case.reason);
                }
            }
        }
        assert_eq!(case.offer.unwrap().limited_by, limit, "{name}");
    }
}

#[test]
fn a_dedicated_slice_may_take_the_whole_nic() {
    let wish = Ask {
        class: Class::Dedicated,
        ..ask(None, None, 0)
    };
    let (case, _) = run(wish, vec![nic(1_000), available(5_000, None)]);
    assert_eq!(case.plan.unwrap().rate, mbit(1_000));
}

#[test]
fn within_the_domain_it_is_a_slice_between_two_nics() {
    let far = HostId::untagged(dtn_api::MacAddress::new([2, 0, 0, 0, 0, 2]));
    let Event::Nic(own) = nic(10_000) else {
        unreachable!()
    };
    let own = NicLimit {
        far: Some(far.clone()),
        ..own
    };
    let events = vec![Event::Nic(own.clone()), available(950, None)];
    let (case, _) = run(ask(Some(600), None, 0), events);
    let Some(Wanted::Slice(spec)) = wanted(&case) else {
        panic!("{case:?}")
    };
    let hosts: Vec<_> = spec.members.iter().flat_map(|m| m.host.clone()).collect();
    assert_eq!(hosts, [own.host, far]);
    assert!(!spec.commit);
    let query = query(&case, spec.schedule, None).unwrap();
    assert_eq!((query.members.len(), query.remote), (2, None));

    let (case, _) = run(
        ask(Some(600), None, 0),
        vec![nic(10_000), available(950, None)],
    );
    let Some(Wanted::Stitch(spec)) = wanted(&case) else {
        panic!("{case:?}")
    };
    assert_eq!(
        (spec.members.len(), spec.remote.domain.as_str()),
        (1, "busan")
    );
}

#[test]
fn with_a_gateway_it_is_a_slice_whose_other_end_joins_an_external_network() {
    let door = HostId::untagged(dtn_api::MacAddress::new([2, 0, 0, 0, 0, 9]));
    let Event::Nic(own) = nic(10_000) else {
        unreachable!()
    };
    let own = NicLimit {
        far: Some(door.clone()),
        ..own
    };
    let wish = Ask {
        remote: None,
        gateway: Some("internet".parse().unwrap()),
        ..ask(Some(600), None, 0)
    };
    let (case, _) = run(wish, vec![Event::Nic(own.clone()), available(950, None)]);
    let Some(Wanted::Slice(spec)) = wanted(&case) else {
        panic!("{case:?}")
    };
    let members: Vec<_> = spec
        .members
        .iter()
        .map(|member| (member.host.clone().unwrap(), member.role))
        .collect();
    assert_eq!(members, [(own.host, Role::Endpoint), (door, Role::Gateway)]);
    // the question has the same members as the hold: both are admitted by the same links
    let query = query(&case, spec.schedule, None).unwrap();
    assert_eq!((query.members, query.remote), (spec.members, None));
}

#[test]
fn it_is_held_committed_and_read_back_before_it_is_agreed() {
    let (case, actions) = Case::open(Uuid::from_u128(7), ask(Some(600), None, 0), at(0));
    assert_eq!(actions, [Action::ChooseNic]);
    let (case, actions) = step(case, nic(10_000), at(1));
    assert!(matches!(actions[..], [Action::Ask { .. }]));
    let (case, actions) = step(case, available(950, None), at(1));
    assert_eq!(actions, [Action::Hold]);
    let (case, actions) = step(case, held(), at(2));
    assert_eq!(actions, [Action::Commit]);
    let (case, actions) = step(case, Event::Committed, at(3));
    assert_eq!(actions, [Action::ReadBack]);
    assert_eq!(case.shown().state, NegotiationState::Committing);
    let held_only = slice(&case, Reservation::Held, Lifecycle::Created);
    let (lost, _) = step(case.clone(), Event::Read(held_only), at(4));
    assert_ne!(lost.step, Step::Agreed);
    let back = slice(&case, Reservation::Committed, Lifecycle::Created);
    let (case, actions) = step(case, Event::Read(back), at(4));
    assert_eq!((case.step, actions.len()), (Step::Agreed, 0));
}

#[test]
fn dry_runs_end_without_a_hold() {
    for (most, end) in [(950, Step::Ended), (500, Step::Refused)] {
        let wish = Ask {
            dry_run: true,
            ..ask(Some(600), None, 3600)
        };
        let (case, actions) = run(wish, vec![nic(10_000), available(most, Some(60))]);
        assert_eq!((case.step, actions), (end, vec![]));
        assert!(case.plan.is_none());
    }
}

#[test]
fn a_later_window_is_waited_for_only_when_asked_to() {
    let events = || vec![nic(10_000), available(100, Some(20))];
    let (case, actions) = run(ask(Some(600), None, 0), events());
    assert_eq!((case.step, actions.len()), (Step::Refused, 0));
    assert_eq!(case.later.unwrap().start, at(20), "it is told all the same");

    let (case, actions) = run(ask(Some(600), None, 60), events());
    assert_eq!(actions, [Action::Wake(at(20))]);
    let (case, actions) = step(case, Event::Tick, at(20));
    assert_eq!(actions, [Action::ChooseNic]);
    let (case, _) = step(case, nic(10_000), at(20));
    let (case, actions) = step(case, available(950, None), at(20));
    assert_eq!(actions, [Action::Hold]);
    let plan = case.plan.unwrap();
    assert_eq!(
        plan.schedule,
        Schedule {
            start: at(20),
            end: at(3620)
        },
        "the whole duration, however long it was waited for"
    );

    let late = vec![nic(10_000), available(100, Some(200))];
    let (case, _) = run(ask(Some(600), None, 60), late);
    assert_eq!(case.step, Step::Refused, "beyond the patience");
    let (case, actions) = run(
        ask(Some(960), None, 60),
        vec![nic(1_000), available(2, None)],
    );
    assert_eq!(
        case.step,
        Step::Refused,
        "no NIC grows by waiting: {actions:?}"
    );
}

#[test]
fn patience_ends() {
    let events = vec![nic(10_000), available(100, None)];
    let (case, actions) = run(ask(Some(600), None, 60), events);
    assert_eq!(actions, [Action::Wake(at(32))]);
    let (case, _) = step(case, Event::Tick, at(61));
    assert_eq!(case.step, Step::Refused);
    assert!(case.reason.contains("within 1m"), "{}", case.reason);
}

#[test]
fn transient_trouble_is_tried_again_until_the_deadline() {
    let (case, actions) = run(ask(Some(1), None, 0), vec![trouble(true)]);
    assert_eq!(actions, [Action::Wake(at(2))]);
    let (case, actions) = step(case, Event::Tick, at(2));
    assert_eq!(actions, [Action::ChooseNic]);
    let (case, _) = step(case, trouble(true), at(60));
    assert_eq!(case.step, Step::Failed);
    assert!(
        case.reason.contains("controller is away"),
        "{}",
        case.reason
    );
}

#[test]
fn someone_faster_leads_to_another_round_with_another_key() {
    let race = Event::Failed(Trouble {
        why: "wan has 1 left".into(),
        retryable: false,
        bandwidth: true,
    });
    let events = vec![nic(10_000), available(950, None), race];
    let (case, actions) = run(ask(None, None, 0), events);
    assert_eq!((case.round, actions), (1, vec![Action::ChooseNic]));
    let (case, _) = step(case, nic(10_000), at(5));
    let (case, _) = step(case, available(300, None), at(5));
    let plan = case.plan.unwrap();
    assert!(plan.key.ends_with("-1"));
    assert_eq!(plan.schedule.end, at(3602), "the same end");
}

#[test]
fn a_deadline_while_holding_gives_back_what_may_be_held() {
    let events = vec![nic(10_000), available(950, None), trouble(true)];
    let (case, _) = run(ask(None, None, 0), events);
    let (case, actions) = step(case, Event::Tick, at(61));
    assert_eq!(actions, [Action::Hold], "the same request tells the slice");
    let (case, actions) = step(case, held(), at(62));
    assert_eq!(actions, [Action::GiveBack]);
    let (case, _) = step(case, Event::GivenBack, at(63));
    assert_eq!(case.step, Step::Failed);
    assert!(case.slice_id.is_none());
}

#[test]
fn a_refused_commit_gives_back_both_sides() {
    let events = vec![nic(10_000), available(950, None), held(), trouble(false)];
    let (case, actions) = run(ask(None, None, 0), events);
    assert_eq!(
        (case.step, actions),
        (Step::GivingBack, vec![Action::GiveBack])
    );
    // giving back is tried for ever
    let (case, actions) = step(case, trouble(true), at(4000));
    assert!(matches!(actions[..], [Action::Wake(_)]));
    let (case, _) = step(case, Event::GivenBack, at(4001));
    assert_eq!(case.step, Step::Failed);
}

#[test]
fn what_is_lost_is_asked_for_again_until_the_same_end() {
    for event in [
        Event::Gone("the peer ended it".into()),
        Event::NicLost("not on this host".into()),
        Event::Speed(mbit(100)),
    ] {
        let (case, actions) = step(agreed(), event.clone(), at(1000));
        assert_eq!(actions, [Action::GiveBack], "{event:?}");
        let (case, actions) = step(case, Event::GivenBack, at(1001));
        assert_eq!((case.round, actions), (1, vec![Action::ChooseNic]));
        let (case, _) = step(case, nic(10_000), at(1002));
        let (case, _) = step(case, available(950, None), at(1002));
        let plan = case.plan.clone().unwrap();
        assert_eq!(
            (plan.schedule.start, plan.schedule.end),
            (at(1002), at(3602))
        );
        // what stood once is looked for until its end, not only once
        let (case, _) = step(agreed(), event, at(1000));
        let (case, _) = step(case, Event::GivenBack, at(1001));
        let (case, actions) = step(case, Event::NoNic("no carrier".into()), at(1002));
        assert_eq!(actions, [Action::Wake(at(1032))]);
        assert_eq!(case.step, Step::Waiting);
    }
    let (case, actions) = step(agreed(), Event::Speed(mbit(700)), at(1000));
    assert_eq!(
        (case.step, actions.len()),
        (Step::Agreed, 0),
        "600 still fit"
    );
}

#[test]
fn the_end_is_the_end_and_an_extension_moves_it() {
    let (ended, _) = step(agreed(), Event::Tick, at(3602));
    assert_eq!(ended.step, Step::Ended);
    let mut longer = slice(&agreed(), Reservation::Committed, Lifecycle::Created);
    longer.spec.schedule.end = at(9000);
    let (case, _) = step(agreed(), Event::Read(longer), at(100));
    let (case, actions) = step(case, Event::Tick, at(3602));
    assert_eq!((case.step, actions), (Step::Agreed, vec![Action::ReadBack]));
    let stopped = slice(&case, Reservation::Committed, Lifecycle::Terminated);
    assert_eq!(
        step(case, Event::Read(stopped), at(200)).0.step,
        Step::Ended
    );
}

#[test]
fn a_withdrawn_wish_leaves_nothing_behind() {
    let table: [(Vec<Event>, Vec<Action>, Step); 4] = [
        (vec![], vec![], Step::Ended),
        (vec![nic(1_000)], vec![], Step::Ended),
        (
            vec![nic(1_000), available(950, None)],
            vec![Action::Hold],
            Step::Holding,
        ),
        (
            vec![nic(1_000), available(950, None), held()],
            vec![Action::GiveBack],
            Step::GivingBack,
        ),
    ];
    for (mut events, expected, at_step) in table {
        events.push(Event::Withdrawn);
        let (case, actions) = run(ask(None, None, 0), events);
        assert_eq!((case.step, &actions), (at_step, &expected));
    }
    let (case, _) = step(agreed(), Event::Withdrawn, at(10));
    let (case, _) = step(case, Event::GivenBack, at(11));
    assert_eq!(case.step, Step::Ended);
}

#[test]
fn every_step_can_be_taken_up_again() {
    let events = [nic(10_000), available(950, None), held(), Event::Committed];
    let expected = [
        Action::ChooseNic,
        Action::ChooseNic,
        Action::Hold,
        Action::Commit,
        Action::ReadBack,
    ];
    for (count, action) in expected.into_iter().enumerate() {
        let (case, _) = run(ask(None, None, 0), events[..count].to_vec());
        let key = case.plan.as_ref().map(|plan| plan.key.clone());
        let text = serde_json::to_string(&case).unwrap();
        let found: Case = serde_json::from_str(&text).unwrap();
        assert_eq!(found, case);
        let (case, actions) = resume(found.clone(), at(10));
        assert_eq!(actions, [action]);
        assert_eq!(case.plan.map(|plan| plan.key), key, "the same request");
        // after the deadline what may be held is given back
        let (case, actions) = resume(found, at(1000));
        let end = match count {
            0 | 1 => (Step::Failed, vec![]),
            2 => (Step::Holding, vec![Action::Hold]),
            3 => (Step::GivingBack, vec![Action::GiveBack]),
            _ => (Step::ReadingBack, vec![Action::ReadBack]),
        };
        assert_eq!((case.step, actions), end);
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1_u64..20_000).prop_map(nic),
        1 => Just(Event::NoNic("none".into())),
        4 => (0_u64..20_000, proptest::option::of(1_i64..9_000))
            .prop_map(|(most, fit)| available(most, fit)),
        4 => Just(held()),
        3 => Just(Event::Committed),
        1 => Just(Event::Gone("gone".into())),
        2 => Just(Event::GivenBack),
        2 => any::<bool>().prop_map(trouble),
        1 => Just(Event::NicLost("lost".into())),
        1 => (1_u64..20_000).prop_map(|speed| Event::Speed(mbit(speed))),
        1 => Just(Event::Withdrawn),
        3 => Just(Event::Tick),
    ]
}

/// What a world answers in which all goes well.
fn well(case: &Case, action: &Action) -> Event {
    match action {
        Action::ChooseNic => nic(30_000),
        Action::Ask { .. } => available(30_000, None),
        Action::Hold => held(),
        Action::Commit => Event::Committed,
        Action::ReadBack => Event::Read(slice(case, Reservation::Committed, Lifecycle::Created)),
        Action::GiveBack => Event::GivenBack,
        Action::Wake(_) => Event::Tick,
    }
}

proptest! {
    #[test]
    fn from_wherever_it_is_it_settles_once_all_goes_well(
        wait in 0_u64..600,
        events in proptest::collection::vec((event(), 0_i64..20), 0..30),
        killed: bool,
        withdrawn: bool,
    ) {
        let (mut case, mut actions) = Case::open(Uuid::from_u128(7), ask(Some(100), None, wait), at(0));
        let mut now = 0;
        // answers that come while something is being done, as a driver gives them
        for (event, passed) in events {
            now += passed;
            let busy = actions.iter().any(|action| !matches!(action, Action::Wake(_)));
            let answers = !matches!(event, Event::Tick | Event::NicLost(_) | Event::Speed(_) | Event::Withdrawn);
            let (next, more) = step(case.clone(), event, at(now));
            // an answer to another question than was asked does not come
            if busy == answers && (next != case || !more.is_empty()) {
                (case, actions) = (next, more);
            }
        }
        if killed {
            (case, actions) = resume(case, at(now));
        }
        if withdrawn && !actions.iter().any(|action| !matches!(action, Action::Wake(_))) {
            (case, actions) = step(case, Event::Withdrawn, at(now));
        }
        for _ in 0..40 {
            if case.step.is_final() || case.step == Step::Agreed {
                return Ok(());
            }
            let deed = actions.iter().find(|action| !matches!(action, Action::Wake(_)));
            let event = match (deed, actions.first()) {
                (Some(action), _) => well(&case, action),
                (None, Some(Action::Wake(until))) => {
                    now = now.max(until.as_second() - 1_800_000_000);
                    Event::Tick
                }
                _ => {
                    now += 20;
                    Event::Tick
                }
            };
            (case, actions) = step(case, event, at(now));
        }
        prop_assert!(false, "it never settles: {case:?} {actions:?}");
    }

    #[test]
    fn whatever_happens_nothing_is_promised_beyond_what_there_is_or_left_behind(
        rate in proptest::option::of(1_u64..20_000),
        least in proptest::option::of(1_u64..20_000),
        wait in 0_u64..600,
        events in proptest::collection::vec((event(), 0_i64..40, any::<bool>()), 0..40),
    ) {
        let mut wish = ask(rate, least, wait);
        if let (Some(rate), Some(least)) = (wish.rate, wish.min_rate) {
            wish.min_rate = Some(rate.min(least));
        }
        let (mut case, _) = Case::open(Uuid::from_u128(7), wish, at(0));
        let mut booked = false;
        let mut offered = Rate::from_bps(0);
        let mut now = 0;
        for (event, passed, killed) in events {
            now += passed;
            if killed {
                case = resume(case, at(now)).0;
            }
            let before = case.clone();
            match &event {
                Event::Held { .. } if case.step == Step::Holding => booked = true,
                Event::GivenBack if case.step == Step::GivingBack => booked = false,
                Event::Available(found) if case.step == Step::Asking => {
                    offered = Rate::from_bps(found.max_rate_bps);
                }
                _ => {}
            }
            let (next, actions) = step(case, event.clone(), at(now));
            case = next;
            if before.step.is_final() {
                prop_assert_eq!(&case, &before);
                prop_assert!(actions.is_empty());
            }
            if case.step == Step::Holding && before.step == Step::Asking {
                let plan = case.plan.as_ref().unwrap();
                let speed = before.nic.as_ref().unwrap().speed;
                prop_assert!(plan.rate <= offered);
                prop_assert!(plan.rate <= speed.fraction(95, 100));
                prop_assert!(case.ask.rate.is_none_or(|rate| plan.rate <= rate));
                prop_assert!(case.ask.min_rate.is_none_or(|least| plan.rate >= least));
                prop_assert!(plan.schedule.start < plan.schedule.end);
            }
            if matches!(case.step, Step::Refused | Step::Failed) {
                prop_assert!(!booked, "{:?} after {:?}", case, event);
                prop_assert!(!case.reason.is_empty());
            }
            if matches!(case.step, Step::Committing | Step::ReadingBack | Step::Agreed) {
                prop_assert!(case.slice_id.is_some() && booked);
            }
            // someone always has to do something, unless it stands or is over
            if case.step.is_final() {
                prop_assert!(actions.is_empty());
            }
        }
    }
}
