use super::*;
use crate::slices;
use dtn_api::MacAddress;
use proptest::prelude::*;
use serde_json::json;

const MAC: MacAddress = MacAddress::new([2, 0, 0, 0, 0, 1]);
const OTHER: MacAddress = MacAddress::new([2, 0, 0, 0, 0, 2]);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}
fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 20, 0, n)
}

/// A slice with its leases, kept as the controller keeps them.
struct Book {
    slice: Slice,
    rows: BTreeMap<Uuid, LeaseRow>,
    taken: BTreeSet<IpAddr>,
    offered: Option<Ipv4Addr>,
    routes: Vec<Route>,
    now: i64,
    next: u128,
}
impl Book {
    fn new(range: &str) -> Self {
        let spec = serde_json::from_value(json!({"name": "lhc",
            "qos": {"class": "best_effort", "rate_bps": 0},
            "members": [{"host": "02:00:00:00:00:01-none"}, {"host": "02:00:00:00:00:02-none"}],
            "schedule": {"start": at(0), "end": at(1_000_000)},
            "addressing": {"ipv4": {"cidr": "10.20.0.0/24", "ranges": [range],
                "gateway": "10.20.0.1"}, "mtu": 9000, "lease_seconds": 600}}));
        let held = slices::hold(Uuid::from_u128(7), spec.unwrap(), Vec::new(), at(0));
        let none = Default::default();
        let committed = slices::act(&held, slices::Action::Commit, &none, at(0)).unwrap();
        Self {
            slice: committed.slice,
            rows: BTreeMap::new(),
            taken: BTreeSet::new(),
            offered: None,
            routes: Vec::new(),
            now: 0,
            next: 1,
        }
    }
    fn asks(&mut self, mac: MacAddress, asks: Asks) -> Deed {
        let question = Question {
            xid: 7,
            mac,
            broadcast: false,
            asks,
            identifier: None,
            wants: None,
            lease_seconds: None,
            longest: None,
        };
        self.asked(&question)
    }
    /// What comes of a question; what it changes is kept.
    fn asked(&mut self, question: &Question) -> Deed {
        let asker = Asker {
            id: Uuid::from_u128(self.next),
            node: Some("scope".parse().unwrap()),
            gateway: false,
            routes: self.routes.clone(),
        };
        self.next += 1;
        let rows: Vec<&LeaseRow> = self.rows.values().collect();
        let known = Known {
            slice: &self.slice,
            rows: &rows,
            taken: &self.taken,
            offered: self.offered,
            asker: &asker,
            location: None,
        };
        let deed = decide(question, &known, at(self.now));
        match &deed {
            Deed::Lease { row, replaces, .. } => {
                if let Some(old) = replaces {
                    self.rows.remove(old);
                }
                self.rows.insert(row.lease.id, (**row).clone());
            }
            Deed::Release(row) | Deed::Decline(row) => {
                self.rows.insert(row.lease.id, (**row).clone());
            }
            _ => {}
        }
        deed
    }
    fn take(&mut self, mac: MacAddress, address: Ipv4Addr) -> Deed {
        let server = SERVER;
        self.asks(mac, Asks::Take { server, address })
    }
    /// Discover and request, as a client does; the address.
    fn joins(&mut self, mac: MacAddress) -> Ipv4Addr {
        let offered = offered(&self.asks(mac, Asks::Address(None))).unwrap();
        assert_eq!(granted(&self.take(mac, offered)), Some(offered));
        offered
    }
}
fn offered(deed: &Deed) -> Option<Ipv4Addr> {
    match deed {
        Deed::Offer(Reply::Offer(granted, _), _) => Some(granted.address),
        _ => None,
    }
}
fn granted(deed: &Deed) -> Option<Ipv4Addr> {
    match deed {
        Deed::Lease {
            reply: Reply::Granted(granted, _),
            ..
        } => Some(granted.address),
        _ => None,
    }
}
fn refused(deed: &Deed) -> bool {
    matches!(deed, Deed::Tell(Reply::Refused(_)))
}

