//! NICs that go into a sandbox and come home as they were, whatever was done to them there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod site;

use dtn_api::MacAddress;
use dtn_link::{
    Error, address, inventory, link,
    nic::{self, BeforeImage, Move},
    route::{self, RouteState},
    undo::Undo,
};
use site::{Site, plug, run, site, witness};

const POD_MAC: MacAddress = MacAddress::new([2, 0, 0x5e, 0x10, 0, 1]);

/// Puts on the NIC everything that a before-image holds.
async fn dress(site: &Site) -> BeforeImage {
    let conn = &site.host_conn;
    for command in [
        "ip link set dev ens1 alias uplink-of-rack-7",
        "ip link set dev ens1 txqueuelen 4321",
        "ip link set dev ens1 promisc on",
        "ip link property add dev ens1 altname enp3s0 altname a-long-alternative-name",
        "ip link set dev ens1 gso_max_size 50000 gro_max_size 60000",
    ] {
        run(&site.host, command);
    }
    for text in ["192.0.2.10/24", "2001:db8::10/64"] {
        address::add(conn, site.nic, text.parse().unwrap())
            .await
            .unwrap();
    }
    let to = "203.0.113.0/24".parse().unwrap();
    let mut way = RouteState::new(to, site.nic, Some("192.0.2.1".parse().unwrap()));
    way.mtu = Some(1400);
    route::add(conn, &way).await.unwrap();
    BeforeImage::capture(conn, &site.host, site.nic)
        .await
        .unwrap()
}

async fn move_in(site: &Site, name: &str) -> dtn_link::Result<inventory::LinkState> {
    let name = name.parse().unwrap();
    let wanted = Move {
        index: site.nic,
        netns: &site.pod,
        name: &name,
        mac: Some(POD_MAC),
        mtu: Some(1500),
    };
    nic::move_in(&site.host_conn, &site.host, &site.pod_conn, &wanted).await
}

