//! Folder for the files of one run.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;

/// Folder of this run, removed at the end.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder among the temporary files.
    /// Fails if the folder cannot be made.
    pub(super) fn new() -> Result<Folder> {
        let path = std::env::temp_dir().join(format!("peersock-bench-{}", std::process::id()));
        fs::create_dir(&path)?;
        // nginx's worker runs as another user.
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, readable)?;
        Ok(Folder(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Any remaining files lie among the temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
