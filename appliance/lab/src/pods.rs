//! Pods in the same words, whatever runs them: deployed and waited for, entered, taken down.

use crate::{
    capsule::Lab,
    cluster::Cluster,
    engine,
    scenario::{self, Deployed},
    shell::{self, SHORT},
    site::Site,
};
use anyhow::{Context, Result};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};
use tokio::process::Command;

/// The container of the template that everything is done in.
pub const CONTAINER: &str = "xrootd";

/// What runs the pods of a site.
pub enum Runner {
    /// podman on the host.
    Podman {
        /// What it was set up with.
        setup: engine::Setup,
        /// Its service, for as long as this is held.
        _engine: engine::Engine,
    },
    /// A cluster.
    Kubernetes(Cluster),
}

/// A pod that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its name.
    pub name: String,
    /// What its engine knows its container by.
    pub container: String,
    /// A process in its sandbox.
    pub pid: u32,
    /// Path of its sandbox.
    pub netns: String,
    /// Its data interface.
    pub ifname: String,
    /// That one's addresses, without prefix length.
    pub addresses: Vec<IpAddr>,
    /// From asking for it until it was ready.
    pub ready: Duration,
}

/// Deploys a pod of the template at a site and waits until it runs.
pub async fn deploy(lab: &Lab, site: &Site, wanted: &Deployed<'_>) -> Result<Running> {
    let began = Instant::now();
    let daemons = lab.daemons.get(site.index).context("no daemon is up")?;
    let mut running = match lab.runner(site)? {
        Runner::Podman { setup, .. } => {
            let pod = scenario::deploy_as(daemons, &lab.place, wanted).await?;
            let ready = began.elapsed();
            let container = pod.container_ids.get(CONTAINER).with_context(|| {
                format!(
                    "the pod of {} has no container {CONTAINER}: {:?}",
                    site.name, pod.container_ids
                )
            })?;
            let mut command = engine::podman(site, &lab.place, setup);
            command.args(["inspect", "--format", "{{.State.Pid}}", container]);
            let text = shell::output(command, None, SHORT)
                .await
                .context("finding the pod's process")?;
            let pid = text.trim().parse();
            let interface = pod
                .interfaces
                .first()
                .with_context(|| format!("the pod of {} has no interface", site.name))?;
            Running {
                name: wanted.pod.into(),
                container: container.clone(),
                pid: pid.with_context(|| format!("podman told the process as {text:?}"))?,
                netns: pod.netns.clone(),
                ifname: interface.ifname.to_string(),
                addresses: bare(&interface.ips)
                    .with_context(|| format!("the addresses of the pod of {}", site.name))?,
                ready,
            }
        }
        Runner::Kubernetes(cluster) => cluster.deploy(lab, site, wanted).await?,
    };
    if running.ready.is_zero() {
        running.ready = began.elapsed();
    }
    Ok(running)
}

/// Addresses without their prefix lengths.
pub fn bare(ips: &[String]) -> Result<Vec<IpAddr>> {
    ips.iter()
        .map(|ip| {
            let bare = ip.split('/').next().unwrap_or(ip);
            bare.parse().with_context(|| format!("the address {ip}"))
        })
        .collect()
}

/// Takes a pod down, so that its NIC comes home and its lease is given back.
pub async fn undeploy(lab: &Lab, site: &Site, pod: &str) -> Result<()> {
    match lab.runner(site)? {
        Runner::Podman { .. } => {
            let daemons = lab.daemons.get(site.index).context("no daemon is up")?;
            scenario::undeploy(daemons, pod).await
        }
        Runner::Kubernetes(cluster) => cluster.undeploy(lab, site, pod).await,
    }
}

/// The command that runs a program in a pod's container.
pub fn command(
    lab: &Lab,
    site: &Site,
    running: &Running,
    environment: &[&str],
    words: &[&str],
) -> Result<Command> {
    Ok(match lab.runner(site)? {
        Runner::Podman { setup, .. } => {
            let mut command = engine::podman(site, &lab.place, setup);
            command.arg("exec");
            for pair in environment {
                command.args(["--env", pair]);
            }
            command.arg(&running.container).args(words);
            command
        }
        Runner::Kubernetes(cluster) => cluster.command(site, running, environment, words),
    })
}
