//! Binding of the sockets that applications have opened, and removal of closed ones.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock::attach::{EventFlags, NodeHandle};
use peersock_fd::{Errno, Family, Name, SocketId, name_of};

use crate::application_fd;
use crate::private_name::PrivateName;
use crate::socket_table::{Opened, Phase};
use crate::state::{Entry, ServerState};
use crate::wakers::Readiness;

/// Maximum age of the list of name holders when closed sockets are searched to save memory.
const SWEEP_LIST_MAX_AGE: Duration = Duration::from_secs(1);

impl ServerState {
    /// Returns the socket, registered if it is new.
    pub(crate) fn socket(&mut self, socket: peersock_fd::Opened) -> &mut Opened {
        if self.sockets.is_time_to_sweep(socket.id) {
            self.sweep_unused();
        }
        self.sockets.open(socket)
    }

    /// Forgets closed sockets that never carried anything. If such a socket was only given options, the node
    /// has seen no descriptor, and nothing reports its closing.
    fn sweep_unused(&mut self) {
        let fresh = self.sockets.values().filter(|opened| opened.phase == Phase::Fresh);
        let fresh = fresh.map(|opened| opened.socket).collect();
        self.forget_dead(fresh, SWEEP_LIST_MAX_AGE);
        self.sockets.note_sweep();
    }

    /// Binds a socket. If the address is taken, checks whether a closed socket has it.
    pub(crate) fn bind(&mut self, socket: peersock_fd::Opened, local: SocketAddr) -> Result<(), Errno> {
        let local = self.context.meant_here(socket, local);
        match self.bind_once(socket, local) {
            Err(Errno::ADDRINUSE) if self.sweep(local.port()) => self.bind_once(socket, local),
            Err(Errno::ACCESS) => {
                self.context.note_refusal(local.port());
                Err(Errno::ACCESS)
            }
            // It may be a client's socket, so it is bound. A server there would be unreachable, which is
            // reported.
            Ok(()) if socket.kind == peersock_fd::Kind::Datagram && local.port() != 0 => {
                if self.context.may_listen(local.port()).is_err() {
                    self.context.note_refusal(local.port());
                }
                Ok(())
            }
            result => result,
        }
    }

