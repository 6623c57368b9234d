//! The contract of `dtnd` on its unix socket, below [`crate::LOCAL_BASE`]: for `dtnctl`, for the
//! plugins and for scripts. HTTP/1.1, JSON, problem documents.
//!
//! | path | verbs |
//! | --- | --- |
//! | `/status`, `/ready` | GET |
//! | `/nics` | GET |
//! | `/slices` | GET, POST ([`Ask`] → [`Negotiation`]); `/slices/{name}` GET, DELETE; `/slices/{name}/extend` POST |
//! | `/negotiations/{id}` | GET |
//! | `/leases` | GET |
//! | `/gateways` | GET ([`LocalGateway`]) |
//! | `/pods` | GET, POST ([`DeployRequest`] → [`Pod`]); `/pods/{name}` GET, DELETE; `/pods/{name}/logs` GET |
//! | `/join` | POST ([`Join`]) |
//! | `/config`, `/config/reload`, `/config/trial`, `/config/confirm` | see [`crate::running`] |
//! | `/cni/prepare` | POST ([`PrepareRequest`] → [`crate::attachment::Prepared`]), for a plugin that finds no prepared file |
//! | `/cni/attached`, `/cni/detached` | POST ([`Notice`]) |

use crate::{
    IfName, Name, Rate, Span,
    domain::Invitation,
    nic::NicClass,
    slice::{Class, RemoteEnd},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What is asked of a negotiation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Name of the slice.
    pub name: Name,
    /// Tenant.
    #[serde(default = "crate::slice::default_tenant")]
    pub tenant: Name,
    /// What shall be promised.
    pub class: Class,
    /// Wanted rate; the most that can be had when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Least rate that is still taken; without it only the wanted rate is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_rate: Option<Rate>,
    /// Start; now when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// How long.
    pub duration: Span,
    /// The host's NIC by name; any free NIC of the class when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic: Option<IfName>,
    /// Class of NIC.
    pub nic_class: NicClass,
    /// The far end, when the slice leaves the domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteEnd>,
    /// The gateway of this domain that the slice reaches an external network by; it is not asked for
    /// together with a far end in another domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Name>,
    /// How long to wait for a window in which it fits; 0 does not wait.
    #[serde(default)]
    pub wait: Span,
    /// Only say what could be had.
    #[serde(default)]
    pub dry_run: bool,
}

/// What can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Rate.
    pub rate: Rate,
    /// First instant.
    pub start: Timestamp,
    /// First instant after.
    pub end: Timestamp,
    /// Which end or link limits it, as `busan:wan` or `host:data0`.
    pub limited_by: String,
}

/// Where a negotiation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NegotiationState {
    /// The controller is being asked what can be had.
    Asking,
    /// An offer was taken and is being held.
    Holding,
    /// Held; being committed.
    Committing,
    /// Committed on every side and read back.
    Agreed,
    /// It fits later; waiting for that.
    Waiting,
    /// It does not fit, and no wait was asked for.
    Refused,
    /// It went wrong; `reason` says how.
    Failed,
    /// It was agreed, and has ended.
    Ended,
}

/// A negotiation: an exchange that ends in a slice or in a number that would fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiation {
    /// Which.
    pub id: Uuid,
    /// What was asked.
    pub ask: Ask,
    /// Where it stands.
    pub state: NegotiationState,
    /// What can be had now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// What could be had later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later: Option<Offer>,
    /// The slice that came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice_id: Option<Uuid>,
    /// The stitch, when it leaves the domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stitch_id: Option<Uuid>,
    /// Why it stands so, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Body of `POST /slices/{name}/extend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendRequest {
    /// How much longer.
    pub by: Span,
}

/// A slice as this host sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalSlice {
    /// The controller's view.
    pub slice: crate::slice::Slice,
    /// What TCP can carry in it at its MTU over IPv4.
    pub ceiling: Rate,
    /// Interfaces on this host that are paced for it, with the rate read back from the kernel.
    pub paced: Vec<Paced>,
    /// A warning, when it ends soon or its promise does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A gateway as its host has it, read back from the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalGateway {
    /// Its name in the domain.
    pub name: Name,
    /// The NIC that members of slices come in by, as the configuration names it.
    pub inside: String,
    /// The NIC that the external network is behind, as the configuration names it.
    pub outside: String,
    /// Its own addresses on the external network.
    pub addresses: Vec<ipnet::IpNet>,
    /// Whether members are seen from outside with its address.
    pub nat: bool,
    /// Path that pins its network namespace.
    pub netns: String,
    /// The slices that it forwards for.
    pub slices: Vec<GatewaySlice>,
    /// The version of the access rules that the kernel has; 0 before there were any.
    pub rules_version: u64,
    /// What each rule has decided about, by its number.
    #[serde(default)]
    pub rules: BTreeMap<u16, crate::gateway::Count>,
    /// What no rule allowed, on its way out.
    #[serde(default)]
    pub denied_outbound: crate::gateway::Count,
    /// What no rule allowed, on its way in.
    #[serde(default)]
    pub denied_inbound: crate::gateway::Count,
    /// What keeps it from forwarding, in words with the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What this host cannot do for it, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
    /// When it was read.
    pub read_at: Timestamp,
}

