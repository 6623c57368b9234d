//! Taking back what a journal has: the last deed first, services stopped before anything and started
//! after everything. Each part can be done again, so that whatever cuts it off, the next call ends it.

use crate::{
    deed::{self, reload},
    failpoint::reach,
    host::Host,
    image::Image,
    journal::{Journal, Record},
    packages, podman,
    release::{self, INSTALLER},
    step::{Holds, Reader},
    units,
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What stays although it was added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stays {
    /// Configuration and state of the daemons.
    pub(crate) state: bool,
    /// The distribution's packages.
    pub(crate) packages: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What a person should know.
    pub(crate) notes: Vec<String>,
    /// What could not be taken back.
    pub(crate) failures: Vec<String>,
}

/// Takes everything back. What fails is told, and the rest goes on; but then the installer stays, for the
/// next call needs it.
pub(crate) fn take_back(
    host: &Host,
    journal: &Journal,
    records: &[Record],
    stays: Stays,
) -> Outcome {
    let mut outcome = Outcome::default();
    let stopped = reach("stop").and_then(|()| units::stop(host, &units::brought(records)));
    outcome
        .failures
        .extend(stopped.err().map(|e| format!("{e:#}")));
    let stage = |record: &Record| match record {
        Record::Services { .. } => 2,
        Record::Path { path, .. } if leads_to_installer(path) => 3,
        _ => 1,
    };
    let mut ordered: Vec<&Record> = records.iter().rev().collect();
    ordered.sort_by_key(|record| stage(record));
    let changed: Vec<&Path> = records
        .iter()
        .filter_map(|record| match record {
            Record::Path { path, .. } => Some(path.as_path()),
            _ => None,
        })
        .collect();
    let mut told = false;
    for record in ordered {
        if stage(record) >= 2 && !told {
            told = true;
            tell_readers(host, &changed, &mut outcome);
        }
        if stage(record) == 3 && !outcome.failures.is_empty() {
            continue;
        }
        let done = reach("undo")
            .and_then(|()| one(host, journal, record, &changed, stays))
            .and_then(|note| reach("undone").map(|()| note));
        match done {
            Ok(note) => outcome.notes.extend(note),
            Err(e) => outcome.failures.push(format!("{e:#}")),
        }
    }
    if !told {
        tell_readers(host, &changed, &mut outcome);
    }
    outcome
}

fn tell_readers(host: &Host, changed: &[&Path], outcome: &mut Outcome) {
    if !host.live {
        return;
    }
    for reader in Reader::ALL {
        if changed.iter().any(|path| reader.reads(path))
            && let Err(e) = reload(reader)
        {
            outcome.failures.push(format!("{e:#}"));
        }
    }
}

fn one(
    host: &Host,
    journal: &Journal,
    record: &Record,
    changed: &[&Path],
    stays: Stays,
) -> Result<Option<String>> {
    match record {
        Record::Path {
            path,
            before,
            holds,
        } => {
            if stays.state && is_state(path) {
                return Ok(None);
            }
            let place = host.at(path);
            if *holds == Holds::State && *before == Image::Absent && place.is_dir() {
                empty(&place, journal)?;
                if journal.is_own(path) {
                    // it goes with the journal
                    return Ok(None);
                }
            }
            let note = before.restore(&place, &journal.blobs())?;
            if *before == Image::Absent {
                units::remove_links(host, path, changed)?;
            }
            Ok(note)
        }
        // state that stays belongs to them
        Record::Accounts { .. } if stays.state => Ok(None),
        Record::Accounts { added } => {
            host.change_accounts(|files| Ok(crate::accounts::removed(files, added)))?;
            Ok(None)
        }
        Record::Packages { added, .. } if added.is_empty() || !host.live => Ok(None),
        Record::Packages { added, .. } if stays.packages => Ok(Some(format!(
            "packages that were added stay; to remove them: {} {}",
            if host.apt {
                "apt-get purge"
            } else {
                "dnf remove"
            },
            added.join(" ")
        ))),
        Record::Packages { added, traces } => remove_packages(host, journal, added, traces),
        Record::Setting { key, before } => {
            if deed::setting(key)?.is_some() {
                deed::set(key, before)?;
            }
            Ok(None)
        }
        // stopped before all else
        Record::Run { .. } => Ok(None),
        Record::Services { running } => {
            units::bring_back(host, running)?;
            Ok(None)
        }
    }
}

/// Removes packages, and what podman has left when nobody had containers of his own in it.
fn remove_packages(
    host: &Host,
    journal: &Journal,
    added: &[String],
    traces: &[PathBuf],
) -> Result<Option<String>> {
    if added.iter().any(|name| name == "podman")
        && let Some(why) = podman::why_it_stays(host)
    {
        return Ok(Some(format!(
            "packages stay, for {why}: {}",
            added.join(" ")
        )));
    }
    let stay = packages::purge(host, added)?;
    if !stay.is_empty() {
        return Ok(Some(format!(
            "packages stay, for others need them: {}",
            stay.join(" ")
        )));
    }
    let mut notes = Vec::new();
    for trace in traces {
        let place = host.at(trace);
        if !place.is_dir() {
            continue;
        }
        if podman::is_shared(trace) {
            podman::leave_networks(&place)?;
        } else {
            empty(&place, journal)?;
        }
        notes.extend(Image::Absent.restore(&place, &journal.blobs())?);
    }
    Ok((!notes.is_empty()).then(|| notes.join("; ")))
}

/// The installer, and the folders that it is in.
fn leads_to_installer(path: &Path) -> bool {
    release::place(INSTALLER).is_some_and(|(place, _)| place.starts_with(path))
}

/// Configuration and what the daemons know.
pub(crate) fn is_state(path: &Path) -> bool {
    path.starts_with("/etc/dtn") || path.starts_with("/var/lib/dtn")
}

/// Removes what is in a folder of state, but not the journal. What is mounted below is not touched, but
/// for pins of network namespaces, which are unmounted.
fn empty(folder: &Path, journal: &Journal) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let point = PathBuf::from(fields.nth(4).unwrap_or_default());
        if !point.starts_with(folder) || point == folder {
            continue;
        }
        if line.contains(" - nsfs ") {
            dtn_link::netns::unbind(&point)
                .with_context(|| format!("taking the pin {} away", point.display()))?;
        } else {
            bail!(
                "{}: something is mounted there: unmount it, then try again",
                point.display()
            );
        }
    }
    let keep = journal.folder();
    let doing = || format!("emptying {}", folder.display());
    for entry in fs::read_dir(folder).with_context(doing)? {
        let path = entry.with_context(doing)?.path();
        if path == keep {
            continue;
        }
        let meta = fs::symlink_metadata(&path).with_context(doing)?;
        if meta.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        }
        .with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}
