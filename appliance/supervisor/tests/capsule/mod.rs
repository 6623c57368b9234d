//! A capsule for a test: own mounts, processes, network and cgroups, with a real podman, a
//! controller and the real `dtnd` in it. The kernel takes all of it down with its first process.

#![allow(dead_code, reason = "its two halves run in two processes")]

use dtn_api::client::Client;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long something that must happen may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(90);
/// Set in the capsule: the folder of the test.
const FOLDER: &str = "DTND_CAPSULE";
/// A step in front of runc for machines where no process may raise its limits.
const RUNC: &str = r#"#!/bin/sh
file=; next=
for word in "$@"; do
  case "$next" in bundle) file=$word/config.json ;; process) file=$word ;; esac
  next=
  case "$word" in --bundle|-b) next=bundle ;; --process|-p) next=process ;; esac
done
[ -f "$file" ] && sed -E -i 's/"rlimits":\[[^]]*\]/"rlimits":[]/g; s/"oomScoreAdj":-?[0-9]+/"oomScoreAdj":0/g' "$file"
exec runc "$@"
"#;

/// Runs the ignored test `inner` of this program in a capsule; false, with a counted word, where
/// that cannot be done here.
pub(crate) fn run(test: &str, inner: &str) -> bool {
    if let Some(why) = lacking() {
        super::site::skipped(test, &why);
        return false;
    }
    let folder = tempfile::Builder::new()
        .prefix("dtnd-pods-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let name = folder
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let hierarchies = dtn_lab::cgroups::mounted().unwrap();
    let back = dtn_lab::cgroups::enter(&hierarchies, &name).unwrap();
    let child = Command::new("unshare")
        .args([
            "-m",
            "-p",
            "-n",
            "-C",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", inner, "--nocapture"])
        .env(FOLDER, folder.path())
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(log(folder.path()))
        .stderr(log(folder.path()))
        .spawn();
    dtn_lab::cgroups::leave(&back).unwrap();
    let mut child = Killed(child.unwrap());
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            break Some(status);
        }
        if began.elapsed() > 4 * LONG {
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    drop(child);
    let swept = dtn_lab::cgroups::sweep(&hierarchies, &name, LONG);
    assert!(
        status.is_some_and(|status| status.success()),
        "in the capsule: {status:?}\n{}",
        fs::read_to_string(folder.path().join("log")).unwrap_or_default()
    );
    assert_eq!(swept, Ok(()), "cgroups are left");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&name), "mounts are left: {mounts}");
    true
}

fn lacking() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".into());
    }
    let found = |name: &str| {
        ["/usr/bin", "/usr/sbin", "/bin"]
            .iter()
            .any(|folder| Path::new(folder).join(name).is_file())
    };
    for program in [
        "podman",
        "runc",
        "conmon",
        "busybox",
        "catatonit",
        "unshare",
    ] {
        if !found(program) {
            return Some(format!("{program} is not installed"));
        }
    }
    let plugin = plugins().join("vdn-host-device");
    (!plugin.is_file())
        .then(|| format!("{} is not built: cargo build -p dtn-cni", plugin.display()))
}

/// Where cargo puts programs.
fn plugins() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().to_owned()
}

