//! A pod of a cluster as it is shown: its interfaces with NIC, addresses, slice and share, from the
//! pod and its claims. Pure.

use dtn_api::cluster::{Agreement, ClaimParameters, DRIVER};
use dtn_workloads::{TEMPLATE, kubernetes::INSTANCE};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{ContainerState, Pod},
    resource::v1::{AllocatedDeviceStatus, ResourceClaim},
};
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Label that all templates set.
const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "dtn-appliance");

/// A pod, for programs as it is here and for people as a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ClusterPod {
    /// Its name.
    pub(crate) name: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Kubernetes' name of it.
    pub(crate) uid: String,
    /// The template, when it is from one.
    pub(crate) template: Option<String>,
    /// How far it is.
    pub(crate) phase: &'static str,
    /// What it waits for or what is wrong.
    pub(crate) message: String,
    /// Where it runs.
    pub(crate) node: Option<String>,
    /// When it was asked for.
    pub(crate) created_at: Option<Timestamp>,
    /// Its containers and how they are.
    pub(crate) containers: BTreeMap<String, String>,
    /// Its interfaces of the appliance.
    pub(crate) interfaces: Vec<Interface>,
}

/// An interface that a claim gives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Interface {
    /// The claim.
    pub(crate) claim: String,
    /// Name in the pod.
    pub(crate) ifname: String,
    /// DeviceClass that was asked for.
    pub(crate) class: Option<String>,
    /// The NIC that was allocated.
    pub(crate) nic: Option<String>,
    /// Of which node.
    pub(crate) node: Option<String>,
    /// Its hardware address in the pod.
    pub(crate) mac: Option<String>,
    /// Its addresses.
    pub(crate) ips: Vec<String>,
    /// The slice that is asked for or agreed.
    pub(crate) slice: Option<String>,
    /// The part of its rate that is this interface's alone.
    pub(crate) share_bps: Option<u64>,
    /// When the promise ends.
    pub(crate) ends_at: Option<Timestamp>,
    /// What was written of it, by type.
    pub(crate) conditions: BTreeMap<String, Condition>,
}

/// What was written of an interface.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Condition {
    /// Whether it holds.
    pub(crate) holds: bool,
    /// Why, in a word.
    pub(crate) reason: String,
    /// Why, in a sentence.
    pub(crate) message: String,
}

/// A condition of a pod: whether it holds, and why.
pub(crate) fn condition(pod: &Pod, kind: &str) -> Option<(bool, String)> {
    let all = pod.status.as_ref()?.conditions.as_ref()?;
    let found = all.iter().find(|condition| condition.type_ == kind)?;
    let why = found.message.clone().or(found.reason.clone());
    Some((found.status == "True", why.unwrap_or_default()))
}

/// Whether a claim asks for a NIC of the appliance.
pub(crate) fn concerns(claim: &ResourceClaim) -> bool {
    parameters(claim).is_some()
        || allocated(claim).next().is_some()
        || claim.spec.devices.iter().any(|devices| {
            let requests = devices.requests.iter().flatten();
            requests.filter_map(|r| r.exactly.as_ref()).any(|r| {
                r.device_class_name == dtn_api::cluster::DEDICATED_CLASS
                    || r.device_class_name == dtn_api::cluster::SHARED_CLASS
            })
        })
}

/// Whether a claim is of a pod.
pub(crate) fn belongs(claim: &ResourceClaim, pod: &Pod) -> bool {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let owned = claim.metadata.owner_references.iter().flatten();
    let reserved = claim
        .status
        .iter()
        .flat_map(|s| s.reserved_for.iter().flatten());
    let mut uids = owned.map(|o| &o.uid).chain(reserved.map(|r| &r.uid));
    if uids.any(|other| other == uid) {
        return true;
    }
    let named = pod
        .spec
        .iter()
        .flat_map(|s| s.resource_claims.iter().flatten());
    let mut named = named.filter_map(|c| c.resource_claim_name.as_deref());
    named.any(|name| claim.metadata.name.as_deref() == Some(name))
}

/// Whether a pod is one of the appliance's, as far as it says itself.
pub(crate) fn is_workload(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(PART_OF.0))
        .is_some_and(|v| v == PART_OF.1)
        && labels.is_some_and(|labels| labels.contains_key(INSTANCE))
}

