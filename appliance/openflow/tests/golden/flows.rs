//! Flows, as a person wrote them in words and as they are on the wire.

use crate::{Way, only, said};
use dtn_openflow::{
    Action, FLOW_CHECK_OVERLAP, FLOW_RESET_COUNTS, FLOW_SEND_REMOVED, Field, FlowCommand, FlowMod,
    FlowStats, FlowStatsRequest, Instruction, Match, Message, MultipartReply, MultipartRequest,
    PORT_CONTROLLER, PORT_IN_PORT, VLAN_PRESENT,
};
use std::net::Ipv4Addr;

const MEMBER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OUTPUT_1: Action = Action::Output {
    port: 1,
    max_len: 0,
};
const OUTPUT_2: Action = Action::Output {
    port: 2,
    max_len: 0,
};

fn sent(words: &str) -> FlowMod {
    match only("flows", words, Way::ToSwitch) {
        Message::FlowMod(change) => change,
        other => panic!("{words}: {other:?}"),
    }
}

fn metadata(value: u64) -> Field {
    Field::Metadata { value, mask: None }
}

fn eth_src(value: [u8; 6]) -> Field {
    Field::EthSrc { value, mask: None }
}

fn eth_dst(value: [u8; 6]) -> Field {
    Field::EthDst { value, mask: None }
}

