//! What all entities of a server use: the node, the kernel's poller, timers, wakers, and room for what is on
//! its way.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
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
use crate::closings::{Closings, Watch};
use crate::end_index::EndIndex;
use crate::ipv4_aliases::{Aliases, RANGE};
use crate::name_holders::NameHolders;
use crate::refusals::Refusals;
use crate::socket_table::Opened;
use crate::unix::unix;
use crate::wakers::{self, Key, ReadyQueue};

/// Bytes that are moved for one stream before others have their turn.
const BUFFER: usize = 256 << 10;

/// The longest datagram, bytes: a whole IPv4 packet of a raw socket.
pub(crate) const LONGEST: usize = 65535;

/// The last key that was given. No two servers have the same: events of a descriptor that somebody has
/// inherited from one that is gone are nobody's.
static LAST_KEY: AtomicU64 = AtomicU64::new(0);

/// What all entities use.
pub(crate) struct Context {
    pub(crate) tag: NodeTag,
    pub(crate) token: Token,
    /// Of the names of the ends of datagram sockets.
    pub(crate) name_key: NameKey,
    node: WeakNodeHandle,
    ready: Arc<ReadyQueue>,
    poller: Arc<Poller>,
    timers: BTreeSet<(Instant, Key)>,
    /// IPv4 addresses of members that have none.
    pub(crate) aliases: Aliases,
    /// Room for what is on its way from one end to the other.
    pub(crate) buf: Vec<u8>,
    /// Room for a datagram that has come.
    pub(crate) arrived: Vec<u8>,
    /// Room for its extension headers.
    pub(crate) headers: ReceivedHeaders,
    /// Room for datagrams that leave together.
    pub(crate) gso: GsoBatch,
    /// Connections to which little was written in this turn, which is still to be sent.
    pub(crate) unsent: Vec<Arc<Flow>>,
    /// What sending causes.
    batch: Batch,
    /// Whose the ends of datagram sockets are.
    pub(crate) ends: EndIndex,
    /// Datagram sockets and where they have sent what was too long for its path.
    too_long: Vec<(Key, SocketAddr)>,
    pub(crate) refusals: Refusals,
    holders: NameHolders,
    /// The closed sockets of applications.
    pub(crate) closings: Closings,
    /// The key of the news of that.
    pub(crate) closings_key: Key,
}

impl Context {
    pub(crate) fn new(
        node: &NodeHandle,
        (tag, token, name_key): (NodeTag, Token, NameKey),
        ready: Arc<ReadyQueue>,
    ) -> Self {
        Self {
            tag,
            token,
            name_key,
            node: node.downgrade(),
            ready,
            poller: Arc::clone(node.poller()),
            timers: BTreeSet::new(),
            aliases: Aliases::default(),
            buf: vec![0; BUFFER],
            arrived: vec![0; LONGEST],
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
        }
    }

    /// The node.
    ///
    /// # Errors
    /// ENETDOWN if it is no more.
    pub(crate) fn node(&self) -> Result<NodeHandle, Errno> {
        self.node.upgrade().ok_or(Errno::NETDOWN)
    }

