//! Real `vdnd` processes, killed with SIGKILL between two steps and started again: what was
//! answered is there, what was not answered is whole or not there, and two domains come to agree.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod site;

use dtn_api::{
    client::ClientError,
    domain::{Domain, Invitation, InviteKind},
    problem::Kind,
    slice::{Availability, AvailabilityQuery, Class, List, Reservation, Slice},
    stitch::{Stitch, StitchState},
};
use serde_json::json;
use site::{FAR, NEAR, Site, act, ask, eventually, federate, path, refusal, window, wish};

const GIGABIT: u64 = 1_000_000_000;

async fn dedicated_left(site: &Site) -> u64 {
    let query = AvailabilityQuery {
        class: Class::Dedicated,
        mode: Default::default(),
        members: vec![
            serde_json::from_value(json!({"host": format!("{NEAR}-none")})).unwrap(),
            serde_json::from_value(json!({"border_link": "wan"})).unwrap(),
        ],
        schedule: window(),
        rate_bps: None,
        remote: None,
    };
    let answer: Availability = site
        .admin
        .post(&path("/availability"), &query)
        .await
        .unwrap();
    answer.max_rate_bps
}
async fn slices(site: &Site) -> Vec<Slice> {
    let list: List<Slice> = site.admin.get(&path("/slices")).await.unwrap();
    list.items
}
async fn stitches(site: &Site) -> Vec<Stitch> {
    let list: List<Stitch> = site.admin.get(&path("/stitches")).await.unwrap();
    list.items
}
async fn booked(site: &Site) -> Vec<Slice> {
    let now = jiff::Timestamp::now();
    let all = slices(site).await;
    all.into_iter()
        .filter(|slice| slice.booked_at(now))
        .collect()
}

