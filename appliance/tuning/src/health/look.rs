//! Collects the facts that [`super`] judges. Without root as far as the kernel lets: what it does not
//! is put down in words. Nothing is changed.

use super::{
    host::{CLOCK_KEEPERS, Clock, HostHealth, QDISCS, TUNERS},
    nic::{Firmware, Look, Neighbour, NicHealth},
    plan,
};
use dtn_api::{PciAddress, Rate, nic::NicClass};
use dtn_link::{Netns, Result, block, ethtool, inventory, machine, pcie, qdisc, sysfs::Sysfs};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

/// For a program that is asked: all of them answer from memory.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer of a program that is read, in bytes.
const LONGEST: usize = 256 << 10;

/// A NIC that shall be looked at.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name on the host.
    pub name: String,
    /// How the site gave it.
    pub class: Option<NicClass>,
    /// The speed that the site states.
    pub stated: Option<Rate>,
    /// Reasons against taking it.
    pub guarded: Vec<String>,
    /// Where it sits, where that is known.
    pub pci: Option<PciAddress>,
    /// The pod that has it, with the sandbox and its name there.
    pub inside: Option<Inside>,
}

/// Where a NIC is while a pod has it.
#[derive(Debug, Clone)]
pub struct Inside {
    /// The pod's key.
    pub key: String,
    /// Its sandbox.
    pub netns: PathBuf,
    /// The interface there.
    pub ifname: String,
}

/// Where the machine's own files are.
#[derive(Debug, Clone)]
pub struct Machine {
    /// sysfs.
    pub sysfs: Sysfs,
    /// procfs.
    pub proc: PathBuf,
}

impl Machine {
    /// This machine.
    pub fn system() -> Self {
        Self {
            sysfs: Sysfs::system(),
            proc: "/proc".into(),
        }
    }
}

/// Looks at NICs, twice, so that what is counted meanwhile shows.
pub async fn nics(machine: &Machine, wanted: &[Wanted], over: Duration) -> Vec<NicHealth> {
    let mut found = Vec::new();
    let mut first = Vec::new();
    for one in wanted {
        let (nic, place) = nic(machine, one).await;
        first.push(place);
        found.push(nic);
    }
    if first.iter().any(Option::is_some) && !over.is_zero() {
        tokio::time::sleep(over).await;
        for (nic, place) in found.iter_mut().zip(first) {
            if let Some((netns, index, started)) = place
                && let Some(before) = &nic.link
                && let Ok(now) = link_of(&netns, index).await
            {
                nic.look = Some(Look {
                    millis: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                    faults: now.faults.since(&before.faults),
                });
                nic.link = Some(now);
            }
        }
    }
    let neighbours = neighbours().await;
    for nic in &mut found {
        nic.neighbour = neighbours
            .iter()
            .find(|(name, _)| *name == nic.name)
            .map(|(_, neighbour)| neighbour.clone());
    }
    found
}

async fn link_of(netns: &Netns, index: u32) -> Result<inventory::LinkState> {
    inventory::link(&netns.connect().await?, index).await
}

type Place = (Netns, u32, std::time::Instant);

async fn nic(machine: &Machine, wanted: &Wanted) -> (NicHealth, Option<Place>) {
    let mut nic = NicHealth {
        name: wanted.name.clone(),
        class: wanted.class,
        stated: wanted.stated,
        guarded: wanted.guarded.clone(),
        inside: wanted.inside.as_ref().map(|inside| inside.key.clone()),
        ..NicHealth::default()
    };
    let card = match &wanted.pci {
        Some(address) => pcie::of_address(&machine.sysfs, &machine.proc, address),
        None => pcie::of_nic(&machine.sysfs, &machine.proc, &wanted.name),
    };
    match card {
        Ok(card) => nic.pcie = card,
        Err(e) => nic.unseen.push(format!("its card: {e}")),
    }
    let netns = match &wanted.inside {
        Some(inside) => Netns::open(&inside.netns),
        None => Netns::current(),
    };
    let name = wanted
        .inside
        .as_ref()
        .map_or(&wanted.name, |inside| &inside.ifname);
    let place = match netns {
        Ok(netns) => {
            let found = async { inventory::link_by_name(&netns.connect().await?, name).await };
            match found.await {
                Ok(link) => {
                    let index = link.index;
                    nic.link = Some(link);
                    Some((netns, index, std::time::Instant::now()))
                }
                Err(e) if e.is_not_found() => None,
                Err(e) => {
                    nic.unseen.push(format!("its link: {e}"));
                    None
                }
            }
        }
        Err(e) => {
            nic.unseen.push(format!("the sandbox that it is in: {e}"));
            None
        }
    };
    if let Some((netns, index, _)) = &place {
        match ethtool::read(netns, *index).await {
            Ok(port) => {
                nic.unseen.extend(port.unread.iter().cloned());
                nic.port = Some(port);
            }
            Err(e) => nic.unseen.push(format!("what its driver says: {e}")),
        }
    }
    if wanted.inside.is_none() && nic.link.is_some() {
        match program("ethtool", &["-i", &wanted.name]).await {
            Some(text) => nic.firmware = driver(&text),
            None => nic
                .unseen
                .push("its firmware: the program ethtool is not there or gave no answer".into()),
        }
    }
    // where only looking failed, it is not missing
    if nic.link.is_none() && !nic.unseen.is_empty() {
        nic.link = Some(inventory::LinkState {
            name: wanted.name.clone(),
            mtu: 1500,
            ..inventory::LinkState::default()
        });
    }
    (nic, place)
}

