use std::fmt;

use super::{MessageType, ParseError, Reader};

/// Header of a relayed datagram: the other end's channel at the root, and proof that the sender of the frame
/// is who it seems to be.
///
/// ```text
/// offset  0     1         4           12
///        +----+---------+-----------+--------------------+
///        |0xD9| token 3 | channel 8 | the datagram ..    |
///        +----+---------+-----------+--------------------+
/// ```
///
/// A node that sends to a root names the node that should get the datagram; a relaying root names the node
/// that it comes from. So an answer goes back under the same name. In both directions the token is that of
/// the node's own registration, which only the node, the root and observers between them know. It keeps
/// others from using up a node's share of the relay; it proves nothing else.
///
/// The datagram is a message of this protocol. If that message is sealed, it is sealed end to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relayed {
    /// Token of the node's registration at this root.
    pub token: RelayToken,
    /// Channel of the other node.
    pub channel: Channel,
}

impl Relayed {
    /// Length on the wire, in bytes.
    pub const LEN: usize = 12;

    /// Parses a frame into the header and the datagram behind it.
    /// Returns [`ParseError::Type`] for another message, and [`ParseError::Length`] if it is cut off.
    pub fn parse(frame: &[u8]) -> Result<(Self, &[u8]), ParseError> {
        let mut reader = Reader::of(frame, MessageType::Relayed)?;
        let token = RelayToken(*reader.array()?);
        let channel = Channel(reader.u64()?);
        Ok((Self { token, channel }, reader.0))
    }

    /// Returns the header's bytes.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0] = MessageType::Relayed as u8;
        bytes[1..4].copy_from_slice(&self.token.0);
        bytes[4..].copy_from_slice(&self.channel.0.to_be_bytes());
        bytes
    }
}

/// Name of a node at one root while it is registered there: random, and told to any node that looks it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u64);

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Secret of 24 random bits that only a registered node, its root, and observers between them know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayToken([u8; 3]);

impl RelayToken {
    /// Creates a token from the three bytes on the wire.
    pub const fn from_be_bytes(bytes: [u8; 3]) -> Self {
        Self(bytes)
    }

    /// Returns the three bytes on the wire.
    pub const fn to_be_bytes(self) -> [u8; 3] {
        self.0
    }
}

impl fmt::Debug for RelayToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A log with tokens would let its readers send frames in the root's name.
        f.write_str("RelayToken([redacted])")
    }
}
