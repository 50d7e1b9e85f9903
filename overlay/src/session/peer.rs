use std::any::Any;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, Instant};

use super::activity::Activity;
use super::{SealError, Session};
use crate::id::{NetworkId, NodeId, PublicIdentity};
use crate::network::{NetworkIndex, PeerDescription, Policy, Prefix};
use crate::reach::{Path, RecvMeta};
use crate::sync;
use crate::wire::DATA_OVERHEAD;

/// One peer in one network, as the data path sees it. Control, sessions and driver share it by `Arc`.
///
/// The peer and its current session reference each other; control breaks that cycle when it removes the peer.
pub struct Peer {
    id: NodeId,
    identity: PublicIdentity,
    network: NetworkIndex,
    /// Addresses and blocks of the peer, the self-certifying address first. They change seldom, and are read
    /// with every batch.
    prefixes: RwLock<Arc<[Prefix]>>,
    link: RwLock<Link>,
    receive_buffer: AtomicU32,
    forgotten: AtomicBool,
    known: RwLock<Known>,
    /// False until the peer has shown credentials, in a network that needs them.
    admitted: AtomicBool,
    /// True while this node is removed from the network, so that no packet to the peer would pass.
    cut_off: AtomicBool,
    activity: Activity,
    /// Number of [`Watch`]es of the peer.
    watches: AtomicUsize,
    watched: Watched,
    context: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// Answers of the network about a peer, under one lock because each takes memory.
struct Known {
    /// Member beside whose node the peer is, if it is a program's.
    machine: Option<Box<PublicIdentity>>,
    described: Described,
}

/// Present description of a peer by its network.
enum Described {
    /// Nothing but a name, which is empty if there is none: so most members take little memory.
    Named(Box<str>),
    /// More than that. It is replaced as a whole, so that connections keep the one of their beginning.
    Whole(Arc<PeerDescription>),
}

/// Present way to the peer.
#[derive(Default)]
struct Link {
    session: Option<Arc<Session>>,
    path: Option<Path>,
}

/// A peer's current session and path, taken together.
///
/// Valid for one batch; call [`Peer::sender`] again for the next.
#[derive(Clone)]
pub struct Sender {
    /// Session that seals the packets.
    pub session: Arc<Session>,
    /// Path that the packets take.
    pub path: Path,
    is_unasked: bool,
}

impl Sender {
    /// Returns the number of bytes that [`Sender::seal`] adds to a packet.
    pub fn overhead(&self) -> usize {
        DATA_OVERHEAD + self.path.place.overhead()
    }

    /// Seals a packet as [`Session::seal`] does, behind the header that its place needs, and returns the
    /// total length. The result goes to [`Path::remote`] in one datagram.
    /// Fails with the errors of [`Session::seal`], also if `out` has no room for the header.
    pub fn seal(&self, packet: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let Some(header) = self.path.place.relay() else { return self.seal_packet(packet, out) };
        let (front, rest) = out.split_first_chunk_mut().ok_or(SealError::NoRoom)?;
        *front = header.to_bytes();
        Ok(front.len() + self.seal_packet(packet, rest)?)
    }

    fn seal_packet(&self, packet: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        match self.is_unasked {
            true => self.session.seal_unasked(packet, out),
            false => self.session.seal(packet, out),
        }
    }

    /// Returns the same for packets that no program sends: resets and ICMP messages that answer the peer's
    /// packets, and reports of groups. The peer need not answer such packets, so none is expected. A peer
    /// that gets only such packets does not count as used by this node.
    pub fn unasked(self) -> Self {
        Self { is_unasked: true, ..self }
    }
}

impl Peer {
    /// Creates a peer that is not reachable yet. `addresses` excludes the self-certifying one.
    pub(crate) fn new(
        identity: PublicIdentity,
        network: NetworkIndex,
        network_id: NetworkId,
        addresses: &[IpAddr],
        watched: Watched,
        now: Instant,
    ) -> Self {
        let id = identity.node_id();
        let certified = IpAddr::V6(network_id.address_of(&id));
        Self {
            id,
            identity,
            network,
            prefixes: RwLock::new(
                std::iter::once(&certified).chain(addresses).map(|&one| one.into()).collect(),
            ),
            link: RwLock::default(),
            receive_buffer: AtomicU32::new(ASSUMED_RECEIVE_BUFFER),
            forgotten: AtomicBool::new(false),
            known: RwLock::new(Known { machine: None, described: Described::Named(Box::default()) }),
            admitted: AtomicBool::new(true),
            cut_off: AtomicBool::new(false),
            activity: Activity::new(now),
            watches: AtomicUsize::new(0),
            watched,
            context: OnceLock::new(),
        }
    }

    /// Returns the peer's node ID.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// Returns the peer's public keys.
    pub fn identity(&self) -> &PublicIdentity {
        &self.identity
    }

