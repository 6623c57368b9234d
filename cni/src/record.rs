//! The record of an attachment: what was there before, what was done, for how long. One file per
//! pod in `attachments/`, on disk before the kernel is touched, gone when everything is home.
//!
//! Invariant: whoever changes the network for a pod holds the pod's lock, and wrote down first what
//! is needed to take it back.

use crate::{
    conf::Places,
    error::{CniError, Code},
};
use dtn_api::{
    IfName, MacAddress,
    attachment::{self, PodIdentity, SliceBinding},
    nic::NicClass,
};
use dtn_link::{atomic_file, nic::BeforeImage};
use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;

/// Version of the file that this build writes; a newer one is refused.
pub const VERSION: u32 = 1;
/// Longest record that is read: a pod with a hundred interfaces is far below.
const LONGEST: u64 = 1 << 20;
/// How long another process may hold a lock before we give up: a move takes 20 ms.
const PATIENCE: Duration = Duration::from_secs(20);

/// How far an interface has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Written down; the kernel may have been touched.
    Recorded,
    /// Attached, read back and answered.
    Attached,
    /// Being brought home.
    Leaving,
}

/// A lease to give back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseMark {
    /// Which lease.
    pub id: Uuid,
    /// Of which slice.
    pub slice_id: Uuid,
    /// Whose.
    pub client_id: String,
}

impl LeaseMark {
    /// Of a lease.
    pub fn of(lease: &dtn_api::lease::Lease) -> Self {
        Self {
            id: lease.id,
            slice_id: lease.slice_id,
            client_id: lease.client_id.clone(),
        }
    }
}

/// Another plugin that gave the addresses: how to call it again without the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegateMark {
    /// Its name.
    pub plugin: String,
    /// Folders in which to find it.
    pub path: Vec<PathBuf>,
    /// The configuration that it was given.
    pub config: serde_json::Value,
    /// The container that it was given.
    pub container_id: String,
    /// `CNI_ARGS` that it was given.
    pub args: String,
}

/// One interface of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceRecord {
    /// Its name in the pod, as it was given.
    pub ifname: IfName,
    /// Its name in what was prepared, where the runtime gave it another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared_as: Option<IfName>,
    /// The CNI network.
    pub network: String,
    /// The cluster's own network, where it was attached behind that by `vdn-chain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
    /// The container that the runtime named.
    pub container_id: String,
    /// Moved whole, or a macvlan child.
    pub class: NicClass,
    /// How far it has come.
    pub phase: Phase,
    /// Path of the sandbox.
    pub netns: PathBuf,
    /// Inode of the sandbox: paths are used again.
    pub netns_inode: u64,
    /// The NIC before anything was done to it; of a shared one for its identity alone.
    pub before: BeforeImage,
    /// Index of the interface in the sandbox, once it is there.
    #[serde(default)]
    pub index: Option<u32>,
    /// Its hardware address in the sandbox.
    pub mac: Option<MacAddress>,
    /// Its MTU in the sandbox, bytes.
    pub mtu: u32,
    /// Its addresses.
    pub ips: Vec<IpNet>,
    /// What it is paced to, bits per second of frames; 0 is unpaced.
    pub rate_bps: u64,
    /// Slices that it is a member of.
    #[serde(default)]
    pub slices: Vec<SliceBinding>,
    /// Leases to give back.
    #[serde(default)]
    pub leases: Vec<LeaseMark>,
    /// Who gave the addresses, when it was another plugin.
    #[serde(default)]
    pub delegate: Option<DelegateMark>,
    /// Settings of the sandbox as they were.
    #[serde(default)]
    pub settings: Vec<dtn_tuning::apply::Outcome>,
    /// What this kernel could not give, in words: `fq unavailable`.
    #[serde(default)]
    pub lacking: Vec<String>,
}

impl InterfaceRecord {
    /// Its name in what was prepared for the pod.
    pub fn prepared_name(&self) -> &IfName {
        self.prepared_as.as_ref().unwrap_or(&self.ifname)
    }
}

/// Everything that was done for one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentRecord {
    /// [`VERSION`].
    pub version: u32,
    /// The pod's UID, else the container's ID.
    pub key: String,
    /// Which pod, where it was prepared.
    #[serde(default)]
    pub pod: Option<PodIdentity>,
    /// The boot that it belongs to (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// Its interfaces.
    pub interfaces: Vec<InterfaceRecord>,
}