fn parameters(claim: &ResourceClaim) -> Option<Value> {
    let config = claim.spec.devices.as_ref()?.config.iter().flatten();
    let mut opaque = config.filter_map(|config| config.opaque.as_ref());
    let ours = opaque.find(|opaque| opaque.driver == DRIVER)?;
    Some(ours.parameters.0.clone())
}

fn allocated(claim: &ResourceClaim) -> impl Iterator<Item = (&String, &String, &String)> {
    let allocation = claim.status.iter().filter_map(|s| s.allocation.as_ref());
    let results = allocation.filter_map(|a| a.devices.as_ref());
    results
        .flat_map(|devices| devices.results.iter().flatten())
        .filter(|result| result.driver == DRIVER)
        .map(|result| (&result.pool, &result.device, &result.request))
}

/// The interfaces that claims give; one that nothing is allocated to yet is there too.
pub(crate) fn interfaces(claims: &[&ResourceClaim]) -> Vec<Interface> {
    let mut all = Vec::new();
    for claim in claims {
        let written = parameters(claim);
        // a claim that its judge refuses is shown with what can be read of it
        let read = written.as_ref().and_then(|p| ClaimParameters::read(p).ok());
        let text = |name: &str| {
            let value = written.as_ref().and_then(|p| p.get(name)?.as_str());
            value.map(str::to_owned)
        };
        let requests = claim
            .spec
            .devices
            .iter()
            .flat_map(|d| d.requests.iter().flatten());
        let class = requests
            .filter_map(|request| Some(request.exactly.as_ref()?.device_class_name.clone()))
            .next();
        let bare = Interface {
            claim: claim.metadata.name.clone().unwrap_or_default(),
            ifname: match &read {
                Some(read) => read.interface.to_string(),
                None => text("interface").unwrap_or_else(|| "data0".into()),
            },
            class,
            nic: None,
            node: None,
            mac: None,
            ips: Vec::new(),
            slice: text("slice"),
            share_bps: None,
            ends_at: None,
            conditions: BTreeMap::new(),
        };
        let before = all.len();
        for (pool, device, _) in allocated(claim) {
            let mut interface = Interface {
                nic: Some(device.clone()),
                node: Some(pool.clone()),
                ..bare.clone()
            };
            let devices = claim.status.iter().flat_map(|s| s.devices.iter().flatten());
            let mut same = devices
                .filter(|d| (&d.driver, &d.pool, &d.device) == (&DRIVER.to_owned(), pool, device));
            if let Some(device) = same.next() {
                interface.told(device);
            }
            all.push(interface);
        }
        if all.len() == before {
            all.push(bare);
        }
    }
    all
}

impl Interface {
    /// What the controller and the node wrote.
    fn told(&mut self, device: &AllocatedDeviceStatus) {
        for condition in device.conditions.iter().flatten() {
            let told = Condition {
                holds: condition.status == "True",
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            };
            self.conditions.insert(condition.type_.clone(), told);
        }
        if let Some(network) = &device.network_data {
            self.mac.clone_from(&network.hardware_address);
            self.ips = network.ips.clone().unwrap_or_default();
            if let Some(ifname) = &network.interface_name {
                self.ifname.clone_from(ifname);
            }
        }
        let agreement = device
            .data
            .as_ref()
            .and_then(|data| data.0.get("agreement"));
        let agreement = agreement.and_then(|value| Agreement::deserialize(value).ok());
        if let Some(agreement) = agreement {
            self.slice = Some(agreement.slice.to_string());
            self.share_bps = Some(agreement.rate_bps);
            self.ends_at = Some(agreement.ends_at);
        }
    }
}

