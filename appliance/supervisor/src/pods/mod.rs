//! Pods: prepare, engine, attachment, rescue and pacing.
//!
//! [`book`] has what was asked, [`look`] reads what is so, [`decide`] says what to do next, and
//! [`carry`] does it; deploying, restarting, booting and undeploying are the same loop. [`pacing`]
//! keeps the rates true, [`sweep`] clears up after pods that nobody knows any more, [`rescue`] after
//! those of another engine whose runtime forgot them.

pub(crate) mod attach;
pub mod book;
mod carry;
pub mod decide;
pub mod engine;
mod look;
pub mod manifest;
pub(crate) mod pacing;
pub mod podman;
pub(crate) mod prepare;
mod rescue;
mod share;
mod sweep;
pub(crate) mod take_back;
mod view;
mod watch;

pub use watch::run;

use crate::Host;
use book::{Entry, Wanted};
use carry::{Came, Tools};
use decide::Health;
use dtn_api::{
    Name, Problem,
    attachment::{PodIdentity, Prepared},
    local::{Check, DeployRequest, Notice, Paced, Pod, PrepareRequest},
    problem::Kind,
};
use engine::Engine;
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use uuid::Uuid;

/// Streams that a pod of another engine is prepared for: nobody says how many it has.
pub(crate) const STREAMS: u32 = 8;

/// The pods of this host.
#[derive(Debug, Clone)]
pub struct Pods(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Arc<Host>,
    engine: Box<dyn Engine>,
    /// One for each pod that is being worked on.
    locks: Mutex<BTreeMap<Name, Arc<tokio::sync::Mutex<()>>>>,
    choosing: tokio::sync::Mutex<()>,
    readings: Mutex<pacing::Readings>,
    wake: tokio::sync::Notify,
}

impl Pods {
    /// With podman as the configuration names it. Nothing is asked of it yet.
    pub fn new(host: Arc<Host>) -> Result<Self, Problem> {
        let podman = podman::Podman::new(&host.config().podman_socket)?;
        Ok(Self::with_engine(host, Box::new(podman)))
    }
    /// With another engine.
    pub fn with_engine(host: Arc<Host>, engine: Box<dyn Engine>) -> Self {
        Self(Arc::new(Inner {
            host,
            engine,
            locks: Mutex::default(),
            choosing: tokio::sync::Mutex::default(),
            readings: Mutex::default(),
            wake: tokio::sync::Notify::new(),
        }))
    }

