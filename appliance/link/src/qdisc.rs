//! Pacing of an interface: what it may send, set from outside and read back from the kernel.
//!
//! Layout of a paced interface: HTB root `1:` → one class `1:1` with rate = ceil = R → leaf `10:`,
//! fq where the kernel has it, else pfifo. A change of the rate alters the class in place, so that
//! no packet that waits is lost. A root that is not laid out so (another tool's, or ours when it was
//! cut off half-way) is replaced whole.
//!
//! Limit of the layout: one root is one lock. A NIC with many queues at 40 Gb/s and more would do
//! better with mq and a shaper in the NIC or fq in each queue, which limits flows and not their sum.

use crate::{Conn, Result, conn::Mode, tc};
use dtn_api::Rate;
use netlink_packet_core::DefaultNla;
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage, TcOption, TcStats2},
};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

const ROOT: TcHandle = TcHandle { major: 1, minor: 0 };
const CLASS: TcHandle = TcHandle { major: 1, minor: 1 };
const LEAF: TcHandle = TcHandle {
    major: 0x10,
    minor: 0,
};

/// Packets that may wait in the leaf. One of them may be a segment of 64 kB that the NIC cuts up
/// (GSO), so this is an upper bound of 64 MB and no measure of delay: a TCP stream has at most two
/// such segments or about 1 ms of its rate below the socket (TSQ), so 1,000 holds hundreds of
/// streams without a drop, and what one stream waits stays near a millisecond.
pub const LEAF_PACKETS: u32 = 1000;
/// Packets of one flow that may wait in fq; its default of 100 drops bursts of UDP.
const FQ_FLOW_PACKETS: u32 = 1000;
/// Packets that may wait in fq (its own default).
const FQ_PACKETS: u32 = 10_000;
/// What HTB hands to a class in turn; there is one class, but the kernel warns below 1 kB and
/// above 200 kB.
const QUANTUM: u32 = 65_536;
/// The least burst: one GSO segment must fit.
const LEAST_BURST: u32 = 65_536;

/// The burst of a paced rate: 1 ms of it, at least 64 kB.
pub fn burst(rate: Rate) -> u32 {
    let millisecond = tc::bytes_per_second(rate) / 1000;
    u32::try_from(millisecond)
        .unwrap_or(u32::MAX)
        .max(LEAST_BURST)
}

/// Which qdisc does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shaper {
    /// HTB: all flows together.
    Htb,
    /// TBF: all flows together.
    Tbf,
    /// fq: each flow by itself.
    Fq,
}

/// Counters of a shaper since it was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueueCounters {
    /// Bytes of frames sent.
    pub bytes: u64,
    /// Packets sent.
    pub packets: u64,
    /// Packets dropped because the queue was full.
    pub drops: u64,
    /// How often a packet had to wait for the rate.
    pub overlimits: u64,
    /// Bytes that wait now.
    pub backlog_bytes: u64,
}

/// The pacing of an interface as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pacing {
    /// Which qdisc.
    pub shaper: Shaper,
    /// What may be sent.
    pub rate: Rate,
    /// What may be sent at once, in bytes.
    pub burst_bytes: u64,
    /// Kind of the leaf: `fq` or `pfifo`.
    pub leaf: Option<String>,
    /// Counters.
    pub counters: QueueCounters,
}

/// What was set, read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paced {
    /// As the kernel has it now.
    pub pacing: Pacing,
    /// What this kernel could not do, in words (`fq unavailable…`).
    pub lacking: Vec<String>,
}

