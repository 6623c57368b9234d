//! NICs that join a slice after it was reserved, and leave it, as the whole engine books them: under the
//! same admission as at first, and gone again with their last lease.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dtn_api::{
    HostId, MacAddress, Problem,
    lease::LeaseRequest,
    problem::Kind,
    slice::{Member, Role, Slice},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};
use uuid::Uuid;
use vdnd::{
    auth::Principal,
    authority::Authority,
    engine::{Engine, Once},
    fabric::edge::Edge,
    members::IDLE_SECONDS,
    slices::{Action, Booking},
    store::{Embedded, Op, Store},
};

const ADMIN: &Principal = &Principal::Admin;
const G: u64 = 1_000_000_000;

fn read<T: serde::de::DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}
fn mac(n: u8) -> MacAddress {
    MacAddress::new([2, 0, 0, 0, 0, n])
}
fn id(n: u8) -> HostId {
    HostId::untagged(mac(n))
}
fn node(n: u8) -> Principal {
    Principal::Node(format!("n{n}").parse().unwrap())
}

/// `n1/data0` to `n4/data0`, with 10 Gbit/s each but for the last, which has 1.
struct Site {
    engine: Arc<Engine>,
    folder: tempfile::TempDir,
}
impl Site {
    async fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("vdnd-members-")
            .tempdir()
            .unwrap();
        let engine = opened(folder.path()).await;
        for n in 1..=4 {
            let capacity = if n == 4 { G } else { 10 * G };
            let spec = json!({"kind": "nic", "node": format!("n{n}"), "nic": "data0",
                "capacity_bps": capacity, "mtu": 9000});
            engine.declare(ADMIN, &id(n), read(spec)).await.unwrap();
        }
        Self { engine, folder }
    }
    async fn reserve(
        &self,
        name: &str,
        members: &[u8],
        gbit: u64,
        more: Value,
    ) -> Result<Slice, Problem> {
        let now = Timestamp::now();
        let host = |n: &u8| json!({"host": id(*n)});
        let mut spec = json!({"name": name, "commit": true,
            "qos": {"class": "guaranteed", "mode": "hose", "rate_bps": gbit * G},
            "members": members.iter().map(host).collect::<Vec<_>>(),
            "schedule": {"start": now, "end": now + SignedDuration::from_hours(1)}});
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let once = Once::new(ADMIN, Some(name), "/slices", &[]).unwrap();
        let made = self.engine.ask(ADMIN, &once, read(spec)).await;
        made.map(|made| made.body)
    }
    async fn join(&self, who: &Principal, slice: Uuid, n: u8) -> Result<Slice, Problem> {
        let member = Member::of_host(id(n), Role::Endpoint);
        self.engine.join(who, slice, &id(n), member).await
    }
    async fn leave(&self, who: &Principal, slice: Uuid, n: u8) -> Result<(), Problem> {
        self.engine.leave(who, slice, &id(n)).await
    }
    async fn lease(&self, slice: Uuid, n: u8) -> Uuid {
        let request: LeaseRequest = read(
            json!({"client_id": format!("pod-{n}"), "mac": mac(100 + n), "labels": {"nic": "data0"}}),
        );
        let once = Once::new(&node(n), Some(&format!("l{n}")), "/leases", &[]).unwrap();
        let made = self.engine.lease(&node(n), &once, slice, &request).await;
        made.unwrap().0.id
    }
    async fn slice(&self, id: Uuid) -> Slice {
        let found = self
            .engine
            .look(|state, _| state.bookings.get(&id).map(|b| b.slice.clone()))
            .await;
        found.unwrap()
    }
    /// As if that much time had passed since its NICs became idle, and another process.
    async fn later(self, slice: Uuid, seconds: i64) -> Self {
        let Self { engine, folder } = self;
        drop(engine);
        {
            let store = Embedded::open(&folder.path().join("store.redb")).unwrap();
            let key = format!("slice/{slice}");
            let rows = store.range(&key).await.unwrap();
            let mut booking: Booking = serde_json::from_slice(&rows.rows[0].1).unwrap();
            for since in booking.idle.values_mut() {
                *since -= SignedDuration::from_secs(seconds);
            }
            let row = Op::Put(key, serde_json::to_vec(&booking).unwrap());
            store.commit(rows.revision, vec![row]).await.unwrap();
        }
        let engine = opened(folder.path()).await;
        Self { engine, folder }
    }
}
async fn opened(at: &Path) -> Arc<Engine> {
    let file = at.join("vdnd.toml");
    let text = "version = 1\n[domain]\nname = \"daejeon\"\n[listen]\naddress = \"127.0.0.1:0\"\n\
                [addresses]\nipv4 = \"10.20.0.0/16\"\nipv6 = \"fd00:20::/48\"\n";
    std::fs::write(&file, text).unwrap();
    let config = vdnd::config::load(&file).unwrap().config;
    let now = Timestamp::now();
    let authority = Authority::open(&at.join("keys"), &config.domain, &config.names, now).unwrap();
    let store = Embedded::open(&at.join("store.redb")).unwrap();
    let fabric = Arc::new(Edge::new(Vec::new()));
    let engine = Engine::start(config, authority, Arc::new(store), fabric);
    Arc::new(engine.await.unwrap())
}
fn names(slice: &Slice) -> Vec<(HostId, bool)> {
    let members = slice.spec.members.iter();
    members
        .map(|m| (m.host.clone().unwrap(), m.joined))
        .collect()
}

