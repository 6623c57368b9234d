//! ONOS's REST: one call after another, each with a deadline, its answers as they really are.

use super::OnosConfig;
use anyhow::{Context, bail};
use reqwest::{Method, StatusCode, Url, header::LOCATION};
use serde_json::Value;
use std::{fmt, fs, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};

/// Longest time for a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest time for a call: a batch of some thousand rules takes ONOS seconds.
const CALL: Duration = Duration::from_secs(20);
/// Largest answer that is read, bytes: 10,000 rules are about 10 MB.
const LARGEST: usize = 64 << 20;
/// Longest part of ONOS's own words that is passed on.
const WORDS: usize = 300;

/// Why a call did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The status, where there was an answer.
    pub(super) status: Option<u16>,
    why: String,
}
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
impl Failure {
    /// Whether ONOS itself is not there or not ready, so that no other call would do better.
    pub(super) fn is_absence(&self) -> bool {
        self.status
            .is_none_or(|status| matches!(status, 401 | 403 | 503))
    }
    fn of(method: &Method, path: &str, status: StatusCode, body: &[u8]) -> Self {
        let said = serde_json::from_slice::<Value>(body).ok();
        let message = said.as_ref().and_then(|v| v.get("message")?.as_str());
        // a filter or the servlet container answers in HTML, which says nothing more
        let words: String = message.unwrap_or_default().chars().take(WORDS).collect();
        let meaning = match status.as_u16() {
            207 => " (a part of it was not taken)",
            401 => " (the user or the password is wrong)",
            403 => " (the user is no administrator of ONOS)",
            409 if path.starts_with("/hosts") => {
                " (another provider of hosts: is org.onosproject.netcfghostprovider active?)"
            }
            503 => " (ONOS is starting)",
            _ => "",
        };
        let words = match words.as_str() {
            "" => String::new(),
            words => format!(": {words}"),
        };
        Self {
            status: Some(status.as_u16()),
            why: format!(
                "{method} {path} was answered {}{meaning}{words}",
                status.as_u16()
            ),
        }
    }
}

/// A client of one ONOS.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    user: String,
    password: String,
}

