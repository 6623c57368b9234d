//! Units of the service manager: whether they run, how they are stopped, and what an admin has linked
//! to those of ours.

use crate::{
    command::{SHORT, may, must},
    host::Host,
    image::{self, Image},
    journal::Record,
};
use anyhow::{Context, Result};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Where ours are.
const FOLDER: &str = "/usr/lib/systemd/system";
/// Where an admin has his own, and his links to others'.
const ADMINS: &str = "/etc/systemd/system";

/// Whether a unit runs well. Only one that does so before is waited for when it is brought back.
pub(crate) fn is_active(host: &Host, unit: &str) -> bool {
    host.live && may("systemctl", &["is-active", "--quiet", unit]).is_some()
}

/// Whether a unit runs, or is about to: one that is started again and again is not active in between.
pub(crate) fn runs(host: &Host, unit: &str) -> bool {
    host.live
        && may("systemctl", &["show", "-p", "ActiveState", "--value", unit])
            .is_some_and(|said| is_up(&said))
}

fn is_up(said: &str) -> bool {
    !["", "inactive", "failed"].contains(&said.trim())
}

/// The unit at a path, if it is one of ours.
fn unit_at(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let ours = path.parent() == Some(Path::new(FOLDER));
    (ours && (name.ends_with(".service") || name.ends_with(".socket"))).then_some(name)
}

/// Units that these records have brought or started, whoever has enabled them since.
pub(crate) fn brought(records: &[Record]) -> BTreeSet<&str> {
    records
        .iter()
        .filter_map(|record| match record {
            Record::Path {
                path,
                before: Image::Absent,
                ..
            } => unit_at(path),
            Record::Run { unit, ran: false } => Some(unit.as_str()),
            _ => None,
        })
        .collect()
}

/// Stops them, in one call: of a socket that is stopped after its service, a client would start that again.
pub(crate) fn stop(host: &Host, units: &BTreeSet<&str>) -> Result<()> {
    if !host.live {
        return Ok(());
    }
    // one that is not known cannot be stopped
    let known: Vec<&str> = units
        .iter()
        .copied()
        .filter(|unit| runs(host, unit) || is_loaded(unit))
        .collect();
    if known.iter().any(|unit| runs(host, unit)) {
        let words: Vec<&str> = ["stop"].into_iter().chain(known).collect();
        must("systemctl", &words, SHORT)?;
    }
    for unit in units {
        let _ = may("systemctl", &["reset-failed", unit]);
    }
    Ok(())
}

/// Starts a unit anew. A socket cannot start while its service has it: both are stopped, and the
/// service starts with the next client, or by whoever calls for it.
pub(crate) fn start_anew(host: &Host, unit: &str) -> Result<()> {
    // what failed too often is not started without this
    let _ = may("systemctl", &["reset-failed", unit]);
    if let Some(name) = unit.strip_suffix(".socket")
        && runs(host, unit)
    {
        stop(host, &[unit, &format!("{name}.service")].into())?;
    }
    must("systemctl", &["restart", unit], SHORT)
        .map(drop)
        .with_context(|| format!("starting {unit} (journalctl -u {unit} says why)"))
}

/// Starts those that ran before, anew: as their files are now.
pub(crate) fn bring_back(host: &Host, running: &[String]) -> Result<()> {
    if !host.live || running.is_empty() {
        return Ok(());
    }
    stop(host, &running.iter().map(String::as_str).collect())?;
    let (sockets, services): (Vec<&String>, Vec<&String>) =
        running.iter().partition(|unit| unit.ends_with(".socket"));
    for unit in sockets.into_iter().chain(services) {
        must("systemctl", &["start", unit], SHORT)?;
    }
    Ok(())
}

fn is_loaded(unit: &str) -> bool {
    may("systemctl", &["show", "-p", "LoadState", "--value", unit])
        .is_some_and(|said| said.trim() == "loaded")
}

/// Removes the links by which an admin has enabled a unit that is no more. Those that have a record are put
/// back by it.
pub(crate) fn remove_links(host: &Host, path: &Path, recorded: &[&Path]) -> Result<()> {
    let Some(unit) = unit_at(path) else {
        return Ok(());
    };
    // /lib is a link to /usr/lib
    let targets = [
        Path::new(FOLDER).join(unit),
        Path::new("/lib/systemd/system").join(unit),
    ];
    for folder in admins_folders(host)? {
        for link in entries(&folder)? {
            let is_recorded = recorded.iter().any(|path| host.at(path) == link);
            let leads_there = fs::read_link(&link).is_ok_and(|target| targets.contains(&target));
            if !leads_there || is_recorded {
                continue;
            }
            image::remove(&link)?;
            if folder != host.at(ADMINS) {
                // as systemctl disable does; one that is not empty stays
                let _ = fs::remove_dir(&folder);
            }
        }
    }
    Ok(())
}

/// The folder of the admin's units, and those in it whose links start units.
fn admins_folders(host: &Host) -> Result<Vec<PathBuf>> {
    let folder = host.at(ADMINS);
    let mut folders: Vec<PathBuf> = entries(&folder)?
        .into_iter()
        .filter(|path| {
            let ending = path.extension().unwrap_or_default().to_string_lossy();
            ["wants", "requires", "upholds"].contains(&ending.as_ref()) && path.is_dir()
        })
        .collect();
    folders.push(folder);
    Ok(folders)
}

/// What is in a folder; one that is not there has nothing in it.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let doing = || format!("listing {}", folder.display());
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    fs::read_dir(folder)
        .with_context(doing)?
        .map(|entry| Ok(entry.with_context(doing)?.path()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Holds;

    #[test]
    fn one_that_is_started_again_and_again_runs() {
        for state in ["active", "activating", "reloading", "deactivating"] {
            assert!(is_up(&format!("{state}\n")), "{state}");
        }
        for state in ["inactive", "failed", ""] {
            assert!(!is_up(&format!("{state}\n")), "{state}");
        }
    }

    #[test]
    fn a_unit_that_came_with_a_file_is_stopped_whoever_started_it() {
        let path = |path: &str, before: Image| Record::Path {
            path: path.into(),
            before,
            holds: Holds::Steps,
        };
        let link = Image::Link {
            target: "/x".into(),
        };
        let run = |unit: &str, ran| Record::Run {
            unit: unit.into(),
            ran,
        };
        let records = [
            path("/usr/lib/systemd/system/vdnd.service", Image::Absent),
            path("/usr/lib/systemd/system/admins.service", link),
            path(
                "/usr/lib/systemd/system/dtnd.service.d/x.conf",
                Image::Absent,
            ),
            path("/etc/systemd/system/other.service", Image::Absent),
            run("podman.socket", false),
            run("dtnd.service", true),
        ];
        let brought: Vec<&str> = brought(&records).into_iter().collect();
        assert_eq!(brought, ["podman.socket", "vdnd.service"]);
    }
}
