//! The sockets that applications have opened: their addresses, and how far they have come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use peersock_fd::{Errno, Family, Name, SocketId, Which, address};
use peersock_stack::Error;
use rustix::net::SocketType;

use super::app_end;
use super::endings::Ending;
use super::options::Options;
use super::ready::Key;
use super::requests::id;
use super::server::{Entry, ServerState, unix};
use super::stream::{Origin, Stream};
use super::transport::Transport;
use crate::node::Inner;
use crate::socket::Acceptor;

/// Ports that are tried for a socket that wants one that is free for both families.
const PORT_TRIES: usize = 16;

/// Opened sockets below which it is not looked which of them are closed.
pub(super) const LEAST_SWEPT: usize = 64;

/// A socket that an application has opened and told of.
pub(super) struct Opened {
    pub(super) socket: peersock_fd::Opened,
    /// The address and port that it is bound to: for IPv6's wildcard there is one for each family.
    pub(super) reserved: Vec<Acceptor>,
    /// What a datagram socket is bound to.
    pub(super) transport: Option<Arc<dyn Transport>>,
    pub(super) options: Options,
    /// SO_ERROR.
    pub(super) error: Option<Errno>,
    /// The node has left the network that it is bound to.
    pub(super) is_down: bool,
    pub(super) phase: Phase,
}

/// How far a socket has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It may connect or listen.
    Fresh,
    Listening(Key),
    Connecting(Key),
    Connected(Key),
    /// It carries datagrams, and is bound.
    Datagrams(Key),
}

impl Opened {
    fn new(socket: peersock_fd::Opened) -> Self {
        let options = Options::default();
        let (reserved, phase) = (Vec::new(), Phase::Fresh);
        Self { socket, reserved, transport: None, options, error: None, is_down: false, phase }
    }

    /// The address that it is bound to, as the application should see it.
    pub(super) fn bound(&self) -> Option<SocketAddr> {
        let reserved = self.reserved.first().map(|acceptor| acceptor.local_addr());
        let bound = reserved.or_else(|| self.transport.as_ref().map(|transport| transport.local()));
        bound.map(|bound| self.shown_local(bound))
    }

    /// An own address as a socket of this family shows it: IPv4's wildcard is IPv6's.
    fn shown_local(&self, address: SocketAddr) -> SocketAddr {
        match self.socket.family {
            Family::V6 if address.ip().is_unspecified() => {
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port())
            }
            family => shown(family, address),
        }
    }

    /// bind(2).
    pub(super) fn bind(&mut self, node: &Arc<Inner>, local: SocketAddr) -> Result<(), Errno> {
        if !self.reserved.is_empty() || self.phase != Phase::Fresh {
            return Err(Errno::INVAL);
        }
        let options = &self.options;
        let reserve = |local: SocketAddr| {
            let own = options.tcp(local.is_ipv4());
            Acceptor::reserve(node, options.interface(), local, own)
        };
        let port = |acceptor: &Acceptor| acceptor.local_addr().port();
        self.reserved =
            bind_families(canonical(local), options.v6_only, reserve, port, drop).map_err(errno)?;
        Ok(())
    }
}

/// Binds what takes an address: one thing, or for IPv6's wildcard one for each family at the same port,
/// IPv6's first. `undo` frees the first when the port is taken in the other family.
pub(super) fn bind_families<T>(
    local: SocketAddr,
    v6_only: bool,
    bind: impl Fn(SocketAddr) -> Result<T, Error>,
    port: impl Fn(&T) -> u16,
    undo: impl Fn(T),
) -> Result<Vec<T>, Error> {
    if local.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED) || v6_only {
        return Ok(vec![bind(local)?]);
    }
    let mut tries = if local.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let first = bind(local)?;
        match bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port(&first))) {
            Ok(second) => return Ok(vec![first, second]),
            Err(error) => {
                undo(first);
                tries -= 1;
                if tries == 0 {
                    return Err(error);
                }
            }
        }
    }
}

