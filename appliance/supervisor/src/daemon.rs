//! The daemon: puts the parts together in the order in which they need each other, runs them, and
//! ends them in the reverse order. A part that ends by itself ends the daemon, so that the service
//! manager starts it anew; pods go on meanwhile.

use crate::{
    Config, Host, Places, certificate, cluster,
    cluster::Cluster,
    declare,
    driver::Negotiations,
    gateway::{self, Gateways},
    local_api::{self, Views, serve},
    pods::{self, Pods},
    releases,
    reload::Reload,
    renew,
    renew::Leases,
    slices,
    trial::Trials,
    watchdog::{self, Ping},
};
use anyhow::{Context, Result, bail};
use dtn_service::{
    notify,
    reload::{Reading, Reloads},
};
use futures_util::future::BoxFuture;
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Between two words to the service manager.
const STATUS: Duration = Duration::from_secs(10);

/// Longest time to find out what that word is; the watchdog is fed within 5 s.
const STATUS_WITHIN: Duration = Duration::from_secs(3);

/// Runs until SIGTERM or SIGINT; on SIGHUP the configuration is read again.
pub async fn run(config: Config, places: Places, reading: Reading) -> Result<()> {
    // before the rest is put together: the signal would end the process until then
    let reloads = Reloads::listen(places.reload()).context("listening for SIGHUP")?;
    let stop = dtn_service::stop::asked().context("listening for SIGTERM and SIGINT")?;
    serve(config, places, reading, stop, Some(reloads)).await
}

/// Runs until it is stopped, with a configuration that is not read again.
pub async fn run_until(config: Config, places: Places, stop: CancellationToken) -> Result<()> {
    serve(config, places, Reading::default(), stop, None).await
}

/// Runs until it is stopped; the configuration is read again when a caller asks for it.
pub async fn run_reading(
    config: Config,
    places: Places,
    reading: Reading,
    stop: CancellationToken,
) -> Result<()> {
    serve(config, places, reading, stop, None).await
}

/// Boxed: its code is made in this crate, once, and not again in each program and test that awaits it.
fn serve(
    config: Config,
    places: Places,
    reading: Reading,
    stop: CancellationToken,
    reloads: Option<Reloads>,
) -> BoxFuture<'static, Result<()>> {
    Box::pin(begin(config, places, reading, stop, reloads))
}

async fn begin(
    config: Config,
    places: Places,
    reading: Reading,
    stop: CancellationToken,
    mut reloads: Option<Reloads>,
) -> Result<()> {
    notify::starting("trying the state folder");
    places.create()?;
    let lock = serve::only_one(&places.socket()).context("making sure that no other dtnd runs")?;
    sweep(&places);
    watchdog::probe(&places)
        .await
        .context("trying the state folder")?;

    notify::starting("looking at the NICs");
    let host = Host::new(config, places);
    let look = host
        .inventory
        .look()
        .await
        .context("taking the first inventory")?;
    tracing::info!(
        nics = look.nics.len(),
        missing = look.missing.len(),
        "inventory"
    );
    notify::starting("taking up what was asked before");
    host.uplink.open().context("reading who this host is")?;
    let negotiations = Negotiations::new(host.clone());
    negotiations.recover().context("taking up negotiations")?;
    let leases = Leases::default();
    let pods = Pods::new(host.clone()).context("preparing to speak with podman")?;
    let gateways = Gateways::new(host.clone());
    let node = Cluster::new(&host, &pods);
    let (metrics_to, metrics_from) = mpsc::channel(1);
    let reload = Reload::new(host.clone(), reading, metrics_to.clone());
    let trials = Trials::new(host.clone(), reload.clone());
    let views = Arc::new(Views::new(
        host.clone(),
        negotiations.clone(),
        leases.clone(),
        pods.clone(),
        gateways.clone(),
        node.clone(),
        trials.clone(),
    ));

    let socket = host.places.socket();
    let listener = serve::listen(&socket, &lock)
        .with_context(|| format!("listening on {}", socket.display()))?;
    let own = listener.own;
    if let Some(address) = host.config().metrics_listen {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listening on {address} (metrics.listen)"))?;
        metrics_to
            .try_send(Some(listener))
            .context("serving metrics")?;
    }

    let mut parts = JoinSet::new();
    let router = local_api::router(views.clone());
    parts.spawn(serve::run(listener, router, stop.clone()));
    parts.spawn(serve_metrics(metrics_from, views.clone(), stop.clone()));
    parts.spawn(trials.run(stop.clone()));
    parts.spawn(declare::run(host.clone(), negotiations, stop.clone()));
    parts.spawn(renew::run(host.clone(), leases, stop.clone()));
    parts.spawn(certificate::run(host.clone(), stop.clone()));
    parts.spawn(releases::run(host.clone(), stop.clone()));
    parts.spawn(pods::run(pods, stop.clone()));
    parts.spawn(gateway::run(gateways, stop.clone()));
    if let Some(node) = node {
        parts.spawn(cluster::run(node, stop.clone()));
    }
    parts.spawn(slices::watch_ends(host.uplink.watch(), stop.clone()));
    let (ping, pings) = mpsc::channel(1);
    let watchdog = watchdog::feed(host.places.clone(), ping, stop.clone());
    tokio::spawn(watchdog);

    notify::ready("serving");
    tracing::info!(host = %host.config().host, socket = %socket.display(), "dtnd serves");
    let outcome = main_loop(&views, &reload, &mut parts, pings, &mut reloads, &stop).await;
    notify::stopping();
    stop.cancel();
    while parts.join_next().await.is_some() {}
    if own && let Err(e) = std::fs::remove_file(&socket) {
        tracing::debug!("removing {}: {e}", socket.display());
    }
    outcome
}

