//! What the contract shows, put together from the parts of the supervisor.

use crate::{
    Host, cluster::Cluster, driver::Negotiations, gateway::Gateways, host_facts::HostReader,
    metrics, pods::Pods, renew::Leases, slices, trial::Trials, watchdog,
};
use dtn_api::{
    HostId,
    local::{Check, LocalSlice, Paced, Status},
    nic::Nic,
    running::Effect,
};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use uuid::Uuid;

/// A controller that was silent for longer is said to be away.
const SILENT: SignedDuration = SignedDuration::from_secs(45);
/// How long a reader waits for the controller before it gets what was last read.
const FRESH: Duration = Duration::from_secs(3);

/// The parts that answers are made of.
#[derive(Debug)]
pub struct Views {
    /// Configuration, places, NICs and the controller.
    pub host: Arc<Host>,
    /// Negotiations.
    pub negotiations: Negotiations,
    /// Leases.
    pub leases: Leases,
    /// Pods.
    pub pods: Pods,
    /// Gateways.
    pub gateways: Gateways,
    /// The node of Kubernetes that this host is, where it is one.
    pub cluster: Option<Cluster>,
    /// The configuration, read again and tried.
    pub trials: Trials,
    /// When this process started.
    pub started_at: Timestamp,
    facts: Mutex<Option<HostReader>>,
}

impl Views {
    /// Put together at start.
    pub fn new(
        host: Arc<Host>,
        negotiations: Negotiations,
        leases: Leases,
        pods: Pods,
        gateways: Gateways,
        cluster: Option<Cluster>,
        trials: Trials,
    ) -> Self {
        let facts = HostReader::new()
            .inspect_err(|why| tracing::warn!("{why}: not part of the metrics"))
            .ok();
        Self {
            host,
            negotiations,
            leases,
            pods,
            gateways,
            cluster,
            trials,
            started_at: Timestamp::now(),
            facts: Mutex::new(facts),
        }
    }

    /// What is paced for slices, read back from the kernel.
    pub fn paced(&self) -> Vec<(Uuid, Paced)> {
        self.pods.paced()
    }

