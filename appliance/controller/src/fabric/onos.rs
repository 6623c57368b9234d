//! The fabric of switches that an ONOS programs: everything is said to it over REST and read back
//! from it.
//!
//! ONOS takes a wish at once and says later, or never, whether a switch has it. So one task
//! ([`pass`]) reads all that ONOS has ([`survey`]), works out what may be done now ([`plan`], with
//! the rules in ONOS's words from [`rules`] and [`criteria`], the members as its [`hosts`], and the
//! turns that rules of [`access`] take), does it ([`apply`], [`client`]), and looks again until
//! nothing is left, then every ten seconds. Which meters are its own it writes down before ([`ledger`]).
//!
//! The rules of an application belong to one controller. A mark among them, a rule that no frame
//! meets, says to whom; a controller that finds another's mark does nothing and says so.

mod access;
mod apply;
mod client;
mod criteria;
mod hosts;
mod ledger;
mod pass;
mod plan;
mod rules;
mod survey;

use super::{
    Counters, Difference, Fabric, Intent, Verdict,
    edge::Edge,
    network::Network,
    openflow::{
        lock,
        standing::{self, Standing},
    },
    program::access::has_ranges,
    watch::watch,
};
use crate::{topology::Graph, whole_file};
use anyhow::{Context, bail};
use client::Client;
use dtn_api::{
    HostId, Name, Problem,
    fabric::SwitchStatus,
    gateway::{AccessRule, Count},
    host::{Enforcement, Host},
    slice::{Member, Slice, SliceSpec},
};
use futures_util::future::BoxFuture;
use ledger::Ledger;
use plan::Memory;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, mem,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use survey::Survey;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Events that are kept until they are asked for; the oldest go first.
const EVENTS: usize = 1024;
/// Differences that are told one by one after a drift.
const TOLD: usize = 20;

/// Where ONOS is and as whom to come.
#[derive(Debug, Clone)]
pub struct OnosConfig {
    /// `http://HOST:8181`, without `/onos/v1`.
    pub url: String,
    /// A file of mode 0600 with one line `USER:PASSWORD`; the user must be an administrator of ONOS.
    pub credentials_file: PathBuf,
    /// The name that ONOS has the rules under, one for each controller.
    pub app_id: String,
    /// Who this controller is, the same after every start: see [`instance`].
    pub owner: String,
    /// Whether the password may go over a network without TLS.
    pub plain: bool,
    /// The authority of ONOS's certificate, PEM, where the URL is https.
    pub ca_file: Option<PathBuf>,
    /// Where it is written down which meters are this controller's.
    pub meters_file: PathBuf,
    /// How long a meter whose number was never learnt must be seen in nobody's use before it is taken
    /// for this controller's.
    pub settling: Duration,
}
impl OnosConfig {
    /// Longer than a call to ONOS may take, so that none is on its way any more.
    pub const SETTLING: Duration = Duration::from_secs(30);
}

/// Who this controller is: the domain, and a number made once and kept in `folder`.
pub fn instance(folder: &Path, domain: &Name) -> anyhow::Result<String> {
    let file = folder.join("onos-instance");
    let doing = || {
        format!(
            "keeping who this controller is to ONOS in {}",
            file.display()
        )
    };
    let id = match fs::read_to_string(&file) {
        Ok(text) => text.trim().parse::<Uuid>().with_context(doing)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let id = Uuid::new_v4();
            whole_file::write(&file, format!("{id}\n").as_bytes()).with_context(doing)?;
            id
        }
        Err(e) => return Err(e).with_context(doing),
    };
    Ok(format!("{domain}/{id}"))
}

/// The fabric.
pub struct Onos {
    shared: Arc<Shared>,
    edge: Edge,
}

