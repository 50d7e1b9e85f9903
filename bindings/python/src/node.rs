//! The node: start, stop, networks, and status.

use std::io;
use std::os::fd::{IntoRawFd as _, RawFd};
use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use peersock::{Event, Invite, JoinError, NetworkId, StartError};
use peersock_attach::{AttachError, JoinFailure, NodeError, ProgramNode};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::config::{Config, by_file, by_id, file_error, with_secret};
use crate::errors::{described, invalid, io_error, os_error, state_error};
use crate::nicknames;
use crate::process;

/// Maximum time of a wait without a check for signals.
pub(crate) const STEP: Duration = Duration::from_millis(50);

/// A node in separate threads, or the one that programs share.
#[pyclass(frozen, module = "peersock._peersock")]
pub(crate) struct Node {
    node: Arc<ProgramNode>,
}

#[pymethods]
impl Node {
    /// Starts the node.
    #[new]
    fn new(py: Python<'_>, config: &Config) -> PyResult<Self> {
        let settings = config.settings.clone();
        match py.detach(|| ProgramNode::start(settings)) {
            Ok(node) => Ok(Self { node: Arc::new(node) }),
            Err(NodeError::Start(error)) => Err(start_error(py, error)),
            Err(NodeError::Attach(AttachError::Start(error))) => Err(io_error(py, error)),
            Err(error @ NodeError::Attach(AttachError::Refused(_))) => Err(invalid(error)),
            Err(error) => Err(described(py, libc::EBUSY, error)),
        }
    }

    /// Joins the network with this ID, or finds that it is joined in the same way. Returns the ID.
    #[pyo3(signature = (id, passphrase=None, key=None))]
    fn join_id(
        &self,
        py: Python<'_>,
        id: u64,
        passphrase: Option<String>,
        key: Option<&[u8]>,
    ) -> PyResult<u64> {
        self.join(py, with_secret(py, by_id(id)?, passphrase, key)?)
    }

    /// Joins the managed network of an invite, as `join_id` does.
    fn join_invite(&self, py: Python<'_>, text: &str) -> PyResult<u64> {
        let invite: Invite = text.parse().map_err(invalid)?;
        self.join(py, invite.network())
    }

    /// Joins the static network that a file describes, as `join_id` does.
    #[pyo3(signature = (path, passphrase=None, key=None))]
    fn join_file(
        &self,
        py: Python<'_>,
        path: PathBuf,
        passphrase: Option<String>,
        key: Option<&[u8]>,
    ) -> PyResult<u64> {
        self.join(py, with_secret(py, by_file(py, path)?, passphrase, key)?)
    }

    /// Leaves a network. Returns false if it was not joined.
    fn leave(&self, py: Python<'_>, network: u64) -> PyResult<bool> {
        let id = NetworkId::new(network).map_err(invalid)?;
        py.detach(|| self.node.leave(id)).map_err(|error| io_error(py, error))
    }

    /// Returns the node's addresses in a network, the self-certifying one first.
    fn addresses(&self, py: Python<'_>, network: u64) -> PyResult<Vec<String>> {
        let id = NetworkId::new(network).map_err(invalid)?;
        let found = py.detach(|| self.node.addresses(id)).map_err(|error| io_error(py, error))?;
        let found = found.ok_or_else(|| os_error(py, libc::ENETDOWN))?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    /// Returns everything about the node, as JSON.
    fn status(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.node.status_text()).map_err(|error| io_error(py, error))
    }

    /// Returns the known peers, as JSON.
    fn peers(&self, py: Python<'_>) -> PyResult<String> {
        let peers = py.detach(|| self.node.peers()).map_err(|error| io_error(py, error))?;
        serde_json::to_string(&peers).map_err(invalid)
    }

    /// Returns the node's ID.
    fn id(&self, py: Python<'_>) -> PyResult<String> {
        let id = py.detach(|| self.node.id()).map_err(|error| io_error(py, error))?;
        Ok(id.to_string())
    }

