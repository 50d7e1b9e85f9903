//! Names of abstract AF_UNIX sockets: each describes its socket.
//!
//! The kernel keeps them for as long as a descriptor of the socket is open anywhere. So `getsockname(2)` and
//! `getpeername(2)` identify a descriptor in every thread and process, after `dup`, `fork`, `exec` and
//! passing. No table is keyed by descriptor numbers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use crate::name_text::{SEAL_DIGITS, Text, digit, write_address, write_base64, write_details};

/// Maximum length of the name of an abstract AF_UNIX socket (unix(7)), bytes.
pub const MAX_NAME: usize = 107;

/// Prefix of every name.
const PREFIX: &str = "ps/";

/// Identifier of a node, unique on its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeTag(pub u32);

/// Identifier of one socket of a node: 48 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct SocketId(pub u64);

impl SocketId {
    /// Mask of an ID's bits.
    const NUMBER_MASK: u64 = (1 << 48) - 1;

    /// Makes an ID of random bits.
    pub fn new(bits: u64) -> Self {
        Self(bits & Self::NUMBER_MASK)
    }
}

/// The address family of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
}

impl Family {
    /// Returns the family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Returns the family's unspecified address: all local addresses, or none in particular.
    pub fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// Type of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// SOCK_STREAM: TCP.
    Stream,
    /// SOCK_DGRAM: UDP.
    Datagram,
    /// SOCK_DGRAM with IPPROTO_ICMP or IPPROTO_ICMPV6: echo requests and replies.
    Echo,
    /// SOCK_RAW, with this protocol number.
    Raw(u8),
}

/// A socket that an application opened, as its name describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Opened {
    /// Its address family.
    pub family: Family,
    /// Its type.
    pub kind: Kind,
    /// Its ID.
    pub id: SocketId,
}

/// A connection that a listener accepted, as the name of the node's end describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Accepted {
    /// Its ID.
    pub id: SocketId,
    /// The peer's address.
    pub peer: SocketAddr,
    /// The local address.
    pub local: SocketAddr,
}

/// A connection of the machine's own network that the node passes to a listener, as the name of the node's
/// end describes it. The connection's descriptor arrives through that end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Passed {
    /// Its ID.
    pub id: SocketId,
    /// The peer's address.
    pub peer: SocketAddr,
}

/// The node's end of a datagram socket for one remote address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Remote {
    /// The application's socket.
    pub id: SocketId,
    /// The remote address; for ICMP and raw sockets the port is 0.
    pub address: SocketAddr,
    /// Fields of the IP headers, for sockets that requested them.
    pub details: Option<Details>,
    /// Seal over the other fields, which only the node and its applications can compute. So no other program
    /// can take the name before the node does, or invent one. See
    /// [`NameKey::remote`](crate::NameKey::remote).
    pub seal: u64,
}

/// Ancillary data of a received datagram, or settings for a sent one (RFC 3542, ip(7)).
///
/// For received datagrams it contains what the socket's options have requested.
///
/// ```
/// use peersock_fd::{Details, PacketInfo};
///
/// let from = PacketInfo { local: "10.7.0.1".parse().unwrap(), interface: 0 };
/// let details = Details { packet_info: Some(from), ..Details::default() };
/// assert_eq!(details.hop_limit, None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Details {
    /// IP_PKTINFO, IPV6_PKTINFO.
    pub packet_info: Option<PacketInfo>,
    /// IP_TTL, IPV6_HOPLIMIT.
    pub hop_limit: Option<u8>,
    /// IP_TOS, IPV6_TCLASS.
    pub traffic_class: Option<u8>,
    /// IPV6_PATHMTU: reports that a datagram was longer than this, bytes of an IP packet. A name then
    /// contains nothing else.
    pub path_mtu: Option<u32>,
    /// Digest of all settings of datagrams with extension headers or segmentation, see
    /// [`NameKey::digest`](crate::NameKey::digest). A name then contains nothing else.
    pub digest: Option<u64>,
    /// UDP_SEGMENT: length of the datagrams that sent data is split into, bytes; the last has the rest. Names
    /// do not contain it.
    pub segment: Option<NonZeroU16>,
}

/// The local end of a datagram's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct PacketInfo {
    /// The local address or group that a datagram was sent to, or the source address to use; unspecified for
    /// any.
    pub local: IpAddr,
    /// The number of the network, counted from 1; for sending, 0 means any. Applications see it as
    /// [`interface_index`](crate::interface_index).
    pub interface: u16,
}

