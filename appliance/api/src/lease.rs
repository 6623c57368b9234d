//! vDHCP over REST: an address for one client, for a time, safe to ask for twice.

use crate::MacAddress;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};
use uuid::Uuid;

/// Where a host sits in the fabric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Location {
    /// The switch; empty where it is not known.
    pub device: String,
    /// Its port by number; 0 where the switch tells it by name only.
    pub port: u32,
}

/// Body of `POST /slices/{id}/leases`. The same `client_id` always gets the same address: 201 the
/// first time, 200 afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseRequest {
    /// Who it is for, unique in the slice: `engine:host/pod-uid/interface`.
    pub client_id: String,
    /// Its hardware address.
    pub mac: MacAddress,
    /// Where it sits, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Addresses it would like, one per family at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub requested_ips: Vec<IpAddr>,
    /// Wished lifetime; the slice's when absent, and never longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u32>,
    /// Free labels: `pod`, `node`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Where a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum LeaseState {
    /// In use until `expires_at`.
    Bound,
    /// Not renewed: kept from others until the quarantine is over.
    Quarantined,
    /// Given back by its client.
    Released,
}

/// A route that comes with a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Route {
    /// Destination.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub dst: IpNet,
    /// Next hop; on link when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub gw: Option<IpAddr>,
}

/// An address, or one of each family, that vDHCP gave to one client for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lease {
    /// Given by the controller.
    pub id: Uuid,
    /// The slice it belongs to.
    pub slice_id: Uuid,
    /// Whose it is.
    pub client_id: String,
    /// The client's hardware address.
    pub mac: MacAddress,
    /// Addresses with the subnet's prefix length, IPv4 first: all of them or none were given.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub ips: Vec<IpNet>,
    /// MTU of the slice in bytes.
    pub mtu: u32,
    /// Routes beyond the subnets.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Name servers.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub dns: Vec<IpAddr>,
    /// Renew from here on: half of the lifetime (RFC 2131 §4.4.5).
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub t1: Timestamp,
    /// Renew from anyone from here on: seven eighths (RFC 2131 §4.4.5).
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub t2: Timestamp,
    /// The end, unless it is renewed.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub expires_at: Timestamp,
    /// Where it stands.
    pub state: LeaseState,
    /// Where its client sits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Free labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Counts every change; the ETag.
    pub version: u64,
}

/// Body of `PATCH /leases/{id}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeasePatch {
    /// `true` starts the lifetime anew.
    pub renew: bool,
}

/// Body of `POST /leases:renew`: all of a node's leases in one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewBatch {
    /// Which.
    pub ids: Vec<Uuid>,
}

/// One result of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewResult {
    /// Which.
    pub id: Uuid,
    /// The lease as renewed, or
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<crate::Problem>,
}
