//! Routes: what is there, and what an attachment adds.

use crate::{Conn, Error, Result, conn::Mode};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
        RouteNextHopFlags, RouteProtocol, RouteScope, RouteType, RouteVia,
    },
};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The table that `ip route` shows by default.
pub const MAIN_TABLE: u32 = 254;
/// The table that the kernel fills with addresses of its own.
const LOCAL_TABLE: u32 = 255;

/// One way of a route with several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Index of the link.
    pub index: u32,
    /// The router, where there is one.
    pub gateway: Option<IpAddr>,
}

/// A route, as it is or as it shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteState {
    /// Where to; `0.0.0.0/0` or `::/0` is the default route.
    pub destination: IpNet,
    /// Index of the link it goes out of.
    pub index: Option<u32>,
    /// The router, where there is one.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// The gateway is on this link whatever the addresses say.
    #[serde(default)]
    pub onlink: bool,
    /// Address to send from.
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// Number of the table; [`MAIN_TABLE`] is the usual one.
    pub table: u32,
    /// Metric; the lower wins.
    #[serde(default)]
    pub priority: Option<u32>,
    /// `rtm_scope`: 0 global, 253 link, 254 host.
    #[serde(default)]
    pub scope: u8,
    /// `rtm_protocol`: who made it; 2 is the kernel itself, 4 an administrator.
    pub protocol: u8,
    /// It leads somewhere; not `unreachable`, `blackhole` or `prohibit`.
    pub unicast: bool,
    /// Path MTU in bytes.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Largest TCP segment to offer, in bytes.
    #[serde(default)]
    pub advmss: Option<u32>,
    /// The ways of a route that has several; then there is no `index` and no `gateway`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<NextHop>,
}

impl RouteState {
    /// A static route of the main table.
    pub fn new(destination: IpNet, index: u32, gateway: Option<IpAddr>) -> Self {
        Self {
            destination: destination.trunc(),
            index: Some(index),
            gateway,
            onlink: false,
            source: None,
            table: MAIN_TABLE,
            priority: None,
            // without a gateway the destination is on the link itself
            scope: match (gateway, destination) {
                (None, IpNet::V4(_)) => RouteScope::Link.into(),
                _ => RouteScope::Universe.into(),
            },
            protocol: RouteProtocol::Static.into(),
            unicast: true,
            mtu: None,
            advmss: None,
            hops: Vec::new(),
        }
    }

    /// It leads to everywhere.
    pub fn is_default(&self) -> bool {
        self.unicast && self.destination.prefix_len() == 0
    }

    /// The links that it goes out of.
    pub fn links(&self) -> Vec<u32> {
        let hops = self.hops.iter().map(|hop| hop.index);
        self.index.into_iter().chain(hops).collect()
    }

    /// The kernel made it, with an address or a link; it comes back with them.
    pub fn made_by_kernel(&self) -> bool {
        self.protocol == u8::from(RouteProtocol::Kernel)
            || self.protocol == u8::from(RouteProtocol::Ra)
    }

    /// A DHCP client made it.
    pub fn from_dhcp(&self) -> bool {
        self.protocol == u8::from(RouteProtocol::Dhcp)
    }

