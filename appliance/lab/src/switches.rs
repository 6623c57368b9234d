//! The sites' switches as texts: three Open vSwitch bridges per site, their names, cables and
//! commands, what the controller is told of them, and what they say of their meters. Nothing is run
//! here; [`crate::openvswitch`] does that.
//!
//! ```text
//! data0 ─ port0        edge1-core ─ core-edge1        core-edge2 ─ edge2-core         border ═ wide area
//!         └──── edge1 ────┘            └───── core ─────┘             └──── edge2 ────┘
//! ```
//!
//! The data path is the one in user space (`datapath_type=netdev`), which every kernel can run. The
//! bridges are joined by patch ports: on two processors, frames of 9000 bytes and both sites on them,
//! one TCP stream got 1.23 Gb/s through patch ports and 1.04 through veth (1500 bytes: 0.67 and
//! 0.53), and paced at 300 Mbit it sent 249 segments again in 5 s and not 959, for half the processor
//! time: a frame is copied through the kernel twice per site and not six times.

use crate::{Options, place::SITES, probe, site};
use dtn_api::Rate;
use std::{fmt::Write, net::Ipv4Addr, time::Duration};

/// The bridges of a site, from its hosts to the border.
pub const BRIDGES: [&str; 3] = ["edge1", "core", "edge2"];
/// The cables between them. A port's name is one of the whole process, not of its bridge.
pub const CABLES: [[(&str, &str); 2]; 2] = [
    [("edge1", "edge1-core"), ("core", "core-edge1")],
    [("core", "core-edge2"), ("edge2", "edge2-core")],
];
/// Bridge and port of the wide-area link.
pub const BORDER: (&str, &str) = ("edge2", "border");
/// Bridge of the hosts' ports.
pub const ACCESS: &str = "edge1";
/// Port that stands for a host while the switches are tried; its other end has the second name.
pub const TRIAL: (&str, &str) = ("try", "try0");
/// TCP port where a controller hears switches (IANA: openflow).
pub const CONTROLLER_PORT: u16 = 6653;
/// The frame rate of the wide-area link when nothing else is said: at it, paced streams of 1500 and
/// of 9000 bytes lost nothing on two processors, which also have the rest of the lab to run.
pub const DEFAULT_WAN: Rate = Rate::from_bps(200_000_000);
/// What a cable between two bridges is declared with. It is none of the limits: the processor is.
const CABLE_CAPACITY: &str = "10Gbit";
/// Tags of the trial: inside a site, and between the sites. Gone before anyone else sends.
const TAGS: [u16; 2] = [4001, 4002];
/// The bit beside a VLAN id that says that there is one (OpenFlow 1.3.5 §7.2.3.7, OFPVID_PRESENT).
const PRESENT: u16 = 0x1000;

/// Frame rates that are tried, Mbit/s: about a third apart, which is how exactly a busy machine can
/// be known.
pub const RUNGS: [u64; 10] = [10, 20, 50, 100, 150, 200, 300, 400, 600, 800];
/// A rate is carried when this share of its TCP ceiling arrives.
const CARRIED: f64 = 0.95;

/// Datapath id of a bridge: site and bridge are its last two digits, from 1.
pub fn datapath_id(site: usize, bridge: usize) -> String {
    format!("{:014}{}{}", 0, site + 1, bridge + 1)
}

/// Address of a site's switches in the management network.
pub fn management(site: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 254, 0, 21 + u8::try_from(site).unwrap_or(0))
}

/// Name of a site's network namespace of switches.
pub fn space(site: usize) -> String {
    format!("{}-switch", SITES[site])
}

/// The commands of `ip -batch` that join a site's switches to the management network.
pub fn management_link(site: usize) -> String {
    let (name, space) = (SITES[site], space(site));
    format!(
        "link add ms-{name} type veth peer name mgmt0 netns {space}\n\
         link set ms-{name} master mgmt up\n\
         -n {space} addr add {}/24 dev mgmt0\n\
         -n {space} link set mgmt0 up\n",
        management(site)
    )
}

/// One `ovs-vsctl` that makes the bridges, their cables and the hosts' ports.
///
/// `fail_mode=secure`: without a controller a bridge keeps the flows that it has and learns nothing.
/// In-band control is off, since the controller is reached over a link that no bridge has.
pub fn bridges(site: usize, nics: u32) -> Vec<String> {
    let mut words = Vec::new();
    let mut say = |command: String| {
        words.push("--".to_owned());
        words.extend(command.split(' ').map(str::to_owned));
    };
    for (index, bridge) in BRIDGES.iter().enumerate() {
        say(format!("add-br {bridge}"));
        say(format!(
            "set bridge {bridge} datapath_type=netdev protocols=OpenFlow13 fail_mode=secure other_config:datapath-id={} other_config:disable-in-band=true",
            datapath_id(site, index)
        ));
    }
    for [one, other] in CABLES {
        for ((bridge, port), (_, peer)) in [(one, other), (other, one)] {
            say(format!("add-port {bridge} {port}"));
            say(format!(
                "set interface {port} type=patch options:peer={peer}"
            ));
        }
    }
    for (_, port) in site::plugs(nics) {
        say(format!("add-port {ACCESS} {port}"));
    }
    words
}

