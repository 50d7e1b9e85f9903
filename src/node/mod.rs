//! The node: one program's presence on its networks.

mod builder;
mod events;
mod joined;
mod singleton;
mod status;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::{Duration, Instant};

use peersock_overlay::{JoinError, NetworkId, NodeId, PublicIdentity};
use peersock_stack::{Batch, Flow};

pub use builder::{IdentitySource, NodeBuilder, Seed, StartError};
pub use events::{Event, Events};
pub use joined::Joined;
pub use singleton::node;
pub use status::{FlowStatus, NetworkStatus, PeerStatus, Status, Traffic};

use crate::config::Network;
use crate::control::ControlServer;
use crate::datapath::is_drained;
use crate::driver::Driver;
use crate::socket::{NameTable, Waited};
use crate::state::StateDir;

/// How long dropping the last handle of a node waits for what was sent to be acknowledged.
const DEFAULT_LINGER: Duration = Duration::from_secs(5);

/// A node: an identity with its networks, peers and sockets. Cloning gives another handle of the same node.
///
/// Most programs need one node, [`node()`]; tests and gateways may start several with [`Node::builder`].
///
/// When the last handle and the last socket are dropped, the node waits up to five seconds for everything that was
/// sent to be acknowledged, tells its peers goodbye and stops. [`Node::shutdown`] does so at a time of your choice.
///
/// ```
/// use peersock::{IdentitySource, Interfaces, Network, Node};
///
/// let node = Node::builder()
///     .identity(IdentitySource::Ephemeral)
///     .interfaces(Interfaces::Loopback)
///     .start()?;
/// let network = node.join(Network::ad_hoc("ff00500050000000".parse()?))?;
/// println!("I am {} at {}", node.id(), network.address());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

/// What all handles and sockets of a node share.
pub(crate) struct Inner {
    pub(crate) driver: Arc<Driver>,
    identity: PublicIdentity,
    pub(crate) names: RwLock<NameTable>,
    /// Closed connections that may still have bytes to deliver.
    closing: Mutex<Vec<Weak<Flow>>>,
    /// Sockets that somebody may still wait for when the node is shut down. Connections are not among them: they fail.
    sockets: Mutex<Vec<Weak<dyn Waited>>>,
    down: AtomicBool,
    started: Instant,
    control: Mutex<Option<ControlServer>>,
    /// Held for its lock on the directory.
    state: Option<StateDir>,
}

impl Node {
    /// Settings for a node, to be started.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// The node's ID: the hash of its public keys.
    pub fn id(&self) -> NodeId {
        self.inner.identity.node_id()
    }

    /// The node's public keys.
    pub fn public_identity(&self) -> PublicIdentity {
        self.inner.identity
    }

    /// Joins a network. Its sockets can be opened at once; peers are found in the background.
    ///
    /// # Errors
    /// [`JoinError`] when the network is joined already or its kind is not supported.
    pub fn join(&self, network: Network) -> Result<Joined, JoinError> {
        let names = NameTable::of(&network);
        let now = Instant::now();
        let joined = self.inner.driver.datapath.join(now, network.into_config(), &mut Batch::default())?;
        self.inner.names.write().expect("no panic under this lock").extend(names);
        self.inner.driver.kick();
        Ok(Joined::new(self.clone(), joined))
    }

    /// Leaves a network: peers are told, its connections are reset and its other sockets fail with ENETDOWN. False if it was not joined.
    pub fn leave(&self, id: NetworkId) -> bool {
        self.inner.names.write().expect("no panic under this lock").remove(id);
        self.inner.driver.datapath.leave(Instant::now(), id, &mut Batch::default())
    }

    /// The joined networks, in the order of joining.
    pub fn networks(&self) -> Vec<Joined> {
        let networks = self.inner.driver.datapath.networks();
        networks.into_iter().map(|network| Joined::new(self.clone(), network)).collect()
    }

    /// A network that was joined.
    pub fn network(&self, id: NetworkId) -> Option<Joined> {
        self.networks().into_iter().find(|network| network.id() == id)
    }

    /// The peers known now, in every network.
    pub fn peers(&self) -> Vec<PeerStatus> {
        status::peers(&self.inner)
    }

    /// Everything worth knowing about the node now.
    pub fn status(&self) -> Status {
        status::collect(&self.inner)
    }

    /// The events from now on.
    pub fn events(&self) -> Events {
        Events::new(self.inner.driver.datapath.subscribe())
    }

    /// Waits up to `linger` for what closed sockets still have to deliver, then resets what is open, tells the peers
    /// goodbye and stops the node's thread. True if nothing was left undelivered.
    ///
    /// Every later call on the node's sockets fails with `NotConnected`. Calling this again does nothing.
    pub fn shutdown(&self, linger: Duration) -> bool {
        self.inner.shutdown(linger)
    }

    pub(crate) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("id", &self.identity.node_id()).finish_non_exhaustive()
    }
}

impl Inner {
    /// Fails once the node is shut down.
    pub(crate) fn check_up(&self) -> io::Result<()> {
        if self.down.load(Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the node has been shut down"));
        }
        Ok(())
    }

    /// Remembers a closed flow until what it has queued is delivered.
    pub(crate) fn add_closing(&self, flow: &Arc<Flow>) {
        let mut closing = self.closing.lock().expect("no panic under this lock");
        closing.retain(|flow| flow.upgrade().is_some_and(|flow| !is_drained(&flow)));
        closing.push(Arc::downgrade(flow));
    }

    /// Remembers a socket for as long as it lives.
    pub(crate) fn add_socket<S: Waited + 'static>(&self, socket: &Arc<S>) {
        let mut sockets = self.sockets.lock().expect("no panic under this lock");
        if sockets.len() == sockets.capacity() {
            sockets.retain(|socket| socket.strong_count() > 0);
        }
        let weak: Weak<S> = Arc::downgrade(socket);
        sockets.push(weak);
    }

    fn shutdown(&self, linger: Duration) -> bool {
        if self.down.swap(true, Ordering::SeqCst) {
            return true;
        }
        drop(self.control.lock().expect("no panic under this lock").take());
        let drained = self.drain(linger);
        // First the threads: one of them may be about to send the acknowledgement that a peer waits for.
        self.driver.stop();
        let (now, mut batch) = (Instant::now(), Batch::default());
        for network in self.driver.datapath.networks() {
            self.driver.datapath.leave(now, network.id, &mut batch);
        }
        for socket in self.sockets.lock().expect("no panic under this lock").drain(..) {
            if let Some(socket) = socket.upgrade() {
                socket.waiters().notify(true, true);
            }
        }
        self.driver.datapath.end_subscriptions();
        drained
    }

    /// Waits until every closed flow has delivered its queue and its FIN; the engine thread does the work.
    fn drain(&self, linger: Duration) -> bool {
        let deadline = Instant::now() + linger;
        loop {
            let drained = {
                let mut closing = self.closing.lock().expect("no panic under this lock");
                closing.retain(|flow| flow.upgrade().is_some_and(|flow| !is_drained(&flow)));
                closing.is_empty()
            };
            if drained || Instant::now() >= deadline {
                return drained;
            }
            std::thread::sleep(DRAIN_LOOK);
        }
    }
}

/// How often a shutdown looks whether everything is delivered.
const DRAIN_LOOK: Duration = Duration::from_millis(1);

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown(DEFAULT_LINGER);
    }
}
