//! A gateway at a switch, what lies outside, and who connects through it. The gateway itself forwards
//! everything, so what is kept out is kept out by switches.

use super::{Rig, host::Host};
use dtn_api::gateway::AccessRule;
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};
use vdnd::fabric::{Access, Intent};

/// How long a connection is waited for that must not come to be; SYNs are sent again within it.
pub(crate) const NEVER: Duration = Duration::from_millis(1500);
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A gateway at a switch and a host outside.
pub(crate) struct Outside {
    pub(crate) gateway: Host,
    pub(crate) host: Host,
}
impl Outside {
    /// With addresses of 192.0.2.0/24 and 2001:db8::/64 outside.
    pub(crate) fn at(rig: &Rig, switch: &str) -> Self {
        let gateway = rig.host(switch, "hg", 20);
        let mut host = rig.unplugged("ho", 9);
        gateway.plugs(&host);
        host.run("ip addr flush dev eth0");
        (host.v4, host.v6) = (Ipv4Addr::new(192, 0, 2, 9), "2001:db8::9".parse().unwrap());
        host.run("ip addr add 192.0.2.9/24 dev eth0");
        host.run("ip addr add 2001:db8::9/64 dev eth0 nodad");
        gateway.run("ip addr add 192.0.2.1/24 dev ho");
        gateway.run("ip addr add 2001:db8::1/64 dev ho nodad");
        host.run("ip route add 10.0.0.0/24 via 192.0.2.1");
        host.run("ip route add fd00::/64 via 2001:db8::1");
        forwards(&gateway);
        Self { gateway, host }
    }
    /// A member sends to the outside by the gateway.
    pub(crate) fn route(&self, member: &Host) {
        let (v4, v6): (Ipv4Addr, Ipv6Addr) = (self.gateway.v4, self.gateway.v6);
        for net in ["192.0.2.0/24", "198.51.100.0/24"] {
            member.run(&format!("ip route add {net} via {v4}"));
        }
        member.run(&format!("ip route add 2001:db8::/32 via {v6}"));
    }
}
/// Makes a router of a host.
pub(crate) fn forwards(host: &Host) {
    host.within(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
    });
}

/// A slice whose gateway has these rules.
pub(crate) fn gated(mut intent: Intent, gateway: &Host, rules: &[&str]) -> Intent {
    let rule = |text: &&str| serde_json::from_str::<AccessRule>(text).unwrap();
    intent.access = Some(Access {
        gateway: gateway.mac,
        subnets: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        rules: rules.iter().map(rule).collect(),
    });
    intent
}
pub(crate) const WEB: &str = r#"{"priority":100,"action":"allow","direction":"outbound","match":{"proto":"tcp","dst_ports":["443","50000-51000"]}}"#;
pub(crate) const NO_WEB: &str = r#"{"priority":50,"action":"deny","direction":"outbound","match":{"proto":"tcp","dst_ports":["443"]}}"#;
pub(crate) const ALL: &str =
    r#"{"priority":200,"action":"allow","direction":"inbound","match":{}}"#;

/// Whether a TCP connection comes to be and carries a word both ways.
pub(crate) fn connects(from: &Host, to: &Host, at: IpAddr, port: u16, patience: Duration) -> bool {
    let at = SocketAddr::new(at, port);
    let listener = to.within(|| TcpListener::bind(at).unwrap());
    let dialled = from.within(|| TcpStream::connect_timeout(&at, patience));
    let Ok(mut here) = dialled else {
        return false;
    };
    let (mut there, _) = listener.accept().unwrap();
    for stream in [&here, &there] {
        stream.set_read_timeout(Some(SOON)).unwrap();
    }
    let mut word = [0; 4];
    here.write_all(b"ping").unwrap();
    there.read_exact(&mut word).unwrap();
    there.write_all(b"pong").unwrap();
    here.read_exact(&mut word).unwrap();
    word == *b"pong"
}
/// The same over both families.
pub(crate) fn both(from: &Host, to: &Host, port: u16, patience: Duration) -> [bool; 2] {
    [IpAddr::from(to.v4), to.v6.into()].map(|at| connects(from, to, at, port, patience))
}
