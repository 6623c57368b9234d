//! The daemon: puts the parts together in the order in which they need each other, runs them, and
//! ends them in the reverse order. A part that ends by itself ends the daemon, so that the service
//! manager starts it anew; pods go on meanwhile.

use crate::{
    Config, Host, Places, cluster,
    cluster::Cluster,
    declare,
    driver::Negotiations,
    gateway::{self, Gateways},
    local_api::{self, Views, serve},
    notify::{self, Ping},
    pods::{self, Pods},
    releases, renew,
    renew::Leases,
    slices,
};
use anyhow::{Context, Result, bail};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Between two words to the service manager.
const STATUS: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config, places: Places) -> Result<()> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asked.cancel();
    });
    run_until(config, places, stop).await
}

/// Runs until it is stopped.
pub async fn run_until(config: Config, places: Places, stop: CancellationToken) -> Result<()> {
    places.create()?;
    let lock = serve::only_one(&places.socket()).context("making sure that no other dtnd runs")?;
    sweep(&places);
    notify::probe(&places)
        .await
        .context("trying the state folder")?;

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
    host.uplink.open().context("reading who this host is")?;
    let negotiations = Negotiations::new(host.clone());
    negotiations.recover().context("taking up negotiations")?;
    let leases = Leases::default();
    let pods = Pods::new(host.clone()).context("preparing to speak with podman")?;
    let gateways = Gateways::new(host.clone());
    let node = Cluster::new(&host, &pods);
    let views = Arc::new(Views::new(
        host.clone(),
        negotiations.clone(),
        leases.clone(),
        pods.clone(),
        gateways.clone(),
        node.clone(),
    ));

    let socket = host.places.socket();
    let listener = serve::unix(&socket, &lock)
        .with_context(|| format!("listening on {}", socket.display()))?;
    let metrics = match host.config.metrics_listen {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .with_context(|| format!("listening on {address} (metrics.listen)"))?,
        ),
        None => None,
    };

    let mut parts = JoinSet::new();
    let router = local_api::router(views.clone());
    parts.spawn(serve::run(listener, router, stop.clone()));
    if let Some(listener) = metrics {
        let router = local_api::metrics_router(views.clone());
        parts.spawn(serve::run(listener, router, stop.clone()));
    }
    parts.spawn(declare::run(host.clone(), negotiations, stop.clone()));
    parts.spawn(renew::run(host.clone(), leases, stop.clone()));
    parts.spawn(releases::run(host.clone(), stop.clone()));
    parts.spawn(pods::run(pods, stop.clone()));
    parts.spawn(gateway::run(gateways, stop.clone()));
    if let Some(node) = node {
        parts.spawn(cluster::run(node, stop.clone()));
    }
    parts.spawn(slices::watch_ends(host.uplink.watch(), stop.clone()));
    let (ping, pings) = mpsc::channel(1);
    let watchdog = notify::watchdog(host.places.clone(), ping, stop.clone());
    tokio::spawn(watchdog);

    notify::ready();
    tracing::info!(host = %host.config.host, socket = %socket.display(), "dtnd serves");
    let outcome = main_loop(&views, &mut parts, pings, &stop).await;
    notify::stopping();
    stop.cancel();
    while parts.join_next().await.is_some() {}
    if let Err(e) = std::fs::remove_file(&socket) {
        tracing::debug!("removing {}: {e}", socket.display());
    }
    outcome
}

/// Answers the watchdog, tells how it stands, and watches over the parts.
async fn main_loop(
    views: &Views,
    parts: &mut JoinSet<()>,
    mut pings: mpsc::Receiver<Ping>,
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
            _ = clock.tick() => notify::status(&views.status().await.next),
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

/// Removes what cut-off writes left.
fn sweep(places: &Places) {
    for folder in [
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
