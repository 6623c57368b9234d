use super::*;
use crate::claim::{PodRef, Said, Told as Status};
use dtn_api::cluster::ClaimParameters;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use uuid::Uuid;

const G: u64 = 1_000_000_000;

fn at(hour: i8) -> Timestamp {
    format!("2027-01-10T{hour:02}:00:00Z").parse().unwrap()
}
fn now() -> Timestamp {
    at(10)
}
fn slice(n: u128, name: &str, change: impl FnOnce(&mut Value)) -> Slice {
    let mut all = json!({
        "id": Uuid::from_u128(n),
        "spec": {"name": name, "tenant": "default",
            "qos": {"class": "guaranteed", "rate_bps": 10 * G, "mode": "aggregate"},
            "members": [], "schedule": {"start": at(6), "end": at(14)},
            "addressing": {"ipv4": {"cidr": "10.20.0.0/24"}, "mtu": 9000}},
        "status": {"reservation": "committed", "provision": "provisioned", "lifecycle": "created",
            "data_plane": "active", "generation": 1, "observed_generation": 1},
        "version": 1, "created_at": at(5),
    });
    change(&mut all);
    serde_json::from_value(all).unwrap()
}
fn parameters(fields: Value) -> Value {
    let mut all =
        json!({"apiVersion": "dtn.appliance/v1", "kind": "InterfaceRequest", "slice": "lhc"});
    for (name, value) in fields.as_object().unwrap() {
        all[name] = value.clone();
    }
    all
}
fn claim(n: i64, fields: Value) -> Claim {
    Claim {
        namespace: "atlas".into(),
        name: format!("c{n}"),
        uid: format!("u{n:03}"),
        version: "1".into(),
        created_at: Timestamp::from_second(at(9).as_second() + n).unwrap(),
        leaving: false,
        pods: vec![PodRef {
            name: format!("p{n}"),
            uid: format!("p{n}"),
        }],
        wishes: vec![Wish {
            key: DeviceKey {
                pool: "n1".into(),
                device: "data0".into(),
                share: Some(format!("s{n}")),
            },
            request: "nic".into(),
            parameters: ClaimParameters::read(&parameters(fields)),
            capacity_bps: None,
            told: Status::default(),
        }],
    }
}
fn wants(n: i64, gbit: u64) -> Claim {
    claim(n, json!({"rate": format!("{gbit}Gbit")}))
}
fn world(claims: Vec<Claim>) -> World {
    World {
        claims,
        slices: Slices::Known(vec![slice(1, "lhc", |_| {})]),
        tenants: BTreeMap::new(),
        nics: BTreeMap::new(),
    }
}
fn nic() -> NicKey {
    NicKey("n1".into(), "data0".into())
}
fn of_speed(bps: u64) -> Nic {
    Nic {
        speed_bps: Some(bps),
        ..Nic::default()
    }
}
/// Writes the verdicts into the claims, as the API server would.
fn write(world: &mut World, told: &[Told]) {
    for (at, key, verdict) in told {
        let wish = world.claims[*at]
            .wishes
            .iter_mut()
            .find(|wish| wish.key == *key)
            .unwrap();
        wish.told.said = Some(Said {
            agreed: verdict.agreed(),
            reason: verdict.reason.as_str().into(),
            message: verdict.message.clone(),
            since: now(),
        });
        wish.told.agreement = verdict.agreement.clone();
    }
}
fn decided(world: &mut World) -> Vec<Verdict> {
    let told = decide(world, now());
    write(world, &told);
    told.into_iter().map(|(_, _, verdict)| verdict).collect()
}
fn only(world: &World) -> Verdict {
    let told = decide(world, now());
    assert_eq!(told.len(), 1, "{told:?}");
    told[0].2.clone()
}
fn rates(verdicts: &[Verdict]) -> Vec<Option<u64>> {
    let rate = |verdict: &Verdict| verdict.agreement.as_ref().map(|a| a.rate_bps / G);
    verdicts.iter().map(rate).collect()
}

