//! macvlan children of a shared NIC, made directly in the namespace that gets them.

use crate::{
    Conn, Error, Netns, Result,
    conn::Mode as Making,
    inventory::{self, LinkState},
    link,
};
use dtn_api::{IfName, MacAddress};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkInfo, LinkMessage, MacVlanMode},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// How the children of one NIC see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They reach each other without leaving the host.
    #[default]
    Bridge,
    /// They do not.
    Private,
    /// They do by way of a switch that sends back where it came from.
    Vepa,
    /// One child alone has the NIC, with the NIC's own address.
    Passthru,
}

impl Mode {
    /// Its word in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Private => "private",
            Self::Vepa => "vepa",
            Self::Passthru => "passthru",
        }
    }
    const fn wire(self) -> MacVlanMode {
        match self {
            Self::Bridge => MacVlanMode::Bridge,
            Self::Private => MacVlanMode::Private,
            Self::Vepa => MacVlanMode::Vepa,
            Self::Passthru => MacVlanMode::Passthrough,
        }
    }
}
impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
impl FromStr for Mode {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        [Self::Bridge, Self::Private, Self::Vepa, Self::Passthru]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| {
                Error::invalid(
                    format!("macvlan mode {text:?}"),
                    "write bridge, private, vepa or passthru",
                )
            })
    }
}

/// A child to be made.
#[derive(Debug, Clone)]
pub struct Macvlan<'a> {
    /// Index of the NIC, in the namespace of the connection.
    pub master: u32,
    /// The namespace that gets it.
    pub netns: &'a Netns,
    /// Its name there.
    pub name: &'a IfName,
    /// How it sees its siblings.
    pub mode: Mode,
    /// Its hardware address; a random one where none is given.
    pub mac: Option<MacAddress>,
    /// MTU in bytes, at most that of the NIC; the NIC's where none is given.
    pub mtu: Option<u32>,
}

/// Makes the child, down, and returns it as the kernel made it. `host` is a connection into the
/// namespace of the NIC, `sandbox` one into the namespace that gets the child. One message: no
/// other namespace ever sees it and it never has another name.
pub async fn create(host: &Conn, sandbox: &Conn, wanted: &Macvlan<'_>) -> Result<LinkState> {
    let Macvlan {
        master,
        netns,
        name,
        mode,
        ..
    } = wanted;
    let doing = format!("making the macvlan {name} on the link with index {master}");
    let parent = inventory::link(host, *master).await?;
    if let Some(mtu) = wanted.mtu
        && mtu > parent.mtu
    {
        return Err(Error::invalid(
            format!("MTU {mtu} of the macvlan {name}"),
            format!(
                "its NIC {} has {}; choose that or less",
                parent.name, parent.mtu
            ),
        ));
    }
    match inventory::link_named(sandbox, name).await {
        Ok(holder) => {
            return Err(Error::Taken {
                what: format!("the name {name} in {}", netns.name()),
                by: format!("link (index {})", holder.index),
            });
        }
        Err(e) if e.is_not_found() => {}
        Err(e) => return Err(e),
    }
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_string()),
        LinkAttribute::Link(*master),
        link::netns_attribute(netns),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::MacVlan),
            LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(mode.wire())])),
        ]),
    ];
    message
        .attributes
        .extend(wanted.mtu.map(LinkAttribute::Mtu));
    let mac = wanted
        .mac
        .map(|mac| LinkAttribute::Address(mac.bytes().to_vec()));
    message.attributes.extend(mac);
    host.change(
        &doing,
        RouteNetlinkMessage::NewLink(message),
        Making::Create,
    )
    .await?;
    inventory::link_named(sandbox, name).await
}

/// Deletes the child of this name; success when it is not there. Refuses a link of another kind.
pub async fn delete(sandbox: &Conn, name: &IfName) -> Result<()> {
    let found = match inventory::link_named(sandbox, name).await {
        Ok(found) => found,
        Err(e) if e.is_not_found() => return Ok(()),
        Err(e) => return Err(e),
    };
    if found.kind.as_deref() != Some("macvlan") {
        return Err(Error::invalid(
            format!("link {name}"),
            format!(
                "it is not a macvlan but {}; it is not ours to delete",
                found.kind.as_deref().unwrap_or("a NIC")
            ),
        ));
    }
    link::delete(sandbox, found.index).await
}
