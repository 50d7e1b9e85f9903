//! IPv6 extension headers beside a datagram (RFC 3542), of sent and of received datagrams.

use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::encoding::{decode, encode};
use crate::name::Details;
use crate::option_table::{IPV6_DSTOPTS, IPV6_HOPOPTS, IPV6_RTHDR, IPV6_RTHDRDSTOPTS};

/// Maximum length of the data in a descriptor beside a datagram, bytes: more than the eight headers that a
/// node accepts.
const MAX_HEADERS_BYTES: usize = 32 << 10;
/// Length that suffices for most, bytes.
const USUAL_HEADERS_BYTES: usize = 128;

/// Kind of an extension header, which corresponds to a socket option and a type of ancillary data.
///
/// ```
/// use peersock_fd::HeaderKind;
///
/// assert_eq!(HeaderKind::of_option(59), Some(HeaderKind::Destination)); // IPV6_DSTOPTS
/// assert_eq!(HeaderKind::Destination.option(), 59);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeaderKind {
    /// IPV6_HOPOPTS.
    HopByHop,
    /// IPV6_RTHDRDSTOPTS: destination options in front of the routing header. In received datagrams all
    /// destination options are [`Destination`](Self::Destination).
    BeforeRouting,
    /// IPV6_RTHDR.
    Routing,
    /// IPV6_DSTOPTS.
    Destination,
}

impl HeaderKind {
    /// All kinds, in the order of sending.
    pub const ALL: [Self; 4] = [Self::HopByHop, Self::BeforeRouting, Self::Routing, Self::Destination];

    /// Returns the option's number, which is also the type of ancillary data.
    pub fn option(self) -> i32 {
        match self {
            Self::HopByHop => IPV6_HOPOPTS,
            Self::BeforeRouting => IPV6_RTHDRDSTOPTS,
            Self::Routing => IPV6_RTHDR,
            Self::Destination => IPV6_DSTOPTS,
        }
    }

    /// Returns the kind that belongs to an option of the level IPPROTO_IPV6, if there is one.
    pub fn of_option(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.option() == number)
    }
}

/// One extension header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its kind.
    pub kind: HeaderKind,
    /// The whole header in the layout of RFC 8200: a multiple of eight bytes.
    pub bytes: Vec<u8>,
}

/// Data beside a datagram, carried in a descriptor. It exists because a connected AF_UNIX socket has only one
/// peer, whose name cannot vary, and names have no room for extension headers.
///
/// ```
/// use peersock_fd::{AncillaryData, Details};
///
/// let details = Details { hop_limit: Some(3), ..Details::default() };
/// let beside = AncillaryData { details, headers: Vec::new() };
/// assert_eq!(AncillaryData::decode(&beside.encode()), Some(beside));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AncillaryData {
    /// Fields of its IP header.
    pub details: Details,
    /// Its extension headers that the socket has requested.
    pub headers: Vec<Header>,
}

impl AncillaryData {
    /// Encodes it.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Decodes bytes written by [`encode`](Self::encode).
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes)
    }

    /// Reads the data in a descriptor.
    pub(crate) fn read(fd: &OwnedFd) -> Option<Self> {
        let mut buf = [0; USUAL_HEADERS_BYTES];
        // The same open file accompanies many datagrams, so its position must not move.
        let length = rustix::io::pread(fd.as_fd(), &mut buf[..], 0).ok()?;
        if length < USUAL_HEADERS_BYTES {
            return Self::decode(&buf[..length]);
        }
        let mut buf = vec![0; MAX_HEADERS_BYTES];
        let length = rustix::io::pread(fd.as_fd(), &mut buf[..], 0).ok()?;
        Self::decode(&buf[..length])
    }
}
