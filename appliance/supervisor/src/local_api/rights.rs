//! Who may ask for what on the unix socket. Its mode lets in root and, where the unit says so, the
//! group of operators; what only an admin or a plugin has to ask for is for root alone.

use super::refuse::Refusal;
use axum::{
    Extension,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use dtn_api::{Problem, problem::Kind};
use tokio::net::UnixStream;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Root, or whoever the daemon runs as.
    Root,
    /// Somebody whom the socket's mode has let in.
    Member,
}

impl Caller {
    /// By the kernel's word; who cannot be told is nobody in particular.
    pub(super) fn of(stream: &UnixStream) -> Self {
        let uid = stream.peer_cred().map(|peer| peer.uid());
        Self::by(uid.ok(), nix::unistd::geteuid().as_raw())
    }
    fn by(uid: Option<u32>, own: u32) -> Self {
        match uid {
            Some(uid) if uid == 0 || uid == own => Self::Root,
            _ => Self::Member,
        }
    }
}

/// Lets root alone through: joining a domain makes the host another one, and what the plugins ask
/// for names NICs and sandboxes of any pod.
pub(super) async fn root_alone(
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    match caller {
        Caller::Root => next.run(request).await,
        Caller::Member => Refusal(Problem::new(
            Kind::Forbidden,
            format!(
                "{} {} is for root alone on this host: ask again with sudo",
                request.method(),
                request.uri().path()
            ),
        ))
        .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, body::Body, http::StatusCode, middleware, routing::post};
    use tower::ServiceExt;

    #[test]
    fn root_is_told_by_the_kernel() {
        assert_eq!(Caller::by(Some(0), 0), Caller::Root);
        assert_eq!(Caller::by(Some(0), 7), Caller::Root);
        assert_eq!(Caller::by(Some(7), 7), Caller::Root);
        assert_eq!(Caller::by(Some(1000), 0), Caller::Member);
        assert_eq!(Caller::by(None, 0), Caller::Member);
    }

    #[tokio::test]
    async fn a_member_is_refused_with_the_remedy() {
        let router = Router::new()
            .route("/join", post(async || "joined"))
            .route_layer(middleware::from_fn(root_alone));
        for (caller, status) in [
            (Caller::Root, StatusCode::OK),
            (Caller::Member, StatusCode::FORBIDDEN),
        ] {
            let request = Request::post("/join").body(Body::empty()).unwrap();
            let asked = router.clone().layer(Extension(caller)).oneshot(request);
            let answer = asked.await.unwrap();
            assert_eq!(answer.status(), status, "{caller:?}");
        }
    }
}
