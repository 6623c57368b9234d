//! The NICs of this host, with who holds them and why some must not be taken.
//!
//! Read from the kernel each time; a NIC that sits in a pod's sandbox is not among the host's links
//! any more and is known from the file of the attachment that holds it.

use crate::{
    Config, Places,
    config::{NicConfig, NicSelector},
    guard,
};
use dtn_api::{
    IfName, MacAddress, Problem, Rate,
    attachment::{PREPARED_VERSION, Prepared},
    nic::{Nic, NicClass, NicIdentity},
    problem::Kind,
};
use dtn_cni::record::AttachmentRecord;
use dtn_link::{
    Conn, Netns, atomic_file,
    inventory::LinkState,
    nic::BeforeImage,
    owner, storage,
    storage::StorageLinks,
    sysfs::{FunctionFacts, NicFacts, Sysfs},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
};

/// Largest prepared file: some interfaces with their leases and settings.
const LARGEST: u64 = 1 << 20;

/// The NICs of this host.
#[derive(Debug, Clone)]
pub struct Inventory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What the site gives; it changes when the configuration is read again.
    nics: RwLock<Arc<Vec<NicConfig>>>,
    places: Places,
    sysfs: Sysfs,
    /// Speed and address as last seen on the host: a NIC that sits in a sandbox does not show them.
    seen: Mutex<BTreeMap<String, (Option<Rate>, MacAddress)>>,
}

/// What was found in one look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// The NICs: those that the site gave, and the other hardware of the host.
    pub nics: Vec<Nic>,
    /// NICs that the configuration names and the host does not have.
    pub missing: Vec<NicSelector>,
    /// What is worth knowing, with the NIC's name before it.
    pub warnings: Vec<String>,
}

/// An attachment, done or prepared, that holds a NIC.
#[derive(Debug, Clone)]
struct Claim {
    key: String,
    /// The interface in the sandbox.
    ifname: IfName,
    class: NicClass,
    /// The NIC's name and address on the host.
    name: IfName,
    mac: Option<MacAddress>,
    identity: NicIdentity,
    mtu: u32,
    /// Where the sandbox is.
    netns: PathBuf,
}

impl Inventory {
    /// Of the NICs that the configuration names, read from the machine's own sysfs.
    pub fn new(config: &Config, places: &Places) -> Self {
        Self::with_sysfs(config, places, Sysfs::system())
    }
    /// The same, read from another sysfs.
    pub fn with_sysfs(config: &Config, places: &Places, sysfs: Sysfs) -> Self {
        Self(Arc::new(Inner {
            nics: RwLock::new(Arc::new(config.nics.clone())),
            places: places.clone(),
            sysfs,
            seen: Mutex::default(),
        }))
    }

    /// The NICs now.
    pub async fn nics(&self) -> Result<Vec<Nic>, Problem> {
        self.look().await.map(|look| look.nics)
    }

    /// From now on these are given.
    pub fn give(&self, nics: &[NicConfig]) {
        let mut given = self.0.nics.write().unwrap_or_else(|e| e.into_inner());
        *given = Arc::new(nics.to_vec());
    }
    fn given(&self) -> Arc<Vec<NicConfig>> {
        let given = self.0.nics.read().unwrap_or_else(|e| e.into_inner());
        given.clone()
    }

    /// What the configuration says of a NIC, where it names it.
    pub fn configured(&self, nic: &Nic) -> Option<NicConfig> {
        let given = self.given();
        let mut given = given.iter();
        given
            .find(|config| selects(config, &nic.name, &nic.identity, nic.mac))
            .cloned()
    }

    /// What the PCI function of a NIC is beside one, wherever its network device sits. Nothing of a
    /// virtual link, and of a card that went since it was looked at.
    pub fn function(&self, nic: &Nic) -> Result<FunctionFacts, Problem> {
        let Some(pci) = &nic.identity.pci else {
            return Ok(FunctionFacts::default());
        };
        match self.0.sysfs.function(pci) {
            Err(e) if e.is_not_found() => Ok(FunctionFacts::default()),
            facts => facts.map_err(reading),
        }
    }

