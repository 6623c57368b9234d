//! Which congestion controls a sandbox of this host may choose.
//!
//! The kernel lets a network namespace that is not the first one choose only those that
//! `net.ipv4.tcp_allowed_congestion_control` lists (`TCP_CONG_NON_RESTRICTED`), and that list can be
//! written in the first namespace alone. A sandbox starts with the first namespace's own choice.

use crate::{CongestionControl, Outcome, apply::set};
use dtn_link::{Netns, Result, sysctl};
use serde::{Deserialize, Serialize};

const AVAILABLE: &str = "net.ipv4.tcp_available_congestion_control";
const ALLOWED: &str = "net.ipv4.tcp_allowed_congestion_control";
const CURRENT: &str = "net.ipv4.tcp_congestion_control";

/// What a host offers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Controls {
    /// Built in, or loaded as a module.
    pub available: Vec<String>,
    /// Those that a sandbox may choose.
    pub allowed: Vec<String>,
    /// What the namespace has now, and new sandboxes start with.
    pub current: String,
}

impl Controls {
    /// Whether a sandbox can have it.
    pub fn admit(&self, control: CongestionControl) -> bool {
        self.current == control.as_str() || self.allowed.iter().any(|c| c == control.as_str())
    }
}

/// Reads what a host offers.
pub async fn controls(host: &Netns) -> Result<Controls> {
    let list = async |key| -> Result<Vec<String>> {
        let text = sysctl::read(host, key).await?.unwrap_or_default();
        Ok(text
            .split(' ')
            .filter(|c| !c.is_empty())
            .map(str::to_owned)
            .collect())
    };
    Ok(Controls {
        available: list(AVAILABLE).await?,
        allowed: list(ALLOWED).await?,
        current: sysctl::read(host, CURRENT).await?.unwrap_or_default(),
    })
}

/// Lets sandboxes choose a congestion control; `host` must be the machine's first namespace. The
/// outcome is taken back by [`crate::restore`]. `None` when they may already.
pub async fn allow(host: &Netns, control: CongestionControl) -> Result<Option<Outcome>> {
    let offered = controls(host).await?;
    if offered.allowed.iter().any(|c| c == control.as_str()) {
        return Ok(None);
    }
    let mut wanted = offered.allowed;
    wanted.push(control.to_string());
    let mut outcome = set(host, ALLOWED, &wanted.join(" ")).await;
    // the kernel lists them in an order of its own
    let shown = controls(host).await?.allowed;
    if wanted.iter().all(|c| shown.contains(c)) {
        outcome.error = None;
    }
    Ok(Some(outcome))
}
