//! The datagram sockets of a server: requests of applications (bind, connect, prepare to send), and the data
//! between them and the stack.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use peersock_fd::{Details, Errno, Family, Header};
use peersock_stack::GroupChange;

use crate::addresses::{canonical, errno};
use crate::ancillary::DatagramOptions;
use crate::context::Context;
use crate::datagram::{DATAGRAMS_PER_TURN, Datagrams, NoEnd, Step};
use crate::datagram_ends::{Place, least_used};
use crate::options::Membership;
use crate::socket_table::{Opened, Phase};
use crate::state::{Entry, ServerState};
use crate::transport::{self, Binding, Transport};
use crate::wakers::{Key, Readiness};

/// Maximum number of datagrams in an end with default kernel buffers, reached by empty datagrams.
const MAX_HELD_DATAGRAMS: usize = 320;

impl ServerState {
    /// Registers a socket that receives without being bound.
    pub(crate) fn open_datagrams(&mut self, socket: peersock_fd::Opened) -> Result<(), Errno> {
        self.datagrams(socket).map(drop)
    }

    /// Handles bind(2), or the implicit bind of an unbound socket.
    pub(crate) fn bind_datagrams(
        &mut self,
        socket: peersock_fd::Opened,
        local: SocketAddr,
        is_implicit: bool,
    ) -> Result<(), Errno> {
        // A raw socket exists before it is bound.
        let before = match self.socket(socket).phase {
            Phase::Datagrams(key) if matches!(socket.kind, peersock_fd::Kind::Raw(_)) => Some(key),
            Phase::Fresh => None,
            _ => return Err(Errno::INVAL),
        };
        let node = self.context.node()?;
        let local = canonical(local);
        let is_wildcard = local.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let aliased = socket.family == Family::V4 && is_wildcard && self.context.has_no_ipv4();
        let binding = Binding { local, aliased, is_implicit };
        let opened = self.socket(socket);
        let transport = transport::open(&node, socket, binding, &opened.options)?;
        transport.apply(&opened.options);
        for Membership { interface, group, filter } in std::mem::take(&mut opened.options.groups) {
            transport.change_group(interface, group, GroupChange::Join(filter)).map_err(errno)?;
        }
        opened.transport = Some(Arc::clone(&transport));
        if let Some(before) = before {
            self.remove_datagrams(before);
        }
        let key = self.context.new_key();
        self.socket(socket).phase = Phase::Datagrams(key);
        let is_watched = self.socket(socket).watch.is_some();
        let others = (!is_watched).then(|| self.sockets.len());
        let datagrams = Datagrams::new(key, socket, transport, (&mut self.context, others));
        self.insert(key, Entry::Datagrams(datagrams));
        Ok(())
    }

    /// Handles connect(2).
    pub(crate) fn associate(
        &mut self,
        socket: peersock_fd::Opened,
        remote: Option<SocketAddr>,
    ) -> Result<(), Errno> {
        if remote.is_none() && !matches!(self.socket(socket).phase, Phase::Datagrams(_)) {
            return Ok(());
        }
        let (key, transport) = self.datagrams(socket)?;
        let target = remote.map(|remote| self.context.target(remote, Some(transport.local())));
        let (own, asked) = (&self.sockets.open(socket).options, DatagramOptions::default());
        let options =
            target.map(|target| self.context.send_options(own, target.ip(), &asked)).unwrap_or_default();
        if let Some(target) = target {
            let checked = transport.check(target, &options).map_err(errno);
            self.context.note_if_refused(checked, target)?;
            self.context.contacted.note(target.ip());
        }
        transport.connect(target, &options).map_err(errno)?;
        self.socket(socket).error = None;
        if let Some((datagrams, opened, context)) = self.datagrams_at(key) {
            // The only end allowed to connect to the application's end changes.
            datagrams.associate(remote, context, &opened.options);
        }
        if let Some(remote) = remote {
            self.end(key, (remote, None))?;
        }
        Ok(())
    }

