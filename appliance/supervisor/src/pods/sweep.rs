//! Clears up what belongs to no pod that is known: attachments whose sandbox is gone, prepared
//! files that nobody attached, pins of nothing.
//!
//! Invariant: nothing is taken from a pod that runs. What another engine's pod has is its runtime's
//! to give back (DEL, GC), unless its sandbox is gone and with it everyone who could: see
//! [`super::rescue`].

use super::{Pods, attach, book, prepare, rescue};
use crate::{gateway, inventory};
use dtn_api::{Problem, attachment::Prepared, problem::Kind};
use dtn_cni::{reconcile::Leases, record::AttachmentRecord};
use dtn_link::{Netns, netns};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Whether a record belongs to a pod of ours.
fn ours(record: &AttachmentRecord) -> bool {
    record
        .pod
        .as_ref()
        .is_some_and(|pod| pod.engine == "podman")
}

/// One pass. What of it fails does not keep the rest from being done.
pub(super) async fn orphans(pods: &Pods) -> Result<(), Problem> {
    let of_others = rescue::once(&pods.0.host).await;
    let known = known(pods).await?;
    if let Some(known) = &known {
        of_podman(pods, known).await?;
    }
    pins(pods, known.as_ref())?;
    of_others
}

/// The UIDs of our own pods; `None` while they are not known.
async fn known(pods: &Pods) -> Result<Option<BTreeSet<String>>, Problem> {
    if pods.podman_is_away() {
        return Ok(None);
    }
    let running = pods.0.engine.pods().await?;
    // the book after the engine: what is deployed in between is in it
    let (entries, torn) = book::list(&pods.0.host.places)?;
    if !torn.is_empty() {
        return Ok(None);
    }
    let entries = entries.into_iter().map(|entry| entry.uid);
    Ok(Some(
        running.into_iter().map(|p| p.uid).chain(entries).collect(),
    ))
}

/// Attachments and prepared files of our own that belong to none of them.
async fn of_podman(pods: &Pods, known: &BTreeSet<String>) -> Result<(), Problem> {
    let host = &pods.0.host;
    let (records, _) = inventory::records(&host.places);
    for record in records
        .iter()
        .filter(|r| ours(r) && !known.contains(&r.key))
    {
        tracing::warn!(key = record.key, "an attachment of no pod is taken home");
        attach::bring_home(host, &record.key, None, Leases::Release).await?;
    }
    let stray = |prepared: &Prepared| {
        // what a gateway is prepared for is the gateway's own to give back
        prepared.pod.engine == "podman"
            && !known.contains(&prepared.key)
            && !gateway::is_key(&prepared.key)
    };
    for prepared in inventory::prepared_files(&host.places.prepared())? {
        if !stray(&prepared) {
            continue;
        }
        tracing::info!(
            key = prepared.key,
            "what was prepared for no pod is given back"
        );
        for lease in prepared.interfaces.iter().flat_map(|i| &i.leases) {
            prepare::give_back(host, lease, "no pod came for it").await?;
        }
        let path = host.places.prepared_file(&prepared.key);
        dtn_link::atomic_file::remove(&path).map_err(|e| failed(&e))?;
    }
    Ok(())
}

/// Pins of sandboxes in which nothing of ours is. Those of our own pods are named after the pod, and
/// those that a plugin made for another engine's after pod and sandbox (`UID.INODE`).
fn pins(pods: &Pods, known: Option<&BTreeSet<String>>) -> Result<(), Problem> {
    let host = &pods.0.host;
    let folder = host.places.netns();
    let entries = std::fs::read_dir(&folder).map_err(|e| failed(&e))?;
    let pins: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    // after the pins were seen: whoever makes one has a record, or an entry in the book, before
    let (records, torn) = inventory::records(&host.places);
    let (entries, torn_entries) = book::list(&host.places)?;
    if !torn.is_empty() || !torn_entries.is_empty() {
        return Ok(());
    }
    for pin in pins {
        let key = pin.file_name().unwrap_or_default().to_string_lossy();
        let of_a_plugin = key.contains('.');
        let of_no_pod = |known: &BTreeSet<String>| {
            !known.contains(&*key) && !entries.iter().any(|entry| entry.uid == key)
        };
        let stray = of_a_plugin || known.is_some_and(of_no_pod);
        if !stray || gateway::is_key(&key) || holds_a_nic(&records, &pin) {
            continue;
        }
        tracing::info!(pin = %pin.display(), "a pin of no pod is taken away");
        netns::unbind(&pin).map_err(|e| failed(&e))?;
    }
    Ok(())
}

/// Whether an attachment that is not home yet is in this sandbox.
fn holds_a_nic(records: &[AttachmentRecord], pin: &Path) -> bool {
    let Ok(netns) = Netns::open(pin) else {
        return false;
    };
    let mut interfaces = records.iter().flat_map(|record| &record.interfaces);
    interfaces.any(|interface| interface.netns_inode == netns.inode())
}

fn failed(why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::Internal, format!("sweeping after pods: {why}"))
}
