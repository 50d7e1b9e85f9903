//! Receive buffer of a socket in the kernel.

use std::io;

use socket2::Socket;

/// Sets a socket's receive buffer size. Without CAP_NET_ADMIN the kernel silently grants at most its limit
/// (net.core.rmem_max).
///
/// # Errors
/// Returns the errors of setsockopt(2).
pub(crate) fn set_receive(socket: &Socket, bytes: usize) -> io::Result<()> {
    match rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, bytes) {
        Ok(()) => Ok(()),
        Err(_) => socket.set_recv_buffer_size(bytes),
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Type};

    use super::*;

    #[test]
    fn a_socket_gets_more_room_with_or_without_privilege() {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        set_receive(&socket, 4096).expect("it is taken");
        let little = socket.recv_buffer_size().expect("its size");
        set_receive(&socket, 64 << 10).expect("it is taken");
        assert!(socket.recv_buffer_size().expect("its size") > little);
    }
}
