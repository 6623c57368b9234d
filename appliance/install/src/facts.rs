//! What this host is and has, read in one go. Facts only: what follows from them is decided in
//! [`crate::preflight`], [`crate::propose`] and [`crate::plan`].

use crate::{
    command::may,
    configured::{self, Configured},
};
use anyhow::{Context, Result};
use dtn_api::{MacAddress, PciAddress, Rate, nic::NicClass};
use dtn_cni::guard;
use dtn_link::{
    Netns,
    inventory::{Inventory, LinkState},
    owner::{self, Owner},
    storage::{self, StorageLinks},
    sysfs::{NicFacts, Sysfs},
};
use dtn_tuning::Controls;
use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// Services that are asked after: ours, those that set NICs, and those that tune.
pub(crate) const SERVICES: [&str; 14] = [
    "dtnd.socket",
    "dtnd.service",
    "vdnd.socket",
    "vdnd.service",
    "podman.socket",
    "kubelet.service",
    "NetworkManager.service",
    "systemd-networkd.service",
    "tuned.service",
    "irqbalance.service",
    "power-profiles-daemon.service",
    "firewalld.service",
    "ufw.service",
    "nftables.service",
];

/// Parts of the kernel that pods, slices and gateways use, by the names of their modules.
pub(crate) const KERNEL_PARTS: [&str; 5] =
    ["macvlan", "sch_htb", "sch_fq", "nf_tables", "sch_ingress"];

/// All of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// The root is this machine's own, so that services, the kernel and NICs can be spoken with.
    pub(crate) live: bool,
    pub(crate) distribution: Distribution,
    pub(crate) machine: String,
    pub(crate) kernel: String,
    pub(crate) hostname: String,
    /// systemd is the service manager.
    pub(crate) systemd: bool,
    /// Its version.
    pub(crate) systemd_version: u32,
    pub(crate) cgroups: Cgroups,
    pub(crate) processors: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) rooms: Vec<Room>,
    /// Whether the clock is in step with others; none where nobody says.
    pub(crate) clock: Option<bool>,
    /// The services of [`SERVICES`] that run.
    pub(crate) running: Vec<String>,
    /// Whether the kernel has the parts of [`KERNEL_PARTS`]; none where its list is not there.
    pub(crate) kernel_parts: BTreeMap<&'static str, Option<bool>>,
    pub(crate) nics: Vec<NicFact>,
    pub(crate) podman: Option<String>,
    pub(crate) kubelet: Option<Kubelet>,
    /// What the admin's configuration says, if there is one.
    pub(crate) configured: Option<Configured>,
    /// There are files of the layout of two files.
    pub(crate) old_configuration: bool,
    pub(crate) controls: Controls,
    /// NetworkManager is there.
    pub(crate) network_manager: bool,
    /// systemd-networkd is there.
    pub(crate) networkd: bool,
}

/// What os-release says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Distribution {
    pub(crate) id: String,
    pub(crate) like: String,
    pub(crate) version: String,
    pub(crate) name: String,
}

/// How control groups are laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// Version 2 alone.
    Unified,
    /// Version 1, or both.
    Legacy,
    /// None is mounted.
    #[default]
    Absent,
}

/// A file system that something will be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) path: &'static str,
    pub(crate) free_bytes: u64,
}

/// A NIC of this host, and what the guard says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NicFact {
    pub(crate) name: String,
    pub(crate) mac: Option<MacAddress>,
    pub(crate) permanent_mac: Option<MacAddress>,
    pub(crate) pci: Option<PciAddress>,
    pub(crate) driver: Option<String>,
    pub(crate) speed: Option<Rate>,
    pub(crate) mtu: u32,
    pub(crate) carrier: bool,
    /// It is hardware, or a virtual machine's.
    pub(crate) hardware: bool,
    /// Tools that manage it: they are told to let it go.
    pub(crate) owners: Vec<Owner>,
    /// Why it cannot be given whole.
    pub(crate) not_dedicated: Vec<String>,
    /// Why it cannot be shared.
    pub(crate) not_shared: Vec<String>,
}

