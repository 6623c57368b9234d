//! The fabric of switches that are programmed from here over OpenFlow 1.3.
//!
//! A switch connects ([`listener`]), says who it is and is known from then on ([`switches`]) until
//! its [`session`] ends. Whenever something is wanted or a switch is there again, and every ten
//! seconds, one task ([`reconcile`]) reads what the switches have ([`look`]), holds it against what they
//! shall have, and makes the difference good. The switches of a slice are worked on step by step
//! together ([`work`]), and slices on other switches do not wait for that ([`units`], [`board`]). A
//! slice is programmed when it has been read back from every switch that it goes through ([`standing`]). Beside that every port says where it is,
//! and what comes in at another tells how the switches are joined ([`discovery`]).

mod board;
#[cfg(test)]
mod board_tests;
mod check;
mod closed;
mod counts;
mod decided;
mod dhcp;
mod discovery;
mod failure;
mod frames;
mod links;
mod listener;
mod lldp;
mod look;
mod missed;
mod neighbours;
mod notes;
mod reconcile;
mod refused;
mod rounds;
mod session;
pub(in crate::fabric) mod standing;
mod switches;
mod turns;
mod units;
mod watch;
mod wish;
mod work;

use super::{
    Asked, Counters, Difference, Fabric, Intent, Verdict,
    edge::Edge,
    network::Network,
    program::{Neighbours, Punts},
};
use crate::topology::Graph;
use anyhow::Context;
use dtn_api::{
    HostId, Name, Problem,
    fabric::{FabricLink, SwitchStatus},
    gateway::Count,
    host::{Enforcement, Host},
    slice::{Member, Slice, SliceSpec},
};
use futures_util::future::BoxFuture;
use refused::Refused;
use rustls::ServerConfig;
pub(in crate::fabric) use session::lock;
use standing::Standing;
use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use switches::Connected;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use watch::Passes;

/// Events that are kept until they are asked for; the oldest go first.
const EVENTS: usize = 1024;

/// Where switches connect.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The socket's address.
    pub address: SocketAddr,
    /// With TLS, or plain on a network of the switches' own.
    pub tls: Option<Tls>,
}

/// How switches prove who they are.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Must ask for a certificate of the domain's authority. It is another one when the domain's keys
    /// are changed.
    pub server: tokio::sync::watch::Receiver<Arc<ServerConfig>>,
    /// The domain that a switch's certificate names, with the switch.
    pub domain: Name,
}

/// The fabric.
pub struct OpenFlow {
    shared: Arc<Shared>,
    /// Whether switches come with certificates.
    by_tls: bool,
    address: SocketAddr,
    edge: Edge,
    asked: tokio::sync::Mutex<mpsc::Receiver<Asked>>,
}

