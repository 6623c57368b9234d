//! What a switch is and has: features, ports, tables, meters, groups; and what it tells unasked.

use crate::{Way, only, recorded, said};
use Way::{FromSwitch, ToSwitch};
use dtn_openflow::{
    Action, AggregateStats, Band, BandStats, Bucket, Description, FLOW_SEND_REMOVED, Features,
    Field, FlowRemoved, FlowStatsRequest, Frame, GROUP_ALL, GROUP_ANY, GroupCommand, GroupDesc,
    GroupKind, GroupMod, METER_ALL, METER_BURST, METER_KBPS, METER_PKTPS, METER_STATS, Match,
    Message, MeterCommand, MeterConfig, MeterFeatures, MeterMod, MeterStats, MultipartReply,
    MultipartRequest, NO_BUFFER, PORT_ANY, PORT_CONTROLLER, PORT_DELETED, PORT_LINK_DOWN,
    PORT_LOCAL, PORT_MODIFIED, PacketIn, PacketOut, Port, ROLE_EQUAL, ROLE_MASTER, TABLE_ALL,
    VLAN_PRESENT, refusal,
};

/// An ARP request, as it was put into a port and out of one.
const ARP: &str = "ffffffffffff0200000000010806000108000604000102000000000a\
                   0a0100020000000000000a010003";

fn answer(name: &str, words: &str) -> MultipartReply {
    match only(name, words, FromSwitch) {
        Message::MultipartReply { more: false, body } => body,
        other => panic!("{words}: {other:?}"),
    }
}

fn question(name: &str, words: &str) -> MultipartRequest {
    match only(name, words, ToSwitch) {
        Message::MultipartRequest(request) => request,
        other => panic!("{words}: {other:?}"),
    }
}

fn output(port: u32) -> Action {
    Action::Output { port, max_len: 0 }
}

#[test]
fn versions_are_agreed() {
    let hello = |words, way| said("agree", words, way).remove(0);
    let versions = |versions: &[u8]| Message::Hello {
        versions: versions.to_vec(),
    };
    assert_eq!(hello("OpenFlow15 show", ToSwitch), versions(&[1, 4, 6]));
    assert_eq!(hello("OpenFlow15 show", FromSwitch), versions(&[4]));
    let ours = Frame {
        xid: 1,
        message: versions(&[4]),
    };
    let sent = recorded("agree")
        .into_iter()
        .find(|sent| sent.command == "ovs-ofctl show");
    assert_eq!(ours.encode(), sent.unwrap().bytes);
}

#[test]
fn a_switch_says_what_it_is() {
    let features = Features {
        datapath_id: 1,
        n_buffers: 0,
        n_tables: 254,
        auxiliary_id: 0,
        capabilities: 0x4f,
    };
    let said = said("agree", "ovs-ofctl show", FromSwitch);
    assert!(said.contains(&Message::FeaturesReply(features)), "{said:?}");

    let description = Description {
        manufacturer: "Nicira, Inc.".into(),
        hardware: "Open vSwitch".into(),
        software: "3.1.0".into(),
        serial: "None".into(),
        datapath: "None".into(),
    };
    assert_eq!(question("switch", "dump-desc"), MultipartRequest::Desc);
    assert_eq!(
        answer("switch", "dump-desc"),
        MultipartReply::Desc(description)
    );
}

#[test]
fn ports_have_names_numbers_and_rates() {
    assert_eq!(question("switch", "ports-desc"), MultipartRequest::PortDesc);
    let MultipartReply::PortDesc(ports) = answer("switch", "ports-desc") else {
        panic!("no ports");
    };
    let names: Vec<(u32, &str)> = ports
        .iter()
        .map(|port| (port.port_no, port.name.as_str()))
        .collect();
    assert_eq!(names, [(PORT_LOCAL, "edge1"), (1, "port0"), (2, "core")]);
    let port0 = Port {
        port_no: 1,
        hw_addr: [0xaa, 0x34, 0x14, 0x26, 0xcc, 0xbf],
        name: "port0".into(),
        config: 0,
        // live
        state: 4,
        // 10 Gbit/s full duplex over copper
        curr: 1 << 6 | 1 << 11,
        curr_speed: 10_000_000,
        ..Port::default()
    };
    assert_eq!(ports[1], port0);
    assert_eq!(ports[0].state & PORT_LINK_DOWN, PORT_LINK_DOWN);
}

#[test]
fn tables_and_ports_are_counted() {
    let MultipartReply::Table(tables) = answer("switch", "dump-tables") else {
        panic!("no tables");
    };
    assert_eq!(tables.len(), 254);
    assert_eq!((tables[0].active_count, tables[20].active_count), (7, 4));
    assert_eq!(tables[253].table_id, 253);

    let all = MultipartRequest::PortStats { port: PORT_ANY };
    let asked = said("switch", "ovs-ofctl dump-ports", ToSwitch);
    assert_eq!(asked, [Message::MultipartRequest(all)]);
    let MultipartReply::PortStats(ports) = answer("switch", "dump-ports 1") else {
        panic!("no counters");
    };
    assert_eq!(ports.len(), 1);
    assert_eq!((ports[0].port_no, ports[0].duration_sec), (1, 9));
}