    fn tools(&self) -> Tools<'_> {
        Tools {
            host: &self.0.host,
            engine: self.0.engine.as_ref(),
            choosing: &self.0.choosing,
        }
    }
    fn lock_of(&self, name: &Name) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.locks.lock().unwrap_or_else(|e| e.into_inner());
        // those that nobody holds or waits for are not kept
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(name.clone()).or_default().clone()
    }

    /// The folders of the host that the request names itself.
    pub fn named_folders(&self, request: &DeployRequest) -> Result<Vec<String>, Problem> {
        manifest::named_folders(&self.0.host.config(), request)
    }

    /// What the engine would be given; nothing is made.
    pub fn rendered(&self, request: &DeployRequest) -> Result<String, Problem> {
        manifest::render(&self.0.host.config(), request)?.text()
    }

    /// Makes a pod and waits until it runs. The same request again is success; on failure nothing
    /// of it is left but the entry that says why. It goes on when the caller has gone.
    pub async fn deploy(&self, request: DeployRequest) -> Result<Pod, Problem> {
        let pods = self.clone();
        finished(tokio::spawn(async move { pods.deploy_now(request).await }).await)
    }

    async fn deploy_now(&self, request: DeployRequest) -> Result<Pod, Problem> {
        if request.slice.is_none() {
            let why = "a pod without a slice has no addresses";
            return Err(Problem::new(Kind::NotBuilt, why).at(
                "/slice",
                "name a slice; one of class best_effort books no rate (dtnctl slice reserve NAME \
                 --class best-effort)",
            ));
        }
        let host = &self.0.host;
        let name = request.name.clone();
        let lock = self.lock_of(&name);
        let _held = lock.lock().await;
        match book::read(&host.places, &name)? {
            Some(known) if known.wanted == Wanted::Up && known.request == request => {
                return self.get(&name).await;
            }
            Some(known) if known.wanted == Wanted::Failed => {
                carry::down(&self.tools(), &known).await?;
                book::remove(&host.places, &name)?;
            }
            Some(known) => {
                let why = match known.wanted {
                    Wanted::Down => format!("pod {name} is still being taken down"),
                    _ => format!(
                        "there is a pod {name} of another request: dtnctl undeploy {name} first"
                    ),
                };
                return Err(Problem::new(Kind::NameTaken, why));
            }
            None => {}
        }
        let manifest = manifest::render(&host.config(), &request)?;
        manifest.lay_out()?;
        let uid = Uuid::now_v7().to_string();
        let mut entry = manifest.entry(&request, &uid, Timestamp::now())?;
        book::write(&host.places, &entry)?;
        match self.on(&mut entry).await {
            Ok(Came::Rest(Health::Runs)) => {}
            Ok(other) => {
                tracing::warn!(pod = %name, ?other, "deployed, and does not run");
            }
            Err(problem) => return Err(self.give_up(&mut entry, problem).await),
        }
        self.note(&mut entry, "")?;
        pacing::once(host, &self.0.readings).await;
        tracing::info!(pod = %name, uid, "deployed");
        self.get(&name).await
    }

    /// Takes back what was made of a pod that could not be made, and keeps why.
    async fn give_up(&self, entry: &mut Entry, problem: Problem) -> Problem {
        let host = &self.0.host;
        tracing::warn!(pod = %entry.name(), "could not be made: {problem}");
        let undone = carry::down(&self.tools(), entry).await;
        (entry.wanted, entry.message) = match &undone {
            Ok(()) => (Wanted::Failed, problem.to_string()),
            // the watch goes on with it
            Err(second) => (Wanted::Down, format!("{problem}; and {second}")),
        };
        let mut problem = problem;
        if let Err(second) = undone.and_then(|()| book::write(&host.places, entry)) {
            problem.detail = format!("{}; and {second}", problem.detail);
            if let Err(third) = book::write(&host.places, entry) {
                tracing::error!(pod = %entry.name(), "{third}");
            }
        }
        problem
    }

    async fn on(&self, entry: &mut Entry) -> Result<Came, Problem> {
        carry::on(&self.tools(), entry).await
    }

    fn note(&self, entry: &mut Entry, message: &str) -> Result<(), Problem> {
        if entry.message == message {
            return Ok(());
        }
        entry.message = message.to_owned();
        book::write(&self.0.host.places, entry)
    }

    /// Takes a pod down and waits until it is gone. `NotFound` when there is none. It goes on when
    /// the caller has gone, and later when it could not be done now.
    pub async fn undeploy(&self, name: &Name) -> Result<(), Problem> {
        let (pods, name) = (self.clone(), name.clone());
        finished(tokio::spawn(async move { pods.undeploy_now(&name).await }).await)
    }

    async fn undeploy_now(&self, name: &Name) -> Result<(), Problem> {
        let lock = self.lock_of(name);
        let _held = lock.lock().await;
        let mut entry = self.entry(name)?;
        entry.wanted = Wanted::Down;
        book::write(&self.0.host.places, &entry)?;
        self.finish(&mut entry).await
    }

    /// Ends a pod that is wanted down. The caller holds its lock.
    async fn finish(&self, entry: &mut Entry) -> Result<(), Problem> {
        if let Err(problem) = carry::down(&self.tools(), entry).await {
            self.note(entry, &problem.to_string())?;
            return Err(problem);
        }
        book::remove(&self.0.host.places, entry.name())?;
        tracing::info!(pod = %entry.name(), "taken down");
        self.0.wake.notify_one();
        Ok(())
    }

    fn entry(&self, name: &Name) -> Result<Entry, Problem> {
        book::read(&self.0.host.places, name)?.ok_or_else(|| {
            let why = format!("no pod {name} on this host: dtnctl pods shows them");
            Problem::new(Kind::NotFound, why)
        })
    }

    /// Prepares an interface for a pod that another engine runs: the plugin asks, and gets the same
    /// answer when it asks again.
    pub async fn prepare(&self, request: PrepareRequest) -> Result<Prepared, Problem> {
        if !dtn_api::attachment::key_is_valid(&request.key) {
            let why = format!("{:?} cannot be the key of a pod", request.key);
            return Err(Problem::new(Kind::InvalidRequest, why).at("/key", "a UID or container ID"));
        }
        let pod = PodIdentity {
            uid: request.key.clone(),
            name: request.pod_name.unwrap_or_else(|| request.key.clone()),
            namespace: request
                .pod_namespace
                .unwrap_or_else(|| "default".to_owned()),
            engine: "kubernetes".to_owned(),
        };
        let wish = prepare::Wish {
            key: request.key,
            pod,
            network: request.network,
            ifname: request.ifname,
            class: request.class,
            nic: request.nic,
            slice: request.slice.map(prepare::Which::Named),
            memory: None,
            streams: STREAMS,
            terms: prepare::Terms::default(),
        };
        self.prepare_as(&wish).await
    }

    /// Prepares an interface.
    pub(crate) async fn prepare_as(&self, wish: &prepare::Wish) -> Result<Prepared, Problem> {
        prepare::prepare(&self.0.host, &self.0.choosing, wish).await
    }

    /// Keeps everybody else from preparing and from choosing a NIC.
    pub(crate) async fn choosing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.choosing.lock().await
    }

    /// Somebody attached or detached something: look now.
    pub fn notice(&self, notice: &Notice) {
        tracing::debug!(key = notice.key, ifname = %notice.ifname, "noticed");
        self.0.wake.notify_one();
    }

    /// What is paced for slices, as it was read back last.
    pub fn paced(&self) -> Vec<(Uuid, Paced)> {
        self.0
            .readings
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .paced()
    }

    /// Whether Kubernetes runs the pods of this host and there is no podman beside it.
    fn podman_is_away(&self) -> bool {
        let config = self.0.host.config();
        config.kubernetes.is_some() && !config.podman_socket.exists()
    }

    /// Whether the engine answers.
    pub async fn ready(&self) -> Check {
        if self.podman_is_away() {
            return Check {
                name: "podman".to_owned(),
                ok: true,
                detail: "not there: Kubernetes runs the pods of this host".to_owned(),
            };
        }
        let (ok, detail) = match self.0.engine.version().await {
            Ok(version) => (true, version),
            Err(e) => (false, e.to_string()),
        };
        Check {
            name: "podman".to_owned(),
            ok,
            detail,
        }
    }
}

/// The outcome of work that goes on without its caller.
fn finished<T>(outcome: Result<Result<T, Problem>, tokio::task::JoinError>) -> Result<T, Problem> {
    outcome.unwrap_or_else(|e| {
        let why = format!("working on the pod: {e}");
        Err(Problem::new(Kind::Internal, why))
    })
}
