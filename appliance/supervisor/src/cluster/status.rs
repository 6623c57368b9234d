//! Writes into each claim how it went (KEP-4817): prepared, and once the interface is in the pod and
//! was read back from the kernel, ready, with its name, hardware address and addresses.
//!
//! Each writer of a claim's status owns its own fields: the agreement is the controller's, these are
//! ours. Nothing waits for the API server: what could not be told is told later.

use super::{
    Cluster, book,
    book::{Entry, Given},
    claim::ClaimId,
    counts::Call,
    slices::MANAGER,
};
use crate::{Host, inventory};
use dtn_api::{
    Problem,
    cluster::{DRIVER, PREPARED, READY},
    problem::Kind,
};
use dtn_cni::record::{InterfaceRecord, Phase};
use dtn_link::{Netns, address};
use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio_util::sync::CancellationToken;

/// Between two looks when nobody wakes us.
const LOOK: Duration = Duration::from_secs(5);

/// An interface as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct InPod {
    /// Its name, which a runtime may have chosen.
    name: String,
    mac: Option<String>,
    ips: Vec<String>,
}

/// What was told of a claim, and since when it is so.
#[derive(Debug, Clone)]
struct Told {
    claim: ClaimId,
    devices: Vec<(Given, Option<InPod>, Timestamp)>,
}

