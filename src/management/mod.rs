//! The local management socket: how `peersock status` and `peersock members` ask a running node.
//!
//! A node with a state directory listens on the Unix socket `management.sock` in it (mode 0600, and each side
//! checks with `SO_PEERCRED` that the other belongs to its own user). One connection carries one request, a
//! line of text, and one answer, a JSON document or text up to the end of the stream. An answer that was cut
//! is told from a whole one: JSON ends with its last bracket, the text for Prometheus with the comment
//! `# EOF`.
//!
//! | request | answer |
//! |---|---|
//! | `status` | the node's [`Status`](crate::Status), with 10,000 peers at most |
//! | `status peers=N` | the same with N peers at most: connected ones first, then those that were there last |
//! | `prometheus` | its numbers as text for Prometheus, with those of 10,000 peers at most, and `# EOF` |
//! | `prometheus peers=N` | the same with N peers at most |
//! | anything else | `{"error": "…", "version": "…"}`, with the node's version |
//!
//! Later versions add fields to answers and may add requests; they change neither the meaning of what there
//! is nor its form.

mod server;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::state::StateDir;

pub(crate) use server::ManagementServer;

/// The last line of an answer in the format of Prometheus, where it is a comment. A node that is killed
/// leaves the beginning of its answer, which could be whole as far as the format tells.
pub(crate) const END_MARK: &str = "# EOF\n";

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest answer that is accepted, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// Most peers in one answer. With all its addresses one takes less than 2 kB.
const MAX_PEERS: usize = 10_000;

/// What a node is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Its status.
    Status {
        /// Most peers to list.
        peers: usize,
    },
    /// Its numbers, for Prometheus.
    Prometheus {
        /// Most peers that have numbers of their own.
        peers: usize,
    },
}

impl Request {
    /// Understands a line. `None` for what this version does not know.
    fn parse(line: &str) -> Option<Request> {
        let mut words = line.split_ascii_whitespace();
        let request = words.next()?;
        let peers = match words.next() {
            Some(word) => word.strip_prefix("peers=")?.parse().ok()?,
            None => MAX_PEERS,
        };
        let peers = peers.min(MAX_PEERS);
        match (request, words.next()) {
            ("status", None) => Some(Request::Status { peers }),
            ("prometheus", None) => Some(Request::Prometheus { peers }),
            _ => None,
        }
    }
}

/// The answer to what is not understood or cannot be told.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    error: String,
    /// The first nodes did not tell theirs.
    version: Option<String>,
}

impl Refusal {
    fn new(error: &str) -> Refusal {
        Refusal { error: error.to_owned(), version: Some(env!("CARGO_PKG_VERSION").to_owned()) }
    }
}

/// Why a running node could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagementError {
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

    /// The node does not answer this request; probably it is of an older version than the program that asks.
    #[error("the running node{} refuses: {error}", version.as_ref().map(|v| format!(" (version {v})")).unwrap_or_default())]
    Refused {
        /// What it says.
        error: String,
        /// Its version, if it tells.
        version: Option<String>,
    },

    /// The node did not answer, or not within five seconds, or its answer was cut, as when the node is killed
    /// meanwhile; `source` is of the kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) then.
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
/// See [`ManagementError`].
///
/// ```
/// use peersock::management::{ManagementError, request};
///
/// let place = tempfile::tempdir()?;
/// let error = request(place.path(), "status").unwrap_err();
/// assert!(matches!(error, ManagementError::NotRunning { .. }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn request(state: &Path, request: &str) -> Result<String, ManagementError> {
    let answer = ask(state, request)?;
    if answer.starts_with(r#"{"error""#)
        && let Ok(Refusal { error, version }) = serde_json::from_str(&answer)
    {
        return Err(ManagementError::Refused { error, version });
    }
    Ok(answer)
}

/// Asks the node that uses the state directory at `state` for its [`Status`](crate::Status), as JSON, with at
/// most `peers` peers. A node of an older version may list more; one of another version may lack fields, or
/// have some that this version does not know.
///
/// # Errors
///
/// See [`ManagementError`].
///
/// ```
/// use peersock::{IdentitySource, Interfaces, Node, management};
///
/// let place = tempfile::tempdir()?;
/// let state = IdentitySource::StateDir(place.path().into());
/// let node = Node::builder().identity(state).interfaces(Interfaces::Loopback).start()?;
/// let status = management::status(place.path(), 50)?;
/// assert!(status.contains(&node.id().to_string()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn status(state: &Path, peers: usize) -> Result<String, ManagementError> {
    let answer = match request(state, &format!("status peers={peers}")) {
        // The first nodes know this request without its option only, and do not say who they are.
        Err(ManagementError::Refused { version: None, .. }) => request(state, "status"),
        answer => answer,
    }?;
    match serde_json::from_str::<IgnoredAny>(&answer) {
        Err(error) if error.is_eof() => Err(was_cut(state)),
        // What else is wrong with it is for those who read it.
        _ => Ok(answer),
    }
}

