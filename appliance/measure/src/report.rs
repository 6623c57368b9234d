//! The evidence of one run, as JSON for programs and as a table for people.

use crate::{
    series::Point,
    verdict::{LimitedBy, Load},
};
use dtn_api::{Rate, Size};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

mod gateways;
mod placement;
pub use gateways::{GatewayEvidence, Knock, RuleChange};
pub use placement::{EngineEvidence, ListedHost, PodEvidence};

/// Version of the JSON; it changes when a field changes its meaning.
pub const REPORT_VERSION: u32 = 1;

/// The slice that a run used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SliceEvidence {
    /// Its name.
    pub name: String,
    /// `dedicated`, `guaranteed` or `best-effort`.
    pub class: String,
    /// What was reserved, bits per second of frames.
    pub rate_bps: u64,
    /// What TCP can carry in it at this MTU over the address family used, bits per second.
    pub ceiling_bps: u64,
    /// What was asked for; `None` asked for the most.
    pub asked_bps: Option<u64>,
    /// Which end or link set the rate.
    pub limited_by: String,
}

/// Everything that was moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferEvidence {
    /// Entries of the manifests: files, links and folders.
    pub files: u64,
    /// Payload.
    pub bytes: u64,
    /// Wall time from the start of the mover to the last fsync at the destination.
    pub seconds: f64,
    /// Payload over wall time.
    pub goodput_bps: u64,
    /// Segments that the kernels of both sandboxes sent again.
    pub retransmits: u64,
}

/// The one large file, from its first to its last data byte at the destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LargeFileEvidence {
    /// Payload between the two instants.
    pub bytes: u64,
    /// Seconds between them.
    pub seconds: f64,
    /// Payload over time.
    pub goodput_bps: u64,
}

/// The tree of many files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SmallFilesEvidence {
    /// How many regular files.
    pub count: u64,
    /// Their payload.
    pub bytes: u64,
    /// From the start of their transfer to their last fsync.
    pub seconds: f64,
    /// Files over seconds.
    pub files_per_s: f64,
}

/// One direction of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Direction {
    /// Sending site.
    pub from: String,
    /// Receiving site.
    pub to: String,
    /// Everything.
    pub transfer: TransferEvidence,
    /// The large file; `None` when the run had none.
    pub large_file: Option<LargeFileEvidence>,
    /// The tree; `None` when the run had none.
    pub small_files: Option<SmallFilesEvidence>,
    /// Goodput of the large file over the ceiling.
    pub share_of_ceiling: f64,
    /// Both manifests are the same: path, type, size, mode, SHA-256.
    pub checksums_ok: bool,
    /// What differed, when something did; the first hundred.
    #[serde(default)]
    pub differences: Vec<String>,
    /// What held it back.
    pub limited_by: LimitedBy,
    /// What that was read from.
    pub load: Load,
    /// Bytes that the wide-area link counted in this direction, frames and all.
    pub wan_bytes: u64,
    /// Parts that an interrupted transfer did not send again, when it was interrupted.
    pub resumed: Option<String>,
    /// Goodput over time.
    #[serde(default)]
    pub series: Vec<Point>,
}

/// The link between the sites.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WanEvidence {
    /// Frame rate it is shaped to.
    pub rate_bps: u64,
    /// Who makes the delay: `none`, `netem`, `relay`.
    pub delay_by: String,
    /// What the relay was seen to carry when it was tried alone.
    pub carries_bps: Option<u64>,
    /// Round trip that was measured through it, milliseconds.
    pub measured_rtt_ms: Option<f64>,
}

/// What enforced the slice inside the sites.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FabricEvidence {
    /// `edge`, `openflow` or `onos`.
    pub kind: String,
    /// What it ran on, in words, where the kind alone does not say it.
    #[serde(default)]
    pub by: Option<String>,
    /// Switches of all sites that a controller programmed; with `edge` the hosts do it alone.
    pub switches: u32,
    /// Frame rate at which the switches were seen to carry paced streams, when they were tried.
    pub carries_bps: Option<u64>,
    /// From asking for the slice until its data plane was active at both ends, milliseconds; the
    /// pods were made in that time. `None` when it was not seen.
    pub request_to_active_ms: Option<f64>,
    /// Frames that the switches' meters dropped; `None` without meters.
    pub meter_drops: Option<u64>,
    /// The pods as the fabric's own controller lists them, where it has a list of hosts.
    #[serde(default)]
    pub hosts: Vec<ListedHost>,
}

