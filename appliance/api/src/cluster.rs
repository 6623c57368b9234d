//! What a Kubernetes cluster says to the appliance, and is told by it: names of the driver, its
//! device classes and attributes, the parameters of a claim, and what was agreed for one.
//!
//! A pod asks by a ResourceClaim (Dynamic Resource Allocation, `resource.k8s.io/v1`). The scheduler
//! chooses a NIC of those that each `dtnd` publishes; the cluster's controller negotiates what the
//! claim asks of the VDN and writes the [`Agreement`] into the claim's status; `dtnd` on the node
//! confirms it, takes NIC and lease, and prepares the interface before the pod's sandbox is made.
//! Kubernetes' own types stay outside: this file is plain data.

use crate::{
    IfName, Name, Problem, Rate,
    problem::Kind,
    slice::{Class, Slice},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::IpAddr;
use uuid::Uuid;

/// Name of the DRA driver, and the domain of its attributes.
pub const DRIVER: &str = "dtn.appliance";
/// DeviceClass of NICs that are moved whole into one pod.
pub const DEDICATED_CLASS: &str = "dtn-dedicated";
/// DeviceClass of NICs that pods get macvlan children of.
pub const SHARED_CLASS: &str = "dtn-shared";
/// Engine of pods that a kubelet runs, in prepared files, records and client ids.
pub const ENGINE: &str = "kubernetes";
/// Name of the CNI network in what is prepared for a claim.
pub const NETWORK: &str = "dtn-claim";

/// Attributes of a published NIC; without a domain they are the driver's own.
pub mod attribute {
    /// `dedicated` or `shared`.
    pub const CLASS: &str = "class";
    /// Its name on the host.
    pub const IFNAME: &str = "ifName";
    /// Its hardware address.
    pub const MAC: &str = "mac";
    /// Whether it has a carrier.
    pub const CARRIER: &str = "carrier";
    /// Driver, or the kind of a virtual link.
    pub const DRIVER: &str = "driver";
    /// MTU in bytes.
    pub const MTU: &str = "mtu";
    /// NUMA node.
    pub const NUMA_NODE: &str = "numaNode";
    /// PCI address.
    pub const PCI_ADDRESS: &str = "pciAddress";
    /// Speed as trained, Mbit/s.
    pub const SPEED_MBIT: &str = "speedMbit";
    /// Whether it has an RDMA device.
    pub const RDMA: &str = "rdma";
    /// Name of that, the first where there are several.
    pub const RDMA_DEVICE: &str = "rdmaDevice";
    /// Whether it is a virtual function (SR-IOV).
    pub const VIRTUAL_FUNCTION: &str = "virtualFunction";
    /// PCI address of the function that it is a virtual one of.
    pub const PHYSICAL_FUNCTION: &str = "physicalFunction";
    /// How many virtual functions it has now.
    pub const SRIOV_VFS: &str = "sriovVfs";
    /// How many it can have.
    pub const SRIOV_VFS_TOTAL: &str = "sriovVfsTotal";
    /// PCI address, as all drivers publish it.
    pub const PCI_BUS_ID: &str = "resource.kubernetes.io/pciBusID";
    /// Root of the PCIe hierarchy, as all drivers publish it: devices of one root are close.
    pub const PCIE_ROOT: &str = "resource.kubernetes.io/pcieRoot";
    /// What Multus hands to a plugin.
    pub const MULTUS_DEVICE_ID: &str = "k8s.cni.cncf.io/deviceID";
    /// Under which name Multus counts it.
    pub const MULTUS_RESOURCE: &str = "k8s.cni.cncf.io/resourceName";
    /// Domain of one boolean attribute per slice that the NIC is a member of, named after the slice
    /// by [`super::slice_attribute`].
    pub const SLICES: &str = "slices.dtn.appliance";
    /// Capacity of a NIC, bits per second: what may still be booked is the scheduler's count.
    pub const BANDWIDTH: &str = "bandwidth";
}

/// Name of the attribute of a slice below [`attribute::SLICES`], which must be an identifier of C:
/// `lhc-run3` is `lhc_run3`, `7tev` is `_7tev`. `None` when it is longer than Kubernetes takes.
pub fn slice_attribute(slice: &Name) -> Option<String> {
    /// Longest name of an attribute (resource.k8s.io/v1).
    const LONGEST: usize = 32;
    let plain: String = slice
        .as_str()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let name = match plain.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("_{plain}"),
        false => plain,
    };
    (name.len() <= LONGEST).then_some(name)
}

/// Condition of a claim's device: what it asks of the VDN was agreed. Written by the controller.
pub const NEGOTIATED: &str = "Negotiated";
/// Condition of a claim's device: NIC, lease and slice are had, and the prepared file is there.
/// Written by `dtnd`.
pub const PREPARED: &str = "Prepared";
/// Condition of a claim's device: the interface is in the pod, read back. Written by `dtnd`.
pub const READY: &str = "Ready";

