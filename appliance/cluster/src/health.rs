//! What probes and people who watch are told over HTTP: `/healthz` (it goes on), `/readyz` (it has
//! seen the cluster: it leads or stands by), `/metrics`.

use crate::{
    decide::{Slices, Told, World},
    run::counts,
};
use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Silence after which it does not go on: some rounds, each with calls that may time out.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: String,
}
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySlice {
    slice: String,
    tenant: String,
}
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

/// How it stands.
pub struct Health {
    registry: Registry,
    beat: Mutex<Instant>,
    ready: watch::Sender<bool>,
    leads: Gauge,
    known: Gauge,
    devices: Family<ByReason, Gauge>,
    promised: Family<BySlice, Gauge>,
    writes: Family<ByOutcome, Counter>,
}

impl Default for Health {
    fn default() -> Self {
        let health = Self {
            registry: Registry::default(),
            beat: Mutex::new(Instant::now()),
            ready: watch::Sender::new(false),
            leads: Gauge::default(),
            known: Gauge::default(),
            devices: Family::default(),
            promised: Family::default(),
            writes: Family::default(),
        };
        let mut registry = Registry::with_prefix("dtn_cluster");
        registry.register("leads", "1 while this copy leads", health.leads.clone());
        registry.register(
            "domain_known",
            "1 while the domain's controller answers",
            health.known.clone(),
        );
        registry.register(
            "devices",
            "Devices of claims by what they were told",
            health.devices.clone(),
        );
        registry.register(
            "promised_bps",
            "What is promised of a slice to this cluster's claims, bits per second",
            health.promised.clone(),
        );
        registry.register(
            "writes",
            "Claims that were written, or could not be",
            health.writes.clone(),
        );
        Self { registry, ..health }
    }
}

impl Health {
    /// It goes on.
    pub fn beat(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
    /// The cluster was seen once.
    pub fn is_ready(&self) {
        self.ready.send_replace(true);
    }
    /// Waits for that.
    pub async fn wait(&self) {
        // the sender is here: it cannot end before
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }
    /// Whether it leads.
    pub fn leads(&self, leads: bool) {
        self.leads.set(leads.into());
        if !leads {
            // another copy counts
            self.devices.clear();
            self.promised.clear();
        }
    }
    /// What was decided.
    pub fn decided(&self, world: &World, told: &[Told]) {
        self.known
            .set(matches!(world.slices, Slices::Known(_)).into());
        self.devices.clear();
        for (reason, count) in counts(told) {
            let reason = reason.to_owned();
            self.devices.get_or_create(&ByReason { reason }).set(count);
        }
        let Slices::Known(slices) = &world.slices else {
            return;
        };
        let mut sums: BTreeMap<uuid::Uuid, u64> = BTreeMap::new();
        for agreement in told
            .iter()
            .filter_map(|(_, _, verdict)| verdict.agreement.as_ref())
        {
            let sum = sums.entry(agreement.slice_id).or_default();
            *sum = sum.saturating_add(agreement.rate_bps);
        }
        self.promised.clear();
        for (id, sum) in sums {
            if let Some(slice) = slices.iter().find(|slice| slice.id == id) {
                let labels = BySlice {
                    slice: slice.spec.name.to_string(),
                    tenant: slice.spec.tenant.to_string(),
                };
                let sum = i64::try_from(sum).unwrap_or(i64::MAX);
                self.promised.get_or_create(&labels).inc_by(sum);
            }
        }
    }
    /// A claim was written, or could not be.
    pub fn wrote(&self, well: bool) {
        let outcome = if well { "written" } else { "failed" };
        self.writes.get_or_create(&ByOutcome { outcome }).inc();
    }
}

/// Serves it until it is dropped; where it listens.
pub async fn serve(
    address: SocketAddr,
    health: Arc<Health>,
) -> anyhow::Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    use anyhow::Context;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address} (--health)"))?;
    let address = listener.local_addr()?;
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(health);
    let served = tokio::spawn(async move {
        if let Err(e) = axum::serve(listener, routes).await {
            tracing::error!("serving health: {e}");
        }
    });
    Ok((address, served))
}

async fn healthz(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    let silent = health
        .beat
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .elapsed();
    // before it is ready there is nothing to go on with: the API server may be away
    match *health.ready.borrow() && silent > SILENCE {
        true => {
            let text = format!("no round for {} s\n", silent.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        false => (StatusCode::OK, "ok\n".into()),
    }
}

async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, &'static str) {
    match *health.ready.borrow() {
        true => (StatusCode::OK, "ok\n"),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the cluster was not seen yet\n",
        ),
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    let mut text = String::new();
    match encode(&mut text, &health.registry) {
        Ok(()) => (StatusCode::OK, text),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    }
}