    /// The NICs now, with what is missing and what is worth knowing.
    pub async fn look(&self) -> Result<Look, Problem> {
        let conn = Conn::current().map_err(reading)?;
        let inode = Netns::current().map_err(reading)?.inode();
        let host = dtn_link::inventory::Inventory::read(&conn)
            .await
            .map_err(reading)?;
        let storage = self.storage(&conn).await?;
        let (claims, torn) = self.claims()?;
        let mut look = Look {
            warnings: torn,
            ..Look::default()
        };
        for link in host.links.iter().filter(|link| !link.loopback) {
            self.add_link(link, inode, &host, &storage, &claims, &mut look)?;
        }
        for claim in &claims {
            self.add_claimed(claim, &mut look).await;
        }
        for config in self.given().iter() {
            let there = |nic: &Nic| {
                nic.class.is_some() && selects(config, &nic.name, &nic.identity, nic.mac)
            };
            if !look.nics.iter().any(there) {
                look.missing.push(config.selector.clone());
            }
        }
        look.nics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(look)
    }

    async fn storage(&self, conn: &Conn) -> Result<StorageLinks, Problem> {
        let mounts = |of: &str| storage::of_host(Path::new(of), &self.0.sysfs).map_err(reading);
        let mut found = mounts("/proc/self/mountinfo")?;
        // in a container it is the first process of the host that sees what the host lives on
        for one in mounts("/proc/1/mountinfo")? {
            if !found.contains(&one) {
                found.push(one);
            }
        }
        storage::storage_links(conn, found).await.map_err(reading)
    }

    /// Adds a link of the host, when it is hardware or the site gave it.
    fn add_link(
        &self,
        link: &LinkState,
        inode: u64,
        host: &dtn_link::inventory::Inventory,
        storage: &StorageLinks,
        claims: &[Claim],
        look: &mut Look,
    ) -> Result<(), Problem> {
        // a link whose name or address we cannot even write cannot have been given
        let (Ok(name), Some(mac)) = (link.name.parse::<IfName>(), link.mac) else {
            return Ok(());
        };
        let facts = match self.0.sysfs.nic(&link.name) {
            Ok(facts) => facts,
            Err(e) if e.is_not_found() => NicFacts::default(),
            Err(e) => return Err(reading(e)),
        };
        let identity = identity_of(link, &facts, inode);
        let ours = link.name.starts_with(crate::shim::decide::PREFIX);
        let given = self.given();
        let matching: Vec<&NicConfig> = given
            .iter()
            .filter(|config| selects(config, &name, &identity, mac))
            // a pattern means NICs, and nothing that the appliance made of them
            .filter(|config| !(ours && config.selector.is_pattern()))
            .collect();
        let config = matching.first().copied();
        if config.is_none() && facts.pci.is_none() {
            return Ok(());
        }
        let owners = owner::of(self.0.places.root(), link.index, &link.name).map_err(reading)?;
        let ours: Vec<u32> = host
            .links
            .iter()
            .filter(|link| link.name.starts_with(crate::shim::decide::PREFIX))
            .map(|link| link.index)
            .collect();
        let mut verdict = guard::judge(&guard::Facts {
            host,
            link,
            class: config.map(|config| config.class),
            owners: &owners,
            storage,
            ours: &ours,
        });
        let class = given_as(&matching, &mut verdict);
        let speed = speed(facts.speed, config);
        self.seen().insert(key_of(&identity), (speed, mac));
        look.warnings
            .extend(verdict.warnings.iter().map(|why| format!("{name}: {why}")));
        look.nics.push(Nic {
            used_by: claims
                .iter()
                .filter(|claim| same(&claim.identity, &identity))
                .map(|claim| claim.key.clone())
                .collect(),
            name,
            identity,
            mac,
            class,
            up: link.up,
            carrier: link.carrier,
            speed,
            mtu: link.mtu,
            driver: facts.driver.or_else(|| link.kind.clone()),
            numa_node: facts.numa_node,
            guarded: verdict.refusals,
        });
        Ok(())
    }

