use std::any::Any;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, Instant};

use super::activity::Activity;
use super::{SealError, Session};
use crate::id::{NetworkId, NodeId, PublicIdentity};
use crate::network::{NetworkIndex, Prefix};
use crate::reach::{Path, RecvMeta};
use crate::sync;
use crate::wire::DATA_OVERHEAD;

/// One peer in one network, as the data path sees it. Shared by `Arc` between control, sessions and driver.
///
/// It and its current session point at each other; control breaks that circle when it removes the peer.
pub struct Peer {
    id: NodeId,
    identity: PublicIdentity,
    network: NetworkIndex,
    /// What belongs to it, the self-certifying address first. It changes seldom, and is read with every
    /// batch.
    prefixes: RwLock<Arc<[Prefix]>>,
    link: RwLock<Link>,
    receive_buffer: AtomicU32,
    forgotten: AtomicBool,
    activity: Activity,
    /// How many [`Watch`]es of it there are.
    watches: AtomicUsize,
    watched: Watched,
    context: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// How to reach the peer right now.
#[derive(Default)]
struct Link {
    session: Option<Arc<Session>>,
    path: Option<Path>,
}

/// A peer's current session and path, taken together.
///
/// Good for one batch; the next batch asks [`Peer::sender`] again.
#[derive(Clone)]
pub struct Sender {
    /// Seals the packets.
    pub session: Arc<Session>,
    /// Where they go.
    pub path: Path,
    is_unasked: bool,
}

impl Sender {
    /// Bytes that [`Sender::seal`] adds to a packet.
    pub fn overhead(&self) -> usize {
        DATA_OVERHEAD + self.path.place.overhead()
    }

    /// Seals a packet as [`Session::seal`] does, behind what its place needs in front, and returns the length
    /// of both. That is what goes to [`Path::remote`], in one datagram.
    ///
    /// # Errors
    /// As [`Session::seal`]; also if `out` has no room for the front.
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

