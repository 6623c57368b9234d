//! Slices. What is asked of one end of a stitched slice is asked of both.

use super::{
    Api,
    request::{Answer, Asked, Body, DryRun, Headers, Page, Refusal, Tagged, Who, part},
};
use crate::{auth::Principal, engine::Once, slices::Action};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use dtn_api::{
    HostId, Problem, VDN_BASE,
    host::Enforcement,
    problem::Kind,
    slice::{Availability, AvailabilityQuery, Extend, List, Member, Slice, SliceSpec},
};
use uuid::Uuid;

/// Slices, ended ones too.
#[utoipa::path(get, path = "/slices", tag = "slices", params(Page),
    responses((status = 200, body = List<Slice>), (status = "default", body = Problem)))]
pub(super) async fn list(State(engine): State<Api>, Asked(page): Asked<Page>) -> Json<List<Slice>> {
    let name = page.name.clone();
    let wanted = |slice: &&Slice| name.as_ref().is_none_or(|n| slice.spec.name.as_str() == n);
    let slices = engine.look(|state, _| {
        state
            .bookings
            .values()
            .map(|b| &b.slice)
            .filter(wanted)
            .cloned()
            .collect::<Vec<_>>()
    });
    page.of(slices.await, |slice| slice.id.to_string())
}

/// Ask for a slice within the domain: held, to be committed.
#[utoipa::path(post, path = "/slices", tag = "slices", params(DryRun), request_body = SliceSpec,
    responses((status = 201, body = Slice), (status = 200, body = Slice), (status = "default", body = Problem)))]
pub(super) async fn post(
    State(engine): State<Api>,
    Who(who): Who,
    headers: Headers,
    Asked(dry): Asked<DryRun>,
    body: Body<SliceSpec>,
) -> Answer<Tagged<Slice>> {
    if dry.dry_run {
        let slice = engine.would_ask(body.value).await?;
        return Ok(Tagged::new(slice.version, slice));
    }
    let once = Once::new(&who, headers.key.as_deref(), "/slices", &body.bytes)?;
    let made = engine.ask(&who, &once, body.value).await?;
    let location = format!("{VDN_BASE}/slices/{}", made.body.id);
    Ok(Tagged::made(
        made.body.version,
        made.body,
        location,
        made.replayed,
    ))
}

/// One slice.
#[utoipa::path(get, path = "/slices/{id}", tag = "slices", params(("id" = Uuid, Path)),
    responses((status = 200, body = Slice), (status = "default", body = Problem)))]
pub(super) async fn get(
    State(engine): State<Api>,
    Path(id): Path<String>,
) -> Answer<Tagged<Slice>> {
    read(&engine, part("slice", &id)?).await
}

async fn read(engine: &Api, id: Uuid) -> Answer<Tagged<Slice>> {
    let found = engine
        .look(|state, _| state.bookings.get(&id).map(|b| b.slice.clone()))
        .await;
    let slice =
        found.ok_or_else(|| Problem::new(Kind::NotFound, format!("there is no slice {id}")))?;
    Ok(Tagged::new(slice.version, slice))
}

/// End a slice; needs If-Match.
#[utoipa::path(delete, path = "/slices/{id}", tag = "slices", params(("id" = Uuid, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(engine): State<Api>,
    Who(who): Who,
    headers: Headers,
    Path(id): Path<String>,
) -> Answer<StatusCode> {
    let id = part("slice", &id)?;
    if headers.if_match.is_none() {
        let why = format!("DELETE of slice {id} needs If-Match with its ETag: read it first");
        return Err(Problem::new(Kind::PreconditionRequired, why).into());
    }
    either(&engine, &who, id, Action::Terminate, headers.if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Act on a slice: commit, abort, provision, release or terminate.
#[utoipa::path(post, path = "/slices/{id}/actions/{action}", tag = "slices",
    params(("id" = Uuid, Path), ("action" = String, Path)),
    responses((status = 200, body = Slice), (status = "default", body = Problem)))]
pub(super) async fn act(
    State(engine): State<Api>,
    Who(who): Who,
    headers: Headers,
    Path((id, action)): Path<(String, String)>,
) -> Answer<Tagged<Slice>> {
    let action = named(&action)?;
    either(&engine, &who, part("slice", &id)?, action, headers.if_match).await
}

/// Give a slice a later end.
#[utoipa::path(post, path = "/slices/{id}/actions/extend", tag = "slices",
    params(("id" = Uuid, Path)), request_body = Extend,
    responses((status = 200, body = Slice), (status = "default", body = Problem)))]
