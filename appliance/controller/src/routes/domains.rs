//! Other domains, invitations and enrolment.

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
    domain::{
        Accept, Domain, Enrolled, Enrolment, FederationHello, Invitation, InviteRequest,
        SignedDocument,
    },
    slice::List,
};

/// Invite a host, a Kubernetes cluster or another domain; the secret is shown once.
#[utoipa::path(post, path = "/invitations", tag = "domains", request_body = InviteRequest,
    responses((status = 201, body = Invitation), (status = "default", body = Problem)))]
pub(super) async fn invite(
    State(engine): State<Api>,
    Who(who): Who,
    body: Body<InviteRequest>,
) -> Answer<(StatusCode, Json<Invitation>)> {
    Ok((
        StatusCode::CREATED,
        Json(engine.invite(&who, body.value).await?),
    ))
}

/// Turn an invitation into a host's or a cluster's certificate.
#[utoipa::path(post, path = "/enrolments", tag = "domains", request_body = Enrolment,
    responses((status = 200, body = Enrolled), (status = "default", body = Problem)))]
pub(super) async fn enrol(
    State(engine): State<Api>,
    body: Body<Enrolment>,
) -> Answer<Json<Enrolled>> {
    Ok(Json(engine.enrol(&body.value).await?))
}

/// Federate, by another domain with our invitation.
#[utoipa::path(post, path = "/federations", tag = "domains", request_body = FederationHello,
    responses((status = 200, body = FederationHello), (status = "default", body = Problem)))]
pub(super) async fn federate(
    State(engine): State<Api>,
    body: Body<FederationHello>,
) -> Answer<Json<FederationHello>> {
    Ok(Json(engine.federate(&body.value).await?))
}

/// Domains that this one is federated with.
#[utoipa::path(get, path = "/domains", tag = "domains", params(Page),
    responses((status = 200, body = List<Domain>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(engine): State<Api>,
    Asked(page): Asked<Page>,
) -> Json<List<Domain>> {
    page.of(engine.domains().await, |domain| domain.name.to_string())
}

/// Accept another domain's invitation.
#[utoipa::path(post, path = "/domains", tag = "domains", request_body = Accept,
    responses((status = 201, body = Domain), (status = "default", body = Problem)))]
pub(super) async fn accept(
    State(engine): State<Api>,
    Who(who): Who,
    body: Body<Accept>,
) -> Answer<Tagged<Domain>> {
    let domain = engine.accept(&who, &body.value.invitation).await?;
    let location = format!("{}/domains/{}", dtn_api::VDN_BASE, domain.name);
    Ok(Tagged::made(domain.version, domain, location, false))
}

/// One of them.
#[utoipa::path(get, path = "/domains/{name}", tag = "domains", params(("name" = String, Path)),
    responses((status = 200, body = Domain), (status = "default", body = Problem)))]
pub(super) async fn get(
    State(engine): State<Api>,
    Path(name): Path<String>,
) -> Answer<Tagged<Domain>> {
    let domain = engine.domain(&part("domain", &name)?).await?;
    Ok(Tagged::new(domain.version, domain))
}

/// What this domain says of itself, signed.
#[utoipa::path(get, path = "/domain_document", tag = "domains",
    responses((status = 200, body = SignedDocument), (status = "default", body = Problem)))]
pub(super) async fn document(State(engine): State<Api>) -> Json<SignedDocument> {
    Json(engine.document().await)
}
