//! Announcements to the local networks: where nodes that were told to look there learn of a root.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use nix::ifaddrs::InterfaceAddress;
use nix::net::if_::if_nametoindex;
use peersock_overlay::wire::{Announcement, DISCOVERY_GROUP_V4, DISCOVERY_GROUP_V6};
use socket2::SockRef;

use super::address::{entries_up, ip_of};
use super::udp::Sockets;

/// A node that starts hears of the root within this time.
const INTERVAL: Duration = Duration::from_secs(5);

/// Who announces a root, from its own sockets: so the source of an announcement is where the root listens.
#[derive(Debug)]
pub(super) struct Announcer {
    sockets: Vec<(UdpSocket, IpAddr)>,
    datagram: Vec<u8>,
    port: u16,
}

impl Announcer {
    /// # Errors
    /// When the system does not let the sockets broadcast.
    pub(super) fn new(sockets: &Sockets, announcement: &Announcement, port: u16) -> io::Result<Self> {
        let sockets = sockets.copies()?;
        for (socket, ip) in sockets.iter().filter(|(_, ip)| ip.is_ipv4()) {
            tracing::debug!(address = %ip, port, "the root announces itself");
            socket.set_broadcast(true)?;
        }
        let mut datagram = Vec::new();
        announcement.emit(&mut datagram);
        Ok(Self { sockets, datagram, port })
    }

    /// Announces the root again and again.
    pub(super) async fn run(self) -> Infallible {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            // The interfaces may have changed.
            let interfaces = entries_up().unwrap_or_default();
            for (socket, ip) in &self.sockets {
                for interface in &interfaces {
                    self.announce(socket, *ip, interface);
                }
            }
        }
    }

    fn announce(&self, socket: &UdpSocket, bound: IpAddr, interface: &InterfaceAddress) {
        let Some(own) = ip_of(interface) else { return };
        if own.is_ipv4() != bound.is_ipv4() || !(bound.is_unspecified() || bound == own) {
            return;
        }
        // A datagram that cannot be sent, because the interface went down or the buffer is full, is lost.
        let send = |to: SocketAddr| drop(socket.send_to(&self.datagram, to));
        match own {
            IpAddr::V4(own) => {
                // Announcements alone are multicast, so no other sender minds the multicast interface.
                if SockRef::from(socket).set_multicast_if_v4(&own).is_ok() {
                    send((DISCOVERY_GROUP_V4, self.port).into());
                }
                let announced = || Some(interface.broadcast.as_ref()?.as_sockaddr_in()?.ip());
                let broadcast = if own.is_loopback() { Some(LOOPBACK_BROADCAST) } else { announced() };
                if let Some(broadcast) = broadcast.filter(|broadcast| *broadcast != own) {
                    send((broadcast, self.port).into());
                }
            }
            IpAddr::V6(own) if own.is_loopback() => {}
            IpAddr::V6(_) => {
                if let Ok(index) = if_nametoindex(interface.interface_name.as_str()) {
                    send(SocketAddrV6::new(DISCOVERY_GROUP_V6, self.port, 0, index).into());
                }
            }
        }
    }
}

/// The broadcast address that the loopback interface delivers to, though it announces none.
const LOOPBACK_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);
