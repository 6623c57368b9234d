//! A NIC's before-image, its move into a sandbox, and its way home.
//!
//! Invariants: a move is one message by index, so that the NIC never shows up anywhere under a
//! name that a udev rule or another tool could act on; a move that fails half-way is taken back
//! before the error is returned; a restore is read back, and what differs is reported.

use crate::{
    Conn, Error, Netns, Result,
    address::{self, AddressState},
    inventory::{self, LinkState},
    link::{self, Change},
    route::{self, RouteState},
};
use dtn_api::{IfName, MacAddress};
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
    fn own_addresses(&self) -> impl Iterator<Item = &AddressState> {
        self.addresses
            .iter()
            .filter(|a| a.permanent && !a.is_link_local())
    }

    /// The routes that are restored: those that somebody set. Those of DHCP and of router
    /// advertisements come with the addresses of theirs, from the tool that asks for them.
    fn own_routes(&self) -> impl Iterator<Item = &RouteState> {
        self.routes
            .iter()
            .filter(|r| r.unicast && r.hops.is_empty() && !r.made_by_kernel() && !r.from_dhcp())
    }
}

/// What is not as it was before, for people and for the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Which property.
    pub field: String,
    /// As it was before.
    pub wanted: String,
    /// As it is, or why it could not be restored.
    pub actual: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: wanted {}, is {}",
            self.field, self.wanted, self.actual
        )
    }
}

fn difference(
    field: &str,
    wanted: impl std::fmt::Display,
    actual: impl std::fmt::Display,
) -> Difference {
    Difference {
        field: field.to_owned(),
        wanted: wanted.to_string(),
        actual: actual.to_string(),
    }
}

/// Where a NIC goes and what it shall be there.
#[derive(Debug, Clone)]
pub struct Move<'a> {
    /// Index of the NIC in the namespace of the connection.
    pub index: u32,
    /// The sandbox.
    pub netns: &'a Netns,
    /// Its name there.
    pub name: &'a IfName,
    /// Another hardware address for it.
    pub mac: Option<MacAddress>,
    /// Another MTU, in bytes.
    pub mtu: Option<u32>,
}

/// Moves a NIC into a sandbox, in one message, and returns it as it is there (down, without
/// addresses and qdisc). `host` and `home` are its present namespace, `sandbox` the connection into
/// the new one. On failure it is home again under its old name (without its addresses: then
/// [`restore`] puts them back), or the error says that it is not.
pub async fn move_in(
    host: &Conn,
    home: &Netns,
    sandbox: &Conn,
    wanted: &Move<'_>,
) -> Result<LinkState> {
    let before = inventory::link(host, wanted.index).await?;
    let name = wanted.name.as_str();
    let doing = format!(
        "moving {} into {} as {name}",
        before.name,
        wanted.netns.name()
    );
    // the kernel moves first and renames second: what would stop it half-way is looked at before
    let there = inventory::links(sandbox).await?;
    refuse_taken(&there, name, wanted.netns)?;
    for altname in &before.altnames {
        refuse_taken(&there, altname, wanted.netns)?;
    }
    let mut change = Change::new().netns(wanted.netns).name(name).up(false);
    if let Some(mac) = wanted.mac {
        change = change.mac(mac);
    }
    if let Some(mtu) = wanted.mtu {
        change = change.mtu(mtu);
    }
    if let Err(error) = link::set(host, wanted.index, change, &doing).await {
        return Err(take_back(host, home, sandbox, &before, &there, error).await);
    }
    let found = inventory::link_by_name(sandbox, name).await?;
    if found.permanent_mac != before.permanent_mac || found.kind != before.kind {
        return Err(Error::invalid(
            format!("link {name} in {}", wanted.netns.name()),
            format!(
                "it is not the {} that was moved there: something else renamed it",
                before.name
            ),
        ));
    }
    Ok(found)
}

fn refuse_taken(there: &[LinkState], name: &str, netns: &Netns) -> Result<()> {
    match there.iter().find(|link| link.is_named(name)) {
        Some(holder) => Err(Error::Taken {
            what: format!("the name {name} in {}", netns.name()),
            by: format!("link (index {})", holder.index),
        }),
        None => Ok(()),
    }
}

/// The kernel moved the NIC and then refused the rest (a MAC that the driver does not take): find
/// what came new into the sandbox and send it home.
async fn take_back(
    host: &Conn,
    home: &Netns,
    sandbox: &Conn,
    before: &LinkState,
    there: &[LinkState],
    error: Error,
) -> Error {
    if inventory::link(host, before.index).await.is_ok() {
        return error;
    }
    let stranded = inventory::links(sandbox).await.ok().and_then(|now| {
        now.into_iter().find(|link| {
            !there.iter().any(|old| old.index == link.index)
                && link.kind == before.kind
                && link.permanent_mac == before.permanent_mac
        })
    });
    let Some(stranded) = stranded else {
        return error;
    };
    let mut change = Change::new().netns(home).name(&before.name).mtu(before.mtu);
    if let Some(mac) = before.mac {
        change = change.mac(mac);
    }
    let doing = format!("moving {} back after a failure ({error})", before.name);
    match link::set(sandbox, stranded.index, change.up(before.up), &doing).await {
        Ok(()) => error,
        Err(second) => second,
    }
}

