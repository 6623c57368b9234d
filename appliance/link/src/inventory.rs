//! What links a namespace has, as the kernel says it. Facts only; the guard that decides whether a
//! NIC may be taken stands elsewhere and reads them.

use crate::{
    Conn, Error, Result,
    address::{self, AddressState},
    route::{self, RouteState},
};
use dtn_api::{IfName, MacAddress, PciAddress};
use netlink_packet_core::DefaultNla;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Prop, Stats64},
};
use serde::{Deserialize, Serialize};

/// `IFLA_ALT_IFNAME` of the kernel's `if_link.h`.
const IFLA_ALT_IFNAME: u16 = 53;

/// Byte, packet and loss counters of a link since it was made (`rtnl_link_stats64`); they go with
/// it into another namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinkCounters {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets that came in and were bad.
    pub rx_errors: u64,
    /// Packets that came in and were dropped, by the device or for want of buffers.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets that were dropped on the way out.
    pub tx_dropped: u64,
}

/// What counts faults of a link since it was made: the parts that [`LinkCounters`] sums up, and how
/// often the carrier came or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinkFaults {
    /// Frames with a wrong checksum: a bad cable, module or connector.
    pub crc: u64,
    /// Frames of a length that cannot be.
    pub length: u64,
    /// Frames that were not whole bytes.
    pub frame: u64,
    /// Frames that came faster than the card could hand them on.
    pub fifo: u64,
    /// Frames for which no buffer was free: the host was too slow.
    pub missed: u64,
    /// Frames that the stack dropped when they came in.
    pub dropped: u64,
    /// Frames that could not be sent because the carrier was lost on the way.
    pub carrier: u64,
    /// How often the carrier came or went.
    pub carrier_changes: u64,
}

impl LinkFaults {
    /// What was added since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let less = u64::saturating_sub;
        Self {
            crc: less(self.crc, earlier.crc),
            length: less(self.length, earlier.length),
            frame: less(self.frame, earlier.frame),
            fifo: less(self.fifo, earlier.fifo),
            missed: less(self.missed, earlier.missed),
            dropped: less(self.dropped, earlier.dropped),
            carrier: less(self.carrier, earlier.carrier),
            carrier_changes: less(self.carrier_changes, earlier.carrier_changes),
        }
    }
}

/// A link as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinkState {
    /// Its index; the same after a move only where that index is free in the new namespace.
    pub index: u32,
    /// Its name. Not an `IfName`: the kernel allows bytes that we do not.
    pub name: String,
    /// Its other names (`ip link property`).
    pub altnames: Vec<String>,
    /// The hardware address in use; none on links without an Ethernet address.
    pub mac: Option<MacAddress>,
    /// The address burnt in, where the driver tells it (`IFLA_PERM_ADDRESS`); veth has none.
    pub permanent_mac: Option<MacAddress>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Up and able to pass packets (`IFF_RUNNING`).
    pub running: bool,
    /// The other side is there (`IFLA_CARRIER`).
    pub carrier: bool,
    /// It is the loopback.
    pub loopback: bool,
    /// What kind of virtual link it is (`veth`, `bridge`, `macvlan`); none for hardware.
    pub kind: Option<String>,
    /// Name of the device that it belongs to, on its bus: `0000:3b:00.0` or `virtio0`; none of
    /// virtual links. Unlike sysfs, netlink tells it in whatever namespace the link is.
    pub device: Option<String>,
    /// The bus of that device: `pci`, `virtio`, `auxiliary`.
    pub bus: Option<String>,
    /// Index of the bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// Index of the link below it (of a VLAN or macvlan) or of the other end (of a veth).
    pub lower: Option<u32>,
    /// Number of the namespace in which `lower` counts, where it is another one.
    pub lower_netns: Option<i32>,
    /// Length of the transmit queue, in packets.
    pub tx_queue_len: u32,
    /// Its alias, free text.
    pub alias: Option<String>,
    /// Largest packet that TCP hands down, in bytes (`gso_max_size`).
    pub gso_max_size: Option<u32>,
    /// Largest packet that receiving merges to, in bytes (`gro_max_size`).
    pub gro_max_size: Option<u32>,
    /// An administrator turned promiscuous mode on (`IFF_PROMISC`).
    pub promiscuous: bool,
    /// Counters.
    pub counters: LinkCounters,
    /// Counters of faults.
    #[serde(default)]
    pub faults: LinkFaults,
}

