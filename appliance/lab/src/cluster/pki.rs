//! Who is who in a site's cluster: an authority of its own, a certificate for each who speaks, and
//! what each finds the API server by. All keys are made for this run, and are root's alone.

use crate::{daemons::HOST, site::management_v4};
use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;
use std::{
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// TCP port of the API server on the site's management address.
pub const PORT: u16 = 6443;
/// Addresses of services, which nobody balances here; the first is the API server's own.
pub const SERVICES: &str = "10.96.0.0/24";
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// The files of a cluster.
#[derive(Debug, Clone)]
pub struct Files {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The API server's certificate and key.
    pub server: (PathBuf, PathBuf),
    /// What the API server shows to kubelets.
    pub kubelet_client: (PathBuf, PathBuf),
    /// What the tokens of service accounts are checked with, and what signs them.
    pub accounts: (PathBuf, PathBuf),
    /// kubeconfig of the administrator.
    pub admin: PathBuf,
    /// Of the controller manager.
    pub controllers: PathBuf,
    /// Of the scheduler.
    pub scheduler: PathBuf,
    /// Of the node.
    pub node: PathBuf,
}

/// `https://` of a site's API server.
pub fn server(site: usize) -> String {
    format!("https://{}:{PORT}", management_v4(site))
}

/// Makes everything anew.
pub fn make(folder: &Path, site: usize) -> Result<Files> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("making {}", folder.display()))?;
    let authority = Authority::new(folder)?;
    let ca = folder.join("ca.crt");
    write(&ca, &authority.pem)?;
    let key = KeyPair::generate().context("making the key of service accounts")?;
    let both = (key.public_key_pem(), key.serialize_pem());
    let accounts = pair(folder, "accounts", both)?;

    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut server: Vec<SanType> = Vec::new();
    for name in names {
        let name = name.try_into().context("naming the API server")?;
        server.push(SanType::DnsName(name));
    }
    for ip in [management_v4(site), API_SERVICE, Ipv4Addr::LOCALHOST] {
        server.push(SanType::IpAddress(IpAddr::V4(ip)));
    }
    let of = |name: &str, group: Option<&str>, file: &str| -> Result<PathBuf> {
        let (certificate, key) = authority.client(name, group)?;
        let path = folder.join(file);
        let text = kubeconfig(site, &authority.pem, &Proof::Certificate(certificate, key));
        write(&path, &text)?;
        Ok(path)
    };
    let node = format!("system:node:{HOST}");
    Ok(Files {
        ca,
        server: pair(folder, "apiserver", authority.server(server)?)?,
        kubelet_client: pair(
            folder,
            KUBELET_CLIENT,
            authority.client(KUBELET_CLIENT, ALL)?,
        )?,
        accounts,
        admin: of("kubernetes-admin", ALL, super::ADMIN)?,
        controllers: of(
            "system:kube-controller-manager",
            None,
            "controllers.kubeconfig",
        )?,
        scheduler: of("system:kube-scheduler", None, "scheduler.kubeconfig")?,
        node: of(&node, Some("system:nodes"), "node.kubeconfig")?,
    })
}

/// As whom the API server speaks to kubelets.
const KUBELET_CLIENT: &str = "apiserver-kubelet-client";
/// The group of those who may do everything.
const ALL: Option<&str> = Some("system:masters");

/// How somebody proves who they are.
pub enum Proof {
    /// By a certificate and its key, PEM.
    Certificate(String, String),
    /// By a service account's token.
    Token(String),
}

/// A kubeconfig that needs no other file. JSON, which YAML contains.
pub fn kubeconfig(site: usize, ca: &str, proof: &Proof) -> String {
    let user = match proof {
        Proof::Certificate(certificate, key) => json!({
            "client-certificate-data": STANDARD.encode(certificate),
            "client-key-data": STANDARD.encode(key),
        }),
        Proof::Token(token) => json!({ "token": token }),
    };
    let cluster = json!({
        "server": server(site),
        "certificate-authority-data": STANDARD.encode(ca),
    });
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": "lab", "user": user}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    })
    .to_string()
}

/// Writes what only root may read.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let writing = || format!("writing {}", path.display());
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(writing)
}

/// The cluster's authority. Its key is in no file: it signs nothing after this.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(folder: &Path) -> Result<Self> {
        let making = || format!("making the authority of {}", folder.display());
        let key = KeyPair::generate().with_context(making)?;
        let mut params = named("lab cluster", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).with_context(making)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }
    fn client(&self, name: &str, group: Option<&str>) -> Result<(String, String)> {
        let mut params = named(name, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(name, params)
    }
    fn server(&self, names: Vec<SanType>) -> Result<(String, String)> {
        let mut params = named("kube-apiserver", None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = names;
        self.sign("kube-apiserver", params)
    }
    fn sign(&self, name: &str, mut params: CertificateParams) -> Result<(String, String)> {
        let making = || format!("making the certificate of {name}");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().with_context(making)?;
        let certificate = params.signed_by(&key, &self.issuer).with_context(making)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// Writes what others may know, and its key.
fn pair(
    folder: &Path,
    name: &str,
    (certificate, key): (String, String),
) -> Result<(PathBuf, PathBuf)> {
    let paths = (
        folder.join(format!("{name}.crt")),
        folder.join(format!("{name}.key")),
    );
    write(&paths.0, &certificate)?;
    write(&paths.1, &key)?;
    Ok(paths)
}

fn named(name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    if let Some(group) = group {
        subject.push(DnType::OrganizationName, group);
    }
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params
}