/// Tells for as long as the daemon runs.
pub(super) async fn run(cluster: Cluster, stop: CancellationToken) {
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    while !stop.is_cancelled() {
        let outcome = once(&cluster, &mut told).await;
        let words = outcome.err().map(|problem| problem.to_string());
        let before = std::mem::replace(&mut cluster.seen().telling, words.clone());
        if let Some(words) = words.filter(|words| before.as_ref() != Some(words)) {
            tracing::warn!("{words}");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = cluster.0.tell.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// One look at all claims of the book; the first problem, after all were tried.
async fn once(cluster: &Cluster, told: &mut BTreeMap<String, Told>) -> Result<(), Problem> {
    let (entries, _) = book::list(&cluster.0.host.places)?;
    let mut outcome = Ok(());
    for entry in entries.iter().filter(|entry| entry.is_whole()) {
        let now = Timestamp::now();
        let mut devices = Vec::new();
        for given in &entry.devices {
            let seen = in_pod(&cluster.0.host, entry, given).await;
            let before = told.get(&entry.claim.uid).and_then(|told| {
                let mut devices = told.devices.iter();
                devices.find(|(other, was, _)| other == given && *was == seen)
            });
            let since = before.map_or(now, |(_, _, since)| *since);
            devices.push((given.clone(), seen, since));
        }
        let same = told
            .get(&entry.claim.uid)
            .is_some_and(|told| told.devices == devices);
        if same {
            continue;
        }
        let shown: Vec<Value> = devices
            .iter()
            .map(|(given, seen, since)| device(given, seen.as_ref(), entry.prepared_at, *since))
            .collect();
        match write(cluster, &entry.claim, shown).await {
            Ok(()) => {
                let claim = entry.claim.clone();
                told.insert(entry.claim.uid.clone(), Told { claim, devices });
            }
            Err(problem) if outcome.is_ok() => outcome = Err(problem),
            Err(_) => {}
        }
    }
    // what was given back, once: mostly the claim is gone by then
    let gone: Vec<String> = told
        .keys()
        .filter(|uid| !entries.iter().any(|entry| entry.claim.uid == **uid))
        .cloned()
        .collect();
    for uid in gone {
        if let Some(told) = told.remove(&uid) {
            let now = Timestamp::now();
            let shown = told
                .devices
                .iter()
                .map(|(given, ..)| given_back(given, now));
            if let Err(problem) = write(cluster, &told.claim, shown.collect()).await {
                tracing::debug!("{problem}");
            }
        }
    }
    outcome
}

/// The interface as the pod has it; `None` while it is not attached.
async fn in_pod(host: &Host, entry: &Entry, given: &Given) -> Option<InPod> {
    let records = inventory::records(&host.places).0;
    let record = records.iter().find(|record| record.key == entry.pod.uid)?;
    let interface = record.of_prepared(&given.ifname)?;
    if interface.phase != Phase::Attached {
        return None;
    }
    read_back(interface)
        .await
        .inspect_err(|e| tracing::debug!(claim = %entry.claim, ifname = %given.ifname, "{e}"))
        .ok()?
}

async fn read_back(interface: &InterfaceRecord) -> dtn_link::Result<Option<InPod>> {
    let sandbox = Netns::open(&interface.netns)?;
    if sandbox.inode() != interface.netns_inode {
        return Ok(None);
    }
    let conn = sandbox.connect().await?;
    let link = dtn_link::inventory::link_named(&conn, &interface.ifname).await?;
    let addresses = address::list(&conn, Some(link.index)).await?;
    Ok(Some(InPod {
        name: interface.ifname.to_string(),
        mac: link.mac.map(|mac| mac.to_string()),
        // the pod may have others; these are promised
        ips: addresses
            .iter()
            .filter(|address| interface.ips.contains(&address.net))
            .map(|address| address.net.to_string())
            .collect(),
    }))
}

fn device(given: &Given, seen: Option<&InPod>, prepared: Timestamp, since: Timestamp) -> Value {
    let nic = given.interface.as_ref().map(|i| i.nic_name.as_str());
    let nic = nic.unwrap_or(given.allocated.device.as_str());
    let ready = match seen {
        Some(_) => condition(READY, true, "Attached", "", since),
        None => condition(
            READY,
            false,
            "NotAttached",
            "nothing has attached it yet: the pod has no sandbox, or the node's network calls none of \
             the appliance's plugins (vdn-chain install)",
            since,
        ),
    };
    let words = format!("NIC {nic} as {}", given.ifname);
    let mut shown = entry_of(given);
    shown["conditions"] = json!([
        condition(PREPARED, true, "Prepared", &words, prepared),
        ready
    ]);
    if let Some(seen) = seen {
        shown["networkData"] = json!({"interfaceName": seen.name, "ips": seen.ips});
        if let Some(mac) = &seen.mac {
            shown["networkData"]["hardwareAddress"] = json!(mac);
        }
    }
    shown
}

fn given_back(given: &Given, now: Timestamp) -> Value {
    let mut shown = entry_of(given);
    shown["conditions"] = json!([
        condition(PREPARED, false, "GivenBack", "the pod has it no more", now),
        condition(READY, false, "GivenBack", "the pod has it no more", now),
    ]);
    shown
}

fn entry_of(given: &Given) -> Value {
    let allocated = &given.allocated;
    let mut entry = json!({
        "driver": DRIVER, "pool": allocated.pool, "device": allocated.device,
    });
    if let Some(share) = &allocated.share_id {
        entry["shareID"] = json!(share);
    }
    entry
}

fn condition(kind: &str, is: bool, reason: &str, message: &str, since: Timestamp) -> Value {
    // whole seconds: what Kubernetes keeps
    let since = since.round(jiff::Unit::Second).unwrap_or(since);
    json!({
        "type": kind,
        "status": if is { "True" } else { "False" },
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    })
}

/// Server-side apply of our part. The UID keeps it from a claim that was made anew under that name;
/// one that is gone has nobody to be told.
async fn write(cluster: &Cluster, id: &ClaimId, devices: Vec<Value>) -> Result<(), Problem> {
    let client = cluster.client().await?;
    let claims: Api<ResourceClaim> = Api::namespaced(client, &id.namespace);
    let body = json!({
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": id.name, "namespace": id.namespace, "uid": id.uid},
        "status": {"devices": devices},
    });
    let params = PatchParams::apply(MANAGER).force();
    let patch = Patch::Apply(&body);
    let doing = format!("writing the status of claim {id}");
    let call = claims.patch_status(&id.name, &params, &patch);
    match cluster.call(Call::ToTell, &doing, call).await {
        Err(problem) if problem.is(Kind::NotFound) || problem.is(Kind::VersionMismatch) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::super::claim::Allocated;
    use super::*;

    fn given(share: Option<&str>) -> Given {
        Given {
            allocated: Allocated {
                request: "nic".into(),
                pool: "n1".into(),
                device: "data0".into(),
                share_id: share.map(str::to_owned),
            },
            ifname: "data0".parse().unwrap(),
            interface: None,
            published: None,
        }
    }
    fn at(second: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + second * 1000 + 4).unwrap()
    }

    #[test]
    fn a_claim_shows_the_interface_once_the_pod_has_it() {
        let waits = device(&given(None), None, at(0), at(1));
        assert_eq!(waits.get("networkData"), None);
        assert_eq!(waits.get("shareID"), None);
        assert_eq!(waits["conditions"][0]["type"], "Prepared");
        assert_eq!(
            waits["conditions"][0]["lastTransitionTime"],
            "2027-01-15T08:00:00Z"
        );
        assert_eq!(waits["conditions"][1]["status"], "False");
        let seen = InPod {
            name: "data0".into(),
            mac: Some("02:00:00:00:00:01".into()),
            ips: vec!["10.0.0.7/24".into()],
        };
        let ready = device(&given(Some("s-1")), Some(&seen), at(0), at(2));
        assert_eq!(ready["shareID"], "s-1");
        assert_eq!(ready["conditions"][1]["status"], "True");
        assert_eq!(
            ready["networkData"],
            json!({"interfaceName": "data0", "ips": ["10.0.0.7/24"],
                "hardwareAddress": "02:00:00:00:00:01"})
        );
        let back = given_back(&given(None), at(3));
        assert_eq!(back["conditions"][0]["status"], "False");
        // Kubernetes wants a reason of each condition, and a message that is there
        for shown in [waits, ready, back] {
            for condition in shown["conditions"].as_array().unwrap() {
                assert!(!condition["reason"].as_str().unwrap().is_empty());
                assert!(condition["message"].is_string());
            }
        }
    }
}
