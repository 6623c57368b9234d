//! Leases that could not be given back yet: one file each, until the controller has taken them.
//! Whoever releases a lease puts it here first or when the controller does not answer; this worker
//! never forgets one.

use crate::{Host, Places};
use dtn_api::{
    Problem,
    attachment::{PREPARED_VERSION, QueuedRelease},
    problem::Kind,
};
use dtn_link::atomic_file;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Largest such file.
const LARGEST: u64 = 64 << 10;
/// Between two looks while the controller answers: plugins put files here too.
const LOOK: Duration = Duration::from_secs(2);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

fn file(places: &Places, lease: Uuid) -> PathBuf {
    places.releases().join(format!("{lease}.json"))
}
fn broken(path: &std::path::Path, why: impl std::fmt::Display) -> Problem {
    Problem::new(Kind::Internal, format!("{}: {why}", path.display()))
}

/// Puts a lease into the queue, durably. Twice is once.
pub fn enqueue(places: &Places, release: &QueuedRelease) -> Result<(), Problem> {
    let path = file(places, release.lease_id);
    let bytes = serde_json::to_vec_pretty(release).map_err(|e| broken(&path, e))?;
    atomic_file::write(&path, &bytes, 0o600).map_err(|e| broken(&path, e))
}

/// What is in the queue. A file that cannot be understood is told and left where it is: it may be
/// a newer build's.
pub fn queued(places: &Places) -> Result<Vec<QueuedRelease>, Problem> {
    let folder = places.releases();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|e| broken(&folder, e))? {
        let path = entry.map_err(|e| broken(&folder, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if atomic_file::is_temporary(&name) || !name.ends_with(".json") {
            continue;
        }
        let Some(bytes) = atomic_file::read(&path, LARGEST).map_err(|e| broken(&path, e))? else {
            continue;
        };
        match serde_json::from_slice::<QueuedRelease>(&bytes) {
            Ok(release) if release.version <= PREPARED_VERSION => found.push(release),
            Ok(release) => tracing::warn!(
                file = %path.display(),
                version = release.version,
                "a queued release is of a newer version: left alone"
            ),
            Err(e) => {
                tracing::warn!(file = %path.display(), "a queued release is not understood: {e}")
            }
        }
    }
    found.sort_by_key(|release| release.queued_at);
    Ok(found)
}

/// Gives back one lease now, or queues it. The lease is in the queue before the attempt, so a
/// crash in between loses nothing. An error is only that it could not even be queued.
pub async fn release(host: &Host, release: &QueuedRelease) -> Result<(), Problem> {
    enqueue(&host.places, release)?;
    if let Err(problem) = attempt(host, release).await {
        tracing::info!(lease = %release.lease_id, "a lease is given back later: {problem}");
    }
    Ok(())
}

/// Success takes it out of the queue. An answer that no later attempt can change does too: the
/// controller has heard it, and the lease runs out by itself.
async fn attempt(host: &Host, release: &QueuedRelease) -> Result<(), Problem> {
    match host.uplink.release(release.lease_id).await {
        Ok(()) => {}
        Err(problem) if problem.is(Kind::Forbidden) => {
            tracing::warn!(lease = %release.lease_id, "not this host's lease to give back: {problem}");
        }
        Err(problem) => return Err(problem),
    }
    let path = file(&host.places, release.lease_id);
    atomic_file::remove(&path).map_err(|e| broken(&path, e))
}

/// Works on the queue for as long as the daemon runs.
pub async fn run(host: Arc<Host>, stop: CancellationToken) {
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        match once(&host).await {
            Ok(()) => failures = 0,
            Err(problem) => {
                failures += 1;
                if failures == 1 {
                    tracing::warn!("giving leases back: {problem}");
                }
            }
        }
        let pause = match failures {
            0 => LOOK,
            n => Duration::from_secs(1 << n.min(6)).min(LONGEST_PAUSE),
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One pass. The first lease that fails ends it: the controller is away for all of them.
async fn once(host: &Host) -> Result<(), Problem> {
    if host.uplink.identity().is_none() {
        return Ok(());
    }
    for release in queued(&host.places)? {
        attempt(host, &release).await?;
        tracing::info!(lease = %release.lease_id, client = release.client_id, "a lease was given back");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(id: u128, second: i64) -> QueuedRelease {
        QueuedRelease {
            version: PREPARED_VERSION,
            lease_id: Uuid::from_u128(id),
            slice_id: Uuid::from_u128(9),
            client_id: "podman:dtn1/u/data".into(),
            queued_at: jiff::Timestamp::from_second(second).unwrap(),
            reason: "the controller is away".into(),
        }
    }

    #[test]
    fn the_queue_is_in_order_and_keeps_what_it_does_not_understand() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(dir.path());
        places.create().unwrap();
        enqueue(&places, &release(1, 20)).unwrap();
        enqueue(&places, &release(2, 10)).unwrap();
        enqueue(&places, &release(2, 10)).unwrap();
        let newer = QueuedRelease {
            version: PREPARED_VERSION + 1,
            ..release(3, 5)
        };
        enqueue(&places, &newer).unwrap();
        std::fs::write(places.releases().join("x.json"), "{").unwrap();
        std::fs::write(places.releases().join(".y.json.tmp-1-1"), "{").unwrap();
        let ids: Vec<u128> = queued(&places)
            .unwrap()
            .iter()
            .map(|r| r.lease_id.as_u128())
            .collect();
        assert_eq!(ids, [2, 1]);
        assert!(places.releases().join("x.json").exists());
    }

    #[tokio::test]
    async fn a_host_that_has_not_joined_keeps_its_queue() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(dir.path());
        places.create().unwrap();
        let host = Host::new(crate::config::example("dtn1"), places.clone());
        super::release(&host, &release(1, 20)).await.unwrap();
        once(&host).await.unwrap();
        assert_eq!(queued(&places).unwrap().len(), 1);
    }
}
