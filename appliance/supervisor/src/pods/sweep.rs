//! Clears up what belongs to no pod that is known: attachments whose sandbox is gone, prepared
//! files that nobody attached, pins of nothing.
//!
//! Invariant: nothing is taken from a pod that runs. What another engine's pod has is its runtime's
//! to give back (DEL, GC), unless its sandbox is gone and with it everyone who could.

use super::{Pods, attach, book, prepare};
use crate::{gateway, inventory};
use dtn_api::{Problem, problem::Kind};
use dtn_cni::{reconcile::Leases, record::AttachmentRecord};
use dtn_link::{Netns, netns};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// How long a prepared file of another engine's pod may wait for its ADD.
const WAIT: SignedDuration = SignedDuration::from_mins(10);

/// Whether a record belongs to a pod of ours.
fn ours(record: &AttachmentRecord) -> bool {
    record
        .pod
        .as_ref()
        .is_some_and(|pod| pod.engine == "podman")
}

/// One pass.
pub(super) async fn orphans(pods: &Pods) -> Result<(), Problem> {
    let host = &pods.0.host;
    let running: BTreeSet<String> = pods
        .0
        .engine
        .pods()
        .await?
        .into_iter()
        .map(|p| p.uid)
        .collect();
    // the book after the engine: what is deployed in between is in it
    let (entries, torn) = book::list(&host.places)?;
    if !torn.is_empty() {
        return Ok(());
    }
    let known: BTreeSet<&str> = entries.iter().map(|entry| entry.uid.as_str()).collect();
    let stray = |key: &str| !known.contains(key) && !running.contains(key);
    let (records, _) = inventory::records(&host.places);
    for record in records.iter().filter(|r| ours(r) && stray(&r.key)) {
        tracing::warn!(key = record.key, "an attachment of no pod is taken home");
        attach::bring_home(host, &record.key, None, Leases::Release).await?;
    }
    let attached: BTreeSet<&str> = records.iter().map(|record| record.key.as_str()).collect();
    for prepared in inventory::prepared_files(&host.places.prepared())? {
        let own = prepared.pod.engine == "podman";
        let old = Timestamp::now().duration_since(prepared.prepared_at) > WAIT;
        let gone = match own {
            true => stray(&prepared.key),
            false => old && !attached.contains(prepared.key.as_str()),
        };
        // what a gateway is prepared for is the gateway's own to give back
        if !gone || gateway::is_key(&prepared.key) {
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
    let folder = host.places.netns();
    for pin in std::fs::read_dir(&folder).map_err(|e| failed(&e))? {
        let pin = pin.map_err(|e| failed(&e))?;
        let key = pin.file_name().to_string_lossy().into_owned();
        if !stray(&key) || gateway::is_key(&key) || holds_a_nic(&records, &pin.path()) {
            continue;
        }
        tracing::info!(pin = %pin.path().display(), "a pin of no pod is taken away");
        netns::unbind(&pin.path()).map_err(|e| failed(&e))?;
    }
    Ok(())
}

/// Whether an attachment that is not home yet is in this sandbox.
fn holds_a_nic(records: &[AttachmentRecord], pin: &std::path::Path) -> bool {
    let Ok(netns) = Netns::open(pin) else {
        return false;
    };
    let mut interfaces = records.iter().flat_map(|record| &record.interfaces);
    interfaces.any(|interface| interface.netns_inode == netns.inode())
}

fn failed(why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::Internal, format!("sweeping after pods: {why}"))
}
