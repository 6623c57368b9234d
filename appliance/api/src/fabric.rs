//! What enforces slices in a domain, as people and programs may ask: the switches, what their guards
//! have counted, and where they differ from what is wanted.

use crate::Name;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Answer of `GET /fabric`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FabricStatus {
    /// `edge`, `openflow` or `onos`.
    pub kind: String,
    /// What it needs and does not have; absent when it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The switches that it programs; none with `edge`.
    #[serde(default)]
    pub switches: Vec<SwitchStatus>,
    /// What the guards have counted, per slice that has one.
    #[serde(default)]
    pub slices: Vec<Guarded>,
}

/// A switch as the fabric sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SwitchStatus {
    /// Its name in the configuration.
    pub name: Name,
    /// Its datapath id, 16 hexadecimal digits.
    pub datapath_id: String,
    /// Whether it answers now.
    pub connected: bool,
    /// What it says of itself: maker and software.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The most meters that it can have, once it has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_meters: Option<u32>,
    /// Rules of slices on it, as read back last.
    pub rules: u64,
    /// Meters of slices on it, as read back last.
    pub meters: u64,
    /// What is wrong with it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Body of `POST /fabric/switches/{name}/certificate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SwitchCertificateRequest {
    /// PKCS#10 request in PEM; only its key is taken. The private key stays on the switch.
    pub csr_pem: String,
}

/// What a switch needs to connect over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SwitchCertificate {
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// The authority of the domain, PEM: whom it shall believe.
    pub ca_pem: String,
}

/// A slice with what its guards have counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Guarded {
    /// The slice.
    pub slice_id: Uuid,
    /// Its name.
    pub name: Name,
    /// What was counted.
    #[serde(flatten)]
    pub counters: Counters,
}

/// What the guards have counted of a slice since they were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Counters {
    /// Frames that came to a guard.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that were above the rate and were dropped.
    pub dropped_packets: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
}

/// Something that a switch has and should not, or should have and has not: an item of
/// `GET /fabric/differences`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Difference {
    /// The switch.
    pub switch: String,
    /// `missing`, `extra`, `other` (it is there and is not as intended), `foreign` (it is somebody
    /// else's, and could carry traffic around slices), `unreachable`.
    pub kind: String,
    /// The slice, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<Uuid>,
    /// The rule in words.
    pub what: String,
}

/// A link between two ports of switches, as the switches see it or as the configuration says: an item
/// of `GET /fabric/links`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FabricLink {
    /// Its two ends, as `SWITCH/PORT`.
    pub ends: [String; 2],
    /// Whether a `[[cable]]` of the configuration names it.
    pub cable: bool,
    /// Seconds since something came through last; absent when nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_s: Option<u64>,
    /// Bits per second: what the configuration says of a cable, otherwise what the slower of its two
    /// ports says, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_bps: Option<u64>,
    /// What is wrong with it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}
