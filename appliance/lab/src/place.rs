//! Where everything of a lab lies. One folder holds all of it; nothing outside is written.

use std::path::{Path, PathBuf};

/// The two sites, in the order in which the first direction goes.
pub const SITES: [&str; 2] = ["daejeon", "busan"];

/// The folder of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    state: PathBuf,
}

impl Place {
    /// Of this folder, which is absolute.
    pub fn new(state: &Path) -> Self {
        Self {
            state: state.to_path_buf(),
        }
    }
    /// The folder itself.
    pub fn state(&self) -> &Path {
        &self.state
    }
    /// Says that the folder is a lab's, so that no other folder is ever swept.
    pub fn mark(&self) -> PathBuf {
        self.state.join(".dtn-lab")
    }
    /// Held with flock by the janitor while the lab is up.
    pub fn lock(&self) -> PathBuf {
        self.state.join("lab.lock")
    }
    /// The options, for the capsule.
    pub fn plan(&self) -> PathBuf {
        self.state.join("plan.json")
    }
    /// Written when the sites are up and kept.
    pub fn up(&self) -> PathBuf {
        self.state.join("run/up.json")
    }
    /// Where `dtnctl lab down` says so.
    pub fn control(&self) -> PathBuf {
        self.state.join("run/lab.sock")
    }
    /// Logs; they stay.
    pub fn logs(&self) -> PathBuf {
        self.state.join("log")
    }
    /// Log of one part.
    pub fn log(&self, part: &str) -> PathBuf {
        self.logs().join(format!("{part}.log"))
    }
    /// Scripts and sockets of the run.
    pub fn run(&self) -> PathBuf {
        self.state.join("run")
    }
    /// The folders of the sites.
    pub fn sites(&self) -> PathBuf {
        self.state.join("sites")
    }
    /// The root that a site's daemons are given.
    pub fn root(&self, site: &str) -> PathBuf {
        self.sites().join(site)
    }
    /// Report of the last run.
    pub fn report(&self) -> PathBuf {
        self.state.join("report.json")
    }
    /// Name of the lab's cgroup in every hierarchy: the same for the same folder, so that the next
    /// run finds what is left.
    pub fn cgroup(&self) -> String {
        // FNV-1a, 64 bit: a name, not a secret
        let hash = self
            .state
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        format!("dtn-lab-{hash:016x}")
    }
}
