//! The listeners of a server, and kernel sockets that receive for an overlay socket as well.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use peersock_fd::option_table::Row;
use peersock_fd::{Errno, Kind, Name, SocketId, name_of, peer_credentials};
use rustix::net::{AddressFamily, ipproto, sockopt};

use crate::kernel_listener::{Alongside, EVENTS};
use crate::listening::{Accepting, Listening, Step, places};
use crate::private_name::PrivateName;
use crate::socket_table::{Opened, Phase};
use crate::state::{Entry, ServerState};
use crate::stream::PLACE_TIMEOUT;
use crate::transport::{Both, Transport};
use crate::wakers::{Key, Readiness};

impl ServerState {
    /// Handles listen(2), also a repeated call that changes the backlog.
    pub(crate) fn listen(
        &mut self,
        socket: peersock_fd::Opened,
        backlog: u32,
        fd: Option<OwnedFd>,
    ) -> Result<(), Errno> {
        let fd = fd.ok_or(Errno::BADF)?;
        let named = rustix::net::getsockname(&fd).ok().and_then(name_of);
        if named != Some(Name::Opened(self.context.tag, socket)) || !sockopt::socket_acceptconn(&fd)? {
            return Err(Errno::INVAL);
        }
        // Other processes may have descriptors of the socket from before it became private.
        let private = self.sockets.get(socket.id).and_then(|opened| opened.private.clone());
        if private.as_ref().is_some_and(|private| !private.is_of(fd.as_fd())) {
            return Err(Errno::INVAL);
        }
        // A listening socket has the credentials of the process that called listen(2).
        let owner = peer_credentials(fd.as_fd())?;
        self.note_descriptor(socket, fd.as_fd());
        if self.socket(socket).reserved.is_empty() {
            self.bind(socket, (socket.family.unspecified(), 0).into())?;
        }
        self.check_port(socket)?;
        let opened = self.socket(socket);
        match opened.phase {
            Phase::Fresh | Phase::Listening(_) => {}
            Phase::Connecting(_) | Phase::Connected(_) | Phase::Datagrams(_) => return Err(Errno::INVAL),
        }
        let (places, is_exact) = places(backlog);
        for acceptor in &opened.reserved {
            match is_exact {
                true => acceptor.listen_exactly(places),
                false => acceptor.listen(places),
            }
        }
        if let Phase::Listening(key) = opened.phase
            && let Some(Entry::Listening(listening)) = self.entry_mut(key)
        {
            return listening.listen_again(owner, backlog);
        }
        let key = self.context.new_key();
        self.socket(socket).phase = Phase::Listening(key);
        let is_watched = self.socket(socket).watch.is_some();
        let listening = Listening::new(key, socket, (owner, private), is_watched, backlog, &mut self.context);
        self.insert(key, Entry::Listening(listening));
        Ok(())
    }

    /// Ends a listener, or a socket whose attempt to connect has failed. Unaccepted connections are reset,
    /// and the successor takes over the address and port. The descriptor `fd` proves that the asker may end
    /// the socket.
    pub(crate) fn end_socket(
        &mut self,
        socket: peersock_fd::Opened,
        successor: Option<peersock_fd::Opened>,
        fd: Option<OwnedFd>,
    ) -> Result<(), Errno> {
        let fd = fd.ok_or(Errno::BADF)?;
        let named = rustix::net::getsockname(&fd).ok().and_then(name_of);
        if socket.kind != Kind::Stream {
            let successor = successor.filter(|_| named == Some(Name::Opened(self.context.tag, socket)));
            return self.succeed_datagrams(socket, successor.ok_or(Errno::INVAL)?);
        }
        let is_of = |private: &Arc<PrivateName>| private.is_of(fd.as_fd());
        let is_listener = sockopt::socket_acceptconn(&fd)?;
        let opened = self.sockets.get(socket.id);
        // Connections have their listener's name.
        let is_ended = match opened.map(|opened| opened.phase) {
            Some(Phase::Listening(_)) => is_listener,
            // A listener that the node has refused may be a kernel socket.
            Some(Phase::Fresh) | None => true,
            Some(_) => false,
        };
        let is_private = opened.and_then(|opened| opened.private.as_ref()).is_none_or(is_of);
        if named != Some(Name::Opened(self.context.tag, socket)) || !is_private || !is_ended {
            return Err(Errno::INVAL);
        }
        let Some(bound) = opened.and_then(Opened::bound) else { return Ok(()) };
        if let Some(successor) = successor
            && ((successor.kind, successor.family) != (Kind::Stream, socket.family)
                || self.socket(successor).phase != Phase::Fresh)
        {
            return Err(Errno::INVAL);
        }
        self.forget(socket);
        if is_listener {
            self.reset_unaccepted(socket.id);
        }
        if let Some(successor) = successor {
            let node = self.context.node()?;
            let opened = self.socket(successor);
            // Some of the port's connections may be in TIME-WAIT.
            let reuse_address = std::mem::replace(&mut opened.options.reuse_address, true);
            if let Err(error) = opened.bind(&node, bound) {
                tracing::debug!(%error, "a socket that has ended leaves no port to its successor");
            }
            opened.options.reuse_address = reuse_address;
        }
        Ok(())
    }

    /// Resets the unaccepted connections of a listener. They wait in the queue of a descriptor that other
    /// processes may still have.
    fn reset_unaccepted(&mut self, listener: SocketId) {
        let unaccepted = self.entries.iter().filter_map(|(key, entry)| match entry {
            Entry::Stream(stream) if stream.is_unaccepted(listener) => {
                stream.connection.flow().set_reset_on_close(true);
                Some(*key)
            }
            _ => None,
        });
        for key in unaccepted.collect::<Vec<Key>>() {
            self.end_stream(key);
        }
    }

