//! What a pod gets, prepared before it starts: NIC, slice and lease in one file per pod.
//!
//! `dtnd` alone writes the file (`/run/dtn/prepared/<key>.json`), before the pod's sandbox is
//! started; the plugin reads it and needs nobody else. The record of what was *done* to the kernel
//! is the plugin's own file and lives in the crate `dtn-cni`.

use crate::{
    IfName, MacAddress, Name,
    lease::Lease,
    nic::{NicClass, NicIdentity},
    slice::Class,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Version of the prepared file that this build writes; a newer one is refused.
pub const PREPARED_VERSION: u32 = 1;

/// Which pod it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentity {
    /// Given by the engine; the key of everything that belongs to the pod.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its namespace; `default` with podman.
    pub namespace: String,
    /// `podman` or `kubernetes`.
    pub engine: String,
}

/// The part of a slice that one interface may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceBinding {
    /// Which slice.
    pub id: Uuid,
    /// Its name.
    pub name: Name,
    /// What is promised.
    pub class: Class,
    /// What the slice gives on the NIC, bits per second of frames; 0 is unpaced.
    pub rate_bps: u64,
    /// When the promise ends.
    pub ends_at: Timestamp,
    /// The part of the slice's rate that was agreed for this interface alone, bits per second; those
    /// without one share what is left on their NIC in equal parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_bps: Option<u64>,
}

impl SliceBinding {
    /// What the interface is paced to when it is attached, bits per second; 0 is unpaced.
    pub fn paced_bps(&self) -> u64 {
        match self.share_bps {
            Some(share) if self.rate_bps > 0 => share.min(self.rate_bps),
            _ => self.rate_bps,
        }
    }
}

/// A kernel setting of the sandbox, with its ground.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSetting {
    /// As in `/proc/sys`, with dots: `net.ipv4.tcp_rmem`.
    pub key: String,
    /// As it is written.
    pub value: String,
    /// Why.
    pub why: String,
}

/// One interface that is ready to be attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedInterface {
    /// Its name in the pod.
    pub ifname: IfName,
    /// Name of the CNI network that attaches it.
    pub network: String,
    /// Moved whole, or a macvlan child.
    pub class: NicClass,
    /// The NIC's name on the host when it was prepared.
    pub nic_name: IfName,
    /// What it is, whatever its name.
    pub nic: NicIdentity,
    /// Hardware address of the interface in the pod.
    pub mac: MacAddress,
    /// MTU in bytes.
    pub mtu: u32,
    /// Addresses; all or none were given.
    pub leases: Vec<Lease>,
    /// Slices that it is a member of.
    pub slices: Vec<SliceBinding>,
    /// Kernel settings of the sandbox.
    #[serde(default)]
    pub settings: Vec<SandboxSetting>,
    /// Name of the tuning profile that the settings come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

/// What was prepared for one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// [`PREPARED_VERSION`].
    pub version: u32,
    /// The pod's UID, or the container's ID where a runtime gives no UID.
    pub key: String,
    /// Which pod.
    pub pod: PodIdentity,
    /// Its interfaces.
    pub interfaces: Vec<PreparedInterface>,
    /// When.
    pub prepared_at: Timestamp,
    /// Free labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Prepared {
    /// Name of its file below `/run/dtn/prepared`.
    pub fn file_name(&self) -> String {
        file_name(&self.key)
    }
}

/// Name of the file of a key: a CNI container ID or a pod UID, which have no slash in them.
pub fn file_name(key: &str) -> String {
    format!("{key}.json")
}

/// Whether a text may be a key, and so part of a file name: what CNI allows for a container ID.
pub fn key_is_valid(key: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    key.len() <= 128
        && key
            .chars()
            .next()
            .is_some_and(|c| c.is_ascii_alphanumeric())
        && key.chars().all(inner)
}

/// A lease that could not be given back, kept in `/var/lib/dtn/releases/<lease-id>.json` until the
/// controller has taken it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedRelease {
    /// [`PREPARED_VERSION`].
    pub version: u32,
    /// Which lease.
    pub lease_id: Uuid,
    /// Of which slice.
    pub slice_id: Uuid,
    /// Whose.
    pub client_id: String,
    /// When it was first tried.
    pub queued_at: Timestamp,
    /// What went wrong last.
    pub reason: String,
}
