//! What a port tells of itself over generic netlink, its counters of faults, and which queues the
//! kernel has: on veth links in namespaces of their own.

use dtn_api::Rate;
use dtn_link::{Netns, ethtool, inventory, link, qdisc};

#[tokio::test]
async fn a_port_tells_of_itself_in_whatever_namespace_it_is() {
    let netns = Netns::create_unnamed().unwrap();
    let conn = netns.connect().await.unwrap();
    let name = |text: &str| text.parse().unwrap();
    let (a, b) = (name("health0"), name("health1"));
    let end = |name: &dtn_api::IfName| link::VethEnd {
        name: name.clone(),
        netns: &netns,
        mac: None,
    };
    link::create_veth(&conn, end(&a), end(&b), 9000)
        .await
        .unwrap();
    let first = inventory::link_named(&conn, &a).await.unwrap();
    let second = inventory::link_named(&conn, &b).await.unwrap();
    let before = ethtool::read(&netns, first.index).await.unwrap();
    assert!(before.unread.is_empty(), "{before:?}");
    link::set_up(&conn, first.index).await.unwrap();
    link::set_up(&conn, second.index).await.unwrap();

    let port = ethtool::read(&netns, first.index).await.unwrap();
    // veth says so, whatever its processors can do
    assert_eq!(port.speed, Some(Rate::from_bps(10_000_000_000)));
    assert_eq!(port.duplex.as_deref(), Some("full"));
    let features = port.features.unwrap();
    let on = |feature: &str| features.active.iter().any(|name| name == feature);
    assert!(on("tx-tcp-segmentation"), "{features:?}");
    assert!(
        features
            .switchable
            .iter()
            .any(|name| name == "tx-tcp-segmentation"),
        "{features:?}"
    );
    let channels = port.channels.unwrap();
    assert!(channels.rx >= 1 && channels.tx >= 1, "{channels:?}");

    let up = inventory::link(&conn, first.index).await.unwrap();
    link::set_down(&conn, second.index).await.unwrap();
    let down = inventory::link(&conn, first.index).await.unwrap();
    let since = down.faults.since(&up.faults);
    assert_eq!(since.carrier_changes, 1, "{since:?}");
    assert_eq!(up.faults.since(&down.faults).carrier_changes, 0);

    let nobody = ethtool::read(&netns, 4_000_000).await.unwrap();
    assert!(!nobody.unread.is_empty() && nobody.speed.is_none());
}

#[tokio::test]
async fn queues_are_tried_and_not_guessed() {
    let found = qdisc::offered(&["htb", "pfifo", "no_such_queue"])
        .await
        .unwrap();
    let there = |kind: &str| found.iter().find(|(name, _)| name == kind).unwrap().1;
    assert!(there("htb") && there("pfifo") && !there("no_such_queue"));
}
