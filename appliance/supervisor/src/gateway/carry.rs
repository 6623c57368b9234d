//! Does what [`super::step`] says: namespace, leases, filter, interfaces. An interface of a gateway
//! is an attachment like a pod's: the same plugin brings it in, with the record first, and the same
//! reconciliation takes it home; leases, pacing and drift are kept by those who keep them for pods.

mod hold;
mod outside;
mod ready;
mod settings;

use super::{
    book::Book,
    filter::{self, Filter},
    rules::{self, Served},
    step::{Action, SliceWanted, There},
};
use crate::{
    Host,
    config::GatewayConfig,
    failpoint,
    inventory::same,
    pods::{attach, prepare},
};
use dtn_api::{
    IfName, Name, Problem,
    attachment::{PREPARED_VERSION, PodIdentity, Prepared, PreparedInterface, SliceBinding},
    gateway::AccessRule,
    nic::Nic,
    problem::Kind,
};
use dtn_cni::{
    conf,
    reconcile::Leases,
    record::{self, AttachmentRecord, Phase},
};
use dtn_link::{Netns, inventory, netns, nft};
use ipnet::IpNet;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// Name of the CNI network in records: the garbage collection of no other network takes these home.
const NETWORK: &str = "dtn-gateway";
/// Who runs it, in records.
pub(super) const ENGINE: &str = "gateway";

/// The key of a gateway's attachment, and the name of its pin.
pub fn key(name: &Name) -> String {
    format!("gateway-{name}")
}
/// Whether a key is that of a gateway.
pub fn is_key(key: &str) -> bool {
    key.starts_with("gateway-")
}
/// Whether an interface on record is one towards an external network: no slice paces it.
pub(crate) fn is_outside(record: &AttachmentRecord, ifname: &IfName) -> bool {
    let of_gateway = |pod: &PodIdentity| pod.engine == ENGINE;
    record.pod.as_ref().is_some_and(of_gateway) && ifname.as_str() == rules::OUTSIDE
}

/// Everything that a round works with.
pub(super) struct Round<'a> {
    pub(super) host: &'a Host,
    pub(super) config: &'a GatewayConfig,
    pub(super) book: &'a mut Book,
    /// The NICs as they were last looked at.
    pub(super) nics: &'a [Nic],
    /// The slices that shall be served.
    pub(super) wanted: Vec<SliceWanted>,
    pub(super) now: Timestamp,
    /// Write all settings again, although the namespace was there.
    pub(super) settle: bool,
    /// The filter as it was last read in this round.
    pub(super) table: Option<nft::Table>,
}

/// What a round found in the end, read back.
#[derive(Debug, Default)]
pub(super) struct Came {
    /// The slices that packets are forwarded for.
    pub(super) served: Vec<Served>,
    /// The filter.
    pub(super) table: Option<nft::Table>,
    /// What could not be done.
    pub(super) faults: Vec<String>,
}

fn failed(doing: &str, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::Internal, format!("{doing}: {why}"))
}