/// Nothing is booked on either side, and both can give all again.
async fn nothing_is_booked(near: &Site, far: &Site) {
    eventually("both holds are over", async || {
        booked(near).await.is_empty() && booked(far).await.is_empty()
    })
    .await;
    for site in [near, far] {
        assert!(
            slices(site)
                .await
                .iter()
                .all(|s| s.status.reservation != Reservation::Committed),
            "{:?}",
            slices(site).await
        );
    }
    assert_eq!(dedicated_left(near).await, GIGABIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_initiator_killed_while_holding_books_nothing() {
    for step in ["held-here", "held-there"] {
        let (mut near, far) = federate("killed-hold", Some(step), None).await;
        let spec = wish("lhc", 600_000_000, 2);
        let asked = tokio::spawn({
            let admin = near.admin.clone();
            async move { ask(&admin, &spec, "k1").await }
        });
        near.wait_for(&format!("stopped at {step}")).await;
        near.kill();
        assert!(asked.await.unwrap().is_err());
        near.start(None).await;
        nothing_is_booked(&near, &far).await;
        eventually("the stitch says so", async || {
            stitches(&near).await[0].state == StitchState::TimedOut
        })
        .await;
        // and the same can be asked for again
        let again = ask(&near.admin, &wish("lhc", 600_000_000, 60), "k2")
            .await
            .unwrap();
        act(&near.admin, again.id, "commit").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_participant_killed_while_holding_books_nothing() {
    let (near, mut far) = federate("killed-far-hold", None, Some("held-for-peer")).await;
    let spec = wish("lhc", 600_000_000, 2);
    let asked = tokio::spawn({
        let admin = near.admin.clone();
        async move { ask(&admin, &spec, "k1").await }
    });
    far.wait_for("stopped at held-for-peer").await;
    far.kill();
    let refused = refusal(asked.await.unwrap());
    assert!(refused.is(Kind::PeerTimeout), "{refused}");
    far.start(None).await;
    nothing_is_booked(&near, &far).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_to_commit_outlives_the_initiator() {
    for step in ["decided", "told"] {
        let (mut near, far) = federate("killed-commit", Some(step), None).await;
        let spec = wish("lhc", 600_000_000, 120);
        let stitch = ask(&near.admin, &spec, "k1").await.unwrap();
        let told = tokio::spawn({
            let (admin, id) = (near.admin.clone(), stitch.id);
            async move { act(&admin, id, "commit").await }
        });
        near.wait_for(&format!("stopped at {step}")).await;
        near.kill();
        assert!(told.await.unwrap().is_err());
        near.start(None).await;
        eventually("both have committed", async || {
            stitches(&near).await[0].state == StitchState::Committed
                && stitches(&far).await[0].state == StitchState::Committed
        })
        .await;
        for site in [&near, &far] {
            let slices = booked(site).await;
            assert_eq!(slices.len(), 1, "{step}");
            assert_eq!(slices[0].status.reservation, Reservation::Committed);
        }
        // the same key brings the same stitch, not a second one
        let again = ask(&near.admin, &spec, "k1").await.unwrap();
        assert_eq!((again.id, again.state), (stitch.id, StitchState::Committed));
        act(&near.admin, stitch.id, "terminate").await.unwrap();
        nothing_is_booked_any_more(&near, &far).await;
    }
}

async fn nothing_is_booked_any_more(near: &Site, far: &Site) {
    assert!(booked(near).await.is_empty() && booked(far).await.is_empty());
    assert_eq!(dedicated_left(near).await, GIGABIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_not_lost_with_the_participant() {
    let (near, mut far) = federate("killed-far-commit", None, Some("done-for-peer")).await;
    let stitch = ask(&near.admin, &wish("lhc", 600_000_000, 120), "k1")
        .await
        .unwrap();
    let told = tokio::spawn({
        let (admin, id) = (near.admin.clone(), stitch.id);
        async move { act(&admin, id, "commit").await }
    });
    far.wait_for("stopped at done-for-peer").await;
    far.kill();
    let in_doubt = refusal(told.await.unwrap());
    assert!(
        in_doubt.is(Kind::PeerTimeout) && in_doubt.retryable,
        "{in_doubt}"
    );
    assert_eq!(stitches(&near).await[0].state, StitchState::Committing);
    far.start(None).await;
    eventually("the commit was asked for again", async || {
        stitches(&near).await[0].state == StitchState::Committed
    })
    .await;
    assert_eq!(
        booked(&far).await[0].status.reservation,
        Reservation::Committed
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_comes_after_the_other_hold_ends_both() {
    let (mut near, far) = federate("killed-late", Some("decided"), None).await;
    let stitch = ask(&near.admin, &wish("lhc", 600_000_000, 2), "k1")
        .await
        .unwrap();
    let told = tokio::spawn({
        let (admin, id) = (near.admin.clone(), stitch.id);
        async move { act(&admin, id, "commit").await }
    });
    near.wait_for("stopped at decided").await;
    near.kill();
    assert!(told.await.unwrap().is_err());
    eventually("the far hold is over", async || {
        booked(&far).await.is_empty()
    })
    .await;
    near.start(None).await;
    eventually("the near side has taken it back", async || {
        booked(&near).await.is_empty()
    })
    .await;
    assert_eq!(stitches(&near).await[0].state, StitchState::Aborted);
    eventually("the far stitch says so", async || {
        stitches(&far).await[0].state == StitchState::TimedOut
    })
    .await;
    assert_eq!(dedicated_left(&near).await, GIGABIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn federating_survives_a_kill_on_either_side() {
    // the inviting side has decided and its answer is lost: the same word can be used again
    let mut near = Site::new("killed-invite", "daejeon", "busan", Some("invited-decided")).await;
    let far = Site::new("killed-invite", "busan", "daejeon", None).await;
    let invitation: Invitation = near.invite(InviteKind::Domain, "busan").await;
    let body = json!({ "invitation": invitation });
    let accepted = tokio::spawn({
        let (admin, body) = (far.admin.clone(), body.clone());
        async move { admin.post::<_, Domain>(&path("/domains"), &body).await }
    });
    near.wait_for("stopped at invited-decided").await;
    near.kill();
    assert!(accepted.await.unwrap().is_err());
    near.start(None).await;
    let done: Domain = far.admin.post(&path("/domains"), &body).await.unwrap();
    assert_eq!(done.name.as_str(), "daejeon");

    // the accepting side has the answer and dies before it is written down
    let near = Site::new("killed-accept", "daejeon", "busan", None).await;
    let mut far = Site::new("killed-accept", "busan", "daejeon", Some("accept-answered")).await;
    let invitation: Invitation = near.invite(InviteKind::Domain, "busan").await;
    let body = json!({ "invitation": invitation });
    let accepted = tokio::spawn({
        let (admin, body) = (far.admin.clone(), body.clone());
        async move { admin.post::<_, Domain>(&path("/domains"), &body).await }
    });
    far.wait_for("stopped at accept-answered").await;
    far.kill();
    assert!(accepted.await.unwrap().is_err());
    far.start(None).await;
    let none: List<Domain> = far.admin.get(&path("/domains")).await.unwrap();
    assert!(none.items.is_empty(), "nothing half done");
    far.admin
        .post::<_, Domain>(&path("/domains"), &body)
        .await
        .unwrap();
}

/// Two domains with the same pool, as an admin's first configuration has it: a subnet that one of
/// them uses already is gone around.
#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_that_is_in_use_there_is_gone_around() {
    let (near, far) = federate("same-pool", None, None).await;
    let local = json!({
        "name": "local", "commit": true,
        "qos": {"class": "guaranteed", "rate_bps": 1_000_000},
        "members": [{"host": format!("{FAR}-none")}, {"border_link": "wan"}],
        "schedule": window(),
        "addressing": {"ipv4": {"cidr": "10.20.0.0/22"}},
    });
    far.admin
        .post_once::<_, Slice>(&path("/slices"), "local", &local)
        .await
        .unwrap();
    let stitch = ask(&near.admin, &wish("lhc", 600_000_000, 60), "k1")
        .await
        .unwrap();
    assert_eq!(stitch.state, StitchState::Held);
    let subnets = async |site: &Site| {
        let slice = booked(site)
            .await
            .into_iter()
            .find(|s| s.spec.name.as_str() == "lhc");
        let addressing = slice.unwrap().spec.addressing.unwrap();
        (
            addressing.ipv4.unwrap().cidr.to_string(),
            addressing.ipv6.unwrap().cidr.to_string(),
        )
    };
    assert_eq!(subnets(&near).await.0, "10.20.4.0/24");
    assert_eq!(subnets(&near).await, subnets(&far).await);
}

/// Killed in the middle of a stream of writes: everything that was answered is there after the
/// start, with the same content, and nothing is booked twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_a_kill() {
    let mut site = Site::new("killed-stream", "daejeon", "busan", None).await;
    site.declare(NEAR).await;
    let mut answered: Vec<Slice> = Vec::new();
    for round in 0..5 {
        let stream = tokio::spawn({
            let admin = site.admin.clone();
            async move {
                let mut done: Vec<Slice> = Vec::new();
                for n in 0..1000 {
                    let name = format!("s{round}-{n}");
                    let spec = json!({
                        "name": name, "commit": true, "hold_seconds": 60,
                        "qos": {"class": "guaranteed", "rate_bps": 1_000_000},
                        "members": [{"host": format!("{NEAR}-none")}, {"border_link": "wan"}],
                        "schedule": window(),
                    });
                    match admin
                        .post_once::<_, Slice>(&path("/slices"), &name, &spec)
                        .await
                    {
                        Ok(slice) => done.push(slice),
                        Err(ClientError::Unreachable { .. }) => break,
                        Err(other) => panic!("{other}"),
                    }
                }
                done
            }
        });
        eventually("some are answered", async || {
            slices(&site).await.len() >= answered.len() + 7
        })
        .await;
        site.kill();
        let round = stream.await.unwrap();
        assert!(round.len() < 1000, "it was killed in the middle");
        answered.extend(round);
        site.start(None).await;
        let found = slices(&site).await;
        for slice in &answered {
            let kept = found.iter().find(|other| other.id == slice.id);
            let kept = kept.unwrap_or_else(|| panic!("{} is lost", slice.spec.name));
            assert_eq!(
                (&kept.spec, kept.status.reservation),
                (&slice.spec, Reservation::Committed)
            );
        }
        // at most the one whose answer was lost is there beside them
        assert!(found.len() <= answered.len() + 5);
        let sum = found.len() as u64 * 1_000_000;
        let topology: serde_json::Value = site.admin.get(&path("/topology")).await.unwrap();
        let wan = topology["links"].as_array().unwrap().iter();
        let wan = wan
            .clone()
            .find(|link| link["id"] == "site-switch>wan")
            .unwrap();
        assert_eq!(wan["booked_bps"], sum);
    }
}
