//! Local management socket, by which `peersock status`, `ping` and others query a running node.
//!
//! A node with a state directory listens on the Unix socket `management.sock` in it (mode 0600). Each side
//! checks with `SO_PEERCRED` that the other belongs to its own user. One connection carries one request, a
//! line of text, and one answer, a JSON document or text up to the end of the stream. A truncated answer can
//! be recognized: JSON ends with its last bracket, the text for Prometheus with the comment `# EOF`.
//!
//! | request | answer |
//! |---|---|
//! | `status` | the node's [`Status`](crate::Status), with 10,000 peers at most |
//! | `status peers=N` | the same with N peers at most: connected ones first, then the ones seen last |
//! | `prometheus` | its metrics as text for Prometheus, with 10,000 peers at most, and `# EOF` |
//! | `prometheus peers=N` | the same with N peers at most |
//! | `reach network=ID address=IP timeout=MS` | [`Probed`]: the node tries to have a session with the member |
//! | `ping network=ID address=IP timeout=MS size=N check=MS` | [`Probed`]: it sends one ICMP echo request |
//! | `members network=ID timeout=MS` | [`Probed`]: it tries to have a session with each member that it knows |
//! | `join network=ID` with `invite=TEXT`, `wish=NAME`, `local=NAME`, `root=TEXT` | a line `{"standing": "…", "key": "…"}` now and after each change, see [`join()`] |
//! | `leave network=ID` | `{"left": true}`: the node leaves a managed network and forgets its credentials |
//! | anything else | `{"error": "…", "version": "…"}`, with the node's version |
//!
//! A `join` lasts as long as its connection. Afterwards the node leaves the network, unless a program has
//! joined it meanwhile.
//!
//! A probe (`reach`, `ping`, `members`) takes 60 seconds at most, so does its `check`. With the joins, 64 at
//! once are served; none of them delays other requests. It ends when its client hangs up. `mark=HEX` makes it
//! fail unless the client has the same secret and members of the network as the node.
//!
//! Later versions may add fields to answers, and requests; they change neither the meaning nor the form of
//! existing ones. A field that `Status` gets after 0.1.0 needs a default, because earlier nodes do not
//! send it.

mod effect;
mod membership;
mod probe;
mod server;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use peersock_overlay::NetworkId;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::state::StateDir;

pub(crate) use effect::EffectRequest;
pub use effect::{EffectOfRules, EndedFlow, effect};
pub use membership::{JoinRequest, Joining, join, leave};
pub(crate) use membership::{Left, MembershipNews};
pub(crate) use probe::{Echo, Mark, ProbeRequest, ProbeTask};
pub use probe::{MAX_PROBE, Probe, ProbeOutcome, Probed, ask_members, find_named, ping, reach};
pub use server::has_hung_up;
pub(crate) use server::{Answer, Client, ManagementServer};

/// Refusal of a node that ends; programs that ask know the text.
pub(crate) const STOPPED: &str = "the node has stopped";

/// Last line of an answer in the format of Prometheus, where it is a comment. A node that is killed leaves
/// the beginning of its answer, which the format alone cannot tell from a whole one.
pub(crate) const END_MARK: &str = "# EOF\n";

/// Timeout of either side.
const IO_TIMEOUT: Duration = Duration::from_secs(5);

/// Size limit of an accepted answer in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// Limit of peers in one answer. With all its addresses one takes less than 2 kB.
const MAX_PEERS: usize = 10_000;

/// Request to a node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    /// Status of the node.
    Status {
        /// Limit of peers to list.
        peers: usize,
    },
    /// Metrics of the node, for Prometheus.
    Prometheus {
        /// Limit of peers with metrics.
        peers: usize,
    },
    /// Probe of a member.
    Probe(ProbeRequest),
    /// Membership in a managed network.
    Join(Box<JoinRequest>),
    /// End of a membership.
    Leave(NetworkId),
    /// Effect of rules on open flows.
    Effect(Box<EffectRequest>),
}

