//! Sockets: a lock that keeps a second `dtnd` away, the listener, who calls on it, and the accept
//! loop.

use super::rights::Caller;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Connections at once.
const CONNECTIONS: usize = 256;
/// Longest time for a request's head.
const HEAD: Duration = Duration::from_secs(10);
/// Longest time for an answer: a deployment pulls nothing, but may wait for a slice.
const ANSWER: Duration = Duration::from_secs(300);
/// How long open requests may take after the end was asked for.
const DRAIN: Duration = Duration::from_secs(10);

/// Keeps a second process on the same root away for as long as it lives.
#[derive(Debug)]
pub struct OneProcess(
    #[expect(dead_code, reason = "the lock is held until it is dropped")] Flock<File>,
);

/// Takes the lock beside the socket.
pub fn only_one(socket: &Path) -> io::Result<OneProcess> {
    let path = socket.with_extension("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(OneProcess(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(io::Error::other(format!(
            "another dtnd runs on this root: it holds {}",
            path.display()
        ))),
        Err((_, errno)) => Err(io::Error::from(errno)),
    }
}

/// Whether another process holds the lock beside the socket. Nothing is made or kept.
pub fn another_runs(socket: &Path) -> bool {
    let file = File::options()
        .write(true)
        .open(socket.with_extension("lock"));
    let lock = |file| Flock::lock(file, FlockArg::LockSharedNonblock);
    matches!(file.map(lock), Ok(Err((_, nix::errno::Errno::EWOULDBLOCK))))
}

/// A unix socket that is listened on.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: UnixListener,
    /// Whether the daemon made it: what the service manager has opened is its own to remove.
    pub own: bool,
}

/// The listener at this path: the service manager's, if it has opened one there, with the mode and
/// group of its unit; else one for root alone.
pub fn listen(socket: &Path, lock: &OneProcess) -> io::Result<Listener> {
    Ok(match dtn_service::sockets::at(socket)? {
        Some(opened) => Listener {
            socket: UnixListener::from_std(opened)?,
            own: false,
        },
        None => Listener {
            socket: unix(socket, lock)?,
            own: true,
        },
    })
}

/// The listener on a unix socket, for root alone. A socket that a killed process left is replaced;
/// the lock says that nobody listens on it.
fn unix(socket: &Path, _lock: &OneProcess) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // bound under another name first: nobody can connect before the mode is set
    let hidden = socket.with_extension("new");
    match std::fs::remove_file(&hidden) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&hidden)?;
    std::fs::set_permissions(&hidden, Permissions::from_mode(0o600))?;
    std::fs::rename(&hidden, socket)?;
    Ok(listener)
}

/// Where connections come from.
pub trait Listen: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The next one, and who it is.
    fn next(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Caller)>> + Send;
}
impl Listen for Listener {
    type Stream = tokio::net::UnixStream;
    async fn next(&mut self) -> io::Result<(Self::Stream, Caller)> {
        let (stream, _) = self.socket.accept().await?;
        let caller = Caller::of(&stream);
        Ok((stream, caller))
    }
}
impl Listen for TcpListener {
    type Stream = tokio::net::TcpStream;
    async fn next(&mut self) -> io::Result<(Self::Stream, Caller)> {
        let (stream, _) = self.accept().await?;
        Ok((stream, Caller::Member))
    }
}

/// Serves until it is stopped, then lets open requests finish.
pub async fn run(mut listener: impl Listen, router: Router, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let open = GracefulShutdown::new();
    loop {
        let slot = tokio::select! {
            () = stop.cancelled() => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let Ok(slot) = slot else { break };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            stream = listener.next() => stream,
        };
        let (stream, caller) = match stream {
            Ok(accepted) => accepted,
            Err(e) => {
                // out of descriptors: others have to end first
                tracing::warn!("accepting a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(with_deadline(router.clone()).layer(Extension(caller))),
            );
        let connection = open.watch(connection);
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!("a connection ended: {e}");
            }
            drop(slot);
        });
    }
    drop(listener);
    if timeout(DRAIN, open.shutdown()).await.is_err() {
        tracing::warn!(
            "requests were still open {} s after the end was asked for",
            DRAIN.as_secs()
        );
    }
}

/// The same routes; an answer that takes too long is a problem document.
fn with_deadline(router: Router) -> Router {
    router.layer(axum::middleware::from_fn(
        async |request: axum::extract::Request, next: axum::middleware::Next| {
            use axum::response::IntoResponse;
            match timeout(ANSWER, next.run(request)).await {
                Ok(response) => response,
                Err(_) => super::refuse::Refusal(dtn_api::Problem::new(
                    dtn_api::problem::Kind::PeerTimeout,
                    format!("no answer within {} s", ANSWER.as_secs()),
                ))
                .into_response(),
            }
        },
    ))
}
