//! Reads one file of a configuration: bounded, never waiting, and only what nobody but its owner
//! can have written. A daemon that runs as root does what its file says.

use super::problem::Severity;
use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

/// Largest file that is read, bytes.
pub const LARGEST: u64 = 1 << 20;

/// Errors of open(2) that stay until somebody mends the file system by hand.
pub(super) fn is_lasting(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory};
    /// `ELOOP`, links that lead to each other; the standard library has no stable kind for it.
    const LOOP: i32 = 40;
    matches!(error.kind(), IsADirectory | NotADirectory) || error.raw_os_error() == Some(LOOP)
}

/// Why a file is no layer.
pub(super) enum Unusable {
    /// It is wrong, and stays so until somebody mends it.
    Wrong(String),
    /// It cannot be read now.
    Unreadable(io::Error),
}

/// A file that was read.
pub(super) struct Found {
    /// What is in it.
    pub(super) text: String,
    /// What there is to say of the file itself.
    pub(super) remarks: Vec<(Severity, String)>,
}

/// Reads a file whole.
pub(super) fn read(path: &Path) -> Result<Found, Unusable> {
    let refused = |error: io::Error| match is_lasting(&error) {
        true => Unusable::Wrong(format!("cannot be opened: {error}")),
        false => Unusable::Unreadable(error),
    };
    // looked at before it is opened: opening a pipe would wait for who writes to it
    let before = std::fs::metadata(path).map_err(refused)?;
    regular(&before).map_err(Unusable::Wrong)?;
    let file = File::open(path).map_err(refused)?;
    let metadata = file.metadata().map_err(Unusable::Unreadable)?;
    regular(&metadata).map_err(Unusable::Wrong)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(Unusable::Unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Unusable::Wrong(format!(
            "is larger than {} KiB, which no configuration needs",
            LARGEST / 1024
        )));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
        Unusable::Wrong(format!(
            "is not UTF-8 text: line {line} has a byte that is none; save it as UTF-8"
        ))
    })?;
    Ok(Found {
        text,
        remarks: remarks(path, &metadata),
    })
}

fn regular(metadata: &Metadata) -> Result<(), String> {
    let kind = metadata.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else {
        "no regular file"
    };
    Err(format!("is {what}: a TOML file must be there"))
}

fn remarks(path: &Path, metadata: &Metadata) -> Vec<(Severity, String)> {
    let mut remarks = Vec::new();
    if metadata.mode() & 0o002 != 0 {
        let why = format!(
            "can be written by every user of this machine: chmod o-w {}",
            path.display()
        );
        remarks.push((Severity::Error, why));
    }
    let owner = metadata.uid();
    if owner != 0 && Some(owner) != own_user() {
        let why = format!(
            "belongs to user {owner}, who can change it at any time: chown root {}",
            path.display()
        );
        remarks.push((Severity::Warning, why));
    }
    let folder = path.parent().filter(|folder| folder.as_os_str() != "");
    if let Some(why) = folder.and_then(open_to_all) {
        remarks.push((Severity::Error, why));
    }
    remarks
}

/// Why a folder is none to keep a configuration in: whoever can write to it can replace each file.
pub(super) fn open_to_all(folder: &Path) -> Option<String> {
    /// In a folder with this bit files are replaced by their owners alone, as in /tmp.
    const STICKY: u32 = 0o1000;
    let mode = std::fs::metadata(folder).ok()?.mode();
    (mode & 0o002 != 0 && mode & STICKY == 0).then(|| {
        format!(
            "is in a folder that every user of this machine can write to: chmod o-w {}",
            folder.display()
        )
    })
}

/// The user that this process acts as.
fn own_user() -> Option<u32> {
    Some(std::fs::metadata("/proc/self").ok()?.uid())
}