impl Request {
    /// Parses a line. Returns `None` for a request that this version does not know.
    fn parse(line: &str) -> Option<Request> {
        let mut words = line.split_ascii_whitespace();
        let request = words.next()?;
        if matches!(request, "reach" | "ping" | "members" | "find") {
            return ProbeRequest::parse(request, words).map(Request::Probe);
        }
        match request {
            "join" => return JoinRequest::parse(words).map(|request| Request::Join(Box::new(request))),
            "leave" => return membership::parse_leave(words).map(Request::Leave),
            "effect" => return EffectRequest::parse(words).map(|request| Request::Effect(Box::new(request))),
            _ => {}
        }
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

/// Answer to a request that is unknown or fails.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    error: String,
    /// Version of the node; the first versions did not send it.
    version: Option<String>,
}

impl Refusal {
    fn new(error: &str) -> Refusal {
        Refusal { error: error.to_owned(), version: Some(env!("CARGO_PKG_VERSION").to_owned()) }
    }
}

/// Reason why a running node could not be queried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagementError {
    /// No node uses the state directory, or it has just stopped.
    #[error("no node is running with state directory {}", path.display())]
    NotRunning {
        /// State directory.
        path: PathBuf,
    },

    /// The socket belongs to a process of another user.
    #[error("the node at {} belongs to user id {owner}, not to you", path.display())]
    ForeignOwner {
        /// Path of the socket.
        path: PathBuf,
        /// User that the socket belongs to.
        owner: u32,
    },

    /// The node does not know this request; probably it is older than the program that asks.
    #[error("the running node{} refuses: {error}", version.as_ref().map(|v| format!(" (version {v})")).unwrap_or_default())]
    Refused {
        /// Answer of the node.
        error: String,
        /// Version of the node, if it sends it.
        version: Option<String>,
    },

    /// The node has not answered within five seconds, or 20 of a [`join`]: its process is stopped, or very
    /// busy.
    #[error("the node with {} {}", called(*process), if *is_stopped { "is stopped" } else { "is busy" })]
    Silent {
        /// Its process; `None` if that is in another PID namespace.
        process: Option<u32>,
        /// True if the system says that a signal has stopped the process.
        is_stopped: bool,
    },

    /// The node cannot be asked, or its answer was truncated, as when the node is killed meanwhile; then
    /// `source` is of the kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof).
    #[error("the node at {} does not answer: {source}", path.display())]
    Io {
        /// Path of the socket.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}

fn called(process: Option<u32>) -> String {
    process.map_or_else(|| "this state directory".to_owned(), |process| format!("process {process}"))
}

/// Sends one request to the node that uses the state directory at `state`; returns the JSON text of its
/// answer.
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
    request_within(state, request, Duration::ZERO)
}

/// Sends a request that the node may work on for `extra`.
fn request_within(state: &Path, request: &str, extra: Duration) -> Result<String, ManagementError> {
    let answer = ask(state, request, IO_TIMEOUT + extra)?;
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
        // The first versions know this request only without its option, and do not send their version.
        Err(ManagementError::Refused { version: None, .. }) => request(state, "status"),
        answer => answer,
    }?;
    match serde_json::from_str::<IgnoredAny>(&answer) {
        Err(error) if error.is_eof() => Err(was_cut(state)),
        // Other errors are left to the reader of the text.
        _ => Ok(answer),
    }
}

/// Queries the node that uses the state directory at `state` for its metrics as text for Prometheus: the text
/// of [`Status::prometheus`](crate::Status::prometheus), with metrics of at most `peers` peers.
///
/// # Errors
///
/// See [`ManagementError`]; nodes of version 0.1.0 that were built before this request existed refuse it.
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

/// Connects to the node that uses a state directory. Returns the path of its socket, too.
fn connected(state: &Path) -> Result<(PathBuf, UnixStream), ManagementError> {
    let path = StateDir::management_socket(state);
    let stream = with_short_path(&path, connect).map_err(|source| match is_absent(&source) {
        true => ManagementError::NotRunning { path: state.into() },
        false => ManagementError::Io { path: path.clone(), source },
    })?;
    // Another user's process could answer with a false status.
    match foreign_peer(&stream) {
        Ok(None) => Ok((path, stream)),
        Ok(Some(owner)) => Err(ManagementError::ForeignOwner { path, owner }),
        Err(source) => Err(ManagementError::Io { path, source }),
    }
}

