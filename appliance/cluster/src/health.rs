//! What probes and people who watch are told over HTTP: `/healthz` (it goes on), `/readyz` (it has
//! seen the cluster: it leads or stands by), `/metrics`.

use crate::{
    decide::{Slices, Told, World},
    run::{counts, states},
};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// The content type of what [`encode`] writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Upper ends of the counted durations, in seconds: what is there is agreed within a round, and what
/// waits for a pod that ends may wait for hours.
const SECONDS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0];
/// Silence after which it does not go on: some rounds, each with calls that may time out.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: String,
}
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
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
    claims: Family<ByState, Gauge>,
    negotiation: Histogram,
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
            claims: Family::default(),
            negotiation: Histogram::new(SECONDS),
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
            "claims",
            "Claims that ask for a slice, by how they stand",
            health.claims.clone(),
        );
        registry.register_with_unit(
            "negotiation",
            "From the first look at a claim until its agreement was written",
            Unit::Seconds,
            health.negotiation.clone(),
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
            self.claims.clear();
            self.devices.clear();
            self.promised.clear();
        }
    }
    /// What was decided.
    pub fn decided(&self, world: &World, told: &[Told]) {
        self.known
            .set(matches!(world.slices, Slices::Known(_)).into());
        for (state, count) in states(told) {
            self.claims.get_or_create(&ByState { state }).set(count);
        }
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
    /// A claim has its agreement, after this time.
    pub fn negotiated(&self, took: Duration) {
        self.negotiation.observe(took.as_secs_f64());
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

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    match page(&health) {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

fn page(health: &Health) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    encode(&mut text, &health.registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        claim::DeviceKey,
        decide::{Reason, Verdict},
    };

    /// The page with the series of each metric in order: they stand in none.
    fn sorted(page: &str) -> String {
        let mut sorted: Vec<&str> = Vec::new();
        let mut from = 0;
        for line in page.lines() {
            if line.starts_with('#') {
                from = sorted.len() + 1;
            }
            sorted.push(line);
            sorted[from..].sort_unstable();
        }
        sorted.join("\n")
    }

    #[test]
    fn claims_are_told_by_how_they_stand_and_the_leader_alone_tells_them() {
        let told = |at: usize, device: &str, reason: Reason| -> Told {
            let key = DeviceKey {
                pool: "n1".into(),
                device: device.into(),
                share: None,
            };
            let verdict = Verdict {
                reason,
                message: String::new(),
                agreement: None,
            };
            (at, key, verdict)
        };
        let world = World {
            claims: Vec::new(),
            slices: Slices::Known(Vec::new()),
            tenants: BTreeMap::new(),
            nics: BTreeMap::new(),
        };
        let health = Health::default();
        health.leads(true);
        health.decided(
            &world,
            &[
                told(0, "a", Reason::Agreed),
                told(1, "b", Reason::Agreed),
                // one that waits makes its claim wait
                told(1, "c", Reason::Waiting),
                told(2, "d", Reason::InvalidParameters),
                told(3, "e", Reason::SliceOver),
            ],
        );
        health.negotiated(Duration::from_millis(70));
        health.wrote(true);
        insta::assert_snapshot!(sorted(&page(&health).unwrap()));
        health.leads(false);
        let after = page(&health).unwrap();
        assert!(!after.contains("dtn_cluster_claims{"), "{after}");
        assert!(after.contains("dtn_cluster_leads 0"), "{after}");
    }
}
