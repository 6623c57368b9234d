//! This host as a node of a Kubernetes cluster: a driver of Dynamic Resource Allocation.
//!
//! [`publish`] says what is offered (pure) and [`slices`] keeps the cluster's ResourceSlice so;
//! [`register`] and [`serve`] speak with the kubelet; [`claim`] reads what a claim asks (pure),
//! [`prepare`] has it before the pod's sandbox is made and gives it back, [`book`] remembers it;
//! [`status`] writes into the claim how it went; [`sweep`] finds what the kubelet forgot;
//! [`counts`] counts for metrics.
//!
//! Traffic that flows needs none of this, and neither does a pod that is prepared already: that is
//! answered from the disk, with the API server away.

pub mod book;
pub mod claim;
pub mod contracts;
pub mod counts;
mod health;
pub mod prepare;
pub mod publish;
mod register;
mod serve;
mod slices;
mod status;
mod sweep;

use crate::{Host, config::KubernetesConfig, metrics::Node, pods::Pods};
use dtn_api::{Problem, local::Check, problem::Kind};
use k8s_openapi::api::resource::v1::Device;
use std::{
    collections::BTreeMap,
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Longest time for one call of the API server.
const DEADLINE: Duration = Duration::from_secs(10);

/// The node that this host is.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Arc<Host>,
    pods: Pods,
    config: KubernetesConfig,
    client: Mutex<Option<Api>>,
    seen: Mutex<Seen>,
    /// One for each claim that is being worked on.
    locks: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Something changed that the ResourceSlice shows.
    publish: Notify,
    /// Something changed that claims show.
    tell: Notify,
    health: watch::Sender<Vec<contracts::health::DeviceHealth>>,
    counts: counts::Counts,
}

#[derive(Clone)]
struct Api(kube::Client);
impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

/// How it went last, for people.
#[derive(Debug, Default)]
struct Seen {
    /// The kubelet's answer to the registration; `None` before it.
    registered: Option<Result<(), String>>,
    /// Why the sockets are not there.
    sockets: Option<String>,
    /// How many NICs are published; `None` before they are.
    published: Option<usize>,
    /// As which devices, by name.
    devices: BTreeMap<String, Device>,
    /// Why not.
    publishing: Option<String>,
    /// NICs that are not offered, and why.
    left_out: Vec<String>,
    /// What could not be written into claims.
    telling: Option<String>,
}

impl Cluster {
    /// Where the configuration says so. Nothing is asked of anyone yet.
    pub fn new(host: &Arc<Host>, pods: &Pods) -> Option<Self> {
        let config = host.config().kubernetes.clone()?;
        Some(Self(Arc::new(Inner {
            host: host.clone(),
            pods: pods.clone(),
            config,
            client: Mutex::default(),
            seen: Mutex::default(),
            locks: Mutex::default(),
            publish: Notify::new(),
            tell: Notify::new(),
            health: watch::Sender::new(Vec::new()),
            counts: counts::Counts::default(),
        })))
    }

    /// Somebody attached or detached something: look now.
    pub fn notice(&self) {
        self.0.publish.notify_one();
        self.0.tell.notify_one();
    }

    /// Whether the kubelet knows us, and the cluster our NICs.
    pub fn check(&self) -> Check {
        let seen = self.seen();
        let mut faults = Vec::new();
        faults.extend(seen.sockets.clone());
        match &seen.registered {
            Some(Ok(())) => {}
            Some(Err(why)) => faults.push(format!("the kubelet refused the driver: {why}")),
            None if seen.sockets.is_some() => {}
            None => faults.push(format!(
                "the kubelet has not asked for {} yet: is it running, and is its folder {} \
                 (kubernetes.kubelet-dir)?",
                self.registration_socket().display(),
                self.0.config.kubelet_dir.display()
            )),
        }
        match (&seen.publishing, seen.published) {
            (Some(why), _) => faults.push(why.clone()),
            (None, None) => faults.push("the NICs are not published yet".to_owned()),
            (None, Some(_)) => {}
        }
        faults.extend(seen.telling.clone());
        let ok = faults.is_empty();
        let mut words = faults;
        if ok {
            words.push(format!(
                "node {}, {} NICs published",
                self.0.config.node,
                seen.published.unwrap_or(0)
            ));
        }
        words.extend(
            seen.left_out
                .iter()
                .map(|why| format!("not offered: {why}")),
        );
        Check {
            name: "kubernetes".to_owned(),
            ok,
            detail: words.join("; "),
        }
    }