/// Something that happened: name, slice, in words.
type Event = (&'static str, Option<Uuid>, String);

/// What the tasks of the fabric share.
struct Shared {
    network: Network,
    state: Mutex<State>,
    /// One switch at a time becomes known.
    joining: tokio::sync::Mutex<()>,
    /// Who asks what differs.
    asks: mpsc::Sender<check::Question>,
    /// There is work for the reconciling task.
    wake: Notify,
    /// What `verify` says may have changed.
    changed: Notify,
    /// A port may have come up.
    probe: Notify,
    links: Mutex<links::Links>,
    sealer: lldp::Sealer,
    /// When the fabric was started; probes are dated by it.
    began: Instant,
    /// Frames that switches have handed over.
    handed: mpsc::Sender<discovery::Handed>,
    dropped: discovery::Dropped,
    /// What else comes here, and is answered.
    punts: Mutex<Punts>,
    /// What hosts have asked by DHCP.
    questions: mpsc::Sender<Asked>,
}

/// What is wanted, with a number that no other wish of this process has.
#[derive(Clone)]
struct Wanted {
    number: u64,
    intents: Arc<[Intent]>,
}

#[derive(Default)]
struct State {
    /// What is wanted; nothing before the first time.
    wanted: Option<Wanted>,
    switches: BTreeMap<Name, Connected>,
    /// Switches of which a second one connected, and when.
    twins: BTreeMap<Name, (Instant, String)>,
    /// Switches that were sent away for want of tables, in words.
    short: BTreeMap<Name, String>,
    /// The switches that were sent away.
    refused: Refused,
    standings: BTreeMap<Uuid, (Intent, Standing)>,
    counters: BTreeMap<Uuid, Counters>,
    /// What access rules have decided about, by slice and number.
    decided: BTreeMap<(Uuid, u16), Count>,
    /// SHA-256 of the certificate that each switch came with last.
    proofs: BTreeMap<Name, String>,
    events: VecDeque<Event>,
    passes: Passes,
}

impl State {
    /// Through how many switches a slice goes, and how far it is there.
    fn standing(&self, slice: Uuid) -> (usize, Standing) {
        if let Some(ended) = &self.passes.ended {
            return (0, Standing::Not(ended.clone()));
        }
        let wanted = self.wanted.as_ref();
        let Some(wanted) = wanted.and_then(|w| w.intents.iter().find(|i| i.slice == slice)) else {
            let why = "the switches have not been told of it: nothing of it is due now";
            return (0, Standing::Not(why.to_owned()));
        };
        let standing = match self.standings.get(&slice) {
            Some((of, standing)) if of == wanted => standing.clone(),
            _ => Standing::Not("it is being programmed into the switches".to_owned()),
        };
        (wanted.switches().len(), standing)
    }
}

impl OpenFlow {
    /// Listens for switches and programs them, until `stop`. Nothing is changed in a switch before
    /// the first [`Fabric::intend`]: a controller that starts again takes nothing away.
    pub async fn start(
        network: Network,
        listen: Listen,
        stop: CancellationToken,
    ) -> anyhow::Result<Arc<Self>> {
        let doing = || {
            format!(
                "listening for switches on {} (fabric.listen)",
                listen.address
            )
        };
        let listener = TcpListener::bind(listen.address)
            .await
            .with_context(doing)?;
        let address = listener.local_addr().with_context(doing)?;
        let sealer = lldp::Sealer::random();
        let sealer = sealer
            .ok()
            .context("making the secret that link discovery is sealed with")?;
        let (handed, hands) = mpsc::channel(discovery::QUEUE);
        let (questions, asked) = mpsc::channel(dhcp::QUEUE);
        let (asks, checks) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            network,
            state: Mutex::default(),
            joining: tokio::sync::Mutex::default(),
            asks,
            wake: Notify::new(),
            changed: Notify::new(),
            probe: Notify::new(),
            links: Mutex::default(),
            sealer,
            began: Instant::now(),
            handed,
            dropped: discovery::Dropped::default(),
            punts: Mutex::default(),
            questions,
        });
        let by_tls = listen.tls.is_some();
        let accept = listener::accept(listener, listen.tls, shared.clone(), stop.clone());
        shared.watch("listening for switches", &stop, accept);
        let passes = reconcile::run(shared.clone(), checks, stop.clone());
        shared.watch("programming the switches", &stop, passes);
        let counts = counts::run(shared.clone(), stop.clone());
        shared.watch("counting in the switches", &stop, counts);
        let decided = decided::run(shared.clone(), stop.clone());
        shared.watch("counting what access rules decide", &stop, decided);
        let missed = missed::run(shared.clone(), stop.clone());
        shared.watch("counting the rules of the switches", &stop, missed);
        let probes = discovery::run(shared.clone(), stop.clone());
        shared.watch("probing how switches are joined", &stop, probes);
        let listen = discovery::listen(shared.clone(), hands, stop.clone());
        shared.watch("hearing what switches hand over", &stop, listen);
        Ok(Arc::new(Self {
            shared,
            by_tls,
            address,
            edge: Edge::new(Vec::new()),
            asked: tokio::sync::Mutex::new(asked),
        }))
    }
    /// Who answers members that ask for a neighbour; to be said before the first [`Fabric::intend`].
    pub fn answer(&self, neighbours: Neighbours) {
        lock(&self.shared.punts).neighbours = neighbours;
    }
    /// Whether hosts get their addresses by DHCP; to be said before the first [`Fabric::intend`].
    pub fn lease(&self, by_dhcp: bool) {
        lock(&self.shared.punts).dhcp = by_dhcp;
    }
    /// Where switches connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// Whether a slice is in all its switches, read back; otherwise why not. What was said of an
    /// older wish says nothing of the one that there is now.
    pub fn programmed(&self, slice: Uuid) -> Result<(), String> {
        match lock(&self.shared.state).standing(slice) {
            (_, Standing::Programmed) => Ok(()),
            (_, Standing::Not(why)) => Err(why),
        }
    }
}

impl Fabric for OpenFlow {
    fn name(&self) -> &'static str {
        "openflow"
    }
    fn topology(&self, hosts: &BTreeMap<HostId, Host>) -> Graph {
        self.shared.network.graph(hosts)
    }
    fn node(&self, member: &Member) -> Option<String> {
        self.edge.node(member)
    }
    fn refuses(&self, spec: &SliceSpec, hosts: &BTreeMap<HostId, Host>) -> Option<Problem> {
        let state = lock(&self.shared.state);
        let unmetered = state
            .switches
            .iter()
            .filter(|(_, switch)| switch.max_meter == 0)
            .map(|(name, _)| name.clone())
            .collect();
        standing::refusal(&self.shared.network, &unmetered, spec, hosts)
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
        let switches = lock(&self.shared.state).trouble(&self.shared.network, Instant::now());
        let cables = self.shared.links().into_iter().filter(|link| link.cable);
        let all: Vec<String> = switches
            .into_iter()
            .chain(cables.filter_map(|link| link.trouble))
            .collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
    fn network(&self) -> Option<&Network> {
        Some(&self.shared.network)
    }
    fn intend(&self, intents: Vec<Intent>) {
        let mut state = lock(&self.shared.state);
        let number = state.wanted.as_ref().map_or(0, |wanted| wanted.number) + 1;
        let intents = intents.into();
        state.wanted = Some(Wanted { number, intents });
        state.passes.wanted.get_or_insert_with(Instant::now);
        drop(state);
        self.shared.wake.notify_one();
    }
    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.changed.notified())
    }
    fn asked(&self) -> BoxFuture<'_, Asked> {
        Box::pin(async {
            match self.asked.lock().await.recv().await {
                Some(asked) => asked,
                // nobody asks any more
                None => std::future::pending().await,
            }
        })
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
        lock(&self.shared.state).switches(&self.shared.network)
    }
    fn proofs(&self) -> Option<BTreeMap<Name, String>> {
        self.by_tls.then(|| lock(&self.shared.state).proofs.clone())
    }
    fn links(&self) -> Vec<FabricLink> {
        self.shared.links()
    }
    fn check(&self) -> BoxFuture<'_, Vec<Difference>> {
        Box::pin(check::check(&self.shared))
    }
}
