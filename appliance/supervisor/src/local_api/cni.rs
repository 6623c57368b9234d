//! Pods, and what the plugins ask for.

use super::{
    Views,
    host::listed,
    refuse::{Answer, Body, part},
    rights::Caller,
};
use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use dtn_api::{
    Name, Problem,
    attachment::Prepared,
    local::{DeployRequest, Notice, Pod, PrepareRequest},
    problem::Kind,
    slice::List,
};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

/// Lines of a log when no other number is asked for.
const TAIL: u32 = 200;

pub(super) fn routes() -> Router<Arc<Views>> {
    Router::new()
        .route("/pods", get(list).post(deploy))
        .route("/pods/{name}", get(one).delete(undeploy))
        .route("/pods/{name}/logs", get(logs))
}

/// What the plugins ask for.
pub(super) fn for_root() -> Router<Arc<Views>> {
    Router::new()
        .route("/cni/prepare", post(prepare))
        .route("/cni/attached", post(notice))
        .route("/cni/detached", post(notice))
}

async fn list(State(views): State<Arc<Views>>) -> Answer<Json<List<Pod>>> {
    Ok(listed(views.pods.list().await?))
}

/// The pod, once it runs; with `dry_run` the manifest that the engine would be given, as text.
async fn deploy(
    State(views): State<Arc<Views>>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<DeployRequest>,
) -> Answer<Response> {
    if caller == Caller::Member {
        let named = views.pods.named_folders(&request)?;
        if !named.is_empty() {
            let why = "folders of the host are named by root alone";
            let problem = named
                .iter()
                .fold(Problem::new(Kind::Forbidden, why), |all, name| {
                    let remedy = "leave it out, and it is below data.dir; or ask again with sudo";
                    all.at(format!("/values/{name}"), remedy)
                });
            return Err(problem.into());
        }
    }
    if request.dry_run {
        return Ok(Json(views.pods.rendered(&request)?).into_response());
    }
    let pod = views.pods.deploy(request).await?;
    Ok((StatusCode::CREATED, Json(pod)).into_response())
}

async fn one(State(views): State<Arc<Views>>, Path(name): Path<String>) -> Answer<Json<Pod>> {
    let name: Name = part("pod", &name)?;
    Ok(Json(views.pods.get(&name).await?))
}

async fn undeploy(State(views): State<Arc<Views>>, Path(name): Path<String>) -> Answer<StatusCode> {
    let name: Name = part("pod", &name)?;
    views.pods.undeploy(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Tail {
    tail: Option<u32>,
}

/// The last lines of each container.
async fn logs(
    State(views): State<Arc<Views>>,
    Path(name): Path<String>,
    Query(query): Query<Tail>,
) -> Answer<Json<BTreeMap<String, String>>> {
    let name: Name = part("pod", &name)?;
    let tail = query.tail.unwrap_or(TAIL);
    Ok(Json(views.pods.logs(&name, tail).await?))
}

async fn prepare(
    State(views): State<Arc<Views>>,
    Body(request): Body<PrepareRequest>,
) -> Answer<Json<Prepared>> {
    Ok(Json(views.pods.prepare(request).await?))
}

/// A hint only: it is taken note of and looked at soon.
async fn notice(State(views): State<Arc<Views>>, Body(notice): Body<Notice>) -> Answer<StatusCode> {
    views.pods.notice(&notice);
    if let Some(cluster) = &views.cluster {
        cluster.notice();
    }
    Ok(StatusCode::NO_CONTENT)
}