    fn read(message: RouteMessage) -> Option<Self> {
        let header = &message.header;
        let (any, length) = match header.address_family {
            AddressFamily::Inet => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 32),
            AddressFamily::Inet6 => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128),
            _ => return None,
        };
        let prefix = header.destination_prefix_length.min(length);
        let mut route = Self {
            destination: IpNet::new(any, prefix).ok()?,
            index: None,
            gateway: None,
            onlink: header.flags.contains(RouteFlags::Onlink),
            source: None,
            table: u32::from(header.table),
            priority: None,
            scope: header.scope.into(),
            protocol: header.protocol.into(),
            unicast: header.kind == RouteType::Unicast,
            mtu: None,
            advmss: None,
            hops: Vec::new(),
        };
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Destination(to) => {
                    route.destination = IpNet::new(ip(&to)?, prefix).ok()?;
                }
                RouteAttribute::Oif(index) => route.index = Some(index),
                RouteAttribute::Gateway(gateway) => route.gateway = ip(&gateway),
                RouteAttribute::Via(RouteVia::Inet6(gateway)) => {
                    route.gateway = Some(IpAddr::V6(gateway));
                }
                RouteAttribute::PrefSource(source) => route.source = ip(&source),
                // the header has eight bits only
                RouteAttribute::Table(table) => route.table = table,
                RouteAttribute::Priority(priority) => route.priority = Some(priority),
                RouteAttribute::Metrics(metrics) => {
                    for metric in metrics {
                        match metric {
                            RouteMetric::Mtu(mtu) => route.mtu = Some(mtu),
                            RouteMetric::Advmss(size) => route.advmss = Some(size),
                            _ => {}
                        }
                    }
                }
                RouteAttribute::MultiPath(hops) => {
                    route.hops = hops
                        .into_iter()
                        .map(|hop| NextHop {
                            index: hop.interface_index,
                            gateway: hop.attributes.iter().find_map(|a| match a {
                                RouteAttribute::Gateway(gateway) => ip(gateway),
                                _ => None,
                            }),
                        })
                        .collect();
                }
                _ => {}
            }
        }
        Some(route)
    }

    fn write(&self) -> Result<RouteMessage> {
        let v4 = matches!(self.destination, IpNet::V4(_));
        let what = || format!("route to {}", self.destination);
        if !self.unicast {
            return Err(Error::invalid(
                what(),
                "only routes that lead somewhere are set",
            ));
        }
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: if v4 {
                AddressFamily::Inet
            } else {
                AddressFamily::Inet6
            },
            destination_prefix_length: self.destination.prefix_len(),
            // a table above 255 is told by its attribute alone
            table: u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
            protocol: self.protocol.into(),
            scope: self.scope.into(),
            kind: RouteType::Unicast,
            flags: if self.onlink && self.hops.is_empty() {
                RouteFlags::Onlink
            } else {
                RouteFlags::empty()
            },
            ..RouteHeader::default()
        };
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Destination(self.destination.addr().into()));
        attributes.push(RouteAttribute::Table(self.table));
        attributes.extend(self.index.map(RouteAttribute::Oif));
        if let Some(gateway) = self.gateway {
            attributes.push(way(gateway, v4));
        }
        if let Some(source) = self.source {
            attributes.push(RouteAttribute::PrefSource(source.into()));
        }
        attributes.extend(self.priority.map(RouteAttribute::Priority));
        let mtu = self.mtu.map(RouteMetric::Mtu);
        let metrics: Vec<_> = mtu
            .into_iter()
            .chain(self.advmss.map(RouteMetric::Advmss))
            .collect();
        if !metrics.is_empty() {
            attributes.push(RouteAttribute::Metrics(metrics));
        }
        if !self.hops.is_empty() {
            let hops = self.hops.iter().map(|hop| {
                let mut next = netlink_packet_route::route::RouteNextHop::default();
                next.interface_index = hop.index;
                next.attributes
                    .extend(hop.gateway.map(|gateway| way(gateway, v4)));
                if self.onlink {
                    next.flags |= RouteNextHopFlags::Onlink;
                }
                next
            });
            attributes.push(RouteAttribute::MultiPath(hops.collect()));
        }
        Ok(message)
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn way(gateway: IpAddr, v4: bool) -> RouteAttribute {
    match gateway {
        // RFC 8950: an IPv4 route over an IPv6 router
        IpAddr::V6(gateway) if v4 => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        gateway => RouteAttribute::Gateway(gateway.into()),
    }
}

/// The routes of all tables but `local`, both families, without cached ones.
pub async fn list(conn: &Conn) -> Result<Vec<RouteState>> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let doing = format!("listing the routes of {family:?}");
        let found = match conn
            .dump(&doing, RouteNetlinkMessage::GetRoute(request))
            .await
        {
            // a kernel started without IPv6 has no such tables
            Err(e) if e.errno() == Some(Errno::EOPNOTSUPP) => continue,
            found => found?,
        };
        routes.extend(found.into_iter().filter_map(|object| match object {
            RouteNetlinkMessage::NewRoute(message)
                if !message.header.flags.contains(RouteFlags::Cloned) =>
            {
                RouteState::read(message).filter(|route| route.table != LOCAL_TABLE)
            }
            _ => None,
        }));
    }
    Ok(routes)
}

