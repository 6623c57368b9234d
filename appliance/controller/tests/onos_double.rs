//! The fabric `onos` against a double of ONOS: what only this fabric does. What every fabric does is
//! in `conformance.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod double;
mod wish;

use double::{Double, Rig};
use std::sync::Arc;
use vdnd::fabric::{
    Attached, BorderEnd, Fabric, Intent,
    onos::{Onos, instance},
};
use wish::{MUCH, TWO, network, slice, until};

async fn started(rig: &Rig, owner: &str) -> Arc<Onos> {
    rig.fabric(owner, network(&TWO), &rig.stop).await
}
fn wanted() -> Intent {
    let member = |n: u8, at: &str| Attached {
        mac: dtn_api::MacAddress::new([2, 0, 0, 0, 0, n]),
        ips: vec![[10, 0, 0, n].into(), format!("fd00::{n}").parse().unwrap()],
        at: at.parse().unwrap(),
    };
    slice(
        7,
        MUCH,
        vec![member(1, "edge1/ha"), member(2, "edge2/hb")],
        &TWO,
    )
}
async fn programmed(fabric: &Onos, wanted: &Intent) {
    until("it is programmed", || {
        fabric.programmed(wanted.slice).is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_let_in_comes_last_and_meters_go_last() {
    let rig = Rig::start().await;
    let fabric = started(&rig, "here/1").await;
    let mut wish = wanted();
    fabric.intend(vec![wish.clone()]);
    programmed(&fabric, &wish).await;
    assert_eq!(fabric.check().await, []);
    rig.set(|d| {
        let posts = std::mem::take(&mut d.posts);
        let first = posts.iter().position(|p| p.contains("METER")).unwrap();
        let forwards = posts
            .iter()
            .rposition(|p| p.starts_with("flow 20") || p.starts_with("flow 10"));
        assert!(forwards.unwrap() < first, "{posts:#?}");
        assert_eq!((d.meters.len(), d.hosts.len()), (2, 2));
    });
    // make before break
    wish.rate_bps = MUCH / 2;
    fabric.intend(vec![wish.clone()]);
    programmed(&fabric, &wish).await;
    until("the old meters are gone", || {
        rig.double.lock().unwrap().meters.len() == 2
    })
    .await;
    rig.set(|d| {
        let posts = std::mem::take(&mut d.posts);
        let at = |text: &str| posts.iter().position(|p| p == text).unwrap();
        let swapped = posts.iter().rposition(|p| p.contains("METER")).unwrap();
        assert!(
            at("meter 12") < swapped && swapped < at("meter 9 gone"),
            "{posts:#?}"
        );
    });
    fabric.intend(Vec::new());
    until("only the marks are left", || {
        let d = rig.double.lock().unwrap();
        d.flows.len() == 2 && d.meters.is_empty() && d.hosts.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_onos_that_fails_is_trouble_and_is_made_good_after() {
    let rig = Rig::start().await;
    let fabric = started(&rig, "here/1").await;
    let wish = wanted();
    fabric.intend(vec![wish.clone()]);
    programmed(&fabric, &wish).await;
    for (failing, why) in [
        ("500", "500: boom"),
        ("503", "is starting"),
        ("wrong_password", "password is wrong"),
    ] {
        rig.set(|d| d.failing = Some(failing));
        // any wish makes it look again at once
        fabric.intend(vec![wish.clone()]);
        until("it is trouble", || {
            fabric.trouble().is_some_and(|t| t.contains(why))
        })
        .await;
        assert!(
            fabric.programmed(wish.slice).is_err(),
            "nothing is said on faith"
        );
        assert!(fabric.check().await.iter().all(|d| d.kind == "unreachable"));
        rig.set(|d| d.failing = None);
        fabric.intend(vec![wish.clone()]);
        programmed(&fabric, &wish).await;
    }
    // a controller of switches that has forgotten all, and a switch that is away
    rig.set(|d| (d.flows, d.meters, d.hosts) = Default::default());
    fabric.intend(vec![wish.clone()]);
    until("it is all there again", || {
        rig.double.lock().unwrap().hosts.len() == 2
    })
    .await;
    programmed(&fabric, &wish).await;
    rig.set(|d| d.away = true);
    fabric.intend(vec![wish.clone()]);
    until("it is away", || {
        fabric
            .programmed(wish.slice)
            .is_err_and(|why| why.contains("not connected"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meter_that_was_made_before_an_end_is_found_and_given_back() {
    // the end comes before ONOS says the number of the meter, or before a rule names it
    for (mute, made) in [("/meters", 1), ("/flows", 2)] {
        let rig = Rig::start().await;
        rig.set(|d| d.meter_like_ours(100, MUCH, 0));
        let first = tokio_util::sync::CancellationToken::new();
        let fabric = rig.fabric("here/1", network(&TWO), &first).await;
        fabric.intend(Vec::new());
        until("all is well", || fabric.trouble().is_none()).await;
        rig.set(|d| d.mute = Some(mute));
        fabric.intend(vec![wanted()]);
        let numbers = || {
            let double = rig.double.lock().unwrap();
            double.meters.keys().copied().collect::<Vec<u32>>()
        };
        until("they are made", || numbers().len() == 1 + made).await;
        if mute == "/flows" {
            // the call that is not answered is the one of the rules
            until("their numbers are known", || {
                let file = std::fs::read(rig.dir.path().join("meters.json")).unwrap();
                serde_json::from_slice::<serde_json::Value>(&file).unwrap()["meters"]
                    .as_array()
                    .is_some_and(|meters| meters.len() == made)
            })
            .await;
        }
        first.cancel();
        drop(fabric);
        // somebody else's, of the same kind, that rules use
        rig.set(|d| {
            d.mute = None;
            d.meter_like_ours(101, MUCH, 1);
        });
        let fabric = started(&rig, "here/1").await;
        until("they are given back, and nobody else's", || {
            fabric.intend(Vec::new());
            numbers() == [100, 101]
        })
        .await;
        until("all is well", || fabric.trouble().is_none()).await;
        assert_eq!(fabric.check().await, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_has_one_controller() {
    let rig = Rig::start().await;
    let fabric = started(&rig, "here/1").await;
    let wish = wanted();
    fabric.intend(vec![wish.clone()]);
    programmed(&fabric, &wish).await;
    let before = rig.double.lock().unwrap().flows.len();
    let other = started(&rig, "elsewhere/2").await;
    other.intend(Vec::new());
    until("it is refused", || {
        other
            .trouble()
            .is_some_and(|t| t.contains("another controller's"))
    })
    .await;
    assert_eq!(rig.double.lock().unwrap().flows.len(), before);
    let folder = rig.dir.path();
    let domain = "here".parse().unwrap();
    assert_eq!(
        instance(folder, &domain).unwrap(),
        instance(folder, &domain).unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arp_that_onos_answers_itself_is_left_to_it() {
    let rig = Rig::start().await;
    rig.set(|d| d.applications.push("org.onosproject.proxyarp"));
    let fabric = started(&rig, "here/1").await;
    let mut wish = wanted();
    fabric.intend(vec![wish.clone()]);
    programmed(&fabric, &wish).await;
    let arp = |d: &Double| {
        d.flows
            .values()
            .filter(|f| f.to_string().contains("0x806"))
            .count()
    };
    assert_eq!(arp(&rig.double.lock().unwrap()), 0);
    // nobody would answer for who is beyond a border
    let at: vdnd::fabric::network::Place = "edge2/border".parse().unwrap();
    let link: dtn_api::Name = "border".parse().unwrap();
    wish.border = Some(BorderEnd {
        link,
        at,
        label: 100,
    });
    fabric.intend(vec![wish.clone()]);
    until("it is said", || {
        fabric
            .programmed(wish.slice)
            .is_err_and(|why| why.contains("proxyarp"))
    })
    .await;
    rig.set(|d| d.applications.clear());
    fabric.intend(vec![wish.clone()]);
    programmed(&fabric, &wish).await;
    assert!(arp(&rig.double.lock().unwrap()) > 0);
}
