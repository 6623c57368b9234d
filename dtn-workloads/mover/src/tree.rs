//! Reading a tree: every entry below a folder, sorted by its path, and every reason why one could
//! not be transferred, all at once. The folder itself is not an entry.

use crate::names;
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

/// What an entry is. Anything else (device, socket, pipe) cannot be transferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Dir,
    /// A file with its size in bytes.
    File(u64),
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
}

/// One path of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Line", into = "Line")]
pub struct Entry {
    /// Below the root, without a leading slash.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 0 to 0o7777; 0o777 for a symbolic link, which has none of its own.
    pub mode: u32,
    /// Time of the last change of the content, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// SHA-256 of a file's content in hexadecimal, where it was taken.
    pub sha256: Option<String>,
}

impl Entry {
    /// Size in bytes; 0 for what is no file.
    pub fn size(&self) -> u64 {
        match self.kind {
            Kind::File(size) => size,
            Kind::Dir | Kind::Symlink(_) => 0,
        }
    }
    /// For people.
    pub fn shown(&self) -> String {
        names::escape(&self.path)
    }
}

/// One line of a manifest or list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    mode: String,
    mtime_ns: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

impl From<Entry> for Line {
    fn from(entry: Entry) -> Self {
        let (kind, size, target) = match &entry.kind {
            Kind::Dir => ("dir", None, None),
            Kind::File(size) => ("file", Some(*size), None),
            Kind::Symlink(target) => ("symlink", None, Some(names::escape(target))),
        };
        Self {
            path: names::escape(&entry.path),
            kind: kind.to_owned(),
            size,
            mode: format!("{:04o}", entry.mode),
            mtime_ns: entry.mtime_ns,
            sha256: entry.sha256,
            target,
        }
    }
}

impl TryFrom<Line> for Entry {
    type Error = String;
    fn try_from(line: Line) -> Result<Self, String> {
        let path = names::unescape(&line.path).map_err(|e| e.to_string())?;
        let kind = match (line.kind.as_str(), line.size, &line.target) {
            ("dir", None, None) => Kind::Dir,
            ("file", Some(size), None) => Kind::File(size),
            ("symlink", None, Some(target)) => {
                Kind::Symlink(names::unescape(target).map_err(|e| e.to_string())?)
            }
            (kind, ..) => {
                return Err(format!(
                    "{:?} is of type {kind:?} with fields that do not go with it",
                    line.path
                ));
            }
        };
        let mode = u32::from_str_radix(&line.mode, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| format!("{:?} has mode {:?}, not 0000 to 7777", line.path, line.mode))?;
        Ok(Self {
            path,
            kind,
            mode,
            mtime_ns: line.mtime_ns,
            sha256: line.sha256,
        })
    }
}

/// Why a tree cannot be transferred: one line for each path, with what to do.
#[derive(Debug, thiserror::Error)]
#[error("{} of {} cannot be transferred:{}", count(.faults), .root.display(), lines(.faults))]
pub struct TreeError {
    /// The folder.
    pub root: PathBuf,
    /// Path and reason, sorted.
    pub faults: Vec<(String, String)>,
}

fn count(faults: &[(String, String)]) -> String {
    match faults.len() {
        1 => "1 entry".to_owned(),
        n => format!("{n} entries"),
    }
}

fn lines(faults: &[(String, String)]) -> String {
    faults
        .iter()
        .map(|(path, reason)| format!("\n  {path}: {reason}"))
        .collect()
}