#[tokio::test]
async fn a_host_lets_its_nic_join_what_is_open_and_it_is_booked() {
    let site = Site::start().await;
    let hall = site
        .reserve("hall", &[1, 2], 2, json!({"open": true}))
        .await
        .unwrap();
    let joined = site.join(&node(3), hall.id, 3).await.unwrap();
    assert_eq!(
        names(&joined),
        [(id(1), false), (id(2), false), (id(3), true)]
    );
    assert!(joined.status.generation > hall.status.generation);
    let link = "nic-02:00:00:00:00:03>site-switch".to_owned();
    assert!(!hall.status.links.contains(&link) && joined.status.links.contains(&link));
    assert_eq!(
        site.join(&node(3), hall.id, 3).await.unwrap(),
        joined,
        "twice is once"
    );
    // 95 % of 10 Gbit/s can be booked, and it has 2 of them there now
    let problem = site
        .reserve("more", &[1, 3], 8, json!({}))
        .await
        .unwrap_err();
    assert_eq!(problem.available_bps(), Some(7_500_000_000), "{problem}");
    // what does not fit changes nothing
    let many = site
        .reserve("many", &[1, 2], 3, json!({"open": true}))
        .await
        .unwrap();
    let problem = site.join(&node(4), many.id, 4).await.unwrap_err();
    assert!(problem.is(Kind::InsufficientBandwidth), "{problem}");
    assert_eq!(problem.available_bps(), Some(950_000_000), "{problem}");
    let words = "NIC n4/data0 cannot join slice many: link nic-02:00:00:00:00:04>site-switch has";
    assert!(problem.detail.starts_with(words), "{problem}");
    assert_eq!(names(&site.slice(many.id).await), names(&many));
    // nor is a link that is had already counted twice
    site.reserve("rest", &[1, 2], 4, json!({})).await.unwrap();
    assert_eq!(
        names(&site.join(&node(3), many.id, 3).await.unwrap()).len(),
        3
    );
}

#[tokio::test]
async fn what_is_closed_is_an_operators_and_so_is_leaving() {
    let site = Site::start().await;
    let closed = site.reserve("closed", &[1, 2], 2, json!({})).await.unwrap();
    let problem = site.join(&node(3), closed.id, 3).await.unwrap_err();
    assert!(problem.is(Kind::Forbidden), "{problem}");
    let joined = site.join(ADMIN, closed.id, 3).await.unwrap();
    assert_eq!(names(&joined)[2], (id(3), false), "it stays without a pod");
    // the host itself takes out its report alone
    site.leave(&node(3), closed.id, 3).await.unwrap();
    assert_eq!(names(&site.slice(closed.id).await), names(&joined));
    let lease = site.lease(closed.id, 3).await;
    let problem = site.leave(ADMIN, closed.id, 3).await.unwrap_err();
    assert!(problem.detail.contains("pod-3 holds a lease"), "{problem}");
    site.engine.release(&node(3), lease).await.unwrap();
    site.leave(ADMIN, closed.id, 3).await.unwrap();
    site.leave(ADMIN, closed.id, 3).await.unwrap();
    let left = site.slice(closed.id).await;
    assert_eq!(names(&left), names(&closed));
    assert_eq!(left.status.links, closed.status.links);
    // what it had of the NIC is free again
    site.reserve("whole", &[1, 3], 7, json!({})).await.unwrap();
    assert!(
        site.leave(ADMIN, closed.id, 2).await.is_err(),
        "two are the least"
    );
    site.engine
        .act(ADMIN, closed.id, Action::Terminate, None)
        .await
        .unwrap();
    assert!(
        site.join(ADMIN, closed.id, 3).await.is_err(),
        "it has ended"
    );
}

