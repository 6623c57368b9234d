//! Slices: reservations of bandwidth between members of a VDN, held first and then committed.

use crate::{HostId, Name};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};
use uuid::Uuid;

/// What a slice promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Class {
    /// Alone on every link it uses, and may book them whole.
    Dedicated,
    /// The rate is kept beside others; 95 % of a link can be booked so.
    Guaranteed,
    /// No promise: what is left over.
    BestEffort,
}
impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Dedicated => "dedicated",
            Self::Guaranteed => "guaranteed",
            Self::BestEffort => "best-effort",
        })
    }
}
impl std::str::FromStr for Class {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "dedicated" => Ok(Self::Dedicated),
            "guaranteed" => Ok(Self::Guaranteed),
            "best-effort" | "best_effort" => Ok(Self::BestEffort),
            _ => Err(format!(
                "slice class {text:?} is not known: write dedicated, guaranteed or best-effort"
            )),
        }
    }
}

/// What the rate means for a group of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Mode {
    /// Two members, the rate each way.
    #[default]
    Pair,
    /// The rate per member, in and out.
    Hose,
    /// The slice's total.
    Aggregate,
}

/// What happens to traffic above the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Excess {
    /// It is not sent.
    #[default]
    Drop,
    /// It may use what others leave.
    BestEffort,
}

/// The quality of service of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Qos {
    /// What is promised.
    pub class: Class,
    /// Bits per second of Ethernet frames, without preamble, gap and checksum.
    pub rate_bps: u64,
    /// What the rate means for the group.
    #[serde(default)]
    pub mode: Mode,
    /// What happens above the rate.
    #[serde(default)]
    pub excess: Excess,
    /// Burst of the guard, milliseconds of the rate.
    #[serde(default = "ten")]
    pub burst_ms: u32,
}
fn ten() -> u32 {
    10
}

/// What a member is in its slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// Sends and receives.
    #[default]
    Endpoint,
    /// Joins an external IP network.
    Gateway,
}

/// An interface that belongs to a slice: a host's NIC, or a border link of the domain.
/// Exactly one of `host` and `border_link` is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Member {
    /// A declared host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    /// A border link, by its name in this domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub border_link: Option<Name>,
    /// What it is in the slice.
    #[serde(default)]
    pub role: Role,
    /// Its host let it join for a pod, after the slice was reserved: it goes again when it has been
    /// without one for two minutes. The controller's to say; never in a request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub joined: bool,
}

impl Member {
    /// An interface of a host.
    pub fn of_host(host: HostId, role: Role) -> Self {
        Self {
            host: Some(host),
            border_link: None,
            role,
            joined: false,
        }
    }
    /// A border link of the domain.
    pub fn of_border(link: Name) -> Self {
        Self {
            host: None,
            border_link: Some(link),
            role: Role::default(),
            joined: false,
        }
    }
}

/// When a slice carries traffic: the half-open window `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Schedule {
    /// First instant; now when absent in a request.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub start: Timestamp,
    /// First instant after.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub end: Timestamp,
}

/// How the path is chosen. Only `tree` is built; other wishes are answered 422 by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PathWish {
    /// `tree`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Upper limit of the path's latency, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_latency_us: Option<u64>,
    /// Devices to keep clear of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<String>,
    /// `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<String>,
}

/// Addresses of one family that a slice hands out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pool {
    /// The subnet, of the family of the field it stands in.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub cidr: IpNet,
    /// First and last address that may be leased, as `10.20.0.10-10.20.0.250`; the whole subnet
    /// without its first and last address when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<String>,
    /// The way out, when access rules allow one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub gateway: Option<IpAddr>,
}

/// What vDHCP hands out in a slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Addressing {
    /// IPv4 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Pool>,
    /// IPv6 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Pool>,
    /// MTU of the slice in bytes.
    #[serde(default = "ethernet")]
    pub mtu: u32,
    /// Lifetime of a lease in seconds.
    #[serde(default = "hour")]
    pub lease_seconds: u32,
}
fn ethernet() -> u32 {
    1500
}
fn hour() -> u32 {
    3600
}

/// A slice that is asked for: the body of `POST /slices`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SliceSpec {
    /// Unique per tenant among slices that have not ended.
    pub name: Name,
    /// Who pays for it.
    #[serde(default = "default_tenant")]
    pub tenant: Name,
    /// What is promised.
    pub qos: Qos,
    /// Between whom. NICs, gateways and border links; pods are added later under the same booking.
    pub members: Vec<Member>,
    /// Whether a host of the domain may let a NIC of its own join for a pod, while it fits; an
    /// operator may always. Not with mode pair.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// When.
    pub schedule: Schedule,
    /// How the path is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathWish>,
    /// Which addresses its members get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addressing: Option<Addressing>,
    /// Whether the data plane follows the schedule by itself.
    #[serde(default = "yes")]
    pub auto_provision: bool,
    /// Whether to commit in the same call.
    #[serde(default)]
    pub commit: bool,
    /// How long to hold before commit, in seconds; at most 900.
    #[serde(default = "two_minutes")]
    pub hold_seconds: u32,
    /// Free labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}
