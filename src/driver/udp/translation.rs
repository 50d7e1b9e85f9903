//! Data sockets behind a NAT64: the overlay has an IPv4 socket on every network, and without IPv4, its IPv6
//! twin sends and receives in its place.

use std::net::SocketAddr;

use peersock_overlay::SocketIndex;

use super::UdpSockets;
use super::data::DataSocket;
use crate::driver::interfaces::{self, canonical};

impl UdpSockets {
    /// Returns true if the system has a route to an endpoint.
    pub(crate) fn has_route(&self, remote: SocketAddr) -> bool {
        interfaces::has_route(self.nat64.outer(remote))
    }

    /// Returns the data socket and the destination address for datagrams to an endpoint. `None`: nothing may
    /// be sent there.
    pub(super) fn way(&self, socket: SocketIndex, remote: SocketAddr) -> (Option<usize>, SocketAddr) {
        let index = usize::from(socket.0);
        let Some(prefix) = self.nat64.prefix() else { return (Some(index), remote) };
        // Such an address means a local IPv4 address, which a peer must not reach through the NAT64.
        if prefix.is_refused(remote.ip()) {
            return (None, remote);
        }
        match prefix.synthesize(remote) {
            outer if outer == remote => (Some(index), remote),
            outer => (self.twin(index), outer),
        }
    }

    /// Returns the socket and the source that the overlay sees for a datagram on the `index`th data socket:
    /// datagrams from behind the NAT64 appear to come by IPv4.
    pub(super) fn origin_of_data(&self, index: usize, from: SocketAddr) -> (SocketIndex, SocketAddr) {
        let from = canonical(from);
        let inner = self.nat64.inner(from);
        let own = (SocketIndex(index as u16), from);
        // Only datagrams from behind a NAT64 need the search for the twin, because every batch comes here.
        if inner == from {
            return own;
        }
        self.twin(index).map_or(own, |twin| (SocketIndex(twin as u16), inner))
    }

    /// Returns the data socket on the same interface as the `index`th, in the other family.
    pub(super) fn twin(&self, index: usize) -> Option<usize> {
        let one = self.data.get(index)?;
        let is_twin = |other: &DataSocket| {
            other.local.is_ipv4() != one.local.is_ipv4()
                && (&other.device, other.loopback) == (&one.device, one.loopback)
        };
        self.data.current().find(|(_, other)| is_twin(other)).map(|(position, _)| position)
    }
}

#[cfg(test)]
mod tests {
    use peersock_nat::nat64::Nat64Prefix;

    use super::*;
    use crate::Interfaces;

    #[test]
    fn behind_a_nat64_the_ipv4_socket_is_the_other_ones_name() {
        let sockets = UdpSockets::bind(Interfaces::Loopback, 0, None).expect("sockets");
        let first = |is_ipv4: bool| {
            let mut all = sockets.data.current();
            all.find(|(_, socket)| socket.local.is_ipv4() == is_ipv4).map(|(position, _)| position)
        };
        let Some(v6) = first(false) else {
            eprintln!("SKIP behind_a_nat64_the_ipv4_socket_is_the_other_ones_name: there is no IPv6");
            return;
        };
        let v4 = first(true).expect("it is always there");
        let (of_v4, of_v6) = (SocketIndex(v4 as u16), SocketIndex(v6 as u16));
        let at = |text: &str| text.parse::<SocketAddr>().expect("an endpoint");
        let (inner, outer) = (at("203.0.113.9:7420"), at("[64:ff9b::cb00:7109]:7420"));
        assert_eq!(sockets.way(of_v4, inner), (Some(v4), inner));
        assert_eq!(sockets.origin_of_data(v6, outer), (of_v6, outer));

        sockets.nat64.set(Nat64Prefix::new("64:ff9b::".parse().expect("an address"), 96));
        assert_eq!(sockets.way(of_v4, inner), (Some(v6), outer));
        assert_eq!(sockets.origin_of_data(v6, outer), (of_v4, inner));
        // Local addresses are reached directly, and addresses behind the prefix that claim to be local are
        // refused.
        for (near, forged) in [("10.0.0.1:9", "[64:ff9b::a00:1]:9"), ("127.0.0.1:9", "[64:ff9b::7f00:1]:9")] {
            assert_eq!(sockets.way(of_v4, at(near)), (Some(v4), at(near)));
            assert_eq!(sockets.way(of_v6, at(forged)), (None, at(forged)));
            assert_eq!(sockets.origin_of_data(v6, at(forged)), (of_v6, at(forged)));
        }
        let other = at("[2001:db8::1]:9");
        assert_eq!(sockets.way(of_v6, other), (Some(v6), other));
        assert_eq!(sockets.origin_of_data(v6, other), (of_v6, other));
    }
}
