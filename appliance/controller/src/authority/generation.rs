//! One generation of a domain's keys, on disk: the authority, the key of its documents, and the keys
//! of the controller's own two certificates. And which of at most two generations does what.
//!
//! A change of keys has two steps, each one rename: a new generation is made and told to everybody
//! who believes the old one ([`Turn`] with two numbers), and once they know it the old one is
//! dropped. A controller that is killed between any two steps finds one of the two on disk.

use crate::whole_file;
use dtn_api::Name;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
};
use ring::signature::Ed25519KeyPair;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The file that says which generations there are.
const TURN: &str = "generations.json";
/// Version of that file that this build writes; a newer one is refused.
const VERSION: u32 = 1;
/// Names of the files of one generation.
const FILES: [&str; 5] = ["ca.key", "ca.pem", "document.key", "server.key", "peer.key"];

/// The authority could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}: {reason}")]
pub struct AuthorityError {
    doing: &'static str,
    path: PathBuf,
    reason: String,
}

/// Which generation is shown and which one signs. They differ while keys are changed: both are
/// believed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    version: u32,
    /// Signs the controller's own certificates and its documents: everybody knows it.
    pub shown: u32,
    /// Signs what is given out.
    pub signing: u32,
}

impl Turn {
    /// The first generation alone.
    pub const FIRST: Self = Self {
        version: VERSION,
        shown: 1,
        signing: 1,
    };
    /// Whether keys are being changed.
    pub fn is_turning(&self) -> bool {
        self.shown != self.signing
    }
    /// A new generation beside the one there is. The same again changes nothing.
    #[must_use]
    pub fn begun(self) -> Self {
        match self.is_turning() {
            true => self,
            false => Self {
                signing: self.shown + 1,
                ..self
            },
        }
    }
    /// The new one alone.
    #[must_use]
    pub fn finished(self) -> Self {
        Self {
            shown: self.signing,
            ..self
        }
    }
}

/// The folder of the keys.
pub(super) struct Folder<'a>(pub(super) &'a Path);

impl Folder<'_> {
    pub(super) fn failed<E: std::fmt::Display>(
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
    /// Makes it, for the owner alone.
    pub(super) fn make(&self) -> Result<(), AuthorityError> {
        std::fs::create_dir_all(self.0).map_err(self.failed("making", ""))?;
        std::fs::set_permissions(self.0, std::fs::Permissions::from_mode(0o700))
            .map_err(self.failed("protecting", ""))
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
        whole_file::write(&self.0.join(file), text.as_bytes())
            .map_err(|e| self.failed("writing", file)(e))
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

    /// Which generations there are.
    pub(super) fn turn(&self) -> Result<Turn, AuthorityError> {
        let Some(text) = self.read(TURN)? else {
            return Ok(Turn::FIRST);
        };
        let turn: Turn = serde_json::from_str(&text).map_err(self.failed("reading", TURN))?;
        if turn.version > VERSION {
            let why = format!("version {} is newer than this build reads", turn.version);
            return Err(self.failed("reading", TURN)(why));
        }
        Ok(turn)
    }
    /// Writes which there are, whole.
    pub(super) fn write_turn(&self, turn: Turn) -> Result<(), AuthorityError> {
        let text = serde_json::to_string(&turn).map_err(self.failed("writing", TURN))?;
        self.write(TURN, &text)
    }
    /// Removes the keys of a generation that is dropped.
    pub(super) fn remove(&self, number: u32) {
        for file in FILES {
            let path = self.0.join(name(file, number));
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!("removing {}: {e}", path.display());
                }
                _ => {}
            }
        }
    }
}

/// The first generation has the plain names.
fn name(file: &str, number: u32) -> String {
    match (number, file.split_once('.')) {
        (1, _) | (_, None) => file.to_owned(),
        (number, Some((stem, end))) => format!("{stem}-{number}.{end}"),
    }
}

/// One generation.
pub(super) struct Generation {
    pub(super) number: u32,
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) ca_pem: String,
    pub(super) ca_der: CertificateDer<'static>,
    pub(super) document_key: Ed25519KeyPair,
    pub(super) server_key_pem: String,
    pub(super) peer_key_pem: String,
}

impl Generation {
    /// Reads it, or makes what is missing of it.
    pub(super) fn open(
        files: &Folder<'_>,
        domain: &Name,
        number: u32,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let name = |file: &str| name(file, number);
        // the key first: a certificate without its key would be worth nothing
        let ca_key = files.key(&name("ca.key"), &PKCS_ECDSA_P256_SHA256)?;
        let ca_pem = match files.read(&name("ca.pem"))? {
            Some(pem) => pem,
            None => {
                // the number keeps the names of two that are believed at once apart
                let common = match number {
                    1 => format!("{domain} authority"),
                    number => format!("{domain} authority {number}"),
                };
                let mut params = super::named(common, super::AUTHORITY_YEARS, now);
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
                let certificate = params
                    .self_signed(&ca_key)
                    .map_err(files.failed("making", &name("ca.pem")))?;
                files.write(&name("ca.pem"), &certificate.pem())?;
                certificate.pem()
            }
        };
        let ca_der = CertificateDer::from_pem_slice(ca_pem.as_bytes())
            .map_err(files.failed("reading", &name("ca.pem")))?;
        let issuer = Issuer::from_ca_cert_der(&ca_der, ca_key)
            .map_err(files.failed("reading", &name("ca.pem")))?;
        let file = name("document.key");
        let document_pem = files.key(&file, &PKCS_ED25519)?.serialize_pem();
        let document_key = PrivateKeyDer::from_pem_slice(document_pem.as_bytes())
            .map_err(files.failed("reading", &file))?;
        let document_key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(document_key.secret_der())
            .map_err(files.failed("reading", &file))?;
        let leaf = |file: &str| -> Result<String, AuthorityError> {
            Ok(files
                .key(&name(file), &PKCS_ECDSA_P256_SHA256)?
                .serialize_pem())
        };
        Ok(Self {
            number,
            issuer,
            ca_pem,
            ca_der,
            document_key,
            server_key_pem: leaf("server.key")?,
            peer_key_pem: leaf("peer.key")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_begun_once_and_ends_in_one_generation() {
        let begun = Turn::FIRST.begun();
        assert!(begun.is_turning());
        assert_eq!((begun.shown, begun.signing), (1, 2));
        assert_eq!(begun.begun(), begun);
        let done = begun.finished();
        assert!(!done.is_turning());
        assert_eq!((done.shown, done.finished()), (2, done));
        assert_eq!(name("ca.key", 1), "ca.key");
        assert_eq!(name("ca.key", 3), "ca-3.key");
    }
}
