//! The fabric `openflow` with switches that are not as they should be: without meters, full, slow,
//! silent, of another version, very many. The switches are models on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod model;
mod wish;

use dtn_api::{HostId, MacAddress, host::Host, problem::Kind, slice::Class, slice::SliceSpec};
use dtn_openflow::METER_MAX;
use model::{Make, Model};
use serde_json::json;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{Attached, Fabric, Intent, network::Network, openflow::OpenFlow};
use wish::{MUCH, ONE, TWO, network, programmed, slice, start, until};

async fn fabric(network: Network) -> (Arc<OpenFlow>, CancellationToken) {
    let stop = CancellationToken::new();
    let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
    (start(network, anywhere, &stop).await, stop)
}
fn member(at: &str, number: u16) -> Attached {
    let [high, low] = number.to_be_bytes();
    Attached {
        mac: MacAddress::new([2, 0, 0, 1, high, low]),
        ips: vec![format!("10.1.{high}.{low}").parse().unwrap()],
        at: at.parse().unwrap(),
    }
}
fn two(tag: u16) -> Intent {
    let members = vec![member("edge1/h1", 1), member("edge1/h2", 2)];
    slice(tag, MUCH, members, &ONE)
}
async fn connected(fabric: &OpenFlow, count: usize) {
    until("the switches have come", || {
        let all = fabric.switches();
        all.iter().filter(|switch| switch.connected).count() == count
    })
    .await;
}
/// How many rules of slices it has.
fn holds(model: &Model) -> usize {
    let held = model.manner.held.lock().unwrap();
    let of_slices = held.flows.iter().filter(|flow| flow.priority < 40_000);
    of_slices.count()
}

#[tokio::test]
async fn a_switch_without_meters_is_refused_for_what_is_promised() {
    let mut network = network(&ONE);
    let place = "edge1/h1".parse().unwrap();
    network.ports.insert("dtn1/data0".into(), place);
    let (fabric, _stop) = fabric(network).await;
    let host: Host = serde_json::from_value(json!({
        "id": "02:00:00:01:00:01-none",
        "spec": {"kind": "nic", "node": "dtn1", "nic": "data0", "capacity_bps": MUCH, "mtu": 1500},
        "location": {"device": "edge1", "port": 1},
        "seen_at": "2026-01-01T00:00:00Z",
        "version": 1,
    }))
    .unwrap();
    let id: HostId = host.id.clone();
    let hosts = BTreeMap::from([(id.clone(), host)]);
    let spec = |qos: serde_json::Value| -> SliceSpec {
        serde_json::from_value(json!({
            "name": "red",
            "qos": qos,
            "members": [{"host": id}],
            "schedule": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"},
        }))
        .unwrap()
    };
    let promised = spec(json!({"class": "guaranteed", "rate_bps": 1000}));
    assert!(
        fabric.refuses(&promised, &hosts).is_none(),
        "it is not known yet"
    );
    let mut make = Make::new(1, &["h1", "h2"]);
    make.max_meter = 0;
    let model = make.connect(fabric.address()).await;
    connected(&fabric, 1).await;
    let refused = fabric.refuses(&promised, &hosts).unwrap();
    assert!(refused.is(Kind::UnenforceableQos), "{refused:?}");
    assert!(refused.detail.contains("edge1"), "{refused:?}");
    let unpromised = spec(json!({"class": "best_effort", "rate_bps": 1000}));
    assert!(fabric.refuses(&unpromised, &hosts).is_none());
    assert!(fabric.trouble().unwrap().contains("cannot meter"));

    // one that was promised before is not let in unguarded
    let wanted = two(7);
    fabric.intend(vec![wanted.clone()]);
    until("it says why not", || {
        let why = fabric.programmed(wanted.slice);
        why.is_err_and(|why| why.contains("no meter for 02:00:00:01:00:01"))
    })
    .await;
    let admitted = |model: &Model| {
        let held = model.manner.held.lock().unwrap();
        held.flows
            .iter()
            .filter(|f| f.table_id == 0 && (30_150..40_000).contains(&f.priority))
            .count()
    };
    assert_eq!(admitted(&model), 0);
    let mut free = wanted;
    free.class = Class::BestEffort;
    fabric.intend(vec![free.clone()]);
    programmed(&fabric, &[&free]).await;
    assert!(admitted(&model) > 0);
}

