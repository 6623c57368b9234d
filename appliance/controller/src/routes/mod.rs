//! The VDN contract v1 below `/vdn/v1`, one file per resource. The OpenAPI document is made from
//! these routes, so that neither can say what the other does not.
//!
//! | path | verbs |
//! | --- | --- |
//! | `/invitations` | POST InviteRequest → Invitation |
//! | `/enrolments` | POST Enrolment → Enrolled (open: the secret is the credential) |
//! | `/federations` | POST FederationHello → FederationHello (open: the secret is the credential) |
//! | `/domains` | GET, POST Accept → Domain; `/domains/{name}` GET |
//! | `/domains/{name}/actions/revoke` | POST Revoke → Revoked |
//! | `/domains/{name}/keys` | PUT DomainKeys → Domain (that domain alone) |
//! | `/keys`, `/keys/actions/rotate` | GET Keys; POST Rotate → Keys |
//! | `/nodes` | GET; `/nodes/{name}` GET Node |
//! | `/nodes/{name}/certificate` | POST Renewal → Enrolled (that host alone) |
//! | `/nodes/{name}/actions/revoke` | POST Revoke → Revoked |
//! | `/clusters` | GET; `/clusters/{name}/actions/revoke` POST Revoke → Revoked |
//! | `/domain_document` | GET SignedDocument |
//! | `/hosts` | GET; `/hosts/{id}` PUT HostSpec → Host, GET, DELETE |
//! | `/slices` | GET `?name=`, POST SliceSpec → Slice `?dry_run=true`; `/slices/{id}` GET, DELETE (If-Match) |
//! | `/slices/{id}/actions/{action}` | POST: commit, abort, provision, release, terminate, extend (Extend) → Slice |
//! | `/slices/{id}/members/{host}` | PUT Member → Slice, DELETE |
//! | `/slices/{id}/enforcement/{host}` | PUT Enforcement → Slice |
//! | `/slices/{id}/leases` | GET, POST LeaseRequest → Lease |
//! | `/leases` | GET `?node=`; `/leases/{id}` GET, PATCH LeasePatch → Lease, DELETE |
//! | `/leases:renew` | POST RenewBatch → List of RenewResult |
//! | `/availability` | POST AvailabilityQuery → Availability |
//! | `/gateways` | GET; `/gateways/{name}` PUT GatewaySpec → Gateway, GET, DELETE |
//! | `/gateways/{name}/report` | PUT GatewayReport → Gateway |
//! | `/gateways/{name}/access_rules` | GET, PUT AccessRules → StandingRules `?dry_run=true` |
//! | `/gateways/{name}/access_rules/{number}` | GET, PUT AccessRule → StandingRule, DELETE |
//! | `/gateways/{name}/explain?src=&dst=&proto=&dst_port=` | GET → Explanation |
//! | `/stitches` | GET, POST StitchSpec → Stitch `?dry_run=true`; `/stitches/{id}` GET |
//! | `/stitches/inbound` | POST StitchProposal → Stitch (other domains alone) |
//! | `/stitches/{id}/actions/{action}` | POST: commit, abort, terminate, extend (Extend) → Stitch |
//! | `/fabric`, `/fabric/differences`, `/fabric/links` | GET FabricStatus, List of Difference, List of FabricLink |
//! | `/fabric/switches/{name}/certificate` | POST SwitchCertificateRequest → SwitchCertificate |
//! | `/topology`, `/events?after=` | GET |
//! | `/config` | GET Running; `/config/reload` POST → Reloaded |
//! | `/openapi.json`, `/healthz`, `/readyz`, `/metrics` | GET |
//!
//! **Headers.** POST on slices, leases and stitches needs an `Idempotency-Key`: it is kept for 24 h,
//! the same key with the same body brings the first answer again (`Idempotency-Replayed: true`),
//! with another body 422. Refusals are not kept: they have changed nothing. Every representation
//! has an `ETag`; `If-Match` is honoured on every write of one, and DELETE of a slice demands it.
//! `If-None-Match: *` makes an access rule only where none of its number is.

mod domains;
mod fabric;
mod gateways;
mod hosts;
mod leases;
mod nodes;
mod request;
mod slices;
mod stitches;
mod system;

use crate::{
    auth::{self, Principal, Shown},
    engine::Engine,
};
use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use dtn_api::{Problem, VDN_BASE, problem::Kind};
use request::Refusal;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Longest body, in bytes.
const LONGEST_BODY: usize = 1 << 20;
/// Requests that are worked on at once; more are told to come again.
const AT_ONCE: usize = 256;
/// Longest time for an answer: two calls to another domain, and some.
const ANSWER: Duration = Duration::from_secs(40);

