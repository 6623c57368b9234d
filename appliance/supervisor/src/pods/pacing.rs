//! What an interface may send now, kept in its sandbox and told to the controller.
//!
//! While a slice carries, its members on this host may send at its rate, in equal parts where
//! several pods share it on one NIC; one with an agreed part has that. Before its start, after its end, when it is lost, and without
//! a slice an interface is **best effort: 1 % of its NIC's speed**, at least 1 Mbit/s. Never unpaced:
//! that would take a shared wide-area link from those who reserved it. A controller that is silent
//! changes nothing until the end that is written in the prepared file.

use super::share;
use crate::{Host, SliceView, gateway, inventory};
use dtn_api::{
    HostId, IfName, Problem, Rate,
    attachment::SliceBinding,
    host::Enforcement,
    local::Paced,
    problem::Kind,
    slice::{Class, Slice},
};
use dtn_cni::{
    conf,
    record::{self, AttachmentRecord, InterfaceRecord, Phase},
};
use dtn_link::{Conn, Netns, address, link, qdisc};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Part of a NIC's speed that best effort gets: 1 / 100.
const BEST_EFFORT: u64 = 100;
/// The least that best effort gets, and what it gets on a NIC whose speed is not known.
const LEAST: Rate = Rate::from_bps(1_000_000);
/// An unchanged reading is told again after this.
const TELL_AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// What best effort may send on a NIC of this speed.
pub(crate) fn best_effort(speed: Option<Rate>) -> Rate {
    speed
        .map_or(LEAST, |speed| speed.fraction(1, BEST_EFFORT))
        .max(LEAST)
}

/// What a slice gives at this instant.
pub(super) fn of_slice(slice: &Slice, now: Timestamp, unbooked: Rate) -> Rate {
    match slice.spec.qos.class {
        Class::BestEffort => unbooked,
        _ if slice.carries_at(now) => Rate::from_bps(slice.spec.qos.rate_bps),
        _ => unbooked,
    }
}

/// What a binding gives at this instant, before it is shared.
pub(super) fn wanted(
    binding: &SliceBinding,
    view: &SliceView,
    now: Timestamp,
    speed: Option<Rate>,
) -> Rate {
    let unbooked = best_effort(speed);
    let known = view.slices.iter().find(|slice| slice.id == binding.id);
    match known {
        Some(slice) => of_slice(slice, now, unbooked),
        // the controller answered and has it no more
        None if view.read_at.is_some() && view.trouble.is_empty() => unbooked,
        None if now < binding.ends_at && binding.rate_bps > 0 => Rate::from_bps(binding.rate_bps),
        None => unbooked,
    }
}

/// The view, with the slices of these bindings that are newer than it: whether one is lost is
/// asked, never guessed.
pub(super) async fn known<'a>(
    host: &Host,
    bindings: impl Iterator<Item = &'a SliceBinding>,
    now: Timestamp,
) -> SliceView {
    let mut view = host.uplink.watch().borrow().clone();
    for binding in bindings {
        let there = view.slices.iter().any(|slice| slice.id == binding.id);
        if there || now >= binding.ends_at {
            continue;
        }
        match host.uplink.slice(binding.id).await {
            Ok(slice) => view.slices.push(slice),
            Err(problem) if problem.is(Kind::NotFound) => {}
            Err(problem) => view.trouble = problem.to_string(),
        }
    }
    view
}

/// One interface that is paced.
#[derive(Debug, Clone)]
struct Sender {
    key: String,
    ifname: IfName,
    /// The NIC's name on the host.
    nic: String,
    binding: Option<SliceBinding>,
    rate: Rate,
}
impl Sender {
    fn agreed(&self) -> Option<u64> {
        self.binding.as_ref()?.share_bps
    }
}

/// The rates of all senders: those of one slice on one NIC share it.
fn share(senders: &mut [Sender]) {
    let mut groups: BTreeMap<(Uuid, String), Vec<&mut Sender>> = BTreeMap::new();
    for sender in senders {
        if let Some(binding) = &sender.binding {
            let key = (binding.id, sender.nic.clone());
            groups.entry(key).or_default().push(sender);
        }
    }
    for group in groups.values_mut() {
        // the same for all, unless their bindings are of different times and the controller is silent
        let total = group.iter().map(|sender| sender.rate).max();
        let agreed: Vec<Option<u64>> = group.iter().map(|sender| sender.agreed()).collect();
        let parts = share::parts(total.map_or(0, Rate::bps), &agreed);
        for (sender, part) in group.iter_mut().zip(parts) {
            sender.rate = Rate::from_bps(part);
        }
    }
}

