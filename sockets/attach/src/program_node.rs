//! The node of a program in C or Python: the one that programs share, or one in its process.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use peersock::attach::{Linger, loss_text};
use peersock::overlay::NodeId;
use peersock::settings::{VariableError, label_of_environment};
use peersock::state::StateError;
use peersock::{
    Event, JoinError, Joined, Network, NetworkId, Nickname, NicknameText, Node, NodeBuilder, PeerStatus,
    StartError, Status,
};
use peersock_fd::{NodeTag, Token};
use peersock_socket_server::{Host, Outer, SecretMismatch};

use crate::client::AttachError;
use crate::events::{ProgramEvents, Source};
use crate::messages::Refusal;
use crate::nicknames::{self, NicknameRefusal};
use crate::shared_node::{SharedNode, refusal_text};
use crate::start::Launch;
use crate::variables::wants_own_node;

/// Time after which a state directory that is in use, by a process without a socket, counts as another
/// program's: a node makes the socket soon after it has the directory, and leaves the directory soon after.
const SOCKET_SOON: Duration = Duration::from_secs(2);

/// Interval of attempts meanwhile.
const RETRY: Duration = Duration::from_millis(20);

/// Node that a program's sockets use.
///
/// A program whose identity is in a state directory shares the node that runs there. If none does, it starts
/// one by the installed program `peersock`, which ends some time after its last program. The node runs in the
/// program's process, as a [`Host`] does, if no program is installed that can hold it, the identity is not
/// kept, or `PEERSOCK_OWN_NODE` is set.
///
/// ```
/// use peersock::{IdentitySource, Interfaces, Network, Node};
/// use peersock_attach::ProgramNode;
///
/// let settings = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
/// let node = ProgramNode::start(settings)?;
/// assert_eq!(node.process(), std::process::id(), "nobody else finds it");
/// let network = Network::ad_hoc("ff0001ffff000000".parse()?);
/// let id = network.id();
/// node.join(network)?;
/// assert_eq!(node.addresses(id)?.expect("it is joined").len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ProgramNode {
    inner: Inner,
    outer: Outer,
}

#[derive(Debug)]
enum Inner {
    Own(Host),
    Shared(SharedNode),
}

/// Reason why a program has no node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The node in this process does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The shared node does not serve the program.
    #[error("{}", attach_text(.0))]
    Attach(#[from] AttachError),
}

/// Reason why a network is not joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinFailure {
    /// The network cannot be joined.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The shared node has refused it.
    #[error("{}", refusal_text(.0))]
    Refused(Refusal),
    /// Exactly one of this program and the one that has started it has a secret for the network.
    #[error(transparent)]
    Outer(#[from] SecretMismatch),
    /// The node has ended.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<StateError> for NodeError {
    fn from(error: StateError) -> NodeError {
        NodeError::Start(error.into())
    }
}

impl From<VariableError> for NodeError {
    fn from(error: VariableError) -> NodeError {
        NodeError::Start(error.into())
    }
}

impl From<io::Error> for NodeError {
    fn from(error: io::Error) -> NodeError {
        NodeError::Start(error.into())
    }
}

