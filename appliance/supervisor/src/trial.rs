//! A configuration on trial: it is put in the place of the admin's file, and goes back by itself
//! unless somebody confirms it in time.
//!
//! What was there before is in a record on disk before the file is touched, so that going back does
//! not hang on who asked, on a terminal, or on this process: whoever starts next goes on where this
//! one was. Time is that of the machine since it was booted; a clock that is set does not move the
//! end, and a reboot is one.

mod keep;

pub use keep::Trials;

use crate::{Places, failpoint};
use dtn_api::{Problem, Span, problem::Kind};
use dtn_link::atomic_file;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Version of the record.
const VERSION: u32 = 1;
/// Largest record: the text before and what JSON makes of it.
const LARGEST: u64 = 8 << 20;
/// Shortest time: one who has to type a word needs it.
pub const SHORTEST: Span = Span::from_secs(5);
/// Longest time.
pub const LONGEST: Span = Span::from_secs(86_400);
/// After so many starts on trial it goes back: it does not run.
const STARTS: u32 = 3;

/// What is needed to go back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The admin's file, links followed.
    file: PathBuf,
    /// What was in it, and whose it was.
    previous: String,
    mode: u32,
    uid: u32,
    gid: u32,
    /// What is tried.
    candidate: String,
    /// The boot in which it was asked for.
    boot: String,
    /// When it ends, in milliseconds since that boot.
    until: u64,
    /// How often a daemon has started on trial.
    starts: u32,
}

/// What a start found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No trial.
    Nothing,
    /// One that goes on.
    Goes,
    /// One that ended; the file is as it was before. Why, in words.
    Back(&'static str),
}

fn place(places: &Places) -> PathBuf {
    places.state().join("trial.json")
}
/// What was tried last and went back, for whoever wants to mend it.
pub fn taken_back(places: &Places) -> PathBuf {
    places.state().join("trial-taken-back.toml")
}

fn internal(doing: &str, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::Internal, format!("{doing}: {why}"))
}

/// The boot that this is, and how long it is ago, in milliseconds.
fn since_boot() -> io::Result<(String, u64)> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "/proc/uptime has no number");
    let seconds = uptime.split_whitespace().next().ok_or_else(wrong)?;
    // "12345.67": hundredths, read without a float
    let (whole, part) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part: u64 = part.parse().map_err(|_| wrong())?;
    Ok((boot.trim().to_owned(), whole * 1000 + part * 10))
}

/// The trial that runs, where there is one.
pub fn running(places: &Places) -> Result<Option<Record>, Problem> {
    let path = place(places);
    let doing = format!("reading the trial's record {}", path.display());
    let Some(bytes) = atomic_file::read(&path, LARGEST).map_err(|e| internal(&doing, &e))? else {
        return Ok(None);
    };
    let record: Record = serde_json::from_slice(&bytes).map_err(|e| internal(&doing, &e))?;
    if record.version > VERSION {
        let why = format!("version {} is newer than this build reads", record.version);
        return Err(internal(&doing, &why));
    }
    Ok(Some(record))
}

impl Record {
    /// The admin's file.
    pub fn file(&self) -> &Path {
        &self.file
    }
    /// How long it still stays; nothing when its time is over.
    pub fn left(&self) -> Option<Span> {
        let (boot, now) = since_boot().ok()?;
        let left = self.until.checked_sub(now).filter(|left| *left > 0)?;
        (boot == self.boot).then(|| Span::from_millis(left))
    }
    fn write(&self, places: &Places) -> Result<(), Problem> {
        let path = place(places);
        let doing = format!("writing the trial's record {}", path.display());
        let bytes = serde_json::to_vec(self).map_err(|e| internal(&doing, &e))?;
        // the text may be what others must not read
        atomic_file::write(&path, &bytes, 0o600).map_err(|e| internal(&doing, &e))
    }
    fn put(&self, text: &str) -> Result<(), Problem> {
        let doing = format!("writing {}", self.file.display());
        let owner = Some((self.uid, self.gid));
        atomic_file::write_for(&self.file, text.as_bytes(), self.mode, owner)
            .map_err(|e| internal(&doing, &e))
    }
    fn forget(places: &Places) -> Result<(), Problem> {
        atomic_file::remove(&place(places)).map_err(|e| internal("removing the trial's record", &e))
    }
}

