//! Gateways, and who may pass them (vNAC).

use super::{
    Api,
    request::{Answer, Asked, Body, DryRun, Headers, Page, Tagged, Who, part},
};
use crate::{access::explain::Asked as Question, engine::Only};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use dtn_api::{
    Name, Problem, VDN_BASE,
    gateway::{
        AccessRule, AccessRules, Explanation, Gateway, GatewayReport, GatewaySpec, StandingRule,
        StandingRules,
    },
    slice::List,
};
use serde::Deserialize;

/// Gateways that are declared.
#[utoipa::path(get, path = "/gateways", tag = "gateways", params(Page),
    responses((status = 200, body = List<Gateway>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(engine): State<Api>,
    Asked(page): Asked<Page>,
) -> Json<List<Gateway>> {
    let wanted = |gateway: &Gateway| {
        let is = |wish: &Option<String>, name: &Name| {
            wish.as_ref().is_none_or(|wish| name.as_str() == wish)
        };
        is(&page.name, &gateway.name) && is(&page.node, &gateway.spec.node)
    };
    let mut gateways = engine.gateways().await;
    gateways.retain(wanted);
    page.of(gateways, |gateway| gateway.name.to_string())
}

/// One gateway.
#[utoipa::path(get, path = "/gateways/{name}", tag = "gateways", params(("name" = String, Path)),
    responses((status = 200, body = Gateway), (status = "default", body = Problem)))]
pub(super) async fn get(
    State(engine): State<Api>,
    Path(name): Path<String>,
) -> Answer<Tagged<Gateway>> {
    let gateway = engine.gateway(&part("gateway", &name)?).await?;
    Ok(Tagged::new(gateway.version, gateway))
}

/// Declare a gateway; the same again is success.
#[utoipa::path(put, path = "/gateways/{name}", tag = "gateways", params(("name" = String, Path)),
    request_body = GatewaySpec,
    responses((status = 200, body = Gateway), (status = "default", body = Problem)))]
pub(super) async fn put(
    State(engine): State<Api>,
    Who(who): Who,
    headers: Headers,
    Path(name): Path<String>,
    body: Body<GatewaySpec>,
) -> Answer<Tagged<Gateway>> {
    let name = part("gateway", &name)?;
    let gateway = engine
        .declare_gateway(&who, &name, body.value, headers.if_match)
        .await?;
    Ok(Tagged::new(gateway.version, gateway))
}

/// Forget a gateway with its access rules.
#[utoipa::path(delete, path = "/gateways/{name}", tag = "gateways", params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(engine): State<Api>,
    Who(who): Who,
    headers: Headers,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    let name = part("gateway", &name)?;
    engine
        .withdraw_gateway(&who, &name, headers.if_match)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Report what the gateway's host has read back from its kernel.
#[utoipa::path(put, path = "/gateways/{name}/report", tag = "gateways",
    params(("name" = String, Path)), request_body = GatewayReport,
    responses((status = 200, body = Gateway), (status = "default", body = Problem)))]
pub(super) async fn report(
    State(engine): State<Api>,
    Who(who): Who,
    Path(name): Path<String>,
    body: Body<GatewayReport>,
) -> Answer<Tagged<Gateway>> {
    let name = part("gateway", &name)?;
    let gateway = engine.report_gateway(&who, &name, body.value).await?;
    Ok(Tagged::new(gateway.version, gateway))
}

/// The access rules of a gateway, in order, with how they stand.
#[utoipa::path(get, path = "/gateways/{name}/access_rules", tag = "gateways",
    params(("name" = String, Path)),
    responses((status = 200, body = StandingRules), (status = "default", body = Problem)))]
pub(super) async fn rules(
    State(engine): State<Api>,
    Who(who): Who,
    Path(name): Path<String>,
) -> Answer<Tagged<StandingRules>> {
    let rules = engine.access(&who, &part("gateway", &name)?).await?;
    Ok(Tagged::new(rules.version, rules))
}

/// Put a whole list in place of the one that is there: all of it, or nothing.
#[utoipa::path(put, path = "/gateways/{name}/access_rules", tag = "gateways",
    params(("name" = String, Path), DryRun), request_body = AccessRules,
    responses((status = 200, body = StandingRules), (status = "default", body = Problem)))]
