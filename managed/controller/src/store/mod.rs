//! The SQLite file of a controller.

mod error;
mod migrate;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Params, Row};

pub use error::StoreError;

/// Time for which a write waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Mark of a backup, in the header of the file, where schemas of all versions have room for it.
const BACKUP: i32 = 0x7073_6b62;

/// SQL that leads from each schema version to the next one; the first step begins with an empty file.
const STEPS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("issuers.sql"),
    include_str!("heard.sql"),
    include_str!("pending.sql"),
    include_str!("successions.sql"),
    include_str!("claims.sql"),
    include_str!("copies.sql"),
    include_str!("clock.sql"),
    include_str!("next_key.sql"),
    include_str!("spares.sql"),
    include_str!("rules.sql"),
];

/// File in which a controller keeps a network. It is open in several processes at a time, for example in the
/// running controller and in a command that approves a member.
///
/// A commit is on the disk when it returns (WAL, `synchronous=FULL`). The file and its directory are
/// accessible to their owner only.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    /// Locked as long as the store is open, so that no other process replaces the file by a migrated one.
    _lock: Option<File>,
    #[cfg(test)]
    pub(crate) faults: std::cell::Cell<Option<u32>>,
    #[cfg(test)]
    pub(crate) meanwhile: Meanwhile,
}

/// Steps of another process, which run just before the next transaction begins.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Meanwhile(pub(crate) std::cell::Cell<Option<Box<dyn FnOnce() + Send>>>);

