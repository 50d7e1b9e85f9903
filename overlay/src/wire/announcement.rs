use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Initiation, MessageType, ParseError, Reader, VERSION};
use crate::id::PublicIdentity;

/// UDP port of beacons and announcements, unless configured otherwise.
pub const DISCOVERY_PORT: u16 = 7473;

/// Multicast group of beacons and announcements, IPv4 (administratively scoped, RFC 2365).
pub const DISCOVERY_GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 112, 115);

/// Multicast group of beacons and announcements, IPv6 (link-local scope, transient; RFC 4291 section 2.7).
pub const DISCOVERY_GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x7065, 0x6572);

/// Multicast message of a root to its local networks: "I am a root, and I listen where this comes from."
///
/// ```text
/// offset  0     1        2        34       66     198
///        +----+---------+--------+---------+------+
///        |0xDA| version | X25519 | Ed25519 | zero |
///        | 1  | 1       | key 32 | key 32  | 132  |
///        +----+---------+--------+---------+------+
/// ```
///
/// It proves nothing. A node that uses it begins a handshake, which proves the keys. The zeros make it as
/// long as an [`Initiation`], so that an initiation may answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// Keys of the root.
    pub identity: PublicIdentity,
}

impl Announcement {
    /// Length on the wire, in bytes.
    pub const LEN: usize = Initiation::MIN;

    /// Parses a datagram.
    ///
    /// # Errors
    /// Returns an error for another message, another version, a wrong length, or invalid keys. The bytes in
    /// place of the zeros are ignored.
    pub fn parse(datagram: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::of(datagram, MessageType::Announcement)?;
        reader.version()?;
        let keys: &[u8; PublicIdentity::LEN] = reader.array()?;
        if reader.0.len() != ZEROS {
            return Err(ParseError::Length);
        }
        let identity = PublicIdentity::from_bytes(keys).map_err(|_| ParseError::Value)?;
        Ok(Self { identity })
    }

    /// Appends the message to `out`.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[MessageType::Announcement as u8, VERSION]);
        out.extend_from_slice(&self.identity.to_bytes());
        // As long as an initiation, so that nodes may answer it with one without amplification.
        out.extend_from_slice(&[0; ZEROS]);
    }
}

const ZEROS: usize = Announcement::LEN - 2 - PublicIdentity::LEN;
