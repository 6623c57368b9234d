//! Hosts: NICs of nodes, and pods on them.

use super::{
    Api,
    request::{Answer, Asked, Body, Page, Tagged, Who, part},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use dtn_api::{
    Problem,
    host::{Host, HostSpec},
    slice::List,
};

/// Hosts that are declared.
#[utoipa::path(get, path = "/hosts", tag = "hosts", params(Page),
    responses((status = 200, body = List<Host>), (status = "default", body = Problem)))]
pub(super) async fn list(State(engine): State<Api>, Asked(page): Asked<Page>) -> Json<List<Host>> {
    let node = page.node.clone();
    let wanted = |host: &&Host| {
        node.as_ref()
            .is_none_or(|name| host.spec.node.as_str() == name)
    };
    let hosts = engine.look(|state, _| state.hosts.values().filter(wanted).cloned().collect());
    page.of(hosts.await, |host| host.id.to_string())
}

/// One host.
#[utoipa::path(get, path = "/hosts/{id}", tag = "hosts", params(("id" = String, Path)),
    responses((status = 200, body = Host), (status = "default", body = Problem)))]
pub(super) async fn get(State(engine): State<Api>, Path(id): Path<String>) -> Answer<Tagged<Host>> {
    let host = engine.host(&part("host", &id)?).await?;
    Ok(Tagged::new(host.version, host))
}

/// Declare a host; the same again is success.
#[utoipa::path(put, path = "/hosts/{id}", tag = "hosts", params(("id" = String, Path)),
    request_body = HostSpec,
    responses((status = 200, body = Host), (status = "default", body = Problem)))]
pub(super) async fn put(
    State(engine): State<Api>,
    Who(who): Who,
    Path(id): Path<String>,
    body: Body<HostSpec>,
) -> Answer<Tagged<Host>> {
    let host = engine
        .declare(&who, &part("host", &id)?, body.value)
        .await?;
    Ok(Tagged::new(host.version, host))
}

/// Forget a host.
#[utoipa::path(delete, path = "/hosts/{id}", tag = "hosts", params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(engine): State<Api>,
    Who(who): Who,
    Path(id): Path<String>,
) -> Answer<StatusCode> {
    engine.undeclare(&who, &part("host", &id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