    /// Returns the node's public key.
    fn public_key(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.node.public_key()).map_err(|error| io_error(py, error))
    }

    /// Returns the value of `PEERSOCK_NODE` for processes that use this node.
    fn environment(&self) -> String {
        self.node.environment()
    }

    /// Handles the socket calls of programs that the preloaded library does not reach, when programs with the
    /// library start them: see `process::admit`. `words` is the programs' `PEERSOCK_RULES`.
    fn admit_programs(&self, py: Python<'_>, words: &str) -> PyResult<()> {
        process::admit(py, &self.node.environment(), words)?;
        self.node.note_unseen_calls().map_err(|error| io_error(py, error))
    }

    /// Waits until the node has its addresses in the network. Returns false after the timeout.
    fn wait_ready(&self, py: Python<'_>, network: u64, timeout: Option<f64>) -> PyResult<bool> {
        self.wait(py, network, timeout, |node, id, step| node.wait_ready(id, step))
    }

    /// Returns the reason why the node is no member of a network yet, for people; `None` if it is one.
    fn why_not_ready(&self, py: Python<'_>, network: u64) -> PyResult<Option<String>> {
        let id = NetworkId::new(network).map_err(invalid)?;
        match py.detach(|| self.node.wait_ready(id, Duration::ZERO)) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(Some(error.to_string())),
            other => other.map(|_| None).map_err(|error| io_error(py, error)),
        }
    }

    /// Waits until there is a session with the member at this address. Returns false after the timeout.
    fn wait_peer(&self, py: Python<'_>, network: u64, address: &str, timeout: Option<f64>) -> PyResult<bool> {
        let ip =
            address.parse().map_err(|_| invalid(format_args!("'{address}' is no IPv4 or IPv6 address")))?;
        self.wait(py, network, timeout, move |node, id, step| node.wait_peer(id, ip, step))
    }

    /// Claims a nickname, with a port for its users. Returns its text, or `None` if no root has answered in
    /// time. The node then goes on trying.
    fn nickname(&self, py: Python<'_>, nickname: &str, port: u16, timeout: f64) -> PyResult<Option<String>> {
        nicknames::claim(self, py, nickname, port, timeout)
    }

    /// Finds the owner of a nickname: the ID and the port. Returns `None` if no root has answered in time.
    fn find_nickname(&self, py: Python<'_>, text: &str, timeout: f64) -> PyResult<Option<(String, u16)>> {
        nicknames::find(self, py, text, timeout)
    }

    /// Releases a nickname. Returns false if it was not claimed.
    fn release_nickname(&self, py: Python<'_>, nickname: &str) -> PyResult<bool> {
        nicknames::release(self, py, nickname)
    }

    /// Returns a descriptor from which each read returns one event as JSON.
    fn event_fd(&self, py: Python<'_>) -> PyResult<RawFd> {
        let fd = py.detach(|| self.node.event_socket(encode)).map_err(|error| io_error(py, error))?;
        Ok(fd.into_raw_fd())
    }

    /// Returns true if calls can succeed: the node was not stopped, and runs in this process.
    fn is_running(&self, py: Python<'_>) -> bool {
        py.detach(|| self.node.is_running())
    }

    /// Returns true in the process that has started or attached the node.
    fn is_here(&self) -> bool {
        self.node.is_here()
    }

    /// Returns true for a shared node that has ended.
    fn is_lost(&self) -> bool {
        self.node.is_lost()
    }

    /// Returns the process that holds the node.
    fn process(&self) -> u32 {
        self.node.process()
    }

    /// Ends the node, and waits up to `linger` seconds for the delivery of all data. Returns true if all was
    /// delivered. Open connections are reset.
    fn stop(&self, py: Python<'_>, linger: f64) -> PyResult<bool> {
        let linger = Duration::try_from_secs_f64(linger).map_err(invalid)?;
        Ok(py.detach(|| self.node.stop(linger)))
    }

    /// Ends the node of a process that is about to exit. Open connections end in order. Without `linger` it
    /// waits as long as peers accept the sent data and signals permit. Returns a description of lost data, or
    /// `None`.
    #[pyo3(signature = (linger=None))]
    fn finish(&self, py: Python<'_>, linger: Option<f64>) -> PyResult<Option<String>> {
        let linger = linger.map(Duration::try_from_secs_f64).transpose().map_err(invalid)?;
        let (done, mut result) = mpsc::sync_channel(1);
        let node = Arc::clone(&self.node);
        let finish = move || drop(done.send(node.finish(linger)));
        if thread::Builder::new().name("peersock-finish".into()).spawn(finish).is_err() {
            return Ok(py.detach(|| self.node.finish(linger)));
        }
        loop {
            let got;
            (result, got) = py.detach(move || {
                let got = result.recv_timeout(STEP);
                (result, got)
            });
            match got {
                Ok(lost) => return Ok(lost),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Err(error) = py.check_signals() {
                self.node.give_up();
                return Err(error);
            }
        }
    }
}

