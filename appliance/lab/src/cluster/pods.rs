//! Transfer pods in a site's cluster, by the verbs that an operator would use, with an operator's
//! rights: `dtnctl deploy` and `dtnctl undeploy`. What is read of them is read as the administrator.

use super::{Cluster, folder, node, objects};
use crate::{
    capsule::Lab,
    daemons::HOST,
    pods::{self, CONTAINER, Running},
    scenario::{self, Deployed, TEMPLATE, UID},
    shell,
    site::Site,
};
use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    os::unix::fs::DirBuilderExt,
    path::Path,
    time::{Duration, Instant},
};
use tokio::process::Command;

/// How long a pod may take, as `dtnctl` takes it; and what the lab waits for `dtnctl`.
const READY: (&str, Duration) = ("150s", Duration::from_secs(170));
/// Where containerd has runc keep what runs.
const RUNC: &str = "/run/containerd/runc/k8s.io";

impl Cluster {
    /// Deploys a pod of the template and waits until it is ready.
    pub(crate) async fn deploy(
        &self,
        lab: &Lab,
        site: &Site,
        wanted: &Deployed<'_>,
    ) -> Result<Running> {
        let what = format!("the pod {} of {}", wanted.pod, site.name);
        let data = scenario::data_of(&lab.place, site.name, wanted.pod);
        own_folder(&data)?;
        let began = Instant::now();
        let mut command = self.operator(lab, site, "deploy");
        command
            .args([TEMPLATE, "--name", wanted.pod, "--slice", wanted.slice])
            .args(["--device", wanted.nic, "--nic"])
            .arg(wanted.class.to_string())
            .args(["--node", HOST, "--timeout", READY.0, "--templates"])
            .arg(lab.options.share.join("dtn-workloads"))
            .arg("--set")
            .arg(format!("data_dir={}", data.display()));
        // both ends of a transfer have one key; a pod that moves nothing gets one of its own
        let key = scenario::key_of(&lab.place, site.name, wanted.pod);
        if key.is_file() {
            command.arg("--key").arg(key);
        }
        shell::output(command, None, READY.1)
            .await
            .with_context(|| format!("deploying {what}"))?;
        let ready = began.elapsed();
        self.running(site, wanted.pod, ready)
            .await
            .with_context(|| format!("looking at {what}"))
    }

    /// Takes a pod down and waits until its NIC is free again.
    pub(crate) async fn undeploy(&self, lab: &Lab, site: &Site, pod: &str) -> Result<()> {
        let mut command = self.operator(lab, site, "undeploy");
        command.args([pod, "--timeout", READY.0]);
        shell::output(command, None, READY.1)
            .await
            .with_context(|| format!("taking the pod {pod} of {} down", site.name))?;
        Ok(())
    }

    /// The command that runs a program in a pod's container: by the API server and the kubelet. Those
    /// hand no environment on, so with one it is runc that is asked, beneath them.
    pub(crate) fn command(
        &self,
        site: &Site,
        running: &Running,
        environment: &[&str],
        words: &[&str],
    ) -> Command {
        if environment.is_empty() {
            let mut command = self.kubectl(site);
            command
                .args(["exec", "--namespace", objects::TRANSFERS, &running.name])
                .args(["--container", CONTAINER, "--"])
                .args(words);
            return command;
        }
        let mut command = site.command("runc");
        command.args(["--root", RUNC, "exec"]);
        for pair in environment {
            command.args(["--env", pair]);
        }
        command.arg(&running.container).args(words);
        command
    }

    /// `dtnctl VERB --engine kubernetes` with an operator's rights.
    fn operator(&self, lab: &Lab, site: &Site, verb: &str) -> Command {
        let mut command = site.command(lab.options.program("dtnctl"));
        command
            .args([verb, "--engine", "kubernetes", "--kubeconfig"])
            .arg(objects::operator(&folder(&lab.place, site.name)))
            .args(["--namespace", objects::TRANSFERS])
            .env_remove("KUBECONFIG");
        command
    }

    /// The parts of a pod that a transfer needs, once its interface has been read back.
    async fn running(&self, site: &Site, name: &str, ready: Duration) -> Result<Running> {
        let get = |kind| {
            [
                "get",
                kind,
                name,
                "--namespace",
                objects::TRANSFERS,
                "--output",
                "json",
            ]
        };
        let pod = self.object(site, &get("pod")).await?;
        let text = |at: &str| pod.pointer(at).and_then(Value::as_str);
        let claim =
            text("/status/resourceClaimStatuses/0/resourceClaimName").context("it has no claim")?;
        let container = text("/status/containerStatuses/0/containerID")
            .and_then(|id| id.strip_prefix("containerd://"))
            .context("it has no container")?;
        let mut words = get("resourceclaim");
        words[2] = claim;
        let what = format!("the claim {claim} is ready");
        let claim = self.until(site, &what, &words, told).await?;
        let network = claim
            .pointer("/status/devices/0/networkData")
            .context("its claim tells no interface")?;
        let ips: Vec<String> = network["ips"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|ip| ip.as_str().map(str::to_owned))
            .collect();
        let pid = node::process(&self.kit, site, container).await?;
        Ok(Running {
            name: name.into(),
            container: container.into(),
            pid,
            netns: format!("/proc/{pid}/ns/net"),
            ifname: network["interfaceName"]
                .as_str()
                .context("its interface has no name")?
                .into(),
            addresses: pods::bare(&ips)?,
            ready,
        })
    }
}

/// Whether a claim's device says that the interface is in the pod.
fn told(claim: &Value) -> bool {
    let device = claim.pointer("/status/devices/0");
    let conditions = device.and_then(|device| device["conditions"].as_array());
    conditions
        .into_iter()
        .flatten()
        .any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// The folder of a pod's data: nobody but the node's admin makes it.
fn own_folder(folder: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(folder)
        .with_context(|| format!("making {}", folder.display()))?;
    nix::unistd::chown(folder, Some(UID.into()), Some(UID.into()))
        .with_context(|| format!("giving {} to the pod", folder.display()))
}
