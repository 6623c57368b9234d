//! A real API server with its etcd, in the namespace of a test's host; and a kubelet's voice: what it
//! would say on the driver's sockets. All of it is gone when it is dropped.

use crate::site::{LONG, Site};
use dtnd::cluster::contracts::{
    dra::{Claim, dra_plugin_client::DraPluginClient},
    registration::registration_client::RegistrationClient,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};
use tonic::transport::{Channel, Endpoint};

/// The node that the host is.
pub(crate) const NODE: &str = "n1";

/// A program of Kubernetes, where it was built: by tests/kubernetes/make.sh, or as `DTN_KUBERNETES`
/// says.
fn program(name: &str) -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/kubernetes");
    let built = std::env::var_os("DTN_KUBERNETES").map_or(built, PathBuf::from);
    let parts = std::fs::read_dir(&built).into_iter().flatten().flatten();
    parts
        .map(|part| part.path().join(name))
        .chain([built.join(name)])
        .find(|file| file.is_file())
}

/// The API server.
pub(crate) struct ApiServer {
    dir: PathBuf,
    etcd: Child,
    server: Option<Child>,
    without: String,
}

impl ApiServer {
    /// Starts one without these features. `None` where Kubernetes was not built.
    pub(crate) fn start(site: &Site, without: &[&str]) -> Option<Self> {
        for name in ["etcd", "kube-apiserver", "kubectl"] {
            program(name)?;
        }
        let dir = site.dir.path().join("apiserver");
        std::fs::create_dir_all(&dir).unwrap();
        let key = dir.join("sa.key");
        let made = Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(&key)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "openssl genrsa: {made}");
        std::fs::write(dir.join("tokens"), "secret,admin,1,\"system:masters\"\n").unwrap();
        std::fs::write(dir.join("admin"), kubeconfig("secret")).unwrap();
        let etcd = site
            .inside(program("etcd").unwrap().to_str().unwrap())
            .arg("--data-dir")
            .arg(dir.join("etcd.d"))
            .args(["--listen-client-urls", "http://127.0.0.1:2379"])
            .args(["--advertise-client-urls", "http://127.0.0.1:2379"])
            .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
            .arg("--unsafe-no-fsync")
            .stdout(Stdio::null())
            .stderr(log(&dir, "etcd"))
            .spawn()
            .unwrap();
        let mut server = Self {
            dir,
            etcd,
            server: None,
            without: without
                .iter()
                .map(|name| format!("{name}=false,"))
                .collect(),
        };
        server.up(site);
        Some(server)
    }

    /// Starts the server, and waits until it is ready.
    pub(crate) fn up(&mut self, site: &Site) {
        let dir = &self.dir;
        let key = dir.join("sa.key").display().to_string();
        let child = site
            .inside(program("kube-apiserver").unwrap().to_str().unwrap())
            .args(["--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443"])
            // no pod reaches it by a Service here; the address is one of documentation's
            .args(["--bind-address=127.0.0.1", "--advertise-address=192.0.2.1"])
            .arg("--endpoint-reconciler-type=none")
            .arg(format!("--cert-dir={}", dir.join("certificates").display()))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--service-account-key-file={key}"))
            .arg(format!("--service-account-signing-key-file={key}"))
            .arg(format!(
                "--token-auth-file={}",
                dir.join("tokens").display()
            ))
            .arg(format!(
                "--feature-gates={}",
                self.without.trim_end_matches(',')
            ))
            .args([
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.96.0.0/24",
            ])
            .stdout(Stdio::null())
            .stderr(log(dir, "server"))
            .spawn()
            .unwrap();
        self.server = Some(child);
        let began = Instant::now();
        while self
            .try_kubectl(site, &["get", "--raw", "/readyz"], "")
            .is_none()
        {
            let log = || std::fs::read_to_string(self.dir.join("server")).unwrap_or_default();
            assert!(began.elapsed() < LONG, "no API server:\n{}", log());
            let ended = self.server.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the API server ended:\n{}", log());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
    /// Ends the server; what it knows stays.
    pub(crate) fn down(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    fn try_kubectl(&self, site: &Site, arguments: &[&str], input: &str) -> Option<String> {
        let mut child = site
            .inside(program("kubectl").unwrap().to_str().unwrap())
            .arg("--kubeconfig")
            .arg(self.dir.join("admin"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log(&self.dir, "kubectl"))
            .spawn()
            .unwrap();
        // one that needs no input does not read it
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then_some(text)
    }
    /// Runs kubectl as the administrator; what it printed.
    pub(crate) fn kubectl(&self, site: &Site, arguments: &[&str], input: &str) -> String {
        self.try_kubectl(site, arguments, input).unwrap_or_else(|| {
            let log = std::fs::read_to_string(self.dir.join("kubectl")).unwrap_or_default();
            panic!("kubectl {arguments:?}: {log}")
        })
    }
    /// An object; `None` when there is none.
    pub(crate) fn get(&self, site: &Site, kind: &str, name: &str) -> Option<Value> {
        let got = self.try_kubectl(site, &["get", kind, name, "-o", "json"], "")?;
        Some(serde_json::from_str(&got).unwrap())
    }
    /// Creates an object, and returns its UID.
    pub(crate) fn create(&self, site: &Site, object: &Value) -> String {
        let arguments = ["create", "-f", "-", "-o", "jsonpath={.metadata.uid}"];
        self.kubectl(site, &arguments, &object.to_string())
    }

    /// The node, the rights that the node agent is installed with, and a kubeconfig of such an agent.
    pub(crate) fn agent(&self, site: &Site) -> PathBuf {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/kubernetes/base");
        for file in [
            "namespace.yaml",
            "deviceclasses.yaml",
            "node-rbac.yaml",
            "node-policy.yaml",
        ] {
            let file = base.join(file).display().to_string();
            self.kubectl(site, &["apply", "-f", &file], "");
        }
        let account = ["create", "serviceaccount", "dtn-node", "-n", "dtn-system"];
        // the manifests may bring it
        let _ = self.try_kubectl(site, &account, "");
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
        self.create(site, &node);
        let mut token = vec!["create", "token", "dtn-node", "-n", "dtn-system"];
        token.extend(["--bound-object-kind", "Node", "--bound-object-name", NODE]);
        let token = self.kubectl(site, &token, "");
        let file = self.dir.join("agent");
        std::fs::write(&file, kubeconfig(token.trim())).unwrap();
        file
    }

    /// A claim that the scheduler has allocated for a pod, with these parameters.
    pub(crate) fn claim(&self, site: &Site, name: &str, device: &str, parameters: &Value) -> Claim {
        let uid = self.create(
            site,
            &json!({
                "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"devices": {
                    "requests": [{"name": "nic", "exactly": {"deviceClassName": "dtn-dedicated"}}],
                    "config": [{"opaque": {"driver": "dtn.appliance", "parameters": parameters}}],
                }},
            }),
        );
        let status = json!({"status": {
            "allocation": {"devices": {
                "results": [{"request": "nic", "driver": "dtn.appliance", "pool": NODE,
                    "device": device}],
                "config": [{"source": "FromClaim",
                    "opaque": {"driver": "dtn.appliance", "parameters": parameters}}],
            }, "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": [NODE]}]}]}},
            "reservedFor": [{"resource": "pods", "name": format!("pod-{name}"),
                "uid": pod_of(name)}],
        }});
        self.patch_claim(site, name, &status);
        Claim {
            namespace: "default".into(),
            uid,
            name: name.into(),
        }
    }
    /// Changes the status of a claim.
    pub(crate) fn patch_claim(&self, site: &Site, name: &str, change: &Value) {
        let change = change.to_string();
        let arguments = [
            "patch",
            "resourceclaim",
            name,
            "--subresource=status",
            "--type=merge",
        ];
        self.kubectl(site, &[&arguments[..], &["-p", &change]].concat(), "");
    }
    /// The conditions of a claim's only device: type and whether it holds.
    pub(crate) fn conditions(&self, site: &Site, name: &str) -> Vec<(String, bool)> {
        let claim = self.get(site, "resourceclaim", name).unwrap_or_default();
        let conditions = claim["status"]["devices"][0]["conditions"].clone();
        let conditions: Vec<Value> = serde_json::from_value(conditions).unwrap_or_default();
        let told = |c: &Value| (c["type"].as_str().unwrap().into(), c["status"] == "True");
        conditions.iter().map(told).collect()
    }
}
impl Drop for ApiServer {
    fn drop(&mut self) {
        self.down();
        self.etcd.kill().unwrap();
        self.etcd.wait().unwrap();
    }
}

