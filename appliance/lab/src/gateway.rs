//! A gateway at each site, and the external network behind it with one host on it: names, addresses,
//! cables, what the daemons are told of them, and that host's services, running.
//!
//! ```text
//! pod ── visit0 ─┐                        ┌ the gateway's namespace ┐
//!             switch ── door0 ────────────┤ child of door0     ext0 ├──── out0  SITE-outside
//! pod ── data0 ──┘                        └─────────────────────────┘
//! ```
//!
//! Nothing of it is in the way of the files that move: they go by `data0`.

use crate::{
    pillar::{Pillar, Watch},
    place::{Place, SITES},
    shell::SHORT,
};
use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::Stdio,
};
use tokio::{io::AsyncReadExt, process::Command, time::timeout};

mod counters;
mod doors;
mod trial;
mod visitor;
pub use trial::{give_back, run};

/// Name of the gateway in each domain.
pub const NAME: &str = "outside";
/// The shared NIC of the pod that goes out; its port at the site's switch has the second name.
pub const VISIT: (&str, &str) = ("visit0", "port-visit0");
/// The gateway's NIC towards the slices, and its port.
pub const DOOR: (&str, &str) = ("door0", "port-door0");
/// The gateway's NIC towards the external network.
pub const OUTSIDE_NIC: &str = "ext0";
/// The end of its cable, at the host there.
const OUTSIDE_LINK: &str = "out0";
/// TCP ports that the host there answers on. A rule will allow all but the last.
pub const SERVICES: [u16; 3] = [443, 444, 445];

/// The NICs of a site that are plugged into its switch beside the data NICs, each with its port.
pub const PLUGS: [(&str, &str); 2] = [VISIT, DOOR];

/// Name of a site's network namespace of the external network.
pub fn space(site: usize) -> String {
    format!("{}-outside", SITES[site])
}

/// A site's external network, of those for documentation (RFC 5737, RFC 3849): its host has 1, the
/// gateway 2.
fn address(site: usize, host: u8) -> [IpNet; 2] {
    // one network for each of the sites, of which there are two
    let (v4, site) = if site == 0 {
        (Ipv4Addr::new(198, 51, 100, host), 1)
    } else {
        (Ipv4Addr::new(203, 0, 113, host), 2)
    };
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, site, 0, 0, 0, 0, host.into());
    [
        IpNet::new_assert(v4.into(), 24),
        IpNet::new_assert(v6.into(), 64),
    ]
}

/// The addresses of the host on a site's external network.
pub fn host(site: usize) -> [IpAddr; 2] {
    address(site, 1).map(|net| net.addr())
}

/// The addresses of a gateway on its external network.
fn gateway(site: usize) -> [IpNet; 2] {
    address(site, 2)
}

/// The commands of `ip -batch` that lay the cable from a site's host to its external network, and that
/// give the host there its addresses and a way back to the domain's slices (`pools`).
pub fn cabling(site: usize, pools: &[IpNet]) -> String {
    let (name, space) = (SITES[site], space(site));
    let mut text = format!(
        "-n {space} link set lo up\n\
         -n {space} link add {OUTSIDE_LINK} type veth peer name {OUTSIDE_NIC} netns {name}\n"
    );
    for net in address(site, 1) {
        let _ = writeln!(
            text,
            "-n {space} addr add {net} dev {OUTSIDE_LINK}{}",
            // the cable has nobody else on it who could have the address
            if net.addr().is_ipv6() { " nodad" } else { "" }
        );
    }
    let _ = writeln!(text, "-n {space} link set {OUTSIDE_LINK} up");
    let _ = writeln!(text, "-n {name} link set {OUTSIDE_NIC} up");
    let ways = gateway(site);
    for pool in pools {
        let via = ways
            .iter()
            .find(|way| way.addr().is_ipv6() == pool.addr().is_ipv6());
        if let Some(via) = via {
            let _ = writeln!(text, "-n {space} route add {pool} via {}", via.addr());
        }
    }
    text
}

/// `[[nic]]` of a site's `appliance.toml`, for those of the gateway and the pod that goes out by it.
pub fn nic_tables() -> String {
    [
        (VISIT.0, "shared"),
        (DOOR.0, "shared"),
        (OUTSIDE_NIC, "dedicated"),
    ]
    .iter()
    .fold(String::new(), |mut text, (nic, class)| {
        let _ = write!(
            text,
            "\n[[nic]]\nname = \"{nic}\"\nclass = \"{class}\"\nspeed = \"10Gbit\"\n"
        );
        text
    })
}

/// `[[gateway]]` of a site's `appliance.toml`.
pub fn gateway_table(site: usize) -> String {
    let quoted = |all: &[String]| format!("[\"{}\"]", all.join("\", \""));
    format!(
        r#"
[[gateway]]
name = "{NAME}"
inside = "{}"
outside = "{OUTSIDE_NIC}"
addresses = {}
routers = {}
networks = ["0.0.0.0/0", "::/0"]
"#,
        DOOR.0,
        quoted(&gateway(site).map(|net| net.to_string())),
        quoted(&host(site).map(|ip| ip.to_string())),
    )
}

/// Starts the services of the host on a site's external network.
pub async fn serve(site: usize, place: &Place, program: &Path, watch: &Watch) -> Result<Pillar> {
    let name = format!("the host outside of {}", SITES[site]);
    let log = place.log(&space(site));
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{}", space(site)))
        .arg("--")
        .arg(program);
    let child = answering(command, &name, &SERVICES, place, &log).await?;
    Ok(watch.over(name, &log, child))
}

/// Starts a process that answers on TCP ports, and waits until it does. It ends with its input.
async fn answering(
    mut command: Command,
    name: &str,
    ports: &[u16],
    place: &Place,
    log: &Path,
) -> Result<tokio::process::Child> {
    let file = std::fs::File::create(log).with_context(|| format!("opening {}", log.display()))?;
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    let mut child = command
        .args([
            "lab",
            "part",
            "answer",
            "--ports",
            &ports.join(","),
            "--state",
        ])
        .arg(place.state())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(file)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let mut stdout = child
        .stdout
        .take()
        .with_context(|| format!("{name} has no output"))?;
    let mut word = [0_u8; 6];
    timeout(SHORT, stdout.read_exact(&mut word))
        .await
        .with_context(|| format!("waiting {} s for {name}", SHORT.as_secs()))?
        .with_context(|| format!("{name} ended early; its log is {}", log.display()))?;
    ensure!(&word == b"ready\n", "{name} said {word:?}");
    Ok(child)
}

#[cfg(test)]
mod tests;