/// Moves a NIC home and restores everything of its image; returns what could not be restored
/// (nothing: all is as before). `sandbox` is the connection into the namespace where it is, with
/// index `index`; `host` and `home` are where it belongs. An error means that it is still in the
/// sandbox, or that its home could not be read.
///
/// A name that somebody took meanwhile does not stop it: it comes home as the first free `dtnN`,
/// and the difference says so.
pub async fn move_home(
    sandbox: &Conn,
    index: u32,
    host: &Conn,
    home: &Netns,
    before: &BeforeImage,
) -> Result<Vec<Difference>> {
    let here = inventory::link(sandbox, index).await?;
    let doing = format!("moving {} home as {}", here.name, before.name);
    // down first: a link that is up cannot be renamed before Linux 6.2
    link::set_down(sandbox, index).await?;
    // a pod's own alternative names could clash and stop the move
    for altname in here
        .altnames
        .iter()
        .filter(|name| !before.altnames.contains(name))
    {
        link::remove_altname(sandbox, index, altname).await?;
    }
    let at_home = inventory::links(host).await?;
    for altname in here
        .altnames
        .iter()
        .filter(|name| before.altnames.contains(name))
    {
        if at_home.iter().any(|link| link.is_named(altname)) {
            link::remove_altname(sandbox, index, altname).await?;
        }
    }
    let name = free_name(&at_home, &before.name);
    let change = Change::new().netns(home).name(&name);
    link::set(sandbox, index, change, &doing).await?;
    let arrived = inventory::link_by_name(host, &name).await?;
    restore(host, arrived.index, before).await
}

/// The wanted name, or the first of `dtn0`, `dtn1`… that is free.
fn free_name(links: &[LinkState], wanted: &str) -> String {
    let free = |name: &str| !links.iter().any(|link| link.is_named(name));
    if free(wanted) {
        return wanted.to_owned();
    }
    (0..=links.len())
        .map(|number| format!("dtn{number}"))
        .find(|name| free(name))
        // one more name than links: one of them is free
        .unwrap_or_else(|| "dtn".to_owned())
}

/// Restores everything of the image on a NIC that is home already (the kernel brought it there
/// from a dead namespace, or [`move_home`] did), reads it back, and returns what differs. The same
/// twice is success. An error means that the NIC is not there or cannot be read.
pub async fn restore(host: &Conn, index: u32, before: &BeforeImage) -> Result<Vec<Difference>> {
    let now = inventory::link(host, index).await?;
    let mut failed = Vec::new();
    let mut note = |field: &str, wanted: String, done: Result<()>| {
        if let Err(error) = done {
            failed.push(difference(field, wanted, format!("not restored: {error}")));
        }
    };
    let set = async |what: &str, change: Change| {
        let doing = format!("restoring the {what} of {}", before.name);
        link::set(host, index, change, &doing).await
    };
    if now.name != before.name || (now.mac != before.mac && before.mac.is_some()) {
        note(
            "up",
            before.up.to_string(),
            link::set_down(host, index).await,
        );
    }
    if now.name != before.name {
        note(
            "name",
            before.name.to_string(),
            set("name", Change::new().name(&before.name)).await,
        );
    }
    if let Some(mac) = before.mac.filter(|mac| now.mac != Some(*mac)) {
        note(
            "mac",
            mac.to_string(),
            set("MAC", Change::new().mac(mac)).await,
        );
    }
    if now.mtu != before.mtu {
        note(
            "mtu",
            before.mtu.to_string(),
            set("MTU", Change::new().mtu(before.mtu)).await,
        );
    }
    if now.tx_queue_len != before.tx_queue_len {
        let change = Change::new().tx_queue_len(before.tx_queue_len);
        note(
            "tx-queue-len",
            before.tx_queue_len.to_string(),
            set("queue length", change).await,
        );
    }
    if now.alias != before.alias {
        let alias = before.alias.as_deref().unwrap_or_default();
        note(
            "alias",
            alias.to_string(),
            set("alias", Change::new().alias(alias)).await,
        );
    }
    if now.promiscuous != before.promiscuous {
        let change = Change::new().promiscuous(before.promiscuous);
        note(
            "promiscuous",
            before.promiscuous.to_string(),
            set("promiscuous mode", change).await,
        );
    }
    if let (Some(gso), Some(gro)) = (before.gso_max_size, before.gro_max_size)
        && (now.gso_max_size, now.gro_max_size) != (Some(gso), Some(gro))
    {
        let change = Change::new().gso_gro_max_size(gso, gro);
        note(
            "gso-max-size",
            gso.to_string(),
            set("GSO and GRO sizes", change).await,
        );
    }
    for altname in now
        .altnames
        .iter()
        .filter(|name| !before.altnames.contains(name))
    {
        note(
            "altname",
            "none".to_owned(),
            link::remove_altname(host, index, altname).await,
        );
    }
    for altname in before
        .altnames
        .iter()
        .filter(|name| !now.altnames.contains(name))
    {
        note(
            "altname",
            altname.clone(),
            link::add_altname(host, index, altname).await,
        );
    }
    // foreign addresses before it comes up, so that nothing is announced from them
    let addresses = address::list(host, Some(index)).await?;
    for address in addresses
        .iter()
        .filter(|a| a.permanent && !a.is_link_local())
    {
        if !before.own_addresses().any(|own| own.net == address.net) {
            note(
                "address",
                "none".to_owned(),
                address::remove(host, index, address.net).await,
            );
        }
    }
    note(
        "up",
        before.up.to_string(),
        set("state", Change::new().up(before.up)).await,
    );
    for address in before.own_addresses() {
        note(
            "address",
            address.net.to_string(),
            address::restore(host, index, address).await,
        );
    }
    // a route needs its link up; one that was there on a link that was down comes with that
    for route in before.own_routes().filter(|_| before.up) {
        let route = RouteState {
            index: Some(index),
            ..route.clone()
        };
        note(
            "route",
            route.destination.to_string(),
            route::add_new(host, &route).await,
        );
    }
    let mut differences = compare(host, index, before).await?;
    // what could not be done says why, instead of only that it differs
    differences.retain(|d| {
        !failed
            .iter()
            .any(|f| f.field == d.field && f.wanted == d.wanted)
    });
    failed.append(&mut differences);
    Ok(failed)
}

