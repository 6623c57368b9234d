//! Hosts that ask by DHCP, as the whole engine answers them: which slice they are in, what they have in
//! common with who asks over REST, and what a restart leaves.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dtn_api::{
    HostId, MacAddress, Problem,
    lease::{Lease, LeaseRequest},
    problem::Kind,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::{net::Ipv4Addr, path::Path, sync::Arc};
use uuid::Uuid;
use vdnd::{
    auth::Principal,
    authority::Authority,
    dhcp::{Asks, Question, Reply, SERVER},
    engine::{Engine, Once},
    fabric::edge::Edge,
    slices::Action,
    store::Embedded,
};

const ADMIN: &Principal = &Principal::Admin;

fn read<T: serde::de::DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}
fn mac(n: u8) -> MacAddress {
    MacAddress::new([2, 0, 0, 0, 0, n])
}
fn id(n: u8) -> HostId {
    HostId::untagged(mac(n))
}
fn asks(n: u8, asks: Asks) -> Question {
    Question {
        xid: 7,
        mac: mac(n),
        broadcast: false,
        asks,
        identifier: None,
        wants: None,
        lease_seconds: None,
        longest: None,
    }
}
fn offered(reply: Option<Reply>) -> Option<Ipv4Addr> {
    match reply {
        Some(Reply::Offer(granted, _)) => Some(granted.address),
        _ => None,
    }
}
fn granted(reply: Option<Reply>) -> Option<Ipv4Addr> {
    match reply {
        Some(Reply::Granted(granted, _)) => Some(granted.address),
        _ => None,
    }
}

/// An engine with three NICs: `n1/eth0` to `n3/eth0`.
struct Site {
    engine: Engine,
    folder: tempfile::TempDir,
}
impl Site {
    async fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("vdnd-dhcp-")
            .tempdir()
            .unwrap();
        let engine = engine(folder.path()).await;
        for n in 1..=3 {
            let spec = json!({"kind": "nic", "node": format!("n{n}"), "nic": "eth0",
                "capacity_bps": 1_000_000_000_u64, "mtu": 9000});
            engine.declare(ADMIN, &id(n), read(spec)).await.unwrap();
        }
        Self { engine, folder }
    }
    /// The same store, in another process.
    async fn again(self) -> Self {
        let Self { engine, folder } = self;
        drop(engine);
        let engine = engine_of(&folder).await;
        Self { engine, folder }
    }
    async fn slice(&self, name: &str, members: &[u8], more: Value) -> Uuid {
        let now = Timestamp::now();
        let host = |n: &u8| json!({"host": id(*n)});
        let mut spec = json!({"name": name, "qos": {"class": "best_effort", "mode": "hose", "rate_bps": 0},
            "members": members.iter().map(host).collect::<Vec<_>>(), "commit": true,
            "schedule": {"start": now, "end": now + SignedDuration::from_hours(1)}});
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let once = Once::new(ADMIN, Some(name), "/slices", &[]).unwrap();
        let made = self.engine.ask(ADMIN, &once, read(spec)).await;
        made.unwrap().body.id
    }
    async fn told(&self, n: u8, question: Asks) -> Option<Reply> {
        let nic = format!("n{n}/eth0");
        self.engine.asked(&nic, &asks(n, question)).await
    }
    async fn joins(&self, n: u8) -> Option<Ipv4Addr> {
        let address = offered(self.told(n, Asks::Address(None)).await)?;
        self.takes(n, address).await
    }
    async fn takes(&self, n: u8, address: Ipv4Addr) -> Option<Ipv4Addr> {
        let server = SERVER;
        granted(self.told(n, Asks::Take { server, address }).await)
    }
    async fn over_rest(
        &self,
        slice: Uuid,
        client: &str,
        mac: MacAddress,
    ) -> Result<Lease, Problem> {
        let request: LeaseRequest = read(json!({"client_id": client, "mac": mac}));
        let once = Once::new(ADMIN, Some(client), "/leases", &[]).unwrap();
        let made = self.engine.lease(ADMIN, &once, slice, &request).await;
        made.map(|(lease, _)| lease)
    }
}
async fn engine_of(folder: &tempfile::TempDir) -> Engine {
    engine(folder.path()).await
}
async fn engine(at: &Path) -> Engine {
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
    engine.await.unwrap()
}

#[tokio::test]
async fn a_host_asks_for_the_one_slice_that_it_is_in() {
    let site = Site::start().await;
    assert_eq!(site.joins(1).await, None, "it is in none");
    let red = site.slice("red", &[1, 2], json!({})).await;
    let address = site.joins(1).await.unwrap();
    let lease = &site.engine.leases(ADMIN, Some(red), None).await[0];
    assert_eq!(lease.ips[0].addr(), std::net::IpAddr::V4(address));
    assert!(lease.ips[1].addr().is_ipv6(), "all families, or none");
    assert_eq!(lease.client_id, "dhcp:02:00:00:00:00:01");

    // nobody else's port, and nobody who is not declared
    let other = asks(1, Asks::Address(None));
    assert_eq!(site.engine.asked("n2/eth0", &other).await, None);
    let nobody = asks(9, Asks::Address(None));
    assert_eq!(site.engine.asked("n1/eth0", &nobody).await, None);

    // of two it cannot say which
    let blue = site.slice("blue", &[1, 3], json!({})).await;
    assert_eq!(site.told(1, Asks::Extend(address)).await, None);
    site.engine
        .act(ADMIN, red, Action::Terminate, None)
        .await
        .unwrap();
    // it is in the other one now, where its old address is not its own
    let refused = site.told(1, Asks::Extend(address)).await;
    assert!(matches!(refused, Some(Reply::Refused(_))), "{refused:?}");
    let moved = site.joins(1).await.unwrap();
    assert_ne!(moved, address);
    let leases = site.engine.leases(ADMIN, Some(blue), None).await;
    assert_eq!(leases.len(), 1);

    // one that waits to be provided carries nothing yet
    let later = json!({"auto_provision": false});
    site.slice("later", &[2, 3], later).await;
    assert_eq!(site.joins(2).await, None);
}