#[test]
fn a_host_gets_an_address_and_has_it_from_then_on() {
    let mut book = Book::new("10.20.0.10-10.20.0.20");
    let deed = book.asks(MAC, Asks::Address(None));
    assert_eq!(offered(&deed), Some(ip(10)));
    assert!(book.rows.is_empty(), "an offer is written down nowhere");
    let Deed::Lease {
        reply: Reply::Granted(granted, network),
        row,
        fresh,
        ..
    } = book.take(MAC, ip(10))
    else {
        panic!("it is not granted");
    };
    assert_eq!((granted.address, granted.seconds), (ip(10), 600));
    assert_eq!(network.subnet, "10.20.0.0/24".parse().unwrap());
    assert_eq!((network.mtu, fresh), (9000, true));
    assert_eq!(row.lease.client_id, "dhcp:02:00:00:00:00:01");
    assert_eq!(row.node, Some("scope".parse().unwrap()));
    assert_eq!(row.lease.expires_at, at(600));
    // an answer that was lost is asked for again
    book.now = 5;
    for _ in 0..2 {
        assert_eq!(self::granted(&book.take(MAC, ip(10))), Some(ip(10)));
    }
    assert_eq!(
        offered(&book.asks(MAC, Asks::Address(Some(ip(15))))),
        Some(ip(10))
    );
    assert_eq!(book.rows.len(), 1);
    assert_eq!(book.joins(OTHER), ip(11));
}

#[test]
fn an_address_is_extended_for_its_host_alone() {
    let mut book = Book::new("10.20.0.10-10.20.0.20");
    book.joins(MAC);
    for (now, asks) in [
        (300, Asks::Extend(ip(10))),
        (400, Asks::Keep(ip(10))),
        // it has run out and is in quarantine: nobody else has it
        (1100, Asks::Extend(ip(10))),
    ] {
        book.now = now;
        let aged = book.rows.values().cloned().collect::<Vec<_>>();
        for row in aged {
            if let leases::Aged::Quarantined(row) = leases::age(&row, false, at(now)) {
                book.rows.insert(row.lease.id, *row);
            }
        }
        let deed = book.asks(MAC, asks);
        assert_eq!(granted(&deed), Some(ip(10)), "{asks:?}");
        let row = book.rows.values().next().unwrap();
        assert_eq!(row.lease.expires_at, at(now + 600));
    }
    for asks in [Asks::Extend(ip(10)), Asks::Keep(ip(10)), Asks::Keep(ip(12))] {
        assert!(refused(&book.asks(OTHER, asks)), "{asks:?}");
    }
    assert!(refused(&book.take(OTHER, ip(10))), "it is another's");
    // one of another network, and one that is its own no more
    assert!(refused(
        &book.asks(MAC, Asks::Keep(Ipv4Addr::new(192, 0, 2, 1)))
    ));
    assert!(matches!(
        book.asks(MAC, Asks::Release(ip(10))),
        Deed::Release(_)
    ));
    assert!(refused(&book.asks(MAC, Asks::Extend(ip(10)))));
}

#[test]
fn what_another_server_offers_is_none_of_ours() {
    let mut book = Book::new("10.20.0.10-10.20.0.20");
    let server = Ipv4Addr::new(10, 20, 0, 9);
    let address = ip(99);
    assert_eq!(
        book.asks(MAC, Asks::Take { server, address }),
        Deed::Nothing
    );
}

#[test]
fn an_address_that_is_given_back_is_its_hosts_when_it_comes_again() {
    let mut book = Book::new("10.20.0.10-10.20.0.20");
    assert_eq!(book.joins(MAC), ip(10));
    assert_eq!(book.asks(OTHER, Asks::Release(ip(10))), Deed::Nothing);
    assert_eq!(book.asks(MAC, Asks::Release(ip(11))), Deed::Nothing);
    assert!(matches!(
        book.asks(MAC, Asks::Release(ip(10))),
        Deed::Release(_)
    ));
    assert_eq!(book.asks(MAC, Asks::Release(ip(10))), Deed::Nothing);
    assert_eq!(book.joins(OTHER), ip(11), "never used ones go first");
    assert_eq!(book.joins(MAC), ip(10));
    assert_eq!(book.rows.len(), 2);
}