impl Details {
    /// Returns true if nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Content of an abstract name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Name {
    /// The node's request listener (SOCK_SEQPACKET).
    Requests(NodeTag),
    /// The listener for connecting stream sockets (SOCK_STREAM).
    Data(NodeTag),
    /// The launcher's listener for programs that no library reaches (SOCK_STREAM).
    Programs(NodeTag),
    /// An application's end.
    Opened(NodeTag, Opened),
    /// The node's end of an accepted connection.
    Accepted(NodeTag, Accepted),
    /// The node's end through which a listener gets a kernel connection.
    Passed(NodeTag, Passed),
    /// The node's end of a datagram socket, for one remote address.
    Remote(NodeTag, Remote),
}

impl Name {
    /// Returns the node that it belongs to.
    pub fn tag(&self) -> NodeTag {
        match *self {
            Self::Requests(tag)
            | Self::Data(tag)
            | Self::Programs(tag)
            | Self::Opened(tag, _)
            | Self::Accepted(tag, _)
            | Self::Passed(tag, _)
            | Self::Remote(tag, _) => tag,
        }
    }

    /// Parses text written by [`Display`](fmt::Display). Returns `None` for any other text.
    ///
    /// ```
    /// use peersock_fd::{Name, NodeTag};
    ///
    /// assert_eq!(Name::parse(b"ps/0000002a/ctl"), Some(Name::Requests(NodeTag(42))));
    /// assert_eq!(Name::parse(b"/tmp/.X11-unix/X0"), None);
    /// ```
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut text = Text(std::str::from_utf8(bytes).ok()?.strip_prefix(PREFIX)?);
        let tag = NodeTag(text.hex(8)? as u32);
        text.slash()?;
        let name = match text.take(1)? {
            "c" => text.rest("tl").map(|()| Self::Requests(tag))?,
            "d" => text.rest("ata").map(|()| Self::Data(tag))?,
            "e" => text.rest("xec").map(|()| Self::Programs(tag))?,
            "a" => {
                let (family, id) = text.family_and_id()?;
                let peer = text.address(family)?;
                Self::Accepted(tag, Accepted { id, peer, local: text.address(family)? })
            }
            "k" => {
                let (family, id) = text.family_and_id()?;
                Self::Passed(tag, Passed { id, peer: text.address(family)? })
            }
            "p" => {
                let (family, id) = text.family_and_id()?;
                let address = text.address(family)?;
                let seal = u64::try_from(text.base64(SEAL_DIGITS)?).ok()?;
                let details = if text.0.is_empty() { None } else { Some(text.details(family)?) };
                Self::Remote(tag, Remote { id, address, details, seal })
            }
            kind => {
                let protocol = text.hex(2)? as u8;
                let kind = match (kind, protocol) {
                    ("t", 0) => Kind::Stream,
                    ("u", 0) => Kind::Datagram,
                    ("i", 0) => Kind::Echo,
                    ("r", protocol) => Kind::Raw(protocol),
                    _ => return None,
                };
                let (family, id) = text.family_and_id()?;
                Self::Opened(tag, Opened { family, kind, id })
            }
        };
        text.0.is_empty().then_some(name)
    }

    /// Returns the file name for a socket with such a name, see [`Request::MakePrivate`].
    ///
    /// ```
    /// use peersock_fd::{Name, NodeTag};
    ///
    /// let name = Name::Data(NodeTag(42));
    /// assert_eq!(name.file_name(), "ps:0000002a:data");
    /// // Only an application's stream socket may be a file.
    /// assert_eq!(Name::of_path(b"/run/ps:0000002a:data"), None);
    /// ```
    ///
    /// [`Request::MakePrivate`]: crate::Request::MakePrivate
    pub fn file_name(&self) -> String {
        self.to_string().replace('/', ":")
    }

    /// Parses the last part of a path written by [`file_name`](Self::file_name) for an application's stream
    /// socket. Returns `None` for any other path.
    pub fn of_path(path: &[u8]) -> Option<Self> {
        let file = path.rsplit(|byte| *byte == b'/').next()?;
        let text: Vec<u8> = file.iter().map(|&byte| if byte == b':' { b'/' } else { byte }).collect();
        Self::parse(&text).filter(|name| matches!(name, Self::Opened(_, Opened { kind: Kind::Stream, .. })))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:08x}/", self.tag().0)?;
        match self {
            Self::Requests(_) => f.write_str("ctl"),
            Self::Data(_) => f.write_str("data"),
            Self::Programs(_) => f.write_str("exec"),
            Self::Opened(_, Opened { family, kind, id }) => {
                let (letter, protocol) = match kind {
                    Kind::Stream => ('t', 0),
                    Kind::Datagram => ('u', 0),
                    Kind::Echo => ('i', 0),
                    Kind::Raw(protocol) => ('r', *protocol),
                };
                write!(f, "{letter}{protocol:02x}{}/{:012x}/", digit(*family), id.0)
            }
            Self::Accepted(_, Accepted { id, peer, local }) => {
                write!(f, "a{}/{:012x}/", digit(Family::of(peer.ip())), id.0)?;
                write_address(f, peer)?;
                write_address(f, local)
            }
            Self::Passed(_, Passed { id, peer }) => {
                write!(f, "k{}/{:012x}/", digit(Family::of(peer.ip())), id.0)?;
                write_address(f, peer)
            }
            Self::Remote(_, Remote { id, address, details, seal }) => {
                write!(f, "p{}/{:012x}/", digit(Family::of(address.ip())), id.0)?;
                write_address(f, address)?;
                write_base64(f, (*seal).into(), SEAL_DIGITS)?;
                let Some(details) = details else { return Ok(()) };
                write_details(f, details)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(v6: bool, bits: u128, port: u16) -> SocketAddr {
        let ip = if v6 { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits(bits as u32).into() };
        SocketAddr::new(ip, port)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_fits(
            (tag, id) in (any::<u32>(), any::<u64>()),
            (v6, a, b, port) in (any::<bool>(), any::<u128>(), any::<u128>(), any::<u16>()),
            (kind, octet) in (0..4usize, any::<u8>()),
        ) {
            let (tag, id) = (NodeTag(tag), SocketId::new(id));
            let family = if v6 { Family::V6 } else { Family::V4 };
            let kind = [Kind::Stream, Kind::Datagram, Kind::Echo, Kind::Raw(octet)][kind];
            let (peer, local) = (address(v6, a, port), address(v6, b, !port));
            let all = Details {
                packet_info: Some(PacketInfo { local: local.ip(), interface: port }),
                hop_limit: Some(!octet),
                traffic_class: Some(octet ^ 7),
                ..Details::default()
            };
            let one = Details { hop_limit: Some(octet), ..Details::default() };
            let seal = (a as u64).rotate_left(7) ^ b as u64;
            let mtu = Details { path_mtu: Some(tag.0), ..Details::default() };
            let digest = Details { digest: Some(!seal), ..Details::default() };
            for name in [
                Name::Requests(tag),
                Name::Data(tag),
                Name::Programs(tag),
                Name::Opened(tag, Opened { family, kind, id }),
                Name::Accepted(tag, Accepted { id, peer, local }),
                Name::Passed(tag, Passed { id, peer }),
                Name::Remote(tag, Remote { id, address: peer, details: None, seal }),
                Name::Remote(tag, Remote { id, address: peer, details: Some(all), seal }),
                Name::Remote(tag, Remote { id, address: peer, details: Some(one), seal }),
                Name::Remote(tag, Remote { id, address: peer, details: Some(mtu), seal }),
                Name::Remote(tag, Remote { id, address: peer, details: Some(digest), seal }),
                Name::Remote(tag, Remote { id, address: peer, details: Some(Details::default()), seal }),
            ] {
                let text = name.to_string();
                // Room in sockaddr_un beside the byte that makes it abstract.
                prop_assert!(text.len() <= MAX_NAME, "{text}");
                prop_assert_eq!(Name::parse(text.as_bytes()), Some(name));
                let is_private = matches!(name, Name::Opened(_, Opened { kind: Kind::Stream, .. }));
                let path = format!("/proc/thread-self/fd/2147483647/{}", name.file_name());
                prop_assert!(!is_private || path.len() <= MAX_NAME, "{path}");
                prop_assert_eq!(Name::of_path(path.as_bytes()), is_private.then_some(name));
            }
        }

        #[test]
        fn other_texts_are_no_names(text in "ps/[0-9a-f]{8}/[a-z0-9/]{0,60}|[ -~]{0,40}") {
            if let Some(name) = Name::parse(text.as_bytes()) {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
