//! A world for a gateway: the site's namespace with the real `dtnd` and a controller in it, an
//! external network, and two members of slices behind the NIC inside. All of it is gone when it is
//! dropped, whatever failed.

use crate::site::{Daemon, LONG, Site, skipped, until};
use dtn_api::{
    MacAddress,
    client::{Client, ClientError},
    domain::Invitation,
    gateway::{Gateway, StandingRules},
    host::Host,
    lease::Lease,
    local::{Join, LocalGateway, Status},
    slice::{List, Slice},
};
use dtn_link::{Netns, nft};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The external network: its router and a second host, by family.
pub(crate) const FAR: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// The gateway's own addresses there.
pub(crate) const OWN: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// How long a datagram may take.
const SOON: Duration = Duration::from_millis(300);

/// The controller's process; [`World::new`] runs it by the ignored test of this name.
pub(crate) fn controller() {
    let (Ok(root), Ok(config)) = (std::env::var("VDND_ROOT"), std::env::var("VDND_CONFIG")) else {
        return;
    };
    rustls::crypto::ring::default_provider()
        .install_default()
        .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = vdnd::config::load(Path::new(&config)).unwrap().config;
    runtime
        .block_on(vdnd::run(config, Path::new(&root), Default::default()))
        .unwrap();
}

/// A process that ends when it is dropped.
pub(crate) struct Killed(pub(crate) Child);
impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A member of a slice with its lease.
pub(crate) struct Member {
    pub(crate) netns: Netns,
    pub(crate) slice: Slice,
    pub(crate) lease: Lease,
}
impl Member {
    /// Its address of a family.
    pub(crate) fn ip(&self, v6: bool) -> IpAddr {
        let mut ips = self.lease.ips.iter().map(|net| net.addr());
        ips.find(|ip| ip.is_ipv6() == v6).unwrap()
    }
}

pub(crate) struct World {
    pub(crate) site: Site,
    pub(crate) outside: Netns,
    /// Holds the mounts in which every `dtnd` runs: pins outlive each of them.
    mounts: Killed,
    controller: Option<Killed>,
    pub(crate) admin: Client,
}

impl World {
    pub(crate) async fn new(test: &str) -> Option<Self> {
        if nft::version().await.is_err() {
            skipped(test, "nftables is not installed");
            return None;
        }
        if !plugins().join("vdn-macvlan").is_file() {
            skipped(test, "the plugins are not built: cargo build -p dtn-cni");
            return None;
        }
        let site = Site::new(test)?;
        for nic in ["data1", "ext0"] {
            site.nic(nic);
        }
        site.run("ip link property add dev ext0 altname uplink");
        let mounts = site
            .inside("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount -t sysfs -o ro sysfs /sys && echo ready && exec sleep infinity")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut mounts = Killed(mounts);
        let mut ready = [0_u8; 6];
        let mut said = mounts.0.stdout.take().unwrap();
        std::io::Read::read_exact(&mut said, &mut ready).unwrap();
        let outside = Netns::create_unnamed().unwrap();
        move_to(&site, "far-ext0", &outside);
        for command in [
            "ip link set lo up",
            "ip link set far-ext0 up",
            "ip addr add 192.0.2.1/24 dev far-ext0",
            "ip addr add 2001:db8::1/64 dev far-ext0 nodad",
            "ip route add 10.64.0.0/16 via 192.0.2.2",
            "ip route add fd64::/48 via 2001:db8::2",
        ] {
            run(&outside, command);
        }
        let root = site.dir.path().join("vdnd");
        std::fs::create_dir_all(&root).unwrap();
        let text = "version = 1\n[domain]\nname = \"daejeon\"\n[listen]\naddress = \"127.0.0.1:7443\"\n\
                    [addresses]\nipv4 = \"10.64.0.0/16\"\nipv6 = \"fd64::/48\"\n";
        std::fs::write(root.join("vdnd.toml"), text).unwrap();
        let admin = Client::unix(&root.join("run/dtn/vdnd.sock"), LONG).unwrap();
        let mut world = Self {
            site,
            outside,
            mounts,
            controller: None,
            admin,
        };
        world.start_controller();
        Some(world)
    }

