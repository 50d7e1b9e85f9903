//! ICMP errors that come in, and which socket they are about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::IpProtocol;

use super::{HEADER, V6, socket, types};
use crate::clock::Time;
use crate::demux::FlowKey;
use crate::interface::Interface;
use crate::ip::IpHeader;
use crate::stack::Shared;
use crate::{Batch, Error, UdpRoute};

/// Takes in a destination unreachable or time exceeded message.
pub(super) fn receive(
    shared: &Shared,
    time: Time,
    interface: &Interface,
    ip: &IpHeader,
    message: &[u8],
    batch: &mut Batch,
) {
    let counters = &shared.counters;
    let Some(quoted) = Quoted::parse(&message[HEADER..]) else {
        return counters.icmp_malformed.bump();
    };
    // Only what this node has sent may be complained about.
    let error = meaning(ip.source, message[0], message[1]);
    let Some(error) = error.filter(|_| interface.is_local(quoted.source)) else {
        return counters.icmp_ignored.bump();
    };
    let known = match quoted.protocol {
        IpProtocol::Tcp => tcp(shared, time, interface, &quoted, error, batch),
        IpProtocol::Udp => udp(shared, interface, &quoted, error, batch),
        protocol if protocol == types(ip.source).protocol => {
            socket::receive_error(shared, interface, &quoted, ip, error, batch)
        }
        _ => false,
    };
    match known {
        true => counters.icmp_errors_received.bump(),
        false => counters.icmp_ignored.bump(),
    }
}

fn tcp(
    shared: &Shared,
    time: Time,
    interface: &Interface,
    quoted: &Quoted<'_>,
    error: Error,
    batch: &mut Batch,
) -> bool {
    let (local, remote) = quoted.endpoints();
    let Some(flow) = shared.flows.find(&FlowKey::new(interface.id, local, remote)) else { return false };
    let seq = u32::from_be_bytes([quoted.head[4], quoted.head[5], quoted.head[6], quoted.head[7]]);
    let concerned = flow.unreachable(time, seq, error);
    if concerned {
        batch.touch_flow(&shared.rounds, &flow);
    }
    concerned
}

/// RFC 1122 4.1.3.3; an unconnected socket would not know which of its datagrams is meant.
fn udp(shared: &Shared, interface: &Interface, quoted: &Quoted<'_>, error: Error, batch: &mut Batch) -> bool {
    let (source, destination) = quoted.endpoints();
    let route = UdpRoute { interface: interface.id, source, destination };
    let Some(socket) = shared.udp_connected.find(&route) else { return false };
    socket.fail(error);
    batch.touch_udp(&shared.rounds, socket);
    true
}

/// What Linux makes of a type and code; `None` for what concerns no socket.
fn meaning(source: IpAddr, kind: u8, code: u8) -> Option<Error> {
    if kind == types(source).time_exceeded {
        return Some(Error::HostUnreachable);
    }
    match (source, code) {
        (IpAddr::V4(_), 0 | 6 | 9 | 11) => Some(Error::NetworkUnreachable),
        (IpAddr::V4(_), 2 | 3) => Some(Error::ConnectionRefused),
        // Fragmentation needed: the overlay finds the path MTU by itself.
        (IpAddr::V4(_), 4) => None,
        (IpAddr::V4(_), _) => Some(Error::HostUnreachable),
        (IpAddr::V6(_), 0) => Some(Error::NetworkUnreachable),
        (IpAddr::V6(_), 1 | 5 | 6) => Some(Error::PermissionDenied),
        (IpAddr::V6(_), code) if code == V6.port_unreachable_code => Some(Error::ConnectionRefused),
        (IpAddr::V6(_), _) => Some(Error::HostUnreachable),
    }
}

/// The front of a packet that an error quotes.
pub(super) struct Quoted<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: IpProtocol,
    /// What follows the IP header, eight bytes at least.
    pub(super) head: &'a [u8],
}

impl<'a> Quoted<'a> {
    /// Reads a header whose packet may be cut off, which a check of its length would refuse.
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let (source, destination, protocol, header_len) = match packet.first()? >> 4 {
            4 => {
                let header: &[u8; 20] = packet.first_chunk()?;
                let address = |at: usize| Ipv4Addr::from([0, 1, 2, 3].map(|byte| header[at + byte]));
                let header_len = usize::from(header[0] & 15) * 4;
                (IpAddr::from(address(12)), IpAddr::from(address(16)), header[9], header_len)
            }
            6 => {
                let header: &[u8; 40] = packet.first_chunk()?;
                let address =
                    |at: usize| Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| header[at + i]));
                (IpAddr::from(address(8)), IpAddr::from(address(24)), header[6], 40)
            }
            _ => return None,
        };
        let head = packet.get(header_len..).filter(|head| header_len >= 20 && head.len() >= 8)?;
        Some(Self { source, destination, protocol: protocol.into(), head })
    }

    /// Source and destination with their ports, as TCP and UDP place them.
    fn endpoints(&self) -> (SocketAddr, SocketAddr) {
        let port = |at: usize| u16::from_be_bytes([self.head[at], self.head[at + 1]]);
        (SocketAddr::new(self.source, port(0)), SocketAddr::new(self.destination, port(2)))
    }
}