    /// Adds a NIC that an attachment holds, unless it is among the host's links.
    async fn add_claimed(&self, claim: &Claim, look: &mut Look) {
        if claim.class != NicClass::Dedicated
            || look
                .nics
                .iter()
                .any(|nic| same(&nic.identity, &claim.identity))
        {
            return;
        }
        let given = self.given();
        let config = given
            .iter()
            .find(|config| match (&config.selector, claim.mac) {
                (NicSelector::Mac(wanted), None) => claim.identity.permanent_mac == Some(*wanted),
                (_, mac) => {
                    let mac = mac.unwrap_or(MacAddress::new([0; 6]));
                    selects(config, &claim.name, &claim.identity, mac)
                }
            });
        // what the kernel says of it in the sandbox; unknown is told as no carrier
        let inside = in_sandbox(&claim.netns, &claim.ifname).await;
        let seen = self.seen().get(&key_of(&claim.identity)).copied();
        let (speed, mac) = match seen {
            Some((speed, mac)) => (speed, Some(mac)),
            None => (None, claim.identity.permanent_mac.or(claim.mac)),
        };
        let Some(mac) = mac.or_else(|| inside.as_ref().and_then(|link| link.mac)) else {
            return;
        };
        look.nics.push(Nic {
            name: claim.name.clone(),
            identity: claim.identity.clone(),
            mac,
            class: config.map(|config| config.class),
            up: inside.as_ref().is_some_and(|link| link.up),
            carrier: inside.as_ref().is_some_and(|link| link.carrier),
            speed: speed.or_else(|| config.and_then(|config| config.speed)),
            mtu: inside.as_ref().map_or(claim.mtu, |link| link.mtu),
            driver: inside.and_then(|link| link.kind),
            numa_node: None,
            used_by: vec![claim.key.clone()],
            guarded: Vec::new(),
        });
    }

