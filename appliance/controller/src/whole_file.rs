//! Small files that are whole or not there, whatever is killed or cut off in between: keys, who this
//! controller is, what it has asked of ONOS. For the owner alone.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Writes a file: beside it, flushed, renamed over it, and the folder flushed. One writer per file.
pub(crate) fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is in no folder",
        ));
    };
    let new = folder.join(format!(".{}.new", name.to_string_lossy()));
    // what a write left that was cut off may have another mode
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut out = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&new)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&new, file)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_written_is_there_for_the_owner_alone_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        // a write that was cut off
        fs::write(folder.path().join(".key.pem.new"), "half").unwrap();
        for text in ["one", "another"] {
            write(&file, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write(&folder.path().join("none/key.pem"), b"x").is_err());
    }
}
