//! Sockets: TLS for hosts and other domains, a unix socket for root and the operators on this machine.
//! Who calls is known before a request is read.

use crate::{
    auth::{Principal, Shown, principal_of},
    authority::Authority,
    config::{Config, FabricConfig},
    engine::{self, Engine},
    fabric::{
        Fabric,
        edge::Edge,
        onos::{self, Onos, OnosConfig},
        openflow::{self, OpenFlow},
    },
    routes,
    store::Embedded,
};
use axum::{Extension, Router};
use dtn_api::Name;
use dtn_service::{
    notify,
    reload::{Reading, Reloads},
    sockets,
};
use futures_util::future::BoxFuture;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use jiff::Timestamp;
use rustls::ServerConfig;
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

mod domain_verifier;
mod switch_tls;
mod watchdog;

/// Connections at once, on either socket.
const CONNECTIONS: usize = 512;
/// Longest time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Longest time for a request's head.
const HEAD: Duration = Duration::from_secs(10);
/// How long open requests may take after the end was asked for.
const DRAIN: Duration = Duration::from_secs(10);

/// A running controller.
pub struct Running {
    /// Where TLS is served.
    pub address: SocketAddr,
    /// The controller.
    pub engine: Arc<Engine>,
    served: tokio::task::JoinHandle<()>,
}
impl Running {
    /// Waits until everything has ended; a panic is a failure.
    pub async fn ended(self) -> anyhow::Result<()> {
        use anyhow::Context;
        self.served.await.context("serving")
    }
}

/// Starts a controller with its state below `root`; it serves when this returns.
///
/// Boxed: its code is made in this crate, once, and not again in each program and test that awaits it.
pub fn start(
    config: Config,
    root: &Path,
    stop: CancellationToken,
) -> BoxFuture<'_, anyhow::Result<Running>> {
    Box::pin(begin(config, root, stop))
}

