//! ICMP echo sockets, like Linux's "ping sockets". Sent and received data begins with an ICMP header, whose
//! sequence number is the application's and whose identifier is the socket's port. IPv4 sockets send ICMPv6
//! to members without IPv4 addresses.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Instant;

use peersock::attach::{NodeHandle, Waited};
use peersock_fd::Report;
use peersock_primitives::sync;
use peersock_primitives::wait::Interest;
use peersock_stack::{Error, GroupChange, IcmpSocket, InterfaceId, ReceivedHeaders, SendOptions};

use super::{Arrived, Binding, Transport, follow, mtu_to, reachable, report};
use crate::families::bind_aliased;
use crate::options::Options;
use peersock_datapath::{GsoBatch, SocketState};

/// Length of type, code, checksum, identifier and sequence number, bytes.
const HEADER_BYTES: usize = 8;
/// Maximum number of reports kept for an application that wants them but does not read them.
const MAX_REPORTS: usize = 64;

/// See the module.
pub(super) struct Echo {
    node: NodeHandle,
    /// The application's own family first if there are two.
    sockets: Vec<Arc<IcmpSocket>>,
    /// True for an IPv4 socket of the application, whatever its address.
    is_v4: bool,
    state: Mutex<EchoState>,
}

#[derive(Default)]
struct EchoState {
    peer: Option<IpAddr>,
    /// Options given to connect, which determine the socket's local address.
    source: SendOptions<'static>,
    wants_reports: bool,
    error: Option<Error>,
    reports: Vec<Report>,
}

impl Echo {
    pub(super) fn bind(
        node: &NodeHandle,
        binding: Binding,
        is_v4: bool,
        options: &Options,
    ) -> Result<Self, Error> {
        let bind = |local: SocketAddr| {
            let scope = node.scope_within(local.ip(), options.interface())?;
            node.datapath().stack().icmp_bind(scope, local)
        };
        let port = |socket: &Arc<IcmpSocket>| socket.local().port();
        let sockets = match binding.aliased {
            true => bind_aliased(binding.local, bind, port, |socket| socket.close())?,
            false => vec![bind(binding.local)?],
        };
        sockets.iter().for_each(|socket| node.add_socket(socket));
        Ok(Self { node: node.clone(), sockets, is_v4, state: Mutex::default() })
    }

    /// Returns the socket for an address's family.
    fn socket_for(&self, ip: IpAddr) -> Result<&Arc<IcmpSocket>, Error> {
        let suits = |socket: &&Arc<IcmpSocket>| socket.local().is_ipv4() == ip.is_ipv4();
        self.sockets.iter().find(suits).ok_or(Error::AddressFamily)
    }

    fn lock(&self) -> MutexGuard<'_, EchoState> {
        sync::lock(&self.state)
    }

    /// Returns the types of requests and replies in the application's format.
    fn types(&self) -> [u8; 2] {
        if self.is_v4 { [8, 0] } else { [128, 129] }
    }
}

impl Echo {
    fn receive_from(
        &self,
        socket: &IcmpSocket,
        buf: &mut [u8],
        headers: &mut ReceivedHeaders,
    ) -> Result<Arrived, Error> {
        loop {
            let reply = socket.recv_with_headers(&mut buf[HEADER_BYTES..], headers)?;
            let mut state = self.lock();
            if let (Some(error), Some(about)) = (reply.error, &reply.report) {
                // Errors of the peer's datagrams are returned at once; others only to applications that want
                // reports.
                let concerns = state.peer == Some(about.destination.ip());
                if state.wants_reports && state.reports.len() < MAX_REPORTS {
                    state.reports.push(report(about, &[]));
                }
                if concerns || state.wants_reports {
                    state.error = Some(error);
                    return Err(error);
                }
                continue;
            }
            if state.peer.is_some_and(|peer| peer != reply.source) {
                continue;
            }
            buf[..HEADER_BYTES].copy_from_slice(&[self.types()[1], 0, 0, 0, 0, 0, 0, 0]);
            buf[4..6].copy_from_slice(&socket.ident().to_be_bytes());
            buf[6..8].copy_from_slice(&reply.sequence.to_be_bytes());
            return Ok(Arrived {
                length: HEADER_BYTES + reply.len,
                remote: SocketAddr::new(reply.source, 0),
                local: reply.destination,
                interface: reply.interface,
                hop_limit: reply.hop_limit,
                traffic_class: reply.traffic_class,
            });
        }
    }
}

