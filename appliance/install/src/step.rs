//! What an installation consists of: steps, each of which says what shall hold. Pure; how a step is
//! done and taken back stands in [`crate::deed`] and [`crate::undo`].

use crate::accounts::Account;
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// One thing that shall hold. Paths are those of the host, below whatever root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Not a deed: what runs now is noted, so that a rollback brings it back.
    Services { units: Vec<String> },
    /// A folder is there.
    Folder {
        path: PathBuf,
        mode: u32,
        owner: String,
        group: String,
        /// What becomes of what is in it, when it is taken back.
        holds: Holds,
        /// One that is there keeps the mode and owner that it has.
        as_found: bool,
    },
    /// A file is there, with this content.
    File {
        path: PathBuf,
        mode: u32,
        owner: String,
        group: String,
        content: Content,
        keeper: Keeper,
    },
    /// A symbolic link is there.
    Link {
        path: PathBuf,
        target: PathBuf,
        keeper: Keeper,
    },
    /// A file of an older version is there no more.
    Gone { path: PathBuf },
    /// Users and groups are there.
    Accounts { wanted: Vec<Account> },
    /// The distribution's packages are there.
    Packages { names: Vec<String> },
    /// A setting of the running kernel.
    Setting { key: String, value: String },
    /// Those who read what was written above are told.
    Reload { whom: Vec<Reader> },
    /// A service runs; one that ran before runs anew.
    Run { unit: String },
    /// A daemon answers, and is of this version.
    Answer { version: String },
}

/// What becomes of what is in a folder when the folder is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Holds {
    /// Nothing but what has a step of its own: what else is there stays.
    Steps,
    /// State of the appliance: it goes with the folder.
    State,
}

/// Who keeps a file as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// The appliance: each installation makes it what it should be.
    Appliance,
    /// The admin: it is made once, and never again touched.
    Admin,
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// Made here.
    Text(String),
    /// A file of the release, by its path in there.
    Release { path: String, sha256: String },
}

/// Who reads files that are put in, and has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reader {
    /// systemd: units.
    Systemd,
    /// udev: rules and `.link` files.
    Udev,
    /// systemd-networkd: `.network` files.
    Networkd,
    /// NetworkManager.
    NetworkManager,
}

impl Reader {
    /// Whether it reads this file.
    pub(crate) fn reads(self, path: &Path) -> bool {
        let under = |folder: &str| path.starts_with(folder);
        let ends = |ending: &str| path.extension().is_some_and(|e| e == ending);
        match self {
            Self::Systemd => under("/usr/lib/systemd/system") || under("/etc/systemd/system"),
            Self::Udev => under("/etc/udev") || (under("/etc/systemd/network") && ends("link")),
            Self::Networkd => under("/etc/systemd/network") && ends("network"),
            Self::NetworkManager => under("/etc/NetworkManager"),
        }
    }
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [
        Self::Systemd,
        Self::Udev,
        Self::Networkd,
        Self::NetworkManager,
    ];
}
impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Systemd => "systemd",
            Self::Udev => "udev",
            Self::Networkd => "systemd-networkd",
            Self::NetworkManager => "NetworkManager",
        })
    }
}

impl Step {
    /// A file of root's, kept by the appliance.
    pub(crate) fn file(path: impl Into<PathBuf>, mode: u32, content: Content) -> Self {
        Self::File {
            path: path.into(),
            mode,
            owner: "root".into(),
            group: "root".into(),
            content,
            keeper: Keeper::Appliance,
        }
    }
    /// The path that it changes, if it changes one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Folder { path, .. }
            | Self::File { path, .. }
            | Self::Link { path, .. }
            | Self::Gone { path } => Some(path),
            _ => None,
        }
    }
    /// Whether a daemon has to start anew after it: a program, a unit, or what is linked beside a unit.
    pub(crate) fn concerns_daemons(&self) -> bool {
        let places = ["/usr/sbin", "/usr/lib/systemd/system"];
        matches!(self, Self::File { .. } | Self::Gone { .. })
            && self
                .path()
                .is_some_and(|path| places.iter().any(|folder| path.starts_with(folder)))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Services { units } => write!(f, "note which of {} run", units.join(", ")),
            Self::Folder {
                path,
                mode,
                owner,
                group,
                ..
            } => write!(f, "folder  {}  {mode:04o} {owner}:{group}", path.display()),
            Self::File {
                path,
                mode,
                owner,
                group,
                ..
            } => write!(f, "file    {}  {mode:04o} {owner}:{group}", path.display()),
            Self::Link { path, target, .. } => {
                write!(f, "link    {} -> {}", path.display(), target.display())
            }
            Self::Gone { path } => write!(f, "remove  {}", path.display()),
            Self::Accounts { wanted } => {
                let names: Vec<String> = wanted.iter().map(ToString::to_string).collect();
                write!(f, "account {}", names.join(", "))
            }
            Self::Packages { names } => write!(f, "package {}", names.join(", ")),
            Self::Setting { key, value } => write!(f, "setting {key} = {value}"),
            Self::Reload { whom } => {
                let names: Vec<String> = whom.iter().map(ToString::to_string).collect();
                write!(f, "reload  {}", names.join(", "))
            }
            Self::Run { unit } => write!(f, "run     {unit}"),
            Self::Answer { version } => write!(f, "check   dtnd answers as version {version}"),
        }
    }
}
