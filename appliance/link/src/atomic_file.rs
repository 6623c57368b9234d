//! Files that are whole or not there, whatever is killed or cut off in between.
//!
//! A write goes to a temporary file in the same folder, is flushed to the disk, renamed over the
//! old one, and the folder is flushed. A reader sees the old content or the new, never a part.

use crate::{Error, Result};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Tells temporary files of one process apart.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Writes a file with these mode bits (as `0o600`), whatever the umask of this process is.
pub fn write(file: &Path, content: &[u8], mode: u32) -> Result<()> {
    write_for(file, content, mode, None)
}

/// The same for an owner, by user and group number: nobody sees it with another one in between.
pub fn write_for(file: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    let doing = || format!("writing {}", file.display());
    let temporary = temporary(file)?;
    let put = || -> io::Result<()> {
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode & 0o700)
            .open(&temporary)?;
        if let Some((user, group)) = owner {
            fchown(&out, Some(user), Some(group))?;
        }
        out.set_permissions(Permissions::from_mode(mode))?;
        out.write_all(content)?;
        out.sync_all()?;
        fs::rename(&temporary, file)
    };
    if let Err(e) = put() {
        // what cannot be removed is swept with the next start
        let _ = fs::remove_file(&temporary);
        return Err(Error::io(doing(), e));
    }
    flush_folder(file)
}

/// Reads a file of at most `limit` bytes; a longer one is an error. `None` when there is none.
pub fn read(file: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let doing = || format!("reading {}", file.display());
    let open = OpenOptions::new()
        .read(true)
        .custom_flags((nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits())
        .open(file);
    let source = match open {
        Ok(source) => source,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(doing(), e)),
    };
    let mut content = Vec::new();
    source
        .take(limit.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(|e| Error::io(doing(), e))?;
    if content.len() as u64 > limit {
        return Err(Error::invalid(
            format!("file {}", file.display()),
            format!("it is longer than the {limit} bytes that such a file can have"),
        ));
    }
    Ok(Some(content))
}

/// Removes a file for good; success when there is none.
pub fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Ok(()) => flush_folder(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(format!("removing {}", file.display()), e)),
    }
}

/// Makes a folder and those above it, with these mode bits for the new ones, and flushes it.
pub fn create_folder(folder: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .map_err(|e| Error::io(format!("making the folder {}", folder.display()), e))?;
    flush_folder(folder)
}

/// Whether a name in a folder is a temporary file of a write that was cut off. Readers of a folder
/// leave such names out.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.contains(".tmp-")
}

/// Removes the temporary files that writes left in a folder when they were cut off. Only for the
/// one process that writes there, at its start.
pub fn sweep(folder: &Path) -> Result<usize> {
    let doing = || format!("sweeping {}", folder.display());
    let mut swept = 0;
    for entry in fs::read_dir(folder).map_err(|e| Error::io(doing(), e))? {
        let entry = entry.map_err(|e| Error::io(doing(), e))?;
        if is_temporary(&entry.file_name().to_string_lossy()) {
            remove(&entry.path())?;
            swept += 1;
        }
    }
    Ok(swept)
}

fn temporary(file: &Path) -> Result<PathBuf> {
    let name = file.file_name().ok_or_else(|| {
        Error::invalid(
            format!("file {}", file.display()),
            "a path to a file ends in its name",
        )
    })?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let name = format!(".{}.tmp-{process}-{number}", name.to_string_lossy());
    Ok(file.with_file_name(name))
}

fn flush_folder(file: &Path) -> Result<()> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| Error::io(format!("flushing the folder {}", folder.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_with_its_mode_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("record.json");
        write(&file, b"one", 0o600).unwrap();
        // more than the usual umask lets through
        write(&file, b"two", 0o666).unwrap();
        assert_eq!(read(&file, 3).unwrap().unwrap(), b"two");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o666
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("big");
        fs::write(&file, [0; 11]).unwrap();
        assert!(read(&file, 10).is_err());
        assert!(read(&file, 11).unwrap().is_some());
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary_one() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(write(&taken, b"x", 0o600).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn removing_twice_is_success_and_none_reads_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gone");
        write(&file, b"x", 0o600).unwrap();
        remove(&file).unwrap();
        remove(&file).unwrap();
        assert!(read(&file, 10).unwrap().is_none());
    }

    #[test]
    fn a_write_that_was_cut_off_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".a.json.tmp-1-0"), "half").unwrap();
        fs::write(dir.path().join("a.json"), "whole").unwrap();
        assert_eq!(sweep(dir.path()).unwrap(), 1);
        assert!(dir.path().join("a.json").exists());
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "x").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("secret", &link).unwrap();
        assert!(read(&link, 10).is_err());
    }
}