    /// Whether an address is one of the node's own.
    pub(crate) fn is_own(&self, ip: IpAddr) -> bool {
        self.node().is_ok_and(|node| {
            let stack = node.datapath().stack();
            stack.route(ip).is_some_and(|interface| stack.is_local(interface, ip))
        })
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

    pub(crate) fn new_key(&self) -> Key {
        LAST_KEY.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What has a key handled when it is woken.
    pub(crate) fn waker(&self, key: Key) -> (Waker, Arc<wakers::Entry>) {
        self.ready.waker(key)
    }

    /// Takes out the keys that were woken.
    pub(crate) fn take_ready(&self, keys: &mut Vec<Key>) {
        self.ready.take(keys);
    }

    /// Has the kernel tell of a descriptor. When it is closed that ends.
    pub(crate) fn watch(&self, fd: BorrowedFd<'_>, key: Key, flags: EventFlags) -> io::Result<()> {
        self.poller.add(fd, key, flags)
    }

    /// Has the kernel tell of other things of a descriptor that it tells of.
    pub(crate) fn rewatch(&self, fd: BorrowedFd<'_>, key: Key, flags: EventFlags) {
        if let Err(error) = self.poller.modify(fd, key, flags) {
            tracing::warn!(%error, "a descriptor is not watched as it should be");
        }
    }

    /// Has the kernel tell no more of a descriptor that others may have open as well.
    pub(crate) fn unwatch(&self, fd: BorrowedFd<'_>) {
        self.poller.remove(fd);
    }

    /// Has `key` handled no later than `at`.
    pub(crate) fn set_timer(&mut self, at: Instant, key: Key) {
        self.timers.insert((at, key));
    }

    /// When the next timer is over.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes out the first timer that is over.
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

    /// Sends what was written to connections in this turn. This thread alone writes to them.
    pub(crate) fn send_unsent(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        match self.node() {
            Ok(node) => {
                let (now, datapath) = (Instant::now(), node.datapath());
                datapath.pump_together(now, &mut self.unsent, &mut self.gso, &mut self.batch);
            }
            // Its connections have ended with it.
            Err(_) => self.unsent.clear(),
        }
    }

    /// A datagram socket has sent what was too long for its path.
    pub(crate) fn note_too_long(&mut self, owner: Key, remote: SocketAddr) {
        if self.too_long.last() != Some(&(owner, remote)) {
            self.too_long.push((owner, remote));
        }
    }

    /// Those that have sent what was too long since they were taken out last, and where to.
    pub(crate) fn take_too_long(&mut self) -> Vec<(Key, SocketAddr)> {
        std::mem::take(&mut self.too_long)
    }

    pub(crate) fn networks(&self) -> Arc<[JoinedNetwork]> {
        self.node.upgrade().map(|node| node.datapath().networks()).unwrap_or_default()
    }

    /// Whether none of its networks gives the node an IPv4 address.
    pub(crate) fn has_no_ipv4(&self) -> bool {
        !self.networks().iter().flat_map(|network| &network.addresses).any(IpAddr::is_ipv4)
    }

    /// The address that is meant: a mapped one is IPv4's, and an alias that of a member.
    pub(crate) fn meant(&self, address: SocketAddr) -> SocketAddr {
        let address = canonical(address);
        SocketAddr::new(self.aliases.meant(address.ip()), address.port())
    }

    /// The own address that is meant by one to bind to, which may be an alias: one of this node is known
    /// before it was shown to anybody. Raw sockets have the headers of the family that they name.
    pub(crate) fn meant_here(&mut self, socket: peersock_fd::Opened, address: SocketAddr) -> SocketAddr {
        let is_alias = address.is_ipv4() && RANGE.contains(address.ip());
        let is_own = || self.networks().iter().any(|network| network.addresses.contains(&address.ip()));
        if !is_alias || matches!(socket.kind, Kind::Raw(_)) || is_own() {
            return address;
        }
        if self.has_no_ipv4() {
            for own in self.networks().iter().flat_map(|network| &network.addresses) {
                if let IpAddr::V6(own) = own {
                    self.aliases.of(*own);
                }
            }
        }
        self.meant(address)
    }

    /// An address as a socket of a family shows it, see [`shown`]: for IPv4 those of IPv6 have aliases.
    pub(crate) fn shown(&mut self, family: Family, address: SocketAddr) -> SocketAddr {
        let alias = match (family, address.ip()) {
            (Family::V4, IpAddr::V6(ip)) => self.aliases.of(ip),
            _ => None,
        };
        alias.map_or_else(|| shown(family, address), |alias| SocketAddr::new(alias.into(), address.port()))
    }

    /// Whether one of the networks allows listeners at a port.
    pub(crate) fn may_listen(&self, port: u16) -> Result<(), Errno> {
        if self.node()?.datapath().stack().allows_port(port) { Ok(()) } else { Err(Errno::ACCESS) }
    }

    /// Tells the node's owner once of each port that was refused to a listener.
    pub(crate) fn note_refusal(&mut self, port: u16) {
        let networks = self.networks();
        self.refusals.note(port, &networks, |_| true);
    }

    /// Tells the node's owner once of each port to which nothing may be sent in the network of `remote`, if
    /// that is what came of it.
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

    /// Returns true if anybody still has a socket open. Who has its name may be known from a list of this
    /// `age`, where the kernel does not tell of its closing.
    pub(crate) fn is_open(&mut self, opened: &Opened, age: Duration) -> bool {
        match opened.watch {
            Some(watch) => self.is_watched_open(watch),
            None => self.seems_open(opened, age),
        }
    }

    /// The same, by who has its name.
    pub(crate) fn seems_open(&mut self, opened: &Opened, age: Duration) -> bool {
        match &opened.private {
            Some(private) => private.is_open(),
            None => self.is_name_taken(opened.socket) && !self.is_held_by_another(opened, age),
        }
    }

    /// Returns true if the application has closed a socket, and somebody else may have taken its name; as
    /// above.
    pub(crate) fn is_taken_over(&mut self, opened: &Opened, age: Duration) -> bool {
        match opened.watch {
            Some(watch) => !self.is_watched_open(watch),
            None => self.is_held_by_another(opened, age),
        }
    }

    fn is_held_by_another(&mut self, opened: &Opened, age: Duration) -> bool {
        // The abstract name that a private one had before means nothing any more.
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

    /// Whether anybody has a socket of this abstract name open.
    pub(crate) fn is_name_taken(&self, socket: peersock_fd::Opened) -> bool {
        let name = address(&Name::Opened(self.tag, socket));
        let kind = match socket.kind {
            Kind::Stream => SocketType::STREAM,
            _ => SocketType::DGRAM,
        };
        let probe = unix(kind);
        // Without a descriptor to ask with, nobody knows: then it is not taken for closed.
        probe.map_or(true, |probe| rustix::net::bind(&probe, &name) != Ok(()))
    }
}
