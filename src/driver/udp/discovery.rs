//! Discovery sockets, bound to the well-known discovery port, which receive beacons.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use peersock_overlay::wire::{DISCOVERY_GROUP_V4 as GROUP_V4, DISCOVERY_GROUP_V6 as GROUP_V6};
use quinn_udp::UdpSocketState;
use socket2::{Domain, Protocol, Socket, Type};

use super::data::DataSocket;
use super::{batches, bind_by_itself};
use crate::driver::interfaces::HostInterface;

#[derive(Debug)]
pub(super) struct DiscoverySocket {
    pub(super) io: UdpSocket,
    pub(super) state: UdpSocketState,
    pub(super) ipv4: bool,
}

/// Binds the discovery sockets and returns those that opened.
pub(super) fn bind(port: u16) -> Vec<DiscoverySocket> {
    let mut sockets = Vec::new();
    // Discovery is useful even in one family, so a failure of the other is no error.
    for ipv4 in [true, false] {
        match DiscoverySocket::bind(port, ipv4) {
            Ok(socket) => sockets.push(socket),
            Err(error) => {
                let family = if ipv4 { "IPv4" } else { "IPv6" };
                tracing::info!(%error, family, "discovery on the local network is off for this family")
            }
        }
    }
    sockets
}

impl DiscoverySocket {
    fn bind(port: u16, ipv4: bool) -> io::Result<DiscoverySocket> {
        let address: IpAddr = if ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let address = SocketAddr::new(address, port);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        // Several nodes share the port: each gets a copy of every multicast and broadcast datagram.
        socket.set_reuse_address(true)?;
        if ipv4 {
            // Only groups that this socket joined, not groups that other programs on the machine joined.
            socket.set_multicast_all_v4(false)?;
        } else {
            socket.set_only_v6(true)?;
        }
        bind_by_itself(&socket, address)?;
        let io: UdpSocket = socket.into();
        let state = batches(&io)?;
        tracing::debug!(%address, "UDP socket for beacons");
        Ok(DiscoverySocket { io, state, ipv4 })
    }

    pub(super) fn join(&self, interface: &HostInterface) {
        let socket = socket2::SockRef::from(&self.io);
        let joined = if self.ipv4 {
            let index = socket2::InterfaceIndexOrAddress::Index(interface.index);
            socket.join_multicast_v4_n(&GROUP_V4, &index)
        } else if interface.loopback {
            return;
        } else {
            socket.join_multicast_v6(&GROUP_V6, interface.index)
        };
        if let Err(error) = joined {
            tracing::debug!(%error, interface = %interface.name, "the beacons' multicast group was not joined");
        }
    }
}

/// Returns the beacon targets of a data socket: the group, and the broadcast addresses of its interfaces.
pub(super) fn targets(socket: &DataSocket, list: &[HostInterface], port: u16) -> Vec<SocketAddr> {
    let mut targets = Vec::new();
    let mut group_v4 = false;
    for interface in list.iter().filter(|interface| socket.reaches(interface)) {
        if socket.local.is_ipv4() {
            group_v4 |= !interface.ipv4.is_empty();
            targets.extend(interface.broadcast.iter().map(|b| SocketAddr::new(IpAddr::V4(*b), port)));
        } else if !interface.ipv6.is_empty() && !interface.loopback {
            // The loopback interface has no IPv6 multicast route; IPv4 suffices there.
            targets.push(SocketAddrV6::new(GROUP_V6, port, 0, interface.index).into());
        }
    }
    if group_v4 {
        targets.push(SocketAddr::new(IpAddr::V4(GROUP_V4), port));
    }
    targets
}

impl HostInterface {
    /// Returns true if a datagram to this address was sent to the whole local network. Routers do not forward
    /// such datagrams, so their sender is local. Unicast may come from anywhere, and its sender must not
    /// learn from a beacon which nodes are here.
    pub(super) fn is_for_all(&self, destination: Option<IpAddr>) -> bool {
        match destination.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) => ip == GROUP_V4 || ip.is_broadcast() || self.broadcast.contains(&ip),
            Some(IpAddr::V6(ip)) => ip == GROUP_V6,
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_broadcast_addresses_are_for_all() {
        let interface = HostInterface {
            name: "eth0".to_owned(),
            index: 2,
            loopback: false,
            ipv4: vec![Ipv4Addr::new(192, 0, 2, 1)],
            broadcast: vec![Ipv4Addr::new(192, 0, 2, 255)],
            ipv6: vec![Ipv6Addr::LOCALHOST],
        };
        let is_for_all = |ip: &str| interface.is_for_all(Some(ip.parse().unwrap()));
        for ip in
            ["239.255.112.115", "192.0.2.255", "255.255.255.255", "ff12::7065:6572", "::ffff:192.0.2.255"]
        {
            assert!(is_for_all(ip), "{ip}");
        }
        for ip in [
            "192.0.2.1",
            "198.51.100.255",
            "127.255.255.255",
            "224.0.0.1",
            "ff02::1",
            "fe80::1",
            "2001:db8::1",
        ] {
            assert!(!is_for_all(ip), "{ip}");
        }
        assert!(!interface.is_for_all(None));
    }
}
