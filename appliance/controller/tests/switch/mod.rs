//! Real switches for a test: Open vSwitch with its userspace datapath, in a network namespace
//! without a name, with its state in a folder of its own, and hosts in namespaces around it. All of
//! it is gone when it is dropped, whatever failed.

use dtn_api::{MacAddress, Name, slice::Class};
use dtn_link::Netns;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use uuid::Uuid;
use vdnd::fabric::{
    Attached, Fabric, Intent,
    network::{Cable, Network, Switch},
    openflow::{Listen, OpenFlow},
};

/// How long something that must happen may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// How long something is listened for that must not come.
const SHORT: Duration = Duration::from_secs(1);

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
fn skipped(test: &str, why: &str) {
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
    fn start() -> Self {
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
    fn path(&self, name: &str) -> PathBuf {
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
    /// What a switch has: its rules of ours, its groups and its meters, one line each.
    pub(crate) fn dump(&self, switch: &str) -> Vec<String> {
        let ours = |line: &&str| line.contains("cookie=0x6474") || line.contains("_id=");
        let all = ["dump-flows", "dump-groups", "dump-meters"].map(|what| self.ofctl(what, switch));
        let mut lines: Vec<String> = Vec::new();
        for text in &all {
            // a meter and its bands are on lines of their own
            let text = text.replace("meter=", "meter_id=");
            lines.extend(text.lines().map(str::trim).filter(ours).map(str::to_owned));
        }
        lines
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
            let log = std::fs::read_to_string(self.path("ovs-vswitchd.log"));
            let log = log.unwrap_or_default();
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

/// A host.
pub(crate) struct Host {
    pub(crate) name: &'static str,
    netns: Netns,
    pub(crate) mac: MacAddress,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

impl Host {
    /// Runs a command in the host.
    pub(crate) fn run(&self, command: &str) -> String {
        let net = format!("--net={}", self.netns.proc_path().display());
        run(Command::new("nsenter")
            .args([&net, "--"])
            .args(command.split(' ')))
    }
    /// A socket of the host at one of its addresses.
    pub(crate) fn socket(&self, at: impl Into<IpAddr>) -> UdpSocket {
        let at = SocketAddr::new(at.into(), 0);
        let socket = self.netns.run_blocking(|| UdpSocket::bind(at)).unwrap();
        let socket = socket.unwrap();
        let patience = Some(Duration::from_millis(20));
        socket.set_read_timeout(patience).unwrap();
        socket
    }
    /// As a member of a slice.
    pub(crate) fn member(&self, switch: &str) -> Attached {
        Attached {
            mac: self.mac,
            ips: vec![self.v4.into(), self.v6.into()],
            at: format!("{switch}/{}", self.name).parse().unwrap(),
        }
    }
    /// Another host's hardware address, without asking the network for it.
    pub(crate) fn knows(&self, other: &Host) {
        for address in [IpAddr::from(other.v4), IpAddr::from(other.v6)] {
            let mac = other.mac;
            self.run(&format!(
                "ip neigh replace {address} lladdr {mac} dev eth0 nud permanent"
            ));
        }
    }
}

/// Whether a word goes there and an answer comes back, over IPv4 and IPv6.
pub(crate) fn talk(a: &Host, b: &Host) -> bool {
    [
        (a.socket(a.v4), b.socket(b.v4)),
        (a.socket(a.v6), b.socket(b.v6)),
    ]
    .iter()
    .all(|(a, b)| hears(a, b, LONG) && hears(b, a, LONG))
}
/// Whether nothing goes from one to the other, nor back, over IPv4 nor IPv6.
pub(crate) fn apart(a: &Host, b: &Host) -> bool {
    [
        (a.socket(a.v4), b.socket(b.v4)),
        (a.socket(a.v6), b.socket(b.v6)),
    ]
    .iter()
    .all(|(a, b)| !arrives(a, b) && !arrives(b, a))
}
/// Whether something of a second's worth of words gets from one to the other.
pub(crate) fn arrives(from: &UdpSocket, at: &UdpSocket) -> bool {
    hears(from, at, SHORT)
}
fn hears(from: &UdpSocket, at: &UdpSocket, patience: Duration) -> bool {
    let to = at.local_addr().unwrap();
    let mut buffer = [0; 64];
    let began = Instant::now();
    while began.elapsed() < patience {
        // no route and no neighbour are errors of the host: then nothing arrives
        let _ = from.send_to(b"are you there", to);
        if at.recv_from(&mut buffer).is_ok() {
            return true;
        }
    }
    false
}

/// Switches that are joined in a row.
pub(crate) fn network(names: &[&str]) -> Network {
    let switch = |(name, id): (&&str, u64)| Switch {
        name: name.parse().unwrap(),
        datapath_id: id,
    };
    let cable = |pair: &[&str]| {
        let (a, b) = (pair[0], pair[1]);
        Cable {
            ends: [format!("{a}/{a}-{b}"), format!("{b}/{b}-{a}")].map(|end| end.parse().unwrap()),
            capacity_bps: 1_000_000_000,
            mtu: 1500,
        }
    };
    Network {
        switches: names.iter().zip(1..).map(switch).collect(),
        cables: names.windows(2).map(cable).collect(),
        ports: BTreeMap::new(),
        borders: Vec::new(),
    }
}
/// Makes the switches of [`network`], and a fabric to which they connect.
pub(crate) async fn fabric(
    rig: &Rig,
    names: &[&str],
    stop: &tokio_util::sync::CancellationToken,
) -> std::sync::Arc<OpenFlow> {
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
/// A fabric.
pub(crate) async fn start(
    network: Network,
    address: SocketAddr,
    stop: &tokio_util::sync::CancellationToken,
) -> std::sync::Arc<OpenFlow> {
    let listen = Listen { address, tls: None };
    OpenFlow::start(network, listen, stop.clone())
        .await
        .unwrap()
}

/// A slice over these switches in a row.
pub(crate) fn slice(tag: u16, rate_bps: u64, members: Vec<Attached>, names: &[&str]) -> Intent {
    let name = |text: &str| text.parse::<Name>().unwrap();
    Intent {
        slice: Uuid::from_u128(tag.into()),
        name: name(&format!("slice-{tag}")),
        tag,
        class: Class::Guaranteed,
        rate_bps,
        burst_ms: 10,
        members,
        border: None,
        cables: names
            .windows(2)
            .map(|pair| [name(pair[0]), name(pair[1])])
            .collect(),
    }
}

/// Waits until all of these slices are programmed; how long it took.
pub(crate) async fn programmed(fabric: &OpenFlow, slices: &[&Intent]) -> Duration {
    let began = Instant::now();
    loop {
        let open = slices.iter().find_map(|slice| {
            let why = fabric.programmed(slice.slice).err()?;
            Some(format!("{}: {why}", slice.name))
        });
        let Some(open) = open else {
            return began.elapsed();
        };
        assert!(began.elapsed() < LONG, "not within {LONG:?}: {open}");
        // a notice may have gone to somebody else
        let _ = tokio::time::timeout(Duration::from_millis(200), fabric.changed()).await;
    }
}
/// Asks until it is so.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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

/// What came of sending.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Frames that arrived.
    pub(crate) received: u64,
    /// From the first to the last that arrived.
    pub(crate) lasted: Duration,
}
/// Payload of a frame of a sender.
const PAYLOAD: usize = 1400;
/// A frame with its Ethernet, IPv4 and UDP heads.
const FRAME: usize = PAYLOAD + 14 + 20 + 8;
impl Sent {
    pub(crate) fn received_bits(&self) -> f64 {
        (self.received * FRAME as u64 * 8) as f64
    }
}
/// Sends at a rate of frames, evenly and without catching up.
pub(crate) fn send(from: &Host, to: &Host, rate_bps: u64, lasting: Duration) -> Sent {
    let (sender, receiver) = (from.socket(from.v4), to.socket(to.v4));
    let at = receiver.local_addr().unwrap();
    // as much as 2 ms hold
    let each = (rate_bps / 500 / 8 / FRAME as u64).max(1);
    let gap = Duration::from_secs_f64((each * FRAME as u64 * 8) as f64 / rate_bps as f64);
    let done = std::sync::atomic::AtomicBool::new(false);
    let done = &done;
    std::thread::scope(|scope| {
        let counting = scope.spawn(move || {
            let (mut received, mut first, mut last) = (0, None, Instant::now());
            let mut buffer = [0; PAYLOAD];
            loop {
                match receiver.recv_from(&mut buffer) {
                    Ok(_) => {
                        last = Instant::now();
                        first.get_or_insert(last);
                        received += 1;
                    }
                    // silence after the end is the end
                    Err(_) if done.load(std::sync::atomic::Ordering::Relaxed) => break,
                    Err(_) => {}
                }
            }
            Sent {
                received,
                lasted: first.map_or(Duration::ZERO, |first| last - first),
            }
        });
        let began = Instant::now();
        while began.elapsed() < lasting {
            let next = Instant::now() + gap;
            for _ in 0..each {
                sender.send_to(&[7; PAYLOAD], at).unwrap();
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        counting.join().unwrap()
    })
}