#[tokio::test]
async fn a_nic_moves_in_one_message_with_its_new_name_mac_and_mtu() {
    let site = site().await;
    dress(&site).await;
    let moved = move_in(&site, "net1").await.unwrap();
    assert_eq!(
        (moved.name.as_str(), moved.mac, moved.mtu),
        ("net1", Some(POD_MAC), 1500)
    );
    assert!(!moved.up);
    assert!(
        inventory::link_by_name(&site.host_conn, "ens1")
            .await
            .unwrap_err()
            .is_not_found()
    );
    let shown = witness(&site.pod, "ip -j -d link show dev net1");
    assert_eq!(shown[0]["address"], POD_MAC.to_string());
    assert_eq!(shown[0]["mtu"], 1500);
    assert!(
        address::list(&site.pod_conn, Some(moved.index))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_nic_comes_home_as_it_was_whatever_the_pod_did() {
    let site = site().await;
    let before = dress(&site).await;
    let moved = move_in(&site, "net1").await.unwrap();
    for command in [
        "ip link set dev net1 name stolen",
        "ip link set dev stolen address 02:00:00:00:00:99",
        "ip link set dev stolen mtu 2000 txqueuelen 7 alias mine promisc off",
        "ip link property add dev stolen altname podname",
        "ip link property del dev stolen altname enp3s0",
        "ip link set dev stolen gso_max_size 9000 gro_max_size 9000",
        "ip addr add 10.0.0.1/8 dev stolen",
        "ip link set dev stolen up",
        "ip route add 172.16.0.0/12 via 10.0.0.2",
    ] {
        run(&site.pod, command);
    }
    let differences = nic::move_home(
        &site.pod_conn,
        moved.index,
        &site.host_conn,
        &site.host,
        &before,
    )
    .await;
    assert_eq!(differences.unwrap(), []);

    let shown = witness(&site.host, "ip -j -d addr show dev ens1");
    let shown = &shown[0];
    assert_eq!(shown["address"], before.mac.unwrap().to_string());
    assert_eq!(
        (shown["mtu"].as_u64(), shown["txqlen"].as_u64()),
        (Some(9000), Some(4321))
    );
    assert_eq!(shown["ifalias"], "uplink-of-rack-7");
    let flags: Vec<&str> = shown["flags"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|f| f.as_str())
        .collect();
    assert!(
        flags.contains(&"UP") && flags.contains(&"PROMISC"),
        "{flags:?}"
    );
    let altnames = shown["altnames"].as_array().unwrap();
    assert_eq!(altnames.len(), 2, "{altnames:?}");
    let ways = witness(&site.host, "ip -j route show 203.0.113.0/24");
    assert_eq!(ways[0]["gateway"], "192.0.2.1");
    let after = inventory::link_by_name(&site.host_conn, "ens1")
        .await
        .unwrap();
    let image = BeforeImage::capture(&site.host_conn, &site.host, after.index)
        .await
        .unwrap();
    let plain = |image: &BeforeImage| {
        // link-local addresses are the kernel's, indices may differ
        let mut nets: Vec<_> = image
            .addresses
            .iter()
            .filter(|a| !a.is_link_local())
            .map(|a| a.net)
            .collect();
        nets.sort();
        let text = (
            image.alias.clone(),
            image.altnames.clone(),
            image.mac,
            image.gso_max_size,
        );
        (text, nets, image.up, image.promiscuous, image.gro_max_size)
    };
    assert_eq!(plain(&image), plain(&before));
    // the same twice is success
    assert_eq!(
        nic::restore(&site.host_conn, after.index, &before)
            .await
            .unwrap(),
        []
    );
    assert_eq!(inventory::links(&site.pod_conn).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_taken_name_does_not_stop_the_way_home() {
    let site = site().await;
    let before = dress(&site).await;
    let moved = move_in(&site, "net1").await.unwrap();
    // somebody took the name, and an alternative name too
    run(&site.host, "ip link add ens1 type bridge");
    run(&site.host, "ip link property add dev ens1 altname enp3s0");
    let differences = nic::move_home(
        &site.pod_conn,
        moved.index,
        &site.host_conn,
        &site.host,
        &before,
    )
    .await
    .unwrap();
    let fields: Vec<&str> = differences.iter().map(|d| d.field.as_str()).collect();
    assert!(
        fields.contains(&"name") && fields.contains(&"altname"),
        "{differences:?}"
    );
    assert!(
        fields.iter().all(|f| ["name", "altname"].contains(f)),
        "{differences:?}"
    );
    let home = inventory::link_by_name(&site.host_conn, "dtn0")
        .await
        .unwrap();
    assert_eq!((home.mac, home.mtu), (before.mac, 9000));
    // once the name is free again, the rest follows
    run(&site.host, "ip link del ens1");
    assert_eq!(
        nic::restore(&site.host_conn, home.index, &before)
            .await
            .unwrap(),
        []
    );
    assert!(
        inventory::link_by_name(&site.host_conn, "ens1")
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_name_that_the_sandbox_has_is_refused_before_anything_moves() {
    let site = site().await;
    dress(&site).await;
    run(&site.pod, "ip link add net1 type bridge");
    let error = move_in(&site, "net1").await.unwrap_err();
    assert!(matches!(error, Error::Taken { .. }), "{error}");
    let nic = inventory::link_by_name(&site.host_conn, "ens1")
        .await
        .unwrap();
    assert!(nic.up, "it was not touched");
}

#[tokio::test]
async fn a_move_that_the_kernel_stops_half_way_is_taken_back() {
    let site = site().await;
    let before = dress(&site).await;
    let name = "net1".parse().unwrap();
    // a group address: the kernel refuses it after it has moved the link
    let wanted = Move {
        index: site.nic,
        netns: &site.pod,
        name: &name,
        mac: Some(MacAddress::new([1, 0, 0x5e, 0, 0, 1])),
        mtu: None,
    };
    nic::move_in(&site.host_conn, &site.host, &site.pod_conn, &wanted)
        .await
        .unwrap_err();
    let home = inventory::link_by_name(&site.host_conn, "ens1")
        .await
        .unwrap();
    assert_eq!(home.mac, before.mac);
    assert_eq!(inventory::links(&site.pod_conn).await.unwrap().len(), 1);
    // what the move cost is put back from the image
    assert_eq!(
        nic::restore(&site.host_conn, home.index, &before)
            .await
            .unwrap(),
        []
    );
}

#[tokio::test]
async fn an_index_that_is_taken_in_the_sandbox_changes_and_the_nic_is_found() {
    let site = site().await;
    // the sandbox has a link with the NIC's index already
    while inventory::links(&site.pod_conn)
        .await
        .unwrap()
        .iter()
        .all(|l| l.index < site.nic)
    {
        let number = inventory::links(&site.pod_conn).await.unwrap().len();
        let name = format!("br{number}").parse().unwrap();
        link::create_bridge(&site.pod_conn, &name, 1500)
            .await
            .unwrap();
    }
    let before = dress(&site).await;
    let moved = move_in(&site, "net1").await.unwrap();
    assert_ne!(moved.index, site.nic);
    let differences = nic::move_home(
        &site.pod_conn,
        moved.index,
        &site.host_conn,
        &site.host,
        &before,
    )
    .await;
    assert_eq!(differences.unwrap(), []);
}

#[tokio::test]
async fn a_before_image_survives_the_disk() {
    let site = site().await;
    let before = dress(&site).await;
    let text = serde_json::to_vec(&before).unwrap();
    assert_eq!(
        serde_json::from_slice::<BeforeImage>(&text).unwrap(),
        before
    );
    assert_eq!(before.name, "ens1");
    assert!(before.promiscuous && before.up);
    let nic = inventory::link(&site.host_conn, site.nic).await.unwrap();
    assert!(before.may_be(&nic));
    run(&site.host, "ip link add br0 type bridge");
    let bridge = inventory::link_by_name(&site.host_conn, "br0")
        .await
        .unwrap();
    assert!(!before.may_be(&bridge));
    assert_eq!(
        nic::compare(&site.host_conn, site.nic, &before)
            .await
            .unwrap(),
        []
    );
    run(&site.host, "ip link set dev ens1 mtu 1500");
    run(&site.host, "ip addr add 10.9.9.9/32 dev ens1");
    let found = nic::compare(&site.host_conn, site.nic, &before)
        .await
        .unwrap();
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "mtu: wanted 9000, is 1500",
            "address: wanted none, is 10.9.9.9/32"
        ]
    );
}

#[tokio::test]
async fn a_nic_that_was_down_and_bare_comes_home_down_and_bare() {
    let site = site().await;
    let bare = plug(
        &site.host,
        &site.host_conn,
        "ens2",
        &site.wire,
        &site.wire_conn,
        "far2",
    )
    .await;
    link::set_down(&site.host_conn, bare).await.unwrap();
    let before = BeforeImage::capture(&site.host_conn, &site.host, bare)
        .await
        .unwrap();
    let name = "net2".parse().unwrap();
    let wanted = Move {
        index: bare,
        netns: &site.pod,
        name: &name,
        mac: None,
        mtu: None,
    };
    let moved = nic::move_in(&site.host_conn, &site.host, &site.pod_conn, &wanted)
        .await
        .unwrap();
    link::set_up(&site.pod_conn, moved.index).await.unwrap();
    let home = nic::move_home(
        &site.pod_conn,
        moved.index,
        &site.host_conn,
        &site.host,
        &before,
    );
    assert_eq!(home.await.unwrap(), []);
    assert!(
        !inventory::link_by_name(&site.host_conn, "ens2")
            .await
            .unwrap()
            .up
    );
}

#[tokio::test]
async fn an_attach_that_fails_is_undone_step_by_step() {
    let site = site().await;
    let before = dress(&site).await;
    let mut undo = Undo::new();
    let (pod_conn, host_conn, host) = (
        site.pod_conn.clone(),
        site.host_conn.clone(),
        site.host.clone(),
    );
    let image = before.clone();
    undo.push("moving ens1 home", move || async move {
        match inventory::link_by_name(&pod_conn, "net1").await {
            Ok(nic) => nic::move_home(&pod_conn, nic.index, &host_conn, &host, &image)
                .await
                .map(|_| ()),
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e),
        }
    });
    let moved = move_in(&site, "net1").await.unwrap();
    let (conn, index) = (site.pod_conn.clone(), moved.index);
    let net = "198.51.100.7/24".parse().unwrap();
    undo.push("removing 198.51.100.7", move || async move {
        address::remove(&conn, index, net).await
    });
    address::add(&site.pod_conn, moved.index, net)
        .await
        .unwrap();
    let failures = undo.rollback().await;
    assert!(failures.is_empty(), "{failures:?}");
    let nic = inventory::link_by_name(&site.host_conn, "ens1")
        .await
        .unwrap();
    assert_eq!(
        nic::compare(&site.host_conn, nic.index, &before)
            .await
            .unwrap(),
        []
    );
}

#[tokio::test]
async fn a_route_that_somebody_else_took_over_is_left_to_him() {
    let site = site().await;
    let before = dress(&site).await;
    let moved = move_in(&site, "net1").await.unwrap();
    plug(
        &site.host,
        &site.host_conn,
        "ens2",
        &site.wire,
        &site.wire_conn,
        "far2",
    )
    .await;
    run(&site.host, "ip addr add 192.0.2.99/24 dev ens2");
    run(
        &site.host,
        "ip route add 203.0.113.0/24 via 192.0.2.1 dev ens2",
    );
    let differences = nic::move_home(
        &site.pod_conn,
        moved.index,
        &site.host_conn,
        &site.host,
        &before,
    )
    .await
    .unwrap();
    let fields: Vec<&str> = differences.iter().map(|d| d.field.as_str()).collect();
    assert_eq!(fields, ["route"], "{differences:?}");
    assert!(
        differences[0].actual.contains("not restored"),
        "{differences:?}"
    );
    let ways = witness(&site.host, "ip -j route show 203.0.113.0/24");
    assert_eq!(ways.as_array().unwrap().len(), 1);
    assert_eq!(ways[0]["dev"], "ens2");
}

#[tokio::test]
async fn a_nic_is_found_whatever_it_is_called() {
    let site = site().await;
    let before = dress(&site).await;
    run(&site.host, "ip link set dev ens1 down");
    run(&site.host, "ip link set dev ens1 name other");
    let links = inventory::links(&site.host_conn).await.unwrap();
    assert_eq!(before.find(&links).unwrap().name, "other");
    // another index and the old name: it came back from somewhere
    let elsewhere = BeforeImage {
        index: 4711,
        name: "other".to_owned(),
        ..before.clone()
    };
    assert_eq!(elsewhere.find(&links).unwrap().index, site.nic);
    let gone = BeforeImage {
        index: 4711,
        ..before.clone()
    };
    assert_eq!(gone.find(&links), None);
}

#[test]
fn hardware_is_found_by_its_device_and_burnt_in_address() {
    let hardware = |index: u32, device: &str, last: u8| inventory::LinkState {
        index,
        name: format!("dev{index}"),
        device: Some(device.to_owned()),
        bus: Some("pci".to_owned()),
        permanent_mac: Some(MacAddress::new([2, 0, 0, 0, 0, last])),
        ..inventory::LinkState::default()
    };
    let text = r#"{"netns_inode":1,"index":9,"name":"ens1","mac":"02:00:00:00:00:aa",
        "permanent_mac":"02:00:00:00:00:01","device":"0000:3b:00.0","mtu":9000,"tx_queue_len":1000,"up":true}"#;
    let before: BeforeImage = serde_json::from_str(text).unwrap();
    let links = [
        hardware(2, "0000:3b:00.0", 1),
        hardware(3, "0000:3b:00.1", 2),
        hardware(4, "0000:3b:00.0", 3),
    ];
    assert_eq!(before.find(&links).unwrap().index, 2);
    // two that cannot be told apart: neither
    assert_eq!(
        before.find(&[links[0].clone(), hardware(7, "0000:3b:00.0", 1)]),
        None
    );
    assert_eq!(before.find(&links[1..]), None);
}