impl Round<'_> {
    fn key(&self) -> String {
        key(&self.config.name)
    }
    fn pin(&self) -> PathBuf {
        self.host.places.netns_of(&self.key())
    }
    fn problem(&self, why: &dyn std::fmt::Display) -> Problem {
        failed(&format!("gateway {}", self.config.name), why)
    }
    /// The NIC that a selector of the configuration names.
    fn nic(&self, selector: &crate::config::NicSelector) -> Option<&Nic> {
        find(self.host, self.nics, selector)
    }
    fn of_interface(&self, ifname: &IfName) -> &crate::config::NicSelector {
        match ifname.as_str() == rules::OUTSIDE {
            true => &self.config.outside,
            false => &self.config.inside,
        }
    }

    /// Does what is to do until nothing is left, or until something fails.
    pub(super) async fn run(&mut self) -> Result<Came, Problem> {
        let mut came = Came::default();
        self.take_note()?;
        // an interface that leaves for another NIC comes again in the second pass
        for _ in 0..2 {
            came.faults.clear();
            let outside = outside_name()?;
            let there = self.look().await?;
            let todo = super::step::actions(&self.wanted, &outside, &there);
            for action in &todo {
                let done = self.act(action).await;
                let Err(problem) = done else { continue };
                came.faults.push(problem.to_string());
                if matches!(
                    action,
                    Action::TakeHome | Action::Namespace | Action::Filter
                ) {
                    // nothing is forwarded, and no interface moves, that no filter guards
                    return Ok(came);
                }
            }
            if todo == [Action::Filter] || !came.faults.is_empty() {
                break;
            }
        }
        if let Err(problem) = self.keep_outside().await {
            came.faults.push(problem.to_string());
        }
        if self.settle
            && let Err(problem) = settings::settle(&self.open()?).await
        {
            came.faults.push(problem.to_string());
        }
        let there = self.look().await?;
        if let Err(problem) = self.can_ask(&there.attached).await {
            came.faults.push(problem.to_string());
        }
        came.served = self.served()?;
        came.served
            .retain(|slice| there.attached.contains(&slice.ifname));
        came.table = match self.table.take() {
            Some(table) => Some(table),
            None => self.read_table().await?,
        };
        Ok(came)
    }

    /// Writes down what the controller says of the slices: whose they are, and until when.
    fn take_note(&mut self) -> Result<(), Problem> {
        let mut book = self.book.clone();
        let mut prepared = self.prepared()?;
        let before = prepared.clone();
        for wanted in &self.wanted {
            let Some(tenant) = &wanted.tenant else {
                continue;
            };
            book.tenants.insert(wanted.binding.id, tenant.clone());
            let bindings = prepared.interfaces.iter_mut().flat_map(|i| &mut i.slices);
            for binding in bindings.filter(|binding| binding.id == wanted.binding.id) {
                binding.ends_at = wanted.binding.ends_at;
            }
        }
        if book != *self.book {
            book.write(&self.host.places)?;
            *self.book = book;
        }
        match prepared == before {
            true => Ok(()),
            false => prepare::write(self.host, &prepared),
        }
    }

    fn open(&self) -> Result<Netns, Problem> {
        Netns::open(&self.pin()).map_err(|e| self.problem(&e))
    }
    async fn read_table(&self) -> Result<Option<nft::Table>, Problem> {
        let (family, name) = filter::TABLE;
        let table = nft::table(&self.open()?, family, name).await;
        table.map_err(|e| self.problem(&e))
    }
    fn prepared(&self) -> Result<Prepared, Problem> {
        let key = self.key();
        let pod = PodIdentity {
            uid: key.clone(),
            name: key.clone(),
            namespace: "default".to_owned(),
            engine: ENGINE.to_owned(),
        };
        Ok(prepare::read(self.host, &key)?.unwrap_or_else(|| Prepared {
            version: PREPARED_VERSION,
            key,
            pod,
            interfaces: Vec::new(),
            prepared_at: self.now,
            labels: BTreeMap::new(),
        }))
    }
    fn record(&self) -> Result<Option<AttachmentRecord>, Problem> {
        let places = conf::Places::below(self.host.places.root());
        record::read(&places, &self.key()).map_err(|e| self.problem(&e))
    }

    /// What is there, from the kernel and the disk.
    pub(super) async fn look(&self) -> Result<There, Problem> {
        let mut there = There::default();
        for held in &self.prepared()?.interfaces {
            let configured = self.nic(self.of_interface(&held.ifname));
            // a NIC that cannot be seen now is no reason to let go of it
            let right = configured
                .is_none_or(|nic| same(&nic.identity, &held.nic) || nic.name == held.nic_name);
            there.prepared.insert(held.ifname.clone(), right);
        }
        let record = self.record()?;
        let interfaces = record.iter().flat_map(|record| &record.interfaces);
        there.recorded = interfaces.clone().map(|i| i.ifname.clone()).collect();
        let Ok(netns) = Netns::open(&self.pin()) else {
            return Ok(there);
        };
        there.namespace = true;
        let this_boot = record
            .as_ref()
            .is_some_and(AttachmentRecord::is_of_this_boot);
        let conn = netns.connect().await.map_err(|e| self.problem(&e))?;
        let links = inventory::links(&conn)
            .await
            .map_err(|e| self.problem(&e))?;
        there.attached = interfaces
            .filter(|i| this_boot && i.phase == Phase::Attached)
            .filter(|i| i.netns_inode == netns.inode())
            .filter(|i| links.iter().any(|link| Some(link.index) == i.index))
            .map(|i| i.ifname.clone())
            .collect();
        Ok(there)
    }

    /// The slices that are prepared and wanted, as the filter knows them.
    fn served(&self) -> Result<Vec<Served>, Problem> {
        let prepared = self.prepared()?;
        let served = self.wanted.iter().filter_map(|wanted| {
            let id = wanted.binding.id;
            let held = prepared
                .interfaces
                .iter()
                .find(|i| i.ifname == wanted.ifname)?;
            Some(Served {
                id,
                tenant: self.book.tenants.get(&id)?.clone(),
                name: wanted.binding.name.clone(),
                ifname: wanted.ifname.clone(),
                addresses: held
                    .leases
                    .iter()
                    .flat_map(|lease| lease.ips.clone())
                    .collect(),
            })
        });
        Ok(served.collect())
    }
    /// The filter as it shall be now.
    fn filter(&self) -> Result<Filter, Problem> {
        let rules: Vec<&AccessRule> = self
            .book
            .rules
            .items
            .iter()
            .filter(|rule| rule.in_force(self.now))
            .collect();
        Ok(rules::filter(&rules::Wanted {
            name: &self.config.name,
            outside: &self.config.addresses,
            nat: self.config.nat,
            slices: &self.served()?,
            rules: &rules,
        }))
    }

    async fn act(&mut self, action: &Action) -> Result<(), Problem> {
        match action {
            Action::Filter => {}
            other => tracing::info!(gateway = %self.config.name, action = ?other, "gateway"),
        }
        let key = self.key();
        match action {
            Action::TakeHome => {
                attach::bring_home(self.host, &key, None, Leases::Keep).await?;
                prepare::refresh(self.host, &key).await
            }
            Action::Namespace => self.make_namespace().await,
            Action::PrepareOutside => self.prepare_outside(),
            Action::Prepare(id) => {
                let wanted = self.wanted.iter().find(|slice| slice.binding.id == *id);
                match wanted.cloned() {
                    Some(wanted) => self.prepare(&wanted).await,
                    None => Ok(()),
                }
            }
            Action::Filter => self.keep_filter().await,
            Action::Leave(ifname) => self.leave(ifname).await,
            Action::Attach(ifname) => self.attach(ifname).await,
        }
    }

    /// A namespace that forwards, and lets nothing pass yet. It gets its name when it is so.
    async fn make_namespace(&self) -> Result<(), Problem> {
        let pin = self.pin();
        // what a cut-off attempt left is no namespace
        netns::unbind(&pin).map_err(|e| self.problem(&e))?;
        let made = Netns::create_unnamed().map_err(|e| self.problem(&e))?;
        let commands = self.filter()?.transaction(None, self.book.rules.version);
        nft::apply(&made, &commands)
            .await
            .map_err(|e| self.problem(&e))?;
        settings::settle(&made).await?;
        failpoint::reach("namespace-made").await;
        made.bind(&pin).map_err(|e| self.problem(&e))?;
        failpoint::reach("namespace-bound").await;
        Ok(())
    }

    /// Makes the kernel's filter what it shall be, in one transaction; nothing when it is so.
    async fn keep_filter(&mut self) -> Result<(), Problem> {
        let filter = self.filter()?;
        let version = self.book.rules.version;
        let there = self.read_table().await?;
        if there
            .as_ref()
            .is_some_and(|there| filter.is(there, version))
        {
            self.table = there;
            return Ok(());
        }
        let commands = filter.transaction(there.as_ref(), version);
        self.table = None;
        nft::apply(&self.open()?, &commands)
            .await
            .map_err(|e| self.problem(&e))?;
        tracing::info!(gateway = %self.config.name, version, "the access rules are in the kernel");
        Ok(())
    }

    async fn attach(&self, ifname: &IfName) -> Result<(), Problem> {
        let prepared = self.prepared()?;
        let Some(held) = prepared.interfaces.iter().find(|i| i.ifname == *ifname) else {
            // what keeps it from being prepared was told
            return Ok(());
        };
        let key = self.key();
        let call = attach::Call {
            uid: &key,
            pod: &key,
            container: &key,
            ifname,
            class: held.class,
            netns: &self.pin(),
            network: NETWORK,
            // a sibling on the same NIC has not come by the fabric, where it is judged
            mode: Some("private"),
        };
        failpoint::reach("attaching").await;
        attach::add(self.host, &call).await?;
        match ifname.as_str() == rules::OUTSIDE {
            true => failpoint::reach("attached-outside").await,
            false => failpoint::reach("attached-inside").await,
        }
        Ok(())
    }

    async fn leave(&mut self, ifname: &IfName) -> Result<(), Problem> {
        leave(self.host, &self.key(), Some(ifname)).await?;
        let ids: BTreeSet<_> = self.wanted.iter().map(|slice| slice.binding.id).collect();
        let before = self.book.tenants.len();
        self.book.tenants.retain(|id, _| ids.contains(id));
        match before == self.book.tenants.len() {
            true => Ok(()),
            false => self.book.write(&self.host.places),
        }
    }
}

