//! Addresses on links.

use crate::{Conn, Error, Result, conn::Mode};
use dtn_api::MacAddress;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr};

/// An address as it is on a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressState {
    /// Index of the link.
    pub index: u32,
    /// Address and length of its prefix.
    pub net: IpNet,
    /// `rtm_scope`: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// Set to stay; not from a router advertisement or DHCP, which give a lifetime.
    pub permanent: bool,
    /// Duplicate address detection is still going on (IPv6); nothing can be sent from it.
    pub tentative: bool,
    /// Another host has it (IPv6); nothing can be sent from it.
    pub duplicate: bool,
    /// No route to its prefix comes with it.
    pub no_prefix_route: bool,
    /// Label of an IPv4 address, where it is not the name of the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The other end of a point-to-point link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
}

impl AddressState {
    /// Whether the kernel made it by itself for the link (`fe80::/10`).
    pub fn is_link_local(&self) -> bool {
        match self.net.addr() {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        }
    }

    /// Whether neighbours can be asked for from it, on behalf of others too: it is link-local and
    /// can be sent from.
    pub fn can_ask(&self) -> bool {
        self.is_link_local() && !self.tentative && !self.duplicate
    }

    fn read(message: AddressMessage) -> Option<Self> {
        let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
        let (mut address, mut local, mut label) = (None, None, None);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Address(ip) => address = Some(ip),
                AddressAttribute::Local(ip) => local = Some(ip),
                AddressAttribute::Flags(all) => flags = all,
                AddressAttribute::Label(text) => label = Some(text),
                _ => {}
            }
        }
        // IFA_LOCAL is the interface's own; IFA_ADDRESS is the other end where they differ
        let own = local.or(address)?;
        Some(Self {
            index: message.header.index,
            net: IpNet::new(own, message.header.prefix_len).ok()?,
            scope: message.header.scope.into(),
            permanent: flags.contains(AddressFlags::Permanent),
            tentative: flags.contains(AddressFlags::Tentative),
            duplicate: flags.contains(AddressFlags::Dadfailed),
            no_prefix_route: flags.contains(AddressFlags::Noprefixroute),
            label,
            peer: address.filter(|ip| *ip != own),
        })
    }
}

/// The addresses of one link, or of all.
pub async fn list(conn: &Conn, index: Option<u32>) -> Result<Vec<AddressState>> {
    let mut request = AddressMessage::default();
    request.header.index = index.unwrap_or(0);
    let doing = match index {
        Some(index) => format!("listing the addresses of the link with index {index}"),
        None => "listing the addresses".to_owned(),
    };
    let found = conn
        .dump(&doing, RouteNetlinkMessage::GetAddress(request))
        .await;
    match found {
        // a filter by a link that is gone is ENODEV
        Err(e) if e.is_not_found() => Err(Error::not_found(doing.replace("listing ", ""))),
        found => Ok(found?
            .into_iter()
            .filter_map(|object| match object {
                RouteNetlinkMessage::NewAddress(message) => AddressState::read(message),
                _ => None,
            })
            .filter(|address| index.is_none_or(|index| address.index == index))
            .collect()),
    }
}

/// Puts an address on a link; the same twice is success. Duplicate address detection is left out
/// for IPv6 (`IFA_F_NODAD`): the address comes from a lease, so it can be used at once.
pub async fn add(conn: &Conn, index: u32, net: IpNet) -> Result<()> {
    let address = AddressState {
        index,
        net,
        scope: u8::from(AddressScope::Universe),
        permanent: true,
        tentative: false,
        duplicate: false,
        no_prefix_route: false,
        label: None,
        peer: None,
    };
    restore(conn, index, &address).await
}

/// Puts the link-local address that belongs to a hardware address on a link (RFC 4291, appendix A),
/// usable at once; the same twice is success. The kernel would make it by itself, but some time
/// after the link came up, and for whom it forwards it asks for neighbours from no other address
/// (`ndisc_solicit`, net/ipv6/ndisc.c): until then nobody is asked, and then a second is waited.
pub async fn add_link_local(conn: &Conn, index: u32, mac: MacAddress) -> Result<()> {
    add(conn, index, link_local(mac)).await
}

fn link_local(mac: MacAddress) -> IpNet {
    let [a, b, c, d, e, f] = mac.bytes();
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    // the modified EUI-64: the bit for "universally administered" turned round
    let own = Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        pair(a ^ 0x02, b),
        pair(c, 0xff),
        pair(0xfe, d),
        pair(e, f),
    );
    IpNet::new_assert(own.into(), 64)
}

/// Puts an address back on a link as it was.
pub async fn restore(conn: &Conn, index: u32, address: &AddressState) -> Result<()> {
    let doing = format!("adding {} to the link with index {index}", address.net);
    let mut flags = AddressFlags::empty();
    if address.net.addr().is_ipv6() {
        flags |= AddressFlags::Nodad;
    }
    if address.no_prefix_route {
        flags |= AddressFlags::Noprefixroute;
    }
    let mut message = message(index, address.net);
    message.header.scope = address.scope.into();
    message.header.flags = AddressHeaderFlags::from_bits_retain(flags.bits() as u8);
    message.attributes.push(AddressAttribute::Flags(flags));
    if let Some(label) = &address.label {
        message
            .attributes
            .push(AddressAttribute::Label(label.clone()));
    }
    if let Some(peer) = address.peer {
        message
            .attributes
            .retain(|a| !matches!(a, AddressAttribute::Address(_)));
        message.attributes.push(AddressAttribute::Address(peer));
    } else if let IpNet::V4(net) = address.net
        && net.prefix_len() < 31
    {
        // RFC 3021: a /31 has no broadcast address
        message
            .attributes
            .push(AddressAttribute::Broadcast(net.broadcast()));
    }
    let request = RouteNetlinkMessage::NewAddress(message);
    match conn.change(&doing, request, Mode::CreateOrReplace).await {
        // it is there with other attributes, which cannot be replaced in place
        Err(e) if e.is_exists() => {
            let there = list(conn, Some(index)).await?;
            there
                .iter()
                .find(|a| a.net == address.net)
                .map(|_| ())
                .ok_or(e)
        }
        done => done,
    }
}

/// Takes an address off a link; success when it is not there.
pub async fn remove(conn: &Conn, index: u32, net: IpNet) -> Result<()> {
    use nix::errno::Errno;
    let doing = format!("removing {net} from the link with index {index}");
    let request = RouteNetlinkMessage::DelAddress(message(index, net));
    match conn.change(&doing, request, Mode::Alter).await {
        Err(e) if e.errno() == Some(Errno::EADDRNOTAVAIL) || e.is_not_found() => Ok(()),
        done => done,
    }
}

/// Takes all addresses off a link but those that the kernel made itself (IPv6 link-local).
pub async fn flush(conn: &Conn, index: u32) -> Result<()> {
    for address in list(conn, Some(index)).await? {
        if !address.is_link_local() {
            remove(conn, index, address.net).await?;
        }
    }
    Ok(())
}

fn message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.header.family = match net {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.attributes = vec![
        AddressAttribute::Local(net.addr()),
        AddressAttribute::Address(net.addr()),
    ];
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_is_made_of_the_hardware_address() {
        let mac = "34:56:78:9a:bc:de".parse().unwrap();
        // the example of RFC 4291, appendix A
        assert_eq!(link_local(mac).to_string(), "fe80::3656:78ff:fe9a:bcde/64");
    }
}
