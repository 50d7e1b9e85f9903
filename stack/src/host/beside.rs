//! Sockets beside another IP stack that has the same addresses.

use std::net::SocketAddr;

use smoltcp::wire::IpProtocol;

use crate::icmp;
use crate::ip::IpHeader;
use crate::socket::flow_table::FlowKey;
use crate::{InterfaceId, Stack, UdpRoute};

/// Receivers of a packet on an interface whose addresses another IP stack has, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// A socket of this stack.
    Sockets,
    /// The other stack.
    Other,
    /// Both, each of which ignores what is not its own: an ICMP error or echo reply, or a packet of a group
    /// that sockets have joined.
    Both,
}

impl Stack {
    /// Returns the receivers of a packet on an interface that this stack shares with another one. A packet
    /// without a socket is the other stack's, which answers it. So are fragments, and packets with IP options
    /// or extension headers.
    ///
    /// ```
    /// use std::time::Instant;
    ///
    /// use peersock_stack::{Claim, Config, InterfaceId, Stack};
    ///
    /// let stack = Stack::new(Config::default(), [1; 32], Instant::now());
    /// assert_eq!(stack.claim(InterfaceId(1), &[0x45, 0, 0]), Claim::Other, "there are no sockets");
    /// ```
    pub fn claim(&self, interface: InterfaceId, packet: &[u8]) -> Claim {
        let shared = &self.shared;
        let has_none = shared.flows.len() == 0
            && shared.listeners.is_empty()
            && shared.udp_binds.is_empty()
            && shared.icmp.is_empty();
        if has_none {
            return Claim::Other;
        }
        let Ok(ip) = IpHeader::parse(packet, false) else { return Claim::Other };
        let payload = &packet[ip.header_len.min(ip.total_len)..ip.total_len];
        let Some(&[a, b, c, d]) = payload.first_chunk().filter(|_| ip.plain) else { return Claim::Other };
        if icmp::is_for(ip.source, ip.protocol) {
            return if icmp::is_answer(ip.source, a) { Claim::Both } else { Claim::Other };
        }
        if ip.destination.is_multicast() {
            let is_joined = shared.memberships.contains(interface, ip.destination);
            return if is_joined { Claim::Both } else { Claim::Other };
        }
        let ports = [u16::from_be_bytes([c, d]), u16::from_be_bytes([a, b])];
        let local = SocketAddr::new(ip.destination, ports[0]);
        let remote = SocketAddr::new(ip.source, ports[1]);
        let is_taken = match ip.protocol {
            IpProtocol::Tcp => {
                let key = FlowKey::from_parts(interface, [ip.destination, ip.source], ports);
                shared.flows.find(&key).is_some() || shared.listeners.find(interface, local).is_some()
            }
            IpProtocol::Udp => {
                let route = UdpRoute { interface, source: local, destination: remote };
                shared.udp_connected.find(&route).is_some()
                    || shared.udp_binds.find(interface, local).is_some()
            }
            _ => false,
        };
        if is_taken { Claim::Sockets } else { Claim::Other }
    }
}
