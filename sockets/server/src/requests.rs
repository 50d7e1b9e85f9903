//! Requests of applications.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use peersock::attach::EventFlags;
use peersock_fd::{
    Broken, Credentials, Errno, Interface, Message, Reply, Report, Request, Unacknowledged, VERSION, Which,
    peer_credentials, proof,
};
use peersock_stack::Flow;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::addresses::{errno, route, routes};
use crate::ancillary::DatagramOptions;
use crate::connecting::Asker;
use crate::ipv4_aliases::ALIAS_RANGE;
use crate::options::{interface_index, interface_name};
use crate::passed_fds;
use crate::requester::{Received, Requester, failed, id};
use crate::socket_table::Phase;
use crate::state::{Entry, ServerState};
use crate::stream::Stream;
use crate::transport;
use crate::wakers::Key;
use peersock_datapath::JoinedNetwork;

/// Number of request connections accepted before other sockets have their turn.
const ACCEPTS_PER_TURN: usize = 64;

/// The largest error number of Linux.
const LAST_ERRNO: i32 = 4095;

impl ServerState {
    /// Accepts applications' connections to the request socket.
    pub(crate) fn accept_requester(&mut self, listener: &OwnedFd) {
        for _ in 0..ACCEPTS_PER_TURN {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let fd = match rustix::net::accept_with(listener, flags) {
                Ok(fd) => fd,
                Err(error) => return self.turn_away(listener, error),
            };
            self.add_requester(fd);
        }
    }

    fn add_requester(&mut self, fd: OwnedFd) {
        let Ok(credentials) = peer_credentials(fd.as_fd()) else { return };
        let key = self.context.new_key();
        if self.context.watch(fd.as_fd(), key, EventFlags::IN).is_err() {
            return;
        }
        self.contacts += 1;
        let requester = Requester::new(fd, credentials);
        // Drop the oldest connection that has not shown the token.
        if !requester.is_trusted()
            && let Some(oldest) = self.strangers.add(key)
            && matches!(self.entry(oldest), Some(Entry::Requester(oldest)) if !oldest.is_trusted())
        {
            self.end_requester(oldest);
        }
        self.insert(key, Entry::Requester(requester));
    }

    /// Accepts a connection that an application has made itself, see [`Request::Adopt`]. Accepts no other
    /// descriptor, because it could make the node block.
    fn adopt(&mut self, fd: Option<OwnedFd>) {
        let is_connection = |fd: &OwnedFd| {
            sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
                && sockopt::socket_type(fd) == Ok(SocketType::SEQPACKET)
                && sockopt::socket_acceptconn(fd) == Ok(false)
        };
        if let Some(fd) = fd.filter(is_connection) {
            passed_fds::refuse(fd.as_fd());
            self.add_requester(fd);
        }
    }

    /// Answers one message. Most applications wait for the reply before they send the next, and the kernel
    /// reports further messages again. The requester is dropped once the application has closed its end.
    pub(crate) fn serve(&mut self, key: Key) {
        let Some(Entry::Requester(requester)) = self.entries.get_mut(&key) else { return };
        match requester.receive(&mut self.context) {
            Received::Nothing => {}
            Received::End => self.end_requester(key),
            Received::Message(message, fd) => {
                let reply = match message {
                    Some(Message { version: VERSION, request, .. }) => self.answer(key, request, fd),
                    _ => Some(Reply::Failed(libc::EPROTO)),
                };
                if let Some(reply) = reply {
                    self.reply(key, &reply);
                }
            }
        }
    }

    /// Sends a reply that an application waits for.
    pub(crate) fn reply(&mut self, key: Key, reply: &Reply) {
        if let Some(Entry::Requester(requester)) = self.entry(key)
            && requester.send(reply).is_err()
        {
            self.end_requester(key);
        }
    }

    fn end_requester(&mut self, key: Key) {
        if let Some(Entry::Requester(mut requester)) = self.remove(key) {
            let awaited = requester.take_awaited();
            requester.close();
            if let Some(attempt) = awaited {
                self.forget_waiting(key, attempt);
            }
        }
    }

