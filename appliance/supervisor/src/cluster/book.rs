//! The book of claims: what was given to which pod for which claim, one file per claim.
//!
//! It outlives the claim, which may be gone when the kubelet asks to take it back, and it outlives a
//! reboot: the kubelet remembers across one that a claim is prepared and does not ask again, so the
//! prepared file, which does not outlive it, is written anew from here. An entry is on disk before
//! anything is had for it.

use super::claim::{Allocated, ClaimId};
use crate::Places;
use dtn_api::{
    IfName, Problem,
    attachment::{PodIdentity, PreparedInterface, key_is_valid},
    problem::Kind,
};
use dtn_link::atomic_file;
use jiff::Timestamp;
use k8s_openapi::api::resource::v1::Device;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Version of the file that this build writes; a newer one is refused.
pub const VERSION: u32 = 1;
/// Largest such file.
const LARGEST: u64 = 1 << 20;

/// One claim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// [`VERSION`].
    pub version: u32,
    /// Which claim.
    pub claim: ClaimId,
    /// The pod that it was prepared for.
    pub pod: PodIdentity,
    /// What was given.
    pub devices: Vec<Given>,
    /// When.
    pub prepared_at: Timestamp,
}

/// One device of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Given {
    /// Which was allocated.
    pub allocated: Allocated,
    /// The interface in the pod.
    pub ifname: IfName,
    /// What is in the prepared file; `None` until all of it is had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<PreparedInterface>,
    /// As which device the NIC was published then. It stays so while a pod has it whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Device>,
}

impl Entry {
    /// Whether everything is had.
    pub fn is_whole(&self) -> bool {
        self.devices.iter().all(|given| given.interface.is_some())
    }
    /// Writes it, durably.
    pub fn write(&self, places: &Places) -> Result<(), Problem> {
        let path = file(places, &self.claim.uid)?;
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| broken("writing", &path, &e))?;
        atomic_file::write(&path, &bytes, 0o600).map_err(|e| broken("writing", &path, &e))
    }
}

fn file(places: &Places, uid: &str) -> Result<PathBuf, Problem> {
    match key_is_valid(uid) {
        true => Ok(places.claims().join(format!("{uid}.json"))),
        false => Err(Problem::new(
            Kind::InvalidRequest,
            format!("{uid:?} cannot be the UID of a claim"),
        )),
    }
}
fn broken(doing: &str, path: &Path, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::Internal, format!("{doing} {}: {why}", path.display()))
}

/// The entry of a claim.
pub fn read(places: &Places, uid: &str) -> Result<Option<Entry>, Problem> {
    let path = file(places, uid)?;
    let read = |why: &dyn std::fmt::Display| broken("reading", &path, why);
    let Some(bytes) = atomic_file::read(&path, LARGEST).map_err(|e| read(&e))? else {
        return Ok(None);
    };
    let entry: Entry = serde_json::from_slice(&bytes).map_err(|e| read(&e))?;
    match entry.version > VERSION {
        true => Err(read(&format!(
            "version {} is newer than this build reads",
            entry.version
        ))),
        false => Ok(Some(entry)),
    }
}

/// Every entry that can be read, by UID, and what is wrong with the others.
pub fn list(places: &Places) -> Result<(Vec<Entry>, Vec<Problem>), Problem> {
    let folder = places.claims();
    let failed = |e: &std::io::Error| broken("reading", &folder, e);
    let (mut entries, mut torn) = (Vec::new(), Vec::new());
    for file in std::fs::read_dir(&folder).map_err(|e| failed(&e))? {
        let name = file.map_err(|e| failed(&e))?.file_name();
        let name = name.to_string_lossy();
        if atomic_file::is_temporary(&name) {
            continue;
        }
        let Some(uid) = name.strip_suffix(".json") else {
            continue;
        };
        match read(places, uid) {
            Ok(Some(entry)) => entries.push(entry),
            // it went meanwhile
            Ok(None) => {}
            Err(problem) => torn.push(problem),
        }
    }
    entries.sort_by(|a, b| a.claim.uid.cmp(&b.claim.uid));
    Ok((entries, torn))
}

/// Takes the entry of a claim out. Success when there is none.
pub fn remove(places: &Places, uid: &str) -> Result<(), Problem> {
    let path = file(places, uid)?;
    atomic_file::remove(&path).map_err(|e| broken("removing", &path, &e))
}
