//! Where a card sits: its PCIe link as trained and at best, the slot above it, its NUMA node, its
//! interrupts, and what the bus counted of errors. From sysfs and procfs, without root.

use crate::{
    Result,
    sysfs::{Sysfs, entries, link_name, number, text},
};
use dtn_api::{PciAddress, Rate};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A PCIe link: how fast and how wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcieLink {
    /// Transfers a second of a lane, in millions: 8000 of the third generation.
    pub megatransfers: u32,
    /// Lanes.
    pub lanes: u32,
}

impl PcieLink {
    /// Bits a second that the line code leaves: 8 of 10 up to the second generation, 128 of 130
    /// from the third, 242 of 256 bytes of a flit from the sixth (PCI Express Base Specification).
    /// Packet headers take some 10 % more of it.
    pub fn rate(&self) -> Rate {
        let raw = u64::from(self.megatransfers) * 1_000_000 * u64::from(self.lanes);
        Rate::from_bps(match self.megatransfers {
            0..=5_000 => raw / 10 * 8,
            5_001..=32_000 => raw / 130 * 128,
            _ => raw / 256 * 242,
        })
    }
}
impl std::fmt::Display for PcieLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, part) = (self.megatransfers / 1000, self.megatransfers % 1000 / 100);
        write!(f, "{whole}.{part} GT/s x{}", self.lanes)
    }
}

/// Errors that the bus counted (advanced error reporting), since the machine started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusErrors {
    /// Sent again without anybody noticing.
    pub correctable: u64,
    /// A transfer was lost.
    pub nonfatal: u64,
    /// The link was lost.
    pub fatal: u64,
}

/// An interrupt of a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupt {
    /// Its number.
    pub number: u32,
    /// The processors that it is delivered to.
    pub processors: Vec<u32>,
}

/// What is known of a card on its bus; what the kernel does not tell is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcieFacts {
    /// Where it sits; none of virtual links.
    pub address: Option<PciAddress>,
    /// Its driver.
    pub driver: Option<String>,
    /// Version of the driver, where it is not the kernel's own.
    pub driver_version: Option<String>,
    /// The link as trained.
    pub current: Option<PcieLink>,
    /// The best that the card can do.
    pub card: Option<PcieLink>,
    /// The best that the slot can do.
    pub slot: Option<PcieLink>,
    /// Its NUMA node; none on machines with one.
    pub numa_node: Option<u32>,
    /// Processors that are near.
    pub near: Vec<u32>,
    /// Interrupts.
    pub interrupts: Vec<Interrupt>,
    /// Errors of the bus.
    pub errors: Option<BusErrors>,
}

/// The card of the network device with this name. `proc` is the machine's `/proc`.
pub fn of_nic(sysfs: &Sysfs, proc: &Path, name: &str) -> Result<PcieFacts> {
    of_device(
        &sysfs.root().join("class/net").join(name).join("device"),
        proc,
    )
}

/// The card at an address, which may have no network device here: that is in a sandbox.
pub fn of_address(sysfs: &Sysfs, proc: &Path, address: &PciAddress) -> Result<PcieFacts> {
    let function = sysfs.root().join("bus/pci/devices").join(address.as_str());
    of_device(&function, proc)
}

/// The card that a device is, or stands below.
pub(crate) fn of_device(device: &Path, proc: &Path) -> Result<PcieFacts> {
    let Some(function) = function_above(device) else {
        return Ok(PcieFacts {
            driver: link_name(&device.join("driver"))?,
            ..PcieFacts::default()
        });
    };
    let slot = function.parent().filter(|above| address(above).is_some());
    let mut interrupts = Vec::new();
    for entry in entries(&function.join("msi_irqs"))? {
        let Ok(number) = entry.parse() else { continue };
        let place = proc.join("irq").join(&entry);
        let affinity = match text(&place.join("effective_affinity_list"))? {
            Some(list) => Some(list),
            None => text(&place.join("smp_affinity_list"))?,
        };
        interrupts.push(Interrupt {
            number,
            processors: list(&affinity.unwrap_or_default()),
        });
    }
    interrupts.sort_by_key(|interrupt| interrupt.number);
    let below = |file: &str| function.join(file);
    Ok(PcieFacts {
        address: address(&function),
        driver: link_name(&below("driver"))?,
        driver_version: text(&below("driver/module/version"))?,
        current: link(&function, "current")?,
        card: link(&function, "max")?,
        slot: match slot {
            Some(slot) => link(slot, "max")?,
            None => None,
        },
        numa_node: number(&below("numa_node"))?.and_then(|node| node.try_into().ok()),
        near: list(&text(&below("local_cpulist"))?.unwrap_or_default()),
        interrupts,
        errors: errors(&function)?,
    })
}

fn function_above(device: &Path) -> Option<PathBuf> {
    let path = fs::canonicalize(device).ok()?;
    let found = path.ancestors().find(|place| address(place).is_some());
    found.map(Path::to_path_buf)
}

fn address(place: &Path) -> Option<PciAddress> {
    place.file_name()?.to_str()?.parse().ok()
}

