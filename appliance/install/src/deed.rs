//! How a step is seen to hold, noted and done.

use crate::{
    accounts, answer,
    command::{SHORT, may, must},
    host::Host,
    image::{self, Bytes, Image, Owned},
    journal::{Journal, Record},
    packages, podman,
    step::{Content, Holds, Keeper, Reader, Step},
    units,
};
use anyhow::{Context, Result};
use std::{fs, path::Path};

/// The host, and the release that things are taken from.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    pub(crate) host: &'a Host,
    /// The folder of the release.
    pub(crate) release: &'a Path,
}

impl Site<'_> {
    /// Whether nothing has to be done.
    pub(crate) fn holds(&self, step: &Step, journal: &Journal) -> Result<bool> {
        let host = self.host;
        Ok(match step {
            // they follow from others
            Step::Services { .. }
            | Step::Reload { .. }
            | Step::Run { .. }
            | Step::Answer { .. } => false,
            Step::Folder {
                path,
                mode,
                owner,
                group,
                as_found,
                ..
            } => match Image::of(&host.at(path))? {
                Image::Folder { .. } if *as_found => true,
                Image::Folder { owned } => {
                    owned.mode == *mode
                        && Some(owned.uid) == host.user(owner)?
                        && Some(owned.gid) == host.group(group)?
                }
                // a link to a folder is the admin's way to have it elsewhere
                Image::Link { .. } => host.at(path).is_dir(),
                _ => false,
            },
            Step::File {
                path,
                mode,
                owner,
                group,
                content,
                keeper,
            } => {
                let now = Image::of(&host.at(path))?;
                if *keeper == Keeper::Admin {
                    return Ok(now != Image::Absent);
                }
                match now {
                    Image::File { sha256, owned, .. } => {
                        sha256 == content.digest()
                            && owned.mode == *mode
                            && Some(owned.uid) == host.user(owner)?
                            && Some(owned.gid) == host.group(group)?
                    }
                    _ => false,
                }
            }
            Step::Link {
                path,
                target,
                keeper,
            } => match Image::of(&host.at(path))? {
                Image::Link { target: now } => now == *target || *keeper == Keeper::Admin,
                // an admin who takes one of ours away means it
                Image::Absent => *keeper == Keeper::Admin && journal.knows(path),
                _ => false,
            },
            Step::Gone { path } => Image::of(&host.at(path))? == Image::Absent,
            Step::Accounts { wanted } => {
                accounts::missing(&host.account_files()?, wanted).is_empty()
            }
            Step::Packages { names } => packages::missing(host, names)?.is_empty(),
            Step::Setting { key, value } => {
                setting(key)?.is_none_or(|now| plain(&now) == plain(value))
            }
        })
    }

    /// What it takes to take the step back; the bytes of a file are kept. None where nothing is changed
    /// that lasts.
    pub(crate) fn record(&self, step: &Step, journal: &Journal) -> Result<Option<Record>> {
        let host = self.host;
        Ok(match step {
            Step::Services { units } => Some(Record::Services {
                running: units
                    .iter()
                    .filter(|unit| units::is_active(host, unit))
                    .cloned()
                    .collect(),
            }),
            Step::Folder { path, .. }
            | Step::File { path, .. }
            | Step::Link { path, .. }
            | Step::Gone { path } => {
                let place = host.at(path);
                let before = if journal.is_own(path) {
                    // made by the journal a moment ago
                    Image::Absent
                } else {
                    Image::of(&place)?
                };
                if let Image::File { sha256, .. } = &before {
                    journal.keep(&place, sha256)?;
                }
                let holds = match step {
                    Step::Folder { holds, .. } => *holds,
                    _ => Holds::Steps,
                };
                Some(Record::Path {
                    path: path.clone(),
                    before,
                    holds,
                })
            }
            Step::Accounts { wanted } => Some(Record::Accounts {
                added: accounts::missing(&host.account_files()?, wanted),
            }),
            Step::Packages { names } => {
                let added = packages::would_add(host, names)?;
                let comes = added.iter().any(|name| name == "podman");
                let mut traces = Vec::new();
                for path in podman::TRACES.iter().filter(|_| comes) {
                    if Image::of(&host.at(path))? == Image::Absent {
                        traces.push(path.into());
                    }
                }
                Some(Record::Packages { added, traces })
            }
            Step::Setting { key, .. } => setting(key)?.map(|before| Record::Setting {
                key: key.clone(),
                before: plain(&before),
            }),
            Step::Run { unit } => Some(Record::Run {
                unit: unit.clone(),
                ran: units::is_active(host, unit),
            }),
            Step::Reload { .. } | Step::Answer { .. } => None,
        })
    }

    /// Does it.
    pub(crate) fn act(&self, step: &Step) -> Result<()> {
        let host = self.host;
        match step {
            Step::Services { .. } => Ok(()),
            Step::Folder {
                path,
                mode,
                owner,
                group,
                ..
            } => {
                let place = host.at(path);
                if !place.is_dir() {
                    fs::create_dir(&place)
                        .with_context(|| format!("making the folder {}", place.display()))?;
                }
                image::own(&place, &self.owned(*mode, owner, group)?)?;
                image::flush_parent(&place)
            }
            Step::File {
                path,
                mode,
                owner,
                group,
                content,
                ..
            } => {
                let owned = self.owned(*mode, owner, group)?;
                let place = host.at(path);
                match content {
                    Content::Text(text) => {
                        image::put(&place, &Bytes::Text(text.as_bytes()), &owned, None)
                    }
                    Content::Release { path, .. } => {
                        let source = self.release.join(path);
                        image::put(&place, &Bytes::File(&source), &owned, None)
                    }
                }
            }
            Step::Link { path, target, .. } => image::link(&host.at(path), target),
            Step::Gone { path } => image::remove(&host.at(path)),
            Step::Accounts { wanted } => host
                .change_accounts(|files| accounts::added(files, &accounts::missing(files, wanted))),
            Step::Packages { names } => packages::install(host, names),
            Step::Setting { key, value } => set(key, value),
            Step::Reload { whom } => {
                for reader in whom {
                    reload(*reader)?;
                }
                Ok(())
            }
            Step::Run { unit } => units::start_anew(host, unit),
            Step::Answer { version } => answer::wait(version),
        }
    }

    fn owned(&self, mode: u32, owner: &str, group: &str) -> Result<Owned> {
        let uid = self.host.user(owner)?;
        let gid = self.host.group(group)?;
        Ok(Owned {
            mode,
            uid: uid.with_context(|| format!("the user {owner} is not known on this host"))?,
            gid: gid.with_context(|| format!("the group {group} is not known on this host"))?,
            ..Owned::default()
        })
    }
}

