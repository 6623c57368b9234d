//! A real API server with its etcd, and nothing that acts on what it holds: what a scheduler, a kubelet
//! or the appliance would write, the test writes. Both end when it is dropped.

use serde_json::{Value, json};
use std::{
    fs::File,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long something that must happen may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// Where Kubernetes was built: by tests/kubernetes/make.sh, or as `DTN_KUBERNETES` says.
fn program(name: &str) -> Option<PathBuf> {
    let told = std::env::var_os("DTN_KUBERNETES").map(PathBuf::from);
    let mut folders: Vec<PathBuf> = told.into_iter().collect();
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/kubernetes");
    for part in std::fs::read_dir(built).into_iter().flatten().flatten() {
        folders.push(part.path());
    }
    let mut files = folders.into_iter().map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}

/// A port that was free a moment ago.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The server.
pub(crate) struct ApiServer {
    dir: tempfile::TempDir,
    port: u16,
    children: Vec<Child>,
}

impl ApiServer {
    /// Starts one. `None` where Kubernetes was not built.
    pub(crate) fn start() -> Option<Self> {
        for name in ["etcd", "kube-apiserver", "kubectl"] {
            program(name)?;
        }
        let dir = tempfile::Builder::new()
            .prefix("dtnctl-apiserver-")
            .tempdir()
            .unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let key = path("key");
        let made = Command::new("openssl")
            .args(["genrsa", "-out", &key])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "openssl genrsa: {made}");
        let tokens = "admin,admin,1,\"system:masters\"\noperator,operator,2\nnobody,nobody,3\n";
        std::fs::write(path("tokens"), tokens).unwrap();
        let (etcd, peers, port) = (port(), port(), port());
        let etcd = format!("http://127.0.0.1:{etcd}");
        let mut children = Vec::new();
        let mut spawn = |name: &str, arguments: &[String]| {
            let child = Command::new(program(name).unwrap())
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(File::create(path(name)).unwrap())
                .spawn()
                .unwrap();
            children.push(child);
        };
        spawn(
            "etcd",
            &[
                format!("--data-dir={}", path("data")),
                format!("--listen-client-urls={etcd}"),
                format!("--advertise-client-urls={etcd}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peers}"),
                "--unsafe-no-fsync".into(),
            ],
        );
        spawn(
            "kube-apiserver",
            &[
                format!("--etcd-servers={etcd}"),
                format!("--secure-port={port}"),
                "--bind-address=127.0.0.1".into(),
                "--advertise-address=127.0.0.1".into(),
                // or it refuses a loopback address
                "--endpoint-reconciler-type=none".into(),
                format!("--cert-dir={}", path("certificates")),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                format!("--service-account-key-file={key}"),
                format!("--service-account-signing-key-file={key}"),
                format!("--token-auth-file={}", path("tokens")),
                "--authorization-mode=RBAC".into(),
                "--service-cluster-ip-range=10.96.0.0/24".into(),
                // nobody makes the account that every pod gets
                "--disable-admission-plugins=ServiceAccount".into(),
            ],
        );
        let mut server = Self {
            dir,
            port,
            children,
        };
        for user in ["admin", "operator", "nobody"] {
            std::fs::write(server.kubeconfig(user), server.access(user, port)).unwrap();
        }
        std::fs::write(
            server.kubeconfig("dead"),
            server.access("admin", self::port()),
        )
        .unwrap();
        let began = Instant::now();
        while server
            .try_kubectl(&["get", "--raw", "/readyz"], "")
            .is_err()
        {
            let log = std::fs::read_to_string(server.dir.path().join("kube-apiserver"));
            let ended = server
                .children
                .iter_mut()
                .any(|c| c.try_wait().unwrap().is_some());
            assert!(
                !ended && began.elapsed() < LONG,
                "no API server:\n{}",
                log.unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(server)
    }

    /// The kubeconfig of a user: `admin`, `operator`, `nobody`; `dead` leads nowhere.
    pub(crate) fn kubeconfig(&self, user: &str) -> String {
        self.dir
            .path()
            .join(format!("{user}.kubeconfig"))
            .display()
            .to_string()
    }
    /// Another file of the test.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn access(&self, token: &str, port: u16) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "c", "cluster": {"insecure-skip-tls-verify": true,
                "server": format!("https://127.0.0.1:{port}")}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u",
                "namespace": "science"}}],
        })
        .to_string()
    }

    fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new(program("kubectl").unwrap())
            .arg("--kubeconfig")
            .arg(self.kubeconfig("admin"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // one that needs no input does not read it
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        match output.status.success() {
            true => Ok(text(output.stdout)),
            false => Err(text(output.stderr)),
        }
    }
    /// Runs kubectl as the administrator; what it printed.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        self.try_kubectl(arguments, input)
            .unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }
    /// An object; `None` when there is none.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let got = self
            .try_kubectl(&["get", kind, name, "-o", "json"], "")
            .ok()?;
        Some(serde_json::from_str(&got).unwrap())
    }
    /// An object that comes.
    pub(crate) fn wait_for(&self, kind: &str, name: &str) -> Value {
        let began = Instant::now();
        loop {
            if let Some(object) = self.get(kind, name) {
                return object;
            }
            assert!(began.elapsed() < LONG, "no {kind} {name}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    /// Creates an object.
    pub(crate) fn create(&self, object: &Value) {
        self.kubectl(&["create", "-f", "-"], &object.to_string());
    }
    /// Changes the status of an object.
    pub(crate) fn status(&self, kind: &str, name: &str, status: &Value) {
        let change = json!({ "status": status }).to_string();
        let arguments = ["patch", kind, name, "--subresource=status", "--type=merge"];
        self.kubectl(&[&arguments[..], &["-p", &change]].concat(), "");
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for mut child in self.children.drain(..).rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