#[test]
fn what_fits_is_agreed_and_counted_and_stays() {
    let mut world = world(vec![wants(1, 8)]);
    let first = decided(&mut world);
    assert_eq!(
        first[0].message,
        "slice lhc gives 8Gbit until 2027-01-10T14:00:00Z"
    );
    assert_eq!(
        first[0].agreement.as_ref().unwrap().slice_id,
        Uuid::from_u128(1)
    );
    world.claims.push(wants(2, 3));
    let second = decided(&mut world);
    assert_eq!(rates(&second), [Some(8), None]);
    assert_eq!(
        second[1].message,
        "slice lhc has 2Gbit of 10Gbit left until 2027-01-10T14:00:00Z, 3Gbit are wanted: it waits \
         for a pod that ends, or reserve more: dtnctl slice reserve"
    );
    // again is the same
    assert_eq!(decided(&mut world), second);
    // an older one that is seen later takes nothing back
    world.claims.push(wants(0, 5));
    assert_eq!(rates(&decided(&mut world)), [Some(8), None, None]);
    world.claims.remove(0);
    assert_eq!(rates(&decided(&mut world)), [Some(3), Some(5)]);
}

#[test]
fn the_rate_of_a_hose_or_a_pair_is_each_nic_s_and_that_of_an_aggregate_is_one() {
    let ends = || {
        let mut far = wants(2, 8);
        far.wishes[0].key.pool = "n2".into();
        vec![wants(1, 8), far]
    };
    assert_eq!(rates(&decided(&mut world(ends()))), [Some(8), None]);
    for mode in ["pair", "hose"] {
        let mut world = world(ends());
        world.slices = Slices::Known(vec![slice(1, "lhc", |s| {
            s["spec"]["qos"]["mode"] = json!(mode)
        })]);
        assert_eq!(rates(&decided(&mut world)), [Some(8), Some(8)], "{mode}");
        world.claims.push(wants(3, 3));
        let third = decided(&mut world)[2].message.clone();
        assert!(
            third.contains("2Gbit of 10Gbit left on n1/data0"),
            "{third}"
        );
    }
}

#[test]
fn the_least_rate_and_all_that_is_left_are_understood() {
    let least = claim(2, json!({"rate": "5Gbit", "leastRate": "1Gbit"}));
    let rest = claim(3, json!({}));
    let mut world = world(vec![wants(1, 6), least, rest]);
    assert_eq!(rates(&decided(&mut world)), [Some(6), Some(4), None]);
    world.claims.remove(0);
    assert_eq!(rates(&decided(&mut world)), [Some(4), Some(6)]);
}

#[test]
fn who_asked_later_passes_only_where_nobody_waits_longer_for_it() {
    let mut world = world(vec![wants(1, 8), wants(2, 9), wants(3, 1), wants(4, 1)]);
    let told = decided(&mut world);
    assert_eq!(rates(&told), [Some(8), None, Some(1), None]);
    let fourth = &told[3].message;
    assert!(
        fourth.contains("claim atlas/c2 asked before and waits for 9Gbit"),
        "{fourth}"
    );
    world.claims.remove(0);
    assert_eq!(rates(&decided(&mut world)), [Some(9), Some(1), None]);
}

#[test]
fn who_can_never_have_it_holds_nobody_up() {
    let mut world = world(vec![wants(1, 20), wants(2, 10)]);
    let told = decided(&mut world);
    assert_eq!(rates(&told), [None, Some(10)]);
    assert!(
        told[0].message.contains("has 10Gbit in all"),
        "{}",
        told[0].message
    );
}