impl Content {
    fn digest(&self) -> String {
        match self {
            Self::Text(text) => image::digest_of(text.as_bytes()),
            Self::Release { sha256, .. } => sha256.clone(),
        }
    }
}

/// Tells somebody that what it reads has changed. Those that do not run will read it when they start.
pub(crate) fn reload(reader: Reader) -> Result<()> {
    let active = |unit: &str| may("systemctl", &["is-active", "--quiet", unit]).is_some();
    match reader {
        Reader::Systemd => must("systemctl", &["daemon-reload"], SHORT).map(drop),
        Reader::Udev if active("systemd-udevd.service") => {
            must("udevadm", &["control", "--reload"], SHORT).map(drop)
        }
        Reader::Networkd if active("systemd-networkd.service") => {
            must("networkctl", &["reload"], SHORT).map(drop)
        }
        Reader::NetworkManager if active("NetworkManager.service") => {
            must("systemctl", &["reload", "NetworkManager.service"], SHORT).map(drop)
        }
        _ => Ok(()),
    }
}

/// A setting of the kernel in the host's own namespace; none where this kernel has no such.
pub(crate) fn setting(key: &str) -> Result<Option<String>> {
    let file = setting_file(key);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("reading {}", file.display())),
    }
}

/// Sets one.
pub(crate) fn set(key: &str, value: &str) -> Result<()> {
    let file = setting_file(key);
    fs::write(&file, plain(value))
        .with_context(|| format!("setting {key} to {value:?} ({})", file.display()))
}

fn setting_file(key: &str) -> std::path::PathBuf {
    Path::new("/proc/sys").join(key.replace('.', "/"))
}

fn plain(value: &str) -> String {
    dtn_link::sysctl::plain(value)
}