    /// Prepares a destination for the application: checks that it is reachable and makes an end there.
    pub(crate) fn reach(
        &mut self,
        socket: peersock_fd::Opened,
        remote: SocketAddr,
        details: Option<Details>,
        headers: &[Header],
    ) -> Result<(), Errno> {
        let asked = DatagramOptions::new(details, headers)?;
        let (key, transport) = self.datagrams(socket)?;
        if let Some(error) = self.socket(socket).error.take() {
            return Err(error);
        }
        let target = self.context.target(remote, Some(transport.local()));
        let options = self.context.send_options(&self.sockets.open(socket).options, target.ip(), &asked);
        let checked = transport.check(target, &options).map_err(errno);
        self.context.note_if_refused(checked, target)?;
        self.context.contacted.note(target.ip());
        if headers.is_empty() && asked.segment().is_none() {
            return self.end(key, (remote, details)).map(drop);
        }
        let digest = Some(self.context.name_key.digest(details, headers));
        let end = self.end(key, (remote, Some(Details { digest, ..Details::default() })))?;
        if let Some((datagrams, ..)) = self.datagrams_at(key) {
            datagrams.set_asked(end, asked);
        }
        Ok(())
    }

    /// Returns the socket, bound to any address and port if it is not bound.
    pub(crate) fn datagrams(
        &mut self,
        socket: peersock_fd::Opened,
    ) -> Result<(Key, Arc<dyn Transport>), Errno> {
        if self.socket(socket).transport.is_none() {
            let local = (socket.family.unspecified(), 0).into();
            match self.bind_datagrams(socket, local, true) {
                Err(Errno::ADDRINUSE) if self.sweep(0) => self.bind_datagrams(socket, local, true)?,
                result => result?,
            }
        }
        let opened = self.socket(socket);
        match (opened.phase, &opened.transport) {
            (Phase::Datagrams(key), Some(transport)) => Ok((key, Arc::clone(transport))),
            _ => Err(Errno::INVAL),
        }
    }

    /// Replaces a socket that can no longer receive by a new one, which takes over its binding, groups and
    /// options.
    ///
    /// # Errors
    /// EINVAL if the node does not know the socket, or the successor was used already.
    pub(crate) fn succeed_datagrams(
        &mut self,
        socket: peersock_fd::Opened,
        successor: peersock_fd::Opened,
    ) -> Result<(), Errno> {
        let Some(Phase::Datagrams(before)) = self.sockets.phase(socket.id) else { return Err(Errno::INVAL) };
        if (successor.kind, successor.family) != (socket.kind, socket.family)
            || self.socket(successor).phase != Phase::Fresh
        {
            return Err(Errno::INVAL);
        }
        self.remove_datagrams(before);
        let old = self.sockets.remove(socket.id).ok_or(Errno::INVAL)?;
        let transport = old.transport.ok_or(Errno::INVAL)?;
        let key = self.context.new_key();
        transport.watch(key, &self.context);
        let new = self.socket(successor);
        (new.transport, new.options, new.error) = (Some(Arc::clone(&transport)), old.options, old.error);
        new.phase = Phase::Datagrams(key);
        let others = new.watch.is_none().then(|| self.sockets.len());
        let datagrams = Datagrams::new(key, successor, transport, (&mut self.context, others));
        self.insert(key, Entry::Datagrams(datagrams));
        Ok(())
    }

