//! The verdict: a manifest of each tree with the SHA-256 of every file, and their comparison.
//! A manifest is one JSON object a line: a header that counts the entries, then the entries.

use crate::{
    list::hex,
    tree::{self, Entry, Kind},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, Read, Write},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Version of the manifest that this build writes; a newer one is refused.
pub const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    entries: usize,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The tree has what no manifest can hold.
    #[error(transparent)]
    Tree(#[from] tree::TreeError),
    /// A file could not be read to its end.
    #[error("hashing {path}")]
    Read {
        /// Escaped.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be written or read.
    #[error("the manifest")]
    Io(#[from] io::Error),
    /// It is no manifest, or is cut short.
    #[error("line {line} of the manifest: {reason}; make it again with dtn-mover manifest")]
    Damaged {
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// The manifest of the tree at `root`, hashed by `threads` threads.
pub fn of(root: &Path, threads: usize) -> Result<Vec<Entry>, ManifestError> {
    let mut entries = tree::scan(root)?;
    let next = AtomicUsize::new(0);
    let hashed = Mutex::new(Vec::with_capacity(entries.len()));
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mut mine = Vec::new();
                let mut buffer = vec![0; 1 << 20];
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(entry) = entries.get(index) else {
                        break;
                    };
                    if matches!(entry.kind, Kind::File(_)) {
                        mine.push((index, hash(&tree::join(root, &entry.path), &mut buffer)));
                    }
                }
                if let Ok(mut all) = hashed.lock() {
                    all.extend(mine);
                }
            });
        }
    });
    for (index, outcome) in hashed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        let entry = &mut entries[index];
        let (digest, read) = outcome.map_err(|source| ManifestError::Read {
            path: entry.shown(),
            source,
        })?;
        // what was hashed is what counts, should the file have grown since it was looked at
        entry.kind = Kind::File(read);
        entry.sha256 = Some(digest);
    }
    Ok(entries)
}

