//! What is wanted of a lab: given on the command line, checked by [`crate::preflight`], handed to
//! the capsule as a file.

use crate::{onos::OnosOptions, switches};
use dtn_api::{Rate, Size, Span, nic::NicClass, slice::Class};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the lab keeps everything when nothing else is said.
pub const DEFAULT_STATE: &str = "/var/lib/dtn-lab";

/// How far a lab is brought up before it is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Hosts, cables, switches and the link between them.
    Cables,
    /// And podman at each site.
    Engines,
    /// And the daemons, enrolled and federated.
    Daemons,
}
impl std::str::FromStr for Stage {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cables" => Ok(Self::Cables),
            "engines" => Ok(Self::Engines),
            "daemons" => Ok(Self::Daemons),
            _ => Err(format!(
                "stage {text:?} is not known: write cables, engines or daemons"
            )),
        }
    }
}

/// What runs the pods of the sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// podman on each site's host.
    #[default]
    Podman,
    /// A Kubernetes cluster at each site, which knows nothing of the other's.
    Kubernetes,
}
impl std::str::FromStr for EngineKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "podman" => Ok(Self::Podman),
            "kubernetes" => Ok(Self::Kubernetes),
            _ => Err(format!(
                "engine {text:?} is not known: write podman or kubernetes"
            )),
        }
    }
}
impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Podman => "podman",
            Self::Kubernetes => "kubernetes",
        })
    }
}

/// What enforces slices inside the sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fabric {
    /// The hosts themselves; a site's switch is a bridge of the kernel.
    #[default]
    Edge,
    /// Open vSwitch bridges that the site's controller programs.
    Openflow,
    /// Open vSwitch bridges that an ONOS programs, which the site's controller talks to.
    Onos,
}
impl std::str::FromStr for Fabric {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "edge" => Ok(Self::Edge),
            "openflow" => Ok(Self::Openflow),
            "onos" => Ok(Self::Onos),
            _ => Err(format!(
                "fabric {text:?} is not known: write edge, openflow or onos"
            )),
        }
    }
}
impl std::fmt::Display for Fabric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Edge => "edge",
            Self::Openflow => "openflow",
            Self::Onos => "onos",
        })
    }
}
impl Fabric {
    /// Frame rate of the wide-area link when nothing else is said.
    pub fn usual_wan(self) -> Rate {
        match self {
            Self::Edge => Rate::from_bps(1_000_000_000),
            Self::Openflow | Self::Onos => switches::DEFAULT_WAN,
        }
    }
    /// Whether a site's switches are Open vSwitch bridges.
    pub fn switched(self) -> bool {
        self != Self::Edge
    }
}

/// Everything that can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Folder for everything that the lab writes.
    pub state: PathBuf,
    /// What runs the pods of the sites.
    #[serde(default)]
    pub engine: EngineKind,
    /// Folder where Kubernetes was built (`tests/kubernetes/make.sh`).
    #[serde(default)]
    pub kubernetes: PathBuf,
    /// Clusters that are there already, which nobody can cable: only to be refused with the reason.
    #[serde(default)]
    pub kubeconfigs: Vec<PathBuf>,
    /// What enforces slices inside the sites.
    #[serde(default)]
    pub fabric: Fabric,
    /// Where that is ONOS: which one.
    #[serde(default)]
    pub onos: OnosOptions,
    /// Frame rate of the wide-area link.
    pub wan: Rate,
    /// Nobody has asked for that rate: where the switches carry less, it is less.
    #[serde(default)]
    pub wan_at_most: bool,
    /// Round trip over it.
    pub rtt: Span,
    /// MTU from end to end, bytes.
    pub mtu: u32,
    /// Data NICs per site.
    pub nics: u32,
    /// How the NIC is given to the pod.
    pub nic: NicClass,
    /// Rate of the slice; the most that can be had when absent.
    pub rate: Option<Rate>,
    /// Least rate that is taken.
    pub min_rate: Option<Rate>,
    /// Class of the slice.
    pub class: Class,
    /// Tree of files to move.
    pub data: PathBuf,
    /// Size of the one large file; 0 makes none.
    pub large: Size,
    /// Move in both directions.
    pub both: bool,
    /// Kill the mover halfway and let it resume.
    pub interrupt: bool,
    /// Kill the sending site's supervisor while files move, and start it again afterwards.
    #[serde(default)]
    pub kill_supervisor: bool,
    /// Bring the sites up to here and leave them; move files when absent.
    pub until: Option<Stage>,
    /// Leave the sites up afterwards.
    pub keep: bool,
    /// Evidence as JSON.
    pub report: Option<PathBuf>,
    /// Plot; beside the report when absent.
    pub svg: Option<PathBuf>,
    /// Folder of the binaries: dtnctl, vdnd, dtnd and the plugins.
    pub bin_dir: PathBuf,
    /// Folder that holds `dtn-workloads/` and `images/`.
    pub share: PathBuf,
    /// The transfer image: its root filesystem as a tar for podman, an OCI archive for Kubernetes.
    pub image: PathBuf,
}

impl Options {
    /// Programs of this appliance that the lab starts.
    pub const PROGRAMS: [&str; 5] = ["vdnd", "dtnd", "vdn-host-device", "vdn-macvlan", "vdn-ipam"];
    /// And those for clusters.
    pub const CLUSTER_PROGRAMS: [&str; 3] = ["vdn-chain", "dtn-cluster", "dtnctl"];

    /// Absolute path of one of the programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }
    /// Where the plot goes: as said, else beside the report.
    pub fn plot(&self) -> Option<PathBuf> {
        self.svg.clone().or_else(|| {
            self.report
                .as_ref()
                .map(|report| report.with_extension("svg"))
        })
    }
    /// Whether files are moved.
    pub fn moves(&self) -> bool {
        self.until.is_none()
    }
    /// Whether a stage is wanted.
    pub fn reaches(&self, stage: Stage) -> bool {
        self.until.is_none_or(|until| stage <= until)
    }
}

/// The folder above the binaries that holds the templates: the checkout, or where a package put
/// them. `None` when there is none.
pub fn find_share(bin_dir: &Path) -> Option<PathBuf> {
    let installed = bin_dir.ancestors().map(|above| above.join("share/dtn"));
    bin_dir
        .ancestors()
        .map(Path::to_path_buf)
        .chain(installed)
        .find(|folder| folder.join("dtn-workloads").is_dir())
}
