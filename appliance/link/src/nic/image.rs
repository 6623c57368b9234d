//! The before-image of a NIC: everything that a move loses or a pod can change, and how the NIC is
//! known again whatever it is called.

use crate::{
    Conn, Netns, Result,
    address::{self, AddressState},
    inventory::{self, LinkState},
    route::{self, RouteState},
};
use dtn_api::MacAddress;
use serde::{Deserialize, Serialize};

/// Everything about a NIC that a move loses or a pod can change, as it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeforeImage {
    /// Inode of the namespace that it was in.
    pub netns_inode: u64,
    /// Its index there.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its other names.
    #[serde(default)]
    pub altnames: Vec<String>,
    /// Its alias.
    #[serde(default)]
    pub alias: Option<String>,
    /// Hardware address in use.
    pub mac: Option<MacAddress>,
    /// Hardware address burnt in.
    #[serde(default)]
    pub permanent_mac: Option<MacAddress>,
    /// Name of the device that it belongs to, on its bus: `0000:3b:00.0`.
    #[serde(default)]
    pub device: Option<String>,
    /// Kind of virtual link, where it is one.
    #[serde(default)]
    pub kind: Option<String>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Length of the transmit queue, in packets.
    pub tx_queue_len: u32,
    /// Administratively up.
    pub up: bool,
    /// Promiscuous mode.
    #[serde(default)]
    pub promiscuous: bool,
    /// Largest packet that TCP hands down, in bytes.
    #[serde(default)]
    pub gso_max_size: Option<u32>,
    /// Largest packet that receiving merges to, in bytes.
    #[serde(default)]
    pub gro_max_size: Option<u32>,
    /// Its addresses; those with a lifetime are for the tool that got them to get again.
    #[serde(default)]
    pub addresses: Vec<AddressState>,
    /// The routes out of it.
    #[serde(default)]
    pub routes: Vec<RouteState>,
}

impl BeforeImage {
    /// Takes the image of a NIC in the namespace of the connection.
    pub async fn capture(conn: &Conn, netns: &Netns, index: u32) -> Result<Self> {
        let state = inventory::link(conn, index).await?;
        Ok(Self {
            netns_inode: netns.inode(),
            index,
            name: state.name,
            altnames: state.altnames,
            alias: state.alias,
            mac: state.mac,
            permanent_mac: state.permanent_mac,
            device: state.device,
            kind: state.kind,
            mtu: state.mtu,
            tx_queue_len: state.tx_queue_len,
            up: state.up,
            promiscuous: state.promiscuous,
            gso_max_size: state.gso_max_size,
            gro_max_size: state.gro_max_size,
            addresses: address::list(conn, Some(index)).await?,
            routes: route::list_of(conn, index).await?,
        })
    }

    /// Whether a link can be the NIC of this image, by what a pod cannot change: the burnt-in
    /// address, the device, the kind. Of a link without hardware (veth) that is its kind alone.
    pub fn may_be(&self, link: &LinkState) -> bool {
        self.kind == link.kind
            && self.permanent_mac == link.permanent_mac
            && self.device == link.device
            && !link.loopback
    }

    /// The NIC of this image among the links of a namespace, whatever its name there is now.
    /// Hardware is known by its device and burnt-in address. A link without hardware is known by
    /// its index if nothing speaks against it, else by its old name and address together.
    pub fn find<'a>(&self, links: &'a [LinkState]) -> Option<&'a LinkState> {
        let mut candidates = links.iter().filter(|link| self.may_be(link));
        if self.device.is_some() || self.permanent_mac.is_some() {
            let first = candidates.next();
            // two ports of one function with one address cannot be told apart: neither is taken
            return first.filter(|_| candidates.next().is_none());
        }
        let all: Vec<_> = candidates.collect();
        all.iter()
            .find(|link| link.index == self.index && link.mac == self.mac)
            .or_else(|| {
                all.iter()
                    .find(|link| link.is_named(&self.name) && link.mac == self.mac)
            })
            .copied()
    }

    /// The addresses that are restored: set to stay and not made by the kernel.
    pub(super) fn own_addresses(&self) -> impl Iterator<Item = &AddressState> {
        self.addresses
            .iter()
            .filter(|a| a.permanent && !a.is_link_local())
    }

    /// The routes that are restored: those that somebody set. Those of DHCP and of router
    /// advertisements come with the addresses of theirs, from the tool that asks for them.
    pub(super) fn own_routes(&self) -> impl Iterator<Item = &RouteState> {
        self.routes
            .iter()
            .filter(|r| r.unicast && r.hops.is_empty() && !r.made_by_kernel() && !r.from_dhcp())
    }
}
