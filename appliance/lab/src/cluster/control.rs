//! The control plane of a site's cluster: its processes, and what each is told.

use super::{
    Starter,
    pki::{Files, PORT, SERVICES},
};
use crate::{pillar::Pillar, site::management_v4};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What releases before 1.36 have to be told for shared NICs.
pub const GATES: (&str, bool) = ("DRAConsumableCapacity", true);

fn gates() -> String {
    format!("--feature-gates={}={}", GATES.0, GATES.1)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// etcd and the API server.
pub(crate) async fn start(starter: &Starter<'_>, files: &Files) -> Result<Vec<Pillar>> {
    let data = starter.root().join("var/lib/etcd");
    fs::create_dir_all(&data).with_context(|| format!("making {}", data.display()))?;
    Ok(vec![
        starter.process("etcd", etcd(&data))?,
        starter.process("kube-apiserver", apiserver(starter.site.index, files))?,
    ])
}

/// Those that speak to the API server.
pub(crate) fn start_rest(starter: &Starter<'_>, files: &Files) -> Result<Vec<Pillar>> {
    let words = |kubeconfig: &PathBuf| {
        vec![
            format!("--kubeconfig={}", text(kubeconfig)),
            "--bind-address=127.0.0.1".into(),
            // there is one of each
            "--leader-elect=false".into(),
            gates(),
        ]
    };
    let mut controllers = words(&files.controllers);
    controllers.extend([
        format!(
            "--service-account-private-key-file={}",
            text(&files.accounts.1)
        ),
        format!("--root-ca-file={}", text(&files.ca)),
        "--use-service-account-credentials".into(),
    ]);
    Ok(vec![
        starter.process("kube-controller-manager", controllers)?,
        starter.process("kube-scheduler", words(&files.scheduler))?,
    ])
}

/// What is in it is gone with the lab, so nothing waits for the disk.
fn etcd(data: &Path) -> Vec<String> {
    vec![
        format!("--data-dir={}", text(data)),
        "--listen-client-urls=http://127.0.0.1:2379".into(),
        "--advertise-client-urls=http://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        "--unsafe-no-fsync".into(),
    ]
}

/// kube-apiserver's words: nobody is let in without a certificate of the cluster's authority or a
/// service account's token.
pub fn apiserver(site: usize, files: &Files) -> Vec<String> {
    vec![
        "--etcd-servers=http://127.0.0.1:2379".into(),
        format!("--advertise-address={}", management_v4(site)),
        format!("--bind-address={}", management_v4(site)),
        format!("--secure-port={PORT}"),
        format!("--tls-cert-file={}", text(&files.server.0)),
        format!("--tls-private-key-file={}", text(&files.server.1)),
        format!("--client-ca-file={}", text(&files.ca)),
        "--anonymous-auth=false".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        format!(
            "--kubelet-client-certificate={}",
            text(&files.kubelet_client.0)
        ),
        format!("--kubelet-client-key={}", text(&files.kubelet_client.1)),
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={}", text(&files.accounts.0)),
        format!(
            "--service-account-signing-key-file={}",
            text(&files.accounts.1)
        ),
        format!("--service-cluster-ip-range={SERVICES}"),
        gates(),
    ]
}