/// One `ovs-vsctl` that names the controller: out of band, and asked again after a second at most.
pub fn obedience(controller: Ipv4Addr) -> Vec<String> {
    let mut words = Vec::new();
    for bridge in BRIDGES {
        let commands = [
            format!("set-controller {bridge} tcp:{controller}:{CONTROLLER_PORT}"),
            format!("set controller {bridge} connection_mode=out-of-band max_backoff=1000"),
        ];
        for command in commands {
            words.push("--".to_owned());
            words.extend(command.split(' ').map(str::to_owned));
        }
    }
    words
}

/// Flows of a bridge for the trial, a line each: tagged at the edge, carried by the core, and with
/// another tag over the border, as a slice's frames will be.
pub fn trial_flows(bridge: &str) -> String {
    let [inside, between] = TAGS.map(|tag| tag | PRESENT);
    let ([access, up], [down, out]) = (
        CABLES[0].map(|(_, port)| port),
        CABLES[1].map(|(_, port)| port),
    );
    let (port, border) = (TRIAL.0, BORDER.1);
    match bridge {
        "edge1" => format!(
            "in_port={port},actions=push_vlan:0x8100,set_field:{inside}->vlan_vid,output:{access}\n\
             in_port={access},vlan_vid={inside},actions=pop_vlan,output:{port}\n"
        ),
        "core" => {
            format!("in_port={up},actions=output:{down}\nin_port={down},actions=output:{up}\n")
        }
        _ => format!(
            "in_port={out},vlan_vid={inside},actions=set_field:{between}->vlan_vid,output:{border}\n\
             in_port={border},vlan_vid={between},actions=set_field:{inside}->vlan_vid,output:{out}\n"
        ),
    }
}

/// Whether a TCP stream that was paced at a frame rate was carried. Its ceiling: of every `mtu + 14`
/// bytes of a frame 52 are headers of IPv4 and of TCP with timestamps, and 14 of Ethernet.
pub fn carried(rate: Rate, mtu: u32, arrived: Rate) -> bool {
    let mtu = f64::from(mtu);
    arrived.bps() as f64 >= rate.bps() as f64 * (mtu - 52.0) / (mtu + 14.0) * CARRIED
}

/// The highest rung that is carried, found by halving. `None` when not even the lowest is.
pub async fn climb<E>(
    rungs: &[u64],
    mut holds: impl AsyncFnMut(Rate) -> Result<bool, E>,
) -> Result<Option<Rate>, E> {
    let (mut best, mut from, mut to) = (None, 0, rungs.len());
    while from < to {
        let middle = usize::midpoint(from, to);
        let rate = Rate::from_bps(rungs[middle] * 1_000_000);
        if holds(rate).await? {
            (best, from) = (Some(rate), middle + 1);
        } else {
            to = middle;
        }
    }
    Ok(best)
}

/// Longest time of all trials: three or four of them, and the starts of their two ends.
pub fn trial_time(rtt: Duration) -> Duration {
    (probe::warm_up(rtt) + Duration::from_secs(3)) * 4
}

/// `[fabric]` of a site's `appliance.toml` where its controller programs the switches itself.
pub fn fabric_table(listen: Ipv4Addr) -> String {
    format!(
        r#"
[fabric]
kind = "openflow"
listen = "{listen}:{CONTROLLER_PORT}"
# the management network has nobody else in it
plain = true
"#
    )
}

/// `[[switch]]`, `[[cable]]` and `[[port]]` of a site's `appliance.toml`.
pub fn vdnd_tables(options: &Options, site: usize, host: &str) -> String {
    let mut text = String::new();
    for (index, bridge) in BRIDGES.iter().enumerate() {
        let _ = write!(
            text,
            "\n[[switch]]\nname = \"{bridge}\"\ndatapath-id = \"{}\"\n",
            datapath_id(site, index)
        );
    }
    for [(one, port), (other, peer)] in CABLES {
        let _ = write!(
            text,
            "\n[[cable]]\nends = \"{one}/{port} {other}/{peer}\"\ncapacity = \"{CABLE_CAPACITY}\"\nmtu = {}\n",
            options.mtu
        );
    }
    for (nic, port) in site::plugs(options.nics) {
        let _ = write!(
            text,
            "\n[[port]]\nnic = \"{host}/{nic}\"\nat = \"{ACCESS}/{port}\"\n"
        );
    }
    text
}

/// The border's place in `appliance.toml`.
pub fn border_place() -> String {
    format!("{}/{}", BORDER.0, BORDER.1)
}

/// Frames that the bands of a bridge's meters dropped, from `ovs-ofctl meter-stats`. A meter's lines
/// are its own counters and, after `bands:`, one line per band, which begins with its number.
pub fn dropped(meter_stats: &str) -> Option<u64> {
    let mut all = 0_u64;
    for line in meter_stats.lines().map(str::trim) {
        let Some((band, counters)) = line.split_once(": packet_count:") else {
            continue;
        };
        if !band.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let count = counters.split_whitespace().next()?.parse::<u64>().ok()?;
        all = all.checked_add(count)?;
    }
    Some(all)
}

/// Packets that the rules of the table of access have dropped, from `ovs-ofctl dump-flows`.
pub fn denied(flows: &str) -> Option<u64> {
    let mut all = 0_u64;
    for line in flows.lines().map(str::trim) {
        if !line.contains("table=10,") || !line.ends_with("actions=drop") {
            continue;
        }
        let (_, count) = line.split_once("n_packets=")?;
        let digits = count.split(',').next()?.trim();
        all = all.checked_add(digits.parse().ok()?)?;
    }
    Some(all)
}

#[cfg(test)]
mod tests;
