//! The fabric `openflow` with real switches and real DHCP clients: hosts that have no supervisor get
//! their address from the same leases as everybody, and nobody gets one that is not its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod switch;
mod wish;

use dhcproto::{
    Encodable,
    v4::{DhcpOption, Message, MessageType},
};
use dtn_api::{
    MacAddress,
    lease::{Lease, LeaseState},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::{
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use switch::{Rig, host::Host, skipped, with_switches};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;
use vdnd::{
    auth::Principal,
    authority::Authority,
    dhcp::{SERVER, SERVER_MAC},
    engine::{Engine, Once, run_clock, run_dhcp},
    fabric::{Fabric, openflow::OpenFlow},
    store::Embedded,
};
use wish::{LONG, TWO, network, start, until};

const ADMIN: &Principal = &Principal::Admin;
/// Equipment whose frames the test makes; its hardware address.
const MADE: MacAddress = MacAddress::new([2, 0, 0, 0, 0, 5]);

/// What each client calls when something happens: takes the address as it is told, and writes down
/// what it was told.
const SCRIPT: &str = r#"#!/bin/sh
case "${reason:-$1}" in
bound | renew | BOUND | RENEW | REBIND)
    event=$(echo "${reason:-$1}" | tr A-Z a-z)
    address=${new_ip_address:-$ip}
    ip addr replace "$address/24" dev eth0
    ip link set eth0 mtu "${new_interface_mtu:-$mtu}"
    # width, destination, router: its own form of it in each client; the server's alone is used here
    ip route replace 169.254.0.67/32 dev eth0 scope link
    echo "$event $address ${new_subnet_mask:-$subnet} ${staticroutes:-$new_classless}" >>LOG
    ;;
deconfig | RELEASE | EXPIRE | FAIL | STOP)
    ip -4 addr flush dev eth0
    echo "gone" >>LOG
    ;;
esac
"#;

/// A controller whose switches serve DHCP, with a slice of four NICs.
struct Site {
    rig: Rig,
    engine: Arc<Engine>,
    fabric: Arc<OpenFlow>,
    slice: Uuid,
    _ends: DropGuard,
}

fn read<T: serde::de::DeserializeOwned>(json: serde_json::Value) -> T {
    serde_json::from_value(json).unwrap()
}