impl LinkState {
    /// Whether it answers to this name or alternative name.
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name || self.altnames.iter().any(|alt| alt == name)
    }

    /// Where it sits, if the link is that of a PCI function itself. Of virtio and auxiliary
    /// devices sysfs knows the function above ([`crate::sysfs`]).
    pub fn pci(&self) -> Option<PciAddress> {
        match self.bus.as_deref() {
            Some("pci") => self.device.as_deref()?.parse().ok(),
            _ => None,
        }
    }

    fn read(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Running),
            loopback: flags.contains(LinkFlags::Loopback),
            promiscuous: flags.contains(LinkFlags::Promisc),
            ..Self::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::PropList(list) => {
                    link.altnames = list
                        .into_iter()
                        .filter_map(|property| match property {
                            Prop::AltIfName(name) => Some(name),
                            _ => None,
                        })
                        .collect();
                    link.altnames.sort();
                }
                LinkAttribute::Address(bytes) => link.mac = mac(&bytes),
                LinkAttribute::PermAddress(bytes) => link.permanent_mac = mac(&bytes),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Carrier(carrier) => link.carrier = carrier != 0,
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(InfoKind::to_string(&kind)),
                        _ => None,
                    });
                }
                LinkAttribute::Controller(index) => link.master = Some(index).filter(|i| *i != 0),
                LinkAttribute::Link(index) => link.lower = Some(index).filter(|i| *i != 0),
                LinkAttribute::LinkNetNsId(id) => link.lower_netns = Some(id),
                LinkAttribute::ParentDevName(name) => link.device = Some(name),
                LinkAttribute::ParentDevBusName(bus) => link.bus = Some(bus),
                LinkAttribute::TxQueueLen(length) => link.tx_queue_len = length,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::GsoMaxSize(size) => link.gso_max_size = Some(size),
                LinkAttribute::GroMaxSize(size) => link.gro_max_size = Some(size),
                LinkAttribute::Stats64(stats) => {
                    link.counters = counters(&stats);
                    link.faults = LinkFaults {
                        carrier_changes: link.faults.carrier_changes,
                        ..faults(&stats)
                    };
                }
                LinkAttribute::CarrierChanges(times) => {
                    link.faults.carrier_changes = u64::from(times);
                }
                _ => {}
            }
        }
        link
    }
}

/// An Ethernet address that is one; other links have 4, 16 or 20 bytes, and a NIC whose driver
/// tells nothing has six zeros.
fn mac(bytes: &[u8]) -> Option<MacAddress> {
    let mac = MacAddress::new(bytes.try_into().ok()?);
    (mac != MacAddress::new([0; 6])).then_some(mac)
}

fn counters(stats: &Stats64) -> LinkCounters {
    LinkCounters {
        rx_bytes: stats.rx_bytes,
        rx_packets: stats.rx_packets,
        rx_errors: stats.rx_errors,
        // of a NIC whose ring ran over, `rx_missed_errors` counts and `rx_dropped` does not
        rx_dropped: stats.rx_dropped + stats.rx_missed_errors,
        tx_bytes: stats.tx_bytes,
        tx_packets: stats.tx_packets,
        tx_errors: stats.tx_errors,
        tx_dropped: stats.tx_dropped,
    }
}

fn faults(stats: &Stats64) -> LinkFaults {
    LinkFaults {
        crc: stats.rx_crc_errors,
        length: stats.rx_length_errors,
        frame: stats.rx_frame_errors,
        fifo: stats.rx_fifo_errors + stats.rx_over_errors,
        missed: stats.rx_missed_errors,
        dropped: stats.rx_dropped,
        carrier: stats.tx_carrier_errors,
        carrier_changes: 0,
    }
}

/// Every link of the namespace, by index.
pub async fn links(conn: &Conn) -> Result<Vec<LinkState>> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let mut links: Vec<_> = conn
        .dump("listing the links", request)
        .await?
        .into_iter()
        .filter_map(|object| match object {
            RouteNetlinkMessage::NewLink(link) => Some(LinkState::read(link)),
            _ => None,
        })
        .collect();
    links.sort_by_key(|link| link.index);
    Ok(links)
}

async fn one(conn: &Conn, what: String, request: LinkMessage) -> Result<LinkState> {
    let doing = format!("reading the link {what}");
    match conn
        .get(&doing, RouteNetlinkMessage::GetLink(request))
        .await
    {
        Ok(RouteNetlinkMessage::NewLink(link)) => Ok(LinkState::read(link)),
        Ok(_) => Err(Error::NoAnswer { doing }),
        Err(e) if e.is_not_found() => Err(Error::not_found(format!("link {what}"))),
        Err(e) => Err(e),
    }
}

/// The link with this index.
pub async fn link(conn: &Conn, index: u32) -> Result<LinkState> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    one(conn, format!("with index {index}"), request).await
}

/// The link with this name or alternative name.
pub async fn link_by_name(conn: &Conn, name: &str) -> Result<LinkState> {
    let mut request = LinkMessage::default();
    // a name of more than 15 bytes can only be an alternative one, which has its own attribute
    request.attributes.push(if name.len() < 16 {
        LinkAttribute::IfName(name.to_owned())
    } else {
        let with_zero = name.bytes().chain([0]).collect();
        LinkAttribute::Other(DefaultNla::new(IFLA_ALT_IFNAME, with_zero))
    });
    one(conn, name.to_owned(), request).await
}

