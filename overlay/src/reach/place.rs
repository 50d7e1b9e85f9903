//! Places: ways on which datagrams reach a node, and how they came from one.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::network::is_endpoint;
use crate::noise::Origin;
use crate::wire::{Channel, RelayToken, Relayed};

/// Which of the driver's UDP sockets, of its TURN allocations, or of its streams to roots and to other nodes.
/// The driver numbers sockets, allocations and streams to nodes, each from 0 on; the endpoint numbers the
/// streams to roots, and the *extra* sockets that it asks for ([`WantedSocket`](crate::WantedSocket)).
///
/// A TURN allocation is as good as a UDP socket whose address is the relayed one: what is sent from it leaves
/// the TURN server. It is slower, and costs somebody's bandwidth, so it counts as relayed.
///
/// A stream has no address that datagrams are sent to. Where one is asked for stands the stream's *end*,
/// which is made of its number: an address of the block 100::/64, to which nothing can be sent and from which
/// nothing comes on any network (RFC 6666).
///
/// ```
/// use peersock_overlay::{SocketIndex, is_endpoint};
///
/// let stream = SocketIndex::stream(7);
/// let end = stream.stream_end().expect("it is a stream");
/// assert_eq!(end, "[100::7]:1".parse()?);
/// assert!(!is_endpoint(&end), "no datagram of a UDP socket is from there");
/// assert_eq!(SocketIndex(7).stream_end(), None);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketIndex(pub u16);

impl SocketIndex {
    /// Extra sockets are numbered from here on.
    const EXTRA: u16 = 0x2000;

    /// TURN allocations are numbered from here on.
    const TURN: u16 = 0x4000;

    /// Streams are numbered from here on.
    const STREAMS: u16 = 0x8000;

    /// Streams to other nodes are numbered from here on.
    const PEER_STREAMS: u16 = 0xC000;

    /// The index of the extra socket with that number; only its lower 13 bits count.
    ///
    /// ```
    /// use peersock_overlay::SocketIndex;
    ///
    /// assert!(SocketIndex::extra(0).is_extra() && !SocketIndex::extra(0).is_turn());
    /// assert!(!SocketIndex(0).is_extra() && !SocketIndex::turn(0).is_extra());
    /// ```
    pub fn extra(number: u16) -> Self {
        Self(Self::EXTRA | (number & (Self::EXTRA - 1)))
    }

    /// Whether it is a UDP socket that the endpoint has asked for, besides those that the driver has anyway.
    pub fn is_extra(self) -> bool {
        (Self::EXTRA..Self::TURN).contains(&self.0)
    }

    /// Whether it is one of several ways to an address, so that it makes a place of its own.
    pub(crate) fn makes_place(self) -> bool {
        self.is_turn() || self.is_extra()
    }

    /// The index of the TURN allocation with that number; only its lower 14 bits count.
    ///
    /// ```
    /// use peersock_overlay::SocketIndex;
    ///
    /// assert!(SocketIndex::turn(0).is_turn() && !SocketIndex::turn(0).is_stream());
    /// assert!(!SocketIndex(0).is_turn() && !SocketIndex::stream(0).is_turn());
    /// ```
    pub fn turn(number: u16) -> Self {
        Self(Self::TURN | (number & (Self::TURN - 1)))
    }

    /// Whether it is a TURN allocation.
    pub fn is_turn(self) -> bool {
        (Self::TURN..Self::STREAMS).contains(&self.0)
    }

    /// The index of the stream to a root with that number; only its lower 14 bits count.
    pub fn stream(number: u16) -> Self {
        Self(Self::STREAMS | (number & (Self::PEER_STREAMS - Self::STREAMS - 1)))
    }