/// Puts a text in the place of the admin's file for a time.
pub async fn begin(
    places: &Places,
    file: &Path,
    text: &str,
    timeout: Span,
) -> Result<Record, Problem> {
    if let Some(other) = running(places)? {
        let left = other.left().unwrap_or_default();
        return Err(Problem::new(
            Kind::StateConflict,
            format!(
                "a configuration is on trial already, for {left} more: dtnctl config confirm keeps \
                 it, dtnctl config rollback takes it back"
            ),
        ));
    }
    if timeout < SHORTEST || timeout > LONGEST {
        return Err(Problem::new(
            Kind::InvalidRequest,
            format!("{timeout} is no time for a trial: {SHORTEST} to {LONGEST}"),
        )
        .at("/timeout", "is out of range"));
    }
    let reading = |e: &dyn std::fmt::Display| internal(&format!("reading {}", file.display()), e);
    // a link stays one: what it leads to is changed
    let file = fs::canonicalize(file).map_err(|e| reading(&e))?;
    let previous = fs::read_to_string(&file).map_err(|e| reading(&e))?;
    let metadata = fs::metadata(&file).map_err(|e| reading(&e))?;
    let (boot, now) = since_boot().map_err(|e| internal("asking for the time since boot", &e))?;
    let record = Record {
        version: VERSION,
        file,
        previous,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        candidate: text.to_owned(),
        boot,
        until: now.saturating_add(timeout.millis()),
        starts: 0,
    };
    record.write(places)?;
    failpoint::reach("trial-recorded").await;
    if let Err(problem) = record.put(text) {
        // nothing or all of it: then there is nothing to go back from
        let _ = record
            .put(&record.previous)
            .and_then(|()| Record::forget(places));
        return Err(problem);
    }
    failpoint::reach("trial-installed").await;
    Ok(record)
}

/// What is tried becomes what is.
pub fn confirm(places: &Places) -> Result<Record, Problem> {
    let record = running(places)?.ok_or_else(none)?;
    if record.left().is_none() {
        return Err(Problem::new(
            Kind::StateConflict,
            "its time is over: it goes back now; try it again",
        ));
    }
    Record::forget(places)?;
    Ok(record)
}

/// Goes back to what was before. The same again is success.
pub async fn back(places: &Places) -> Result<Record, Problem> {
    let record = running(places)?.ok_or_else(none)?;
    // what is there now goes nowhere: it can have been changed by hand meanwhile
    if let Ok(now) = fs::read(&record.file)
        && now != record.previous.as_bytes()
    {
        let kept = taken_back(places);
        atomic_file::write(&kept, &now, 0o600)
            .map_err(|e| internal(&format!("writing {}", kept.display()), &e))?;
    }
    record.put(&record.previous)?;
    failpoint::reach("trial-back").await;
    owe(places)?;
    Record::forget(places)?;
    Ok(record)
}

/// Where it is noted that the controller of this host has not read yet what is there again.
pub(crate) fn owed(places: &Places) -> PathBuf {
    places.state().join("trial-owed")
}
fn owe(places: &Places) -> Result<(), Problem> {
    atomic_file::write(&owed(places), b"", 0o600)
        .map_err(|e| internal("noting that vdnd has to read the configuration again", &e))
}

fn none() -> Problem {
    Problem::new(
        Kind::StateConflict,
        "no configuration is on trial: dtnctl config try FILE begins one",
    )
}

