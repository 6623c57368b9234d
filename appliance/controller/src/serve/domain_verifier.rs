//! Whose certificates are believed: each domain's own authority for that domain's names, and no
//! other's. A federated domain can vouch for itself and for nobody here.

use crate::{auth::identity_of, authority::Authority};
use dtn_api::Name;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{
        ClientHello, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

type Verifiers = BTreeMap<Name, Arc<dyn ClientCertVerifier>>;

/// Checks a client's certificate with the authority of the domain that it names.
#[derive(Debug)]
pub(super) struct DomainVerifier {
    own_domain: Name,
    own: RwLock<Arc<dyn ClientCertVerifier>>,
    /// The authorities that `own` was made of.
    own_pem: RwLock<String>,
    peers: RwLock<Verifiers>,
}

fn verifier(pem: &str) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(default_provider());
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
}

impl DomainVerifier {
    pub(super) fn new(authority: &Authority) -> anyhow::Result<Self> {
        Ok(Self {
            own_domain: authority.domain().clone(),
            own: RwLock::new(verifier(&authority.ca_pem())?),
            own_pem: RwLock::new(authority.ca_pem()),
            peers: RwLock::default(),
        })
    }
    /// From now on the own domain is believed by these authorities.
    pub(super) fn believe_own(&self, authority: &Authority) -> anyhow::Result<()> {
        let pem = authority.ca_pem();
        let mut known = self.own_pem.write().unwrap_or_else(|e| e.into_inner());
        if *known != pem {
            let made = verifier(&pem)?;
            *self.own.write().unwrap_or_else(|e| e.into_inner()) = made;
            *known = pem;
        }
        Ok(())
    }
    fn own(&self) -> Arc<dyn ClientCertVerifier> {
        self.own.read().unwrap_or_else(|e| e.into_inner()).clone()
    }
    /// From now on these domains are believed, each by its authority (PEM).
    pub(super) fn believe(&self, authorities: &BTreeMap<Name, String>) {
        let mut verifiers = Verifiers::new();
        for (name, pem) in authorities
            .iter()
            .filter(|(name, _)| **name != self.own_domain)
        {
            match verifier(pem) {
                Ok(one) => drop(verifiers.insert(name.clone(), one)),
                Err(e) => tracing::error!("the authority of domain {name} is not used: {e}"),
            }
        }
        *self.peers.write().unwrap_or_else(|e| e.into_inner()) = verifiers;
    }
    fn of(&self, domain: &Name) -> Option<Arc<dyn ClientCertVerifier>> {
        if *domain == self.own_domain {
            return Some(self.own());
        }
        self.peers
            .read()
            .unwrap_or_else(|e| e.into_inner())
            .get(domain)
            .cloned()
    }
}

impl ClientCertVerifier for DomainVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // no hint: the list would change with every federation
        &[]
    }
    fn client_auth_mandatory(&self) -> bool {
        // enrolment and federation come without a certificate
        false
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let (domain, _, _) = identity_of(end_entity)
            .ok_or_else(|| Error::General("the certificate names nobody of a domain".into()))?;
        let authority = self
            .of(&domain)
            .ok_or_else(|| Error::General(format!("domain {domain} is not federated")))?;
        authority.verify_client_cert(end_entity, intermediates, now)
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own()
            .verify_tls13_signature(message, certificate, signature)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.own().supported_verify_schemes()
    }
}

/// The certificate that the controller shows; another one from the next connection on, once its keys
/// are changed.
#[derive(Debug)]
pub(super) struct ShownCertificate {
    chain: RwLock<(String, Arc<CertifiedKey>)>,
}

impl ShownCertificate {
    pub(super) fn new(authority: &Authority) -> anyhow::Result<Self> {
        let (chain, key) = authority.server();
        let made = certified(&chain, &key)?;
        Ok(Self {
            chain: RwLock::new((chain, made)),
        })
    }
    /// From now on the domain's own one of now.
    pub(super) fn show(&self, authority: &Authority) -> anyhow::Result<()> {
        let (chain, key) = authority.server();
        let mut shown = self.chain.write().unwrap_or_else(|e| e.into_inner());
        if shown.0 != chain {
            let made = certified(&chain, &key)?;
            *shown = (chain, made);
        }
        Ok(())
    }
}

impl ResolvesServerCert for ShownCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.chain.read().unwrap_or_else(|e| e.into_inner());
        Some(shown.1.clone())
    }
}

fn certified(chain: &str, key: &str) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    Ok(Arc::new(CertifiedKey::from_der(
        chain,
        key,
        &default_provider(),
    )?))
}

/// TLS 1.3 with the domain's own certificate.
pub(super) fn server_config(
    shown: Arc<ShownCertificate>,
    verifier: Arc<DomainVerifier>,
) -> anyhow::Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
