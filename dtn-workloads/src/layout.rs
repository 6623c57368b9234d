//! What has to be on the disk before a pod starts: its folders, owned by its user, and the
//! transfer key, made where none is. Everything can be done twice.

use crate::{
    key::{KeyError, TransferKey},
    template::Template,
    values::{Kind, Value},
};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaidOut {
    /// Folders that were made.
    pub folders: Vec<PathBuf>,
    /// Keys that were made: their copies have to go to the other end of each transfer.
    pub keys: Vec<PathBuf>,
}

/// Why it could not be.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A folder.
    #[error("preparing {}", .path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Makes the folders and keys that the template declares, with the values of a rendered pod.
pub fn lay_out(
    template: &Template,
    values: &BTreeMap<String, Value>,
    now: SystemTime,
) -> Result<LaidOut, LayoutError> {
    let uid = match values.get("uid") {
        Some(Value::Number(uid)) => u32::try_from(*uid).unwrap_or(u32::MAX),
        _ => 0,
    };
    let mut done = LaidOut::default();
    for (name, declaration) in &template.declarations.values {
        let (Kind::Folder, Some(Value::Text(path))) = (declaration.kind, values.get(name)) else {
            continue;
        };
        let path = Path::new(path);
        let mode = if declaration.transfer_key.is_some() {
            0o700
        } else {
            0o750
        };
        folder(path, uid, mode, &mut done)?;
        for inside in &declaration.make {
            folder(&path.join(inside), uid, mode, &mut done)?;
        }
        if let Some(key) = &declaration.transfer_key {
            let key = path.join(key);
            if key.exists() {
                // a damaged one is an error now, not a refused transfer later
                TransferKey::read(&key)?;
            } else {
                TransferKey::generate(now)?.write(&key, uid)?;
                done.keys.push(key);
            }
        }
    }
    Ok(done)
}

/// A folder of this user's; one that is there keeps its mode.
fn folder(path: &Path, uid: u32, mode: u32, done: &mut LaidOut) -> Result<(), LayoutError> {
    let failed = |source| LayoutError::Folder {
        path: path.to_owned(),
        source,
    };
    if path.is_dir() {
        return chown(path, Some(uid), Some(uid)).map_err(failed);
    }
    fs::create_dir_all(path).map_err(failed)?;
    chown(path, Some(uid), Some(uid)).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    done.folders.push(path.to_owned());
    Ok(())
}
