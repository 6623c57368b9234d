//! The disks below a folder: of what kind, on which NUMA node, how well their own bus was trained,
//! and how much room there is.

use crate::{
    Error, Result,
    pcie::{self, PcieFacts},
    sysfs::{Sysfs, entries, link_name, number, text},
};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Layers (a partition on LVM on RAID…) that are looked through before it is given up.
const MOST_LAYERS: u32 = 8;

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its name: `nvme0n1`.
    pub name: String,
    /// What the maker calls it.
    pub model: Option<String>,
    /// It turns.
    pub rotational: bool,
    /// The scheduler in use.
    pub scheduler: Option<String>,
    /// The card that it is, or hangs on.
    pub pcie: PcieFacts,
}

/// A folder's file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// The folder.
    pub folder: PathBuf,
    /// Whether it is there. The rest is of the nearest folder above that is.
    pub exists: bool,
    /// Where its file system is mounted.
    pub mount: String,
    /// Of what kind it is: `xfs`.
    pub kind: String,
    /// Options of the mount.
    pub options: Vec<String>,
    /// All bytes.
    pub total: u64,
    /// Bytes that are free to those who are not root.
    pub free: u64,
    /// Files that can still be made; none of file systems without a limit.
    pub free_files: Option<u64>,
    /// The disks that it is on; empty where the kernel does not tell.
    pub disks: Vec<Disk>,
}

/// Looks at a folder. `proc` is the machine's `/proc`.
pub fn room(sysfs: &Sysfs, proc: &Path, folder: &Path) -> Result<Room> {
    let doing = || format!("looking at the room of {}", folder.display());
    let real = folder
        .ancestors()
        .find_map(|above| fs::canonicalize(above).ok())
        .ok_or_else(|| Error::io(doing(), io::Error::from(io::ErrorKind::NotFound)))?;
    let room = nix::sys::statvfs::statvfs(&real).map_err(|e| Error::io(doing(), e))?;
    let mounts =
        fs::read_to_string(proc.join("self/mountinfo")).map_err(|e| Error::io(doing(), e))?;
    let mount = mount_of(&mounts, &real).unwrap_or_default();
    #[allow(
        clippy::useless_conversion,
        reason = "u64 on this architecture, u32 on others"
    )]
    let bytes = |blocks| u64::from(blocks).saturating_mul(u64::from(room.fragment_size()));
    #[allow(
        clippy::useless_conversion,
        reason = "u64 on this architecture, u32 on others"
    )]
    let (files, free_files) = (u64::from(room.files()), u64::from(room.files_available()));
    let mut disks = Vec::new();
    if let Some(device) = block_device(sysfs, &mount) {
        look_below(&device, proc, MOST_LAYERS, &mut disks)?;
    }
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    disks.dedup_by(|a, b| a.name == b.name);
    Ok(Room {
        folder: folder.to_path_buf(),
        exists: folder.is_dir(),
        mount: mount.point,
        kind: mount.kind,
        options: mount.options,
        total: bytes(room.blocks()),
        free: bytes(room.blocks_available()),
        free_files: (files > 0).then_some(free_files),
        disks,
    })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Mount {
    number: String,
    point: String,
    kind: String,
    source: String,
    options: Vec<String>,
}

/// The mount that holds a path: the longest point above it, and of equal ones the last.
fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ');
        let (number, point) = (fields.nth(2)?, fields.nth(1)?);
        let options = fields.next().unwrap_or("");
        let mut rest = after.split(' ');
        Some(Mount {
            number: number.to_owned(),
            point: crate::storage::unescape(point),
            kind: rest.next()?.to_owned(),
            source: crate::storage::unescape(rest.next()?),
            options: options.split(',').map(str::to_owned).collect(),
        })
    });
    mounts
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.len())
}

