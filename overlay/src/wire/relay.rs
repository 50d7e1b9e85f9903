use std::fmt;

use super::{MessageType, ParseError, Reader};

/// What a relayed datagram has in front: the other end's name at the root, and proof that the sender of the
/// frame is who it seems to be.
///
/// ```text
/// offset  0     1         4           12
///        +----+---------+-----------+--------------------+
///        |0xD9| token 3 | channel 8 | the datagram ..    |
///        +----+---------+-----------+--------------------+
/// ```
///
/// A node that sends to a root names the node that shall get the datagram; a root that passes it on names the
/// node that it comes from. So an answer goes back under the same name. The token is that of the node's own
/// registration in both directions: who neither is on the way between node and root, nor is one of the two,
/// does not know it. It keeps others from using up a node's share of the relay; it proves nothing else.
///
/// The datagram is a message of this protocol, sealed end to end where that message is.
///
/// ```
/// use peersock_overlay::wire::{Channel, Relayed, RelayToken};
///
/// let header = Relayed { token: RelayToken::from_be_bytes([1, 2, 3]), channel: Channel(7) };
/// let frame = [&header.to_bytes()[..], b"a datagram"].concat();
/// assert_eq!(Relayed::parse(&frame), Ok((header, &b"a datagram"[..])));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relayed {
    /// Of the node's registration at this root.
    pub token: RelayToken,
    /// The other node.
    pub channel: Channel,
}

impl Relayed {
    /// Length on the wire, in bytes.
    pub const LEN: usize = 12;

    /// The header and what is behind it.
    ///
    /// # Errors
    /// [`ParseError::Type`] for another message, [`ParseError::Length`] if it is cut off.
    pub fn parse(frame: &[u8]) -> Result<(Self, &[u8]), ParseError> {
        let mut reader = Reader::of(frame, MessageType::Relayed)?;
        let token = RelayToken(*reader.array()?);
        let channel = Channel(reader.u64()?);
        Ok((Self { token, channel }, reader.0))
    }

    /// The header as it is sent.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0] = MessageType::Relayed as u8;
        bytes[1..4].copy_from_slice(&self.token.0);
        bytes[4..].copy_from_slice(&self.channel.0.to_be_bytes());
        bytes
    }
}

/// A node's name at one root while it is registered there: random, and told to whoever looks the node up.
///
/// ```
/// use peersock_overlay::wire::Channel;
///
/// assert_eq!(Channel(0x1f).to_string(), "000000000000001f");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u64);

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// 24 random bits that only a registered node and its root know, besides those between them.
///
/// ```
/// use peersock_overlay::wire::RelayToken;
///
/// assert_eq!(RelayToken::from_be_bytes([1, 2, 3]).to_be_bytes(), [1, 2, 3]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayToken([u8; 3]);

impl RelayToken {
    /// Reads the three bytes on the wire.
    pub const fn from_be_bytes(bytes: [u8; 3]) -> Self {
        Self(bytes)
    }

    /// The three bytes on the wire.
    pub const fn to_be_bytes(self) -> [u8; 3] {
        self.0
    }
}

impl fmt::Debug for RelayToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayToken([redacted])")
    }
}