/// [`link_by_name`] for a name that was checked.
pub async fn link_named(conn: &Conn, name: &IfName) -> Result<LinkState> {
    link_by_name(conn, name.as_str()).await
}

/// All that a guard asks about the links of one namespace, read in one go.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Inventory {
    /// The links, by index.
    pub links: Vec<LinkState>,
    /// The addresses on them.
    pub addresses: Vec<AddressState>,
    /// The routes, of all tables but `local`.
    pub routes: Vec<RouteState>,
}

impl Inventory {
    /// Reads it.
    pub async fn read(conn: &Conn) -> Result<Self> {
        Ok(Self {
            links: links(conn).await?,
            addresses: address::list(conn, None).await?,
            routes: route::list(conn).await?,
        })
    }

    /// The link with this index.
    pub fn link(&self, index: u32) -> Option<&LinkState> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The link with this name or alternative name.
    pub fn by_name(&self, name: &str) -> Option<&LinkState> {
        self.links.iter().find(|link| link.is_named(name))
    }

    /// Addresses on a link.
    pub fn addresses_of(&self, index: u32) -> impl Iterator<Item = &AddressState> {
        self.addresses.iter().filter(move |a| a.index == index)
    }

    /// Indices of the links that a default route of either family goes out of, in whatever table.
    pub fn default_route_links(&self) -> Vec<u32> {
        let defaults = self.routes.iter().filter(|r| r.is_default());
        let mut found: Vec<u32> = defaults.flat_map(RouteState::links).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Links of this namespace that stand on the link with this index: VLANs, macvlans and others.
    /// Not the other end of a veth. Children that live in other namespaces cannot be seen from
    /// here; whoever put them there has to remember them.
    pub fn children_of(&self, index: u32) -> impl Iterator<Item = &LinkState> {
        self.links.iter().filter(move |link| {
            link.lower == Some(index)
                && link.lower_netns.is_none()
                && link.index != index
                && link.kind.as_deref() != Some("veth")
        })
    }

    /// The bridge, bond or team that the link with this index is a port of.
    pub fn master_of(&self, index: u32) -> Option<&LinkState> {
        self.link(self.link(index)?.master?)
    }

    /// The links that depend on the link with this index, itself included: what it is a port of
    /// and what stands on it, over any number of steps. A default route over `bond0.100` depends
    /// on both of the bond's ports.
    pub fn dependents_of(&self, index: u32) -> Vec<u32> {
        let mut found = vec![index];
        let mut next = 0;
        while let Some(current) = found.get(next).copied() {
            next += 1;
            let above = self.link(current).and_then(|link| link.master);
            let children = self.children_of(current).map(|link| link.index);
            for index in children.chain(above).collect::<Vec<_>>() {
                if !found.contains(&index) {
                    found.push(index);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: Option<&str>, lower: Option<u32>, master: Option<u32>) -> LinkState {
        LinkState {
            index,
            name: format!("l{index}"),
            kind: kind.map(str::to_owned),
            lower,
            master,
            ..LinkState::default()
        }
    }

    #[test]
    fn dependents_are_found_through_bonds_and_vlans() {
        let inventory = Inventory {
            links: vec![
                link(2, None, None, Some(4)),
                link(3, None, None, Some(4)),
                link(4, Some("bond"), None, None),
                link(5, Some("vlan"), Some(4), None),
                link(6, None, None, None),
                link(7, Some("veth"), Some(6), None),
            ],
            ..Inventory::default()
        };
        assert_eq!(inventory.dependents_of(2), [2, 4, 5]);
        assert_eq!(inventory.dependents_of(6), [6]);
        assert_eq!(inventory.master_of(3).unwrap().index, 4);
        let children: Vec<u32> = inventory.children_of(4).map(|l| l.index).collect();
        assert_eq!(children, [5]);
        assert_eq!(inventory.dependents_of(99), [99]);
    }

    #[test]
    fn a_link_that_stands_in_another_namespace_is_no_child() {
        let mut far = link(8, Some("macvlan"), Some(2), None);
        far.lower_netns = Some(0);
        let inventory = Inventory {
            links: vec![link(2, None, None, None), far],
            ..Inventory::default()
        };
        assert_eq!(inventory.children_of(2).count(), 0);
    }

    #[test]
    fn only_devices_of_the_pci_bus_have_a_pci_address() {
        let mut nic = link(2, None, None, None);
        assert_eq!(nic.pci(), None);
        nic.device = Some("0000:3b:00.0".to_owned());
        nic.bus = Some("pci".to_owned());
        assert_eq!(nic.pci().unwrap().as_str(), "0000:3b:00.0");
        nic.bus = Some("virtio".to_owned());
        assert_eq!(nic.pci(), None);
    }

    #[test]
    fn addresses_that_are_not_of_ethernet_are_none() {
        assert_eq!(mac(&[0; 6]), None);
        assert_eq!(mac(&[1, 2, 3, 4]), None);
        assert!(mac(&[2, 0, 0, 0, 0, 1]).is_some());
    }
}
