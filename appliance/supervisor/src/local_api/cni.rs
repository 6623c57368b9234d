//! Pods, and what the plugins ask for.

use super::Views;
use axum::Router;
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Views>> {
    Router::new()
}
