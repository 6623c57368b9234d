//! Sandboxes: how the one of a record is found again, whether it is gone for good, and the pin that
//! keeps it while a NIC is in it.
//!
//! The runtime of a cluster removes a sandbox when it likes, with or without a DEL before. A virtual
//! link would die with it, and hardware would come home under the pod's name for it. So the plugin
//! binds the sandbox to a file of its own before anything goes in, named after the pod and the
//! sandbox's inode, and unbinds it when nothing of the pod is in there any more. Pods that the
//! supervisor itself makes are pinned by the supervisor.

use crate::{
    conf::Places,
    record::{AttachmentRecord, InterfaceRecord},
};
use dtn_link::{Netns, atomic_file, netns};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The sandbox of a record.
pub(crate) struct Sandbox {
    pub(crate) netns: Netns,
    /// How it was found.
    pub(crate) by: Way,
}

/// How a sandbox was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the runtime's path, which is on record.
    Path,
    /// By our own pin: the runtime's path is gone.
    Pin,
    /// By a process that is in a namespace of the same inode.
    Process,
}

impl Sandbox {
    /// Whether it is the sandbox on record without doubt: inodes are given again, but not while a
    /// path or a pin holds the namespace.
    pub(crate) fn is_sure(&self) -> bool {
        self.by != Way::Process
    }
}

/// The sandbox of the record, if it still is. None survives a reboot.
pub(crate) fn find(
    places: &Places,
    key: &str,
    interface: &InterfaceRecord,
    this_boot: bool,
) -> Option<Sandbox> {
    if !this_boot {
        return None;
    }
    let inode = interface.netns_inode;
    let at = |path: &Path, by| same(path, inode).map(|netns| Sandbox { netns, by });
    at(&interface.netns, Way::Path)
        .or_else(|| at(&pin_path(places, key, inode), Way::Pin))
        .or_else(|| of_a_process(inode))
}

/// Whether the runtime's sandbox is gone for good, so that no DEL for it will come: another boot, or
/// its path is gone and no process is in it. What cannot be seen from here is not taken for gone: a
/// pod that runs would lose its NIC.
pub(crate) fn is_gone(interface: &InterfaceRecord, this_boot: bool) -> bool {
    if !this_boot {
        return true;
    }
    let path = &interface.netns;
    match Netns::open(path) {
        Ok(netns) if netns.inode() == interface.netns_inode => false,
        Ok(_) => of_a_process(interface.netns_inode).is_none(),
        Err(e) if e.is_not_found() => {
            // of a process, or in a folder of the runtime's that is seen here
            let seen = path.starts_with("/proc") || path.parent().is_some_and(Path::is_dir);
            seen && of_a_process(interface.netns_inode).is_none()
        }
        // a file without a namespace: the runtime's mounts may not be seen from here
        Err(_) => false,
    }
}

fn same(path: &Path, inode: u64) -> Option<Netns> {
    let netns = Netns::open(path).ok()?;
    (netns.inode() == inode).then_some(netns)
}

fn of_a_process(inode: u64) -> Option<Sandbox> {
    let is_number = |name: &str| name.bytes().all(|b| b.is_ascii_digit());
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter(|entry| is_number(&entry.file_name().to_string_lossy()))
        .find_map(|entry| same(&entry.path().join("ns/net"), inode))
        .map(|netns| Sandbox {
            netns,
            by: Way::Process,
        })
}

fn pin_path(places: &Places, key: &str, inode: u64) -> PathBuf {
    places.pins().join(format!("{key}.{inode}"))
}

/// Pins a sandbox. Without the pin a virtual link is lost when the runtime forgets DEL, and nothing
/// else: so a failure is told, and the attachment goes on.
pub(crate) fn pin(places: &Places, key: &str, sandbox: &Netns) {
    let path = pin_path(places, key, sandbox.inode());
    if same(&path, sandbox.inode()).is_some() {
        return;
    }
    // a file that holds nothing is left of a call that was cut off, or of an earlier boot
    let pinned = netns::unbind(&path)
        .and_then(|()| atomic_file::create_folder(&places.pins(), 0o755))
        .and_then(|()| sandbox.bind(&path));
    if let Err(e) = pinned {
        tracing::warn!("{e}; the sandbox of {key} is not pinned");
    }
}

/// Takes a pin away when nothing on record is in that sandbox any more.
pub(crate) fn unpin(places: &Places, record: &AttachmentRecord, inode: u64) {
    if record.interfaces.iter().any(|i| i.netns_inode == inode) {
        return;
    }
    let path = pin_path(places, &record.key, inode);
    if path.symlink_metadata().is_ok()
        && let Err(e) = netns::unbind(&path)
    {
        // the supervisor sweeps it
        tracing::warn!("{e}");
    }
}