#[tokio::test]
async fn a_full_switch_is_said_with_its_words() {
    let (fabric, _stop) = fabric(network(&ONE)).await;
    let model = Make::new(1, &["h1", "h2"]).connect(fabric.address()).await;
    model.manner.room.store(5, Ordering::Relaxed);
    let wanted = two(7);
    fabric.intend(vec![wanted.clone()]);
    until("it says why not", || {
        let why = fabric.programmed(wanted.slice);
        why.is_err_and(|why| why.contains("table is full"))
    })
    .await;
    let told = fabric.happened();
    assert!(
        told.iter()
            .any(|(what, slice, _)| *what == "switch.error" && *slice == Some(wanted.slice)),
        "{told:?}"
    );
    model.manner.room.store(0, Ordering::Relaxed);
    fabric.intend(vec![wanted.clone()]);
    programmed(&fabric, &[&wanted]).await;
    let more = fabric.happened();
    assert!(more.is_empty(), "{more:?}");
}

#[tokio::test]
async fn a_switch_that_fell_silent_makes_room_for_itself() {
    let (fabric, _stop) = fabric(network(&ONE)).await;
    let first = Make::new(1, &["h1", "h2"]).connect(fabric.address()).await;
    let wanted = two(7);
    fabric.intend(vec![wanted.clone()]);
    programmed(&fabric, &[&wanted]).await;
    // as after a cut of which nobody was told
    first.manner.mute.store(true, Ordering::Relaxed);
    let second = Make::new(1, &["h1", "h2"]).connect(fabric.address()).await;
    until("the new one is taken", || holds(&second) == holds(&first)).await;
    programmed(&fabric, &[&wanted]).await;
    // and while it answers, there is no third
    let third = Make::new(1, &["h1", "h2"]).connect(fabric.address()).await;
    until("it is said", || {
        fabric
            .trouble()
            .is_some_and(|t| t.contains("a second switch"))
    })
    .await;
    assert_eq!(holds(&third), 0);
    programmed(&fabric, &[&wanted]).await;
}

#[tokio::test]
async fn one_that_does_not_answer_is_let_go_and_the_others_go_on() {
    let (fabric, _stop) = fabric(network(&TWO)).await;
    let one = Make::new(1, &["h1", "h2"]).connect(fabric.address()).await;
    let slow = Make::new(2, &["h1"]).connect(fabric.address()).await;
    connected(&fabric, 2).await;
    slow.manner.mute.store(true, Ordering::Relaxed);
    let wanted = two(7);
    fabric.intend(vec![wanted.clone()]);
    programmed(&fabric, &[&wanted]).await;
    assert!(holds(&one) > 0);
    connected(&fabric, 1).await;
    let told = fabric.happened();
    let lost = told
        .iter()
        .find(|(what, ..)| *what == "switch.lost")
        .unwrap();
    assert!(
        lost.2.starts_with("edge2") && lost.2.contains("no answer"),
        "{lost:?}"
    );
}

#[tokio::test]
async fn one_that_is_no_use_is_sent_away_with_the_reason() {
    let (fabric, _stop) = fabric(network(&TWO)).await;
    let mut small = Make::new(1, &[]);
    small.tables = 16;
    let _small = small.connect(fabric.address()).await;
    let mut groupless = Make::new(2, &[]);
    groupless.groups = false;
    let _groupless = groupless.connect(fabric.address()).await;
    let mut told = Vec::new();
    until("both are told", || {
        told.extend(
            fabric
                .happened()
                .into_iter()
                .map(|(what, _, why)| (what, why)),
        );
        told.len() == 2
    })
    .await;
    assert!(
        told.iter().all(|(what, _)| *what == "switch.refused"),
        "{told:?}"
    );
    const FEW: &str = "it has 16 tables, and the tables 0 to 20 are needed: write tables = 1 in its \
                       [[switch]], and everything is put into one";
    let few = format!("the switch edge1 connected from 127.0.0.1 and was sent away: {FEW}");
    assert!(told.iter().any(|(_, why)| *why == few), "{told:?}");
    let part = "a request for its groups: bad request";
    assert!(told.iter().any(|(_, why)| why.contains(part)), "{told:?}");
    // and it is said for as long as it is so, where the switches are shown
    let trouble = fabric.trouble().unwrap();
    assert!(trouble.contains(FEW), "{trouble}");
    connected(&fabric, 0).await;
}

