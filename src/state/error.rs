use std::io;
use std::path::PathBuf;

use peersock_overlay::NetworkId;
use peersock_overlay::membership::MemberName;

/// Reason why a state directory, or a file with a secret, was refused.
///
/// The texts include advice; they are meant for a person.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Neither `XDG_STATE_HOME` nor a home directory is known.
    #[error("no place for a state directory: set XDG_STATE_HOME or HOME, or name a directory")]
    NoDefaultPath,

    /// Another process holds the lock of the directory, or of a [file](crate::state::lock_file).
    #[error(
        "state directory {} is in use by {}; one directory serves one node at a time: \
         stop that process, use another directory, or use an ephemeral identity",
        path.display(),
        holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// Path of the directory or file.
        path: PathBuf,
        /// Process that holds it, if known.
        holder: Option<u32>,
    },

    /// A secret file can be read or changed by users other than its owner.
    #[error(
        "{} holds a secret but other users have access to it (mode {mode:04o}); run: chmod 600 {}",
        path.display(),
        path.display()
    )]
    Exposed {
        /// Path of the file.
        path: PathBuf,
        /// Permission bits of the file.
        mode: u32,
    },

    /// Everybody on the machine may change a file that lists trusted nodes.
    #[error(
        "all users may change {} (mode {mode:04o}), which says which nodes to trust; run: chmod o-w {}",
        path.display(),
        path.display()
    )]
    Changeable {
        /// Path of the file.
        path: PathBuf,
        /// Permission bits of the file.
        mode: u32,
    },

    /// Other users may put files into a directory for state or caches.
    #[error(
        "other users may write to directory {} (mode {mode:04o}); run: chmod 700 {}",
        path.display(),
        path.display()
    )]
    WritableByOthers {
        /// Path of the directory.
        path: PathBuf,
        /// Permission bits of the directory.
        mode: u32,
    },

    /// The file or directory belongs to another user.
    #[error("{} belongs to user id {owner}, not to you ({user}); use a file or directory of your own", path.display())]
    ForeignOwner {
        /// Path of the file or directory.
        path: PathBuf,
        /// Owner of the file or directory.
        owner: u32,
        /// Effective user ID of this process.
        user: u32,
    },

    /// The path is not the expected regular file or directory.
    #[error("{} is not a {expected}; move it away, or name another path", path.display())]
    WrongKind {
        /// Path of the object.
        path: PathBuf,
        /// Expected kind: `"regular file"`, `"regular file or pipe"` or `"directory"`.
        expected: &'static str,
    },

    /// The identity file does not have the form of this version.
    #[error(
        "{} is not a valid identity file ({what}); restore it from a backup, or move it away to \
         get a new identity (and a new node id)",
        path.display()
    )]
    Malformed {
        /// Path of the file.
        path: PathBuf,
        /// Error; never quotes the file's content.
        what: &'static str,
    },

    /// The record of a managed network cannot be parsed.
    #[error(
        "{}: no record of a managed network; remove the file and join the network again, which needs no new \
         approval",
        path.display()
    )]
    MalformedRecord {
        /// Path of the file.
        path: PathBuf,
    },

    /// The identity file was written by a newer version of this program.
    #[error("{} was written by a newer version of peersock; upgrade this one", path.display())]
    TooNew {
        /// Path of the file.
        path: PathBuf,
    },

    /// Another managed network of the directory has the local name, or is about to get it.
    #[error("{} has the name `{name}` on this machine", called(*network))]
    NameTaken {
        /// Local name.
        name: MemberName,
        /// Network that has it; `None` for one that is being made.
        network: Option<NetworkId>,
    },

    /// The operating system refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// Operation, as a verb: `"read"`, `"create"`, …
        action: &'static str,
        /// Path of the operation.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}

fn called(network: Option<NetworkId>) -> String {
    network.map_or_else(|| "a network that is being made".to_owned(), |id| format!("network {id}"))
}

impl StateError {
    /// Wraps an [`io::Error`] with the operation and the path, for `map_err`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

impl From<StateError> for io::Error {
    /// Keeps the text and the kind of the underlying error, or picks the nearest kind.
    fn from(error: StateError) -> Self {
        let kind = match &error {
            StateError::NoDefaultPath => io::ErrorKind::NotFound,
            StateError::InUse { .. } => io::ErrorKind::ResourceBusy,
            StateError::Exposed { .. }
            | StateError::Changeable { .. }
            | StateError::WritableByOthers { .. }
            | StateError::ForeignOwner { .. } => io::ErrorKind::PermissionDenied,
            StateError::WrongKind { .. }
            | StateError::Malformed { .. }
            | StateError::MalformedRecord { .. }
            | StateError::TooNew { .. } => io::ErrorKind::InvalidData,
            StateError::NameTaken { .. } => io::ErrorKind::AlreadyExists,
            StateError::Io { source, .. } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}