    /// Replaces a stream's descriptor by a new one, to which only the node can connect.
    pub(crate) fn make_private(
        &mut self,
        asker: Key,
        socket: peersock_fd::Opened,
        fd: Option<OwnedFd>,
    ) -> Result<(), Errno> {
        let fd = fd.ok_or(Errno::BADF)?;
        let is_private = |opened: &Opened| opened.private.as_ref().is_some_and(|private| private.is_open());
        let opened = self.sockets.get(socket.id);
        if socket.kind != Kind::Stream
            || opened.is_some_and(|opened| opened.phase != Phase::Fresh || is_private(opened))
        {
            return Err(Errno::INVAL);
        }
        // A client of such a socket is identified by its process, see `accept_data`.
        if self.owner_of(asker).is_none_or(|owner| owner.pid == 0) {
            return Err(Errno::OPNOTSUPP);
        }
        let bound = PrivateName::bind(fd.as_fd(), &Name::Opened(self.context.tag, socket));
        let bound = bound.inspect_err(|error| tracing::debug!(%error, "a socket keeps its abstract name"))?;
        let opened = self.socket(socket);
        (opened.private, opened.inode) = (Some(Arc::new(bound)), None);
        // The previous descriptor is about to be closed.
        if let Some(watch) = opened.watch.take() {
            self.context.closings.unwatch(watch);
        }
        self.note_descriptor(socket, fd.as_fd());
        Ok(())
    }

    /// Refuses a port that no network allows. A socket bound to a wildcard address may have such a port as
    /// long as it only connects.
    fn check_port(&mut self, socket: peersock_fd::Opened) -> Result<(), Errno> {
        let port = self.socket(socket).reserved.first().map_or(0, |acceptor| acceptor.local_addr().port());
        if port == 0 {
            Ok(())
        } else {
            self.context.may_listen(port).inspect_err(|_| self.context.note_refusal(port))
        }
    }

    /// Delivers new connections to the application.
    pub(crate) fn accept_connections(&mut self, key: Key, readiness: Readiness) {
        let Some(Entry::Listening(listening)) = self.entries.get_mut(&key) else { return };
        let socket = listening.socket();
        let Some(opened) = self.sockets.get(socket.id) else { return };
        let mut accepted = Accepting::new();
        let step = listening.accept(key, &mut self.context, opened, readiness, &mut accepted);
        for (key, id, stream) in accepted {
            self.sockets.note_accepted(id, key);
            let wake = stream.waker();
            if stream.has_place() {
                self.context.set_timer(Instant::now() + PLACE_TIMEOUT, key);
            }
            self.insert(key, Entry::Stream(stream));
            wake.wake();
        }
        match step {
            Step::Waits => {}
            Step::NetworkDown => self.take_down(socket),
            Step::Closed => self.forget(socket),
        }
    }

    /// Lets an overlay socket also receive what arrives at a kernel socket.
    pub(crate) fn put_alongside(
        &mut self,
        socket: peersock_fd::Opened,
        fd: Option<OwnedFd>,
    ) -> Result<(), Errno> {
        let fd = fd.ok_or(Errno::BADF)?;
        if !matches!(sockopt::socket_domain(&fd)?, AddressFamily::INET | AddressFamily::INET6) {
            return Err(Errno::INVAL);
        }
        let key = match self.sockets.phase(socket.id) {
            Some(Phase::Datagrams(key)) => return self.put_datagrams_alongside(key, socket, fd),
            Some(Phase::Listening(key))
                if socket.kind == Kind::Stream && sockopt::socket_acceptconn(&fd)? =>
            {
                key
            }
            _ => return Err(Errno::INVAL),
        };
        let Some(Entry::Listening(listening)) = self.entries.get_mut(&key) else { return Err(Errno::INVAL) };
        listening.alongside = Some(Alongside::new(fd, key, &self.context)?);
        self.handle(key, Readiness::default());
        Ok(())
    }

    /// Makes a UDP socket receive from both networks, and send to both.
    fn put_datagrams_alongside(
        &mut self,
        key: Key,
        socket: peersock_fd::Opened,
        fd: OwnedFd,
    ) -> Result<(), Errno> {
        if socket.kind != Kind::Datagram || sockopt::socket_protocol(&fd)? != Some(ipproto::UDP) {
            return Err(Errno::INVAL);
        }
        let node = self.context.node()?;
        let fd = Arc::new(fd);
        let opened = self.sockets.get_mut(socket.id).ok_or(Errno::INVAL)?;
        let overlay = opened.transport.clone().ok_or(Errno::INVAL)?;
        let both: Arc<dyn Transport> = Arc::new(Both::new(&node, overlay, Arc::clone(&fd))?);
        opened.transport = Some(Arc::clone(&both));
        let Some(Entry::Datagrams(datagrams)) = self.entry_mut(key) else { return Err(Errno::INVAL) };
        datagrams.set_transport(both);
        self.context.watch(fd.as_fd(), key, EVENTS).map_err(|_| Errno::NOMEM)?;
        self.handle(key, Readiness::default());
        Ok(())
    }

    /// Sets an option of a socket on its kernel listener as well.
    pub(crate) fn follow_alongside(&self, socket: peersock_fd::Opened, row: &Row, value: &[u8]) {
        if row.is_followed
            && let Some(Phase::Listening(key)) = self.sockets.phase(socket.id)
            && let Some(Entry::Listening(Listening { alongside: Some(alongside), .. })) = self.entry(key)
        {
            alongside.follow(row, value);
        }
    }
}
