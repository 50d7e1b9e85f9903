//! Outgoing datagrams, echo requests and raw packets: each becomes one IP packet on the calling thread.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use peersock_overlay::{DATA_OVERHEAD, Route};
use peersock_stack::{
    Batch, EchoRequest, Error, IcmpSocket, InterfaceId, MAX_DATAGRAM, RawSocket, SendOptions, UdpSocket,
};

use crate::egress::with_packet;
use crate::route::Resolved;
use crate::socket::SocketState;
use crate::{Datapath, GsoBatch};

/// Datagram size that every path carries (PLPMTU base, RFC 8899 section 5.1.2).
pub(super) const BASE_DATAGRAM: usize = 1200;

/// Minimum MTU of an IPv6 link, bytes (RFC 8200 section 5).
pub(super) const MINIMUM_MTU: usize = 1280;

/// Destination and options of a packet.
struct Outgoing<'a> {
    interface: InterfaceId,
    destination: IpAddr,
    state: &'a SocketState,
    /// True if members of the group on this node also get the packet.
    loops: bool,
}

impl Datapath {
    /// Sends one UDP datagram, to the connected peer if `remote` is `None`.
    /// Fails with the errors of [`UdpSocket::route`] and [`UdpSocket::send`].
    pub fn send_udp(
        &self,
        now: Instant,
        socket: &UdpSocket,
        remote: Option<SocketAddr>,
        data: &[u8],
    ) -> Result<(), Error> {
        self.send_udp_with(now, socket, remote, data, &SendOptions::default(), None)
    }

    /// Sends like [`Datapath::send_udp`], with options for this datagram, which may wait in a GSO batch.
    /// Fails with the errors of [`UdpSocket::route_with`] and [`UdpSocket::send_with`].
    pub fn send_udp_with(
        &self,
        now: Instant,
        socket: &UdpSocket,
        remote: Option<SocketAddr>,
        data: &[u8],
        options: &SendOptions<'_>,
        gso: Option<&mut GsoBatch>,
    ) -> Result<(), Error> {
        let route = socket.route_with(remote, options)?;
        let to = Outgoing {
            interface: route.interface,
            // A packet with a routing header goes to its first hop (RFC 8200, section 4.4).
            destination: options.first_hop(route.destination.ip()),
            state: SocketState::of(socket.context()),
            loops: socket.ip_options().multicast_loop,
        };
        self.send_made(now, &to, gso, |mtu, buf| socket.send_with(now, &route, data, options, mtu, buf))
    }

    /// Sends one ICMP echo request.
    /// Fails with the errors of [`IcmpSocket::send`].
    pub fn send_echo(
        &self,
        now: Instant,
        socket: &IcmpSocket,
        request: &EchoRequest<'_>,
    ) -> Result<(), Error> {
        let options = SendOptions { hop_limit: Some(request.hop_limit), ..SendOptions::default() };
        self.send_echo_with(now, socket, request.destination, (request.sequence, request.payload), &options)
    }

    /// Sends one ICMP echo request of a sequence number and a payload, with options.
    /// Fails with the errors of [`IcmpSocket::route`] and [`IcmpSocket::send_with`].
    pub fn send_echo_with(
        &self,
        now: Instant,
        socket: &IcmpSocket,
        destination: IpAddr,
        request: (u16, &[u8]),
        options: &SendOptions<'_>,
    ) -> Result<(), Error> {
        let route = socket.route(destination, options)?;
        let to = Outgoing {
            interface: route.interface,
            destination: options.first_hop(destination),
            state: SocketState::of(socket.context()),
            loops: socket.ip_options().multicast_loop,
        };
        self.send_made(now, &to, None, |mtu, buf| socket.send_with(&route, request, options, mtu, buf))
    }

    /// Sends one packet of a raw socket, to the connected peer if `remote` is `None`.
    /// Fails with the errors of [`RawSocket::route`] and [`RawSocket::send`].
    pub fn send_raw(
        &self,
        now: Instant,
        socket: &RawSocket,
        remote: Option<IpAddr>,
        data: &[u8],
        options: &SendOptions<'_>,
    ) -> Result<(), Error> {
        let route = socket.route(remote, options)?;
        let to = Outgoing {
            interface: route.interface,
            destination: options.first_hop(route.destination),
            state: SocketState::of(socket.context()),
            loops: socket.ip_options().multicast_loop,
        };
        self.send_made(now, &to, None, |mtu, buf| socket.send(&route, data, options, mtu, buf))
    }

    /// Builds a packet of up to the size that its path takes, and sends it.
    fn send_made(
        &self,
        now: Instant,
        to: &Outgoing<'_>,
        gso: Option<&mut GsoBatch>,
        make: impl FnOnce(usize, &mut [u8]) -> Result<usize, Error>,
    ) -> Result<(), Error> {
        let mut batch = Batch::default();
        let Outgoing { interface, destination, state, loops } = *to;
        let is_group = destination.is_multicast();
        let resolved = (!is_group).then(|| self.resolve(now, interface, Some(state), destination));
        let size = resolved.as_ref().map_or_else(|| self.group_mtu(interface), size_within);
        let mtu = state.limit(link_mtu(size, destination));
        let made = with_packet(|packet| {
            let length = make(mtu, packet)?;
            let packet = &mut packet[..length];
            if destination.is_multicast() && loops {
                // A copy, because the stack may change the packet it takes in.
                self.stack.receive(now, interface, &mut packet.to_vec(), &mut batch);
            }
            match gso {
                // Groups need a copy per peer, and limited sockets fragments; neither fits a batch.
                Some(gso) if !destination.is_multicast() && !state.is_limited() => {
                    let to = (state, destination);
                    self.send_with_others(now, interface, to, packet, gso, &mut batch)
                }
                _ => self.send_packet(now, interface, Some(state), destination, packet, &mut batch),
            }
        });
        if let (Ok(()), Some(Resolved::Route(Route::Peer(peer)))) = (&made, &resolved) {
            // Unlike TCP, no acknowledgement shows whether the path still carries the size.
            self.doubt_later(now, peer);
        }
        self.settle(now, &mut batch);
        made
    }

    /// Returns the MTU towards `destination` now, bytes of an IP packet; at least 1,280 of IPv6.
    pub fn mtu_to(&self, now: Instant, interface: InterfaceId, destination: IpAddr) -> usize {
        let size = match destination.is_multicast() {
            true => self.group_mtu(interface),
            false => size_within(&self.resolve(now, interface, None, destination)),
        };
        link_mtu(size, destination)
    }
}

/// Returns the MTU that sockets see on a path that takes IP packets of `size` bytes. An IPv6 link has at
/// least the minimum MTU, so a path that takes less gets such packets in fragments.
fn link_mtu(size: usize, destination: IpAddr) -> usize {
    if destination.is_ipv6() { size.max(MINIMUM_MTU) } else { size }
}

/// Returns the size of the largest IP packet that a route takes, bytes.
fn size_within(resolved: &Resolved) -> usize {
    match resolved {
        Resolved::Route(Route::Peer(peer)) => {
            peer.sender().map_or(BASE_DATAGRAM, |sender| sender.path.datagram_size) - DATA_OVERHEAD
        }
        Resolved::Route(Route::Local) => MAX_DATAGRAM,
        Resolved::Unknown | Resolved::NoRoute => BASE_DATAGRAM - DATA_OVERHEAD,
    }
}