impl AttachmentRecord {
    /// A record without interfaces.
    pub fn new(key: &str, pod: Option<PodIdentity>) -> Self {
        Self {
            version: VERSION,
            key: key.to_owned(),
            pod,
            boot_id: boot_id(),
            interfaces: Vec::new(),
        }
    }
    /// Whether it belongs to this boot. Sandboxes of another one are gone, and their inodes and
    /// indices are given to others now.
    pub fn is_of_this_boot(&self) -> bool {
        self.boot_id == boot_id()
    }
    /// The interface of this name.
    pub fn interface(&self, ifname: &IfName) -> Option<&InterfaceRecord> {
        self.interfaces
            .iter()
            .find(|interface| interface.ifname == *ifname)
    }
    /// The interface that was prepared under this name, whatever the runtime called it.
    pub fn of_prepared(&self, name: &IfName) -> Option<&InterfaceRecord> {
        self.interfaces
            .iter()
            .find(|interface| interface.prepared_name() == name)
    }
    /// Puts an interface in, over one of the same name.
    pub fn put(&mut self, interface: InterfaceRecord) {
        self.interfaces
            .retain(|other| other.ifname != interface.ifname);
        self.interfaces.push(interface);
    }
    /// Writes it; a record without interfaces is removed.
    pub fn write(&self, places: &Places) -> Result<(), CniError> {
        let file = places.attachments().join(attachment::file_name(&self.key));
        if self.interfaces.is_empty() {
            return Ok(atomic_file::remove(&file)?);
        }
        let json = serde_json::to_vec_pretty(self)
            .map_err(|e| CniError::internal(format!("writing {}", file.display()), e))?;
        atomic_file::create_folder(&places.attachments(), 0o700)?;
        Ok(atomic_file::write(&file, &json, 0o600)?)
    }
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// The record of a key; `None` when there is none. A torn or newer one is an error that says what
/// to do with it.
pub fn read(places: &Places, key: &str) -> Result<Option<AttachmentRecord>, CniError> {
    read_file(&places.attachments().join(attachment::file_name(key)))
}

fn read_file(file: &Path) -> Result<Option<AttachmentRecord>, CniError> {
    let Some(bytes) = atomic_file::read(file, LONGEST)? else {
        return Ok(None);
    };
    let doing = || format!("reading the record {}", file.display());
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let version: Version = serde_json::from_slice(&bytes).map_err(|e| {
        CniError::new(
            Code::Io,
            doing(),
            format!("{e}; move it away by hand once its NIC is home"),
        )
    })?;
    if version.version > VERSION {
        let details = format!(
            "its version is {}, this build knows {VERSION}: install the newer build again",
            version.version
        );
        return Err(CniError::new(Code::Io, doing(), details));
    }
    let record = serde_json::from_slice(&bytes).map_err(|e| {
        CniError::new(
            Code::Io,
            doing(),
            format!("{e}; move it away by hand once its NIC is home"),
        )
    })?;
    Ok(Some(record))
}

/// All records, and the errors of those that cannot be read.
pub fn list(places: &Places) -> (Vec<AttachmentRecord>, Vec<CniError>) {
    let (mut records, mut errors) = (Vec::new(), Vec::new());
    let Ok(entries) = fs::read_dir(places.attachments()) else {
        return (records, errors);
    };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        let name = file
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        if atomic_file::is_temporary(&name) || !name.ends_with(".json") {
            continue;
        }
        match read_file(&file) {
            Ok(Some(record)) => records.push(record),
            Ok(None) => {}
            Err(e) => errors.push(e),
        }
    }
    (records, errors)
}

/// A lock on something, until it is dropped or its process ends. Its file goes with it, so that
/// `/run` does not fill with the names of pods that were.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // still held: whoever waits on this file sees that its name is gone, and starts anew
        let _ = fs::remove_file(&self.path);
    }
}

/// The lock of one pod.
pub async fn lock(places: &Places, key: &str) -> Result<Lock, CniError> {
    take(places, &format!("{key}.lock"), PATIENCE).await
}

/// The lock under which a NIC is claimed: two pods never both find it free.
pub async fn lock_claims(places: &Places) -> Result<Lock, CniError> {
    // no pod has this key: keys begin with a letter or a digit
    take(places, "_claims.lock", PATIENCE).await
}

