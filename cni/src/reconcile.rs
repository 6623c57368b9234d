//! The way home, from the record alone: no configuration, no supervisor, no sandbox is needed.
//! DEL, GC, the boot, the rescue and the undo of a failed ADD all come here.
//!
//! Invariant: every step can be done again. What is home stays home; an interface leaves the record
//! only when its NIC is home (or gone for good) and its leases are on their way back.

use crate::{
    conf::Places,
    delegate,
    env::Verb,
    error::{CniError, Code},
    failpoint,
    record::{self, InterfaceRecord, Phase},
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
use std::{fs, path::PathBuf};

/// What becomes of the leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leases {
    /// They are given back: a file in `releases/` that the supervisor works off.
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
    let _lock = record::lock(places, key)?;
    locked(places, key, ifname, leases).await
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
    let wanted: Vec<_> = record
        .interfaces
        .iter()
        .filter(|interface| ifname.is_none_or(|name| interface.ifname == *name))
        .cloned()
        .collect();
    let home = Netns::current()?;
    let host = Conn::current()?;
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for mut interface in wanted {
        interface.phase = Phase::Leaving;
        record.put(interface.clone());
        record.write(places)?;
        match bring_home(&host, &home, &interface).await {
            Ok(homecoming) => {
                failpoint!("del-after-link");
                let gone = homecoming.home != Home::Missing;
                if leases == Leases::Release {
                    queue_releases(places, &interface)?;
                }
                failpoint!("del-after-queued");
                let mut homecoming = homecoming;
                if let Some(mark) = &interface.delegate {
                    let name = interface.ifname.as_str();
                    // the sandbox's path is given only while it is the same sandbox
                    let netns = sandbox_of(&interface).map(|_| interface.netns.as_path());
                    if let Err(e) = delegate::call(mark, Verb::Del, netns, name).await {
                        if e.code == Code::TryAgainLater {
                            failures.push(e);
                            continue;
                        }
                        homecoming.notes.push(e.to_string());
                    }
                }
                if gone {
                    record
                        .interfaces
                        .retain(|other| other.ifname != interface.ifname);
                } else {
                    // its leases are queued: they must not be queued again
                    interface.leases.clear();
                    interface.delegate = None;
                    record.put(interface.clone());
                }
                record.write(places)?;
                failpoint!("del-after-record");
                let notice = Notice {
                    key: key.to_owned(),
                    ifname: interface.ifname.clone(),
                };
                supervisor::detached(&places.socket, &notice).await;
                done.push(homecoming);
            }
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

async fn bring_home(
    host: &Conn,
    home: &Netns,
    interface: &InterfaceRecord,
) -> Result<Homecoming, CniError> {
    let mut homecoming = Homecoming {
        ifname: interface.ifname.clone(),
        nic: interface.before.name.clone(),
        home: Home::Home,
        notes: Vec::new(),
    };
    let sandbox = sandbox_of(interface).filter(|sandbox| sandbox.inode() != home.inode());
    if interface.class == NicClass::Shared {
        if let Some(sandbox) = sandbox {
            delete_child(&sandbox, interface).await?;
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
        let inside = sandbox.connect().await?;
        let links = inventory::links(&inside).await?;
        if let Some(found) = find_inside(&links, interface) {
            dtn_tuning::restore(&sandbox, &interface.settings).await;
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
/// No other link of the pod is ever taken for it.
fn find_inside<'a>(links: &'a [LinkState], interface: &InterfaceRecord) -> Option<&'a LinkState> {
    let before = &interface.before;
    if before.device.is_some() || before.permanent_mac.is_some() {
        return before.find(links);
    }
    links.iter().find(|link| {
        before.may_be(link)
            && match interface.index {
                Some(index) => link.index == index,
                None => link.name == interface.ifname.as_str(),
            }
    })
}

async fn delete_child(sandbox: &Netns, interface: &InterfaceRecord) -> Result<(), CniError> {
    let inside = sandbox.connect().await?;
    let links = inventory::links(&inside).await?;
    let child = links.iter().find(|link| {
        link.kind.as_deref() == Some("macvlan")
            && match interface.index {
                Some(index) => link.index == index,
                None => link.name == interface.ifname.as_str(),
            }
    });
    match child {
        Some(child) => Ok(link::delete(&inside, child.index).await?),
        None => Ok(()),
    }
}

/// The sandbox of the record, if it still is: by its path, else by any process that is in it.
fn sandbox_of(interface: &InterfaceRecord) -> Option<Netns> {
    let same = |path: PathBuf| {
        Netns::open(&path)
            .ok()
            .filter(|netns| netns.inode() == interface.netns_inode)
    };
    same(interface.netns.clone()).or_else(|| {
        let processes = fs::read_dir("/proc").ok()?.flatten();
        processes
            .filter(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .bytes()
                    .all(|b| b.is_ascii_digit())
            })
            .find_map(|entry| same(entry.path().join("ns/net")))
    })
}

fn queue_releases(places: &Places, interface: &InterfaceRecord) -> Result<(), CniError> {
    if interface.leases.is_empty() {
        return Ok(());
    }
    atomic_file::create_folder(&places.releases(), 0o700)?;
    for lease in &interface.leases {
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
        let file = places
            .releases()
            .join(attachment::file_name(&lease.id.to_string()));
        atomic_file::write(&file, &json, 0o600)?;
    }
    Ok(())
}
