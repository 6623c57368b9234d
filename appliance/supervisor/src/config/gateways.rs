//! The gateways of the configuration: `[[gateway]]`, held against the NICs that it names.

use super::{NicConfig, NicSelector, fields};
use dtn_api::{Name, gateway, layered::Reader, nic::NicClass};
use ipnet::IpNet;
use std::{fmt::Display, net::IpAddr, str::FromStr};

/// A gateway that the site wants on this host: it forwards between slices and an external network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Its name in the domain.
    pub name: Name,
    /// The NIC that members of slices come in by; a shared one.
    pub inside: NicSelector,
    /// The NIC that the external network is behind.
    pub outside: NicSelector,
    /// Whether that one is moved whole into the gateway, or gives it a macvlan child.
    pub outside_class: NicClass,
    /// Its own addresses on the external network, with prefix length.
    pub addresses: Vec<IpNet>,
    /// Next hops there, at most one of each family, for what is not on link.
    pub routers: Vec<IpAddr>,
    /// What members of slices reach through it.
    pub networks: Vec<IpNet>,
    /// Whether members are seen from outside with the gateway's address.
    pub nat: bool,
}

/// Reads all of them.
pub(super) fn read(reader: &mut Reader<'_>, nics: &[NicConfig]) -> Vec<GatewayConfig> {
    let mut found: Vec<GatewayConfig> = Vec::new();
    for index in 0..reader.tables("gateway") {
        let at = format!("gateway[{index}]");
        reader.known(&at, &fields("gateway"));
        let name = reader.parse::<Name>(&format!("{at}.name"));
        if name.is_none() {
            let remedy = "write the gateway's name in the domain, as \"internet\"";
            reader.missing(&format!("{at}.name"), remedy);
        }
        if let Some(first) = found.iter().position(|g| Some(&g.name) == name.as_ref()) {
            let why = format!("is taken already, by gateway[{first}]");
            reader.error(&format!("{at}.name"), why);
        }
        let inside = nic(reader, &at, "inside", nics);
        if let Some(nic) = inside.filter(|nic| nic.class != NicClass::Shared) {
            reader.error(
                &format!("{at}.inside"),
                format!(
                    "the NIC with {} is given as {}: members of several slices come in by it, so \
                     give it as shared",
                    nic.selector, nic.class
                ),
            );
        }
        let outside = nic(reader, &at, "outside", nics);
        if let (Some(inside), Some(outside)) = (inside, outside)
            && inside.selector == outside.selector
        {
            let why = "is the inside NIC too: a gateway stands between two NICs".to_owned();
            reader.error(&format!("{at}.outside"), why);
        }
        let dedicated = outside.filter(|nic| nic.class == NicClass::Dedicated);
        if let Some(nic) = dedicated
            && let Some(first) = found.iter().find(|g| g.outside == nic.selector)
        {
            let why = format!(
                "the NIC with {} goes whole into gateway {} already: give it as shared, or take \
                 another",
                nic.selector, first.name
            );
            reader.error(&format!("{at}.outside"), why);
        }
        let addresses = addresses(reader, &at);
        let routers = routers(reader, &at, &addresses);
        let networks = networks(reader, &at, &addresses, &routers);
        let nat = reader.flag(&format!("{at}.nat")).unwrap_or(false);
        let (Some(name), Some(inside), Some(outside)) = (name, inside, outside) else {
            continue;
        };
        found.push(GatewayConfig {
            name,
            inside: inside.selector.clone(),
            outside: outside.selector.clone(),
            outside_class: outside.class,
            addresses,
            routers,
            networks,
            nat,
        });
    }
    found
}

/// The NIC of this file that a field names, in the words of its own `[[nic]]`.
fn nic<'a>(
    reader: &mut Reader<'_>,
    at: &str,
    field: &str,
    nics: &'a [NicConfig],
) -> Option<&'a NicConfig> {
    let path = format!("{at}.{field}");
    reader.missing(&path, "write which [[nic]], by its name, pci or mac");
    let text = reader.text(&path)?;
    let found = nics
        .iter()
        .find(|nic| !nic.selector.is_pattern() && nic.selector.is_written(&text));
    if found.is_none() {
        reader.error(
            &path,
            format!(
                "{text:?} is no NIC of this file: give it to the appliance by a [[nic]] of its own"
            ),
        );
    }
    found
}

