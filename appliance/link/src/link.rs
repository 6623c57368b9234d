//! Links: make them, set them, delete them.

use crate::{Conn, Error, Netns, Result, conn::Mode};
use dtn_api::{IfName, MacAddress};
use netlink_packet_core::DefaultNla;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
        Prop,
    },
};
use std::os::fd::{AsFd, AsRawFd};

/// `IFLA_IFALIAS` of the kernel's `if_link.h`.
const IFLA_IFALIAS: u16 = 20;

/// What shall change on a link. Everything in it goes to the kernel in one message.
#[derive(Debug, Clone, Default)]
pub struct Change {
    attributes: Vec<LinkAttribute>,
    flags: LinkFlags,
    mask: LinkFlags,
}

impl Change {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
    fn with(mut self, attribute: LinkAttribute) -> Self {
        self.attributes.push(attribute);
        self
    }
    fn flag(mut self, flag: LinkFlags, on: bool) -> Self {
        self.mask |= flag;
        self.flags.set(flag, on);
        self
    }
    /// Administratively up or down.
    pub fn up(self, up: bool) -> Self {
        self.flag(LinkFlags::Up, up)
    }
    /// Promiscuous mode on or off.
    pub fn promiscuous(self, on: bool) -> Self {
        self.flag(LinkFlags::Promisc, on)
    }
    /// A new name. The kernel renames a link that is up only since 6.2, so be down.
    pub fn name(self, name: &str) -> Self {
        self.with(LinkAttribute::IfName(name.to_owned()))
    }
    /// A new hardware address.
    pub fn mac(self, mac: MacAddress) -> Self {
        self.with(LinkAttribute::Address(mac.bytes().to_vec()))
    }
    /// MTU in bytes.
    pub fn mtu(self, mtu: u32) -> Self {
        self.with(LinkAttribute::Mtu(mtu))
    }
    /// Length of the transmit queue, in packets.
    pub fn tx_queue_len(self, packets: u32) -> Self {
        self.with(LinkAttribute::TxQueueLen(packets))
    }
    /// A new alias; an empty one clears it.
    pub fn alias(self, alias: &str) -> Self {
        // without the closing zero: the kernel takes the length as it is
        self.with(LinkAttribute::Other(DefaultNla::new(
            IFLA_IFALIAS,
            alias.as_bytes().to_vec(),
        )))
    }
    /// Port of the bridge or bond with this index; 0 is of none.
    pub fn master(self, index: u32) -> Self {
        self.with(LinkAttribute::Controller(index))
    }
    /// Into another namespace. The handle must live until the change was made.
    pub fn netns(self, netns: &Netns) -> Self {
        self.with(netns_attribute(netns))
    }
    /// Largest packet that TCP hands down, and that receiving merges to, in bytes.
    pub fn gso_gro_max_size(self, gso: u32, gro: u32) -> Self {
        self.with(LinkAttribute::GsoMaxSize(gso))
            .with(LinkAttribute::GroMaxSize(gro))
    }
}

pub(crate) fn netns_attribute(netns: &Netns) -> LinkAttribute {
    LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd())
}

/// Changes a link. `doing` is for the error message.
pub async fn set(conn: &Conn, index: u32, change: Change, doing: &str) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = change.flags;
    message.header.change_mask = change.mask;
    message.attributes = change.attributes;
    // RTM_NEWLINK without NLM_F_CREATE alters what is there; unlike RTM_SETLINK it takes all
    conn.change(doing, RouteNetlinkMessage::NewLink(message), Mode::Alter)
        .await
}

/// Administratively up.
pub async fn set_up(conn: &Conn, index: u32) -> Result<()> {
    let doing = format!("setting the link with index {index} up");
    set(conn, index, Change::new().up(true), &doing).await
}

/// Administratively down.
pub async fn set_down(conn: &Conn, index: u32) -> Result<()> {
    let doing = format!("setting the link with index {index} down");
    set(conn, index, Change::new().up(false), &doing).await
}

/// Renames a link.
pub async fn rename(conn: &Conn, index: u32, name: &IfName) -> Result<()> {
    let doing = format!("renaming the link with index {index} to {name}");
    set(conn, index, Change::new().name(name.as_str()), &doing).await
}

