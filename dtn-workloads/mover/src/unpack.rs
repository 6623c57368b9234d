//! Putting one part in its place: from `N.ready` to `N.done`, with everything of it on the disk
//! before the marker is. Called by the receiver's workers; the same part may be put twice.

use crate::{
    bundle,
    list::{List, split},
    place::{self, Root},
    plan::{Content, Part},
    tree::Entry,
};
use anyhow::{Context as _, anyhow, bail};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufReader, Read},
    path::Path,
    thread,
};

/// How many files of a bundle are written before they are synced together.
pub(crate) const SYNC_BATCH: usize = 256;

/// One part, from `N.ready` to `N.done`.
pub(crate) fn put_in_place(
    incoming: &Path,
    threads: usize,
    list: &List,
    root: &Root,
    part: &Part,
) -> anyhow::Result<()> {
    let ready = incoming.join(format!("{}.ready", part.part));
    let mut parents = BTreeSet::new();
    match &part.content {
        Content::Large { entry } => {
            let entry = &list.entries[*entry];
            adopt(root, &ready, entry).with_context(|| format!("placing {}", entry.shown()))?;
            parents.insert(split(&entry.path).0);
        }
        Content::Bundle { entries } => {
            let file =
                File::open(&ready).with_context(|| format!("opening {}", ready.display()))?;
            let mut written = Vec::new();
            bundle::unpack(
                &list.entries,
                entries,
                BufReader::with_capacity(1 << 20, file),
                |entry, input| {
                    let file = write_one(root, entry, input)
                        .with_context(|| format!("writing {}", entry.shown()))?;
                    parents.insert(split(&entry.path).0);
                    written.push((entry.shown(), file));
                    if written.len() >= SYNC_BATCH {
                        sync_all(std::mem::take(&mut written), threads)?;
                    }
                    Ok::<_, Failed>(())
                },
            )
            .map_err(|Failed(error)| error)
            .with_context(|| format!("unpacking part {}", part.part))?;
            sync_all(written, threads)?;
        }
    }
    for parent in parents {
        root.folder(parent)
            .and_then(|folder| folder.sync_all())
            .with_context(|| format!("syncing {}", crate::names::escape(parent)))?;
    }
    mark(incoming, &format!("{}.done", part.part))?;
    fs::remove_file(&ready).with_context(|| format!("removing {}", ready.display()))
}

/// So that the bundle's errors and those of writing can both come out of `unpack`.
struct Failed(anyhow::Error);
impl From<bundle::BundleError> for Failed {
    fn from(error: bundle::BundleError) -> Self {
        Self(error.into())
    }
}
impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self(error)
    }
}

fn write_one(root: &Root, entry: &Entry, input: &mut dyn Read) -> anyhow::Result<File> {
    let mut file = root.new_file(&entry.path)?;
    let written = io::copy(input, &mut file)?;
    if written != entry.size() {
        bail!("{written} bytes have come of {}", entry.size());
    }
    place::dress(&file, entry)?;
    Ok(file)
}

fn adopt(root: &Root, ready: &Path, entry: &Entry) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // an earlier run may have dressed it in a mode that does not let it be opened
    fs::set_permissions(ready, fs::Permissions::from_mode(0o600)).context("opening it up")?;
    let file = File::open(ready)?;
    let size = file.metadata()?.len();
    if size != entry.size() {
        bail!(
            "{size} bytes have come of {}; send it again from an empty state folder",
            entry.size()
        );
    }
    place::dress(&file, entry)?;
    file.sync_all()?;
    root.adopt(ready, &entry.path).context(
        "linking it to its place: --incoming and --into have to be on one volume, under one mount",
    )
}

/// Puts files on the disk, several at once: the file system joins their commits.
pub(crate) fn sync_all(files: Vec<(String, File)>, threads: usize) -> anyhow::Result<()> {
    let chunk = files.len().div_ceil(threads.max(1)).max(1);
    thread::scope(|scope| {
        let syncing: Vec<_> = files
            .chunks(chunk)
            .map(|files| {
                scope.spawn(|| {
                    files.iter().try_for_each(|(path, file)| {
                        file.sync_all().with_context(|| format!("syncing {path}"))
                    })
                })
            })
            .collect();
        syncing.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| anyhow!("a syncing thread panicked"))?
        })
    })
}

/// Makes an empty marker file that survives a power cut.
pub(crate) fn mark(incoming: &Path, name: &str) -> anyhow::Result<()> {
    let marking = || format!("marking {name} in {}", incoming.display());
    let file = File::create(incoming.join(name)).with_context(marking)?;
    file.sync_all().with_context(marking)?;
    File::open(incoming)
        .and_then(|folder| folder.sync_all())
        .with_context(marking)
}
