//! A network's file on disk: read under a lock, checked by the library's parser, replaced atomically.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use peersock::{ConfigError, Network};
use toml_edit::DocumentMut;
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};

/// Modes of a file with a secret, and of one without.
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Maximum size of a file, in bytes; the library accepts no larger one.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// An existing file, locked against other processes that edit it.
pub(super) struct NetworkFile {
    /// Path with symbolic links resolved, so that a link stays a link.
    path: PathBuf,
    mode: u32,
    pub(super) document: DocumentMut,
    _lock: File,
}

impl NetworkFile {
    /// Opens and locks a file that describes a network.
    pub(super) fn open(path: &Path) -> Outcome<NetworkFile> {
        let name = path.display().to_string();
        // Reports errors of the file in the library's words.
        Network::from_file(path).map_err(|error| Failure::network_file(&name, error))?;
        let failed = |error: io::Error| {
            Failure::new(
                format_args!("cannot read {name}: {error}"),
                "give a regular file that you may read and write",
            )
        };
        let path = path.canonicalize().map_err(failed)?;
        let file = lock(&path).map_err(failed)?;
        let mut text = Zeroizing::new(String::new());
        (&file).take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
        let document = text.parse::<DocumentMut>().map_err(|error| {
            Failure::new(
                format_args!("{name}: {}", error.message()),
                "correct the file; docs/use/NETWORKS.md describes it",
            )
        })?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        Ok(NetworkFile { path, mode, document, _lock: file })
    }

    /// Replaces the file by the changed document, if the document still describes a network.
    pub(super) fn save(&self) -> Outcome<Network> {
        let text = Zeroizing::new(self.document.to_string());
        let network = check(&text, "was not changed")?;
        write(&self.path, &text, self.mode, true)?;
        Ok(network)
    }
}

/// Writes a new file; fails if it exists.
pub(super) fn create(path: &Path, document: &DocumentMut) -> Outcome<Network> {
    let text = Zeroizing::new(document.to_string());
    let network = check(&text, "was not made")?;
    write(path, &text, if network.is_secret() { PRIVATE } else { PUBLIC }, false)?;
    Ok(network)
}

/// Writes a file that only its owner may read, in place of an earlier one.
pub(crate) fn replace_private(path: &Path, text: &str) -> Outcome {
    write(path, text, PRIVATE, true)
}

/// Checks that a text describes a network. `unchanged` says in the error what did not happen to the file.
fn check(text: &str, unchanged: &str) -> Outcome<Network> {
    Network::parse_toml(text).map_err(|error| {
        let what = match error {
            ConfigError::Invalid { what, .. } => what,
            other => other.to_string(),
        };
        Failure::usage(
            format_args!("the file {unchanged}: {what}"),
            "correct the values; docs/use/NETWORKS.md says what a member may have",
        )
    })
}

/// Writes the whole text to a temporary file in the same folder and renames it, so that readers never see a
/// partial file.
fn write(path: &Path, text: &str, mode: u32, replace: bool) -> Outcome {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = (|| {
        // Uses a custom `open`, because errors of tempfile's would contain a temporary name.
        let create =
            |path: &Path| OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path);
        let mut file = tempfile::Builder::new().prefix(".peersock-network").make_in(folder, create)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        match replace {
            // Keeps the file's mode, regardless of the umask.
            true => {
                file.as_file().set_permissions(Permissions::from_mode(mode))?;
                file.persist(path)
            }
            false => file.persist_noclobber(path),
        }
        .map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    })();
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::usage(
            format_args!("{} exists already", path.display()),
            format_args!(
                "add members with `peersock network add {}`, or choose another name",
                path.display()
            ),
        ),
        kind => Failure::new(
            format_args!("cannot write {}: {error}", path.display()),
            match kind {
                io::ErrorKind::StorageFull => "make room on the disk",
                io::ErrorKind::InvalidFilename => "choose a shorter name",
                _ => "choose a folder that exists and that you may write to",
            },
        ),
    })
}

/// Opens a file and waits until no other process edits it.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let file = File::open(path)?;
        file.lock()?;
        let (locked, there) = (file.metadata()?, fs::metadata(path)?);
        // Another process may have replaced the file during the wait.
        if (locked.dev(), locked.ino()) == (there.dev(), there.ino()) {
            return Ok(file);
        }
    }
}