/// Answers the watchdog, tells how it stands, and watches over the parts.
async fn main_loop(
    views: &Views,
    reload: &Reload,
    parts: &mut JoinSet<()>,
    mut pings: mpsc::Receiver<Ping>,
    reloads: &mut Option<Reloads>,
    stop: &CancellationToken,
) -> Result<()> {
    let mut clock = tokio::time::interval(STATUS);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(ping) = pings.recv() => {
                // whoever asked has given up when it cannot be told
                let _ = ping.send(());
            }
            () = asked(reloads) => if let Some(reloads) = reloads {
                let again = async {
                    let changed = reload.now().await;
                    changed.map_or_else(|no| Err(no.to_string()), |yes| Ok(yes.to_string()))
                };
                reloads.carry(again).await;
            },
            _ = clock.tick() => {
                // a pod may be gone that a change waited for
                reload.again().await;
                // an engine that hangs must not keep this loop from the watchdog
                match tokio::time::timeout(STATUS_WITHIN, views.status()).await {
                    Ok(status) => notify::status(&status.next),
                    Err(_) => tracing::debug!("how it stands is not known within 3 s"),
                }
            }
            Some(ended) = parts.join_next() => {
                if stop.is_cancelled() {
                    return Ok(());
                }
                match ended {
                    Ok(()) => bail!("a part of dtnd ended by itself"),
                    Err(e) => bail!("a part of dtnd failed: {e}"),
                }
            }
        }
    }
}

/// Waits until a reload is asked for.
async fn asked(reloads: &mut Option<Reloads>) {
    match reloads {
        Some(reloads) => reloads.asked().await,
        None => std::future::pending().await,
    }
}

/// Serves metrics on the listener that came last, or on none.
async fn serve_metrics(
    mut listeners: mpsc::Receiver<Option<TcpListener>>,
    views: Arc<Views>,
    stop: CancellationToken,
) {
    let mut one: Option<(CancellationToken, JoinSet<()>)> = None;
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => None,
            next = listeners.recv() => next,
        };
        if let Some((own, mut serving)) = one.take() {
            own.cancel();
            while serving.join_next().await.is_some() {}
        }
        let Some(listener) = next else {
            // nobody can ask for another one any more
            return stop.cancelled().await;
        };
        if let Some(listener) = listener {
            let (own, mut serving) = (stop.child_token(), JoinSet::new());
            let router = local_api::metrics_router(views.clone());
            serving.spawn(serve::run(listener, router, own.clone()));
            one = Some((own, serving));
        }
    }
}

/// Removes what cut-off writes left.
fn sweep(places: &Places) {
    for folder in [
        places.state(),
        places.negotiations(),
        places.gateways(),
        places.identity(),
        places.pods(),
        places.claims(),
        places.prepared(),
    ] {
        match dtn_link::atomic_file::sweep(&folder) {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(count, folder = %folder.display(), "swept what a cut-off write left")
            }
            Err(e) => tracing::warn!("{e}"),
        }
    }
}
