//! Node: one program's presence on its networks.

mod builder;
mod closing;
mod contact;
mod device;
mod echo_packet;
mod events;
mod forked;
mod joined;
mod machine;
mod managed;
#[cfg_attr(not(feature = "dht"), path = "no_meeting.rs")]
mod meeting;
mod nicknames;
mod patience;
mod peer_identity;
mod probe;
mod resolver;
mod root_list;
mod roots;
mod seat;
mod singleton;
mod status;
mod visit;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};

use peersock_datapath::{Device, Unanswered};
use peersock_overlay::{JoinError, NetworkId, NodeId, PublicIdentity};
use peersock_stack::{Batch, Error, Flow, Scope};

pub use builder::{IdentitySource, NodeBuilder, Seed, StartError};
pub use closing::{Undelivered, loss_text, say_loss};
pub use device::DeviceSender;
pub use events::{Event, Events, RootChanges};
pub use joined::Joined;
pub(crate) use managed::{
    Among, LocalNames, addresses_named, is_name_absent, known_addresses, of_network, search_name,
};
pub use managed::{MembershipStatus, Standing};
pub use patience::{Linger, Patience, Remaining};
pub use peer_identity::PeerIdentity;
pub(crate) use root_list::ask_lists;
#[cfg(feature = "dns")]
pub use root_list::listed_in;
pub use seat::{Answerer, MemberQuestion, Seat, SeatError};
pub use singleton::{current_node, node};
pub use status::{
    AttemptStatus, CandidateStatus, Conflict, ContactStatus, DhtStatus, FlowStatus, NetworkStatus,
    PeerStatus, Ports, Presence, ProgramStatus, RootListStatus, RootStatus, Status, Traffic, TurnStatus,
};

pub(crate) use self::closing::Closing;
use self::contact::Keeper;
use self::machine::Machine;
use self::meeting::Meetings;
use crate::config::{Network, RootSource};
use crate::driver::Driver;
use crate::management::ManagementServer;
use crate::socket::{Waited, port_refusal_text};
use crate::state::StateDir;
use crate::sync;
use crate::sys::process::Process;

/// Node: an identity with its networks, peers and sockets. A clone is another handle of the same node.
///
/// Most programs need one node, [`node()`]; tests and gateways may start several with [`Node::builder`].
///
/// When the last handle and the last socket are dropped, the node waits until all sent data is acknowledged,
/// at most five seconds without progress and ten minutes in all. Then it tells its peers goodbye and stops. A
/// loss is reported as a warning of [`tracing`], or on stderr if no subscriber takes warnings.
/// [`Node::shutdown`] does so at a time of your choice, and returns whether anything was lost.
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

/// State that all handles and sockets of a node share.
pub(crate) struct Inner {
    /// Process that owns the node: a forked child has a copy without its threads.
    process: Process,
    pub(crate) driver: Arc<Driver>,
    identity: PublicIdentity,
    closing: Closing,
    /// Sockets that may have waiters when the node is shut down. Connections are not included, because they
    /// fail by themselves.
    sockets: Mutex<Vec<Weak<dyn Waited>>>,
    /// Lock held while a network is joined or left, because the state of both cores, and of the search for
    /// members, changes in several steps.
    membership: Mutex<()>,
    /// Knowledge about each joined network that probes need.
    joined: Mutex<BTreeMap<NetworkId, probe::Known>>,
    /// Networks by the names that this machine gives them, beside those of `managed`.
    local_names: Mutex<LocalNames>,
    /// Networks that other programs of this user ask for; locked after `membership`.
    visits: Mutex<visit::Visits>,
    down: AtomicBool,
    started: Instant,
    management: Mutex<Option<ManagementServer>>,
    /// Settings of the contact search, until it begins.
    contact_settings: Mutex<Option<contact::Settings>>,
    keeper: OnceLock<Keeper>,
    meetings: OnceLock<Meetings>,
    /// Sources of roots.
    root_sources: OnceLock<root_list::RootLists>,
    /// Last results of the lists of roots.
    root_lists: Mutex<Vec<RootListStatus>>,
    /// Programs, for the status.
    programs: Mutex<Option<Programs>>,
    /// State of the managed networks.
    managed: Mutex<BTreeMap<NetworkId, Arc<managed::Shared>>>,
    /// Time until which the node waits for a program, for the status.
    waiting_until: Mutex<Option<Instant>>,
    /// IPv4 addresses under which programs see members that have none, for the status.
    ipv4_aliases: Mutex<BTreeMap<Ipv6Addr, BTreeSet<Ipv4Addr>>>,
    /// State directory, kept for its lock.
    state: Option<StateDir>,
    /// Machine beside whose node this one runs.
    machine: Option<Machine>,
}

