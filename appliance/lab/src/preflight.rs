//! All that stands in the way of a lab, found before anything is changed and told at once, each with
//! its remedy.

use crate::{
    Options, cgroups, cluster, janitor, onos, openvswitch,
    options::{EngineKind, Fabric, Stage},
    place::{Place, SITES},
    site,
};
use dtn_api::Size;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Programs of the machine that the lab runs, with the Debian package of each.
pub const PROGRAMS: [(&str, &str); 7] = [
    ("runc", "runc"),
    ("catatonit", "catatonit"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
];

/// And where podman runs the pods.
pub const PODMAN_PROGRAMS: [(&str, &str); 2] = [("podman", "podman"), ("conmon", "conmon")];

/// Debian's package of Open vSwitch, which brings its other one along.
const SWITCH_PACKAGE: &str = "openvswitch-switch";
/// And of those that switches need which a controller programs.
pub const SWITCH_PROGRAMS: [(&str, &str); 6] = [
    ("ovs-vswitchd", SWITCH_PACKAGE),
    ("ovs-vsctl", SWITCH_PACKAGE),
    ("ovsdb-server", SWITCH_PACKAGE),
    ("ovsdb-tool", SWITCH_PACKAGE),
    ("ovs-ofctl", SWITCH_PACKAGE),
    ("ethtool", "ethtool"),
];

/// What podman's storage takes of an image, as a multiple of its tar: the layer and a copy while it
/// is imported.
const IMPORT: u64 = 3;
/// Room for stores, logs and the pods' own writes, bytes.
const SPARE: u64 = 300 << 20;
/// Memory that two controllers, two supervisors, two engines and two pods need, bytes.
const MEMORY: u64 = 1 << 30;
/// Longest path of the state folder: below it lie unix sockets, whose paths end at 107 bytes
/// (unix(7)).
const LONGEST_STATE: usize = 60;

/// The tree of files that shall be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// It can be moved.
    Files {
        /// Regular files in it.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Nothing of this name.
    Missing,
    /// Not a folder.
    NoFolder,
    /// Something in it cannot be read.
    Unreadable(String),
    /// A folder without any file.
    Empty,
}

/// What was found on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Effective user 0.
    pub root: bool,
    /// Programs of the machine that are not there, with their packages.
    pub missing_programs: Vec<(String, String)>,
    /// Files of the appliance that are not there.
    pub missing_files: Vec<PathBuf>,
    /// What this kernel can't do, in words.
    pub kernel_lacks: Vec<String>,
    /// Hierarchies of cgroups.
    pub hierarchies: usize,
    /// Free bytes where the state folder is or will be; `None` when it could not be told.
    pub free_disk: Option<u64>,
    /// Size of the image's tar.
    pub image: u64,
    /// Memory that can be had, bytes; `None` when it could not be told.
    pub free_memory: Option<u64>,
    /// Things of this machine that have the lab's names, in words, with the remedy.
    pub foreign: Vec<String>,
    /// What keeps the ONOS that is wanted from being used, in words with the remedy.
    pub onos: Vec<String>,
    /// What a cluster would not find here, in words with the remedy.
    pub kubernetes: Vec<String>,
    /// What is wrong with the state folder, in words.
    pub state: Option<String>,
    /// A lab is up in that folder.
    pub up: bool,
    /// The files to move.
    pub tree: Tree,
    /// Folders for report and plot that are not there.
    pub missing_folders: Vec<PathBuf>,
}

