//! Addresses and routes of both families, and the guard's facts, against `ip -j`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod site;

use dtn_link::{
    address,
    inventory::{self, Inventory},
    link,
    route::{self, RouteState},
    storage::{self, NetworkStorage},
    sysctl, wait,
};
use ipnet::IpNet;
use site::{plug, run, site, witness};
use std::time::Duration;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[tokio::test]
async fn addresses_of_both_families_are_set_twice_and_usable_at_once() {
    let site = site().await;
    let conn = &site.host_conn;
    for text in ["192.0.2.10/24", "2001:db8::10/64", "198.51.100.1/32"] {
        address::add(conn, site.nic, net(text)).await.unwrap();
        address::add(conn, site.nic, net(text)).await.unwrap();
    }
    let all = address::list(conn, Some(site.nic)).await.unwrap();
    let v6 = all
        .iter()
        .find(|a| a.net == net("2001:db8::10/64"))
        .unwrap();
    assert!(v6.permanent && !v6.tentative, "{v6:?}");
    let shown = witness(&site.host, "ip -j addr show dev ens1");
    let infos = shown[0]["addr_info"].as_array().unwrap();
    let has = |ip: &str, length: u64| {
        infos
            .iter()
            .any(|i| i["local"] == ip && i["prefixlen"] == length)
    };
    assert!(
        has("192.0.2.10", 24) && has("2001:db8::10", 64) && has("198.51.100.1", 32),
        "{shown}"
    );
    let v4 = infos.iter().find(|i| i["local"] == "192.0.2.10").unwrap();
    assert_eq!(v4["broadcast"], "192.0.2.255");
    address::remove(conn, site.nic, net("192.0.2.10/24"))
        .await
        .unwrap();
    address::remove(conn, site.nic, net("192.0.2.10/24"))
        .await
        .unwrap();
    address::flush(conn, site.nic).await.unwrap();
    let left = address::list(conn, Some(site.nic)).await.unwrap();
    assert!(left.iter().all(|a| a.is_link_local()), "{left:?}");
}

#[tokio::test]
async fn routes_have_metrics_and_a_gateway_outside_the_subnet() {
    let site = site().await;
    let conn = &site.host_conn;
    address::add(conn, site.nic, net("192.0.2.10/32"))
        .await
        .unwrap();
    address::add(conn, site.nic, net("2001:db8::10/128"))
        .await
        .unwrap();
    let mut v4 = RouteState::new(
        net("203.0.113.0/24"),
        site.nic,
        Some("192.0.2.1".parse().unwrap()),
    );
    v4.mtu = Some(1400);
    v4.advmss = Some(1300);
    v4.priority = Some(50);
    let mut v6 = RouteState::new(
        net("2001:db8:1::/48"),
        site.nic,
        Some("2001:db8:ff::1".parse().unwrap()),
    );
    v6.mtu = Some(8000);
    for route in [&v4, &v6] {
        route::add(conn, route).await.unwrap();
        route::add(conn, route).await.unwrap();
    }
    let shown = witness(&site.host, "ip -j route show 203.0.113.0/24");
    assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(shown[0]["gateway"], "192.0.2.1");
    assert_eq!(shown[0]["metric"], 50);
    assert_eq!(shown[0]["metrics"][0]["mtu"], 1400);
    assert_eq!(shown[0]["metrics"][0]["advmss"], 1300);
    assert_eq!(shown[0]["flags"][0], "onlink");
    let shown = witness(&site.host, "ip -j -6 route show 2001:db8:1::/48");
    assert_eq!(shown[0]["gateway"], "2001:db8:ff::1", "{shown}");
    let read = route::list_of(conn, site.nic).await.unwrap();
    let read = read
        .iter()
        .find(|r| r.destination == v4.destination)
        .unwrap();
    assert_eq!(
        (read.mtu, read.advmss, read.priority),
        (v4.mtu, v4.advmss, v4.priority)
    );
    assert!(read.onlink);
    for route in [&v4, &v6] {
        route::remove(conn, route).await.unwrap();
        route::remove(conn, route).await.unwrap();
    }
    let left = route::list_of(conn, site.nic).await.unwrap();
    assert!(left.iter().all(RouteState::made_by_kernel), "{left:?}");
}

