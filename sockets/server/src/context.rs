//! State shared by all entities of a server: the node, the poller, timers, wakers, and buffers for data in
//! transit.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock::attach::{EventFlags, NodeHandle, Poller, WeakNodeHandle};
use peersock_datapath::{GsoBatch, JoinedNetwork};
use peersock_fd::{Errno, Family, Kind, Name, NameKey, NodeTag, Token, address};
use peersock_stack::{Batch, Flow, ReceivedHeaders};
use rustix::net::SocketType;

use crate::addresses::{canonical, shown};
use crate::application_fd::Holder;
use crate::closings::{Closings, Watch};
use crate::end_index::EndIndex;
use crate::ipv4_aliases::{ALIAS_RANGE, Aliases};
use crate::name_holders::NameHolders;
use crate::refusals::Refusals;
use crate::resets::Resets;
use crate::socket_table::Opened;
use crate::unix::unix;
use crate::usage::{Contacted, Moved};
use crate::wakers::{self, Key, ReadyQueue};

/// Number of bytes moved for one stream before other streams have their turn.
const BYTES_PER_TURN: usize = 256 << 10;

/// Maximum length of a datagram, bytes: a whole IPv4 packet of a raw socket.
pub(crate) const MAX_DATAGRAM_BYTES: usize = 65535;

/// The most recent key. Keys are unique across servers, so events of a descriptor inherited from a dropped
/// server match no entity.
static LAST_KEY: AtomicU64 = AtomicU64::new(0);

/// State shared by all entities.
pub(crate) struct Context {
    pub(crate) tag: NodeTag,
    pub(crate) token: Token,
    /// Key for the names of datagram sockets' ends.
    pub(crate) name_key: NameKey,
    /// The process that has started the applications.
    launcher: i32,
    node: WeakNodeHandle,
    ready: Arc<ReadyQueue>,
    poller: Arc<Poller>,
    timers: BTreeSet<(Instant, Key)>,
    /// IPv4 addresses of members that have none.
    pub(crate) aliases: Aliases,
    /// Buffer for data in transit from one end to the other.
    pub(crate) buf: Vec<u8>,
    /// Buffer for a received datagram.
    pub(crate) arrived: Vec<u8>,
    /// Buffer for its extension headers.
    pub(crate) headers: ReceivedHeaders,
    /// Batch of datagrams that leave together.
    pub(crate) gso: GsoBatch,
    /// Connections to which little was written in this turn; it is still to be sent.
    pub(crate) unsent: Vec<Arc<Flow>>,
    /// Consequences of sending.
    batch: Batch,
    /// Owners of the ends of datagram sockets.
    pub(crate) ends: EndIndex,
    /// Datagram sockets with the destinations to which they have sent datagrams too long for the path.
    too_long: Vec<(Key, SocketAddr)>,
    pub(crate) refusals: Refusals,
    holders: NameHolders,
    /// The closed sockets of applications.
    pub(crate) closings: Closings,
    /// Key of events of `closings`.
    pub(crate) closings_key: Key,
    pub(crate) resets: Resets,
    /// Bytes that the applications have moved so far.
    pub(crate) moved: Moved,
    pub(crate) contacted: Contacted,
}

impl Context {
    pub(crate) fn new(
        node: &NodeHandle,
        launcher: i32,
        resets: Resets,
        (tag, token, name_key): (NodeTag, Token, NameKey),
        ready: Arc<ReadyQueue>,
    ) -> Self {
        Self {
            tag,
            token,
            name_key,
            launcher,
            node: node.downgrade(),
            ready,
            poller: Arc::clone(node.poller()),
            timers: BTreeSet::new(),
            aliases: Aliases::default(),
            buf: vec![0; BYTES_PER_TURN],
            arrived: vec![0; MAX_DATAGRAM_BYTES],
            headers: ReceivedHeaders::default(),
            gso: GsoBatch::default(),
            unsent: Vec::new(),
            batch: Batch::default(),
            ends: EndIndex::default(),
            too_long: Vec::new(),
            refusals: Refusals::default(),
            holders: NameHolders::new(tag),
            closings: Closings::new(),
            closings_key: LAST_KEY.fetch_add(1, Ordering::Relaxed) + 1,
            resets,
            moved: Moved::default(),
            contacted: Contacted::default(),
        }
    }

    /// Returns the node.
    ///
    /// # Errors
    /// ENETDOWN if the node has ended.
    pub(crate) fn node(&self) -> Result<NodeHandle, Errno> {
        self.node.upgrade().ok_or(Errno::NETDOWN)
    }

