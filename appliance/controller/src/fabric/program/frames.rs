//! Which frames a rule is for, as OpenFlow matches with all that they require (OpenFlow 1.3.5
//! §7.2.3.8).

use crate::dhcp;
use dtn_api::MacAddress;
use dtn_openflow::{Field, Match, VLAN_PRESENT};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// There is no tag (`OFPVID_NONE`).
const VLAN_NONE: u16 = 0;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of a VLAN tag (IEEE 802.1Q).
pub const DOT1Q: u16 = 0x8100;
/// EtherType of link discovery (IEEE 802.1AB-2016 §7.3).
pub const LLDP: u16 = 0x88cc;
const ICMPV6: u8 = 58;
const UDP: u8 = 17;
/// ICMPv6 type of a neighbour solicitation (RFC 4861 §4.3).
pub const SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement (RFC 4861 §4.4).
pub const ADVERTISEMENT: u8 = 136;
const BROADCAST: [u8; 6] = [0xff; 6];
/// Where IPv6 multicast goes (RFC 2464 §7).
const V6_MULTICAST: ([u8; 6], [u8; 6]) = ([0x33, 0x33, 0, 0, 0, 0], [0xff, 0xff, 0, 0, 0, 0]);
/// To one station, whichever: the group bit is clear (IEEE 802 §8.2).
const ONE_STATION: Field = Field::EthDst {
    value: [0; 6],
    mask: Some([1, 0, 0, 0, 0, 0]),
};
const LINK_LOCAL: (Ipv6Addr, Ipv6Addr) = (
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
    Ipv6Addr::new(0xffc0, 0, 0, 0, 0, 0, 0, 0),
);

/// What a member sends: a frame without tag from its hardware address. With a tag it could pass
/// for what it is not behind the tag that the slice puts around it.
fn sent(mac: MacAddress, ethertype: u16) -> Vec<Field> {
    vec![
        Field::EthSrc {
            value: mac.bytes(),
            mask: None,
        },
        Field::EthType(ethertype),
        Field::VlanVid {
            value: VLAN_NONE,
            mask: None,
        },
    ]
}

/// A member's packets from one of its addresses.
pub(super) fn packets(mac: MacAddress, ip: IpAddr) -> Match {
    let (mut fields, source) = match ip {
        IpAddr::V4(addr) => (sent(mac, IPV4), Field::Ipv4Src { addr, mask: None }),
        IpAddr::V6(addr) => (sent(mac, IPV6), Field::Ipv6Src { addr, mask: None }),
    };
    fields.push(source);
    Match::new(fields)
}

/// What a gateway forwards for strangers, of the family of one of its addresses: from its hardware
/// address to one station, since nothing else is forwarded.
pub(super) fn strangers(mac: MacAddress, ip: IpAddr) -> Match {
    let mut fields = sent(mac, if ip.is_ipv4() { IPV4 } else { IPV6 });
    fields.push(ONE_STATION);
    Match::new(fields)
}

/// A member's ARP from one of its addresses.
pub(super) fn arp(mac: MacAddress, addr: Ipv4Addr) -> Match {
    let mut fields = sent(mac, ARP);
    fields.push(Field::ArpSpa { addr, mask: None });
    fields.push(Field::ArpSha(mac.bytes()));
    Match::new(fields)
}

fn discovery(mac: MacAddress, kind: u8, from: (Ipv6Addr, Option<Ipv6Addr>)) -> Vec<Field> {
    let mut fields = sent(mac, IPV6);
    fields.extend([
        Field::IpProto(ICMPV6),
        Field::Icmpv6Type(kind),
        // the only code there is, and a switch looks for the fields of discovery behind it alone
        Field::Icmpv6Code(0),
        Field::Ipv6Src {
            addr: from.0,
            mask: from.1,
        },
    ]);
    fields
}

/// A member's neighbour discovery: it asks from its addresses, from a link-local one, and from none
/// (RFC 4862 §5.4.2); it answers only for its addresses and for the link-local one that its
/// hardware address makes, since an answer for another's would take that one's traffic.
pub(super) fn neighbour_discovery(mac: MacAddress, ips: &[Ipv6Addr]) -> Vec<Match> {
    let sources: Vec<_> = ips
        .iter()
        .map(|ip| (*ip, None))
        .chain([(LINK_LOCAL.0, Some(LINK_LOCAL.1))])
        .collect();
    let asked = sources
        .iter()
        .copied()
        .chain([(Ipv6Addr::UNSPECIFIED, None)])
        .map(|from| discovery(mac, SOLICITATION, from));
    let answered = sources.iter().copied().flat_map(|from| {
        ips.iter()
            .copied()
            .chain([link_local(mac)])
            .map(move |target| {
                let mut fields = discovery(mac, ADVERTISEMENT, from);
                fields.push(Field::Ipv6NdTarget(target));
                fields
            })
    });
    asked.chain(answered).map(Match::new).collect()
}

