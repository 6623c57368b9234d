//! Takes back what the kubelet forgot to: claims that are gone, were made anew, or belong to another
//! pod now. A kubelet that lost its state, or whose pod was deleted by force, never asks.
//!
//! Invariant: only what the API server says is gone is taken back, and only when it says so twice.
//! While it is silent everything stays.

use super::{Cluster, book, book::Entry, claim, counts::Call};
use dtn_api::{Problem, problem::Kind};
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::api::Api;
use std::{collections::BTreeSet, time::Duration};
use tokio_util::sync::CancellationToken;

/// Between two looks: twice that, and what takes the NIC home, stay below 30 s.
const LOOK: Duration = Duration::from_secs(8);

/// Claims of pods that the kubelet still has are looked at a few at a time: it says itself when they
/// go, unless it is dead.
const AT_A_TIME: usize = 5;

/// Sweeps for as long as the daemon runs.
pub(super) async fn run(cluster: Cluster, stop: CancellationToken) {
    let (mut suspects, mut turn) = (BTreeSet::new(), 0_usize);
    let mut trouble = String::new();
    while !stop.is_cancelled() {
        match once(&cluster, &mut suspects, turn).await {
            Ok(()) => trouble.clear(),
            Err(problem) => {
                let words = problem.to_string();
                if words != trouble {
                    tracing::warn!("looking for claims that are gone: {words}");
                    trouble = words;
                }
            }
        }
        turn = turn.wrapping_add(1);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn once(
    cluster: &Cluster,
    suspects: &mut BTreeSet<String>,
    turn: usize,
) -> Result<(), Problem> {
    let (entries, _) = book::list(&cluster.0.host.places)?;
    if entries.is_empty() {
        suspects.clear();
        return Ok(());
    }
    let mut gone = Vec::new();
    let pods = cluster.0.config.kubelet_dir.join("pods");
    let (of_known, mut looked): (Vec<&Entry>, Vec<&Entry>) = entries
        .iter()
        // the kubelet makes a pod's folder before it asks for anything, and removes it last
        .partition(|entry| {
            let is_suspect = suspects.contains(&entry.claim.uid);
            !is_suspect && pods.join(&entry.pod.uid).is_dir()
        });
    looked.extend(some(&of_known, turn));
    for entry in looked {
        if is_gone(cluster, entry).await? {
            gone.push(entry);
        }
    }
    let mut outcome = Ok(());
    for entry in &gone {
        if !suspects.contains(&entry.claim.uid) {
            continue;
        }
        let lock = cluster.lock_of(&entry.claim.uid);
        let _held = lock.lock().await;
        // the kubelet may have asked meanwhile
        let Some(now) = book::read(&cluster.0.host.places, &entry.claim.uid)? else {
            continue;
        };
        if now != **entry {
            continue;
        }
        tracing::warn!(claim = %entry.claim, pod = entry.pod.name, "nobody uses it any more and the kubelet did not say so: taken back");
        if let Err(problem) = cluster.take_back(&now, "its claim is gone").await {
            outcome = Err(problem);
        }
        cluster.notice();
    }
    *suspects = gone.iter().map(|entry| entry.claim.uid.clone()).collect();
    outcome
}

/// A few of many, others at each turn.
fn some<'a>(all: &[&'a Entry], turn: usize) -> impl Iterator<Item = &'a Entry> {
    let from = turn
        .wrapping_mul(AT_A_TIME)
        .checked_rem(all.len())
        .unwrap_or(0);
    let round = all.iter().chain(all).skip(from);
    round.take(AT_A_TIME.min(all.len())).copied()
}

/// Whether the claim is gone, or is not for the pod that it was prepared for.
async fn is_gone(cluster: &Cluster, entry: &Entry) -> Result<bool, Problem> {
    let id = &entry.claim;
    let client = cluster.client().await?;
    let claims: Api<ResourceClaim> = Api::namespaced(client, &id.namespace);
    let doing = format!("reading claim {id}");
    match cluster
        .call(Call::ToSweep, &doing, claims.get(&id.name))
        .await
    {
        Ok(claim) => Ok(!claim::is_for(&claim, id, &entry.pod.uid)),
        Err(problem) if problem.is(Kind::NotFound) => Ok(true),
        Err(problem) => Err(problem),
    }
}
