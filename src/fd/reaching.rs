//! What applications ask for datagram sockets: to bind, to connect, and where they want to send.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use peersock_fd::{Details, Errno, Family};
use peersock_stack::GroupChange;

use super::datagram::{Datagrams, at_home};
use super::options::Membership;
use super::ready::Key;
use super::server::{Entry, Readiness, ServerState};
use super::sockets::{Phase, canonical, errno};
use super::transport::{self, Transport};

impl ServerState {
    /// Makes a socket known that receives without being bound.
    pub(super) fn open_datagrams(&mut self, socket: peersock_fd::Opened) -> Result<(), Errno> {
        self.datagrams(socket).map(drop)
    }

    /// bind(2).
    pub(super) fn bind_datagrams(
        &mut self,
        socket: peersock_fd::Opened,
        local: SocketAddr,
    ) -> Result<(), Errno> {
        // A raw socket is there before it is bound.
        let before = match self.socket(socket).phase {
            Phase::Datagrams(key) if matches!(socket.kind, peersock_fd::Kind::Raw(_)) => Some(key),
            Phase::Fresh => None,
            _ => return Err(Errno::INVAL),
        };
        let node = self.node.upgrade().ok_or(Errno::NETDOWN)?;
        let local = canonical(local);
        let is_wildcard = local.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let aliased = socket.family == Family::V4 && is_wildcard && self.has_no_ipv4();
        let opened = self.socket(socket);
        let transport = transport::open(&node, socket, (local, aliased), &opened.options)?;
        transport.apply(&opened.options);
        for Membership { interface, group, filter } in std::mem::take(&mut opened.options.groups) {
            transport.change_group(interface, group, GroupChange::Join(filter)).map_err(errno)?;
        }
        opened.transport = Some(Arc::clone(&transport));
        if let Some(before) = before {
            self.forget_entry(before);
        }
        let key = self.new_key();
        let (waker, entry) = self.ready.waker(key);
        self.socket(socket).phase = Phase::Datagrams(key);
        let sweep = self.next_sweep(Instant::now());
        self.set_timer(sweep, key);
        let datagrams = Datagrams::new(socket, transport, (waker.clone(), entry), sweep);
        self.insert(key, Entry::Datagrams(datagrams));
        waker.wake();
        Ok(())
    }

    /// connect(2).
    pub(super) fn associate(
        &mut self,
        socket: peersock_fd::Opened,
        remote: Option<SocketAddr>,
    ) -> Result<(), Errno> {
        if remote.is_none() && !matches!(self.socket(socket).phase, Phase::Datagrams(_)) {
            return Ok(());
        }
        let (key, transport) = self.datagrams(socket)?;
        let target = remote.map(|remote| at_home(self.meant(remote), transport.local()));
        let options = target.map(|target| self.send_options(socket, target.ip(), None)).unwrap_or_default();
        if let Some(target) = target {
            let checked = transport.check(target, &options).map_err(errno);
            self.note_if_refused(checked, target)?;
        }
        transport.connect(target, &options).map_err(errno)?;
        self.socket(socket).error = None;
        if let Some(Entry::Datagrams(datagrams)) = self.entry_mut(key) {
            datagrams.peer = remote;
            // Which may be connected to the application's end is different now.
            let ends: Vec<Key> = datagrams.ends.drain().map(|(_, end)| end).collect();
            for end in ends {
                self.handle(end, Readiness { readable: true, ..Readiness::default() });
                self.remove(end);
            }
        }
        if let Some(remote) = remote {
            self.end(key, (remote, None))?;
        }
        Ok(())
    }

    /// The application wants to send somewhere: looks whether that can be, and has an end there.
    pub(super) fn reach(
        &mut self,
        socket: peersock_fd::Opened,
        remote: SocketAddr,
        details: Option<Details>,
    ) -> Result<(), Errno> {
        let (key, transport) = self.datagrams(socket)?;
        if let Some(error) = self.socket(socket).error.take() {
            return Err(error);
        }
        let target = at_home(self.meant(remote), transport.local());
        let checked =
            transport.check(target, &self.send_options(socket, target.ip(), details)).map_err(errno);
        self.note_if_refused(checked, target)?;
        self.end(key, (remote, details)).map(drop)
    }

    /// The socket, bound to any address and port if it is not bound.
    pub(super) fn datagrams(
        &mut self,
        socket: peersock_fd::Opened,
    ) -> Result<(Key, Arc<dyn Transport>), Errno> {
        if self.socket(socket).transport.is_none() {
            self.bind_datagrams(socket, (socket.family.unspecified(), 0).into())?;
        }
        let opened = self.socket(socket);
        match (opened.phase, &opened.transport) {
            (Phase::Datagrams(key), Some(transport)) => Ok((key, Arc::clone(transport))),
            _ => Err(Errno::INVAL),
        }
    }

    /// Whom a datagram socket is connected to.
    pub(super) fn peer_of(&self, socket: peersock_fd::Opened) -> Option<SocketAddr> {
        match self.opened.get(&socket.id)?.phase {
            Phase::Datagrams(key) => match self.entry(key)? {
                Entry::Datagrams(datagrams) => datagrams.peer,
                _ => None,
            },
            _ => None,
        }
    }
}
