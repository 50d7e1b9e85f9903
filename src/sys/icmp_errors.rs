//! ICMP errors that the kernel reports about a socket's datagrams (ip(7), IP_RECVERR).
//!
//! A pending error fails the socket's next call, whichever destination that call has, and makes the socket
//! readable until its error queue is empty. So a sender tries again, and a reader that finds no datagram
//! takes the errors.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};

/// Number of bytes kept of a refused datagram, more than needed to identify it.
const QUOTED: usize = 64;

/// Buffer size for the error and other control messages of the socket.
const CONTROL: usize = 512;

/// Datagram that was rejected because no socket listens at its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Destination of the datagram.
    pub(crate) remote: SocketAddr,
    quoted: [u8; QUOTED],
    length: usize,
}

impl Refused {
    /// Returns the beginning of the datagram, as far as the error quotes it.
    pub(crate) fn quoted(&self) -> &[u8] {
        &self.quoted[..self.length]
    }
}

/// Makes the kernel queue the errors about a socket's datagrams.
pub(crate) fn enable(socket: &UdpSocket, ipv4: bool) -> io::Result<()> {
    match ipv4 {
        true => setsockopt(socket, sockopt::Ipv4RecvErr, &true)?,
        false => setsockopt(socket, sockopt::Ipv6RecvErr, &true)?,
    }
    Ok(())
}

/// Takes the oldest error: `None` if there is none, `Some(None)` if it is not about the peer.
pub(crate) fn take(socket: &UdpSocket) -> Option<Option<Refused>> {
    let mut quoted = [0; QUOTED];
    let mut control = [0; CONTROL];
    let mut parts = [IoSliceMut::new(&mut quoted)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
    let refused = message.cmsgs().ok().and_then(|mut parts| parts.find_map(|part| refused_by(&part)));
    let remote = message.address.as_ref().and_then(socket_address);
    Some(remote.zip(refused).map(|(remote, by)| {
        // An error from another machine on the path is only a hint, so it counts as if it quoted nothing.
        let length = if by == remote.ip() { message.bytes.min(QUOTED) } else { 0 };
        Refused { remote, quoted, length }
    }))
}

/// Returns the machine that reports a closed port; `None` for other errors, and for errors of this machine.
fn refused_by(part: &ControlMessageOwned) -> Option<IpAddr> {
    let (error, by) = match part {
        ControlMessageOwned::Ipv4RecvErr(error, by) => {
            (error, by.map(|by| IpAddr::from(u32::from_be(by.sin_addr.s_addr).to_be_bytes())))
        }
        ControlMessageOwned::Ipv6RecvErr(error, by) => {
            (error, by.map(|by| IpAddr::from(by.sin6_addr.s6_addr)))
        }
        _ => return None,
    };
    let by_icmp = matches!(error.ee_origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6);
    by.filter(|_| by_icmp && error.ee_errno == libc::ECONNREFUSED as u32)
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let ipv4 = address.as_sockaddr_in().map(|v4| SocketAddr::new(IpAddr::V4(v4.ip()), v4.port()));
    ipv4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_datagram_to_a_port_without_a_socket_is_refused_and_quoted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(address) else {
                eprintln!("SKIP a_datagram_to_a_port_without_a_socket_is_refused_and_quoted: no {address}");
                continue;
            };
            let ipv4 = address.starts_with('1');
            enable(&socket, ipv4).expect("an option that every Linux has");
            assert_eq!(take(&socket), None);
            // Another program may get the port at once, and then there is no error.
            let refused = (0..5).find_map(|_| {
                let gone = UdpSocket::bind(address).expect("a port");
                let remote = gone.local_addr().expect("an address");
                drop(gone);
                socket.send_to(&[7; 100], remote).expect("it is sent");
                Some((wait(&socket)?.expect("a refusal"), remote))
            });
            let (refused, remote) = refused.expect("no error came");
            assert_eq!((refused.remote, refused.quoted()), (remote, &[7; QUOTED][..]));
        }
    }

    /// Waits for an error, as long as a busy machine may take.
    fn wait(socket: &UdpSocket) -> Option<Option<Refused>> {
        let deadline = Instant::now() + Duration::from_secs(4);
        loop {
            match take(socket) {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                taken => return taken,
            }
        }
    }
}