/// A kubelet of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kubelet {
    /// It runs.
    pub(crate) running: bool,
    /// Where its container runtime looks for plugins.
    pub(crate) bin_dirs: Vec<PathBuf>,
    /// A file by which it speaks to the API server.
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// Reads everything of the host whose files are below `root`, but for the configuration: one that cannot be
/// read must not be in the way of what is taken back.
pub(crate) async fn read(root: &Path) -> Result<Facts> {
    let live = root == Path::new("/");
    let mut facts = Facts {
        live,
        distribution: distribution(&text(root, "/etc/os-release").unwrap_or_default()),
        machine: std::env::consts::ARCH.to_owned(),
        hostname: text(root, "/etc/hostname")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        old_configuration: ["/etc/dtn/dtnd.toml", "/etc/dtn/vdnd.toml"]
            .iter()
            .any(|file| below(root, file).exists()),
        network_manager: below(root, "/etc/NetworkManager").is_dir(),
        networkd: below(root, "/usr/lib/systemd/systemd-networkd").exists(),
        kubelet: kubelet(root),
        rooms: rooms(root),
        ..Facts::default()
    };
    if live {
        live_facts(&mut facts).await?;
    }
    Ok(facts)
}

async fn live_facts(facts: &mut Facts) -> Result<()> {
    facts.kernel = read_line("/proc/sys/kernel/osrelease");
    if facts.hostname.is_empty() {
        facts.hostname = read_line("/proc/sys/kernel/hostname");
    }
    facts.systemd = Path::new("/run/systemd/system").is_dir();
    facts.cgroups = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        Cgroups::Unified
    } else if Path::new("/sys/fs/cgroup").join("memory").is_dir() {
        Cgroups::Legacy
    } else {
        Cgroups::Absent
    };
    facts.processors = std::thread::available_parallelism().map_or(0, |n| n.get() as u64);
    facts.memory_bytes = memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
    facts.kernel_parts = kernel_parts(&facts.kernel);
    facts.systemd_version = may("systemctl", &["--version"])
        .and_then(|said| said.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0);
    if facts.systemd {
        facts.running = SERVICES
            .iter()
            .filter(|unit| may("systemctl", &["is-active", "--quiet", unit]).is_some())
            .map(|unit| (*unit).to_owned())
            .collect();
        facts.clock = may("timedatectl", &["show", "-p", "NTPSynchronized", "--value"])
            .map(|said| said.trim() == "yes");
    }
    facts.podman = may("podman", &["--version"])
        .and_then(|said| said.split_whitespace().last().map(str::to_owned));
    if let Some(kubelet) = &mut facts.kubelet {
        kubelet.running =
            facts.running.iter().any(|unit| unit == "kubelet.service") || program_runs("kubelet");
    }
    let own = Netns::current().context("opening the host's network namespace")?;
    facts.controls = dtn_tuning::controls(&own)
        .await
        .context("reading the congestion controls")?;
    facts.nics = nics(&own).await.context("looking at the NICs")?;
    Ok(())
}

/// The NICs, judged by the daemon's own guard.
async fn nics(own: &Netns) -> Result<Vec<NicFact>> {
    let conn = own.connect().await?;
    let host = Inventory::read(&conn).await?;
    let sysfs = Sysfs::system();
    let stored = storage::of_host(Path::new("/proc/self/mountinfo"), &sysfs)?;
    let storage = storage::storage_links(&conn, stored).await?;
    let admin = admins_address(&std::env::var("SSH_CONNECTION").unwrap_or_default());
    let mut found = Vec::new();
    for link in host.links.iter().filter(|link| !link.loopback) {
        let facts = match sysfs.nic(&link.name) {
            Ok(facts) => facts,
            Err(e) if e.is_not_found() => NicFacts::default(),
            Err(e) => return Err(e.into()),
        };
        let owners = owner::of(Path::new("/"), link.index, &link.name)?;
        found.push(NicFact {
            name: link.name.clone(),
            mac: link.mac,
            permanent_mac: link.permanent_mac,
            driver: facts.driver.or_else(|| link.kind.clone()),
            speed: facts.speed,
            mtu: link.mtu,
            carrier: link.carrier,
            hardware: link.device.is_some() || facts.pci.is_some(),
            pci: facts.pci,
            owners,
            not_dedicated: judged(&host, link, NicClass::Dedicated, &storage, admin),
            not_shared: judged(&host, link, NicClass::Shared, &storage, admin),
        });
    }
    Ok(found)
}

