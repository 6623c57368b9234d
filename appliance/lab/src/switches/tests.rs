//! The texts are those that the programs take, and agree with each other.

#![allow(clippy::unwrap_used, reason = "a test fails with what it could not do")]

use super::*;
use std::collections::BTreeSet;

#[test]
fn every_bridge_of_the_lab_has_an_id_of_its_own() {
    let ids: BTreeSet<String> = (0..SITES.len())
        .flat_map(|site| (0..BRIDGES.len()).map(move |bridge| datapath_id(site, bridge)))
        .collect();
    assert_eq!(ids.len(), 6);
    assert_eq!(ids.first().unwrap(), "0000000000000011");
    assert!(ids.iter().all(|id| id.len() == 16));
    assert_eq!(management(1).to_string(), "10.254.0.22");
}

#[test]
fn one_command_makes_bridges_cables_and_ports() {
    let text = bridges(1, 2).join(" ");
    for part in [
        "-- add-br core -- set bridge core datapath_type=netdev protocols=OpenFlow13 fail_mode=secure other_config:datapath-id=0000000000000022 other_config:disable-in-band=true",
        "-- add-port edge1 edge1-core -- set interface edge1-core type=patch options:peer=core-edge1",
        "-- add-port core core-edge1 -- set interface core-edge1 type=patch options:peer=edge1-core",
        "-- add-port edge2 edge2-core -- set interface edge2-core type=patch options:peer=core-edge2",
        "-- add-port edge1 port0 -- add-port edge1 port1 -- add-port edge1 port-visit0 -- add-port edge1 port-door0",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let text = obedience(Ipv4Addr::new(10, 254, 0, 11)).join(" ");
    assert!(
        text.contains("-- set-controller core tcp:10.254.0.11:6653 -- set controller core connection_mode=out-of-band"),
        "{text}"
    );
}

#[test]
fn a_trial_s_frame_finds_a_flow_in_every_bridge_there_and_back() {
    let all: String = BRIDGES.iter().map(|bridge| trial_flows(bridge)).collect();
    assert_eq!(all.lines().count(), 6);
    for [(_, one), (_, other)] in CABLES {
        for port in [one, other] {
            assert!(all.contains(&format!("in_port={port},")), "{port}: {all}");
            assert!(all.contains(&format!("output:{port}\n")), "{port}: {all}");
        }
    }
    assert!(all.contains("in_port=try,actions=push_vlan:0x8100,set_field:8097->vlan_vid"));
    assert!(all.contains("in_port=border,vlan_vid=8098,actions=set_field:8097->vlan_vid"));
}

#[test]
fn a_rate_is_carried_when_nearly_all_that_tcp_can_get_of_it_arrives() {
    let mega = |bps: u64| Rate::from_bps(bps * 1_000_000);
    // 1448 of 1514 bytes are payload: 191.3 Mb/s of 200
    assert!(carried(mega(200), 1500, mega(190)));
    assert!(!carried(mega(200), 1500, mega(181)));
    assert!(carried(mega(200), 9000, mega(197)));
    assert!(!carried(mega(200), 9000, mega(188)));
}

#[tokio::test]
async fn the_highest_rung_that_holds_is_found_in_four_tries_at_most() {
    for limit in [0, 10, 55, 200, 399, 800, 5000] {
        let mut tries = 0;
        let found = climb(&RUNGS, async |rate| {
            tries += 1;
            Ok::<_, std::convert::Infallible>(rate.bps() <= limit * 1_000_000)
        })
        .await
        .unwrap();
        let expected = RUNGS.iter().rev().find(|rung| **rung <= limit);
        assert_eq!(
            found,
            expected.map(|rung| Rate::from_bps(rung * 1_000_000)),
            "{limit}"
        );
        assert!(tries <= 4, "{limit}: {tries} tries");
    }
    let broken = climb(&RUNGS, async |_| Err::<bool, _>("no far end")).await;
    assert_eq!(broken, Err("no far end"));
}

#[test]
fn only_the_drops_of_bands_are_counted() {
    let text = "OFPST_METER reply (OF1.3) (xid=0x2):\n\
        meter:1 flow_count:4 packet_in_count:900 byte_in_count:80000 duration:7.019s bands:\n\
        0: packet_count:12 byte_count:18000\n\n\
        meter:2 flow_count:0 packet_in_count:3 byte_in_count:0 duration:0.007s bands:\n\
        0: packet_count:30 byte_count:0\n\
        1: packet_count:0 byte_count:0\n";
    assert_eq!(dropped(text), Some(42));
    assert_eq!(dropped("OFPST_METER reply (OF1.3) (xid=0x2):\n"), Some(0));
    assert_eq!(dropped("0: packet_count:? byte_count:?\n"), None);
}

#[test]
fn only_what_access_has_dropped_is_counted() {
    let text = "NXST_FLOW reply (xid=0x2):\n\
         cookie=0x64740000, duration=1.5s, table=0, n_packets=7, n_bytes=420, priority=1 actions=drop\n\
         cookie=0x64740001, duration=1.5s, table=10, n_packets=5, n_bytes=370, priority=100,metadata=0x1,dl_dst=02:00:00:00:00:01 actions=drop\n\
         cookie=0x64740001, duration=1.5s, table=10, n_packets=4, n_bytes=370, priority=100,metadata=0x1,dl_src=02:00:00:00:00:01 actions=drop\n\
         cookie=0x64740001, duration=1.5s, table=10, n_packets=9, n_bytes=370, priority=1,metadata=0x1 actions=goto_table:20\n";
    assert_eq!(denied(text), Some(9));
    assert_eq!(denied(""), Some(0));
    assert_eq!(denied(" table=10, n_packets=many, actions=drop"), None);
}