/// Looks at the machine; changes nothing.
pub fn look(options: &Options) -> Facts {
    let root = nix::unistd::geteuid().is_root();
    let switched = options.fabric.switched();
    let switching: &[(&str, &str)] = if switched { &SWITCH_PROGRAMS } else { &[] };
    let clusters = options.engine == EngineKind::Kubernetes;
    let podman: &[(&str, &str)] = if clusters { &[] } else { &PODMAN_PROGRAMS };
    let missing_programs: Vec<_> = PROGRAMS
        .iter()
        .chain(podman)
        .chain(switching)
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(program, package)| ((*program).to_owned(), (*package).to_owned()))
        .collect();
    let mut wanted = Vec::new();
    if options.reaches(Stage::Engines) {
        wanted.push(options.image.clone());
        wanted.push(options.share.join(if clusters {
            "config/kubernetes/base"
        } else {
            "images/dtn-transfer/config"
        }));
    }
    if options.reaches(Stage::Daemons) {
        wanted.extend(Options::PROGRAMS.iter().map(|name| options.program(name)));
        if clusters {
            let more = Options::CLUSTER_PROGRAMS.iter();
            wanted.extend(more.map(|name| options.program(name)));
        }
        wanted.push(options.share.join("dtn-workloads"));
    }
    if switched
        && !missing_programs
            .iter()
            .any(|(_, package)| package == SWITCH_PACKAGE)
    {
        wanted.push(openvswitch::SCHEMA.into());
    }
    let place = Place::new(&options.state);
    let has = |name: &str| !missing_programs.iter().any(|(missing, _)| missing == name);
    Facts {
        root,
        kernel_lacks: if root && ["ip", "tc", "nft", "unshare"].into_iter().all(has) {
            kernel_lacks(switched)
        } else {
            Vec::new()
        },
        missing_files: wanted.into_iter().filter(|path| !path.exists()).collect(),
        missing_programs,
        hierarchies: cgroups::mounted().map_or(0, |found| found.len()),
        free_disk: free_disk(&options.state),
        image: fs::metadata(&options.image).map_or(0, |found| found.len()),
        free_memory: free_memory(),
        foreign: foreign(),
        onos: onos_lacks(options),
        kubernetes: cluster::kit::lacks(options),
        state: wrong_state(&place),
        up: place.lock().exists()
            && matches!(janitor::lock(&place), Err(janitor::JanitorError::Busy(_))),
        tree: if options.moves() {
            walk(&options.data)
        } else {
            Tree::Files { files: 0, bytes: 0 }
        },
        missing_folders: [options.report.clone(), options.plot()]
            .into_iter()
            .flatten()
            .filter_map(|file| file.parent().map(Path::to_path_buf))
            .filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
            .collect(),
    }
}

/// Everything that stands in the way, in words.
pub fn problems(options: &Options, facts: &Facts) -> Vec<String> {
    let mut found = wrong_options(options);
    let mut problem = |text: String| found.push(text);
    if !facts.root {
        problem("not root: namespaces, mounts and cgroups need it; run it with sudo".into());
    }
    for (program, package) in &facts.missing_programs {
        problem(format!(
            "{program} is not there: install Debian's package {package}"
        ));
    }
    for file in &facts.missing_files {
        problem(format!(
            "{} is not there: build with ./install.sh --build, or name the place with --bin-dir, --share or --image",
            file.display()
        ));
    }
    for folder in &facts.missing_folders {
        problem(format!(
            "{}: no such folder for the report: make it",
            folder.display()
        ));
    }
    found.extend(facts.kernel_lacks.iter().map(|what| {
        format!("this kernel has no {what}: load its module or boot Debian's own kernel")
    }));
    let mut problem = |text: String| found.push(text);
    if facts.hierarchies == 0 {
        problem("no cgroup hierarchy is mounted, and containers need one: mount cgroup2 on /sys/fs/cgroup".into());
    }
    match facts.free_memory {
        Some(free) if free < memory(options) => problem(format!(
            "{} of memory are free, and the lab needs {}: end something",
            Size::from_bytes(free).rounded(),
            Size::from_bytes(memory(options)).rounded()
        )),
        Some(_) => {}
        None => problem("the free memory cannot be told: is /proc mounted?".into()),
    }
    let need = room(options, facts);
    match facts.free_disk {
        Some(free) if free < need => problem(format!(
            "{} has {} free, and both copies with the images need {}: give --state on a larger disk, or a smaller --large or --data",
            options.state.display(),
            Size::from_bytes(free).rounded(),
            Size::from_bytes(need).rounded()
        )),
        Some(_) => {}
        None => problem(format!(
            "the free room of {} cannot be told: give --state on a local disk",
            options.state.display()
        )),
    }
    let data = options.data.display();
    match &facts.tree {
        Tree::Files { .. } => {}
        Tree::Missing => problem(format!(
            "--data {data}: no such folder: name one with files in it"
        )),
        Tree::NoFolder => problem(format!(
            "--data {data}: is not a folder: name one with files in it"
        )),
        Tree::Unreadable(why) => problem(format!(
            "--data {data}: cannot be read: {why}; mend its permissions or choose another"
        )),
        Tree::Empty => problem(format!("--data {data}: is empty: there is nothing to move")),
    }
    if facts.up {
        let state = options.state.display();
        problem(format!(
            "a lab is already up in {state}: use it, or take it down with `dtnctl lab down --state {state}`"
        ));
    }
    found.extend(facts.foreign.iter().cloned());
    found.extend(facts.onos.iter().cloned());
    found.extend(facts.kubernetes.iter().cloned());
    found.extend(facts.state.iter().cloned());
    found
}

