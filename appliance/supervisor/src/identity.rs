//! Who this host is in its domain: one file with key, certificate, authority and the controller's
//! address, written at once and readable by root alone.
//!
//! Joining is safe to repeat. The key and the certificate request are on disk before the invitation
//! is used, so a lost answer is asked for again with the same request.

use crate::{Places, failpoint};
use dtn_api::{
    Name, Problem,
    client::enrolment::{KeyAndRequest, enrol, mark},
    client::fingerprint,
    domain::{Enrolled, Invitation, InviteKind},
    node::Renewal,
    problem::Kind,
};
use dtn_link::atomic_file;
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Version of the file that this build writes; a newer one is refused.
const VERSION: u32 = 1;
/// Largest such file: a key and two certificates are some 3 kB.
const LARGEST: u64 = 64 << 10;

/// Who this host is in its domain.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Version of the format.
    pub version: u32,
    /// The host's name.
    pub host: Name,
    /// The domain's name.
    pub domain: Name,
    /// Where its controller is reached.
    pub url: String,
    /// The domain's authority, PEM.
    pub ca_pem: String,
    /// SHA-256 of the authority (DER), hexadecimal.
    pub ca_pin: String,
    /// Own certificate, PEM.
    pub certificate_pem: String,
    /// Own key, PEM.
    pub key_pem: String,
    /// What invitation it came by (`enrolment::mark`); empty where an older build wrote this.
    #[serde(default)]
    pub invited_by: String,
}
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Identity({} in {}, key withheld)",
            self.host, self.domain
        )
    }
}

/// What is to be known of the host's certificate without its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Good from.
    pub from: Timestamp,
    /// Not after.
    pub until: Timestamp,
    /// SHA-256 of the authorities (PEM) that this host believes, hexadecimal.
    pub authorities: String,
}

impl Identity {
    /// What the certificate says of its life.
    pub fn certificate(&self) -> Result<Certificate, Problem> {
        let wrong = |why: String| {
            Problem::new(
                Kind::Internal,
                format!("the certificate of {} cannot be read: {why}", self.host),
            )
        };
        let der = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())
            .map_err(|e| wrong(e.to_string()))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|e| wrong(e.to_string()))?;
        let at = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|e| wrong(e.to_string()))
        };
        Ok(Certificate {
            from: at(parsed.validity().not_before)?,
            until: at(parsed.validity().not_after)?,
            authorities: fingerprint(self.ca_pem.as_bytes()),
        })
    }
}

/// What was made for a renewal that has not been answered yet.
#[derive(Serialize, Deserialize)]
struct PendingRenewal {
    version: u32,
    /// SHA-256 of the certificate (PEM) that is renewed.
    of: String,
    key_pem: String,
    csr_pem: String,
}

/// What was made for an invitation that has not been answered yet.
#[derive(Serialize, Deserialize)]
struct Pending {
    version: u32,
    invitation: Invitation,
    key_pem: String,
    csr_pem: String,
}

fn file(places: &Places) -> PathBuf {
    places.identity().join("identity.json")
}
fn renewal_file(places: &Places) -> PathBuf {
    places.identity().join("renewal.json")
}
fn pending_file(places: &Places) -> PathBuf {
    places.identity().join("pending.json")
}

/// The identity of this host, when it has joined a domain.
pub fn load(places: &Places) -> Result<Option<Identity>, Problem> {
    let file = file(places);
    let Some(bytes) = atomic_file::read(&file, LARGEST).map_err(storage)? else {
        return Ok(None);
    };
    let unreadable = |why: String| {
        Problem::new(
            Kind::Internal,
            format!(
                "{}: {why}: remove it and join the domain again",
                file.display()
            ),
        )
    };
    let identity: Identity =
        serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?;
    if identity.version > VERSION {
        return Err(unreadable(format!(
            "version {} is newer than this build reads",
            identity.version
        )));
    }
    Ok(Some(identity))
}

/// Turns an invitation into an identity, in the place of the one that it had in the same domain. The same
/// invitation twice is success.
pub async fn join(
    places: &Places,
    host: &Name,
    invitation: Invitation,
    now: jiff::Timestamp,
) -> Result<Identity, Problem> {
    let invited_by = mark(&invitation);
    if let Some(identity) = load(places)? {
        if identity.invited_by == invited_by {
            return Ok(identity);
        }
        // invited anew by its own domain: what it has may be revoked, or of keys that are gone
        if (&identity.domain, &identity.host) != (&invitation.domain, &invitation.name) {
            return Err(Problem::new(
                Kind::StateConflict,
                format!(
                    "this host is {} in the domain {} already: a host is in one domain at a time",
                    identity.host, identity.domain
                ),
            ));
        }
    }
    check(&invitation, host, now)?;
    let pending = pending(places, invitation)?;
    let enrolled = enrol(&pending.invitation, &pending.csr_pem).await?;
    let identity = Identity {
        version: VERSION,
        host: enrolled.name,
        domain: enrolled.domain,
        url: pending.invitation.url,
        ca_pem: enrolled.ca_pem,
        ca_pin: pending.invitation.ca_pin,
        certificate_pem: enrolled.certificate_pem,
        key_pem: pending.key_pem,
        invited_by,
    };
    write(&file(places), &identity)?;
    atomic_file::remove(&pending_file(places)).map_err(storage)?;
    Ok(identity)
}