/// An address or network with its prefix length.
struct Net(IpNet);
impl FromStr for Net {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net = text.parse().map(Self);
        net.map_err(|_| "write it with its prefix length, as \"192.0.2.2/24\"")
    }
}
fn nets(reader: &mut Reader<'_>, path: &str) -> Vec<(String, IpNet)> {
    let all = list::<Net>(reader, path).into_iter();
    all.map(|(at, net)| (at, net.0)).collect()
}

/// Each of a list, with its path.
fn list<T: FromStr<Err: Display>>(reader: &mut Reader<'_>, path: &str) -> Vec<(String, T)> {
    let count = reader.items(path);
    (0..count)
        .filter_map(|index| {
            let at = format!("{path}[{index}]");
            Some((at.clone(), reader.parse::<T>(&at)?))
        })
        .collect()
}

fn addresses(reader: &mut Reader<'_>, at: &str) -> Vec<IpNet> {
    let path = format!("{at}.addresses");
    let remedy = "write its own addresses on the external network, as [\"192.0.2.2/24\"]";
    reader.missing(&path, remedy);
    let before = reader.errors();
    let all = nets(reader, &path);
    if all.is_empty() && reader.errors() == before && reader.is_there(&path) {
        reader.error(&path, format!("is empty: {remedy}"));
    }
    for (at, net) in &all {
        let ip = net.addr();
        let is_network = net.max_prefix_len() - net.prefix_len() > 1 && ip == net.network();
        if is_network || ip.is_multicast() || ip.is_unspecified() || ip.is_loopback() {
            reader.error(at, format!("{net} is no address that a host can have"));
        }
    }
    all.into_iter().map(|(_, net)| net).collect()
}

fn routers(reader: &mut Reader<'_>, at: &str, addresses: &[IpNet]) -> Vec<IpAddr> {
    let all = list::<IpAddr>(reader, &format!("{at}.routers"));
    for (n, (at, router)) in all.iter().enumerate() {
        if !addresses.iter().any(|net| net.contains(router)) {
            let why = format!(
                "{router} is not on link: it must be in the network of one of the addresses"
            );
            reader.error(at, why);
        } else if addresses.iter().any(|net| net.addr() == *router) {
            reader.error(at, format!("{router} is the gateway itself"));
        }
        if all[..n]
            .iter()
            .any(|(_, other)| other.is_ipv4() == router.is_ipv4())
        {
            reader.error(
                at,
                format!("{router} is a second one of its family: write one"),
            );
        }
    }
    all.into_iter().map(|(_, router)| router).collect()
}

fn networks(
    reader: &mut Reader<'_>,
    at: &str,
    addresses: &[IpNet],
    routers: &[IpAddr],
) -> Vec<IpNet> {
    let path = format!("{at}.networks");
    let remedy = "write what members of slices reach through it, as [\"0.0.0.0/0\", \"::/0\"]";
    reader.missing(&path, remedy);
    let before = reader.errors();
    let all = nets(reader, &path);
    let count = reader.items(&path);
    if count == 0 && reader.errors() == before && reader.is_there(&path) {
        reader.error(&path, format!("is empty: {remedy}"));
    }
    if count > gateway::MOST_NETWORKS {
        let why = format!(
            "{count} networks are more than {}: write what they have in common",
            gateway::MOST_NETWORKS
        );
        reader.error(&path, why);
    }
    for (at, net) in &all {
        let v4 = net.addr().is_ipv4();
        if net.trunc() != *net {
            let why = format!("{net} has bits beyond its prefix: write {}", net.trunc());
            reader.error(at, why);
        } else if addresses.iter().all(|own| own.addr().is_ipv4() != v4) {
            let why = format!("{net} is of a family that the gateway has no address of");
            reader.error(at, why);
        } else if !addresses.iter().any(|own| own.trunc().contains(net))
            && !routers.iter().any(|router| router.is_ipv4() == v4)
        {
            let why = format!("{net} is not on link, and there is no router of its family");
            reader.error(at, why);
        }
    }
    all.into_iter().map(|(_, net)| net).collect()
}