#[test]
fn flows_are_counted_by_cookie_and_table() {
    let by_cookie = "dump-aggregate cookie=0x6474000000000000/0xffff000000000000";
    let cases = [
        (
            "ovs-ofctl dump-aggregate".to_owned(),
            FlowStatsRequest::default(),
            14,
        ),
        (format!("ovs-ofctl {by_cookie}"), ours(TABLE_ALL), 3),
        (format!("ovs-ofctl {by_cookie},table=20"), ours(20), 2),
    ];
    for (words, asked, count) in cases {
        assert_eq!(
            question("counted", &words),
            MultipartRequest::Aggregate(asked)
        );
        let sum = AggregateStats {
            packet_count: 0,
            byte_count: 0,
            flow_count: count,
        };
        assert_eq!(answer("counted", &words), MultipartReply::Aggregate(sum));
    }
}

/// Of a table, the flows with a cookie of ours.
fn ours(table_id: u8) -> FlowStatsRequest {
    FlowStatsRequest {
        table_id,
        cookie: 0x6474_0000_0000_0000,
        cookie_mask: 0xffff_0000_0000_0000,
        ..FlowStatsRequest::default()
    }
}

#[test]
fn meters_are_set_and_read_back() {
    let bands = |rate| {
        vec![Band::Drop {
            rate,
            burst_size: 2048,
        }]
    };
    let flags = METER_KBPS | METER_BURST | METER_STATS;
    let change = |command, rate| {
        Message::MeterMod(MeterMod {
            command,
            flags,
            meter_id: 7,
            bands: bands(rate),
        })
    };
    let sent = |words| only("meters", words, ToSwitch);
    assert_eq!(sent("add-meter"), change(MeterCommand::Add, 105_000));
    assert_eq!(sent("mod-meter"), change(MeterCommand::Modify, 210_000));
    for (words, meter_id) in [("del-meter meter=7", 7), ("del-meters", METER_ALL)] {
        let gone = MeterMod {
            command: MeterCommand::Delete,
            flags: 0,
            meter_id,
            bands: Vec::new(),
        };
        assert_eq!(sent(words), Message::MeterMod(gone));
    }

    let all = MultipartRequest::MeterConfig { id: METER_ALL };
    assert_eq!(question("meters", "dump-meters"), all);
    let config = MeterConfig {
        flags,
        meter_id: 7,
        bands: bands(210_000),
    };
    let meters = MultipartReply::MeterConfig(vec![config]);
    assert_eq!(answer("meters", "dump-meters"), meters);
}

#[test]
fn meters_are_counted() {
    let one = MultipartRequest::Meter { id: 7 };
    assert_eq!(question("meters", "meter-stats meter=7"), one);
    let stats = MeterStats {
        meter_id: 7,
        flow_count: 3,
        packet_in_count: 0,
        byte_in_count: 0,
        duration_sec: 6,
        duration_nsec: 0x315a_4700,
        bands: vec![BandStats::default()],
    };
    let meters = MultipartReply::Meter(vec![stats]);
    assert_eq!(answer("meters", "meter-stats meter=7"), meters);

    assert_eq!(
        question("meters", "meter-features"),
        MultipartRequest::MeterFeatures
    );
    let features = MeterFeatures {
        max_meter: 262_144,
        // drop
        band_types: 1 << 1,
        capabilities: u32::from(METER_KBPS | METER_PKTPS | METER_BURST | METER_STATS),
        max_bands: 8,
        max_color: 0,
    };
    let able = MultipartReply::MeterFeatures(features);
    assert_eq!(answer("meters", "meter-features"), able);
}

#[test]
fn groups_are_set_and_read_back() {
    let vlan = Field::VlanVid {
        value: VLAN_PRESENT | 100,
        mask: None,
    };
    let labelled = vec![Action::PushVlan(0x8100), Action::SetField(vlan), output(2)];
    let everyone = vec![Bucket::new(vec![output(1)]), Bucket::new(labelled)];
    let weighed = |weight, port| Bucket {
        weight,
        ..Bucket::new(vec![output(port)])
    };
    let watching = |port| Bucket {
        watch_port: port,
        ..Bucket::new(vec![output(port)])
    };
    let change = |command, kind, group_id, buckets: &[Bucket]| {
        Message::GroupMod(GroupMod {
            command,
            kind,
            group_id,
            buckets: buckets.to_vec(),
        })
    };
    let sent = |words| only("groups", words, ToSwitch);
    let all = change(GroupCommand::Add, GroupKind::All, 42, &everyone);
    assert_eq!(sent("group_id=42"), all);
    let failover = [watching(1), watching(2)];
    let failover = change(GroupCommand::Add, GroupKind::FastFailover, 43, &failover);
    assert_eq!(sent("type=ff"), failover);
    let shares = [weighed(10, 1), weighed(20, 2)];
    let select = change(GroupCommand::Modify, GroupKind::Select, 43, &shares);
    assert_eq!(sent("mod-group"), select);
    let one = change(GroupCommand::Delete, GroupKind::All, 43, &[]);
    assert_eq!(sent("del-groups group_id"), one);
    let last = recorded("groups").pop().unwrap();
    let every = change(GroupCommand::Delete, GroupKind::All, GROUP_ALL, &[]);
    assert_eq!(Frame::decode(&last.bytes).unwrap().message, every);

    assert_eq!(
        question("groups", "dump-groups"),
        MultipartRequest::GroupDesc
    );
    let group = |kind, group_id, buckets: &[Bucket]| GroupDesc {
        kind,
        group_id,
        buckets: buckets.to_vec(),
    };
    let groups = vec![
        group(GroupKind::All, 42, &everyone),
        group(GroupKind::Select, 43, &shares),
    ];
    assert_eq!(
        answer("groups", "dump-groups"),
        MultipartReply::GroupDesc(groups)
    );
    assert_eq!(everyone[0].watch_group, GROUP_ANY);
}