/// Gives the host a new key and certificate. Both are on disk before anything comes with them, and the
/// old ones are good until then: wherever this is cut off, one of the two works.
pub async fn renew(
    places: &Places,
    identity: &Identity,
    ask: impl AsyncFnOnce(Renewal) -> Result<Enrolled, Problem>,
) -> Result<Identity, Problem> {
    let pending = pending_renewal(places, identity)?;
    let enrolled = ask(Renewal {
        csr_pem: pending.csr_pem,
        now: Timestamp::now(),
    })
    .await?;
    if enrolled.name != identity.host || enrolled.domain != identity.domain {
        return Err(Problem::new(
            Kind::BackendError,
            format!(
                "the controller renewed {} in {}, asked for was {} in {}",
                enrolled.name, enrolled.domain, identity.host, identity.domain
            ),
        ));
    }
    let authority = CertificateDer::from_pem_slice(enrolled.ca_pem.as_bytes());
    let authority = authority.map_err(|e| {
        Problem::new(
            Kind::BackendError,
            format!("the controller's authority cannot be read: {e}"),
        )
    })?;
    let renewed = Identity {
        ca_pin: fingerprint(&authority),
        ca_pem: enrolled.ca_pem,
        certificate_pem: enrolled.certificate_pem,
        key_pem: pending.key_pem,
        ..identity.clone()
    };
    // what cannot be read must not take the place of what works
    renewed.certificate()?;
    failpoint::reach("renewed").await;
    write(&file(places), &renewed)?;
    atomic_file::remove(&renewal_file(places)).map_err(storage)?;
    Ok(renewed)
}

/// The key and request for the renewal of this certificate: those on disk, or new ones that are on
/// disk now.
fn pending_renewal(places: &Places, identity: &Identity) -> Result<PendingRenewal, Problem> {
    let file = renewal_file(places);
    let of = fingerprint(identity.certificate_pem.as_bytes());
    let found = atomic_file::read(&file, LARGEST)
        .map_err(storage)?
        .and_then(|bytes| serde_json::from_slice::<PendingRenewal>(&bytes).ok())
        .filter(|pending| pending.version <= VERSION && pending.of == of);
    if let Some(pending) = found {
        return Ok(pending);
    }
    let made = KeyAndRequest::of(InviteKind::Host, &identity.domain, &identity.host)?;
    let pending = PendingRenewal {
        version: VERSION,
        of,
        key_pem: made.key_pem,
        csr_pem: made.csr_pem,
    };
    write(&file, &pending)?;
    Ok(pending)
}

/// All that can be known to be wrong before the controller is asked.
fn check(invitation: &Invitation, host: &Name, now: jiff::Timestamp) -> Result<(), Problem> {
    let mut problem = Problem::new(Kind::InvalidRequest, "the invitation cannot be used");
    if invitation.kind != InviteKind::Host {
        problem = problem.at(
            "/invitation/kind",
            "it does not invite a host: hosts join with what dtnctl host invite printed",
        );
    }
    if invitation.name != *host {
        problem = problem.at(
            "/invitation/name",
            format!(
                "it invites {}, and this host is {host} by its configuration (host.name)",
                invitation.name
            ),
        );
    }
    if invitation.expires_at <= now {
        problem = problem.at(
            "/invitation/expires_at",
            format!("it expired at {}: ask for a new one", invitation.expires_at),
        );
    }
    if !invitation.url.starts_with("https://") {
        problem = problem.at("/invitation/url", "must start with https://");
    }
    if problem.errors.is_empty() {
        Ok(())
    } else {
        Err(problem)
    }
}

/// The key and request for this invitation: those on disk, or new ones that are on disk now.
fn pending(places: &Places, invitation: Invitation) -> Result<Pending, Problem> {
    let file = pending_file(places);
    let found = atomic_file::read(&file, LARGEST)
        .map_err(storage)?
        .and_then(|bytes| serde_json::from_slice::<Pending>(&bytes).ok())
        .filter(|pending| pending.version <= VERSION && pending.invitation == invitation);
    if let Some(pending) = found {
        return Ok(pending);
    }
    let made = KeyAndRequest::new(&invitation)?;
    let pending = Pending {
        version: VERSION,
        invitation,
        key_pem: made.key_pem,
        csr_pem: made.csr_pem,
    };
    write(&file, &pending)?;
    Ok(pending)
}