/// What is wrong with the wish itself.
fn wrong_options(options: &Options) -> Vec<String> {
    let mut found = Vec::new();
    let mut rule = |holds: bool, text: String| {
        if !holds {
            found.push(text);
        }
    };
    rule(
        (1280..=65_000).contains(&options.mtu),
        format!(
            "--mtu {}: must be from 1280 (the least of IPv6, RFC 8200) to 65000",
            options.mtu
        ),
    );
    rule(
        (1_000_000..=100_000_000_000).contains(&options.wan.bps()),
        format!("--wan {}: must be from 1Mbit to 100Gbit", options.wan),
    );
    rule(
        options.rtt.millis() <= 2000,
        format!("--rtt {}: must be at most 2s", options.rtt),
    );
    rule(
        (1..=8).contains(&options.nics),
        format!("--nics {}: must be from 1 to 8", options.nics),
    );
    if let Some(rate) = options.rate {
        rule(rate.bps() > 0, format!("--rate {rate}: must be above 0"));
        if let Some(least) = options.min_rate {
            rule(
                least <= rate,
                format!("--min-rate {least}: must not be above --rate {rate}"),
            );
        }
    }
    found
}

/// Bytes that a run writes: the copies, the large files and the images.
pub fn room(options: &Options, facts: &Facts) -> u64 {
    let tree = match facts.tree {
        // each file takes whole blocks
        Tree::Files { files, bytes } => bytes.saturating_add(files.saturating_mul(4096)),
        _ => 0,
    };
    // both are laid into the pod's folder at the source, and arrive at the destination
    let way = if options.moves() {
        tree.saturating_add(options.large.bytes()).saturating_mul(2)
    } else {
        0
    };
    let ways = if options.both { 2 } else { 1 };
    way.saturating_mul(ways)
        .saturating_add(facts.image.saturating_mul(IMPORT * SITES.len() as u64))
        .saturating_add(SPARE)
}

/// What the lab will add to the machine, in words.
pub fn adds(options: &Options) -> String {
    format!(
        "adds to this machine, while it runs: processes in their own namespaces, one cgroup per hierarchy, and files in {}; afterwards: logs and the daemons' configuration there{}",
        options.state.display(),
        [options.report.clone(), options.plot()]
            .into_iter()
            .flatten()
            .map(|file| format!(", {}", file.display()))
            .collect::<String>()
    )
}

pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Tries each kind of link and queue once, in a namespace that is gone with the try.
fn kernel_lacks(switched: bool) -> Vec<String> {
    let taps = (
        "tap devices, which the switches have (CONFIG_TUN)",
        "ip tuntap add dev try0 mode tap",
    );
    let tries = [
        ("network namespaces (CONFIG_NET_NS)", "true"),
        (
            "veth links (CONFIG_VETH)",
            "ip link add name try0 type veth peer name try1",
        ),
        (
            "bridges (CONFIG_BRIDGE)",
            "ip link add name try0 type bridge",
        ),
        (
            "HTB queues (CONFIG_NET_SCH_HTB)",
            "tc qdisc add dev lo root htb",
        ),
        (
            "macvlan links (CONFIG_MACVLAN)",
            "ip link add name try0 type veth peer name try1 && ip link add link try0 name try2 type macvlan",
        ),
        (
            "packet filters that know connections (CONFIG_NF_TABLES, CONFIG_NFT_CT)",
            "nft 'add table inet try; add chain inet try forward { type filter hook forward priority 0; }; add rule inet try forward ct state established counter accept'",
        ),
    ];
    tries
        .into_iter()
        .chain(switched.then_some(taps))
        .filter(|(_, command)| !works(command))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Whether a command line works in a network namespace of its own.
pub(crate) fn works(command: &str) -> bool {
    Command::new("unshare")
        .args(["--net", "--", "sh", "-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Memory that a lab needs, bytes.
fn memory(options: &Options) -> u64 {
    let clusters = match options.engine {
        EngineKind::Podman => 0,
        EngineKind::Kubernetes => cluster::kit::MEMORY * SITES.len() as u64,
    };
    let cores = options.fabric == Fabric::Onos && options.onos.given.is_empty();
    MEMORY
        + clusters
        + if cores {
            onos::MEMORY * SITES.len() as u64
        } else {
            0
        }
}

/// What keeps the ONOS that is wanted from being used.
fn onos_lacks(options: &Options) -> Vec<String> {
    let core = &options.onos.core;
    if options.fabric != Fabric::Onos {
        let given = options.onos.given.first();
        return given
            .map(|given| {
                format!(
                    "--onos {}: is for --fabric onos alone: add that, or leave it out",
                    given.url
                )
            })
            .into_iter()
            .collect();
    }
    if !options.onos.given.is_empty() {
        return onos::given::problems(&options.onos);
    }
    if onos::program(core).is_file() {
        return Vec::new();
    }
    vec![format!(
        "{} holds no ONOS core: put one together with `tests/onos-core/make {0}`, or name an ONOS that is there with --onos URL",
        core.display()
    )]
}

fn free_memory() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    Some(system.available_memory())
}

/// Free bytes of the file system that holds a folder which need not exist yet.
pub(crate) fn free_disk(folder: &Path) -> Option<u64> {
    let real = folder
        .ancestors()
        .find_map(|above| fs::canonicalize(above).ok())?;
    let room = nix::sys::statvfs::statvfs(&real).ok()?;
    // field widths differ between architectures
    #[allow(
        clippy::useless_conversion,
        reason = "u64 on this architecture, u32 on others"
    )]
    Some(u64::from(room.blocks_available()).saturating_mul(u64::from(room.fragment_size())))
}

/// Namespaces and links that have the names of the lab's: they are not ours, since ours are in the
/// capsule, and whoever made them would mix them up.
fn foreign() -> Vec<String> {
    let ours = |name: &str| name.starts_with("dtn-lab-") || site::NAMESPACES.contains(&name);
    let spaces = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let spaces = spaces.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| ours(name)).map(|name| {
        format!("a network namespace {name} is there already (/run/netns/{name}) and is not the lab's: rename it, or remove it with `ip netns del {name}`")
    });
    // of this process's own namespace, which /sys need not show (proc_pid_net(5))
    let links = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let links = links.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).filter(|name| ours(name)).map(|name| {
        format!("a link {name} is there already and is not the lab's: rename it, or remove it with `ip link del {name}`")
    });
    spaces.chain(links).collect()
}

/// What is wrong with the folder, if something is.
fn wrong_state(place: &Place) -> Option<String> {
    let state = place.state();
    let shown = state.display();
    if !state.is_absolute() {
        return Some(format!("--state {shown}: must be absolute"));
    }
    if state.as_os_str().len() > LONGEST_STATE {
        return Some(format!(
            "--state {shown}: longer than {LONGEST_STATE} bytes, and the sockets below it would not fit: choose a shorter one"
        ));
    }
    // the capsule has its own of these
    if [
        "/run",
        "/var/run",
        "/dev",
        "/proc",
        "/sys",
        "/var/lib/containers",
    ]
    .iter()
    .any(|below| state.starts_with(below))
    {
        return Some(format!(
            "--state {shown}: must not be below /run, /dev, /proc, /sys or /var/lib/containers: choose another on a disk"
        ));
    }
    match fs::read_dir(state) {
        Ok(mut entries) => (!place.mark().exists() && entries.next().is_some()).then(|| {
            format!("--state {shown}: has files in it that are not a lab's: choose another or an empty one")
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("--state {shown}: {error}: choose another")),
    }
}

/// Looks through the whole tree that shall be moved.
pub(crate) fn walk(folder: &Path) -> Tree {
    match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Tree::Missing,
        Err(error) => return Tree::Unreadable(error.to_string()),
        Ok(found) if !found.is_dir() => return Tree::NoFolder,
        Ok(_) => {}
    }
    let (mut files, mut bytes, mut entries) = (0_u64, 0_u64, 0_u64);
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        let unreadable =
            |error: io::Error| Tree::Unreadable(format!("{}: {error}", next.display()));
        let listing = match fs::read_dir(&next) {
            Ok(listing) => listing,
            Err(error) => return unreadable(error),
        };
        for entry in listing {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return unreadable(error),
            };
            let found = match entry.metadata() {
                Ok(found) => found,
                Err(error) => return unreadable(error),
            };
            entries += 1;
            if found.is_dir() {
                folders.push(entry.path());
            } else if found.is_file() {
                if let Err(error) = fs::File::open(entry.path()) {
                    return Tree::Unreadable(format!("{}: {error}", entry.path().display()));
                }
                files += 1;
                bytes += found.len();
            }
        }
    }
    if entries == 0 {
        Tree::Empty
    } else {
        Tree::Files { files, bytes }
    }
}

#[cfg(test)]
mod tests;