    pub(crate) fn start_controller(&mut self) {
        let root = self.site.dir.path().join("vdnd");
        let log = self.log();
        let child = self
            .site
            .inside(std::env::current_exe().unwrap().to_str().unwrap())
            .args(["--ignored", "--exact", "controller_process", "--nocapture"])
            .env("VDND_ROOT", &root)
            .env("VDND_CONFIG", root.join("vdnd.toml"))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.controller = Some(Killed(child));
        let began = Instant::now();
        while std::os::unix::net::UnixStream::connect(root.join("run/dtn/vdnd.sock")).is_err() {
            assert!(began.elapsed() < LONG, "no controller\n{}", self.site.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    pub(crate) fn kill_controller(&mut self) {
        self.controller = None;
    }
    fn log(&self) -> std::fs::File {
        let path = self.site.dir.path().join("log");
        let mut options = std::fs::File::options();
        options.create(true).append(true).open(path).unwrap()
    }

    /// The configuration with a gateway, or without.
    pub(crate) fn configure(&self, gateway: bool, nat: bool) {
        let mut text = format!(
            "version = 1\n[host]\nname = \"dtn1\"\n[podman]\nsocket = \"{}/none.sock\"\n\
             [cni]\nbin-dir = \"{}\"\n\
             [[nic]]\nname = \"data1\"\nclass = \"shared\"\nspeed = \"10Gbit\"\n\
             [[nic]]\nname = \"ext0\"\nclass = \"dedicated\"\nspeed = \"10Gbit\"\n",
            self.site.root().display(),
            plugins().display(),
        );
        if gateway {
            text.push_str(&format!(
                "[[gateway]]\nname = \"internet\"\ninside = \"data1\"\noutside = \"ext0\"\n\
                 addresses = [\"192.0.2.2/24\", \"2001:db8::2/64\"]\n\
                 routers = [\"192.0.2.1\", \"2001:db8::1\"]\nnetworks = [\"0.0.0.0/0\", \"::/0\"]\n\
                 nat = {nat}\n",
            ));
        }
        self.site.config(&text);
    }
    /// A `dtnd` in the mounts that stay.
    pub(crate) fn dtnd(&self) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.mounts.0.id();
        command
            .arg(format!("--mount=/proc/{pid}/ns/mnt"))
            // a test in a chroot has another root than its mount namespace
            .arg(format!("--root=/proc/{pid}/root"))
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .arg("--")
            .arg(env!("CARGO_BIN_EXE_dtnd"))
            .arg("--root")
            .arg(self.site.root())
            .arg("--config")
            .arg(self.site.dir.path().join("dtnd.toml"))
            .env("DTN_LOG", "info")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }
    pub(crate) fn start(&self) -> Daemon {
        self.site.start_with(self.dtnd())
    }
    /// Starts it for the first time, and joins the domain.
    pub(crate) async fn join(&self) -> Daemon {
        let daemon = self.start();
        let body = json!({"kind": "host", "name": "dtn1"});
        let invitation: Invitation = self.admin.post("/vdn/v1/invitations", &body).await.unwrap();
        let _: Status = daemon
            .client()
            .post("/dtn/v1/join", &Join { invitation })
            .await
            .unwrap();
        daemon
    }
    /// The pin of the gateway's namespace, as this process sees it.
    pub(crate) fn pin(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.mounts.0.id()));
        let pin = self.site.root().join("run/dtn/netns/gateway-internet");
        root.join(pin.strip_prefix("/").unwrap())
    }
    pub(crate) fn gateway(&self) -> Netns {
        Netns::open(&self.pin()).unwrap_or_else(|e| panic!("{e}\n{}", self.site.log()))
    }

    pub(crate) async fn put<T: serde::de::DeserializeOwned>(&self, path: &str, body: &Value) -> T {
        let path = format!("/vdn/v1{path}");
        let answer = self.admin.put(&path, body).await;
        answer.unwrap_or_else(|e| panic!("{path}: {e}\n{}", self.site.log()))
    }
    /// Replaces the access rules, and waits until the kernel has them.
    pub(crate) async fn rules(&self, items: Value) -> Duration {
        let began = Instant::now();
        let path = "/gateways/internet/access_rules";
        let rules: StandingRules = self.put(path, &json!({ "items": items })).await;
        until("the rules are in the kernel", async || {
            let there = self.told().await;
            let report = there.report?;
            (report.rules_version == rules.version).then_some(())
        })
        .await;
        began.elapsed()
    }
    /// What the controller knows of the gateway.
    pub(crate) async fn told(&self) -> Gateway {
        self.admin.get("/vdn/v1/gateways/internet").await.unwrap()
    }
    /// What `dtnd` says of it, once it does.
    pub(crate) async fn seen_or_none(&self, daemon: &Daemon) -> Option<LocalGateway> {
        let all = daemon.client().get("/dtn/v1/gateways").await;
        let all: List<LocalGateway> = match all {
            Ok(all) => all,
            // the socket of one that was killed is open until what it was starting is started
            Err(ClientError::Unreachable { .. }) => return None,
            Err(e) => panic!("{e}\n{}", self.site.log()),
        };
        all.items.into_iter().next()
    }
    /// What `dtnd` says of it.
    pub(crate) async fn seen(&self, daemon: &Daemon) -> LocalGateway {
        until("dtnd shows it", async || self.seen_or_none(daemon).await).await
    }