/// Binds IPv4's wildcard and, for members without an IPv4 address, IPv6's at the same port; IPv4's first.
/// Another socket may have the port of the other family, and keeps it.
pub(super) fn bind_aliased<T>(
    local: SocketAddr,
    bind: impl Fn(SocketAddr) -> Result<T, Error>,
    port: impl Fn(&T) -> u16,
    undo: impl Fn(T),
) -> Result<Vec<T>, Error> {
    let v6 = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), local.port());
    if local.port() == 0 {
        let mut both = bind_families(v6, false, bind, port, undo)?;
        both.reverse();
        return Ok(both);
    }
    let mut both = vec![bind(local)?];
    both.extend(bind(v6));
    Ok(both)
}

impl ServerState {
    /// The socket, made known if it is new.
    pub(super) fn socket(&mut self, socket: peersock_fd::Opened) -> &mut Opened {
        if self.opened.len() >= self.sweep_at && !self.opened.contains_key(&socket.id) {
            self.sweep_unused();
        }
        self.opened.entry(socket.id).or_insert_with(|| Opened::new(socket))
    }

    /// Forgets the sockets that are closed and never carried anything: nothing tells of their closing. Looking
    /// takes system calls, so it is done only once there are twice as many as were left last time.
    fn sweep_unused(&mut self) {
        let fresh = self.opened.values().filter(|opened| opened.phase == Phase::Fresh);
        let fresh = fresh.map(|opened| opened.socket).collect();
        self.forget_dead(fresh);
        self.sweep_at = LEAST_SWEPT.max(2 * self.opened.len());
    }

    /// Binds; where the address is taken, looks whether by a socket that is closed.
    pub(super) fn bind(&mut self, socket: peersock_fd::Opened, local: SocketAddr) -> Result<(), Errno> {
        match self.bind_once(socket, local) {
            Err(Errno::ADDRINUSE) if self.sweep(local.port()) => self.bind_once(socket, local),
            Err(Errno::ACCESS) => {
                self.note_refusal(local.port());
                Err(Errno::ACCESS)
            }
            // It may be a client's, so it is bound; nobody reaches a server there, which is said.
            Ok(()) if socket.kind == peersock_fd::Kind::Datagram && local.port() != 0 => {
                if self.may_listen(local.port()).is_err() {
                    self.note_refusal(local.port());
                }
                Ok(())
            }
            result => result,
        }
    }

