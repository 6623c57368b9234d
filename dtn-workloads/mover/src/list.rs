//! The list of a transfer: a header, every entry of the tree, every part; one JSON object a line.
//! The header carries a digest of the rest, so half a list is never taken for a whole one.

use crate::{
    names,
    plan::{Content, Part},
    tree::{Entry, Kind},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the list that this build writes; a newer one is refused.
pub const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    entries: usize,
    parts: usize,
    sha256: String,
}

/// What a transfer consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Every path, sorted, so a folder comes before what is in it.
    pub entries: Vec<Entry>,
    /// Every upload.
    pub parts: Vec<Part>,
}

/// A list that must not be worked on.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Cut short, or no list at all.
    #[error("the list of the transfer is damaged ({0}); send it again from an empty state folder")]
    Damaged(String),
    /// Written by a newer mover.
    #[error(
        "the list is of version {0}, and this mover knows {VERSION}; use the same image on both sites"
    )]
    Newer(u32),
    /// It asks for something that would leave the destination, or contradicts itself.
    #[error("the list asks for {path:?}: {reason}")]
    Unsafe {
        /// Escaped.
        path: String,
        /// Why not.
        reason: String,
    },
}

/// SHA-256 in hexadecimal.
pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl List {
    /// Content in bytes.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(Entry::size).sum()
    }

    /// As it is written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut body = Vec::new();
        for entry in &self.entries {
            serde_json::to_writer(&mut body, entry)?;
            body.push(b'\n');
        }
        for part in &self.parts {
            serde_json::to_writer(&mut body, part)?;
            body.push(b'\n');
        }
        let header = Header {
            format: "dtn-list".into(),
            version: VERSION,
            entries: self.entries.len(),
            parts: self.parts.len(),
            sha256: hex(ring::digest::digest(&ring::digest::SHA256, &body).as_ref()),
        };
        let mut whole = serde_json::to_vec(&header)?;
        whole.push(b'\n');
        whole.extend(body);
        Ok(whole)
    }

    /// From what [`List::to_bytes`] wrote, checked as coming from another machine.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ListError> {
        let damaged = |what: &str| ListError::Damaged(what.to_owned());
        let end = bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or_else(|| damaged("no header"))?;
        let (head, body) = (&bytes[..end], &bytes[end + 1..]);
        let header: Header =
            serde_json::from_slice(head).map_err(|e| damaged(&format!("header: {e}")))?;
        if header.format != "dtn-list" {
            return Err(damaged("it is not a dtn-list"));
        }
        if header.version > VERSION {
            return Err(ListError::Newer(header.version));
        }
        if hex(ring::digest::digest(&ring::digest::SHA256, body).as_ref()) != header.sha256 {
            return Err(damaged("its digest is wrong"));
        }
        let mut lines = body.split(|byte| *byte == b'\n');
        let mut line = || lines.next().ok_or_else(|| damaged("it is too short"));
        let mut entries = Vec::new();
        for number in 0..header.entries {
            let entry = serde_json::from_slice::<Entry>(line()?);
            entries.push(entry.map_err(|e| damaged(&format!("entry {number}: {e}")))?);
        }
        let mut parts = Vec::new();
        for number in 0..header.parts {
            let part = serde_json::from_slice::<Part>(line()?);
            parts.push(part.map_err(|e| damaged(&format!("part {number}: {e}")))?);
        }
        let list = Self { entries, parts };
        list.check()?;
        Ok(list)
    }

    /// Nothing in it may reach outside the destination: every path is a plain one below it, its
    /// parent is a folder of the list (so never a link), and every part is about files of the list.
    fn check(&self) -> Result<(), ListError> {
        let mut folders = BTreeMap::new();
        let mut last: Option<&[u8]> = None;
        for entry in &self.entries {
            let refuse = |reason: &str| ListError::Unsafe {
                path: names::escape(&entry.path),
                reason: reason.to_owned(),
            };
            if let Some(reason) = names::unsafe_reason(&entry.path) {
                return Err(refuse(reason));
            }
            if last.is_some_and(|last| last >= entry.path.as_slice()) {
                return Err(refuse("it is there twice, or not in order"));
            }
            last = Some(&entry.path);
            let (parent, _) = split(&entry.path);
            if !parent.is_empty() && !folders.contains_key(parent) {
                return Err(refuse("what it is in is no folder of the list"));
            }
            match &entry.kind {
                Kind::Dir => {
                    folders.insert(entry.path.as_slice(), ());
                }
                Kind::Symlink(target) if target.is_empty() || target.contains(&0) => {
                    return Err(refuse("no link can have its target"));
                }
                Kind::Symlink(_) | Kind::File(_) => {}
            }
        }
        let mut brought = vec![false; self.entries.len()];
        for (number, part) in (1_u32..).zip(&self.parts) {
            let inside = match &part.content {
                Content::Bundle { entries } => entries.as_slice(),
                Content::Large { entry } => std::slice::from_ref(entry),
            };
            let refuse = |reason: &str| ListError::Unsafe {
                path: format!("part {}", part.part),
                reason: reason.to_owned(),
            };
            if part.part != number {
                return Err(refuse("parts are numbered from 1 without a gap"));
            }
            let mut bytes = 0_u64;
            for index in inside {
                match (self.entries.get(*index), brought.get_mut(*index)) {
                    (Some(entry), Some(brought)) if !*brought && entry.size() > 0 => {
                        *brought = true;
                        bytes = bytes.saturating_add(entry.size());
                    }
                    _ => {
                        return Err(refuse(
                            "it brings something that is no file, or brings it twice",
                        ));
                    }
                }
            }
            if bytes != part.bytes {
                return Err(refuse("its size is not that of its files"));
            }
        }
        let missing = |(entry, brought): (&Entry, &bool)| entry.size() > 0 && !brought;
        match self
            .entries
            .iter()
            .zip(&brought)
            .find(|pair| missing(*pair))
        {
            Some((entry, _)) => Err(ListError::Unsafe {
                path: entry.shown(),
                reason: "no part brings it".into(),
            }),
            None => Ok(()),
        }
    }
}

