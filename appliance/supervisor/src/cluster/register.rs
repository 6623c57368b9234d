//! The sockets that the kubelet finds us by: one in its registry folder, on which it asks who we are,
//! and the one on which the driver answers. Both are for root alone, are there while this process
//! runs, and are made again when somebody removes them.
//!
//! The kubelet registers a driver when a socket appears in the folder, and again when it starts
//! itself. A socket file that a killed process left is replaced.

use super::{
    Cluster,
    contracts::{
        dra::dra_plugin_server::DraPluginServer,
        health::dra_resource_health_server::DraResourceHealthServer,
        registration::{
            InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
            registration_server::{Registration, RegistrationServer},
        },
    },
    health::Health,
    serve::Driver,
};
use dtn_api::cluster::DRIVER;
use futures_util::stream;
use std::{
    fs::Permissions,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Server};

/// Between two looks whether the sockets are there, and the pause after something failed.
const LOOK: Duration = Duration::from_secs(2);
/// The services, in the kubelet's words: the package's last part and the service.
const SERVICES: [&str; 2] = ["v1.DRAPlugin", "v1.DRAResourceHealth"];

/// Serves the kubelet for as long as the daemon runs.
pub(super) async fn run(cluster: Cluster, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let gone = stop.child_token();
        let outcome = serve(&cluster, &gone).await;
        gone.cancel();
        if stop.is_cancelled() {
            break;
        }
        let words = match outcome {
            Ok(()) => "the kubelet's folder lost our sockets: they are made again".to_owned(),
            Err(e) => e.to_string(),
        };
        let told = {
            let mut seen = cluster.seen();
            seen.registered = None;
            seen.sockets.replace(words.clone())
        };
        if told.as_ref() != Some(&words) {
            tracing::warn!("{words}");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    // so that the kubelet asks nobody who is not there
    let _ = std::fs::remove_file(cluster.registration_socket());
}

/// Serves until it is stopped, or until a socket is gone.
async fn serve(cluster: &Cluster, gone: &CancellationToken) -> io::Result<()> {
    let (service, registration) = (cluster.service_socket(), cluster.registration_socket());
    // the service first: whoever hears of it may call it at once
    let service_at = bind(&service, true)?;
    let registration_at = bind(&registration, false)?;
    let (service_inode, registration_inode) = (inode(&service)?, inode(&registration)?);
    cluster.seen().sockets = None;
    let driver = Server::builder()
        .add_service(DraPluginServer::new(Driver(cluster.clone())))
        .add_service(DraResourceHealthServer::new(Health(
            cluster.clone(),
            gone.clone(),
        )))
        .serve_with_incoming_shutdown(incoming(service_at), gone.cancelled());
    let register = Server::builder()
        .add_service(RegistrationServer::new(Register(cluster.clone())))
        .serve_with_incoming_shutdown(incoming(registration_at), gone.cancelled());
    let there = async {
        loop {
            tokio::time::sleep(LOOK).await;
            let is = |path: &Path, was: u64| inode(path).is_ok_and(|now| now == was);
            if !is(&service, service_inode) || !is(&registration, registration_inode) {
                return;
            }
        }
    };
    tokio::select! {
        done = async { tokio::try_join!(driver, register) } => {
            done.map(|_| ()).map_err(io::Error::other)
        }
        () = there => Ok(()),
    }
}

/// A listener for root alone. Until its mode is set nobody else gets to it either: the kubelet's
/// folders are root's, and a name that is only there for a moment would be noise in its log.
fn bind(path: &Path, with_folder: bool) -> io::Result<UnixListener> {
    let failed = |e: io::Error| {
        let why = format!("listening on {}: {e}", path.display());
        io::Error::new(e.kind(), why)
    };
    if let Some(folder) = path.parent().filter(|_| with_folder) {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(is) if is.file_type().is_socket() => std::fs::remove_file(path).map_err(failed)?,
        Ok(_) => {
            return Err(failed(io::Error::other(
                "something that is no socket is there",
            )));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

fn inode(path: &Path) -> io::Result<u64> {
    std::fs::symlink_metadata(path).map(|is| is.ino())
}

fn incoming(
    listener: UnixListener,
) -> impl futures_util::Stream<Item = io::Result<tokio::net::UnixStream>> {
    stream::unfold(listener, |listener| async {
        let next = listener.accept().await.map(|(stream, _)| stream);
        if next.is_err() {
            // out of descriptors: others have to end first
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some((next, listener))
    })
}

#[derive(Debug)]
struct Register(Cluster);

#[tonic::async_trait]
impl Registration for Register {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "DRAPlugin".to_owned(),
            name: DRIVER.to_owned(),
            endpoint: self.0.service_socket().display().to_string(),
            supported_versions: SERVICES.map(str::to_owned).to_vec(),
        }))
    }

    async fn notify_registration_status(
        &self,
        status: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = status.into_inner();
        match status.plugin_registered {
            true => tracing::info!("registered with the kubelet"),
            false => tracing::error!("the kubelet refused the driver: {}", status.error),
        }
        self.0.seen().registered = Some(match status.plugin_registered {
            true => Ok(()),
            false => Err(status.error),
        });
        // a kubelet that has just started took the ResourceSlice away
        self.0.0.publish.notify_one();
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
