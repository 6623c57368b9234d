//! A NIC put back as its before-image says, and held against it.
//!
//! Invariant: every step is tried, and what the kernel shows afterwards decides what is reported.

use super::BeforeImage;
use crate::{
    Conn, Result, address, inventory,
    link::{self, Change},
    route::{self, RouteState},
};
use dtn_api::MacAddress;
use serde::{Deserialize, Serialize};

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

/// Restores everything of the image on a NIC that is home already (the kernel brought it there
/// from a dead namespace, or [`super::move_home`] did), reads it back, and returns what differs. The same
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
