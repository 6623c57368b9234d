//! What the sender remembers across a kill: the list it began with, where it goes, and which parts
//! have been begun and finished. Every line is on the disk before the deed it tells of counts.

use crate::{list::List, names, tree::Entry};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// The first line: where the transfer goes.
    To(String),
    /// An upload of this part was started.
    Begun(u32),
    /// This part is whole on the far side.
    Finished(u32),
}

/// The sender's memory in its state folder.
#[derive(Debug)]
pub struct Journal {
    file: File,
    /// The list as it is sent.
    pub list: List,
    /// The list's bytes are in this file.
    pub list_path: PathBuf,
    /// Parts of which a beginning may be on the far side.
    pub begun: BTreeSet<u32>,
    /// Parts that need no more work; 0 is the list.
    pub finished: BTreeSet<u32>,
    /// Whether an earlier run had begun.
    pub resumed: bool,
}

impl Journal {
    /// Opens the state folder: goes on with what is in it, if that is this same transfer, or
    /// begins with the list that `make` gives.
    pub fn open(
        state: &Path,
        to: &str,
        entries: Vec<Entry>,
        make: impl FnOnce(Vec<Entry>) -> List,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(state).with_context(|| format!("making {}", state.display()))?;
        let list_path = state.join("list");
        let path = state.join("journal");
        let reading = || format!("reading {}", list_path.display());
        let resumed = path.exists();
        let list = if resumed {
            let list = List::from_bytes(&fs::read(&list_path).with_context(reading)?)
                .with_context(reading)?;
            if let Some(path) = first_change(&list.entries, &entries) {
                bail!(
                    "{path} has changed since the transfer in {} began; to send the tree as it is now use an empty --state folder and another folder in --to",
                    state.display()
                );
            }
            list
        } else {
            let list = make(entries);
            durable(&list_path, &list.to_bytes()?)?;
            durable(&path, &line(&Line::To(to.to_owned()))?)?;
            list
        };
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let (mut begun, mut finished) = (BTreeSet::new(), BTreeSet::new());
        // a torn last line was never acted on
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (number, text) in (1..).zip(whole.lines()) {
            let line = serde_json::from_str(text)
                .with_context(|| format!("line {number} of {}", path.display()))?;
            match line {
                Line::To(there) if there != to => bail!(
                    "{} belongs to a transfer to {there}, not to {to}; use another --state folder",
                    state.display()
                ),
                Line::To(_) => {}
                Line::Begun(part) => {
                    begun.insert(part);
                }
                Line::Finished(part) => {
                    finished.insert(part);
                }
            }
        }
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        file.set_len(if whole.is_empty() {
            0
        } else {
            whole.len() as u64 + 1
        })?;
        Ok(Self {
            file,
            list,
            list_path,
            begun,
            finished,
            resumed,
        })
    }

    /// An upload of this part starts now.
    pub fn begin(&mut self, part: u32) -> anyhow::Result<()> {
        if self.begun.insert(part) {
            self.append(&Line::Begun(part))?;
        }
        Ok(())
    }

    /// This part is whole on the far side.
    pub fn finish(&mut self, part: u32) -> anyhow::Result<()> {
        if self.finished.insert(part) {
            self.append(&Line::Finished(part))?;
        }
        Ok(())
    }

    fn append(&mut self, entry: &Line) -> anyhow::Result<()> {
        self.file
            .write_all(&line(entry)?)
            .and_then(|()| self.file.sync_data())
            .context("writing the journal in the --state folder")
    }
}

fn line(line: &Line) -> anyhow::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The first path that is not the same in both.
fn first_change(before: &[Entry], now: &[Entry]) -> Option<String> {
    if before == now {
        return None;
    }
    let differs = before.iter().zip(now).find(|(a, b)| a != b);
    let path = match differs {
        Some((a, b)) => a.path.clone().min(b.path.clone()),
        None => before
            .get(now.len())
            .or(now.get(before.len()))?
            .path
            .clone(),
    };
    Some(names::escape(&path))
}

/// Writes a file so that it is there whole or not at all, whatever happens.
pub(crate) fn durable(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let writing = || format!("writing {}", path.display());
    let new = path.with_extension("new");
    let mut file = File::create(&new).with_context(writing)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .with_context(writing)?;
    fs::rename(&new, path).with_context(writing)?;
    match path.parent() {
        Some(parent) => File::open(parent)
            .and_then(|dir| dir.sync_all())
            .with_context(writing),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan, tree};

    fn make(entries: Vec<Entry>) -> List {
        let parts = plan::parts(&entries, &plan::Limits::default());
        List { entries, parts }
    }

    #[test]
    fn it_remembers_and_refuses_what_is_not_its_own() {
        let (source, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(source.path().join("f"), "x").unwrap();
        let entries = tree::scan(source.path()).unwrap();
        let open = |to: &str, entries: Vec<Entry>| Journal::open(state.path(), to, entries, make);
        let mut journal = open("root://a//x", entries.clone()).unwrap();
        assert!(!journal.resumed);
        journal.begin(1).unwrap();
        journal.finish(0).unwrap();
        drop(journal);
        // torn by a kill in the middle of a write
        let path = state.path().join("journal");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"finish").unwrap();
        let mut journal = open("root://a//x", entries.clone()).unwrap();
        assert!(journal.resumed);
        assert_eq!((journal.begun.len(), journal.finished.len()), (1, 1));
        journal.finish(1).unwrap();
        let journal = open("root://a//x", entries.clone()).unwrap();
        assert_eq!(journal.finished.len(), 2);
        let error = open("root://b//x", entries.clone()).unwrap_err();
        assert!(error.to_string().contains("belongs to"), "{error}");
        let mut changed = entries;
        changed[0].mode = 0o600;
        changed[0].mtime_ns += 1;
        let error = open("root://a//x", changed).unwrap_err();
        assert!(error.to_string().starts_with("f has changed"), "{error}");
    }
}
