//! The way home, from the record alone: no configuration, no supervisor, no sandbox is needed.
//! DEL, GC, the boot, the rescue and the undo of a failed ADD all come here.
//!
//! Invariants: every step can be done again. What is home stays home; an interface leaves the record
//! only when its NIC is home (or gone for good) and its leases are on their way back. The record is
//! on disk already, so a full disk keeps no NIC away.

use crate::{
    conf::Places,
    delegate,
    env::Verb,
    error::{CniError, Code},
    failpoint, prepared,
    record::{self, AttachmentRecord, InterfaceRecord, LeaseMark, Phase},
    sandbox::{self, Sandbox, Way},
    supervisor,
};
use dtn_api::{
    IfName,
    attachment::{self, PREPARED_VERSION, QueuedRelease},
    local::Notice,
    nic::NicClass,
};
use dtn_link::{
    Conn, Netns, atomic_file,
    inventory::{self, LinkState},
    link, nic, qdisc,
};
use serde::Serialize;
use std::path::PathBuf;

/// What becomes of the leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leases {
    /// They are given back: a file in `releases/` that the supervisor works off. Those that were
    /// prepared for a claim outlive the interface: whoever takes the claim back gives them back.
    Release,
    /// They stay: the pod will be attached again.
    Keep,
}

/// Where a NIC was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Home {
    /// It is home, and as it was.
    Home,
    /// The macvlan child is gone.
    Deleted,
    /// It was a virtual link and died with its sandbox: there is nothing to bring home.
    Destroyed,
    /// Hardware that is in no namespace that can be seen: unplugged, or held by one that something
    /// pins. Its record stays, and the next try looks again.
    Missing,
}

/// What became of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Homecoming {
    /// Its name in the pod.
    pub ifname: IfName,
    /// The NIC's name on the host.
    pub nic: String,
    /// Where it is now.
    pub home: Home,
    /// What could not be restored, and other things a person should know.
    pub notes: Vec<String>,
}

/// Brings home what a pod has, all of it or one interface. Success when there is nothing.
pub async fn reconcile(
    places: &Places,
    key: &str,
    ifname: Option<&IfName>,
    leases: Leases,
) -> Result<Vec<Homecoming>, CniError> {
    let done = {
        let _lock = record::lock(places, key).await?;
        locked(places, key, ifname, leases).await
    };
    if let Ok(home) = &done {
        notify(places, key, home).await;
    }
    done
}

/// The key under which a container's interface is on record: the caller's, else that of the record
/// that names the container. A runtime that deletes late may have lost the pod's UID. `None` when
/// nothing of this container is attached: above all, when the pod has a new container by now, which
/// a late call for the old one must not take down.
pub fn key_of(
    places: &Places,
    key: &str,
    container_id: &str,
    ifname: &IfName,
) -> Result<Option<String>, CniError> {
    let has = |record: &AttachmentRecord| {
        record
            .interface(ifname)
            .is_some_and(|interface| interface.container_id == container_id)
    };
    if let Some(record) = record::read(places, key)? {
        return Ok(has(&record).then(|| key.to_owned()));
    }
    let (records, _) = record::list(places);
    Ok(records.into_iter().find(has).map(|record| record.key))
}

/// Whether an interface of the record is in a sandbox that is gone for good, as far as can be seen
/// without the pod's lock.
pub fn has_lost_its_sandbox(record: &AttachmentRecord) -> bool {
    let this_boot = record.is_of_this_boot();
    let mut interfaces = record.interfaces.iter();
    interfaces.any(|interface| sandbox::is_gone(interface, this_boot))
}

/// Takes home what no runtime will ever ask to be taken home: interfaces whose sandbox is gone. Looked
/// at under the pod's lock, so that an ADD for a new sandbox is never mistaken for an old one.
pub async fn abandoned(places: &Places, key: &str) -> Result<Vec<Homecoming>, CniError> {
    let mut done = Vec::new();
    {
        let _lock = record::lock(places, key).await?;
        let Some(record) = record::read(places, key)? else {
            return Ok(done);
        };
        let this_boot = record.is_of_this_boot();
        let gone = |interface: &&InterfaceRecord| sandbox::is_gone(interface, this_boot);
        for interface in record.interfaces.iter().filter(gone) {
            done.extend(locked(places, key, Some(&interface.ifname), Leases::Release).await?);
        }
    }
    notify(places, key, &done).await;
    Ok(done)
}

/// Gives back what an ADD asked for and did not come to use: nothing is on record for it. Success
/// when there is nothing.
pub async fn unused(places: &Places, key: &str, ifname: &IfName) -> Result<(), CniError> {
    if prepared::asked_for(places, key, ifname)?.is_none() {
        return Ok(());
    }
    let _lock = record::lock(places, key).await?;
    let used = record::read(places, key)?.is_some_and(|r| r.of_prepared(ifname).is_some());
    if !used && let Some(leases) = prepared::asked_for(places, key, ifname)? {
        queue_releases(places, &leases)?;
        prepared::strike(places, key, ifname)?;
    }
    Ok(())
}