/// Parent and last component; the parent of what lies on top is empty.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Limits, parts};

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0o755,
            mtime_ns: 1,
            sha256: None,
        }
    }

    fn list(entries: Vec<Entry>) -> List {
        let parts = parts(
            &entries,
            &Limits {
                large: 100,
                ..Limits::default()
            },
        );
        List { entries, parts }
    }

    fn good() -> List {
        list(vec![
            entry("a", Kind::Dir),
            entry("a/big", Kind::File(1000)),
            entry("a/empty", Kind::File(0)),
            entry("a/small", Kind::File(10)),
            entry("b", Kind::Symlink(b"/etc".to_vec())),
        ])
    }

    #[test]
    fn a_list_comes_back_and_a_damaged_one_does_not() {
        let bytes = good().to_bytes().unwrap();
        assert_eq!(List::from_bytes(&bytes).unwrap(), good());
        for end in 0..bytes.len() {
            assert!(List::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
        }
        let newer = String::from_utf8(bytes)
            .unwrap()
            .replacen("\"version\":1", "\"version\":2", 1);
        let error = List::from_bytes(newer.as_bytes()).unwrap_err();
        assert!(matches!(error, ListError::Newer(2)), "{error}");
    }

    #[test]
    fn nothing_reaches_outside() {
        let hostile = [
            vec![entry("/etc/cron.d/x", Kind::File(1))],
            vec![entry("../x", Kind::File(1))],
            vec![entry("a", Kind::Dir), entry("a/../../x", Kind::File(1))],
            // through a link that the list itself makes
            vec![
                entry("a", Kind::Symlink(b"/etc".to_vec())),
                entry("a/passwd", Kind::File(1)),
            ],
            vec![entry("a", Kind::File(1)), entry("a/b", Kind::File(1))],
            vec![entry("missing/b", Kind::File(1))],
            vec![entry("a", Kind::File(1)), entry("a", Kind::File(1))],
        ];
        for entries in hostile {
            let bytes = list(entries.clone()).to_bytes().unwrap();
            let error = List::from_bytes(&bytes).unwrap_err();
            assert!(
                matches!(error, ListError::Unsafe { .. }),
                "{entries:?}: {error}"
            );
        }
    }

    #[test]
    fn parts_that_do_not_fit_the_entries_are_refused() {
        let mut wrong = good();
        wrong.parts[0].bytes += 1;
        assert!(List::from_bytes(&wrong.to_bytes().unwrap()).is_err());
        let mut wrong = good();
        wrong.parts.pop();
        assert!(List::from_bytes(&wrong.to_bytes().unwrap()).is_err());
        let mut wrong = good();
        wrong.parts[0].content = Content::Large { entry: 99 };
        assert!(List::from_bytes(&wrong.to_bytes().unwrap()).is_err());
    }
}
