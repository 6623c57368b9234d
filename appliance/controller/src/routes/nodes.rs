//! Hosts and clusters by their certificates: list, renew, revoke. And the keys of the domain.

use super::{
    Api,
    request::{Answer, Asked, Body, Page, Who, With, part},
};
use axum::{
    Json,
    extract::{Path, State},
};
use dtn_api::{
    Name, Problem,
    domain::{Domain, Enrolled},
    node::{DomainKeys, Keys, Node, Renewal, Revoke, Revoked, Rotate},
    slice::List,
};

/// Hosts that enrolled.
#[utoipa::path(get, path = "/nodes", tag = "nodes", params(Page),
    responses((status = 200, body = List<Node>), (status = "default", body = Problem)))]
pub(super) async fn list(State(engine): State<Api>, Asked(page): Asked<Page>) -> Json<List<Node>> {
    page.of(engine.nodes().await, |node| node.name.to_string())
}

/// One of them; a host asks for itself alone.
#[utoipa::path(get, path = "/nodes/{name}", tag = "nodes", params(("name" = String, Path)),
    responses((status = 200, body = Node), (status = "default", body = Problem)))]
pub(super) async fn get(
    State(engine): State<Api>,
    Who(who): Who,
    With(shown): With,
    Path(name): Path<String>,
) -> Answer<Json<Node>> {
    let name: Name = part("host", &name)?;
    Ok(Json(engine.node(&who, &name, shown.as_deref()).await?))
}

/// Renew a host's certificate, by itself.
#[utoipa::path(post, path = "/nodes/{name}/certificate", tag = "nodes",
    params(("name" = String, Path)), request_body = Renewal,
    responses((status = 200, body = Enrolled), (status = "default", body = Problem)))]
pub(super) async fn renew(
    State(engine): State<Api>,
    Who(who): Who,
    With(shown): With,
    Path(name): Path<String>,
    body: Body<Renewal>,
) -> Answer<Json<Enrolled>> {
    let name: Name = part("host", &name)?;
    let renewed = engine.renew_certificate(&who, &name, shown.as_deref(), &body.value);
    Ok(Json(renewed.await?))
}

/// Take a host out of the domain; the same again is success.
#[utoipa::path(post, path = "/nodes/{name}/actions/revoke", tag = "nodes",
    params(("name" = String, Path)), request_body = Revoke,
    responses((status = 200, body = Revoked), (status = "default", body = Problem)))]
pub(super) async fn revoke(
    State(engine): State<Api>,
    Who(who): Who,
    Path(name): Path<String>,
    body: Body<Revoke>,
) -> Answer<Json<Revoked>> {
    let name: Name = part("host", &name)?;
    Ok(Json(engine.revoke_node(&who, &name, &body.value).await?))
}

/// Controllers of clusters that enrolled.
#[utoipa::path(get, path = "/clusters", tag = "nodes", params(Page),
    responses((status = 200, body = List<Node>), (status = "default", body = Problem)))]
pub(super) async fn clusters(
    State(engine): State<Api>,
    Asked(page): Asked<Page>,
) -> Json<List<Node>> {
    page.of(engine.clusters().await, |node| node.name.to_string())
}

/// Keep the controller of a cluster out; the same again is success.
#[utoipa::path(post, path = "/clusters/{name}/actions/revoke", tag = "nodes",
    params(("name" = String, Path)), request_body = Revoke,
    responses((status = 200, body = Revoked), (status = "default", body = Problem)))]
pub(super) async fn revoke_cluster(
    State(engine): State<Api>,
    Who(who): Who,
    Path(name): Path<String>,
    body: Body<Revoke>,
) -> Answer<Json<Revoked>> {
    let name: Name = part("cluster", &name)?;
    Ok(Json(engine.revoke_cluster(&who, &name, &body.value).await?))
}

/// End the federation with a domain; the same again is success.
#[utoipa::path(post, path = "/domains/{name}/actions/revoke", tag = "domains",
    params(("name" = String, Path)), request_body = Revoke,
    responses((status = 200, body = Revoked), (status = "default", body = Problem)))]
pub(super) async fn revoke_domain(
    State(engine): State<Api>,
    Who(who): Who,
    Path(name): Path<String>,
    body: Body<Revoke>,
) -> Answer<Json<Revoked>> {
    let name: Name = part("domain", &name)?;
    Ok(Json(engine.revoke_domain(&who, &name, &body.value).await?))
}

/// Another domain tells the keys that it is to be known by.
#[utoipa::path(put, path = "/domains/{name}/keys", tag = "domains",
    params(("name" = String, Path)), request_body = DomainKeys,
    responses((status = 200, body = Domain), (status = "default", body = Problem)))]
pub(super) async fn take_keys(
    State(engine): State<Api>,
    Who(who): Who,
    Path(name): Path<String>,
    body: Body<DomainKeys>,
) -> Answer<Json<Domain>> {
    let name: Name = part("domain", &name)?;
    Ok(Json(engine.take_keys(&who, &name, &body.value).await?))
}

/// The keys of this domain, and who has still to learn new ones.
#[utoipa::path(get, path = "/keys", tag = "domains",
    responses((status = 200, body = Keys), (status = "default", body = Problem)))]
pub(super) async fn keys(State(engine): State<Api>) -> Json<Keys> {
    Json(engine.keys().await)
}

/// Begin to change the keys of this domain, or finish it without waiting.
#[utoipa::path(post, path = "/keys/actions/rotate", tag = "domains", request_body = Rotate,
    responses((status = 200, body = Keys), (status = "default", body = Problem)))]
pub(super) async fn rotate(
    State(engine): State<Api>,
    Who(who): Who,
    body: Body<Rotate>,
) -> Answer<Json<Keys>> {
    Ok(Json(engine.rotate(&who, body.value.finish).await?))
}
