//! UDP: one socket of the stack, or one for each family where an application's socket takes both.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Instant;

use peersock_fd::Report;
use peersock_stack::{Error, InterfaceId, SendOptions, UdpSocket};

use super::{Arrived, MAX_QUOTED, Transport, follow, reachable, report};
use crate::fd::options::Options;
use crate::fd::sockets::bind_families;
use crate::node::Inner;
use crate::socket::{Waited, interface_within};
use crate::wait::Interest;

/// See the module.
pub(super) struct Udp {
    node: Arc<Inner>,
    /// IPv6 first if there are two.
    sockets: Vec<Arc<UdpSocket>>,
    /// Which of them is connected: the others receive nothing.
    connected: Mutex<Option<usize>>,
}

impl Udp {
    pub(super) fn bind(node: &Arc<Inner>, local: SocketAddr, options: &Options) -> Result<Self, Error> {
        let stack = node.driver.datapath.stack();
        let bind = |local: SocketAddr| {
            let interface = interface_within(node, local.ip(), options.interface())?;
            stack.udp_bind(interface, local, options.udp())
        };
        let port = |socket: &Arc<UdpSocket>| socket.local().port();
        let sockets = bind_families(local, options.v6_only, bind, port, |socket| socket.close())?;
        sockets.iter().for_each(|socket| node.add_socket(socket));
        Ok(Self { node: Arc::clone(node), sockets, connected: Mutex::default() })
    }

    /// The socket for an address's family.
    fn socket_for(&self, ip: IpAddr) -> Result<usize, Error> {
        let suits = |socket: &Arc<UdpSocket>| socket.local().is_ipv4() == ip.is_ipv4();
        // As Linux: a socket bound to an address of the one family has no way to the other.
        self.sockets.iter().position(suits).ok_or(Error::NetworkUnreachable)
    }

    fn connected(&self) -> Option<usize> {
        *self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for Udp {
    fn local(&self) -> SocketAddr {
        self.sockets[self.connected().unwrap_or(0)].local()
    }

    fn connect(&self, remote: Option<SocketAddr>) -> Result<(), Error> {
        let Some(remote) = remote else {
            *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.sockets.iter().for_each(|socket| socket.disconnect());
            return Ok(());
        };
        let at = self.socket_for(remote.ip())?;
        // What an earlier datagram has run into is the earlier peer's affair.
        let _ = self.take_error();
        self.sockets[at].connect(remote)?;
        for other in self.sockets.iter().enumerate().filter(|(index, _)| *index != at) {
            other.1.disconnect();
        }
        *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        Ok(())
    }

    fn check(&self, remote: SocketAddr, options: &SendOptions) -> Result<(), Error> {
        let socket = &self.sockets[self.socket_for(remote.ip())?];
        let route = socket.route_with(Some(remote), options)?;
        reachable(&self.node, route.interface, remote.ip())
    }

    fn send(&self, remote: SocketAddr, data: &[u8], options: &SendOptions) -> Result<(), Error> {
        let socket = &self.sockets[self.socket_for(remote.ip())?];
        let connected = socket.peer() == Some(remote);
        let remote = if connected { None } else { Some(remote) };
        self.node.driver.datapath.send_udp_with(Instant::now(), socket, remote, data, options)
    }

    fn receive(&self, buf: &mut [u8]) -> Result<Arrived, Error> {
        let connected = self.connected();
        for (at, socket) in self.sockets.iter().enumerate() {
            loop {
                let received = match socket.recv_from(buf) {
                    Err(Error::WouldBlock) => break,
                    received => received?,
                };
                // A connected socket has only one peer, whatever the other family's wildcard has taken in.
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
        let mut quoted = [0; MAX_QUOTED];
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
            follow(|ip| socket.set_ip_options(ip), options.ip_for(socket.local().is_ipv4()));
            options.receive_buffer().into_iter().for_each(|limit| socket.set_receive_buffer(limit));
        }
    }

    fn change_membership(
        &self,
        interface: Option<InterfaceId>,
        group: IpAddr,
        joined: bool,
    ) -> Result<(), Error> {
        let socket = self.sockets.iter().find(|socket| socket.local().is_ipv4() == group.is_ipv4());
        let socket = socket.ok_or(Error::AddressFamily)?;
        if joined { socket.join(interface, group) } else { socket.leave(interface, group) }
    }
}

impl Drop for Udp {
    fn drop(&mut self) {
        self.sockets.iter().for_each(|socket| socket.close());
    }
}
