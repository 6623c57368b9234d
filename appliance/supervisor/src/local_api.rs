//! The contract of `dtnd` on its unix socket (`dtn_api::local`), for root and the
//! operators that the socket lets in.
//!
//! hyper serves: a limit on connections, deadlines on headers and answers, a limit on bodies, and a
//! drain at the end. axum routes. Every answer that is not a success is a problem document.

mod cni;
mod host;
mod refuse;
pub mod rights;
pub mod serve;
mod slices;
mod views;

pub use views::Views;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};
use dtn_api::LOCAL_BASE;
use std::sync::Arc;

/// Longest body that is read, bytes.
const LARGEST_BODY: usize = 1 << 20;

/// All routes.
pub fn router(views: Arc<Views>) -> Router {
    let for_root = Router::new()
        .route("/join", post(host::join))
        .route("/renew", post(host::renew))
        .route("/config/trial", post(host::attempt).delete(host::take_back))
        .route("/config/confirm", post(host::confirm))
        .merge(cni::for_root())
        .route_layer(middleware::from_fn(rights::root_alone));
    let contract = Router::new()
        .route("/status", get(host::status))
        .route("/ready", get(host::ready))
        .route("/nics", get(host::nics))
        .route("/leases", get(host::leases))
        .route("/gateways", get(host::gateways))
        .route("/config", get(host::config))
        .route("/config/reload", post(host::reload))
        .route("/metrics", get(host::metrics))
        .route("/slices", get(slices::list).post(slices::ask))
        .route("/slices/{name}", get(slices::get).delete(slices::delete))
        .route("/slices/{name}/extend", post(slices::extend))
        .route("/negotiations/{id}", get(slices::negotiation))
        .merge(cni::routes())
        .merge(for_root);
    Router::new()
        .nest(LOCAL_BASE, contract)
        .route("/metrics", get(host::metrics))
        .fallback(refuse::no_such_path)
        .method_not_allowed_fallback(refuse::no_such_method)
        .layer(middleware::from_fn(refuse::with_request_id))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(views)
}

/// Metrics alone, for a loopback address.
pub fn metrics_router(views: Arc<Views>) -> Router {
    Router::new()
        .route("/metrics", get(host::metrics))
        .fallback(refuse::no_such_path)
        .with_state(views)
}
