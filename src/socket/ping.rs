//! ICMP echo.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use peersock_stack::{EchoReply, EchoRequest, Error, IcmpSocket, Scope};

use super::Waited;
use crate::node::{Inner, Node};
use peersock_primitives::wait::Waiters;

/// Ping socket: sends echo requests to members of one network and receives their replies.
pub(crate) struct Ping {
    pub(crate) node: Arc<Inner>,
    socket: Arc<IcmpSocket>,
}

impl Ping {
    /// Opens a socket in the network that contains `target`.
    pub(crate) fn open(node: &Node, target: IpAddr) -> io::Result<Ping> {
        node.inner.check_up()?;
        let datapath = &node.inner.driver.datapath;
        let interface = datapath
            .interface_to(Instant::now(), &Scope::default(), target)
            .ok_or(Error::NetworkUnreachable)?;
        let socket = datapath.stack().icmp_open(interface, target.is_ipv6())?;
        node.inner.add_socket(&socket);
        Ok(Ping { node: Arc::clone(&node.inner), socket })
    }

    pub(crate) fn waiters(&self) -> &Waiters {
        Waited::waiters(&*self.socket)
    }

    pub(crate) fn send(&self, request: &EchoRequest<'_>) -> io::Result<()> {
        self.node.check_up()?;
        Ok(self.node.driver.datapath.send_echo(Instant::now(), &self.socket, request)?)
    }

    pub(crate) fn recv(&self, buf: &mut [u8]) -> io::Result<EchoReply> {
        self.node.check_up()?;
        Ok(self.socket.recv(buf)?)
    }
}

impl Drop for Ping {
    fn drop(&mut self) {
        self.socket.close();
    }
}