#[tokio::test]
async fn a_way_that_is_too_narrow_is_named_and_no_other() {
    let site = Site::start().await;
    let open = json!({"open": true});
    let hall = site.reserve("hall", &[1, 2], 2, open).await.unwrap();
    let narrow = async |n: u8| {
        let spec = json!({"kind": "nic", "node": format!("n{n}"), "nic": "data0",
            "capacity_bps": 10 * G, "mtu": 1500});
        site.engine
            .declare(&node(n), &id(n), read(spec))
            .await
            .unwrap();
    };
    narrow(3).await;
    let problem = site.join(&node(3), hall.id, 3).await.unwrap_err();
    let link = "nic-02:00:00:00:00:03>site-switch carries 1500";
    assert!(problem.detail.contains(link), "{problem}");
    // one that was a member before is not what hinders others
    narrow(1).await;
    let problem = site.join(&node(4), hall.id, 4).await.unwrap_err();
    assert!(problem.is(Kind::InsufficientBandwidth), "{problem}");
}

#[tokio::test]
async fn who_joined_is_no_owner() {
    let site = Site::start().await;
    let open = json!({"open": true});
    let hall = site.reserve("hall", &[1, 2], 2, open).await.unwrap();
    site.join(&node(3), hall.id, 3).await.unwrap();
    site.lease(hall.id, 3).await;
    let later = hall.spec.schedule.end + SignedDuration::from_hours(1);
    for action in [Action::Release, Action::Extend(later), Action::Terminate] {
        let act = async |n: u8| site.engine.act(&node(n), hall.id, action, None).await;
        let problem = act(3).await.unwrap_err();
        assert!(problem.is(Kind::Forbidden), "{action:?}: {problem}");
        act(1).await.unwrap();
    }
}

#[tokio::test]
async fn a_host_cannot_make_another_thing_of_what_a_slice_rests_on() {
    let site = Site::start().await;
    let closed = site.reserve("closed", &[1, 2], 2, json!({})).await.unwrap();
    let declare = async |n: u8, mac: u8, kind: &str, nic: &str| {
        let spec = json!({"kind": kind, "node": format!("n{n}"), "nic": nic,
            "capacity_bps": 10 * G, "mtu": 9000});
        site.engine.declare(&node(n), &id(mac), read(spec)).await
    };
    // a NIC as a pod of the one that is booked, then as the NIC that it is
    declare(1, 50, "pod", "data0").await.unwrap();
    site.join(&node(1), closed.id, 50).await.unwrap();
    let problem = declare(1, 50, "nic", "data1").await.unwrap_err();
    assert!(problem.is(Kind::StateConflict), "{problem}");
    assert!(declare(1, 50, "pod", "data1").await.is_err());
    declare(1, 50, "pod", "data0").await.unwrap();
    // a NIC as a pod, which its host could take out
    let problem = declare(1, 1, "pod", "data0").await.unwrap_err();
    assert!(problem.detail.contains("slice closed"), "{problem}");
    // a NIC that has another name since the last boot is the same
    declare(1, 1, "nic", "enp1s0").await.unwrap();
    site.leave(&node(1), closed.id, 50).await.unwrap();
    declare(1, 50, "nic", "data1").await.unwrap();
}

#[tokio::test]
async fn a_nic_that_joined_goes_when_it_was_idle_for_long_and_not_before() {
    let mut site = Site::start().await;
    let hall = site
        .reserve("hall", &[1, 2], 2, json!({"open": true}))
        .await
        .unwrap()
        .id;
    site.join(&node(3), hall, 3).await.unwrap();
    let lease = site.lease(hall, 3).await;
    let turn = async |site: &Site| {
        site.engine.age().await.unwrap();
        site.slice(hall).await.spec.members.len()
    };
    assert_eq!(turn(&site).await, 3);
    site = site.later(hall, i64::from(IDLE_SECONDS) + 1).await;
    assert_eq!(turn(&site).await, 3, "a pod is on it");
    site.engine.release(&node(3), lease).await.unwrap();
    assert_eq!(turn(&site).await, 3, "a pod may come again");
    site = site.later(hall, i64::from(IDLE_SECONDS) + 1).await;
    site.join(&node(3), hall, 3).await.unwrap();
    assert_eq!(turn(&site).await, 3, "another one is being prepared");
    site = site.later(hall, i64::from(IDLE_SECONDS) + 1).await;
    assert_eq!(turn(&site).await, 2);
    let events = site.engine.look(|state, _| {
        let all = state
            .events
            .values()
            .map(|event| (event.what.clone(), event.detail.clone()));
        all.filter(|(kind, _)| kind.starts_with("slice."))
            .collect::<Vec<_>>()
    });
    let last = events.await.pop().unwrap();
    assert_eq!(
        last,
        (
            "slice.left".to_owned(),
            "slice hall: n3/data0 was idle".to_owned()
        )
    );
    // and it may come again
    site.join(&node(3), hall, 3).await.unwrap();
    assert_eq!(turn(&site).await, 3);
}
