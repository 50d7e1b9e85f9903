//! Outgoing datagrams: sealed ones, beacons to whole networks, and their counters.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use peersock_overlay::SocketIndex;
use peersock_overlay::wire::MessageType;

use super::UdpSockets;
use super::data::DataSocket;
use crate::driver::{interfaces, poll};
use crate::sync;
use peersock_datapath::{Sink, Transmit};

/// Time that a sender waits for space in a full UDP send buffer before the datagram counts as lost.
const SEND_WAIT: Duration = Duration::from_millis(10);

impl Sink for UdpSockets {
    fn send(&self, transmit: &Transmit<'_>) {
        self.send_within(transmit, SEND_WAIT);
    }

    fn send_at_once(&self, transmit: &Transmit<'_>) {
        self.send_within(transmit, Duration::ZERO);
    }

    fn interface_of(&self, socket: SocketIndex, remote: SocketAddr) -> String {
        if socket.is_extra() {
            let device =
                self.extra_socket(socket).and_then(|extra| extra.socket.device_name().map(str::to_owned));
            return device.unwrap_or_else(|| "an unknown interface".to_owned());
        }
        let (socket, remote) = self.way(socket, remote);
        let socket = socket.and_then(|index| self.data.get(index));
        let device = socket.and_then(|socket| socket.device_name()).map(str::to_owned);
        device.or_else(|| interfaces::leading_to(remote)).unwrap_or_else(|| "an unknown interface".to_owned())
    }

    fn max_segments(&self, socket: SocketIndex) -> usize {
        let segments = |socket: &DataSocket| socket.state.max_gso_segments();
        let found = match socket.is_extra() {
            true => self.extra_socket(socket).map(|extra| segments(&extra.socket)),
            false => self.data.get(usize::from(socket.0)).map(segments),
        };
        found.unwrap_or(1)
    }
}

impl UdpSockets {
    fn send_multicast_v4(&self, socket: &DataSocket, transmit: &quinn_udp::Transmit<'_>) {
        let list = sync::read(&self.interfaces);
        for interface in list.iter().filter(|interface| socket.reaches(interface)) {
            let Some(address) = interface.ipv4.first() else { continue };
            // Only beacons are multicast, so changing the socket's multicast interface affects no other
            // sender.
            if socket2::SockRef::from(&socket.io).set_multicast_if_v4(address).is_ok() {
                self.count_send(socket.try_send(transmit), transmit);
            }
        }
    }

    fn count_send(&self, result: io::Result<()>, transmit: &quinn_udp::Transmit<'_>) {
        let datagrams = match transmit.segment_size {
            Some(size) => transmit.contents.len().div_ceil(size.max(1)),
            None => 1,
        };
        self.stats.udp_send_calls.increment();
        match result {
            Ok(()) => {
                self.stats.udp_sent_datagrams.add(datagrams as u64);
                tracing::trace!(
                    to = %transmit.destination,
                    datagrams,
                    bytes = transmit.contents.len(),
                    "{} sent",
                    name_of(transmit.contents)
                );
            }
            Err(error) => {
                // A datagram that cannot be sent is a lost datagram; the protocols above recover.
                self.stats.udp_send_errors.increment();
                tracing::trace!(%error, to = %transmit.destination, "datagram not sent");
            }
        }
    }

    /// Sends; waits up to `patience` for space in a full send buffer.
    fn send_within(&self, transmit: &Transmit<'_>, patience: Duration) {
        if transmit.socket.is_extra() {
            if let Some(extra) = self.extra_socket(transmit.socket) {
                let destination = self.extra_destination(&extra, transmit.remote);
                self.send_from(Some(&extra.socket), destination, transmit, patience);
            }
            return;
        }
        let (socket, destination) = self.way(transmit.socket, transmit.remote);
        let socket = socket.and_then(|index| self.data.get(index));
        self.send_from(socket, destination, transmit, patience);
    }

    /// Sends from a socket; `None`: sending there is refused.
    fn send_from(
        &self,
        socket: Option<&DataSocket>,
        destination: SocketAddr,
        transmit: &Transmit<'_>,
        patience: Duration,
    ) {
        let udp = quinn_udp::Transmit {
            destination,
            ecn: quinn_udp::EcnCodepoint::from_bits(transmit.ecn),
            contents: transmit.contents,
            segment_size: transmit.segment_size,
            src_ip: None,
        };
        let Some(socket) = socket else {
            return self.count_send(Err(io::ErrorKind::HostUnreachable.into()), &udp);
        };
        // The parent still uses the same keys and counters, so a datagram sealed here could reuse one of its
        // nonces.
        if self.process.is_forked() {
            return self.count_send(Err(io::ErrorKind::PermissionDenied.into()), &udp);
        }
        if let IpAddr::V4(group) = transmit.remote.ip()
            && group.is_multicast()
        {
            return self.send_multicast_v4(socket, &udp);
        }
        loop {
            match socket.try_send(&udp) {
                // The send buffer is full: wait for space, as a bulk sender on a kernel socket would.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if patience.is_zero() || !poll::writable(socket.io.as_fd(), patience) {
                        return self.count_send(Err(error), &udp);
                    }
                }
                result => return self.count_send(result, &udp),
            }
        }
    }
}

/// Returns the kind of a datagram, for the log.
pub(in crate::driver) fn name_of(datagram: &[u8]) -> String {
    MessageType::of(datagram).map_or("noise".to_owned(), |kind| kind.to_string())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use super::*;
    use crate::driver::Interfaces;
    use crate::sys::process;

    #[test]
    fn a_forked_child_sends_nothing() {
        let sockets = UdpSockets::bind(Interfaces::Loopback, 0, None).unwrap();
        let receiver = client();
        let transmit = |contents| Transmit {
            socket: SocketIndex(0),
            remote: receiver.local_addr().unwrap(),
            contents,
            segment_size: None,
            ecn: 0,
        };
        let errors = || sockets.stats.udp_send_errors.get();
        assert!(process::in_child(|| {
            sockets.send(&transmit(b"child"));
            sockets.send_at_once(&transmit(b"child"));
            errors() == 2
        }));
        // The child has ended, so its datagrams would have come first.
        sockets.send(&transmit(b"parent"));
        let mut buffer = [0; 64];
        let len = receiver.recv(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], errors()), (&b"parent"[..], 0));
        // Sockets that the child opens itself work.
        assert!(process::in_child(|| {
            let own = UdpSockets::bind(Interfaces::Loopback, 0, None).unwrap();
            own.send(&transmit(b"own"));
            own.stats.udp_sent_datagrams.get() == 1
        }));
        let len = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"own");
    }

    fn client() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
    }
}