/// A process that does not outlive its test.
pub(crate) struct Killed(pub(crate) Child);
impl Drop for Killed {
    fn drop(&mut self) {
        // it may have been waited for already
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Inside: the host.
pub(crate) struct Capsule {
    pub(crate) folder: PathBuf,
    podman: Killed,
}

impl Capsule {
    /// `None` when this is not a capsule.
    pub(crate) fn furnished() -> Option<Self> {
        let folder = PathBuf::from(std::env::var_os(FOLDER)?);
        dtn_lab::capsule::furnish().unwrap();
        sh("ip link set lo up");
        let write = |name: &str, text: &str| {
            let file = folder.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
            file
        };
        let runc = write("runc-step", RUNC);
        fs::set_permissions(&runc, fs::Permissions::from_mode(0o755)).unwrap();
        let conf = format!(
            "[containers]\nlog_driver = \"k8s-file\"\n[network]\nnetwork_config_dir = \"{0}/networks\"\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"step\"\n\
             image_copy_tmp_dir = \"{0}\"\n[engine.runtimes]\nstep = [\"{1}\"]\n",
            folder.display(),
            runc.display()
        );
        write("containers.conf", &conf);
        template(&folder);
        let root = folder.join("image");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("tmp")).unwrap();
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        sh(&format!(
            "tar -C {0}/image -cf {0}/image.tar .",
            folder.display()
        ));
        let image = podman(&folder)
            .args(["import", "--quiet"])
            .arg(folder.join("image.tar"))
            .arg("localhost/sleeper:latest")
            .output()
            .unwrap();
        assert!(
            image.status.success(),
            "{}",
            String::from_utf8_lossy(&image.stderr)
        );
        let log = log(&folder);
        let child = podman(&folder)
            .args(["system", "service", "--time", "0"])
            .arg(format!("unix://{}/podman.sock", folder.display()))
            .stderr(log)
            .spawn()
            .unwrap();
        let capsule = Self {
            podman: Killed(child),
            folder,
        };
        listens(&capsule.folder.join("podman.sock"));
        Some(capsule)
    }
    /// Two NICs that are each other's cable.
    pub(crate) fn cable(&self) {
        sh("ip link add data0 type veth peer name data1");
        sh("ip link set data0 up mtu 9000");
        sh("ip link set data1 up mtu 9000");
        until("a carrier", || {
            let both = ["data0", "data1"];
            both.iter()
                .all(|nic| sh(&format!("ip link show {nic}")).contains("state UP"))
        });
    }
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }
    /// Starts `dtnd`; it is killed when the handle is dropped.
    pub(crate) fn dtnd(&self) -> Killed {
        let config = self.folder.join("dtnd.toml");
        let at = self.folder.display();
        let text = format!(
            "version = 1\n[host]\nname = \"dtn1\"\n\
             [[nic]]\nname = \"data0\"\nclass = \"dedicated\"\nspeed = \"10Gbit\"\n\
             [[nic]]\nname = \"data1\"\nclass = \"shared\"\nspeed = \"10Gbit\"\n\
             [podman]\nsocket = \"{at}/podman.sock\"\n[cni]\nbin-dir = \"{}\"\n\
             [workloads]\ndir = \"{at}/templates\"\n[data]\ndir = \"{at}/data\"\n",
            plugins().display()
        );
        fs::write(&config, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_dtnd"))
            .arg("--root")
            .arg(self.root())
            .arg("--config")
            .arg(config)
            .env("DTN_LOG", "info,dtnd=debug")
            .stdin(Stdio::null())
            .stderr(log(&self.folder))
            .spawn()
            .unwrap();
        listens(&self.root().join("run/dtn/dtnd.sock"));
        Killed(child)
    }
    pub(crate) fn client(&self) -> Client {
        Client::unix(&self.root().join("run/dtn/dtnd.sock"), LONG).unwrap()
    }
    /// podman's own word for something.
    pub(crate) fn podman(&self, arguments: &[&str]) -> String {
        let output = podman(&self.folder).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "podman {arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }
}

fn podman(folder: &Path) -> Command {
    let mut command = Command::new("podman");
    command
        .arg("--root")
        .arg(folder.join("storage"))
        .args([
            "--runroot",
            "/run/containers/storage",
            "--storage-driver",
            "vfs",
        ])
        .env("CONTAINERS_CONF", folder.join("containers.conf"))
        .env("TMPDIR", folder)
        .stdin(Stdio::null());
    command
}

fn log(folder: &Path) -> fs::File {
    let mut open = fs::File::options();
    open.create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap()
}

/// A template of a pod that does nothing, and ends when it is told to.
fn template(folder: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dtn-workloads/iperf3");
    let target = folder.join("templates/sleeper");
    fs::create_dir_all(&target).unwrap();
    let read = |name: &str| fs::read_to_string(source.join(name)).unwrap();
    let pod: Vec<String> = read("pod.yaml.j2")
        .lines()
        .map(|line| match line.trim_start().starts_with("args:") {
            true => "      args: [\"/bin/busybox\", \"sh\", \"-c\", \"echo up; trap 'exit 0' TERM; while :; do busybox sleep 1 & wait $!; done\"]".to_owned(),
            false => line.replace("template: iperf3", "template: sleeper"),
        })
        .collect();
    fs::write(target.join("pod.yaml.j2"), pod.join("\n")).unwrap();
    let values =
        read("values.toml").replace("localhost/dtn-measure:latest", "localhost/sleeper:latest");
    fs::write(target.join("values.toml"), values).unwrap();
}

/// Runs a command line and returns what it printed.
pub(crate) fn sh(line: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {text}{error}");
    text
}

/// Asks until it is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < LONG, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn listens(socket: &Path) {
    until(&format!("{} answers", socket.display()), || {
        std::os::unix::net::UnixStream::connect(socket).is_ok()
    });
}