#[tokio::test]
async fn a_stranger_is_asked_nothing_that_is_long() {
    let (fabric, _stop) = fabric(network(&ONE)).await;
    let stranger = Make::new(77, &["h1"]).connect(fabric.address()).await;
    let again = Make::new(77, &["h1"]).connect(fabric.address()).await;
    let mut told = Vec::new();
    until("it is told", || {
        told.extend(fabric.happened());
        !told.is_empty() && stranger.ended() && again.ended()
    })
    .await;
    told.extend(fabric.happened());
    let refused: Vec<_> = told.iter().map(|(what, ..)| *what).collect();
    assert_eq!(refused, ["switch.refused"], "once: {told:?}");
    for model in [&stranger, &again] {
        assert_eq!(model.manner.asked.load(Ordering::Relaxed), 0);
    }
    let known = Make::new(1, &["h1"]).connect(fabric.address()).await;
    connected(&fabric, 1).await;
    assert!(known.manner.asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn an_answer_without_an_end_is_cut() {
    let (fabric, _stop) = fabric(network(&ONE)).await;
    let model = Make::new(1, &["h1", "h2"]).connect(fabric.address()).await;
    connected(&fabric, 1).await;
    model.manner.endless.store(true, Ordering::Relaxed);
    fabric.intend(vec![two(7)]);
    connected(&fabric, 0).await;
    let told = fabric.happened();
    let lost = told
        .iter()
        .find(|(what, ..)| *what == "switch.lost")
        .unwrap();
    assert!(lost.2.contains("longer than"), "{lost:?}");
}

#[tokio::test]
async fn versions_are_agreed_or_not() {
    let (fabric, _stop) = fabric(network(&TWO)).await;
    let mut both = Make::new(1, &[]);
    both.versions = vec![1, 4, 6];
    let mut newer = Make::new(2, &[]);
    newer.versions = vec![6];
    let _newer = newer.connect(fabric.address()).await;
    let _both = both.connect(fabric.address()).await;
    connected(&fabric, 1).await;
    let all = fabric.switches();
    assert!(all[0].connected && !all[1].connected, "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_switches_are_programmed_together() {
    let names: Vec<String> = (1..=100).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (fabric, _stop) = fabric(network(&names)).await;
    let mut models = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let mut ports = vec!["h1".to_owned()];
        for other in [index.checked_sub(1), Some(index + 1)]
            .into_iter()
            .flatten()
        {
            ports.extend(names.get(other).map(|other| format!("{name}-{other}")));
        }
        let mut make = Make::new(index as u64 + 1, &[]);
        make.ports = ports;
        models.push(make.connect(fabric.address()).await);
    }
    connected(&fabric, 100).await;
    // ten slices, each of a member at every tenth switch, and so over nearly all of them
    let wanted: Vec<Intent> = (0..10)
        .map(|n: usize| {
            let at = (n..100).step_by(10);
            let members = at.map(|i| member(&format!("{}/h1", names[i]), (n * 100 + i) as u16));
            slice(n as u16 + 1, MUCH, members.collect(), &names[n..=90 + n])
        })
        .collect();
    let began = Instant::now();
    fabric.intend(wanted.clone());
    let all: Vec<&Intent> = wanted.iter().collect();
    programmed(&fabric, &all).await;
    let flows: usize = models.iter().map(holds).sum();
    println!("{flows} rules on 100 switches in {:?}", began.elapsed());
    assert_eq!(fabric.check().await, []);
    fabric.intend(Vec::new());
    until("all are empty", || models.iter().all(|m| holds(m) == 0)).await;
    // meters go last, when no rule uses them
    let metered = |model: &Model| {
        let held = model.manner.held.lock().unwrap();
        held.meters.range(..=METER_MAX).count()
    };
    until("no meter is left", || {
        models.iter().all(|m| metered(m) == 0)
    })
    .await;
}

/// Two slices with nothing in common, and one through both switches: who does not answer holds up
/// those that go through it, until it is let go and beyond.
#[tokio::test]
async fn a_switch_that_does_not_answer_holds_up_its_own_slices_alone() {
    let (fabric, _stop) = fabric(network(&TWO)).await;
    let make = |id, cable| Make::new(id, &["h1", "h2", cable]);
    let first = make(1, "edge1-edge2").connect(fabric.address()).await;
    let second = make(2, "edge2-edge1").connect(fabric.address()).await;
    connected(&fabric, 2).await;
    let at = |tag: u16, names: [&str; 2]| {
        let port = |n: u16| {
            member(
                &format!("{}/h{}", names[usize::from(n)], n + 1),
                tag * 10 + n,
            )
        };
        let switches: &[&str] = if names == TWO { &TWO } else { &names[..1] };
        slice(tag, MUCH, vec![port(0), port(1)], switches)
    };
    let near = at(7, ["edge1", "edge1"]);
    let far = at(8, ["edge2", "edge2"]);
    let both = at(9, TWO);
    second.manner.mute.store(true, Ordering::Relaxed);
    fabric.intend(vec![near.clone(), far.clone(), both.clone()]);
    programmed(&fabric, &[&near]).await;
    // another rate, and a slice more
    let mut faster = near.clone();
    faster.rate_bps /= 2;
    let more = at(10, ["edge1", "edge1"]);
    let wish = [&faster, &more, &far, &both].map(Clone::clone);
    fabric.intend(wish.to_vec());
    programmed(&fabric, &[&faster, &more]).await;
    // it ends
    fabric.intend(vec![faster.clone(), far.clone(), both.clone()]);
    let none_of = |tag: u64| {
        let held = first.manner.held.lock().unwrap();
        !held
            .flows
            .iter()
            .any(|flow| (flow.cookie >> 16) & 0xffff == tag)
    };
    until("what has ended is gone", || none_of(10)).await;
    assert!(!second.ended(), "and it was waited for all this time");
    for slice in [&far, &both] {
        assert!(fabric.programmed(slice.slice).is_err());
    }
    assert!(none_of(9), "nobody is let in before the others are ready");

    until("it is let go", || second.ended()).await;
    programmed(&fabric, &[&faster]).await;
    until("it says why", || {
        let why = fabric.programmed(both.slice);
        why.is_err_and(|why| why.contains("edge2"))
    })
    .await;
    let _again = make(2, "edge2-edge1").connect(fabric.address()).await;
    programmed(&fabric, &[&faster, &far, &both]).await;
    assert_eq!(fabric.check().await, []);
}

/// Somebody takes away so many rules that forward.
fn take_away(model: &Model, mut count: usize) {
    let mut held = model.manner.held.lock().unwrap();
    held.flows.retain(|flow| {
        let goes = count > 0 && flow.table_id == 20;
        count -= usize::from(goes);
        !goes
    });
}

/// Between two looks, of which one comes every ten seconds, a switch is asked five times how many rules
/// it has: so what is taken away is back after one or two of these questions.
#[tokio::test]
async fn what_is_taken_away_is_noticed_between_looks() {
    let (fabric, _stop) = fabric(network(&ONE)).await;
    let model = Make::new(1, &["h1", "h2"]).connect(fabric.address()).await;
    let wanted = two(7);
    fabric.intend(vec![wanted.clone()]);
    programmed(&fabric, &[&wanted]).await;
    let whole = holds(&model);
    let before = model.manner.counted.load(Ordering::Relaxed);
    const TIMES: usize = 4;
    for _ in 0..TIMES {
        take_away(&model, 1);
        until("it is back, and has been read back", || {
            let known = fabric.switches()[0].rules as usize;
            holds(&model) == whole && known == whole
        })
        .await;
    }
    let asked = model.manner.counted.load(Ordering::Relaxed) - before;
    // by looks alone it would be five for each time, but for the first
    assert!(asked < 3 * TIMES, "{asked} questions");
    let told = fabric.happened();
    let drift = told.iter().filter(|(what, ..)| *what == "switch.drift");
    assert!(drift.count() >= TIMES, "{told:?}");
}
