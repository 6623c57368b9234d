//! What the machine was doing while files moved: processors, waiting, disks, and the counters of a
//! sandbox. Read from `/proc`, which shows the namespace of the process that is named (proc(5)).

use anyhow::{Context, Result};
use std::{collections::BTreeMap, fs, time::Instant};

/// Counters of the machine at an instant.
#[derive(Debug, Clone)]
pub struct Machine {
    at: Instant,
    /// Jiffies of all processors: all, idle, waiting for I/O.
    cpu: [u64; 3],
    /// Milliseconds in which each disk had work.
    disks: BTreeMap<String, u64>,
}

/// Shares between two instants, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Shares {
    /// Time in which the processors were not idle.
    pub cpu_busy: f64,
    /// Time in which they were idle because of I/O.
    pub io_wait: f64,
    /// Time in which the busiest disk had work.
    pub disk_busy: f64,
}

impl Machine {
    /// Now.
    pub fn now() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
        Ok(Self {
            at: Instant::now(),
            cpu: cpu(&read("/proc/stat")?),
            disks: disks(&read("/proc/diskstats")?),
        })
    }
    /// What happened since an earlier instant.
    pub fn since(&self, earlier: &Self) -> Shares {
        let [all, idle, wait] =
            [0, 1, 2].map(|n: usize| self.cpu[n].saturating_sub(earlier.cpu[n]) as f64);
        let all = all.max(1.0);
        let millis = (self.at.duration_since(earlier.at).as_secs_f64() * 1000.0).max(1.0);
        let busiest = self
            .disks
            .iter()
            .map(|(disk, busy)| busy.saturating_sub(*earlier.disks.get(disk).unwrap_or(busy)))
            .max()
            .unwrap_or(0);
        Shares {
            cpu_busy: ((all - idle - wait) / all).clamp(0.0, 1.0),
            io_wait: (wait / all).clamp(0.0, 1.0),
            disk_busy: (busiest as f64 / millis).clamp(0.0, 1.0),
        }
    }
}

/// The first line of `/proc/stat`: user nice system idle iowait irq softirq steal (guest is in user).
fn cpu(stat: &str) -> [u64; 3] {
    let numbers: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|n| n.parse().ok())
        .collect();
    let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
    [numbers.iter().sum(), at(3), at(4)]
}

/// The thirteenth column of `/proc/diskstats`: milliseconds spent doing I/O
/// (Documentation/admin-guide/iostats.rst, field 10).
fn disks(diskstats: &str) -> BTreeMap<String, u64> {
    diskstats
        .lines()
        .filter_map(|line| {
            let columns: Vec<_> = line.split_whitespace().collect();
            Some((
                (*columns.get(2)?).to_owned(),
                columns.get(12)?.parse().ok()?,
            ))
        })
        .collect()
}

/// Received and sent bytes of a link in the network namespace of a process.
pub fn link_bytes(pid: u32, link: &str) -> Result<[u64; 2]> {
    let path = format!("/proc/{pid}/net/dev");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse_link(&text, link).with_context(|| format!("{path} has no {link}"))
}

fn parse_link(dev: &str, link: &str) -> Option<[u64; 2]> {
    let line = dev
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(link)?.strip_prefix(':'))?;
    let columns: Vec<u64> = line
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    Some([*columns.first()?, *columns.get(8)?])
}

/// TCP segments that the kernel sent again, in the network namespace of a process (RFC 4022,
/// tcpRetransSegs).
pub fn retransmits(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/net/snmp");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse_retransmits(&text).with_context(|| format!("{path} has no Tcp RetransSegs"))
}

fn parse_retransmits(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let at = lines
        .next()?
        .split_whitespace()
        .position(|name| name == "RetransSegs")?;
    lines.next()?.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_tables_are_read() {
        assert_eq!(cpu("cpu  10 0 5 80 5 0 0 0 0 0\ncpu0 1\n"), [100, 80, 5]);
        let disk = " 254 0 vda 1 2 3 4 5 6 7 8 0 1234 99 0\n";
        assert_eq!(disks(disk)["vda"], 1234);
        let dev = "Inter-| x\n  lo: 1 0 0 0 0 0 0 0 2 0\n data0:  77 1 0 0 0 0 0 0 88 1 0\n";
        assert_eq!(parse_link(dev, "data0"), Some([77, 88]));
        assert_eq!(parse_link(dev, "data"), None);
        let snmp = "Ip: A B\nIp: 1 2\nTcp: InSegs RetransSegs OutRsts\nTcp: 5 6 7\n";
        assert_eq!(parse_retransmits(snmp), Some(6));
        assert!(retransmits(std::process::id()).is_ok());
    }

    #[test]
    fn shares_are_between_nothing_and_all() {
        let before = Machine {
            at: Instant::now(),
            cpu: [0, 0, 0],
            disks: BTreeMap::from([("vda".into(), 0)]),
        };
        let at = before.at + std::time::Duration::from_secs(1);
        let after = Machine {
            at,
            cpu: [200, 50, 50],
            disks: BTreeMap::from([("vda".into(), 5000), ("new".into(), 9)]),
        };
        assert_eq!(
            after.since(&before),
            Shares {
                cpu_busy: 0.5,
                io_wait: 0.25,
                disk_busy: 1.0
            }
        );
    }
}