impl Site {
    /// `scope` is at `edge1/ha`, `box` at `edge2/hb`, `made` at `edge1/rx`; at `edge1/hd` a NIC should be
    /// that is not declared, and of `edge1/hc` nothing is known.
    async fn start(rig: Rig) -> Self {
        let stop = CancellationToken::new();
        for (name, id) in TWO.iter().zip(1..) {
            rig.switch(name, id);
        }
        rig.cable(TWO[0], TWO[1]);
        let mut network = network(&TWO);
        for (nic, at) in [
            ("scope/eth0", "edge1/ha"),
            ("box/eth0", "edge2/hb"),
            ("made/eth0", "edge1/rx"),
            ("later/eth0", "edge1/hd"),
        ] {
            network.ports.insert(nic.into(), at.parse().unwrap());
        }
        let fabric = start(network, "127.0.0.1:0".parse().unwrap(), &stop).await;
        fabric.lease(true);
        for name in TWO {
            rig.connect(name, &format!("tcp:{}", fabric.address()));
        }
        until("the switches are there", || fabric.trouble().is_none()).await;

        let file = rig.path("vdnd.toml");
        let text = "version = 1\n[domain]\nname = \"daejeon\"\n[listen]\naddress = \"127.0.0.1:0\"\n\
                    [addresses]\nipv4 = \"10.20.0.0/16\"\nipv6 = \"fd00:20::/48\"\n";
        std::fs::write(&file, text).unwrap();
        let config = vdnd::config::load(&file).unwrap().config;
        let now = Timestamp::now();
        let keys = rig.path("keys");
        let authority = Authority::open(&keys, &config.domain, &config.names, now).unwrap();
        let store = Embedded::open(&rig.path("store.redb")).unwrap();
        let engine = Engine::start(config, authority, Arc::new(store), fabric.clone());
        let engine = Arc::new(engine.await.unwrap());
        tokio::spawn(run_clock(engine.clone(), stop.clone()));
        let serves = engine.clone();
        let until_end = stop.clone();
        tokio::spawn(async move { until_end.run_until_cancelled(run_dhcp(serves)).await });

        let macs = [("scope", 1), ("box", 2), ("made", 5)];
        let id = |n: u8| format!("02:00:00:00:00:0{n}-none");
        for (node, n) in macs {
            let spec = json!({"kind": "nic", "node": node, "nic": "eth0",
                "capacity_bps": 1_000_000_000_u64, "mtu": 1500});
            let host = id(n).parse().unwrap();
            engine.declare(ADMIN, &host, read(spec)).await.unwrap();
        }
        let members: Vec<_> = macs.iter().map(|(_, n)| json!({"host": id(*n)})).collect();
        let spec = json!({"name": "lhc", "qos": {"class": "best_effort", "mode": "hose", "rate_bps": 0},
            "members": members, "commit": true,
            "addressing": {"ipv4": {"cidr": "10.20.7.0/24"}, "mtu": 1400, "lease_seconds": 30},
            "schedule": {"start": now, "end": now + SignedDuration::from_hours(1)}});
        let once = Once::new(ADMIN, Some("lhc"), "/slices", &[]).unwrap();
        let made = engine.ask(ADMIN, &once, read(spec)).await.unwrap();
        Self {
            rig,
            engine,
            fabric,
            slice: made.body.id,
            _ends: stop.drop_guard(),
        }
    }
    /// A host without an address of IPv4.
    fn host(&self, switch: &str, name: &'static str, number: u8) -> Host {
        let host = self.rig.host(switch, name, number);
        host.run("ip -4 addr flush dev eth0");
        host
    }
    async fn lease(&self, mac: MacAddress) -> Option<Lease> {
        let all = self.engine.leases(ADMIN, Some(self.slice), None).await;
        all.into_iter().find(|lease| lease.mac == mac)
    }
    /// Waits until the lease of a hardware address is so.
    async fn leased(&self, what: &str, mac: MacAddress, is: impl Fn(Option<&Lease>) -> bool) {
        let began = std::time::Instant::now();
        while !is(self.lease(mac).await.as_ref()) {
            assert!(began.elapsed() < LONG, "never seen: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A DHCP client in a host; ends with the test.
struct Client {
    child: Child,
    log: PathBuf,
}
impl Client {
    fn udhcpc(site: &Site, host: &Host, more: &[&str]) -> Self {
        Self::start(site, host, |script, _| {
            let mut command = vec![
                "busybox", "udhcpc", "-f", "-i", "eth0", "-t", "20", "-T", "1",
            ];
            command.extend(["-O", "mtu", "-O", "staticroutes", "-s", script]);
            command.extend(more);
            command.into_iter().map(str::to_owned).collect()
        })
    }
    fn dhclient(site: &Site, host: &Host, more: &[&str]) -> Self {
        Self::start(site, host, |script, at| {
            let conf = format!("{at}.conf");
            // the option has no name of its own in this client
            let text = "option classless code 121 = array of unsigned integer 8;\n\
                        request subnet-mask, interface-mtu, routers, classless;\n\
                        timeout 60; retry 2;\n";
            std::fs::write(&conf, text).unwrap();
            // it wants to find one, and would make none
            let leases = format!("{at}.leases");
            let mut file = std::fs::File::options();
            file.create(true).append(true).open(&leases).unwrap();
            let files = [("-cf", conf), ("-lf", leases), ("-pf", format!("{at}.pid"))];
            let mut command = vec![
                "dhclient".to_owned(),
                "-d".into(),
                "-sf".into(),
                script.into(),
            ];
            command.extend(
                files
                    .into_iter()
                    .flat_map(|(flag, file)| [flag.to_owned(), file]),
            );
            command.extend(more.iter().map(|word| (*word).to_owned()));
            command.push("eth0".into());
            command
        })
    }
    fn start(site: &Site, host: &Host, words: impl Fn(&str, &str) -> Vec<String>) -> Self {
        let at = site.rig.path(&format!("client-{}", host.name));
        let log = at.with_extension("log");
        let script = at.with_extension("sh");
        // of a client before it
        let _ = std::fs::remove_file(&log);
        let text = SCRIPT.replace("LOG", &log.display().to_string());
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let words = words(script.to_str().unwrap(), at.to_str().unwrap());
        let mut command = host.program();
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        Self { child, log }
    }
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
    /// What it was told at the last time of an event.
    fn told(&self, event: &str) -> Option<String> {
        let log = self.log();
        let told = log.lines().rev().find_map(|line| line.strip_prefix(event));
        told.map(|line| line.trim().to_owned())
    }
    async fn happens(&self, event: &str) -> String {
        until(event, || self.told(event).is_some()).await;
        self.told(event).unwrap()
    }
    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        switch::run(Command::new("kill").args(["-s", name, &pid]));
    }
}
impl Drop for Client {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ready(test: &str) -> bool {
    let tools = [
        ("busybox", "busybox-static"),
        ("dhclient", "isc-dhcp-client"),
    ];
    for (tool, package) in tools {
        if Command::new(tool).arg("--version").output().is_err() {
            skipped(test, &format!("needs Debian's {package}"));
            return false;
        }
    }
    true
}

#[test]
fn hosts_get_their_addresses_talk_extend_them_and_give_them_back() {
    if !ready("dhcp") {
        return;
    }
    with_switches("dhcp", async |rig| {
        let site = Site::start(rig).await;
        let (scope, other) = (site.host("edge1", "ha", 1), site.host("edge2", "hb", 2));
        let one = Client::udhcpc(&site, &scope, &[]);
        let two = Client::dhclient(&site, &other, &["-v"]);
        let (told, theirs) = (one.happens("bound").await, two.happens("bound").await);
        println!("udhcpc: {told}; dhclient: {theirs}");
        let address = |told: &str| told.split(' ').next().unwrap().parse::<Ipv4Addr>().unwrap();
        let (a, b) = (address(&told), address(&theirs));
        for (mac, ip) in [(scope.mac, a), (other.mac, b)] {
            let lease = site.lease(mac).await.unwrap();
            assert_eq!(lease.client_id, format!("dhcp:{mac}"));
            assert_eq!(lease.ips[0].to_string(), format!("{ip}/24"));
        }
        // each client's own form of: 169.254.0.67/32 on the link
        assert!(
            told.contains("255.255.255.0 169.254.0.67/32 0.0.0.0"),
            "{told}"
        );
        assert!(
            theirs.contains("255.255.255.0 32 169 254 0 67 0 0 0 0"),
            "{theirs}"
        );
        assert!(scope.run("ip link show dev eth0").contains("mtu 1400"));

        // the rules for them are there as soon as their slice is in the switches
        let before = site.lease(other.mac).await.unwrap();
        until("one reaches the other", || {
            let (from, at) = (scope.socket(a), other.socket(b));
            switch::host::arrives(&from, &at) && switch::host::arrives(&at, &from)
        })
        .await;
        assert_eq!(site.fabric.check().await, []);

        // asked for, and by itself at half of its time; each asks the server alone
        let bound = site.lease(scope.mac).await.unwrap();
        one.signal("USR1");
        assert!(one.happens("renew").await.starts_with(&a.to_string()));
        let later = |old: Lease| {
            move |new: Option<&Lease>| {
                new.is_some_and(|new| new.id == old.id && new.expires_at > old.expires_at)
            }
        };
        site.leased("it has more time", scope.mac, later(bound))
            .await;
        assert!(two.happens("renew").await.starts_with(&b.to_string()));
        site.leased("it has more time", other.mac, later(before))
            .await;
        let known = other.run(&format!("ip neigh show {SERVER}"));
        assert!(known.contains(&SERVER_MAC.to_string()), "{known}");

        one.signal("USR2");
        site.leased("it is given back", scope.mac, |lease| lease.is_none())
            .await;
        drop(two);
        let _gives_back = Client::dhclient(&site, &other, &["-r"]);
        site.leased("it is given back", other.mac, |lease| lease.is_none())
            .await;
        until("nothing of them is in the switches", || {
            let all = TWO.map(|name| site.rig.ofctl("dump-flows", name));
            !all.iter().any(|flows| flows.contains(&a.to_string()))
        })
        .await;

        // who comes again gets the address that it had
        drop(one);
        let again = Client::udhcpc(&site, &scope, &[]);
        assert_eq!(address(&again.happens("bound").await), a);
    });
}

/// A frame of DHCP with these hardware addresses.
fn discover(from: MacAddress, host: MacAddress) -> String {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(7, none, none, none, none, &host.bytes());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(MessageType::Discover));
    let body = message.to_vec().unwrap();
    let mut frame = [[0xff; 6], from.bytes()].concat();
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((28 + body.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    frame.extend([0, 68, 0, 67]);
    frame.extend((8 + body.len() as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(body);
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn nobody_gets_an_address_that_is_another_hosts_or_at_another_port() {
    if !ready("dhcp_strangers") {
        return;
    }
    with_switches("dhcp_strangers", async |rig| {
        let site = Site::start(rig).await;
        // equipment that sends whatever it likes, and counts what it is told
        let rig = &site.rig;
        rig.vsctl(
            "add-br rogue -- set bridge rogue datapath_type=netdev fail_mode=secure \
             protocols=OpenFlow13 other-config:disable-in-band=true",
        );
        for (switch, port, peer) in [("edge1", "rx", "tx"), ("rogue", "tx", "rx")] {
            rig.vsctl(&format!(
                "add-port {switch} {port} -- set interface {port} type=patch options:peer={peer}"
            ));
        }
        rig.ofctl("add-flow udp,tp_dst=68,actions=drop", "rogue");
        until("the rules for its port are there", || {
            rig.ofctl("dump-flows", "edge1")
                .matches("tp_src=68")
                .count()
                == 2
        })
        .await;
        let told = || -> u64 {
            let flows = rig.ofctl("dump-flows", "rogue");
            let from = flows.find("n_packets=").unwrap() + "n_packets=".len();
            let rest = &flows[from..];
            rest[..rest.find(',').unwrap()].parse().unwrap()
        };
        let sends = |frame: &str, times: usize| {
            let outputs = vec!["output:tx"; times].join(",");
            let out = format!("packet-out in_port=controller,packet={frame},actions={outputs}");
            rig.ofctl(&out, "rogue");
        };
        let scope = MacAddress::new([2, 0, 0, 0, 0, 1]);
        // each of them before one that is answered: then they have been looked at
        sends(&discover(MADE, scope), 1);
        sends(&discover(scope, MADE), 1);
        sends(&discover(scope, scope), 1);
        sends(&discover(MADE, MADE), 1);
        until("its own question is answered", || told() > 0).await;
        assert_eq!(told(), 1, "what is not its own is answered as well");

        // a flood is answered as far as the share of its port goes
        sends(&discover(MADE, MADE), 400);
        until("some are answered", || told() > 1).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(told() < 25, "{} of 400", told());

        // who is at no port of the site's, and whose NIC is not declared
        let (stranger, later) = (site.host("edge1", "hc", 3), site.host("edge1", "hd", 4));
        let tries = ["-n", "-q", "-t", "3"];
        let mut clients = [&stranger, &later].map(|host| Client::udhcpc(&site, host, &tries));
        let scope = site.host("edge1", "ha", 1);
        // and nobody else is held up by all that
        let served = Client::udhcpc(&site, &scope, &[]);
        served.happens("bound").await;
        for client in &mut clients {
            assert_eq!(client.child.wait().unwrap().code(), Some(1));
            assert_eq!(client.told("bound"), None);
        }
        let all = site.engine.leases(ADMIN, Some(site.slice), None).await;
        assert_eq!(all.len(), 1, "an offer is no lease: {all:?}");
        assert_eq!(all[0].state, LeaseState::Bound);
        let told = |host: &Host| {
            rig.ofctl("dump-flows", "edge1")
                .contains(&host.mac.to_string())
        };
        assert!(!told(&stranger) && !told(&later));
    });
}