fn write(file: &std::path::Path, value: &impl Serialize) -> Result<(), Problem> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| Problem::new(Kind::Internal, format!("writing {}: {e}", file.display())))?;
    atomic_file::write(file, &bytes, 0o600).map_err(storage)
}

fn storage(error: dtn_link::Error) -> Problem {
    Problem::new(Kind::Internal, format!("keeping the identity: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invitation() -> Invitation {
        Invitation {
            kind: InviteKind::Host,
            domain: "daejeon".parse().unwrap(),
            name: "dtn1".parse().unwrap(),
            url: "https://192.0.2.1:7443".into(),
            ca_pin: "00".repeat(32),
            secret: "s".into(),
            expires_at: "2026-01-02T00:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn all_that_is_wrong_with_an_invitation_is_said_at_once() {
        let bad = Invitation {
            kind: InviteKind::Domain,
            url: "http://x".into(),
            ..invitation()
        };
        let now = "2026-01-03T00:00:00Z".parse().unwrap();
        let problem = check(&bad, &"other".parse().unwrap(), now).unwrap_err();
        assert_eq!(problem.errors.len(), 4, "{problem}");
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        check(&invitation(), &"dtn1".parse().unwrap(), now).unwrap();
    }

    #[test]
    fn a_repeated_join_uses_the_same_request_and_a_new_invitation_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(dir.path());
        places.create().unwrap();
        let first = pending(&places, invitation()).unwrap();
        assert!(first.csr_pem.contains("CERTIFICATE REQUEST"));
        let again = pending(&places, invitation()).unwrap();
        assert_eq!(first.csr_pem, again.csr_pem);
        let other = Invitation {
            secret: "t".into(),
            ..invitation()
        };
        assert_ne!(pending(&places, other).unwrap().csr_pem, first.csr_pem);
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(pending_file(&places))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn a_newer_file_is_refused_and_none_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(dir.path());
        places.create().unwrap();
        assert!(load(&places).unwrap().is_none());
        let identity = Identity {
            version: VERSION + 1,
            host: "a".parse().unwrap(),
            domain: "b".parse().unwrap(),
            url: String::new(),
            ca_pem: String::new(),
            ca_pin: String::new(),
            certificate_pem: String::new(),
            key_pem: String::new(),
            invited_by: String::new(),
        };
        write(&file(&places), &identity).unwrap();
        assert!(load(&places).unwrap_err().detail.contains("newer"));
        assert!(!format!("{identity:?}").contains("key_pem"));
    }

    #[tokio::test]
    async fn a_renewal_is_asked_for_again_with_the_same_request_and_takes_over_whole() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(dir.path());
        places.create().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = |years: i32| {
            let mut params = rcgen::CertificateParams::default();
            params.not_before = rcgen::date_time_ymd(2027, 1, 1);
            params.not_after = rcgen::date_time_ymd(2027 + years, 1, 1);
            params.self_signed(&key).unwrap().pem()
        };
        let identity = Identity {
            version: VERSION,
            host: "dtn1".parse().unwrap(),
            domain: "daejeon".parse().unwrap(),
            url: "https://192.0.2.1:7443".into(),
            ca_pem: pem(20),
            ca_pin: "00".repeat(32),
            certificate_pem: pem(1),
            key_pem: "old key".into(),
            invited_by: String::new(),
        };
        write(&file(&places), &identity).unwrap();
        let mut asked = Vec::new();
        let lost = renew(&places, &identity, async |renewal| {
            asked.push(renewal.csr_pem);
            Err(Problem::new(
                Kind::BackendUnavailable,
                "the answer was lost",
            ))
        });
        lost.await.unwrap_err();
        assert_eq!(load(&places).unwrap().unwrap().key_pem, "old key");
        // an answer that cannot be read takes the place of nothing
        let answer = |name: &str, certificate_pem: String| Enrolled {
            name: name.parse().unwrap(),
            domain: "daejeon".parse().unwrap(),
            certificate_pem,
            ca_pem: pem(20),
        };
        for bad in [answer("dtn1", "junk".into()), answer("dtn2", pem(2))] {
            renew(&places, &identity, async |_| Ok(bad))
                .await
                .unwrap_err();
        }
        assert_eq!(load(&places).unwrap().unwrap(), identity);
        let renewed = renew(&places, &identity, async |renewal| {
            asked.push(renewal.csr_pem);
            Ok(answer("dtn1", pem(2)))
        });
        let renewed = renewed.await.unwrap();
        assert_eq!(asked[0], asked[1]);
        assert!(renewed.key_pem.contains("PRIVATE KEY"));
        assert_eq!(load(&places).unwrap().unwrap(), renewed);
        assert!(!renewal_file(&places).exists());
        let until = renewed.certificate().unwrap().until;
        assert_eq!(until, "2029-01-01T00:00:00Z".parse().unwrap());
    }
}