    /// Handles a request. Returns its reply, or `None` if there is none or it comes later.
    fn answer(&mut self, key: Key, request: Request, fd: Option<OwnedFd>) -> Option<Reply> {
        if self.is_ending {
            let is_waited_for =
                !matches!(request, Request::TellOption(..) | Request::StopWaiting | Request::Adopt);
            return is_waited_for.then(|| failed(Errno::NETDOWN));
        }
        let done = |result: Result<(), Errno>| Some(result.map_or_else(failed, |()| Reply::Done));
        if let Request::Open(socket)
        | Request::Bind(socket, _)
        | Request::Associate(socket, _)
        | Request::Reach(socket, ..)
        | Request::Fits { socket, .. } = &request
            && let Some(fd) = &fd
        {
            self.note_descriptor(*socket, fd.as_fd());
        }
        if let Some(error) = self.mapped_address_error(&request) {
            return done(Err(error));
        }
        match request {
            Request::Prove(challenge) => Some(Reply::Proof(proof(self.context.token, challenge))),
            Request::NameKey => Some(Reply::NameKey(self.context.name_key)),
            Request::Bind(socket, local) => done(self.bind(socket, local)),
            Request::Listen(socket, backlog) => done(self.listen(socket, backlog, fd)),
            Request::Connect { socket, remote, wait, timeout } => {
                let Some(owner) = self.owner_of(key) else { return done(Err(Errno::PERM)) };
                let asker = wait.then(|| Asker::new(key, owner, timeout));
                self.connect(socket, remote, owner, asker).unwrap_or_else(|error| Some(failed(error)))
            }
            Request::ConnectAgain { socket, wait, timeout } => {
                let Some(owner) = self.owner_of(key) else { return done(Err(Errno::PERM)) };
                let asker = wait.then(|| Asker::new(key, owner, timeout));
                self.connect_again(socket, asker).unwrap_or_else(|error| Some(failed(error)))
            }
            Request::StopWaiting => self.stop_waiting(key),
            Request::Filled(socket, filling) => {
                self.filled(socket, fd, filling);
                None
            }
            Request::Addresses(which) => Some(self.addresses(which)),
            Request::TakeError(which) => Some(Reply::Error(self.take_error(which))),
            Request::KeepError(which, error) => {
                self.keep_error(which, error);
                Some(Reply::Done)
            }
            Request::Ending(which) => Some(Reply::Error(self.ending(which))),
            Request::SetOption(which, level, name, value) => {
                done(self.set_option(which, level, name, &value))
            }
            Request::TellOption(which, level, name, value) => {
                if let Err(error) = self.set_option(which, level, name, &value) {
                    tracing::debug!(%error, level, name, "an option was not set");
                }
                None
            }
            Request::Option(which, level, name, length) => {
                let value = self.option(which, level, name, length as usize);
                Some(value.map_or_else(failed, Reply::Option))
            }
            Request::Open(socket) => done(self.open_datagrams(socket)),
            Request::Associate(socket, remote) => done(self.associate(socket, remote)),
            Request::Reach(socket, remote, details, headers) => {
                done(self.reach(socket, remote, details, &headers))
            }
            Request::Fits { socket, remote, details, headers, length } => {
                let asked = DatagramOptions::new(details, &headers);
                done(asked.and_then(|asked| self.fits(socket, remote, &asked, length as usize)))
            }
            Request::TakeReport(which) => Some(Reply::Report(self.take_report(which))),
            Request::Hold(which) => {
                let flow = self.flow_of(which);
                if let Some(Entry::Requester(requester)) = self.entry_mut(key) {
                    requester.hold(flow);
                }
                Some(Reply::Done)
            }
            Request::Linger(which, time) => match self.take_held(key) {
                Some(flow) => {
                    self.lingering.add(key, which, flow, time);
                    None
                }
                // It had ended before.
                None => {
                    self.note_noticed(which);
                    Some(self.endings.loss(id(which)).map_or(Reply::Done, failed))
                }
            },
            Request::Routes => {
                let aliases = self.context.has_no_ipv4().then_some(ALIAS_RANGE);
                Some(Reply::Routes(self.context.networks().iter().flat_map(routes).chain(aliases).collect()))
            }
            Request::Resolve(name) => Some(self.resolve(&name).unwrap_or_else(failed)),
            Request::NameOf(ip) => Some(self.name_of(ip).map_or_else(failed, Reply::Name)),
            Request::Interfaces => Some(Reply::Interfaces(self.interfaces())),
            Request::Alongside(socket) => done(self.put_alongside(socket, fd)),
            Request::Vacate(port) => {
                self.sweep(port);
                Some(Reply::Done)
            }
            Request::Unacknowledged(which) => {
                Some(self.unacknowledged(which).map_or_else(failed, Reply::Unacknowledged))
            }
            Request::WhyBroken(which) => Some(Reply::Broken(self.why_broken(which))),
            Request::MayListen(port) => done(self.context.may_listen(port)),
            Request::Closed(socket) => done(self.closed(socket)),
            Request::AbortConnecting(socket) => done(self.abort_connecting(socket)),
            Request::End { socket, successor } => done(self.end_socket(socket, successor, fd)),
            Request::MakePrivate(socket) => done(self.make_private(key, socket, fd)),
            Request::HasSecret(network) => Some(Reply::HasSecret(self.has_secret(network))),
            Request::Adopt => {
                self.adopt(fd);
                None
            }
            Request::ShutDown(which) => done(self.watch_shut_down(which, fd)),
        }
    }

