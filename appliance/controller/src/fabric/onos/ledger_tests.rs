use super::*;
use crate::fabric::{
    onos::plan::Make,
    program::{GuardKey, MeterSpec},
};
use dtn_api::MacAddress;

const SETTLING: Duration = Duration::from_secs(30);
const SPEC: MeterSpec = MeterSpec {
    rate_kbit: 525_000,
    burst_kbit: 5000,
};
const OTHER: MeterSpec = MeterSpec {
    rate_kbit: 21_000,
    burst_kbit: 2048,
};

/// Meters of one device: number, kind, rules that use it.
fn seen(meters: &[(u32, MeterSpec, u64)]) -> Survey {
    let meter = |(id, spec, references): &(u32, MeterSpec, u64)| {
        let meter = Meter {
            spec: Some(*spec),
            added: true,
            references: *references,
            counters: Default::default(),
        };
        (("of:01".to_owned(), *id), meter)
    };
    Survey {
        meters: meters.iter().map(meter).collect(),
        ..Survey::default()
    }
}
fn making(number: usize) -> Plan {
    let make = Make {
        device: "of:01".into(),
        guard: GuardKey {
            tag: 7,
            mac: MacAddress::new([2; 6]),
        },
        spec: SPEC,
        slice: uuid::Uuid::nil(),
        switch: "edge1".parse().unwrap(),
    };
    let mut plan = Plan::default();
    plan.make.resize(number, make);
    plan
}
/// What another process finds when it looks at once, and when what is unclear has settled.
fn found(file: &Path, survey: &Survey) -> (Vec<u32>, Vec<u32>, Vec<String>) {
    let mut ledger = Ledger::read(file, SETTLING).unwrap();
    let (mut memory, now) = (Memory::default(), Instant::now());
    let ids = |memory: &Memory| memory.ours.iter().map(|(_, id)| *id).collect();
    ledger.recall(survey, &mut memory, now);
    let first = ids(&memory);
    let said = ledger.recall(survey, &mut memory, now + SETTLING);
    (first, ids(&memory), said)
}

#[tokio::test]
async fn a_meter_of_ours_is_known_again_unless_its_number_is_anothers() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("meters.json");
    let mut ledger = Ledger::read(&file, SETTLING).unwrap();
    let now = Instant::now();
    let nobody = seen(&[]);
    ledger
        .before(&nobody, &Memory::default(), &making(1), now)
        .await
        .unwrap();
    let done = Done {
        made: vec![("of:01".into(), 26, SPEC)],
        ..Done::default()
    };
    ledger.after(&done, now).await;
    assert_eq!(found(&file, &seen(&[(26, SPEC, 0)])).0, [26]);
    for anothers in [(26, OTHER, 0), (26, SPEC, 1), (27, SPEC, 0)] {
        let (first, last, said) = found(&file, &seen(&[anothers]));
        assert_eq!(
            (first, last, said.len()),
            (vec![], vec![], 0),
            "{anothers:?}"
        );
    }
    // one that was given back is nobody's
    let done = Done {
        gone: vec![("of:01".into(), 26)],
        ..Done::default()
    };
    ledger.after(&done, now).await;
    assert_eq!(found(&file, &seen(&[(26, SPEC, 0)])).1, [0; 0]);
}

#[tokio::test]
async fn who_ends_before_the_answer_finds_what_has_come_up_since_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("meters.json");
    let mut ledger = Ledger::read(&file, SETTLING).unwrap();
    let before = seen(&[(3, SPEC, 0), (4, OTHER, 1)]);
    let now = Instant::now();
    ledger
        .before(&before, &Memory::default(), &making(2), now)
        .await
        .unwrap();
    // 3 was there, 5 is of another kind, 7 is in use: none of them is ours
    let after = [(3, SPEC, 0), (4, OTHER, 1), (5, OTHER, 0), (7, SPEC, 2)];
    assert_eq!(found(&file, &seen(&after)), (vec![], vec![], vec![]));
    let one = [&after[..], &[(6, SPEC, 0)]].concat();
    assert_eq!(found(&file, &seen(&one)), (vec![], vec![6], vec![]));
    let two = [&one[..], &[(8, SPEC, 0)]].concat();
    assert_eq!(found(&file, &seen(&two)), (vec![], vec![6, 8], vec![]));
    // one of three is somebody else's, and nobody can say which
    let three = [&two[..], &[(9, SPEC, 0)]].concat();
    let (_, taken, said) = found(&file, &seen(&three));
    assert_eq!(taken, [0; 0]);
    assert!(
        said[0].contains("3 meters of of:01 at 525000 kbit/s"),
        "{said:?}"
    );
}

#[tokio::test]
async fn an_answer_that_was_lost_is_not_waited_for_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("meters.json");
    let mut ledger = Ledger::read(&file, SETTLING).unwrap();
    let (now, mut memory) = (Instant::now(), Memory::default());
    ledger
        .before(&seen(&[]), &memory, &making(2), now)
        .await
        .unwrap();
    let done = Done {
        made: vec![("of:01".into(), 1, SPEC)],
        lost: vec![("of:01".into(), SPEC)],
        ..Done::default()
    };
    ledger.after(&done, now).await;
    let (first, last, _) = found(&file, &seen(&[(1, SPEC, 0), (2, SPEC, 0)]));
    assert_eq!((first, last), (vec![1], vec![1, 2]));
    // it was never made
    let one = seen(&[(1, SPEC, 0)]);
    ledger.recall(&one, &mut memory, now + 2 * SETTLING);
    let later = now + 3 * SETTLING;
    ledger
        .before(&one, &memory, &making(0), later)
        .await
        .unwrap();
    let (_, last, _) = found(&file, &seen(&[(1, SPEC, 0), (2, SPEC, 0)]));
    assert_eq!(last, [1]);
}

#[test]
fn what_a_newer_one_has_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("meters.json");
    for (text, why) in [
        (r#"{"version":2,"meters":[],"asked":[]}"#, "version 2"),
        ("{", "reading which meters"),
    ] {
        fs::write(&file, text).unwrap();
        let said = Ledger::read(&file, SETTLING).unwrap_err();
        assert!(format!("{said:#}").contains(why), "{said:#}");
    }
}
