//! Where the programs of Kubernetes are (`tests/kubernetes/make.sh` builds them of unmodified
//! modules), and what a machine lacks to run two clusters. It only looks.

use crate::{
    Options,
    cgroups::{self, Hierarchy},
    options::{EngineKind, Stage},
};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

/// Programs of a release, in its own folder.
const KUBERNETES: [&str; 5] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubectl",
];
/// The others, each with its folder.
const OTHERS: [(&str, &str); 7] = [
    ("etcd", "etcd"),
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("bridge", "cni"),
    ("host-local", "cni"),
    ("loopback", "cni"),
];
/// The image that holds a pod's namespaces.
const PAUSE: &str = "pause.tar";
/// What a kubelet has to find, of cgroups.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];
/// Memory of one cluster with its node and its pods, bytes: 0.7 GB were seen, and a third more.
pub const MEMORY: u64 = 900 << 20;
/// Two pods of a site ask for a processor each.
const PROCESSORS: usize = 2;
/// How a folder of a release begins.
const RELEASE: &str = "kubernetes-";

/// A folder of programs, and which release of Kubernetes is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kit {
    folder: PathBuf,
    /// As `1.37.2`.
    pub version: String,
}

impl Kit {
    /// The newest release in the folder, with all that it needs.
    pub fn find(folder: &Path) -> Result<Self, String> {
        let remedy = format!(
            "build Kubernetes with `tests/kubernetes/make.sh` (./install.sh --lab --engine kubernetes does it), or name its folder with --kubernetes; it is looked for in {}",
            folder.display()
        );
        let releases = fs::read_dir(folder).into_iter().flatten().flatten();
        let releases = releases
            .filter_map(|entry| {
                Some(
                    entry
                        .file_name()
                        .to_str()?
                        .strip_prefix(RELEASE)?
                        .to_owned(),
                )
            })
            .filter(|version| folder.join(format!("{RELEASE}{version}")).is_dir());
        let Some(version) = releases.max_by_key(|version| ordinal(version)) else {
            return Err(format!("there is no release of Kubernetes: {remedy}"));
        };
        let kit = Self {
            folder: folder.to_path_buf(),
            version,
        };
        let missing: Vec<_> = kit
            .all()
            .into_iter()
            .filter(|file| !file.is_file())
            .map(|file| file.display().to_string())
            .collect();
        if missing.is_empty() {
            return Ok(kit);
        }
        Err(format!("there is no {}: {remedy}", missing.join(", no ")))
    }
    /// One of the programs.
    pub fn program(&self, name: &str) -> PathBuf {
        let own = format!("{RELEASE}{}", self.version);
        let others = OTHERS.iter().find(|(other, _)| *other == name);
        let folder = others.map_or(own.as_str(), |(_, folder)| folder);
        self.folder.join(folder).join(name)
    }
    /// The image that holds a pod's namespaces.
    pub fn pause(&self) -> PathBuf {
        self.folder.join(PAUSE)
    }
    /// The reference plugins.
    pub fn plugins(&self) -> impl Iterator<Item = (&'static str, PathBuf)> + '_ {
        let all = OTHERS.iter().filter(|(_, folder)| *folder == "cni");
        all.map(|(name, _)| (*name, self.program(name)))
    }
    /// `PATH` for processes that start others: containerd looks for its shims there.
    pub fn path(&self) -> OsString {
        let own = ["containerd", "etcd"].map(|folder| self.folder.join(folder));
        let usual = std::env::var_os("PATH").unwrap_or_default();
        let all = own.into_iter().chain(std::env::split_paths(&usual));
        std::env::join_paths(all).unwrap_or(usual)
    }
    fn all(&self) -> Vec<PathBuf> {
        let others = OTHERS.iter().map(|(name, _)| *name);
        let programs = KUBERNETES.into_iter().chain(others);
        programs
            .map(|name| self.program(name))
            .chain([self.pause()])
            .collect()
    }
}

/// What clusters would not find on this machine, in words with the remedy.
pub fn lacks(options: &Options) -> Vec<String> {
    let mut found: Vec<_> = not_given(&options.kubeconfigs).into_iter().collect();
    if options.engine != EngineKind::Kubernetes || !options.reaches(Stage::Engines) {
        return found;
    }
    found.extend(Kit::find(&options.kubernetes).err());
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = cgroups::mounted().unwrap_or_default();
    let unified = hierarchies
        .iter()
        .any(|one| one.unified() && one.mount == root);
    let given = unified
        .then(|| fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default());
    found.extend(cgroups_lack(&hierarchies, given.as_deref()));
    let there = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    if there < PROCESSORS {
        found.push(format!(
            "there is {there} processor, and a site's two pods ask for {PROCESSORS}: give the machine more, or use --engine podman"
        ));
    }
    if !Path::new("/dev/kmsg").exists() {
        found.push("there is no /dev/kmsg, and a kubelet reads what the kernel says of memory there: in a container, have it given (--device /dev/kmsg)".into());
    }
    found
}

/// A version by its numbers: 1.9 is older than 1.10.
fn ordinal(version: &str) -> Vec<u64> {
    version.split('.').map(|n| n.parse().unwrap_or(0)).collect()
}

/// What a kubelet would not find of the machine's cgroups, in words with the remedy. `given` is what
/// the root of version 2 hands on, where it is that version that the machine has.
pub fn cgroups_lack(hierarchies: &[Hierarchy], given: Option<&str>) -> Vec<String> {
    let unified = given.is_some();
    let of_v1 = |name: &str| {
        let mut all = hierarchies.iter().filter(|hierarchy| !hierarchy.unified());
        all.any(|hierarchy| hierarchy.options.split(',').any(|option| option == name))
    };
    let of_v2 = |name: &str| {
        let mut all = given.unwrap_or_default().split_whitespace();
        all.any(|controller| controller == name)
    };
    let missing: Vec<_> = CONTROLLERS
        .into_iter()
        .filter(|name| if unified { !of_v2(name) } else { !of_v1(name) })
        .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let names = missing.join(", ");
    vec![if unified {
        let all: Vec<_> = missing.iter().map(|name| format!("+{name}")).collect();
        format!(
            "a kubelet needs the cgroup controllers {names}, which the root hands on to nobody: echo '{}' | sudo tee /sys/fs/cgroup/cgroup.subtree_control",
            all.join(" ")
        )
    } else {
        format!(
            "a kubelet needs the cgroup controllers {names}, and they are not mounted below /sys/fs/cgroup: mount them, or boot with cgroups of version 2 (systemd.unified_cgroup_hierarchy=1)"
        )
    }]
}

/// Why clusters that are there cannot be the sites'.
pub fn not_given(kubeconfigs: &[PathBuf]) -> Option<String> {
    let names: Vec<_> = kubeconfigs
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "--kubeconfig {}: the lab's wires, switches and NICs end in namespaces of this machine, and no node of a cluster that is there has one of them, so nothing could be measured in it. Leave it out: the lab brings two clusters of its own up. To join clusters of yours, install the appliance in each (docs/kubernetes.md, Installing), federate their domains (dtnctl domain invite and accept), reserve a slice between NICs of their nodes (dtnctl slice reserve --to) and deploy at both ends (dtnctl deploy --engine kubernetes --kubeconfig FILE)",
            names.join(",")
        )
    })
}