/// The evidence of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub version: u32,
    /// Version of the appliance.
    pub appliance: String,
    /// When it ended, RFC 3339.
    pub ended_at: String,
    /// Names of the sites, sender of the first direction first.
    pub sites: Vec<String>,
    /// `dedicated` or `shared`.
    pub nic: String,
    /// What ran the pods.
    #[serde(default)]
    pub engine: EngineEvidence,
    /// The pods that the files moved between.
    #[serde(default)]
    pub pods: Vec<PodEvidence>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Round trip that was asked for, milliseconds.
    pub rtt_ms: f64,
    /// The slice.
    pub slice: SliceEvidence,
    /// The wide-area link.
    pub wan: WanEvidence,
    /// The fabric.
    pub fabric: FabricEvidence,
    /// Everything, of the first direction.
    pub transfer: TransferEvidence,
    /// The large file, of the first direction.
    pub large_file: Option<LargeFileEvidence>,
    /// The tree, of the first direction.
    pub small_files: Option<SmallFilesEvidence>,
    /// Of the first direction.
    pub share_of_ceiling: f64,
    /// Of every direction.
    pub checksums_ok: bool,
    /// Of the first direction.
    pub limited_by: LimitedBy,
    /// `true`: the wire is simulated on one machine; no figure here is one of a network.
    pub simulated_wire: bool,
    /// One by one.
    pub directions: Vec<Direction>,
    /// The gateways, site by site.
    #[serde(default)]
    pub gateways: Vec<GatewayEvidence>,
    /// What the machine is: kernel, processors, memory.
    pub machine: String,
    /// What was done only because this machine lacks something, in words.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Report {
    /// The first direction's figures stand at the top too, where a script looks for them.
    pub fn lift_first_direction(&mut self) {
        if let Some(first) = self.directions.first() {
            self.transfer = first.transfer.clone();
            self.large_file = first.large_file.clone();
            self.small_files = first.small_files.clone();
            self.share_of_ceiling = first.share_of_ceiling;
            self.limited_by = first.limited_by;
        }
        self.checksums_ok =
            !self.directions.is_empty() && self.directions.iter().all(|d| d.checksums_ok);
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<22} {value}");
        };
        row(
            "sites",
            format!(
                "{} → {}",
                self.sites.first().map_or("", |s| s),
                self.sites.get(1).map_or("", |s| s)
            ),
        );
        row(
            "NIC, MTU, RTT",
            format!("{}, {} bytes, {} ms", self.nic, self.mtu, self.rtt_ms),
        );
        row("engine", self.engine.line());
        for pod in &self.pods {
            row("pod", pod.line());
        }
        row("wide-area link", self.wan.line());
        row("fabric", self.fabric.line());
        for host in &self.fabric.hosts {
            row("listed by the fabric", host.line());
        }
        row(
            "slice",
            format!(
                "{} ({}), {}, TCP ceiling {}; limited by {}",
                self.slice.name,
                self.slice.class,
                mega(self.slice.rate_bps),
                mega(self.slice.ceiling_bps),
                self.slice.limited_by
            ),
        );
        for direction in &self.directions {
            direction.rows(self.slice.ceiling_bps, &mut row);
        }
        for gateway in &self.gateways {
            row("gateway", gateway.line());
        }
        if self.simulated_wire {
            row(
                "note",
                "the wire is simulated on this machine; figures are not those of a network".into(),
            );
        }
        for note in &self.notes {
            row("note", note.clone());
        }
        text
    }
}

impl WanEvidence {
    fn line(&self) -> String {
        let mut line = format!("{}, delay by {}", mega(self.rate_bps), self.delay_by);
        if let Some(bps) = self.carries_bps {
            let _ = write!(line, " (which carries {} here)", mega(bps));
        }
        if let Some(rtt) = self.measured_rtt_ms {
            let _ = write!(line, ", measured RTT {rtt:.2} ms");
        }
        line
    }
}

impl FabricEvidence {
    fn line(&self) -> String {
        let mut line = self.kind.clone();
        if let Some(by) = &self.by {
            let _ = write!(line, " ({by})");
        }
        if self.switches > 0 {
            let _ = write!(line, ", {} switches", self.switches);
        }
        if let Some(bps) = self.carries_bps {
            let _ = write!(line, " (which carry {} here)", mega(bps));
        }
        if let Some(ms) = self.request_to_active_ms {
            let _ = write!(
                line,
                ", active {ms:.0} ms after it was asked for (pods made meanwhile)"
            );
        }
        if let Some(drops) = self.meter_drops {
            let _ = write!(line, ", {drops} frames dropped by meters");
        }
        line
    }
}

impl Direction {
    fn rows(&self, ceiling_bps: u64, row: &mut impl FnMut(&str, String)) {
        let t = &self.transfer;
        row("", format!("— {} → {} —", self.from, self.to));
        row(
            "files, bytes",
            format!(
                "{} entries, {}",
                t.files,
                Size::from_bytes(t.bytes).rounded()
            ),
        );
        row(
            "checksums",
            if self.checksums_ok {
                "the manifests of both trees are the same".into()
            } else {
                format!(
                    "DIFFERENT in {} places: {}",
                    self.differences.len(),
                    self.differences.join("; ")
                )
            },
        );
        row(
            "wall time, goodput",
            format!("{:.2} s, {}", t.seconds, mega(t.goodput_bps)),
        );
        if let Some(large) = &self.large_file {
            row(
                "large file",
                format!(
                    "{} in {:.2} s, {} = {:.1} % of the ceiling {}",
                    Size::from_bytes(large.bytes).rounded(),
                    large.seconds,
                    mega(large.goodput_bps),
                    self.share_of_ceiling * 100.0,
                    mega(ceiling_bps)
                ),
            );
        }
        if let Some(small) = &self.small_files {
            row(
                "small files",
                format!(
                    "{} files, {} in {:.2} s: {:.0} files/s",
                    small.count,
                    Size::from_bytes(small.bytes).rounded(),
                    small.seconds,
                    small.files_per_s
                ),
            );
        }
        row("retransmits", format!("{} segments", t.retransmits));
        row(
            "limited by",
            format!(
                "{} (CPU {:.0} %, disk {:.0} %, I/O wait {:.0} %)",
                self.limited_by,
                self.load.cpu_busy * 100.0,
                self.load.disk_busy * 100.0,
                self.load.io_wait * 100.0
            ),
        );
        if let Some(resumed) = &self.resumed {
            row("interrupted", resumed.clone());
        }
    }
}

/// A rate for people, rounded to a tenth of a megabit.
fn mega(bps: u64) -> String {
    if bps >= 10_000_000_000 {
        return format!("{:.2} Gb/s", Rate::from_bps(bps).bps() as f64 / 1e9);
    }
    format!("{:.1} Mb/s", bps as f64 / 1e6)
}

#[cfg(test)]
mod tests;
