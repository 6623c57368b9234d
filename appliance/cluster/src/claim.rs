//! What a ResourceClaim asks of the VDN and was told before: Kubernetes' object, read into plain
//! data. Pure. A claim is read whole or not at all; what its author wrote wrong is kept as what it
//! is, to be told.

use dtn_api::{
    Problem,
    cluster::{Agreement, ClaimParameters, DRIVER, NEGOTIATED, PREPARED, attribute},
};
use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, DeviceAllocationConfiguration, ResourceClaim,
};
use std::collections::BTreeMap;

/// Which device of a claim: unique within its status.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey {
    /// The pool, which is the node.
    pub pool: String,
    /// The device, which is the NIC.
    pub device: String,
    /// Which share of a NIC that several claims have.
    pub share: Option<String>,
}
impl DeviceKey {
    /// The NIC, whoever shares it.
    pub fn nic(&self) -> NicKey {
        NicKey(self.pool.clone(), self.device.clone())
    }
}

/// A NIC in the cluster: node and device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NicKey(
    /// The pool, which is the node.
    pub String,
    /// The device.
    pub String,
);
impl std::fmt::Display for NicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// A pod that a claim is reserved for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRef {
    /// Its name.
    pub name: String,
    /// Which one of that name.
    pub uid: String,
}

/// The condition `Negotiated` as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whether it is agreed.
    pub agreed: bool,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// Since when `agreed` is as it is.
    pub since: Timestamp,
}

/// What the claim's status says of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// The condition, once there is one.
    pub said: Option<Said>,
    /// What was agreed.
    pub agreement: Option<Agreement>,
    /// Whether the node has prepared it: a pod may be using it.
    pub prepared: bool,
}
impl Told {
    /// What was promised and not taken back.
    pub fn promise(&self) -> Option<&Agreement> {
        let agreed = self.said.as_ref().is_some_and(|said| said.agreed);
        self.agreement.as_ref().filter(|_| agreed)
    }
}

/// One device of a claim: what is asked for it, and what was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// Which device was allocated.
    pub key: DeviceKey,
    /// For which request of the claim.
    pub request: String,
    /// What its opaque parameters say; the problem when they are wrong.
    pub parameters: Result<ClaimParameters, Problem>,
    /// Bandwidth of the NIC that the claim asks the scheduler for, bits per second.
    pub capacity_bps: Option<u64>,
    /// What its status says.
    pub told: Told,
}