    /// Where the node has no IPv4 address, has a listener on IPv4's wildcard take IPv6 connections, too.
    fn add_ipv6(&mut self, node: &Arc<Inner>, socket: peersock_fd::Opened) {
        let has_no_ipv4 = self.has_no_ipv4();
        let opened = self.socket(socket);
        if let [only] = &opened.reserved[..]
            && only.local_addr().ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            && has_no_ipv4
        {
            let local = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), only.local_addr().port());
            let (device, options) = (opened.options.interface(), opened.options.tcp(false));
            // Another socket may have the port, and keeps it.
            opened.reserved.extend(Acceptor::reserve(node, device, local, options));
        }
    }

    /// Has those on IPv4's wildcard leave IPv6 to a socket of that family, unless it wants IPv4 as well and
    /// would fail all the same. True if there were any.
    fn give_way(&mut self, socket: peersock_fd::Opened, local: SocketAddr) -> bool {
        let (ip, port) = (local.ip().to_canonical(), local.port());
        if ip.is_ipv4() || (ip.is_unspecified() && !self.socket(socket).options.v6_only) {
            return false;
        }
        let mut any = false;
        for opened in self.opened.values_mut() {
            if (opened.socket.family, opened.socket.kind) != (Family::V4, socket.kind) {
                continue;
            }
            any |= opened.transport.as_ref().is_some_and(|transport| transport.give_way(port));
            let is_both = opened.reserved.len() > 1;
            if is_both && opened.reserved[0].local_addr().port() == port {
                opened.reserved.truncate(1);
                any = true;
            }
        }
        any
    }

    fn bind_once(&mut self, socket: peersock_fd::Opened, local: SocketAddr) -> Result<(), Errno> {
        if socket.kind != peersock_fd::Kind::Stream {
            return match self.bind_datagrams(socket, local) {
                Err(Errno::ADDRINUSE) if self.give_way(socket, local) => self.bind_datagrams(socket, local),
                result => result,
            };
        }
        let node = self.node.upgrade().ok_or(Errno::NETDOWN)?;
        match self.socket(socket).bind(&node, local) {
            Err(Errno::ADDRINUSE) if self.give_way(socket, local) => {
                self.socket(socket).bind(&node, local)?;
            }
            result => result?,
        }
        self.add_ipv6(&node, socket);
        Ok(())
    }

    /// Ends what waits on a socket whose network the node has left: from now on its calls fail with ENETDOWN.
    pub(super) fn take_down(&mut self, socket: peersock_fd::Opened) {
        let Some(opened) = self.opened.get_mut(&socket.id).filter(|opened| !opened.is_down) else { return };
        opened.is_down = true;
        for process in self.processes() {
            app_end::shut_one(self.tag, socket, process);
        }
    }

    /// The address that is meant: a mapped one is IPv4's, and an alias that of a member.
    pub(super) fn meant(&self, address: SocketAddr) -> SocketAddr {
        let address = canonical(address);
        SocketAddr::new(self.aliases.meant(address.ip()), address.port())
    }

    /// An address as a socket of a family shows it, see [`shown`]: for IPv4 those of IPv6 have aliases.
    pub(super) fn shown(&mut self, family: Family, address: SocketAddr) -> SocketAddr {
        let alias = match (family, address.ip()) {
            (Family::V4, IpAddr::V6(ip)) => self.aliases.of(ip),
            _ => None,
        };
        alias.map_or_else(|| shown(family, address), |alias| SocketAddr::new(alias.into(), address.port()))
    }

    /// Forgets the sockets bound to a port that nobody has open any more. The kernel tells of no closing of a
    /// socket that is not connected. True if there were any.
    pub(super) fn sweep(&mut self, port: u16) -> bool {
        let bound = |opened: &&Opened| opened.bound().is_some_and(|bound| bound.port() == port);
        let idle = |opened: &&Opened| {
            matches!(opened.phase, Phase::Fresh | Phase::Listening(_) | Phase::Datagrams(_))
        };
        let candidates =
            self.opened.values().filter(bound).filter(idle).map(|opened| opened.socket).collect();
        self.forget_dead(candidates)
    }

    /// Forgets those of the sockets that nobody has open any more. True if there were any.
    fn forget_dead(&mut self, candidates: Vec<peersock_fd::Opened>) -> bool {
        let is_dead = |socket: &_| !self.is_open(*socket) || self.is_taken_over(*socket);
        let dead: Vec<_> = candidates.into_iter().filter(is_dead).collect();
        for socket in &dead {
            self.forget(*socket);
        }
        !dead.is_empty()
    }

    /// Whether anybody still has the socket open: then its name is taken.
    pub(super) fn is_open(&self, socket: peersock_fd::Opened) -> bool {
        let name = address(&Name::Opened(self.tag, socket));
        let kind = match socket.kind {
            peersock_fd::Kind::Stream => SocketType::STREAM,
            _ => SocketType::DGRAM,
        };
        let probe = unix(kind);
        // Without a descriptor to ask with, nobody knows: then it is not taken for closed.
        probe.map_or(true, |probe| rustix::net::bind(&probe, &name) != Ok(()))
    }

    /// Whether the application has closed its listener and somebody else has taken its name.
    fn is_taken_over(&self, socket: peersock_fd::Opened) -> bool {
        let Some(Phase::Listening(key)) = self.opened.get(&socket.id).map(|opened| opened.phase) else {
            return false;
        };
        let Some(Entry::Listening(listening)) = self.entry(key) else { return false };
        let name = Name::Opened(self.tag, socket).to_string();
        holder_of(&name).is_some_and(|inode| inode != listening.inode)
    }

    /// Somebody has closed a socket. If nobody has it open any more, who connects now is refused at once.
    pub(super) fn closed(&mut self, socket: peersock_fd::Opened) -> Result<(), Errno> {
        let phase = self.opened.get(&socket.id).map(|opened| opened.phase);
        // Of the others what they have sent may not have been taken yet.
        if matches!(phase, Some(Phase::Listening(_))) && !self.is_open(socket) {
            self.forget(socket);
        }
        Ok(())
    }

    /// Forgets a socket with all that belongs to it.
    pub(super) fn forget(&mut self, socket: peersock_fd::Opened) {
        let Some(opened) = self.opened.remove(&socket.id) else { return };
        match opened.phase {
            Phase::Fresh => {}
            Phase::Listening(key) | Phase::Connecting(key) | Phase::Connected(key) => drop(self.remove(key)),
            Phase::Datagrams(key) => self.forget_entry(key),
        }
    }

    /// A stream has ended.
    pub(super) fn end_stream(&mut self, mut stream: Stream) {
        let is_draining = self.draining.is_some();
        let ending = stream.finish(is_draining);
        let id = self.forget_stream(&stream);
        match ending {
            Some(ending) => self.note_ending(id, &stream, ending),
            None if is_draining => self.delivering.add(Arc::clone(stream.connection.flow())),
            None => {}
        }
    }

    /// Remembers what has ended a stream, and what was lost.
    pub(super) fn note_ending(&mut self, id: SocketId, stream: &Stream, ending: Ending) {
        let is_draining = self.draining.is_some();
        let is_seen = !self.has_unseen_calls || stream.process() != rustix::process::getpid().as_raw_pid();
        let was_open = is_draining || ending.was_open;
        let is_noticed = ending.is_noticed || !(is_seen || is_draining);
        self.endings.note(id, Ending { was_open, is_noticed, ..ending });
    }

    /// A call has told an application what has ended a connection, or does so now.
    pub(super) fn note_noticed(&mut self, which: Which) {
        match self.stream_mut(which) {
            Some(stream) => stream.note_noticed(),
            None => self.endings.note_noticed(id(which)),
        }
    }

    /// Forgets the socket of a stream that has ended.
    pub(super) fn forget_stream(&mut self, stream: &Stream) -> SocketId {
        match stream.origin {
            Origin::Opened(id) => {
                self.opened.remove(&id);
                id
            }
            Origin::Accepted(id) => {
                self.accepted.remove(&id);
                id
            }
        }
    }

    /// The stream of a socket that is connected.
    pub(super) fn stream(&self, which: Which) -> Option<&Stream> {
        match self.entry(self.stream_key(which)?)? {
            Entry::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn stream_mut(&mut self, which: Which) -> Option<&mut Stream> {
        match self.entry_mut(self.stream_key(which)?)? {
            Entry::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    fn stream_key(&self, which: Which) -> Option<Key> {
        match which {
            Which::Accepted(id) => self.accepted.get(&id).copied(),
            Which::Opened(socket) => match self.opened.get(&socket.id)?.phase {
                Phase::Connected(key) => Some(key),
                _ => None,
            },
        }
    }
}

/// The inode of the socket that has an abstract name, as far as the system tells: proc(5), `/proc/net/unix`.
fn holder_of(name: &str) -> Option<u64> {
    let listed = std::fs::read_to_string("/proc/net/unix").ok()?;
    listed.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(6);
        let (inode, path) = (fields.next()?, fields.next()?);
        (path.strip_prefix('@')? == name).then(|| inode.parse().ok())?
    })
}

/// An address as a socket of a family shows it: IPv4 is mapped into IPv6 (RFC 4291 2.5.5.2).
pub(super) fn shown(family: Family, address: SocketAddr) -> SocketAddr {
    match (family, address.ip()) {
        (Family::V6, IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        _ => address,
    }
}

/// The address that is meant: a mapped one is IPv4's.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What the C library calls an error of the stack.
pub(super) fn errno(error: Error) -> Errno {
    Errno::from_raw_os_error(error.errno())
}
