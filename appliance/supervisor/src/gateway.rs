//! Gateways: this host forwards between slices and an external network, what an access rule allows
//! and nothing else.
//!
//! Each has a network namespace of its own, pinned like a pod's sandbox, so that it goes on
//! forwarding whatever becomes of this process. [`rules`] says what its packet filter is (pure, with
//! [`filter`] and [`packets`]), [`step`] what to do next (pure), [`carry`] does it, [`book`] keeps
//! what has to be known without the controller, [`tell`] tells the controller and others how it is.
//! Every round begins from what the kernel and the disk have: a round that was cut off is gone on
//! with by the next one, in this process or in the next.

mod book;
mod carry;
pub mod filter;
mod packets;
pub mod rules;
mod step;
mod tell;

pub(crate) use carry::is_outside;
pub use carry::{is_key, key};

use crate::{
    Config, Host,
    config::{GatewayConfig, NicSelector},
    failpoint,
};
use book::Book;
use dtn_api::{
    HostId, Name, Problem,
    local::{Check, LocalGateway},
    nic::{Nic, NicClass},
};
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two rounds: a rule is in the kernel this long after it was made, at most.
const ROUND: Duration = Duration::from_secs(1);
/// Between two looks at the NICs.
const LOOK: Duration = Duration::from_secs(10);
/// Between two times that the settings of a namespace are held against what they should be.
const SETTLE: Duration = Duration::from_secs(30);

/// The gateways of this host, as they were last read back.
#[derive(Debug, Clone)]
pub struct Gateways(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Arc<Host>,
    seen: Mutex<BTreeMap<Name, LocalGateway>>,
}

impl Gateways {
    /// Of this configuration. Nothing is done yet.
    pub fn new(host: Arc<Host>) -> Self {
        Self(Arc::new(Inner {
            host,
            seen: Mutex::default(),
        }))
    }
    fn seen(&self) -> std::sync::MutexGuard<'_, BTreeMap<Name, LocalGateway>> {
        self.0.seen.lock().unwrap_or_else(|e| e.into_inner())
    }
    /// Takes up the gateways of a configuration; those that it says the same of go on.
    fn stand(&self, config: &Config, all: &mut Vec<Standing>) {
        let mut before = std::mem::take(all);
        for gateway in &config.gateways {
            let same = before
                .iter()
                .position(|standing| standing.config == *gateway);
            all.push(match same {
                Some(at) => before.swap_remove(at),
                None => Standing::new(gateway),
            });
        }
        let named = |name: &Name| config.gateways.iter().any(|one| one.name == *name);
        self.seen().retain(|name, _| named(name));
    }
    /// All of them.
    pub fn list(&self) -> Vec<LocalGateway> {
        self.seen().values().cloned().collect()
    }
    /// Whether each forwards.
    pub fn checks(&self) -> Vec<Check> {
        let seen = self.seen();
        let config = self.0.host.config();
        let configured = config.gateways.iter();
        let of = |config: &GatewayConfig| {
            let (ok, detail) = match seen.get(&config.name) {
                None => (false, "it is being set up".to_owned()),
                Some(LocalGateway {
                    trouble: Some(why), ..
                }) => (false, why.clone()),
                Some(gateway) => (true, tell::in_words(gateway)),
            };
            Check {
                name: format!("gateway {}", config.name),
                ok,
                detail,
            }
        };
        configured.map(of).collect()
    }
}

/// Whether a NIC goes whole into a gateway of this host: it is offered to nobody.
pub(crate) fn has_whole(host: &Host, nic: &Nic) -> bool {
    let Some(config) = host.inventory.configured(nic) else {
        return false;
    };
    let site = host.config();
    let mut gateways = site.gateways.iter();
    config.class == NicClass::Dedicated && gateways.any(|g| g.outside == config.selector)
}