/// Looks at the machine and the data folder.
pub async fn host(at: &Machine, data: Option<&Path>) -> HostHealth {
    let mut host = HostHealth::default();
    let programs: Vec<&str> = TUNERS
        .iter()
        .map(|(name, _)| *name)
        .chain(CLOCK_KEEPERS)
        .collect();
    match machine::look(&at.sysfs, &at.proc, &programs, &plan::KEYS) {
        Ok(machine) => host.machine = machine,
        Err(e) => host.unseen.push(format!("the machine: {e}")),
    }
    if nix_is_root() {
        match qdisc::offered(&QDISCS).await {
            Ok(found) => host.qdiscs = Some(found),
            Err(e) => host
                .unseen
                .push(format!("which queues the kernel has: {e}")),
        }
    } else {
        host.unseen
            .push("which queues the kernel has: only root can try them".into());
    }
    match Netns::current() {
        Ok(netns) => match crate::controls(&netns).await {
            Ok(controls) => host.controls = Some(controls),
            Err(e) => host.unseen.push(format!("congestion controls: {e}")),
        },
        Err(e) => host.unseen.push(format!("congestion controls: {e}")),
    }
    if let Some(folder) = data {
        match block::room(&at.sysfs, &at.proc, folder) {
            Ok(room) => host.data = Some(room),
            Err(e) => host.unseen.push(format!("the data folder: {e}")),
        }
    }
    host.clock = clock(&host.machine.running).await;
    host
}

/// `/proc/self` belongs to the effective user.
fn nix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0)
}

async fn clock(running: &[String]) -> Clock {
    let keeper = CLOCK_KEEPERS
        .iter()
        .find(|name| running.iter().any(|one| one == *name))
        .map(|name| (*name).to_owned());
    let mut clock = Clock {
        keeper,
        ..Clock::default()
    };
    match clock.keeper.as_deref() {
        Some("chronyd") => {
            let text = program("chronyc", &["-c", "-n", "tracking"]).await;
            if let Some((synchronized, off)) = text.as_deref().and_then(chrony) {
                clock.synchronized = Some(synchronized);
                clock.off_millis = Some(off);
            }
        }
        Some("systemd-timesyn") => {
            // its flag: the file is there once the clock was set by a server
            clock.synchronized = Some(Path::new("/run/systemd/timesync/synchronized").exists());
        }
        Some(_) => {
            let text = program("timedatectl", &["show", "-p", "NTPSynchronized", "--value"]).await;
            clock.synchronized = match text.as_deref().map(str::trim) {
                Some("yes") => Some(true),
                Some("no") => Some(false),
                _ => None,
            };
        }
        None => {}
    }
    clock
}

/// `chronyc -c tracking` (chronyc(1)): fields between commas, of which the fifth is the offset of
/// the system's clock in seconds and the last the leap status; `Not synchronised` is one of those.
fn chrony(text: &str) -> Option<(bool, u64)> {
    let fields: Vec<&str> = text.trim().split(',').collect();
    let off: f64 = fields.get(4)?.parse().ok()?;
    let leap = fields.last()?;
    Some((
        *leap != "Not synchronised",
        (off.abs() * 1000.0).round() as u64,
    ))
}

