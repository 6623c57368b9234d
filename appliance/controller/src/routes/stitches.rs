//! Stitches: end-to-end slices over a border link.

use super::{
    Api,
    request::{Answer, Asked, Body, DryRun, Headers, Page, Tagged, Who, part},
    slices::named,
};
use crate::{engine::Once, slices::Action};
use axum::{
    Json,
    extract::{Path, State},
};
use dtn_api::{
    Problem, VDN_BASE,
    problem::Kind,
    slice::{Extend, List},
    stitch::{Stitch, StitchProposal, StitchSpec},
};

/// Stitches, ended ones too.
#[utoipa::path(get, path = "/stitches", tag = "stitches", params(Page),
    responses((status = 200, body = List<Stitch>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(engine): State<Api>,
    Asked(page): Asked<Page>,
) -> Json<List<Stitch>> {
    let stitches = engine.look(|state, _| {
        state
            .stitches
            .values()
            .map(|row| row.stitch.clone())
            .collect::<Vec<_>>()
    });
    page.of(stitches.await, |stitch| stitch.id.to_string())
}

/// Hold an end-to-end slice in both domains.
#[utoipa::path(post, path = "/stitches", tag = "stitches", params(DryRun), request_body = StitchSpec,
    responses((status = 201, body = Stitch), (status = "default", body = Problem)))]
pub(super) async fn post(
    State(engine): State<Api>,
    Who(who): Who,
    headers: Headers,
    Asked(dry): Asked<DryRun>,
    body: Body<StitchSpec>,
) -> Answer<Tagged<Stitch>> {
    if dry.dry_run {
        let why = "a stitch cannot be tried without holding: ask POST /availability with remote";
        return Err(Problem::new(Kind::NotBuilt, why).at("", "dry_run").into());
    }
    let once = Once::new(&who, headers.key.as_deref(), "/stitches", &body.bytes)?;
    // to its end even when whoever asked is gone: nobody else would tell what the other domain said
    let held = tokio::spawn(async move { engine.stitch(&who, &once, body.value).await });
    let made = held
        .await
        .map_err(|e| Problem::new(Kind::Internal, format!("holding both ends: {e}")))??;
    let location = format!("{VDN_BASE}/stitches/{}", made.body.id);
    Ok(Tagged::made(
        made.body.version,
        made.body,
        location,
        made.replayed,
    ))
}

/// Hold this domain's end, asked by the other domain; the key is the stitch's id.
#[utoipa::path(post, path = "/stitches/inbound", tag = "stitches", request_body = StitchProposal,
    responses((status = 201, body = Stitch), (status = "default", body = Problem)))]
pub(super) async fn inbound(
    State(engine): State<Api>,
    Who(who): Who,
    headers: Headers,
    body: Body<StitchProposal>,
) -> Answer<Tagged<Stitch>> {
    let once = Once::new(
        &who,
        headers.key.as_deref(),
        "/stitches/inbound",
        &body.bytes,
    )?;
    let held = engine.inbound(&who, &once, body.value).await?;
    let location = format!("{VDN_BASE}/stitches/{}", held.body.id);
    Ok(Tagged::made(
        held.body.version,
        held.body,
        location,
        held.replayed,
    ))
}

/// One stitch.
#[utoipa::path(get, path = "/stitches/{id}", tag = "stitches", params(("id" = Uuid, Path)),
    responses((status = 200, body = Stitch), (status = "default", body = Problem)))]
pub(super) async fn get(
    State(engine): State<Api>,
    Who(who): Who,
    Path(id): Path<String>,
) -> Answer<Tagged<Stitch>> {
    let row = engine.stitch_row(&who, part("stitch", &id)?).await?;
    Ok(Tagged::new(row.stitch.version, row.stitch))
}

/// Act on both ends: commit, abort or terminate.
#[utoipa::path(post, path = "/stitches/{id}/actions/{action}", tag = "stitches",
    params(("id" = Uuid, Path), ("action" = String, Path)),
    responses((status = 200, body = Stitch), (status = "default", body = Problem)))]
pub(super) async fn act(
    State(engine): State<Api>,
    Who(who): Who,
    headers: Headers,
    Path((id, action)): Path<(String, String)>,
) -> Answer<Tagged<Stitch>> {
    let id = part("stitch", &id)?;
    let stitch = engine
        .act_on_stitch(&who, id, named(&action)?, headers.if_match)
        .await?;
    Ok(Tagged::new(stitch.version, stitch))
}

/// Give both ends a later end.
#[utoipa::path(post, path = "/stitches/{id}/actions/extend", tag = "stitches",
    params(("id" = Uuid, Path)), request_body = Extend,
    responses((status = 200, body = Stitch), (status = "default", body = Problem)))]
pub(super) async fn extend(
    State(engine): State<Api>,
    Who(who): Who,
    headers: Headers,
    Path(id): Path<String>,
    body: Body<Extend>,
) -> Answer<Tagged<Stitch>> {
    let action = Action::Extend(body.value.end);
    let stitch = engine
        .act_on_stitch(&who, part("stitch", &id)?, action, headers.if_match)
        .await?;
    Ok(Tagged::new(stitch.version, stitch))
}