pub(super) async fn extend(
    State(engine): State<Api>,
    Who(who): Who,
    headers: Headers,
    Path(id): Path<String>,
    body: Body<Extend>,
) -> Answer<Tagged<Slice>> {
    let action = Action::Extend(body.value.end);
    either(&engine, &who, part("slice", &id)?, action, headers.if_match).await
}

pub(super) fn named(action: &str) -> Answer<Action> {
    Ok(match action {
        "commit" => Action::Commit,
        "abort" => Action::Abort,
        "provision" => Action::Provision,
        "release" => Action::Release,
        "terminate" => Action::Terminate,
        other => {
            let why = format!(
                "no action {other:?}: there are commit, abort, provision, release, terminate and extend"
            );
            return Err(Refusal(Problem::new(Kind::NotFound, why)));
        }
    })
}

/// The slice alone, or both ends of its stitch.
async fn either(
    engine: &Api,
    who: &Principal,
    id: Uuid,
    action: Action,
    if_match: Option<u64>,
) -> Answer<Tagged<Slice>> {
    let both = matches!(action, Action::Terminate | Action::Extend(_));
    match engine.stitch_of(id).await?.filter(|_| both) {
        Some(stitch) => {
            let current = read(engine, id).await?;
            crate::engine::check_version(if_match, current.version, "the slice")?;
            engine.act_on_stitch(who, stitch, action, None).await?;
        }
        None => drop(engine.act(who, id, action, if_match).await?),
    }
    read(engine, id).await
}

/// Let another NIC of the domain in, or a pod on a NIC of the slice, while it lasts.
#[utoipa::path(put, path = "/slices/{id}/members/{host}", tag = "slices",
    params(("id" = Uuid, Path), ("host" = String, Path)), request_body = Member,
    responses((status = 200, body = Slice), (status = "default", body = Problem)))]
pub(super) async fn join(
    State(engine): State<Api>,
    Who(who): Who,
    Path((id, host)): Path<(String, String)>,
    body: Body<Member>,
) -> Answer<Tagged<Slice>> {
    let (id, host) = (part("slice", &id)?, part("host", &host)?);
    own_host(&engine, &who, &host).await?;
    let slice = engine.join(&who, id, &host, body.value).await?;
    Ok(Tagged::new(slice.version, slice))
}

/// Take a pod or a NIC out.
#[utoipa::path(delete, path = "/slices/{id}/members/{host}", tag = "slices",
    params(("id" = Uuid, Path), ("host" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn leave(
    State(engine): State<Api>,
    Who(who): Who,
    Path((id, host)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let (id, host) = (part("slice", &id)?, part("host", &host)?);
    own_host(&engine, &who, &host).await?;
    engine.leave(&who, id, &host).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Report how a member is paced, read back from the kernel.
#[utoipa::path(put, path = "/slices/{id}/enforcement/{host}", tag = "slices",
    params(("id" = Uuid, Path), ("host" = String, Path)), request_body = Enforcement,
    responses((status = 200, body = Slice), (status = "default", body = Problem)))]
pub(super) async fn enforce(
    State(engine): State<Api>,
    Who(who): Who,
    Path((id, host)): Path<(String, String)>,
    body: Body<Enforcement>,
) -> Answer<Tagged<Slice>> {
    let (id, host) = (part("slice", &id)?, part("host", &host)?);
    own_host(&engine, &who, &host).await?;
    let slice = engine.enforce(&who, id, &host, body.value).await?;
    Ok(Tagged::new(slice.version, slice))
}

/// A node acts for its own hosts alone; one that is not known is told by the handler.
async fn own_host(engine: &Api, who: &Principal, host: &HostId) -> Answer<()> {
    let node = engine
        .look(|state, _| state.hosts.get(host).map(|h| h.spec.node.clone()))
        .await;
    match node {
        Some(node) => Ok(crate::auth::own_node(who, &node)?),
        None => Ok(()),
    }
}

/// What could be had, and what limits it.
#[utoipa::path(post, path = "/availability", tag = "slices", request_body = AvailabilityQuery,
    responses((status = 200, body = Availability), (status = "default", body = Problem)))]
pub(super) async fn available(
    State(engine): State<Api>,
    Who(who): Who,
    body: Body<AvailabilityQuery>,
) -> Answer<Json<Availability>> {
    if let Principal::Peer(peer) = &who {
        if body.value.remote.is_some() {
            let why = "another domain asks for this domain's own links";
            return Err(Problem::new(Kind::Forbidden, why)
                .at("/remote", "leave it out")
                .into());
        }
        engine.offered_to(peer, &body.value.members).await?;
    }
    Ok(Json(engine.available(&body.value).await?))
}
