//! Hosts around the switches of a test, and what they send.

use super::run;
use crate::wish::LONG;
use dtn_api::MacAddress;
use dtn_link::Netns;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use vdnd::fabric::Attached;

/// How long something is listened for that must not come.
const SHORT: Duration = Duration::from_secs(1);

/// A host.
pub(crate) struct Host {
    pub(crate) name: &'static str,
    pub(super) netns: Netns,
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
    /// Does something as the host.
    pub(crate) fn within<T: Send>(&self, deed: impl FnOnce() -> T + Send) -> T {
        self.netns.run_blocking(deed).unwrap()
    }
    /// A program of the host that ends with the thread that starts it, at the latest.
    pub(crate) fn program(&self) -> Command {
        let net = format!("--net={}", self.netns.proc_path().display());
        super::words(&format!("setpriv --pdeathsig KILL -- nsenter {net} --"))
    }
    /// Takes over the switch's end of another host's cable, as a NIC of its own.
    pub(crate) fn plugs(&self, other: &Host) {
        let there = self.netns.proc_path();
        let name = other.name;
        run(&mut super::words(&format!(
            "ip link set dev {name} netns {}",
            there.display()
        )));
        self.run(&format!("ip link set dev {name} up"));
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

/// What came of sending.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Frames that were sent.
    pub(crate) sent: u64,
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
    let done = AtomicBool::new(false);
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
                    Err(_) if done.load(Ordering::Relaxed) => break,
                    Err(_) => {}
                }
            }
            Sent {
                sent: 0,
                received,
                lasted: first.map_or(Duration::ZERO, |first| last - first),
            }
        });
        let (began, mut sent) = (Instant::now(), 0);
        while began.elapsed() < lasting {
            let next = Instant::now() + gap;
            for _ in 0..each {
                sender.send_to(&[7; PAYLOAD], at).unwrap();
            }
            sent += each;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        done.store(true, Ordering::Relaxed);
        let came = counting.join().unwrap();
        Sent { sent, ..came }
    })
}
