//! Leases of vDHCP.

use super::{
    Api,
    request::{Answer, Asked, Body, Headers, Page, Tagged, Who, part},
};
use crate::engine::Once;
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use dtn_api::{
    Name, Problem, VDN_BASE,
    lease::{Lease, LeasePatch, LeaseRequest, RenewBatch, RenewResult},
    problem::Kind,
    slice::List,
};
use uuid::Uuid;

/// Leases of one slice.
#[utoipa::path(get, path = "/slices/{id}/leases", tag = "leases", params(("id" = Uuid, Path), Page),
    responses((status = 200, body = List<Lease>), (status = "default", body = Problem)))]
pub(super) async fn of_slice(
    State(engine): State<Api>,
    Who(who): Who,
    Path(id): Path<String>,
    Asked(page): Asked<Page>,
) -> Answer<Json<List<Lease>>> {
    let leases = engine.leases(&who, Some(part("slice", &id)?), None).await;
    Ok(page.of(leases, |lease| lease.id.to_string()))
}

/// The client's lease: 201 when it was made now, 200 when the client has it already.
#[utoipa::path(post, path = "/slices/{id}/leases", tag = "leases", params(("id" = Uuid, Path)),
    request_body = LeaseRequest,
    responses((status = 201, body = Lease), (status = 200, body = Lease), (status = "default", body = Problem)))]
pub(super) async fn post(
    State(engine): State<Api>,
    Who(who): Who,
    headers: Headers,
    Path(id): Path<String>,
    body: Body<LeaseRequest>,
) -> Answer<Tagged<Lease>> {
    let slice: Uuid = part("slice", &id)?;
    let path = format!("/slices/{slice}/leases");
    let once = Once::new(&who, headers.key.as_deref(), &path, &body.bytes)?;
    let (lease, fresh) = engine.lease(&who, &once, slice, &body.value).await?;
    if !fresh {
        return Ok(Tagged::new(lease.version, lease));
    }
    let location = format!("{VDN_BASE}/leases/{}", lease.id);
    Ok(Tagged::made(lease.version, lease, location, false))
}

/// Leases that are held.
#[utoipa::path(get, path = "/leases", tag = "leases", params(Page),
    responses((status = 200, body = List<Lease>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(engine): State<Api>,
    Who(who): Who,
    Asked(page): Asked<Page>,
) -> Answer<Json<List<Lease>>> {
    let node: Option<Name> = page.node.as_deref().map(|n| part("node", n)).transpose()?;
    let leases = engine.leases(&who, None, node.as_ref()).await;
    Ok(page.of(leases, |lease| lease.id.to_string()))
}

/// One lease.
#[utoipa::path(get, path = "/leases/{id}", tag = "leases", params(("id" = Uuid, Path)),
    responses((status = 200, body = Lease), (status = "default", body = Problem)))]
pub(super) async fn get(
    State(engine): State<Api>,
    Who(who): Who,
    Path(id): Path<String>,
) -> Answer<Tagged<Lease>> {
    let lease = engine.lease_of(&who, part("lease", &id)?).await?;
    Ok(Tagged::new(lease.version, lease))
}

/// Renew a lease.
#[utoipa::path(patch, path = "/leases/{id}", tag = "leases", params(("id" = Uuid, Path)),
    request_body = LeasePatch,
    responses((status = 200, body = Lease), (status = "default", body = Problem)))]
pub(super) async fn patch(
    State(engine): State<Api>,
    Who(who): Who,
    Path(id): Path<String>,
    body: Body<LeasePatch>,
) -> Answer<Tagged<Lease>> {
    if !body.value.renew {
        let problem = Problem::new(Kind::InvalidRequest, "nothing is asked for");
        return Err(problem
            .at(
                "/renew",
                "must be true: a lease is changed by renewal alone",
            )
            .into());
    }
    let lease = engine.renew(&who, part("lease", &id)?).await?;
    Ok(Tagged::new(lease.version, lease))
}

/// Give a lease back; also when there is none.
#[utoipa::path(delete, path = "/leases/{id}", tag = "leases", params(("id" = Uuid, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(engine): State<Api>,
    Who(who): Who,
    Path(id): Path<String>,
) -> Answer<StatusCode> {
    engine.release(&who, part("lease", &id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Renew many, each by itself.
#[utoipa::path(post, path = "/leases:renew", tag = "leases", request_body = RenewBatch,
    responses((status = 200, body = List<RenewResult>), (status = "default", body = Problem)))]
pub(super) async fn renew(
    State(engine): State<Api>,
    Who(who): Who,
    body: Body<RenewBatch>,
) -> Answer<Json<List<RenewResult>>> {
    let items = engine.renew_all(&who, &body.value.ids).await?;
    Ok(Json(List {
        items,
        next_page_token: None,
    }))
}
