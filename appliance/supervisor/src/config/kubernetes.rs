//! `[kubernetes]`: this host is a node of a cluster, and its NICs are offered there.

use dtn_api::{Name, layered::Reader};
use std::path::PathBuf;

/// Which node of which cluster this host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// The node's name in the cluster.
    pub node: String,
    /// How to speak to the API server; a pod's own account when absent.
    pub kubeconfig: Option<PathBuf>,
    /// The kubelet's folder, in which plugins have their sockets.
    pub kubelet_dir: PathBuf,
}

/// The table; `None` without one.
pub(super) fn read(reader: &mut Reader<'_>, host: Option<&Name>) -> Option<KubernetesConfig> {
    if !reader.is_there("kubernetes") {
        return None;
    }
    let node = reader.text("kubernetes.node");
    if let Some(node) = node.as_deref().filter(|node| !is_node(node)) {
        reader.error(
            "kubernetes.node",
            format!(
                "{node:?} cannot be a node's name: lower case letters, digits, - and ., as kubectl \
                 get nodes shows it"
            ),
        );
    }
    let kubeconfig = reader.is_there("kubernetes.kubeconfig");
    let kubeconfig = kubeconfig.then(|| reader.path("kubernetes.kubeconfig", ""));
    Some(KubernetesConfig {
        node: node.or_else(|| host.map(Name::to_string))?,
        kubeconfig,
        kubelet_dir: reader.path("kubernetes.kubelet-dir", "/var/lib/kubelet"),
    })
}

/// A DNS subdomain (RFC 1123), which Kubernetes wants of a node's name.
fn is_node(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
