//! One client for both contracts: over TLS to a controller, over a unix socket to a local daemon.

#[cfg(feature = "enrol")]
pub mod enrolment;
mod error;
mod invitation;
mod pin;

pub use error::ClientError;
pub use invitation::{decode_invitation, encode_invitation, fingerprint};

use crate::problem::Problem;
use http::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::pem::PemObject;
use serde::{Serialize, de::DeserializeOwned};
use std::{path::Path, sync::Arc, time::Duration};

/// Longest time for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes: an answer is a page of things, not a file.
const LARGEST_ANSWER: usize = 8 << 20;

/// Whom to trust and as whom to come.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The authority whose certificates are believed, PEM. Nobody else's are.
    pub ca_pem: String,
    /// Own certificate chain and key, PEM, for calls that need one.
    pub own: Option<(String, String)>,
}

/// A client of one daemon.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    target: String,
    bearer: Option<HeaderValue>,
}

/// An answer with its headers.
#[derive(Debug)]
pub struct Answer<T> {
    /// HTTP status, a success.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: T,
}

impl Client {
    /// A client on a unix socket. `deadline` is for a whole call.
    pub fn unix(socket: &Path, deadline: Duration) -> Result<Self, ClientError> {
        let target = format!("unix:{}", socket.display());
        // The library prepares TLS for every client, from the system's authorities: that takes
        // milliseconds, and fails on a host that has none. A socket needs nobody's certificate.
        let nobody = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| ClientError::Setup {
            target: target.clone(),
            reason: e.to_string(),
        })?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(nobody)
            .unix_socket(socket)
            .no_proxy()
            .timeout(deadline)
            .build()
            .map_err(|e| ClientError::Setup {
                target: target.clone(),
                reason: chain(&e),
            })?;
        Ok(Self {
            http,
            base: "http://localhost".into(),
            target,
            bearer: None,
        })
    }

    /// A client over TLS 1.3 that believes only the given authority.
    pub fn tls(url: &str, identity: &TlsIdentity, deadline: Duration) -> Result<Self, ClientError> {
        let setup = |reason: String| ClientError::Setup {
            target: url.to_owned(),
            reason,
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in
            rustls::pki_types::CertificateDer::pem_slice_iter(identity.ca_pem.as_bytes())
        {
            let certificate =
                certificate.map_err(|e| setup(format!("reading the authority: {e}")))?;
            roots
                .add(certificate)
                .map_err(|e| setup(format!("reading the authority: {e}")))?;
        }
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| setup(e.to_string()))?
        .with_root_certificates(roots);
        let config = with_own_certificate(builder, identity.own.as_ref(), &setup)?;
        Self::with_config(url, config, deadline)
    }

    /// A client over TLS 1.3 for the first contact: it believes only a server that shows, in its
    /// chain, an authority with this SHA-256 (hexadecimal, of the DER).
    pub fn pinned(url: &str, ca_pin: &str, deadline: Duration) -> Result<Self, ClientError> {
        let setup = |reason: String| ClientError::Setup {
            target: url.to_owned(),
            reason,
        };
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| setup(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pin::PinnedAuthority::new(ca_pin.to_owned())))
        .with_no_client_auth();
        Self::with_config(url, config, deadline)
    }

    fn with_config(
        url: &str,
        config: rustls::ClientConfig,
        deadline: Duration,
    ) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .https_only(true)
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(deadline)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| ClientError::Setup {
                target: url.to_owned(),
                reason: chain(&e),
            })?;
        let base = url.trim_end_matches('/').to_owned();
        Ok(Self {
            http,
            target: base.clone(),
            base,
            bearer: None,
        })
    }

    /// The same client with a bearer token (RFC 6750).
    pub fn with_bearer(mut self, token: &str) -> Result<Self, ClientError> {
        let mut value =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ClientError::Setup {
                target: self.target.clone(),
                reason: "the token has bytes that a header cannot carry".into(),
            })?;
        value.set_sensitive(true);
        self.bearer = Some(value);
        Ok(self)
    }

    /// Address or socket, for messages.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// GET.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        Ok(self.call(Method::GET, path, &[], None::<&()>).await?.body)
    }
    /// GET of something that is text and no JSON, as metrics are.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let bytes = self.bytes(&Method::GET, path, &[], None::<&()>).await?.body;
        String::from_utf8(bytes)
            .map_err(|e| self.malformed(&Method::GET, path, format!("body: {e}")))
    }
    /// POST with a body.
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        Ok(self.call(Method::POST, path, &[], Some(body)).await?.body)
    }
    /// POST with a body and an idempotency key.
    pub async fn post_once<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        Ok(self
            .call(Method::POST, path, &[("idempotency-key", key)], Some(body))
            .await?
            .body)
    }
    /// PUT.
    pub async fn put<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        Ok(self.call(Method::PUT, path, &[], Some(body)).await?.body)
    }
    /// DELETE, with the version that must still hold where one is given.
    pub async fn delete(&self, path: &str, if_match: Option<u64>) -> Result<(), ClientError> {
        let etag = if_match.map(|version| format!("\"v{version}\""));
        let headers: Vec<_> = etag
            .iter()
            .map(|etag| ("if-match", etag.as_str()))
            .collect();
        self.call::<(), serde_json::Value>(Method::DELETE, path, &headers, None)
            .await
            .map(|_| ())
    }

    /// Any call: the answer with its headers, or why there is none. An empty body is JSON `null`.
    pub async fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&B>,
    ) -> Result<Answer<T>, ClientError> {
        let answer = self.bytes(&method, path, headers, body).await?;
        let json: &[u8] = match answer.body.is_empty() {
            true => b"null",
            false => &answer.body,
        };
        let body = serde_json::from_slice(json)
            .map_err(|e| self.malformed(&method, path, format!("body: {e}")))?;
        Ok(Answer {
            status: answer.status,
            headers: answer.headers,
            body,
        })
    }

    /// The same with the body as it came.
    async fn bytes<B: Serialize>(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&B>,
    ) -> Result<Answer<Vec<u8>>, ClientError> {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.base));
        for (name, value) in headers {
            let pair = (HeaderName::try_from(*name), HeaderValue::try_from(*value));
            let (Ok(name), Ok(value)) = pair else {
                return Err(self.malformed(
                    method,
                    path,
                    format!("header {name:?} cannot be sent"),
                ));
            };
            request = request.header(name, value);
        }
        if let Some(bearer) = &self.bearer {
            request = request.header(http::header::AUTHORIZATION, bearer.clone());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request
            .send()
            .await
            .map_err(|e| self.unreachable(method, path, &e))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut bytes = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|e| self.unreachable(method, path, &e))?
        {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LARGEST_ANSWER {
                return Err(self.malformed(method, path, "longer than 8 MiB".into()));
            }
        }
        if !status.is_success() {
            let problem = serde_json::from_slice::<Problem>(&bytes).map_err(|_| {
                let text: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
                self.malformed(
                    method,
                    path,
                    format!("status {status} without a problem document: {text}"),
                )
            })?;
            return Err(ClientError::Refused(Box::new(problem)));
        }
        Ok(Answer {
            status: status.as_u16(),
            headers,
            body: bytes,
        })
    }

    fn unreachable(&self, method: &Method, path: &str, error: &reqwest::Error) -> ClientError {
        ClientError::Unreachable {
            method: method.to_string(),
            target: self.target.clone(),
            path: path.to_owned(),
            reason: chain(error),
        }
    }
    fn malformed(&self, method: &Method, path: &str, reason: String) -> ClientError {
        ClientError::Malformed {
            method: method.to_string(),
            target: self.target.clone(),
            path: path.to_owned(),
            reason,
        }
    }
}

fn with_own_certificate(
    builder: rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>,
    own: Option<&(String, String)>,
    setup: &impl Fn(String) -> ClientError,
) -> Result<rustls::ClientConfig, ClientError> {
    let Some((certificates, key)) = own else {
        return Ok(builder.with_no_client_auth());
    };
    let certificates = rustls::pki_types::CertificateDer::pem_slice_iter(certificates.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| setup(format!("reading the own certificate: {e}")))?;
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|e| setup(format!("reading the own key: {e}")))?;
    builder
        .with_client_auth_cert(certificates, key)
        .map_err(|e| setup(format!("using the own certificate: {e}")))
}

/// An error with its causes on one line; reqwest prints only the outermost.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