    /// Returns Linux's error if the request names an IPv4-mapped address to a socket with IPV6_V6ONLY.
    fn mapped_address_error(&self, request: &Request) -> Option<Errno> {
        let (socket, address, error) = match request {
            Request::Bind(socket, local) => (socket, local, Errno::INVAL),
            Request::Connect { socket, remote, .. }
            | Request::Associate(socket, Some(remote))
            | Request::Reach(socket, remote, ..)
            | Request::Fits { socket, remote, .. } => (socket, remote, Errno::NETUNREACH),
            _ => return None,
        };
        let IpAddr::V6(ip) = address.ip() else { return None };
        ip.to_ipv4_mapped()?;
        self.sockets.get(socket.id).is_some_and(|opened| opened.options.v6_only).then_some(error)
    }

    /// Returns the credentials of the requester.
    pub(crate) fn owner_of(&self, asker: Key) -> Option<Credentials> {
        match self.entry(asker)? {
            Entry::Requester(requester) => Some(requester.owner()),
            _ => None,
        }
    }

    fn addresses(&mut self, which: Which) -> Reply {
        if let Some(stream) = self.stream(which).filter(|stream| stream.broken().is_none()) {
            let family = match which {
                Which::Opened(socket) => socket.family,
                Which::Accepted(_) => peersock_fd::Family::of(stream.connection.local_addr().ip()),
            };
            let (local, peer) = (stream.connection.local_addr(), stream.peer_addr());
            return Reply::Addresses(
                self.context.shown(family, local),
                peer.map(|peer| self.context.shown(family, peer)),
            );
        }
        let is_down = self.stream(which).and_then(Stream::broken) == Some(Errno::NETDOWN);
        if is_down || self.endings.is_down(id(which)) {
            return failed(Errno::NETDOWN);
        }
        let Which::Opened(socket) = which else { return failed(Errno::NOTCONN) };
        let unbound = socket.family.unspecified();
        let opened = self.sockets.get(socket.id);
        if opened.is_some_and(|opened| opened.is_down) {
            return failed(Errno::NETDOWN);
        }
        let connecting = opened.and_then(|opened| match opened.phase {
            Phase::Connecting(key) => match self.entry(key) {
                Some(Entry::Connecting(connecting)) => Some(connecting.addresses()),
                _ => None,
            },
            _ => None,
        });
        match connecting {
            Some((local, peer)) => {
                let peer = peer.map(|peer| self.context.shown(socket.family, peer));
                Reply::Addresses(self.context.shown(socket.family, local), peer)
            }
            None => {
                let bound = opened.and_then(|opened| opened.bound()).unwrap_or((unbound, 0).into());
                Reply::Addresses(self.context.shown(socket.family, bound), self.peer_of(socket))
            }
        }
    }

    /// Returns the value of SIOCOUTQ.
    fn unacknowledged(&mut self, which: Which) -> Result<Unacknowledged, Errno> {
        self.note_noticed(which);
        let stream = self.stream(which).filter(|stream| stream.broken().is_none()).ok_or(Errno::NOTCONN)?;
        let bytes = stream.not_taken() + stream.connection.flow().unacked();
        Ok(Unacknowledged {
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            has_end: stream.has_end_unacknowledged(),
        })
    }

    fn why_broken(&mut self, which: Which) -> Option<Broken> {
        self.note_noticed(which);
        let ending = self.stream(which).and_then(Stream::ending).or_else(|| self.endings.get(id(which)))?;
        Some(Broken { errno: ending.error.raw_os_error(), lost: ending.lost.unwrap_or(0) })
    }

