//! A NIC's move into a sandbox, and its way home.
//!
//! Invariants: a move is one message by index, so that the NIC never shows up anywhere under a
//! name that a udev rule or another tool could act on; a move that fails half-way is taken back
//! before the error is returned; a restore is read back, and what differs is reported.

mod image;
mod restore;

pub use image::BeforeImage;
pub use restore::{Difference, compare, restore};

use crate::{
    Conn, Error, Netns, Result,
    inventory::{self, LinkState},
    link::{self, Change},
};
use dtn_api::{IfName, MacAddress};

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