#[tokio::test]
async fn a_slice_with_ipv6_alone_and_a_gateway_give_nothing_by_dhcp() {
    let site = Site::start().await;
    let v6 = json!({"addressing": {"ipv6": {"cidr": "fd00:99::/64"}}});
    let six = site.slice("six", &[1, 2], v6).await;
    assert_eq!(site.joins(1).await, None);
    let spec = json!({"node": "n3", "host": id(3), "networks": ["0.0.0.0/0"],
        "outside": ["192.0.2.2/24"]});
    let name = "internet".parse().unwrap();
    let declared = site.engine.declare_gateway(ADMIN, &name, read(spec), None);
    declared.await.unwrap();
    let site = site.again().await;
    let members = json!({"members": [{"host": id(3), "role": "gateway"}, {"host": id(2)}]});
    site.engine
        .act(ADMIN, six, Action::Terminate, None)
        .await
        .unwrap();
    site.slice("out", &[], members).await;
    assert_eq!(site.joins(3).await, None);
    // its members are told what they reach through it
    let Some(Reply::Offer(_, network)) = site.told(2, Asks::Address(None)).await else {
        panic!("nothing is offered");
    };
    let [(to, by)] = network.routes.as_slice() else {
        panic!("{network:?}");
    };
    assert_eq!((to.prefix_len(), network.subnet.contains(by)), (0, true));
}

#[tokio::test]
async fn who_asks_by_dhcp_and_who_over_rest_never_have_one_address() {
    let site = Site::start().await;
    let few = json!({"addressing": {"ipv4": {"cidr": "10.9.0.0/24",
        "ranges": ["10.9.0.10-10.9.0.12"]}}});
    let red = site.slice("red", &[1, 2, 3], few).await;
    let one = offered(site.told(1, Asks::Address(None)).await).unwrap();
    let two = offered(site.told(2, Asks::Address(None)).await).unwrap();
    assert_ne!(one, two, "two who ask at once");
    assert_eq!(offered(site.told(1, Asks::Address(None)).await), Some(one));
    let rest = site.over_rest(red, "pod", mac(77)).await.unwrap();
    let rest = rest.ips[0].addr();
    assert!(
        ![one, two].map(std::net::IpAddr::V4).contains(&rest),
        "{rest} is offered"
    );
    assert_eq!(
        site.told(3, Asks::Address(None)).await,
        None,
        "no more are left"
    );
    let full = site.over_rest(red, "another", mac(78)).await.unwrap_err();
    assert!(full.is(Kind::PoolExhausted), "{full}");
    assert_eq!(site.takes(1, one).await, Some(one));
    // whose offer it was not
    assert_eq!(site.takes(3, two).await, None);

    // an offer of before a restart is taken as if there had been none; a lease is still there
    let site = site.again().await;
    assert_eq!(site.takes(2, two).await, Some(two));
    assert_eq!(granted(site.told(1, Asks::Keep(one)).await), Some(one));
}

#[tokio::test]
async fn a_nic_that_goes_into_a_pod_takes_its_hardware_address_along() {
    let site = Site::start().await;
    let red = site.slice("red", &[1, 2], json!({})).await;
    let address = site.joins(1).await.unwrap();
    let pod = site
        .over_rest(red, "podman:n1/pod/eth0", mac(1))
        .await
        .unwrap();
    assert_ne!(pod.ips[0].addr(), std::net::IpAddr::V4(address));
    let leases = site.engine.leases(ADMIN, Some(red), None).await;
    assert_eq!(leases.len(), 1, "two could not be told apart: {leases:?}");
    assert_eq!(leases[0], pod);
    assert_eq!(site.told(1, Asks::Extend(address)).await, None);
    site.engine.release(ADMIN, pod.id).await.unwrap();
    assert_eq!(site.joins(1).await, Some(address), "and gets it back");
    for client in ["dhcp:02:00:00:00:00:02", "declined:10.20.0.9"] {
        let problem = site.over_rest(red, client, mac(9)).await.unwrap_err();
        assert!(problem.is(Kind::InvalidRequest), "{client}: {problem}");
    }
}

#[tokio::test]
async fn an_address_that_somebody_else_has_stays_away_from_everybody() {
    let site = Site::start().await;
    let red = site.slice("red", &[1, 2], json!({})).await;
    let address = site.joins(1).await.unwrap();
    assert_eq!(site.told(1, Asks::Decline(address)).await, None);
    let site = site.again().await;
    let next = site.joins(1).await.unwrap();
    assert!(![address].contains(&next));
    assert!(![Some(address), Some(next)].contains(&site.joins(2).await));
    let leases = site.engine.leases(ADMIN, Some(red), None).await;
    let kept = leases
        .iter()
        .find(|lease| lease.client_id.starts_with("declined:"));
    let kept = kept.unwrap().id;
    let problem = site.engine.renew(ADMIN, kept).await.unwrap_err();
    assert!(problem.is(Kind::StateConflict), "{problem}");
    // until the site has found out who it is, and says so
    site.engine.release(ADMIN, kept).await.unwrap();
    let leases = site.engine.leases(ADMIN, Some(red), None).await;
    assert_eq!(leases.len(), 2);
}
