//! What a path is: its content, mode, owner and extended attributes; read before a change, put back
//! after. Everything is put by a temporary name beside it and one rename: there is the old or the
//! new, never a part.

use crate::failpoint::reach;
use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, fchown, fchownat};
use ring::digest::{Context as Digest, SHA256};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// What is (or was) at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Image {
    /// Nothing.
    Absent,
    /// A regular file; its bytes are among the blobs of the journal, by their digest.
    File {
        sha256: String,
        #[serde(flatten)]
        owned: Owned,
        /// Seconds and nanoseconds of its last change.
        modified: (i64, i64),
    },
    /// A symbolic link.
    Link { target: PathBuf },
    /// A folder.
    Folder {
        #[serde(flatten)]
        owned: Owned,
    },
}

/// Mode, owner, group and extended attributes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Owned {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Values as hexadecimal: they are bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) attributes: BTreeMap<String, String>,
}

/// Where the bytes of an image's file come from.
pub(crate) enum Bytes<'a> {
    Text(&'a [u8]),
    File(&'a Path),
}

impl Image {
    /// Looks at a path. A file that is neither of the kinds above is not for us to replace.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let doing = || format!("looking at {}", path.display());
        let meta = match fs::symlink_metadata(path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::Absent),
            Err(e) => return Err(e).with_context(doing),
        };
        if meta.is_symlink() {
            let target = fs::read_link(path).with_context(doing)?;
            return Ok(Self::Link { target });
        }
        let owned = Owned {
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            attributes: attributes(path).with_context(doing)?,
        };
        if meta.is_dir() {
            return Ok(Self::Folder { owned });
        }
        if !meta.is_file() {
            bail!(
                "{}: is neither file, folder nor symbolic link: move it away, then try again",
                path.display()
            );
        }
        Ok(Self::File {
            sha256: digest(path)?,
            owned,
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }

    /// Puts a path back to this image. Success when it is so already. A folder that shall go and is
    /// not empty stays, and that is said.
    pub(crate) fn restore(&self, path: &Path, blobs: &Path) -> Result<Option<String>> {
        sweep(path)?;
        let now = Self::of(path)?;
        if now == *self {
            return Ok(None);
        }
        match self {
            Self::Absent => match now {
                Self::Folder { .. } => match fs::remove_dir(path) {
                    Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(Some(format!(
                        "{}: stays, for it is not empty",
                        path.display()
                    ))),
                    other => {
                        other.with_context(|| format!("removing the folder {}", path.display()))?;
                        flush_parent(path)?;
                        Ok(None)
                    }
                },
                _ => {
                    remove(path)?;
                    Ok(None)
                }
            },
            Self::File {
                sha256,
                owned,
                modified,
            } => {
                let blob = blobs.join(sha256);
                if digest(&blob)? != *sha256 {
                    bail!("{}: the kept image is damaged", blob.display());
                }
                put(path, &Bytes::File(&blob), owned, Some(*modified))?;
                Ok(None)
            }
            Self::Link { target } => {
                link(path, target)?;
                Ok(None)
            }
            Self::Folder { owned } => {
                if now == Self::Absent {
                    fs::create_dir(path)
                        .with_context(|| format!("making the folder {}", path.display()))?;
                }
                own(path, owned)?;
                flush_parent(path)?;
                Ok(None)
            }
        }
    }
}

/// Writes a file whole: temporary name, flush, rename, flush of the folder. What fails leaves no part of
/// it: a full disk has to have room for the way back.
pub(crate) fn put(
    path: &Path,
    bytes: &Bytes<'_>,
    owned: &Owned,
    modified: Option<(i64, i64)>,
) -> Result<()> {
    let temporary = temporary(path)?;
    sweep(path)?;
    let done = write(path, &temporary, bytes, owned, modified);
    if done.is_err() {
        // what it failed by is worth more than what this fails by
        let _ = fs::remove_file(&temporary);
    }
    done
}

fn write(
    path: &Path,
    temporary: &Path,
    bytes: &Bytes<'_>,
    owned: &Owned,
    modified: Option<(i64, i64)>,
) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)
        .with_context(doing)?;
    match bytes {
        Bytes::Text(text) => out.write_all(text).with_context(doing)?,
        Bytes::File(source) => {
            let mut source =
                File::open(source).with_context(|| format!("reading {}", source.display()))?;
            io::copy(&mut source, &mut out).with_context(doing)?;
        }
    }
    fchown(
        &out,
        Some(Uid::from_raw(owned.uid)),
        Some(Gid::from_raw(owned.gid)),
    )
    .with_context(doing)?;
    // after the owner: a change of owner takes the set-user bits and capabilities away
    out.set_permissions(fs::Permissions::from_mode(owned.mode))
        .with_context(doing)?;
    set_attributes(temporary, &owned.attributes).with_context(doing)?;
    if let Some((seconds, nanoseconds)) = modified {
        out.set_modified(instant(seconds, nanoseconds))
            .with_context(doing)?;
    }
    out.sync_all().with_context(doing)?;
    reach("written")?;
    fs::rename(temporary, path).with_context(doing)?;
    flush_parent(path)
}

