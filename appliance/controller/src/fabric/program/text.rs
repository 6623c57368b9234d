//! Rules in words, for people: one line each, whether it is ours or what a switch said.

use super::{FlowId, MeterSpec};
use dtn_api::MacAddress;
use dtn_openflow::{
    Action, Band, Bucket, Field, Instruction, PORT_CONTROLLER, PORT_FLOOD, PORT_IN_PORT,
    PORT_LOCAL, PORT_NORMAL, VLAN_PRESENT,
};
use std::fmt::{Display, Write as _};

/// A flow.
pub fn flow(id: &FlowId, instructions: &[Instruction]) -> String {
    let matches: Vec<String> = id.matches.0.iter().map(field).collect();
    let then: Vec<String> = instructions.iter().map(instruction).collect();
    format!(
        "table {} priority {} {} -> {}",
        id.table,
        id.priority,
        some(&matches, " ", "all"),
        some(&then, ", ", "drop"),
    )
}

/// A group.
pub fn group(id: u32, buckets: &[Bucket]) -> String {
    let buckets: Vec<String> = buckets.iter().map(|b| actions(&b.actions)).collect();
    format!("group {id:#x} -> {}", some(&buckets, "; ", "drop"))
}

/// A meter of ours.
pub fn meter(id: u32, spec: MeterSpec) -> String {
    let MeterSpec {
        rate_kbit,
        burst_kbit,
    } = spec;
    format!("meter {id} drops above {rate_kbit} kbit/s, burst {burst_kbit} kbit")
}

/// A meter of whatever kind.
pub fn meter_of(id: u32, bands: &[Band]) -> String {
    match bands {
        [Band::Drop { rate, burst_size }] => meter(
            id,
            MeterSpec {
                rate_kbit: *rate,
                burst_kbit: *burst_size,
            },
        ),
        _ => format!("meter {id} with {} bands: {bands:?}", bands.len()),
    }
}

fn some(parts: &[String], between: &str, none: &str) -> String {
    match parts {
        [] => none.to_owned(),
        parts => parts.join(between),
    }
}

/// Ports' masks are read in hexadecimal.
fn masked_port(name: &str, value: u16, mask: Option<u16>) -> String {
    match mask {
        Some(mask) => format!("{name}={value}/{mask:#06x}"),
        None => format!("{name}={value}"),
    }
}

fn masked<T: Display>(name: &str, value: T, mask: Option<T>) -> String {
    match mask {
        Some(mask) => format!("{name}={value}/{mask}"),
        None => format!("{name}={value}"),
    }
}

fn field(field: &Field) -> String {
    let mac = MacAddress::new;
    match field {
        Field::InPort(port) => format!("in_port={}", self::port(*port)),
        Field::Metadata { value, mask } => masked("metadata", *value, *mask),
        Field::EthDst { value, mask } => masked("eth_dst", mac(*value), mask.map(mac)),
        Field::EthSrc { value, mask } => masked("eth_src", mac(*value), mask.map(mac)),
        Field::EthType(value) => format!("eth_type={value:#06x}"),
        Field::VlanVid {
            value: 0,
            mask: None,
        } => "vlan=none".into(),
        Field::VlanVid { value, mask: None } if value & VLAN_PRESENT != 0 => {
            format!("vlan={}", value & !VLAN_PRESENT)
        }
        Field::IpProto(value) => format!("ip_proto={value}"),
        Field::Ipv4Src { addr, mask } => masked("ipv4_src", *addr, *mask),
        Field::Ipv4Dst { addr, mask } => masked("ipv4_dst", *addr, *mask),
        Field::ArpSpa { addr, mask } => masked("arp_spa", *addr, *mask),
        Field::ArpTpa { addr, mask } => masked("arp_tpa", *addr, *mask),
        Field::ArpSha(value) => format!("arp_sha={}", mac(*value)),
        Field::Ipv6Src { addr, mask } => masked("ipv6_src", *addr, *mask),
        Field::Ipv6Dst { addr, mask } => masked("ipv6_dst", *addr, *mask),
        Field::TcpSrc { value, mask } => masked_port("tcp_src", *value, *mask),
        Field::TcpDst { value, mask } => masked_port("tcp_dst", *value, *mask),
        Field::UdpSrc { value, mask } => masked_port("udp_src", *value, *mask),
        Field::UdpDst { value, mask } => masked_port("udp_dst", *value, *mask),
        Field::SctpSrc { value, mask } => masked_port("sctp_src", *value, *mask),
        Field::SctpDst { value, mask } => masked_port("sctp_dst", *value, *mask),
        Field::Icmpv4Type(value) => format!("icmpv4_type={value}"),
        Field::Icmpv6Type(value) => format!("icmpv6_type={value}"),
        Field::Icmpv6Code(value) => format!("icmpv6_code={value}"),
        Field::Ipv6NdTarget(addr) => format!("nd_target={addr}"),
        // fields that no rule of ours has, as the library writes them
        other => format!("{other:?}"),
    }
}

fn instruction(instruction: &Instruction) -> String {
    match instruction {
        Instruction::GotoTable(table) => format!("table {table}"),
        Instruction::WriteMetadata {
            value,
            mask: u64::MAX,
        } => format!("metadata {value}"),
        Instruction::WriteMetadata { value, mask } => format!("metadata {value:#x}/{mask:#x}"),
        Instruction::ApplyActions(list) => actions(list),
        Instruction::WriteActions(list) => format!("at the end {}", actions(list)),
        Instruction::ClearActions => "nothing at the end".into(),
        Instruction::Meter(id) => format!("meter {id}"),
        Instruction::Other { kind, .. } => format!("instruction {kind}"),
    }
}

fn actions(actions: &[Action]) -> String {
    let mut text = String::new();
    for (n, action) in actions.iter().enumerate() {
        let between = if n == 0 { "" } else { ", " };
        let word = match action {
            Action::Output { port, .. } => format!("port {}", self::port(*port)),
            Action::Group(id) => format!("group {id:#x}"),
            Action::PushVlan(_) => "push vlan".into(),
            Action::PopVlan => "pop vlan".into(),
            Action::SetField(set) => format!("set {}", field(set)),
            Action::SetQueue(queue) => format!("queue {queue}"),
            Action::Other { kind, .. } => format!("action {kind}"),
        };
        // writing into a string cannot fail
        let _ = write!(text, "{between}{word}");
    }
    text
}

fn port(number: u32) -> String {
    match number {
        PORT_CONTROLLER => "controller".into(),
        PORT_NORMAL => "normal".into(),
        PORT_FLOOD => "flood".into(),
        PORT_LOCAL => "local".into(),
        PORT_IN_PORT => "in_port".into(),
        number => number.to_string(),
    }
}
