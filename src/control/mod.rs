//! The local control socket: how `peersock status` asks a running node.
//!
//! A node with a state directory listens on the Unix socket `control.sock` in it (mode 0600, and each side
//! checks with `SO_PEERCRED` that the other belongs to its own user). One connection carries one request, a
//! line of text, and one answer, a JSON document up to the end of the stream.
//!
//! | request | answer |
//! |---|---|
//! | `status` | the node's [`Status`](crate::Status) |
//! | anything else | `{"error": "…"}` |

mod server;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::state::StateDir;

pub(crate) use server::ControlServer;

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest answer that is accepted, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// Why a running node could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No node uses the state directory, or it has just stopped.
    #[error("no node is running with state directory {}", path.display())]
    NotRunning {
        /// The state directory.
        path: PathBuf,
    },

    /// The socket belongs to a process of another user.
    #[error("the node at {} belongs to user id {owner}, not to you", path.display())]
    ForeignOwner {
        /// The socket.
        path: PathBuf,
        /// The user it belongs to.
        owner: u32,
    },

    /// The node did not answer, or not within five seconds.
    #[error("the node at {} does not answer: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Sends one request to the node that uses the state directory at `state`; returns the JSON text it answers.
///
/// # Errors
///
/// See [`ControlError`].
///
/// ```
/// use peersock::control::{ControlError, request};
///
/// let place = tempfile::tempdir()?;
/// let error = request(place.path(), "status").unwrap_err();
/// assert!(matches!(error, ControlError::NotRunning { .. }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn request(state: &Path, request: &str) -> Result<String, ControlError> {
    let path = StateDir::control_socket(state);
    let stream = with_short_path(&path, |path| UnixStream::connect(path)).map_err(|source| {
        match source.kind() {
            // A socket file that nobody listens on is what a killed process leaves behind.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ControlError::NotRunning { path: state.into() }
            }
            _ => ControlError::Io { path: path.clone(), source },
        }
    })?;
    let failed = |source| ControlError::Io { path: path.clone(), source };
    if let Some(owner) = foreign_peer(&stream).map_err(failed)? {
        return Err(ControlError::ForeignOwner { path, owner });
    }
    exchange(stream, request).map_err(failed)
}

fn exchange(mut stream: UnixStream, request: &str) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

/// The user id at the other end, if it is neither ours nor root's.
fn foreign_peer(stream: impl AsFd) -> io::Result<Option<u32>> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?.uid;
    Ok((peer != rustix::process::geteuid() && !peer.is_root()).then_some(peer.as_raw()))
}

/// Calls `f` with a path of the same file that fits into a `sockaddr_un` (107 bytes), by way of a descriptor
/// of its directory where the path itself is too long.
fn with_short_path<T>(path: &Path, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    const SUN_PATH: usize = 108;
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) if path.as_os_str().as_bytes().len() >= SUN_PATH => {
            let directory = File::open(directory)?;
            f(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
        }
        _ => f(path),
    }
}
