//! What enforces slices: how it stands, and where it differs from what is wanted.

use super::{
    Api,
    request::{Answer, Body, Who, part},
};
use axum::{
    Json,
    extract::{Path, State},
};
use dtn_api::{
    Name, Problem,
    fabric::{
        Difference, FabricLink, FabricStatus, Guarded, SwitchCertificate, SwitchCertificateRequest,
    },
    slice::List,
};

/// How the fabric stands.
#[utoipa::path(get, path = "/fabric", tag = "fabric",
    responses((status = 200, body = FabricStatus), (status = "default", body = Problem)))]
pub(super) async fn status(State(engine): State<Api>) -> Json<FabricStatus> {
    let fabric = engine.fabric();
    let counters = fabric.counters();
    let slices = engine.look(|state, _| {
        let named = |(id, counters): (&uuid::Uuid, &_)| {
            let booking = state.bookings.get(id)?;
            Some(Guarded {
                slice_id: *id,
                name: booking.slice.spec.name.clone(),
                counters: *counters,
            })
        };
        counters.iter().filter_map(named).collect()
    });
    Json(FabricStatus {
        kind: fabric.name().to_owned(),
        trouble: fabric.trouble(),
        switches: fabric.switches(),
        slices: slices.await,
    })
}

/// What the switches have, read now, held against what is wanted, rule by rule.
#[utoipa::path(get, path = "/fabric/differences", tag = "fabric",
    responses((status = 200, body = List<Difference>), (status = "default", body = Problem)))]
pub(super) async fn differences(State(engine): State<Api>) -> Answer<Json<List<Difference>>> {
    Ok(Json(List {
        items: engine.fabric().check().await,
        next_page_token: None,
    }))
}

/// How the switches are joined, as they see it, and the cables of the configuration.
#[utoipa::path(get, path = "/fabric/links", tag = "fabric",
    responses((status = 200, body = List<FabricLink>), (status = "default", body = Problem)))]
pub(super) async fn links(State(engine): State<Api>) -> Json<List<FabricLink>> {
    Json(List {
        items: engine.fabric().links(),
        next_page_token: None,
    })
}

/// A certificate for a switch of the configuration, so that it can connect over TLS.
#[utoipa::path(post, path = "/fabric/switches/{name}/certificate", tag = "fabric",
    request_body = SwitchCertificateRequest, params(("name" = String, Path)),
    responses((status = 200, body = SwitchCertificate), (status = "default", body = Problem)))]
pub(super) async fn certify(
    State(engine): State<Api>,
    Who(who): Who,
    Path(name): Path<String>,
    body: Body<SwitchCertificateRequest>,
) -> Answer<Json<SwitchCertificate>> {
    let name: Name = part("switch", &name)?;
    Ok(Json(
        engine
            .certify_switch(&who, &name, &body.value.csr_pem)
            .await?,
    ))
}