pub(crate) fn yes() -> bool {
    true
}
pub(crate) fn two_minutes() -> u32 {
    120
}
/// The tenant of a request that names none.
#[expect(
    clippy::expect_used,
    reason = "the text is a constant and a valid label"
)]
pub fn default_tenant() -> Name {
    "default".parse().expect("a constant label")
}

/// Where a reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Reservation {
    /// Booked until `hold_expires_at`.
    Held,
    /// Booked for its window.
    Committed,
    /// The hold ran out; nothing is booked.
    TimedOut,
    /// Given back before commit.
    Aborted,
}

/// Whether the data plane is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Provision {
    /// Not wanted.
    Released,
    /// Wanted.
    Provisioned,
}

/// Where a slice stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Lifecycle {
    /// It lives.
    Created,
    /// Its window is over.
    PassedEndTime,
    /// Ended by request.
    Terminated,
}

/// What the fabric says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DataPlane {
    /// Not programmed.
    Deactivated,
    /// Being programmed.
    Activating,
    /// Confirmed by what enforces it.
    Active,
    /// Confirmed before, not now.
    Degraded,
    /// Programming failed; it is tried again.
    ActivateFailed,
}

/// A statement about a slice with its ground.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Condition {
    /// `Admitted`, `Programmed`, `SenderShaped`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: bool,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What the controller says of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SliceStatus {
    /// Where the reservation stands.
    pub reservation: Reservation,
    /// Whether the data plane is wanted.
    pub provision: Provision,
    /// Where it stands in its life.
    pub lifecycle: Lifecycle,
    /// What the fabric says.
    pub data_plane: DataPlane,
    /// Counts changes of the wish.
    pub generation: u64,
    /// The last change that the fabric has confirmed.
    pub observed_generation: u64,
    /// When the hold runs out, while it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub hold_expires_at: Option<Timestamp>,
    /// The links it is booked on, directed, as `nic-02:…>site-switch`.
    #[serde(default)]
    pub links: Vec<String>,
    /// Statements with their grounds.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// A slice: what was asked for, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Slice {
    /// Given by the controller (UUIDv7).
    pub id: Uuid,
    /// What was asked for.
    pub spec: SliceSpec,
    /// How it stands.
    pub status: SliceStatus,
    /// The stitch that it is one end of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stitch: Option<Uuid>,
    /// Counts every change; the ETag.
    pub version: u64,
    /// When it was asked for.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
}

impl Slice {
    /// Whether it is booked at this instant: held and not run out, or committed and not ended.
    pub fn booked_at(&self, now: Timestamp) -> bool {
        self.status.lifecycle == Lifecycle::Created
            && match self.status.reservation {
                Reservation::Held => self.status.hold_expires_at.is_some_and(|end| now < end),
                Reservation::Committed => now < self.spec.schedule.end,
                Reservation::TimedOut | Reservation::Aborted => false,
            }
    }
    /// Whether its promise holds at this instant: committed, provisioned and within its window.
    pub fn carries_at(&self, now: Timestamp) -> bool {
        self.booked_at(now)
            && self.status.reservation == Reservation::Committed
            && self.status.provision == Provision::Provisioned
            && self.spec.schedule.start <= now
    }
}

/// Body of `POST /slices/{id}/actions/extend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Extend {
    /// The new end of a committed slice.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub end: Timestamp,
}

/// Body of `POST /availability`: could this be had, and if not, what could?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AvailabilityQuery {
    /// What would be promised.
    pub class: Class,
    /// What the rate would mean.
    #[serde(default)]
    pub mode: Mode,
    /// Between whom.
    pub members: Vec<Member>,
    /// When.
    pub schedule: Schedule,
    /// Rate for which the first fitting window is looked for, bits per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_bps: Option<u64>,
    /// The other end, when the slice leaves the domain; the controller asks the peer too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteEnd>,
}

/// The far end of a stitched slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RemoteEnd {
    /// The other domain.
    pub domain: Name,
    /// One of the endpoints in its domain document, as `node/nic`; the only one it has when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The border link to it, by its name here; the only one there is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub border_link: Option<Name>,
}

/// Answer of `POST /availability`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Availability {
    /// The most that every link admits over the whole window, bits per second.
    pub max_rate_bps: u64,
    /// The link that sets it, as `domain:link`.
    pub limited_by: String,
    /// First window of the asked length in which the asked rate fits, within the next 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_fit: Option<Schedule>,
}

/// An answer that lists things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct List<T> {
    /// In the order of their ids.
    pub items: Vec<T>,
    /// Give it back as `page_token` for the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}
