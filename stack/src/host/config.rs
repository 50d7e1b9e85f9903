//! Settings of the stack, of its interfaces and of its sockets.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::{CongestionControl, IpOptions};

/// Settings that every socket of one [`Stack`](crate::Stack) shares.
///
/// ```
/// use peersock_stack::Config;
///
/// let config = Config { receive_buffer: 1 << 20, ..Config::default() };
/// assert_eq!(config.send_buffer, 64 << 20);
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    /// Maximum bytes that a TCP flow queues for sending. Default 64 MiB, 4 KiB to 1 GiB: with bursts of loss,
    /// a gigabit over 100 ms needs four times its bandwidth-delay product.
    ///
    /// A flow's limit follows its path, as several times the bytes in flight. Memory is used only for queued
    /// bytes.
    pub send_buffer: usize,
    /// Maximum bytes that a TCP flow queues for the application, and so its largest window. Default 64 MiB, 4
    /// KiB to 1 GiB. A flow's window grows to four times what its application reads in a round trip.
    pub receive_buffer: usize,
    /// Maximum bytes of the queues of all TCP flows together. Default 1 GiB.
    ///
    /// From three quarters on, queues stop growing, new flows offer a small window, and out-of-order data is
    /// dropped, because its sender keeps it (RFC 2018 section 8). At the limit a flow accepts data in order
    /// while its queue holds less than 4 KiB; this much per flow may come on top. If the limit makes a flow
    /// drop data, its window is closed until the application has read. Meanwhile each flow loses its
    /// out-of-order data once a minute. It fails with [`Error::OutOfMemory`](crate::Error::OutOfMemory) if
    /// its application has not read available data for [`user_timeout`](Self::user_timeout), even if the
    /// connection has ended meanwhile. From seven eighths on, flows closed by their applications are reset,
    /// the oldest first, if they have more than 4 KiB left to deliver.
    pub tcp_memory: usize,
    /// Maximum bytes of the queues of the flows with one peer, whatever [addresses](crate::Owners) it has.
    /// Default 512 MiB.
    pub tcp_memory_per_peer: usize,
    /// Maximum bytes that a UDP or ICMP socket queues, including a fixed charge per datagram. Default 256
    /// KiB. More is dropped and counted.
    pub udp_receive_buffer: usize,
    /// Time after which a connection attempt fails with [`Error::TimedOut`](crate::Error::TimedOut). Default
    /// 127 s, as Linux (`tcp_syn_retries` 6). A peer's attempt is forgotten after half of it
    /// (`tcp_synack_retries` 5).
    pub syn_timeout: Duration,
    /// Time without an acknowledgement after which a connection fails with
    /// [`Error::TimedOut`](crate::Error::TimedOut), whatever else the peer sends. A peer that has no room and
    /// answers window probes is alive. Default 924 s, as Linux (`tcp_retries2` 15, RFC 1122 4.2.3.5).
    pub user_timeout: Duration,
    /// Time for which a connection closed by the application waits for the peer's end (FIN-WAIT-2). It waits
    /// three times as long for an acknowledgement of outstanding data, even if the peer answers that it has
    /// no room, as Linux (`tcp_orphan_retries`). Default 60 s, as `tcp_fin_timeout`.
    pub orphan_timeout: Duration,
    /// Duration of TIME-WAIT (two segment lifetimes), in which the addresses of a connection closed first by
    /// this node are unusable. Default 10 s: RFC 9293 3.4.2 has four minutes, Linux 60 s. It ends earlier for
    /// a new connection that is distinguishable from the old one (RFC 6191).
    pub time_wait: Duration,
    /// Ports for sockets that did not request one. Default 32768 to 60999, as Linux.
    pub ephemeral_ports: RangeInclusive<u16>,
    /// Maximum number of TCP flows, in any state. Default 262,144. Beyond it a connect fails with
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) and an arriving SYN is dropped and counted.
    pub max_flows: usize,
    /// Maximum number of TCP flows with one peer, whatever [addresses](crate::Owners) it has, up to which
    /// SYNs of that peer are accepted. Later SYNs are dropped and counted. Default 131,072.
    pub max_flows_per_peer: usize,
    /// Maximum number of ICMP errors sent per second, with bursts of the same size. Default 100 (RFC 4443 2.4
    /// (f), RFC 1812 4.3.2.8).
    pub icmp_errors_per_second: u32,
    /// Maximum number of ICMP errors sent per second to one peer, with bursts of the same size. For an
    /// [unknown](crate::Owners) peer, it applies to an IPv4 address or an IPv6 /64 prefix. It keeps one peer
    /// from using up the common limit. Default 10. A few peers may share a limit.
    pub icmp_errors_per_prefix: u32,
    /// Maximum bytes of fragments that wait for the rest of their packets, including a charge for each.
    /// Default 4 MiB. Beyond it, the oldest packet of the source that holds most is dropped.
    pub reassembly_memory: usize,
    /// Maximum bytes of the fragments of one peer, whatever [addresses](crate::Owners) it has. Default 1 MiB,
    /// which is 15 packets of the largest size.
    pub reassembly_memory_per_source: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            send_buffer: 64 << 20,
            receive_buffer: 64 << 20,
            tcp_memory: 1 << 30,
            tcp_memory_per_peer: 512 << 20,
            udp_receive_buffer: 256 << 10,
            syn_timeout: Duration::from_secs(127),
            user_timeout: Duration::from_secs(924),
            orphan_timeout: Duration::from_secs(60),
            time_wait: Duration::from_secs(10),
            ephemeral_ports: 32768..=60999,
            max_flows: 1 << 18,
            max_flows_per_peer: 1 << 17,
            icmp_errors_per_second: 100,
            icmp_errors_per_prefix: 10,
            reassembly_memory: 4 << 20,
            reassembly_memory_per_source: 1 << 20,
        }
    }
}