/// Keeps the gateways for as long as the daemon runs.
pub async fn run(gateways: Gateways, stop: CancellationToken) {
    let host = gateways.0.host.clone();
    let mut slices = host.uplink.watch();
    let mut changes = host.changes();
    let mut all: Vec<Standing> = Vec::new();
    gateways.stand(&changes.borrow_and_update(), &mut all);
    let mut gone = Gone::default();
    let mut nics = Nics::default();
    while !stop.is_cancelled() {
        slices.borrow_and_update();
        if changes.has_changed().unwrap_or(false) {
            gateways.stand(&changes.borrow_and_update(), &mut all);
            nics = Nics::default();
        }
        let mut pause = ROUND;
        if !all.is_empty() {
            nics.look(&host).await;
        }
        for standing in &mut all {
            let seen = standing.round(&host, &nics.known).await;
            pause = pause.min(standing.until_edge(Timestamp::now()));
            gateways.seen().insert(seen.name.clone(), seen);
        }
        gone.clear(&host).await;
        tokio::select! {
            () = stop.cancelled() => {}
            changed = slices.changed(), if !all.is_empty() => if changed.is_err() {
                tokio::time::sleep(ROUND).await;
            },
            changed = changes.changed() => match changed {
                Ok(()) => changes.mark_changed(),
                Err(_) => tokio::time::sleep(ROUND).await,
            },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The NICs as they were last looked at.
#[derive(Debug, Default)]
struct Nics {
    known: Vec<Nic>,
    looked: Option<Instant>,
}
impl Nics {
    async fn look(&mut self, host: &Host) {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        match host.inventory.nics().await {
            Ok(nics) => {
                self.known = nics;
                self.looked = Some(Instant::now());
            }
            Err(problem) => tracing::warn!("{problem}"),
        }
    }
}

/// One gateway of the configuration.
struct Standing {
    config: GatewayConfig,
    book: Option<Book>,
    settled: Option<Instant>,
    telling: tell::Telling,
    /// What was logged last.
    trouble: Option<String>,
}

impl Standing {
    fn new(config: &GatewayConfig) -> Self {
        Self {
            config: config.clone(),
            book: None,
            settled: None,
            telling: tell::Telling::default(),
            trouble: None,
        }
    }

    /// How long until a rule begins or ends to be in force.
    fn until_edge(&self, now: Timestamp) -> Duration {
        let rules = self.book.iter().flat_map(|book| &book.rules.items);
        let edges = rules
            .filter_map(|rule| rule.schedule)
            .flat_map(|window| [window.start, window.end]);
        let next = edges.filter(|edge| *edge > now).min();
        next.and_then(|edge| Duration::try_from(edge.duration_since(now)).ok())
            .unwrap_or(ROUND)
    }

    /// One round: what the controller says, what is so, what is done about it, and the telling.
    async fn round(&mut self, host: &Host, nics: &[Nic]) -> LocalGateway {
        let now = Timestamp::now();
        let inside = carry::find(host, nics, &self.config.inside);
        let inside = inside.map(|nic| HostId::untagged(nic.mac));
        let outcome = self.kept(host, nics, inside.as_ref(), now).await;
        let (came, mut trouble) = match outcome {
            Ok(came) => {
                let faults = came.faults.join("; ");
                (came, (!faults.is_empty()).then_some(faults))
            }
            Err(problem) => (carry::Came::default(), Some(problem.to_string())),
        };
        if inside.is_none() && trouble.is_none() {
            let selector = &self.config.inside;
            trouble = Some(format!(
                "its NIC inside, with {selector}, is not on this host"
            ));
        }
        if trouble != self.trouble {
            match &trouble {
                Some(why) => tracing::warn!(gateway = %self.config.name, "{why}"),
                None => tracing::info!(gateway = %self.config.name, "it forwards again"),
            }
            self.trouble.clone_from(&trouble);
        }
        let logs = self.book.iter().flat_map(|book| &book.rules.items);
        let logs = logs.clone().any(|rule| rule.log);
        let seen = tell::read(host, &self.config, &came, trouble, logs, now).await;
        self.telling.report(host, &seen).await;
        seen
    }

    async fn kept(
        &mut self,
        host: &Host,
        nics: &[Nic],
        inside: Option<&HostId>,
        now: Timestamp,
    ) -> Result<carry::Came, Problem> {
        let mut book = match self.book.take() {
            Some(book) => book,
            None => self.opened(host)?,
        };
        self.telling
            .ask(host, &self.config, inside, &mut book)
            .await;
        let (wanted, mut faults) = {
            let view = host.uplink.watch().borrow().clone();
            let held = carry::held(host, &self.config.name)?;
            step::wanted(inside, &self.config.addresses, &view, &held, now)
        };
        let settle = self.settled.is_none_or(|at| at.elapsed() >= SETTLE);
        let mut round = carry::Round {
            host,
            config: &self.config,
            book: &mut book,
            nics,
            wanted,
            now,
            settle,
            table: None,
        };
        let came = round.run().await;
        self.book = Some(book);
        let mut came = came?;
        if settle && came.faults.is_empty() {
            self.settled = Some(Instant::now());
        }
        faults.append(&mut came.faults);
        came.faults = faults;
        Ok(came)
    }

    /// The book, with an entry on disk from now on: whatever is made from here on is taken home.
    fn opened(&self, host: &Host) -> Result<Book, Problem> {
        if let Some(book) = Book::read(&host.places, &self.config.name)? {
            return Ok(book);
        }
        let book = Book::new(self.config.name.clone());
        book.write(&host.places)?;
        Ok(book)
    }
}

/// Gateways that were taken out of the configuration.
#[derive(Debug, Default)]
struct Gone {
    trouble: String,
}
impl Gone {
    /// Takes them home; what cannot be done now is tried again in the next round.
    async fn clear(&mut self, host: &Host) {
        let outcome = self.once(host).await;
        let trouble = outcome.map_or_else(|problem| problem.to_string(), |()| String::new());
        if trouble != self.trouble && !trouble.is_empty() {
            tracing::warn!("{trouble}");
        }
        self.trouble = trouble;
    }
    async fn once(&self, host: &Host) -> Result<(), Problem> {
        let config = host.config();
        let configured = |name: &Name| config.gateways.iter().any(|g| g.name == *name);
        for name in book::names(&host.places)? {
            if configured(&name) {
                continue;
            }
            carry::down(host, &name).await?;
            failpoint::reach("unbound").await;
            tell::gone(host, &name).await?;
            failpoint::reach("told").await;
            Book::remove(&host.places, &name)?;
            tracing::info!(gateway = %name, "it is not in the configuration any more: taken home");
        }
        Ok(())
    }
}

/// A NIC as the configuration names it, for people.
fn shown(selector: &NicSelector) -> String {
    match selector {
        NicSelector::Name(name) => name.to_string(),
        NicSelector::Names(pattern) | NicSelector::Slots(pattern) => pattern.to_string(),
        NicSelector::Pci(pci) => pci.to_string(),
        NicSelector::Mac(mac) => mac.to_string(),
    }
}