/// Sets the MTU, in bytes.
pub async fn set_mtu(conn: &Conn, index: u32, mtu: u32) -> Result<()> {
    let doing = format!("setting the MTU of the link with index {index} to {mtu}");
    set(conn, index, Change::new().mtu(mtu), &doing).await
}

/// Sets the hardware address.
pub async fn set_mac(conn: &Conn, index: u32, mac: MacAddress) -> Result<()> {
    let doing = format!("setting the MAC of the link with index {index} to {mac}");
    set(conn, index, Change::new().mac(mac), &doing).await
}

/// Makes a link a port of the bridge with index `master`.
pub async fn enslave(conn: &Conn, index: u32, master: u32) -> Result<()> {
    let doing = format!("making the link with index {index} a port of that with index {master}");
    set(conn, index, Change::new().master(master), &doing).await
}

/// Adds an alternative name; success when this link has it already.
pub async fn add_altname(conn: &Conn, index: u32, name: &str) -> Result<()> {
    let doing = format!("giving the link with index {index} the alternative name {name}");
    let request = RouteNetlinkMessage::NewLinkProp(altname(index, name));
    match conn.change(&doing, request, Mode::Create).await {
        Err(e) if e.is_exists() => {
            let holder = crate::inventory::link_by_name(conn, name).await?;
            if holder.index == index {
                return Ok(());
            }
            Err(Error::Taken {
                what: format!("the alternative name {name}"),
                by: format!("link ({})", holder.name),
            })
        }
        done => done,
    }
}

/// Removes an alternative name; success when it is not there.
pub async fn remove_altname(conn: &Conn, index: u32, name: &str) -> Result<()> {
    let doing = format!("removing the alternative name {name} of the link with index {index}");
    let request = RouteNetlinkMessage::DelLinkProp(altname(index, name));
    match conn.change(&doing, request, Mode::Alter).await {
        Err(e) if e.is_not_found() => Ok(()),
        done => done,
    }
}

fn altname(index: u32, name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let property = Prop::AltIfName(name.to_owned());
    message
        .attributes
        .push(LinkAttribute::PropList(vec![property]));
    message
}

/// Deletes a link (of a veth both ends); success when it is not there.
pub async fn delete(conn: &Conn, index: u32) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let doing = format!("deleting the link with index {index}");
    match conn
        .change(&doing, RouteNetlinkMessage::DelLink(message), Mode::Alter)
        .await
    {
        Err(e) if e.is_not_found() => Ok(()),
        done => done,
    }
}

/// One end of a new veth pair.
#[derive(Debug, Clone)]
pub struct VethEnd<'a> {
    /// Where it shall be.
    pub netns: &'a Netns,
    /// Its name there.
    pub name: IfName,
    /// Its hardware address; a random one where none is given.
    pub mac: Option<MacAddress>,
}

/// Makes a veth pair, both ends at once where they shall be, so that no other namespace ever sees
/// them. Both are down.
pub async fn create_veth(conn: &Conn, a: VethEnd<'_>, b: VethEnd<'_>, mtu: u32) -> Result<()> {
    let end = |end: &VethEnd<'_>| {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(end.name.to_string()));
        message.attributes.push(LinkAttribute::Mtu(mtu));
        message.attributes.push(netns_attribute(end.netns));
        let mac = end
            .mac
            .map(|mac| LinkAttribute::Address(mac.bytes().to_vec()));
        message.attributes.extend(mac);
        message
    };
    let mut message = end(&a);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end(&b)))),
    ]));
    let doing = format!(
        "making the veth pair {} (in {}) and {} (in {})",
        a.name,
        a.netns.name(),
        b.name,
        b.netns.name()
    );
    conn.change(&doing, RouteNetlinkMessage::NewLink(message), Mode::Create)
        .await
}

/// Makes a bridge, without spanning tree, down; returns its index.
pub async fn create_bridge(conn: &Conn, name: &IfName, mtu: u32) -> Result<u32> {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_string()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::StpState(
                netlink_packet_route::link::BridgeStpState::Disabled,
            )])),
        ]),
    ];
    let doing = format!("making the bridge {name}");
    conn.change(&doing, RouteNetlinkMessage::NewLink(message), Mode::Create)
        .await?;
    Ok(crate::inventory::link_named(conn, name).await?.index)
}