#[cfg(test)]
impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl Store {
    /// Opens the store at `path`. Creates it if it does not exist, and its directory with mode 0700. A store
    /// of an earlier version is migrated; the earlier one stays beside it, as `controller.db.before-N`.
    ///
    /// # Errors
    /// Returns a [`StoreError`]; the file is as before.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, STEPS)
    }

    /// Removes the store at `path`, which no process has open, with its write-ahead log.
    pub fn remove(path: &Path) {
        for suffix in ["", "-wal", "-shm"] {
            // The log and its index need not exist.
            let _ = std::fs::remove_file(beside(path, suffix));
        }
    }

    fn open_with(path: &Path, steps: &[&str]) -> Result<Self, StoreError> {
        prepare_file(path)?;
        let lock = migrate::lock_and_migrate(path, steps)?;
        let db = Connection::open(path)?;
        Self::with_connection(db, Some(lock), steps)
    }

    /// Opens a store in memory, for tests and simulations.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if memory is missing.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::with_connection(Connection::open_in_memory()?, None, STEPS)
    }

    fn with_connection(db: Connection, lock: Option<File>, steps: &[&str]) -> Result<Self, StoreError> {
        configure(&db)?;
        migrate::create_if_empty(&db, steps)?;
        Ok(Self {
            db,
            _lock: lock,
            #[cfg(test)]
            faults: std::cell::Cell::new(None),
            #[cfg(test)]
            meanwhile: Meanwhile::default(),
        })
    }

    /// Copies the store into a new file while it is in use. The copy has mode 0600, and the mark of a backup.
    ///
    /// # Errors
    /// Returns a [`StoreError`]. The file must not exist.
    pub fn backup(&self, to: &Path) -> Result<(), StoreError> {
        copy_with_mark(&self.db, to)
    }

    /// Does the same without the mark, for a store that takes the place of this one.
    pub(crate) fn copy(&self, to: &Path) -> Result<(), StoreError> {
        copy(&self.db, to)
    }

    /// Returns true if the store is a backup that was put in its place, and may lack what came later.
    pub(crate) fn is_backup(&self) -> Result<bool, StoreError> {
        Ok(self.db.query_row("PRAGMA application_id", [], |row| row.get::<_, i32>(0))? == BACKUP)
    }

    /// Checks the structure of the whole file, at about 1 s for 100 MB.
    ///
    /// # Errors
    /// Returns [`StoreError::Damaged`] with the first fault.
    pub fn check(&self) -> Result<(), StoreError> {
        match self.db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))?.as_str() {
            "ok" => Ok(()),
            fault => Err(StoreError::Damaged(fault.to_owned())),
        }
    }

    /// Moves the write-ahead log into the file and empties it, so that it has nothing that was deleted.
    pub(crate) fn end_log(&self) -> Result<(), StoreError> {
        match self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))? {
            true => Err(StoreError::Busy),
            false => Ok(()),
        }
    }

    /// Returns a number that changes when another process commits. It is read from shared memory.
    pub(crate) fn data_version(&self) -> Result<i64, StoreError> {
        Ok(self.db.query_row("PRAGMA data_version", [], |row| row.get(0))?)
    }

    /// Returns the connection, for reading.
    pub(crate) fn db(&self) -> &Connection {
        &self.db
    }

    /// Runs `steps` in one transaction and waits until it is on the disk. If `steps` fails, nothing has
    /// changed.
    pub(crate) fn write<T, E: From<StoreError>>(
        &self,
        steps: impl FnOnce(&Write<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.write_after(|| Ok(()), |write, ()| steps(write))
    }

    /// Does the same with what `prepare` returns. `prepare` reads what was committed before the transaction;
    /// no other process commits between it and the end of the transaction.
    pub(crate) fn write_after<P, T, E: From<StoreError>>(
        &self,
        prepare: impl FnOnce() -> Result<P, E>,
        steps: impl FnOnce(&Write<'_>, P) -> Result<T, E>,
    ) -> Result<T, E> {
        #[cfg(test)]
        if let Some(steps) = self.meanwhile.0.take() {
            steps();
        }
        // Immediate, because a transaction that begins by reading could not wait for another writer later.
        self.db.execute_batch("BEGIN IMMEDIATE").map_err(StoreError::from)?;
        let done = (|| {
            let prepared = prepare()?;
            let change = self
                .db
                .query_row("UPDATE network SET change = change + 1 RETURNING change", [], |row| row.get(0))
                .optional()
                .map_err(StoreError::from)?;
            let write = Write { store: self, change: change.unwrap_or(1) };
            let value = steps(&write, prepared)?;
            write.fault()?;
            self.db.execute_batch("COMMIT").map_err(StoreError::from)?;
            Ok(value)
        })();
        if done.is_err() && !self.db.is_autocommit() {
            // An error here means that the database has rolled back by itself.
            let _ = self.db.execute_batch("ROLLBACK");
        }
        done
    }
}

/// Transaction that [`Store::write`] has begun.
pub(crate) struct Write<'a> {
    store: &'a Store,
    /// Number of this commit, for the columns named `changed`.
    pub(crate) change: i64,
}

