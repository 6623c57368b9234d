//! The rules of vDHCP, without I/O: one lease per client, no address twice, nothing lost by a
//! repeated call, nothing taken from a client that is silent for a while.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dtn_api::{
    Problem,
    lease::{LeaseRequest, LeaseState},
    problem::Kind,
    slice::{Addressing, Pool, Slice, SliceSpec},
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use uuid::Uuid;
use vdnd::{
    leases::{self, Aged, Asker, Grant, LeaseRow},
    slices,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn slice(v4: &str, v6: Option<&str>) -> Slice {
    let pool = |cidr: &str, ranges: &[&str]| Pool {
        cidr: cidr.parse().unwrap(),
        ranges: ranges.iter().map(|r| (*r).to_owned()).collect(),
        gateway: None,
    };
    let spec: SliceSpec = serde_json::from_value(serde_json::json!({
        "name": "lhc",
        "qos": {"class": "guaranteed", "rate_bps": 1000},
        "members": [{"host": "02:00:00:00:00:01-none"}, {"border_link": "wan"}],
        "schedule": {"start": at(0).to_string(), "end": at(100_000).to_string()},
    }))
    .unwrap();
    let spec = SliceSpec {
        addressing: Some(Addressing {
            ipv4: Some(pool("10.0.0.0/24", &[v4])),
            ipv6: v6.map(|range| pool("fd00::/64", &[range])),
            mtu: 9000,
            lease_seconds: 600,
        }),
        ..spec
    };
    let held = slices::hold(Uuid::from_u128(7), spec, Vec::new(), at(0));
    let none = Default::default();
    slices::act(&held, slices::Action::Commit, &none, at(0))
        .unwrap()
        .slice
}
fn request(client: &str) -> LeaseRequest {
    LeaseRequest {
        client_id: client.to_owned(),
        mac: dtn_api::MacAddress::local_from(client),
        location: None,
        requested_ips: Vec::new(),
        lease_seconds: None,
        labels: BTreeMap::new(),
    }
}

/// The rows of a slice, kept as the controller keeps them.
struct Book {
    slice: Slice,
    rows: BTreeMap<Uuid, LeaseRow>,
    next: u128,
}
impl Book {
    fn new(v4: &str, v6: Option<&str>) -> Self {
        Self {
            slice: slice(v4, v6),
            rows: BTreeMap::new(),
            next: 1,
        }
    }
    fn grant(&mut self, request: &LeaseRequest, now: Timestamp) -> Result<Grant, Problem> {
        let asker = Asker {
            id: Uuid::from_u128(self.next),
            node: None,
            gateway: false,
            routes: Vec::new(),
        };
        let rows: Vec<&LeaseRow> = self.rows.values().collect();
        let none = BTreeSet::new();
        let grant = leases::grant(&self.slice, &rows, &none, request, &asker, now)?;
        self.next += 1;
        if let Some(old) = grant.replaces {
            self.rows.remove(&old);
        }
        self.rows.insert(grant.row.lease.id, grant.row.clone());
        Ok(grant)
    }
    fn release(&mut self, id: Uuid, now: Timestamp) {
        if let Some(row) = self.rows.get(&id).and_then(|row| leases::release(row, now)) {
            self.rows.insert(id, row);
        }
    }
    fn age(&mut self, now: Timestamp) {
        for row in self.rows.values().cloned().collect::<Vec<_>>() {
            match leases::age(&row, false, now) {
                Aged::Same => {}
                Aged::Quarantined(row) | Aged::Freed(row) => {
                    self.rows.insert(row.lease.id, *row);
                }
                Aged::Forgotten => {
                    self.rows.remove(&row.lease.id);
                }
            }
        }
    }
}
fn ips(grant: &Grant) -> Vec<String> {
    grant
        .row
        .lease
        .ips
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_client_has_one_lease_with_its_times() {
    let mut book = Book::new("10.0.0.10-10.0.0.20", Some("fd00::10-fd00::20"));
    let first = book.grant(&request("a"), at(0)).unwrap();
    assert!(first.fresh);
    assert_eq!(ips(&first), ["10.0.0.10/24", "fd00::10/64"]);
    let lease = &first.row.lease;
    assert_eq!(
        (lease.t1, lease.t2, lease.expires_at),
        (at(300), at(525), at(600))
    );
    assert_eq!(lease.mtu, 9000);
    let again = book.grant(&request("a"), at(10)).unwrap();
    assert!(!again.fresh);
    assert_eq!(again.row, first.row);
    // shorter when asked, never longer
    for (asked, got) in [(60, 60), (6000, 600)] {
        let mut other = request(&format!("lives-{asked}"));
        other.lease_seconds = Some(asked);
        let lease = book.grant(&other, at(0)).unwrap().row.lease;
        assert_eq!(lease.expires_at, at(got));
    }
}

#[test]
fn both_families_or_none() {
    let mut book = Book::new("10.0.0.10-10.0.0.20", Some("fd00::10-fd00::10"));
    book.grant(&request("a"), at(0)).unwrap();
    let problem = book.grant(&request("b"), at(0)).unwrap_err();
    assert!(problem.is(Kind::PoolExhausted), "{problem}");
    assert!(problem.detail.contains("fd00::/64"), "{problem}");
    assert_eq!(book.rows.len(), 1, "no IPv4 address is left behind");
}

#[test]
fn freed_addresses_rest_and_go_back_to_their_last_owner() {
    let mut book = Book::new("10.0.0.10-10.0.0.12", None);
    let a = book.grant(&request("a"), at(0)).unwrap();
    let b = book.grant(&request("b"), at(0)).unwrap();
    book.release(a.row.lease.id, at(1));
    book.release(a.row.lease.id, at(2));
    book.release(b.row.lease.id, at(3));
    // never used first
    let c = book.grant(&request("c"), at(4)).unwrap();
    assert_eq!(ips(&c), ["10.0.0.12/24"]);
    // the last owner gets its own, under a new id: a late release of the old one hits nothing
    let b2 = book.grant(&request("b"), at(5)).unwrap();
    assert_eq!(ips(&b2), ips(&b));
    assert_ne!(b2.row.lease.id, b.row.lease.id);
    book.release(b.row.lease.id, at(6));
    assert!(book.rows[&b2.row.lease.id].occupies());
    // then what was freed longest ago
    let d = book.grant(&request("d"), at(6)).unwrap();
    assert_eq!(ips(&d), ips(&a));
    assert!(
        book.grant(&request("e"), at(7))
            .unwrap_err()
            .is(Kind::PoolExhausted)
    );
}

#[test]
fn a_wish_for_an_address_is_heard_when_it_is_free() {
    let mut book = Book::new("10.0.0.10-10.0.0.20", None);
    let wish = |client: &str, ip: &str| LeaseRequest {
        requested_ips: vec![ip.parse().unwrap()],
        ..request(client)
    };
    let got = |grant: Grant| ips(&grant).remove(0);
    assert_eq!(
        got(book.grant(&wish("a", "10.0.0.15"), at(0)).unwrap()),
        "10.0.0.15/24"
    );
    assert_eq!(
        got(book.grant(&wish("b", "10.0.0.15"), at(0)).unwrap()),
        "10.0.0.10/24"
    );
    assert_eq!(
        got(book.grant(&wish("c", "10.0.0.99"), at(0)).unwrap()),
        "10.0.0.11/24"
    );
    let mut two = wish("d", "10.0.0.16");
    two.requested_ips
        .push("10.0.0.17".parse::<IpAddr>().unwrap());
    two.client_id = String::new();
    let problem = book.grant(&two, at(0)).unwrap_err();
    let pointers: Vec<&str> = problem.errors.iter().map(|e| e.pointer.as_str()).collect();
    assert_eq!(pointers, ["/client_id", "/requested_ips"]);
}

#[test]
fn an_address_that_another_host_is_known_by_is_not_given() {
    let slice = slice("10.0.0.10-10.0.0.11", None);
    let foreign = BTreeSet::from(["10.0.0.10".parse().unwrap()]);
    let asker = Asker {
        id: Uuid::from_u128(1),
        node: None,
        gateway: false,
        routes: Vec::new(),
    };
    let grant = leases::grant(&slice, &[], &foreign, &request("a"), &asker, at(0)).unwrap();
    assert_eq!(ips(&grant), ["10.0.0.11/24"]);
}

#[test]
fn the_gateways_address_is_the_gateways_and_nobody_elses() {
    let mut book = Book::new("10.0.0.1-10.0.0.3", Some("fd00::1-fd00::3"));
    let addressing = book.slice.spec.addressing.as_mut().unwrap();
    vdnd::addresses::set_gateways(addressing);
    // asked for by name, or taken because nothing else is left: never
    let mut wish = request("a");
    wish.requested_ips = vec!["10.0.0.1".parse().unwrap()];
    let a = book.grant(&wish, at(0)).unwrap();
    assert_eq!(ips(&a), ["10.0.0.2/24", "fd00::2/64"]);
    book.grant(&request("b"), at(0)).unwrap();
    let full = book.grant(&request("c"), at(0)).unwrap_err();
    assert!(full.is(Kind::PoolExhausted));
    let route = |dst: &str| dtn_api::lease::Route {
        dst: dst.parse().unwrap(),
        gw: None,
    };
    let asker = Asker {
        id: Uuid::from_u128(99),
        node: None,
        gateway: true,
        routes: Vec::new(),
    };
    let none = BTreeSet::new();
    let grant = |book: &Book, request: &LeaseRequest, asker: &Asker, second| {
        let rows: Vec<&LeaseRow> = book.rows.values().collect();
        leases::grant(&book.slice, &rows, &none, request, asker, at(second))
    };
    let other = grant(&book, &wish_for("gateway:internet", "10.0.0.3"), &asker, 0).unwrap_err();
    assert_eq!(other.errors[0].pointer, "/requested_ips");
    let own = wish_for("gateway:internet", "10.0.0.1");
    let got = grant(&book, &own, &asker, 0).unwrap();
    assert_eq!(ips(&got), ["10.0.0.1/24", "fd00::1/64"]);
    // a member learns of new routes by asking again
    let asker = Asker {
        gateway: false,
        routes: vec![route("0.0.0.0/0")],
        ..asker
    };
    let again = grant(&book, &wish, &asker, 1).unwrap();
    assert!(!again.fresh);
    assert_eq!(again.row.lease.routes, asker.routes);
    assert_eq!(again.row.lease.version, a.row.lease.version + 1);
    assert_eq!(again.row.lease.expires_at, a.row.lease.expires_at);
}
fn wish_for(client: &str, ip: &str) -> LeaseRequest {
    LeaseRequest {
        requested_ips: vec![ip.parse().unwrap()],
        ..request(client)
    }
}

#[test]
fn a_silent_client_keeps_its_address_through_quarantine() {
    let mut book = Book::new("10.0.0.10-10.0.0.10", None);
    let a = book.grant(&request("a"), at(0)).unwrap();
    let id = a.row.lease.id;
    book.age(at(599));
    assert_eq!(book.rows[&id].lease.state, LeaseState::Bound);
    book.age(at(600));
    assert_eq!(book.rows[&id].lease.state, LeaseState::Quarantined);
    assert!(
        book.grant(&request("b"), at(601))
            .unwrap_err()
            .is(Kind::PoolExhausted)
    );
    // it comes back: by renewal or by asking
    let renewed = leases::renew(&book.rows[&id], at(700)).unwrap();
    assert_eq!(renewed.lease.state, LeaseState::Bound);
    assert_eq!(renewed.lease.expires_at, at(1300));
    let again = book.grant(&request("a"), at(700)).unwrap();
    assert_eq!((again.row.lease.id, ips(&again)), (id, ips(&a)));
    // it does not: quarantine as long again, then anybody's, then forgotten
    book.age(at(1300));
    book.age(at(1899));
    assert!(book.rows[&id].occupies());
    book.age(at(1900));
    assert_eq!(book.rows[&id].lease.state, LeaseState::Released);
    assert!(
        leases::renew(&book.rows[&id], at(1901))
            .unwrap_err()
            .is(Kind::StateConflict)
    );
    let b = book.grant(&request("b"), at(1901)).unwrap();
    assert_eq!(ips(&b), ips(&a));
    book.age(at(1900 + i64::from(leases::AFFINITY_SECONDS)));
    assert!(!book.rows.contains_key(&id));
}

#[test]
fn an_ended_slice_keeps_its_leases_and_gives_no_new_ones() {
    let mut book = Book::new("10.0.0.10-10.0.0.20", None);
    let a = book.grant(&request("a"), at(0)).unwrap();
    let late = at(100_000);
    let row = leases::renew(&a.row, late).unwrap();
    assert_eq!(row.lease.expires_at, late + SignedDuration::from_secs(600));
    let problem = book.grant(&request("b"), late).unwrap_err();
    assert!(problem.is(Kind::StateConflict), "{problem}");
}

proptest! {
    /// Whatever is asked in whatever order: no address has two clients, no client two addresses,
    /// every address is of the range, and a refusal means that all are in use.
    #[test]
    fn no_address_twice(steps in proptest::collection::vec((0_u8..3, 0_u8..9, 0_i64..900), 1..80)) {
        let mut book = Book::new("10.0.0.10-10.0.0.15", Some("fd00::a-fd00::c"));
        let mut now = 0;
        for (step, client, wait) in steps {
            now += wait;
            book.age(at(now));
            let name = format!("c{client}");
            let own = |book: &Book| book.rows.values()
                .find(|row| row.occupies() && row.lease.client_id == name)
                .cloned();
            match step {
                0 => match book.grant(&request(&name), at(now)) {
                    Ok(grant) => prop_assert_eq!(grant.row.lease.ips.len(), 2),
                    Err(problem) => {
                        prop_assert!(problem.is(Kind::PoolExhausted));
                        let occupied = book.rows.values().filter(|row| row.occupies()).count();
                        prop_assert_eq!(occupied, 3);
                    }
                },
                1 => if let Some(row) = own(&book) { book.release(row.lease.id, at(now)) },
                _ => if let Some(row) = own(&book) {
                    let row = leases::renew(&row, at(now)).unwrap();
                    prop_assert_eq!(row.lease.state, LeaseState::Bound);
                    book.rows.insert(row.lease.id, row);
                },
            }
            let mut seen = BTreeSet::new();
            let mut clients = BTreeSet::new();
            for row in book.rows.values().filter(|row| row.occupies()) {
                prop_assert!(clients.insert(row.lease.client_id.clone()));
                for ip in &row.lease.ips {
                    prop_assert!(seen.insert(*ip), "{} twice", ip);
                }
            }
        }
    }
}