#[test]
fn packets_go_out_and_come_in() {
    let packet = PacketOut::new(crate::bytes(ARP), vec![output(1)]);
    assert_eq!(packet.in_port, PORT_CONTROLLER);
    assert_eq!(
        only("packets", "packet-out", ToSwitch),
        Message::PacketOut(packet)
    );

    let packet = PacketIn {
        buffer_id: NO_BUFFER,
        total_len: 42,
        // an action said so
        reason: 1,
        table_id: 0,
        cookie: 0,
        matches: Match::new([Field::InPort(1)]),
        data: crate::bytes(ARP),
    };
    let said = said("packets", "monitor", FromSwitch);
    assert!(said.contains(&Message::PacketIn(packet)), "{said:?}");
}

#[test]
fn a_switch_tells_what_happens() {
    let heard = said("packets", "monitor", FromSwitch);
    let removed = FlowRemoved {
        cookie: 5,
        priority: 6,
        // its hard timeout
        reason: 1,
        table_id: 0,
        duration_sec: 1,
        duration_nsec: 0x1e_8480,
        hard_timeout: 1,
        matches: Match::new([Field::InPort(2)]),
        ..FlowRemoved::default()
    };
    assert!(heard.contains(&Message::FlowRemoved(removed)), "{heard:?}");
    let ports: Vec<(u8, &str, u32)> = heard
        .iter()
        .filter_map(|message| match message {
            Message::PortStatus { reason, port } => {
                Some((*reason, port.name.as_str(), port.state & PORT_LINK_DOWN))
            }
            _ => None,
        })
        .collect();
    let went = [
        (PORT_MODIFIED, "port0", 0),
        (PORT_MODIFIED, "port0", PORT_LINK_DOWN),
        (PORT_DELETED, "port0", PORT_LINK_DOWN),
    ];
    assert_eq!(ports, went);
    assert_eq!(FLOW_SEND_REMOVED, 1);
}

#[test]
fn roles_barriers_and_echoes() {
    let asked = said("packets", "monitor", ToSwitch);
    let heard = said("packets", "monitor", FromSwitch);
    let role = |role, generation_id| Message::RoleReply {
        role,
        generation_id,
    };
    // without a master there has been no generation yet: all ones
    assert!(heard.contains(&role(ROLE_EQUAL, u64::MAX)));
    assert!(heard.contains(&role(ROLE_MASTER, 1)));
    let master = Message::RoleRequest {
        role: ROLE_MASTER,
        generation_id: 1,
    };
    assert!(asked.contains(&master));
    let miss = Message::SetConfig {
        flags: 0,
        miss_send_len: 0xffff,
    };
    assert!(asked.contains(&miss) && asked.contains(&Message::BarrierRequest));
    assert!(heard.contains(&Message::BarrierReply));
    assert!(asked.contains(&Message::EchoRequest(vec![1, 2, 3, 4])));
    assert!(heard.contains(&Message::EchoReply(vec![1, 2, 3, 4])));
}

#[test]
fn refusals_have_words_and_name_what_was_refused() {
    let refused = [
        ("dscp_remark", "meter refused: unsupported band"),
        ("group:99", "bad action: no such group"),
        ("meter:99", "meter refused: bad meter"),
    ];
    for (words, why) in refused {
        let Message::Error { kind, code, data } = only("refusals", words, FromSwitch) else {
            panic!("no error");
        };
        assert_eq!(refusal(kind, code), why);
        let sent = Frame::decode(&data).unwrap().message;
        assert_eq!(sent, only("refusals", words, ToSwitch));
    }
    let remark = Band::DscpRemark {
        rate: 10,
        burst_size: 0,
        prec_level: 1,
    };
    let Message::MeterMod(meter) = only("refusals", "dscp_remark", ToSwitch) else {
        panic!("no meter");
    };
    assert_eq!((meter.flags, meter.bands), (METER_PKTPS, vec![remark]));
}
