//! Hosts as the domain knows them by their certificates: when each ends, and which opens nothing any
//! more. And how the keys of a domain are changed.

use crate::Name;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// That a certificate opens nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revocation {
    /// Since when.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// Why, in the words of who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A host that enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Node {
    /// Its name.
    pub name: Name,
    /// When it joined.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub enrolled_at: Timestamp,
    /// When it was given its certificate.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub renewed_at: Timestamp,
    /// Until when that is good; none when it has none.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub certificate_until: Option<Timestamp>,
    /// Newest generation of the domain's keys that it is known to know; 0 before it came once.
    pub generation: u32,
    /// SHA-256 of the authorities (PEM) that are to be believed now, hexadecimal: who has others
    /// renews.
    pub authorities: String,
    /// No certificate of it is good any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
    /// The controller's time.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub now: Timestamp,
}

/// Body of `POST /nodes/{name}/certificate`: a host renews its own, with a new key of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Renewal {
    /// Certificate request, PEM; the key never leaves the host.
    pub csr_pem: String,
    /// The host's time now; more than 60 s apart is refused.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub now: Timestamp,
}

/// Body of `POST …/revoke` on a host or a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revoke {
    /// Why, for those who read the list later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a revocation came to. The same again finds nothing left to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revoked {
    /// Who.
    pub name: Name,
    /// Since when.
    pub revocation: Revocation,
    /// Slices that ended with it.
    pub ended: Vec<Name>,
    /// Slices that go on without it.
    pub left: Vec<Name>,
    /// Addresses that were taken back.
    pub leases: u64,
    /// Gateways that were forgotten with their rules.
    pub gateways: Vec<Name>,
    /// NICs and pods that were forgotten.
    pub hosts: u64,
}

/// Body of `PUT /domains/{name}/keys`: another domain tells the keys that it is to be known by. It
/// comes with a certificate that is believed already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DomainKeys {
    /// Its authority, PEM; two certificates while it changes its keys.
    pub ca_pem: String,
    /// Public keys of its documents, base64url of 32 bytes each (Ed25519).
    pub document_keys: Vec<String>,
    /// Its time now; more than 60 s apart is refused.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub now: Timestamp,
}

/// Body of `POST /keys/actions/rotate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rotate {
    /// Do not wait for those who do not know the new keys yet: they have to join anew.
    #[serde(default)]
    pub finish: bool,
}

/// The keys of a domain, and who still has to learn the new ones while they are changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Keys {
    /// Generation that is shown to others.
    pub shown: u32,
    /// Generation that signs; another one while the keys are changed.
    pub signing: u32,
    /// SHA-256 of the authority that is shown, hexadecimal.
    pub ca_pin: String,
    /// Hosts that do not know the new keys yet.
    pub hosts: Vec<Name>,
    /// Clusters that have to be invited anew.
    pub clusters: Vec<Name>,
    /// Switches that have to be given a new certificate.
    #[serde(default)]
    pub switches: Vec<Name>,
    /// Other domains that have not been told yet.
    pub domains: Vec<Name>,
    /// Invitations that are open and name the old keys.
    pub invitations: u64,
}

impl Keys {
    /// Whether they are being changed.
    pub fn is_turning(&self) -> bool {
        self.shown != self.signing
    }
    /// Whether nobody has to be waited for.
    pub fn is_known(&self) -> bool {
        self.hosts.is_empty()
            && self.clusters.is_empty()
            && self.switches.is_empty()
            && self.domains.is_empty()
            && self.invitations == 0
    }
}
