//! Folders and keys of a pod whose node makes none for it: in Kubernetes the pod does it itself,
//! as its own user, before its containers start. Everything can be done twice.

use anyhow::Context as _;
use nix::{sys::stat::Mode, unistd::mkdir};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Largest key file; one line of a keytab is about 150 bytes.
const LARGEST_KEY: u64 = 64 << 10;

/// A key that is copied from where the pod may only read it to where its programs want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCopy {
    /// Where it is.
    pub from: PathBuf,
    /// Where it goes, for this user alone.
    pub to: PathBuf,
}

impl FromStr for KeyCopy {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((from, to)) if from.starts_with('/') && to.starts_with('/') => Ok(Self {
                from: from.into(),
                to: to.into(),
            }),
            _ => Err("write /FROM=/TO".into()),
        }
    }
}

/// Makes the folders, each in one that is there, and puts the keys in place.
pub fn lay_out(folders: &[PathBuf], keys: &[KeyCopy]) -> anyhow::Result<()> {
    for folder in folders {
        make(folder)?;
    }
    for key in keys {
        copy(key).with_context(|| {
            format!(
                "putting the key {} to {}",
                key.from.display(),
                key.to.display()
            )
        })?;
    }
    Ok(())
}

/// One folder. What it is in has to be there: a volume that is missing must not be written beside.
fn make(folder: &Path) -> anyhow::Result<()> {
    match mkdir(folder, Mode::from_bits_truncate(0o750)) {
        Ok(()) => Ok(()),
        Err(_) if folder.is_dir() => Ok(()),
        Err(error) => Err(io::Error::from(error)).with_context(|| {
            format!(
                "making the folder {}: user {} has to own the volume that it is in",
                folder.display(),
                nix::unistd::geteuid()
            )
        }),
    }
}

/// xrootd refuses a key that others may read, and a mounted Secret is its group's too.
fn copy(key: &KeyCopy) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    File::open(&key.from)?
        .take(LARGEST_KEY + 1)
        .read_to_end(&mut bytes)?;
    anyhow::ensure!(
        !bytes.is_empty() && bytes.len() as u64 <= LARGEST_KEY,
        "it has {} bytes, and no key has that",
        bytes.len()
    );
    let new = key.to.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, &key.to)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn folders_and_keys_are_there_after_one_run_and_after_two() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, "0 u:dtn\n").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o440)).unwrap();
        let folders = [dir.path().join("incoming"), dir.path().join("state")];
        let key = KeyCopy {
            from: secret.clone(),
            to: dir.path().join("sss.keytab"),
        };
        for _ in 0..2 {
            lay_out(&folders, std::slice::from_ref(&key)).unwrap();
        }
        assert!(folders.iter().all(|folder| folder.is_dir()));
        assert_eq!(fs::read(&key.to).unwrap(), fs::read(&secret).unwrap());
        let mode = fs::metadata(&key.to).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_volume_that_is_missing_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let lost = dir.path().join("no/volume");
        let told = lay_out(&[lost], &[]).unwrap_err().to_string();
        assert!(told.contains("no/volume"), "{told}");
        let empty = dir.path().join("empty");
        fs::write(&empty, "").unwrap();
        let key = KeyCopy {
            from: empty,
            to: dir.path().join("key"),
        };
        assert!(lay_out(&[], &[key]).is_err());
    }

    #[test]
    fn a_copy_is_written_with_an_equals_sign() {
        let key: KeyCopy = "/a/k=/b/k".parse().unwrap();
        assert_eq!(
            (key.from.as_path(), key.to.as_path()),
            (Path::new("/a/k"), Path::new("/b/k"))
        );
        for bad in ["/a", "a=/b", "/a=b", ""] {
            assert!(bad.parse::<KeyCopy>().is_err(), "{bad}");
        }
    }
}
