//! Status, readiness, NICs, leases, metrics, and joining a domain.

use super::{
    Views,
    refuse::{Answer, Body, Refusal},
};
use crate::metrics;
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use dtn_api::{
    Problem,
    lease::Lease,
    local::{Join, LocalGateway, Status},
    nic::Nic,
    node::Node,
    problem::Kind,
    running::{Reloaded, Running, Trial, Try},
    slice::List,
};
use std::sync::Arc;

pub(super) fn listed<T>(items: Vec<T>) -> Json<List<T>> {
    Json(List {
        items,
        next_page_token: None,
    })
}

pub(super) async fn status(State(views): State<Arc<Views>>) -> Json<Status> {
    Json(views.status().await)
}

/// 200 when every check holds, else 503 with those that do not.
pub(super) async fn ready(State(views): State<Arc<Views>>) -> Answer<Json<Status>> {
    let status = views.status().await;
    if status.ready {
        return Ok(Json(status));
    }
    let mut problem = Problem::new(Kind::BackendUnavailable, "this host is not ready");
    for check in status.checks.iter().filter(|check| !check.ok) {
        problem = problem.at("", format!("{}: {}", check.name, check.detail));
    }
    Err(Refusal(problem))
}

pub(super) async fn nics(State(views): State<Arc<Views>>) -> Answer<Json<List<Nic>>> {
    Ok(listed(views.host.inventory.nics().await?))
}

/// The gateways of this host, as they were last read back.
pub(super) async fn gateways(State(views): State<Arc<Views>>) -> Json<List<LocalGateway>> {
    listed(views.gateways.list())
}

/// The leases of this host as the controller has them.
pub(super) async fn leases(State(views): State<Arc<Views>>) -> Answer<Json<List<Lease>>> {
    Ok(listed(views.host.uplink.leases().await?))
}

pub(super) async fn join(
    State(views): State<Arc<Views>>,
    Body(join): Body<Join>,
) -> Answer<Json<Status>> {
    let identity = views.host.uplink.join(join.invitation).await?;
    tracing::info!(host = %identity.host, domain = %identity.domain, "joined");
    // the answer shows the host as it is then: the controller has to have answered once
    let mut view = views.host.uplink.watch();
    let heard = view.wait_for(|view| view.read_at.is_some());
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), heard).await;
    Ok(Json(views.status().await))
}

/// Renews the host's certificate now, whatever is left of its life.
pub(super) async fn renew(State(views): State<Arc<Views>>) -> Answer<Json<Node>> {
    let until = views.host.uplink.renew_certificate().await?;
    tracing::info!(%until, "the host's certificate was renewed: it was asked for");
    Ok(Json(views.host.uplink.node().await?))
}

/// The configuration that this process runs with.
pub(super) async fn config(State(views): State<Arc<Views>>) -> Json<Running> {
    Json(views.trials.running())
}

/// Reads it again.
pub(super) async fn reload(State(views): State<Arc<Views>>) -> Answer<Json<Reloaded>> {
    Ok(Json(views.trials.reload().now().await?))
}

/// Tries another one.
pub(super) async fn attempt(
    State(views): State<Arc<Views>>,
    Body(asked): Body<Try>,
) -> Answer<Json<Trial>> {
    Ok(Json(views.trials.begin(&asked).await?))
}

/// What is tried stays.
pub(super) async fn confirm(State(views): State<Arc<Views>>) -> Answer<Json<Running>> {
    views.trials.confirm().await?;
    Ok(Json(views.trials.running()))
}

/// What was before comes back now.
pub(super) async fn take_back(State(views): State<Arc<Views>>) -> Answer<Json<Running>> {
    views.trials.back().await?;
    Ok(Json(views.trials.running()))
}

pub(super) async fn metrics(State(views): State<Arc<Views>>) -> Answer<Response> {
    let page = metrics::render(&views.snapshot().await)
        .map_err(|e| Problem::new(Kind::Internal, format!("writing the metrics: {e}")))?;
    let kind = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    Ok((StatusCode::OK, kind, page).into_response())
}