    /// Makes a listener on IPv4's wildcard address accept IPv6 connections too, where the node has no IPv4
    /// address.
    fn add_ipv6(&mut self, node: &NodeHandle, socket: peersock_fd::Opened) {
        let has_no_ipv4 = self.context.has_no_ipv4();
        let opened = self.socket(socket);
        if let [only] = &opened.reserved[..]
            && only.local_addr().ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            && has_no_ipv4
        {
            let local = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), only.local_addr().port());
            let (device, options) = (opened.options.interface(), opened.options.tcp(false));
            // If another socket has the port, that socket keeps it.
            opened.reserved.extend(node.reserve(device, local, options));
        }
    }

    /// Makes sockets on IPv4's wildcard address leave IPv6 to a socket of that family. Does nothing if that
    /// socket wants IPv4 as well, because it would fail all the same. Returns true if there were any.
    fn give_way(&mut self, socket: peersock_fd::Opened, local: SocketAddr) -> bool {
        let (ip, port) = (local.ip().to_canonical(), local.port());
        // For the application an alias is an IPv4 address, which sockets on the wildcard address are bound to
        // as well.
        let is_ipv4 = ip.is_ipv4() || socket.family == Family::V4;
        if is_ipv4 || (ip.is_unspecified() && !self.socket(socket).options.v6_only) {
            return false;
        }
        let mut any = false;
        for opened in self.sockets.values_mut() {
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
            return match self.bind_datagrams(socket, local, false) {
                Err(Errno::ADDRINUSE) if self.give_way(socket, local) => {
                    self.bind_datagrams(socket, local, false)
                }
                result => result,
            };
        }
        let node = self.context.node()?;
        match self.socket(socket).bind(&node, local) {
            Err(Errno::ADDRINUSE) if self.give_way(socket, local) => {
                self.socket(socket).bind(&node, local)?;
            }
            result => result?,
        }
        self.add_ipv6(&node, socket);
        Ok(())
    }

    /// Ends pending calls on a socket whose network the node has left: from now on its calls fail with
    /// ENETDOWN.
    pub(crate) fn take_down(&mut self, socket: peersock_fd::Opened) {
        let Some(opened) = self.sockets.get_mut(socket.id).filter(|opened| !opened.is_down) else { return };
        opened.is_down = true;
        for process in self.processes() {
            application_fd::shut_one(self.context.tag, socket, process);
        }
    }

    /// Starts watching for closed sockets.
    pub(crate) fn watch_closings(&mut self) -> io::Result<()> {
        let key = self.context.closings_key;
        if let Some(fd) = self.context.closings.fd() {
            self.context.watch(fd, key, EventFlags::IN)?;
        }
        self.insert(key, Entry::Closings);
        Ok(())
    }

    /// Forgets the sockets that the kernel has reported as closed by all processes. Returns true if there
    /// were any.
    pub(crate) fn forget_closed(&mut self) -> bool {
        let mut any = false;
        while let Some(id) = self.context.closings.next_closed() {
            any = true;
            self.note_closed(id);
        }
        if self.context.closings.take_missed() {
            let watched = self.sockets.values().filter(|opened| opened.watch.is_some());
            let watched: Vec<_> = watched.map(|opened| opened.socket.id).collect();
            for id in watched {
                let opened = self.sockets.get(id);
                if opened.is_some_and(|opened| !self.context.seems_open(opened, SWEEP_LIST_MAX_AGE)) {
                    any = true;
                    self.note_closed(id);
                }
            }
            for (key, entry) in &mut self.entries {
                if let Entry::Stream(stream) = entry {
                    stream.forget_watch();
                    self.context.set_timer(Instant::now(), *key);
                }
            }
        }
        any
    }

    fn note_closed(&mut self, id: SocketId) {
        if let Some(key) = self.sockets.stream_of(id)
            && let Some(Entry::Stream(stream)) = self.entries.get_mut(&key)
            && stream.note_closed()
        {
            self.handle(key, Readiness::default());
        }
        let Some(opened) = self.sockets.get_mut(id) else { return };
        match opened.phase {
            Phase::Fresh | Phase::Listening(_) | Phase::Datagrams(_) => {
                let socket = opened.socket;
                self.forget(socket);
            }
            Phase::Connecting(key) => self.abandon(key, id),
            // Its stream detects the closing once it has taken what was written.
            Phase::Connected(_) => {
                if let Some(watch) = opened.watch.take() {
                    self.context.closings.unwatch(watch);
                }
            }
        }
    }

    /// Forgets the sockets bound to a port, or to any port if it is 0, that no process has open any more.
    /// Returns true if there were any.
    pub(crate) fn sweep(&mut self, port: u16) -> bool {
        let any = self.forget_closed();
        let is_it = |bound: SocketAddr| port == 0 || bound.port() == port;
        let bound = |opened: &&Opened| opened.watch.is_none() && opened.bound().is_some_and(is_it);
        let idle = |opened: &&Opened| {
            matches!(opened.phase, Phase::Fresh | Phase::Listening(_) | Phase::Datagrams(_))
        };
        let candidates =
            self.sockets.values().filter(bound).filter(idle).map(|opened| opened.socket).collect();
        self.forget_dead(candidates, if port == 0 { SWEEP_LIST_MAX_AGE } else { Duration::ZERO }) || any
    }

    /// Forgets the candidates that no process has open any more. Returns true if there were any.
    fn forget_dead(&mut self, candidates: Vec<peersock_fd::Opened>, age: Duration) -> bool {
        let dead: Vec<_> = candidates.into_iter().filter(|socket| !self.is_open(*socket, age)).collect();
        for socket in &dead {
            self.forget(*socket);
        }
        !dead.is_empty()
    }

    fn is_open(&mut self, socket: peersock_fd::Opened, age: Duration) -> bool {
        self.sockets.get(socket.id).is_some_and(|opened| self.context.is_open(opened, age))
    }

    /// Notes a descriptor that came with a request. From then on it identifies the holder of the socket's
    /// name, and its closing is watched.
    pub(crate) fn note_descriptor(&mut self, socket: peersock_fd::Opened, fd: BorrowedFd<'_>) {
        let opened = self.sockets.get(socket.id);
        let is_of = |private: &Arc<PrivateName>| private.is_of(fd);
        if opened.is_some_and(|opened| {
            // The inode does not change. Others may have descriptors of a private socket from before it
            // became private.
            opened.inode.is_some() || !opened.private.as_ref().is_none_or(is_of)
        }) {
            return;
        }
        let named = rustix::net::getsockname(fd).ok().and_then(name_of);
        if named == Some(Name::Opened(self.context.tag, socket))
            && let Ok(stat) = rustix::fs::fstat(fd)
        {
            let watch = self.context.closings.watch(socket.id, fd);
            let opened = self.socket(socket);
            (opened.inode, opened.watch) = (Some(stat.st_ino), watch);
        }
    }

    /// Notes that a process has closed a socket. If no process has it open any more, new connections are
    /// refused at once.
    pub(crate) fn closed(&mut self, socket: peersock_fd::Opened) -> Result<(), Errno> {
        let phase = self.sockets.phase(socket.id);
        // For the other phases, sent data may not have been taken yet.
        if matches!(phase, Some(Phase::Listening(_))) && !self.is_open(socket, Duration::ZERO) {
            self.forget(socket);
        }
        Ok(())
    }

    /// Removes a socket from the table.
    pub(crate) fn remove_socket(&mut self, id: SocketId) -> Option<Opened> {
        let opened = self.sockets.remove(id)?;
        if let Some(watch) = opened.watch {
            self.context.closings.unwatch(watch);
        }
        Some(opened)
    }

    /// Forgets a socket and everything that belongs to it.
    pub(crate) fn forget(&mut self, socket: peersock_fd::Opened) {
        if let Some(Phase::Datagrams(key)) = self.sockets.phase(socket.id) {
            // Send the data it has just written.
            self.send_all_of(key);
        }
        let Some(opened) = self.remove_socket(socket.id) else { return };
        match opened.phase {
            Phase::Fresh => {}
            Phase::Listening(key) | Phase::Connecting(key) | Phase::Connected(key) => drop(self.remove(key)),
            Phase::Datagrams(key) => self.remove_datagrams(key),
        }
    }
}
