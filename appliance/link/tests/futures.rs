//! What the crate promises to its callers: every future can be spawned on a runtime of many threads.

use dtn_link::{Conn, Netns, address, inventory, link, macvlan, nic, qdisc, route, sysctl, wait};
use std::time::Duration;

fn spawnable<F: Future + Send>(future: F) {
    drop(future);
}

#[tokio::test]
async fn every_future_is_send() {
    let netns = Netns::create_unnamed().unwrap();
    let conn = netns.connect().await.unwrap();
    let name = "net1".parse().unwrap();
    let second = Duration::from_secs(1);
    let image = nic::BeforeImage::capture(&conn, &netns, 1).await.unwrap();
    let route = route::RouteState::new("10.0.0.0/8".parse().unwrap(), 1, None);
    let (net, to) = ("10.0.0.1/8".parse().unwrap(), "10.0.0.1".parse().unwrap());
    let wanted = nic::Move {
        index: 1,
        netns: &netns,
        name: &name,
        mac: None,
        mtu: None,
    };
    let child = macvlan::Macvlan {
        master: 1,
        netns: &netns,
        name: &name,
        mode: macvlan::Mode::Bridge,
        mac: None,
        mtu: None,
    };
    spawnable(netns.connect());
    spawnable(netns.run(|| ()));
    spawnable(inventory::Inventory::read(&conn));
    spawnable(inventory::link_named(&conn, &name));
    spawnable(address::add(&conn, 1, net));
    spawnable(address::flush(&conn, 1));
    spawnable(route::add(&conn, &route));
    spawnable(route::flush(&conn, 1));
    spawnable(route::resolve(&conn, to));
    spawnable(link::add_altname(&conn, 1, "x"));
    spawnable(nic::move_in(&conn, &netns, &conn, &wanted));
    spawnable(nic::move_home(&conn, 1, &conn, &netns, &image));
    spawnable(nic::restore(&conn, 1, &image));
    spawnable(nic::compare(&conn, 1, &image));
    spawnable(macvlan::create(&conn, &conn, &child));
    spawnable(qdisc::pace(&conn, 1, dtn_api::Rate::from_bps(1)));
    spawnable(qdisc::unpace(&conn, 1));
    spawnable(sysctl::announce(&netns, "lo"));
    spawnable(dtn_link::counters::tcp(&netns));
    spawnable(dtn_link::storage::storage_links(&conn, Vec::new()));
    spawnable(wait::for_carrier(&netns, &conn, 1, second));
    spawnable(wait::for_addresses(&netns, &conn, 1, second));
    spawnable(wait::for_link(&netns, &conn, second, "waiting", |link| {
        link.index == 1
    }));
    let _: Conn = conn.clone();
}