/// The slices that a gateway was prepared for, with its addresses in them.
pub(super) fn held(host: &Host, name: &Name) -> Result<Vec<(SliceBinding, Vec<IpNet>)>, Problem> {
    let prepared = prepare::read(host, &key(name))?;
    let interfaces = prepared
        .into_iter()
        .flat_map(|prepared| prepared.interfaces);
    let held = interfaces.filter_map(|interface| {
        let binding = interface.slices.into_iter().next()?;
        let ips = interface.leases.into_iter().flat_map(|lease| lease.ips);
        Some((binding, ips.collect()))
    });
    Ok(held.collect())
}

/// The interface outside.
pub(super) fn outside_name() -> Result<IfName, Problem> {
    rules::OUTSIDE
        .parse()
        .map_err(|e| failed("naming the interface outside", &e))
}

/// The NIC that a selector of the configuration names.
pub(super) fn find<'a>(
    host: &Host,
    nics: &'a [Nic],
    selector: &crate::config::NicSelector,
) -> Option<&'a Nic> {
    let named = |nic: &&Nic| {
        let config = host.inventory.configured(nic);
        config.is_some_and(|config| config.selector == *selector)
    };
    nics.iter().find(named)
}

/// Takes one interface home, or all of them, with the leases that belong to them.
async fn leave(host: &Host, key: &str, ifname: Option<&IfName>) -> Result<(), Problem> {
    attach::bring_home(host, key, ifname, Leases::Release).await?;
    failpoint::reach("left").await;
    let Some(mut prepared) = prepare::read(host, key)? else {
        return Ok(());
    };
    let leaves = |i: &PreparedInterface| ifname.is_none_or(|name| i.ifname == *name);
    // those that were never attached are on no record that would have given them back
    for lease in prepared
        .interfaces
        .iter()
        .filter(|i| leaves(i))
        .flat_map(|i| &i.leases)
    {
        prepare::give_back(host, lease, "the gateway does not serve the slice any more").await?;
    }
    prepared.interfaces.retain(|i| !leaves(i));
    if !prepared.interfaces.is_empty() {
        return prepare::write(host, &prepared);
    }
    let path = host.places.prepared_file(key);
    dtn_link::atomic_file::remove(&path)
        .map_err(|e| failed(&format!("removing {}", path.display()), &e))
}

/// Takes a whole gateway home: interfaces, leases, namespace.
pub(super) async fn down(host: &Host, name: &Name) -> Result<(), Problem> {
    let key = key(name);
    leave(host, &key, None).await?;
    failpoint::reach("home").await;
    let pin = host.places.netns_of(&key);
    netns::unbind(&pin).map_err(|e| failed(&format!("gateway {name}"), &e))
}
