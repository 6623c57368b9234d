//! The program: watches, stands for election, and while it leads decides at every change and writes
//! what differs.

use crate::{
    decide::{Reason, Told, World, decide},
    election::{self, Leading, Times, leads},
    health::Health,
    since::Since,
    vdn::{self, Looks, Seen},
    world::{Own, Watched},
    write::{self, Deed, Teller},
};
use anyhow::Context;
use futures_util::{StreamExt, future::BoxFuture, stream};
use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::{Api, Client, ResourceExt};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Changes that come within this are decided about together.
const TOGETHER: Duration = Duration::from_millis(30);
/// Without a change it is decided anew after this: windows begin and end by time alone.
const AT_LEAST: Duration = Duration::from_secs(3);
/// Claims that are written at a time.
const AT_ONCE: usize = 8;

/// What it needs to run.
pub struct Settings {
    /// The cluster's API server.
    pub client: Client,
    /// The domain's controller.
    pub vdn: dtn_api::client::Client,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of this process; no other has it.
    pub me: String,
    /// Times of the election.
    pub times: Times,
    /// How slices are looked at.
    pub looks: Looks,
    /// What is told to probes.
    pub health: Arc<Health>,
}

/// Runs until it is stopped; then the Lease is given up.
///
/// Boxed: its code is made here, once, and not again in each program and test that awaits it.
pub fn run(settings: Settings, stop: CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(watch_and_negotiate(settings, stop))
}

async fn watch_and_negotiate(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let watched = Watched::start(&settings.client);
    let (tell_slices, slices) = watch::channel(None);
    let (tell_leading, leading) = watch::channel(None);
    let ask = Arc::new(Notify::new());
    let looking = vdn::watch(
        settings.vdn.clone(),
        settings.looks,
        ask.clone(),
        tell_slices,
    );
    let looking = tokio::spawn(looking);
    let electing = {
        let (client, namespace) = (settings.client.clone(), settings.namespace.clone());
        let (me, times, stop) = (settings.me.clone(), settings.times, stop.clone());
        let ready = settings.health.clone();
        tokio::spawn(async move {
            // who is not ready does not lead: another may be
            tokio::select! {
                () = ready.wait() => {}
                () = stop.cancelled() => return,
            }
            election::run(client, &namespace, &me, times, tell_leading, stop).await;
        })
    };
    let mut rounds = Rounds {
        settings: &settings,
        watched: &watched,
        slices,
        ask,
        leading,
        own: None,
        teller: Teller::default(),
        since: Since::default(),
        begin: Instant::now(),
    };
    let decided = tokio::select! {
        decided = rounds.forever() => decided,
        () = stop.cancelled() => Ok(()),
    };
    stop.cancel();
    looking.abort();
    electing.await.context("standing for election")?;
    decided
}

struct Rounds<'a> {
    settings: &'a Settings,
    watched: &'a Watched,
    slices: watch::Receiver<Option<Seen>>,
    /// To look at the slices at once.
    ask: Arc<Notify>,
    leading: watch::Receiver<Leading>,
    /// What was read and written since it leads; `None` when that has to be read anew.
    own: Option<Own>,
    teller: Teller,
    /// Claims that are negotiated, while it leads.
    since: Since,
    begin: Instant,
}