async fn take(places: &Places, name: &str, patience: Duration) -> Result<Lock, CniError> {
    let folder = places.run.join("locks");
    let file = folder.join(name);
    let doing = || format!("locking {}", file.display());
    atomic_file::create_folder(&folder, 0o700)?;
    let end = Instant::now() + patience;
    loop {
        let open = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&file)
            .map_err(|e| CniError::new(Code::Io, doing(), e.to_string()))?;
        // the file that was locked must still be the one with the name: its last holder removed it
        if let Ok(lock) = Flock::lock(open, FlockArg::LockExclusiveNonblock)
            && is_at(&lock, &file)
        {
            return Ok(Lock {
                _file: lock,
                path: file,
            });
        }
        if Instant::now() >= end {
            let details = format!("another call has held it for {} s", patience.as_secs());
            return Err(CniError::new(Code::TryAgainLater, doing(), details));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = |held: &fs::Metadata, named: &fs::Metadata| {
        (held.dev(), held.ino()) == (named.dev(), named.ino())
    };
    matches!((file.metadata(), fs::metadata(path)), (Ok(held), Ok(named)) if same(&held, &named))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(folder: &Path) -> Places {
        Places::below(folder)
    }

    pub(crate) fn interface(name: &str) -> InterfaceRecord {
        InterfaceRecord {
            ifname: name.parse().unwrap(),
            prepared_as: None,
            network: "dtn".into(),
            behind: None,
            container_id: "c1".into(),
            class: NicClass::Dedicated,
            phase: Phase::Recorded,
            netns: "/run/netns/x".into(),
            netns_inode: 1,
            before: serde_json::from_value(serde_json::json!({
                "netns_inode": 2, "index": 3, "name": "ens1", "mac": null, "mtu": 1500,
                "tx_queue_len": 1000, "up": true
            }))
            .unwrap(),
            index: None,
            mac: None,
            mtu: 9000,
            ips: vec![],
            rate_bps: 0,
            slices: vec![],
            leases: vec![],
            delegate: None,
            settings: vec![],
            lacking: vec![],
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_goes_with_its_last_interface() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        let mut record = AttachmentRecord::new("u1", None);
        record.put(interface("net1"));
        record.put(interface("net1"));
        record.write(&places).unwrap();
        assert_eq!(read(&places, "u1").unwrap().unwrap(), record);
        assert_eq!(record.interfaces.len(), 1);
        record.interfaces.clear();
        record.write(&places).unwrap();
        assert_eq!(read(&places, "u1").unwrap(), None);
    }

    #[test]
    fn torn_and_newer_records_are_told_and_do_not_hide_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        let mut record = AttachmentRecord::new("good", None);
        record.put(interface("net1"));
        record.write(&places).unwrap();
        fs::write(places.attachments().join("torn.json"), "{\"version\":1,").unwrap();
        fs::write(places.attachments().join("new.json"), "{\"version\":99}").unwrap();
        let (records, errors) = list(&places);
        assert_eq!(records.len(), 1);
        assert_eq!(errors.len(), 2);
        assert!(errors.iter().any(|e| e.to_string().contains("99")));
    }

    #[tokio::test]
    async fn a_lock_is_held_until_it_is_dropped_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        let held = lock(&places, "u1").await.unwrap();
        let other = lock(&places, "u2").await.unwrap();
        let refused = take(&places, "u1.lock", Duration::ZERO).await.unwrap_err();
        assert_eq!(refused.code, Code::TryAgainLater);
        drop((held, other));
        drop(lock(&places, "u1").await.unwrap());
        let left = fs::read_dir(places.run.join("locks")).unwrap().count();
        assert_eq!(left, 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_lock_has_one_holder_even_while_its_file_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let places = std::sync::Arc::new(places(folder.path()));
        let inside = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (places, inside) = (places.clone(), inside.clone());
            tasks.spawn(async move {
                for _ in 0..50 {
                    let _lock = lock(&places, "u1").await.unwrap();
                    let before = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    assert_eq!(before, 0, "two hold it");
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }

    #[test]
    fn a_record_of_another_boot_says_so() {
        let mut record = AttachmentRecord::new("u1", None);
        assert!(record.is_of_this_boot());
        record.boot_id = "another".into();
        assert!(!record.is_of_this_boot());
    }
}
