//! Places: the ways on which datagrams reach a node, and the origin of received ones.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::network::is_endpoint;
use crate::noise::Origin;
use crate::wire::{Channel, RelayToken, Relayed};

/// Index of one of the driver's UDP sockets, TURN allocations, or streams to roots and to other nodes. The
/// driver numbers sockets, allocations and streams to nodes, each from 0 on. The endpoint numbers the streams
/// to roots, and the *extra* sockets that it asks for ([`WantedSocket`](crate::WantedSocket)).
///
/// A TURN allocation works like a UDP socket whose address is the relayed one, because datagrams from it
/// leave the TURN server. It is slower and uses a server's bandwidth, so it counts as relayed.
///
/// A stream has no address that datagrams are sent to. The stream's *end* takes the place of an address. It
/// is made of the stream's number, in the discard block 100::/64, which no network routes (RFC 6666).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketIndex(pub u16);

impl SocketIndex {
    /// First number of the extra sockets.
    const EXTRA: u16 = 0x2000;

    /// First number of the TURN allocations.
    const TURN: u16 = 0x4000;

    /// First number of the streams.
    const STREAMS: u16 = 0x8000;

    /// First number of the streams to other nodes.
    const PEER_STREAMS: u16 = 0xC000;

    /// Returns the index of the extra socket with this number; only its lower 13 bits count.
    pub fn extra(number: u16) -> Self {
        Self(Self::EXTRA | (number & (Self::EXTRA - 1)))
    }

    /// Returns true for a UDP socket that the endpoint has asked for, besides the driver's regular ones.
    pub fn is_extra(self) -> bool {
        (Self::EXTRA..Self::TURN).contains(&self.0)
    }

    /// Returns true if an address reached this way counts as a separate place.
    pub(crate) fn makes_place(self) -> bool {
        self.is_turn() || self.is_extra()
    }

    /// Returns the index of the TURN allocation with this number; only its lower 14 bits count.
    pub fn turn(number: u16) -> Self {
        Self(Self::TURN | (number & (Self::TURN - 1)))
    }

    /// Returns true for a TURN allocation.
    pub fn is_turn(self) -> bool {
        (Self::TURN..Self::STREAMS).contains(&self.0)
    }

    /// Returns the index of the stream to a root with this number; only its lower 14 bits count.
    pub fn stream(number: u16) -> Self {
        Self(Self::STREAMS | (number & (Self::PEER_STREAMS - Self::STREAMS - 1)))
    }

    /// Returns the index of the stream to another node with this number; only its lower 14 bits count. The
    /// driver numbers those ([`TcpAction`](crate::TcpAction)).
    pub fn peer_stream(number: u16) -> Self {
        Self(Self::PEER_STREAMS | number)
    }

    /// Returns true for a stream to another node.
    pub fn is_peer_stream(self) -> bool {
        self.0 >= Self::PEER_STREAMS
    }

    /// Returns true for a stream, false for a UDP socket or TURN allocation.
    pub fn is_stream(self) -> bool {
        self.0 >= Self::STREAMS
    }

    /// Returns the number without the stream bit.
    fn number(self) -> u16 {
        self.0 & !Self::STREAMS
    }

    /// Returns the substitute address of the root or node at the other end of a stream; `None` for a UDP
    /// socket.
    pub fn stream_end(self) -> Option<SocketAddr> {
        let number = self.0.checked_sub(Self::STREAMS)?;
        // RFC 6666: a discard-only address, which no network has, so it can name a stream.
        Some(SocketAddr::new(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, number).into(), 1))
    }
}

/// Returns true if an address is in the block of the ends of streams (RFC 6666).
pub(crate) fn is_discarded(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.segments()[..4] == [0x100, 0, 0, 0])
}

/// Way on which datagrams reach a node, with everything a driver needs to send one there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Place {
    /// UDP from one of our sockets directly to an address.
    Direct {
        /// Socket to send from.
        socket: SocketIndex,
        /// Address to send to.
        remote: SocketAddr,
    },
    /// Relay by a root, which forwards datagrams behind a header that names the node.
    Relayed {
        /// Socket to send from: the root knows this node by its address.
        socket: SocketIndex,
        /// Address of the root.
        root: SocketAddr,
        /// Header in front of each datagram, in both directions.
        header: Relayed,
    },
}

impl Place {
    /// Returns the socket to send from.
    pub fn socket(&self) -> SocketIndex {
        match *self {
            Self::Direct { socket, .. } | Self::Relayed { socket, .. } => socket,
        }
    }

    /// Returns the address that datagrams are sent to: the root's, if one relays.
    pub fn remote(&self) -> SocketAddr {
        match *self {
            Self::Direct { remote, .. } => remote,
            Self::Relayed { root, .. } => root,
        }
    }

    /// Returns the header in front of each datagram on this way, if a root relays.
    pub fn relay(&self) -> Option<Relayed> {
        match *self {
            Self::Direct { .. } => None,
            Self::Relayed { header, .. } => Some(header),
        }
    }

    /// Returns true for UDP directly to an address, without a root, a TURN server of ours, or a stream.
    pub(crate) fn is_plain(&self) -> bool {
        !self.key().is_relayed() && !self.socket().is_stream()
    }

    /// Returns the number of bytes that this way adds to each datagram, between the UDP header and the
    /// message.
    pub fn overhead(&self) -> usize {
        match self {
            Self::Direct { .. } => 0,
            Self::Relayed { .. } => Relayed::LEN,
        }
    }

