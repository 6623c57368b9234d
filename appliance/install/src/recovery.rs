//! The way back of a run that failed, and what is done about a call that was cut off: an installation is
//! taken back, unless somebody has used what it had put in; an uninstallation is completed.

use crate::{
    Failure, held,
    host::Host,
    image::{self, Image},
    journal::{Journal, Record},
    step::Holds,
    undo::{self, Stays, take_back},
    uninstall,
};
use anyhow::{Context, Result, anyhow};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Takes back the run that is open.
pub(crate) fn roll_back(host: &Host, journal: &mut Journal) -> Result<(), Failure> {
    let Some(run) = journal.run.clone() else {
        if journal.base.is_none() {
            journal.vanish(&[])?;
        }
        return Ok(());
    };
    let between = |left| Failure::Between(anyhow!("taking back a run that was cut off"), left);
    let failed = |e: anyhow::Error| between(vec![format!("{e:#}")]);
    journal.uncommit().map_err(failed)?;
    // an upgrade leaves pods their NICs; before a first installation there was nobody to have any
    if journal.base.is_none() {
        held::stop_and_bring_home(host, &run.records).map_err(between)?;
    }
    let outcome = take_back(host, journal, &run.records, Stays::default());
    for note in outcome.notes {
        println!("note: {note}");
    }
    if !outcome.failures.is_empty() {
        return Err(between(outcome.failures));
    }
    journal.drop_run().map_err(failed)
}

/// Mends what a run before this one left when it was cut off.
pub(crate) fn recover(host: &Host, journal: &mut Journal) -> Result<(), Failure> {
    if let Some(run) = &journal.run {
        match used_since(host, journal, &run.records)? {
            Some(what) if journal.base.is_none() => {
                println!(
                    "The first installation was cut off, and was used since ({what}): it is not taken \
                     back, and nothing is lost. It counts as installed."
                );
                journal.commit()?;
            }
            _ => {
                println!("An installation was cut off: taking it back first.");
                roll_back(host, journal)?;
            }
        }
    }
    if journal.removal.is_some() {
        println!("An uninstallation was cut off: completing it first.");
        uninstall::complete(host, journal)?;
    }
    Ok(())
}

/// What would be lost or in use if a first installation were taken back: it starts daemons before it has
/// its last word, and links them into the boot, so that a host that was cut off may have served for long.
fn used_since(host: &Host, journal: &Journal, records: &[Record]) -> Result<Option<String>> {
    if let Some(holder) = held::holders(host).into_iter().next() {
        return Ok(Some(holder));
    }
    for record in records {
        let Record::Path {
            path,
            before: Image::Absent,
            holds: Holds::State,
        } = record
        else {
            continue;
        };
        if undo::is_state(path)
            && let Some(file) = own_file(host, journal, records, &host.at(path))?
        {
            return Ok(Some(format!("there is {}", file.display())));
        }
    }
    Ok(None)
}

/// A file in a folder of state, or below it, that the run did not put there.
fn own_file(
    host: &Host,
    journal: &Journal,
    records: &[Record],
    folder: &Path,
) -> Result<Option<PathBuf>> {
    let doing = || format!("looking through {}", folder.display());
    if !folder.is_dir() || folder == journal.folder() {
        return Ok(None);
    }
    for entry in fs::read_dir(folder).with_context(doing)? {
        let entry = entry.with_context(doing)?;
        let place = entry.path();
        let put =
            |record: &Record| matches!(record, Record::Path { path, .. } if host.at(path) == place);
        if entry.file_type().with_context(doing)?.is_dir() {
            if let Some(found) = own_file(host, journal, records, &place)? {
                return Ok(Some(found));
            }
        } else if !records.iter().any(put) && !image::is_temporary(&place) {
            return Ok(Some(place));
        }
    }
    Ok(None)
}