/// UID of the pod that a claim is for.
pub(crate) fn pod_of(claim: &str) -> String {
    format!("uid-of-pod-{claim}")
}

fn log(dir: &Path, name: &str) -> std::fs::File {
    let mut options = std::fs::File::options();
    options
        .create(true)
        .append(true)
        .open(dir.join(name))
        .unwrap()
}

fn kubeconfig(token: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443",
            "insecure-skip-tls-verify": true}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    })
    .to_string()
}

/// A connection as the kubelet makes it.
pub(crate) async fn dial(socket: &Path) -> Option<Channel> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(socket).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connector).await.ok()
}
/// The driver's service.
pub(crate) async fn driver(kubelet: &Path) -> Option<DraPluginClient<Channel>> {
    let socket = kubelet.join("plugins/dtn.appliance/dra.sock");
    dial(&socket).await.map(DraPluginClient::new)
}
/// Where it introduces itself, found as the kubelet does: by looking into the folder.
pub(crate) async fn registration(kubelet: &Path) -> Option<RegistrationClient<Channel>> {
    let folder = std::fs::read_dir(kubelet.join("plugins_registry")).ok()?;
    let mut files = folder.flatten().map(|file| file.path());
    let socket = files.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with('.')
    })?;
    dial(&socket).await.map(RegistrationClient::new)
}