/// Paces an interface to a rate of frames (HTB counts them as a switch's meter does: without
/// preamble, gap and checksum). The same twice is success; another rate alters the class in place.
/// Returns what the kernel has afterwards.
pub async fn pace(conn: &Conn, index: u32, rate: Rate) -> Result<Paced> {
    let doing = format!("pacing the link with index {index} to {rate}");
    if tc::bytes_per_second(rate) == 0 {
        return Err(crate::Error::invalid(
            format!("rate {rate}"),
            "less than a byte per second cannot be paced; take the interface down instead",
        ));
    }
    let found = find_htb(conn, index).await?;
    let ours = found.filter(|htb| htb.is_ours);
    if ours.is_none() {
        // a root of another kind cannot be replaced under the same handle, and one of ours that
        // was cut off half-way cannot be altered: what stands there goes with all below it
        unpace(conn, index).await?;
        let options = nest(tc::htb_root(CLASS.minor));
        let root = message(index, TcHandle::ROOT, ROOT, "htb", options);
        conn.change(
            &doing,
            RouteNetlinkMessage::NewQueueDiscipline(root),
            Mode::CreateOrReplace,
        )
        .await?;
    }
    let options = nest(tc::htb_class(rate, burst(rate), QUANTUM));
    let class = message(index, ROOT, CLASS, "htb", options);
    conn.change(
        &doing,
        RouteNetlinkMessage::NewTrafficClass(class),
        Mode::CreateOrReplace,
    )
    .await?;
    let leaf = ours.and_then(|ours| ours.pacing.leaf);
    let lacking = match leaf.as_deref() {
        Some("fq") => Vec::new(),
        // fq was tried when it was set
        Some("pfifo") => vec![lacks_fq()],
        _ => set_leaf(conn, index, &doing).await?,
    };
    let pacing = current_pacing(conn, index).await?.ok_or_else(|| {
        crate::Error::not_found(format!(
            "the pacing just set on the link with index {index}"
        ))
    })?;
    Ok(Paced { pacing, lacking })
}

async fn set_leaf(conn: &Conn, index: u32, doing: &str) -> Result<Vec<String>> {
    let options = nest(tc::fq(FQ_PACKETS, FQ_FLOW_PACKETS, None));
    let fq = message(index, CLASS, LEAF, "fq", options);
    let fq = RouteNetlinkMessage::NewQueueDiscipline(fq);
    match conn.change(doing, fq, Mode::CreateOrReplace).await {
        Ok(()) => return Ok(Vec::new()),
        Err(e) if lacks_kind(&e) => {}
        Err(e) => return Err(e),
    }
    let limit = TcAttribute::Other(DefaultNla::new(tc::TCA_OPTIONS, tc::pfifo(LEAF_PACKETS)));
    let pfifo = message(index, CLASS, LEAF, "pfifo", limit);
    let pfifo = RouteNetlinkMessage::NewQueueDiscipline(pfifo);
    conn.change(doing, pfifo, Mode::CreateOrReplace).await?;
    Ok(vec![lacks_fq()])
}

fn lacks_fq() -> String {
    "fq unavailable: this kernel has no sch_fq, so flows share one queue and are paced together"
        .to_owned()
}

/// A qdisc that the kernel has neither built in nor as a module is ENOENT.
fn lacks_kind(error: &crate::Error) -> bool {
    matches!(error.errno(), Some(Errno::ENOENT | Errno::EOPNOTSUPP))
}

/// Paces by TBF at the root: all flows in one queue of at most `limit_bytes`.
pub async fn pace_tbf(conn: &Conn, index: u32, rate: Rate, limit_bytes: u32) -> Result<Pacing> {
    let doing = format!("pacing the link with index {index} to {rate} by tbf");
    let options = nest(tc::tbf(rate, burst(rate), limit_bytes));
    set_root(conn, index, "tbf", options, &doing).await
}

/// Paces each flow by itself by fq at the root. The kernel's field has 32 bits: 34 Gb/s.
pub async fn pace_fq(conn: &Conn, index: u32, flow_rate: Rate) -> Result<Pacing> {
    let doing = format!("pacing each flow of the link with index {index} to {flow_rate} by fq");
    let options = nest(tc::fq(FQ_PACKETS, FQ_FLOW_PACKETS, Some(flow_rate)));
    set_root(conn, index, "fq", options, &doing).await
}

async fn set_root(
    conn: &Conn,
    index: u32,
    kind: &str,
    options: TcAttribute,
    doing: &str,
) -> Result<Pacing> {
    let root = message(index, TcHandle::ROOT, ROOT, kind, options);
    let root = RouteNetlinkMessage::NewQueueDiscipline(root);
    conn.change(doing, root, Mode::CreateOrReplace).await?;
    current_pacing(conn, index)
        .await?
        .ok_or_else(|| crate::Error::not_found(format!("the {kind} just set on link {index}")))
}