/// Number of one interface of a [`Stack`](crate::Stack), never reused in the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceId(pub u32);

/// One interface: a network that the node has joined.
#[derive(Debug, Clone)]
pub struct InterfaceConfig {
    /// Name for people, as in `getaddrinfo`'s scope.
    pub name: String,
    /// Local addresses, each with the length of its network's prefix.
    pub addresses: Vec<Cidr>,
    /// Other networks that are reached there, without a local address.
    pub routes: Vec<Cidr>,
    /// Service ports that this network allows; all by default.
    ///
    /// A service port of TCP is the listener's port, on both sides. For UDP, it is the destination port of a
    /// datagram, or the source port of an answer. Ephemeral ports are exempt. See the crate's documentation.
    pub ports: RangeInclusive<u16>,
    /// True if checksums are verified in arriving packets and filled into replies and datagrams. `false` (the
    /// default) where a tunnel authenticates every byte. Packets joined by a [`Coalescer`](crate::Coalescer)
    /// carry no valid checksum and need `false`.
    pub checksums: bool,
}

impl InterfaceConfig {
    /// Returns an interface that allows every port and omits checksums.
    pub fn new(name: impl Into<String>, addresses: impl IntoIterator<Item = Cidr>) -> Self {
        let addresses = addresses.into_iter().collect();
        Self { name: name.into(), addresses, routes: Vec::new(), ports: 0..=u16::MAX, checksums: false }
    }
}