fn vlan(id: u16) -> Field {
    Field::VlanVid {
        value: VLAN_PRESENT | id,
        mask: None,
    }
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn tagged(mask: u64) -> Instruction {
    Instruction::WriteMetadata { value: 100, mask }
}

fn admit(n: u64, fields: Vec<Field>, instructions: Vec<Instruction>) -> FlowMod {
    FlowMod {
        cookie: 0x6474_0000_0064_0000 | n,
        priority: 30_000,
        matches: Match::new(fields),
        instructions,
        ..FlowMod::default()
    }
}

fn forward(priority: u16, fields: Vec<Field>, instructions: Vec<Instruction>) -> FlowMod {
    FlowMod {
        table_id: 20,
        priority,
        matches: Match::new(fields),
        instructions,
        ..FlowMod::default()
    }
}

fn admitted_v4() -> FlowMod {
    admit(
        1,
        vec![
            Field::EthType(0x0800),
            Field::Ipv4Src {
                addr: v4("10.1.0.2"),
                mask: None,
            },
            Field::InPort(1),
            eth_src(MEMBER),
        ],
        vec![
            Instruction::Meter(7),
            tagged(u64::MAX),
            Instruction::GotoTable(10),
        ],
    )
}

fn admitted_v6() -> FlowMod {
    admit(
        2,
        vec![
            Field::InPort(1),
            eth_src(MEMBER),
            Field::EthType(0x86dd),
            Field::Ipv6Src {
                addr: "fd00:1::2".parse().unwrap(),
                mask: None,
            },
        ],
        vec![
            Instruction::Meter(7),
            tagged(0xfff),
            Instruction::GotoTable(10),
        ],
    )
}

#[test]
fn a_member_is_admitted_by_its_addresses() {
    assert_eq!(sent("640001,"), admitted_v4());
    assert_eq!(sent("640002,"), admitted_v6());
}

#[test]
fn a_member_is_admitted_with_its_arp() {
    let fields = vec![
        Field::InPort(1),
        eth_src(MEMBER),
        Field::EthType(0x0806),
        Field::ArpOp(1),
        Field::ArpSha(MEMBER),
        Field::ArpTha([0; 6]),
        Field::ArpSpa {
            addr: v4("10.1.0.2"),
            mask: None,
        },
        Field::ArpTpa {
            addr: v4("10.1.0.0"),
            mask: Some(v4("255.255.255.0")),
        },
    ];
    let instructions = vec![
        Instruction::Meter(7),
        tagged(u64::MAX),
        Instruction::GotoTable(20),
    ];
    assert_eq!(sent("640003,"), admit(3, fields, instructions));
}

#[test]
fn a_member_is_admitted_with_its_neighbour_discovery() {
    let solicitation = vec![
        Field::InPort(1),
        Field::EthType(0x86dd),
        Field::IpProto(58),
        Field::Ipv6Src {
            addr: "fe80::".parse().unwrap(),
            mask: Some("ffc0::".parse().unwrap()),
        },
        Field::Ipv6Dst {
            addr: "ff02::".parse().unwrap(),
            mask: Some("ffff::".parse().unwrap()),
        },
        Field::Icmpv6Type(135),
        Field::Icmpv6Code(0),
        Field::Ipv6NdTarget("fd00:1::2".parse().unwrap()),
        Field::Ipv6NdSll(MEMBER),
    ];
    let then = vec![tagged(u64::MAX), Instruction::GotoTable(20)];
    assert_eq!(sent("640004,"), admit(4, solicitation, then.clone()));
    let advertisement = vec![
        Field::InPort(1),
        Field::EthType(0x86dd),
        Field::IpProto(58),
        Field::Icmpv6Type(136),
        Field::Icmpv6Code(0),
        Field::Ipv6NdTll(MEMBER),
    ];
    assert_eq!(sent("640005,"), admit(5, advertisement, then));
}

#[test]
fn a_label_is_taken_off_and_put_on() {
    let off = vec![
        Instruction::ApplyActions(vec![Action::PopVlan]),
        tagged(u64::MAX),
        Instruction::GotoTable(20),
    ];
    let at_core = vec![Field::InPort(2), vlan(100)];
    assert_eq!(
        sent("add-flow cookie=0x6474000000640006,"),
        admit(6, at_core, off)
    );

    let elsewhere = vec![metadata(100), eth_dst([2, 0, 0, 0, 0, 2])];
    let on = vec![Instruction::ApplyActions(vec![
        Action::PushVlan(0x8100),
        Action::SetField(vlan(100)),
        OUTPUT_2,
    ])];
    assert_eq!(sent("priority=19000"), forward(19_000, elsewhere, on));
}

#[test]
fn unicast_goes_one_way_and_broadcast_to_a_group() {
    let unicast = vec![
        Field::Metadata {
            value: 100,
            mask: Some(0xfff),
        },
        Field::EthDst {
            value: [0; 6],
            mask: Some([1, 0, 0, 0, 0, 0]),
        },
    ];
    let written = vec![
        Instruction::ClearActions,
        Instruction::WriteActions(vec![OUTPUT_2, Action::Group(43)]),
    ];
    assert_eq!(sent("priority=18000"), forward(18_000, unicast, written));

    let broadcast = vec![metadata(100), eth_dst([0xff; 6]), Field::EthType(0x0806)];
    let group = vec![Instruction::ApplyActions(vec![Action::Group(42)])];
    assert_eq!(sent("priority=15000"), forward(15_000, broadcast, group));
}

#[test]
fn ports_of_tcp_and_udp_and_other_actions() {
    let tcp = vec![
        Field::EthType(0x0800),
        vlan(5),
        Field::VlanPcp(3),
        Field::IpProto(6),
        Field::Ipv4Src {
            addr: v4("10.0.0.0"),
            mask: Some(v4("255.0.0.0")),
        },
        Field::Ipv4Dst {
            addr: v4("10.1.0.0"),
            mask: Some(v4("255.255.0.255")),
        },
        Field::TcpSrc {
            value: 0x400,
            mask: Some(0xfc00),
        },
        Field::TcpDst {
            value: 5201,
            mask: None,
        },
    ];
    let actions = vec![
        Action::SetQueue(3),
        Action::Output {
            port: PORT_CONTROLLER,
            max_len: 128,
        },
        Action::Output {
            port: PORT_IN_PORT,
            max_len: 0,
        },
    ];
    let expected = FlowMod {
        table_id: 21,
        ..forward(5, tcp, vec![Instruction::ApplyActions(actions)])
    };
    assert_eq!(sent("priority=5,tcp"), expected);

    let udp = vec![
        Field::EthType(0x86dd),
        Field::VlanVid {
            value: VLAN_PRESENT,
            mask: Some(VLAN_PRESENT),
        },
        Field::IpProto(17),
        Field::UdpSrc {
            value: 53,
            mask: None,
        },
        Field::UdpDst {
            value: 0x1000,
            mask: Some(0xf000),
        },
        Field::TunnelId {
            value: 0x77,
            mask: Some(0xff),
        },
    ];
    let dec_ttl = Action::Other {
        kind: 24,
        body: vec![0; 4],
    };
    let expected = FlowMod {
        table_id: 21,
        ..forward(
            6,
            udp,
            vec![Instruction::ApplyActions(vec![dec_ttl, OUTPUT_1])],
        )
    };
    assert_eq!(sent("priority=6,udp6"), expected);
}

#[test]
fn what_has_no_name_stays_whole() {
    let flow = sent("resubmit");
    assert_eq!((flow.idle_timeout, flow.hard_timeout), (30, 60));
    let flags = FLOW_SEND_REMOVED | FLOW_CHECK_OVERLAP | FLOW_RESET_COUNTS;
    assert_eq!(flow.flags, flags);
    let sctp_dst = Field::SctpDst {
        value: 9,
        mask: None,
    };
    let fields = [Field::EthType(0x0800), Field::IpProto(132), sctp_dst];
    assert_eq!(flow.matches, Match::new(fields));
    // Nicira's resubmit (subtype 14) in port 0xfff8 to table 23
    let resubmit = Action::Other {
        kind: 0xffff,
        body: vec![0, 0, 0x23, 0x20, 0, 14, 0xff, 0xf8, 23, 0, 0, 0],
    };
    assert_eq!(
        flow.instructions,
        [Instruction::ApplyActions(vec![resubmit])]
    );
}

#[test]
fn flows_are_changed_and_deleted() {
    let output = vec![Instruction::ApplyActions(vec![OUTPUT_1])];
    let strict = FlowMod {
        command: FlowCommand::ModifyStrict,
        ..forward(1, vec![metadata(100)], output)
    };
    assert_eq!(sent("--strict mod-flows"), strict);
    // the tool has a default priority, which a command for many flows does not look at
    let many = FlowMod {
        command: FlowCommand::Modify,
        priority: 0x8000,
        ..strict.clone()
    };
    assert_eq!(sent("ovs-ofctl mod-flows"), many);
    let gone = FlowMod {
        command: FlowCommand::DeleteStrict,
        instructions: Vec::new(),
        ..strict
    };
    assert_eq!(sent("--strict del-flows"), gone);
    let by_cookie = FlowMod {
        cookie: 0x6474_0000_0064_0006,
        cookie_mask: u64::MAX,
        command: FlowCommand::Delete,
        priority: 0x8000,
        out_port: 2,
        ..FlowMod::default()
    };
    assert_eq!(sent("ovs-ofctl del-flows"), by_cookie);
}

fn counted(words: &str) -> Vec<FlowStats> {
    match only("counted", words, Way::FromSwitch) {
        Message::MultipartReply {
            more: false,
            body: MultipartReply::Flow(flows),
        } => flows,
        other => panic!("{other:?}"),
    }
}

#[test]
fn flows_read_back_are_equal_to_those_sent() {
    let request = FlowStatsRequest {
        table_id: 0,
        cookie: 0x6474_0000_0000_0000,
        cookie_mask: 0xffff_0000_0000_0000,
        ..FlowStatsRequest::default()
    };
    let asked = said("counted", "dump-flows cookie=0x6474", Way::ToSwitch);
    assert_eq!(
        asked,
        [Message::MultipartRequest(MultipartRequest::Flow(request))]
    );

    let flows = counted("dump-flows cookie=0x6474");
    assert_eq!(flows.len(), 6);
    for wanted in [admitted_v4(), admitted_v6()] {
        let found = flows
            .iter()
            .find(|flow| flow.cookie == wanted.cookie)
            .unwrap();
        let back = (
            found.table_id,
            found.priority,
            &found.matches,
            &found.instructions,
        );
        let sent = (0, 30_000, &wanted.matches, &wanted.instructions);
        assert_eq!(back, sent);
        assert_eq!((found.packet_count, found.byte_count), (0, 0));
        assert!(found.duration_sec == 4 && found.duration_nsec < 1_000_000_000);
    }
    let all = counted("ovs-ofctl dump-flows");
    assert_eq!(all.len(), 14);
}