/// Reads a NIC and returns what is not as in its image. Nothing is changed.
pub async fn compare(host: &Conn, index: u32, before: &BeforeImage) -> Result<Vec<Difference>> {
    let now = inventory::link(host, index).await?;
    let mut found = Vec::new();
    let mut check = |field: &str, wanted: String, actual: String| {
        if wanted != actual {
            found.push(difference(field, wanted, actual));
        }
    };
    let mac = |mac: Option<MacAddress>| mac.map_or_else(|| "none".to_owned(), |m| m.to_string());
    let list = |names: &[String]| names.join(" ");
    check("name", before.name.clone(), now.name);
    check("mac", mac(before.mac), mac(now.mac));
    check("mtu", before.mtu.to_string(), now.mtu.to_string());
    check(
        "tx-queue-len",
        before.tx_queue_len.to_string(),
        now.tx_queue_len.to_string(),
    );
    check(
        "alias",
        before.alias.clone().unwrap_or_default(),
        now.alias.unwrap_or_default(),
    );
    check("altname", list(&before.altnames), list(&now.altnames));
    check("up", before.up.to_string(), now.up.to_string());
    check(
        "promiscuous",
        before.promiscuous.to_string(),
        now.promiscuous.to_string(),
    );
    if let (Some(wanted), Some(actual)) = (before.gso_max_size, now.gso_max_size) {
        check("gso-max-size", wanted.to_string(), actual.to_string());
    }
    let addresses = address::list(host, Some(index)).await?;
    for own in before.own_addresses() {
        if !addresses.iter().any(|a| a.net == own.net) {
            found.push(difference("address", own.net, "missing"));
        }
    }
    for address in addresses
        .iter()
        .filter(|a| a.permanent && !a.is_link_local())
    {
        if !before.own_addresses().any(|own| own.net == address.net) {
            found.push(difference("address", "none", address.net));
        }
    }
    if before.up {
        let routes = route::list_of(host, index).await?;
        for own in before.own_routes() {
            let same = |r: &RouteState| {
                (r.destination, r.gateway, r.table) == (own.destination, own.gateway, own.table)
            };
            if !routes.iter().any(same) {
                found.push(difference("route", own.destination, "missing"));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, altnames: &[&str]) -> LinkState {
        LinkState {
            name: name.to_owned(),
            altnames: altnames.iter().map(|&n| n.to_owned()).collect(),
            ..LinkState::default()
        }
    }

    #[test]
    fn a_taken_name_is_replaced_by_the_first_free_one() {
        let links = [named("ens1", &["dtn0"]), named("eth0", &["uplink"])];
        assert_eq!(free_name(&links, "ens2"), "ens2");
        assert_eq!(free_name(&links, "ens1"), "dtn1");
        assert_eq!(free_name(&links, "uplink"), "dtn1");
    }
}
