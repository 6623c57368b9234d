//! Hosts of a VDN: NICs that nodes declare, and pods that hold a lease.

use crate::{HostId, IfName, Name, lease::Location};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HostKind {
    /// A NIC that a node gives to the VDN; slices are asked for between these.
    Nic,
    /// A pod's interface; it comes and goes with its lease.
    Pod,
}

impl HostKind {
    /// As it is said to people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nic => "NIC",
            Self::Pod => "pod",
        }
    }
}

/// Body of `PUT /hosts/{id}`: a node declares one of its NICs, or a pod on one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostSpec {
    /// What it is.
    pub kind: HostKind,
    /// The node that declares it: the name in its certificate.
    pub node: Name,
    /// The NIC's name on that node, or the NIC that a pod sits on.
    pub nic: IfName,
    /// Speed of the NIC, bits per second.
    pub capacity_bps: u64,
    /// MTU in bytes.
    pub mtu: u32,
    /// Where it sits; the fabric `edge` gives it a port of its one switch when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Addresses it is known by.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub ips: Vec<IpAddr>,
    /// Whether other domains may see it and ask for slices to it.
    #[serde(default)]
    pub permitted: bool,
}

/// A host as the controller knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Host {
    /// MAC and VLAN.
    pub id: HostId,
    /// What was declared.
    pub spec: HostSpec,
    /// Where it sits.
    pub location: Location,
    /// When it was last declared; a NIC that was silent for long is not offered.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub seen_at: Timestamp,
    /// Counts every change; the ETag.
    pub version: u64,
}

/// What a node says of its own shaping, so that `active` is never said on faith:
/// body of `PUT /slices/{id}/enforcement/{host}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Enforcement {
    /// The rate that was read back from the kernel, bits per second; 0 when unshaped.
    pub rate_bps: u64,
    /// `htb`, `tbf`, `fq`.
    pub by: String,
    /// When it was read.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub read_at: Timestamp,
}
