//! How requests are read and answers written: principals, keys, versions, bodies, pages, problems.

use crate::auth::{Principal, Shown};
use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use dtn_api::{Problem, problem::Kind, slice::List};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// Most things on one page.
const PAGE: usize = 1000;
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

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
        let mut response = (status, Json(&self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.0.retryable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response.extensions_mut().insert(self.0);
        response
    }
}

/// What a handler answers.
pub(super) type Answer<T> = Result<T, Refusal>;

/// Who calls; set by the authorization before.
pub(super) struct Who(pub(super) Principal);
impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let who = parts.extensions.get::<Principal>().cloned();
        Ok(Self(who.unwrap_or(Principal::Anonymous)))
    }
}

/// The digest of the certificate that the connection came with.
pub(super) struct With(pub(super) Option<String>);
impl<S: Send + Sync> FromRequestParts<S> for With {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let shown = parts.extensions.get::<Shown>().cloned();
        Ok(Self(shown.unwrap_or_default().0))
    }
}

/// A JSON body, with its bytes for the idempotency key.
pub(super) struct Body<T> {
    pub(super) value: T,
    pub(super) bytes: Bytes,
}
impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        let wrong = |why: String| Refusal(Problem::new(Kind::InvalidRequest, why));
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|e| wrong(format!("reading the body: {e}")))?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|e| wrong(format!("the body is not what this path takes: {e}")))?;
        Ok(Self { value, bytes })
    }
}

/// `Idempotency-Key`, `If-Match` and `If-None-Match`.
pub(super) struct Headers {
    pub(super) key: Option<String>,
    pub(super) if_match: Option<u64>,
    /// `If-None-Match: *`: only when it is not there yet.
    pub(super) if_none_match: bool,
}
impl<S: Send + Sync> FromRequestParts<S> for Headers {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let text = |name: &str| {
            parts
                .headers
                .get(name)
                .map(|v| String::from_utf8_lossy(v.as_bytes()))
        };
        let if_match = match text("if-match").as_deref() {
            None | Some("*") => None,
            Some(tag) => {
                let version = tag
                    .trim_matches('"')
                    .strip_prefix('v')
                    .and_then(|v| v.parse().ok());
                Some(version.ok_or_else(|| {
                    let why = format!("If-Match {tag:?} is no ETag of this controller, as \"v3\"");
                    Refusal(Problem::new(Kind::InvalidRequest, why))
                })?)
            }
        };
        Ok(Self {
            if_none_match: text("if-none-match").as_deref().map(str::trim) == Some("*"),
            key: text("idempotency-key").map(|v| v.into_owned()),
            if_match,
        })
    }
}

/// A query that is understood; what is wrong with it is told.
pub(super) struct Asked<T>(pub(super) T);
impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        let query = query.map_err(|e| {
            Problem::new(
                Kind::InvalidRequest,
                format!("the query is not understood: {e}"),
            )
        })?;
        Ok(Self(query.0))
    }
}

/// Which page of a list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default)]
pub(super) struct Page {
    /// At most so many; at most and usually 1000.
    limit: Option<usize>,
    /// From the page before.
    page_token: Option<String>,
    /// Only of this name.
    pub(super) name: Option<String>,
    /// Only of this node.
    pub(super) node: Option<String>,
}
impl Page {
    /// The page out of everything, which is in the order of its ids.
    pub(super) fn of<T>(&self, items: Vec<T>, id: impl Fn(&T) -> String) -> Json<List<T>> {
        let limit = self.limit.unwrap_or(PAGE).clamp(1, PAGE);
        let after = self.page_token.as_deref().unwrap_or_default();
        let mut rest = items.into_iter().filter(|item| id(item).as_str() > after);
        let items: Vec<T> = rest.by_ref().take(limit).collect();
        let next_page_token = rest.next().and_then(|_| items.last().map(&id));
        Json(List {
            items,
            next_page_token,
        })
    }
}

/// `?dry_run=true`.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default)]
pub(super) struct DryRun {
    /// Validate and admit, and save nothing.
    pub(super) dry_run: bool,
}

/// An answer with its version.
pub(super) struct Tagged<T> {
    pub(super) status: StatusCode,
    pub(super) version: u64,
    pub(super) location: Option<String>,
    pub(super) replayed: bool,
    pub(super) body: T,
}
impl<T> Tagged<T> {
    pub(super) fn new(version: u64, body: T) -> Self {
        Self {
            status: StatusCode::OK,
            version,
            location: None,
            replayed: false,
            body,
        }
    }
    /// Something was made; its path.
    pub(super) fn made(version: u64, body: T, location: String, replayed: bool) -> Self {
        let status = StatusCode::CREATED;
        Self {
            status,
            version,
            location: Some(location),
            replayed,
            body,
        }
    }
}
impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, text: String| {
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(name, value);
            }
        };
        put(header::ETAG, format!("\"v{}\"", self.version));
        if let Some(location) = self.location {
            put(header::LOCATION, location);
        }
        if self.replayed {
            put(REPLAYED, "true".to_owned());
        }
        (self.status, headers, Json(self.body)).into_response()
    }
}

/// A part of the path that has to be of a form.
pub(super) fn part<T: std::str::FromStr<Err: std::fmt::Display>>(
    what: &str,
    text: &str,
) -> Answer<T> {
    text.parse().map_err(|e| {
        let why = format!("{what} {text:?} in the path: {e}");
        Refusal(Problem::new(Kind::InvalidRequest, why))
    })
}

/// Gives every request an id: in the log, in the header, and in the problem.
pub(super) async fn with_request_id(request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
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
        tracing::info!(request = id, %method, path, status = response.status().as_u16(), "done");
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

pub(super) async fn no_such_path(uri: Uri) -> Refusal {
    let why = format!("no path {} in this contract", uri.path());
    Refusal(Problem::new(Kind::NotFound, why))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    let why = format!("{} does not take {method}", uri.path());
    let status = StatusCode::METHOD_NOT_ALLOWED.as_u16();
    Refusal(Problem {
        status,
        ..Problem::new(Kind::InvalidRequest, why)
    })
}