/// What a start does before it reads its configuration.
pub async fn at_start(places: &Places) -> Result<Found, Problem> {
    let Some(mut record) = running(places)? else {
        return Ok(Found::Nothing);
    };
    let there = fs::read(&record.file).ok();
    if there.as_deref() == Some(record.previous.as_bytes()) {
        owe(places)?;
        Record::forget(places)?;
        return Ok(Found::Back(
            "it was cut off before it began, or after it ended",
        ));
    }
    if record.left().is_none() {
        back(places).await?;
        return Ok(Found::Back("nobody confirmed it in time"));
    }
    record.starts += 1;
    if record.starts > STARTS {
        back(places).await?;
        return Ok(Found::Back("dtnd does not stay up with it"));
    }
    record.write(places)?;
    Ok(Found::Goes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> (tempfile::TempDir, Places, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(dir.path());
        places.create().unwrap();
        let file = dir.path().join("appliance.toml");
        fs::write(&file, "old").unwrap();
        (dir, places, file)
    }
    fn text(file: &Path) -> String {
        fs::read_to_string(file).unwrap()
    }
    /// As if its time were over.
    fn end(places: &Places) {
        let mut record = running(places).unwrap().unwrap();
        record.until = 0;
        record.write(places).unwrap();
    }

    #[tokio::test]
    async fn it_stays_when_it_is_confirmed_and_goes_back_when_it_is_not() {
        let (_dir, places, file) = site();
        let minute = Span::from_secs(60);
        begin(&places, &file, "new", minute).await.unwrap();
        assert_eq!(text(&file), "new");
        let second = begin(&places, &file, "newer", minute).await.unwrap_err();
        assert!(second.is(Kind::StateConflict), "{second}");
        confirm(&places).unwrap();
        assert!(confirm(&places).is_err());
        assert_eq!(text(&file), "new");

        begin(&places, &file, "newer", minute).await.unwrap();
        assert_eq!(at_start(&places).await.unwrap(), Found::Goes);
        end(&places);
        assert!(confirm(&places).is_err());
        assert!(matches!(at_start(&places).await.unwrap(), Found::Back(_)));
        assert_eq!(text(&file), "new");
        assert_eq!(text(&taken_back(&places)), "newer");
        assert_eq!(at_start(&places).await.unwrap(), Found::Nothing);
    }

    #[tokio::test]
    async fn a_change_by_hand_meanwhile_is_kept_aside_and_a_link_stays_one() {
        let (dir, places, file) = site();
        let link = dir.path().join("link.toml");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        begin(&places, &link, "new", Span::from_secs(60))
            .await
            .unwrap();
        fs::write(&file, "by hand").unwrap();
        back(&places).await.unwrap();
        assert_eq!(
            (text(&file), text(&taken_back(&places))),
            ("old".into(), "by hand".into())
        );
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[tokio::test]
    async fn another_boot_ends_it_and_so_does_a_daemon_that_does_not_stay_up() {
        let (_dir, places, file) = site();
        let minute = Span::from_secs(60);
        begin(&places, &file, "new", minute).await.unwrap();
        let mut record = running(&places).unwrap().unwrap();
        record.boot = "another".into();
        record.write(&places).unwrap();
        assert!(matches!(at_start(&places).await.unwrap(), Found::Back(_)));
        begin(&places, &file, "new", minute).await.unwrap();
        for _ in 0..STARTS {
            assert_eq!(at_start(&places).await.unwrap(), Found::Goes);
        }
        assert!(matches!(at_start(&places).await.unwrap(), Found::Back(_)));
        assert_eq!(text(&file), "old");
    }

    #[tokio::test]
    async fn a_time_that_makes_no_sense_changes_nothing() {
        let (_dir, places, file) = site();
        for timeout in [Span::from_secs(0), Span::from_secs(90_000)] {
            assert!(begin(&places, &file, "new", timeout).await.is_err());
        }
        assert_eq!(text(&file), "old");
        assert!(running(&places).unwrap().is_none());
    }
}