/// Something that happened: name, slice, in words.
type Event = (&'static str, Option<Uuid>, String);

struct Shared {
    network: Network,
    client: Client,
    app: String,
    owner: String,
    /// The owner in the mark.
    mark: u32,
    state: Mutex<State>,
    memory: tokio::sync::Mutex<Memory>,
    ledger: tokio::sync::Mutex<Ledger>,
    /// One reading at a time.
    working: tokio::sync::Mutex<()>,
    wake: Notify,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// What is wanted, with its number; nothing before the first time.
    wanted: Option<(u64, Arc<[Intent]>)>,
    standings: BTreeMap<Uuid, (Intent, Standing)>,
    counters: BTreeMap<Uuid, Counters>,
    /// What access rules have decided about, by slice and number.
    decided: BTreeMap<(Uuid, u16), Count>,
    /// Rules and meters of ours, by switch.
    held: BTreeMap<Name, (u64, u64)>,
    seen: Option<Survey>,
    /// The wish that was wholly there at the last look.
    settled: Option<u64>,
    /// Why ONOS cannot be used.
    absent: Option<String>,
    /// Why the application is not ours, for good.
    taken: Option<String>,
    /// What ONOS has refused since all was well.
    warnings: BTreeSet<String>,
    events: VecDeque<Event>,
}
impl State {
    fn tell(&mut self, event: Event) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
    fn warn(&mut self, why: String) {
        if self.warnings.len() < EVENTS && self.warnings.insert(why.clone()) {
            self.tell(("onos.error", None, why));
        }
    }
    fn standing(&self, slice: Uuid) -> (usize, Standing) {
        let wanted = self.wanted.as_ref();
        let Some(wanted) = wanted.and_then(|(_, w)| w.iter().find(|i| i.slice == slice)) else {
            let why = "ONOS has not been told of it: nothing of it is due now";
            return (0, Standing::Not(why.to_owned()));
        };
        let standing = match (&self.absent, self.standings.get(&slice)) {
            (Some(why), _) => Standing::Not(why.clone()),
            (None, Some((of, standing))) if of == wanted => standing.clone(),
            _ => Standing::Not("ONOS is being told of it".to_owned()),
        };
        (wanted.switches().len(), standing)
    }
    fn away(&self, name: &Name) -> Option<String> {
        let device = self.seen.as_ref().and_then(|seen| seen.devices.get(name));
        match (&self.absent, device) {
            (Some(_), _) => Some("ONOS cannot be used".into()),
            (None, None) => Some("ONOS does not know it".into()),
            (None, Some(device)) if !device.available => Some("it is not connected to ONOS".into()),
            _ => None,
        }
    }
}

impl Onos {
    /// Programs switches through an ONOS until `stop`. Nothing is changed before the first
    /// [`Fabric::intend`]. An ONOS that is not there is trouble and no error.
    pub async fn start(
        network: Network,
        config: OnosConfig,
        stop: CancellationToken,
    ) -> anyhow::Result<Arc<Self>> {
        let client = Client::new(&config)?;
        let ledger = Ledger::read(&config.meters_file, config.settling)?;
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if config.app_id.is_empty()
            || config.app_id.len() > 100
            || !config.app_id.chars().all(named)
        {
            bail!(
                "{:?} is no name of an application: letters, digits, . - _ (fabric.app-id)",
                config.app_id
            );
        }
        let hash = ring::digest::digest(&ring::digest::SHA256, config.owner.as_bytes());
        let mark = hash
            .as_ref()
            .iter()
            .take(4)
            .fold(0, |mark, byte| mark << 8 | u32::from(*byte));
        let shared = Arc::new(Shared {
            network,
            client,
            app: config.app_id,
            owner: config.owner,
            mark,
            state: Mutex::default(),
            memory: tokio::sync::Mutex::default(),
            ledger: tokio::sync::Mutex::new(ledger),
            working: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            changed: Notify::new(),
        });
        let passes = pass::run(shared.clone(), stop.clone());
        let fallen = shared.clone();
        watch("programming through ONOS", &stop, passes, move |why| {
            fallen.absent(&why);
            fallen.changed.notify_one();
        });
        Ok(Arc::new(Self {
            shared,
            edge: Edge::new(Vec::new()),
        }))
    }
    /// Whether a slice is in all its switches, as ONOS has read it back; otherwise why not.
    pub fn programmed(&self, slice: Uuid) -> Result<(), String> {
        match lock(&self.shared.state).standing(slice) {
            (_, Standing::Programmed) => Ok(()),
            (_, Standing::Not(why)) => Err(why),
        }
    }
}

impl Fabric for Onos {
    fn name(&self) -> &'static str {
        "onos"
    }
    fn topology(&self, hosts: &BTreeMap<HostId, Host>) -> Graph {
        self.shared.network.graph(hosts)
    }
    fn node(&self, member: &Member) -> Option<String> {
        self.edge.node(member)
    }
    fn refuses(&self, spec: &SliceSpec, hosts: &BTreeMap<HostId, Host>) -> Option<Problem> {
        // ONOS does not say how many meters a device has: the slice says it when one is refused
        standing::refusal(&self.shared.network, &BTreeSet::new(), spec, hosts)
    }
    fn refuses_rule(&self, rule: &AccessRule) -> Option<String> {
        has_ranges(rule).then(|| {
            "ONOS's REST does not give ranges of ports back as they were written: name the ports one \
             by one, or leave them out"
                .to_owned()
        })
    }
    fn verify(
        &self,
        slice: &Slice,
        hosts: &BTreeMap<HostId, Host>,
        reports: &BTreeMap<HostId, Enforcement>,
    ) -> Verdict {
        let senders = self.edge.verify(slice, hosts, reports);
        let (switches, standing) = lock(&self.shared.state).standing(slice.id);
        standing::verdict(senders, standing, switches)
    }
    fn trouble(&self) -> Option<String> {
        let state = lock(&self.shared.state);
        if let Some(why) = &state.absent {
            return Some(why.clone());
        }
        if state.seen.is_none() {
            return Some("ONOS has not been asked yet".into());
        }
        let switches = self.shared.network.switches.iter().filter_map(|switch| {
            let why = state.away(&switch.name)?;
            Some(format!("the switch {}: {why}", switch.name))
        });
        let warnings = state
            .seen
            .iter()
            .flat_map(|seen| &seen.warnings)
            .chain(&state.warnings);
        let all: Vec<String> = switches.chain(warnings.cloned()).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
    fn network(&self) -> Option<&Network> {
        Some(&self.shared.network)
    }
    fn intend(&self, intents: Vec<Intent>) {
        let mut state = lock(&self.shared.state);
        let number = state.wanted.as_ref().map_or(0, |(number, _)| *number) + 1;
        state.wanted = Some((number, intents.into()));
        drop(state);
        self.shared.wake.notify_one();
    }
    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.changed.notified())
    }
    fn happened(&self) -> Vec<Event> {
        mem::take(&mut lock(&self.shared.state).events).into()
    }
    fn counters(&self) -> BTreeMap<Uuid, Counters> {
        lock(&self.shared.state).counters.clone()
    }
    fn decided(&self) -> BTreeMap<(Uuid, u16), Count> {
        lock(&self.shared.state).decided.clone()
    }
    fn switches(&self) -> Vec<SwitchStatus> {
        let state = lock(&self.shared.state);
        let status = |switch: &super::network::Switch| {
            let device = state
                .seen
                .as_ref()
                .and_then(|seen| seen.devices.get(&switch.name));
            let (rules, meters) = state.held.get(&switch.name).copied().unwrap_or_default();
            let trouble = state.away(&switch.name);
            SwitchStatus {
                name: switch.name.clone(),
                datapath_id: format!("{:016x}", switch.datapath_id),
                connected: trouble.is_none(),
                description: device.map(|d| d.description.clone()).unwrap_or_default(),
                // ONOS 2.5 does not say it over REST
                max_meters: None,
                rules,
                meters,
                trouble,
            }
        };
        self.shared.network.switches.iter().map(status).collect()
    }
    fn check(&self) -> BoxFuture<'_, Vec<Difference>> {
        Box::pin(pass::check(&self.shared))
    }
}