/// A local address with the length of its network prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Joins an address and a prefix length, in bits: at most 32 for IPv4 and 128 for IPv6.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= longest).then_some(Self { address, prefix })
    }

    /// Returns the address itself, host bits included.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns the length of the network prefix, bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Returns true if `other` lies in the same network.
    pub fn contains(&self, other: IpAddr) -> bool {
        self.common_prefix(other).is_some_and(|bits| bits >= u32::from(self.prefix))
    }

    /// Returns the number of leading bits that the two addresses share; `None` for different families.
    pub(crate) fn common_prefix(&self, other: IpAddr) -> Option<u32> {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => Some((a.to_bits() ^ b.to_bits()).leading_zeros()),
            (IpAddr::V6(a), IpAddr::V6(b)) => Some((a.to_bits() ^ b.to_bits()).leading_zeros()),
            _ => None,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<IpAddr> for Cidr {
    /// Returns a network of one address.
    fn from(address: IpAddr) -> Self {
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

/// Error for a text that is not `address/prefix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an IP address, a slash and a prefix length")]
pub struct ParseCidrError;

impl std::str::FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, ParseCidrError> {
        let (address, prefix) = text.split_once('/').ok_or(ParseCidrError)?;
        let address = address.parse().map_err(|_| ParseCidrError)?;
        let prefix = prefix.parse().map_err(|_| ParseCidrError)?;
        Self::new(address, prefix).ok_or(ParseCidrError)
    }
}

/// Options of a TCP socket, given when it connects or listens; accepted flows inherit their listener's.
#[derive(Debug, Clone, Default)]
pub struct TcpOptions {
    /// TCP_NODELAY: send small writes at once instead of waiting for an acknowledgement. Default off.
    pub nodelay: bool,
    /// True if the application acts at once on arriving data: it answers, or calls
    /// [`Flow::wait_for_data`](crate::Flow::wait_for_data). Acknowledgements of the first segments, which are
    /// otherwise immediate, then wait up to 10 ms, and ride on data if possible. The handshake's
    /// acknowledgement does not wait, so that the peer's application learns of the connection even if this
    /// program is killed then. Default off.
    pub prompt: bool,
    /// SO_KEEPALIVE and its parameters. Default off.
    pub keepalive: KeepAlive,
    /// SO_LINGER with zero: [`Flow::close`](crate::Flow::close) resets the connection. Default off.
    pub reset_on_close: bool,
    /// SO_REUSEADDR: bind a port that has connections left from an earlier listener (in TIME-WAIT or not).
    /// Two listeners on one address still conflict, unless both have `reuse_port`. Default off;
    /// `std::net::TcpListener` sets it on Unix.
    pub reuse_address: bool,
    /// SO_REUSEPORT: several listeners with this option may listen on one address and port. Connections are
    /// distributed by the peers' addresses and ports; unaccepted connections of a closed listener are reset.
    /// Default off.
    pub reuse_port: bool,
    /// TCP_DEFER_ACCEPT, of listeners: a connection can be accepted after its data or its end has come, or
    /// after this time. Until then it holds a place of the backlog as a handshake does. Default none.
    pub defer_accept: Option<Duration>,
    /// TCP_USER_TIMEOUT (RFC 5482), instead of [`Config::user_timeout`]. As in Linux, it also limits a
    /// connection attempt, if it is less than [`Config::syn_timeout`], and the time for which an answering
    /// peer may have no room. With keep-alives, the latter does not apply; instead it limits the peer's
    /// silence, in place of [`KeepAlive::probes`].
    pub user_timeout: Option<Duration>,
    /// SO_SNDBUF: fixed size of the send queue, instead of one that grows to [`Config::send_buffer`], bytes.
    pub send_buffer: Option<usize>,
    /// SO_RCVBUF: fixed size of the receive queue, instead of one that grows to [`Config::receive_buffer`],
    /// bytes.
    pub receive_buffer: Option<usize>,
    /// TCP_CONGESTION. Default BBR.
    pub congestion: CongestionControl,
    /// True to request and accept explicit congestion notification (RFC 3168). Default off.
    pub ecn: bool,
    /// TCP_MAXSEG: maximum payload of sent and requested segments, TCP options included, bytes. By default
    /// the path and the peer decide. At least 88.
    pub max_segment_size: Option<u16>,
    /// Settings of its IP headers; see [`Flow::set_ip_options`](crate::Flow::set_ip_options).
    pub ip: IpOptions,
}

/// Probing of a silent peer, until it is given up with [`Error::TimedOut`](crate::Error::TimedOut) (RFC 9293
/// 3.8.4). Probes leave only while no data awaits an acknowledgement, or while the peer has no room;
/// [`TcpOptions::user_timeout`] covers unacknowledged data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// SO_KEEPALIVE. Default off.
    pub on: bool,
    /// TCP_KEEPIDLE: silence of the peer before the first probe. Default two hours, at least 1 ms.
    pub idle: Duration,
    /// TCP_KEEPINTVL: interval between unanswered probes. Default 75 s, as Linux, at least 1 ms.
    pub interval: Duration,
    /// TCP_KEEPCNT: number of unanswered probes, each with an interval, after which the peer is dead. Default
    /// 9, as Linux, at least 1. Ignored where [`TcpOptions::user_timeout`] is set, as in Linux.
    pub probes: u32,
}

impl Default for KeepAlive {
    fn default() -> Self {
        let (idle, interval) = (Duration::from_secs(7200), Duration::from_secs(75));
        Self { on: false, idle, interval, probes: 9 }
    }
}

impl KeepAlive {
    /// Returns settings with a probe after each interval of silence, including the first. The peer is dead
    /// after eight.
    pub fn every(interval: Duration) -> Self {
        Self { on: true, idle: interval, interval, probes: 8 }
    }
}

impl From<Option<Duration>> for KeepAlive {
    /// Returns [`every`](Self::every), or off.
    fn from(interval: Option<Duration>) -> Self {
        interval.map_or(Self::default(), Self::every)
    }
}

/// Options of a UDP socket, given at its bind.
#[derive(Debug, Clone, Default)]
pub struct UdpOptions {
    /// SO_REUSEADDR: several sockets with this option may bind the same address; the newest gets the
    /// datagrams. Default off.
    pub reuse_address: bool,
    /// SO_REUSEPORT: as above, but the datagrams are distributed by their addresses and ports. Default off.
    pub reuse_port: bool,
    /// True if port 0 may give any ephemeral port, even one that no network allows. Answers still arrive
    /// there, and the few allowed ports stay free for services. Default off.
    pub any_port: bool,
    /// SO_RCVBUF, instead of [`Config::udp_receive_buffer`], bytes.
    pub receive_buffer: Option<usize>,
    /// Settings of its IP headers; see [`UdpSocket::set_ip_options`](crate::UdpSocket::set_ip_options).
    pub ip: IpOptions,
}