    /// The index of the stream to another node with that number; only its lower 14 bits count. The driver
    /// numbers those ([`TcpAction`](crate::TcpAction)).
    ///
    /// ```
    /// use peersock_overlay::SocketIndex;
    ///
    /// assert!(SocketIndex::peer_stream(0).is_stream() && SocketIndex::peer_stream(0).is_peer_stream());
    /// assert!(!SocketIndex::stream(0).is_peer_stream());
    /// ```
    pub fn peer_stream(number: u16) -> Self {
        Self(Self::PEER_STREAMS | number)
    }

    /// Whether it is a stream to another node.
    pub fn is_peer_stream(self) -> bool {
        self.0 >= Self::PEER_STREAMS
    }

    /// Whether it is a stream, and no UDP socket or TURN allocation.
    pub fn is_stream(self) -> bool {
        self.0 >= Self::STREAMS
    }

    /// Of the stream, or of what it is else.
    fn number(self) -> u16 {
        self.0 & !Self::STREAMS
    }

    /// What stands for the address of the root or node at the other end of a stream; `None` for a UDP socket.
    pub fn stream_end(self) -> Option<SocketAddr> {
        let number = self.0.checked_sub(Self::STREAMS)?;
        Some(SocketAddr::new(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, number).into(), 1))
    }
}

/// Whether an address is of the block that the ends of streams are in (RFC 6666).
pub(crate) fn is_discarded(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.segments()[..4] == [0x100, 0, 0, 0])
}

/// A way on which datagrams reach a node, with everything that a driver needs to send one there.
///
/// ```
/// use peersock_overlay::{Place, SocketIndex};
///
/// let place = Place::Direct { socket: SocketIndex(0), remote: "192.0.2.1:4000".parse()? };
/// assert_eq!(place.to_string(), "192.0.2.1:4000");
/// assert_eq!((place.overhead(), place.largest_datagram()), (0, 65_507));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Place {
    /// UDP from one of our sockets straight to an address.
    Direct {
        /// The socket to send from.
        socket: SocketIndex,
        /// The address to send to.
        remote: SocketAddr,
    },
    /// A root passes the datagrams on, each behind a header that names the node.
    Relayed {
        /// The socket to send from: the root knows this node by its address.
        socket: SocketIndex,
        /// The root's address.
        root: SocketAddr,
        /// What stands in front of each datagram, in both directions.
        header: Relayed,
    },
}

impl Place {
    /// The socket to send from.
    pub fn socket(&self) -> SocketIndex {
        match *self {
            Self::Direct { socket, .. } | Self::Relayed { socket, .. } => socket,
        }
    }

    /// The address that datagrams are sent to: the root's, if one relays.
    pub fn remote(&self) -> SocketAddr {
        match *self {
            Self::Direct { remote, .. } => remote,
            Self::Relayed { root, .. } => root,
        }
    }

    /// The header that stands in front of each datagram on this way, if a root relays.
    pub fn relay(&self) -> Option<Relayed> {
        match *self {
            Self::Direct { .. } => None,
            Self::Relayed { header, .. } => Some(header),
        }
    }

    /// Whether it is UDP straight to an address, without a root, a TURN server of ours, or a stream.
    pub(crate) fn is_plain(&self) -> bool {
        !self.key().is_relayed() && !self.socket().is_stream()
    }

    /// Bytes that this way adds to each datagram, between the UDP header and the message.
    pub fn overhead(&self) -> usize {
        match self {
            Self::Direct { .. } => 0,
            Self::Relayed { .. } => Relayed::LEN,
        }
    }

    /// Bytes of the IP and UDP headers in front of each datagram.
    pub fn headers(&self) -> usize {
        if self.remote().is_ipv4() { 28 } else { 48 }
    }

    /// The largest datagram that this way could carry over any link, in bytes.
    pub fn largest_datagram(&self) -> usize {
        // RFC 791: an IPv4 packet of 65,535 bytes. IPv6 could carry 20 more, which nobody misses.
        65_535 - 28 - self.overhead()
    }