fn ask(state: &Path, request: &str, timeout: Duration) -> Result<String, ManagementError> {
    let (path, stream) = connected(state)?;
    let failed = |source| ManagementError::Io { path: path.clone(), source };
    exchange(&stream, request, timeout).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => silent(&stream),
        _ => failed(error),
    })
}

/// Returns the error of a node that lets a connection wait for its answer.
fn silent(stream: &UnixStream) -> ManagementError {
    let process = crate::sys::peer::process(stream).ok().flatten();
    ManagementError::Silent { process, is_stopped: process.is_some_and(is_stopped) }
}

/// Returns true if a signal has stopped a process, as the system says.
pub fn is_stopped(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name before may have any characters.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
}

fn exchange(mut stream: &UnixStream, request: &str, timeout: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = Vec::new();
    // One byte more reveals a longer answer.
    stream.take(MAX_ANSWER + 1).read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if answer.len() as u64 > MAX_ANSWER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer is longer than 64 MiB"));
    }
    String::from_utf8(answer).map_err(|error| match error.utf8_error().error_len() {
        // The answer was truncated within a character.
        None => io::ErrorKind::UnexpectedEof.into(),
        Some(_) => io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

/// Returns true if the error of a connection says that no process listens: there is no socket, or a killed
/// process has left it.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::ConnectionRefused
    )
}

/// Connects to a Unix socket of this user or of root.
///
/// # Errors
/// Fails as connect(2) does, with `PermissionDenied` if the socket is another user's, and with `TimedOut`
/// after 5 seconds in which no connection was accepted, and too many wait.
pub fn connect_own(path: &Path) -> io::Result<UnixStream> {
    let stream = connect(path)?;
    match foreign_peer(&stream)? {
        Some(_) => Err(io::ErrorKind::PermissionDenied.into()),
        None => Ok(stream),
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    connect_within(path, IO_TIMEOUT)
}

/// Connects to a Unix socket. A stopped process accepts no connections, and its backlog may be full.
fn connect_within(path: &Path, time: Duration) -> io::Result<UnixStream> {
    let (socket, address) = (Socket::new(Domain::UNIX, Type::STREAM, None)?, SockAddr::unix(path)?);
    // It limits connect(2), too: unix(7).
    socket.set_write_timeout(Some(time))?;
    loop {
        match socket.connect(&address) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it accepts no connections"));
            }
            connected => {
                connected?;
                break;
            }
        }
    }
    socket.set_write_timeout(None)?;
    Ok(OwnedFd::from(socket).into())
}

/// Returns the user ID of the other side, if it is neither this user nor root.
///
/// # Errors
/// It is no Unix socket.
pub fn foreign_peer(stream: impl AsFd) -> io::Result<Option<u32>> {
    let peer = crate::sys::peer::user(stream)?;
    Ok((peer != rustix::process::geteuid().as_raw() && peer != 0).then_some(peer))
}

/// Calls `f` with a path of the same file that fits into a `sockaddr_un` (107 bytes). If the path itself is
/// too long, uses a file descriptor of its directory.
///
/// # Errors
/// Errors of `f`, and of opening the directory.
pub fn with_short_path<T>(path: &Path, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
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

    /// Answers of a node that was killed meanwhile.
    const STATUS: &str = r#"{"node_id":"aa","peers":[{"name":"Zoë \"b\""}],"counters":{"x":12}}"#;
    const NUMBERS: &str = "# TYPE x gauge\nx{name=\"Zoë\"} 12\nx{name=\"\"} 3\n";

    #[test]
    fn a_process_that_accepts_no_connections_is_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("socket");
        let stopped = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        stopped.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        stopped.listen(1).unwrap();
        let connect = || connect_within(&path, Duration::from_millis(10));
        let held: Vec<_> = (0..100).map(|_| connect()).take_while(Result::is_ok).collect();
        assert!((1..100).contains(&held.len()), "{} connections", held.len());
        assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::TimedOut);
        // An accepted connection has no limit left.
        assert_eq!(held[0].as_ref().unwrap().write_timeout().unwrap(), None);
    }

    #[test]
    fn an_answer_that_was_cut_anywhere_is_told_from_a_whole_one() {
        let place = tempfile::tempdir().unwrap();
        let numbers = format!("{NUMBERS}{END_MARK}");
        // The last byte is a line feed, without which the text is truncated, too.
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
