//! What ran the pods, where they were, and what the fabric's own controller says of them.

use serde::{Deserialize, Serialize};

/// What ran the pods of the sites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineEvidence {
    /// `podman` or `kubernetes`.
    pub kind: String,
    /// Its release, when it was told.
    #[serde(default)]
    pub version: Option<String>,
}

impl Default for EngineEvidence {
    /// What every run had before there was another.
    fn default() -> Self {
        Self {
            kind: "podman".into(),
            version: None,
        }
    }
}

impl EngineEvidence {
    pub(super) fn line(&self) -> String {
        let each = match self.kind.as_str() {
            "kubernetes" => ", a cluster of its own at each site",
            _ => "",
        };
        let version = self.version.as_ref().map(|version| format!(" {version}"));
        format!("{}{}{each}", self.kind, version.unwrap_or_default())
    }
}

/// A pod that files moved from or to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodEvidence {
    /// The site.
    pub site: String,
    /// Its name.
    pub name: String,
    /// Addresses of its data interface.
    pub addresses: Vec<String>,
    /// From asking for it until it was ready, milliseconds.
    pub ready_ms: f64,
}

impl PodEvidence {
    pub(super) fn line(&self) -> String {
        format!(
            "{} of {}: {}, ready {:.1} s after it was asked for",
            self.name,
            self.site,
            self.addresses.join(" "),
            self.ready_ms / 1000.0
        )
    }
}

/// A pod in the list of hosts of the fabric's own controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedHost {
    /// The site.
    pub site: String,
    /// The pod.
    pub pod: String,
    /// What the list calls it.
    pub name: String,
    /// Its MAC address there.
    pub mac: String,
    /// Its addresses there.
    pub addresses: Vec<String>,
    /// Switch and port where it is.
    pub location: String,
}

impl ListedHost {
    pub(super) fn line(&self) -> String {
        format!(
            "{} of {}: {} ({}), {}, at {}",
            self.pod,
            self.site,
            self.name,
            self.mac,
            self.addresses.join(" "),
            self.location
        )
    }
}