    /// Whether it stays on this machine. Behind a root is another machine, as far as anybody knows.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Direct { remote, .. } => remote.ip().is_loopback(),
            Self::Relayed { .. } => false,
        }
    }

    /// What tells it apart from the node's other places.
    pub(crate) fn key(&self) -> PlaceKey {
        PlaceKey {
            remote: self.remote(),
            channel: self.relay().map(|header| header.channel),
            via: Some(self.socket()).filter(|socket| socket.makes_place()),
        }
    }
}

/// A root that relays for this node, and how it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Relay {
    /// The socket whose address the root knows this node by.
    pub(crate) socket: SocketIndex,
    /// Its address.
    pub(crate) root: SocketAddr,
    /// This node's own there.
    pub(crate) token: RelayToken,
    /// It relays no more than what is free.
    pub(crate) is_scarce: bool,
}

impl Relay {
    /// The place of the node that has this name at the root.
    pub(crate) fn place(&self, channel: Channel) -> Place {
        let header = Relayed { token: self.token, channel };
        Place::Relayed { socket: self.socket, root: self.root, header }
    }
}

/// What tells the places of one node apart: neither the UDP socket nor the token, which are this node's own
/// concern and may change. A TURN allocation of this node's makes another place of an address, and so does an
/// extra socket: the NAT boxes on the way let in what comes by that one alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PlaceKey {
    /// The address that datagrams are sent to.
    pub(crate) remote: SocketAddr,
    /// The node's name at the root that listens there; `None` if it is the node itself.
    pub(crate) channel: Option<Channel>,
    /// This node's TURN allocation or extra socket, if datagrams leave from one.
    pub(crate) via: Option<SocketIndex>,
}

impl PlaceKey {
    /// The node itself is at this address.
    pub(crate) fn direct(remote: SocketAddr) -> Self {
        Self { remote, channel: None, via: None }
    }

    /// Whether a root relays there.
    pub(crate) fn is_behind_root(&self) -> bool {
        self.channel.is_some()
    }

    /// Whether a root relays there, or this node's TURN server.
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

/// Where packets for a peer are sent, and how much fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Where they go.
    pub place: Place,
    /// The largest datagram that is thought to pass, in bytes (RFC 8899): the UDP payload, without what the
    /// place adds in front ([`Place::overhead`]). 1200 at first and mostly more; 198 at least, on paths that
    /// carry less than the Internet must.
    pub datagram_size: usize,
    /// Whether a TURN server relays there: this node's, or the peer's as far as it has said so.
    pub turn: bool,
}

impl Path {
    /// The socket to send from.
    pub fn socket(&self) -> SocketIndex {
        self.place.socket()
    }

    /// The address to send to.
    pub fn remote(&self) -> SocketAddr {
        self.place.remote()
    }
}

/// How a datagram came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecvMeta {
    /// Its source, which nobody has verified.
    pub remote: SocketAddr,
    /// The socket it came in on.
    pub socket: SocketIndex,
    /// Whether that was the discovery socket, where multicast and broadcast arrive.
    pub multicast: bool,
    /// What stood in front of it, if a root has relayed it; see [`Relays`](crate::Relays).
    pub relay: Option<Relayed>,
}

impl RecvMeta {
    /// Whether its source is one that a node's datagrams may come from: an endpoint of UDP, or the end of the
    /// stream to a node that it came in by.
    pub(crate) fn is_from_node(&self) -> bool {
        let is_end = self.socket.is_peer_stream() && self.socket.stream_end() == Some(self.remote);
        is_endpoint(&self.remote) || is_end
    }

    /// What tells its source from others.
    pub(crate) fn origin(&self) -> Origin {
        Origin { remote: self.remote, channel: self.relay.map(|header| header.channel) }
    }

    /// Where an answer would go.
    pub fn place(&self) -> Place {
        match self.relay {
            None => Place::Direct { socket: self.socket, remote: self.remote },
            Some(header) => Place::Relayed { socket: self.socket, root: self.remote, header },
        }
    }
}