/// `ethtool -i`: a name and a value a line.
fn driver(text: &str) -> Option<Firmware> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().to_owned())
    };
    Some(Firmware {
        driver: value("driver:")?,
        version: value("version:").unwrap_or_default(),
        firmware: value("firmware-version:").unwrap_or_default(),
    })
}

async fn neighbours() -> Vec<(String, Neighbour)> {
    match program("lldpctl", &["-f", "keyvalue"]).await {
        Some(text) => lldp(&text),
        None => Vec::new(),
    }
}

/// `lldpctl -f keyvalue`: `lldp.NIC.chassis.name=…`; of several neighbours the first.
fn lldp(text: &str) -> Vec<(String, Neighbour)> {
    let mut found: Vec<(String, Neighbour)> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line
            .strip_prefix("lldp.")
            .and_then(|rest| rest.split_once('='))
        else {
            continue;
        };
        // a link's name may hold dots, what follows it does not
        let Some((name, field)) = [
            "chassis.name",
            "chassis.mac",
            "port.ifname",
            "port.descr",
            "port.local",
        ]
        .iter()
        .find_map(|field| Some((key.strip_suffix(field)?.strip_suffix('.')?, *field))) else {
            continue;
        };
        let place = match found.iter().position(|(known, _)| known == name) {
            Some(place) => place,
            None => {
                found.push((name.to_owned(), Neighbour::default()));
                found.len() - 1
            }
        };
        let neighbour = &mut found[place].1;
        let target = match field {
            "chassis.name" | "chassis.mac" => &mut neighbour.system,
            _ => &mut neighbour.port,
        };
        // names go before addresses and descriptions
        if target.is_empty() || matches!(field, "chassis.name" | "port.ifname") {
            value.clone_into(target);
        }
    }
    found
}

/// What a program says, if it is there and answers in time.
async fn program(name: &str, arguments: &[&str]) -> Option<String> {
    let mut command = tokio::process::Command::new(name);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .ok()?
        .ok()?;
    if !output.status.success() || output.stdout.len() > LONGEST {
        return None;
    }
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_programs_are_read() {
        // fields as chronyc(1) names them
        let tracking = "A29FC87B,162.159.200.123,3,1767000000.123,-0.412345,0.0001,0.0002,-15.2,0.001,0.01,0.02,0.001,64.2,Normal\n";
        assert_eq!(chrony(tracking), Some((true, 412)));
        let lost = "00000000,,0,0.0,0.000000000,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised\n";
        assert_eq!(chrony(lost), Some((false, 0)));
        assert_eq!(chrony("506 Cannot talk to daemon\n"), None);
        let info = driver(
            "driver: mlx5_core\nversion: 6.12.9\nfirmware-version: 22.41.1000 (MT_0359)\nexpansion-rom-version:\n",
        );
        assert_eq!(info.unwrap().firmware, "22.41.1000 (MT_0359)");
        let seen = lldp(
            "lldp.ens1f0.via=LLDP\nlldp.ens1f0.chassis.mac=02:00:5e:00:00:01\nlldp.ens1f0.chassis.name=core1\n\
             lldp.ens1f0.port.ifname=Ethernet12\nlldp.ens1f0.port.descr=to dtn1\nlldp.ens1.5.chassis.mac=02:00:5e:00:00:02\n",
        );
        assert_eq!(seen.len(), 2);
        assert_eq!(
            (seen[0].1.system.as_str(), seen[0].1.port.as_str()),
            ("core1", "Ethernet12")
        );
        assert_eq!(seen[1].0, "ens1.5");
    }

    #[tokio::test]
    async fn this_machine_can_be_looked_at() {
        let host = host(&Machine::system(), Some(Path::new("/"))).await;
        assert!(host.machine.processors > 0 && host.data.unwrap().total > 0);
        let lo = Wanted {
            name: "lo".into(),
            class: None,
            stated: None,
            guarded: Vec::new(),
            pci: None,
            inside: None,
        };
        let gone = Wanted {
            name: "no-such-nic".into(),
            ..lo.clone()
        };
        let found = nics(&Machine::system(), &[lo, gone], Duration::from_millis(5)).await;
        assert!(
            found[0].link.is_some() && found[0].look.is_some(),
            "{found:?}"
        );
        assert!(found[1].link.is_none(), "{found:?}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_or_fails_says_nothing() {
        assert_eq!(program("no-such-program", &[]).await, None);
        assert_eq!(program("false", &[]).await, None);
        assert_eq!(program("echo", &["x"]).await.as_deref(), Some("x\n"));
    }
}
