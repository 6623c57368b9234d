//! Puts a tree out of the page cache, so that the next reading of it is from the disk.

use crate::tree::{self, Kind};
use anyhow::Context as _;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::{fs::File, path::Path};

/// What was put out.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Dropped {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Drops every file below `root` from the page cache. Pages that wait to be written are not
/// dropped by the kernel (`POSIX_FADV_DONTNEED`, posix_fadvise(2)), so each file is synced first.
pub fn drop_tree(root: &Path) -> anyhow::Result<Dropped> {
    let mut dropped = Dropped::default();
    for entry in tree::scan(root)? {
        let Kind::File(size) = entry.kind else {
            continue;
        };
        let file = File::open(tree::join(root, &entry.path))
            .with_context(|| format!("opening {}", entry.shown()))?;
        file.sync_data()
            .with_context(|| format!("syncing {}", entry.shown()))?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .with_context(|| format!("dropping the pages of {}", entry.shown()))?;
        dropped.files += 1;
        dropped.bytes += size;
    }
    Ok(dropped)
}
