//! Real switches for a test: Open vSwitch with its userspace datapath, in a network namespace
//! without a name, with its state in a folder of its own, and hosts in namespaces around it. All of
//! it is gone when it is dropped, whatever failed.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod host;
pub(crate) mod outside;
pub(crate) mod relay;

use crate::wish::{LONG, MUCH, TWO, network, slice, start};
use dtn_api::MacAddress;
use dtn_link::Netns;
use host::Host;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{Intent, openflow::OpenFlow};

/// Runs a test with switches; says so where it cannot.
pub(crate) fn with_switches(test: &str, body: impl AsyncFnOnce(Rig) + Send) {
    let missing = if !nix::unistd::geteuid().is_root() {
        "needs root"
    } else if Command::new("ovs-vswitchd")
        .arg("--version")
        .output()
        .is_err()
    {
        "needs Debian's openvswitch-switch"
    } else {
        ""
    };
    if !missing.is_empty() {
        return skipped(test, missing);
    }
    let netns = Netns::create_unnamed().unwrap();
    // every thread and process that comes from this one is in the namespace of the switches
    let ran = netns.run_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let rig = Rig::start();
        runtime.block_on(body(rig));
    });
    ran.unwrap();
}

/// Says that a test could not run here; the suite counts these.
pub(crate) fn skipped(test: &str, why: &str) {
    println!("skipped {test}: {why}");
    if let Ok(file) = std::env::var("DTN_SKIPS") {
        use std::io::Write;
        let line = format!("vdnd {test}: {why}\n");
        let mut file = std::fs::File::options().append(true).open(file).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Runs a command in the namespace of this thread and returns what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}
fn words(text: &str) -> Command {
    let mut words = text.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

/// Open vSwitch.
pub(crate) struct Rig {
    dir: tempfile::TempDir,
    database: Child,
    forwarder: Option<Child>,
}

impl Rig {
    /// Open vSwitch in the namespace of this thread.
    pub(crate) fn start() -> Self {
        run(&mut words("ip link set lo up"));
        let dir = tempfile::Builder::new().prefix("ovs-").tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        run(Command::new("ovsdb-tool")
            .arg("create")
            .arg(at("conf.db"))
            .arg("/usr/share/openvswitch/vswitch.ovsschema"));
        let database = daemon(dir.path(), "ovsdb-server")
            .arg(at("conf.db"))
            .arg(format!("--remote=punix:{}", at("db.sock").display()))
            .spawn()
            .unwrap();
        let mut rig = Self {
            dir,
            database,
            forwarder: None,
        };
        rig.within("the database serves", || at_rest(&rig.path("db.sock")));
        rig.vsctl("--no-wait init");
        rig.forward();
        rig
    }
    /// What forwards has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("ovs-vswitchd.log")).unwrap_or_default()
    }
    /// A file in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    /// Starts what forwards; again, when it was stopped.
    pub(crate) fn forward(&mut self) {
        let forwarder = daemon(self.dir.path(), "ovs-vswitchd")
            .arg(format!("unix:{}", self.path("db.sock").display()))
            .spawn()
            .unwrap();
        self.forwarder = Some(forwarder);
        self.vsctl("show");
    }
    /// SIGKILL to what forwards: all rules are gone with it.
    pub(crate) fn kill(&mut self) {
        let mut forwarder = self.forwarder.take().unwrap();
        forwarder.kill().unwrap();
        forwarder.wait().unwrap();
    }
    /// `ovs-vsctl`.
    pub(crate) fn vsctl(&self, command: &str) -> String {
        let db = format!("--db=unix:{}", self.path("db.sock").display());
        run(Command::new("ovs-vsctl")
            .args([&db, "--timeout=30"])
            .args(command.split(' ')))
    }
    /// `ovs-ofctl COMMAND SWITCH`, the view of somebody else.
    pub(crate) fn ofctl(&self, command: &str, switch: &str) -> String {
        let mut command = command.split(' ');
        run(Command::new("ovs-ofctl")
            .args(["-O", "OpenFlow13", "--timeout=30"])
            .arg(command.next().unwrap())
            .arg(self.path(&format!("{switch}.mgmt")))
            .args(command))
    }
    /// A switch.
    pub(crate) fn switch(&self, name: &str, datapath_id: u64) {
        self.vsctl(&format!(
            "add-br {name} -- set bridge {name} datapath_type=netdev fail_mode=secure \
             protocols=OpenFlow13 other-config:datapath-id={datapath_id:016x} \
             other-config:disable-in-band=true"
        ));
    }
    /// A cable between two switches; its ports have the names `A-B` and `B-A`.
    pub(crate) fn cable(&self, a: &str, b: &str) {
        for (a, b) in [(a, b), (b, a)] {
            self.vsctl(&format!(
                "add-port {a} {a}-{b} -- set interface {a}-{b} type=patch options:peer={b}-{a}"
            ));
        }
    }
    /// Tells a switch where its controller is.
    pub(crate) fn connect(&self, switch: &str, target: &str) {
        self.vsctl(&format!(
            "set-controller {switch} {target} -- set controller {switch} max_backoff=1000 \
             inactivity_probe=5000"
        ));
    }
    /// A host at a switch's port of the same name.
    pub(crate) fn host(&self, switch: &str, name: &'static str, number: u8) -> Host {
        let host = self.unplugged(name, number);
        self.vsctl(&format!("add-port {switch} {name}"));
        host
    }
    /// A host whose cable is in no switch.
    pub(crate) fn unplugged(&self, name: &'static str, number: u8) -> Host {
        let netns = Netns::create_unnamed().unwrap();
        let mac = MacAddress::new([2, 0, 0, 0, 0, number]);
        let there = netns.proc_path();
        run(&mut words(&format!(
            "ip link add name {name} type veth peer name eth0 address {mac} netns {}",
            there.display()
        )));
        run(&mut words(&format!("ip link set dev {name} up")));
        run(&mut words(&format!("ethtool -K {name} tx off")));
        let host = Host {
            name,
            netns,
            mac,
            v4: Ipv4Addr::new(10, 0, 0, number),
            v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()),
        };
        host.run("ethtool -K eth0 tx off");
        host.run("ip link set lo up");
        host.run("ip link set eth0 up");
        host.run(&format!("ip addr add {}/24 dev eth0", host.v4));
        host.run(&format!("ip addr add {}/64 dev eth0 nodad", host.v6));
        host
    }
    /// What a switch has of slices: its rules of ours, its groups and its meters, one line each. How
    /// switches find each other is no slice's.
    pub(crate) fn dump(&self, switch: &str) -> Vec<String> {
        let ours = |line: &&str| {
            let discovery = line.contains("dl_type=0x88cc") || line.contains("meter_id=controller");
            (line.contains("cookie=0x6474") || line.contains("_id=")) && !discovery
        };
        let all = ["dump-flows", "dump-groups", "dump-meters"].map(|what| self.ofctl(what, switch));
        let mut lines: Vec<String> = Vec::new();
        for text in &all {
            // a meter and its bands are on lines of their own
            let text = text.replace("meter=", "meter_id=");
            lines.extend(text.lines().map(str::trim).filter(ours).map(str::to_owned));
        }
        lines
    }
    /// What `ovs-ofctl COMMAND SWITCH` says of meters, but for the one of what goes to the controller.
    pub(crate) fn guards(&self, command: &str, switch: &str) -> String {
        let text = self.ofctl(command, switch);
        let own =
            |part: &&str| !(part.contains("meter=controller") || part.contains("meter:controller"));
        text.split("\n\n")
            .filter(own)
            .collect::<Vec<_>>()
            .join("\n\n")
    }
    fn within(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < LONG, "not within {LONG:?}: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
impl Drop for Rig {
    fn drop(&mut self) {
        for child in self.forwarder.iter_mut().chain([&mut self.database]) {
            // it may have ended by itself, which is what the test then says
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

fn at_rest(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

/// A daemon that ends with the thread that starts it, however that ends.
fn daemon(dir: &Path, program: &str) -> Command {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join(format!("{program}.log")))
        .unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", program])
        .arg(format!(
            "--unixctl={}",
            dir.join(format!("{program}.ctl")).display()
        ))
        .args(["-vconsole:info", "-vsyslog:off", "-vfile:off"])
        .envs(["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"].map(|name| (name, dir)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command
}

/// The rules of ours in a switch, with their age in seconds.
pub(crate) fn flow_ages(rig: &Rig, switch: &str) -> BTreeMap<String, f64> {
    let flows = rig.ofctl("dump-flows", switch);
    let ours = flows.lines().filter(|line| line.contains("cookie=0x6474"));
    ours.map(|line| {
        let field = |name: &str| {
            let from = line.find(name).unwrap() + name.len();
            let rest = &line[from..];
            &rest[..rest.find(',').unwrap()]
        };
        let age = field("duration=").trim_end_matches('s').parse().unwrap();
        let table = field("table=");
        let rule = &line[line.find("priority=").unwrap()..];
        (format!("table={table},{rule}"), age)
    })
    .collect()
}

/// Makes the switches of [`network`], and a fabric to which they connect.
pub(crate) async fn fabric(rig: &Rig, names: &[&str], stop: &CancellationToken) -> Arc<OpenFlow> {
    for (name, id) in names.iter().zip(1..) {
        rig.switch(name, id);
    }
    for pair in names.windows(2) {
        rig.cable(pair[0], pair[1]);
    }
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let fabric = start(network(names), anywhere, stop).await;
    for name in names {
        rig.connect(name, &format!("tcp:{}", fabric.address()));
    }
    fabric
}

/// A host at each of two switches, in one slice.
pub(crate) fn pair(rig: &Rig) -> (Host, Host, Intent) {
    let (a, b) = (rig.host("edge1", "ha", 1), rig.host("edge2", "hb", 2));
    let wanted = slice(7, MUCH, vec![a.member("edge1"), b.member("edge2")], &TWO);
    (a, b, wanted)
}
