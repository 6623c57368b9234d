//! Domains and how they come to trust each other: invitations, the signed domain document, and the
//! enrolment of hosts.

use crate::{HostId, Name};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use uuid::Uuid;

/// A border link as another domain may know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BorderLink {
    /// Its name in this domain.
    pub id: Name,
    /// The domain at its other end.
    pub peer_domain: Name,
    /// Its name in that domain.
    pub peer_ref: Name,
    /// What it carries, bits per second of frames.
    pub capacity_bps: u64,
    /// What can still be reserved now, out of this domain.
    pub reservable_tx_bps: u64,
    /// What can still be reserved now, into this domain.
    pub reservable_rx_bps: u64,
    /// One-way latency in microseconds.
    pub latency_us: u64,
    /// MTU in bytes.
    pub mtu: u32,
}

/// A host that other domains may ask for slices to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SharedHost {
    /// MAC and VLAN.
    pub host: HostId,
    /// `node/nic`.
    pub endpoint: String,
    /// Speed, bits per second.
    pub capacity_bps: u64,
    /// MTU in bytes.
    pub mtu: u32,
    /// Addresses, when it has some.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub ips: Vec<IpAddr>,
    /// Border links it is reached by.
    pub behind: Vec<Name>,
}

/// What a domain says of itself to others: borders and permitted hosts, nothing of its inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DomainDocument {
    /// The domain.
    pub domain: Name,
    /// Counts every change.
    pub version: u64,
    /// When it was signed.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub issued_at: Timestamp,
    /// Not to be believed from here on.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub expires_at: Timestamp,
    /// `border`.
    pub abstraction: String,
    /// Its links to other domains.
    pub border_links: Vec<BorderLink>,
    /// Its hosts that others may talk to.
    pub shared_hosts: Vec<SharedHost>,
}

/// A signed document: JWS, flattened JSON serialization (RFC 7515 §7.2.2), EdDSA (RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignedDocument {
    /// Protected header, base64url.
    pub protected: String,
    /// The document, base64url.
    pub payload: String,
    /// Ed25519 over `protected.payload`, base64url.
    pub signature: String,
}

/// What an invitation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum InviteKind {
    /// Another domain.
    Domain,
    /// A host of this domain.
    Host,
    /// The controller of a Kubernetes cluster, which reads slices and changes nothing.
    Cluster,
}

/// Body of `POST /invitations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InviteRequest {
    /// Whom it is for.
    pub kind: InviteKind,
    /// Who is invited, by name.
    pub name: Name,
    /// How long the secret can be used, in seconds; at most a day.
    #[serde(default = "an_hour")]
    pub valid_seconds: u32,
}
fn an_hour() -> u32 {
    3600
}

/// An invitation: everything the other side needs to trust and be trusted, good for one use.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Invitation {
    /// Whom it is for.
    pub kind: InviteKind,
    /// Who invites.
    pub domain: Name,
    /// Who is invited.
    pub name: Name,
    /// Where the inviting controller is reached.
    pub url: String,
    /// SHA-256 of the inviting domain's authority (DER), hexadecimal.
    pub ca_pin: String,
    /// Good for one use; never logged.
    pub secret: String,
    /// Not after.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub expires_at: Timestamp,
}
impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Invitation({:?} {} by {}, secret withheld)",
            self.kind, self.name, self.domain
        )
    }
}

/// Body of `POST /enrolments`: a host or a cluster turns an invitation into a
/// certificate. The controller's certificate is checked against the pin before this is sent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Enrolment {
    /// From the invitation.
    pub secret: String,
    /// Certificate request, PEM; the key never leaves the host.
    pub csr_pem: String,
    /// The time of who enrols; more than 60 s apart is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub now: Option<Timestamp>,
}

/// Answer of `POST /enrolments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Enrolled {
    /// Its name in the domain.
    pub name: Name,
    /// The domain.
    pub domain: Name,
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// The domain's authority, PEM; two certificates while it changes its keys.
    pub ca_pem: String,
}

/// What one domain gives the other when they federate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FederationHello {
    /// Who says it.
    pub domain: Name,
    /// Where its controller is reached.
    pub url: String,
    /// Its authority, PEM.
    pub ca_pem: String,
    /// Public key of its documents, base64url of 32 bytes (Ed25519).
    pub document_key: String,
    /// From the invitation; present in the request only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The domain's time now; more than 60 s apart is refused.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub now: Timestamp,
}

/// How a federation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PeerState {
    /// The last exchange went well.
    Up,
    /// Silent for more than 60 s; traffic stays.
    Degraded,
    /// The federation was ended here; nothing of it is believed any more.
    Revoked,
}

/// Another domain that this one is federated with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Domain {
    /// Its name.
    pub name: Name,
    /// Where its controller is reached.
    pub url: String,
    /// SHA-256 of its authority (DER), hexadecimal.
    pub ca_pin: String,
    /// How it stands.
    pub state: PeerState,
    /// When it was last heard.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub heard_at: Option<Timestamp>,
    /// Its last document whose signature was right.
    pub document: Option<DomainDocument>,
    /// Counts every change; the ETag.
    pub version: u64,
}

/// Body of `POST /domains` on one's own controller: accept another domain's invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Accept {
    /// What `dtnctl domain invite` printed, decoded.
    pub invitation: Invitation,
}

/// Something that happened, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Order in the store.
    pub seq: u64,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// Who did it: the principal, or `vdnd` itself.
    pub principal: String,
    /// What, as `slice.committed`.
    pub what: String,
    /// To which resource.
    pub id: Option<Uuid>,
    /// In words.
    pub detail: String,
}
