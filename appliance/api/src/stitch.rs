//! Stitches: one slice per domain, joined over a border link, held and committed in two phases.

use crate::{
    Name,
    slice::{Addressing, Member, Qos, RemoteEnd, Schedule},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Body of `POST /stitches` by a tenant on the initiating domain: an end-to-end slice. The
/// controller holds its own part, then asks the other domain for the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StitchSpec {
    /// Name of the slice in both domains.
    pub name: Name,
    /// Tenant in both domains.
    #[serde(default = "crate::slice::default_tenant")]
    pub tenant: Name,
    /// What is promised, end to end.
    pub qos: Qos,
    /// When.
    pub schedule: Schedule,
    /// Members of the initiating domain, without the border link.
    pub members: Vec<Member>,
    /// The far end.
    pub remote: RemoteEnd,
    /// Addresses of the whole slice; each domain leases from its own half of the ranges. The
    /// controller chooses from its pools when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addressing: Option<Addressing>,
    /// How long both hold before commit, in seconds.
    #[serde(default = "crate::slice::two_minutes")]
    pub hold_seconds: u32,
}

/// What one domain asks of the other: body of `POST /stitches/inbound`, whose idempotency key is
/// the stitch's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StitchProposal {
    /// The same in both domains.
    pub stitch_id: Uuid,
    /// Who coordinates.
    pub initiator: Name,
    /// Name of the slice in both domains.
    pub name: Name,
    /// Tenant in both domains.
    pub tenant: Name,
    /// What is promised.
    pub qos: Qos,
    /// When.
    pub schedule: Schedule,
    /// The border link, by its name in the receiving domain.
    pub border_link: Name,
    /// The receiving domain's endpoint, `node/nic`; its only one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// VLANs that the border link has free on the initiator's side, as `2-4094`: the receiving domain
    /// chooses one of them. Any will do when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// What the receiving domain shall lease from.
    pub addressing: Addressing,
    /// How long to hold, in seconds.
    pub hold_seconds: u32,
    /// The initiator's time now; more than 60 s apart is refused.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub now: Timestamp,
}

/// Where a stitch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum StitchState {
    /// The own part is held; the other is being asked.
    Proposed,
    /// Both parts are held.
    Held,
    /// The coordinator has decided to commit, durably, and is telling everyone.
    Committing,
    /// Both parts are committed.
    Committed,
    /// Being ended on both sides.
    Terminating,
    /// Ended on both sides.
    Terminated,
    /// The other domain said no.
    Rejected,
    /// The hold ran out before commit.
    TimedOut,
    /// Given back before commit.
    Aborted,
}

/// A stitch, as each of its two domains keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stitch {
    /// The same in both domains.
    pub id: Uuid,
    /// Who coordinates: the initiator.
    pub initiator: Name,
    /// The other domain.
    pub peer: Name,
    /// The slice of this domain.
    pub slice_id: Uuid,
    /// The slice of the other domain, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_slice_id: Option<Uuid>,
    /// The border link, by its name here.
    pub border_link: Name,
    /// VLAN of the slice on the border link, once both domains know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<u16>,
    /// Where it stands.
    pub state: StitchState,
    /// When the holds run out: the earlier of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub hold_expires_at: Option<Timestamp>,
    /// Why it ended, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Counts every change; the ETag.
    pub version: u64,
}
