//! IPv6 extension headers beside a datagram (RFC 3542): those that it is to have, and those with which it has
//! come.

use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::encoding::{decode, encode};
use crate::name::Details;
use crate::option_table::{IPV6_DSTOPTS, IPV6_HOPOPTS, IPV6_RTHDR, IPV6_RTHDRDSTOPTS};

/// What a descriptor beside a datagram holds at most, bytes: more than the eight headers that a node takes.
const LONGEST: usize = 32 << 10;
/// As much as most hold, bytes.
const USUAL: usize = 128;

/// Which socket option, and which ancillary data, an extension header is.
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
    /// IPV6_RTHDRDSTOPTS: destination options in front of the routing header. Of what has come all
    /// destination options are [`Destination`](Self::Destination).
    BeforeRouting,
    /// IPV6_RTHDR.
    Routing,
    /// IPV6_DSTOPTS.
    Destination,
}

impl HeaderKind {
    /// All of them, in the order in which they leave.
    pub const ALL: [Self; 4] = [Self::HopByHop, Self::BeforeRouting, Self::Routing, Self::Destination];

    /// The option's number, which is also the type of ancillary data.
    pub fn option(self) -> i32 {
        match self {
            Self::HopByHop => IPV6_HOPOPTS,
            Self::BeforeRouting => IPV6_RTHDRDSTOPTS,
            Self::Routing => IPV6_RTHDR,
            Self::Destination => IPV6_DSTOPTS,
        }
    }

    /// What an option of the level IPPROTO_IPV6 is, if it is one of these.
    pub fn of_option(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.option() == number)
    }
}

/// One extension header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Which it is.
    pub kind: HeaderKind,
    /// All of it, as RFC 8200 lays it out: a multiple of eight bytes.
    pub bytes: Vec<u8>,
}

/// What comes beside a datagram in a descriptor: a connected AF_UNIX socket has only one other end, whose
/// name cannot tell it, and names have no room for extension headers.
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
    /// What its IP header says.
    pub details: Details,
    /// Its extension headers that the socket has asked for.
    pub headers: Vec<Header>,
}

impl AncillaryData {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`encode`](Self::encode) has written.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes)
    }

    /// What a descriptor holds.
    pub(crate) fn read(fd: &OwnedFd) -> Option<Self> {
        let mut buf = [0; USUAL];
        // The same open file comes with many datagrams: its position must not move.
        let length = rustix::io::pread(fd.as_fd(), &mut buf[..], 0).ok()?;
        if length < USUAL {
            return Self::decode(&buf[..length]);
        }
        let mut buf = vec![0; LONGEST];
        let length = rustix::io::pread(fd.as_fd(), &mut buf[..], 0).ok()?;
        Self::decode(&buf[..length])
    }
}
