//! How the socket says no: problem documents with a request's id, and bodies that are read with
//! their faults told.

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use dtn_api::{Problem, problem::Kind};
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// A problem as an answer.
pub(super) struct Refusal(pub(super) Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let json = HeaderValue::from_static("application/problem+json");
        let mut response = (status, Json(&self.0)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if self.0.retryable {
            let soon = HeaderValue::from_static("2");
            response.headers_mut().insert(header::RETRY_AFTER, soon);
        }
        response.extensions_mut().insert(self.0);
        response
    }
}

/// What a handler answers.
pub(super) type Answer<T> = Result<T, Refusal>;

/// A JSON body; what is wrong with it is told with its place.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|e| Problem::new(Kind::InvalidRequest, format!("reading the body: {e}")))?;
        let read = serde_json::from_slice(&bytes);
        Ok(Self(read.map_err(|e| {
            Problem::new(
                Kind::InvalidRequest,
                format!("the body is not what this path takes: {e}"),
            )
        })?))
    }
}

/// Gives every request an id: in the log, in the header, and in the problem.
pub(super) async fn with_request_id(request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let began = std::time::Instant::now();
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let problem = Problem {
            instance: Some(path.clone()),
            request_id: Some(id.clone()),
            ..problem
        };
        tracing::info!(request = id, %method, path, status = problem.status, "{problem}");
        response = Refusal(problem).into_response();
    } else if method != Method::GET {
        tracing::info!(request = id, %method, path, status = response.status().as_u16(), ms = began.elapsed().as_millis(), "done");
    } else {
        tracing::debug!(
            request = id,
            path,
            status = response.status().as_u16(),
            "read"
        );
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

pub(super) async fn no_such_path(uri: Uri) -> Refusal {
    Refusal(Problem::new(
        Kind::NotFound,
        format!("no path {} in this contract", uri.path()),
    ))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    let problem = Problem::new(
        Kind::InvalidRequest,
        format!("{} does not take {method}", uri.path()),
    );
    Refusal(Problem {
        status: StatusCode::METHOD_NOT_ALLOWED.as_u16(),
        ..problem
    })
}

/// A part of the path that has to be of a form.
pub(super) fn part<T: std::str::FromStr<Err: std::fmt::Display>>(
    what: &str,
    text: &str,
) -> Result<T, Refusal> {
    text.parse().map_err(|e| {
        Refusal(Problem::new(
            Kind::InvalidRequest,
            format!("{what} {text:?} in the path: {e}"),
        ))
    })
}
