//! The journal: what was there before each deed, on disk and flushed before the deed is done.
//!
//! `base.json` is what an uninstallation takes back; `run.jsonl` is an installation under way, a
//! line per deed, and what a rollback takes back; `removal.json` says that an uninstallation has
//! begun; `blobs/` holds the bytes of files that were there before. A run that is done is merged into
//! the base: of a path that both know, the older image stays, for it is the one of the bare host.

mod records;

use crate::{
    failpoint::reach,
    image::{self, Bytes, Image, Owned},
};
use anyhow::{Context, Result, bail};
pub(crate) use records::{Base, Record, Removal, Run};
use records::{FORMAT, Head, check, left, merged};
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Where it is.
pub(crate) const STATE: &str = "/var/lib/dtn";
const OWN: &str = "/var/lib/dtn/install";
/// What an uninstallation that left state has to say to the next one.
const KEPT: &str = "/var/lib/dtn/kept.json";
/// Longest journal that is read: some hundred records.
const LONGEST: u64 = 64 << 20;

/// The journal of the host below a root.
#[derive(Debug)]
pub(crate) struct Journal {
    root: PathBuf,
    /// What is installed.
    pub(crate) base: Option<Base>,
    /// What an installation before this one brought, and was left by its uninstallation.
    pub(crate) kept: Option<Base>,
    /// What was cut off.
    pub(crate) run: Option<Run>,
    /// An uninstallation has begun, in this way.
    pub(crate) removal: Option<Removal>,
}