impl ProgramNode {
    /// Shares the node in the state directory, which the installed program holds if none runs, or starts one
    /// in this process. See [`Launch::installed`] for the program.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn start(settings: NodeBuilder) -> Result<ProgramNode, NodeError> {
        ProgramNode::start_with(settings, false, Launch::installed)
    }

    /// Like [`ProgramNode::start`], for a process that reads and writes by direct kernel calls: see
    /// [`Host::start_with_unseen_calls`].
    ///
    /// # Errors
    /// Errors of [`ProgramNode::start`].
    pub fn start_with_unseen_calls(settings: NodeBuilder) -> Result<ProgramNode, NodeError> {
        ProgramNode::start_with(settings, true, Launch::installed)
    }

    /// Starts it; `launch` returns the command for a shared node.
    fn start_with(
        mut settings: NodeBuilder,
        has_unseen_calls: bool,
        launch: impl FnOnce(&Path) -> Option<Launch>,
    ) -> Result<ProgramNode, NodeError> {
        let outer = Outer::of_environment();
        let shared = settings.state_path()?.filter(|_| !wants_own_node());
        if let Some(label) = label_of_environment()? {
            settings = settings.label(label);
        }
        let mut launch = shared.as_deref().and_then(launch);
        if launch.is_some() {
            // Read here once, because a pipe with a token can be, and a node of this process may need them,
            // too.
            settings = settings.clone().roots(settings.named_roots()?);
        }
        let begun = Instant::now();
        let mut refused = None;
        loop {
            if let Some(path) = &shared {
                let may_start = launch.is_some();
                match SharedNode::open(path, &settings, launch.take(), has_unseen_calls) {
                    Ok(Some(shared)) => return Ok(ProgramNode { inner: Inner::Shared(shared), outer }),
                    Ok(None) => {}
                    // The started program may be of another version, or no program that holds a node.
                    Err(NodeError::Attach(error)) if may_start => {
                        tracing::debug!(error = attach_text(&error), "no shared node was started");
                        refused = Some(error).filter(|error| matches!(error, AttachError::Refused(_)));
                    }
                    Err(error) => return Err(error),
                }
            }
            let own = match has_unseen_calls {
                true => Host::start_with_unseen_calls(settings.clone()),
                false => Host::start(settings.clone()),
            };
            if let Err(error) = &own
                && is_of_another(error)
                && let Some(refusal) = refused.take()
            {
                // It came from the node of other programs.
                return Err(refusal.into());
            }
            match own {
                Err(error) if shared.is_some() && is_of_another(&error) && begun.elapsed() < SOCKET_SOON => {
                    thread::sleep(RETRY)
                }
                own => return Ok(ProgramNode { inner: Inner::Own(own?), outer }),
            }
        }
    }

    /// Returns the events of the node from now on. Of a shared node, they are about the members of this
    /// program's networks.
    ///
    /// # Errors
    /// ENETDOWN if the node has ended, or this is a forked child.
    pub fn events(&self) -> io::Result<ProgramEvents> {
        Ok(ProgramEvents(match &self.inner {
            Inner::Own(host) => Source::Own(host.run(Node::events)?),
            Inner::Shared(shared) => Source::Shared(shared.events()?),
        }))
    }

    /// Returns a descriptor from which they can be read: see [`Host::event_socket`].
    ///
    /// # Errors
    /// ENETDOWN if the node has ended, or this is a forked child; errors of socket(2).
    pub fn event_socket(&self, encode: impl Fn(&Event) -> Vec<u8> + Send + 'static) -> io::Result<OwnedFd> {
        match &self.inner {
            Inner::Own(host) => host.event_socket(encode),
            Inner::Shared(shared) => shared.event_socket(encode),
        }
    }

    /// Claims a nickname, as [`Node::nickname`] does. The node keeps it until it ends or a program releases
    /// it.
    ///
    /// # Errors
    /// See [`NicknameRefusal`].
    pub fn nickname(
        &self,
        nickname: Nickname,
        port: u16,
        within: Duration,
    ) -> Result<String, NicknameRefusal> {
        match &self.inner {
            Inner::Own(host) => {
                let claimed = host.run_apart(move |node| node.nickname(&nickname, port, within))??;
                Ok(claimed.to_string())
            }
            Inner::Shared(shared) => {
                shared.ask_roots(move |attached| nicknames::claim(attached, &nickname, port, within))
            }
        }
    }

    /// Returns the ID of the node that has a nickname, and its port: see [`Node::find_nickname`].
    ///
    /// # Errors
    /// See [`NicknameRefusal`].
    pub fn find_nickname(
        &self,
        text: NicknameText,
        within: Duration,
    ) -> Result<(String, u16), NicknameRefusal> {
        match &self.inner {
            Inner::Own(host) => {
                let found = host.run_apart(move |node| node.find_nickname(&text, within))??;
                Ok((found.identity.node_id().to_string(), found.port))
            }
            Inner::Shared(shared) => {
                shared.ask_roots(move |attached| nicknames::find(attached, &text, within))
            }
        }
    }

    /// Releases a nickname. Returns false if it was not claimed.
    ///
    /// # Errors
    /// ENETDOWN if the node has ended, or this is a forked child.
    pub fn release_nickname(&self, nickname: Nickname) -> io::Result<bool> {
        match &self.inner {
            Inner::Own(host) => host.run(move |node| node.release_nickname(&nickname)),
            Inner::Shared(shared) => shared.release_nickname(nickname),
        }
    }

    /// Returns the process that holds the node: this one, or that of a shared node.
    pub fn process(&self) -> u32 {
        match &self.inner {
            Inner::Own(_) => std::process::id(),
            Inner::Shared(shared) => shared.process(),
        }
    }

    /// Returns true for a shared node that has ended, so that a new one can be started.
    pub fn is_lost(&self) -> bool {
        matches!(&self.inner, Inner::Shared(shared) if shared.is_here() && shared.has_ended())
    }

    /// Returns the tag that identifies the program's sockets.
    pub fn tag(&self) -> NodeTag {
        match &self.inner {
            Inner::Own(host) => host.tag(),
            Inner::Shared(shared) => shared.tag(),
        }
    }

    /// Returns the secret that lets processes of other users open sockets.
    pub fn token(&self) -> Token {
        match &self.inner {
            Inner::Own(host) => host.token(),
            Inner::Shared(shared) => shared.token(),
        }
    }

    /// Returns the value of `PEERSOCK_NODE` for processes that use this node. It contains a secret.
    pub fn environment(&self) -> String {
        match &self.inner {
            Inner::Own(host) => host.environment(),
            Inner::Shared(shared) => shared.environment().to_owned(),
        }
    }

    /// Declares that this process makes the socket calls of programs that read and write by direct kernel
    /// calls.
    ///
    /// # Errors
    /// ENETDOWN if the node has ended.
    pub fn note_unseen_calls(&self) -> io::Result<()> {
        match &self.inner {
            Inner::Own(host) => host.note_unseen_calls(),
            Inner::Shared(shared) => shared.note_unseen_calls(),
        }
    }

    /// Returns true in the process that started or attached this node, false in its children.
    pub fn is_here(&self) -> bool {
        match &self.inner {
            Inner::Own(host) => host.is_here(),
            Inner::Shared(shared) => shared.is_here(),
        }
    }

    /// Returns true if calls can succeed.
    pub fn is_running(&self) -> bool {
        match &self.inner {
            Inner::Own(host) => host.is_running(),
            Inner::Shared(shared) => shared.id().is_ok(),
        }
    }

    /// Returns the node's ID.
    ///
    /// # Errors
    /// ENETDOWN if the node has ended, or this is a forked child.
    pub fn id(&self) -> io::Result<NodeId> {
        match &self.inner {
            Inner::Own(host) => host.run(Node::id),
            Inner::Shared(shared) => shared.id(),
        }
    }

    /// Returns the node's public key.
    ///
    /// # Errors
    /// ENETDOWN if the node has ended, or this is a forked child.
    pub fn public_key(&self) -> io::Result<String> {
        match &self.inner {
            Inner::Own(host) => host.run(|node| node.public_identity().to_string()),
            Inner::Shared(shared) => shared.public_key().map(str::to_owned),
        }
    }

    /// Joins a network, within the limits set by `peersock run`.
    ///
    /// # Errors
    /// See [`JoinFailure`].
    pub fn join(&self, network: Network) -> Result<(), JoinFailure> {
        self.outer.check(&network)?;
        match &self.inner {
            Inner::Own(host) => Ok(host.run(move |node| node.join(network).map(drop))??),
            Inner::Shared(shared) => shared.join(network),
        }
    }

    /// Leaves a network. Returns false if this program had not joined it.
    ///
    /// # Errors
    /// ENETDOWN if the node has ended, or this is a forked child.
    pub fn leave(&self, network: NetworkId) -> io::Result<bool> {
        match &self.inner {
            Inner::Own(host) => host.run(move |node| node.leave(network)),
            Inner::Shared(shared) => shared.leave(network),
        }
    }

    /// Returns the program's networks, in the order of joining.
    ///
    /// # Errors
    /// ENETDOWN if the node has ended, or this is a forked child.
    pub fn networks(&self) -> io::Result<Vec<NetworkId>> {
        match &self.inner {
            Inner::Own(host) => host.run(|node| node.networks().iter().map(Joined::id).collect()),
            Inner::Shared(shared) => shared.network_ids(),
        }
    }

    /// Returns the node's addresses in a network, the self-certifying one first; `None` if it is not joined.
    ///
    /// # Errors
    /// ENETDOWN if the node has ended, or this is a forked child.
    pub fn addresses(&self, network: NetworkId) -> io::Result<Option<Vec<IpAddr>>> {
        match &self.inner {
            Inner::Own(host) => host.run(move |node| node.network(network).map(|joined| joined.addresses())),
            Inner::Shared(shared) => shared.addresses(network),
        }
    }

    /// Waits until the node has its addresses in a network; returns `None` if it is not joined.
    ///
    /// # Errors
    /// Errors of [`Joined::wait_ready`].
    pub fn wait_ready(&self, network: NetworkId, within: Duration) -> io::Result<Option<()>> {
        match &self.inner {
            Inner::Own(host) => {
                let wait = move |node: &Node| node.network(network).map(|joined| joined.wait_ready(within));
                host.run_apart(wait)?.transpose()
            }
            Inner::Shared(shared) => shared.wait_ready(network, within),
        }
    }

    /// Waits until there is a session with a member of a network; returns `None` if it is not joined.
    ///
    /// # Errors
    /// Errors of [`Joined::wait_peer`].
    pub fn wait_peer(&self, network: NetworkId, address: IpAddr, within: Duration) -> io::Result<Option<()>> {
        match &self.inner {
            Inner::Own(host) => {
                let wait =
                    move |node: &Node| node.network(network).map(|joined| joined.wait_peer(address, within));
                host.run_apart(wait)?.transpose()
            }
            Inner::Shared(shared) => match shared.addresses(network)? {
                Some(_) => shared.wait_peer(address, within).map(Some),
                None => Ok(None),
            },
        }
    }

    /// Returns everything about the node. Of a shared node, it has the peers in this program's networks.
    ///
    /// # Errors
    /// ENETDOWN if the node has ended, or this is a forked child.
    pub fn status(&self) -> io::Result<Status> {
        match &self.inner {
            Inner::Own(host) => host.run(Node::status),
            Inner::Shared(shared) => shared.status(),
        }
    }

    /// Returns the same as JSON.
    ///
    /// # Errors
    /// Errors of [`ProgramNode::status`].
    pub fn status_text(&self) -> io::Result<String> {
        match &self.inner {
            Inner::Own(host) => Ok(host.run(|node| serde_json::to_string(&node.status()))??),
            Inner::Shared(shared) => shared.status_text(),
        }
    }

    /// Returns the known peers, in the program's networks.
    ///
    /// # Errors
    /// Errors of [`ProgramNode::status`].
    pub fn peers(&self) -> io::Result<Vec<PeerStatus>> {
        match &self.inner {
            Inner::Own(host) => host.run(Node::peers),
            Inner::Shared(shared) => Ok(shared.status()?.peers),
        }
    }

    /// Returns the reason why a listener at a port is unreachable, as [`Node::port_refusal`] does.
    ///
    /// # Errors
    /// ENETDOWN if the node has ended, or this is a forked child.
    pub fn port_refusal(&self, port: u16) -> io::Result<Option<String>> {
        match &self.inner {
            Inner::Own(host) => host.run(move |node| node.port_refusal(port)),
            Inner::Shared(shared) => shared.port_refusal(port),
        }
    }

    /// Delivers what was sent, ends the program's sockets, and the node if no other program uses it: see
    /// [`Host::stop`].
    pub fn stop(&self, linger: Duration) -> bool {
        match &self.inner {
            Inner::Own(host) => host.stop(linger),
            Inner::Shared(shared) => shared.stop(linger),
        }
    }

    /// Does that for a process that is about to exit: see [`Host::finish`].
    pub fn finish(&self, linger: Option<Duration>) -> Option<String> {
        match &self.inner {
            Inner::Own(host) => host.finish(linger),
            Inner::Shared(shared) => {
                shared.finish(linger.map_or(Linger::Exit, Linger::Within)).map(loss_text)
            }
        }
    }

    /// Makes the process's exit no longer wait for anything of this node.
    pub fn give_up(&self) {
        match &self.inner {
            Inner::Own(host) => host.give_up(),
            Inner::Shared(shared) => shared.give_up(),
        }
    }
}