/// `apiVersion` of [`ClaimParameters`].
pub const PARAMETERS_VERSION: &str = "dtn.appliance/v1";
/// `kind` of [`ClaimParameters`].
pub const PARAMETERS_KIND: &str = "InterfaceRequest";
/// Largest text of parameters; Kubernetes itself allows 10 KiB.
pub const LONGEST_PARAMETERS: usize = 10 << 10;
/// Most addresses that may be wished for.
const MOST_ADDRESSES: usize = 8;

/// What a claim asks for one interface: the opaque parameters of its device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimParameters {
    /// [`PARAMETERS_VERSION`].
    pub api_version: String,
    /// [`PARAMETERS_KIND`].
    pub kind: String,
    /// Name of the interface in the pod; `data0` when absent.
    #[serde(default = "usual_interface")]
    pub interface: IfName,
    /// The slice by name. Without one the interface is best effort and has no address of a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<Name>,
    /// The tenant whose slice it is; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Name>,
    /// The part of the slice's rate that the pod wants; all that is left when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The least that is still taken; without it only `rate` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_rate: Option<Rate>,
    /// Until when the slice has to be booked at least; its own end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Wished addresses, of the slice's pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// MTU in bytes; the slice's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Streams that the pod will send with at a time: what its buffers are sized for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<u32>,
}

fn usual_interface() -> IfName {
    #[expect(clippy::unwrap_used, reason = "a constant that is a valid name")]
    "data0".parse().unwrap()
}

impl Default for ClaimParameters {
    fn default() -> Self {
        Self {
            api_version: PARAMETERS_VERSION.to_owned(),
            kind: PARAMETERS_KIND.to_owned(),
            interface: usual_interface(),
            slice: None,
            tenant: None,
            rate: None,
            least_rate: None,
            until: None,
            addresses: Vec::new(),
            mtu: None,
            streams: None,
        }
    }
}

impl ClaimParameters {
    /// Reads and judges opaque parameters. Everything that is wrong is told at once, each with the
    /// path of its field below `/parameters`.
    pub fn read(parameters: &Value) -> Result<Self, Problem> {
        let refused = || {
            Problem::new(
                Kind::InvalidRequest,
                "the parameters of the claim are not valid",
            )
        };
        let Value::Object(fields) = parameters else {
            return Err(refused().at(
                "/parameters",
                format!("write an object with apiVersion {PARAMETERS_VERSION} and kind {PARAMETERS_KIND}"),
            ));
        };
        if parameters.to_string().len() > LONGEST_PARAMETERS {
            return Err(refused().at(
                "/parameters",
                format!("longer than {LONGEST_PARAMETERS} bytes"),
            ));
        }
        // field by field, so that two bad ones are both named
        let mut problem = refused();
        let mut good = serde_json::Map::new();
        for (name, value) in fields {
            let alone = serde_json::json!({
                "apiVersion": PARAMETERS_VERSION, "kind": PARAMETERS_KIND, name: value,
            });
            match serde_json::from_value::<Self>(alone) {
                Ok(_) => {
                    good.insert(name.clone(), value.clone());
                }
                Err(e) => problem = problem.at(format!("/parameters/{name}"), e.to_string()),
            }
        }
        for (name, wanted) in [
            ("apiVersion", PARAMETERS_VERSION),
            ("kind", PARAMETERS_KIND),
        ] {
            if good.get(name).and_then(Value::as_str) != Some(wanted) {
                problem = problem.at(format!("/parameters/{name}"), format!("write {wanted}"));
            }
            good.insert(name.to_owned(), Value::String(wanted.to_owned()));
        }
        let read = match serde_json::from_value::<Self>(Value::Object(good)) {
            Ok(read) => read,
            Err(e) => return Err(problem.at("/parameters", e.to_string())),
        };
        let problem = read.judge(problem);
        match problem.errors.is_empty() {
            true => Ok(read),
            false => Err(problem),
        }
    }

    fn judge(&self, mut problem: Problem) -> Problem {
        if matches!(self.interface.as_str(), "lo" | "eth0") {
            problem = problem.at(
                "/parameters/interface",
                format!(
                    "{} is the pod's own already: choose another, as data0",
                    self.interface
                ),
            );
        }
        if self.rate.is_some_and(|rate| rate.bps() == 0) {
            problem = problem.at("/parameters/rate", "is 0: leave it out, or say how much");
        }
        if let Some(least) = self.least_rate
            && self.rate.is_none_or(|rate| least > rate)
        {
            problem = problem.at(
                "/parameters/leastRate",
                "is more than rate, or there is no rate: give both",
            );
        }
        if self.slice.is_none() {
            let of_slice = [
                ("rate", self.rate.is_some()),
                ("tenant", self.tenant.is_some()),
                ("until", self.until.is_some()),
                ("addresses", !self.addresses.is_empty()),
            ];
            for (name, _) in of_slice.into_iter().filter(|(_, given)| *given) {
                problem = problem.at(
                    format!("/parameters/{name}"),
                    "belongs to a slice: name one in /parameters/slice",
                );
            }
        }
        if self.addresses.len() > MOST_ADDRESSES {
            problem = problem.at(
                "/parameters/addresses",
                format!("more than {MOST_ADDRESSES}"),
            );
        }
        // 1280: the least that IPv6 allows (RFC 8200); 9216: what switches carry at most
        if self.mtu.is_some_and(|mtu| !(1280..=9216).contains(&mtu)) {
            problem = problem.at("/parameters/mtu", "must be 1280 to 9216 bytes");
        }
        if self
            .streams
            .is_some_and(|streams| !(1..=128).contains(&streams))
        {
            problem = problem.at("/parameters/streams", "must be 1 to 128");
        }
        problem
    }
}

