//! Metrics in the OpenMetrics text format. Everything is read when it is asked for: `read` looks,
//! [`render`] writes; nothing is counted on the side that could drift from what is. What has happened
//! and left nothing to read, as a call, is counted where it happens.

mod gateways;
mod kubernetes;

pub use kubernetes::Node;

use crate::{
    Host,
    host_facts::HostFacts,
    inventory::{self, prepared_files},
    renew::LeaseCounts,
};
use dtn_api::{
    local::{LocalGateway, LocalSlice, Paced},
    nic::Nic,
};
use dtn_link::{Netns, counters, inventory::LinkCounters};
use jiff::Timestamp;
use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use std::{collections::BTreeMap, fmt, sync::atomic::AtomicU64};

/// The content type that goes with [`render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The counters of one interface in its sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentCounters {
    /// The pod.
    pub pod: String,
    /// Its interface.
    pub ifname: String,
    /// Of the link.
    pub link: LinkCounters,
    /// Segments that TCP sent again, of the whole sandbox.
    pub retransmitted: u64,
}

/// All that is shown.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Every check holds.
    pub ready: bool,
    /// The NICs.
    pub nics: Vec<Nic>,
    /// The slices.
    pub slices: Vec<LocalSlice>,
    /// Names of slices that end soon.
    pub ending: Vec<String>,
    /// The leases.
    pub leases: LeaseCounts,
    /// Releases in the queue.
    pub queued_releases: u64,
    /// Pods by phase.
    pub pods: BTreeMap<String, u64>,
    /// Negotiations by state.
    pub negotiations: BTreeMap<String, u64>,
    /// Gateways.
    pub gateways: Vec<LocalGateway>,
    /// As a node of a cluster, where it is one.
    pub kubernetes: Option<Node>,
    /// Interfaces in sandboxes.
    pub attachments: Vec<AttachmentCounters>,
    /// Memory, processors, disks.
    pub host: HostFacts,
    /// When the slices were last read, seconds since 1970; 0 before.
    pub slices_read_at: Option<Timestamp>,
}

/// The counters of every interface that sits in a sandbox now. A sandbox that is just going is left
/// out.
pub async fn attachments(host: &Host) -> Vec<AttachmentCounters> {
    let mut found = Vec::new();
    let files = prepared_files(&host.places.prepared()).unwrap_or_else(|problem| {
        tracing::warn!("{problem}");
        Vec::new()
    });
    let (records, _) = inventory::records(&host.places);
    for prepared in files {
        let record = records.iter().find(|record| record.key == prepared.key);
        for interface in &prepared.interfaces {
            // another engine's sandbox is where its runtime put it, and the interface called as it likes
            let held = record.and_then(|record| record.of_prepared(&interface.ifname));
            let (netns, ifname) = match held {
                Some(held) => (held.netns.clone(), &held.ifname),
                None => (host.places.netns_of(&prepared.key), &interface.ifname),
            };
            let Ok(sandbox) = Netns::open(&netns) else {
                continue;
            };
            // a runtime may have given the path to another pod
            if held.is_some_and(|held| held.netns_inode != sandbox.inode()) {
                continue;
            }
            let (Ok(conn), Ok(tcp)) = (sandbox.connect().await, counters::tcp(&sandbox).await)
            else {
                continue;
            };
            if let Ok(link) = dtn_link::inventory::link_named(&conn, ifname).await {
                found.push(AttachmentCounters {
                    pod: prepared.pod.name.clone(),
                    ifname: ifname.to_string(),
                    link: link.counters,
                    retransmitted: tcp.retransmitted,
                });
            }
        }
    }
    found
}

