//! Slices and negotiations.

use super::{
    Views,
    host::listed,
    refuse::{Answer, Body, part},
};
use crate::{driver, slices};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use dtn_api::{
    Name, Problem,
    local::{Ask, ExtendRequest, LocalSlice, Negotiation, NegotiationState},
    problem::Kind,
    slice::{List, Reservation, Slice},
};
use jiff::Timestamp;
use std::sync::Arc;
use uuid::Uuid;

/// The slices of this host, as the controller has them now, or as they were last read.
pub(super) async fn list(State(views): State<Arc<Views>>) -> Json<List<LocalSlice>> {
    listed(views.slices().await)
}

/// Asks, and waits until it is agreed, refused, or waiting for a window. 201 when there is a slice
/// now, 202 while it is not settled, 200 otherwise.
pub(super) async fn ask(
    State(views): State<Arc<Views>>,
    Body(ask): Body<Ask>,
) -> Answer<(StatusCode, Json<Negotiation>)> {
    let negotiation = views.negotiations.ask(ask).await?;
    let status = match negotiation.state {
        NegotiationState::Agreed => StatusCode::CREATED,
        NegotiationState::Refused | NegotiationState::Failed | NegotiationState::Ended => {
            StatusCode::OK
        }
        _ => StatusCode::ACCEPTED,
    };
    if status == StatusCode::CREATED {
        views.look_at_slices().await;
    }
    Ok((status, Json(negotiation)))
}

pub(super) async fn negotiation(
    State(views): State<Arc<Views>>,
    Path(id): Path<String>,
) -> Answer<Json<Negotiation>> {
    let id: Uuid = part("negotiation", &id)?;
    let found = views.negotiations.get(id).ok_or_else(|| {
        Problem::new(
            Kind::NotFound,
            format!("no negotiation {id} on this host: finished ones are kept for a day"),
        )
    })?;
    Ok(Json(found))
}

pub(super) async fn get(
    State(views): State<Arc<Views>>,
    Path(name): Path<String>,
) -> Answer<Json<LocalSlice>> {
    let name: Name = part("slice", &name)?;
    views.look_at_slices().await;
    let view = views.host.uplink.watch().borrow().clone();
    let now = Timestamp::now();
    let known = newest(&view.slices, &name, now).cloned();
    let slice = match known {
        Some(slice) => slice,
        // of this domain, though not of a NIC of this host
        None => views.host.uplink.slice_by_name(&name).await?,
    };
    Ok(Json(slices::local(slice, &views.paced(), &view, now)))
}

fn newest<'a>(all: &'a [Slice], name: &Name, now: Timestamp) -> Option<&'a Slice> {
    all.iter()
        .filter(|slice| slice.spec.name == *name)
        .max_by_key(|slice| (slice.booked_at(now), slice.created_at))
}

/// Ends a slice on every side. Success when there is none.
pub(super) async fn delete(
    State(views): State<Arc<Views>>,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    let name: Name = part("slice", &name)?;
    if let Some(negotiation) = views.negotiations.withdraw(&name).await {
        if !matches!(
            negotiation.state,
            NegotiationState::Ended | NegotiationState::Failed | NegotiationState::Refused
        ) {
            return Err(Problem::new(
                Kind::RequestInProgress,
                format!(
                    "slice {name} is being given back and will be: {}",
                    negotiation.reason
                ),
            )
            .into());
        }
    } else {
        // one that this host did not negotiate: the other domain's, or an operator's
        match views.host.uplink.slice_by_name(&name).await {
            Ok(slice) if slice.booked_at(Timestamp::now()) => match slice.stitch {
                Some(stitch) => driver::end_stitch(&views.host, stitch).await?,
                None => driver::end_slice(&views.host, slice.id).await?,
            },
            Ok(_) => {}
            Err(problem) if problem.is(Kind::NotFound) => {}
            Err(problem) => return Err(problem.into()),
        }
    }
    views.look_at_slices().await;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn extend(
    State(views): State<Arc<Views>>,
    Path(name): Path<String>,
    Body(request): Body<ExtendRequest>,
) -> Answer<Json<LocalSlice>> {
    let name: Name = part("slice", &name)?;
    let slice = views.host.uplink.slice_by_name(&name).await?;
    let now = Timestamp::now();
    if slice.status.reservation != Reservation::Committed || !slice.booked_at(now) {
        return Err(Problem::new(
            Kind::StateConflict,
            format!(
                "slice {name} is not booked now ({:?}, {:?}, until {}): reserve it anew",
                slice.status.reservation, slice.status.lifecycle, slice.spec.schedule.end
            ),
        )
        .into());
    }
    let end = slice
        .spec
        .schedule
        .end
        .checked_add(request.by.duration())
        .map_err(|e| {
            Problem::new(
                Kind::InvalidRequest,
                format!("{name} by {}: {e}", request.by),
            )
        })?;
    let longer = views.host.uplink.extend(slice.id, end).await?;
    views.negotiations.look(longer.id);
    views.look_at_slices().await;
    let view = views.host.uplink.watch().borrow().clone();
    Ok(Json(slices::local(longer, &views.paced(), &view, now)))
}