    /// Returns the network of this peer. The same node in another network is another `Peer`.
    pub fn network(&self) -> NetworkIndex {
        self.network
    }

    /// Returns true if the peer is a root of this node. The same node may be a peer in other networks too.
    pub(crate) fn is_root(&self) -> bool {
        self.network == NetworkIndex::ROOTS
    }

    /// Returns a text for the log: the node ID, marked if the peer is a root.
    pub(crate) fn logged(&self) -> impl fmt::Display + '_ {
        Logged(self)
    }

    /// Returns the peer's present addresses in the network, the self-certifying one first. Excludes the
    /// blocks of addresses behind it.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let prefixes = self.prefixes();
        let single = prefixes.iter().filter(|prefix| **prefix == prefix.address().into());
        single.map(Prefix::address).collect()
    }

    /// Returns the peer's present addresses, the self-certifying one first, and the blocks behind it.
    pub fn prefixes(&self) -> Arc<[Prefix]> {
        sync::read(&self.prefixes).clone()
    }

    /// Returns true if this is one of the peer's present addresses; addresses in the blocks behind it do not
    /// count.
    pub fn has_address(&self, address: IpAddr) -> bool {
        sync::read(&self.prefixes).contains(&address.into())
    }

    /// Returns true if the address is one of the peer's, or lies in a block behind it. Another peer may have
    /// a longer prefix in that block, which [`Routes`](crate::Routes) knows; its addresses belong to that
    /// peer.
    pub fn owns(&self, source: IpAddr) -> bool {
        sync::read(&self.prefixes).iter().any(|prefix| prefix.contains(source))
    }

    /// Returns the member beside whose node the peer is; `None` if the peer is not the node of a program with
    /// its own keys.
    pub fn machine(&self) -> Option<PublicIdentity> {
        sync::read(&self.known).machine.as_deref().copied()
    }

    /// Returns the node ID of the member that the peer is or belongs to. Limits for one member count by it,
    /// because a member can certify any number of programs.
    pub fn member(&self) -> NodeId {
        sync::read(&self.known).machine.as_deref().map_or(self.id, PublicIdentity::node_id)
    }

    /// Returns the present description of the other end of a connection with one of the peer's addresses, or
    /// with one in a block behind the peer. `network` is the ID of its network.
    pub fn described_at(&self, network: NetworkId, address: IpAddr) -> Arc<PeerDescription> {
        let described = self.description(network);
        match self.has_address(address) {
            true => described,
            false => Arc::new(PeerDescription { is_gateway: true, ..(*described).clone() }),
        }
    }

    /// Returns what the network says of the peer now. `network` is the ID of its network.
    pub fn description(&self, network: NetworkId) -> Arc<PeerDescription> {
        match &sync::read(&self.known).described {
            Described::Whole(described) => Arc::clone(described),
            Described::Named(name) => Arc::new(PeerDescription {
                name: Some(name.to_string()).filter(|name| !name.is_empty()),
                ..PeerDescription::unknown(network, self.id)
            }),
        }
    }

    /// Takes over what the network says of the peer now: its machine, name, tags and claims.
    pub(crate) fn describe(&self, policy: &dyn Policy) {
        let mut described = PeerDescription::of(policy, &self.id);
        let name = described.name.take();
        let is_plain = described == PeerDescription::unknown(policy.id(), self.id);
        let mut known = sync::write(&self.known);
        known.machine = policy.machine_of(&self.id).copied().map(Box::new);
        if is_plain {
            known.described = Described::Named(name.unwrap_or_default().into_boxed_str());
            return;
        }
        described.name = name;
        // Credentials are renewed each hour, and mostly say the same.
        if !matches!(&known.described, Described::Whole(known) if **known == described) {
            known.described = Described::Whole(Arc::new(described));
        }
    }

    /// Returns true if packets may pass: the peer has shown credentials, or its network needs none.
    pub fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Relaxed)
    }

    /// Returns true if this node is removed from the network that it shares with the peer.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Stops packets to the peer, or lets them pass.
    pub(crate) fn set_cut_off(&self, is_cut_off: bool) {
        self.cut_off.store(is_cut_off, Ordering::Relaxed);
    }

    /// Returns the session and path for the next batch, or `None` if either is missing, the peer is not
    /// admitted, or this node is removed from the network.
    ///
    /// Takes a short lock.
    pub fn sender(&self) -> Option<Sender> {
        if !self.is_admitted() || self.is_cut_off() {
            return None;
        }
        let link = sync::read(&self.link);
        // Under one lock, so that a batch never combines the session and the path of different moments.
        Some(Sender { session: link.session.clone()?, path: link.path?, is_unasked: false })
    }

    /// Returns the session to send on, if any.
    pub fn session(&self) -> Option<Arc<Session>> {
        sync::read(&self.link).session.clone()
    }

    /// Returns the path to send on, if known.
    pub fn path(&self) -> Option<Path> {
        sync::read(&self.link).path
    }

    /// Returns true if the endpoint has forgotten this peer. It never gets a session again; its addresses may
    /// now belong to another `Peer` of the same node.
    pub fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Returns the maximum number of bytes of datagrams in flight to this peer, over all flows together.
    ///
    /// It is half of the UDP receive buffer that the peer has reported. The kernel charges a datagram at up
    /// to twice its size, and an overflow loses whole batches.
    pub fn receive_limit(&self) -> usize {
        self.receive_buffer.load(Ordering::Relaxed) as usize / 2
    }

    /// Returns a slot for the driver's own state of this peer. This crate does not touch it.
    pub fn context(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.context
    }

    /// Makes the endpoint check whether the peer is still there, also while nothing is sent, until the result
    /// is dropped. A driver holds one for each connection with the peer; it costs no lock, and takes effect
    /// with the next packet.
    ///
    /// The endpoint asks the peer for a sign of life 300 ms after the last packet of data, then each time
    /// after four times that. The wait is at most 25 s after the last packet sent and heard, or 27 s if the
    /// peer is the one that asks first. Packets of the same node in another network count too. On the same
    /// machine or local network it is 600 ms, or 20 ms for each watched peer. So a peer whose machine refuses
    /// packets is reported by [`Event::PeerGone`](crate::Event::PeerGone), and a restarted one is detected.
    /// Silence alone reports nothing.
    pub fn watch(self: &Arc<Self>) -> Watch {
        // Counts peers, not watches, because the questions on a local network are spread over the watched
        // peers.
        if self.watches.fetch_add(1, Ordering::Relaxed) == 0 {
            self.watched.0.fetch_add(1, Ordering::Relaxed);
            // Without this, control would not look before the present timer expires.
            self.activity.disarm();
        }
        Watch(Arc::clone(self))
    }

    /// Returns how long sent data has had no answer of any kind; `None` if no answer is awaited.
    pub fn unanswered(&self, now: Instant) -> Option<Duration> {
        self.activity.unanswered_since().map(|since| now.saturating_duration_since(since))
    }

    /// Returns true if there is any [`Watch`] of the peer.
    pub(crate) fn is_watched(&self) -> bool {
        self.watches.load(Ordering::Relaxed) > 0
    }

    /// Returns the moments from which the timers run.
    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Records that the endpoint has forgotten the peer.
    pub(crate) fn set_forgotten(&self) {
        self.forgotten.store(true, Ordering::Relaxed);
    }

    /// Lets packets pass, or stops them. Returns the state before.
    pub(crate) fn set_admitted(&self, is_admitted: bool) -> bool {
        self.admitted.swap(is_admitted, Ordering::Relaxed)
    }

    /// Replaces its addresses.
    pub(crate) fn set_prefixes(&self, prefixes: Arc<[Prefix]>) {
        *sync::write(&self.prefixes) = prefixes;
    }

    /// Makes `session` the one to send on, and returns the previous one.
    pub(crate) fn set_session(&self, session: Option<Arc<Session>>) -> Option<Arc<Session>> {
        std::mem::replace(&mut sync::write(&self.link).session, session)
    }

    /// Makes `path` the one to send on.
    pub(crate) fn set_path(&self, path: Option<Path>) {
        sync::write(&self.link).path = path;
    }

    /// Records the size of the peer's UDP receive buffer, in bytes.
    pub(crate) fn set_receive_buffer(&self, bytes: u32) {
        self.receive_buffer.store(bytes, Ordering::Relaxed);
    }

    /// Returns true if `meta` is a source other than the path.
    pub(super) fn is_new_source(&self, meta: &RecvMeta) -> bool {
        let path = sync::read(&self.link).path;
        // Nothing is sent from the discovery socket, so it is never a path.
        !meta.multicast && path.is_none_or(|path| path.place != meta.place())
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", &self.id).field("network", &self.network).finish_non_exhaustive()
    }
}

/// Text that [`Peer::logged`] returns.
struct Logged<'a>(&'a Peer);

impl fmt::Display for Logged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Logged(peer) = self;
        write!(f, "{}{}", peer.id, if peer.is_root() { " (a root)" } else { "" })
    }
}

/// Request to be told when a peer is no longer there: see [`Peer::watch`].
#[derive(Debug)]
pub struct Watch(Arc<Peer>);

impl Drop for Watch {
    fn drop(&mut self) {
        if self.0.watches.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.watched.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Number of a node's peers with a [`Watch`]; shared by all of them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Watched(Arc<AtomicUsize>);

impl Watched {
    /// Returns the present number.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Receive buffer assumed until the handshake tells the real size, in bytes; Linux's default for a socket.
const ASSUMED_RECEIVE_BUFFER: u32 = 212_992;