/// After the lock: whoever hears of it may look at the pod at once.
async fn notify(places: &Places, key: &str, done: &[Homecoming]) {
    for homecoming in done {
        let notice = Notice {
            key: key.to_owned(),
            ifname: homecoming.ifname.clone(),
        };
        supervisor::detached(&places.socket, &notice).await;
    }
}

/// The same for a caller that holds the pod's lock.
pub(crate) async fn locked(
    places: &Places,
    key: &str,
    ifname: Option<&IfName>,
    leases: Leases,
) -> Result<Vec<Homecoming>, CniError> {
    let Some(mut record) = record::read(places, key)? else {
        return Ok(Vec::new());
    };
    let this_boot = record.is_of_this_boot();
    let wanted: Vec<_> = record
        .interfaces
        .iter()
        .filter(|interface| ifname.is_none_or(|name| interface.ifname == *name))
        .cloned()
        .collect();
    let home = Netns::current().map_err(|e| later(e.into()))?;
    let host = Conn::current().map_err(|e| later(e.into()))?;
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for mut interface in wanted {
        interface.phase = Phase::Leaving;
        record.put(interface.clone());
        if let Err(e) = record.write(places) {
            tracing::warn!(
                "{e}; {} is brought home all the same",
                interface.before.name
            );
        }
        failpoint!("del-after-leaving");
        let call = Leaving {
            places,
            host: &host,
            home: &home,
            leases,
            this_boot,
        };
        match call.leave(&mut record, interface).await {
            Ok(homecoming) => done.push(homecoming),
            Err(e) => failures.push(e),
        }
    }
    if failures.is_empty() {
        return Ok(done);
    }
    let all: Vec<_> = failures.iter().map(ToString::to_string).collect();
    let message = format!("bringing home what pod {key} has");
    Err(CniError::new(Code::TryAgainLater, message, all.join("; ")))
}

/// As an error after which the next try can succeed.
fn later(error: CniError) -> CniError {
    CniError {
        code: Code::TryAgainLater,
        ..error
    }
}

/// What is the same for all interfaces of a pod that leaves.
struct Leaving<'a> {
    places: &'a Places,
    host: &'a Conn,
    home: &'a Netns,
    leases: Leases,
    this_boot: bool,
}

impl Leaving<'_> {
    /// One interface: its NIC home, its leases on their way, and then out of the record.
    async fn leave(
        &self,
        record: &mut AttachmentRecord,
        mut interface: InterfaceRecord,
    ) -> Result<Homecoming, CniError> {
        let (key, inode) = (record.key.clone(), interface.netns_inode);
        let sandbox = sandbox::find(self.places, &key, &interface, self.this_boot)
            .filter(|sandbox| sandbox.netns.inode() != self.home.inode());
        let mut homecoming = bring_home(self.host, self.home, &interface, sandbox.as_ref()).await?;
        failpoint!("del-after-link");
        let released = self.leases == Leases::Release
            && !prepared::keeps_leases(self.places, &key, interface.prepared_name());
        if released {
            queue_releases(self.places, &interface.leases)?;
        }
        failpoint!("del-after-queued");
        if released && let Err(e) = prepared::strike(self.places, &key, interface.prepared_name()) {
            // a torn file keeps no NIC and no lease away
            homecoming.notes.push(e.to_string());
        }
        failpoint!("del-after-struck");
        if let Some(mark) = &interface.delegate {
            let name = interface.ifname.as_str();
            // the sandbox's path is given only while it is the same sandbox
            let by_path = |sandbox: &Sandbox| sandbox.by == Way::Path;
            let netns = sandbox
                .as_ref()
                .is_some_and(by_path)
                .then_some(interface.netns.as_path());
            match delegate::call(mark, Verb::Del, netns, name).await {
                Err(e) if e.code == Code::TryAgainLater => return Err(e),
                Err(e) => homecoming.notes.push(e.to_string()),
                Ok(_) => {}
            }
        }
        if homecoming.home == Home::Missing {
            if released {
                // they are queued: not once more with the next try
                interface.leases.clear();
            }
            interface.delegate = None;
            record.put(interface);
        } else {
            let left = |other: &InterfaceRecord| other.ifname != interface.ifname;
            record.interfaces.retain(left);
        }
        record.write(self.places)?;
        failpoint!("del-after-record");
        sandbox::unpin(self.places, record, inode);
        Ok(homecoming)
    }
}