    /// The same for packets that no program sends: resets and ICMP messages, which answer what the peer has
    /// sent, and reports of groups. The peer need not say anything more, so nobody waits for an answer; and a
    /// peer that gets only such packets is none that this node uses.
    pub fn unasked(self) -> Self {
        Self { is_unasked: true, ..self }
    }
}

impl Peer {
    /// A peer that is not reachable yet. `addresses` are those it has besides the self-certifying one.
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
            activity: Activity::new(now),
            watches: AtomicUsize::new(0),
            watched,
            context: OnceLock::new(),
        }
    }

    /// The peer's node ID.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// The peer's public keys.
    pub fn identity(&self) -> &PublicIdentity {
        &self.identity
    }

    /// The network in which it is this peer. The same node in another network is another `Peer`.
    pub fn network(&self) -> NetworkIndex {
        self.network
    }

    /// Whether the peer is a root of this node. The same node may be a peer in other networks too.
    pub(crate) fn is_root(&self) -> bool {
        self.network == NetworkIndex::ROOTS
    }

    /// Its node ID, and that it is a root if it is: for the log, which people read.
    pub(crate) fn logged(&self) -> impl fmt::Display + '_ {
        Logged(self)
    }

    /// The peer's addresses in the network now, the self-certifying one first. The blocks of addresses behind
    /// it are not among them.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let prefixes = self.prefixes();
        let single = prefixes.iter().filter(|prefix| **prefix == prefix.address().into());
        single.map(Prefix::address).collect()
    }

    /// All that belongs to the peer now: its addresses, the self-certifying one first, and the blocks behind
    /// it.
    pub fn prefixes(&self) -> Arc<[Prefix]> {
        sync::read(&self.prefixes).clone()
    }

    /// Whether this is one of the peer's addresses now; those in the blocks behind it are not.
    pub fn has_address(&self, address: IpAddr) -> bool {
        sync::read(&self.prefixes).contains(&address.into())
    }

    /// Whether that address is one of the peer's, or lies in a block behind it. Others may have a longer
    /// prefix in that block, which [`Routes`](crate::Routes) knows: what they have is theirs.
    pub fn owns(&self, source: IpAddr) -> bool {
        sync::read(&self.prefixes).iter().any(|prefix| prefix.contains(source))
    }

    /// The session and path to use for the next batch, or `None` if there is no session or no path.
    ///
    /// Takes a short lock.
    pub fn sender(&self) -> Option<Sender> {
        let link = sync::read(&self.link);
        Some(Sender { session: link.session.clone()?, path: link.path?, is_unasked: false })
    }

    /// The session to send on, if there is one.
    pub fn session(&self) -> Option<Arc<Session>> {
        sync::read(&self.link).session.clone()
    }

    /// The path to send on, if one is known.
    pub fn path(&self) -> Option<Path> {
        sync::read(&self.link).path
    }

    /// Whether the endpoint has forgotten this peer. It never gets a session again; its addresses may belong
    /// to another
    /// `Peer` of the same node by now.
    pub fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// How many bytes of datagrams may be under way to this peer, over all flows together.
    ///
    /// Half of the UDP receive buffer that the peer told us of, because the kernel charges a datagram at up
    /// to twice its size and an overflow loses whole batches.
    pub fn receive_limit(&self) -> usize {
        self.receive_buffer.load(Ordering::Relaxed) as usize / 2
    }

    /// A place for the driver's own state of this peer. This crate does not touch it.
    pub fn context(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.context
    }

    /// Has the endpoint find out whether the peer is still there, also while nothing is sent, until the
    /// result is dropped. A driver holds one for each connection with the peer; it costs no lock, and takes
    /// effect with the next packet.
    ///
    /// The endpoint asks the peer for a sign of life 300 ms after the last packet of data, then each time
    /// after four times that, at most 25 s after it was last sent to and heard (27 s where the peer is the
    /// one of the two that asks first; what the same node says in another network counts, too); 600 ms on the
    /// same machine or local network, or 20 ms for each peer that is watched. So a peer whose machine refuses
    /// packets is reported by [`Event::PeerGone`](crate::Event::PeerGone), and one that was started again is
    /// noticed. Silence alone reports nothing.
    pub fn watch(self: &Arc<Self>) -> Watch {
        if self.watches.fetch_add(1, Ordering::Relaxed) == 0 {
            self.watched.0.fetch_add(1, Ordering::Relaxed);
            // So that the next packet makes control look.
            self.activity.disarm();
        }
        Watch(Arc::clone(self))
    }

    /// For how long what was sent has had no answer of any kind. `None` if nothing waits for one.
    pub fn unanswered(&self, now: Instant) -> Option<Duration> {
        self.activity.unanswered_since().map(|since| now.saturating_duration_since(since))
    }

    /// Whether there is any [`Watch`] of it.
    pub(crate) fn is_watched(&self) -> bool {
        self.watches.load(Ordering::Relaxed) > 0
    }

    /// What the timers run from.
    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// The endpoint has forgotten it.
    pub(crate) fn set_forgotten(&self) {
        self.forgotten.store(true, Ordering::Relaxed);
    }

    /// Gives it other addresses.
    pub(crate) fn set_prefixes(&self, prefixes: Arc<[Prefix]>) {
        *sync::write(&self.prefixes) = prefixes;
    }

    /// Makes `session` the one to send on, and returns the one before.
    pub(crate) fn set_session(&self, session: Option<Arc<Session>>) -> Option<Arc<Session>> {
        std::mem::replace(&mut sync::write(&self.link).session, session)
    }

    /// Makes `path` the one to send on.
    pub(crate) fn set_path(&self, path: Option<Path>) {
        sync::write(&self.link).path = path;
    }

    /// Notes the size of the peer's UDP receive buffer, in bytes.
    pub(crate) fn set_receive_buffer(&self, bytes: u32) {
        self.receive_buffer.store(bytes, Ordering::Relaxed);
    }

    /// Whether `meta` is another source than the path. The discovery socket is none: nothing is sent from
    /// there.
    pub(super) fn is_new_source(&self, meta: &RecvMeta) -> bool {
        let path = sync::read(&self.link).path;
        !meta.multicast && path.is_none_or(|path| path.place != meta.place())
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", &self.id).field("network", &self.network).finish_non_exhaustive()
    }
}

/// What [`Peer::logged`] gives.
struct Logged<'a>(&'a Peer);

impl fmt::Display for Logged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Logged(peer) = self;
        write!(f, "{}{}", peer.id, if peer.is_root() { " (a root)" } else { "" })
    }
}

/// The wish to hear when a peer is not there any more: see [`Peer::watch`].
///
/// ```
/// use std::sync::Arc;
///
/// use peersock_overlay::{Peer, Watch};
///
/// struct Connection {
///     watch: Watch,
/// }
///
/// fn accept(from: &Arc<Peer>) -> Connection {
///     Connection { watch: from.watch() }
/// }
/// ```
#[derive(Debug)]
pub struct Watch(Arc<Peer>);

impl Drop for Watch {
    fn drop(&mut self) {
        if self.0.watches.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.watched.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// How many peers of a node have a [`Watch`]. All of them share it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Watched(Arc<AtomicUsize>);

impl Watched {
    /// The number now.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes; what Linux gives a socket that asks for nothing. It stands until the handshake tells the real
/// number.
const ASSUMED_RECEIVE_BUFFER: u32 = 212_992;