async fn begin(
    mut config: Config,
    root: &Path,
    stop: CancellationToken,
) -> anyhow::Result<Running> {
    use anyhow::Context;
    let state = root
        .join(dtn_api::STATE_DIR.trim_start_matches('/'))
        .join("vdn");
    let socket = root.join(dtn_api::VDND_SOCKET.trim_start_matches('/'));
    for folder in [Some(state.as_path()), socket.parent()]
        .into_iter()
        .flatten()
    {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    notify::starting("opening the store");
    let tcp = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listening on {} (listen.address)", config.listen))?;
    let address = tcp.local_addr()?;
    if config.listen.port() == 0 {
        // a port of the kernel's choice: the one that there is now is how it is reached
        config.url = config.url.replace(":0", &format!(":{}", address.port()));
    }
    let authority = Authority::open(
        &state.join("keys"),
        &config.domain,
        &config.names,
        Timestamp::now(),
    )?;
    let store = Arc::new(Embedded::open(&state.join("store.redb"))?);
    notify::starting("reaching the fabric");
    let (for_switches, switch_tls) = watch::channel(switch_tls::server_config(&authority)?);
    let fabric = fabric(&config, switch_tls, &state, stop.clone()).await?;
    let engine = Arc::new(Engine::start(config, authority, store, fabric).await?);
    let unix = LocalSocket::listen(&socket)
        .with_context(|| format!("listening on {}", socket.display()))?;
    let verifier = Arc::new(domain_verifier::DomainVerifier::new(engine.authority())?);
    let shown = Arc::new(domain_verifier::ShownCertificate::new(engine.authority())?);
    believe(&engine, &verifier, &shown, &for_switches).await;
    let tls = domain_verifier::server_config(shown.clone(), verifier.clone())?;

    let router = routes::router(engine.clone());
    let served = tokio::spawn({
        let engine = engine.clone();
        async move {
            let open = GracefulShutdown::new();
            let domain = engine.config().domain.clone();
            let peers = async {
                loop {
                    // the notice can come before we listen for it; the period covers that
                    let _ = timeout(Duration::from_secs(1), engine.peers_changed()).await;
                    believe(&engine, &verifier, &shown, &for_switches).await;
                }
            };
            tokio::select! {
                () = accept_tls(tcp, TlsAcceptor::from(tls), router.clone(), &open, domain) => {}
                () = accept_unix(unix, router, &open) => {}
                () = engine::run_clock(engine.clone(), stop.clone()) => {}
                () = engine::run_dhcp(engine.clone()) => {}
                () = watchdog::feed(&engine) => {}
                () = peers => {}
                () = stop.cancelled() => {}
            }
            notify::stopping();
            if timeout(DRAIN, open.shutdown()).await.is_err() {
                tracing::warn!(
                    "requests were open {} s after the end was asked for",
                    DRAIN.as_secs()
                );
            }
        }
    });
    let domain = engine.config().domain.clone();
    notify::ready(&format!("serving domain {domain} on {address}"));
    tracing::info!(%domain, %address, socket = %socket.display(), "vdnd serves");
    Ok(Running {
        address,
        engine,
        served,
    })
}

/// What enforces slices, as configured.
async fn fabric(
    config: &Config,
    switch_tls: watch::Receiver<Arc<ServerConfig>>,
    state: &Path,
    stop: CancellationToken,
) -> anyhow::Result<Arc<dyn Fabric>> {
    match &config.fabric {
        FabricConfig::Edge => Ok(Arc::new(Edge::new(config.borders.clone()))),
        FabricConfig::OpenFlow {
            listen,
            plain,
            neighbours,
            dhcp,
            network,
        } => {
            let tls = match plain {
                true => None,
                false => Some(openflow::Tls {
                    server: switch_tls,
                    domain: config.domain.clone(),
                }),
            };
            let listen = openflow::Listen {
                address: *listen,
                tls,
            };
            let fabric = OpenFlow::start(network.clone(), listen, stop).await?;
            fabric.answer(*neighbours);
            fabric.lease(*dhcp);
            Ok(fabric)
        }
        FabricConfig::Onos {
            url,
            credentials_file,
            app_id,
            plain,
            ca_file,
            network,
        } => {
            let onos = OnosConfig {
                url: url.clone(),
                credentials_file: credentials_file.clone(),
                app_id: app_id.clone(),
                owner: onos::instance(state, &config.domain)?,
                plain: *plain,
                ca_file: ca_file.clone(),
                meters_file: state.join("onos-meters.json"),
                settling: OnosConfig::SETTLING,
            };
            let fabric = Onos::start(network.clone(), onos, stop).await?;
            Ok(fabric)
        }
    }
}

/// Where the outcome of the last reload is: in the folder that the controller's own user may write.
pub fn reload_file(root: &Path) -> PathBuf {
    root.join(dtn_api::RUN_DIR.trim_start_matches('/'))
        .join("vdn/vdnd.reload")
}

/// Runs a controller until it is stopped, with a configuration that is not read again.
pub async fn run(config: Config, root: &Path, stop: CancellationToken) -> anyhow::Result<()> {
    start(config, root, stop).await?.ended().await
}

/// The same; on SIGHUP the configuration is read again.
pub async fn run_and_reload(
    config: Config,
    root: &Path,
    reading: Reading,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    use anyhow::Context;
    let file = reload_file(root);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    // before the rest is put together: the signal would end the process until then
    let mut reloads = Reloads::listen(file).context("listening for SIGHUP")?;
    let running = start(config, root, stop).await?;
    running.engine.read_from(reading);
    let engine = running.engine.clone();
    let reload = async {
        loop {
            reloads.asked().await;
            let again = async {
                let changed = engine.reload().await;
                changed.map_or_else(|no| Err(no.to_string()), |yes| Ok(yes.to_string()))
            };
            reloads.carry(again).await;
        }
    };
    tokio::select! {
        ended = running.ended() => ended,
        () = reload => Ok(()),
    }
}

/// Whose certificates are believed now, and which one is shown: federations come and go, and keys are
/// changed, while connections are open.
async fn believe(
    engine: &Engine,
    verifier: &domain_verifier::DomainVerifier,
    shown: &domain_verifier::ShownCertificate,
    for_switches: &watch::Sender<Arc<ServerConfig>>,
) {
    if let Err(e) = verifier
        .believe_own(engine.authority())
        .and_then(|()| shown.show(engine.authority()))
    {
        tracing::error!("the domain's own keys are not taken up: {e}");
    }
    match switch_tls::server_config(engine.authority()) {
        Ok(config) => drop(for_switches.send_replace(config)),
        Err(e) => tracing::error!("the domain's own keys are not taken up for switches: {e}"),
    }
    let mut all = BTreeMap::new();
    for (name, pem) in engine.believed().await {
        all.insert(name, pem);
    }
    verifier.believe(&all);
}

/// The unix socket.
struct LocalSocket {
    listener: UnixListener,
    /// Whoever is not root and connects is an operator: the unit's mode and group let them in.
    others: Principal,
}
impl LocalSocket {
    /// The service manager's, if it has opened one there; else one for root alone.
    fn listen(socket: &Path) -> io::Result<Self> {
        Ok(match sockets::at(socket)? {
            Some(opened) => Self {
                listener: UnixListener::from_std(opened)?,
                others: Principal::Operator,
            },
            None => Self {
                listener: listen_unix(socket)?,
                others: Principal::Anonymous,
            },
        })
    }
}

/// For root alone; bound under another name first, so that nobody connects before the mode is set.
fn listen_unix(socket: &Path) -> io::Result<UnixListener> {
    let hidden = socket.with_extension("new");
    for old in [socket, &hidden] {
        match std::fs::remove_file(old) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    let listener = UnixListener::bind(&hidden)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&hidden, socket)?;
    Ok(listener)
}

async fn accept_tls(
    listener: TcpListener,
    tls: TlsAcceptor,
    router: Router,
    open: &GracefulShutdown,
    domain: Name,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                pause(&e).await;
                continue;
            }
        };
        let (tls, router, watcher, domain) =
            (tls.clone(), router.clone(), open.watcher(), domain.clone());
        // the handshake is not waited for here: a slow one would keep everybody out
        tokio::spawn(async move {
            let stream = match timeout(HANDSHAKE, tls.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(e)) => return tracing::debug!("a handshake failed: {e}"),
                Err(_) => return tracing::debug!("a handshake took too long"),
            };
            let chain = stream.get_ref().1.peer_certificates();
            let own = chain.and_then(|chain| chain.first());
            let who = own.map_or(Principal::Anonymous, |own| principal_of(own, &domain));
            let shown = Shown(own.map(|own| dtn_api::client::fingerprint(own)));
            serve(stream, router.layer(Extension(shown)), who, watcher).await;
            drop(slot);
        });
    }
}

async fn accept_unix(local: LocalSocket, router: Router, open: &GracefulShutdown) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let stream = match local.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                pause(&e).await;
                continue;
            }
        };
        let who = match stream.peer_cred() {
            Ok(peer) if peer.uid() == 0 => Principal::Admin,
            Ok(_) => local.others.clone(),
            Err(_) => Principal::Anonymous,
        };
        let (router, watcher) = (router.clone(), open.watcher());
        tokio::spawn(async move {
            serve(stream, router, who, watcher).await;
            drop(slot);
        });
    }
}

/// Out of descriptors: others have to end first.
async fn pause(error: &io::Error) {
    tracing::warn!("accepting a connection: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    who: Principal,
    watcher: Watcher,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(
            TokioIo::new(stream),
            TowerToHyperService::new(router.layer(Extension(who))),
        );
    if let Err(e) = watcher.watch(connection).await {
        tracing::debug!("a connection ended: {e}");
    }
}