/// List of the programs that use a node.
type Programs = Arc<dyn Fn() -> Vec<ProgramStatus> + Send + Sync>;

impl Inner {
    /// Returns the local names of networks that were joined with one.
    pub(crate) fn local_names(&self) -> LocalNames {
        sync::lock(&self.local_names).clone()
    }
}

impl Node {
    /// Returns settings for a node.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Returns the node's ID: the hash of its public keys.
    pub fn id(&self) -> NodeId {
        self.inner.identity.node_id()
    }

    /// Returns the node's public keys.
    pub fn public_identity(&self) -> PublicIdentity {
        self.inner.identity
    }

    /// Joins a network. Its sockets can be opened at once; peers are found in the background. The node also
    /// uses the [roots](Network::roots) of the network's file or invite, even after it has left the network.
    /// If the same root was [added](Node::add_roots) with other endpoints, those count.
    ///
    /// # Errors
    /// Returns a [`JoinError`] if the network is already joined or its kind is not supported.
    pub fn join(&self, network: Network) -> Result<Joined, JoinError> {
        match self.join_for(network.clone(), None, false) {
            // Joined for another program's question alone, which this one joins.
            Err(JoinError::AlreadyJoined(id)) => {
                self.take_over(&network)?.ok_or(JoinError::AlreadyJoined(id))
            }
            joined => joined,
        }
    }

    /// Joins a network, for a device of the machine or for sockets, and as a `visit` if only another
    /// program's question needs it.
    fn join_for(
        &self,
        network: Network,
        device: Option<Arc<dyn Device>>,
        is_visit: bool,
    ) -> Result<Joined, JoinError> {
        // Before `into_config`, which drops host names and roots.
        let (hosts, roots) = (network.hosts_of_others(&self.inner.identity), network.roots().to_vec());
        let (guide, local_name) = (network.guide(), network.local_name().cloned());
        let now = Instant::now();
        let mut config = network.into_config();
        let record = match &self.inner.machine {
            Some(machine) => machine.complete(&mut config, &self.id())?,
            None => managed::complete(&mut config, self.inner.state.as_ref())?,
        };
        let kept: Vec<_> = record.iter().flat_map(|record| record.roots.clone()).collect();
        let (id, key) = (config.id(), config.discovery_key());
        let mut known = probe::Known::new(&key);
        let device = device.map(|device| known.listen(device));
        let _membership = sync::lock(&self.inner.membership);
        let (datapath, mut batch) = (&self.inner.driver.datapath, Batch::default());
        // Before the join, so that no event is missed.
        let events = datapath.subscribe();
        let joined = match device {
            None => datapath.join(now, config, &mut batch)?,
            Some(device) => datapath.join_device(now, config, device, &mut batch)?,
        };
        sync::lock(&self.inner.joined).insert(id, known);
        if let Some(name) = &local_name {
            // Members of an ad-hoc network have no names, so that names of hosts may end as it is called.
            if id.admits_programs() {
                sync::lock(&self.inner.local_names).entry(name.clone()).or_insert(id);
            }
        }
        if is_visit {
            sync::lock(&self.inner.visits).note_joined(id);
        }
        self.inner.driver.kick();
        if let Some(meetings) = self.inner.meetings.get() {
            meetings.join(&joined, key);
        }
        machine::start(&self.inner, &joined, Arc::clone(&events));
        managed::start(&self.inner, &joined, events, record, guide);
        resolver::start(self, &joined, hosts, Box::new(resolver::ask_system));
        self.add_roots_of_network(roots, kept);
        Ok(Joined::new(self.clone(), joined))
    }

    /// Leaves a network: its peers are notified, its connections are reset, and its sockets fail with
    /// `NetworkDown` (ENETDOWN), connections once. Returns false if it was not joined.
    pub fn leave(&self, id: NetworkId) -> bool {
        let _membership = sync::lock(&self.inner.membership);
        sync::lock(&self.inner.visits).note_left(id);
        self.leave_locked(id)
    }

    /// Leaves a network. The lock of `membership` is held.
    fn leave_locked(&self, id: NetworkId) -> bool {
        let datapath = &self.inner.driver.datapath;
        if let (Some(meetings), Some(network)) = (self.inner.meetings.get(), datapath.network(id)) {
            meetings.leave(network.index);
        }
        sync::lock(&self.inner.joined).remove(&id);
        sync::lock(&self.inner.local_names).retain(|_, named| *named != id);
        let managed = sync::lock(&self.inner.managed).remove(&id);
        if let Some(managed) = managed {
            managed.close(&self.inner);
        }
        datapath.leave(Instant::now(), id, &mut Batch::default())
    }