impl Node {
    pub(crate) fn program_node(&self) -> &ProgramNode {
        &self.node
    }

    fn join(&self, py: Python<'_>, network: peersock::Network) -> PyResult<u64> {
        let id = network.id();
        match py.detach(|| self.node.join(network)) {
            // Another session of this process may have joined it.
            Ok(()) | Err(JoinFailure::Join(JoinError::AlreadyJoined(_))) => Ok(id.as_u64()),
            Err(JoinFailure::Io(error)) => Err(io_error(py, error)),
            Err(JoinFailure::Join(error @ JoinError::NotAMember { .. })) => Err(invalid(format_args!(
                "{error}: give it the identity of one (identity=, --state or PEERSOCK_STATE), or add its key, \
                 see docs/use/NETWORKS.md"
            ))),
            // Another process has the state directory, whose node alone may join it.
            Err(JoinFailure::Join(error @ JoinError::Beside { .. })) => {
                Err(described(py, libc::EBUSY, error))
            }
            Err(error) => Err(invalid(error)),
        }
    }

    /// Waits in steps, between which signals run their handlers.
    fn wait(
        &self,
        py: Python<'_>,
        network: u64,
        timeout: Option<f64>,
        wait: impl Fn(&ProgramNode, NetworkId, Duration) -> io::Result<Option<()>> + Sync,
    ) -> PyResult<bool> {
        let id = NetworkId::new(network).map_err(invalid)?;
        let span =
            timeout.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX));
        let deadline = span.and_then(|span| Instant::now().checked_add(span));
        loop {
            let left = deadline.map_or(STEP, |deadline| deadline.saturating_duration_since(Instant::now()));
            let step = left.min(STEP);
            match py.detach(|| wait(&self.node, id, step)) {
                Ok(Some(())) => return Ok(true),
                Ok(None) => return Err(os_error(py, libc::ENETDOWN)),
                Err(error) if error.kind() != io::ErrorKind::TimedOut => return Err(io_error(py, error)),
                Err(_) if deadline.is_some() && left <= STEP => return Ok(false),
                Err(_) => py.check_signals()?,
            }
        }
    }
}

fn start_error(py: Python<'_>, error: StartError) -> PyErr {
    match error {
        StartError::Io(error) => io_error(py, error),
        error @ StartError::PortTaken { .. } => described(py, libc::EADDRINUSE, error),
        error @ StartError::PortForbidden { .. } => described(py, libc::EACCES, error),
        StartError::State(error) => state_error(py, &error),
        StartError::Variable(error) => {
            file_error(py, &error.reason).unwrap_or_else(|| PyOSError::new_err(error.to_string()))
        }
        error => PyOSError::new_err(error.to_string()),
    }
}

fn encode(event: &Event) -> Vec<u8> {
    let (kind, id, relays) = match event {
        Event::PeerFound { id } => ("peer_found", id, None),
        Event::PeerReachable { id, relayed, turn } => ("peer_reachable", id, Some((relayed, turn))),
        Event::PathChanged { id, relayed, turn } => ("path_changed", id, Some((relayed, turn))),
        Event::PeerLost { id } => ("peer_lost", id, None),
        Event::PeerUnreachable { id } => ("peer_unreachable", id, None),
        // A later node may report more kinds.
        _ => return b"{}".to_vec(),
    };
    let (relayed, turn) = relays.unzip();
    let event = serde_json::json!({ "kind": kind, "peer": id.to_string(), "relayed": relayed, "turn": turn });
    event.to_string().into_bytes()
}