/// A claim with devices of this driver.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which one of that name.
    pub uid: String,
    /// The version that was read: an answer is written to no other.
    pub version: String,
    /// When it was made: older claims come first.
    pub created_at: Timestamp,
    /// Whether it is being deleted.
    pub leaving: bool,
    /// Pods that it is reserved for.
    pub pods: Vec<PodRef>,
    /// Its devices of this driver, in the order of the allocation.
    pub wishes: Vec<Wish>,
}
impl Claim {
    /// For people.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Reads a claim; `None` when nothing of it is this driver's, or nothing is allocated.
pub fn read(claim: &ResourceClaim) -> Option<Claim> {
    let metadata = &claim.metadata;
    let status = claim.status.as_ref()?;
    let devices = status.allocation.as_ref()?.devices.as_ref()?;
    let configs = devices.config.as_deref().unwrap_or_default();
    let told = status.devices.as_deref().unwrap_or_default();
    let asked = capacities(claim);
    let wishes: Vec<Wish> = devices
        .results
        .iter()
        .flatten()
        .filter(|result| result.driver == DRIVER)
        // who has administrative access looks at a device, and has no interface of it
        .filter(|result| result.admin_access != Some(true))
        .map(|result| {
            let key = DeviceKey {
                pool: result.pool.clone(),
                device: result.device.clone(),
                share: result.share_id.clone(),
            };
            Wish {
                told: told_of(&key, told),
                parameters: parameters(&result.request, configs),
                capacity_bps: asked.get(&result.request).copied(),
                request: result.request.clone(),
                key,
            }
        })
        .collect();
    if wishes.is_empty() {
        return None;
    }
    let pods = status.reserved_for.as_deref().unwrap_or_default();
    Some(Claim {
        namespace: metadata.namespace.clone()?,
        name: metadata.name.clone()?,
        uid: metadata.uid.clone()?,
        version: metadata.resource_version.clone()?,
        created_at: metadata.creation_timestamp.as_ref()?.0,
        leaving: metadata.deletion_timestamp.is_some(),
        pods: pods
            .iter()
            .filter(|pod| {
                pod.resource == "pods" && pod.api_group.as_deref().unwrap_or("").is_empty()
            })
            .map(|pod| PodRef {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
            })
            .collect(),
        wishes,
    })
}

/// The parameters of a request: the last configuration that is for it counts, whole. The class's
/// come before the claim's (resource.k8s.io/v1), so a claim has the last word.
fn parameters(
    request: &str,
    configs: &[DeviceAllocationConfiguration],
) -> Result<ClaimParameters, Problem> {
    let main = request.split('/').next().unwrap_or(request);
    let last = configs
        .iter()
        .filter(|config| {
            let named = config.requests.as_deref().unwrap_or_default();
            named.is_empty() || named.iter().any(|name| name == request || name == main)
        })
        .filter_map(|config| config.opaque.as_ref())
        .rfind(|opaque| opaque.driver == DRIVER);
    match last {
        Some(opaque) => ClaimParameters::read(&opaque.parameters.0),
        None => Ok(ClaimParameters::default()),
    }
}

fn told_of(key: &DeviceKey, told: &[AllocatedDeviceStatus]) -> Told {
    let same = |status: &&AllocatedDeviceStatus| {
        status.driver == DRIVER
            && status.pool == key.pool
            && status.device == key.device
            && status.share_id == key.share
    };
    let Some(status) = told.iter().find(same) else {
        return Told::default();
    };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let condition = |kind: &str| conditions.iter().find(|c| c.type_ == kind);
    let agreement = status
        .data
        .as_ref()
        .and_then(|data| serde_json::from_value(data.0.get("agreement")?.clone()).ok());
    Told {
        said: condition(NEGOTIATED).map(|c| Said {
            agreed: c.status == "True",
            reason: c.reason.clone(),
            message: c.message.clone(),
            since: c.last_transition_time.0,
        }),
        agreement,
        prepared: condition(PREPARED).is_some_and(|c| c.status == "True"),
    }
}

/// What each request of the claim asks of a NIC's bandwidth.
fn capacities(claim: &ResourceClaim) -> BTreeMap<String, u64> {
    let requests = claim
        .spec
        .devices
        .as_ref()
        .and_then(|d| d.requests.as_ref());
    let mut asked = BTreeMap::new();
    for request in requests.into_iter().flatten() {
        let subs = request.first_available.iter().flatten().map(|sub| {
            let name = format!("{}/{}", request.name, sub.name);
            (name, sub.capacity.as_ref())
        });
        let exact = request
            .exactly
            .iter()
            .map(|exact| (request.name.clone(), exact.capacity.as_ref()));
        for (name, capacity) in exact.chain(subs) {
            let quantity = capacity
                .and_then(|capacity| capacity.requests.as_ref())
                .and_then(|requests| {
                    let qualified = format!("{DRIVER}/{}", attribute::BANDWIDTH);
                    requests
                        .get(attribute::BANDWIDTH)
                        .or(requests.get(&qualified))
                });
            if let Some(bps) = quantity.and_then(|quantity| whole(&quantity.0)) {
                asked.insert(name, bps);
            }
        }
    }
    asked
}

/// The value of a quantity in whole units, rounded down: `2G`, `2500M`, `1Gi`, `1e9`.
pub fn whole(quantity: &str) -> Option<u64> {
    /// Suffixes of Kubernetes' quantities (apimachinery, resource.Quantity).
    const SUFFIXES: [(&str, u128); 13] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
        ("", 1),
    ];
    let text = quantity.trim();
    let exponent = text
        .split_once(['e', 'E'])
        .filter(|(_, power)| !power.is_empty());
    let (number, scale) = match exponent {
        Some((number, power)) => (number, 10_u128.checked_pow(power.parse().ok()?)?),
        None => {
            let (suffix, scale) = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix))?;
            (text.strip_suffix(suffix)?, *scale)
        }
    };
    let (before, after) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if (before.is_empty() && after.is_empty()) || !digits(before) || !digits(after) {
        return None;
    }
    // nine places: a bit per second of a Gbit
    let after = &after[..after.len().min(9)];
    let places = 10_u128.pow(u32::try_from(after.len()).ok()?);
    let part = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.parse().ok()
        }
    };
    let units: u128 = part(before)?;
    let fraction: u128 = part(after)?;
    let value = units
        .checked_mul(scale)?
        .checked_add(fraction * scale / places)?;
    u64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(change: impl FnOnce(&mut Value)) -> ResourceClaim {
        let config = |source: &str, requests: Value, slice: &str| {
            json!({"source": source, "requests": requests, "opaque": {"driver": DRIVER,
                "parameters": {"apiVersion": "dtn.appliance/v1", "kind": "InterfaceRequest",
                    "slice": slice}}})
        };
        let mut whole = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": "net", "namespace": "atlas", "uid": "u1", "resourceVersion": "7",
                "creationTimestamp": "2027-01-10T06:00:00Z"},
            "spec": {"devices": {"requests": [
                {"name": "nic", "exactly": {"deviceClassName": "dtn-shared",
                    "capacity": {"requests": {"bandwidth": "2500M"}}}},
                {"name": "any", "firstAvailable": [{"name": "big", "deviceClassName": "x",
                    "capacity": {"requests": {"dtn.appliance/bandwidth": "1G"}}}]},
            ]}},
            "status": {
                "reservedFor": [{"resource": "pods", "name": "mover", "uid": "p1"}],
                "allocation": {"devices": {
                    "results": [
                        {"driver": DRIVER, "pool": "n1", "device": "data0", "request": "nic",
                            "shareID": "s1"},
                        {"driver": "gpu.example.org", "pool": "n1", "device": "gpu0", "request": "gpu"},
                        {"driver": DRIVER, "pool": "n1", "device": "data1", "request": "any/big"},
                    ],
                    "config": [
                        config("FromClass", json!([]), "class"),
                        config("FromClaim", json!(["nic"]), "lhc"),
                        config("FromClaim", json!(["any"]), "belle"),
                    ],
                }},
            },
        });
        change(&mut whole);
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_claim_is_read_with_the_last_word_on_each_device() {
        let read = read(&claim(|_| {})).unwrap();
        assert_eq!(
            read.pods,
            [PodRef {
                name: "mover".into(),
                uid: "p1".into()
            }]
        );
        assert_eq!(read.wishes.len(), 2);
        let slice = |wish: &Wish| wish.parameters.clone().unwrap().slice.unwrap().to_string();
        assert_eq!(slice(&read.wishes[0]), "lhc");
        assert_eq!(slice(&read.wishes[1]), "belle");
        assert_eq!(read.wishes[0].capacity_bps, Some(2_500_000_000));
        assert_eq!(read.wishes[1].capacity_bps, Some(1_000_000_000));
        assert_eq!(read.wishes[0].key.share.as_deref(), Some("s1"));
        assert_eq!(read.wishes[0].told, Told::default());
    }

    #[test]
    fn what_was_told_is_found_again_for_the_same_share_alone() {
        let told = |share: &str| {
            read(&claim(|whole| {
                whole["status"]["devices"] = json!([{"driver": DRIVER, "pool": "n1",
                    "device": "data0", "shareID": share,
                    "conditions": [{"type": NEGOTIATED, "status": "True", "reason": "Agreed",
                        "message": "m", "lastTransitionTime": "2027-01-10T06:00:01Z"}],
                    "data": {"agreement": {"slice": "lhc", "class": "guaranteed", "rateBps": 5,
                        "sliceId": "018f0000-0000-7000-8000-000000000001",
                        "endsAt": "2027-01-10T14:00:00Z"}}}]);
            }))
            .unwrap()
        };
        let found = told("s1");
        assert_eq!(found.wishes[0].told.promise().unwrap().rate_bps, 5);
        assert!(!found.wishes[0].told.prepared);
        assert!(told("s2").wishes[0].told.promise().is_none());
    }

    #[test]
    fn claims_of_others_and_those_not_allocated_are_nobody_s_business() {
        assert!(read(&claim(|whole| whole["status"] = json!({}))).is_none());
        let other = claim(|whole| {
            for result in whole["status"]["allocation"]["devices"]["results"]
                .as_array_mut()
                .unwrap()
            {
                result["driver"] = json!("gpu.example.org");
            }
        });
        assert!(read(&other).is_none());
    }

    #[test]
    fn wrong_parameters_are_kept_as_what_they_are() {
        let wrong = claim(|whole| {
            whole["status"]["allocation"]["devices"]["config"][1]["opaque"]["parameters"] =
                json!({"sliec": "lhc"});
        });
        let read = read(&wrong).unwrap();
        assert!(read.wishes[0].parameters.is_err());
        assert!(read.wishes[1].parameters.is_ok());
    }

    #[test]
    fn quantities_are_whole_numbers() {
        for (text, value) in [
            ("2G", Some(2_000_000_000)),
            ("2.5G", Some(2_500_000_000)),
            ("1Gi", Some(1 << 30)),
            ("10000000000", Some(10_000_000_000)),
            ("1e9", Some(1_000_000_000)),
            ("1E", Some(1_000_000_000_000_000_000)),
            (".5k", Some(500)),
            ("", None),
            ("G", None),
            ("-1", None),
            ("1x", None),
            ("99999999999999999999E", None),
            ("1e99", None),
        ] {
            assert_eq!(whole(text), value, "{text}");
        }
    }
}