impl Journal {
    /// Reads it. Nothing is made.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let mut journal = Self {
            root: root.to_owned(),
            base: None,
            kept: None,
            run: None,
            removal: None,
        };
        journal.base = read_json::<Base>(&journal.file("base.json"))?;
        if let Some(base) = &journal.base {
            check(base.format)?;
        }
        journal.kept = read_json::<Base>(&journal.below(KEPT))?;
        if let Some(kept) = &journal.kept {
            check(kept.format)?;
        }
        journal.removal = read_json::<Removal>(&journal.file("removal.json"))?;
        if let Some(removal) = &journal.removal {
            check(removal.format)?;
        }
        journal.run = journal.read_run()?;
        let merged = journal.base.as_ref().map(|base| base.last_run.as_str());
        if let Some(run) = &journal.run
            && merged == Some(run.head.run.as_str())
        {
            // it was cut off after it was done
            journal.drop_run()?;
        }
        Ok(journal)
    }

    /// The folder of the bytes.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.file("blobs")
    }

    /// The folder that is the installer's own.
    pub(crate) fn folder(&self) -> PathBuf {
        self.below(OWN)
    }

    /// Whether a path was made for the journal itself.
    pub(crate) fn is_own(&self, path: &Path) -> bool {
        let made = |made: &[PathBuf]| made.iter().any(|own| own == path);
        self.base.as_ref().is_some_and(|base| made(&base.made))
            || self.run.as_ref().is_some_and(|run| made(&run.head.made))
    }

    /// Whether an installation did something at this path before.
    pub(crate) fn knows(&self, wanted: &Path) -> bool {
        let records = self.base.iter().flat_map(|base| &base.records);
        records
            .into_iter()
            .any(|record| matches!(record, Record::Path { path, .. } if path == wanted))
    }

    /// Begins a run.
    pub(crate) fn begin(&mut self, version: &str) -> Result<()> {
        let made = match &self.base {
            Some(base) => base.made.clone(),
            // an empty one that holds nothing but ours is from a run that was cut off at once
            None => [STATE, OWN]
                .into_iter()
                .filter(|folder| holds_nothing_else(&self.below(folder)))
                .map(PathBuf::from)
                .collect(),
        };
        make_folder(&self.below(STATE), 0o755)?;
        make_folder(&self.below(OWN), 0o700)?;
        make_folder(&self.file(""), 0o700)?;
        make_folder(&self.blobs(), 0o700)?;
        let head = Head {
            format: FORMAT,
            run: format!(
                "{}-{}",
                jiff::Timestamp::now().as_nanosecond(),
                std::process::id()
            ),
            version: version.to_owned(),
            made,
        };
        reach("begin")?;
        let mut line = serde_json::to_vec(&head)?;
        line.push(b'\n');
        self.write("run.jsonl", &line)?;
        self.run = Some(Run {
            head,
            records: Vec::new(),
        });
        reach("begun")
    }

    /// Keeps the bytes of a file, whose image is noted next.
    pub(crate) fn keep(&self, path: &Path, sha256: &str) -> Result<()> {
        let blob = self.blobs().join(sha256);
        if blob.exists() && image::digest(&blob)? == sha256 {
            return Ok(());
        }
        let owned = Owned {
            mode: 0o600,
            ..own_user()
        };
        image::put(&blob, &Bytes::File(path), &owned, None)?;
        if image::digest(&blob)? != sha256 {
            bail!(
                "{}: was changed by somebody while it was read: try again",
                path.display()
            );
        }
        Ok(())
    }

    /// Notes what a deed takes to be taken back. When this returns it is on the disk.
    pub(crate) fn note(&mut self, record: Record) -> Result<()> {
        let file = self.file("run.jsonl");
        let doing = || format!("writing {}", file.display());
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        let mut out = OpenOptions::new()
            .append(true)
            .open(&file)
            .with_context(doing)?;
        out.write_all(&line)
            .and_then(|()| out.sync_data())
            .with_context(doing)?;
        if let Some(run) = &mut self.run {
            run.records.push(record);
        }
        Ok(())
    }

    /// The run is done: it becomes part of what is installed. After that only cleaning is left, and what
    /// fails of it the next call does.
    pub(crate) fn commit(&mut self) -> Result<()> {
        let Some(run) = &self.run else { return Ok(()) };
        let base = merged(self.base.as_ref().or(self.kept.as_ref()), run);
        reach("commit")?;
        self.write("base.json", &serde_json::to_vec_pretty(&base)?)?;
        self.base = Some(base);
        let cleaned = reach("committed").and_then(|()| self.drop_run());
        self.run = None;
        if let Err(e) = cleaned {
            eprintln!("dtn-install: tidying the journal: {e:#}");
        }
        Ok(())
    }

    /// What is installed is again what it was before this run, whatever became of its last word. Before
    /// anything is taken back: a run whose last word is on disk counts as done. Where nothing has to be
    /// written nothing is, for there may be no room.
    pub(crate) fn uncommit(&self) -> Result<()> {
        let file = self.file("base.json");
        match &self.base {
            Some(base) if read_json::<Base>(&file).is_ok_and(|now| now.as_ref() == Some(base)) => {
                Ok(())
            }
            Some(base) => self.write("base.json", &serde_json::to_vec_pretty(base)?),
            None => image::remove(&file),
        }
    }

    /// The run was taken back: nothing of it is left.
    pub(crate) fn drop_run(&mut self) -> Result<()> {
        if self.base.is_some() {
            // it is in the base
            image::remove(&self.below(KEPT))?;
            self.kept = None;
        }
        image::remove(&self.file("run.jsonl"))?;
        self.run = None;
        reach("dropped")?;
        if self.base.is_none() {
            return self.vanish(&[]);
        }
        self.drop_blobs()
    }

    /// An uninstallation begins: it is completed, whatever cuts it off.
    pub(crate) fn begin_removal(&mut self, keep_state: bool, packages: bool) -> Result<()> {
        let removal = Removal {
            format: FORMAT,
            keep_state,
            packages,
        };
        self.write("removal.json", &serde_json::to_vec(&removal)?)?;
        self.removal = Some(removal);
        reach("removal")
    }

    /// All is taken back: the journal goes too.
    pub(crate) fn end_removal(&mut self) -> Result<()> {
        if let Some(base) = &self.base
            && self.removal.is_some_and(|removal| removal.keep_state)
        {
            let kept = left(base);
            let text = serde_json::to_vec_pretty(&kept)?;
            image::put(&self.below(KEPT), &Bytes::Text(&text), &own_user(), None)?;
            self.kept = Some(kept);
        }
        let made = self.base.take().map(|base| base.made).unwrap_or_default();
        // in this order: what is left of it says at each moment that it is to be completed
        image::remove(&self.file("base.json"))?;
        reach("no base")?;
        self.vanish(&made)?;
        self.removal = None;
        Ok(())
    }

    /// Removes what an uninstallation that was cut off at its very end has left.
    pub(crate) fn vanish(&self, made: &[PathBuf]) -> Result<()> {
        if self.blobs().exists() {
            fs::remove_dir_all(self.blobs()).context("removing the kept images")?;
        }
        image::remove(&self.file("removal.json"))?;
        reach("no removal")?;
        // with what a cut-off write left
        if self.file("").exists() {
            fs::remove_dir_all(self.file("")).context("removing the journal")?;
        }
        remove_empty(&self.below(OWN))?;
        let state = self.below(STATE);
        if made.is_empty() || made.iter().any(|folder| folder == Path::new(STATE)) {
            remove_empty(&state)?;
        }
        Ok(())
    }

    fn read_run(&self) -> Result<Option<Run>> {
        let file = self.file("run.jsonl");
        let Some(text) = read(&file)? else {
            return Ok(None);
        };
        let mut lines = text.split_inclusive('\n');
        let head: Head = serde_json::from_str(lines.next().unwrap_or_default())
            .with_context(|| format!("reading the head of {}", file.display()))?;
        check(head.format)?;
        let mut records = Vec::new();
        for line in lines {
            // a line that was cut off is of a deed that was not begun
            if !line.ends_with('\n') {
                break;
            }
            let record = serde_json::from_str(line)
                .with_context(|| format!("reading {}: {line}", file.display()))?;
            records.push(record);
        }
        Ok(Some(Run { head, records }))
    }

    /// Removes the bytes that no record names any more.
    fn drop_blobs(&self) -> Result<()> {
        let named: BTreeSet<&str> = self
            .base
            .iter()
            .flat_map(|base| &base.records)
            .filter_map(|record| match record {
                Record::Path {
                    before: Image::File { sha256, .. },
                    ..
                } => Some(sha256.as_str()),
                _ => None,
            })
            .collect();
        for entry in fs::read_dir(self.blobs()).context("listing the kept images")? {
            let entry = entry.context("listing the kept images")?;
            if !named.contains(entry.file_name().to_string_lossy().as_ref()) {
                image::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let owned = Owned {
            mode: 0o600,
            ..own_user()
        };
        image::put(&self.file(name), &Bytes::Text(content), &owned, None)
    }
    fn below(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
    fn file(&self, name: &str) -> PathBuf {
        self.below(OWN).join("journal").join(name)
    }
}

fn read(file: &Path) -> Result<Option<String>> {
    match dtn_link::atomic_file::read(file, LONGEST)? {
        Some(bytes) => {
            Ok(Some(String::from_utf8(bytes).with_context(|| {
                format!("reading {}: it is not text", file.display())
            })?))
        }
        None => Ok(None),
    }
}

fn read_json<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    match read(file)? {
        Some(text) => Ok(Some(
            serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?,
        )),
        None => Ok(None),
    }
}

/// Owner of what is written here: who runs this (root, but in tests).
fn own_user() -> Owned {
    Owned {
        mode: 0o600,
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        ..Owned::default()
    }
}

fn holds_nothing_else(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Err(_) => true,
        Ok(entries) => entries.flatten().all(|entry| {
            ["install", "journal"].contains(&entry.file_name().to_string_lossy().as_ref())
        }),
    }
}

fn make_folder(folder: &Path, mode: u32) -> Result<()> {
    let doing = || format!("making the folder {}", folder.display());
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .with_context(doing)?;
    image::flush_parent(folder)
}

fn remove_empty(folder: &Path) -> Result<()> {
    match fs::remove_dir(folder) {
        Err(e)
            if e.kind() != io::ErrorKind::NotFound
                && e.kind() != io::ErrorKind::DirectoryNotEmpty =>
        {
            Err(e).with_context(|| format!("removing the folder {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// One installer at a time; held until it is dropped. On the root folder itself: a lock of its own
/// would be one more file.
pub(crate) fn lock(root: &Path) -> Result<nix::fcntl::Flock<File>> {
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_DIRECTORY)
        .open(root)
        .with_context(|| format!("opening {}", root.display()))?;
    nix::fcntl::Flock::lock(folder, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(
        |(_, e)| {
            anyhow::anyhow!("another dtn-install works on this host ({e}): wait until it is done")
        },
    )
}

#[cfg(test)]
mod tests;