/// `current_link_speed` and `current_link_width`, or those of `max_`.
fn link(function: &Path, which: &str) -> Result<Option<PcieLink>> {
    let speed = text(&function.join(format!("{which}_link_speed")))?;
    let lanes = number(&function.join(format!("{which}_link_width")))?;
    // 0 of virtual functions, 255 of bridges that do not know
    let lanes = lanes.and_then(|lanes| u32::try_from(lanes).ok());
    let lanes = lanes.filter(|lanes| (1..=32).contains(lanes));
    Ok(speed
        .as_deref()
        .and_then(megatransfers)
        .zip(lanes)
        .map(|(megatransfers, lanes)| PcieLink {
            megatransfers,
            lanes,
        }))
}

/// `8.0 GT/s PCIe`, and `8 GT/s` of older kernels; `Unknown` is none.
fn megatransfers(speed: &str) -> Option<u32> {
    let (number, rest) = speed.split_once(' ')?;
    if !rest.starts_with("GT/s") {
        return None;
    }
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let part: u32 = part.chars().next()?.to_digit(10)?;
    whole
        .parse::<u32>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(part * 100)
}

fn errors(function: &Path) -> Result<Option<BusErrors>> {
    // a name and a number a line, and the sum at the end
    let total = |file: &str, name: &str| -> Result<Option<u64>> {
        let table = text(&function.join(file))?;
        Ok(table.and_then(|table| {
            let line = table.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        }))
    };
    let correctable = total("aer_dev_correctable", "TOTAL_ERR_COR")?;
    Ok(match correctable {
        None => None,
        Some(correctable) => Some(BusErrors {
            correctable,
            nonfatal: total("aer_dev_nonfatal", "TOTAL_ERR_NONFATAL")?.unwrap_or(0),
            fatal: total("aer_dev_fatal", "TOTAL_ERR_FATAL")?.unwrap_or(0),
        }),
    })
}

/// A list of processors: `0-3,8`.
pub(crate) fn list(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            // a machine has fewer processors than this
            found.extend(first..=last.min(first.saturating_add(8192)));
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn put(root: &Path, path: &str, content: &str) {
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }

    /// A mlx5 port of sixteen lanes in a slot of eight that trained at the second generation. Built
    /// by hand after the kernel's Documentation/ABI/testing/sysfs-bus-pci and
    /// sysfs-bus-pci-devices-aer_stats.
    fn imitation() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let bridge = "sys/devices/pci0000:3a/0000:3a:00.0";
        let card = format!("{bridge}/0000:3b:00.0");
        for (file, content) in [
            ("current_link_speed", "5.0 GT/s PCIe\n"),
            ("current_link_width", "8\n"),
            ("max_link_speed", "16.0 GT/s PCIe\n"),
            ("max_link_width", "16\n"),
            ("numa_node", "1\n"),
            ("local_cpulist", "8-11,24\n"),
            (
                "aer_dev_correctable",
                "RxErr 3\nBadTLP 1\nTOTAL_ERR_COR 4\n",
            ),
            ("aer_dev_nonfatal", "Undefined 0\nTOTAL_ERR_NONFATAL 0\n"),
            ("aer_dev_fatal", "Undefined 0\nTOTAL_ERR_FATAL 0\n"),
            ("msi_irqs/131", "msix\n"),
            ("msi_irqs/130", "msix\n"),
            ("net/ens1f0/mtu", "9000\n"),
        ] {
            put(root, &format!("{card}/{file}"), content);
        }
        put(root, &format!("{bridge}/max_link_speed"), "8 GT/s\n");
        put(root, &format!("{bridge}/max_link_width"), "8\n");
        put(root, "proc/irq/130/effective_affinity_list", "8\n");
        put(root, "proc/irq/131/smp_affinity_list", "0-2\n");
        fs::create_dir_all(root.join("sys/class/net/ens1f0")).unwrap();
        symlink(root.join(&card), root.join("sys/class/net/ens1f0/device")).unwrap();
        dir
    }

    #[test]
    fn card_slot_and_what_was_trained_are_told_apart() {
        let dir = imitation();
        let sysfs = Sysfs::at(dir.path().join("sys"));
        let facts = of_nic(&sysfs, &dir.path().join("proc"), "ens1f0").unwrap();
        let told = |link: Option<PcieLink>| link.unwrap().to_string();
        assert_eq!(told(facts.current), "5.0 GT/s x8");
        assert_eq!(told(facts.card), "16.0 GT/s x16");
        assert_eq!(told(facts.slot), "8.0 GT/s x8");
        assert_eq!(facts.current.unwrap().rate().bps(), 32_000_000_000);
        assert_eq!(
            (facts.numa_node, facts.near),
            (Some(1), vec![8, 9, 10, 11, 24])
        );
        assert_eq!(facts.errors.unwrap().correctable, 4);
        let processors: Vec<_> = facts.interrupts.into_iter().map(|i| i.processors).collect();
        assert_eq!(processors, [vec![8], vec![0, 1, 2]]);
    }

    #[test]
    fn a_virtual_link_has_no_card() {
        let facts = of_nic(&Sysfs::system(), Path::new("/proc"), "lo").unwrap();
        assert_eq!(facts, PcieFacts::default());
    }

    #[test]
    fn what_the_kernel_does_not_know_is_unknown() {
        assert_eq!(megatransfers("Unknown"), None);
        assert_eq!(megatransfers("2.5 GT/s PCIe"), Some(2500));
        assert_eq!(megatransfers("32.0 GT/s PCIe"), Some(32_000));
        assert_eq!(list("x,3-1,7"), [7]);
    }
}
