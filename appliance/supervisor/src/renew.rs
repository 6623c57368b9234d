//! Keeps the leases of all prepared and attached interfaces alive: at T1 each (half of the
//! lifetime, RFC 2131 §4.4.5), all that are due in one call, again and again until they run out.
//! A lease that ran out is said so; the interface keeps its address, because taking it away would
//! break what still works.

use crate::{Host, inventory};
use dtn_api::{Problem, lease::Lease};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// Between two comparisons with the controller's list.
const AUDIT: Duration = Duration::from_secs(60);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Most leases in one call.
const BATCH: usize = 256;

/// The leases that this host uses, as they were last renewed.
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    renewed: BTreeMap<Uuid, Lease>,
    failed: BTreeMap<Uuid, String>,
    /// Leases that the controller has for this host and nobody here uses.
    unused: Option<u64>,
    renewals: u64,
}

/// Numbers for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// In use here.
    pub used: u64,
    /// In use here and past their end.
    pub expired: u64,
    /// Refused by the controller at the last renewal.
    pub refused: u64,
    /// The controller has them for this host and nobody here uses them; `None` before the first
    /// comparison.
    pub unused: Option<u64>,
    /// Renewals since start.
    pub renewals: u64,
}

impl Leases {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
    /// The lease as last renewed, where it was.
    pub fn current(&self, lease: &Lease) -> Lease {
        let book = self.book();
        book.renewed.get(&lease.id).unwrap_or(lease).clone()
    }
    /// How many there are, and how they are.
    pub fn counts(&self, host: &Host, now: Timestamp) -> Result<LeaseCounts, Problem> {
        let used = used(host)?;
        let book = self.book();
        let expired = used
            .iter()
            .filter_map(|(id, lease)| book.renewed.get(id).or(lease.as_ref()))
            .filter(|lease| lease.expires_at <= now)
            .count();
        Ok(LeaseCounts {
            used: used.len() as u64,
            expired: expired as u64,
            refused: book.failed.len() as u64,
            unused: book.unused,
            renewals: book.renewals,
        })
    }

    /// One look: renews what is due.
    async fn once(&self, host: &Host, now: Timestamp) -> Result<(), Problem> {
        let used = used(host)?;
        let due = {
            let mut book = self.book();
            book.renewed.retain(|id, _| used.contains_key(id));
            book.failed.retain(|id, _| used.contains_key(id));
            due(&used, &book.renewed, now)
        };
        for batch in due.chunks(BATCH) {
            for result in host.uplink.renew(batch.to_vec()).await? {
                self.note(result.id, result.lease, result.problem);
            }
        }
        Ok(())
    }

    fn note(&self, id: Uuid, lease: Option<Lease>, problem: Option<Problem>) {
        let mut book = self.book();
        match (lease, problem) {
            (Some(lease), _) => {
                book.renewals += 1;
                book.failed.remove(&id);
                book.renewed.insert(id, lease);
            }
            (None, problem) => {
                let why = problem.map_or_else(|| "no reason given".into(), |p| p.to_string());
                if book.failed.insert(id, why.clone()).as_ref() != Some(&why) {
                    tracing::error!(lease = %id, "a lease in use was not renewed: {why}");
                }
            }
        }
    }

    /// Compares with the controller's list.
    async fn audit(&self, host: &Host) -> Result<(), Problem> {
        let theirs = host.uplink.leases().await?;
        let ours = used(host)?;
        let queued: BTreeSet<Uuid> = crate::releases::queued(&host.places)?
            .into_iter()
            .map(|release| release.lease_id)
            .collect();
        let unused = theirs
            .iter()
            .filter(|lease| lease.state == dtn_api::lease::LeaseState::Bound)
            .filter(|lease| !ours.contains_key(&lease.id) && !queued.contains(&lease.id))
            .count();
        self.book().unused = Some(unused as u64);
        Ok(())
    }
}