/// Where sysfs has the block device of a mount. File systems with volumes of their own (btrfs) have
/// an anonymous number: their source names the device.
fn block_device(sysfs: &Sysfs, mount: &Mount) -> Option<PathBuf> {
    let number = if mount.number.starts_with("0:") {
        let device = fs::metadata(&mount.source).ok()?.rdev();
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        format!("{major}:{minor}")
    } else {
        mount.number.clone()
    };
    fs::canonicalize(sysfs.root().join("dev/block").join(number)).ok()
}

fn look_below(device: &Path, proc: &Path, layers: u32, disks: &mut Vec<Disk>) -> Result<()> {
    // of a partition, the disk above
    let disk = if device.join("partition").exists() {
        device.parent().unwrap_or(device)
    } else {
        device
    };
    let slaves = entries(&disk.join("slaves"))?;
    if layers > 0 && !slaves.is_empty() {
        for slave in slaves {
            if let Ok(below) = fs::canonicalize(disk.join("slaves").join(slave)) {
                look_below(&below, proc, layers - 1, disks)?;
            }
        }
        return Ok(());
    }
    let name = disk
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let scheduler = text(&disk.join("queue/scheduler"))?;
    let in_use = |list: String| Some(list.split_once('[')?.1.split_once(']')?.0.to_owned());
    disks.push(Disk {
        name: name.unwrap_or_default(),
        model: text(&disk.join("device/model"))?,
        rotational: number(&disk.join("queue/rotational"))? == Some(1),
        scheduler: scheduler.and_then(in_use),
        pcie: PcieFacts {
            driver: link_name(&disk.join("device/device/driver"))?,
            ..pcie::of_device(disk, proc)?
        },
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn put(root: &Path, path: &str, content: &str) {
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }

    /// Two NVMe disks in a RAID that a partition is on; built by hand after the kernel's
    /// Documentation/ABI/stable/sysfs-block.
    #[test]
    fn disks_are_found_below_a_raid() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let nvme = |n: u32| format!("sys/devices/pci0000:5d/0000:5d:0{n}.0/nvme/nvme{n}/nvme{n}n1");
        for n in [1, 2] {
            put(root, &format!("{}/queue/rotational", nvme(n)), "0\n");
            put(
                root,
                &format!("{}/queue/scheduler", nvme(n)),
                "[none] mq-deadline\n",
            );
            put(root, &format!("{}/device/model", nvme(n)), "PM1733\n");
            let function = format!("sys/devices/pci0000:5d/0000:5d:0{n}.0");
            put(root, &format!("{function}/numa_node"), "0\n");
        }
        let md = "sys/devices/virtual/block/md0";
        put(root, &format!("{md}/md0p1/partition"), "1\n");
        fs::create_dir_all(root.join(md).join("slaves")).unwrap();
        for n in [1, 2] {
            symlink(
                root.join(nvme(n)),
                root.join(md).join(format!("slaves/nvme{n}n1")),
            )
            .unwrap();
        }
        fs::create_dir_all(root.join("sys/dev/block")).unwrap();
        symlink(
            root.join(md).join("md0p1"),
            root.join("sys/dev/block/259:3"),
        )
        .unwrap();
        let mounts = format!(
            "22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 259:3 / {} rw,noatime - xfs /dev/md0p1 rw\n",
            root.display()
        );
        put(root, "proc/self/mountinfo", &mounts);
        let sysfs = Sysfs::at(root.join("sys"));
        let room = room(&sysfs, &root.join("proc"), &root.join("data/new")).unwrap();
        assert!(!room.exists && room.total > 0);
        assert_eq!((room.kind.as_str(), room.options.len()), ("xfs", 2));
        let names: Vec<_> = room.disks.iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(names, ["nvme1n1", "nvme2n1"]);
        assert!(room.disks.iter().all(|disk| !disk.rotational
            && disk.scheduler.as_deref() == Some("none")
            && disk.pcie.numa_node == Some(0)));
    }

    #[test]
    fn the_room_of_this_machine_can_be_told() {
        let dir = tempfile::tempdir().unwrap();
        let room = room(&Sysfs::system(), Path::new("/proc"), dir.path()).unwrap();
        assert!(room.exists && room.total >= room.free && !room.mount.is_empty());
    }
}