fn hash(path: &Path, buffer: &mut [u8]) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut total = 0;
    loop {
        let count = match file.read(buffer) {
            Ok(0) => return Ok((hex(context.finish().as_ref()), total)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        context.update(&buffer[..count]);
        total += count as u64;
    }
}

/// Writes a manifest.
pub fn write(entries: &[Entry], mut out: impl Write) -> io::Result<()> {
    let header = Header {
        format: "dtn-manifest".into(),
        version: VERSION,
        entries: entries.len(),
    };
    serde_json::to_writer(&mut out, &header)?;
    out.write_all(b"\n")?;
    for entry in entries {
        serde_json::to_writer(&mut out, entry)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Reads what [`write()`] wrote.
pub fn read(input: impl BufRead) -> Result<Vec<Entry>, ManifestError> {
    let damaged = |line, reason: &str| ManifestError::Damaged {
        line,
        reason: reason.to_owned(),
    };
    let mut lines = input.lines();
    let head = lines.next().ok_or_else(|| damaged(1, "it is empty"))??;
    let header: Header = serde_json::from_str(&head).map_err(|e| damaged(1, &e.to_string()))?;
    if header.format != "dtn-manifest" || header.version > VERSION {
        return Err(damaged(
            1,
            &format!("it is {} of version {}", header.format, header.version),
        ));
    }
    let mut entries = Vec::new();
    for (number, line) in (2..).zip(lines) {
        entries.push(serde_json::from_str(&line?).map_err(|e| damaged(number, &e.to_string()))?);
    }
    if entries.len() != header.entries {
        let counted = format!(
            "{} entries of {}: it is cut short",
            entries.len(),
            header.entries
        );
        return Err(damaged(entries.len() + 1, &counted));
    }
    Ok(entries)
}

/// One way in which two trees differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Escaped.
    pub path: String,
    /// `missing` or `extra` in the second, else the field: `type`, `size`, `mode`, `content`,
    /// `target`.
    pub what: &'static str,
    /// In the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// In the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second: Option<String>,
}

/// Every difference of path, type, size, mode, content and target; times are not compared.
pub fn compare(first: &[Entry], second: &[Entry]) -> Vec<Difference> {
    let index = |entries: &[Entry]| -> BTreeMap<Vec<u8>, Entry> {
        entries
            .iter()
            .map(|entry| (entry.path.clone(), entry.clone()))
            .collect()
    };
    let (first, second) = (index(first), index(second));
    let mut found = Vec::new();
    for (path, one) in &first {
        match second.get(path) {
            None => found.push(difference(one, "missing", None, None)),
            Some(other) => found.extend(fields(one, other)),
        }
    }
    for (path, other) in &second {
        if !first.contains_key(path) {
            found.push(difference(other, "extra", None, None));
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn difference(
    entry: &Entry,
    what: &'static str,
    first: Option<String>,
    second: Option<String>,
) -> Difference {
    Difference {
        path: entry.shown(),
        what,
        first,
        second,
    }
}

fn fields(one: &Entry, other: &Entry) -> Vec<Difference> {
    let kind = |entry: &Entry| match &entry.kind {
        Kind::Dir => "dir",
        Kind::File(_) => "file",
        Kind::Symlink(_) => "symlink",
    };
    if kind(one) != kind(other) {
        return vec![difference(
            one,
            "type",
            Some(kind(one).into()),
            Some(kind(other).into()),
        )];
    }
    let mut found = Vec::new();
    let mut differ = |what, a: String, b: String| {
        if a != b {
            found.push(difference(one, what, Some(a), Some(b)));
        }
    };
    differ("size", one.size().to_string(), other.size().to_string());
    differ(
        "mode",
        format!("{:04o}", one.mode),
        format!("{:04o}", other.mode),
    );
    if let (Kind::Symlink(a), Kind::Symlink(b)) = (&one.kind, &other.kind) {
        differ("target", crate::names::escape(a), crate::names::escape(b));
    }
    let digest = |entry: &Entry| entry.sha256.clone().unwrap_or_else(|| "not hashed".into());
    if matches!(one.kind, Kind::File(_)) {
        // a digest that is missing on both sides is no proof of anything
        if one.sha256.is_none() && other.sha256.is_none() {
            found.push(difference(
                one,
                "content",
                Some("not hashed".into()),
                Some("not hashed".into()),
            ));
        } else {
            let (a, b) = (digest(one), digest(other));
            if a != b {
                found.push(difference(one, "content", Some(a), Some(b)));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn tree(root: &Path) {
        fs::create_dir_all(root.join("d/empty")).unwrap();
        fs::write(root.join("d/f"), b"abc").unwrap();
        symlink("d/f", root.join("l")).unwrap();
    }

    #[test]
    fn the_digest_is_sha_256() {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        let entries = of(dir.path(), 2).unwrap();
        // FIPS 180-2, appendix B.1: the digest of "abc"
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let file = entries.iter().find(|e| e.path == b"d/f").unwrap();
        assert_eq!(file.sha256.as_deref(), Some(known));
        let mut written = Vec::new();
        write(&entries, &mut written).unwrap();
        assert_eq!(read(written.as_slice()).unwrap(), entries);
        let cut = &written[..written.len() - 80];
        let cut = &cut[..=cut.iter().rposition(|b| *b == b'\n').unwrap()];
        assert!(read(cut).unwrap_err().to_string().contains("cut short"));
    }

    #[test]
    fn every_kind_of_difference_is_seen() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        tree(a.path());
        tree(b.path());
        let manifest = |dir: &Path| of(dir, 1).unwrap();
        assert_eq!(compare(&manifest(a.path()), &manifest(b.path())), []);
        fs::write(b.path().join("d/f"), b"abd").unwrap();
        fs::set_permissions(b.path().join("d"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::remove_dir(b.path().join("d/empty")).unwrap();
        fs::remove_file(b.path().join("l")).unwrap();
        symlink("d", b.path().join("l")).unwrap();
        fs::write(b.path().join("x"), b"").unwrap();
        fs::set_permissions(a.path().join("d"), fs::Permissions::from_mode(0o755)).unwrap();
        let found: Vec<_> = compare(&manifest(a.path()), &manifest(b.path()))
            .into_iter()
            .map(|d| format!("{} {}", d.path, d.what))
            .collect();
        assert_eq!(
            found,
            [
                "d mode",
                "d/empty missing",
                "d/f content",
                "l target",
                "x extra"
            ]
        );
    }

    #[test]
    fn files_that_nobody_hashed_are_not_equal() {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        let entries = tree::scan(dir.path()).unwrap();
        assert_eq!(compare(&entries, &entries).len(), 1);
    }
}
