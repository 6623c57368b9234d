//! What the appliance needs in a cluster: the project's own manifests but for the daemons themselves,
//! which run as services of the host, a namespace for those who move data, and the kubeconfigs in
//! whose name everybody speaks.

use super::{
    Cluster,
    pki::{self, Proof},
};
use crate::{Options, daemons::HOST, site::Site};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Namespace of the appliance's service accounts.
pub const SYSTEM: &str = "dtn-system";
/// Namespace of the transfer pods.
pub const TRANSFERS: &str = "transfers";
/// Of `config/kubernetes/base`.
pub const MANIFESTS: [&str; 7] = [
    "namespace",
    "deviceclasses",
    "node-rbac",
    "node-policy",
    "controller-rbac",
    "claim-policy",
    "operator-rbac",
];
/// How long a token is good: a lab may be kept.
const VALID: &str = "720h";

/// kubeconfig of the node's supervisor.
pub fn agent(folder: &Path) -> PathBuf {
    folder.join("dtnd.kubeconfig")
}
/// Of the cluster's controller.
pub fn controller(folder: &Path) -> PathBuf {
    folder.join("dtn-cluster.kubeconfig")
}
/// Of who moves data: an operator's rights in one namespace.
pub fn operator(folder: &Path) -> PathBuf {
    folder.join("operator.kubeconfig")
}

/// Makes everything.
pub(crate) async fn make(
    cluster: &Cluster,
    site: &Site,
    options: &Options,
    folder: &Path,
) -> Result<()> {
    let base = options.share.join("config/kubernetes/base");
    let files: Vec<_> = MANIFESTS
        .iter()
        .map(|name| base.join(format!("{name}.yaml")).display().to_string())
        .collect();
    let mut words = vec!["apply", "--server-side"];
    for file in &files {
        words.extend(["--filename", file]);
    }
    cluster
        .said(site, &words)
        .await
        .with_context(|| format!("applying the manifests in {}", site.name))?;
    let said = async |words: &[&str]| {
        cluster
            .said(site, words)
            .await
            .with_context(|| format!("preparing the cluster of {}", site.name))
    };
    said(&["create", "namespace", TRANSFERS]).await?;
    // those of the daemons are in the manifests of the daemons' pods
    for (namespace, account) in [
        (SYSTEM, "dtn-node"),
        (SYSTEM, "dtn-cluster"),
        (TRANSFERS, "operator"),
    ] {
        said(&[
            "create",
            "serviceaccount",
            account,
            "--namespace",
            namespace,
        ])
        .await?;
    }
    let account = format!("--serviceaccount={TRANSFERS}:operator");
    said(&[
        "create",
        "rolebinding",
        "operator",
        "--namespace",
        TRANSFERS,
        "--clusterrole=dtn-operator",
        &account,
    ])
    .await?;
    let ca_file = folder.join("ca.crt");
    let ca =
        fs::read_to_string(&ca_file).with_context(|| format!("reading {}", ca_file.display()))?;
    // bound to its node, as the token of a DaemonSet's pod is
    let bound = ["--bound-object-kind", "Node", "--bound-object-name", HOST];
    for (namespace, account, more, file) in [
        (SYSTEM, "dtn-node", bound.as_slice(), agent(folder)),
        (SYSTEM, "dtn-cluster", &[], controller(folder)),
        (TRANSFERS, "operator", &[], operator(folder)),
    ] {
        let mut words = vec!["create", "token", account, "--namespace", namespace];
        words.extend(["--duration", VALID]);
        words.extend(more);
        let token = said(&words).await?;
        let proof = Proof::Token(token.trim().to_owned());
        pki::write(&file, &pki::kubeconfig(site.index, &ca, &proof))?;
    }
    // the controller manager makes it for a new namespace in its own time, and no pod is taken before
    said(&[
        "wait",
        "--for=create",
        "serviceaccount/default",
        "--namespace",
        TRANSFERS,
        "--timeout=60s",
    ])
    .await?;
    Ok(())
}
