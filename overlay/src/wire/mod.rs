//! The layout of every message, as checked views and plain structs.
//!
//! Byte 0 is the message type, integers are big-endian, and `parse` takes any bytes without panicking. The
//! values of byte 0 lie outside 0 to 3 and 64 to 79, so that STUN and TURN can share the port (RFC 7983).
//!
//! | byte 0 | message | defined in |
//! |---|---|---|
//! | `0xD1` | [`Initiation`] | handshake |
//! | `0xD2` | [`Response`] | handshake |
//! | `0xD3` | [`CookieReply`] | handshake |
//! | `0xD4` | [`Data`] | data; its plaintext is an IP packet, a [`Control`] message or [`Candidates`] |
//! | `0xD5` | [`Beacon`] | discovery |
//! | `0xD6` | [`Hello`] | discovery |
//! | `0xD7` | [`UnknownSession`] | a hint that a session is gone |
//! | `0xD8` | [`StaleReply`] | handshake |
//! | `0xD9` | [`Relayed`] | roots |
//! | `0xDA` | [`Announcement`] | roots |
//!
//! These types are public for fuzzing, simulation and tools; a driver needs only
//! [`data_index`](crate::data_index).

mod announcement;
mod beacon;
mod candidates;
mod control;
mod data;
mod handshake;
mod hello;
mod index;
mod membership;
mod relay;
mod root;
#[cfg(test)]
mod tests;
mod unknown;

pub use announcement::{Announcement, DISCOVERY_GROUP_V4, DISCOVERY_GROUP_V6, DISCOVERY_PORT};
pub use beacon::Beacon;
pub use candidates::{Candidates, RootVoucher};
pub use control::{BirthdayStep, Control, ProbeSize};
pub use data::{DATA_HEADER, DATA_OVERHEAD, Data};
pub use handshake::{CookieReply, Initiation, Response, StaleReply};
pub use hello::Hello;
pub use index::SessionIndex;
pub use membership::MembershipMessage;
pub use relay::{Channel, RelayToken, Relayed};
pub use root::{
    ClaimRefusal, Entry, LookUpKey, NicknameClaim, NicknameMessage, NicknameOwner, NotFound, NoticeCode,
    Referral, Registered, Registration, RootMessage, RootRecord, StreamKind, StreamWay, Voucher, access_pass,
};
pub use unknown::UnknownSession;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// Returns an address in its wire form: an IPv4 address as an IPv4-mapped IPv6 address (RFC 4291, section
/// 2.5.5.2).
pub(crate) fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Appends a port and an address, which [`Reader::address`] reads.
fn write_address(address: &SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(&address.port().to_be_bytes());
    out.extend_from_slice(&mapped(address.ip()).octets());
}

/// Version of the protocol, byte 1 of the messages that begin an exchange.
pub const VERSION: u8 = 1;

/// Type of a message, the first byte of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// First message of a handshake.
    Initiation = 0xD1,
    /// Second message of a handshake.
    Response = 0xD2,
    /// "I am busy: show that you receive at that address."
    CookieReply = 0xD3,
    /// A sealed packet.
    Data = 0xD4,
    /// Multicast: "who else is on one of these networks?"
    Beacon = 0xD5,
    /// Unicast: "I am, and this is who."
    Hello = 0xD6,
    /// "I have no session of that index."
    UnknownSession = 0xD7,
    /// "Your initiation is not newer than one that I have read before."
    StaleReply = 0xD8,
    /// A datagram that a root passes on from one node to another.
    Relayed = 0xD9,
    /// Multicast: "I am a root."
    Announcement = 0xDA,
}

impl MessageType {
    /// Returns the type of a datagram, or `None` if it is empty or of another protocol.
    pub fn of(datagram: &[u8]) -> Option<Self> {
        Some(match datagram.first()? {
            0xD1 => Self::Initiation,
            0xD2 => Self::Response,
            0xD3 => Self::CookieReply,
            0xD4 => Self::Data,
            0xD5 => Self::Beacon,
            0xD6 => Self::Hello,
            0xD7 => Self::UnknownSession,
            0xD8 => Self::StaleReply,
            0xD9 => Self::Relayed,
            0xDA => Self::Announcement,
            _ => return None,
        })
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Initiation => "initiation",
            Self::Response => "response",
            Self::CookieReply => "cookie reply",
            Self::Data => "data",
            Self::Beacon => "beacon",
            Self::Hello => "hello",
            Self::UnknownSession => "unknown session",
            Self::StaleReply => "stale reply",
            Self::Relayed => "relayed",
            Self::Announcement => "announcement",
        })
    }
}

/// Reason why bytes are not the expected message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The length is too short, too long, or impossible for this message.
    #[error("wrong length")]
    Length,
    /// Byte 0 names another message.
    #[error("wrong message type")]
    Type,
    /// The version or suite is not supported.
    #[error("unknown version {0}")]
    Version(u8),
    /// A field has an invalid value.
    #[error("invalid value")]
    Value,
    /// The message was sealed under another key, or altered.
    #[error("not authentic")]
    Unauthentic,
}

/// Reader that takes fields off the front of a message.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// Creates a reader that starts behind the type byte.
    fn of(datagram: &'a [u8], expected: MessageType) -> Result<Self, ParseError> {
        match datagram.split_first() {
            Some((&first, rest)) if first == expected as u8 => Ok(Self(rest)),
            Some(_) => Err(ParseError::Type),
            None => Err(ParseError::Length),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], ParseError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(ParseError::Length)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ParseError> {
        self.array::<1>().map(|b| b[0])
    }

    /// Takes `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], ParseError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(ParseError::Length)?;
        self.0 = tail;
        Ok(head)
    }

    /// Returns true if nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn u16(&mut self) -> Result<u16, ParseError> {
        self.array().map(|b| u16::from_be_bytes(*b))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ParseError> {
        self.array().map(|b| u32::from_be_bytes(*b))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ParseError> {
        self.array().map(|b| u64::from_be_bytes(*b))
    }

    fn address(&mut self) -> Result<SocketAddr, ParseError> {
        let port = self.u16()?;
        Ok(SocketAddr::new(Ipv6Addr::from(*self.array()?).to_canonical(), port))
    }

    fn index(&mut self) -> Result<SessionIndex, ParseError> {
        self.array().map(|b| SessionIndex::from_be_bytes(*b))
    }

    fn version(&mut self) -> Result<(), ParseError> {
        match self.u8()? {
            VERSION => Ok(()),
            other => Err(ParseError::Version(other)),
        }
    }

    pub(crate) fn end(self) -> Result<(), ParseError> {
        if self.0.is_empty() { Ok(()) } else { Err(ParseError::Length) }
    }
}