/// What was read back, and what of it was told.
#[derive(Debug, Default)]
pub(super) struct Readings {
    paced: Vec<(Uuid, Paced)>,
    told: BTreeMap<(Uuid, HostId), (u64, Timestamp)>,
    trouble: BTreeMap<String, String>,
}

impl Readings {
    /// Everything that is paced for slices.
    pub(super) fn paced(&self) -> Vec<(Uuid, Paced)> {
        self.paced.clone()
    }
}

/// One pass over all attachments: sets what differs, reads back, tells the controller.
pub(super) async fn once(host: &Host, readings: &std::sync::Mutex<Readings>) {
    let (records, _) = inventory::records(&host.places);
    let attached: Vec<(&AttachmentRecord, &InterfaceRecord)> = records
        .iter()
        // without a prepared pod it is a network of the admin's own, which has its own rules
        .filter(|record| record.pod.is_some())
        .flat_map(|record| record.interfaces.iter().map(move |i| (record, i)))
        .filter(|(_, interface)| interface.phase == Phase::Attached)
        .filter(|(record, interface)| !gateway::is_outside(record, &interface.ifname))
        .collect();
    if attached.is_empty() {
        lock(readings).paced.clear();
        return;
    }
    let nics = host.inventory.nics().await.unwrap_or_else(|problem| {
        tracing::warn!("{problem}");
        Vec::new()
    });
    let speed = |name: &str| {
        let nic = nics.iter().find(|nic| nic.name.as_str() == name);
        nic.and_then(|nic| nic.speed)
    };
    let now = Timestamp::now();
    let bindings = attached.iter().flat_map(|(_, interface)| &interface.slices);
    let view = known(host, bindings, now).await;
    let mut senders: Vec<Sender> = attached
        .iter()
        .map(|(record, interface)| {
            let binding = interface.slices.first().cloned();
            let speed = speed(&interface.before.name);
            Sender {
                key: record.key.clone(),
                ifname: interface.ifname.clone(),
                nic: interface.before.name.clone(),
                rate: binding.as_ref().map_or(best_effort(speed), |binding| {
                    wanted(binding, &view, now, speed)
                }),
                binding,
            }
        })
        .collect();
    share(&mut senders);
    let mut paced = Vec::new();
    let mut sums: BTreeMap<(Uuid, HostId), (u64, String)> = BTreeMap::new();
    for ((record, interface), sender) in attached.iter().zip(&senders) {
        let name = format!("{}/{}", sender.key, sender.ifname);
        let outcome = keep(host, interface, sender).await;
        note(readings, &name, outcome.as_ref().err());
        let pacing = outcome.ok().flatten();
        let by = pacing.as_ref().map_or_else(
            || "not paced: it could not be read back".to_owned(),
            |pacing| match &pacing.leaf {
                Some(leaf) => format!("htb {leaf}"),
                None => "htb".to_owned(),
            },
        );
        let Some(binding) = &sender.binding else {
            continue;
        };
        let pod = record.pod.as_ref().map_or(&record.key, |pod| &pod.name);
        paced.push((
            binding.id,
            Paced {
                pod: pod.clone(),
                ifname: sender.ifname.clone(),
                rate: pacing.as_ref().map(|pacing| pacing.rate),
                by: by.clone(),
            },
        ));
        let nic = nics.iter().find(|nic| nic.name.as_str() == sender.nic);
        if let Some(nic) = nic {
            let sum = sums
                .entry((binding.id, HostId::untagged(nic.mac)))
                .or_insert((0, by));
            sum.0 += pacing.map_or(0, |pacing| pacing.rate.bps());
        }
    }
    lock(readings).paced = paced;
    tell(host, readings, sums, now).await;
}

/// Sets what differs from what it should be, and reads the pacing back.
async fn keep(
    host: &Host,
    interface: &InterfaceRecord,
    sender: &Sender,
) -> Result<Option<qdisc::Pacing>, Problem> {
    let failed = |why: &dyn std::fmt::Display| {
        Problem::new(
            Kind::Internal,
            format!("keeping {} of {}: {why}", sender.ifname, sender.key),
        )
    };
    let sandbox = Netns::open(&interface.netns).map_err(|e| failed(&e))?;
    if sandbox.inode() != interface.netns_inode {
        return Err(failed(&"its sandbox is another one now"));
    }
    let conn = sandbox.connect().await.map_err(|e| failed(&e))?;
    let index = interface
        .index
        .ok_or_else(|| failed(&"its index is not known"))?;
    for drift in mend(&sandbox, &conn, index, interface)
        .await
        .map_err(|e| failed(&e))?
    {
        tracing::warn!(pod = sender.key, ifname = %sender.ifname, "set again: {drift}");
    }
    let now = qdisc::current_pacing(&conn, index)
        .await
        .map_err(|e| failed(&e))?;
    let right = now.as_ref().is_some_and(|now| now.rate == sender.rate);
    if right && interface.rate_bps == sender.rate.bps() {
        return Ok(now);
    }
    // the record first: CHECK and the next ADD go by it
    noted(host, sender).await.map_err(|e| failed(&e))?;
    if right {
        return Ok(now);
    }
    let paced = qdisc::pace(&conn, index, sender.rate)
        .await
        .map_err(|e| failed(&e))?;
    tracing::info!(pod = sender.key, ifname = %sender.ifname, rate = %sender.rate, "paced");
    Ok(Some(paced.pacing))
}

