//! What is to be said of the data folder: its room, and what its disks can feed.

use super::{Findings, Level};
use dtn_api::{Rate, Size};
use dtn_link::block::{Disk, Room};

/// What one disk carries in sequence, where its bus does not say it: turning disks 250 MB/s, SATA
/// 550 MB/s.
const TURNING: Rate = Rate::from_bps(2_000_000_000);
const SATA: Rate = Rate::from_bps(4_400_000_000);
/// Free room that is little, and too little.
const LITTLE_ROOM: u64 = 20 << 30;
const NO_ROOM: u64 = 1 << 30;

/// Judges it. `fastest` is what the fastest NIC carries, where there is one.
pub(super) fn judge(say: &mut Findings, data: &Room, fastest: Option<Rate>) {
    room(say, data);
    disks(say, data, fastest);
}

fn room(say: &mut Findings, data: &Room) {
    let folder = data.folder.display();
    let free = Size::from_bytes(data.free).rounded();
    let total = Size::from_bytes(data.total).rounded();
    let next = format!("df -h {folder}; findmnt -T {folder}");
    if data.options.iter().any(|option| option == "ro") {
        say.mend(
            Level::Alarm,
            "data",
            format!("{folder} is on {}, which is mounted read-only", data.mount),
            "see why: a file system that found itself damaged does that",
            next,
        );
        return;
    }
    if matches!(data.kind.as_str(), "tmpfs" | "overlay" | "ramfs") {
        say.mend(
            Level::Warning,
            "data",
            format!(
                "{folder} is on {} ({}), which is no disk",
                data.mount, data.kind
            ),
            "mount a disk there, or name a folder on one (data.dir)",
            next.clone(),
        );
    }
    let level = match data.free {
        ..NO_ROOM => Level::Alarm,
        NO_ROOM..LITTLE_ROOM => Level::Warning,
        free if free < data.total / 10 => Level::Warning,
        _ => Level::Ok,
    };
    let text = format!(
        "{folder} has {free} free of {total} ({} on {})",
        data.kind, data.mount
    );
    if level > Level::Ok {
        say.mend(
            level,
            "room",
            text,
            "make room, or name a folder on a larger disk (data.dir)",
            next,
        );
    } else if !data.exists {
        say.mend(
            Level::Warning,
            "room",
            format!("{text}, and is not there"),
            "make it, and mount the data disk on it",
            format!("install -d -m 755 {folder}"),
        );
    } else {
        say.ok("room", text);
    }
    if data.free_files.is_some_and(|files| files < 10_000) {
        say.mend(
            Level::Warning,
            "room",
            format!(
                "{folder} can hold {} more files",
                data.free_files.unwrap_or(0)
            ),
            "remove files, or make the file system anew with more inodes",
            format!("df -i {folder}"),
        );
    }
}

/// What a disk carries at best, by its kind and its bus.
fn carries(disk: &Disk) -> Option<Rate> {
    if disk.rotational {
        return Some(TURNING);
    }
    if disk.name.starts_with("nvme") {
        // the bus's headers take a tenth
        return disk
            .pcie
            .current
            .map(|link| Rate::from_bps(link.rate().bps() / 10 * 9));
    }
    disk.name.starts_with("sd").then_some(SATA)
}

fn disks(say: &mut Findings, data: &Room, fastest: Option<Rate>) {
    for disk in &data.disks {
        let name = &disk.name;
        if let (Some(current), Some(card)) = (disk.pcie.current, disk.pcie.card)
            && current.rate() < card.rate()
        {
            say.mend(
                Level::Warning,
                "disk",
                format!("{name}: PCIe trained to {current}, the disk can {card}"),
                "seat it anew, or put it into a slot that has as many lanes",
                format!("lspci -vv | grep Lnk; nvme list | grep {name}"),
            );
        }
        if name.starts_with("nvme") && disk.scheduler.as_deref().is_some_and(|one| one != "none") {
            say.mend(
                Level::Note,
                "disk",
                format!(
                    "{name}: scheduler {}",
                    disk.scheduler.as_deref().unwrap_or_default()
                ),
                "none: the disk orders its requests itself",
                format!("echo none > /sys/block/{name}/queue/scheduler"),
            );
        }
    }
    let all: Option<Vec<Rate>> = data.disks.iter().map(carries).collect();
    let Some(all) = all.filter(|all| !all.is_empty()) else {
        return;
    };
    let sum = Rate::from_bps(all.iter().map(|rate| rate.bps()).sum());
    let names: Vec<&str> = data.disks.iter().map(|disk| disk.name.as_str()).collect();
    let names = names.join(", ");
    // room for file systems and small files: a quarter more than the network
    match fastest.filter(|fastest| sum.bps() < fastest.bps() / 4 * 5) {
        Some(fastest) => say.mend(
            Level::Warning,
            "disks",
            format!("{names} carry about {sum} by their kind, the fastest NIC carries {fastest}"),
            "use NVMe disks, or more of them: what the disks cannot feed no network can move",
            format!(
                "fio --name=x --directory={} --rw=read --bs=1M --direct=1 --size=4G",
                data.folder.display()
            ),
        ),
        None => say.ok("disks", format!("{names} carry about {sum} by their kind")),
    }
}
