//! The domain's own certificate authority: made at first start, never leaves the machine.
//!
//! It signs the controller's server certificate (the chain carries the authority, so that an
//! invitation's pin can be checked), the certificate with which the controller goes to other
//! domains, and the hosts' certificates. Who a certificate is for stands in one URI:
//! `spiffe://<domain>/<role>/<name>`, and is set here, never taken from a request.
//!
//! Its keys can be changed while everything goes on: for a time two generations are believed, the old
//! one is shown and the new one signs; [`generation`] has them on disk.

mod generation;

pub use generation::{AuthorityError, Turn};

use dtn_api::{
    Name, Problem,
    client::{TlsIdentity, fingerprint},
    problem::Kind,
};
use generation::{Folder, Generation};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
};
use ring::signature::KeyPair as _;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

/// How long certificates live, in years. The controller's own are made anew at each start; those of
/// clusters and switches are renewed by hand.
const AUTHORITY_YEARS: i16 = 20;
const OWN_YEARS: i16 = 2;
const OTHERS_YEARS: i16 = 5;
/// How long a host's certificate lives, in days. It renews itself at two thirds of that, so that a
/// host may be off for a month.
const HOST_DAYS: i64 = 90;
/// Largest certificate request that is looked at, in bytes.
const LARGEST_REQUEST: usize = 16 << 10;

/// The keys and certificates of a domain.
pub struct Authority {
    domain: Name,
    folder: PathBuf,
    server_names: Vec<String>,
    keys: RwLock<Arc<Keys>>,
}

/// What is in use.
struct Keys {
    turn: Turn,
    shown: Generation,
    /// The next one, while keys are changed.
    next: Option<Generation>,
    server: (String, String),
    peer: (String, String),
}

/// A certificate that was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM.
    pub pem: String,
    /// SHA-256 of its DER, hexadecimal.
    pub fingerprint: String,
    /// Not after.
    pub until: Timestamp,
    /// Generation of the authority that signed it.
    pub generation: u32,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({}, keys withheld)", self.domain)
    }
}

/// The URI that says who a certificate is for.
pub fn spiffe(domain: &Name, role: &str, name: &Name) -> String {
    format!("spiffe://{domain}/{role}/{name}")
}

fn named(common_name: String, years: i16, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let date =
        |at: DateTime| rcgen::date_time_ymd(at.year().into(), at.month() as u8, at.day() as u8);
    let today = now.to_zoned(TimeZone::UTC).datetime();
    // a day back, for clocks that are a little behind
    params.not_before = date(today.yesterday().map_or(today, |d| d));
    params.not_after = rcgen::date_time_ymd(i32::from(today.year().saturating_add(years)), 1, 1);
    params
}

/// The same for a number of days, from an hour ago, for clocks that are a little behind.
fn for_days(common_name: String, days: i64, now: Timestamp) -> (CertificateParams, Timestamp) {
    let mut params = named(common_name, 0, now);
    let at = |span: SignedDuration| {
        let at = crate::admission::later(now, span);
        // whole seconds: a certificate has no parts of them
        Timestamp::from_second(at.as_second()).unwrap_or(at)
    };
    let until = at(SignedDuration::from_hours(24 * days));
    let since_epoch = |at: Timestamp| std::time::Duration::from_secs(at.as_second().unsigned_abs());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(at(SignedDuration::from_hours(-1)));
    params.not_after = epoch + since_epoch(until);
    (params, until)
}