    /// Returns the joined networks, in the order of joining.
    pub fn networks(&self) -> Vec<Joined> {
        let networks = self.inner.driver.datapath.networks();
        networks.iter().map(|network| Joined::new(self.clone(), network.clone())).collect()
    }

    /// Returns a network that was joined.
    pub fn network(&self, id: NetworkId) -> Option<Joined> {
        Some(Joined::new(self.clone(), self.inner.driver.datapath.network(id)?))
    }

    /// Returns the peers known now, in every network.
    pub fn peers(&self) -> Vec<PeerStatus> {
        status::peers(&self.inner)
    }

    /// Returns the roots of this node, in the order in which they were given, followed by roots that others
    /// have named.
    pub fn roots(&self) -> Vec<RootStatus> {
        status::roots(&self.inner)
    }

    /// Returns the whole state of the node.
    pub fn status(&self) -> Status {
        status::collect(&self.inner)
    }

    /// Uses the roots of more sources, after the [roots of the builder](NodeBuilder::roots). At most eight
    /// roots are used, and of these at most four domains' are asked for. Returns false if some are left out
    /// for that.
    pub fn add_roots(&self, sources: impl IntoIterator<Item = impl Into<RootSource>>) -> bool {
        let sources = sources.into_iter().map(Into::into).collect();
        self.inner.root_sources.get().is_some_and(|lists| lists.add(&self.inner, sources))
    }

    /// Uses the roots of a network, behind those that were named for the node: those that an invite or a file
    /// names `now`, and `kept` ones.
    fn add_roots_of_network(&self, now: Vec<RootSource>, kept: Vec<RootSource>) {
        if let Some(lists) = self.inner.root_sources.get().filter(|_| !now.is_empty() || !kept.is_empty()) {
            lists.add_of_network(&self.inner, now, kept);
        }
    }

    /// Sets the function that lists the programs for each [status](Node::status). It must not call the node.
    pub fn set_programs(&self, programs: impl Fn() -> Vec<ProgramStatus> + Send + Sync + 'static) {
        *sync::lock(&self.inner.programs) = Some(Arc::new(programs));
    }

    /// Sets the time for the [status](Node::status) until which the node waits for a program before it ends.
    /// `None`, the default, is for a node that does not end for lack of programs.
    pub fn set_waiting_until(&self, until: Option<Instant>) {
        *sync::lock(&self.inner.waiting_until) = until;
    }

    /// Stops using roots that were named by their keys. Lists of roots (`dns:DOMAIN`, `lan`) stay.
    pub fn remove_roots(&self, sources: &[RootSource]) {
        if let Some(lists) = self.inner.root_sources.get() {
            lists.remove(sources);
        }
    }

    /// Returns the last results of the lists of roots that the node follows (`dns:DOMAIN`, `lan`), in the
    /// order of their first results. A list without a result yet is missing.
    pub fn root_lists(&self) -> Vec<RootListStatus> {
        sync::lock(&self.inner.root_lists).clone()
    }

    /// Returns the events from now on.
    pub fn events(&self) -> Events {
        Events::new(self.inner.driver.datapath.subscribe())
    }

    /// Returns the changes of the [roots](Node::roots) from now on.
    pub fn root_changes(&self) -> RootChanges {
        RootChanges::new(self.inner.driver.datapath.subscribe_to_roots())
    }

    /// Returns a receiver of the addresses that do not answer from now on, one message for each time that a
    /// packet or connection has waited in vain. It holds 64; further ones are dropped until some are read. A
    /// new receiver ends the earlier one.
    pub fn unanswered(&self) -> mpsc::Receiver<Unanswered> {
        self.inner.driver.datapath.unanswered()
    }

    /// Returns the reason why a TCP listener at `port` is unreachable, with the ports that the networks
    /// allow; `None` if one of them allows it, or none is joined.
    pub fn port_refusal(&self, port: u16) -> Option<String> {
        let datapath = &self.inner.driver.datapath;
        (!datapath.stack().allows_port(&Scope::default(), port))
            .then(|| port_refusal_text(port, &datapath.networks()))
    }

