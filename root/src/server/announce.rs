//! Announcements on the local networks, by which nodes that listen for them find a root.

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

/// Interval of announcements: a node that starts hears of the root within this time.
const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(5);

/// Sender of a root's announcements. It uses the root's sockets, so that the source address of an
/// announcement is the root's endpoint.
#[derive(Debug)]
pub(super) struct Announcer {
    sockets: Vec<(UdpSocket, IpAddr)>,
    datagram: Vec<u8>,
    port: u16,
}

impl Announcer {
    /// Prepares the sockets.
    /// Fails with the system's error if a socket may not broadcast.
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

    /// Announces the root at every [`ANNOUNCEMENT_INTERVAL`], for ever.
    pub(super) async fn run(self) -> Infallible {
        let mut interval = tokio::time::interval(ANNOUNCEMENT_INTERVAL);
        // A delayed root must not send a burst of announcements.
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            // Read each time, because interfaces may change.
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
                // Only announcements are multicast, so changing the socket's multicast interface affects no
                // other sender.
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

/// Broadcast address that the loopback interface delivers to, although it announces none.
const LOOPBACK_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);