impl Authority {
    /// Reads the domain's keys from a folder, or makes them.
    pub fn open(
        folder: &Path,
        domain: &Name,
        server_names: &[String],
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let files = Folder(folder);
        files.make()?;
        let turn = files.turn()?;
        let keys = Keys::open(&files, domain, server_names, turn, now)?;
        // what a change that was cut off had still to remove
        (1..turn.shown).for_each(|number| files.remove(number));
        Ok(Self {
            domain: domain.clone(),
            folder: folder.to_owned(),
            server_names: server_names.to_vec(),
            keys: RwLock::new(Arc::new(keys)),
        })
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Which generations are in use.
    pub fn turn(&self) -> Turn {
        self.keys().turn
    }

    /// Makes a new generation beside the old one; both are believed from then on. The same again
    /// changes nothing.
    pub fn begin_turn(&self, now: Timestamp) -> Result<Turn, AuthorityError> {
        self.change(Turn::begun, now)
    }

    /// Drops the old generation: the new one is shown, and alone is believed.
    pub fn finish_turn(&self, now: Timestamp) -> Result<Turn, AuthorityError> {
        let before = self.turn();
        let turn = self.change(Turn::finished, now)?;
        if turn.shown != before.shown {
            Folder(&self.folder).remove(before.shown);
        }
        Ok(turn)
    }

    fn change(&self, next: impl Fn(Turn) -> Turn, now: Timestamp) -> Result<Turn, AuthorityError> {
        // one change at a time
        let mut keys = self.keys.write().unwrap_or_else(|e| e.into_inner());
        let turn = next(keys.turn);
        if turn == keys.turn {
            return Ok(turn);
        }
        let files = Folder(&self.folder);
        // its keys are on disk before it is said that they are in use
        let made = Keys::open(&files, &self.domain, &self.server_names, turn, now)?;
        files.write_turn(turn)?;
        *keys = Arc::new(made);
        Ok(turn)
    }

    /// The domain it speaks for.
    pub fn domain(&self) -> &Name {
        &self.domain
    }
    /// The certificates that are believed, PEM, the one that is shown first.
    pub fn ca_pem(&self) -> String {
        let keys = self.keys();
        let next = keys.next.as_ref().map_or("", |next| next.ca_pem.as_str());
        format!("{}{next}", keys.shown.ca_pem)
    }
    /// The same, DER.
    pub fn ca_ders(&self) -> Vec<CertificateDer<'static>> {
        let keys = self.keys();
        let next = keys.next.iter().map(|next| next.ca_der.clone());
        std::iter::once(keys.shown.ca_der.clone())
            .chain(next)
            .collect()
    }
    /// SHA-256 of the certificate (DER) that is shown, hexadecimal.
    pub fn pin(&self) -> String {
        fingerprint(&self.keys().shown.ca_der)
    }
    /// Signs with the key of the domain's documents.
    pub fn sign(
        &self,
        document: &dtn_api::domain::DomainDocument,
    ) -> dtn_api::domain::SignedDocument {
        crate::document::sign(document, &self.keys().shown.document_key)
    }
    /// Public parts of the keys of the domain's documents, the one that signs first.
    pub fn document_keys(&self) -> Vec<Vec<u8>> {
        let keys = self.keys();
        let both = std::iter::once(&keys.shown).chain(keys.next.as_ref());
        both.map(|one| one.document_key.public_key().as_ref().to_vec())
            .collect()
    }
    /// Chain and key of the server, PEM.
    pub fn server(&self) -> (String, String) {
        self.keys().server.clone()
    }
    /// How this domain's controller goes to another one whose authority is known.
    pub fn as_peer(&self, their_ca_pem: &str) -> TlsIdentity {
        TlsIdentity {
            ca_pem: their_ca_pem.to_owned(),
            own: Some(self.keys().peer.clone()),
        }
    }

    /// A certificate for somebody of the domain in a role. From the request only the key is taken.
    pub fn certify(
        &self,
        role: &str,
        name: &Name,
        csr_pem: &str,
        now: Timestamp,
    ) -> Result<Issued, Problem> {
        let wrong = |why: String| {
            Problem::new(Kind::InvalidRequest, "the certificate request is not valid")
                .at("/csr_pem", why)
        };
        if csr_pem.len() > LARGEST_REQUEST {
            return Err(wrong(format!("is longer than {LARGEST_REQUEST} bytes")));
        }
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|e| wrong(format!("{e}: send a PKCS#10 request in PEM")))?;
        let common = format!("{name} {}", self.domain);
        let (mut params, until) = match role {
            crate::auth::NODE_ROLE => for_days(common, HOST_DAYS, now),
            _ => {
                let params = named(common, OTHERS_YEARS, now);
                let until = Timestamp::from_second(params.not_after.unix_timestamp());
                (params, until.unwrap_or(now))
            }
        };
        let uri = spiffe(&self.domain, role, name);
        let uri = uri
            .try_into()
            .map_err(|e: rcgen::Error| wrong(e.to_string()))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        request.params = params;
        let keys = self.keys();
        let signer = keys.next.as_ref().unwrap_or(&keys.shown);
        let certificate = request.signed_by(&signer.issuer).map_err(|e| {
            Problem::new(
                Kind::Internal,
                format!("signing the certificate of {role} {name}: {e}"),
            )
        })?;
        Ok(Issued {
            pem: certificate.pem(),
            fingerprint: fingerprint(certificate.der()),
            until,
            generation: signer.number,
        })
    }
}

impl Keys {
    fn open(
        files: &Folder<'_>,
        domain: &Name,
        server_names: &[String],
        turn: Turn,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let shown = Generation::open(files, domain, turn.shown, now)?;
        let next = match turn.is_turning() {
            true => Some(Generation::open(files, domain, turn.signing, now)?),
            false => None,
        };
        let own = |key: &str, names: &[String], usage, what| {
            own(domain, &shown, key, names, usage, now).map_err(files.failed("making", what))
        };
        let server = own(
            &shown.server_key_pem,
            server_names,
            ExtendedKeyUsagePurpose::ServerAuth,
            "the server certificate",
        )?;
        let peer = own(
            &shown.peer_key_pem,
            &[],
            ExtendedKeyUsagePurpose::ClientAuth,
            "the certificate for other domains",
        )?;
        Ok(Self {
            turn,
            server,
            peer,
            shown,
            next,
        })
    }
}

