//! UDP and TCP sockets of the operating system, bound to one interface.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Makes a non-blocking UDP socket.
pub(crate) fn udp(local: SocketAddr, interface: Option<&str>) -> io::Result<UdpSocket> {
    let socket = open(Type::DGRAM, Protocol::UDP, local, interface)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Makes a TCP listener.
pub(crate) fn listen(local: SocketAddr, interface: Option<&str>) -> io::Result<TcpListener> {
    let socket = open(Type::STREAM, Protocol::TCP, local, interface)?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// Makes a socket, bound to its local address and to the interface.
pub(crate) fn open(
    kind: Type,
    protocol: Protocol,
    local: SocketAddr,
    interface: Option<&str>,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), kind, Some(protocol))?;
    if let Some(interface) = interface
        && let Err(error) = socket.bind_device(Some(interface.as_bytes()))
    {
        // Kernels before 5.7 require a privilege for this. The local address alone then chooses the
        // interface, which is correct with a single default route.
        if error.raw_os_error() != Some(rustix::io::Errno::PERM.raw_os_error()) {
            return Err(error);
        }
    }
    socket.bind(&local.into())?;
    Ok(socket)
}
