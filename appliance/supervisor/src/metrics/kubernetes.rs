//! The metrics of the driver: how the host stands as a node of a cluster, read when it is asked for,
//! and what [`crate::cluster::counts`] counted, which is nowhere to be read.

use super::{Page, labels, one};
use crate::cluster::counts::Counts;
use prometheus_client::registry::Unit;

/// How the host stands as a node.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// The kubelet has registered the driver.
    pub registered: bool,
    /// The ResourceSlice is as it should be.
    pub publishing: bool,
    /// Devices in it.
    pub devices: u64,
    /// Those of them with a taint.
    pub tainted: u64,
    /// NICs that the site gave and that are not in it.
    pub left_out: u64,
    /// Claims of which everything is had.
    pub prepared: u64,
    /// Claims that something is or was being done for: being prepared, or not given back yet.
    pub unfinished: u64,
    /// What was counted.
    pub counts: Counts,
}

pub(super) fn write(page: &mut Page, node: Option<&Node>) {
    let Some(node) = node else { return };
    page.gauge(
        "kubernetes_registered",
        "1 while the kubelet has registered the driver",
        None,
        one(u64::from(node.registered)),
    );
    page.gauge(
        "kubernetes_publishing",
        "1 while the cluster has been told of the NICs",
        None,
        one(u64::from(node.publishing)),
    );
    page.gauge(
        "kubernetes_devices",
        "NICs by whether they are published, published with a taint, or left out",
        None,
        [
            ("published", node.devices.saturating_sub(node.tainted)),
            ("tainted", node.tainted),
            ("left-out", node.left_out),
        ]
        .map(|(state, count)| (labels(&[("state", &state)]), count))
        .to_vec(),
    );
    page.gauge(
        "kubernetes_claims",
        "Claims that this node has something for",
        None,
        [("prepared", node.prepared), ("unfinished", node.unfinished)]
            .map(|(state, count)| (labels(&[("state", &state)]), count))
            .to_vec(),
    );
    page.register(
        "kubernetes_kubelet_call",
        "What the kubelet asked for, for one claim each, and how long the answer took",
        Some(Unit::Seconds),
        node.counts.kubelet.clone(),
    );
    page.register(
        "kubernetes_api_calls",
        "Calls of the API server, by what they were for",
        None,
        node.counts.api.clone(),
    );
}
