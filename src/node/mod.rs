//! The node: one program's presence on its networks.

mod builder;
mod closing;
mod contact;
mod device;
mod events;
mod forked;
mod joined;
#[cfg_attr(not(feature = "dht"), path = "no_meeting.rs")]
mod meeting;
mod nicknames;
mod patience;
mod resolver;
mod root_list;
mod roots;
mod singleton;
mod status;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};

use peersock_datapath::{Device, Unanswered};
use peersock_overlay::{JoinError, NetworkId, NodeId, PublicIdentity};
use peersock_stack::{Batch, Error, Flow};

pub use builder::{IdentitySource, NodeBuilder, Seed, StartError};
pub use closing::{Undelivered, loss_text, say_loss};
pub use device::DeviceSender;
pub use events::{Event, Events, RootChanges};
pub use joined::Joined;
pub use patience::{Linger, Patience, Remaining};
pub(crate) use root_list::ask_lists;
#[cfg(feature = "dns")]
pub use root_list::listed_in;
pub use singleton::{current_node, node};
pub use status::{
    AttemptStatus, CandidateStatus, Conflict, ContactStatus, DhtStatus, FlowStatus, NetworkStatus,
    PeerStatus, Ports, Presence, RootListStatus, RootStatus, Status, Traffic, TurnStatus,
};

use self::closing::Closing;
use self::contact::Keeper;
use self::meeting::Meetings;
use crate::config::Network;
use crate::driver::Driver;
use crate::management::ManagementServer;
use crate::socket::{Waited, port_refusal_text};
use crate::state::StateDir;
use crate::sync;
use crate::sys::process::Process;

