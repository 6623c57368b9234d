//! Counters of a namespace: what TCP sent and had to send again, what a link passed.

use crate::{Conn, Error, Netns, Result, inventory};
use serde::{Deserialize, Serialize};
use std::fs;

pub use inventory::LinkCounters;

/// TCP of one namespace since it was made (RFC 4022 names, and Linux's own). Differences of two
/// readings are what a transfer cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TcpCounters {
    /// Segments received (`InSegs`).
    pub segments_in: u64,
    /// Segments sent, without those sent again (`OutSegs`).
    pub segments_out: u64,
    /// Segments sent again (`RetransSegs`).
    pub retransmitted: u64,
    /// Timeouts of the retransmission timer (`TCPTimeouts`).
    pub timeouts: u64,
    /// Segments sent again that the other side had already, so that the loss was none
    /// (`TCPDSACKRecv`).
    pub spurious: u64,
    /// Segments dropped for want of a receive buffer (`TCPRcvQDrop`).
    pub receive_drops: u64,
}

impl TcpCounters {
    /// What was added since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            segments_in: self.segments_in.saturating_sub(earlier.segments_in),
            segments_out: self.segments_out.saturating_sub(earlier.segments_out),
            retransmitted: self.retransmitted.saturating_sub(earlier.retransmitted),
            timeouts: self.timeouts.saturating_sub(earlier.timeouts),
            spurious: self.spurious.saturating_sub(earlier.spurious),
            receive_drops: self.receive_drops.saturating_sub(earlier.receive_drops),
        }
    }

    /// From the texts of `/proc/net/snmp` and `/proc/net/netstat`.
    pub fn parse(snmp: &str, netstat: &str) -> Option<Self> {
        Some(Self {
            segments_in: field(snmp, "Tcp:", "InSegs")?,
            segments_out: field(snmp, "Tcp:", "OutSegs")?,
            retransmitted: field(snmp, "Tcp:", "RetransSegs")?,
            timeouts: field(netstat, "TcpExt:", "TCPTimeouts")?,
            spurious: field(netstat, "TcpExt:", "TCPDSACKRecv")?,
            // since Linux 4.20
            receive_drops: field(netstat, "TcpExt:", "TCPRcvQDrop").unwrap_or(0),
        })
    }
}

/// Both files hold pairs of lines, names above values.
fn field(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        if let Some(place) = names.split(' ').position(|n| n == name) {
            return values.split(' ').nth(place)?.parse().ok();
        }
    }
    None
}

/// Reads TCP's counters of a namespace.
pub async fn tcp(netns: &Netns) -> Result<TcpCounters> {
    let doing = || {
        format!(
            "reading TCP's counters in the network namespace {}",
            netns.name()
        )
    };
    let read = || {
        // `thread-self`: /proc/self/net is that of the main thread
        let snmp = fs::read_to_string("/proc/thread-self/net/snmp")?;
        let netstat = fs::read_to_string("/proc/thread-self/net/netstat")?;
        Ok((snmp, netstat))
    };
    let (snmp, netstat) = netns
        .run(read)
        .await?
        .map_err(|e: std::io::Error| Error::io(doing(), e))?;
    TcpCounters::parse(&snmp, &netstat)
        .ok_or_else(|| Error::invalid(doing(), "the kernel's text has not the fields it should"))
}

/// Reads the counters of a link.
pub async fn link(conn: &Conn, index: u32) -> Result<LinkCounters> {
    Ok(inventory::link(conn, index).await?.counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "\
Ip: Forwarding DefaultTTL
Ip: 2 64
Tcp: RtoAlgorithm MaxConn InSegs OutSegs RetransSegs InErrs
Tcp: 1 -1 100 200 7 0
";
    const NETSTAT: &str = "\
TcpExt: SyncookiesSent TCPTimeouts TCPDSACKRecv
TcpExt: 0 3 2
";

    #[test]
    fn values_stand_below_their_names() {
        let read = TcpCounters::parse(SNMP, NETSTAT).unwrap();
        assert_eq!((read.segments_in, read.segments_out), (100, 200));
        assert_eq!(
            (read.retransmitted, read.timeouts, read.spurious),
            (7, 3, 2)
        );
        assert_eq!(read.receive_drops, 0);
        assert_eq!(TcpCounters::parse("Tcp: InSegs\n", NETSTAT), None);
    }

    #[test]
    fn a_transfer_is_the_difference_of_two_readings() {
        let before = TcpCounters {
            retransmitted: 5,
            ..TcpCounters::default()
        };
        let after = TcpCounters {
            retransmitted: 9,
            ..TcpCounters::default()
        };
        assert_eq!(after.since(&before).retransmitted, 4);
        assert_eq!(before.since(&after).retransmitted, 0);
    }
}
