//! What is in the journal, and how a run that is done becomes part of the base. Pure.

use crate::{accounts::Account, image::Image, step::Holds, undo::is_state};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Of this format; a newer one is refused.
pub(super) const FORMAT: u32 = 1;

/// What one deed takes to be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Record {
    /// Services of ours that ran before.
    Services { running: Vec<String> },
    /// What was at a path.
    Path {
        path: PathBuf,
        before: Image,
        holds: Holds,
    },
    /// Accounts that were not there.
    Accounts { added: Vec<Account> },
    /// Packages that were not there, and places that they fill by themselves once they run.
    Packages {
        added: Vec<String>,
        #[serde(default)]
        traces: Vec<PathBuf>,
    },
    /// A setting of the kernel.
    Setting { key: String, before: String },
    /// A service, and whether it ran.
    Run { unit: String, ran: bool },
}

impl Record {
    /// Whether the two speak of the same thing, so that the older says how it was.
    fn is_about(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Services { .. }, Self::Services { .. }) => true,
            (Self::Path { path, .. }, Self::Path { path: other, .. }) => path == other,
            (Self::Setting { key, .. }, Self::Setting { key: other, .. }) => key == other,
            (Self::Run { unit, .. }, Self::Run { unit: other, .. }) => unit == other,
            _ => self == other,
        }
    }
}

/// What is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Base {
    pub(super) format: u32,
    /// Version of the appliance that is installed.
    pub(crate) version: String,
    /// The run that was merged last.
    pub(super) last_run: String,
    /// Folders that were made for the journal itself.
    pub(super) made: Vec<PathBuf>,
    /// What was there before, in the order in which it was changed.
    pub(crate) records: Vec<Record>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) format: u32,
    pub(super) run: String,
    pub(super) version: String,
    pub(super) made: Vec<PathBuf>,
}

/// An installation that is under way, or was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(super) head: Head,
    /// What was done, in order.
    pub(crate) records: Vec<Record>,
}

/// How an uninstallation was asked for: it is completed in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Removal {
    pub(super) format: u32,
    /// Configuration and state stay.
    pub(crate) keep_state: bool,
    /// Packages that were added go too.
    pub(crate) packages: bool,
}

/// The base with a run in it. Pure.
pub(super) fn merged(base: Option<&Base>, run: &Run) -> Base {
    let mut records = base.map(|base| base.records.clone()).unwrap_or_default();
    for record in &run.records {
        if !records.iter().any(|older| older.is_about(record)) {
            records.push(record.clone());
        }
    }
    let mut made = base.map(|base| base.made.clone()).unwrap_or_default();
    for folder in &run.head.made {
        if !made.contains(folder) {
            made.push(folder.clone());
        }
    }
    Base {
        format: FORMAT,
        version: run.head.version.clone(),
        last_run: run.head.run.clone(),
        made,
        records,
    }
}

/// Of a base what an uninstallation leaves when state stays: a later one is to take it back. Pure.
pub(super) fn left(base: &Base) -> Base {
    let is_left = |record: &&Record| match record {
        Record::Path { path, before, .. } => is_state(path) && *before == Image::Absent,
        Record::Accounts { .. } => true,
        _ => false,
    };
    Base {
        records: base.records.iter().filter(is_left).cloned().collect(),
        ..base.clone()
    }
}

pub(super) fn check(format: u32) -> Result<()> {
    if format > FORMAT {
        bail!(
            "the journal is of format {format}, and this program knows up to {FORMAT}: use the \
             dtn-install that wrote it (/usr/libexec/dtn/dtn-install)"
        );
    }
    Ok(())
}
