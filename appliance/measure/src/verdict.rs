//! What held a transfer back: its slice, a disk, or the processor. A rule over what was measured,
//! in the order in which a person would rule things out.

use serde::{Deserialize, Serialize};

/// What limited a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitedBy {
    /// It used what the slice gives: nothing is to be gained on the hosts.
    Slice,
    /// The disks were busy, or processes waited for them.
    Disk,
    /// The processors were busy.
    Cpu,
    /// None of these was near its limit: latency, loss, or the tool itself.
    Tool,
}
impl std::fmt::Display for LimitedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Slice => "slice",
            Self::Disk => "disk",
            Self::Cpu => "CPU",
            Self::Tool => "tool",
        })
    }
}

/// What was seen while the transfer ran. Shares are between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Goodput over the slice's ceiling.
    pub share_of_ceiling: f64,
    /// Time in which all processors together were not idle.
    pub cpu_busy: f64,
    /// Time in which processors were idle because of I/O.
    pub io_wait: f64,
    /// Time in which the busiest disk had work.
    pub disk_busy: f64,
}

/// At this share of the ceiling a transfer has what the slice can give; the rest is the start of
/// the stream and the tool's own messages.
pub const WHOLE: f64 = 0.95;
/// A processor or a disk that is busy for this share of the time is the limit.
pub const BUSY: f64 = 0.90;
/// Waiting for I/O for this share of the time is a disk that holds others up.
pub const WAITING: f64 = 0.20;

/// What limited a transfer under this load.
pub fn limited_by(load: &Load) -> LimitedBy {
    if load.share_of_ceiling >= WHOLE {
        LimitedBy::Slice
    } else if load.disk_busy >= BUSY || load.io_wait >= WAITING {
        LimitedBy::Disk
    } else if load.cpu_busy >= BUSY {
        LimitedBy::Cpu
    } else {
        LimitedBy::Tool
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thing_that_is_full_is_the_limit() {
        let load = |share, cpu, wait, disk| Load {
            share_of_ceiling: share,
            cpu_busy: cpu,
            io_wait: wait,
            disk_busy: disk,
        };
        assert_eq!(limited_by(&load(0.98, 1.0, 0.0, 1.0)), LimitedBy::Slice);
        assert_eq!(limited_by(&load(0.50, 0.95, 0.0, 0.97)), LimitedBy::Disk);
        assert_eq!(limited_by(&load(0.50, 0.4, 0.3, 0.5)), LimitedBy::Disk);
        assert_eq!(limited_by(&load(0.50, 0.95, 0.0, 0.2)), LimitedBy::Cpu);
        assert_eq!(limited_by(&load(0.50, 0.3, 0.0, 0.2)), LimitedBy::Tool);
    }
}
