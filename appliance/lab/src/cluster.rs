//! A Kubernetes cluster at a site, of real parts: a control plane and one node, both on the site's
//! host, where the site's NICs are. The two sites' clusters know nothing of each other; what joins
//! them is the federation of their domains.
//!
//! ```text
//! etcd ◀── kube-apiserver ◀── controller manager, scheduler      10.254.0.1x:6443
//!                 ▲    ▲
//!       dtn-cluster    kubelet ── containerd ── runc ── pods: cni0, and by vdn-chain a NIC of their own
//!                         └── dtnd (its driver for NICs)
//! ```
//!
//! * [`kit`]: where the programs of Kubernetes are, and what a machine lacks for them. Pure.
//! * [`pki`]: who is who: the cluster's authority, certificates, and kubeconfigs.
//! * [`control`], [`node`]: the processes, with what each is told.
//! * [`objects`]: what the appliance needs in the cluster, and in whose name its daemons speak.
//! * [`controller`]: the appliance's own controller in it.
//! * [`pods`]: transfer pods, by the verbs of `dtnctl`.

pub mod control;
pub mod controller;
pub mod kit;
pub mod node;
pub mod objects;
pub mod pki;
pub mod pods;

use crate::{
    Options,
    daemons::HOST,
    pillar::{Pillar, Watch},
    place::Place,
    shell::{self, SHORT},
    site::Site,
};
use anyhow::{Context, Result, bail};
use kit::Kit;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::process::Command;

/// Longest time until a part of a cluster serves: ten seconds for all of them on two processors.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// The cluster of a site, up.
pub struct Cluster {
    /// The programs.
    pub kit: Kit,
    /// The administrator's kubeconfig.
    admin: PathBuf,
    /// kubectl's own folder.
    cache: PathBuf,
    /// Its processes, for as long as this is held: first to end is the kubelet.
    _pillars: Vec<Pillar>,
}

/// Folder of a site's cluster, with keys and kubeconfigs: gone with the lab.
pub fn folder(place: &Place, site: &str) -> PathBuf {
    place.root(site).join("var/lib/kubernetes")
}

/// kubeconfig of the administrator, in that folder.
pub const ADMIN: &str = "admin.kubeconfig";
/// What kubectl writes for itself.
pub fn cache(place: &Place, site: &str) -> PathBuf {
    place.root(site).join("var/tmp/kubectl")
}

/// Brings a site's cluster up, with the transfer image in it and with all that the appliance's daemons
/// need of it.
pub async fn start(
    site: &Site,
    place: &Place,
    options: &Options,
    watch: &Watch,
) -> Result<Cluster> {
    let kit = Kit::find(&options.kubernetes).map_err(anyhow::Error::msg)?;
    let folder = folder(place, site.name);
    let files = pki::make(&folder, site.index)?;
    let starter = Starter {
        site,
        place,
        kit: &kit,
        watch,
    };
    let mut pillars = control::start(&starter, &files).await?;
    let cluster = |pillars| Cluster {
        kit: kit.clone(),
        admin: files.admin.clone(),
        cache: cache(place, site.name),
        _pillars: pillars,
    };
    let reached = cluster(Vec::new());
    reached
        .until(
            site,
            "the API server is ready",
            &["get", "--raw", "/readyz"],
            |_| true,
        )
        .await?;
    pillars.extend(control::start_rest(&starter, &files)?);
    pillars.extend(node::start(&starter, &files, options).await?);
    reached
        .until(
            site,
            "the node is ready",
            &["get", "node", HOST, "--output", "json"],
            ready,
        )
        .await?;
    objects::make(&reached, site, options, &folder).await?;
    // what depends on others ends before them
    pillars.reverse();
    Ok(cluster(pillars))
}

/// Whether an object's condition `Ready` is true.
pub(crate) fn ready(object: &Value) -> bool {
    let conditions = object.pointer("/status/conditions");
    conditions
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

impl Cluster {
    /// kubectl as the cluster's administrator, on the site's host.
    pub fn kubectl(&self, site: &Site) -> Command {
        let mut command = site.command(self.kit.program("kubectl"));
        command.arg("--kubeconfig").arg(&self.admin);
        command.arg("--cache-dir").arg(&self.cache);
        command
    }
    /// Runs kubectl and gives what it said.
    pub async fn said(&self, site: &Site, words: &[&str]) -> Result<String> {
        let mut command = self.kubectl(site);
        command.args(words);
        Ok(shell::output(command, None, SHORT).await?)
    }
    /// An object as JSON.
    pub async fn object(&self, site: &Site, words: &[&str]) -> Result<Value> {
        let text = self.said(site, words).await?;
        serde_json::from_str(&text).with_context(|| format!("reading what {words:?} gives"))
    }
    /// Asks again and again until the answer is as it should be; an answer that is no JSON is a text.
    pub async fn until(
        &self,
        site: &Site,
        what: &str,
        words: &[&str],
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let last = match self.said(site, words).await {
                Ok(text) => {
                    let answer = serde_json::from_str(&text).unwrap_or(Value::String(text));
                    if holds(&answer) {
                        return Ok(answer);
                    }
                    answer["status"].to_string()
                }
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() >= end {
                bail!(
                    "waited {} s in {} until {what}: {last}",
                    PATIENCE.as_secs(),
                    site.name
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Starts a site's processes.
pub(crate) struct Starter<'a> {
    pub(crate) site: &'a Site,
    pub(crate) place: &'a Place,
    pub(crate) kit: &'a Kit,
    pub(crate) watch: &'a Watch,
}

impl Starter<'_> {
    /// One that the lab cannot be without; its log is named after it.
    pub(crate) fn process(&self, name: &str, words: Vec<String>) -> Result<Pillar> {
        let program = self.kit.program(name);
        self.run(name, &program, words)
    }
    pub(crate) fn run(&self, name: &str, program: &Path, words: Vec<String>) -> Result<Pillar> {
        let site = self.site.name;
        let log = self.place.log(&format!("{site}-{name}"));
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let again = file
            .try_clone()
            .with_context(|| format!("opening {}", log.display()))?;
        let child = self
            .site
            .command(program)
            .args(words)
            .env("PATH", self.kit.path())
            .env_remove("KUBECONFIG")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(again)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name} of {site}"))?;
        Ok(self.watch.over(format!("{name} of {site}"), &log, child))
    }
    /// The site's folder.
    pub(crate) fn root(&self) -> PathBuf {
        self.place.root(self.site.name)
    }
}

#[cfg(test)]
mod tests;