/// Every lease that a prepared or attached interface has. Of one that only a record names, nothing
/// but its id is known.
fn used(host: &Host) -> Result<BTreeMap<Uuid, Option<Lease>>, Problem> {
    let mut all = BTreeMap::new();
    let (records, _) = inventory::records(&host.places);
    for record in records {
        let marks = record.interfaces.iter().flat_map(|i| &i.leases);
        all.extend(marks.map(|mark| (mark.id, None)));
    }
    for prepared in inventory::prepared_files(&host.places.prepared())? {
        let leases = prepared.interfaces.into_iter().flat_map(|i| i.leases);
        all.extend(leases.map(|lease| (lease.id, Some(lease))));
    }
    Ok(all)
}

/// Those whose T1 has come, or is not known.
fn due(
    used: &BTreeMap<Uuid, Option<Lease>>,
    renewed: &BTreeMap<Uuid, Lease>,
    now: Timestamp,
) -> Vec<Uuid> {
    let is_due = |(id, lease): &(&Uuid, &Option<Lease>)| {
        let lease = renewed.get(id).or(lease.as_ref());
        lease.is_none_or(|lease| lease.t1 <= now)
    };
    used.iter().filter(is_due).map(|(id, _)| *id).collect()
}

/// Renews for as long as the daemon runs.
pub async fn run(host: Arc<Host>, leases: Leases, stop: CancellationToken) {
    let mut failures = 0_u32;
    let mut audited: Option<tokio::time::Instant> = None;
    while !stop.is_cancelled() {
        let mut outcome = match host.uplink.identity() {
            Some(_) => leases.once(&host, Timestamp::now()).await,
            None => Ok(()),
        };
        if outcome.is_ok()
            && host.uplink.identity().is_some()
            && audited.is_none_or(|at| at.elapsed() >= AUDIT)
        {
            outcome = leases.audit(&host).await;
            audited = Some(tokio::time::Instant::now());
        }
        match outcome {
            Ok(()) => failures = 0,
            Err(problem) => {
                failures += 1;
                if failures == 1 {
                    tracing::warn!("renewing leases: {problem}");
                }
            }
        }
        let pause = match failures {
            0 => LOOK,
            n => Duration::from_secs(1 << n.min(5)).min(LONGEST_PAUSE),
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(id: u128, t1: i64) -> Lease {
        let at = |second| Timestamp::from_second(second).unwrap();
        serde_json::from_value(serde_json::json!({
            "id": Uuid::from_u128(id), "slice_id": Uuid::from_u128(9), "client_id": "c",
            "mac": "02:00:00:00:00:01", "ips": ["10.0.0.2/24"], "mtu": 1500,
            "t1": at(t1), "t2": at(t1 + 10), "expires_at": at(t1 + 20),
            "state": "bound", "version": 1,
        }))
        .unwrap()
    }

    #[test]
    fn each_is_due_from_t1_on_as_last_renewed_and_the_unknown_at_once() {
        let id = Uuid::from_u128;
        let used = BTreeMap::from([
            (id(1), Some(lease(1, 10))),
            (id(2), Some(lease(2, 20))),
            (id(3), Some(lease(3, 5))),
            (id(4), None),
        ]);
        let renewed = BTreeMap::from([(id(3), lease(3, 50))]);
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(due(&used, &renewed, at(9)), [id(4)]);
        assert_eq!(due(&used, &renewed, at(10)), [id(1), id(4)]);
    }

    #[test]
    fn a_renewed_lease_is_the_current_one_and_a_refusal_is_counted() {
        let leases = Leases::default();
        leases.note(Uuid::from_u128(1), Some(lease(1, 100)), None);
        assert_eq!(leases.current(&lease(1, 10)), lease(1, 100));
        assert_eq!(leases.current(&lease(2, 10)), lease(2, 10));
        let gone = Problem::new(dtn_api::problem::Kind::NotFound, "no such lease");
        leases.note(Uuid::from_u128(1), None, Some(gone));
        assert_eq!(leases.book().failed.len(), 1);
        leases.note(Uuid::from_u128(1), Some(lease(1, 200)), None);
        assert!(leases.book().failed.is_empty());
        assert_eq!(leases.book().renewals, 2);
    }
}
