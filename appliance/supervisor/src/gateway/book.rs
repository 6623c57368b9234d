//! What is known of a gateway across restarts: that there is one to take home, its access rules as
//! they were last told, and whose the slices are. With it a gateway goes on by itself, schedules
//! included, while the controller is away.

use crate::Places;
use dtn_api::{Name, Problem, gateway::AccessRules, problem::Kind};
use dtn_link::atomic_file;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// Version of the format.
const VERSION: u32 = 1;
/// Largest such file: a thousand rules with all that they may have are some 2.1 MB.
const LARGEST: u64 = 4 << 20;

/// One gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Book {
    /// [`VERSION`].
    version: u32,
    /// Its name.
    pub(super) name: Name,
    /// The access rules as they were last told.
    pub(super) rules: AccessRules,
    /// The tenants of the slices that it serves.
    #[serde(default)]
    pub(super) tenants: BTreeMap<Uuid, Name>,
}

impl Book {
    /// Of a gateway that was not there before.
    pub(super) fn new(name: Name) -> Self {
        Self {
            version: VERSION,
            name,
            rules: AccessRules {
                items: Vec::new(),
                version: 0,
            },
            tenants: BTreeMap::new(),
        }
    }
    fn file(places: &Places, name: &Name) -> PathBuf {
        places.gateways().join(format!("{name}.json"))
    }

    /// Reads the book of a gateway; `None` when there is none.
    pub(super) fn read(places: &Places, name: &Name) -> Result<Option<Self>, Problem> {
        read_file(&Self::file(places, name))
    }
    /// Writes it, durably.
    pub(super) fn write(&self, places: &Places) -> Result<(), Problem> {
        let path = Self::file(places, &self.name);
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| broken(&path, &e))?;
        atomic_file::write(&path, &bytes, 0o600).map_err(|e| broken(&path, &e))
    }
    /// Removes it; success when there is none.
    pub(super) fn remove(places: &Places, name: &Name) -> Result<(), Problem> {
        let path = Self::file(places, name);
        atomic_file::remove(&path).map_err(|e| broken(&path, &e))
    }
}

/// The gateways that there is a book of.
pub(super) fn names(places: &Places) -> Result<Vec<Name>, Problem> {
    let folder = places.gateways();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|e| broken(&folder, &e))? {
        let entry = entry.map_err(|e| broken(&folder, &e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if atomic_file::is_temporary(&name) {
            continue;
        }
        // the name of the file is enough to take a gateway home, whatever is in it
        let name = name.strip_suffix(".json").and_then(|n| n.parse().ok());
        found.extend(name);
    }
    found.sort();
    Ok(found)
}

fn read_file(path: &Path) -> Result<Option<Book>, Problem> {
    let Some(bytes) = atomic_file::read(path, LARGEST).map_err(|e| broken(path, &e))? else {
        return Ok(None);
    };
    let book: Book = serde_json::from_slice(&bytes).map_err(|e| {
        let why = format!("{e}: remove it, and the access rules are asked for anew");
        broken(path, &why)
    })?;
    match book.version > VERSION {
        true => Err(broken(
            path,
            &format!("version {} is newer than this build reads", book.version),
        )),
        false => Ok(Some(book)),
    }
}

fn broken(path: &Path, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::Internal, format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_is_read_as_it_was_written_and_a_newer_one_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(dir.path());
        places.create().unwrap();
        let name: Name = "internet".parse().unwrap();
        assert_eq!(Book::read(&places, &name).unwrap(), None);
        let mut book = Book::new(name.clone());
        book.tenants.insert(Uuid::from_u128(1), name.clone());
        book.write(&places).unwrap();
        assert_eq!(Book::read(&places, &name).unwrap(), Some(book.clone()));
        assert_eq!(names(&places).unwrap(), std::slice::from_ref(&name));
        book.version = 9;
        book.write(&places).unwrap();
        let error = Book::read(&places, &name).unwrap_err().to_string();
        assert!(error.contains("newer"), "{error}");
        Book::remove(&places, &name).unwrap();
        Book::remove(&places, &name).unwrap();
        assert!(names(&places).unwrap().is_empty());
    }
}