#[test]
fn a_pod_gets_all_of_its_claims_or_none_and_no_two_hold_what_the_other_waits_for() {
    let of_pod = |n: i64, pod: &str, slice: &str, interface: &str| {
        let mut claim = claim(
            n,
            json!({"rate": "6Gbit", "slice": slice, "interface": interface}),
        );
        claim.pods[0].uid = pod.into();
        claim
    };
    let mut world = world(vec![
        of_pod(1, "a", "lhc", "data0"),
        of_pod(2, "b", "belle", "data0"),
        of_pod(3, "b", "lhc", "data1"),
        of_pod(4, "a", "belle", "data1"),
    ]);
    world.slices = Slices::Known(vec![slice(1, "lhc", |_| {}), slice(2, "belle", |_| {})]);
    let told = decided(&mut world);
    assert_eq!(rates(&told), [Some(6), None, None, Some(6)]);
    assert!(told[1].reason == Reason::Waiting && told[2].reason == Reason::Waiting);
    // one that takes what it can get leaves the other what that needs
    let greedy = |n: i64, fields: Value| {
        let mut claim = claim(n, fields);
        claim.pods[0].uid = "a".into();
        claim
    };
    let mut one = super::tests::world(vec![
        greedy(1, json!({"rate": "10Gbit", "leastRate": "2Gbit"})),
        greedy(2, json!({"rate": "5Gbit", "interface": "data1"})),
    ]);
    assert_eq!(rates(&decided(&mut one)), [Some(5), Some(5)]);
    // a claim that is wrong keeps the other one of its pod from taking what nobody would use
    let mut wrong = super::tests::world(vec![
        of_pod(1, "a", "lhc", "data0"),
        of_pod(2, "a", "lhc", "data0"),
    ]);
    let told = decided(&mut wrong);
    assert_eq!(told[1].reason, Reason::InvalidParameters);
    assert!(
        told[1].message.contains("/parameters/interface"),
        "{}",
        told[1].message
    );
    assert_eq!(told[0].reason, Reason::Waiting);
    assert!(
        told[0].message.contains("claim atlas/c2 of the same pod"),
        "{}",
        told[0].message
    );
}

#[test]
fn what_is_wrong_is_told_with_all_its_fields() {
    let cases: [(Value, &[&str]); 7] = [
        (
            json!({"rate": "much", "mtu": 1}),
            &["/parameters/rate", "/parameters/mtu"],
        ),
        (json!({"sliec": "lhc"}), &["/parameters/sliec"]),
        (
            json!({"addresses": ["10.20.0.7", "10.30.0.7", "fd00::1"]}),
            &[
                "/parameters/addresses/1 10.30.0.7 is not in 10.20.0.0/24",
                "/parameters/addresses/2",
            ],
        ),
        (
            json!({"mtu": 9100}),
            &["/parameters/mtu is 9100, and slice lhc carries 9000 bytes"],
        ),
        (
            json!({"rate": "9Gbit"}),
            &[
                "/parameters/rate is 9Gbit, and NIC n1/data0 runs at 5Gbit",
                "request nic has 4Gbit",
            ],
        ),
        (
            json!({"tenant": "belle"}),
            &["/parameters/tenant is belle", "tenant default alone"],
        ),
        (json!({"interface": "eth0"}), &["/parameters/interface"]),
    ];
    for (fields, wanted) in cases {
        let mut world = world(vec![claim(1, fields.clone())]);
        world.claims[0].wishes[0].capacity_bps = Some(4 * G);
        world.nics.insert(nic(), of_speed(5 * G));
        world.tenants.insert("atlas".into(), "default".into());
        let verdict = only(&world);
        assert_eq!(
            verdict.reason,
            Reason::InvalidParameters,
            "{fields}: {}",
            verdict.message
        );
        for text in wanted {
            assert!(
                verdict.message.contains(text),
                "{fields}: {}",
                verdict.message
            );
        }
    }
}