#[test]
fn an_address_that_somebody_else_has_is_nobodys_for_a_day() {
    let mut book = Book::new("10.20.0.10-10.20.0.20");
    book.joins(MAC);
    assert_eq!(book.asks(OTHER, Asks::Decline(ip(10))), Deed::Nothing);
    assert!(matches!(
        book.asks(MAC, Asks::Decline(ip(10))),
        Deed::Decline(_)
    ));
    assert_eq!(book.joins(MAC), ip(11));
    assert_eq!(book.joins(OTHER), ip(12));
    let kept = book
        .rows
        .values()
        .find(|row| v4(row).unwrap().addr() == ip(10));
    let kept = kept.unwrap().clone();
    assert_eq!(kept.lease.client_id, "declined:10.20.0.10");
    assert!(leases::renew(&kept, at(1)).is_err(), "nobody has it");
    let until = i64::from(leases::DECLINED_SECONDS);
    assert_eq!(leases::age(&kept, false, at(until - 1)), leases::Aged::Same);
    assert!(matches!(
        leases::age(&kept, false, at(until)),
        leases::Aged::Freed(_)
    ));
}

#[test]
fn a_host_that_finds_every_address_taken_does_not_use_up_all_of_them() {
    let mut book = Book::new("10.20.0.10-10.20.0.20");
    for n in 0..20 {
        let address = book.joins(MAC);
        let deed = book.asks(MAC, Asks::Decline(address));
        assert_eq!(matches!(deed, Deed::Decline(_)), n < MOST_DECLINED, "{n}");
    }
    let kept = book.rows.values().filter(|row| row.occupies()).count();
    assert_eq!(kept, MOST_DECLINED);
}

#[test]
fn who_asks_for_all_but_an_address_gets_no_lease() {
    let mut book = Book::new("10.20.0.10-10.20.0.20");
    book.routes = vec![
        serde_json::from_value(json!({"dst": "0.0.0.0/0", "gw": "10.20.0.1"})).unwrap(),
        serde_json::from_value(json!({"dst": "::/0", "gw": "fd00::1"})).unwrap(),
    ];
    let Deed::Tell(Reply::Informed(network)) = book.asks(MAC, Asks::Inform(ip(9))) else {
        panic!("it is told nothing");
    };
    let all: Ipv4Net = "0.0.0.0/0".parse().unwrap();
    assert_eq!(network.routes, [(all, ip(1))]);
    assert!(book.rows.is_empty());
}

#[test]
fn a_wish_is_met_where_it_can_be() {
    let mut book = Book::new("10.20.0.10-10.20.0.20");
    assert_eq!(
        offered(&book.asks(MAC, Asks::Address(Some(ip(15))))),
        Some(ip(15))
    );
    for no in [ip(1), ip(9), ip(21), Ipv4Addr::new(192, 0, 2, 1)] {
        assert_eq!(
            offered(&book.asks(MAC, Asks::Address(Some(no)))),
            Some(ip(10))
        );
    }
    // what it was offered counts more than what it wishes now
    book.offered = Some(ip(17));
    assert_eq!(
        offered(&book.asks(MAC, Asks::Address(Some(ip(15))))),
        Some(ip(17))
    );
    book.offered = None;
    book.taken = [IpAddr::V4(ip(15))].into();
    assert_eq!(
        offered(&book.asks(MAC, Asks::Address(Some(ip(15))))),
        Some(ip(10))
    );
    assert!(refused(&book.take(MAC, ip(15))), "another's offer");
    let mut asked = Question {
        xid: 1,
        mac: MAC,
        broadcast: false,
        asks: Asks::Address(None),
        identifier: None,
        wants: None,
        lease_seconds: None,
        longest: None,
    };
    for (wish, seconds) in [(1, SHORTEST), (90, 90), (100_000, 600)] {
        asked.lease_seconds = Some(wish);
        let Deed::Offer(Reply::Offer(granted, _), _) = book.asked(&asked) else {
            panic!("no offer");
        };
        assert_eq!(granted.seconds, seconds, "{wish}");
    }
}

