//! How whoever was invited enrols: a key of its own, a certificate request, and the first call, to
//! a controller that is known by the pin in the invitation alone.

use super::{Client, ClientError};
use crate::{
    Name, Problem, VDN_BASE,
    domain::{Enrolled, Enrolment, Invitation, InviteKind},
    problem::Kind,
};
use std::time::Duration;

/// Longest time for the controller to answer.
const DEADLINE: Duration = Duration::from_secs(15);

/// A new key with its certificate request. It has to be on disk before it is used: a lost answer is
/// asked for again with the same request.
pub struct KeyAndRequest {
    /// The key, PEM; it never leaves the machine.
    pub key_pem: String,
    /// The request, PEM.
    pub csr_pem: String,
}

impl KeyAndRequest {
    /// Made for an invitation. The controller sets the names in the certificate; those in the
    /// request only say who asks.
    pub fn new(invitation: &Invitation) -> Result<Self, Problem> {
        Self::of(invitation.kind, &invitation.domain, &invitation.name)
    }
    /// Made for somebody who is in the domain already, and renews.
    pub fn of(kind: InviteKind, domain: &Name, name: &Name) -> Result<Self, Problem> {
        Self::made(kind, domain, name)
            .map_err(|e| Problem::new(Kind::Internal, format!("making a key and a request: {e}")))
    }
    fn made(kind: InviteKind, domain: &Name, name: &Name) -> Result<Self, rcgen::Error> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name.as_str());
        let role = match kind {
            InviteKind::Cluster => "cluster",
            InviteKind::Host | InviteKind::Domain => "node-agent",
        };
        let spiffe = format!("spiffe://{domain}/{role}/{name}");
        params
            .subject_alt_names
            .push(rcgen::SanType::URI(spiffe.try_into()?));
        let csr_pem = params.serialize_request(&key)?.pem()?;
        Ok(Self {
            key_pem: key.serialize_pem(),
            csr_pem,
        })
    }
}

/// What an invitation is remembered by once it was used: SHA-256 of its secret, hexadecimal.
pub fn mark(invitation: &Invitation) -> String {
    super::fingerprint(invitation.secret.as_bytes())
}

/// Turns an invitation and a certificate request into a certificate. The same again is answered
/// again.
pub async fn enrol(invitation: &Invitation, csr_pem: &str) -> Result<Enrolled, Problem> {
    let client = Client::pinned(&invitation.url, &invitation.ca_pin, DEADLINE)
        .map_err(ClientError::into_problem)?;
    let body = Enrolment {
        secret: invitation.secret.clone(),
        csr_pem: csr_pem.to_owned(),
        now: Some(jiff::Timestamp::now()),
    };
    let enrolled: Enrolled = client
        .post(&format!("{VDN_BASE}/enrolments"), &body)
        .await
        .map_err(ClientError::into_problem)?;
    if enrolled.name != invitation.name || enrolled.domain != invitation.domain {
        return Err(Problem::new(
            Kind::BackendError,
            format!(
                "the controller enrolled {} in {}, asked for was {} in {}",
                enrolled.name, enrolled.domain, invitation.name, invitation.domain
            ),
        ));
    }
    Ok(enrolled)
}