/// One of the controller's own certificates, with its key.
fn own(
    domain: &Name,
    by: &Generation,
    key_pem: &str,
    names: &[String],
    usage: ExtendedKeyUsagePurpose,
    now: Timestamp,
) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::from_pem(key_pem)?;
    let mut params = named(format!("{domain} vdnd"), OWN_YEARS, now);
    params.extended_key_usages = vec![usage];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let uri = spiffe(domain, "peer", domain);
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &by.issuer)?;
    // the authority is in the chain: that is what a pin is compared with
    let chain = format!("{}{}", certificate.pem(), by.ca_pem);
    Ok((chain, key_pem.to_owned()))
}

/// SHA-256 of the first certificate in a PEM text, hexadecimal, and its DER.
pub fn read_authority(pem: &str) -> Result<(String, CertificateDer<'static>), String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string())?;
    Ok((fingerprint(&der), der))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, IsCa};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_once_and_are_the_owner_s_alone() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("vdn");
        let domain: Name = "daejeon".parse().unwrap();
        let now = "2027-01-10T06:00:00Z".parse().unwrap();
        let names = ["127.0.0.1".to_owned(), "vdnd.example.org".to_owned()];
        let first = Authority::open(&folder, &domain, &names, now).unwrap();
        let again = Authority::open(&folder, &domain, &names, now).unwrap();
        assert_eq!(first.pin(), again.pin());
        assert_eq!(first.document_keys(), again.document_keys());
        for entry in std::fs::read_dir(&folder).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert!(!format!("{first:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_host_cannot_choose_who_it_is() {
        let root = tempfile::tempdir().unwrap();
        let domain: Name = "daejeon".parse().unwrap();
        let now = Timestamp::now();
        let authority = Authority::open(root.path(), &domain, &[], now).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut wish = CertificateParams::new(vec!["evil.example.org".into()]).unwrap();
        wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let csr = wish.serialize_request(&key).unwrap().pem().unwrap();
        let pem = authority
            .certify("node-agent", &"dtn-1".parse().unwrap(), &csr, now)
            .unwrap()
            .pem;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let who = crate::auth::identity_of(&der).unwrap();
        assert_eq!(
            who,
            (domain, "node-agent".to_owned(), "dtn-1".parse().unwrap())
        );
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert!(!parsed.is_ca());
        for junk in ["", "-----BEGIN X", &"a".repeat(LARGEST_REQUEST + 1)] {
            let name = "x".parse().unwrap();
            assert!(authority.certify("node-agent", &name, junk, now).is_err());
        }
    }

    #[test]
    fn keys_change_in_two_steps_and_both_are_believed_in_between() {
        let root = tempfile::tempdir().unwrap();
        let domain: Name = "daejeon".parse().unwrap();
        let now = Timestamp::now();
        let open = || Authority::open(root.path(), &domain, &[], now).unwrap();
        let authority = open();
        let (pin, bundle) = (authority.pin(), authority.ca_pem());
        let key = KeyPair::generate().unwrap();
        let wish = CertificateParams::new(Vec::new()).unwrap();
        let csr = wish.serialize_request(&key).unwrap().pem().unwrap();
        let certify = |authority: &Authority| {
            authority
                .certify("node-agent", &"dtn-1".parse().unwrap(), &csr, now)
                .unwrap()
        };
        let first = certify(&authority);
        assert_eq!(first.generation, 1);
        let days = first.until.duration_since(now).as_hours() / 24;
        assert!((HOST_DAYS - 1..=HOST_DAYS).contains(&days), "{days}");

        authority.begin_turn(now).unwrap();
        authority.begin_turn(now).unwrap();
        assert_eq!(authority.turn().signing, 2);
        // what is shown stays, what is believed grows, what is signed is new
        assert_eq!(authority.pin(), pin);
        assert!(authority.ca_pem().starts_with(&bundle) && authority.ca_ders().len() == 2);
        assert_eq!(authority.document_keys().len(), 2);
        assert_eq!(certify(&authority).generation, 2);
        // a controller that was killed in between goes on where it was
        let again = open();
        assert_eq!(again.ca_pem(), authority.ca_pem());

        again.finish_turn(now).unwrap();
        assert_ne!(again.pin(), pin);
        assert!(!again.ca_pem().contains(&bundle) && again.ca_ders().len() == 1);
        assert!(!root.path().join("ca.key").exists() && root.path().join("ca-2.key").exists());
        assert_eq!(open().pin(), again.pin());
        again.begin_turn(now).unwrap();
        assert_eq!(again.turn().signing, 3);
    }
}