impl Write<'_> {
    /// Runs a statement and returns the number of rows that it has changed.
    pub(crate) fn run(&self, sql: &str, params: impl Params) -> Result<usize, StoreError> {
        self.fault()?;
        Ok(self.store.db.execute(sql, params)?)
    }

    /// Runs a statement; `false` if a constraint refuses it.
    pub(crate) fn try_run(&self, sql: &str, params: impl Params) -> Result<bool, StoreError> {
        self.fault()?;
        match self.store.db.execute(sql, params) {
            Ok(_) => Ok(true),
            Err(error) if StoreError::is_constraint(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the first row of a query.
    pub(crate) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        self.fault()?;
        Ok(self.store.db.query_row(sql, params, read).optional()?)
    }

    /// Returns the connection, for queries of several rows.
    pub(crate) fn db(&self) -> &Connection {
        &self.store.db
    }

    /// Runs `steps` so that their changes are undone if they fail, without an end of the transaction.
    pub(crate) fn attempt<T, E: From<StoreError>>(
        &self,
        steps: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.run("SAVEPOINT attempt", [])?;
        let done = steps();
        if done.is_err() && !self.store.db.is_autocommit() {
            self.store.db.execute_batch("ROLLBACK TO attempt; RELEASE attempt").map_err(StoreError::from)?;
        } else if done.is_ok() {
            self.run("RELEASE attempt", [])?;
        }
        done
    }

    /// Ends the mark of a backup. Returns false if there is none.
    pub(crate) fn end_mark(&self) -> Result<bool, StoreError> {
        let is_backup = self.store.is_backup()?;
        if is_backup {
            self.store.db.pragma_update(None, "application_id", 0)?;
        }
        Ok(is_backup)
    }

    /// Adds a line to the log of administrative changes.
    pub(crate) fn log(&self, at: i64, who: &str, action: &str, what: &str) -> Result<(), StoreError> {
        self.run("INSERT INTO log (at, who, action, what) VALUES (?, ?, ?, ?)", (at, who, action, what))?;
        Ok(())
    }

    /// Fails in tests when the number of statements is reached after which they want it.
    fn fault(&self) -> Result<(), StoreError> {
        #[cfg(test)]
        if let Some(left) = self.store.faults.get() {
            self.store.faults.set(left.checked_sub(1));
            if left == 0 {
                return Err(StoreError::Other("a fault of the test".into()));
            }
        }
        Ok(())
    }
}

/// Sets what each connection needs.
fn configure(db: &Connection) -> Result<(), StoreError> {
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // What is deleted is overwritten, since it may be a sealed key.
    db.query_row("PRAGMA secure_delete = ON", [], |_| Ok(()))?;
    // `trusted_schema` and `cell_size_check`: a damaged or foreign file is an error, and runs nothing.
    db.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;",
    )?;
    Ok(())
}

/// Creates the directory and an empty file, or checks who has access to those that exist.
fn prepare_file(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match std::fs::metadata(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(StoreError::at(folder))?;
        }
        Err(error) => return Err(StoreError::at(folder)(error)),
        Ok(found) if found.mode() & 0o077 != 0 => return Err(StoreError::Exposed(folder.to_owned())),
        Ok(_) => {}
    }
    match new_file(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let found = std::fs::metadata(path).map_err(StoreError::at(path))?;
            if found.mode() & 0o077 != 0 { Err(StoreError::Exposed(path.to_owned())) } else { Ok(()) }
        }
        Err(error) => Err(StoreError::at(path)(error)),
        // SQLite gives its other files the mode of this one.
        Ok(_) => Ok(()),
    }
}

fn new_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Copies a database into a file that does not exist.
fn copy(db: &Connection, to: &Path) -> Result<(), StoreError> {
    // SQLite would take a relative path that begins with `file:` for a URI.
    let absolute = std::path::absolute(to).map_err(StoreError::at(to))?;
    let text = absolute.to_str().ok_or_else(|| StoreError::value("path"))?;
    new_file(to).map_err(StoreError::at(to))?;
    // SQLite accepts a file that exists if it is empty.
    let copied = db.execute("VACUUM INTO ?", [text]).map_err(StoreError::from);
    let copied =
        copied.and_then(|_| File::open(to).and_then(|file| file.sync_all()).map_err(StoreError::at(to)));
    // A part of a copy would look like one.
    copied.inspect_err(|_| drop(std::fs::remove_file(to)))
}

/// Does the same, and marks the copy as a backup: somebody may put it in the place of the store by hand.
fn copy_with_mark(db: &Connection, to: &Path) -> Result<(), StoreError> {
    copy(db, to)?;
    let marked = (|| {
        // Absolute, as for the copy.
        let absolute = std::path::absolute(to).map_err(StoreError::at(to))?;
        Ok(Connection::open(absolute)?.pragma_update(None, "application_id", BACKUP)?)
    })();
    marked.inspect_err(|_: &StoreError| drop(std::fs::remove_file(to)))
}

/// Returns the path with a suffix: `controller.db` becomes `controller.db.lock`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