#[derive(OpenApi)]
#[openapi(info(
    title = "VDN controller",
    description = "Slices, leases, domains and stitches of one VDN domain. Rates are bits per second of Ethernet frames without preamble, gap and checksum. Every refusal is a problem document (RFC 9457)."
))]
struct Document;

type Api = Arc<Engine>;

fn contract() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(domains::invite))
        .routes(routes!(domains::enrol))
        .routes(routes!(domains::federate))
        .routes(routes!(domains::list, domains::accept))
        .routes(routes!(domains::get))
        .routes(routes!(domains::document))
        .routes(routes!(nodes::revoke_domain))
        .routes(routes!(nodes::take_keys))
        .routes(routes!(nodes::keys))
        .routes(routes!(nodes::rotate))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::get))
        .routes(routes!(nodes::renew))
        .routes(routes!(nodes::revoke))
        .routes(routes!(nodes::clusters))
        .routes(routes!(nodes::revoke_cluster))
        .routes(routes!(hosts::list))
        .routes(routes!(hosts::get, hosts::put, hosts::delete))
        .routes(routes!(slices::list, slices::post))
        .routes(routes!(slices::get, slices::delete))
        .routes(routes!(slices::act))
        .routes(routes!(slices::extend))
        .routes(routes!(slices::join, slices::leave))
        .routes(routes!(slices::enforce))
        .routes(routes!(slices::available))
        .routes(routes!(leases::of_slice, leases::post))
        .routes(routes!(leases::list))
        .routes(routes!(leases::get, leases::patch, leases::delete))
        .routes(routes!(leases::renew))
        .routes(routes!(gateways::list))
        .routes(routes!(gateways::get, gateways::put, gateways::delete))
        .routes(routes!(gateways::report))
        .routes(routes!(gateways::rules, gateways::replace))
        .routes(routes!(gateways::rule, gateways::set, gateways::remove))
        .routes(routes!(gateways::explain))
        .routes(routes!(stitches::list, stitches::post))
        .routes(routes!(stitches::inbound))
        .routes(routes!(stitches::get))
        .routes(routes!(stitches::act))
        .routes(routes!(stitches::extend))
        .routes(routes!(fabric::status))
        .routes(routes!(fabric::differences))
        .routes(routes!(fabric::links))
        .routes(routes!(fabric::certify))
        .routes(routes!(system::topology))
        .routes(routes!(system::events))
        .routes(routes!(system::config))
        .routes(routes!(system::reload))
        .routes(routes!(system::healthz))
        .routes(routes!(system::readyz))
        .routes(routes!(system::metrics))
        .routes(routes!(system::openapi))
}

/// The OpenAPI document, made from the routes.
pub fn document() -> utoipa::openapi::OpenApi {
    OpenApiRouter::new().nest(VDN_BASE, contract()).to_openapi()
}

/// The contract, served.
pub fn router(engine: Arc<Engine>) -> Router {
    let (routes, _) = OpenApiRouter::new()
        .nest(VDN_BASE, contract())
        .split_for_parts();
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    routes
        .method_not_allowed_fallback(request::no_such_method)
        .route_layer(middleware::from_fn_with_state(engine.clone(), authorize))
        .fallback(request::no_such_path)
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .layer(middleware::from_fn_with_state(slots, bounded))
        .layer(middleware::from_fn(request::with_request_id))
        .with_state(engine)
}

/// Deny unless it is permitted.
async fn authorize(
    State(engine): State<Api>,
    path: MatchedPath,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let mut who = request
        .extensions()
        .get::<Principal>()
        .cloned()
        .unwrap_or(Principal::Anonymous);
    if who == Principal::Anonymous {
        let bearer = request.headers().get(header::AUTHORIZATION);
        let token = bearer
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("Bearer "));
        if let Some(token) = token
            && auth::is_operator(engine.config().token_file.as_deref(), token)?
        {
            who = Principal::Operator;
        }
    }
    let shown = request.extensions().get::<Shown>().cloned();
    engine
        .admit(&who, shown.unwrap_or_default().0.as_deref())
        .await?;
    let route = path
        .as_str()
        .strip_prefix(VDN_BASE)
        .unwrap_or(path.as_str());
    if !auth::permits(&who, request.method(), route) {
        return Err(auth::refusal(&who, request.method(), request.uri().path()).into());
    }
    request.extensions_mut().insert(who);
    Ok(next.run(request).await)
}

/// Bounded in number and in time.
async fn bounded(State(slots): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(_slot) = slots.try_acquire() else {
        let problem = Problem::new(
            Kind::RateLimited,
            format!("{AT_ONCE} requests are worked on: come again"),
        );
        let mut response = Refusal(problem).into_response();
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    };
    match timeout(ANSWER, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal(Problem::new(
            Kind::PeerTimeout,
            format!("no answer within {} s", ANSWER.as_secs()),
        ))
        .into_response(),
    }
}
