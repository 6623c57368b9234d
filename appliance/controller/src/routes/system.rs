//! What the controller says of itself: topology, events, health, metrics, its own contract.

use super::{
    Api,
    request::{Answer, Asked},
};
use axum::{Json, extract::State, http::header, response::IntoResponse};
use dtn_api::{
    Problem,
    domain::Event,
    problem::Kind,
    running::{Reloaded, Running},
    slice::List,
};
use jiff::Timestamp;
use prometheus_client::{
    encoding::text::encode,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use serde::{Deserialize, Serialize};

/// A directed link as it stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct LinkView {
    /// `from>to`.
    id: String,
    /// Bits per second of frames.
    capacity_bps: u64,
    /// What is booked now.
    booked_bps: u64,
    /// MTU in bytes.
    mtu: u32,
}
/// The network that slices are booked on.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Topology {
    /// What enforces slices.
    fabric: String,
    /// Every directed link.
    links: Vec<LinkView>,
}

/// The network, and what is booked of it now.
#[utoipa::path(get, path = "/topology", tag = "system",
    responses((status = 200, body = Topology), (status = "default", body = Problem)))]
pub(super) async fn topology(State(engine): State<Api>) -> Json<Topology> {
    let links = engine.look(|state, now| {
        let ledger = crate::slices::ledger(state.bookings.values(), None, now);
        let window = dtn_api::slice::Schedule {
            start: now,
            end: crate::admission::later_by(now, 1),
        };
        let graph = engine.fabric().topology(&state.hosts);
        let view = |link: &crate::topology::Link| LinkView {
            id: link.name(),
            capacity_bps: link.capacity_bps,
            booked_bps: ledger.peak(&link.name(), &window),
            mtu: link.mtu,
        };
        graph.links().map(view).collect()
    });
    Json(Topology {
        links: links.await,
        fabric: engine.fabric().name().to_owned(),
    })
}

/// Which events.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default)]
pub(super) struct After {
    /// Those that came after this one.
    after: u64,
}

/// What happened, in order, a thousand at most.
#[utoipa::path(get, path = "/events", tag = "system", params(After),
    responses((status = 200, body = List<Event>), (status = "default", body = Problem)))]
pub(super) async fn events(
    State(engine): State<Api>,
    Asked(query): Asked<After>,
) -> Json<List<Event>> {
    let items = engine.look(|state, _| {
        let later = state.events.range(query.after.saturating_add(1)..);
        later
            .take(1000)
            .map(|(_, event)| event.clone())
            .collect::<Vec<_>>()
    });
    Json(List {
        items: items.await,
        next_page_token: None,
    })
}

/// The configuration that this process runs with.
#[utoipa::path(get, path = "/config", tag = "system",
    responses((status = 200, body = Running), (status = "default", body = Problem)))]
pub(super) async fn config(State(engine): State<Api>) -> Json<Running> {
    Json(engine.running())
}

/// Reads the configuration again.
#[utoipa::path(post, path = "/config/reload", tag = "system",
    responses((status = 200, body = Reloaded), (status = "default", body = Problem)))]
pub(super) async fn reload(State(engine): State<Api>) -> Answer<Json<Reloaded>> {
    Ok(Json(engine.reload().await?))
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", tag = "system", responses((status = 200, body = String)))]
pub(super) async fn healthz() -> Json<&'static str> {
    Json("ok")
}

/// It can decide and keep what it decided.
#[utoipa::path(get, path = "/readyz", tag = "system",
    responses((status = 200, body = String), (status = "default", body = Problem)))]
pub(super) async fn readyz(State(engine): State<Api>) -> Answer<Json<&'static str>> {
    engine.probe().await?;
    match engine.fabric().trouble() {
        None => Ok(Json("ready")),
        Some(why) => Err(Problem::new(Kind::BackendUnavailable, why).into()),
    }
}

/// Counts for a scraper, OpenMetrics text.
#[utoipa::path(get, path = "/metrics", tag = "system", responses((status = 200, body = String)))]
pub(super) async fn metrics(State(engine): State<Api>) -> Answer<impl IntoResponse> {
    let counts = engine.look(|state, now: Timestamp| {
        let booked = state
            .bookings
            .values()
            .filter(|b| b.slice.booked_at(now))
            .count();
        [
            ("hosts", state.hosts.len()),
            ("slices_booked", booked),
            (
                "leases_held",
                state.leases.values().filter(|row| row.occupies()).count(),
            ),
            ("domains", state.peers.len()),
            (
                "stitches_owing",
                state
                    .stitches
                    .values()
                    .filter(|row| row.owed.is_some())
                    .count(),
            ),
        ]
    });
    let mut registry = Registry::with_prefix("vdnd");
    let things = Family::<Vec<(String, String)>, Gauge>::default();
    registry.register("things", "how many there are, by kind", things.clone());
    for (kind, count) in counts.await {
        let label = vec![("kind".to_owned(), kind.to_owned())];
        things
            .get_or_create(&label)
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    let passed = Family::<Vec<(String, String)>, Gauge>::default();
    registry.register(
        "gateway_packets",
        "what gateways let pass and denied, by where it was counted",
        passed.clone(),
    );
    for (gateway, place, action, count) in engine.access_totals().await {
        let labels = [
            ("gateway", gateway.as_str()),
            ("counted_by", place),
            ("action", action),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        passed
            .get_or_create(&labels.to_vec())
            .set(i64::try_from(count.packets).unwrap_or(i64::MAX));
    }
    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|e| Problem::new(Kind::Internal, format!("writing the metrics: {e}")))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text))
}

/// This contract.
#[utoipa::path(get, path = "/openapi.json", tag = "system", responses((status = 200)))]
pub(super) async fn openapi() -> impl IntoResponse {
    Json(super::document())
}
