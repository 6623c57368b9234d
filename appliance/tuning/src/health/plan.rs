//! Settings of the whole machine that a DTN wants. Those of a sandbox are the profile's
//! ([`crate::profile`]); these do not follow a namespace, or are copied from the host when one is
//! made.

use crate::Path;
use serde::{Deserialize, Serialize};

/// What a setting must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// Exactly this.
    Equal(String),
    /// At least this number; of several numbers the last counts.
    AtLeast(u64),
}

impl Want {
    /// Whether a value, as the kernel shows it, will do.
    pub fn holds(&self, value: &str) -> bool {
        match self {
            Self::Equal(wanted) => value == wanted,
            Self::AtLeast(least) => {
                let last = value.split(' ').next_back().unwrap_or_default();
                last.parse::<u64>().is_ok_and(|value| value >= *least)
            }
        }
    }
    /// The value to write.
    pub fn value(&self) -> String {
        match self {
            Self::Equal(wanted) => wanted.clone(),
            Self::AtLeast(least) => least.to_string(),
        }
    }
}

/// A setting of the machine with its ground.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSetting {
    /// As sysctl(8) writes it.
    pub key: String,
    /// What it must be.
    pub want: Want,
    /// It costs throughput where it is not; otherwise it is good to have.
    pub matters: bool,
    /// Why it is so.
    pub why: String,
    /// Where that is from.
    pub source: String,
}

/// Every key that the plan can name: what has to be read of the machine.
pub const KEYS: [&str; 9] = [
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.netdev_max_backlog",
    "net.core.default_qdisc",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_sack",
    "net.ipv4.tcp_window_scaling",
    "net.ipv4.tcp_mem",
    "kernel.numa_balancing",
];

/// The plan for a machine whose fastest NIC takes this path.
pub fn host(path: &Path, numa_nodes: u32) -> Vec<HostSetting> {
    const FASTERDATA: &str = "fasterdata.es.net host tuning";
    let buffer = path.buffer().bytes();
    let setting = |key: &str, want, matters, why: String, source: &str| HostSetting {
        key: key.to_owned(),
        want,
        matters,
        why,
        source: source.to_owned(),
    };
    let ceiling = format!(
        "the ceiling of movers that size their own buffers; {} over {} want {}",
        path.rate,
        path.rtt,
        path.buffer().rounded()
    );
    let mut plan = vec![
        setting(
            "net.core.rmem_max",
            Want::AtLeast(buffer),
            true,
            ceiling.clone(),
            FASTERDATA,
        ),
        setting(
            "net.core.wmem_max",
            Want::AtLeast(buffer),
            true,
            ceiling,
            FASTERDATA,
        ),
    ];
    for (key, why) in [
        (
            "net.ipv4.tcp_timestamps",
            "sequence numbers wrap within seconds at 10 Gb/s (RFC 7323 section 5)",
        ),
        (
            "net.ipv4.tcp_sack",
            "without it each loss costs a round trip more (RFC 2018)",
        ),
        (
            "net.ipv4.tcp_window_scaling",
            "without it a window ends at 64 KiB (RFC 7323 section 2)",
        ),
    ] {
        plan.push(setting(
            key,
            Want::Equal("1".into()),
            true,
            why.into(),
            "kernel Documentation/networking/ip-sysctl",
        ));
    }
    // pages of 4 KiB, of all sockets of the machine: both directions of every stream
    let pages = buffer.saturating_mul(2 * u64::from(path.streams.max(1))) / 4096;
    plan.push(setting(
        "net.ipv4.tcp_mem",
        Want::AtLeast(pages),
        true,
        format!(
            "memory of all TCP buffers of the machine; {} streams both ways take this many pages",
            path.streams.max(1)
        ),
        "kernel Documentation/networking/ip-sysctl",
    ));
    plan.push(setting(
        "net.core.netdev_max_backlog",
        Want::AtLeast(250_000),
        false,
        "packets that wait for a processor when they are spread to others by software (RPS)".into(),
        "OSG fasterdata-tuning",
    ));
    plan.push(setting(
        "net.core.default_qdisc",
        Want::Equal("fq".into()),
        false,
        "queues of links that the appliance does not pace itself".into(),
        "fasterdata.es.net packet pacing",
    ));
    if numa_nodes > 1 {
        plan.push(setting(
            "kernel.numa_balancing",
            Want::Equal("0".into()),
            false,
            "pages that move between nodes stall a mover that was put on the right one".into(),
            "kernel Documentation/admin-guide/sysctl/kernel",
        ));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtn_api::{Rate, Span};

    #[test]
    fn the_plan_is_sized_by_the_path_and_names_known_keys_alone() {
        let path = Path {
            rate: Rate::from_bps(10_000_000_000),
            rtt: Span::from_millis(100),
            mtu: 9000,
            streams: 1,
            memory_limit: None,
        };
        let plan = host(&path, 2);
        assert!(plan.iter().all(|one| KEYS.contains(&one.key.as_str())));
        assert_eq!(plan.len(), KEYS.len());
        assert_eq!(plan[0].want, Want::AtLeast(250_000_000));
        assert!(host(&path, 1).len() < plan.len());
    }

    #[test]
    fn of_three_numbers_the_ceiling_counts() {
        assert!(Want::AtLeast(30).holds("1 2 30") && !Want::AtLeast(31).holds("99 99 30"));
        assert!(!Want::AtLeast(1).holds("") && Want::Equal("fq".into()).holds("fq"));
    }
}
