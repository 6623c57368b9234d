//! What comes after the ADD of a chain: is it still there, and home again.

use super::{Chain, claims, wait};
use crate::{
    check,
    conf::Places,
    env::Environment,
    error::{CniError, Code},
    reconcile::{self, Leases},
    record::{self, AttachmentRecord, InterfaceRecord},
};
use dtn_link::Netns;

/// What this container has by way of us.
fn of_container<'a>(
    record: &'a AttachmentRecord,
    container_id: &'a str,
) -> impl Iterator<Item = &'a InterfaceRecord> {
    let ours = move |i: &&InterfaceRecord| i.behind.is_some() && i.container_id == container_id;
    record.interfaces.iter().filter(ours)
}

/// The record of a container's pod. A runtime that calls late may have lost the pod's UID; only then
/// all records are looked through.
fn record_of(places: &Places, env: &Environment) -> Result<Option<AttachmentRecord>, CniError> {
    if let Some(record) = record::read(places, env.key())? {
        return Ok(Some(record));
    }
    if env.key() != env.container_id {
        return Ok(None);
    }
    let (records, _) = record::list(places);
    let has = |record: &AttachmentRecord| of_container(record, &env.container_id).next().is_some();
    Ok(records.into_iter().find(has))
}

/// DEL fails only where a retry can help. The container's ID alone says what is its own: a network
/// that was renamed under running pods takes its interfaces home all the same.
pub(super) fn del(places: &Places, env: &Environment) -> Result<(), CniError> {
    let record = match record_of(places, env) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(()),
        Err(e) => {
            // ours or not cannot be told; the supervisor tells of the file, and rescues
            tracing::error!("{e}");
            return Ok(());
        }
    };
    let names: Vec<_> = of_container(&record, &env.container_id)
        .map(|interface| interface.ifname.clone())
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    wait(async {
        let mut later = Vec::new();
        for name in names.iter().rev() {
            match reconcile::reconcile(places, &record.key, Some(name), Leases::Release).await {
                Ok(home) => {
                    for note in home.iter().flat_map(|home| &home.notes) {
                        tracing::warn!("{note}");
                    }
                }
                Err(e) if e.code == Code::TryAgainLater => later.push(e.to_string()),
                Err(e) => tracing::error!("{e}"),
            }
        }
        if later.is_empty() {
            return Ok(());
        }
        let message = format!("taking home what container {} has", env.container_id);
        Err(CniError::new(
            Code::TryAgainLater,
            message,
            later.join("; "),
        ))
    })
}

/// CHECK: is everything that was prepared for the pod's claims in the sandbox, and as it was made?
pub(super) async fn check(places: &Places, env: &Environment) -> Result<(), CniError> {
    let claims = claims(places, env.key())?;
    let record = match record_of(places, env) {
        Ok(record) => record,
        Err(e) if claims.is_empty() => {
            tracing::warn!("{e}");
            None
        }
        Err(e) => return Err(e),
    };
    let mut wrong = Vec::new();
    for claim in &claims {
        let there = record.as_ref().and_then(|r| r.of_prepared(&claim.ifname));
        if there.is_none_or(|i| i.container_id != env.container_id) {
            wrong.push(format!(
                "{} was prepared, and is not in the pod",
                claim.ifname
            ));
        }
    }
    if let (Some(record), Some(path)) = (&record, &env.netns) {
        let mut ours = of_container(record, &env.container_id).peekable();
        if ours.peek().is_some() {
            let sandbox = Netns::open(path).map_err(|e| {
                let message = format!("opening the sandbox {}", path.display());
                CniError::new(Code::InvalidNetns, message, e.to_string())
            })?;
            let inside = sandbox.connect().await?;
            for interface in ours {
                let faults = check::faults(&inside, interface).await?;
                wrong.extend(faults.iter().map(|f| format!("{}: {f}", interface.ifname)));
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let message = format!("the claims of {} are not as they were attached", env.key());
    Err(CniError::new(Code::NotAsWanted, message, wrong.join("; ")))
}

/// GC: what was attached behind this network to containers that it has no more. The list names the
/// network's own interface (`eth0`) of each container; ours are many to one of those, so the
/// container alone counts. Other networks' containers are not on the list, and are not ours here.
pub(super) async fn gc(chain: &Chain) -> Result<(), CniError> {
    let Some(valid) = &chain.valid else {
        tracing::warn!(
            "GC of network {} came without cni.dev/valid-attachments: nothing is collected",
            chain.network
        );
        return Ok(());
    };
    let places = &chain.conf.places;
    let (records, unreadable) = record::list(places);
    let mut failures: Vec<_> = unreadable.iter().map(ToString::to_string).collect();
    for record in &records {
        let stale = record.interfaces.iter().filter(|i| {
            i.behind.as_ref() == Some(&chain.network)
                && !valid.iter().any(|v| v.container_id == i.container_id)
        });
        for interface in stale {
            let name = Some(&interface.ifname);
            match reconcile::reconcile(places, &record.key, name, Leases::Release).await {
                Ok(home) => tracing::info!("collected {home:?}"),
                Err(e) => failures.push(e.to_string()),
            }
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    let message = format!("collecting what is left behind network {}", chain.network);
    Err(CniError::new(Code::Internal, message, failures.join("; ")))
}