/// The routes that go out of one link.
pub async fn list_of(conn: &Conn, index: u32) -> Result<Vec<RouteState>> {
    let all = list(conn).await?;
    Ok(all
        .into_iter()
        .filter(|route| route.links().contains(&index))
        .collect())
}

/// Sets a route; the same twice is success. A gateway that no address of the link reaches is
/// taken to be on the link (`onlink`), as networks of /32 and /128 addresses want it.
pub async fn add(conn: &Conn, route: &RouteState) -> Result<()> {
    let doing = match route.gateway {
        Some(gateway) => format!("adding the route to {} by {gateway}", route.destination),
        None => format!("adding the route to {}", route.destination),
    };
    let set = async |route: &RouteState| {
        let request = RouteNetlinkMessage::NewRoute(route.write()?);
        conn.change(&doing, request, Mode::CreateOrReplace).await
    };
    match set(route).await {
        // ENETUNREACH "Nexthop has invalid gateway" (IPv4), EHOSTUNREACH/EINVAL (IPv6)
        Err(e)
            if route.gateway.is_some()
                && !route.onlink
                && matches!(
                    e.errno(),
                    Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EINVAL)
                ) =>
        {
            let onlink = RouteState {
                onlink: true,
                ..route.clone()
            };
            // the first refusal says more when the second try fails too
            set(&onlink).await.map_err(|_| e)
        }
        // IPv6 has it already, word for word
        Err(e) if e.is_exists() => Ok(()),
        done => done,
    }
}

/// Sets a route just as it is, and only if nobody else has one like it: a route to the same
/// destination with the same metric over another link is not replaced but an error. Success when
/// this very route is there.
pub async fn add_new(conn: &Conn, route: &RouteState) -> Result<()> {
    let doing = format!("adding the route to {}", route.destination);
    let request = RouteNetlinkMessage::NewRoute(route.write()?);
    match conn.change(&doing, request, Mode::Create).await {
        Err(e) if e.is_exists() => {
            let there = list(conn).await?;
            let same = |other: &&RouteState| {
                (other.destination, other.index, other.gateway, other.table)
                    == (route.destination, route.index, route.gateway, route.table)
            };
            there.iter().find(same).map(|_| ()).ok_or(e)
        }
        done => done,
    }
}

/// Removes a route; success when it is not there.
pub async fn remove(conn: &Conn, route: &RouteState) -> Result<()> {
    let doing = format!("removing the route to {}", route.destination);
    let request = RouteNetlinkMessage::DelRoute(route.write()?);
    match conn.change(&doing, request, Mode::Alter).await {
        Err(e) if e.is_not_found() => Ok(()),
        done => done,
    }
}

/// Removes the routes of a link that the kernel did not make itself.
pub async fn flush(conn: &Conn, index: u32) -> Result<()> {
    for route in list_of(conn, index).await? {
        if route.unicast && !route.made_by_kernel() {
            remove(conn, &route).await?;
        }
    }
    Ok(())
}

/// How the kernel would send to an address: the link and the router; `None` where it cannot.
pub async fn resolve(conn: &Conn, to: IpAddr) -> Result<Option<RouteState>> {
    let net = match to {
        IpAddr::V4(ip) => IpNet::V4(Ipv4Net::from(ip)),
        IpAddr::V6(ip) => IpNet::V6(Ipv6Net::from(ip)),
    };
    let mut request = RouteMessage::default();
    request.header.address_family = match to {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    request.header.destination_prefix_length = net.prefix_len();
    request
        .attributes
        .push(RouteAttribute::Destination(to.into()));
    let doing = format!("asking for the route to {to}");
    match conn
        .get(&doing, RouteNetlinkMessage::GetRoute(request))
        .await
    {
        Ok(RouteNetlinkMessage::NewRoute(route)) => Ok(RouteState::read(route)),
        Ok(_) => Err(Error::NoAnswer { doing }),
        Err(e)
            if matches!(
                e.errno(),
                Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EINVAL | Errno::EACCES)
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