impl Rounds<'_> {
    async fn forever(&mut self) -> anyhow::Result<()> {
        self.watched.ready().await.context("watching the cluster")?;
        self.settings.health.is_ready();
        loop {
            self.settings.health.beat();
            let led = leads(*self.leading.borrow());
            self.settings.health.leads(led);
            if led {
                self.round().await;
            } else {
                self.own = None;
                self.since = Since::default();
            }
            tokio::select! {
                () = self.watched.changed() => {}
                changed = self.slices.changed() => changed.context("looking at slices ended")?,
                changed = self.leading.changed(), if !led => changed.context("the election ended")?,
                () = sleep(AT_LEAST) => {}
            }
            sleep(TOGETHER).await;
        }
    }

    /// Reads what has to be read, decides, writes what differs.
    async fn round(&mut self) {
        let call = self.settings.times.call;
        let client = &self.settings.client;
        if self.own.is_none() {
            match timeout(call, Own::read(client)).await {
                Ok(Ok(own)) => self.own = Some(own),
                Ok(Err(e)) => return tracing::warn!("reading the claims: {e}"),
                Err(_) => return tracing::warn!("reading the claims: no answer"),
            }
        }
        let Some(own) = &mut self.own else { return };
        for unseen in own.unseen(self.watched) {
            match timeout(call, ask(client, &unseen)).await {
                Ok(Ok(Some(claim))) => own.put(claim),
                Ok(Ok(None)) => own.forget(&unseen.uid().unwrap_or_default()),
                Ok(Err(e)) => return tracing::warn!("asking for a claim: {e}"),
                Err(_) => return tracing::warn!("asking for a claim: no answer"),
            }
        }
        let Some(seen) = self.slices.borrow_and_update().clone() else {
            return;
        };
        let now = Timestamp::now();
        let mut world = World {
            claims: self.watched.claims(own),
            slices: seen.slices,
            tenants: self.watched.tenants(),
            nics: self.watched.nics(),
        };
        let read = Instant::now();
        let mut told = decide(&world, now);
        if refuses_a_new_one(&world, &told) {
            // it may have been made for a slice that was reserved a moment before it
            self.ask.notify_one();
            let newer = self
                .slices
                .wait_for(|now| now.as_ref().is_some_and(|n| n.at >= read));
            if let Ok(Ok(newer)) = timeout(call, newer).await
                && let Some(newer) = newer.as_ref()
            {
                world.slices = newer.slices.clone();
                told = decide(&world, now);
            }
        }
        self.settings.health.decided(&world, &told);
        self.since.saw(&world, &told, self.begin.elapsed());
        let deeds = write::deeds(&world, &told, now);
        if !deeds.is_empty() {
            self.carry_out(deeds).await;
        }
    }

    async fn carry_out(&mut self, deeds: Vec<Deed>) {
        let (settings, leading) = (self.settings, self.leading.clone());
        let call = settings.times.call;
        let written: Vec<_> = stream::iter(deeds)
            .map(|deed| {
                let leading = leading.clone();
                async move {
                    // asked for each one: what was begun while it led ends before another leads
                    if !leads(*leading.borrow()) {
                        return (deed, None);
                    }
                    let applied = timeout(call, write::apply(&settings.client, &deed)).await;
                    (deed, Some(applied))
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut said = Vec::new();
        for (deed, outcome) in written {
            let name = deed.claim.full_name();
            match outcome {
                None => self.own = None,
                Some(Ok(Ok(claim))) => {
                    if let Some(own) = &mut self.own {
                        own.put(claim);
                    }
                    settings.health.wrote(true);
                    if deed.devices.iter().all(|(_, verdict, _)| verdict.agreed())
                        && let Some(took) = self.since.agreed(&deed.claim.uid, self.begin.elapsed())
                    {
                        settings.health.negotiated(took);
                    }
                    for news in &deed.news {
                        tracing::info!(
                            claim = name,
                            reason = news.reason.as_str(),
                            "{}",
                            news.note
                        );
                        let now = self.begin.elapsed();
                        if self.teller.wants(&deed.claim, news, now) {
                            said.push((deed.claim.clone(), news.clone()));
                        }
                    }
                }
                // it has changed or gone since: the watch tells, and it is decided anew
                Some(Ok(Err(kube::Error::Api(status)))) if matches!(status.code, 404 | 409) => {
                    tracing::debug!(claim = name, "changed before it was written");
                }
                Some(Ok(Err(kube::Error::Api(status)))) if (400..500).contains(&status.code) => {
                    settings.health.wrote(false);
                    tracing::warn!(claim = name, "writing what was decided: {status}");
                }
                // it may have arrived: nothing is decided before that is known
                Some(Ok(Err(e))) => {
                    settings.health.wrote(false);
                    self.own = None;
                    tracing::warn!(claim = name, "writing what was decided: {e}");
                }
                Some(Err(_)) => {
                    settings.health.wrote(false);
                    self.own = None;
                    tracing::warn!(claim = name, "writing what was decided: no answer");
                }
            }
        }
        stream::iter(said)
            .for_each_concurrent(AT_ONCE, |(claim, news)| async move {
                let told = write::tell(&settings.client, &claim, &news, &settings.me);
                if timeout(call, told).await.is_err() {
                    tracing::warn!(claim = claim.full_name(), "telling people: no answer");
                }
            })
            .await;
    }
}

/// Whether a claim that was told nothing yet would be told no: that is not done from a view of the
/// slices that is older than the claim.
fn refuses_a_new_one(world: &World, told: &[Told]) -> bool {
    told.iter().any(|(at, key, verdict)| {
        let wish = world.claims[*at]
            .wishes
            .iter()
            .find(|wish| wish.key == *key);
        !verdict.agreed() && wish.is_some_and(|wish| wish.told.said.is_none())
    })
}

/// The claim as it is, or `None` when it is gone.
async fn ask(client: &Client, claim: &ResourceClaim) -> Result<Option<ResourceClaim>, kube::Error> {
    let namespace = claim.namespace().unwrap_or_default();
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), &namespace);
    let found = api.get_opt(&claim.name_any()).await?;
    Ok(found.filter(|found| found.uid() == claim.uid()))
}

/// How many devices are told what, for people who watch.
pub fn counts(told: &[Told]) -> BTreeMap<&'static str, i64> {
    let mut counts = BTreeMap::new();
    for (_, _, verdict) in told {
        *counts.entry(verdict.reason.as_str()).or_default() += 1;
    }
    counts
}

/// How many claims stand how: as the worst of their devices does. Each state is named, so that none
/// of it is seen too.
pub fn states(told: &[Told]) -> BTreeMap<&'static str, i64> {
    const WORST_LAST: [&str; 4] = ["negotiated", "slice-over", "waiting", "refused"];
    let mut worst: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, _, verdict) in told {
        let state = match verdict.reason {
            Reason::Agreed => 0,
            Reason::SliceOver => 1,
            Reason::Waiting | Reason::ControllerSilent => 2,
            Reason::InvalidParameters => 3,
        };
        let worst = worst.entry(*at).or_insert(state);
        *worst = (*worst).max(state);
    }
    let mut counts: BTreeMap<_, _> = WORST_LAST.iter().map(|state| (*state, 0)).collect();
    for state in worst.into_values() {
        *counts.entry(WORST_LAST[state]).or_default() += 1;
    }
    counts
}