async fn noted(host: &Host, sender: &Sender) -> Result<(), dtn_cni::CniError> {
    let places = conf::Places::below(host.places.root());
    let _lock = record::lock(&places, &sender.key).await?;
    let Some(mut record) = record::read(&places, &sender.key)? else {
        return Ok(());
    };
    for interface in &mut record.interfaces {
        if interface.ifname == sender.ifname && interface.phase == Phase::Attached {
            interface.rate_bps = sender.rate.bps();
        }
    }
    record.write(&places)
}

/// Puts back what drifted: MTU, up, addresses, settings. Says what it was.
async fn mend(
    sandbox: &Netns,
    conn: &Conn,
    index: u32,
    interface: &InterfaceRecord,
) -> dtn_link::Result<Vec<String>> {
    let mut drifted = Vec::new();
    let now = dtn_link::inventory::link(conn, index).await?;
    if now.mtu != interface.mtu {
        link::set_mtu(conn, index, interface.mtu).await?;
        drifted.push(format!("MTU was {}", now.mtu));
    }
    if !now.up {
        link::set_up(conn, index).await?;
        drifted.push("it was down".to_owned());
    }
    let there = address::list(conn, Some(index)).await?;
    for ip in &interface.ips {
        if !there.iter().any(|address| address.net == *ip) {
            address::add(conn, index, *ip).await?;
            drifted.push(format!("address {ip} was missing"));
        }
    }
    let settings: Vec<dtn_tuning::Setting> = interface
        .settings
        .iter()
        .filter(|outcome| outcome.is_set())
        .map(|outcome| dtn_tuning::Setting {
            key: outcome.key.clone(),
            value: outcome.wanted.clone(),
            why: String::new(),
            source: String::new(),
        })
        .collect();
    let off = dtn_tuning::drift(sandbox, &settings).await;
    if !off.is_empty() {
        let again: Vec<_> = settings
            .into_iter()
            .filter(|setting| off.iter().any(|outcome| outcome.key == setting.key))
            .collect();
        dtn_tuning::apply(sandbox, &again).await;
        drifted.extend(off.iter().map(|outcome| {
            format!(
                "{} was {}",
                outcome.key,
                outcome.actual.as_deref().unwrap_or("not there")
            )
        }));
    }
    Ok(drifted)
}

/// Tells each NIC's rate in each slice: at a change, and now and then.
async fn tell(
    host: &Host,
    readings: &std::sync::Mutex<Readings>,
    sums: BTreeMap<(Uuid, HostId), (u64, String)>,
    now: Timestamp,
) {
    lock(readings).told.retain(|key, _| sums.contains_key(key));
    if host.uplink.identity().is_none() {
        return;
    }
    for ((slice, id), (rate_bps, by)) in sums {
        let told = lock(readings).told.get(&(slice, id.clone())).copied();
        let fresh =
            told.is_some_and(|(rate, at)| rate == rate_bps && now.duration_since(at) < TELL_AGAIN);
        if fresh {
            continue;
        }
        let enforcement = Enforcement {
            rate_bps,
            by,
            read_at: now,
        };
        let outcome = host
            .uplink
            .report_enforcement(slice, &id, &enforcement)
            .await;
        // a slice that is gone has nobody to be told
        let outcome = outcome.or_else(|problem| match problem.is(Kind::NotFound) {
            true => Ok(()),
            false => Err(problem),
        });
        note(readings, &format!("{slice}/{id}"), outcome.as_ref().err());
        if outcome.is_ok() {
            lock(readings).told.insert((slice, id), (rate_bps, now));
        }
    }
}

/// The same trouble is logged once.
fn note(readings: &std::sync::Mutex<Readings>, what: &str, problem: Option<&Problem>) {
    let mut readings = lock(readings);
    let Some(problem) = problem else {
        readings.trouble.remove(what);
        return;
    };
    let text = problem.to_string();
    if readings.trouble.get(what) != Some(&text) {
        tracing::warn!("{text}");
        readings.trouble.insert(what.to_owned(), text);
    }
}

fn lock(readings: &std::sync::Mutex<Readings>) -> std::sync::MutexGuard<'_, Readings> {
    readings.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests;