    /// Waits up to `linger` for undelivered data of all sockets, closed ones or not. Then resets open
    /// connections, tells the peers goodbye and stops the node's thread. Returns true if nothing was lost,
    /// see [`Node::undelivered`].
    ///
    /// Every later call that sends, receives, connects or accepts on the node's sockets fails with
    /// `NetworkDown` (ENETDOWN), as in C and Python. Waiting calls fail at once, however long the node
    /// lingers. A connection that is dropped after that is also reset, after its written data. Another call
    /// does nothing.
    pub fn shutdown(&self, linger: Duration) -> bool {
        let is_delivered = self.inner.shutdown(&mut Patience::new(Linger::Within(linger), Instant::now()));
        // Afterwards the state directory is free as soon as the last handle is dropped.
        let managed = sync::lock(&self.inner.managed).clone();
        managed.values().for_each(|shared| shared.wait_ended());
        is_delivered
    }

    /// Returns the data that was lost without an error of any call. These are losses of connections that were
    /// dropped before their peer had everything, and that failed then or had failed unnoticed. Once the node
    /// is shut down, truncated data counts, too. A connection that wrote nothing, or that reported an error
    /// of `read`, `write`, `shutdown` or `wait_delivered`, does not count.
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

/// Limit of members whose IPv4 aliases are noted for the status.
const MAX_IPV4_ALIASES: usize = 4096;

impl Inner {
    pub(crate) fn note_ipv4_alias(&self, of: Ipv6Addr, alias: Ipv4Addr) {
        let mut all = sync::lock(&self.ipv4_aliases);
        // Identities cost nothing, so one party could have many in an open network.
        if all.len() < MAX_IPV4_ALIASES || all.contains_key(&of) {
            all.entry(of).or_default().insert(alias);
        }
    }

    /// Returns true if the node is shut down.
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

    /// Remembers a closed flow until its queue is delivered.
    pub(crate) fn add_closing(&self, flow: &Arc<Flow>) {
        self.closing.add(flow);
    }

    /// Returns the closed connections that have undelivered data.
    pub(crate) fn closing(&self) -> Vec<Arc<Flow>> {
        self.closing.flows()
    }

    /// Remembers a socket as long as it lives.
    pub(crate) fn add_socket<S: Waited + 'static>(&self, socket: &Arc<S>) {
        let mut sockets = sync::lock(&self.sockets);
        // Cleaned up only when full, so that adding costs amortized constant time.
        if sockets.len() == sockets.capacity() {
            sockets.retain(|socket| socket.strong_count() > 0);
        }
        let weak: Weak<S> = Arc::downgrade(socket);
        sockets.push(weak);
    }

    /// Starts the search for this node's contact, because remote peers will need it.
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
        // Waiters must not wait as long as the node lingers. No lock is held here, because a woken task may
        // run at once.
        let sockets: Vec<_> = sync::lock(&self.sockets).iter().filter_map(Weak::upgrade).collect();
        sockets.iter().for_each(|socket| socket.waiters().notify_all());
        for flow in self.driver.datapath.stack().all_flows() {
            Waited::waiters(&*flow).notify_all();
        }
        let drained = self.drain(patience);
        self.closing.give_up(self.driver.datapath.stack());
        // Threads stop before the networks are left: one of them may be about to send the acknowledgement
        // that a peer waits for.
        self.driver.stop();
        let (now, mut batch) = (Instant::now(), Batch::default());
        // A concurrent join must not add a network after this loop.
        let membership = sync::lock(&self.membership);
        let managed = sync::lock(&self.managed).clone();
        managed.values().for_each(|managed| managed.close(self));
        for network in self.driver.datapath.networks().iter() {
            self.driver.datapath.leave(now, network.id, &mut batch);
        }
        drop(membership);
        self.driver.datapath.set_roots(now, Vec::new(), &mut batch);
        // The port mappings end after the goodbyes, which may need them.
        if let Some(keeper) = self.keeper.get() {
            keeper.stop();
        }
        self.driver.stop_turn();
        self.driver.stop_streams();
        let sockets = std::mem::take(&mut *sync::lock(&self.sockets));
        for socket in sockets.iter().filter_map(Weak::upgrade) {
            socket.waiters().notify_all();
        }
        self.driver.datapath.end_subscriptions();
        drained && self.closing.lost().is_empty()
    }

    /// Returns the data that was lost without an error of any call.
    pub(crate) fn lost(&self) -> Undelivered {
        self.closing.lost()
    }

    /// Waits until every closed flow has delivered its queue and its FIN, and the others their queues. The
    /// engine thread does the work.
    fn drain(&self, patience: &mut Patience) -> bool {
        loop {
            let now = Instant::now();
            let left = self.closing.remaining(self.driver.datapath.stack(), now);
            if patience.is_over(now, &left) {
                return (left.bytes, left.ends) == (0, 0);
            }
            std::thread::sleep(DRAIN_POLL_INTERVAL);
        }
    }
}

/// Interval of the checks for the end of a delivery.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(1);

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
