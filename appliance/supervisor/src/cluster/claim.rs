//! What a ResourceClaim says to this node: whose it is, which NICs were allocated, what was asked
//! for each and what was agreed. Pure: Kubernetes' object in, our words out.

use dtn_api::{
    Problem,
    cluster::{Agreement, ClaimParameters, DRIVER, NEGOTIATED},
    problem::Kind,
};
use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, DeviceAllocationConfiguration, DeviceRequestAllocationResult,
    ResourceClaim,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A claim, by what never changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClaimId {
    /// Given by the API server; a claim that is made anew under the same name has another.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}
impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which device was allocated: the key of its entry in the claim's status.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Allocated {
    /// The request that it serves.
    pub request: String,
    /// The pool.
    pub pool: String,
    /// The device.
    pub device: String,
    /// Which share, of a device that is given several times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_id: Option<String>,
}

/// What became of the negotiation for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Negotiated {
    /// No slice is asked for.
    NotNeeded,
    /// Agreed.
    Yes(Agreement),
    /// The controller has said nothing yet.
    Waiting,
    /// It does not fit, or not now.
    No(String),
}

/// One device of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which was allocated.
    pub allocated: Allocated,
    /// What was asked for it.
    pub parameters: ClaimParameters,
    /// What was agreed.
    pub negotiated: Negotiated,
}

/// The pod that a claim is reserved for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its UID.
    pub uid: String,
    /// Its name; it is in the claim's namespace.
    pub name: String,
}

/// What a claim says to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Whose it is.
    pub pod: Consumer,
    /// Its devices of this driver.
    pub devices: Vec<Wanted>,
}

/// Reads a claim, as the kubelet named it, on this node.
pub fn read(claim: &ResourceClaim, id: &ClaimId, node: &str) -> Result<Reading, Problem> {
    let refused = |why: String| Problem::new(Kind::StateConflict, why);
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    if uid != id.uid {
        return Err(refused(format!(
            "claim {id} is another one now ({uid} in place of {}): it was deleted and made anew",
            id.uid
        )));
    }
    let pod = consumer(claim, id)?;
    let allocation = claim.status.as_ref().and_then(|s| s.allocation.as_ref());
    let Some(allocation) = allocation.and_then(|allocation| allocation.devices.as_ref()) else {
        return Err(refused(format!("claim {id} is not allocated")));
    };
    let statuses = claim.status.as_ref().and_then(|s| s.devices.as_deref());
    let configs = allocation.config.as_deref().unwrap_or_default();
    let mut devices: Vec<Wanted> = Vec::new();
    for result in allocation.results.iter().flatten() {
        if result.driver != DRIVER {
            continue;
        }
        if result.pool != node {
            return Err(refused(format!(
                "claim {id} has device {} of node {}, and this is node {node}",
                result.device, result.pool
            )));
        }
        if result.admin_access == Some(true) {
            return Err(refused(format!(
                "request {} asks for administrative access: a NIC is given to one pod, and to \
                 nobody beside it; leave adminAccess out",
                result.request
            )));
        }
        let parameters = parameters(configs, result)?;
        let clash = devices
            .iter()
            .find(|other| other.parameters.interface == parameters.interface);
        if let Some(other) = clash {
            let why = format!(
                "requests {} and {} both name the interface {}",
                other.allocated.request, result.request, parameters.interface
            );
            return Err(Problem::new(Kind::InvalidRequest, why).at(
                "/parameters/interface",
                "give each its own, by a config for each request",
            ));
        }
        devices.push(Wanted {
            negotiated: negotiated(&parameters, statuses.unwrap_or_default(), result),
            allocated: Allocated {
                request: result.request.clone(),
                pool: result.pool.clone(),
                device: result.device.clone(),
                share_id: result.share_id.clone(),
            },
            parameters,
        });
    }
    if devices.is_empty() {
        return Err(refused(format!("claim {id} has no device of {DRIVER}")));
    }
    Ok(Reading { pod, devices })
}

/// Whether it is this very claim, and a pod of this UID may use it.
pub fn is_for(claim: &ResourceClaim, id: &ClaimId, pod: &str) -> bool {
    let reserved = claim
        .status
        .as_ref()
        .and_then(|s| s.reserved_for.as_deref());
    let mut reserved = reserved.unwrap_or_default().iter();
    claim.metadata.uid.as_deref() == Some(&id.uid)
        && reserved.any(|one| one.resource == "pods" && one.uid == pod)
}

/// The one pod that it is reserved for: an interface is in one pod.
fn consumer(claim: &ResourceClaim, id: &ClaimId) -> Result<Consumer, Problem> {
    let status = claim.status.as_ref();
    let reserved = status.and_then(|s| s.reserved_for.as_deref());
    match reserved.unwrap_or_default() {
        [one] if one.resource == "pods" => Ok(Consumer {
            uid: one.uid.clone(),
            name: one.name.clone(),
        }),
        [] => Err(Problem::new(
            Kind::StateConflict,
            format!("claim {id} is reserved for no pod"),
        )),
        many => {
            let names: Vec<&str> = many.iter().map(|one| one.name.as_str()).collect();
            Err(Problem::new(
                Kind::StateConflict,
                format!(
                    "claim {id} is reserved for {}: an interface is in one pod; give each pod its \
                     own claim by a ResourceClaimTemplate",
                    names.join(", ")
                ),
            ))
        }
    }
}