/// Neighbour discovery, whoever's.
pub(super) fn any_discovery() -> [Match; 2] {
    [SOLICITATION, ADVERTISEMENT].map(|kind| {
        Match::new([
            Field::EthType(IPV6),
            Field::IpProto(ICMPV6),
            Field::Icmpv6Type(kind),
        ])
    })
}

/// The link-local address that a kernel makes of a hardware address (RFC 4291 appendix A).
pub fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.bytes();
    let pair = |high, low| u16::from_be_bytes([high, low]);
    let (first, second) = (pair(a ^ 2, b), pair(c, 0xff));
    Ipv6Addr::new(0xfe80, 0, 0, 0, first, second, pair(0xfe, d), pair(e, f))
}

/// What comes with a VLAN.
pub(super) fn labelled(label: u16) -> Match {
    Match::new(vec![Field::VlanVid {
        value: label | VLAN_PRESENT,
        mask: None,
    }])
}

/// Asks all, on top of what is asked of a member's ARP (RFC 826: the operation 1).
pub(super) fn request() -> Vec<Field> {
    let all = Field::EthDst {
        value: BROADCAST,
        mask: None,
    };
    vec![all, Field::ArpOp(1)]
}

/// A frame without tag, whoever's.
fn untagged(ethertype: u16) -> [Field; 2] {
    let vlan = Field::VlanVid {
        value: VLAN_NONE,
        mask: None,
    };
    [Field::EthType(ethertype), vlan]
}

/// What a host asks by DHCP of a server, or of all.
pub(super) fn dhcp(server: Ipv4Addr) -> Match {
    let fields = [
        Field::IpProto(UDP),
        Field::UdpSrc {
            value: dhcp::CLIENT_PORT,
            mask: None,
        },
        Field::UdpDst {
            value: dhcp::SERVER_PORT,
            mask: None,
        },
        Field::Ipv4Dst {
            addr: server,
            mask: None,
        },
    ];
    Match::new(untagged(IPV4).into_iter().chain(fields))
}

/// Who asks for the hardware address of this one, of all or of it alone.
pub(super) fn who_has(addr: Ipv4Addr) -> Match {
    let fields = [Field::ArpOp(1), Field::ArpTpa { addr, mask: None }];
    Match::new(untagged(ARP).into_iter().chain(fields))
}

/// To several stations that listen for an IPv6 address.
pub(super) fn to_v6_multicast() -> Field {
    Field::EthDst {
        value: V6_MULTICAST.0,
        mask: Some(V6_MULTICAST.1),
    }
}

/// Link discovery, to whatever address and whoever's.
pub(super) fn link_discovery() -> Match {
    Match::new([Field::EthType(LLDP)])
}

/// Everything.
pub(super) fn anything() -> Match {
    Match::new(Vec::new())
}

/// Frames of a slice, behind table 0.
pub(super) fn tagged(tag: u16, mut more: Vec<Field>) -> Match {
    more.push(Field::Metadata {
        value: u64::from(tag),
        mask: None,
    });
    Match::new(more)
}

/// Everything of a slice.
pub(super) fn of(tag: u16) -> Match {
    tagged(tag, Vec::new())
}

/// What goes to a hardware address of a slice.
pub(super) fn to(tag: u16, mac: MacAddress) -> Match {
    let value = mac.bytes();
    tagged(tag, vec![Field::EthDst { value, mask: None }])
}

/// What goes to one station, whichever.
pub(super) fn to_one(tag: u16) -> Match {
    tagged(tag, vec![ONE_STATION])
}

/// What everyone in a slice must hear for addresses to be found: ARP to all, neighbour discovery
/// to a multicast address. Nothing else is sent to all.
pub(super) fn to_all(tag: u16) -> Vec<Match> {
    let arp = tagged(
        tag,
        vec![
            Field::EthDst {
                value: BROADCAST,
                mask: None,
            },
            Field::EthType(ARP),
        ],
    );
    let discovery = [SOLICITATION, ADVERTISEMENT].map(|kind| {
        tagged(
            tag,
            vec![
                Field::EthDst {
                    value: V6_MULTICAST.0,
                    mask: Some(V6_MULTICAST.1),
                },
                Field::EthType(IPV6),
                Field::IpProto(ICMPV6),
                Field::Icmpv6Type(kind),
            ],
        )
    });
    [arp].into_iter().chain(discovery).collect()
}