/// Makes a symbolic link, in place of whatever file or link is there.
pub(crate) fn link(path: &Path, target: &Path) -> Result<()> {
    let doing = || format!("linking {} to {}", path.display(), target.display());
    let temporary = temporary(path)?;
    sweep(path)?;
    std::os::unix::fs::symlink(target, &temporary).with_context(doing)?;
    fs::rename(&temporary, path).with_context(doing)?;
    flush_parent(path)
}

/// Removes a file or link for good; success when there is none.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("removing {}", path.display()))
        }
        Err(_) => Ok(()),
        Ok(()) => flush_parent(path),
    }
}

/// Gives a folder its owner, mode and attributes.
pub(crate) fn own(path: &Path, owned: &Owned) -> Result<()> {
    let doing = || format!("setting owner and mode of {}", path.display());
    fchownat(
        nix::fcntl::AT_FDCWD,
        path,
        Some(Uid::from_raw(owned.uid)),
        Some(Gid::from_raw(owned.gid)),
        nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .with_context(doing)?;
    fs::set_permissions(path, fs::Permissions::from_mode(owned.mode)).with_context(doing)?;
    set_attributes(path, &owned.attributes).with_context(doing)
}

/// SHA-256 of a file, as hexadecimal.
pub(crate) fn digest(path: &Path) -> Result<String> {
    let doing = || format!("reading {}", path.display());
    let mut file = File::open(path).with_context(doing)?;
    let mut digest = Digest::new(&SHA256);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).with_context(doing)? {
            0 => return Ok(hex(digest.finish().as_ref())),
            read => digest.update(&buffer[..read]),
        }
    }
}

/// SHA-256 of bytes, as hexadecimal.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&SHA256, bytes).as_ref())
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .filter_map(|digit| digit.try_into().ok())
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| (pair[0] << 4) | pair[1])
        .collect()
}

fn instant(seconds: i64, nanoseconds: i64) -> SystemTime {
    let nanoseconds = Duration::from_nanos(nanoseconds.unsigned_abs());
    let whole = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH - whole + nanoseconds
    } else {
        SystemTime::UNIX_EPOCH + whole + nanoseconds
    }
}

/// A file system that has no attributes has none to keep.
fn attributes(path: &Path) -> io::Result<BTreeMap<String, String>> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(e) if e.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(e) => return Err(e),
    };
    let mut found = BTreeMap::new();
    for name in names {
        if let Some(value) = xattr::get(path, &name)? {
            found.insert(name.to_string_lossy().into_owned(), hex(&value));
        }
    }
    Ok(found)
}

fn set_attributes(path: &Path, wanted: &BTreeMap<String, String>) -> io::Result<()> {
    let now = attributes(path)?;
    for (name, value) in wanted {
        if now.get(name) != Some(value) {
            xattr::set(path, name, &unhex(value))?;
        }
    }
    Ok(())
}

/// The temporary name of a path: always the same, so that what was cut off is found again. One
/// process at a time has the lock under which it is used.
fn temporary(path: &Path) -> Result<PathBuf> {
    let name = path
        .file_name()
        .with_context(|| format!("{}: does not end in a name", path.display()))?;
    Ok(path.with_file_name(format!(".{}.dtn-install", name.to_string_lossy())))
}

/// Whether a path is what a cut-off write left.
pub(crate) fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') && name.ends_with(".dtn-install")
}

/// Removes what a cut-off write left beside a path.
pub(crate) fn sweep(path: &Path) -> Result<()> {
    let temporary = temporary(path)?;
    if fs::symlink_metadata(&temporary).is_ok() {
        remove(&temporary)?;
    }
    Ok(())
}

/// Flushes the folder of a path.
pub(crate) fn flush_parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("flushing the folder {}", folder.display()))
}

#[cfg(test)]
mod tests;