impl Transport for Echo {
    fn local(&self) -> SocketAddr {
        let local = self.sockets[0].local();
        let (peer, options) = {
            let state = self.lock();
            (state.peer.filter(|_| local.ip().is_unspecified()), state.source)
        };
        // As a connected UDP socket shows the address that it sends from.
        let route = peer.and_then(|peer| self.socket_for(peer).ok()?.route(peer, &options).ok());
        SocketAddr::new(route.map_or(local.ip(), |route| route.source), local.port())
    }

    fn connect(&self, remote: Option<SocketAddr>, options: &SendOptions<'_>) -> Result<(), Error> {
        let peer = remote.map(|remote| remote.ip());
        if let Some(peer) = peer {
            self.socket_for(peer)?.route(peer, options)?;
        }
        let mut state = self.lock();
        (state.peer, state.source) = (peer, SendOptions { headers: None, ..*options });
        Ok(())
    }

    fn check(&self, remote: SocketAddr, options: &SendOptions<'_>) -> Result<(), Error> {
        let route = self.socket_for(remote.ip())?.route(remote.ip(), options)?;
        reachable(&self.node, route.interface, remote.ip(), options)
    }

    fn check_length(
        &self,
        remote: SocketAddr,
        length: usize,
        options: &SendOptions<'_>,
    ) -> Result<(), Error> {
        let socket = self.socket_for(remote.ip())?;
        let route = socket.route(remote.ip(), options)?;
        let mtu = mtu_to(&self.node, route.interface, remote.ip(), options);
        // The length includes the header.
        socket.check_length(&route, length.saturating_sub(HEADER_BYTES), options, mtu)
    }

    fn send(
        &self,
        remote: SocketAddr,
        data: &[u8],
        options: &SendOptions<'_>,
        _: Option<&mut GsoBatch>,
    ) -> Result<(), Error> {
        // As Linux's ping_supported: only echo requests.
        let (header, payload) = data.split_at_checked(HEADER_BYTES).ok_or(Error::InvalidInput)?;
        if header[0] != self.types()[0] || header[1] != 0 {
            return Err(Error::InvalidInput);
        }
        let sequence = u16::from_be_bytes([header[6], header[7]]);
        let (datapath, socket) = (self.node.datapath(), self.socket_for(remote.ip())?);
        datapath.send_echo_with(Instant::now(), socket, remote.ip(), (sequence, payload), options)
    }

    fn receive(&self, buf: &mut [u8], headers: &mut ReceivedHeaders) -> Result<Arrived, Error> {
        for socket in &self.sockets {
            match self.receive_from(socket, buf, headers) {
                Err(Error::WouldBlock) => {}
                received => return received,
            }
        }
        Err(Error::WouldBlock)
    }

    fn take_error(&self) -> Option<Error> {
        self.lock().error.take()
    }

    fn take_report(&self) -> Option<Report> {
        let mut state = self.lock();
        if state.reports.is_empty() { None } else { Some(state.reports.remove(0)) }
    }

    fn register(&self, waker: &Waker) {
        for socket in &self.sockets {
            Waited::waiters(&**socket).register(Interest::Read, waker);
        }
    }

    fn apply(&self, options: &Options) {
        let ip = options.ip_for(self.is_v4);
        self.lock().wants_reports = ip.receive_errors;
        for socket in &self.sockets {
            follow(|ip| socket.set_ip_options(ip), ip);
            let largest = options.largest_packet(socket.local().is_ipv4());
            SocketState::of(socket.context()).set_largest_packet(largest);
            options.receive_buffer().into_iter().for_each(|limit| socket.set_receive_buffer(limit));
        }
    }

    fn change_group(&self, _: Option<InterfaceId>, _: IpAddr, _: GroupChange) -> Result<(), Error> {
        // Only unicast addresses receive replies.
        Err(Error::ProtocolUnreachable)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.sockets.iter().for_each(|socket| socket.close());
    }
}
