//! The engine `kubernetes`: the verbs for pods with a cluster in the place of this host's podman.
//!
//! A walk through the files: `wishes` (what can be asked, and the template) → `cluster` (which one,
//! and what its refusals mean) → `change` and `plan` (what is there against what would be) →
//! `key` → `deploy` and `undeploy` → `standing` (what a pod waits for, in words) → `follow` → `view`,
//! `tables` and `pods`.
//! Nothing here is touched by verbs that do not name the engine.

mod change;
mod cluster;
pub(crate) mod deploy;
mod follow;
mod key;
mod plan;
pub(crate) mod pods;
mod standing;
mod tables;
pub(crate) mod undeploy;
mod view;
mod wishes;

pub(crate) use wishes::Wishes;

use crate::failure::Failure;
use dtn_workloads::kubernetes::MANAGED_BY;
use std::{collections::BTreeMap, path::PathBuf};

/// Heading of the options that only a cluster has.
pub(crate) const HEADING: &str = "With --engine kubernetes";
/// Who owns the fields that are applied.
pub(crate) const FIELD_MANAGER: &str = "dtnctl";

/// What runs pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Engine {
    // by the host's supervisor
    #[default]
    Podman,
    // by its API server
    Kubernetes,
}

/// Which engine, and which cluster.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Reach {
    /// What runs the pods: podman on this host, or a cluster
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "ENGINE",
        default_value_t
    )]
    pub(crate) engine: Engine,
    /// The cluster's kubeconfig; $KUBECONFIG, ~/.kube/config or the pod's own account when absent
    #[arg(long, global = true, help_heading = HEADING, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; its current one when absent
    #[arg(long, global = true, help_heading = HEADING, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace of the pods; the context's when absent
    #[arg(long, short, global = true, help_heading = HEADING, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

impl Reach {
    /// Whether a cluster is meant; options that mean one are refused without it.
    pub(crate) fn cluster(&self, more: &[(&str, bool)]) -> Result<bool, Failure> {
        if self.engine == Engine::Kubernetes {
            return Ok(true);
        }
        let own = [
            ("--kubeconfig", self.kubeconfig.is_some()),
            ("--context", self.context.is_some()),
            ("--namespace", self.namespace.is_some()),
        ];
        let all = own.iter().chain(more);
        let given: Vec<&str> = all.filter(|(_, given)| *given).map(|(n, _)| *n).collect();
        match given.is_empty() {
            true => Ok(false),
            false => Err(Failure::Usage(format!(
                "{} means a cluster: add --engine kubernetes",
                given.join(", ")
            ))),
        }
    }

    /// The options that mean this cluster, for commands that are shown.
    pub(crate) fn options(&self) -> String {
        let mut text = " --engine kubernetes".to_owned();
        let path = self.kubeconfig.as_ref().map(|path| path.to_string_lossy());
        let options = [
            ("--kubeconfig", path.as_deref()),
            ("--context", self.context.as_deref()),
            ("--namespace", self.namespace.as_deref()),
        ];
        for (option, value) in options {
            if let Some(value) = value {
                text.push_str(&format!(" {option} {}", crate::wording::quoted(value)));
            }
        }
        text
    }
}

/// Whether labels say that `dtnctl` made the object.
fn ours(labels: Option<&BTreeMap<String, String>>) -> bool {
    labels
        .and_then(|labels| labels.get(MANAGED_BY.0))
        .is_some_and(|by| by == MANAGED_BY.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_cluster_need_the_engine() {
        let reach = Reach {
            context: Some("a".into()),
            ..Reach::default()
        };
        let told = reach.cluster(&[("--node", true), ("--rate", false)]);
        let told = told.unwrap_err().message();
        assert!(told.contains("--context, --node means a cluster"), "{told}");
        assert!(!Reach::default().cluster(&[]).unwrap());
        let reach = Reach {
            engine: Engine::Kubernetes,
            namespace: Some("it's".into()),
            ..reach
        };
        assert!(reach.cluster(&[]).unwrap());
        assert_eq!(
            reach.options(),
            r" --engine kubernetes --context a --namespace 'it'\''s'"
        );
    }
}