impl Client {
    /// As the configuration says.
    pub(super) fn new(config: &OnosConfig) -> anyhow::Result<Self> {
        let (user, password) = credentials(&config.credentials_file)?;
        let url =
            Url::parse(&config.url).with_context(|| format!("{} (fabric.url)", config.url))?;
        if !url.username().is_empty() || url.password().is_some() {
            bail!(
                "fabric.url has a user or a password in it: put them into fabric.credentials-file"
            );
        }
        let loopback = match url.host_str() {
            Some("localhost") => true,
            Some(host) => host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback()),
            None => bail!("{} names no host (fabric.url)", config.url),
        };
        match url.scheme() {
            "https" => {}
            "http" if loopback || config.plain => {}
            "http" => bail!(
                "{} would show ONOS's password to the network: use https, or say fabric.plain = \
                 true for a management network of its own",
                config.url
            ),
            other => bail!("{other} is no scheme for fabric.url: http or https"),
        }
        let mut roots = rustls::RootCertStore::empty();
        if let Some(file) = &config.ca_file {
            use rustls_pki_types::{CertificateDer, pem::PemObject};
            let reading = || format!("reading {} (fabric.ca-file)", file.display());
            for certificate in CertificateDer::pem_file_iter(file).with_context(reading)? {
                roots
                    .add(certificate.with_context(reading)?)
                    .with_context(reading)?;
            }
        } else if url.scheme() == "https" {
            bail!("fabric.url is https: name the authority of its certificate in fabric.ca-file");
        }
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        // Java 11's Jetty of ONOS 2.5 may know no newer one
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(CALL)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let base = format!("{}/onos/v1", config.url.trim_end_matches('/'));
        Ok(Self {
            http,
            base,
            user,
            password,
        })
    }
    /// Reads.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None)
            .await
            .map(|(_, body)| body)
    }
    /// Makes; the path of what was made, where ONOS says it, and what else it said.
    pub(super) async fn post(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<(Option<String>, Value), Failure> {
        self.call(Method::POST, path, Some(body)).await
    }
    /// Deletes; what is gone already is deleted.
    pub(super) async fn delete(&self, path: &str, body: Option<&Value>) -> Result<(), Failure> {
        match self.call(Method::DELETE, path, body).await {
            Err(failure) if failure.status == Some(404) => Ok(()),
            done => done.map(|_| ()),
        }
    }
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(Option<String>, Value), Failure> {
        let lost = |e: reqwest::Error| {
            let mut why = format!("{method} {path}: {}", e.without_url());
            if why.len() > WORDS {
                why = why.chars().take(WORDS).collect();
            }
            Failure {
                status: None,
                why: format!("ONOS does not answer: {why}"),
            }
        };
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.base))
            .basic_auth(&self.user, Some(&self.password));
        // a Content-Type without a body is refused by ONOS with 415
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut answer = request.send().await.map_err(lost)?;
        let status = answer.status();
        let location = answer.headers().get(LOCATION);
        let location = location.and_then(|l| l.to_str().ok()).map(str::to_owned);
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(lost)? {
            if bytes.len() + chunk.len() > LARGEST {
                return Err(Failure {
                    status: Some(status.as_u16()),
                    why: format!("{method} {path}: the answer has more than {LARGEST} bytes"),
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        if !status.is_success() || status == StatusCode::MULTI_STATUS {
            return Err(Failure::of(&method, path, status, &bytes));
        }
        if bytes.is_empty() {
            return Ok((location, Value::Null));
        }
        let body = serde_json::from_slice(&bytes);
        match body {
            Ok(body) => Ok((location, body)),
            // what was made is made, whatever is said about it
            Err(_) if method != Method::GET => Ok((location, Value::Null)),
            Err(e) => Err(Failure {
                status: Some(status.as_u16()),
                why: format!("{method} {path}: the answer is no JSON: {e}"),
            }),
        }
    }
}

/// `USER:PASSWORD` from a file that nobody else can read.
fn credentials(file: &Path) -> anyhow::Result<(String, String)> {
    let doing = || {
        format!(
            "reading ONOS's credentials from {} (fabric.credentials-file)",
            file.display()
        )
    };
    let found = &dtn_service::credentials::find(file).with_context(doing)?;
    let mode = fs::metadata(found).with_context(doing)?.mode() & 0o7777;
    // one that the service manager handed over is in a folder that nobody else can enter; its mode
    // shows an access list
    if found == file && mode & 0o077 != 0 {
        return Err(anyhow::anyhow!(
            "others can read it (mode {mode:04o}): chmod 0600"
        ))
        .with_context(doing);
    }
    let text = fs::read_to_string(found).with_context(doing)?;
    match text.trim_end_matches(['\r', '\n']).split_once(':') {
        Some((user, password))
            if !user.is_empty() && !password.is_empty() && !password.contains('\n') =>
        {
            Ok((user.to_owned(), password.to_owned()))
        }
        _ => Err(anyhow::anyhow!("it is not one line USER:PASSWORD")).with_context(doing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn config(url: &str, text: &str, mode: u32) -> (tempfile::TempDir, OnosConfig) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("onos");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let config = OnosConfig {
            url: url.into(),
            credentials_file: file,
            app_id: "org.example.vdn".into(),
            owner: "here".into(),
            plain: false,
            ca_file: None,
            meters_file: dir.path().join("meters"),
            settling: OnosConfig::SETTLING,
        };
        (dir, config)
    }
    fn refused(url: &str, text: &str, mode: u32) -> Option<String> {
        let (_dir, config) = config(url, text, mode);
        Client::new(&config).err().map(|e| format!("{e:#}"))
    }

    #[test]
    fn credentials_are_kept_from_others_and_from_the_network() {
        let here = "http://127.0.0.1:8181";
        assert_eq!(refused(here, "onos:secret\n", 0o600), None);
        assert_eq!(refused("http://[::1]:8181", "onos:secret", 0o400), None);
        for (url, text, mode, why) in [
            (here, "onos:secret", 0o640, "chmod 0600"),
            (here, "onos", 0o600, "USER:PASSWORD"),
            ("http://192.0.2.1:8181", "a:b", 0o600, "would show"),
            ("https://192.0.2.1:8443", "a:b", 0o600, "fabric.ca-file"),
            (
                "http://a:b@127.0.0.1",
                "a:b",
                0o600,
                "fabric.credentials-file",
            ),
            ("ftp://127.0.0.1", "a:b", 0o600, "no scheme"),
        ] {
            let said = refused(url, text, mode).unwrap();
            assert!(said.contains(why) && !said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn html_is_not_passed_on_and_words_are() {
        let of = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            Failure::of(&Method::POST, "/hosts", status, body.as_bytes()).to_string()
        };
        assert_eq!(of(415, "<html>x</html>"), "POST /hosts was answered 415");
        assert!(
            of(409, r#"{"code":409,"message":"m"}"#).contains("netcfghostprovider active?): m")
        );
        assert!(of(401, "<html>").contains("password is wrong"));
    }
}
