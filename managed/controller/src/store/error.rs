use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use thiserror::Error;

/// Reason why the store cannot be read or written. Nothing of the failed operation is in the store.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refuses an operation.
    #[error("{path}: {reason}", path = .path.display())]
    File {
        /// File or directory.
        path: PathBuf,
        /// Text of the operating system.
        reason: String,
    },
    /// Other users of the machine have access to the directory or the file.
    #[error("{path} is accessible to other users of this machine", path = .0.display())]
    Exposed(PathBuf),
    /// A later version of the program has written the store.
    #[error("the store has version {found}, and this program knows versions up to {supported}")]
    Newer {
        /// Version of the store.
        found: u32,
        /// Latest version that this program knows.
        supported: u32,
    },
    /// Another program has locked the store for longer than the busy timeout.
    #[error("another program uses the store")]
    Busy,
    /// The disk is full.
    #[error("no space is left for the store")]
    Full,
    /// The store cannot be written.
    #[error("the store is read-only")]
    ReadOnly,
    /// The file is no store, or damaged.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The store holds no network.
    #[error("the store holds no network")]
    Empty,
    /// Another error of the database.
    #[error("the store fails: {0}")]
    Other(String),
}

impl StoreError {
    /// Returns a function that turns an error about `path` into one of the store.
    pub(crate) fn at(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |error| Self::File { path: path.to_owned(), reason: error.to_string() }
    }

    /// Returns the error for a value that no version of the program writes.
    pub(crate) fn value(what: &str) -> Self {
        Self::Damaged(format!("a {what} has an impossible value"))
    }

    /// Returns true if the database refuses one row, such as an address with two holders.
    pub(crate) fn is_constraint(error: &rusqlite::Error) -> bool {
        error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            Some(_) => Self::Other(error.to_string()),
            // Rows are missing or have other types than the schema says.
            None => Self::Damaged(error.to_string()),
        }
    }
}