    /// Returns the address that a socket bound to `local` sends to. Besides what [`meant`](Self::meant) does,
    /// an unspecified address is the node itself, as in Linux.
    pub(crate) fn target(&self, remote: SocketAddr, local: Option<SocketAddr>) -> SocketAddr {
        let remote = self.meant(remote);
        if !remote.ip().is_unspecified() {
            return remote;
        }
        let bound = local.map(|local| local.ip()).filter(|ip| !ip.is_unspecified());
        let networks = self.networks();
        let mut own = networks.iter().flat_map(|network| &network.addresses).copied();
        let of_family = |ip: &IpAddr| ip.is_ipv4() == remote.is_ipv4();
        let own = bound.or_else(|| own.clone().find(of_family)).or_else(|| own.next());
        SocketAddr::new(own.unwrap_or(remote.ip()), remote.port())
    }

    pub(crate) fn launcher(&self) -> i32 {
        self.launcher
    }

    /// Returns the processes that may have the descriptor of an application.
    pub(crate) fn holder(&self, process: i32) -> Holder {
        Holder { process, launcher: self.launcher }
    }

    pub(crate) fn new_key(&self) -> Key {
        LAST_KEY.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns a waker that queues `key` for the next turn.
    pub(crate) fn waker(&self, key: Key) -> (Waker, Arc<wakers::Entry>) {
        self.ready.waker(key)
    }

    /// Takes the keys that were woken.
    pub(crate) fn take_ready(&self, keys: &mut Vec<Key>) {
        self.ready.take(keys);
    }

    /// Watches a descriptor with the poller. Closing the descriptor ends the watch.
    pub(crate) fn watch(&self, fd: BorrowedFd<'_>, key: Key, flags: EventFlags) -> io::Result<()> {
        self.poller.add(fd, key, flags)
    }

    /// Changes the watched events of a descriptor.
    pub(crate) fn rewatch(&self, fd: BorrowedFd<'_>, key: Key, flags: EventFlags) {
        if let Err(error) = self.poller.modify(fd, key, flags) {
            tracing::warn!(%error, "a descriptor is not watched as it should be");
        }
    }

    /// Stops watching a descriptor that other processes may have open as well.
    pub(crate) fn unwatch(&self, fd: BorrowedFd<'_>) {
        self.poller.remove(fd);
    }

    /// Ensures that `key` is handled no later than `at`.
    pub(crate) fn set_timer(&mut self, at: Instant, key: Key) {
        self.timers.insert((at, key));
    }

    /// Removes a timer.
    pub(crate) fn clear_timer(&mut self, at: Instant, key: Key) {
        self.timers.remove(&(at, key));
    }

    /// Returns the time of the next timer.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes the key of the first timer that has expired.
    pub(crate) fn take_timer(&mut self, now: Instant) -> Option<Key> {
        let (at, _) = self.timers.first()?;
        if *at > now {
            return None;
        }
        self.timers.pop_first().map(|(_, key)| key)
    }

    /// Sends the datagrams that leave together.
    pub(crate) fn send_gso(&mut self) {
        if !self.gso.is_empty()
            && let Ok(node) = self.node()
        {
            node.datapath().send_gso_and_settle(Instant::now(), &mut self.gso);
        }
    }

    /// Sends the data written to connections in this turn. Only this thread writes to them.
    pub(crate) fn send_unsent(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        match self.node() {
            Ok(node) => {
                let (now, datapath) = (Instant::now(), node.datapath());
                datapath.pump_together(now, &mut self.unsent, &mut self.gso, &mut self.batch);
            }
            // The node's connections have ended with it.
            Err(_) => self.unsent.clear(),
        }
    }

    /// Notes that a datagram socket has sent a datagram too long for its path.
    pub(crate) fn note_too_long(&mut self, owner: Key, remote: SocketAddr) {
        if self.too_long.last() != Some(&(owner, remote)) {
            self.too_long.push((owner, remote));
        }
    }

    /// Takes the sockets that have sent datagrams too long for the path since the last call, with the
    /// destinations.
    pub(crate) fn take_too_long(&mut self) -> Vec<(Key, SocketAddr)> {
        std::mem::take(&mut self.too_long)
    }

    pub(crate) fn networks(&self) -> Arc<[JoinedNetwork]> {
        self.node.upgrade().map(|node| node.networks()).unwrap_or_default()
    }

    /// Returns true if no network gives the node an IPv4 address.
    pub(crate) fn has_no_ipv4(&self) -> bool {
        !self.networks().iter().flat_map(|network| &network.addresses).any(IpAddr::is_ipv4)
    }

    /// Returns the address that `address` refers to: an IPv4-mapped one becomes IPv4, and an alias that of a
    /// member.
    pub(crate) fn meant(&self, address: SocketAddr) -> SocketAddr {
        let address = canonical(address);
        SocketAddr::new(self.aliases.meant(address.ip()), address.port())
    }

    /// Returns the local address that a bind address refers to, which may be an alias. An alias of this node
    /// is valid even before it was shown to any program. Raw sockets keep the address, because their headers
    /// belong to the family they name.
    pub(crate) fn meant_here(&mut self, socket: peersock_fd::Opened, address: SocketAddr) -> SocketAddr {
        let is_alias = address.is_ipv4() && ALIAS_RANGE.contains(address.ip());
        let is_own = || self.networks().iter().any(|network| network.addresses.contains(&address.ip()));
        if !is_alias || matches!(socket.kind, Kind::Raw(_)) || is_own() {
            return address;
        }
        if self.has_no_ipv4() {
            for own in self.networks().iter().flat_map(|network| &network.addresses) {
                if let IpAddr::V6(own) = own {
                    self.alias_of(*own);
                }
            }
        }
        self.meant(address)
    }

    /// Returns an address as a socket of a family shows it, see [`shown`]: IPv4 sockets see aliases of IPv6
    /// addresses.
    pub(crate) fn shown(&mut self, family: Family, address: SocketAddr) -> SocketAddr {
        let alias = match (family, address.ip()) {
            (Family::V4, IpAddr::V6(ip)) => self.alias_of(ip),
            _ => None,
        };
        alias.map_or_else(|| shown(family, address), |alias| SocketAddr::new(alias.into(), address.port()))
    }

    /// Returns the alias of an address, which the node's status shows from now on.
    fn alias_of(&mut self, ip: Ipv6Addr) -> Option<Ipv4Addr> {
        let is_new = !self.aliases.has(ip);
        let alias = self.aliases.of(ip)?;
        if let (true, Ok(node)) = (is_new, self.node()) {
            node.note_ipv4_alias(ip, alias);
        }
        Some(alias)
    }

    /// Checks that one of the networks allows listeners at a port.
    pub(crate) fn may_listen(&self, port: u16) -> Result<(), Errno> {
        let node = self.node()?;
        let is_allowed = node.datapath().stack().allows_port(&node.scope(None), port);
        if is_allowed { Ok(()) } else { Err(Errno::ACCESS) }
    }

    /// Reports to the node's owner, once per port, that a listener was refused.
    pub(crate) fn note_refusal(&mut self, port: u16) {
        let networks = self.networks();
        self.refusals.note(port, &networks, |_| true);
    }

    /// Reports to the node's owner, once per port, that the network of `remote` does not allow sending to it,
    /// if `result` says so.
    pub(crate) fn note_if_refused<T>(
        &mut self,
        result: Result<T, Errno>,
        remote: SocketAddr,
    ) -> Result<T, Errno> {
        if matches!(result, Err(Errno::ACCESS)) {
            let networks = self.networks();
            let holds =
                |network: &JoinedNetwork| network.routes.iter().any(|route| route.contains(remote.ip()));
            self.refusals.note(remote.port(), &networks, holds);
        }
        result
    }

    /// Returns true if any process still has a socket open. Where closings are not watched, the list of name
    /// holders that decides may have the given `age`.
    pub(crate) fn is_open(&mut self, opened: &Opened, age: Duration) -> bool {
        match opened.watch {
            Some(watch) => self.is_watched_open(watch),
            None => self.seems_open(opened, age),
        }
    }

    /// Decides the same by the holder of the socket's name.
    pub(crate) fn seems_open(&mut self, opened: &Opened, age: Duration) -> bool {
        match &opened.private {
            Some(private) => private.is_open(),
            None => self.is_name_taken(opened.socket) && !self.is_held_by_another(opened, age),
        }
    }

    /// Returns true if the application has closed a socket, so that another program may have taken its name;
    /// `age` as above.
    pub(crate) fn is_taken_over(&mut self, opened: &Opened, age: Duration) -> bool {
        match opened.watch {
            Some(watch) => !self.is_watched_open(watch),
            None => self.is_held_by_another(opened, age),
        }
    }

    fn is_held_by_another(&mut self, opened: &Opened, age: Duration) -> bool {
        // A private socket's earlier abstract name means nothing any more.
        let inode = opened.inode.filter(|_| opened.private.is_none());
        inode
            .is_some_and(|inode| self.holders.inode(opened.socket, age).is_some_and(|holder| holder != inode))
    }

    fn is_watched_open(&mut self, watch: Watch) -> bool {
        let is_open = self.closings.is_open(watch);
        if self.closings.has_news() {
            self.set_timer(Instant::now(), self.closings_key);
        }
        is_open
    }

    /// Returns true if any process has a socket of this abstract name open.
    pub(crate) fn is_name_taken(&self, socket: peersock_fd::Opened) -> bool {
        let name = address(&Name::Opened(self.tag, socket));
        let kind = match socket.kind {
            Kind::Stream => SocketType::STREAM,
            _ => SocketType::DGRAM,
        };
        let probe = unix(kind);
        // Without a descriptor for the probe the answer is unknown, so assume that the socket is open.
        probe.map_or(true, |probe| rustix::net::bind(&probe, &name) != Ok(()))
    }
}