/// A pod as it is shown.
pub(crate) fn of(pod: &Pod, claims: &[&ResourceClaim], message: String) -> ClusterPod {
    let status = pod.status.clone().unwrap_or_default();
    let ready = condition(pod, "Ready").is_some_and(|(ready, _)| ready);
    let phase = match status.phase.as_deref() {
        _ if pod.metadata.deletion_timestamp.is_some() => "removing",
        Some("Running") if ready => "running",
        Some("Running") => "not ready",
        Some("Succeeded") => "ended",
        Some("Failed") => "FAILED",
        Some("Unknown") => "LOST",
        _ => "pending",
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let init = status.init_container_statuses.iter().flatten();
    let containers = init
        .chain(status.container_statuses.iter().flatten())
        .map(|c| (c.name.clone(), container(c.state.as_ref(), c.restart_count)))
        .collect();
    ClusterPod {
        name: text(&pod.metadata.name),
        namespace: text(&pod.metadata.namespace),
        uid: text(&pod.metadata.uid),
        template: pod
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(TEMPLATE).cloned()),
        phase,
        message,
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        created_at: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
        containers,
        interfaces: interfaces(claims),
    }
}

fn container(state: Option<&ContainerState>, restarts: i32) -> String {
    let word = match state {
        Some(ContainerState {
            waiting: Some(waiting),
            ..
        }) => waiting.reason.clone().unwrap_or_else(|| "waiting".into()),
        Some(ContainerState {
            terminated: Some(ended),
            ..
        }) => format!("exited ({})", ended.exit_code),
        Some(ContainerState {
            running: Some(_), ..
        }) => "running".into(),
        _ => "waiting".into(),
    };
    match restarts {
        0 => word,
        1 => format!("{word}, started again once"),
        more => format!("{word}, started again {more} times"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "t1", "namespace": "science", "uid": "u1",
                "creationTimestamp": "2027-01-10T05:00:00Z",
                "labels": {"app.kubernetes.io/part-of": "dtn-appliance",
                    "app.kubernetes.io/instance": "t1"},
                "annotations": {"dtn.appliance/template": "xrootd"}},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "xrootd", "image": "i", "imageID": "", "ready": true,
                    "restartCount": 2, "state": {"running": {}}}]},
        }))
        .unwrap()
    }

    pub(crate) fn claim(ready: bool) -> ResourceClaim {
        let mut claim = json!({
            "metadata": {"name": "t1-nic-x", "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "t1", "uid": "u1"}]},
            "spec": {"devices": {
                "requests": [{"name": "nic", "exactly": {"deviceClassName": "dtn-shared"}}],
                "config": [{"opaque": {"driver": "dtn.appliance", "parameters": {
                    "apiVersion": "dtn.appliance/v1", "kind": "InterfaceRequest",
                    "interface": "data0", "slice": "lhc"}}}]}},
        });
        if ready {
            let time = "2027-01-10T05:00:00Z";
            claim["status"] = json!({
                "allocation": {"devices": {"results": [
                    {"request": "nic", "driver": "dtn.appliance", "pool": "n1", "device": "eth1"}]}},
                "devices": [{"driver": "dtn.appliance", "pool": "n1", "device": "eth1",
                    "conditions": [
                        {"type": "Negotiated", "status": "True", "reason": "Agreed", "message": "",
                         "lastTransitionTime": time},
                        {"type": "Ready", "status": "False", "reason": "Waiting", "message": "x",
                         "lastTransitionTime": time}],
                    "data": {"agreement": {"slice": "lhc", "class": "guaranteed",
                        "sliceId": "01930000-0000-7000-8000-000000000001",
                        "rateBps": 2_000_000_000u64, "endsAt": "2027-01-10T14:00:00Z"}},
                    "networkData": {"interfaceName": "data0", "hardwareAddress": "02:00:00:00:00:01",
                        "ips": ["10.64.0.2/24", "fd64::2/64"]}}],
            });
        }
        serde_json::from_value(claim).unwrap()
    }

    #[test]
    fn a_claim_is_found_by_its_pod() {
        let (pod, claim) = (pod(), claim(true));
        assert!(belongs(&claim, &pod) && concerns(&claim) && is_workload(&pod));
        let mut other = pod.clone();
        other.metadata.uid = Some("u2".into());
        assert!(!belongs(&claim, &other));
    }

    #[test]
    fn what_was_agreed_is_read() {
        let (pod, claim) = (pod(), claim(true));
        let written = serde_json::to_value(of(&pod, &[&claim], String::new())).unwrap();
        assert_eq!(written["interfaces"][0]["share_bps"], 2_000_000_000u64);
        assert_eq!(
            written["interfaces"][0]["conditions"]["Negotiated"]["holds"],
            true
        );
    }
}