/// What the guard says. Tools that manage a NIC are no reason here: they are told to let it go.
fn judged(
    host: &Inventory,
    link: &LinkState,
    class: NicClass,
    storage: &StorageLinks,
    admin: Option<IpAddr>,
) -> Vec<String> {
    let verdict = guard::judge(&guard::Facts {
        host,
        link,
        class: Some(class),
        owners: &[],
        storage,
        ours: &[],
    });
    let mut refusals = verdict.refusals;
    let dependents = host.dependents_of(link.index);
    let carries_admin = admin.is_some_and(|admin| {
        dependents
            .iter()
            .flat_map(|index| host.addresses_of(*index))
            .any(|address| address.net.addr() == admin)
    });
    if carries_admin {
        refusals.push("your own session comes in by it: give the appliance another NIC".into());
    }
    refusals
}

/// The address of this host that a session by SSH came in by: "CLIENT PORT SERVER PORT".
fn admins_address(connection: &str) -> Option<IpAddr> {
    let server = connection.split(' ').nth(2)?;
    // link-local addresses carry the name of the link
    server.split('%').next()?.parse().ok()
}

/// Of os-release(5).
fn distribution(text: &str) -> Distribution {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches(['"', '\'']).to_owned())
            .unwrap_or_default()
    };
    Distribution {
        id: value("ID"),
        like: value("ID_LIKE"),
        version: value("VERSION_ID"),
        name: value("PRETTY_NAME"),
    }
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn memory(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Looked for in the list of modules, and in that of what is built in.
fn kernel_parts(kernel: &str) -> BTreeMap<&'static str, Option<bool>> {
    let folder = Path::new("/lib/modules").join(kernel);
    let lists: Vec<String> = ["modules.dep", "modules.builtin"]
        .iter()
        .filter_map(|list| fs::read_to_string(folder.join(list)).ok())
        .collect();
    KERNEL_PARTS
        .into_iter()
        .map(|part| {
            let has = |list: &String| list.contains(&format!("/{part}.ko"));
            (part, (!lists.is_empty()).then(|| lists.iter().any(has)))
        })
        .collect()
}

fn rooms(root: &Path) -> Vec<Room> {
    ["/usr", "/var/lib", "/srv"]
        .into_iter()
        .filter_map(|path| {
            let room = nix::sys::statvfs::statvfs(&below(root, path)).ok()?;
            let free_bytes = room.blocks_available() * room.fragment_size();
            Some(Room { path, free_bytes })
        })
        .collect()
}

/// A kubelet has been set up here if it has its folder and somebody's configuration of it.
fn kubelet(root: &Path) -> Option<Kubelet> {
    let there = |path: &str| below(root, path).exists();
    if !there("/var/lib/kubelet")
        || !(there("/etc/kubernetes") || there("/var/lib/kubelet/config.yaml"))
    {
        return None;
    }
    let containerd = text(root, "/etc/containerd/config.toml").unwrap_or_default();
    let mut bin_dirs = configured::plugin_folders(&containerd);
    if bin_dirs.is_empty() {
        bin_dirs.push("/opt/cni/bin".into());
    }
    Some(Kubelet {
        running: false,
        bin_dirs,
        kubeconfig: [
            "/etc/kubernetes/kubelet.conf",
            "/var/lib/kubelet/kubeconfig",
        ]
        .into_iter()
        .find(|file| there(file))
        .map(PathBuf::from),
    })
}

fn program_runs(name: &str) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else {
        return false;
    };
    entries.flatten().any(|entry| {
        fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    })
}

fn read_line(file: &str) -> String {
    fs::read_to_string(file)
        .unwrap_or_default()
        .trim()
        .to_owned()
}
fn text(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(below(root, path)).ok()
}

/// An absolute path, below the root.
pub(crate) fn below(root: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_files_say_is_read() {
        let debian = distribution(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
        );
        assert_eq!(
            (debian.id.as_str(), debian.version.as_str()),
            ("debian", "12")
        );
        assert_eq!(
            memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"),
            16_777_216
        );
        assert_eq!(
            admins_address("192.0.2.9 50022 192.0.2.1 22"),
            Some("192.0.2.1".parse().unwrap())
        );
        assert_eq!(
            admins_address("fe80::2%eth0 1 fe80::1%eth0 22"),
            Some("fe80::1".parse().unwrap())
        );
        assert_eq!(admins_address(""), None);
    }
}