#[test]
fn who_gets_nothing_is_told_nothing_and_the_reason_is_known() {
    let mut full = Book::new("10.20.0.10-10.20.0.10");
    full.joins(OTHER);
    let deed = full.asks(MAC, Asks::Address(None));
    let Deed::Silent(Silence::Problem(problem)) = deed else {
        panic!("{deed:?}");
    };
    assert!(
        problem.is(dtn_api::problem::Kind::PoolExhausted),
        "{problem}"
    );

    // a pod that has the NIC has its hardware address as well
    let mut book = Book::new("10.20.0.10-10.20.0.20");
    book.joins(MAC);
    for row in book.rows.values_mut() {
        row.lease.client_id = "podman:dtn/pod/eth0".into();
    }
    let taken = Silence::Taken("podman:dtn/pod/eth0".into());
    assert_eq!(book.asks(MAC, Asks::Address(None)), Deed::Silent(taken));

    let mut none = Book::new("10.20.0.10-10.20.0.20");
    none.slice.spec.addressing.as_mut().unwrap().ipv4 = None;
    let why = Deed::Silent(Silence::NoAddresses("lhc".into()));
    assert_eq!(none.asks(MAC, Asks::Address(None)), why);
    assert_eq!(none.asks(MAC, Asks::Inform(ip(9))), why);
}

fn any_asks() -> impl Strategy<Value = Asks> {
    (0u8..7, 8u8..16, any::<bool>()).prop_map(|(kind, n, ours)| {
        let address = ip(n);
        let server = if ours { SERVER } else { ip(9) };
        match kind {
            0 => Asks::Address(ours.then_some(address)),
            1 => Asks::Take { server, address },
            2 => Asks::Keep(address),
            3 => Asks::Extend(address),
            4 => Asks::Inform(address),
            5 => Asks::Release(address),
            _ => Asks::Decline(address),
        }
    })
}
proptest! {
    /// Whatever hosts ask in whatever order, and however time goes by: no address is two hosts', and
    /// no host has two; what is granted is what is written down.
    #[test]
    fn no_address_is_two_hosts(
        asked in proptest::collection::vec((1u8..5, any_asks(), 0i64..500), 0..60)
    ) {
        let mut book = Book::new("10.20.0.10-10.20.0.13");
        for (host, asks, later) in asked {
            book.now += later;
            for row in book.rows.values().cloned().collect::<Vec<_>>() {
                match leases::age(&row, false, at(book.now)) {
                    leases::Aged::Same => {}
                    leases::Aged::Quarantined(row) | leases::Aged::Freed(row) => {
                        book.rows.insert(row.lease.id, *row);
                    }
                    leases::Aged::Forgotten => {
                        book.rows.remove(&row.lease.id);
                    }
                }
            }
            let mac = MacAddress::new([2, 0, 0, 0, 0, host]);
            let deed = book.asks(mac, asks);
            if let Deed::Lease { row, .. } = &deed {
                prop_assert_eq!(granted(&deed), v4(row).map(|net| net.addr()));
                prop_assert_eq!(row.lease.mac, mac);
                prop_assert_eq!(row.lease.expires_at, at(book.now + 600));
            }
            let held: Vec<_> = book.rows.values().filter(|row| row.occupies()).collect();
            let addresses: BTreeSet<_> = held.iter().map(|row| v4(row)).collect();
            let clients: BTreeSet<_> = held.iter().map(|row| &row.lease.client_id).collect();
            prop_assert_eq!((addresses.len(), clients.len()), (held.len(), held.len()));
        }
    }
}
