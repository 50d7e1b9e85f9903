//! UDP: one socket of the stack, or one per family. There are two if an application's socket uses both
//! families, or communicates with members that lack an address of its family.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Instant;

use peersock::attach::{NodeHandle, Waited};
use peersock_fd::Report;
use peersock_primitives::sync;
use peersock_primitives::wait::Interest;
use peersock_stack::{Error, GroupChange, InterfaceId, ReceivedHeaders, SendOptions, UdpSocket};

use super::{Arrived, Binding, MAX_QUOTED_BYTES, Transport, follow, mtu_to, reachable, report};
use crate::families::{bind_aliased, bind_families};
use crate::options::Options;
use peersock_datapath::{GsoBatch, SocketState};

/// See the module.
pub(super) struct Udp {
    node: NodeHandle,
    /// The application's own family first if there are two.
    sockets: Vec<Arc<UdpSocket>>,
    /// True for an IPv4 socket of the application, whatever its address.
    is_v4: bool,
    /// Set once the second socket has been given up, see [`Transport::give_way`].
    only_first: AtomicBool,
    /// Index of the connected socket: the others receive nothing.
    connected: Mutex<Option<usize>>,
}

impl Udp {
    pub(super) fn bind(
        node: &NodeHandle,
        binding: Binding,
        is_v4: bool,
        options: &Options,
    ) -> Result<Self, Error> {
        let stack = node.datapath().stack();
        let bind = |local: SocketAddr| {
            let scope = node.scope_within(local.ip(), options.interface())?;
            stack.udp_bind(scope, local, options.udp(binding.is_implicit))
        };
        let port = |socket: &Arc<UdpSocket>| socket.local().port();
        let undo = |socket: Arc<UdpSocket>| socket.close();
        let sockets = match binding.aliased {
            true => bind_aliased(binding.local, bind, port, undo)?,
            false => bind_families(binding.local, options.v6_only, bind, port, undo)?,
        };
        sockets.iter().for_each(|socket| node.add_socket(socket));
        let (only_first, connected) = (AtomicBool::new(false), Mutex::default());
        Ok(Self { node: node.clone(), sockets, is_v4, only_first, connected })
    }

    fn sockets(&self) -> &[Arc<UdpSocket>] {
        if self.only_first.load(Ordering::Acquire) { &self.sockets[..1] } else { &self.sockets }
    }

    /// Returns the index of the socket for an address's family.
    fn socket_for(&self, ip: IpAddr) -> Result<usize, Error> {
        let suits = |socket: &Arc<UdpSocket>| socket.local().is_ipv4() == ip.is_ipv4();
        // As Linux: a socket bound to an address of one family has no route to the other.
        self.sockets().iter().position(suits).ok_or(Error::NetworkUnreachable)
    }

    fn connected(&self) -> Option<usize> {
        *sync::lock(&self.connected)
    }
}

impl Transport for Udp {
    fn local(&self) -> SocketAddr {
        self.sockets[self.connected().unwrap_or(0)].local()
    }

    fn connect(&self, remote: Option<SocketAddr>, options: &SendOptions<'_>) -> Result<(), Error> {
        let Some(remote) = remote else {
            *sync::lock(&self.connected) = None;
            self.sockets.iter().for_each(|socket| socket.disconnect());
            return Ok(());
        };
        let at = self.socket_for(remote.ip())?;
        // Discard an earlier datagram's error, which concerns the earlier peer.
        let _ = self.take_error();
        self.sockets[at].connect_with(remote, options)?;
        for other in self.sockets.iter().enumerate().filter(|(index, _)| *index != at) {
            other.1.disconnect();
        }
        *sync::lock(&self.connected) = Some(at);
        Ok(())
    }

    fn check(&self, remote: SocketAddr, options: &SendOptions<'_>) -> Result<(), Error> {
        let socket = &self.sockets[self.socket_for(remote.ip())?];
        let route = socket.route_with(Some(remote), options)?;
        reachable(&self.node, route.interface, remote.ip(), options)
    }

    fn check_length(
        &self,
        remote: SocketAddr,
        length: usize,
        options: &SendOptions<'_>,
    ) -> Result<(), Error> {
        let socket = &self.sockets[self.socket_for(remote.ip())?];
        let route = socket.route_with(Some(remote), options)?;
        let mtu = mtu_to(&self.node, route.interface, remote.ip(), options);
        socket.check_length(&route, length, options, SocketState::of(socket.context()).limit(mtu))
    }

    fn send(
        &self,
        remote: SocketAddr,
        data: &[u8],
        options: &SendOptions<'_>,
        gso: Option<&mut GsoBatch>,
    ) -> Result<(), Error> {
        let socket = &self.sockets[self.socket_for(remote.ip())?];
        let connected = socket.peer() == Some(remote);
        let remote = if connected { None } else { Some(remote) };
        self.node.datapath().send_udp_with(Instant::now(), socket, remote, data, options, gso)
    }

    fn receive(&self, buf: &mut [u8], headers: &mut ReceivedHeaders) -> Result<Arrived, Error> {
        let connected = self.connected();
        for (at, socket) in self.sockets().iter().enumerate() {
            loop {
                let received = match socket.recv_with_headers(buf, headers) {
                    Err(Error::WouldBlock) => break,
                    received => received?,
                };
                // A connected socket has only one peer; discard what the other family's socket has received.
                if connected.is_some_and(|connected| connected != at) {
                    continue;
                }
                return Ok(Arrived::new(&received, received.source));
            }
        }
        Err(Error::WouldBlock)
    }

    fn take_error(&self) -> Option<Error> {
        self.sockets.iter().find_map(|socket| socket.take_error())
    }

    fn take_report(&self) -> Option<Report> {
        let mut quoted = [0; MAX_QUOTED_BYTES];
        let found = self.sockets.iter().find_map(|socket| socket.recv_error(&mut quoted).ok());
        found.map(|found| report(&found, &quoted))
    }

    fn register(&self, waker: &Waker) {
        for socket in &self.sockets {
            Waited::waiters(&**socket).register(Interest::Read, waker);
        }
    }

    fn apply(&self, options: &Options) {
        for socket in &self.sockets {
            // For an IPv4 socket everything is IPv4.
            let is_v4 = socket.local().is_ipv4() || self.is_v4;
            follow(|ip| socket.set_ip_options(ip), options.ip_for(is_v4));
            SocketState::of(socket.context()).set_largest_packet(options.largest_packet(is_v4));
            options.receive_buffer().into_iter().for_each(|limit| socket.set_receive_buffer(limit));
        }
    }

    fn change_group(
        &self,
        interface: Option<InterfaceId>,
        group: IpAddr,
        change: GroupChange,
    ) -> Result<(), Error> {
        let socket = self.sockets.iter().find(|socket| socket.local().is_ipv4() == group.is_ipv4());
        let socket = socket.ok_or(Error::AddressFamily)?;
        socket.change_group(interface, group, change)
    }

    fn give_way(&self, port: u16) -> bool {
        let [first, second] = &self.sockets[..] else { return false };
        let is_alias = first.local().is_ipv4() && first.local().port() == port;
        // A socket connected to such a member keeps the port.
        if !is_alias || self.connected() == Some(1) || self.only_first.swap(true, Ordering::AcqRel) {
            return false;
        }
        second.close();
        true
    }
}

impl Drop for Udp {
    fn drop(&mut self) {
        self.sockets.iter().for_each(|socket| socket.close());
    }
}
