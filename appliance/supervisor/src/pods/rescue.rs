//! Rescue of what pods of another engine have: their runtime detaches by DEL, and sometimes it never
//! does (deleted by force, its state lost, the machine restarted).
//!
//! Invariant: nothing is taken from a pod that runs. An attachment goes home when its sandbox is gone
//! for good; something that was prepared and never attached when its pod is gone, by the kubelet's own
//! folders. What was prepared for a claim that is in the book is the claim's: see
//! [`crate::cluster::sweep`].

use super::{attach, take_back};
use crate::{Host, cluster::book, gateway, inventory};
use dtn_api::{
    Problem,
    attachment::{Prepared, PreparedInterface},
    cluster::{ENGINE, NETWORK},
};
use dtn_cni::{reconcile, record::AttachmentRecord};
use jiff::{SignedDuration, Timestamp};
use std::{collections::BTreeSet, path::Path};

/// How long something prepared may wait for its ADD when nobody can tell whether its pod is still
/// there.
const WAIT: SignedDuration = SignedDuration::from_mins(10);
/// And when the kubelet has no pod of that UID: it makes a pod's folder before it asks for anything.
const GONE: SignedDuration = SignedDuration::from_secs(10);

/// One pass. What cannot be done for one pod does not keep the others from it.
pub(super) async fn once(host: &Host) -> Result<(), Problem> {
    let (records, _) = inventory::records(&host.places);
    let mut outcome = Ok(());
    for record in records.iter().filter(|record| is_of_others(record)) {
        if !reconcile::has_lost_its_sandbox(record) {
            continue;
        }
        tracing::warn!(
            pod = record.key,
            "its sandbox is gone, and its runtime did not detach it"
        );
        if let Err(problem) = attach::rescue(host, &record.key).await {
            outcome = Err(problem);
        }
    }
    let (entries, torn) = book::list(&host.places)?;
    if !torn.is_empty() {
        // whose the prepared interfaces are must not be guessed
        return outcome;
    }
    let booked: BTreeSet<&str> = entries.iter().map(|entry| entry.pod.uid.as_str()).collect();
    for prepared in inventory::prepared_files(&host.places.prepared())? {
        if prepared.pod.engine != ENGINE {
            continue;
        }
        let record = records.iter().find(|record| record.key == prepared.key);
        let facts = Facts {
            now: Timestamp::now(),
            known: known(host, &prepared),
            booked: booked.contains(prepared.key.as_str()),
        };
        for interface in &prepared.interfaces {
            let attached = record.is_some_and(|r| r.of_prepared(&interface.ifname).is_some());
            if attached || !is_left(&prepared, interface, &facts) {
                continue;
            }
            if let Err(problem) = give_back(host, &prepared, interface).await {
                outcome = Err(problem);
            }
        }
    }
    outcome
}

/// Our own pods and gateways are looked after by those who made them.
fn is_of_others(record: &AttachmentRecord) -> bool {
    !gateway::is_key(&record.key) && record.pod.as_ref().is_none_or(|pod| pod.engine == ENGINE)
}

/// What is known of a pod for which something was prepared.
struct Facts {
    now: Timestamp,
    /// Whether the kubelet has it; `None` when that cannot be told.
    known: Option<bool>,
    /// Whether a claim of it is in the book.
    booked: bool,
}

/// Whether something that is not attached was prepared for a pod that will not come for it.
fn is_left(prepared: &Prepared, interface: &PreparedInterface, facts: &Facts) -> bool {
    if facts.booked && interface.network == NETWORK {
        return false;
    }
    let patience = match facts.known {
        Some(true) => return false,
        Some(false) => GONE,
        None => WAIT,
    };
    facts.now.duration_since(prepared.prepared_at) > patience
}

/// Whether the kubelet has the pod, by the folder that it keeps for each.
fn known(host: &Host, prepared: &Prepared) -> Option<bool> {
    let pods = host.config().kubernetes.as_ref()?.kubelet_dir.join("pods");
    // a container of a runtime without a kubelet has no name of a pod
    let is_a_pods = prepared.pod.name != prepared.key;
    (is_a_pods && pods.is_dir()).then(|| is_there(&pods.join(&prepared.pod.uid)))
}

/// What cannot be looked at is taken for there.
fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

async fn give_back(
    host: &Host,
    prepared: &Prepared,
    interface: &PreparedInterface,
) -> Result<(), Problem> {
    let (key, ifname) = (&prepared.key, &interface.ifname);
    tracing::info!(pod = key, %ifname, "what was prepared for no pod is given back");
    match interface.network == NETWORK {
        true => {
            let why = "no pod came for it";
            take_back::interface(host, &prepared.pod, ifname, NETWORK, None, why).await
        }
        false => attach::unused(host, key, ifname).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_comes_for_is_left_and_nothing_else() {
        let prepared: Prepared = serde_json::from_value(serde_json::json!({
            "version": 1, "key": "u1", "prepared_at": "2030-01-01T00:00:00Z",
            "pod": {"uid": "u1", "name": "p", "namespace": "default", "engine": "kubernetes"},
            "interfaces": [{
                "ifname": "eth0", "network": "pods", "class": "shared", "nic_name": "ens1",
                "nic": {"netns_inode": 1, "ifindex": 2}, "mac": "02:00:00:00:00:01", "mtu": 1500,
                "leases": [], "slices": []
            }]
        }))
        .unwrap();
        let asked = &prepared.interfaces[0];
        let claimed = PreparedInterface {
            network: NETWORK.to_owned(),
            ..asked.clone()
        };
        let after = |seconds: i64, known, booked| Facts {
            now: prepared.prepared_at + SignedDuration::from_secs(seconds),
            known,
            booked,
        };
        for (seconds, known, booked, asked_is, claimed_is) in [
            (5, Some(false), false, false, false),
            (11, Some(false), false, true, true),
            (11, Some(false), true, true, false),
            (601, None, true, true, false),
            (599, None, false, false, false),
            (601, None, false, true, true),
            (9_999, Some(true), false, false, false),
        ] {
            let facts = after(seconds, known, booked);
            let why = format!("after {seconds} s, known {known:?}, booked {booked}");
            assert_eq!(is_left(&prepared, asked, &facts), asked_is, "{why}");
            assert_eq!(is_left(&prepared, &claimed, &facts), claimed_is, "{why}");
        }
    }
}
