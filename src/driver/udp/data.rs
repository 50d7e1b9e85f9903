//! Data sockets, bound to the node's port: one for each address family, and for each interface where only
//! some may be used.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::driver::errors;
use crate::driver::interfaces::{HostInterface, Interfaces};

/// Asked of the kernel for a data socket's receive buffer, bytes. It grants up to `rmem_max` unless
/// privileged.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Asked of the kernel for a data socket's send buffer, bytes.
const SEND_BUFFER: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct DataSocket {
    pub(super) io: UdpSocket,
    pub(super) state: UdpSocketState,
    pub(super) local: SocketAddr,
    pub(super) loopback: bool,
    /// The interface it is bound to, if it is bound to one.
    pub(super) device: Option<String>,
}

/// One IPv4 and one IPv6 socket, or such a pair for each interface where only some may be used.
pub(super) fn bind(allowed: &Interfaces, list: &[HostInterface], port: u16) -> io::Result<Vec<DataSocket>> {
    let mut sockets = Vec::new();
    let mut open = |address: IpAddr, device: Option<&str>, loopback: bool| -> io::Result<()> {
        match DataSocket::bind(SocketAddr::new(address, port), device, loopback) {
            Ok(socket) => {
                let on =
                    device.unwrap_or(if loopback { "the loopback interface" } else { "every interface" });
                tracing::debug!(address = %socket.local, on, "UDP socket for the overlay's packets");
                sockets.push(socket);
            }
            // A machine may lack one of the families; a port that is taken is an error.
            Err(error) if address.is_ipv6() && error.kind() != io::ErrorKind::AddrInUse => {
                tracing::debug!(%error, "no IPv6 socket");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    };
    match allowed {
        _ if allowed.is_loopback_only() => {
            open(Ipv4Addr::LOCALHOST.into(), None, true)?;
            open(Ipv6Addr::LOCALHOST.into(), None, true)?;
        }
        Interfaces::Named(_) => {
            for interface in list {
                open(Ipv4Addr::UNSPECIFIED.into(), Some(&interface.name), interface.loopback)?;
                open(Ipv6Addr::UNSPECIFIED.into(), Some(&interface.name), interface.loopback)?;
            }
        }
        Interfaces::All | Interfaces::Loopback => {
            open(Ipv4Addr::UNSPECIFIED.into(), None, false)?;
            open(Ipv6Addr::UNSPECIFIED.into(), None, false)?;
        }
    }
    Ok(sockets)
}

impl DataSocket {
    pub(super) fn bind(address: SocketAddr, device: Option<&str>, loopback: bool) -> io::Result<DataSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        } else {
            socket.set_broadcast(true)?;
        }
        if let Some(name) = device {
            socket.bind_device(Some(name.as_bytes()))?;
        }
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(&address.into())?;
        let io: UdpSocket = socket.into();
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        if let Err(error) = errors::enable(&io, address.is_ipv4()) {
            tracing::debug!(%error, "peers whose program is killed will be noticed late");
        }
        let local = io.local_addr()?;
        Ok(DataSocket { io, state, local, loopback, device: device.map(str::to_owned) })
    }

    /// Sends without waiting. An error may be about an earlier datagram, perhaps to somebody else: then
    /// nothing was sent and the error is spent, so a second call shows.
    pub(super) fn try_send(&self, transmit: &quinn_udp::Transmit<'_>) -> io::Result<()> {
        let send = || self.state.try_send(UdpSockRef::from(&self.io), transmit);
        match send() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => send(),
            result => result,
        }
    }

    pub(super) fn reaches(&self, interface: &HostInterface) -> bool {
        match &self.device {
            Some(name) => *name == interface.name,
            None => !self.loopback || interface.loopback,
        }
    }
}
