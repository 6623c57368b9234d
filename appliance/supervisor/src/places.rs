//! Where everything is on this host: every path that `dtnd` uses, below one root.
//!
//! Paths that an admin writes into the configuration (the podman socket, the folder of plugins…)
//! are taken as they stand there and are not below the root.

use dtn_api::{DTND_SOCKET, RUN_DIR, STATE_DIR, attachment};
use std::path::{Path, PathBuf};

/// All places below one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    root: PathBuf,
}

impl Places {
    /// Below this root; `/` on a host of its own.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
    fn below(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// What outlives a reboot.
    pub fn state(&self) -> PathBuf {
        self.below(STATE_DIR)
    }
    /// What does not.
    pub fn run(&self) -> PathBuf {
        self.below(RUN_DIR)
    }
    /// Own socket.
    pub fn socket(&self) -> PathBuf {
        self.below(DTND_SOCKET)
    }
    /// The outcome of the last reload.
    pub fn reload(&self) -> PathBuf {
        self.run().join("dtnd.reload")
    }
    /// Records of attachments, written by the plugins.
    pub fn attachments(&self) -> PathBuf {
        self.state().join("attachments")
    }
    /// Leases that could not be given back yet.
    pub fn releases(&self) -> PathBuf {
        self.state().join("releases")
    }
    /// Negotiations, one file each.
    pub fn negotiations(&self) -> PathBuf {
        self.state().join("negotiations")
    }
    /// Gateways, one file each.
    pub fn gateways(&self) -> PathBuf {
        self.state().join("gateways")
    }
    /// Who this host is in its domain.
    pub fn identity(&self) -> PathBuf {
        self.state().join("identity")
    }
    /// What was asked of pods, one file each.
    pub fn pods(&self) -> PathBuf {
        self.state().join("pods")
    }
    /// Claims of Kubernetes that are prepared here, one file each.
    pub fn claims(&self) -> PathBuf {
        self.state().join("claims")
    }
    /// What is ready to be attached, one file per pod.
    pub fn prepared(&self) -> PathBuf {
        self.run().join("prepared")
    }
    /// The prepared file of a key (a pod's UID or a container's ID).
    pub fn prepared_file(&self, key: &str) -> PathBuf {
        self.prepared().join(attachment::file_name(key))
    }
    /// Pins of the sandboxes.
    pub fn netns(&self) -> PathBuf {
        self.run().join("netns")
    }
    /// The pin of one sandbox.
    pub fn netns_of(&self, key: &str) -> PathBuf {
        self.netns().join(key)
    }

    /// Makes the folders that are missing, for root alone.
    pub fn create(&self) -> std::io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        for folder in [
            self.attachments(),
            self.releases(),
            self.negotiations(),
            self.gateways(),
            self.identity(),
            self.pods(),
            self.claims(),
            self.prepared(),
            self.netns(),
        ] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(|e| {
                    std::io::Error::new(e.kind(), format!("making {}: {e}", folder.display()))
                })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_below_the_root() {
        let places = Places::new("/srv/site");
        assert_eq!(places.socket(), Path::new("/srv/site/run/dtn/dtnd.sock"));
        assert_eq!(
            places.prepared_file("u-1"),
            Path::new("/srv/site/run/dtn/prepared/u-1.json")
        );
        assert_eq!(
            Places::new("/").attachments(),
            Path::new("/var/lib/dtn/attachments")
        );
    }
}