    /// Reads the slices anew, for a moment; who cannot be asked leaves the last view.
    pub async fn look_at_slices(&self) {
        if self.host.uplink.identity().is_none() {
            return;
        }
        let look = async {
            let nics = self.host.inventory.nics().await?;
            let given = nics.iter().filter(|nic| nic.class.is_some());
            let own: Vec<HostId> = given.map(|nic| HostId::untagged(nic.mac)).collect();
            self.host.uplink.refresh(&own).await
        };
        match tokio::time::timeout(FRESH, look).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => tracing::debug!("reading the slices: {problem}"),
            Err(_) => tracing::debug!("reading the slices: no answer within 3 s"),
        }
    }

    /// The slices of this host.
    pub async fn slices(&self) -> Vec<LocalSlice> {
        self.look_at_slices().await;
        self.known_slices().await
    }
    async fn known_slices(&self) -> Vec<LocalSlice> {
        let view = self.host.uplink.watch().borrow().clone();
        let (paced, now) = (self.paced(), Timestamp::now());
        let slices = view.slices.iter().cloned();
        slices
            .map(|slice| slices::local(slice, &paced, &view, now))
            .collect()
    }

    /// How the host stands.
    pub async fn status(&self) -> Status {
        let nics = self.host.inventory.look().await;
        let identity = self.host.uplink.identity();
        let now = Timestamp::now();
        let mut checks = vec![
            self.store().await,
            self.config(),
            self.nics(&nics),
            self.controller(now),
            self.pods.ready().await,
        ];
        checks.extend(self.gateways.checks());
        checks.extend(self.cluster.as_ref().map(Cluster::check));
        let counts = self.counts(nics.as_ref().map_or(&[][..], |look| &look.nics));
        let next = next_step(&checks, identity.is_some(), &counts);
        Status {
            host: self.host.config().host.clone(),
            domain: identity.map(|identity| identity.domain.clone()),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.started_at,
            ready: checks.iter().all(|check| check.ok),
            checks,
            counts,
            next,
        }
    }

    async fn store(&self) -> Check {
        let (ok, detail) = match watchdog::probe(&self.host.places).await {
            Ok(()) => (
                true,
                format!(
                    "{} keeps what is written",
                    self.host.places.state().display()
                ),
            ),
            Err(problem) => (false, problem.to_string()),
        };
        check("store", ok, detail)
    }

    /// Whether the files can be read, and what of them is not in force.
    fn config(&self) -> Check {
        let running = self.trials.running();
        if !running.refused.is_empty() {
            let why = format!(
                "{} is refused, what was read at {} is in force: {}",
                running.file,
                running.read_at,
                running.refused.join("; ")
            );
            return check("config", false, why);
        }
        let mut detail = match running.file.as_str() {
            "" => "as it was started with".to_owned(),
            file => format!("{file} of {}", running.read_at),
        };
        for one in &running.waiting {
            if let Effect::Waits(why) = &one.effect {
                detail.push_str(&format!("; {} is not in force: {why}", one.path));
            }
        }
        if let Some(trial) = &running.trial {
            detail.push_str(&format!(
                "; on trial, goes back in {} unless dtnctl config confirm is said",
                trial.left
            ));
        }
        check("config", true, detail)
    }

    fn nics(&self, look: &Result<crate::inventory::Look, dtn_api::Problem>) -> Check {
        let look = match look {
            Ok(look) => look,
            Err(problem) => return check("nics", false, problem.to_string()),
        };
        let given: Vec<&Nic> = look.nics.iter().filter(|nic| nic.class.is_some()).collect();
        let mut faults: Vec<String> = look
            .missing
            .iter()
            .map(|selector| match selector.is_pattern() {
                true => format!("no NIC with {selector} is on this host that may be taken"),
                false => format!("the NIC with {selector} is not on this host"),
            })
            .collect();
        for nic in &given {
            faults.extend(nic.guarded.iter().map(|why| format!("{}: {why}", nic.name)));
            let dark = nic.dark().filter(|_| nic.guarded.is_empty());
            faults.extend(dark.map(|why| format!("{}: {why}", nic.name)));
        }
        if given.is_empty() && faults.is_empty() {
            faults.push(
                "no NIC is given: add a [[nic]] to the configuration, then dtnctl config reload"
                    .into(),
            );
        }
        let fine: Vec<&str> = given.iter().map(|nic| nic.name.as_str()).collect();
        match faults.is_empty() {
            true => check("nics", true, fine.join(", ")),
            false => check("nics", false, faults.join("; ")),
        }
    }

    fn controller(&self, now: Timestamp) -> Check {
        let Some(identity) = self.host.uplink.identity() else {
            return check("controller", false, crate::uplink::not_joined().detail);
        };
        let view = self.host.uplink.watch().borrow().clone();
        let heard = view
            .read_at
            .is_some_and(|at| now.duration_since(at) <= SILENT);
        let since = view.read_at.map_or_else(
            || "it has not answered yet".to_owned(),
            |at| format!("it answered last at {at}"),
        );
        match heard {
            true => check(
                "controller",
                true,
                format!("{} of {}", identity.url, identity.domain),
            ),
            false if view.trouble.is_empty() => check("controller", false, since),
            false => check("controller", false, format!("{}; {since}", view.trouble)),
        }
    }

    fn counts(&self, nics: &[Nic]) -> BTreeMap<String, u64> {
        let now = Timestamp::now();
        let view = self.host.uplink.watch().borrow().clone();
        let booked = view.slices.iter().filter(|slice| slice.booked_at(now));
        let mut counts = BTreeMap::from([
            (
                "nics".to_owned(),
                nics.iter().filter(|nic| nic.class.is_some()).count() as u64,
            ),
            ("slices".to_owned(), booked.count() as u64),
        ]);
        match crate::pods::book::list(&self.host.places) {
            Ok((entries, _)) => {
                counts.insert("pods".to_owned(), entries.len() as u64);
            }
            Err(problem) => tracing::warn!("counting pods: {problem}"),
        }
        match self.leases.counts(&self.host, now) {
            Ok(leases) => {
                counts.insert("leases".to_owned(), leases.used);
            }
            Err(problem) => tracing::warn!("counting leases: {problem}"),
        }
        match crate::releases::queued(&self.host.places) {
            Ok(queued) => {
                counts.insert("queued releases".to_owned(), queued.len() as u64);
            }
            Err(problem) => tracing::warn!("counting queued releases: {problem}"),
        }
        counts
    }

    /// All that metrics show.
    pub async fn snapshot(&self) -> metrics::Snapshot {
        let status = self.status().await;
        let now = Timestamp::now();
        let slices = self.known_slices().await;
        let ending = slices
            .iter()
            .filter(|local| slices::ends_soon(&local.slice, now))
            .map(|local| local.slice.spec.name.to_string())
            .collect();
        let mut negotiations = BTreeMap::new();
        for case in self.negotiations.cases() {
            let state = serde_json::to_value(case.step.state()).unwrap_or_default();
            let state = state.as_str().unwrap_or("unknown").to_owned();
            *negotiations.entry(state).or_default() += 1;
        }
        let nics = self.host.inventory.nics().await.unwrap_or_else(|problem| {
            tracing::warn!("{problem}");
            Vec::new()
        });
        metrics::Snapshot {
            ready: status.ready,
            nics,
            slices,
            ending,
            leases: self.leases.counts(&self.host, now).unwrap_or_default(),
            queued_releases: status.counts.get("queued releases").copied().unwrap_or(0),
            pods: self.pods_by_phase().await,
            negotiations,
            gateways: self.gateways.list(),
            kubernetes: self.cluster.as_ref().map(Cluster::metrics),
            attachments: metrics::attachments(&self.host).await,
            host: self.facts(),
            slices_read_at: self.host.uplink.watch().borrow().read_at,
        }
    }

    async fn pods_by_phase(&self) -> BTreeMap<String, u64> {
        let mut phases = BTreeMap::new();
        let pods = self.pods.list().await.unwrap_or_else(|problem| {
            tracing::warn!("listing pods: {problem}");
            Vec::new()
        });
        for pod in pods {
            let phase = serde_json::to_value(pod.phase).unwrap_or_default();
            let phase = phase.as_str().unwrap_or("unknown").to_owned();
            *phases.entry(phase).or_default() += 1;
        }
        phases
    }

    fn facts(&self) -> crate::host_facts::HostFacts {
        let state = self.host.places.state();
        let config = self.host.config();
        let folders: [&Path; 2] = [&state, &config.data_dir];
        let mut reader = self.facts.lock().unwrap_or_else(|e| e.into_inner());
        match reader.as_mut() {
            Some(reader) => reader.read(&folders),
            None => Default::default(),
        }
    }
}

fn check(name: &str, ok: bool, detail: String) -> Check {
    Check {
        name: name.into(),
        ok,
        detail,
    }
}

/// What to do next: the remedy of the first check that does not hold, else the way on.
fn next_step(checks: &[Check], joined: bool, counts: &BTreeMap<String, u64>) -> String {
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    match checks.iter().find(|check| !check.ok) {
        Some(check) => format!("{}: {}", check.name, check.detail),
        None if !joined => "join a domain: dtnctl host join".into(),
        None if count("slices") == 0 => "reserve a slice: dtnctl slice reserve NAME".into(),
        None if count("pods") == 0 => {
            "start a pod: dtnctl deploy TEMPLATE --name NAME --slice SLICE".into()
        }
        None => "nothing: everything is well".into(),
    }
}
