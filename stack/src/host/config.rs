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
    /// Most bytes that a TCP flow queues for sending. Default 64 MiB, 4 KiB to 1 GiB: a gigabit over
    /// 100 ms needs four times its bandwidth-delay product where losses come in bursts.
    ///
    /// A flow takes what its path needs, several times what is in flight, and memory only for what is queued.
    pub send_buffer: usize,
    /// Most bytes that a TCP flow queues for the application, and so its largest window. Default 64 MiB,
    /// 4 KiB to 1 GiB. A flow's window grows to four times what its application reads in a round trip.
    pub receive_buffer: usize,
    /// Bytes that the queues of all TCP flows may occupy together. Default 1 GiB.
    ///
    /// From three quarters on queues stop growing, new flows offer a small window, and what comes out of
    /// order is dropped: its sender keeps it (RFC 2018 section 8). At the limit a flow takes what continues
    /// its queue as long as that holds less than 4 KiB; so much per flow may come on top. If that drops
    /// something, the flow's window is closed until the application has read. Meanwhile each flow
    /// loses once a minute what it has out of order, and fails with
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) if its application has not read for
    /// [`user_timeout`](Self::user_timeout) what it could, also if the connection has ended meanwhile. From
    /// seven eighths on, flows that their application has closed are reset, the oldest first, if they have
    /// more than 4 KiB left to deliver.
    pub tcp_memory: usize,
    /// The same for the flows with one peer, whatever [addresses](crate::Owners) it has. Default 512 MiB.
    pub tcp_memory_per_peer: usize,
    /// Bytes that a UDP or ICMP socket queues, a fixed charge per datagram included. Default 256 KiB.
    /// What does not fit is dropped and counted.
    pub udp_receive_buffer: usize,
    /// How long a connection attempt lasts before it fails with
    /// [`Error::TimedOut`](crate::Error::TimedOut). Default 127 s, as Linux (`tcp_syn_retries` 6). A peer's
    /// attempt is forgotten after half of it (`tcp_synack_retries` 5).
    pub syn_timeout: Duration,
    /// How long a connection waits for an acknowledgement before it fails with
    /// [`Error::TimedOut`](crate::Error::TimedOut), whatever else the peer sends; one that has no room and
    /// answers window probes is alive.
    /// Default 924 s, as Linux (`tcp_retries2` 15, RFC 1122 4.2.3.5).
    pub user_timeout: Duration,
    /// How long a connection that the application has closed waits for the peer's end (FIN-WAIT-2); three
    /// times as long for the peer to acknowledge something while something of ours is left, also if the peer
    /// answers that it has no room, as Linux (`tcp_orphan_retries`). Default 60 s, as `tcp_fin_timeout`.
    pub orphan_timeout: Duration,
    /// How long a pair of addresses stays unusable after a connection that this node has closed first
    /// (TIME-WAIT, two segment lifetimes). Default 10 s: RFC 9293 3.4.2 has four minutes, Linux 60 s. It
    /// gives way earlier to a new connection that cannot be confused with the old one (RFC 6191).
    pub time_wait: Duration,
    /// Ports for sockets that did not ask for one. Default 32768 to 60999, as Linux.
    pub ephemeral_ports: RangeInclusive<u16>,
    /// Most TCP flows, in any state. Default 262,144. Beyond it a connect fails with
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) and an arriving SYN is dropped and counted.
    pub max_flows: usize,
    /// Most TCP flows with one peer, whatever [addresses](crate::Owners) it has, for which a SYN of that peer
    /// is accepted; others are dropped and counted. Default 131,072.
    pub max_flows_per_peer: usize,
    /// Most ICMP errors sent per second, with bursts of the same size. Default 100
    /// (RFC 4443 2.4 (f), RFC 1812 4.3.2.8).
    pub icmp_errors_per_second: u32,
    /// Most ICMP errors sent per second to one peer, or where it is not [known](crate::Owners) to one IPv4
    /// address or one IPv6 /64 prefix, with bursts of the same size, so that one peer cannot use up what all
    /// share. Default 10. A few may share a limit.
    pub icmp_errors_per_prefix: u32,
    /// Bytes that fragments may hold while they wait for the rest of their packets, a charge for each
    /// included. Default 4 MiB. What would exceed it pushes out the oldest packet of the source that holds
    /// most.
    pub reassembly_memory: usize,
    /// The same for the fragments of one peer, whatever [addresses](crate::Owners) it has. Default 1 MiB,
    /// which are 15 packets of the largest size.
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

