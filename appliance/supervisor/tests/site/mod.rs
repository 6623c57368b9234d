//! A host for a test: a network namespace without a name, a root folder, and the real `dtnd` in
//! them. All of it is gone when it is dropped, whatever failed.

#![allow(dead_code, reason = "each test file uses a part of it")]

use dtn_api::client::{Client, ClientError};
use dtn_link::Netns;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long something that must happen may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A host.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) netns: Netns,
}

impl Site {
    /// With a loopback that is up and no NIC. `None`, with a word, where namespaces cannot be made.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skipped(test, "needs root");
            return None;
        }
        let site = Self {
            dir: tempfile::Builder::new().prefix("dtnd-").tempdir().unwrap(),
            netns: Netns::create_unnamed().unwrap(),
        };
        site.run("ip link set lo up");
        Some(site)
    }
    /// Runs a command in the host's namespace and returns what it printed.
    pub(crate) fn run(&self, command: &str) -> String {
        let mut words = command.split(' ');
        let output = self
            .inside(words.next().unwrap())
            .args(words)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{command}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }
    /// A command in the host's namespace.
    pub(crate) fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.netns.proc_path().display()))
            .arg("--")
            .arg(program);
        command
    }
    /// A NIC with its far end, both up.
    pub(crate) fn nic(&self, name: &str) {
        self.run(&format!(
            "ip link add {name} type veth peer name far-{name}"
        ));
        self.run(&format!("ip link set {name} up"));
        self.run(&format!("ip link set far-{name} up"));
        // the kernel tells a carrier a moment later
        let began = Instant::now();
        while !self
            .run(&format!("ip link show {name}"))
            .contains("state UP")
        {
            assert!(began.elapsed() < LONG, "{name} gets no carrier");
        }
    }
    /// The root folder.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }
    /// Writes the configuration.
    pub(crate) fn config(&self, toml: &str) -> PathBuf {
        let file = self.dir.path().join("dtnd.toml");
        std::fs::write(&file, toml).unwrap();
        file
    }
    /// A `dtnd` of this host that does not run yet.
    pub(crate) fn dtnd(&self) -> Command {
        self.dtnd_at(&self.root(), &self.dir.path().join("dtnd.toml"))
    }
    /// The same with a root and a configuration of its own. A mount command in its environment as
    /// `MOUNT_TOO` makes a mount that it alone sees.
    pub(crate) fn dtnd_at(&self, root: &Path, config: &Path) -> Command {
        // sysfs shows the links of the namespace that it was mounted from
        let mut command = self.inside("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount -t sysfs -o ro sysfs /sys && ${MOUNT_TOO:-true} && exec \"$@\"")
            .args(["sh", env!("CARGO_BIN_EXE_dtnd")])
            .arg("--root")
            .arg(root)
            .arg("--config")
            .arg(config)
            .env("DTN_LOG", "info")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }
    /// Starts `dtnd` and waits until it serves.
    pub(crate) fn start(&self) -> Daemon {
        self.start_with(self.dtnd())
    }
    /// The same with a command that was changed.
    pub(crate) fn start_with(&self, command: Command) -> Daemon {
        self.start_at(command, &self.root())
    }
    /// The same with a root of its own.
    pub(crate) fn start_at(&self, mut command: Command, root: &Path) -> Daemon {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let mut daemon = Daemon {
            child: command.stderr(log).spawn().unwrap(),
            socket: root.join("run/dtn/dtnd.sock"),
        };
        let began = Instant::now();
        // a killed daemon leaves its socket: only an answer counts
        while std::os::unix::net::UnixStream::connect(&daemon.socket).is_err() {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none(), "dtnd ended: {ended:?}\n{}", self.log());
            assert!(
                began.elapsed() < LONG,
                "dtnd does not serve\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }
    /// What its daemons said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// A `dtnd` that runs; it is killed when it is dropped.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    socket: PathBuf,
}

impl Daemon {
    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        Client::unix(&self.socket, Duration::from_secs(120)).unwrap()
    }
    /// Its socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
    /// SIGKILL, and until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
    /// SIGTERM; its exit status.
    pub(crate) fn stop(mut self) -> std::process::ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap()
    }
}
impl Drop for Daemon {
    fn drop(&mut self) {
        // it may have been waited for already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A namespace that is bound to a path, until it is dropped.
pub(crate) struct Pin {
    pub(crate) netns: Netns,
    path: PathBuf,
}
impl Pin {
    pub(crate) fn new(path: PathBuf) -> Self {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let netns = Netns::create_named(&path).unwrap();
        Self { netns, path }
    }
}
impl Drop for Pin {
    fn drop(&mut self) {
        dtn_link::netns::unbind(&self.path).unwrap();
    }
}

/// Says that a test could not run here; the suite counts these.
pub(crate) fn skipped(test: &str, why: &str) {
    println!("skipped {test}: {why}");
    if let Ok(file) = std::env::var("DTN_SKIPS") {
        use std::io::Write;
        let line = format!("dtnd {test}: {why}\n");
        let mut file = std::fs::File::options().append(true).open(file).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Asks until it is so.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(began.elapsed() < LONG, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The problem of a call that has to fail.
pub(crate) fn problem<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> dtn_api::Problem {
    match answer {
        Err(ClientError::Refused(problem)) => *problem,
        other => panic!("not refused: {other:?}"),
    }
}