    /// How the host stands as a node, for metrics.
    pub fn metrics(&self) -> Node {
        let (entries, torn) = book::list(&self.0.host.places).unwrap_or_else(|problem| {
            tracing::warn!("counting claims: {problem}");
            Default::default()
        });
        let whole = entries.iter().filter(|entry| entry.is_whole()).count();
        let seen = self.seen();
        let tainted = |device: &&Device| device.taints.as_ref().is_some_and(|t| !t.is_empty());
        Node {
            registered: matches!(seen.registered, Some(Ok(()))),
            publishing: seen.publishing.is_none() && seen.published.is_some(),
            devices: seen.devices.len() as u64,
            tainted: seen.devices.values().filter(tainted).count() as u64,
            left_out: seen.left_out.len() as u64,
            prepared: whole as u64,
            unfinished: (entries.len() - whole + torn.len()) as u64,
            counts: self.0.counts.clone(),
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Where the kubelet looks for drivers. In the path that it sends as the authority of its calls
    /// a `/` is escaped; a host's name may not be written so, a user's name before an `@` may. The
    /// rules are RFC 3986 §3.2, and our HTTP/2 keeps to them.
    fn registration_socket(&self) -> PathBuf {
        let file = format!("{}@reg.sock", dtn_api::cluster::DRIVER);
        self.0
            .config
            .kubelet_dir
            .join("plugins_registry")
            .join(file)
    }
    /// Where the driver answers.
    fn service_socket(&self) -> PathBuf {
        let folder = self.0.config.kubelet_dir.join("plugins");
        folder.join(dtn_api::cluster::DRIVER).join("dra.sock")
    }

    fn lock_of(&self, claim: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.locks.lock().unwrap_or_else(|e| e.into_inner());
        // those that nobody holds or waits for are not kept
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(claim.to_owned()).or_default().clone()
    }

    /// The way to the API server.
    async fn client(&self) -> Result<kube::Client, Problem> {
        let lock = || self.0.client.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(Api(client)) = lock().clone() {
            return Ok(client);
        }
        let unusable = |why: &dyn std::fmt::Display| {
            let how = match &self.0.config.kubeconfig {
                Some(path) => format!("by {} (kubernetes.kubeconfig)", path.display()),
                None => "as a pod's own account (outside of one set kubernetes.kubeconfig)".into(),
            };
            Problem::new(
                Kind::BackendUnavailable,
                format!("speaking to the API server {how}: {why}"),
            )
        };
        let config = match &self.0.config.kubeconfig {
            Some(path) => {
                let file = kube::config::Kubeconfig::read_from(path).map_err(|e| unusable(&e))?;
                kube::Config::from_custom_kubeconfig(file, &Default::default())
                    .await
                    .map_err(|e| unusable(&e))?
            }
            None => kube::Config::incluster().map_err(|e| unusable(&e))?,
        };
        let client = kube::Client::try_from(config).map_err(|e| unusable(&e))?;
        *lock() = Some(Api(client.clone()));
        Ok(client)
    }

    /// One call of the API server: `what` it is is counted, `doing` says it, for the error.
    async fn call<T>(
        &self,
        what: counts::Call,
        doing: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Problem> {
        let outcome = self.answer(doing, call).await;
        self.0.counts.called(what, &outcome);
        outcome
    }
    async fn answer<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Problem> {
        let failed = |kind, why: &dyn std::fmt::Display| {
            Problem::new(kind, format!("{doing}: the API server: {why}"))
        };
        match tokio::time::timeout(DEADLINE, call).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(kube::Error::Api(status))) => {
                // credentials are read anew before the next call
                if status.code == 401 {
                    *self.0.client.lock().unwrap_or_else(|e| e.into_inner()) = None;
                }
                let kind = match status.code {
                    404 => Kind::NotFound,
                    401 | 403 => Kind::Forbidden,
                    409 => Kind::VersionMismatch,
                    500.. | 429 => Kind::BackendUnavailable,
                    _ => Kind::BackendError,
                };
                Err(failed(kind, &status.message))
            }
            Ok(Err(e)) => Err(failed(Kind::BackendUnavailable, &chain(&e))),
            Err(_) => Err(failed(
                Kind::BackendUnavailable,
                &format!("no answer within {} s", DEADLINE.as_secs()),
            )),
        }
    }
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        if !words.contains(&text) {
            words.push_str(": ");
            words.push_str(&text);
        }
        cause = next.source();
    }
    words
}

/// Serves the kubelet and keeps the cluster told, for as long as the daemon runs.
pub async fn run(cluster: Cluster, stop: CancellationToken) {
    // before the kubelet may ask: what a reboot took away is there again
    prepare::restore(&cluster).await;
    tokio::join!(
        register::run(cluster.clone(), stop.clone()),
        slices::run(cluster.clone(), stop.clone()),
        status::run(cluster.clone(), stop.clone()),
        sweep::run(cluster.clone(), stop),
    );
}