/// Everything below `root`, sorted by path.
pub fn scan(root: &Path) -> Result<Vec<Entry>, TreeError> {
    let mut entries = Vec::new();
    let mut faults = Vec::new();
    let mut folders: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(folder) = folders.pop() {
        let read =
            fs::read_dir(join(root, &folder)).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let items = match read {
            Ok(items) => items,
            Err(error) => {
                let shown = if folder.is_empty() {
                    ".".to_owned()
                } else {
                    names::escape(&folder)
                };
                faults.push((shown, format!("the folder cannot be read: {error}")));
                continue;
            }
        };
        for item in items {
            let mut path = folder.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(item.file_name().as_bytes());
            match inspect(root, &path) {
                Ok(entry) => {
                    if entry.kind == Kind::Dir {
                        folders.push(path);
                    }
                    entries.push(entry);
                }
                Err(reason) => faults.push((names::escape(&path), reason)),
            }
        }
    }
    if !faults.is_empty() {
        faults.sort();
        return Err(TreeError {
            root: root.to_owned(),
            faults,
        });
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

fn inspect(root: &Path, path: &[u8]) -> Result<Entry, String> {
    let full = join(root, path);
    let meta = fs::symlink_metadata(&full).map_err(|e| format!("it cannot be looked at: {e}"))?;
    let kind = if meta.is_dir() {
        Kind::Dir
    } else if meta.is_file() {
        nix::unistd::access(&full, nix::unistd::AccessFlags::R_OK)
            .map_err(|e| format!("it cannot be read: {e}; give the mover's user the right to"))?;
        Kind::File(meta.len())
    } else if meta.is_symlink() {
        let target = fs::read_link(&full).map_err(|e| format!("the link cannot be read: {e}"))?;
        Kind::Symlink(target.into_os_string().into_vec())
    } else {
        let what = match meta.file_type() {
            t if t.is_fifo() => "a pipe",
            t if t.is_socket() => "a socket",
            _ => "a device",
        };
        return Err(format!(
            "it is {what}, which has no content to send; leave it out of the tree"
        ));
    };
    let mode = match kind {
        Kind::Symlink(_) => 0o777,
        _ => meta.mode() & 0o7777,
    };
    Ok(Entry {
        path: path.to_vec(),
        kind,
        mode,
        mtime_ns: meta
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(meta.mtime_nsec()),
        sha256: None,
    })
}

/// The path on disk of an entry below `root`.
pub fn join(root: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() {
        root.to_owned()
    } else {
        root.join(OsString::from_vec(path.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn lines_come_back_as_they_went() {
        let entries = [
            Entry {
                path: b"a\xff\n".to_vec(),
                kind: Kind::File(7),
                mode: 0o4755,
                mtime_ns: -1,
                sha256: Some("00".into()),
            },
            Entry {
                path: b"l".to_vec(),
                kind: Kind::Symlink(b"../\xfe".to_vec()),
                mode: 0o777,
                mtime_ns: 5,
                sha256: None,
            },
            Entry {
                path: b"d".to_vec(),
                kind: Kind::Dir,
                mode: 0o1777,
                mtime_ns: 0,
                sha256: None,
            },
        ];
        for entry in entries {
            let line = serde_json::to_string(&entry).unwrap();
            assert_eq!(
                serde_json::from_str::<Entry>(&line).unwrap(),
                entry,
                "{line}"
            );
        }
        for bad in [
            r#"{"path":"a","type":"dir","size":1,"mode":"0755","mtime_ns":0}"#,
            r#"{"path":"a","type":"file","mode":"0755","mtime_ns":0}"#,
            r#"{"path":"a","type":"dir","mode":"17777","mtime_ns":0}"#,
            r#"{"path":"\\","type":"dir","mode":"0755","mtime_ns":0}"#,
            r#"{"path":"a","type":"door","mode":"0755","mtime_ns":0}"#,
        ] {
            assert!(serde_json::from_str::<Entry>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tree_is_read_whole_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/empty")).unwrap();
        fs::write(dir.path().join("a/f"), b"123").unwrap();
        fs::set_permissions(dir.path().join("a/f"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("/", dir.path().join("a/up")).unwrap();
        let found = scan(dir.path()).unwrap();
        let shown: Vec<_> = found.iter().map(Entry::shown).collect();
        assert_eq!(shown, ["a", "a/empty", "a/f", "a/up"]);
        assert_eq!((found[2].mode, found[2].size()), (0o640, 3));
        assert_eq!(found[3].kind, Kind::Symlink(b"/".to_vec()));
    }

    #[test]
    fn all_that_cannot_be_sent_is_named_at_once() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            nix::unistd::mkfifo(&dir.path().join(name), nix::sys::stat::Mode::S_IRUSR).unwrap();
        }
        let error = scan(dir.path()).unwrap_err();
        assert_eq!(error.faults.len(), 2);
        assert!(error.to_string().contains("one: it is a pipe"), "{error}");
        let missing = scan(&dir.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("cannot be read"), "{missing}");
    }
}
