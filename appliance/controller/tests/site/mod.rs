//! A domain in a process of its own, with its state in a folder of its own. Killed when dropped.
#![allow(dead_code, reason = "each test file uses a part of it")]

use dtn_api::{
    Problem, VDN_BASE,
    client::{Client, ClientError},
    domain::{Domain, Invitation, InviteKind, InviteRequest},
    host::{Host, HostKind, HostSpec},
    slice::Schedule,
    stitch::{Stitch, StitchSpec},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

pub(crate) const NEAR: &str = "02:00:00:00:00:01";
pub(crate) const FAR: &str = "02:00:00:00:00:02";
const CALL: Duration = Duration::from_secs(20);
/// Longest time for anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Site {
    folder: tempfile::TempDir,
    config: PathBuf,
    child: Option<Child>,
    said: Option<mpsc::Receiver<String>>,
    pub(crate) url: String,
    pub(crate) admin: Client,
}

pub(crate) fn path(of: &str) -> String {
    format!("{VDN_BASE}{of}")
}
pub(crate) fn window() -> Schedule {
    let now = Timestamp::now();
    Schedule {
        start: now,
        end: now + SignedDuration::from_hours(1),
    }
}
pub(crate) fn wish(name: &str, rate_bps: u64, hold_seconds: u32) -> StitchSpec {
    serde_json::from_value(json!({
        "name": name,
        "qos": {"class": "guaranteed", "rate_bps": rate_bps},
        "schedule": window(),
        "members": [{"host": format!("{NEAR}-none")}],
        "remote": {"domain": "busan"},
        "hold_seconds": hold_seconds,
    }))
    .unwrap()
}
pub(crate) async fn ask(
    admin: &Client,
    spec: &StitchSpec,
    key: &str,
) -> Result<Stitch, ClientError> {
    admin.post_once(&path("/stitches"), key, spec).await
}
pub(crate) async fn act(
    admin: &Client,
    id: uuid::Uuid,
    action: &str,
) -> Result<Stitch, ClientError> {
    let at = path(&format!("/stitches/{id}/actions/{action}"));
    admin.post(&at, &json!({})).await
}
pub(crate) fn refusal<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Problem {
    answer.unwrap_err().problem().unwrap().clone()
}
/// Waits for something that has to come; fails when it does not.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < PATIENCE, "never seen: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Site {
    /// `stop_at` is a step at which it waits to be killed.
    pub(crate) async fn new(test: &str, name: &str, peer: &str, stop_at: Option<&str>) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&format!("vdnd-{test}-"))
            .tempdir()
            .unwrap();
        let config = folder.path().join("vdnd.toml");
        let net = if name == "daejeon" { 20 } else { 30 };
        // a port that was free a moment ago; it has to stay the same over restarts
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let text = format!(
            "version = 1\n[domain]\nname = \"{name}\"\n[listen]\naddress = \"127.0.0.1:{port}\"\n\
             [[border]]\nname = \"wan\"\npeer-domain = \"{peer}\"\ncapacity = \"1Gbit\"\nlatency = \"5ms\"\nmtu = 9000\n\
             [addresses]\nipv4 = \"10.{net}.0.0/16\"\nipv6 = \"fd00:{net}::/48\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let socket = folder.path().join("run/dtn/vdnd.sock");
        let mut site = Self {
            admin: Client::unix(&socket, CALL).unwrap(),
            folder,
            config,
            child: None,
            said: None,
            url: format!("https://127.0.0.1:{port}"),
        };
        site.start(stop_at).await;
        site
    }
    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vdnd"));
        command
            .arg("--root")
            .arg(self.folder.path())
            .arg("--config")
            .arg(&self.config);
        command
    }
    /// Starts it, and waits until it answers.
    pub(crate) async fn start(&mut self, stop_at: Option<&str>) {
        let mut command = self.command();
        if let Some(step) = stop_at {
            command.env("VDND_STOP_AT", step);
        }
        self.spawn(command).await;
    }
    pub(crate) async fn spawn(&mut self, mut command: Command) {
        assert!(self.child.is_none());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, said) = mpsc::channel();
        // it ends with the process, whose output it reads
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        (self.child, self.said) = (Some(child), Some(said));
        let admin = self.admin.clone();
        eventually("it answers", async || {
            admin.get::<String>(&path("/readyz")).await.is_ok()
        })
        .await;
    }
    /// Waits until it has said something on its standard error.
    pub(crate) async fn wait_for(&self, words: &str) {
        let said = self.said.as_ref().unwrap();
        let mut heard = Vec::new();
        eventually(words, async || {
            heard.extend(said.try_iter());
            heard.iter().any(|line| line.contains(words))
        })
        .await;
    }
    /// More lines at the end of its configuration, for the next start.
    pub(crate) fn configure(&self, lines: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        std::fs::write(&self.config, format!("{text}{lines}\n")).unwrap();
    }
    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }
    /// Waits for its end and its exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let mut status = None;
        eventually("it ends", async || {
            status = child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap().code()
    }
    pub(crate) async fn invite(&self, kind: InviteKind, name: &str) -> Invitation {
        let request = InviteRequest {
            kind,
            name: name.parse().unwrap(),
            valid_seconds: 600,
        };
        self.admin
            .post(&path("/invitations"), &request)
            .await
            .unwrap()
    }
    /// Declares a NIC of node `dtn`.
    pub(crate) async fn declare(&self, mac: &str) {
        let nic = HostSpec {
            kind: HostKind::Nic,
            node: "dtn".parse().unwrap(),
            nic: "data0".parse().unwrap(),
            capacity_bps: 10_000_000_000,
            mtu: 9000,
            location: None,
            ips: vec![],
            permitted: true,
        };
        let at = path(&format!("/hosts/{mac}-none"));
        let _: Host = self
            .admin
            .call(http::Method::PUT, &at, &[], Some(&nic))
            .await
            .unwrap()
            .body;
    }
}
impl Drop for Site {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Two federated domains with a NIC each; each may stop at a step.
pub(crate) async fn federate(test: &str, near: Option<&str>, far: Option<&str>) -> (Site, Site) {
    let near = Site::new(test, "daejeon", "busan", near).await;
    let far = Site::new(test, "busan", "daejeon", far).await;
    near.declare(NEAR).await;
    far.declare(FAR).await;
    let invitation = near.invite(InviteKind::Domain, "busan").await;
    let body = json!({ "invitation": invitation });
    far.admin
        .post::<_, Domain>(&path("/domains"), &body)
        .await
        .unwrap();
    eventually("each has the other's document", async || {
        let mut known = true;
        for (site, other) in [(&near, "busan"), (&far, "daejeon")] {
            let domain: Domain = site
                .admin
                .get(&path(&format!("/domains/{other}")))
                .await
                .unwrap();
            known &= domain.document.is_some_and(|d| !d.shared_hosts.is_empty());
        }
        known
    })
    .await;
    (near, far)
}