pub(super) async fn replace(
    State(engine): State<Api>,
    Who(who): Who,
    headers: Headers,
    Path(name): Path<String>,
    Asked(dry): Asked<DryRun>,
    body: Body<AccessRules>,
) -> Answer<Tagged<StandingRules>> {
    let name = part("gateway", &name)?;
    let items = body.value.items;
    let rules = engine
        .replace_access(&who, &name, items, headers.if_match, dry.dry_run)
        .await?;
    Ok(Tagged::new(rules.version, rules))
}

/// One access rule with how it stands.
#[utoipa::path(get, path = "/gateways/{name}/access_rules/{number}", tag = "gateways",
    params(("name" = String, Path), ("number" = u16, Path)),
    responses((status = 200, body = StandingRule), (status = "default", body = Problem)))]
pub(super) async fn rule(
    State(engine): State<Api>,
    Who(who): Who,
    Path((name, number)): Path<(String, String)>,
) -> Answer<Tagged<StandingRule>> {
    let (name, number) = (part("gateway", &name)?, part("number", &number)?);
    let (rule, version) = engine.access_rule(&who, &name, number).await?;
    Ok(Tagged::new(version, rule))
}

/// Make an access rule, or put it in place of the one of its number.
#[utoipa::path(put, path = "/gateways/{name}/access_rules/{number}", tag = "gateways",
    params(("name" = String, Path), ("number" = u16, Path)), request_body = AccessRule,
    responses((status = 201, body = StandingRule), (status = 200, body = StandingRule), (status = "default", body = Problem)))]
pub(super) async fn set(
    State(engine): State<Api>,
    Who(who): Who,
    headers: Headers,
    Path((name, number)): Path<(String, String)>,
    body: Body<AccessRule>,
) -> Answer<Tagged<StandingRule>> {
    let (name, number): (Name, u16) = (part("gateway", &name)?, part("number", &number)?);
    let only = match (headers.if_none_match, headers.if_match) {
        (true, _) => Only::New,
        (false, Some(version)) => Only::Version(version),
        (false, None) => Only::Any,
    };
    let set = engine.set_access(&who, &name, number, body.value, only);
    let (rule, version, fresh) = set.await?;
    if !fresh {
        return Ok(Tagged::new(version, rule));
    }
    let location = format!("{VDN_BASE}/gateways/{name}/access_rules/{number}");
    Ok(Tagged::made(version, rule, location, false))
}

/// Take an access rule out; also when there is none.
#[utoipa::path(delete, path = "/gateways/{name}/access_rules/{number}", tag = "gateways",
    params(("name" = String, Path), ("number" = u16, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn remove(
    State(engine): State<Api>,
    Who(who): Who,
    headers: Headers,
    Path((name, number)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let (name, number) = (part("gateway", &name)?, part("number", &number)?);
    let removed = engine.remove_access(&who, &name, number, headers.if_match);
    removed.await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A packet at a gateway.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default)]
pub(super) struct PacketQuery {
    /// Name of the slice; the one that has one of the addresses when absent.
    slice: Option<String>,
    /// Address that the packet comes from; needed.
    src: Option<String>,
    /// Address that it goes to; needed.
    dst: Option<String>,
    /// `tcp`, `udp`, `sctp` or `icmp`; another one when absent.
    proto: Option<String>,
    /// Port that it comes from; 49152 when absent.
    src_port: Option<String>,
    /// Port that it goes to; needed where the protocol has ports.
    dst_port: Option<String>,
    /// The instant that is asked about; now when absent.
    at: Option<String>,
}

/// What happens to a packet, and to the one that answers it, and why.
#[utoipa::path(get, path = "/gateways/{name}/explain", tag = "gateways",
    params(("name" = String, Path), PacketQuery),
    responses((status = 200, body = Explanation), (status = "default", body = Problem)))]
pub(super) async fn explain(
    State(engine): State<Api>,
    Who(who): Who,
    Path(name): Path<String>,
    Asked(query): Asked<PacketQuery>,
) -> Answer<Json<Explanation>> {
    let question = Question {
        slice: query.slice,
        src: query.src,
        dst: query.dst,
        proto: query.proto,
        src_port: query.src_port,
        dst_port: query.dst_port,
        at: query.at,
    };
    let name = part("gateway", &name)?;
    Ok(Json(engine.explain_access(&who, &name, &question).await?))
}
