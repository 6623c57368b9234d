//! The book of pods: what was asked for and how far it has come, one file per pod, on disk before
//! the step is taken. Whoever starts anew reads here what to go on with.

use crate::Places;
use dtn_api::{IfName, Name, Problem, Size, local::DeployRequest, problem::Kind};
use dtn_link::atomic_file;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Version of the file that this build writes; a newer one is refused.
pub const VERSION: u32 = 1;
/// Largest such file: it has the pod's manifest in it.
const LARGEST: u64 = 1 << 20;

/// How far a pod has come. Only a hint for people and for [`super::decide`]: what is so is read
/// from the engine and from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Written down.
    Booked,
    /// The engine is making it, or has it.
    Made,
    /// Its sandbox is being pinned, its NIC had and attached.
    Attaching,
    /// It was started, and has run.
    Started,
}

/// What is wanted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// It shall run.
    Up,
    /// It shall go.
    Down,
    /// It could not be made, and is kept so that someone reads why; nothing of it is left.
    Failed,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// [`VERSION`].
    pub version: u32,
    /// Its UID, given here: the key of everything that belongs to it.
    pub uid: String,
    /// What was asked.
    pub request: DeployRequest,
    /// Name of its interface.
    pub ifname: IfName,
    /// Memory limit of its containers together.
    pub memory: Option<Size>,
    /// TCP streams that its buffers are sized for.
    pub streams: u32,
    /// What the engine is given.
    pub manifest: String,
    /// How many containers it has; an engine that was cut off made fewer.
    pub containers: usize,
    /// How far it has come.
    pub step: Step,
    /// What is wanted of it.
    pub wanted: Wanted,
    /// The boot in which it was started last.
    pub boot_id: String,
    /// In words, when something is to be said.
    #[serde(default)]
    pub message: String,
    /// When it was asked for.
    pub created_at: Timestamp,
}

impl Entry {
    /// Its name.
    pub fn name(&self) -> &Name {
        &self.request.name
    }
}

fn file(places: &Places, name: &Name) -> PathBuf {
    places.pods().join(format!("{name}.json"))
}
fn broken(path: &Path, why: impl std::fmt::Display) -> Problem {
    Problem::new(Kind::Internal, format!("{}: {why}", path.display()))
}

/// Writes an entry, durably.
pub fn write(places: &Places, entry: &Entry) -> Result<(), Problem> {
    let path = file(places, entry.name());
    let bytes = serde_json::to_vec_pretty(entry).map_err(|e| broken(&path, e))?;
    atomic_file::write(&path, &bytes, 0o600).map_err(|e| broken(&path, e))
}

/// Removes an entry; success when there is none.
pub fn remove(places: &Places, name: &Name) -> Result<(), Problem> {
    let path = file(places, name);
    atomic_file::remove(&path).map_err(|e| broken(&path, e))
}

/// One entry; `None` when there is none.
pub fn read(places: &Places, name: &Name) -> Result<Option<Entry>, Problem> {
    read_file(&file(places, name))
}

fn read_file(path: &Path) -> Result<Option<Entry>, Problem> {
    let Some(bytes) = atomic_file::read(path, LARGEST).map_err(|e| broken(path, e))? else {
        return Ok(None);
    };
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let version: Version = serde_json::from_slice(&bytes).map_err(|e| broken(path, e))?;
    if version.version > VERSION {
        let why = format!(
            "version {} is newer than this build reads: install the newer build again",
            version.version
        );
        return Err(broken(path, why));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| broken(path, e))
}

/// Every entry that can be read, by name, and in words those that cannot: one torn file must not
/// hide the others, and what it stands for is not swept either.
pub fn list(places: &Places) -> Result<(Vec<Entry>, Vec<Problem>), Problem> {
    let folder = places.pods();
    let (mut entries, mut torn) = (Vec::new(), Vec::new());
    for item in std::fs::read_dir(&folder).map_err(|e| broken(&folder, e))? {
        let path = item.map_err(|e| broken(&folder, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if atomic_file::is_temporary(&name) || !name.ends_with(".json") {
            continue;
        }
        match read_file(&path) {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => {}
            Err(problem) => torn.push(problem),
        }
    }
    entries.sort_by(|a, b| a.name().as_str().cmp(b.name().as_str()));
    Ok((entries, torn))
}

/// The boot that this is.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
pub(crate) fn example(name: &str) -> Entry {
    Entry {
        version: VERSION,
        uid: format!("uid-{name}"),
        request: DeployRequest {
            template: "xrootd".parse().unwrap(),
            name: name.parse().unwrap(),
            values: Default::default(),
            slice: None,
            nic_class: dtn_api::nic::NicClass::Dedicated,
            nic: None,
            dry_run: false,
        },
        ifname: "data0".parse().unwrap(),
        memory: None,
        streams: 8,
        manifest: "{}".into(),
        containers: 1,
        step: Step::Booked,
        wanted: Wanted::Up,
        boot_id: "b".into(),
        message: String::new(),
        created_at: Timestamp::UNIX_EPOCH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_and_newer_entries_are_told_and_do_not_hide_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(dir.path());
        places.create().unwrap();
        write(&places, &example("b")).unwrap();
        write(&places, &example("a")).unwrap();
        std::fs::write(places.pods().join("torn.json"), "{\"version\": 1").unwrap();
        std::fs::write(places.pods().join("new.json"), "{\"version\": 2}").unwrap();
        std::fs::write(places.pods().join(".a.json.tmp-1-1"), "{").unwrap();
        let (entries, torn) = list(&places).unwrap();
        let names: Vec<_> = entries.iter().map(|e| e.name().to_string()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(torn.len(), 2);
        assert!(torn.iter().any(|p| p.detail.contains("newer")));
        remove(&places, entries[0].name()).unwrap();
        remove(&places, entries[0].name()).unwrap();
        assert_eq!(read(&places, entries[0].name()).unwrap(), None);
        assert_eq!(
            read(&places, entries[1].name()).unwrap().unwrap(),
            entries[1]
        );
    }
}