    /// The attachments that hold NICs: those that are prepared, and those that a plugin has a
    /// record of. Who is both is told once.
    fn claims(&self) -> Result<(Vec<Claim>, Vec<String>), Problem> {
        let places = &self.0.places;
        let mut claims = Vec::new();
        for prepared in prepared_files(&places.prepared())? {
            for held in prepared.interfaces {
                claims.push(Claim {
                    netns: places.netns_of(&prepared.key),
                    key: prepared.key.clone(),
                    ifname: held.ifname,
                    class: held.class,
                    name: held.nic_name,
                    mac: Some(held.mac).filter(|_| held.class == NicClass::Dedicated),
                    identity: held.nic,
                    mtu: held.mtu,
                });
            }
        }
        let (records, torn) = records(places);
        for record in records {
            for held in &record.interfaces {
                let told =
                    |claim: &&mut Claim| claim.key == record.key && claim.ifname == held.ifname;
                let Ok(name) = held.before.name.parse() else {
                    continue;
                };
                if let Some(claim) = claims.iter_mut().find(told) {
                    // another engine's sandbox is where its runtime put it
                    claim.netns.clone_from(&held.netns);
                    continue;
                }
                claims.push(Claim {
                    key: record.key.clone(),
                    ifname: held.ifname.clone(),
                    class: held.class,
                    name,
                    mac: held.before.mac,
                    identity: recorded_identity(&held.before),
                    mtu: held.mtu,
                    netns: held.netns.clone(),
                });
            }
        }
        Ok((claims, torn))
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (Option<Rate>, MacAddress)>> {
        self.0.seen.lock().unwrap_or_else(|e| e.into_inner())
    }
}

async fn in_sandbox(netns: &Path, ifname: &IfName) -> Option<LinkState> {
    let conn = Netns::open(netns).ok()?.connect().await.ok()?;
    dtn_link::inventory::link_named(&conn, ifname).await.ok()
}

/// Every record of an attachment that can be read, and in words those that cannot: one torn file
/// must not hide the others.
pub fn records(places: &Places) -> (Vec<AttachmentRecord>, Vec<String>) {
    let (records, errors) = dtn_cni::record::list(&dtn_cni::conf::Places::below(places.root()));
    (records, errors.iter().map(ToString::to_string).collect())
}

/// The identity in the image that a plugin took before it moved the NIC.
fn recorded_identity(before: &BeforeImage) -> NicIdentity {
    let pci = before
        .device
        .as_ref()
        .and_then(|device| device.parse().ok());
    let hardware = pci.is_some() || before.permanent_mac.is_some();
    NicIdentity {
        pci,
        permanent_mac: before.permanent_mac,
        netns_inode: (!hardware).then_some(before.netns_inode),
        ifindex: (!hardware).then_some(before.index),
    }
}

/// Every prepared file of a folder. A file that cannot be read is an error: who holds a NIC must
/// not be guessed.
pub fn prepared_files(folder: &Path) -> Result<Vec<Prepared>, Problem> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(unreadable(folder, &e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| unreadable(folder, &e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if atomic_file::is_temporary(&name) || !name.ends_with(".json") {
            continue;
        }
        let path = entry.path();
        let Some(bytes) = atomic_file::read(&path, LARGEST).map_err(reading)? else {
            continue;
        };
        let prepared: Prepared =
            serde_json::from_slice(&bytes).map_err(|e| unreadable(&path, &e))?;
        if prepared.version > PREPARED_VERSION {
            let why = format!(
                "version {} is newer than this build reads",
                prepared.version
            );
            return Err(unreadable(&path, &why));
        }
        found.push(prepared);
    }
    found.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::Internal, format!("reading {}: {why}", path.display()))
}
fn reading(error: dtn_link::Error) -> Problem {
    Problem::new(Kind::Internal, format!("reading the NICs: {error}"))
}

/// Speed as trained, or as configured where the driver tells none or the site gives less.
fn speed(trained: Option<Rate>, config: Option<&NicConfig>) -> Option<Rate> {
    match (trained, config.and_then(|config| config.speed)) {
        (Some(trained), Some(given)) => Some(trained.min(given)),
        (trained, given) => trained.or(given),
    }
}

fn identity_of(link: &LinkState, facts: &NicFacts, inode: u64) -> NicIdentity {
    let hardware = facts.pci.is_some() || link.permanent_mac.is_some();
    NicIdentity {
        pci: facts.pci.clone(),
        permanent_mac: link.permanent_mac,
        netns_inode: (!hardware).then_some(inode),
        ifindex: (!hardware).then_some(link.index),
    }
}

/// Whether two identities are the same NIC. Two ports of one card can have the same PCI address,
/// so the permanent MAC decides where both have one.
pub fn same(a: &NicIdentity, b: &NicIdentity) -> bool {
    match (a.permanent_mac, b.permanent_mac) {
        (Some(a), Some(b)) => return a == b,
        (None, None) => {}
        // one of them was read where the driver does not tell it
        _ => return a.pci.is_some() && a.pci == b.pci,
    }
    match (&a.pci, &b.pci) {
        (Some(a), Some(b)) => a == b,
        (None, None) => {
            a.ifindex.is_some() && a.netns_inode == b.netns_inode && a.ifindex == b.ifindex
        }
        _ => false,
    }
}

/// What a NIC is remembered by, whatever its name.
pub(crate) fn key_of(identity: &NicIdentity) -> String {
    match (&identity.permanent_mac, &identity.pci) {
        (Some(mac), _) => mac.to_string(),
        (None, Some(pci)) => pci.to_string(),
        (None, None) => format!("{:?}/{:?}", identity.netns_inode, identity.ifindex),
    }
}

fn selects(config: &NicConfig, name: &IfName, identity: &NicIdentity, mac: MacAddress) -> bool {
    match &config.selector {
        NicSelector::Name(wanted) => wanted == name,
        NicSelector::Pci(wanted) => identity.pci.as_ref() == Some(wanted),
        NicSelector::Mac(wanted) => identity.permanent_mac.unwrap_or(mac) == *wanted,
        NicSelector::Names(pattern) => pattern.matches(name.as_str()),
        NicSelector::Slots(pattern) => identity
            .pci
            .as_ref()
            .is_some_and(|pci| pattern.matches(pci.as_str())),
    }
}

/// The class that a NIC is given as. What a pattern matches and must not be taken is left out of it:
/// nobody meant just that one. What two entries match is taken by neither.
fn given_as(matching: &[&NicConfig], verdict: &mut guard::Verdict) -> Option<NicClass> {
    let (first, others) = matching.split_first()?;
    if let Some(other) = others.first() {
        verdict.refusals.push(format!(
            "two [[nic]] of the configuration match it, {} and {}: let one of them match less",
            first.selector, other.selector
        ));
    } else if first.selector.is_pattern() && !verdict.refusals.is_empty() {
        for why in &mut verdict.refusals {
            *why = format!("left out of {}, since {why}", first.selector);
        }
        return None;
    }
    Some(first.class)
}

#[cfg(test)]
mod tests;