/// Names one interface of a [`Stack`](crate::Stack). Never used twice in one stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceId(pub u32);

/// One interface: a network that the node has joined.
///
/// ```
/// use peersock_stack::InterfaceConfig;
///
/// let config = InterfaceConfig::new("net0", ["fd00::1/40".parse().unwrap()]);
/// assert_eq!(config.ports, 0..=65535);
/// ```
#[derive(Debug, Clone)]
pub struct InterfaceConfig {
    /// A name for people, as in `getaddrinfo`'s scope.
    pub name: String,
    /// The node's own addresses there, each with the length of its network's prefix.
    pub addresses: Vec<Cidr>,
    /// What else is reached there: networks in which the node has no address of its own.
    pub routes: Vec<Cidr>,
    /// The service ports that this network allows; all by default.
    ///
    /// What counts as a service port: of TCP, the port that is listened on, on both sides; of UDP the port
    /// that a datagram goes to, or that it comes from if it answers one. Ephemeral ports are exempt. See the
    /// crate's documentation.
    pub ports: RangeInclusive<u16>,
    /// Whether checksums of arriving packets are verified and those of replies and datagrams are
    /// made. `false` (the default) where a tunnel authenticates every byte anyway; packets that were
    /// coalesced by a [`Coalescer`](crate::Coalescer) carry no valid checksum and need `false`.
    pub checksums: bool,
}

impl InterfaceConfig {
    /// An interface that allows every port and leaves checksums out.
    pub fn new(name: impl Into<String>, addresses: impl IntoIterator<Item = Cidr>) -> Self {
        let addresses = addresses.into_iter().collect();
        Self { name: name.into(), addresses, routes: Vec::new(), ports: 0..=u16::MAX, checksums: false }
    }
}

/// An own address with the length of the network prefix that it lies in.
///
/// ```
/// use peersock_stack::Cidr;
///
/// let cidr: Cidr = "10.1.2.3/8".parse().unwrap();
/// assert!(cidr.contains("10.200.0.1".parse().unwrap()));
/// assert!("10.1.2.3/33".parse::<Cidr>().is_err());
/// ```
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

    /// The address itself, host bits included.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The length of the network prefix, bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether `other` lies in the same network.
    pub fn contains(&self, other: IpAddr) -> bool {
        self.common_prefix(other).is_some_and(|bits| bits >= u32::from(self.prefix))
    }

    /// How many leading bits the two addresses share; `None` for different families.
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
    /// A network of one address.
    fn from(address: IpAddr) -> Self {
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

/// A text that is no `address/prefix`.
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

/// Options of a TCP socket, given when it connects or listens; accepted flows inherit their
/// listener's.
///
/// ```
/// use peersock_stack::TcpOptions;
///
/// let options = TcpOptions { nodelay: true, ..TcpOptions::default() };
/// assert!(!options.keepalive.on);
/// ```
#[derive(Debug, Clone, Default)]
pub struct TcpOptions {
    /// TCP_NODELAY: send small writes at once instead of waiting for an acknowledgement. Default off.
    pub nodelay: bool,
    /// The application acts at once on what comes: it answers, or calls
    /// [`Flow::wait_for_data`](crate::Flow::wait_for_data). Acknowledgements of the first segments, which
    /// leave by themselves otherwise, wait for that for 10 ms at most, and ride on data if they can. That of
    /// the handshake does not wait: the peer's application is to hear of a connection whose program is killed
    /// then. Default off.
    pub prompt: bool,
    /// SO_KEEPALIVE and what belongs to it. Default off.
    pub keepalive: KeepAlive,
    /// SO_LINGER with zero: [`Flow::close`](crate::Flow::close) resets the connection. Default off.
    pub reset_on_close: bool,
    /// SO_REUSEADDR: bind a port that has connections left from an earlier listener (in TIME-WAIT or not).
    /// Two listeners on one address conflict all the same, unless both have `reuse_port`. Default off; note
    /// that `std::net::TcpListener` sets it on Unix.
    pub reuse_address: bool,
    /// SO_REUSEPORT: several listeners that all have it may listen on one address and port. Each gets its
    /// share of the connections, by the peers' addresses and ports; what waits for one that is closed is
    /// reset. Default off.
    pub reuse_port: bool,
    /// TCP_DEFER_ACCEPT, of listeners: a connection can be accepted once data, or its end, has come, or after
    /// this time. Until then it holds a place of the backlog as a handshake does. Default none.
    pub defer_accept: Option<Duration>,
    /// TCP_USER_TIMEOUT (RFC 5482), instead of [`Config::user_timeout`]. As in Linux it is also how long a
    /// connection attempt lasts, if that is less than [`Config::syn_timeout`], and how long a peer that
    /// answers may have no room; but not with keep-alives: then it is how long the peer may be silent, in
    /// place of [`KeepAlive::probes`].
    pub user_timeout: Option<Duration>,
    /// SO_SNDBUF: a queue of this size from the start instead of one that grows to [`Config::send_buffer`],
    /// bytes.
    pub send_buffer: Option<usize>,
    /// SO_RCVBUF: a queue of this size from the start instead of one that grows to
    /// [`Config::receive_buffer`], bytes.
    pub receive_buffer: Option<usize>,
    /// TCP_CONGESTION. Default BBR.
    pub congestion: CongestionControl,
    /// Whether explicit congestion notification (RFC 3168) is asked for and accepted. Default off.
    pub ecn: bool,
    /// TCP_MAXSEG: no segment that is sent or asked for has more payload, TCP options included, bytes. By
    /// default the path and the peer decide. 88 at least.
    pub max_segment_size: Option<u16>,
    /// What its packets' IP headers say; see [`Flow::set_ip_options`](crate::Flow::set_ip_options).
    pub ip: IpOptions,
}

/// When a silent peer is probed, and when it is given up with [`Error::TimedOut`](crate::Error::TimedOut)
/// (RFC 9293 3.8.4). Probes leave only while nothing waits for an acknowledgement; for what does there is
/// [`TcpOptions::user_timeout`].
///
/// ```
/// use std::time::Duration;
/// use peersock_stack::KeepAlive;
///
/// let usual = KeepAlive { on: true, ..KeepAlive::default() };
/// assert_eq!((usual.idle.as_secs(), usual.interval.as_secs(), usual.probes), (7200, 75, 9));
/// let often = KeepAlive::every(Duration::from_secs(10));
/// assert_eq!((often.on, often.idle), (true, often.interval));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// SO_KEEPALIVE. Default off.
    pub on: bool,
    /// TCP_KEEPIDLE: how long the peer is silent before the first probe. Default two hours, 1 ms at least.
    pub idle: Duration,
    /// TCP_KEEPINTVL: the time from one probe to the next while none is answered. Default 75 s, as Linux, 1
    /// ms at least.
    pub interval: Duration,
    /// TCP_KEEPCNT: so many unanswered probes, with an interval behind the last, are a dead peer. Default 9,
    /// as Linux, 1 at least. Ignored where [`TcpOptions::user_timeout`] is set, as in Linux.
    pub probes: u32,
}

