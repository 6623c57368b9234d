//! The domain's own certificate authority: made at first start, never leaves the machine.
//!
//! It signs the controller's server certificate (the chain carries the authority, so that an
//! invitation's pin can be checked), the certificate with which the controller goes to other
//! domains, and the hosts' certificates. Who a certificate is for stands in one URI:
//! `spiffe://<domain>/<role>/<name>`, and is set here, never taken from a request.

use dtn_api::{
    Name, Problem,
    client::{TlsIdentity, fingerprint},
    problem::Kind,
};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    io::Write,
    net::IpAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// How long certificates live, in years. The controller's own are made anew at each start.
const AUTHORITY_YEARS: i16 = 20;
const OWN_YEARS: i16 = 2;
const HOST_YEARS: i16 = 5;
/// Largest certificate request that is looked at, in bytes.
const LARGEST_REQUEST: usize = 16 << 10;

/// The authority could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}: {reason}")]
pub struct AuthorityError {
    doing: &'static str,
    path: PathBuf,
    reason: String,
}

/// The keys and certificates of a domain.
pub struct Authority {
    domain: Name,
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    ca_der: CertificateDer<'static>,
    document_key: Ed25519KeyPair,
    server: (String, String),
    peer: (String, String),
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

struct Folder<'a>(&'a Path);
impl Folder<'_> {
    fn failed<E: std::fmt::Display>(
        &self,
        doing: &'static str,
        file: &str,
    ) -> impl Fn(E) -> AuthorityError {
        let path = self.0.join(file);
        move |error| AuthorityError {
            doing,
            path: path.clone(),
            reason: error.to_string(),
        }
    }
    fn read(&self, file: &str) -> Result<Option<String>, AuthorityError> {
        match std::fs::read_to_string(self.0.join(file)) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed("reading", file)(e)),
        }
    }
    /// Whole or not at all, and for the owner alone.
    fn write(&self, file: &str, text: &str) -> Result<(), AuthorityError> {
        let failed = |e: std::io::Error| self.failed("writing", file)(e);
        let temporary = self.0.join(format!(".{file}.new"));
        let mut open = std::fs::OpenOptions::new();
        let mut out = open
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(failed)?;
        out.write_all(text.as_bytes()).map_err(failed)?;
        out.sync_all().map_err(failed)?;
        std::fs::rename(&temporary, self.0.join(file)).map_err(failed)?;
        std::fs::File::open(self.0)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)
    }
    /// The key in a file, made where there is none.
    fn key(
        &self,
        file: &str,
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> Result<KeyPair, AuthorityError> {
        if let Some(pem) = self.read(file)? {
            return KeyPair::from_pem(&pem).map_err(self.failed("reading", file));
        }
        let key = KeyPair::generate_for(algorithm).map_err(self.failed("making", file))?;
        self.write(file, &key.serialize_pem())?;
        Ok(key)
    }
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

impl Authority {
    /// Reads the domain's keys from a folder, or makes them.
    pub fn open(
        folder: &Path,
        domain: &Name,
        server_names: &[String],
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let files = Folder(folder);
        std::fs::create_dir_all(folder).map_err(files.failed("making", ""))?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
            .map_err(files.failed("protecting", ""))?;
        // the key first: a certificate without its key would be worth nothing
        let ca_key = files.key("ca.key", &PKCS_ECDSA_P256_SHA256)?;
        let ca_pem = match files.read("ca.pem")? {
            Some(pem) => pem,
            None => {
                let mut params = named(format!("{domain} authority"), AUTHORITY_YEARS, now);
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
                let certificate = params
                    .self_signed(&ca_key)
                    .map_err(files.failed("making", "ca.pem"))?;
                files.write("ca.pem", &certificate.pem())?;
                certificate.pem()
            }
        };
        let ca_der = CertificateDer::from_pem_slice(ca_pem.as_bytes())
            .map_err(files.failed("reading", "ca.pem"))?;
        let issuer =
            Issuer::from_ca_cert_der(&ca_der, ca_key).map_err(files.failed("reading", "ca.pem"))?;
        let document_pem = files.key("document.key", &PKCS_ED25519)?.serialize_pem();
        let document_key = PrivateKeyDer::from_pem_slice(document_pem.as_bytes())
            .map_err(files.failed("reading", "document.key"))?;
        let document_key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(document_key.secret_der())
            .map_err(files.failed("reading", "document.key"))?;
        let mut authority = Self {
            domain: domain.clone(),
            issuer,
            ca_pem,
            ca_der,
            document_key,
            server: (String::new(), String::new()),
            peer: (String::new(), String::new()),
        };
        let server_key = files.key("server.key", &PKCS_ECDSA_P256_SHA256)?;
        authority.server = authority
            .own(
                server_key,
                server_names,
                ExtendedKeyUsagePurpose::ServerAuth,
                now,
            )
            .map_err(files.failed("making", "the server certificate"))?;
        let peer_key = files.key("peer.key", &PKCS_ECDSA_P256_SHA256)?;
        authority.peer = authority
            .own(peer_key, &[], ExtendedKeyUsagePurpose::ClientAuth, now)
            .map_err(files.failed("making", "the certificate for other domains"))?;
        Ok(authority)
    }

    fn own(
        &self,
        key: KeyPair,
        names: &[String],
        usage: ExtendedKeyUsagePurpose,
        now: Timestamp,
    ) -> Result<(String, String), rcgen::Error> {
        let mut params = named(format!("{} vdnd", self.domain), OWN_YEARS, now);
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let uri = spiffe(&self.domain, "peer", &self.domain);
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        // the authority is in the chain: that is what a pin is compared with
        let chain = format!("{}{}", certificate.pem(), self.ca_pem);
        Ok((chain, key.serialize_pem()))
    }

    /// The domain it speaks for.
    pub fn domain(&self) -> &Name {
        &self.domain
    }
    /// Its certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
    /// Its certificate, DER.
    pub fn ca_der(&self) -> &CertificateDer<'static> {
        &self.ca_der
    }
    /// SHA-256 of its certificate (DER), hexadecimal.
    pub fn pin(&self) -> String {
        fingerprint(&self.ca_der)
    }
    /// Key of the domain's documents.
    pub fn document_key(&self) -> &Ed25519KeyPair {
        &self.document_key
    }
    /// Public part of the key of the domain's documents.
    pub fn document_public_key(&self) -> &[u8] {
        self.document_key.public_key().as_ref()
    }
    /// Chain and key of the server, PEM.
    pub fn server(&self) -> &(String, String) {
        &self.server
    }
    /// How this domain's controller goes to another one whose authority is known.
    pub fn as_peer(&self, their_ca_pem: &str) -> TlsIdentity {
        TlsIdentity {
            ca_pem: their_ca_pem.to_owned(),
            own: Some(self.peer.clone()),
        }
    }

    /// A certificate for somebody of the domain in a role. From the request only the key is taken.
    pub fn certify(
        &self,
        role: &str,
        name: &Name,
        csr_pem: &str,
        now: Timestamp,
    ) -> Result<String, Problem> {
        let wrong = |why: String| {
            Problem::new(Kind::InvalidRequest, "the certificate request is not valid")
                .at("/csr_pem", why)
        };
        if csr_pem.len() > LARGEST_REQUEST {
            return Err(wrong(format!("is longer than {LARGEST_REQUEST} bytes")));
        }
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|e| wrong(format!("{e}: send a PKCS#10 request in PEM")))?;
        let mut params = named(format!("{name} {}", self.domain), HOST_YEARS, now);
        let uri = spiffe(&self.domain, role, name);
        let uri = uri
            .try_into()
            .map_err(|e: rcgen::Error| wrong(e.to_string()))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        request.params = params;
        request
            .signed_by(&self.issuer)
            .map(|certificate| certificate.pem())
            .map_err(|e| {
                Problem::new(
                    Kind::Internal,
                    format!("signing the certificate of {role} {name}: {e}"),
                )
            })
    }
}

/// SHA-256 of the first certificate in a PEM text, hexadecimal, and its DER.
pub fn read_authority(pem: &str) -> Result<(String, CertificateDer<'static>), String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string())?;
    Ok((fingerprint(&der), der))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(first.document_public_key(), again.document_public_key());
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
            .unwrap();
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
}