/// What was asked for an allocated device. Configs of the class stand before those of the claim, so
/// the last one that is meant for the request holds; they are not merged.
pub fn parameters(
    configs: &[DeviceAllocationConfiguration],
    result: &DeviceRequestAllocationResult,
) -> Result<ClaimParameters, Problem> {
    // `parent/alternative`, where the request is one of a list of alternatives
    let parent = result.request.split('/').next().unwrap_or_default();
    let meant = |config: &&DeviceAllocationConfiguration| {
        let requests = config.requests.as_deref().unwrap_or_default();
        requests.is_empty()
            || requests
                .iter()
                .any(|request| *request == result.request || request == parent)
    };
    let opaque = configs
        .iter()
        .filter(meant)
        .filter_map(|config| config.opaque.as_ref())
        .rfind(|opaque| opaque.driver == DRIVER);
    match opaque {
        Some(opaque) => ClaimParameters::read(&opaque.parameters.0),
        None => Ok(ClaimParameters::default()),
    }
}

fn negotiated(
    parameters: &ClaimParameters,
    statuses: &[AllocatedDeviceStatus],
    result: &DeviceRequestAllocationResult,
) -> Negotiated {
    let Some(slice) = &parameters.slice else {
        return Negotiated::NotNeeded;
    };
    let entry = statuses.iter().find(|status| {
        status.driver == DRIVER
            && status.pool == result.pool
            && status.device == result.device
            && status.share_id == result.share_id
    });
    let Some(entry) = entry else {
        return Negotiated::Waiting;
    };
    let conditions = entry.conditions.as_deref().unwrap_or_default();
    let Some(condition) = conditions.iter().find(|c| c.type_ == NEGOTIATED) else {
        return Negotiated::Waiting;
    };
    if condition.status != "True" {
        let why = match condition.message.is_empty() {
            true => &condition.reason,
            false => &condition.message,
        };
        return Negotiated::No(why.clone());
    }
    let agreement = entry
        .data
        .as_ref()
        .and_then(|data| data.0.get("agreement"))
        .map(|agreement| serde_json::from_value::<Agreement>(agreement.clone()));
    match agreement {
        Some(Ok(agreement)) if agreement.slice == *slice => Negotiated::Yes(agreement),
        Some(Ok(agreement)) => Negotiated::No(format!(
            "slice {} was agreed and {slice} is asked for: make the claim anew",
            agreement.slice
        )),
        Some(Err(e)) => Negotiated::No(format!(
            "what was agreed cannot be read: {e}: dtn-cluster and dtnd must be of one release"
        )),
        None => Negotiated::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn id() -> ClaimId {
        ClaimId {
            uid: "u-1".into(),
            namespace: "default".into(),
            name: "data".into(),
        }
    }
    fn parameters(extra: Value) -> Value {
        let mut all = json!({"apiVersion": "dtn.appliance/v1", "kind": "InterfaceRequest"});
        for (name, value) in extra.as_object().unwrap() {
            all[name] = value.clone();
        }
        all
    }
    fn agreement(slice: &str) -> Value {
        json!({"slice": slice, "sliceId": uuid::Uuid::from_u128(7), "class": "guaranteed",
            "rateBps": 2_000_000_000_u64, "endsAt": "2030-01-01T00:00:00Z"})
    }
    fn claim(configs: Value, results: Value, devices: Value) -> ResourceClaim {
        serde_json::from_value(json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": "data", "namespace": "default", "uid": "u-1"},
            "spec": {},
            "status": {
                "allocation": {"devices": {"results": results, "config": configs}},
                "reservedFor": [{"resource": "pods", "name": "mover", "uid": "p-1"}],
                "devices": devices,
            },
        }))
        .unwrap()
    }
    fn result(request: &str, device: &str) -> Value {
        json!({"request": request, "driver": "dtn.appliance", "pool": "n1", "device": device})
    }
    fn config(source: &str, requests: Value, extra: Value) -> Value {
        json!({"source": source, "requests": requests,
            "opaque": {"driver": "dtn.appliance", "parameters": parameters(extra)}})
    }
    fn status(device: &str, condition: &str, message: &str, data: Value) -> Value {
        json!({"driver": "dtn.appliance", "pool": "n1", "device": device, "data": data,
            "conditions": [{"type": "Negotiated", "status": condition, "reason": "Asked",
                "message": message, "lastTransitionTime": "2029-01-01T00:00:00Z"}]})
    }

    #[test]
    fn a_claim_of_one_device_without_a_slice_needs_no_agreement() {
        let claim = claim(json!([]), json!([result("nic", "data0")]), json!([]));
        let read = read(&claim, &id(), "n1").unwrap();
        assert_eq!(
            (read.pod.uid.as_str(), read.pod.name.as_str()),
            ("p-1", "mover")
        );
        let [device] = &read.devices[..] else {
            panic!("{read:?}")
        };
        assert_eq!(device.negotiated, Negotiated::NotNeeded);
        assert_eq!(device.parameters, ClaimParameters::default());
    }

    #[test]
    fn the_last_config_that_is_meant_holds() {
        let configs = json!([
            config("FromClass", json!([]), json!({"interface": "class0"})),
            config("FromClaim", json!([]), json!({"interface": "all0"})),
            config("FromClaim", json!(["b"]), json!({"interface": "b0"})),
            {"source": "FromClaim", "opaque": {"driver": "gpu.example.org", "parameters": {}}},
        ]);
        let results = json!([result("a/fast", "data0"), result("b/slow", "data1"),
            {"request": "c", "driver": "gpu.example.org", "pool": "n1", "device": "gpu"}]);
        let read = read(&claim(configs, results, json!([])), &id(), "n1").unwrap();
        let names: Vec<&str> = read
            .devices
            .iter()
            .map(|device| device.parameters.interface.as_str())
            .collect();
        assert_eq!(names, ["all0", "b0"]);
    }

    #[test]
    fn what_was_agreed_is_taken_from_the_entry_of_the_very_device() {
        let configs = json!([config("FromClaim", json!([]), json!({"slice": "lhc"}))]);
        let of = |devices: Value| {
            let claim = claim(configs.clone(), json!([result("nic", "data0")]), devices);
            read(&claim, &id(), "n1").unwrap().devices[0]
                .negotiated
                .clone()
        };
        let data = |slice: &str| json!({"agreement": agreement(slice)});
        assert_eq!(of(json!([])), Negotiated::Waiting);
        assert_eq!(
            of(json!([status("data1", "True", "", data("lhc"))])),
            Negotiated::Waiting
        );
        let Negotiated::Yes(agreed) = of(json!([status("data0", "True", "", data("lhc"))])) else {
            panic!()
        };
        assert_eq!(agreed.rate_bps, 2_000_000_000);
        assert_eq!(
            of(json!([status(
                "data0",
                "False",
                "slice lhc has 2.0 Gb/s left",
                json!(null)
            )])),
            Negotiated::No("slice lhc has 2.0 Gb/s left".into())
        );
        for (data, words) in [
            (data("other"), "make the claim anew"),
            (json!({"agreement": {"slice": "lhc"}}), "cannot be read"),
        ] {
            let Negotiated::No(why) = of(json!([status("data0", "True", "", data)])) else {
                panic!()
            };
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn a_claim_is_for_its_pod_while_it_is_reserved() {
        let mut claim = claim(json!([]), json!([result("nic", "data0")]), json!([]));
        assert!(is_for(&claim, &id(), "p-1"));
        assert!(!is_for(&claim, &id(), "p-2"));
        let other = ClaimId {
            uid: "u-2".into(),
            ..id()
        };
        assert!(!is_for(&claim, &other, "p-1"));
        claim.status.as_mut().unwrap().reserved_for = None;
        assert!(!is_for(&claim, &id(), "p-1"));
    }

    #[test]
    fn what_cannot_be_prepared_says_why() {
        let good = || claim(json!([]), json!([result("nic", "data0")]), json!([]));
        let mut other = good();
        other.metadata.uid = Some("u-2".into());
        let mut shared = good();
        let status = shared.status.as_mut().unwrap();
        let mut second = status.reserved_for.as_ref().unwrap()[0].clone();
        second.name = "second".into();
        status.reserved_for.as_mut().unwrap().push(second);
        let mut unreserved = good();
        unreserved.status.as_mut().unwrap().reserved_for = None;
        let mut unallocated = good();
        unallocated.status.as_mut().unwrap().allocation = None;
        let elsewhere = json!([{"request": "nic", "driver": "dtn.appliance", "pool": "n2",
            "device": "data0"}]);
        let admin = json!([{"request": "nic", "driver": "dtn.appliance", "pool": "n1",
            "device": "data0", "adminAccess": true}]);
        let foreign = json!([{"request": "c", "driver": "gpu.example.org", "pool": "n1",
            "device": "gpu"}]);
        let bad = json!([config(
            "FromClaim",
            json!([]),
            json!({"rate": "much", "mtu": 1})
        )]);
        let two = json!([result("a", "data0"), result("b", "data1")]);
        for (claim, words) in [
            (other, "another one now"),
            (shared, "mover, second"),
            (unreserved, "no pod"),
            (unallocated, "not allocated"),
            (claim(json!([]), elsewhere, json!([])), "this is node n1"),
            (claim(json!([]), admin, json!([])), "adminAccess"),
            (
                claim(json!([]), foreign, json!([])),
                "no device of dtn.appliance",
            ),
            (
                claim(bad, json!([result("nic", "data0")]), json!([])),
                "/parameters/rate",
            ),
            (claim(json!([]), two, json!([])), "/parameters/interface"),
        ] {
            let problem = read(&claim, &id(), "n1").unwrap_err().to_string();
            assert!(problem.contains(words), "{words}: {problem}");
        }
    }
}