type Labels = Vec<(&'static str, String)>;
type Integers = Family<Labels, Gauge<u64, AtomicU64>>;
type Fractions = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter>;

/// Registers families and sets their values in one go.
struct Page(Registry);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, unit: Option<Unit>, all: Vec<(Labels, u64)>) {
        let family = Integers::default();
        for (labels, value) in all {
            family.get_or_create(&labels).set(value);
        }
        self.register(name, help, unit, family);
    }
    fn fraction(&mut self, name: &str, help: &str, all: Vec<(Labels, f64)>) {
        let family = Fractions::default();
        for (labels, value) in all {
            family.get_or_create(&labels).set(value);
        }
        self.register(name, help, Some(Unit::Ratios), family);
    }
    fn counter(&mut self, name: &str, help: &str, unit: Option<Unit>, all: Vec<(Labels, u64)>) {
        let family = Counters::default();
        for (labels, value) in all {
            family.get_or_create(&labels).inc_by(value);
        }
        self.register(name, help, unit, family);
    }
    fn register(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        metric: impl prometheus_client::registry::Metric,
    ) {
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, unit, metric),
            None => self.0.register(name, help, metric),
        }
    }
}

fn one(value: u64) -> Vec<(Labels, u64)> {
    vec![(Vec::new(), value)]
}
fn labels(pairs: &[(&'static str, &dyn fmt::Display)]) -> Labels {
    pairs
        .iter()
        .map(|(name, value)| (*name, value.to_string()))
        .collect()
}
fn bits() -> Option<Unit> {
    Some(Unit::Other("bits_per_second".into()))
}

/// The page.
pub fn render(snapshot: &Snapshot) -> Result<String, fmt::Error> {
    let mut page = Page(Registry::with_prefix("dtn"));
    page.gauge(
        "ready",
        "1 when every check of the host holds",
        None,
        one(u64::from(snapshot.ready)),
    );
    nics(&mut page, &snapshot.nics);
    slices(&mut page, snapshot);
    leases(&mut page, snapshot);
    let by = |label: &'static str, counts: &BTreeMap<String, u64>| {
        counts
            .iter()
            .map(|(key, count)| (labels(&[(label, key)]), *count))
            .collect::<Vec<_>>()
    };
    page.gauge("pods", "Pods by phase", None, by("phase", &snapshot.pods));
    page.gauge(
        "negotiations",
        "Negotiations by state, of the last day",
        None,
        by("state", &snapshot.negotiations),
    );
    gateways::write(&mut page, &snapshot.gateways);
    kubernetes::write(&mut page, snapshot.kubernetes.as_ref());
    sandboxes(&mut page, &snapshot.attachments);
    facts(&mut page, &snapshot.host);
    let mut out = String::new();
    text::encode(&mut out, &page.0)?;
    Ok(out)
}

fn nics(page: &mut Page, nics: &[Nic]) {
    let each = |value: &dyn Fn(&Nic) -> Option<u64>| -> Vec<(Labels, u64)> {
        nics.iter()
            .filter_map(|nic| Some((labels(&[("nic", &nic.name)]), value(nic)?)))
            .collect()
    };
    page.gauge("nic_carrier", "1 when the NIC has a carrier", None, {
        each(&|nic| Some(u64::from(nic.carrier)))
    });
    page.gauge("nic_speed", "Speed of the NIC", bits(), {
        each(&|nic| nic.speed.map(dtn_api::Rate::bps))
    });
    page.gauge("nic_attachments", "Attachments that hold the NIC", None, {
        each(&|nic| Some(nic.used_by.len() as u64))
    });
    page.gauge(
        "nic_guarded",
        "Reasons for which a NIC that the site gave is not taken",
        None,
        each(&|nic| nic.class.map(|_| nic.guarded.len() as u64)),
    );
}

fn slices(page: &mut Page, snapshot: &Snapshot) {
    let each = |value: &dyn Fn(&LocalSlice) -> u64| -> Vec<(Labels, u64)> {
        snapshot
            .slices
            .iter()
            .map(|local| (labels(&[("slice", &local.slice.spec.name)]), value(local)))
            .collect()
    };
    page.gauge("slice_rate", "Negotiated rate of the slice", bits(), {
        each(&|local| local.slice.spec.qos.rate_bps)
    });
    page.gauge(
        "slice_ceiling",
        "What TCP can carry in the slice",
        bits(),
        each(&|local| local.ceiling.bps()),
    );
    page.gauge(
        "slice_end_timestamp",
        "When the promise ends, since 1970",
        Some(Unit::Seconds),
        each(&|local| local.slice.spec.schedule.end.as_second().unsigned_abs()),
    );
    page.gauge("slice_ends_soon", "1 when the slice ends soon", None, {
        each(&|local| {
            u64::from(
                snapshot
                    .ending
                    .iter()
                    .any(|n| n == local.slice.spec.name.as_str()),
            )
        })
    });
    let paced = |local: &LocalSlice| -> Vec<(Labels, u64)> {
        let slice = local.slice.spec.name.clone();
        let one = |paced: &Paced| {
            let labels = labels(&[
                ("slice", &slice),
                ("pod", &paced.pod),
                ("ifname", &paced.ifname),
            ]);
            (labels, paced.rate.map_or(0, dtn_api::Rate::bps))
        };
        local.paced.iter().map(one).collect()
    };
    page.gauge(
        "paced_rate",
        "What the kernel paces the interface to, read back; 0 when it does not",
        bits(),
        snapshot.slices.iter().flat_map(paced).collect(),
    );
    page.gauge(
        "slices_read_timestamp",
        "When the controller last told the slices, since 1970; 0 before it did",
        Some(Unit::Seconds),
        one(snapshot
            .slices_read_at
            .map_or(0, |at| at.as_second().unsigned_abs())),
    );
}

fn leases(page: &mut Page, snapshot: &Snapshot) {
    let counts = &snapshot.leases;
    page.gauge(
        "leases",
        "Leases in use on this host",
        None,
        one(counts.used),
    );
    page.gauge(
        "leases_expired",
        "Leases in use that ran out",
        None,
        one(counts.expired),
    );
    page.gauge(
        "leases_refused",
        "Leases in use that were not renewed at the last attempt",
        None,
        one(counts.refused),
    );
    page.gauge(
        "leases_unused",
        "Leases that the controller has for this host and nothing here uses",
        None,
        counts.unused.map(one).unwrap_or_default(),
    );
    page.counter(
        "lease_renewals",
        "Renewed leases",
        None,
        one(counts.renewals),
    );
    page.gauge(
        "releases_queued",
        "Leases that are still to be given back",
        None,
        one(snapshot.queued_releases),
    );
}

fn sandboxes(page: &mut Page, attachments: &[AttachmentCounters]) {
    let each = |value: &dyn Fn(&AttachmentCounters) -> u64| -> Vec<(Labels, u64)> {
        attachments
            .iter()
            .map(|a| (labels(&[("pod", &a.pod), ("ifname", &a.ifname)]), value(a)))
            .collect()
    };
    let bytes = Some(Unit::Bytes);
    page.counter("attachment_sent", "Sent by the interface", bytes, {
        each(&|a| a.link.tx_bytes)
    });
    let bytes = Some(Unit::Bytes);
    page.counter("attachment_received", "Received by the interface", bytes, {
        each(&|a| a.link.rx_bytes)
    });
    page.counter(
        "attachment_dropped",
        "Packets that the interface dropped, both ways",
        None,
        each(&|a| a.link.tx_dropped + a.link.rx_dropped),
    );
    page.counter(
        "attachment_tcp_retransmits",
        "Segments that TCP sent again in the pod's sandbox",
        None,
        each(&|a| a.retransmitted),
    );
}

fn facts(page: &mut Page, host: &HostFacts) {
    let bytes = || Some(Unit::Bytes);
    page.gauge(
        "host_memory",
        "Memory of the host",
        bytes(),
        one(host.memory_bytes),
    );
    page.gauge(
        "host_memory_available",
        "Memory that can be had without swapping",
        bytes(),
        one(host.memory_available_bytes),
    );
    page.gauge("host_processors", "Processors", None, one(host.processors));
    page.fraction(
        "host_processors_busy",
        "Share of the processors' time in use since the last reading",
        vec![(Vec::new(), host.busy)],
    );
    let disks = |value: &dyn Fn(&(std::path::PathBuf, u64, u64)) -> u64| -> Vec<(Labels, u64)> {
        host.disks
            .iter()
            .map(|disk| (labels(&[("folder", &disk.0.display())]), value(disk)))
            .collect()
    };
    page.gauge("host_disk", "Size of the folder's file system", bytes(), {
        disks(&|disk| disk.1)
    });
    page.gauge(
        "host_disk_free",
        "Room on the folder's file system",
        bytes(),
        disks(&|disk| disk.2),
    );
}

#[cfg(test)]
mod tests;