/// Returns true if another process has the state directory, which may be that of a node that just ends or
/// begins.
fn is_of_another(error: &StartError) -> bool {
    let own = std::process::id();
    let is_other = |holder: &Option<u32>| *holder != Some(own);
    matches!(error, StartError::State(StateError::InUse { holder, .. }) if is_other(holder))
}

/// Returns the reason in one line, with the advice of the node.
fn attach_text(error: &AttachError) -> String {
    match error {
        AttachError::Refused(refusal) => refusal_text(refusal),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use peersock::{IdentitySource, Interfaces};

    use super::*;

    #[test]
    fn a_directory_that_a_node_is_about_to_leave_is_waited_for() {
        let place = tempfile::tempdir().expect("room");
        let mut held = File::create(place.path().join("lock")).expect("a new file");
        held.lock().expect("a free lock");
        writeln!(held, "1").expect("room");
        let leaving = thread::spawn(move || {
            thread::sleep(Duration::from_millis(200));
            drop(held);
        });
        let identity = IdentitySource::StateDir(place.path().to_owned());
        let settings = Node::builder().identity(identity).interfaces(Interfaces::Loopback);
        let node = ProgramNode::start_with(settings, false, |_| None).expect("the directory is free soon");
        assert_eq!(node.process(), std::process::id());
        leaving.join().expect("no panic");
    }
}
