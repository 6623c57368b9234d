//! A real API server with its etcd, and a domain's controller in the test's own process: what the
//! program is held against. Everything is gone when it is dropped.

use dtn_api::{
    VDN_BASE,
    client::{Client, encode_invitation},
    domain::{Invitation, InviteKind, InviteRequest},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Longest time for anything that a test waits for: two cores are shared with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const CALL: Duration = Duration::from_secs(20);
/// The NIC that slices are between.
const MAC: &str = "02:00:00:00:00:01";

/// Says that a test was skipped, and why.
pub(crate) fn skipped(test: &str, why: &str) {
    println!("skipped {test}: {why}");
    if let Ok(file) = std::env::var("DTN_SKIPS") {
        let line = format!("dtn-cluster {test}: {why}\n");
        let mut file = File::options().append(true).open(file).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Asks until it is so; fails with what was seen last when that never comes.
pub(crate) fn until<T>(what: &str, mut seen: impl FnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match seen() {
            Ok(found) => return found,
            Err(last) => assert!(begin.elapsed() < PATIENCE, "never seen: {what}: {last}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A port that was free a moment ago; it has to stay the same over restarts.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

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

/// A process that ends with the test.
struct Running(Child);
impl Drop for Running {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The API server.
pub(crate) struct ApiServer {
    dir: PathBuf,
    ports: (u16, u16, u16),
    server: Option<Running>,
    _etcd: Running,
}
impl ApiServer {
    /// Starts one. `None` where Kubernetes was not built.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        for name in ["etcd", "kube-apiserver", "kubectl"] {
            program(name)?;
        }
        let dir = dir.join("apiserver");
        std::fs::create_dir_all(&dir).unwrap();
        let made = Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(dir.join("sa.key"))
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "openssl genrsa: {made}");
        std::fs::write(dir.join("tokens"), "secret,admin,1,\"system:masters\"\n").unwrap();
        let ports = (port(), port(), port());
        std::fs::write(dir.join("admin"), kubeconfig(ports.0, "secret")).unwrap();
        let (client, peer) = (url(ports.1), url(ports.2));
        let etcd = Command::new(program("etcd").unwrap())
            .arg("--data-dir")
            .arg(dir.join("etcd-data"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args([
                "--initial-cluster",
                &format!("default={peer}"),
                "--unsafe-no-fsync",
            ])
            .stdout(Stdio::null())
            .stderr(log(&dir, "etcd"))
            .spawn()
            .unwrap();
        let mut server = Self {
            dir,
            ports,
            server: None,
            _etcd: Running(etcd),
        };
        server.up();
        Some(server)
    }
    /// Starts the server, and waits until it is ready.
    pub(crate) fn up(&mut self) {
        let dir = &self.dir;
        let key = dir.join("sa.key").display().to_string();
        let child = Command::new(program("kube-apiserver").unwrap())
            .arg(format!("--etcd-servers={}", url(self.ports.1)))
            .arg(format!("--secure-port={}", self.ports.0))
            // what pods would reach it by, which are none; loopback is refused (RFC 5737 address)
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
            .args([
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.96.0.0/24",
            ])
            .stdout(Stdio::null())
            .stderr(log(dir, "server"))
            .spawn()
            .unwrap();
        self.server = Some(Running(child));
        until("an API server", || {
            let seen = self.try_kubectl(&["get", "--raw", "/readyz"], "");
            seen.ok_or_else(|| std::fs::read_to_string(self.dir.join("server")).unwrap_or_default())
        });
    }
    /// Ends the server; what it knows stays.
    pub(crate) fn down(&mut self) {
        self.server = None;
    }
    fn try_kubectl(&self, arguments: &[&str], input: &str) -> Option<String> {
        let mut child = Command::new(program("kubectl").unwrap())
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
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        self.try_kubectl(arguments, input).unwrap_or_else(|| {
            let log = std::fs::read_to_string(self.dir.join("kubectl")).unwrap_or_default();
            panic!("kubectl {arguments:?}: {log}")
        })
    }
    fn get(&self, what: &[&str]) -> Value {
        let arguments = [&["get"], what, &["-o", "json"]].concat();
        let got = self.try_kubectl(&arguments, "");
        got.map_or(Value::Null, |got| serde_json::from_str(&got).unwrap())
    }
    /// A kubeconfig of the controller, with the rights that it is installed with.
    pub(crate) fn controller(&self) -> PathBuf {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/kubernetes/base");
        for file in [
            "namespace.yaml",
            "deviceclasses.yaml",
            "controller-rbac.yaml",
        ] {
            let file = base.join(file).display().to_string();
            self.kubectl(&["apply", "-f", &file], "");
        }
        self.kubectl(
            &[
                "create",
                "serviceaccount",
                "dtn-cluster",
                "-n",
                "dtn-system",
            ],
            "",
        );
        let token = self.kubectl(&["create", "token", "dtn-cluster", "-n", "dtn-system"], "");
        let file = self.dir.join("controller");
        std::fs::write(&file, kubeconfig(self.ports.0, token.trim())).unwrap();
        file
    }

    /// A claim that the scheduler has allocated for a pod of its name.
    pub(crate) fn claim(&self, name: &str, parameters: &Value) {
        let mut all = json!({"apiVersion": "dtn.appliance/v1", "kind": "InterfaceRequest"});
        for (name, value) in parameters.as_object().unwrap() {
            all[name] = value.clone();
        }
        let opaque = json!({"driver": "dtn.appliance", "parameters": all});
        let claim = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"devices": {
                "requests": [{"name": "nic", "exactly": {"deviceClassName": "dtn-shared"}}],
                "config": [{"opaque": opaque}],
            }},
        });
        self.kubectl(&["create", "-f", "-"], &claim.to_string());
        let status = json!({"status": {
            "allocation": {"devices": {
                "results": [shared(name, json!({"request": "nic", "driver": "dtn.appliance",
                    "pool": "n1", "device": "data0"}))],
                "config": [{"source": "FromClaim", "opaque": opaque}],
            }},
            "reservedFor": [{"resource": "pods", "name": format!("pod-{name}"),
                "uid": format!("uid-of-{name}")}],
        }});
        let patch = [
            "patch",
            "resourceclaim",
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
        ];
        self.kubectl(&[&patch[..], &[&status.to_string()]].concat(), "");
    }
    /// What the node says of it, as the node says it.
    pub(crate) fn prepared(&self, name: &str) {
        let status = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": name, "namespace": "default"},
            "status": {"devices": [shared(name, json!({
                "driver": "dtn.appliance", "pool": "n1", "device": "data0",
                "conditions": [{"type": "Prepared", "status": "True", "reason": "Prepared",
                    "message": "", "lastTransitionTime": "2027-01-01T00:00:00Z"}],
                "networkData": {"interfaceName": "data0"},
            }))]},
        });
        let apply = [
            "apply",
            "--server-side",
            "--subresource=status",
            "--field-manager=dtnd",
            "-f",
            "-",
        ];
        self.kubectl(&apply, &status.to_string());
    }
    /// The whole status of a claim's only device.
    pub(crate) fn device(&self, name: &str) -> Value {
        self.get(&["resourceclaim", name])["status"]["devices"][0].clone()
    }
    /// Reason, message and agreed rate in Gbit.
    pub(crate) fn said(&self, name: &str) -> Option<(String, String, u64)> {
        let device = self.device(name);
        let conditions = device["conditions"].as_array()?;
        let negotiated = conditions.iter().find(|c| c["type"] == "Negotiated")?;
        let rate = device["data"]["agreement"]["rateBps"].as_u64().unwrap_or(0);
        let text = |field: &str| negotiated[field].as_str().unwrap().to_owned();
        assert_eq!(negotiated["status"] == "True", rate > 0, "{device}");
        Some((text("reason"), text("message"), rate / 1_000_000_000))
    }
    /// Waits until a claim is told this.
    pub(crate) fn waits_for(&self, name: &str, reason: &str, rate: u64) -> String {
        until(&format!("{name} is told {reason}, {rate}"), || {
            match self.said(name) {
                Some((said, message, gbit)) if said == reason && gbit == rate => Ok(message),
                other => Err(format!("{other:?}")),
            }
        })
    }
    /// The events about an object: reason and note, in the order of time.
    pub(crate) fn events(&self, kind: &str, name: &str) -> Vec<(String, String)> {
        let all = self.get(&[
            "events.events.k8s.io",
            "-n",
            "default",
            "--sort-by=.eventTime",
        ]);
        let items = all["items"].as_array().cloned().unwrap_or_default();
        let about = |event: &&Value| {
            event["regarding"]["kind"] == kind && event["regarding"]["name"] == name
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let items = items.iter().filter(about);
        items
            .map(|event| (text(&event["reason"]), text(&event["note"])))
            .collect()
    }
    /// Who holds the Lease.
    pub(crate) fn leader(&self) -> String {
        let lease = self.get(&["lease", "dtn-cluster", "-n", "dtn-system"]);
        lease["spec"]["holderIdentity"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// A device of a claim: a share, whose ID has to be a UUID, or the whole NIC, which has none.
fn shared(name: &str, mut device: Value) -> Value {
    if !name.starts_with("whole") {
        let hex: String = name.bytes().map(|b| format!("{b:02x}")).collect();
        device["shareID"] = json!(format!("00000000-0000-4000-8000-{hex:0>12.12}"));
    }
    device
}
fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}
fn log(dir: &Path, name: &str) -> File {
    let mut options = File::options();
    options
        .create(true)
        .append(true)
        .open(dir.join(name))
        .unwrap()
}
fn kubeconfig(port: u16, token: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": format!("https://127.0.0.1:{port}"),
            "insecure-skip-tls-verify": true}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    })
    .to_string()
}

/// The domain's controller.
pub(crate) struct Domain {
    dir: PathBuf,
    config: PathBuf,
    running: Option<(
        tokio::runtime::Runtime,
        CancellationToken,
        vdnd::serve::Running,
    )>,
    /// For the calls of the test.
    calls: tokio::runtime::Runtime,
    admin: Client,
}
impl Domain {
    pub(crate) fn start(dir: &Path) -> Self {
        let dir = dir.join("vdn");
        std::fs::create_dir_all(&dir).unwrap();
        let config = dir.join("vdnd.toml");
        let text = format!(
            "version = 1\n[domain]\nname = \"daejeon\"\n[listen]\naddress = \"127.0.0.1:{}\"\n\
             [addresses]\nipv4 = \"10.20.0.0/16\"\n",
            port()
        );
        std::fs::write(&config, text).unwrap();
        let admin = Client::unix(&dir.join("run/dtn/vdnd.sock"), CALL).unwrap();
        let calls = tokio::runtime::Runtime::new().unwrap();
        let mut domain = Self {
            dir,
            config,
            running: None,
            calls,
            admin,
        };
        domain.up();
        let nic = json!({"kind": "nic", "node": "n1", "nic": "data0", "capacity_bps": 100_000_000_000_u64,
            "mtu": 9000, "ips": [], "permitted": false});
        for mac in [MAC, "02:00:00:00:00:02"] {
            let mut nic = nic.clone();
            nic["node"] = json!(format!("n{}", &mac[16..]));
            let at = format!("{VDN_BASE}/hosts/{mac}-none");
            let _: Value = domain.calls.block_on(domain.admin.put(&at, &nic)).unwrap();
        }
        domain
    }
    pub(crate) fn up(&mut self) {
        let config = vdnd::config::load(&self.config).unwrap().config;
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let stop = CancellationToken::new();
        let started = vdnd::serve::start(config, &self.dir, stop.clone());
        let running = runtime.block_on(started).unwrap();
        self.running = Some((runtime, stop, running));
    }
    pub(crate) fn down(&mut self) {
        if let Some((runtime, stop, running)) = self.running.take() {
            stop.cancel();
            runtime.block_on(running.ended()).unwrap();
        }
    }
    /// A slice of so many Gbit between two NICs, for an hour.
    pub(crate) fn slice(&self, name: &str, gbit: u64) -> Value {
        let now = Timestamp::now();
        let spec = json!({
            "name": name, "commit": true,
            "qos": {"class": "guaranteed", "rate_bps": gbit * 1_000_000_000, "mode": "pair"},
            "members": [{"host": format!("{MAC}-none")}, {"host": "02:00:00:00:00:02-none"}],
            "schedule": {"start": now, "end": now + SignedDuration::from_hours(1)},
        });
        let at = format!("{VDN_BASE}/slices");
        self.calls
            .block_on(self.admin.post_once(&at, name, &spec))
            .unwrap()
    }
    pub(crate) fn act(&self, slice: &Value, action: &str, body: &Value) {
        let id = slice["id"].as_str().unwrap();
        let at = format!("{VDN_BASE}/slices/{id}/actions/{action}");
        let _: Value = self.calls.block_on(self.admin.post(&at, body)).unwrap();
    }
    /// The word that `dtnctl cluster invite` prints.
    pub(crate) fn invitation(&self) -> String {
        let request = InviteRequest {
            kind: InviteKind::Cluster,
            name: "k8s".parse().unwrap(),
            valid_seconds: 600,
        };
        let at = format!("{VDN_BASE}/invitations");
        let invitation: Invitation = self.calls.block_on(self.admin.post(&at, &request)).unwrap();
        encode_invitation(&invitation)
    }
}
impl Drop for Domain {
    fn drop(&mut self) {
        self.down();
    }
}

/// A copy of the program.
pub(crate) struct Copy {
    running: Running,
    /// Its name, which its identity for the Lease begins with.
    pub(crate) name: &'static str,
    pub(crate) health: u16,
}
impl Copy {
    pub(crate) fn start(dir: &Path, kubeconfig: &Path, name: &'static str) -> Self {
        let health = port();
        let child = Command::new(env!("CARGO_BIN_EXE_dtn-cluster"))
            .arg("--root")
            .arg(dir)
            .args([
                "run",
                "--name",
                name,
                "--health",
                &format!("127.0.0.1:{health}"),
            ])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .stderr(log(dir, name))
            .spawn()
            .unwrap();
        Self {
            running: Running(child),
            name,
            health,
        }
    }
    /// Ends without a word.
    pub(crate) fn kill(self) {}
    /// Is asked to end, and does.
    pub(crate) fn stop(mut self) {
        let pid = self.running.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let status = self.running.0.wait().unwrap();
        assert!(status.success(), "{} after SIGTERM: {status}", self.name);
    }
    /// What it answers on a path of its health port.
    pub(crate) fn asked(&self, path: &str) -> Option<(u16, String)> {
        use std::io::Read;
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.health)).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let status = text.split(' ').nth(1)?.parse().ok()?;
        Some((status, text))
    }
}

/// Turns an invitation into an identity, as an admin does.
pub(crate) fn join(dir: &Path, word: &str) -> std::process::Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dtn-cluster"))
        .arg("--root")
        .arg(dir)
        .args(["join", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(word.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}
