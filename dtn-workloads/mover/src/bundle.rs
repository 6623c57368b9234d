//! A bundle: small files in one tar, each named by its place in the list. Any tar reads it; the
//! real names, modes and times are in the list and nowhere else.

use crate::tree::{self, Entry};
use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

/// Why a bundle could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The source file, by its escaped path.
    #[error("reading {path}")]
    Source {
        /// Escaped.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what the list says.
    #[error(
        "{path} has changed while it was being sent: {reason}; leave the tree alone and start a new transfer"
    )]
    Changed {
        /// Escaped.
        path: String,
        /// How.
        reason: String,
    },
    /// Where the bundle goes, or comes from.
    #[error("the bundle's stream")]
    Stream(#[source] io::Error),
    /// The bundle does not hold what the list says.
    #[error("the bundle does not fit the list: {0}")]
    Mismatch(String),
}

/// Reads a file and remembers whether it was the file or the stream that failed.
struct Watched {
    file: File,
    failed: Option<io::Error>,
    read: u64,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read(buffer) {
            Ok(count) => {
                self.read += count as u64;
                Ok(count)
            }
            Err(error) => {
                self.failed = Some(io::Error::new(error.kind(), error.to_string()));
                Err(error)
            }
        }
    }
}

/// Writes the files at these places of the list; `sent` is told of each file's bytes.
pub fn pack(
    root: &Path,
    list: &[Entry],
    places: &[usize],
    out: impl Write,
    mut sent: impl FnMut(u64),
) -> Result<(), BundleError> {
    let mut tar = tar::Builder::new(out);
    for place in places {
        let entry = &list[*place];
        let path = entry.shown();
        let changed = |reason: String| BundleError::Changed {
            path: entry.shown(),
            reason,
        };
        let file =
            File::open(tree::join(root, &entry.path)).map_err(|source| BundleError::Source {
                path: path.clone(),
                source,
            })?;
        let found = file.metadata().map_err(|source| BundleError::Source {
            path: path.clone(),
            source,
        })?;
        if !found.is_file() || found.len() != entry.size() {
            return Err(changed(format!(
                "{} bytes, {} were listed",
                found.len(),
                entry.size()
            )));
        }
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(entry.size());
        header.set_mode(0o600);
        header.set_mtime(0);
        header
            .set_path(place.to_string())
            .map_err(BundleError::Stream)?;
        header.set_cksum();
        // never more than the header says, or what follows would be read as the next header
        let mut watched = Watched {
            file,
            failed: None,
            read: 0,
        };
        let appended = tar.append(&header, (&mut watched).take(entry.size()));
        if let Some(source) = watched.failed {
            return Err(BundleError::Source { path, source });
        }
        appended.map_err(BundleError::Stream)?;
        if watched.read != entry.size() {
            return Err(changed(format!("it ended after {} bytes", watched.read)));
        }
        sent(entry.size());
    }
    tar.into_inner()
        .and_then(|mut out| out.flush())
        .map_err(BundleError::Stream)
}

/// Reads a bundle and hands each file to `place`, which has to read it to its end. Every place
/// that was expected comes exactly once, in order.
pub fn unpack<'l, E: From<BundleError>>(
    list: &'l [Entry],
    places: &[usize],
    input: impl Read,
    mut place: impl FnMut(&'l Entry, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = tar::Archive::new(input);
    let mut expected = places.iter();
    for item in archive.entries().map_err(BundleError::Stream)? {
        let mut item = item.map_err(BundleError::Stream)?;
        let name = String::from_utf8_lossy(&item.path_bytes()).into_owned();
        let mismatch = |why: &str| BundleError::Mismatch(format!("entry {name:?} {why}"));
        let wanted = expected.next().ok_or_else(|| mismatch("is one too many"))?;
        let entry = match name.parse::<usize>() {
            Ok(index) if index == *wanted => &list[index],
            _ => return Err(mismatch(&format!("comes where {wanted} is due")).into()),
        };
        if item.header().entry_type() != tar::EntryType::Regular || item.size() != entry.size() {
            return Err(mismatch("is not of the listed type and size").into());
        }
        place(entry, &mut item)?;
    }
    match expected.next() {
        None => Ok(()),
        Some(missing) => {
            Err(BundleError::Mismatch(format!("it ends before entry {missing}")).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn packed(names: &[&str]) -> (tempfile::TempDir, Vec<Entry>, Vec<usize>, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(dir.path().join(name), format!("content of {name}")).unwrap();
        }
        let list = tree::scan(dir.path()).unwrap();
        let places: Vec<_> = (0..list.len()).collect();
        let mut tar = Vec::new();
        pack(dir.path(), &list, &places, &mut tar, |_| {}).unwrap();
        (dir, list, places, tar)
    }

    fn contents(list: &[Entry], places: &[usize], tar: &[u8]) -> Result<Vec<String>, BundleError> {
        let mut all = Vec::new();
        unpack(list, places, tar, |_, input| {
            let mut text = String::new();
            input
                .read_to_string(&mut text)
                .map_err(BundleError::Stream)?;
            all.push(text);
            Ok::<_, BundleError>(())
        })?;
        Ok(all)
    }

    #[test]
    fn what_is_packed_comes_out_and_nothing_less_is_taken() {
        let (_dir, list, places, tar) = packed(&["a b", "-c", "d\n'\"#?%"]);
        let all = contents(&list, &places, &tar).unwrap();
        assert_eq!(
            all,
            ["content of -c", "content of a b", "content of d\n'\"#?%"]
        );
        for end in (0..tar.len() - 1024).step_by(100) {
            assert!(
                contents(&list, &places, &tar[..end]).is_err(),
                "cut at {end}"
            );
        }
        assert!(contents(&list, &places[..2], &tar).is_err(), "one too many");
        assert!(contents(&list, &[1, 0, 2], &tar).is_err(), "out of order");
    }

    #[test]
    fn a_file_that_changed_is_named() {
        let (dir, list, places, _) = packed(&["a", "b"]);
        fs::write(dir.path().join("b"), "short").unwrap();
        let error = pack(dir.path(), &list, &places, io::sink(), |_| {}).unwrap_err();
        assert!(
            matches!(&error, BundleError::Changed { path, .. } if path == "b"),
            "{error}"
        );
        fs::remove_file(dir.path().join("b")).unwrap();
        let error = pack(dir.path(), &list, &places, io::sink(), |_| {}).unwrap_err();
        assert!(
            matches!(&error, BundleError::Source { path, .. } if path == "b"),
            "{error}"
        );
    }
}