/// A node: an identity with its networks, peers and sockets. Cloning gives another handle of the same node.
///
/// Most programs need one node, [`node()`]; tests and gateways may start several with [`Node::builder`].
///
/// When the last handle and the last socket are dropped, the node waits until everything that was sent is
/// acknowledged, but no longer than five seconds without progress and ten minutes in all, tells its peers
/// goodbye and stops. What was lost is a warning of [`tracing`], or, if nobody takes warnings, a line on
/// stderr. [`Node::shutdown`] does so at a time of your choice, and returns whether anything was lost.
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
    /// Whose the node is: a forked child has a copy, and no thread of it.
    process: Process,
    pub(crate) driver: Arc<Driver>,
    identity: PublicIdentity,
    closing: Closing,
    /// Sockets that somebody may still wait for when the node is shut down. Connections are not among them:
    /// they fail.
    sockets: Mutex<Vec<Weak<dyn Waited>>>,
    /// Held while a network is joined or left: what both cores, and the search for members, know of it
    /// changes in several steps.
    membership: Mutex<()>,
    down: AtomicBool,
    started: Instant,
    management: Mutex<Option<ManagementServer>>,
    /// What the search for this node's own place needs, until it begins.
    contact_settings: Mutex<Option<contact::Settings>>,
    keeper: OnceLock<Keeper>,
    meetings: OnceLock<Meetings>,
    /// What lists of roots have said last.
    root_lists: Mutex<Vec<RootListStatus>>,
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
        self.join_for(network, None)
    }

    fn join_for(&self, network: Network, device: Option<Arc<dyn Device>>) -> Result<Joined, JoinError> {
        let hosts = network.hosts_of_others(&self.inner.identity);
        let now = Instant::now();
        let config = network.into_config();
        let key = config.discovery_key();
        let _membership = sync::lock(&self.inner.membership);
        let (datapath, mut batch) = (&self.inner.driver.datapath, Batch::default());
        let joined = match device {
            None => datapath.join(now, config, &mut batch)?,
            Some(device) => datapath.join_device(now, config, device, &mut batch)?,
        };
        self.inner.driver.kick();
        if let Some(meetings) = self.inner.meetings.get() {
            meetings.join(&joined, key);
        }
        resolver::start(self, &joined, hosts, Box::new(resolver::ask_system));
        Ok(Joined::new(self.clone(), joined))
    }

    /// Leaves a network: peers are told, its connections are reset, and its sockets fail with `NetworkDown`
    /// (ENETDOWN), connections once.
    /// False if it was not joined.
    pub fn leave(&self, id: NetworkId) -> bool {
        let _membership = sync::lock(&self.inner.membership);
        let datapath = &self.inner.driver.datapath;
        if let (Some(meetings), Some(network)) = (self.inner.meetings.get(), datapath.network(id)) {
            meetings.leave(network.index);
        }
        datapath.leave(Instant::now(), id, &mut Batch::default())
    }

    /// The joined networks, in the order of joining.
    pub fn networks(&self) -> Vec<Joined> {
        let networks = self.inner.driver.datapath.networks();
        networks.iter().map(|network| Joined::new(self.clone(), network.clone())).collect()
    }

    /// A network that was joined.
    pub fn network(&self, id: NetworkId) -> Option<Joined> {
        Some(Joined::new(self.clone(), self.inner.driver.datapath.network(id)?))
    }

    /// The peers known now, in every network.
    pub fn peers(&self) -> Vec<PeerStatus> {
        status::peers(&self.inner)
    }

    /// The roots of this node, in the order in which they were given, and behind them those that others have
    /// named.
    pub fn roots(&self) -> Vec<RootStatus> {
        status::roots(&self.inner)
    }

    /// Everything worth knowing about the node now.
    pub fn status(&self) -> Status {
        status::collect(&self.inner)
    }

    /// What the lists of roots that the node follows (`dns:DOMAIN`, `lan`) have said last, in the order in
    /// which they have first said something. A list that was not yet heard is missing.
    pub fn root_lists(&self) -> Vec<RootListStatus> {
        sync::lock(&self.inner.root_lists).clone()
    }

    /// The events from now on.
    pub fn events(&self) -> Events {
        Events::new(self.inner.driver.datapath.subscribe())
    }

    /// Waits for changes of the [roots](Node::roots) from now on.
    pub fn root_changes(&self) -> RootChanges {
        RootChanges::new(self.inner.driver.datapath.subscribe_to_roots())
    }

    /// Returns a receiver of the addresses for which something has waited in vain from now on, one message
    /// for each time. It holds 64; further ones are dropped until some are read. A new receiver ends the one
    /// before.
    ///
    /// ```
    /// # use peersock::{IdentitySource, Interfaces, Network, Node};
    /// # let node = Node::builder().identity(IdentitySource::Ephemeral);
    /// # let node = node.interfaces(Interfaces::Loopback).start()?;
    /// let unanswered = node.unanswered();
    /// std::thread::spawn(move || {
    ///     for one in unanswered {
    ///         eprintln!("{} does not answer in network {}", one.address, one.network);
    ///     }
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unanswered(&self) -> mpsc::Receiver<Unanswered> {
        self.inner.driver.datapath.unanswered()
    }

    /// Says why nobody could reach a TCP listener at `port`, naming the ports that the networks allow; `None`
    /// if one of them allows it, or none is joined.
    ///
    /// ```
    /// use peersock::{IdentitySource, Interfaces, Network, Node};
    ///
    /// let node = Node::builder().identity(IdentitySource::Ephemeral);
    /// let node = node.interfaces(Interfaces::Loopback).start()?;
    /// node.join(Network::ad_hoc("ff13881393000000".parse()?))?;
    /// assert_eq!(node.port_refusal(5001), None);
    /// let text = node.port_refusal(80).expect("it allows others");
    /// assert_eq!(text, "port 80 is not allowed: network ff13881393000000 allows ports 5000 to 5011");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn port_refusal(&self, port: u16) -> Option<String> {
        let datapath = &self.inner.driver.datapath;
        (!datapath.stack().allows_port(port)).then(|| port_refusal_text(port, &datapath.networks()))
    }

    /// Waits up to `linger` for what sockets still have to deliver, closed ones or not, then resets what is
    /// open, tells the peers goodbye and stops the node's thread. True if nothing was lost, see
    /// [`Node::undelivered`].
    ///
    /// Every later call that sends, receives, connects or accepts on the node's sockets fails with
    /// `NetworkDown` (ENETDOWN), as in C and Python, and those that wait fail at once, however long the node
    /// lingers. A connection that is dropped after that is reset all the same, after what was written to it.
    /// Calling this again does nothing.
    pub fn shutdown(&self, linger: Duration) -> bool {
        self.inner.shutdown(&mut Patience::new(Linger::Within(linger), Instant::now()))
    }

    /// What was lost without any call having said so: by connections that were dropped before their peer had
    /// everything, and that failed then or had failed before unnoticed. Once the node is shut down, also what
    /// was cut off. A connection that wrote nothing, or that has told by an error of `read`, `write`,
    /// `shutdown` or
    /// `wait_delivered`, does not count.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use peersock::{IdentitySource, Interfaces, Node};
    /// # let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    /// let node = builder.start()?;
    /// if !node.shutdown(Duration::from_secs(5)) {
    ///     let lost = node.undelivered();
    ///     eprintln!("{} connections have lost data, {} bytes at least", lost.connections, lost.bytes);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn undelivered(&self) -> Undelivered {
        self.inner.lost()
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
    /// Whether it is shut down.
    fn is_down(&self) -> bool {
        self.down.load(Ordering::SeqCst)
    }

    /// Fails once the node is shut down.
    pub(crate) fn check_up(&self) -> io::Result<()> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::NetworkDown.into());
        }
        Ok(())
    }

    /// Remembers a closed flow until what it has queued is delivered.
    pub(crate) fn add_closing(&self, flow: &Arc<Flow>) {
        self.closing.add(flow);
    }

    /// The closed connections that have something to deliver.
    pub(crate) fn closing(&self) -> Vec<Arc<Flow>> {
        self.closing.flows()
    }

    /// Remembers a socket for as long as it lives.
    pub(crate) fn add_socket<S: Waited + 'static>(&self, socket: &Arc<S>) {
        let mut sockets = sync::lock(&self.sockets);
        if sockets.len() == sockets.capacity() {
            sockets.retain(|socket| socket.strong_count() > 0);
        }
        let weak: Weak<S> = Arc::downgrade(socket);
        sockets.push(weak);
    }

    /// Finds out from now on where this node can be reached, because somebody far away will want to know.
    fn keep_contact(self: &Arc<Self>) {
        let Some(settings) = sync::lock(&self.contact_settings).take() else { return };
        let publisher = self.meetings.get().map(Meetings::publisher);
        let publish = publisher.unwrap_or_else(|| Box::new(|_| ()));
        match Keeper::start(self, settings, publish) {
            Ok(keeper) => _ = self.keeper.set(keeper),
            Err(error) => tracing::warn!(%error, "peers will not be told where this node can be reached"),
        }
    }

    pub(crate) fn shutdown(&self, patience: &mut Patience) -> bool {
        if self.process.is_forked() {
            self.leave_to_parent();
            return true;
        }
        if self.down.swap(true, Ordering::SeqCst) {
            return self.closing.lost().is_empty();
        }
        drop(sync::lock(&self.management).take());
        if let Some(meetings) = self.meetings.get() {
            meetings.stop();
        }
        // Who waits need not wait as long as the node lingers. No lock is held: a task may go on at once.
        let sockets: Vec<_> = sync::lock(&self.sockets).iter().filter_map(Weak::upgrade).collect();
        sockets.iter().for_each(|socket| socket.waiters().notify(true, true));
        for flow in self.driver.datapath.stack().all_flows() {
            Waited::waiters(&*flow).notify(true, true);
        }
        let drained = self.drain(patience);
        self.closing.give_up(self.driver.datapath.stack());
        // First the threads: one of them may be about to send the acknowledgement that a peer waits for.
        self.driver.stop();
        let (now, mut batch) = (Instant::now(), Batch::default());
        let membership = sync::lock(&self.membership);
        for network in self.driver.datapath.networks().iter() {
            self.driver.datapath.leave(now, network.id, &mut batch);
        }
        drop(membership);
        self.driver.datapath.set_roots(now, Vec::new(), &mut batch);
        // After the goodbyes, which may need a port that a router forwards.
        if let Some(keeper) = self.keeper.get() {
            keeper.stop();
        }
        self.driver.stop_turn();
        self.driver.stop_streams();
        let sockets = std::mem::take(&mut *sync::lock(&self.sockets));
        for socket in sockets.iter().filter_map(Weak::upgrade) {
            socket.waiters().notify(true, true);
        }
        self.driver.datapath.end_subscriptions();
        drained && self.closing.lost().is_empty()
    }

    /// What was lost without any call having said so.
    pub(crate) fn lost(&self) -> Undelivered {
        self.closing.lost()
    }

    /// Waits until every closed flow has delivered its queue and its FIN, and the others their queues; the
    /// engine thread does the work.
    fn drain(&self, patience: &mut Patience) -> bool {
        loop {
            let now = Instant::now();
            let left = self.closing.remaining(self.driver.datapath.stack(), now);
            if patience.is_over(now, &left) {
                return (left.bytes, left.ends) == (0, 0);
            }
            std::thread::sleep(DRAIN_LOOK);
        }
    }
}

/// How often a shutdown looks whether everything is delivered.
const DRAIN_LOOK: Duration = Duration::from_millis(1);

impl Drop for Inner {
    fn drop(&mut self) {
        if self.process.is_forked() {
            return self.forget_management();
        }
        let was_up = !self.is_down();
        if self.shutdown(&mut Patience::new(Linger::Drop, Instant::now())) || !was_up {
            return;
        }
        let Undelivered { connections, bytes } = self.closing.lost();
        if tracing::enabled!(tracing::Level::WARN) {
            tracing::warn!(connections, bytes, "the node has ended before everything was delivered");
        } else {
            say_loss(bytes);
        }
    }
}