#[tokio::test]
async fn a_table_of_its_own_and_the_way_to_a_host() {
    let site = site().await;
    let conn = &site.host_conn;
    address::add(conn, site.nic, net("192.0.2.10/24"))
        .await
        .unwrap();
    let mut own = RouteState::new(
        net("0.0.0.0/0"),
        site.nic,
        Some("192.0.2.1".parse().unwrap()),
    );
    own.table = 1000;
    route::add(conn, &own).await.unwrap();
    let shown = witness(&site.host, "ip -j route show table 1000");
    assert_eq!(shown[0]["dst"], "default", "{shown}");
    let to = |text: &str| text.parse().unwrap();
    let way = route::resolve(conn, to("192.0.2.77"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((way.index, way.gateway), (Some(site.nic), None));
    assert_eq!(route::resolve(conn, to("203.0.113.9")).await.unwrap(), None);
    route::flush(conn, site.nic).await.unwrap();
    assert_eq!(
        witness(&site.host, "ip -j route show table 1000")
            .as_array()
            .unwrap()
            .len(),
        0
    );
}

#[tokio::test]
async fn the_guards_facts_are_those_of_the_namespace() {
    let site = site().await;
    let conn = &site.host_conn;
    let second = plug(
        &site.host,
        conn,
        "ens2",
        &site.wire,
        &site.wire_conn,
        "far2",
    )
    .await;
    let bridge = link::create_bridge(conn, &"br0".parse().unwrap(), 9000)
        .await
        .unwrap();
    link::enslave(conn, second, bridge).await.unwrap();
    run(
        &site.host,
        "ip link add link ens1 name child type macvlan mode bridge",
    );
    run(
        &site.host,
        "ip link property add dev ens1 altname a-rather-long-alternative-name",
    );
    address::add(conn, site.nic, net("192.0.2.10/24"))
        .await
        .unwrap();
    let default = RouteState::new(
        net("0.0.0.0/0"),
        site.nic,
        Some("192.0.2.1".parse().unwrap()),
    );
    route::add(conn, &default).await.unwrap();

    let facts = Inventory::read(conn).await.unwrap();
    assert_eq!(facts.default_route_links(), [site.nic]);
    assert_eq!(facts.master_of(second).unwrap().name, "br0");
    let children: Vec<&str> = facts
        .children_of(site.nic)
        .map(|l| l.name.as_str())
        .collect();
    assert_eq!(children, ["child"]);
    assert_eq!(facts.children_of(second).count(), 0);
    assert_eq!(
        facts
            .addresses_of(site.nic)
            .filter(|a| !a.is_link_local())
            .count(),
        1
    );
    let nic = facts.by_name("a-rather-long-alternative-name").unwrap();
    assert_eq!(
        (nic.index, nic.kind.as_deref(), nic.mtu),
        (site.nic, Some("veth"), 9000)
    );
    assert!(nic.up && nic.running && nic.carrier && !nic.loopback);
    assert!(
        nic.lower_netns.is_some(),
        "its other end is in another namespace"
    );
    for name in ["a-rather-long-alternative-name", "ens1"] {
        assert_eq!(
            inventory::link_by_name(conn, name).await.unwrap().index,
            site.nic
        );
    }
    let missing = inventory::link_by_name(conn, "no-such-link-of-any-name").await;
    assert!(missing.unwrap_err().is_not_found());
    assert!(
        inventory::link_by_name(conn, "ens9")
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(
        inventory::link(conn, 4711)
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn storage_is_found_behind_the_link_that_leads_to_it() {
    let site = site().await;
    let conn = &site.host_conn;
    address::add(conn, site.nic, net("192.0.2.10/24"))
        .await
        .unwrap();
    let nfs = |servers: &[&str]| NetworkStorage {
        what: "/data".to_owned(),
        kind: "nfs4".to_owned(),
        source: "store:/export".to_owned(),
        servers: servers.iter().map(|s| s.parse().unwrap()).collect(),
    };
    let all = vec![nfs(&["192.0.2.200"]), nfs(&["203.0.113.1"]), nfs(&[])];
    let links = storage::storage_links(conn, all).await.unwrap();
    assert_eq!(links.found.len(), 1);
    assert_eq!(links.found[0].index, site.nic);
    assert_eq!(links.unknown.len(), 2);
}

#[tokio::test]
async fn many_links_are_dumped_whole_while_others_come_and_go() {
    let site = site().await;
    for number in 0..40 {
        let name = format!("many{number}").parse().unwrap();
        link::create_bridge(&site.pod_conn, &name, 1500)
            .await
            .unwrap();
    }
    let other = site.pod.connect().await.unwrap();
    let churn = tokio::spawn(async move {
        for number in 0..40 {
            let name = format!("churn{number}").parse().unwrap();
            let index = link::create_bridge(&other, &name, 1500).await.unwrap();
            link::delete(&other, index).await.unwrap();
        }
    });
    for _ in 0..40 {
        match inventory::links(&site.pod_conn).await {
            Ok(links) => {
                let many = links
                    .iter()
                    .filter(|link| link.name.starts_with("many"))
                    .count();
                assert_eq!(many, 40, "a dump is whole");
            }
            // whole or an error, never a part
            Err(dtn_link::Error::Interrupted { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
    churn.await.unwrap();
}

#[tokio::test]
async fn waits_end_with_the_kernels_own_word() {
    let site = site().await;
    let (host, conn) = (&site.host, &site.host_conn);
    let far = inventory::link_by_name(&site.wire_conn, "far1")
        .await
        .unwrap()
        .index;
    link::set_down(&site.wire_conn, far).await.unwrap();
    let short = Duration::from_millis(20);
    let error = wait::for_carrier(host, conn, site.nic, short)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("last seen: up, no carrier"),
        "{error}"
    );
    assert!(error.retryable());
    let long = Duration::from_secs(20);
    let plugged = link::set_up(&site.wire_conn, far);
    let (seen, done) = tokio::join!(wait::for_carrier(host, conn, site.nic, long), plugged);
    seen.unwrap();
    done.unwrap();
    // the kernel's own address of the link goes and comes with it
    link::set_down(conn, site.nic).await.unwrap();
    let none = wait::for_link_local(host, conn, site.nic, short).await;
    assert!(none.unwrap_err().to_string().contains("last seen: none"));
    let up = link::set_up(conn, site.nic);
    let (seen, done) = tokio::join!(wait::for_link_local(host, conn, site.nic, long), up);
    seen.unwrap();
    done.unwrap();
    let all = address::list(conn, Some(site.nic)).await.unwrap();
    assert!(all.iter().any(address::AddressState::can_ask), "{all:?}");
    // without `nodad` the kernel checks for a second; iproute2 sets such an address
    run(host, "ip addr add 2001:db8::99/64 dev ens1");
    wait::for_addresses(host, conn, site.nic, long)
        .await
        .unwrap();
    let all = address::list(conn, Some(site.nic)).await.unwrap();
    assert!(
        all.iter()
            .any(|a| a.net == net("2001:db8::99/64") && !a.tentative)
    );
}

#[tokio::test]
async fn a_link_that_arrives_is_seen() {
    let site = site().await;
    let long = Duration::from_secs(20);
    let name = "br7".parse().unwrap();
    let arrives = link::create_bridge(&site.pod_conn, &name, 1500);
    let waited = wait::for_link(&site.pod, &site.pod_conn, long, "waiting for br7", |link| {
        link.name == "br7"
    });
    let (seen, made) = tokio::join!(waited, async { arrives.await.unwrap() });
    assert_eq!(seen.unwrap().index, made);
}

#[tokio::test]
async fn addresses_are_announced_when_the_link_comes_up() {
    let site = site().await;
    sysctl::announce(&site.host, "ens1").await.unwrap();
    let read = async |key: &str| sysctl::read(&site.host, key).await.unwrap();
    assert_eq!(
        read("net.ipv4.conf.ens1.arp_notify").await.as_deref(),
        Some("1")
    );
    assert_eq!(
        read("net.ipv6.conf.ens1.ndisc_notify").await.as_deref(),
        Some("1")
    );
}

#[tokio::test]
async fn the_kernels_own_words_are_in_the_error() {
    let site = site().await;
    let error = link::set_mtu(&site.host_conn, site.nic, 70_000)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("setting the MTU of the link"), "{text}");
    assert!(text.contains("mtu greater than device maximum"), "{text}");
}

#[tokio::test]
async fn ipv6_is_switched_on_where_an_engine_switched_it_off() {
    let site = site().await;
    let key = "net.ipv6.conf.ens1.disable_ipv6";
    sysctl::write(&site.host, key, "1").await.unwrap();
    let net = net("2001:db8::10/64");
    address::add(&site.host_conn, site.nic, net)
        .await
        .unwrap_err();
    sysctl::enable_ipv6(&site.host, "ens1").await.unwrap();
    address::add(&site.host_conn, site.nic, net).await.unwrap();
}

#[tokio::test]
async fn an_address_that_another_host_has_is_an_error() {
    let site = site().await;
    let far = inventory::link_by_name(&site.wire_conn, "far1")
        .await
        .unwrap()
        .index;
    address::add(&site.wire_conn, far, net("2001:db8::66/64"))
        .await
        .unwrap();
    // iproute2 has the kernel look for duplicates; we leave that to vDHCP
    run(&site.host, "ip addr add 2001:db8::66/64 dev ens1");
    let long = Duration::from_secs(20);
    let waited = wait::for_addresses(&site.host, &site.host_conn, site.nic, long).await;
    let error = waited.unwrap_err().to_string();
    assert!(error.contains("2001:db8::66/64: another host"), "{error}");
}