impl Default for KeepAlive {
    fn default() -> Self {
        let (idle, interval) = (Duration::from_secs(7200), Duration::from_secs(75));
        Self { on: false, idle, interval, probes: 9 }
    }
}

impl KeepAlive {
    /// A probe at each interval of silence, the first one included. The peer is dead after eight.
    pub fn every(interval: Duration) -> Self {
        Self { on: true, idle: interval, interval, probes: 8 }
    }
}

impl From<Option<Duration>> for KeepAlive {
    /// [`every`](Self::every), or off.
    fn from(interval: Option<Duration>) -> Self {
        interval.map_or(Self::default(), Self::every)
    }
}

/// Options of a UDP socket, given when it is bound.
///
/// ```
/// use peersock_stack::{IpOptions, UdpOptions};
///
/// let ip = IpOptions { hop_limit: 3, ..IpOptions::default() };
/// let options = UdpOptions { ip, ..UdpOptions::default() };
/// assert!(!options.reuse_address);
/// ```
#[derive(Debug, Clone, Default)]
pub struct UdpOptions {
    /// SO_REUSEADDR: several sockets that all have it may bind the same address; the youngest gets the
    /// datagrams. Default off.
    pub reuse_address: bool,
    /// SO_REUSEPORT: as above, but each gets its share of the datagrams, by their addresses and ports.
    /// Default off.
    pub reuse_port: bool,
    /// With port 0, whether any ephemeral port will do, also one that no network allows: answers come to it
    /// all the same, and the few ports that a network allows stay free for services. Default off.
    pub any_port: bool,
    /// SO_RCVBUF, instead of [`Config::udp_receive_buffer`], bytes.
    pub receive_buffer: Option<usize>,
    /// What its packets' IP headers say; see [`UdpSocket::set_ip_options`](crate::UdpSocket::set_ip_options).
    pub ip: IpOptions,
}
