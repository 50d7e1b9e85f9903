//! The connection attempts of a server's sockets.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use peersock_fd::{
    Credentials, Errno, Filling, Name, Reply, SocketId, Which, events_of, name_of, peer_credentials,
};
use rustix::event::PollFlags;
use rustix::net::SocketFlags;

use crate::addresses::errno;
use crate::connecting::{Asker, Connecting, Step};
use crate::passed_fds;
use crate::socket_table::Phase;
use crate::state::{Entry, ServerState};
use crate::wakers::Key;

/// Number of descriptors accepted before other sockets have their turn.
const ACCEPTS_PER_TURN: usize = 64;

impl ServerState {
    /// Begins an attempt. Returns the reply, or `None` if the asker gets it when the outcome is known.
    pub(crate) fn connect(
        &mut self,
        socket: peersock_fd::Opened,
        remote: SocketAddr,
        owner: Credentials,
        asker: Option<Asker>,
    ) -> Result<Option<Reply>, Errno> {
        let node = self.context.node()?;
        match self.socket(socket).phase {
            Phase::Fresh => {}
            // Another thread or process did that.
            Phase::Connecting(_) | Phase::Connected(_) | Phase::Listening(_) => {
                return self.connect_again(socket, asker);
            }
            Phase::Datagrams(_) => return Err(Errno::INVAL),
        }
        let bound = self.socket(socket).reserved.first().map(|acceptor| acceptor.local_addr());
        let remote = self.context.target(remote, bound);
        let opened = self.socket(socket);
        if remote.ip().is_unspecified() || remote.port() == 0 {
            return Err(Errno::CONNREFUSED);
        }
        let same_family = |local: &SocketAddr| local.is_ipv4() == remote.is_ipv4();
        let local = opened.reserved.iter().map(|acceptor| acceptor.local_addr()).find(same_family);
        if local.is_none() && !opened.reserved.is_empty() {
            return Err(Errno::NETUNREACH);
        }
        let mut options = opened.options.tcp(remote.is_ipv4());
        let device = opened.options.interface();
        // This socket itself holds the port.
        options.reuse_address |= local.is_some();
        let opened = node.connect(device, local, remote, options).map_err(errno);
        let connection = self.context.note_if_refused(opened, remote)?;
        self.context.contacted.note(remote.ip());
        let key = self.context.new_key();
        if let Some(asker) = asker {
            self.await_outcome(key, asker);
        }
        let opened = self.socket(socket);
        (opened.phase, opened.error) = (Phase::Connecting(key), None);
        let who = (socket.id, owner, opened.private.is_some());
        let mut attempt = Connecting::new(who, connection, asker, self.context.waker(key));
        let reply = match attempt.look() {
            _ if asker.is_some() => None,
            Some(Err(error)) => Some(Reply::Error(error.raw_os_error())),
            Some(Ok(())) | None => Some(Reply::Done),
        };
        self.insert(key, Entry::Connecting(attempt));
        Ok(reply)
    }

    /// Handles connect(2) of a socket that is connecting or connected, with a reply as of
    /// [`connect`](Self::connect).
    pub(crate) fn connect_again(
        &mut self,
        socket: peersock_fd::Opened,
        asker: Option<Asker>,
    ) -> Result<Option<Reply>, Errno> {
        match self.sockets.phase(socket.id) {
            Some(Phase::Connecting(_)) => {
                let asker = asker.ok_or(Errno::ALREADY)?;
                let (key, attempt) = self.attempt_of(socket).ok_or(Errno::ALREADY)?;
                attempt.join(asker);
                self.await_outcome(key, asker);
                Ok(None)
            }
            Some(Phase::Connected(_)) => {
                let stream = self.stream_mut(Which::Opened(socket)).ok_or(Errno::CONNABORTED)?;
                match stream.broken() {
                    Some(_) => Err(Errno::CONNABORTED),
                    None if stream.take_untold() => Ok(Some(Reply::Stands)),
                    None => Err(Errno::ISCONN),
                }
            }
            Some(Phase::Listening(_)) => Err(Errno::ISCONN),
            // The connection may have broken, and be forgotten, before any call has looked.
            Some(Phase::Fresh | Phase::Datagrams(_)) | None => match self.endings.get(socket.id) {
                Some(ending) if ending.is_own_attempt => Err(Errno::CONNABORTED),
                _ => Err(Errno::NOTCONN),
            },
        }
    }

    /// Registers an asker that waits for the outcome of an attempt.
    fn await_outcome(&mut self, attempt: Key, asker: Asker) {
        if let Some(until) = asker.until {
            self.context.set_timer(until, attempt);
        }
        if let Some(Entry::Requester(requester)) = self.entry_mut(asker.key) {
            requester.set_awaited(attempt);
        }
    }

    /// Ends an asker's wait for the outcome of an attempt. Returns the reply, unless it was given already.
    pub(crate) fn stop_waiting(&mut self, asker: Key) -> Option<Reply> {
        let Some(Entry::Requester(requester)) = self.entry_mut(asker) else { return None };
        let awaited = requester.take_awaited()?;
        match self.entry_mut(awaited) {
            Some(Entry::Connecting(attempt)) => attempt.stop_waiting(asker),
            _ => None,
        }
    }