    /// Returns the number of bytes of the IP and UDP headers in front of each datagram.
    pub fn headers(&self) -> usize {
        // IP and UDP headers without options: 20 or 40 bytes, and 8.
        if self.remote().is_ipv4() { 28 } else { 48 }
    }

    /// Returns the largest datagram that this way could carry over any link, in bytes.
    pub fn largest_datagram(&self) -> usize {
        // RFC 791: an IPv4 packet of 65,535 bytes. IPv6 could carry 20 more, which matters to no user.
        65_535 - 28 - self.overhead()
    }

    /// Returns true if the place is on this machine. A place behind a root is assumed to be on another
    /// machine.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Direct { remote, .. } => remote.ip().is_loopback(),
            Self::Relayed { .. } => false,
        }
    }

    /// Returns the key that distinguishes this place from the node's other places.
    pub(crate) fn key(&self) -> PlaceKey {
        PlaceKey {
            remote: self.remote(),
            channel: self.relay().map(|header| header.channel),
            // Through TURN or an extra socket the same remote address is another way, with another NAT
            // mapping.
            via: Some(self.socket()).filter(|socket| socket.makes_place()),
        }
    }
}

/// Root that relays for this node, and the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Relay {
    /// Socket whose address the root knows this node by.
    pub(crate) socket: SocketIndex,
    /// Address of the root.
    pub(crate) root: SocketAddr,
    /// This node's own token at the root.
    pub(crate) token: RelayToken,
    /// True if the root relays only the free quota.
    pub(crate) is_scarce: bool,
}

impl Relay {
    /// Returns the place of the node with this channel at the root.
    pub(crate) fn place(&self, channel: Channel) -> Place {
        let header = Relayed { token: self.token, channel };
        Place::Relayed { socket: self.socket, root: self.root, header }
    }
}

/// Key that distinguishes the places of one node. Omits the UDP socket and the token, which belong to this
/// node and may change. A TURN allocation or an extra socket of this node makes a separate place of an
/// address, because the NAT boxes on the way admit only datagrams that come through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PlaceKey {
    /// Address that datagrams are sent to.
    pub(crate) remote: SocketAddr,
    /// Channel of the node at the root that listens there; `None` if the node itself does.
    pub(crate) channel: Option<Channel>,
    /// TURN allocation or extra socket of this node from which datagrams leave, if any.
    pub(crate) via: Option<SocketIndex>,
}

impl PlaceKey {
    /// Returns the key of the node itself at this address.
    pub(crate) fn direct(remote: SocketAddr) -> Self {
        Self { remote, channel: None, via: None }
    }

    /// Returns true if a root relays there.
    pub(crate) fn is_behind_root(&self) -> bool {
        self.channel.is_some()
    }

    /// Returns true if a root or this node's TURN server relays there.
    pub(crate) fn is_relayed(&self) -> bool {
        self.channel.is_some() || self.via.is_some_and(SocketIndex::is_turn)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct { socket, .. } if socket.is_peer_stream() => {
                write!(f, "TCP connection {}", socket.number() & !SocketIndex::PEER_STREAMS)
            }
            Self::Direct { socket, .. } if socket.is_stream() => write!(f, "stream {}", socket.number()),
            Self::Relayed { socket, .. } if socket.is_stream() => {
                write!(f, "relay by stream {}", socket.number())
            }
            Self::Direct { socket, remote } if socket.is_turn() => write!(f, "{remote} by TURN"),
            Self::Direct { remote, .. } => remote.fmt(f),
            Self::Relayed { root, .. } => write!(f, "relay {root}"),
        }
    }
}

/// Destination of packets for a peer, and the size that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Place that packets go to.
    pub place: Place,
    /// Largest datagram expected to pass, in bytes (RFC 8899): the UDP payload without the place's overhead
    /// ([`Place::overhead`]). 1200 at first and mostly more; at least 198, on paths that carry less than the
    /// Internet must.
    pub datagram_size: usize,
    /// True if a TURN server relays there: this node's, or the peer's as far as the peer has said so.
    pub turn: bool,
}

impl Path {
    /// Returns the socket to send from.
    pub fn socket(&self) -> SocketIndex {
        self.place.socket()
    }

    /// Returns the address to send to.
    pub fn remote(&self) -> SocketAddr {
        self.place.remote()
    }
}

/// Origin of a received datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecvMeta {
    /// Unverified source address.
    pub remote: SocketAddr,
    /// Socket that received the datagram.
    pub socket: SocketIndex,
    /// True if that was the discovery socket, which receives multicast and broadcast.
    pub multicast: bool,
    /// Header in front of the datagram, if a root has relayed it; see [`Relays`](crate::Relays).
    pub relay: Option<Relayed>,
}

impl RecvMeta {
    /// Returns true if a node's datagrams may come from this source: an endpoint of UDP, or the end of the
    /// stream to a node on which the datagram came.
    pub(crate) fn is_from_node(&self) -> bool {
        // A stream's end is no real endpoint, but it is the only address at which its peer is reached.
        let is_end = self.socket.is_peer_stream() && self.socket.stream_end() == Some(self.remote);
        is_endpoint(&self.remote) || is_end
    }

    /// Returns the key that distinguishes its source from others.
    pub(crate) fn origin(&self) -> Origin {
        Origin { remote: self.remote, channel: self.relay.map(|header| header.channel) }
    }

    /// Returns the place that an answer would go to.
    pub fn place(&self) -> Place {
        match self.relay {
            None => Place::Direct { socket: self.socket, remote: self.remote },
            Some(header) => Place::Relayed { socket: self.socket, root: self.remote, header },
        }
    }
}