/// Asks the node that uses the state directory at `state` for its numbers as text for Prometheus: what
/// [`Status::prometheus`](crate::Status::prometheus) writes, with numbers of at most `peers` peers.
///
/// # Errors
///
/// See [`ManagementError`]; nodes of version 0.1.0 that were built before this request was known refuse it.
///
/// ```
/// use peersock::{IdentitySource, Interfaces, Node, management};
///
/// let place = tempfile::tempdir()?;
/// let state = IdentitySource::StateDir(place.path().into());
/// let node = Node::builder().identity(state).interfaces(Interfaces::Loopback).start()?;
/// let text = management::prometheus(place.path(), 50)?;
/// assert!(text.contains(&format!("peersock_node_uptime_seconds{{node=\"{}\"}} ", node.id())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn prometheus(state: &Path, peers: usize) -> Result<String, ManagementError> {
    let mut text = request(state, &format!("prometheus peers={peers}"))?;
    let len = text.strip_suffix(END_MARK).ok_or_else(|| was_cut(state))?.len();
    text.truncate(len);
    Ok(text)
}

fn was_cut(state: &Path) -> ManagementError {
    let source = io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended in the middle of its answer");
    ManagementError::Io { path: StateDir::management_socket(state), source }
}

fn ask(state: &Path, request: &str) -> Result<String, ManagementError> {
    let path = StateDir::management_socket(state);
    let stream = with_short_path(&path, |path| UnixStream::connect(path)).map_err(|source| {
        match source.kind() {
            // A socket file that nobody listens on is what a killed process leaves behind.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::ConnectionRefused => {
                ManagementError::NotRunning { path: state.into() }
            }
            _ => ManagementError::Io { path: path.clone(), source },
        }
    })?;
    let failed = |source| ManagementError::Io { path: path.clone(), source };
    if let Some(owner) = foreign_peer(&stream).map_err(failed)? {
        return Err(ManagementError::ForeignOwner { path, owner });
    }
    exchange(stream, request).map_err(|error| match error.kind() {
        // The system's words for a timeout are for those who would call again.
        io::ErrorKind::WouldBlock => failed(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("nothing has come for {} s", PATIENCE.as_secs()),
        )),
        _ => failed(error),
    })
}

fn exchange(mut stream: UnixStream, request: &str) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER + 1).read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if answer.len() as u64 > MAX_ANSWER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer is longer than 64 MiB"));
    }
    String::from_utf8(answer).map_err(|error| match error.utf8_error().error_len() {
        // It was cut within a character.
        None => io::ErrorKind::UnexpectedEof.into(),
        Some(_) => io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

/// The user id at the other end, if it is neither ours nor root's.
fn foreign_peer(stream: impl AsFd) -> io::Result<Option<u32>> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?.uid;
    Ok((peer != rustix::process::geteuid() && !peer.is_root()).then_some(peer.as_raw()))
}

/// Calls `f` with a path of the same file that fits into a `sockaddr_un` (107 bytes), by way of a descriptor
/// of its directory where the path itself is too long.
pub(crate) fn with_short_path<T>(path: &Path, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    const SUN_PATH: usize = 108;
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) if path.as_os_str().as_bytes().len() >= SUN_PATH => {
            let directory = File::open(directory)?;
            f(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
        }
        _ => f(path),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// A node whose answer ends where it was killed.
    const STATUS: &str = r#"{"node_id":"aa","peers":[{"name":"Zoë \"b\""}],"counters":{"x":12}}"#;
    const NUMBERS: &str = "# TYPE x gauge\nx{name=\"Zoë\"} 12\nx{name=\"\"} 3\n";

    #[test]
    fn an_answer_that_was_cut_anywhere_is_told_from_a_whole_one() {
        let place = tempfile::tempdir().unwrap();
        let numbers = format!("{NUMBERS}{END_MARK}");
        // Its last byte is a line feed, without which the text is cut, too.
        let cuts = |text: &str| -> Vec<Vec<u8>> {
            (0..text.len()).map(|len| text.as_bytes()[..len].to_vec()).collect()
        };
        let answers = [cuts(STATUS), vec![STATUS.into()], cuts(&numbers), vec![numbers.clone().into()]];
        let all = answers.concat();
        let listener = UnixListener::bind(StateDir::management_socket(place.path())).unwrap();
        let node = thread::spawn(move || {
            for answer in all {
                let (mut stream, _) = listener.accept().unwrap();
                BufReader::new(&stream).read_line(&mut String::new()).unwrap();
                stream.write_all(&answer).unwrap();
            }
        });
        let is_cut = |answer: Result<String, ManagementError>| match answer {
            Err(ManagementError::Io { source, .. }) => source.kind() == io::ErrorKind::UnexpectedEof,
            _ => false,
        };
        for at in 0..STATUS.len() {
            assert!(is_cut(status(place.path(), 50)), "cut at {at}");
        }
        assert_eq!(status(place.path(), 50).unwrap(), STATUS);
        for at in 0..numbers.len() {
            assert!(is_cut(prometheus(place.path(), 50)), "cut at {at}");
        }
        assert_eq!(prometheus(place.path(), 50).unwrap(), NUMBERS);
        node.join().unwrap();
    }
}
