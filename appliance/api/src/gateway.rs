//! Gateways: where a VDN meets an external network, and who may pass (vNAC).
//!
//! A gateway is a host with two NICs: by one of them it is a member of slices, behind the other lies
//! the external network. It forwards what an [access rule](AccessRule) allows and nothing else.

mod access;
mod ports;

pub use access::{
    AccessAction, AccessMatch, AccessRule, AccessRules, Decided, Direction, Explanation, Packet,
    Protocol, StandingRule, StandingRules, decide,
};
pub use ports::PortRange;

use crate::{HostId, Name};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Most rules of a gateway.
pub const MOST_RULES: usize = 1000;
/// Most networks behind a gateway.
pub const MOST_NETWORKS: usize = 64;
/// Greatest number of a rule; the smallest is 1.
pub const LAST_RULE: u16 = 9999;
/// Most ranges of ports in one list.
pub const MOST_PORTS: usize = 32;
/// Longest trouble that a gateway's host reports, in bytes.
pub const LONGEST_TROUBLE: usize = 2048;
/// Longest note of a rule, in bytes.
pub const LONGEST_NOTE: usize = 256;

/// Body of `PUT /gateways/{name}`: a node declares that it forwards between slices and an external
/// network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GatewaySpec {
    /// The node that declares it: the name in its certificate.
    pub node: Name,
    /// Its NIC towards the slices, a declared host.
    pub host: HostId,
    /// What lies behind it; members of its slices get routes there.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub networks: Vec<IpNet>,
    /// Its own addresses on the external network, with prefix length.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub outside: Vec<IpNet>,
    /// Whether members are seen from outside with the gateway's address instead of their own.
    #[serde(default)]
    pub nat: bool,
}

/// A gateway as the controller knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gateway {
    /// Its name in the domain.
    pub name: Name,
    /// What was declared.
    pub spec: GatewaySpec,
    /// Counts changes of its access rules.
    pub rules_version: u64,
    /// What its host has read back from its kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<GatewayReport>,
    /// When it was last declared.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub seen_at: Timestamp,
    /// Counts every change of what was declared; the ETag.
    pub version: u64,
}

/// What a gateway's host says of itself: body of `PUT /gateways/{name}/report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GatewayReport {
    /// The version of the access rules that its kernel has.
    pub rules_version: u64,
    /// The slices that it forwards for.
    pub slices: Vec<Uuid>,
    /// What each rule has decided about, by its number, since the gateway was set up.
    #[serde(default)]
    pub rules: BTreeMap<u16, Count>,
    /// What no rule allowed, on its way out.
    #[serde(default)]
    pub denied_outbound: Count,
    /// What no rule allowed, on its way in.
    #[serde(default)]
    pub denied_inbound: Count,
    /// What keeps it from forwarding, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// When it was read.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub read_at: Timestamp,
}

/// Packets and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}
impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        // a host reports what it likes
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_of_counts_stays_at_the_greatest() {
        let mut sum = Count {
            packets: u64::MAX,
            bytes: 1,
        };
        sum += Count {
            packets: 1,
            bytes: 1,
        };
        assert_eq!((sum.packets, sum.bytes), (u64::MAX, 2));
    }
}
