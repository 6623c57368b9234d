//! The machine as a whole: processors and their governors, cgroups, memory, settings, what the
//! network's soft interrupts dropped, and which programs run that may tune against us.

use crate::{
    Result,
    sysfs::{Sysfs, entries, number, text},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path};

/// What is known of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFacts {
    /// Release of the kernel.
    pub kernel: String,
    /// Processors that are on.
    pub processors: u32,
    /// NUMA nodes.
    pub numa_nodes: u32,
    /// Governors of the processors' clocks, with how many have each; empty where there are none, as
    /// in a virtual machine.
    pub governors: BTreeMap<String, u32>,
    /// It is a virtual machine.
    pub is_virtual: bool,
    /// Memory, bytes.
    pub memory: u64,
    /// Memory that can be had, bytes.
    pub memory_available: u64,
    /// Controllers of cgroup version 2 at its root; `None` where it is not mounted.
    pub cgroup2: Option<Vec<String>>,
    /// Hierarchies of cgroup version 1.
    pub cgroup1: u32,
    /// Words of the kernel's command line about the IOMMU and its mitigations.
    pub boot: Vec<String>,
    /// Packets that the soft interrupts dropped since the start, of all processors.
    pub backlog_dropped: u64,
    /// How often they ran out of their time.
    pub squeezed: u64,
    /// Programs that run, of those that were asked for.
    pub running: Vec<String>,
    /// Settings that were asked for, as `/proc/sys` has them; those that are not there are left out.
    pub settings: BTreeMap<String, String>,
}

/// Looks. `programs` are names as in `/proc/PID/comm`, `settings` as sysctl(8) writes them.
pub fn look(
    sysfs: &Sysfs,
    proc: &Path,
    programs: &[&str],
    settings: &[&str],
) -> Result<MachineFacts> {
    let cpus = sysfs.root().join("devices/system/cpu");
    let mut governors = BTreeMap::new();
    let mut processors = 0;
    for cpu in entries(&cpus)? {
        let Some(digits) = cpu.strip_prefix("cpu") else {
            continue;
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // the first one often cannot be switched off and then has no such file
        if number(&cpus.join(&cpu).join("online"))? == Some(0) {
            continue;
        }
        processors += 1;
        if let Some(governor) = text(&cpus.join(&cpu).join("cpufreq/scaling_governor"))? {
            *governors.entry(governor).or_insert(0) += 1;
        }
    }
    let nodes = entries(&sysfs.root().join("devices/system/node"))?;
    let nodes = nodes.iter().filter(|name| {
        name.strip_prefix("node")
            .is_some_and(|digits| digits.parse::<u32>().is_ok())
    });
    let memory = text(&proc.join("meminfo"))?.unwrap_or_default();
    let kilobytes = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .unwrap_or(0)
            .saturating_mul(1024)
    };
    let mounts = text(&proc.join("self/mountinfo"))?.unwrap_or_default();
    let (cgroup2, cgroup1) = cgroups(&mounts)?;
    let boot = text(&proc.join("cmdline"))?.unwrap_or_default();
    let (backlog_dropped, squeezed) =
        softnet(&text(&proc.join("net/softnet_stat"))?.unwrap_or_default());
    Ok(MachineFacts {
        kernel: text(&proc.join("sys/kernel/osrelease"))?.unwrap_or_default(),
        processors,
        numa_nodes: u32::try_from(nodes.count()).unwrap_or(1).max(1),
        governors,
        is_virtual: text(&proc.join("cpuinfo"))?
            .unwrap_or_default()
            .lines()
            .any(|line| line.starts_with("flags") && line.contains(" hypervisor")),
        memory: kilobytes("MemTotal:"),
        memory_available: kilobytes("MemAvailable:"),
        cgroup2,
        cgroup1,
        boot: boot
            .split(' ')
            .filter(|word| word.contains("iommu") || word.starts_with("mitigations"))
            .map(str::to_owned)
            .collect(),
        backlog_dropped,
        squeezed,
        running: running(proc, programs),
        settings: settings
            .iter()
            .filter_map(|key| {
                let value = fs::read_to_string(proc.join("sys").join(key.replace('.', "/")));
                Some(((*key).to_owned(), crate::sysctl::plain(&value.ok()?)))
            })
            .collect(),
    })
}

/// Controllers of version 2, and number of hierarchies of version 1.
fn cgroups(mountinfo: &str) -> Result<(Option<Vec<String>>, u32)> {
    let (mut second, mut first) = (None, 0);
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        match after.split(' ').next() {
            Some("cgroup") => first += 1,
            Some("cgroup2") if second.is_none() => {
                let point = crate::storage::unescape(before.split(' ').nth(4).unwrap_or_default());
                let list = text(&Path::new(&point).join("cgroup.controllers"))?;
                let list = list.unwrap_or_default();
                second = Some(list.split_whitespace().map(str::to_owned).collect());
            }
            _ => {}
        }
    }
    Ok((second, first))
}

/// Second and third column of each line, hexadecimal: dropped, and out of time.
fn softnet(table: &str) -> (u64, u64) {
    let mut sums = (0_u64, 0_u64);
    for line in table.lines() {
        let mut columns = line
            .split_whitespace()
            .map(|column| u64::from_str_radix(column, 16).unwrap_or(0));
        columns.next();
        sums.0 += columns.next().unwrap_or(0);
        sums.1 += columns.next().unwrap_or(0);
    }
    sums
}

fn running(proc: &Path, programs: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(proc)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name.to_string_lossy()
                .bytes()
                .all(|byte| byte.is_ascii_digit())
        })
        // a process may end meanwhile
        .filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .filter(|name| programs.contains(&name.as_str()))
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_one() {
        let facts = look(
            &Sysfs::system(),
            Path::new("/proc"),
            &[],
            &["net.core.rmem_max", "net.no.such"],
        )
        .unwrap();
        assert!(facts.processors > 0 && facts.memory > facts.memory_available);
        assert!(!facts.kernel.is_empty() && facts.numa_nodes > 0);
        assert_eq!(facts.settings.len(), 1);
    }

    #[test]
    fn drops_of_all_processors_are_added_up() {
        assert_eq!(
            softnet("00000010 0000000a 00000001\n00000010 00000001 00000002 0\n"),
            (11, 3)
        );
    }

    /// A processor that is off, and governors that differ: built by hand after the kernel's
    /// Documentation/admin-guide/pm/cpufreq.
    #[test]
    fn governors_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, content: &str| {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        };
        for (cpu, governor) in [(0, "powersave"), (1, "performance"), (2, "powersave")] {
            put(
                &format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"),
                governor,
            );
        }
        put("sys/devices/system/cpu/cpu2/online", "0\n");
        put("sys/devices/system/cpu/cpufreq/boost", "1\n");
        put("sys/devices/system/node/node0/x", "");
        put("sys/devices/system/node/node1/x", "");
        put("proc/77/comm", "tuned\n");
        put("proc/78/comm", "bash\n");
        put(
            "proc/cmdline",
            "root=/dev/sda1 intel_iommu=on iommu=pt quiet\n",
        );
        let sysfs = Sysfs::at(dir.path().join("sys"));
        let facts = look(
            &sysfs,
            &dir.path().join("proc"),
            &["tuned", "irqbalance"],
            &[],
        )
        .unwrap();
        assert_eq!((facts.processors, facts.numa_nodes), (2, 2));
        assert_eq!(facts.governors.values().sum::<u32>(), 2);
        assert_eq!(facts.running, ["tuned"]);
        assert_eq!(facts.boot, ["intel_iommu=on", "iommu=pt"]);
    }
}
