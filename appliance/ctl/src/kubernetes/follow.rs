//! Watches a pod, its claims and its events until it is ready, and says what changes.

use super::{
    cluster::Cluster,
    standing::{self, Standing, State},
};
use crate::{cli::Context, failure::Failure};
use dtn_workloads::kubernetes::INSTANCE;
use futures_util::{Stream, StreamExt as _, stream};
use k8s_openapi::api::{
    core::v1::{Event, Pod},
    resource::v1::ResourceClaim,
};
use kube::runtime::{WatchStreamExt as _, watcher};
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    time::Duration,
};

/// How a pod was when the wait for it ended.
pub(crate) struct Followed {
    /// The pod; `None` when somebody deleted it.
    pub(crate) pod: Option<Pod>,
    /// Its claims.
    pub(crate) claims: Vec<ResourceClaim>,
    /// How it stands.
    pub(crate) standing: Standing,
    /// Why nothing more is waited for.
    pub(crate) end: End,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The pod is ready, or will not be.
    Decided,
    /// It took too long.
    Late,
    /// Somebody pressed Ctrl-C.
    Left,
    /// The pod is gone.
    Gone,
}

/// What the watch of claims is called.
const CLAIMS: &str = "claims";

/// What a watch tells.
enum Seen {
    Pod(Box<watcher::Event<Pod>>),
    Claim(Box<watcher::Event<ResourceClaim>>),
    Event(Box<watcher::Event<Event>>),
    /// A watch that did not work, of what.
    Failed(&'static str, watcher::Error),
}

type Watch = Pin<Box<dyn Stream<Item = Seen> + Send>>;

/// Objects of one kind as they are now, by name.
struct Store<K>(BTreeMap<String, K>);

impl<K: kube::ResourceExt> Store<K> {
    fn take(&mut self, event: watcher::Event<K>) {
        match event {
            watcher::Event::Init => self.0.clear(),
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                self.0.insert(object.name_any(), object);
            }
            watcher::Event::Delete(object) => {
                self.0.remove(&object.name_any());
            }
            watcher::Event::InitDone => {}
        }
    }
}

/// Follows the pod until it is ready, hopeless or gone, or nobody waits any more.
pub(crate) async fn follow(
    cluster: &Cluster,
    name: &str,
    timeout: Duration,
    context: &Context,
) -> Result<Followed, Failure> {
    let mut watches = stream::select_all(watches(cluster, name));
    let mut pods = Store::<Pod>(BTreeMap::new());
    let mut claims = Store::<ResourceClaim>(BTreeMap::new());
    let mut events = Store::<Event>(BTreeMap::new());
    // of both everything has to be heard once; who may not see claims goes on without them
    let (mut listed, mut claimed, mut said) = (false, false, BTreeSet::new());
    let mut standing = Standing {
        state: State::Coming,
        lines: vec!["nothing was heard of it yet".into()],
        remedy: None,
    };
    let late = tokio::time::sleep(timeout);
    tokio::pin!(late);
    let end = loop {
        let seen = tokio::select! {
            seen = watches.next() => seen,
            () = &mut late => break End::Late,
            _ = tokio::signal::ctrl_c() => break End::Left,
        };
        match seen {
            // watches go on for ever
            None => break End::Late,
            Some(Seen::Pod(event)) => {
                listed |= matches!(*event, watcher::Event::InitDone);
                pods.take(*event);
            }
            Some(Seen::Claim(event)) => {
                claimed |= matches!(*event, watcher::Event::InitDone);
                claims.take(*event);
            }
            Some(Seen::Event(event)) => events.take(*event),
            Some(Seen::Failed(what, error)) => {
                if let Some(failure) = fatal(cluster, name, what, &error) {
                    return Err(failure);
                }
                claimed |= what == CLAIMS;
                if said.insert(format!("{what}: {error}")) {
                    context.progress(format_args!(
                        "{name}: the {what} cannot be watched: {error}"
                    ));
                }
            }
        }
        if !claimed {
            continue;
        }
        let Some(pod) = pods.0.get(name) else {
            match listed {
                true => break End::Gone,
                false => continue,
            }
        };
        let all: Vec<&ResourceClaim> = claims.0.values().collect();
        let reported: Vec<Event> = events.0.values().cloned().collect();
        let now = standing::of(pod, &all, &reported);
        for line in now
            .lines
            .iter()
            .filter(|line| !standing.lines.contains(line))
        {
            context.progress(format_args!("{name}: {line}"));
        }
        standing = now;
        if standing.state != State::Coming {
            break End::Decided;
        }
    };
    Ok(Followed {
        pod: pods.0.remove(name),
        claims: claims.0.into_values().collect(),
        standing,
        end,
    })
}

/// A pod that may not be watched cannot be followed; without claims or events less is said.
fn fatal(
    cluster: &Cluster,
    name: &str,
    what: &'static str,
    error: &watcher::Error,
) -> Option<Failure> {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        _ => return None,
    };
    let denied = matches!(status.code, 401 | 403) && what == "pod";
    denied.then(|| cluster.refused(&format!("following pod {name}"), status))
}

fn watches(cluster: &Cluster, name: &str) -> Vec<Watch> {
    let of_pod = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let of_claims = watcher::Config::default().labels(&format!("{INSTANCE}={name}"));
    let of_events = watcher::Config::default().fields(&format!(
        "involvedObject.kind=Pod,involvedObject.name={name}"
    ));
    vec![
        Box::pin(
            watcher(cluster.pods(), of_pod)
                .default_backoff()
                .map(|seen| {
                    seen.map_or_else(
                        |error| Seen::Failed("pod", error),
                        |event| Seen::Pod(Box::new(event)),
                    )
                }),
        ),
        Box::pin(
            watcher(cluster.claims(), of_claims)
                .default_backoff()
                .map(|seen| {
                    seen.map_or_else(
                        |error| Seen::Failed(CLAIMS, error),
                        |event| Seen::Claim(Box::new(event)),
                    )
                }),
        ),
        Box::pin(
            watcher(cluster.events(), of_events)
                .default_backoff()
                .map(|seen| {
                    seen.map_or_else(
                        |error| Seen::Failed("events", error),
                        |event| Seen::Event(Box::new(event)),
                    )
                }),
        ),
    ]
}
