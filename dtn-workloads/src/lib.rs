//! Pod templates: what they declare, what is rendered from them, and whether that may run here.
//!
//! A template is a folder with `pod.yaml.j2` (a Kubernetes v1 Pod with gaps) and `values.toml`
//! (what may stand in the gaps). The way is [`Template::load`] → [`Template::render`] →
//! [`RenderedPod`], which `dtnd` hands to podman, and which [`kubernetes`] turns into what a cluster
//! is given. Rendering is pure; only [`layout`] touches the disk, to make the folders and the key
//! that a pod mounts.
//!
//! Nothing runs that [`check()`] does not pass: no host namespace, no root, no capability, a
//! read-only root, a memory limit, and no folder of the host that a pod has no business in.

pub mod check;
pub mod key;
pub mod kubernetes;
pub mod layout;
pub mod rendered;
pub mod template;
pub mod values;

pub use check::check;
pub use key::TransferKey;
pub use rendered::{Port, RenderedPod, Wishes};
pub use template::{Template, TemplateError, list};

use std::fmt;

/// Prefix of the annotations that `dtnd` reads.
pub const PREFIX: &str = "dtn.appliance/";
/// Annotation: name of the data interface in the pod.
pub const INTERFACE: &str = "dtn.appliance/interface";
/// Annotation: `dedicated` or `shared`.
pub const NIC_CLASS: &str = "dtn.appliance/nic-class";
/// Annotation: the slice that the interface is a member of; absent is best effort.
pub const SLICE: &str = "dtn.appliance/slice";
/// Annotation: the template that the pod was rendered from.
pub const TEMPLATE: &str = "dtn.appliance/template";

/// One thing that is wrong, with its place and its remedy; they always come all at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where: `values.streams`, `spec.containers[0].securityContext.privileged`.
    pub path: String,
    /// What is wrong with it, and how to mend it.
    pub why: String,
}

impl Problem {
    /// A problem at this place.
    pub fn new(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            why: why.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}