    /// A member of a new slice with the gateway, in a namespace of its own.
    pub(crate) async fn member(&self, name: &str, last: u8) -> Member {
        let mac = MacAddress::new([2, 0, 0, 0, 0, last]);
        let host = json!({"kind": "nic", "node": "peer", "nic": name,
            "capacity_bps": 10_000_000_000_u64, "mtu": 1500});
        let _: Host = self.put(&format!("/hosts/{mac}-none"), &host).await;
        let gateway = until("the gateway is declared", async || {
            let all: List<Gateway> = self.admin.get("/vdn/v1/gateways").await.unwrap();
            all.items.into_iter().next()
        })
        .await;
        let start = jiff::Timestamp::now();
        let end = start + jiff::SignedDuration::from_hours(1);
        let wish = json!({
            "name": name, "qos": {"class": "guaranteed", "rate_bps": 500_000_000},
            "members": [{"host": format!("{mac}-none")},
                        {"host": gateway.spec.host, "role": "gateway"}],
            "schedule": {"start": start, "end": end}, "commit": true,
        });
        let slice: Slice = self
            .admin
            .post_once("/vdn/v1/slices", name, &wish)
            .await
            .unwrap();
        until("the gateway serves the slice", async || {
            let report = self.told().await.report?;
            report.slices.contains(&slice.id).then_some(())
        })
        .await;
        let path = format!("/vdn/v1/slices/{}/leases", slice.id);
        let request = json!({"client_id": format!("test:{name}"), "mac": mac});
        let lease: Lease = self.admin.post_once(&path, &path, &request).await.unwrap();
        let netns = Netns::create_unnamed().unwrap();
        let link = format!("m{last}");
        self.site.run(&format!(
            "ip link add link far-data1 name {link} address {mac} type macvlan mode bridge"
        ));
        move_to(&self.site, &link, &netns);
        run(&netns, "ip link set lo up");
        run(&netns, &format!("ip link set {link} up"));
        for ip in &lease.ips {
            run(&netns, &format!("ip addr add {ip} dev {link} nodad"));
        }
        assert_eq!(lease.routes.len(), 2, "{lease:?}");
        for route in &lease.routes {
            let gw = route.gw.unwrap();
            run(&netns, &format!("ip route add {} via {gw}", route.dst));
        }
        Member {
            netns,
            slice,
            lease,
        }
    }
}

/// Where cargo puts programs.
fn plugins() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().to_owned()
}
fn move_to(site: &Site, link: &str, netns: &Netns) {
    let path = netns.proc_path().display().to_string();
    site.run(&format!("ip link set {link} netns {path}"));
}
/// Runs a command in a namespace.
pub(crate) fn run(netns: &Netns, command: &str) -> String {
    let output = Command::new("nsenter")
        .arg(format!("--net={}", netns.proc_path().display()))
        .arg("--")
        .args(command.split(' '))
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

/// A datagram socket in a namespace.
pub(crate) fn socket(netns: &Netns, ip: IpAddr, port: u16) -> UdpSocket {
    let socket = netns
        .run_blocking(|| UdpSocket::bind((ip, port)))
        .unwrap()
        .unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}
/// Whether a datagram from one end arrives at the other; from where it seems to come.
pub(crate) fn arrives(from: &UdpSocket, to: &UdpSocket, at: SocketAddr) -> Option<SocketAddr> {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    // an error is an answer of ICMP to an earlier one
    let _ = from.send_to(&number.to_be_bytes(), at);
    let mut bytes = [0; 64];
    let began = Instant::now();
    while began.elapsed() < SOON {
        if let Ok((4, source)) = to.recv_from(&mut bytes)
            && bytes[..4] == number.to_be_bytes()
        {
            return Some(source);
        }
    }
    None
}
