//! Reading of the file, which only its user and root may change.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use peersock::state::StateError;
use rustix::process::geteuid;

use crate::failure::{Failure, Outcome};

/// Environment variable with the path of the file; empty for none.
const CONFIG_VARIABLE: &str = "PEERSOCK_CONFIG";

/// Limit of the file's length in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Returns the file's path and text, if there is one. `home` is the user's.
pub(super) fn read(home: Option<&Path>) -> Outcome<Option<(PathBuf, String)>> {
    let (path, is_named) = match env::var_os(CONFIG_VARIABLE) {
        Some(path) if path.is_empty() => return Ok(None),
        Some(path) => (PathBuf::from(path), true),
        None => match default_path(env::var_os("XDG_CONFIG_HOME").map(PathBuf::from), home) {
            Some(path) => (path, false),
            None => return Ok(None),
        },
    };
    let failed = |error: std::io::Error| {
        Failure::new(
            format_args!("the settings in {} cannot be read: {error}", path.display()),
            format_args!("correct the file or its mode, or leave it out by {CONFIG_VARIABLE}= (empty)"),
        )
    };
    // Opening a pipe without a writer would block.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
    let file = match file {
        // Not a folder either, if a file is in the place of one.
        Err(error) if !is_named && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        file => file.map_err(failed)?,
    };
    check(&path, &file)?;
    let mut text = String::new();
    let length = file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if length as u64 > MAX_BYTES {
        return Err(failed(ErrorKind::FileTooLarge.into()));
    }
    Ok(Some((path, text)))
}

/// Refuses a file through which another user could choose roots and networks.
fn check(path: &Path, file: &File) -> Outcome {
    let metadata = file.metadata()?;
    let (owner, user, mode) = (metadata.uid(), geteuid().as_raw(), metadata.mode() & 0o7777);
    match () {
        () if !metadata.is_file() => {
            Err(StateError::WrongKind { path: path.into(), expected: "regular file" }.into())
        }
        // Root may change everything anyway.
        () if owner != user && owner != 0 => Err(Failure::new(
            format_args!("{}", StateError::ForeignOwner { path: path.into(), owner, user }),
            format_args!(
                "give a file of your own in {CONFIG_VARIABLE}, or leave it out by {CONFIG_VARIABLE}= (empty)"
            ),
        )),
        () if mode & 0o002 != 0 => Err(StateError::Changeable { path: path.into(), mode }.into()),
        () => Ok(()),
    }
}

/// Returns the usual path of the file (XDG Base Directory Specification, which has relative paths ignored).
fn default_path(config_home: Option<PathBuf>, home: Option<&Path>) -> Option<PathBuf> {
    let folder = config_home
        .filter(|path| path.is_absolute())
        .or_else(|| home.filter(|path| path.is_absolute()).map(|home| home.join(".config")))?;
    Some(folder.join("peersock").join("config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_where_the_user_s_other_settings_are() {
        let path = |config: Option<&str>, home: Option<&str>| {
            default_path(config.map(PathBuf::from), home.map(Path::new))
        };
        assert_eq!(path(Some("/c"), Some("/h")), Some("/c/peersock/config.toml".into()));
        assert_eq!(path(Some("c"), Some("/h")), Some("/h/.config/peersock/config.toml".into()));
        assert_eq!(path(None, Some("/h")), Some("/h/.config/peersock/config.toml".into()));
        assert_eq!(path(Some(""), None), None);
    }
}
