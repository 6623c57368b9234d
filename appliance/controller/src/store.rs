//! Where everything durable is kept: ordered keys with values, changed in one step or not at all.
//!
//! The trait is what an embedded file and a distributed store have in common: a range read, and a
//! commit that is refused when somebody else has committed since. [`Embedded`] is one file (redb);
//! its commit is on the disk (fsync) before it returns.

use futures_util::future::BoxFuture;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

/// Version of the layout that this build writes; a newer one is refused.
pub const FORMAT: u64 = 1;
const ROWS: TableDefinition<&str, &[u8]> = TableDefinition::new("rows");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Set a key.
    Put(String, Vec<u8>),
    /// Take a key away.
    Delete(String),
}

/// How the store fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Somebody else has committed since.
    #[error("the store is at revision {found}, {expected} was expected: read it again")]
    Conflict {
        /// Revision the caller knew.
        expected: u64,
        /// Revision there is.
        found: u64,
    },
    /// The file is written by a newer build.
    #[error(
        "{path} has format {found}, this build reads up to {FORMAT}: install the build that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// It could not be read or written.
    #[error("{doing} {path}: {reason}")]
    Failed {
        /// What was done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        reason: String,
    },
}

/// Rows with the revision they were read at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// Counts commits.
    pub revision: u64,
    /// In the order of keys.
    pub rows: Vec<(String, Vec<u8>)>,
}

/// An ordered, durable map.
pub trait Store: Send + Sync {
    /// Every row whose key starts with this, and the revision.
    fn range<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Rows, StoreError>>;
    /// Makes all of the changes or none, if the revision is as expected; the new revision. They
    /// are durable when this returns.
    fn commit(&self, expected: u64, ops: Vec<Op>) -> BoxFuture<'_, Result<u64, StoreError>>;
}

/// One file on this machine.
#[derive(Debug, Clone)]
pub struct Embedded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// `None` after a failed write: it is opened again by the next call, because the library
    /// refuses to go on with a file of which it does not know what was written.
    database: Mutex<Option<Database>>,
}

impl Embedded {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let inner = Inner {
            path: path.to_owned(),
            database: Mutex::new(None),
        };
        drop(inner.opened()?);
        Ok(Self(Arc::new(inner)))
    }
}