#[test]
fn why_a_slice_cannot_be_had_is_said_with_what_would_help() {
    type Case = (fn(&mut Value), Value, Reason, &'static str);
    let cases: [Case; 9] = [
        (
            |s| s["spec"]["name"] = json!("other"),
            json!({}),
            Reason::Waiting,
            "there is no slice lhc",
        ),
        (
            |s| s["spec"]["schedule"]["start"] = json!(at(12)),
            json!({}),
            Reason::Waiting,
            "begins 2027-01-10T12:00:00Z",
        ),
        (
            |s| s["spec"]["schedule"]["end"] = json!(at(9)),
            json!({}),
            Reason::Waiting,
            "not booked any more",
        ),
        (
            |s| s["status"]["lifecycle"] = json!("terminated"),
            json!({}),
            Reason::Waiting,
            "not booked any more",
        ),
        (
            |_| {},
            json!({"until": at(16)}),
            Reason::Waiting,
            "dtnctl slice extend",
        ),
        (
            |s| {
                s["status"]["reservation"] = json!("held");
                s["status"]["hold_expires_at"] = json!(at(11));
            },
            json!({}),
            Reason::Waiting,
            "not yet committed",
        ),
        (
            |s| s["status"]["provision"] = json!("released"),
            json!({}),
            Reason::Waiting,
            "not provisioned",
        ),
        (
            |s| s["spec"]["tenant"] = json!("belle"),
            json!({"tenant": "atlas"}),
            Reason::InvalidParameters,
            "another tenant's",
        ),
        (
            |s| s["spec"]["qos"]["class"] = json!("best_effort"),
            json!({"rate": "1Gbit"}),
            Reason::InvalidParameters,
            "promises no rate",
        ),
    ];
    for (change, fields, reason, text) in cases {
        let mut world = world(vec![claim(1, fields)]);
        world.slices = Slices::Known(vec![slice(1, "lhc", change)]);
        let verdict = only(&world);
        assert_eq!(verdict.reason, reason, "{}", verdict.message);
        assert!(
            verdict.message.contains(text),
            "{text}: {}",
            verdict.message
        );
    }
    // two tenants, one name
    let mut twice = world(vec![claim(1, json!({}))]);
    let other = |s: &mut Value| s["spec"]["tenant"] = json!("belle");
    twice.slices = Slices::Known(vec![slice(1, "lhc", |_| {}), slice(2, "lhc", other)]);
    assert!(
        only(&twice)
            .message
            .contains("tenants belle, default each have")
    );
    // the namespace's label decides
    twice.tenants.insert("atlas".into(), "belle".into());
    assert_eq!(only(&twice).agreement.unwrap().slice_id, Uuid::from_u128(2));
}

#[test]
fn a_best_effort_slice_promises_nothing_and_has_room_for_all() {
    let mut world = world((0..20).map(|n| claim(n, json!({}))).collect());
    world.slices = Slices::Known(vec![slice(1, "lhc", |s| {
        s["spec"]["qos"]["class"] = json!("best_effort");
    })]);
    assert!(
        rates(&decided(&mut world))
            .iter()
            .all(|rate| *rate == Some(0))
    );
}

#[test]
fn a_slice_that_ends_leaves_the_running_pod_its_agreement_and_says_so() {
    let mut world = world(vec![wants(1, 8), wants(2, 1)]);
    decided(&mut world);
    world.claims[0].wishes[0].told.prepared = true;
    let known = world.slices.clone();
    let again = |s: &mut Value| s["spec"]["schedule"]["start"] = json!(at(9));
    for gone in [
        vec![],
        vec![
            slice(1, "lhc", |s| s["status"]["lifecycle"] = json!("terminated")),
            slice(2, "lhc", again),
        ],
    ] {
        let anew = !gone.is_empty();
        let mut world = world.clone();
        world.slices = Slices::Known(gone);
        let told = decided(&mut world);
        assert_eq!(told[0].reason, Reason::SliceOver);
        assert_eq!(
            told[0].agreement.as_ref().unwrap().slice_id,
            Uuid::from_u128(1)
        );
        // nobody uses the other one: it is negotiated anew, and has the new slice
        assert_eq!(
            told[1].agreement.as_ref().map(|a| a.slice_id),
            anew.then(|| Uuid::from_u128(2))
        );
        // silence changes nothing that was said
        world.slices = Slices::Silent {
            target: "x".into(),
            why: "y".into(),
        };
        assert_eq!(decided(&mut world)[0], told[0]);
        // it comes back
        world.slices = known.clone();
        assert_eq!(decided(&mut world)[0].reason, Reason::Agreed);
    }
}

#[test]
fn silence_of_the_controller_lets_new_ones_wait_and_what_is_agreed_alone() {
    let mut world = world(vec![wants(1, 8)]);
    let before = decided(&mut world);
    world.slices = Slices::Silent {
        target: "https://vdn:7443".into(),
        why: "timed out".into(),
    };
    world.claims.push(wants(2, 1));
    let told = decided(&mut world);
    assert_eq!(told[0], before[0]);
    assert_eq!(told[1].reason, Reason::ControllerSilent);
    assert!(
        told[1].message.contains("https://vdn:7443"),
        "{}",
        told[1].message
    );
}

#[test]
fn an_extended_slice_is_told_and_a_claim_without_a_slice_is_told_nothing() {
    let mut world = world(vec![wants(1, 8)]);
    decided(&mut world);
    world.slices = Slices::Known(vec![slice(1, "lhc", |s| {
        s["spec"]["schedule"]["end"] = json!(at(18))
    })]);
    assert_eq!(only(&world).agreement.unwrap().ends_at, at(18));
    let mut none = wants(2, 1);
    none.wishes[0].parameters = Ok(ClaimParameters::default());
    world.claims = vec![none];
    assert!(decide(&world, now()).is_empty());
    // nobody to promise it to
    for change in [
        |c: &mut Claim| c.pods.clear(),
        |c: &mut Claim| c.leaving = true,
    ] {
        let mut claim = wants(3, 1);
        change(&mut claim);
        world.claims = vec![claim];
        assert!(decide(&world, now()).is_empty());
    }
}

#[test]
fn an_agreement_that_is_not_for_what_is_asked_is_no_promise() {
    let mut world = world(vec![wants(1, 8)]);
    decided(&mut world);
    let told = &mut world.claims[0].wishes[0].told;
    told.agreement.as_mut().unwrap().slice = "other".parse().unwrap();
    told.agreement.as_mut().unwrap().rate_bps = 99 * G;
    assert_eq!(rates(&[only(&world)]), [Some(8)]);
}

#[test]
fn a_nic_that_is_no_member_waits_unless_it_can_join() {
    let mac: dtn_api::MacAddress = "02:00:00:00:00:01".parse().unwrap();
    let member = json!([{"host": "02:00:00:00:00:01-none"}]);
    let cases = [
        (json!({"mode": "hose"}), json!({"open": true}), ""),
        (json!({"mode": "hose"}), json!({"members": member}), ""),
        (
            json!({"mode": "hose"}),
            json!({}),
            "dtnctl slice join lhc n1/enp1s0",
        ),
        (
            json!({"mode": "hose"}),
            json!({"members": [{"border_link": "wan"}]}),
            "slices.dtn.appliance/lhc",
        ),
        (
            json!({"mode": "pair"}),
            json!({}),
            "slices.dtn.appliance/lhc",
        ),
    ];
    for (qos, spec, words) in cases {
        let mut world = world(vec![wants(1, 1)]);
        let known = Nic {
            ifname: Some("enp1s0".into()),
            mac: Some(mac),
            speed_bps: None,
        };
        world.nics.insert(nic(), known);
        let merged = |into: &mut Value, from: &Value| {
            for (name, value) in from.as_object().unwrap() {
                into[name] = value.clone();
            }
        };
        world.slices = Slices::Known(vec![slice(1, "lhc", |all| {
            merged(&mut all["spec"]["qos"], &qos);
            merged(&mut all["spec"], &spec);
        })]);
        let verdict = only(&world);
        assert_eq!(verdict.agreed(), words.is_empty(), "{}", verdict.message);
        assert!(verdict.message.contains(words), "{}", verdict.message);
        if !words.is_empty() {
            assert_eq!(verdict.reason, Reason::Waiting);
            // nothing of it is kept from others
            let mut other = wants(2, 10);
            other.wishes[0].key.device = "data1".into();
            world.claims.push(other);
            let told = decide(&world, now());
            assert!(
                told.iter()
                    .any(|(at, _, verdict)| *at == 1 && verdict.agreed())
            );
        }
    }
}

#[test]
fn nothing_takes_back_what_was_agreed() {
    let mut world = world(vec![wants(1, 8)]);
    let before = decided(&mut world);
    // the NIC trains slower, the namespace is another tenant's, an older claim has the name
    world.nics.insert(nic(), of_speed(G));
    world.tenants.insert("atlas".into(), "belle".into());
    let mut older = wants(0, 8);
    older.pods = world.claims[0].pods.clone();
    world.claims.push(older);
    assert_eq!(decided(&mut world)[0], before[0]);
}

prop_compose! {
    fn cluster()(
        asks in prop::collection::vec((1_u64..14, prop::option::of(1_u64..5), 0_usize..3, 0_usize..6, 0_usize..2), 0..14),
        mode in prop::sample::select(vec!["aggregate", "hose"]),
    ) -> World {
        let claims = asks.into_iter().enumerate().map(|(n, (rate, least, nic, pod, of))| {
            let mut fields = json!({"rate": format!("{rate}Gbit"), "interface": format!("data{n}"),
                "slice": (["lhc", "belle"][of])});
            if let Some(least) = least.filter(|least| *least <= rate) {
                fields["leastRate"] = json!(format!("{least}Gbit"));
            }
            let mut claim = claim(i64::try_from(n).unwrap(), fields);
            claim.pods[0].uid = format!("p{pod}");
            claim.wishes[0].key.device = format!("data{nic}");
            claim
        }).collect();
        let with = |s: &mut Value| s["spec"]["qos"]["mode"] = json!(mode);
        World {
            slices: Slices::Known(vec![slice(1, "lhc", with), slice(2, "belle", with)]),
            ..world(claims)
        }
    }
}
/// What is promised at each place.
fn sums(world: &World) -> BTreeMap<Place, u64> {
    let Slices::Known(slices) = &world.slices else {
        panic!()
    };
    let mut sums = BTreeMap::new();
    for wish in world.claims.iter().flat_map(|claim| &claim.wishes) {
        if let Some(promise) = wish.told.promise() {
            let slice = slices
                .iter()
                .find(|slice| slice.id == promise.slice_id)
                .unwrap();
            *sums.entry(super::place(slice, wish)).or_default() += promise.rate_bps;
        }
    }
    sums
}
fn full(world: &World) -> bool {
    sums(world).values().all(|sum| *sum <= 10 * G)
}

proptest! {
    #[test]
    fn never_more_is_promised_than_there_is_and_the_order_of_the_list_does_not_matter(
        mut world in cluster(), ends in prop::collection::vec(any::<prop::sample::Index>(), 0..12), seed: u64,
    ) {
        let mut shuffled = world.clone();
        let count = shuffled.claims.len().max(1);
        shuffled.claims.rotate_left(usize::try_from(seed % u64::try_from(count).unwrap()).unwrap());
        shuffled.claims.reverse();
        let named = |world: &World| -> BTreeMap<String, (Reason, Option<u64>)> {
            decide(world, now()).into_iter().map(|(at, _, verdict)| {
                (world.claims[at].uid.clone(), (verdict.reason, verdict.agreement.map(|a| a.rate_bps)))
            }).collect()
        };
        prop_assert_eq!(named(&world), named(&shuffled));
        decided(&mut world);
        prop_assert!(full(&world));
        // nothing moves when nothing happened
        let before = world.claims.clone();
        decided(&mut world);
        prop_assert_eq!(&before, &world.claims);
        // pods end one after the other; promises stay, sums hold
        for end in ends {
            if world.claims.is_empty() { break; }
            let kept: BTreeSet<(String, u64)> = world.claims.iter().flat_map(|c| c.wishes.iter().filter_map(|w| {
                Some((c.uid.clone(), w.told.promise()?.rate_bps))
            })).collect();
            let gone = world.claims[end.index(world.claims.len())].pods[0].uid.clone();
            world.claims.retain(|claim| claim.pods[0].uid != gone);
            decided(&mut world);
            prop_assert!(full(&world));
            for (uid, bps) in kept {
                if let Some(claim) = world.claims.iter().find(|claim| claim.uid == uid) {
                    prop_assert_eq!(claim.wishes[0].told.promise().unwrap().rate_bps, bps);
                }
            }
        }
        // once all others have ended, whoever is alone and can ever fit has it
        if let Some(last) = world.claims.first().cloned() {
            world.claims.retain(|claim| claim.pods[0].uid == last.pods[0].uid);
            let alone = world.claims.len() == 1;
            let told = decided(&mut world);
            let least = last.wishes[0].parameters.as_ref().unwrap();
            let least = least.least_rate.or(least.rate).unwrap().bps();
            prop_assert!(!alone || told[0].agreed() == (least <= 10 * G));
        }
    }
}