async fn bring_home(
    host: &Conn,
    home: &Netns,
    interface: &InterfaceRecord,
    sandbox: Option<&Sandbox>,
) -> Result<Homecoming, CniError> {
    let mut homecoming = Homecoming {
        ifname: interface.ifname.clone(),
        nic: interface.before.name.clone(),
        home: Home::Home,
        notes: Vec::new(),
    };
    if interface.class == NicClass::Shared {
        if let Some(sandbox) = sandbox {
            delete_child(sandbox, interface).await?;
        }
        homecoming.home = Home::Deleted;
        return Ok(homecoming);
    }
    let before = &interface.before;
    let at_home = inventory::links(host).await?;
    if let Some(found) = before.find(&at_home) {
        // never moved, or the kernel brought it back when its sandbox died
        if !nic::compare(host, found.index, before).await?.is_empty() {
            let differences = nic::restore(host, found.index, before).await?;
            homecoming
                .notes
                .extend(differences.iter().map(ToString::to_string));
        }
        return Ok(homecoming);
    }
    if let Some(sandbox) = sandbox {
        let inside = sandbox.netns.connect().await?;
        let links = inventory::links(&inside).await?;
        if let Some(found) = find_inside(&links, interface, sandbox.is_sure()) {
            dtn_tuning::restore(&sandbox.netns, &interface.settings).await;
            qdisc::unpace(&inside, found.index).await?;
            let differences = nic::move_home(&inside, found.index, host, home, before).await?;
            if differences
                .iter()
                .any(|difference| difference.field == "name")
            {
                homecoming
                    .notes
                    .extend(present_name(host, interface).await?);
            }
            homecoming
                .notes
                .extend(differences.iter().map(ToString::to_string));
            return Ok(homecoming);
        }
    }
    homecoming.home = if before.kind.is_some() {
        Home::Destroyed
    } else {
        Home::Missing
    };
    let note = match homecoming.home {
        Home::Destroyed => format!(
            "{} was a virtual link ({}) and ended with its sandbox",
            before.name,
            before.kind.as_deref().unwrap_or_default()
        ),
        _ => format!(
            "{} is in no namespace that can be seen: is it unplugged, or does a process hold the sandbox?",
            before.name
        ),
    };
    homecoming.notes.push(note);
    Ok(homecoming)
}

/// What a NIC is called that is home, but not under its own name.
async fn present_name(
    host: &Conn,
    interface: &InterfaceRecord,
) -> Result<Option<String>, CniError> {
    let before = &interface.before;
    let links = inventory::links(host).await?;
    let arrived = links
        .iter()
        .find(|link| before.may_be(link) && link.mac == before.mac);
    Ok(arrived.map(|link| {
        format!(
            "{} is home as {}: another link has its name; rename that one, then this",
            before.name, link.name
        )
    }))
}

/// The NIC among the links of its sandbox. Hardware is known by what it is. A virtual link is known
/// by its index there, and before that was noted by the name it was given: the pod did not run yet.
/// No other link of the pod is ever taken for it; in a sandbox that only has the right inode, which
/// the kernel gives to others later, its hardware address must be right as well.
fn find_inside<'a>(
    links: &'a [LinkState],
    interface: &InterfaceRecord,
    sure: bool,
) -> Option<&'a LinkState> {
    let before = &interface.before;
    if before.device.is_some() || before.permanent_mac.is_some() {
        return before.find(links);
    }
    links
        .iter()
        .find(|link| before.may_be(link) && is_ours(link, interface, sure))
}

/// Whether a virtual link of the sandbox is the interface on record.
fn is_ours(link: &LinkState, interface: &InterfaceRecord, sure: bool) -> bool {
    let place = match interface.index {
        Some(index) => link.index == index,
        None => link.name == interface.ifname.as_str(),
    };
    let mac = interface.mac.or(interface.before.mac);
    place && (sure || link.mac == mac)
}

async fn delete_child(sandbox: &Sandbox, interface: &InterfaceRecord) -> Result<(), CniError> {
    let inside = sandbox.netns.connect().await?;
    let links = inventory::links(&inside).await?;
    let child = links.iter().find(|link| {
        link.kind.as_deref() == Some("macvlan") && is_ours(link, interface, sandbox.is_sure())
    });
    match child {
        Some(child) => Ok(link::delete(&inside, child.index).await?),
        None => Ok(()),
    }
}

/// Takes a lease out of the queue again.
pub(crate) fn withdraw_release(places: &Places, lease: &LeaseMark) -> Result<(), CniError> {
    Ok(atomic_file::remove(&release_file(places, lease))?)
}

fn release_file(places: &Places, lease: &LeaseMark) -> PathBuf {
    let name = attachment::file_name(&lease.id.to_string());
    places.releases().join(name)
}

/// Puts leases on their way back, durably; the supervisor works the folder off.
pub(crate) fn queue_releases(places: &Places, leases: &[LeaseMark]) -> Result<(), CniError> {
    if leases.is_empty() {
        return Ok(());
    }
    atomic_file::create_folder(&places.releases(), 0o700)?;
    for lease in leases {
        let release = QueuedRelease {
            version: PREPARED_VERSION,
            lease_id: lease.id,
            slice_id: lease.slice_id,
            client_id: lease.client_id.clone(),
            queued_at: jiff::Timestamp::now(),
            reason: "the interface was detached".to_owned(),
        };
        let json = serde_json::to_vec_pretty(&release)
            .map_err(|e| CniError::internal("queueing a release", e))?;
        atomic_file::write(&release_file(places, lease), &json, 0o600)?;
    }
    Ok(())
}
