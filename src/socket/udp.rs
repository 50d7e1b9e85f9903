//! UDP socket without waiting.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use peersock_stack::{Error, Received, UdpOptions, UdpSocket};

use super::{Waited, explain, interface_of};
use crate::node::{Inner, Node};
use peersock_primitives::wait::Waiters;

/// UDP socket. Dropping it frees its port.
pub(crate) struct Datagrams {
    pub(crate) node: Arc<Inner>,
    socket: Arc<UdpSocket>,
}

impl Datagrams {
    /// Binds to `local`; port 0 selects one that peers can reach.
    pub(crate) fn bind(node: &Node, local: SocketAddr) -> io::Result<Datagrams> {
        Self::open(node, local, UdpOptions::default())
    }

    /// Binds to all addresses of the family of `peer`, at a port that receives answers.
    pub(crate) fn client(node: &Node, peer: IpAddr) -> io::Result<Datagrams> {
        let any: IpAddr = match peer {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self::open(node, (any, 0).into(), UdpOptions { any_port: true, ..UdpOptions::default() })
    }

    fn open(node: &Node, local: SocketAddr, options: UdpOptions) -> io::Result<Datagrams> {
        let interface = interface_of(&node.inner, local)?;
        let datapath = &node.inner.driver.datapath;
        let socket = datapath
            .stack()
            .udp_bind(interface, local, options)
            .map_err(|error| explain(error, local.port(), &datapath.networks()))?;
        node.inner.add_socket(&socket);
        Ok(Datagrams { node: Arc::clone(&node.inner), socket })
    }

    pub(crate) fn waiters(&self) -> &Waiters {
        Waited::waiters(&*self.socket)
    }

    pub(crate) fn connect(&self, remote: SocketAddr) -> io::Result<()> {
        Ok(self.socket.connect(remote)?)
    }

    /// Sends one datagram, to the connected peer if `remote` is `None`. Never blocks, because UDP may lose
    /// datagrams that the network cannot take.
    pub(crate) fn send(&self, data: &[u8], remote: Option<SocketAddr>) -> io::Result<usize> {
        self.node.check_up()?;
        let now = Instant::now();
        let datapath = &self.node.driver.datapath;
        datapath.send_udp(now, &self.socket, remote, data)?;
        Ok(data.len())
    }

    pub(crate) fn recv(&self, buf: &mut [u8]) -> io::Result<Received> {
        self.node.check_up()?;
        Ok(self.socket.recv_from(buf)?)
    }

    pub(crate) fn peek(&self, buf: &mut [u8]) -> io::Result<Received> {
        self.node.check_up()?;
        Ok(self.socket.peek_from(buf)?)
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.socket.local()
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer().ok_or_else(|| Error::NotConnected.into())
    }

    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.socket.take_error().map(io::Error::from)
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.socket.close();
    }
}
