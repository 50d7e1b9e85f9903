//! Flows, about which rules decide.

use std::net::IpAddr;

/// Numbers of IP protocols that rules have names for.
pub mod protocol {
    /// ICMP of IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP of IPv6.
    pub const ICMPV6: u8 = 58;

    /// Returns true if rules can tell the protocol's ports apart.
    pub fn has_ports(protocol: u8) -> bool {
        matches!(protocol, TCP | UDP)
    }
}

/// Member of a network, as its certificate describes it. A program with its own keys is its machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// Name in the network, in lower case; `None` for a member without one.
    pub name: Option<&'a str>,
    /// Tags, in lower case, in any order.
    pub tags: &'a [&'a str],
    /// ID of the member's node.
    pub node: &'a [u8; 32],
}

/// One end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End<'a> {
    /// Member, or the gateway in front of a host that is none.
    pub member: Subject<'a>,
    /// Address of the host behind the gateway; `None` if the member itself is the end.
    pub host: Option<IpAddr>,
}

impl<'a> End<'a> {
    /// Returns the end that is a member itself.
    pub fn member(member: Subject<'a>) -> Self {
        Self { member, host: None }
    }

    /// Returns the end that is a host behind a gateway.
    pub fn behind(gateway: Subject<'a>, host: IpAddr) -> Self {
        Self { member: gateway, host: Some(host) }
    }
}

/// Flow: a TCP connection, or the packets of another protocol between two ends.
///
/// A datagram to a group is one flow to each member that receives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow<'a> {
    /// End that has sent the first packet.
    pub from: End<'a>,
    /// End that received it.
    pub to: End<'a>,
    /// Number of the IP protocol.
    pub protocol: u8,
    /// Port at the end that received it. It is 0 if unknown, and counts for TCP and UDP only.
    pub port: u16,
}