impl Inner {
    fn failed<E: std::fmt::Display>(&self, doing: &'static str) -> impl Fn(E) -> StoreError + '_ {
        move |error| StoreError::Failed {
            doing,
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }

    /// The database, opened where it is not.
    fn opened(&self) -> Result<MutexGuard<'_, Option<Database>>, StoreError> {
        let mut slot = self.database.lock().unwrap_or_else(|e| e.into_inner());
        if slot.is_none() {
            let database = Database::create(&self.path).map_err(self.failed("opening"))?;
            let mut write = database.begin_write().map_err(self.failed("opening"))?;
            write
                .set_durability(Durability::Immediate)
                .map_err(self.failed("opening"))?;
            {
                let mut meta = write.open_table(META).map_err(self.failed("opening"))?;
                let found = meta
                    .get("format")
                    .map_err(self.failed("opening"))?
                    .map(|format| format.value());
                match found {
                    None => {
                        meta.insert("format", FORMAT)
                            .map_err(self.failed("opening"))?;
                    }
                    Some(found) if found > FORMAT => {
                        return Err(StoreError::Newer {
                            path: self.path.clone(),
                            found,
                        });
                    }
                    Some(_) => {}
                }
                write.open_table(ROWS).map_err(self.failed("opening"))?;
            }
            write.commit().map_err(self.failed("opening"))?;
            *slot = Some(database);
        }
        Ok(slot)
    }

    fn read(&self, prefix: &str) -> Result<Rows, StoreError> {
        let slot = self.opened()?;
        let Some(database) = slot.as_ref() else {
            return Err(self.failed("opening")("it is closed"));
        };
        let read = database.begin_read().map_err(self.failed("reading"))?;
        let meta = read.open_table(META).map_err(self.failed("reading"))?;
        let revision = meta
            .get("revision")
            .map_err(self.failed("reading"))?
            .map_or(0, |revision| revision.value());
        let table = read.open_table(ROWS).map_err(self.failed("reading"))?;
        let mut rows = Vec::new();
        for row in table.range(prefix..).map_err(self.failed("reading"))? {
            let (key, value) = row.map_err(self.failed("reading"))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            rows.push((key.value().to_owned(), value.value().to_owned()));
        }
        Ok(Rows { revision, rows })
    }

    fn write(&self, expected: u64, ops: &[Op]) -> Result<u64, StoreError> {
        let mut slot = self.opened()?;
        let Some(database) = slot.as_ref() else {
            return Err(self.failed("opening")("it is closed"));
        };
        let outcome = self.transact(database, expected, ops);
        if matches!(outcome, Err(StoreError::Failed { .. })) {
            *slot = None;
        }
        outcome
    }

    fn transact(&self, database: &Database, expected: u64, ops: &[Op]) -> Result<u64, StoreError> {
        let mut write = database.begin_write().map_err(self.failed("writing"))?;
        write
            .set_durability(Durability::Immediate)
            .map_err(self.failed("writing"))?;
        let next = expected + 1;
        {
            let mut meta = write.open_table(META).map_err(self.failed("writing"))?;
            let found = meta
                .get("revision")
                .map_err(self.failed("writing"))?
                .map_or(0, |revision| revision.value());
            if found != expected {
                return Err(StoreError::Conflict { expected, found });
            }
            meta.insert("revision", next)
                .map_err(self.failed("writing"))?;
            let mut rows = write.open_table(ROWS).map_err(self.failed("writing"))?;
            for op in ops {
                match op {
                    Op::Put(key, value) => rows
                        .insert(key.as_str(), value.as_slice())
                        .map(|_| ())
                        .map_err(self.failed("writing"))?,
                    Op::Delete(key) => rows
                        .remove(key.as_str())
                        .map(|_| ())
                        .map_err(self.failed("writing"))?,
                }
            }
        }
        write.commit().map_err(self.failed("writing"))?;
        Ok(next)
    }
}

impl Store for Embedded {
    fn range<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Rows, StoreError>> {
        let (inner, prefix) = (self.0.clone(), prefix.to_owned());
        Box::pin(async move { blocking(&inner.clone(), move || inner.read(&prefix)).await })
    }
    fn commit(&self, expected: u64, ops: Vec<Op>) -> BoxFuture<'_, Result<u64, StoreError>> {
        let inner = self.0.clone();
        Box::pin(async move { blocking(&inner.clone(), move || inner.write(expected, &ops)).await })
    }
}

/// A disk may take its time: never on a thread that serves others.
async fn blocking<T: Send + 'static>(
    inner: &Inner,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(inner.failed("working on"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Op {
        Op::Put(key.into(), value.into())
    }

    #[tokio::test]
    async fn what_was_committed_is_there_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let store = Embedded::open(&path).unwrap();
        let one = store
            .commit(0, vec![put("a/1", "x"), put("b/1", "y")])
            .await;
        assert_eq!(one.unwrap(), 1);
        let two = store
            .commit(1, vec![Op::Delete("a/1".into()), put("a/2", "z")])
            .await;
        assert_eq!(two.unwrap(), 2);
        drop(store);
        let store = Embedded::open(&path).unwrap();
        let rows = store.range("a/").await.unwrap();
        assert_eq!(rows.revision, 2);
        assert_eq!(rows.rows, [("a/2".into(), b"z".to_vec())]);
        assert_eq!(store.range("").await.unwrap().rows.len(), 2);
    }

    #[tokio::test]
    async fn a_commit_on_an_old_revision_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(&folder.path().join("store.redb")).unwrap();
        store.commit(0, vec![put("a", "1")]).await.unwrap();
        let late = store.commit(0, vec![put("a", "2")]).await.unwrap_err();
        assert!(
            matches!(
                late,
                StoreError::Conflict {
                    expected: 0,
                    found: 1
                }
            ),
            "{late}"
        );
        assert_eq!(
            store.range("").await.unwrap().rows,
            [("a".into(), b"1".to_vec())]
        );
        // and the store goes on
        store.commit(1, vec![put("a", "3")]).await.unwrap();
    }

    #[tokio::test]
    async fn a_newer_format_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let database = Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        write
            .open_table(META)
            .unwrap()
            .insert("format", FORMAT + 1)
            .unwrap();
        write.commit().unwrap();
        drop(database);
        let error = Embedded::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Newer { .. }), "{error}");
        assert!(error.to_string().contains("format 2"), "{error}");
    }

    #[test]
    fn one_process_alone_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let _first = Embedded::open(&path).unwrap();
        assert!(Embedded::open(&path).is_err());
    }
}
