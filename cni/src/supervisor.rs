//! The plugin's side of the supervisor's contract: HTTP/1.1 on its unix socket, bounded in time and
//! size.

use crate::error::{CniError, Code};
use dtn_api::{
    LOCAL_BASE, Problem,
    attachment::Prepared,
    local::{Notice, PrepareRequest},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{path::Path, time::Duration};
use tokio::{net::UnixStream, time::timeout};

/// For one question. Negotiation is done before the pod; what is left is a lease.
const QUESTION: Duration = Duration::from_secs(10);
/// For a notice, which nothing waits for.
const NOTICE: Duration = Duration::from_secs(2);
/// Longest answer, in bytes.
const LONGEST: usize = 1 << 20;

/// What was prepared for a pod that has no file yet: the supervisor has it made.
pub async fn prepare(socket: &Path, request: &PrepareRequest) -> Result<Prepared, CniError> {
    call(socket, "/cni/prepare", request, QUESTION).await
}

/// Tells the supervisor that an interface came. It finds out by itself when nobody tells it, so a
/// failure is only logged.
pub async fn attached(socket: &Path, notice: &Notice) {
    tell(socket, "/cni/attached", notice).await;
}

/// Tells the supervisor that an interface went.
pub async fn detached(socket: &Path, notice: &Notice) {
    tell(socket, "/cni/detached", notice).await;
}

/// Whether the supervisor answers, and why not.
pub async fn ready(socket: &Path) -> Result<(), CniError> {
    let answer = send(socket, Method::GET, "/ready", None, NOTICE).await?;
    read::<serde_json::Value>(answer).map(|_| ())
}

async fn tell(socket: &Path, path: &str, notice: &Notice) {
    if let Err(e) = call::<_, serde_json::Value>(socket, path, notice, NOTICE).await {
        tracing::info!("dtnd was not told of {}/{}: {e}", notice.key, notice.ifname);
    }
}

async fn call<B: Serialize, T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: &B,
    within: Duration,
) -> Result<T, CniError> {
    let json = serde_json::to_vec(body).map_err(|e| CniError::internal("asking dtnd", e))?;
    read(send(socket, Method::POST, path, Some(json), within).await?)
}

fn read<T: DeserializeOwned>((good, body): (bool, Bytes)) -> Result<T, CniError> {
    if good {
        let json: &[u8] = if body.is_empty() { b"null" } else { &body };
        return serde_json::from_slice(json)
            .map_err(|e| CniError::internal("reading dtnd's answer", e));
    }
    let problem: Problem = serde_json::from_slice(&body)
        .map_err(|e| CniError::internal("reading dtnd's refusal", e))?;
    let code = if problem.retryable {
        Code::TryAgainLater
    } else {
        Code::Internal
    };
    Err(CniError::new(
        code,
        format!("dtnd refuses: {}", problem.title),
        problem.to_string(),
    ))
}

async fn send(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<Vec<u8>>,
    within: Duration,
) -> Result<(bool, Bytes), CniError> {
    let later = |why: String| {
        let details = format!("{why}; is dtnd running?");
        CniError::new(
            Code::TryAgainLater,
            format!("asking dtnd on {}", socket.display()),
            details,
        )
    };
    let exchange = async {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|e| later(e.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| later(e.to_string()))?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("{LOCAL_BASE}{path}"))
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|e| CniError::internal("asking dtnd", e))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|e| later(e.to_string()))?;
        let good = answer.status().is_success();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        connection.abort();
        let body = body.map_err(|e| later(format!("the answer could not be read: {e}")))?;
        Ok((good, body.to_bytes()))
    };
    match timeout(within, exchange).await {
        Ok(done) => done,
        Err(_) => Err(later(format!("no answer within {} s", within.as_secs()))),
    }
}
