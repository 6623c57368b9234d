//! Matches in the words of ONOS's REST. Pure.

use dtn_api::MacAddress;
use dtn_openflow::{Field, VLAN_PRESENT};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The tag of a slice.
pub(super) fn tunnel(id: u64) -> Value {
    json!({"type": "TUNNEL_ID", "tunnelId": id})
}

/// An address with its prefix; masks of ours have no holes.
fn v4(addr: Ipv4Addr, mask: Option<Ipv4Addr>) -> String {
    let mask = mask.unwrap_or(Ipv4Addr::BROADCAST);
    format!("{addr}/{}", mask.to_bits().leading_ones())
}
fn v6(addr: Ipv6Addr, mask: Option<Ipv6Addr>) -> String {
    let mask = mask.map_or(u128::MAX, u128::from);
    format!("{addr}/{}", mask.leading_ones())
}

/// What a frame must be, in ONOS's words; none where nothing is to be said.
pub(super) fn criterion(field: &Field) -> Result<Option<Value>, String> {
    let mac = |bytes: [u8; 6]| MacAddress::new(bytes).to_string();
    Ok(Some(match field {
        Field::InPort(port) => json!({"type": "IN_PORT", "port": port}),
        Field::Metadata { value, mask: None } => tunnel(*value),
        Field::EthDst { value, mask: None } => json!({"type": "ETH_DST", "mac": mac(*value)}),
        Field::EthDst {
            value,
            mask: Some(mask),
        } => {
            json!({"type": "ETH_DST_MASKED", "mac": mac(*value), "macMask": mac(*mask)})
        }
        Field::EthSrc { value, mask: None } => json!({"type": "ETH_SRC", "mac": mac(*value)}),
        Field::EthType(kind) => json!({"type": "ETH_TYPE", "ethType": format!("0x{kind:x}")}),
        // VlanId.NONE of ONOS
        Field::VlanVid {
            value: 0,
            mask: None,
        } => json!({"type": "VLAN_VID", "vlanId": -1}),
        Field::VlanVid { value, mask: None } => {
            json!({"type": "VLAN_VID", "vlanId": value & !VLAN_PRESENT})
        }
        Field::IpProto(proto) => json!({"type": "IP_PROTO", "protocol": proto}),
        Field::Ipv4Src { addr, mask } => json!({"type": "IPV4_SRC", "ip": v4(*addr, *mask)}),
        Field::Ipv4Dst { addr, mask } => json!({"type": "IPV4_DST", "ip": v4(*addr, *mask)}),
        Field::Ipv6Src { addr, mask } => json!({"type": "IPV6_SRC", "ip": v6(*addr, *mask)}),
        Field::Ipv6Dst { addr, mask } => json!({"type": "IPV6_DST", "ip": v6(*addr, *mask)}),
        Field::TcpSrc { value, mask: None } => json!({"type": "TCP_SRC", "tcpPort": value}),
        Field::TcpDst { value, mask: None } => json!({"type": "TCP_DST", "tcpPort": value}),
        Field::UdpSrc { value, mask: None } => json!({"type": "UDP_SRC", "udpPort": value}),
        Field::UdpDst { value, mask: None } => json!({"type": "UDP_DST", "udpPort": value}),
        Field::SctpSrc { value, mask: None } => json!({"type": "SCTP_SRC", "sctpPort": value}),
        Field::SctpDst { value, mask: None } => json!({"type": "SCTP_DST", "sctpPort": value}),
        Field::Icmpv4Type(kind) => json!({"type": "ICMPV4_TYPE", "icmpType": kind}),
        Field::Icmpv6Type(kind) => json!({"type": "ICMPV6_TYPE", "icmpv6Type": kind}),
        Field::Icmpv6Code(code) => json!({"type": "ICMPV6_CODE", "icmpv6Code": code}),
        Field::Ipv6NdTarget(addr) => json!({"type": "IPV6_ND_TARGET", "targetAddress": addr}),
        Field::ArpSpa { .. } | Field::ArpSha(_) => return Ok(None),
        other => return Err(format!("ONOS's REST has no criterion for {other:?}")),
    }))
}
