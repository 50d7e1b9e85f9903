//! Schema versions. A migration works on a copy, which replaces the store by one rename.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::Connection;

use super::{StoreError, beside, copy, copy_with_mark};

/// Locks the store against migrations by other processes, after migrating it if it is of an earlier version.
/// The lock lasts until the file that is returned is closed.
pub(super) fn lock_and_migrate(path: &Path, steps: &[&str]) -> Result<File, StoreError> {
    let lock_path = beside(path, ".lock");
    let failed = StoreError::at(&lock_path);
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(&failed)?;
    lock.lock_shared().map_err(&failed)?;
    if is_current(path, steps)? {
        return Ok(lock);
    }
    // Two processes that both had it shared and waited for the other would wait for ever.
    lock.unlock().map_err(&failed)?;
    lock.try_lock().map_err(|_| StoreError::Busy)?;
    // Another process may have migrated between the two locks.
    if !is_current(path, steps)? {
        migrate(path, steps)?;
    }
    lock.unlock().and_then(|()| lock.lock_shared()).map_err(&failed)?;
    Ok(lock)
}

/// Returns true if the store needs no migration: it has the latest version, or is new.
fn is_current(path: &Path, steps: &[&str]) -> Result<bool, StoreError> {
    let found = version(&Connection::open(path)?)?;
    let supported = steps.len() as u32;
    match found {
        newer if newer > supported => Err(StoreError::Newer { found, supported }),
        found => Ok(found == supported || found == 0),
    }
}

fn version(db: &Connection) -> Result<u32, StoreError> {
    Ok(db.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Migrates the store, which no other process has open.
fn migrate(path: &Path, steps: &[&str]) -> Result<(), StoreError> {
    let db = Connection::open(path)?;
    let from = version(&db)?;
    let (backup, next) = (beside(path, &format!(".before-{from}")), beside(path, ".migrating"));
    // Of an earlier try that did not finish. A backup of this version is of the same store, or an older one.
    for rest in [&backup, &next] {
        if rest.exists() {
            std::fs::remove_file(rest).map_err(StoreError::at(rest))?;
        }
    }
    copy_with_mark(&db, &backup)?;
    copy(&db, &next)?;
    run_steps(&Connection::open(&next)?, steps, from)?;
    // Without a write-ahead log beside the store, because it would be applied to the file that replaces it.
    db.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    db.close().map_err(|(_, error)| error)?;
    File::open(&next).and_then(|file| file.sync_all()).map_err(StoreError::at(&next))?;
    std::fs::rename(&next, path).map_err(StoreError::at(path))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::at(folder))
}

/// Gives an empty database its tables.
pub(super) fn create_if_empty(db: &Connection, steps: &[&str]) -> Result<(), StoreError> {
    if version(db)? == 0 { run_steps(db, steps, 0) } else { Ok(()) }
}

/// Brings a database from version `from` to the latest one, in one transaction.
fn run_steps(db: &Connection, steps: &[&str], from: u32) -> Result<(), StoreError> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let done = (|| {
        // Another process may have created the tables while this one waited.
        if version(db)? != from {
            return Ok(());
        }
        for step in &steps[from as usize..] {
            db.execute_batch(step)?;
        }
        db.pragma_update(None, "user_version", steps.len() as u32)?;
        Ok(())
    })();
    db.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    done
}