    /// Forgets an asker that has gone while it waited for the outcome of an attempt. The attempt ends with
    /// the last one, as in the kernel, where a process that is killed closes its sockets.
    pub(crate) fn forget_waiting(&mut self, asker: Key, attempt: Key) {
        if let Some(Entry::Connecting(waiting)) = self.entries.get_mut(&attempt)
            && !waiting.forget(asker)
        {
            self.fail(attempt, None);
        }
    }

    /// Ends an attempt without a connection. Its socket may try again.
    fn fail(&mut self, attempt: Key, error: Option<Errno>) {
        let Some(Entry::Connecting(failed)) = self.remove(attempt) else { return };
        if let Some(opened) = self.sockets.get_mut(failed.id()) {
            (opened.phase, opened.error) = (Phase::Fresh, error);
        }
    }

    /// Handles shutdown(2) of a socket that is connecting: the attempt fails, or the error is EINPROGRESS.
    pub(crate) fn abort_connecting(&mut self, socket: peersock_fd::Opened) -> Result<(), Errno> {
        if self.attempt_of(socket).is_some_and(|(_, attempt)| !attempt.has_descriptor()) {
            self.accept_waiting_data();
        }
        let (key, attempt) = self.attempt_of(socket).ok_or(Errno::NOTCONN)?;
        if !attempt.shut_down() {
            return Err(Errno::INPROGRESS);
        }
        self.advance(key);
        Ok(())
    }

    /// Accepts the descriptors that applications have connected by now, and may have written to.
    fn accept_waiting_data(&mut self) {
        let find = |entry: &Entry| match entry {
            Entry::DataListener(listener) => Some(Arc::clone(listener)),
            _ => None,
        };
        let Some(listener) = self.entries.values().find_map(find).filter(|_| !self.is_ending) else { return };
        for _ in 0..ACCEPTS_PER_TURN {
            match events_of(listener.as_fd(), PollFlags::IN) {
                Ok(events) if events.contains(PollFlags::IN) => self.accept_data(&listener),
                _ => return,
            }
        }
    }

    /// Accepts a descriptor that an application has connected.
    pub(crate) fn accept_data(&mut self, listener: &OwnedFd) {
        for _ in 0..ACCEPTS_PER_TURN {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (fd, from) = match rustix::net::acceptfrom_with(listener, flags) {
                Ok(accepted) => accepted,
                Err(error) => return self.turn_away(listener, error),
            };
            // Check the name and the owner, because any process can have a similar name. It may be that of a
            // socket closed by now, one with the same ID and another node's tag, or the text of a private
            // one.
            if let Some(Name::Opened(tag, socket)) = from.and_then(name_of)
                && tag == self.context.tag
                && let Ok(owner) = peer_credentials(fd.as_fd())
                && let Some((key, attempt)) = self.attempt_of(socket)
                && attempt.is_of(owner)
            {
                attempt.attach(fd);
                self.advance(key);
                // Most connections come alone, and the kernel reports further ones again. So strangers do not
                // get all `ACCEPTS_PER_TURN` turns.
                return;
            }
            passed_fds::close_apart(fd);
        }
    }

    /// Notes that an application has filled its descriptor and waits for it to become writable.
    pub(crate) fn filled(&mut self, socket: peersock_fd::Opened, app_end: Option<OwnedFd>, filling: Filling) {
        let Some(Phase::Connecting(key)) = self.sockets.phase(socket.id) else { return };
        if let Some(Entry::Connecting(attempt)) = self.entries.get_mut(&key) {
            attempt.note_filled(app_end, filling, key, &mut self.context);
            self.advance(key);
        }
    }

    /// Returns the attempt of a socket that is connecting.
    pub(crate) fn attempt_of(&mut self, socket: peersock_fd::Opened) -> Option<(Key, &mut Connecting)> {
        let Some(Phase::Connecting(key)) = self.sockets.phase(socket.id) else { return None };
        match self.entry_mut(key) {
            Some(Entry::Connecting(attempt)) => Some((key, attempt)),
            _ => None,
        }
    }

    /// Advances an attempt.
    pub(crate) fn advance(&mut self, key: Key) {
        let Some(Entry::Connecting(attempt)) = self.entries.get_mut(&key) else { return };
        let id = attempt.id();
        let (replies, step) = attempt.advance(key, &mut self.context);
        match step {
            Step::Waits => self.end_abandoned(key, Instant::now()),
            Step::Failed(error) => self.fail(key, error),
            Step::GivenUp => {
                self.remove_socket(id);
                self.remove(key);
            }
            Step::Stands => self.begin_stream(key, id),
        }
        // Reply last, because an asker may look at the descriptor at once.
        for (asker, reply) in replies {
            self.reply(asker, &reply);
        }
    }

    /// Turns an established attempt, whose application descriptor is here, into a stream.
    fn begin_stream(&mut self, key: Key, id: SocketId) {
        let Some(Entry::Connecting(attempt)) = self.remove(key) else { return };
        let Some(opened) = self.sockets.get_mut(id) else { return };
        opened.phase = Phase::Connected(key);
        match attempt.into_stream(key, &self.context, opened.options.clone()) {
            Some(stream) => self.insert(key, Entry::Stream(stream)),
            None => drop(self.remove_socket(id)),
        }
    }
}