    fn take_error(&mut self, which: Which) -> i32 {
        self.note_noticed(which);
        let broken = self.stream(which).and_then(|stream| stream.broken());
        let of_socket = match which {
            Which::Opened(socket) => self.sockets.get_mut(socket.id).and_then(|opened| {
                let of_transport = opened.transport.as_ref().and_then(|transport| transport.take_error());
                opened.error.take().or(of_transport.map(errno))
            }),
            Which::Accepted(_) => None,
        };
        let error = broken.or(of_socket).or_else(|| self.endings.take_error(id(which)));
        error.map_or(0, |error| error.raw_os_error())
    }

    /// Reports an error to an application's datagram socket again, because the call that received it could
    /// not return it.
    fn keep_error(&mut self, which: Which, error: i32) {
        let Which::Opened(socket) = which else { return };
        if let Some(Phase::Datagrams(key)) = self.sockets.phase(socket.id)
            && (1..=LAST_ERRNO).contains(&error)
        {
            self.fail_datagrams(key, Errno::from_raw_os_error(error));
        }
    }

    /// Returns the cause of a connection's end, where the kernel calls it a reset.
    fn ending(&mut self, which: Which) -> i32 {
        self.note_noticed(which);
        let broken = self.stream(which).and_then(Stream::broken);
        let is_other = |error: &mut Errno| !matches!(*error, Errno::CONNRESET | Errno::PIPE);
        let of_attempt = match which {
            Which::Opened(socket) => {
                self.sockets.get_mut(socket.id).and_then(|opened| opened.error.take_if(is_other))
            }
            Which::Accepted(_) => None,
        };
        let broken = broken.filter(|error| !matches!(*error, Errno::CONNRESET | Errno::PIPE));
        let ended = broken.or(of_attempt).or_else(|| self.endings.take_meaning(id(which)));
        ended.map_or(0, |error| error.raw_os_error())
    }

    /// Returns a report of MSG_ERRQUEUE. The report also counts as reporting the error.
    fn take_report(&mut self, which: Which) -> Option<Report> {
        if let Some(stream) = self.stream_mut(which) {
            let report = stream.connection.flow().recv_error().ok()?;
            stream.note_noticed();
            return Some(transport::report(&report, &[]));
        }
        let Which::Opened(socket) = which else { return None };
        let opened = self.sockets.get_mut(socket.id)?;
        let mut report = opened.transport.as_ref()?.take_report()?;
        opened.error = None;
        report.destination = self.context.shown(socket.family, report.destination);
        report.offender = report
            .offender
            .map(|offender| self.context.shown(socket.family, SocketAddr::new(offender, 0)).ip());
        Some(report)
    }

    /// Takes the connection that the application has announced to close.
    fn take_held(&mut self, key: Key) -> Option<Arc<Flow>> {
        match self.entry_mut(key) {
            Some(Entry::Requester(requester)) => requester.take_held(),
            _ => None,
        }
    }

    fn has_secret(&self, network: u64) -> Option<bool> {
        let is_visible = self.context.networks().iter().any(|visible| visible.id.as_u64() == network);
        let infos = self.context.node().ok().filter(|_| is_visible)?.datapath().network_infos();
        infos.iter().find(|info| info.id.as_u64() == network).map(|info| info.summary.secret)
    }

    fn interfaces(&self) -> Vec<Interface> {
        let interface = |network: &JoinedNetwork| {
            let name = interface_name(network.interface);
            Interface {
                index: interface_index(network.interface).unsigned_abs(),
                name,
                addresses: network.prefixes.iter().map(route).collect(),
            }
        };
        self.context.networks().iter().map(interface).collect()
    }

    fn resolve(&self, name: &str) -> Result<Reply, Errno> {
        let node = self.context.node()?;
        let found = node.addresses_named(name);
        // Without waiting, because this thread serves all sockets.
        let is_searching = found.is_empty() && node.search_name(name);
        let is_of_network = found.is_empty() && node.is_of_network(name);
        Ok(match is_searching {
            true => Reply::Searching { is_of_network },
            false if is_of_network => Reply::Absent,
            false => Reply::Resolved(found),
        })
    }

    fn name_of(&self, ip: IpAddr) -> Result<Option<String>, Errno> {
        Ok(self.context.node()?.name_at(ip))
    }
}