    /// Returns the address a datagram socket is connected to.
    pub(crate) fn peer_of(&self, socket: peersock_fd::Opened) -> Option<SocketAddr> {
        match self.sockets.phase(socket.id)? {
            Phase::Datagrams(key) => match self.entry(key)? {
                Entry::Datagrams(datagrams) => datagrams.peer(),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns a datagram socket, its application's settings, and the shared context.
    pub(crate) fn datagrams_at(&mut self, key: Key) -> Option<(&mut Datagrams, &mut Opened, &mut Context)> {
        let Some(Entry::Datagrams(datagrams)) = self.entries.get_mut(&key) else { return None };
        let opened = self.sockets.get_mut(datagrams.socket.id)?;
        Some((datagrams, opened, &mut self.context))
    }

    /// Delivers received datagrams to the application.
    pub(crate) fn deliver_datagrams(&mut self, key: Key) {
        let (mut left, mut is_room_made) = (DATAGRAMS_PER_TURN, false);
        loop {
            let others = self.sockets.len();
            let Some((datagrams, opened, context)) = self.datagrams_at(key) else { return };
            let socket = datagrams.socket;
            match datagrams.deliver(context, opened, others, (&mut left, is_room_made)) {
                Step::Waits => return,
                Step::NeedsRoom => {
                    self.give_up_ends();
                    is_room_made = true;
                }
                Step::Failed(error) => {
                    self.fail_datagrams(key, error);
                    is_room_made = false;
                }
                Step::NetworkDown => return self.take_down(socket),
                // No process has it open any more.
                Step::Closed => return self.forget(socket),
            }
        }
    }

    /// Reports a datagram's error to the application.
    pub(crate) fn fail_datagrams(&mut self, key: Key, error: Errno) {
        let Some((datagrams, opened, _)) = self.datagrams_at(key) else { return };
        opened.error = Some(error);
        let place = datagrams.place_of_errors();
        if let Ok(end) = self.end(key, place)
            && let Some((datagrams, opened, context)) = self.datagrams_at(key)
        {
            datagrams.report_error(end, context, &opened.options);
        }
    }

    /// Sends what the application has written to one of the node's ends.
    pub(crate) fn send_datagrams(&mut self, owner: Key, end: Key, readiness: Readiness) {
        if readiness.writable
            && matches!(self.entry(owner), Some(Entry::Datagrams(datagrams)) if datagrams.has_waiting())
        {
            self.deliver_datagrams(owner);
        }
        if let Some((datagrams, opened, context)) = self.datagrams_at(owner) {
            datagrams.send_from(end, context, &opened.options);
        }
    }

    /// Sends what applications have written so far, up to the capacity of an end.
    pub(crate) fn send_all_datagrams(&mut self) {
        let keys: Vec<Key> = self.entries.keys().copied().collect();
        keys.into_iter().for_each(|key| self.send_all_of(key));
    }

    /// Does the same for one datagram socket.
    pub(crate) fn send_all_of(&mut self, key: Key) {
        if let Some((datagrams, opened, context)) = self.datagrams_at(key) {
            datagrams.send_all(MAX_HELD_DATAGRAMS.div_ceil(DATAGRAMS_PER_TURN), context, &opened.options);
        }
    }

    /// Returns the end of a socket for one place, made if there is none.
    pub(crate) fn end(&mut self, owner: Key, place: Place) -> Result<Key, Errno> {
        let mut is_room_made = false;
        loop {
            let (datagrams, opened, context) = self.datagrams_at(owner).ok_or(Errno::INVAL)?;
            match datagrams.end_at(place, context, opened, is_room_made) {
                Ok(end) => return Ok(end),
                Err(NoEnd::Room) => {
                    self.give_up_ends();
                    is_room_made = true;
                }
                Err(NoEnd::Failed(error)) => return Err(error),
            }
        }
    }

    /// Closes the least recently used ends of all sockets.
    fn give_up_ends(&mut self) {
        let mut all = Vec::new();
        for (owner, entry) in &self.entries {
            if let Entry::Datagrams(datagrams) = entry {
                all.extend(datagrams.end_uses().map(|(used, end)| (used, (*owner, end))));
            }
        }
        for (owner, end) in least_used(all) {
            if let Some((datagrams, opened, context)) = self.datagrams_at(owner) {
                datagrams.give_up_end(end, context, &opened.options);
            }
        }
    }

    /// Forgets a datagram socket and its ends.
    pub(crate) fn remove_datagrams(&mut self, key: Key) {
        if let Some(Entry::Datagrams(mut datagrams)) = self.remove(key) {
            datagrams.close_ends(&mut self.context);
        }
    }
}