/// A slice that a gateway forwards for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewaySlice {
    /// Which.
    pub id: Uuid,
    /// Its name.
    pub name: Name,
    /// The interface in the gateway's namespace.
    pub ifname: IfName,
    /// The gateway's addresses in it.
    pub addresses: Vec<ipnet::IpNet>,
}

/// One interface's pacing, read back from the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paced {
    /// The pod.
    pub pod: String,
    /// Its interface.
    pub ifname: IfName,
    /// What the kernel says; `None` when it is not paced.
    pub rate: Option<Rate>,
    /// `htb` and its leaf, or why there is none.
    pub by: String,
}

/// Body of `POST /pods`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// Name of the template, a folder of the workload directory.
    pub template: Name,
    /// Name of the pod.
    pub name: Name,
    /// Values over the template's own.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// Slice by name. Without one the answer is 422: addresses come from a slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<Name>,
    /// Class of NIC.
    pub nic_class: NicClass,
    /// NIC by name; any free one of the class when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic: Option<IfName>,
    /// Only render and check.
    #[serde(default)]
    pub dry_run: bool,
}

/// Where a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodPhase {
    /// NIC, slice and lease are being had.
    Preparing,
    /// The sandbox is up, the interface is being attached.
    Attaching,
    /// It runs.
    Running,
    /// A container ended or its sandbox was lost; `message` says what is done about it.
    Degraded,
    /// Being taken down.
    Removing,
    /// It could not be made.
    Failed,
}

/// One interface of a pod, as the kernel has it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodInterface {
    /// Its name in the pod.
    pub ifname: IfName,
    /// Class of NIC.
    pub class: NicClass,
    /// The NIC on the host.
    pub nic: IfName,
    /// Addresses with prefix length.
    pub ips: Vec<String>,
    /// MTU in bytes.
    pub mtu: u32,
    /// The slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<Name>,
    /// What the kernel paces it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// A pod that `dtnd` runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name.
    pub name: Name,
    /// Given by the engine.
    pub uid: String,
    /// Template it was made from.
    pub template: Name,
    /// Where it stands.
    pub phase: PodPhase,
    /// Its interfaces.
    pub interfaces: Vec<PodInterface>,
    /// Its containers by name, with the engine's word for their state.
    pub containers: BTreeMap<String, String>,
    /// Names that the engine knows the containers by (for `exec`).
    #[serde(default)]
    pub container_ids: BTreeMap<String, String>,
    /// Path that pins its sandbox.
    pub netns: String,
    /// In words, when something is to be said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it was asked for.
    pub created_at: Timestamp,
}

/// Body of `POST /join`: enrol this host in a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// What `dtnctl host invite` printed, decoded.
    pub invitation: Invitation,
}

/// Body of `POST /cni/prepare`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareRequest {
    /// Pod UID, or the container ID where there is none.
    pub key: String,
    /// Name of the CNI network.
    pub network: String,
    /// Interface in the pod.
    pub ifname: IfName,
    /// Class of NIC that the plugin attaches.
    pub class: NicClass,
    /// NIC that the network's configuration names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic: Option<IfName>,
    /// Slice that the network's configuration names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<Name>,
    /// `K8S_POD_NAMESPACE`, where the runtime gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// `K8S_POD_NAME`, where the runtime gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
}

/// Body of `POST /cni/attached` and `/cni/detached`: look at this record now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// Key of the attachment.
    pub key: String,
    /// Interface in the pod.
    pub ifname: IfName,
}

/// Whether something that the host needs is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at: `controller`, `store`, `podman`, `nics`.
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// In words, with the remedy when it is not.
    pub detail: String,
}

/// Answer of `GET /status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The host's name in its domain.
    pub host: Name,
    /// The domain, once it has joined one.
    pub domain: Option<Name>,
    /// Version of `dtnd`.
    pub version: String,
    /// When this process started.
    pub started_at: Timestamp,
    /// All of the checks hold.
    pub ready: bool,
    /// One by one.
    pub checks: Vec<Check>,
    /// How many NICs, slices, leases, pods and queued releases there are.
    pub counts: BTreeMap<String, u64>,
    /// What to do next, in words.
    pub next: String,
}