/// Takes the pacing off: the kernel puts its default qdisc back. Success when there is none.
pub async fn unpace(conn: &Conn, index: u32) -> Result<()> {
    let doing = format!("removing the pacing of the link with index {index}");
    let mut root = TcMessage::with_index(wire_index(index));
    root.header.parent = TcHandle::ROOT;
    let root = RouteNetlinkMessage::DelQueueDiscipline(root);
    match conn.change(&doing, root, Mode::Alter).await {
        // "Cannot delete qdisc with handle of zero": there is only the default one
        Err(e) if matches!(e.errno(), Some(Errno::ENOENT | Errno::EINVAL)) => Ok(()),
        done => done,
    }
}

/// The pacing that the kernel has on an interface; `None` when it has none that limits.
pub async fn current_pacing(conn: &Conn, index: u32) -> Result<Option<Pacing>> {
    if let Some(found) = find_htb(conn, index).await? {
        return Ok(Some(found.pacing));
    }
    let qdiscs = qdiscs(conn, index).await?;
    let Some(root) = qdiscs.iter().find(|q| q.parent == TcHandle::ROOT) else {
        return Ok(None);
    };
    let (shaper, rate, burst_bytes) = match root.kind.as_str() {
        "tbf" => match tc::parse_tbf(&root.options) {
            Some(found) => (Shaper::Tbf, found.rate, found.burst_bytes),
            None => return Ok(None),
        },
        "fq" => match tc::parse_fq(&root.options) {
            Some(rate) => (Shaper::Fq, rate, 0),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(Some(Pacing {
        shaper,
        rate,
        burst_bytes,
        leaf: None,
        counters: root.counters,
    }))
}

/// Kinds of the qdiscs of an interface, root first, for a report: `htb pfifo`, or `noqueue`.
pub async fn kinds(conn: &Conn, index: u32) -> Result<Vec<String>> {
    let mut found = qdiscs(conn, index).await?;
    found.sort_by_key(|qdisc| qdisc.parent != TcHandle::ROOT);
    Ok(found.into_iter().map(|qdisc| qdisc.kind).collect())
}

/// Which of these kinds of qdisc this kernel has, built in or as a module: each is tried on the
/// loopback of a namespace that is gone with the try. Needs root.
pub async fn offered(kinds: &[&str]) -> Result<Vec<(String, bool)>> {
    /// The first link of a namespace is its loopback.
    const LOOPBACK: u32 = 1;
    let conn = crate::Netns::create_unnamed()?.connect().await?;
    let mut found = Vec::new();
    for kind in kinds {
        let doing = format!("trying the qdisc {kind}");
        let mut root = TcMessage::with_index(wire_index(LOOPBACK));
        root.header.parent = TcHandle::ROOT;
        root.attributes.push(TcAttribute::Kind((*kind).to_owned()));
        let root = RouteNetlinkMessage::NewQueueDiscipline(root);
        let there = match conn.change(&doing, root, Mode::CreateOrReplace).await {
            // one that wants options says so, and is there
            Ok(()) => true,
            Err(e) => match e.errno() {
                Some(Errno::EPERM) => return Err(e),
                _ => !lacks_kind(&e),
            },
        };
        found.push(((*kind).to_owned(), there));
        unpace(&conn, LOOPBACK).await?;
    }
    Ok(found)
}

/// An HTB at the root, read by its default class.
struct Htb {
    pacing: Pacing,
    /// Handles, leaf and number of classes are those of [`pace`].
    is_ours: bool,
}

async fn find_htb(conn: &Conn, index: u32) -> Result<Option<Htb>> {
    let qdiscs = qdiscs(conn, index).await?;
    let is_root = |q: &&Queue| q.parent == TcHandle::ROOT && q.kind == "htb";
    let Some(root) = qdiscs.iter().find(is_root) else {
        return Ok(None);
    };
    let Some(minor) = tc::parse_htb_default(&root.options) else {
        return Ok(None);
    };
    let default = TcHandle {
        minor,
        ..root.handle
    };
    let request = TcMessage::with_index(wire_index(index));
    let doing = format!("listing the traffic classes of the link with index {index}");
    let classes: Vec<Queue> = conn
        .dump(&doing, RouteNetlinkMessage::GetTrafficClass(request))
        .await?
        .into_iter()
        .filter_map(|object| match object {
            RouteNetlinkMessage::NewTrafficClass(class) => Some(Queue::read(class)),
            _ => None,
        })
        .filter(|class| class.kind == "htb" && class.handle.major == root.handle.major)
        .collect();
    let Some(class) = classes.iter().find(|class| class.handle == default) else {
        return Ok(None);
    };
    let Some(shaper) = tc::parse_htb_class(&class.options) else {
        return Ok(None);
    };
    let leaf = qdiscs.iter().find(|q| q.parent == default);
    let mut counters = class.counters;
    // what the leaf drops, the class does not count
    counters.drops = counters
        .drops
        .max(leaf.map_or(0, |leaf| leaf.counters.drops));
    Ok(Some(Htb {
        is_ours: root.handle == ROOT
            && default == CLASS
            && classes.len() == 1
            && leaf.is_none_or(|leaf| leaf.handle == LEAF),
        pacing: Pacing {
            shaper: Shaper::Htb,
            rate: shaper.rate,
            burst_bytes: shaper.burst_bytes,
            leaf: leaf.map(|leaf| leaf.kind.clone()),
            counters,
        },
    }))
}

/// A qdisc or class as the kernel shows it.
struct Queue {
    kind: String,
    handle: TcHandle,
    parent: TcHandle,
    options: Vec<u8>,
    counters: QueueCounters,
}

impl Queue {
    fn read(message: TcMessage) -> Self {
        let mut queue = Self {
            kind: String::new(),
            handle: message.header.handle,
            parent: message.header.parent,
            options: Vec::new(),
            counters: QueueCounters::default(),
        };
        for attribute in message.attributes {
            match attribute {
                TcAttribute::Kind(kind) => queue.kind = kind,
                TcAttribute::Options(options) => {
                    if let Some(TcOption::Other(raw)) = options.first() {
                        queue.options = tc::value(raw);
                    }
                }
                TcAttribute::Stats2(stats) => {
                    for part in stats {
                        match part {
                            TcStats2::Basic(basic) => {
                                queue.counters.bytes = basic.bytes;
                                queue.counters.packets = u64::from(basic.packets);
                            }
                            TcStats2::Queue(waiting) => {
                                queue.counters.drops = u64::from(waiting.drops);
                                queue.counters.overlimits = u64::from(waiting.overlimits);
                                queue.counters.backlog_bytes = u64::from(waiting.backlog);
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        queue
    }
}

async fn qdiscs(conn: &Conn, index: u32) -> Result<Vec<Queue>> {
    let request = TcMessage::with_index(wire_index(index));
    let doing = format!("listing the qdiscs of the link with index {index}");
    let found = conn
        .dump(&doing, RouteNetlinkMessage::GetQueueDiscipline(request))
        .await?;
    Ok(found
        .into_iter()
        .filter_map(|object| match object {
            RouteNetlinkMessage::NewQueueDiscipline(qdisc)
                if qdisc.header.index == wire_index(index) =>
            {
                Some(Queue::read(qdisc))
            }
            _ => None,
        })
        .collect())
}

fn wire_index(index: u32) -> i32 {
    // the kernel's own indices are positive and have 31 bits
    i32::try_from(index).unwrap_or(i32::MAX)
}

fn nest(options: Vec<DefaultNla>) -> TcAttribute {
    TcAttribute::Options(options.into_iter().map(TcOption::Other).collect())
}

fn message(
    index: u32,
    parent: TcHandle,
    handle: TcHandle,
    kind: &str,
    options: TcAttribute,
) -> TcMessage {
    let mut message = TcMessage::with_index(wire_index(index));
    message.header.parent = parent;
    message.header.handle = handle;
    message.attributes = vec![TcAttribute::Kind(kind.to_owned()), options];
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_a_millisecond_and_at_least_one_gso_segment() {
        assert_eq!(burst(Rate::from_bps(100_000_000)), 65_536);
        assert_eq!(burst(Rate::from_bps(10_000_000_000)), 1_250_000);
        assert_eq!(burst(Rate::from_bps(100_000_000_000)), 12_500_000);
    }
}