/// What was agreed for one device of a claim; in the claim's status as the device's `data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agreement {
    /// The slice.
    pub slice: Name,
    /// Which one.
    pub slice_id: Uuid,
    /// What is promised.
    pub class: Class,
    /// The part of its rate that is this interface's alone, bits per second; 0 of a best-effort
    /// slice.
    pub rate_bps: u64,
    /// When the promise ends.
    pub ends_at: Timestamp,
}

/// What is left of a slice after what others were promised of it, in bits per second.
pub fn left_of(slice: &Slice, promised: impl IntoIterator<Item = u64>) -> u64 {
    let promised = promised.into_iter().fold(0, u64::saturating_add);
    slice.spec.qos.rate_bps.saturating_sub(promised)
}

/// The part of a slice that a claim gets of what is left; `None` when it does not fit.
pub fn part(wished: &ClaimParameters, left: u64) -> Option<u64> {
    let wanted = wished.rate.map_or(left, Rate::bps);
    let least = wished.least_rate.map_or(wanted, Rate::bps);
    let given = wanted.min(left);
    (given >= least && given > 0).then_some(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn with(fields: Value) -> Value {
        let mut all = json!({"apiVersion": PARAMETERS_VERSION, "kind": PARAMETERS_KIND});
        let Value::Object(fields) = fields else {
            panic!("an object")
        };
        for (name, value) in fields {
            all[name] = value;
        }
        all
    }

    #[test]
    fn a_slice_is_an_attribute_that_kubernetes_takes() {
        for (slice, attribute) in [
            ("lhc", Some("lhc")),
            ("lhc-run3", Some("lhc_run3")),
            ("7tev", Some("_7tev")),
            ("a-name-that-is-longer-than-32-characters", None),
        ] {
            let found = slice_attribute(&slice.parse().unwrap());
            assert_eq!(found.as_deref(), attribute);
        }
    }

    #[test]
    fn a_claim_says_what_it_wants() {
        let read = ClaimParameters::read(&with(json!({"slice": "lhc", "rate": "2Gbit",
            "leastRate": "1Gbit", "interface": "data1", "addresses": ["10.0.0.7"]})))
        .unwrap();
        assert_eq!(read.rate, Some(Rate::from_bps(2_000_000_000)));
        assert_eq!(read.interface.as_str(), "data1");
        let least = ClaimParameters::read(&with(json!({}))).unwrap();
        assert_eq!(least, ClaimParameters::default());
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_with_its_path() {
        let bad = json!({"apiVersion": "v0", "interface": "eth0", "rate": "much", "mtu": 9,
            "sliec": "lhc", "leastRate": "1Gbit", "streams": 0, "addresses": ["10.0.0.300"]});
        let problem = ClaimParameters::read(&bad).unwrap_err();
        let paths: std::collections::BTreeSet<&str> =
            problem.errors.iter().map(|e| e.pointer.as_str()).collect();
        for path in [
            "apiVersion",
            "kind",
            "interface",
            "rate",
            "mtu",
            "sliec",
            "leastRate",
            "streams",
            "addresses",
        ] {
            let path = format!("/parameters/{path}");
            assert!(
                paths.contains(path.as_str()),
                "{path} is missing: {problem}"
            );
        }
        for bad in [
            json!(null),
            json!([]),
            json!("x"),
            with(json!({"until": "soon"})),
        ] {
            assert!(ClaimParameters::read(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_part_is_what_is_wanted_or_what_is_left_but_not_less_than_the_least() {
        let wish = |rate: Option<u64>, least: Option<u64>| ClaimParameters {
            rate: rate.map(Rate::from_bps),
            least_rate: least.map(Rate::from_bps),
            ..ClaimParameters::default()
        };
        assert_eq!(part(&wish(Some(4), None), 10), Some(4));
        assert_eq!(part(&wish(Some(4), None), 3), None);
        assert_eq!(part(&wish(Some(4), Some(2)), 3), Some(3));
        assert_eq!(part(&wish(Some(4), Some(2)), 1), None);
        assert_eq!(part(&wish(None, None), 7), Some(7));
        assert_eq!(part(&wish(None, None), 0), None);
    }

    proptest! {
        #[test]
        fn no_parameters_make_it_panic(name in "[a-zA-Z]{1,12}", text in ".{0,40}", number: i64) {
            let _ = ClaimParameters::read(&with(json!({ name: text, "mtu": number })));
        }
    }
}
