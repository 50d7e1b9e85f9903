use super::SessionIndex;
use super::{MessageType, ParseError, Reader, VERSION};
use crate::crypto::Suite;

const INITIATION_HEADER: usize = 5;
const RESPONSE_HEADER: usize = 8;
/// Length of MAC1 and MAC2, at the end of both handshake messages.
const MACS: usize = 32;
/// Length of Noise's ephemeral key, sealed static key and the tag of the payload.
const INITIATION_NOISE: usize = 32 + 48 + 16;
/// Length of Noise's ephemeral key and the tag of the payload.
const RESPONSE_NOISE: usize = 32 + 16;

/// First message of a handshake, before its cryptography is checked.
///
/// ```text
/// offset  0     1        2          5            37               85                n-32   n-16
///        +----+---------+----------+------------+----------------+-----------------+------+------+
///        |0xD1| version | sender   | ephemeral  | sealed static  | sealed payload  | MAC1 | MAC2 |
///        | 1  | 1       | index 3  | key 32     | key 32+16      | 65.. + 16       | 16   | 16   |
///        +----+---------+----------+------------+----------------+-----------------+------+------+
///        |<------ header ------->|<--------------- Noise -------------------->|
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initiation<'a> {
    /// Sender's index for the future session.
    pub sender: SessionIndex,
    /// Bytes in front of the Noise message; they go into the transcript.
    pub header: &'a [u8],
    /// Noise message.
    pub noise: &'a [u8],
}

impl<'a> Initiation<'a> {
    /// Length of the header, in bytes.
    pub const HEADER: usize = INITIATION_HEADER;
    /// Length with the payload of version 1, in bytes.
    pub const MIN: usize = Self::HEADER + INITIATION_NOISE + 65 + MACS;
    /// Maximum length accepted, in bytes; it leaves room for payloads to grow.
    pub const MAX: usize = 1200;

    /// Parses a datagram.
    /// Returns an error for a length out of bounds, another message, or a version other than 1.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::of(datagram, MessageType::Initiation)?;
        reader.version()?;
        let sender = reader.index()?;
        let (header, noise) = split(datagram, Self::HEADER, Self::MIN..=Self::MAX)?;
        Ok(Self { sender, header, noise })
    }

    /// Returns the header of a message from `sender`.
    pub fn header(sender: SessionIndex) -> [u8; INITIATION_HEADER] {
        let [a, b, c] = sender.to_be_bytes();
        [MessageType::Initiation as u8, VERSION, a, b, c]
    }
}

/// Second message of a handshake, before its cryptography is checked.
///
/// ```text
/// offset  0     1        2           5          8            40                n-32   n-16
///        +----+---------+-----------+----------+------------+-----------------+------+------+
///        |0xD2| suite   | receiver  | sender   | ephemeral  | sealed payload  | MAC1 | MAC2 |
///        | 1  | 1       | index 3   | index 3  | key 32     | 12.. + 16       | 16   | 16   |
///        +----+---------+-----------+----------+------------+-----------------+------+------+
///        |<------------ header ------------>|<----------- Noise ---------->|
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'a> {
    /// Data suite that the responder chose.
    pub suite: Suite,
    /// Initiator's session index, from its initiation.
    pub receiver: SessionIndex,
    /// Responder's index for the session.
    pub sender: SessionIndex,
    /// Bytes in front of the Noise message; they go into the transcript.
    pub header: &'a [u8],
    /// Noise message.
    pub noise: &'a [u8],
}

impl<'a> Response<'a> {
    /// Length of the header, in bytes.
    pub const HEADER: usize = RESPONSE_HEADER;
    /// Length with the payload of version 1, in bytes.
    pub const MIN: usize = Self::HEADER + RESPONSE_NOISE + 12 + MACS;
    /// Maximum length accepted, in bytes, because a response is never longer than the initiation.
    pub const MAX: usize = Initiation::MAX;

    /// Parses a datagram.
    /// Returns an error for a length out of bounds, another message, or an unknown suite.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::of(datagram, MessageType::Response)?;
        let number = reader.u8()?;
        let suite = Suite::from_wire(number).ok_or(ParseError::Version(number))?;
        let (receiver, sender) = (reader.index()?, reader.index()?);
        let (header, noise) = split(datagram, Self::HEADER, Self::MIN..=Self::MAX)?;
        Ok(Self { suite, receiver, sender, header, noise })
    }

    /// Returns the header of a response.
    pub fn header(suite: Suite, receiver: SessionIndex, sender: SessionIndex) -> [u8; RESPONSE_HEADER] {
        let ([a, b, c], [d, e, f]) = (receiver.to_be_bytes(), sender.to_be_bytes());
        // The header is sent in the clear, but it is part of the transcript.
        [MessageType::Response as u8, suite.to_wire(), a, b, c, d, e, f]
    }
}

/// Answer of a busy node to a handshake message: a cookie for its sender's address.
///
/// ```text
/// offset  0     1           4          28
///        +----+-----------+----------+----------------+
///        |0xD3| receiver  | nonce 24 | sealed cookie  |
///        | 1  | index 3   |          | 16+16          |
///        +----+-----------+----------+----------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CookieReply {
    /// Sender index of the answered message.
    pub receiver: SessionIndex,
    /// Nonce of XChaCha20-Poly1305.
    pub nonce: [u8; 24],
    /// Sealed cookie; the MAC1 of the answered message is its associated data.
    pub sealed: [u8; 32],
}

impl CookieReply {
    /// Length on the wire, in bytes: less than any message that it answers.
    pub const LEN: usize = 60;

    /// Parses a datagram.
    ///
    /// # Errors
    /// Returns [`ParseError::Length`] unless it has exactly [`Self::LEN`] bytes, and [`ParseError::Type`] for
    /// another message.
    pub fn parse(datagram: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::of(datagram, MessageType::CookieReply)?;
        let reply = Self { receiver: reader.index()?, nonce: *reader.array()?, sealed: *reader.array()? };
        reader.end()?;
        Ok(reply)
    }

    /// Appends the message to `out`.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(MessageType::CookieReply as u8);
        out.extend_from_slice(&self.receiver.to_be_bytes());
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.sealed);
    }
}

/// Answer to an authentic initiation whose timestamp is not newer than its sender's newest. It holds that
/// newest timestamp, so that a node whose clock has gone back can begin again with a newer one.
///
/// ```text
/// offset  0     1           4          28
///        +----+-----------+----------+--------------------+
///        |0xD8| receiver  | nonce 24 | sealed timestamp   |
///        | 1  | index 3   |          | 12+16              |
///        +----+-----------+----------+--------------------+
/// ```
///
/// [`Received::stale_reply`](crate::noise::Received::stale_reply) makes it and
/// [`Initiator::read_stale_reply`](crate::noise::Initiator::read_stale_reply) opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleReply {
    /// Sender index of the answered initiation.
    pub receiver: SessionIndex,
    /// Nonce of XChaCha20-Poly1305.
    pub nonce: [u8; 24],
    /// Sealed timestamp.
    pub sealed: [u8; 28],
}

impl StaleReply {
    /// Length on the wire, in bytes: less than any initiation.
    pub const LEN: usize = 56;

    /// Parses a datagram.
    ///
    /// # Errors
    /// Returns [`ParseError::Length`] unless it has exactly [`Self::LEN`] bytes, and [`ParseError::Type`] for
    /// another message.
    pub fn parse(datagram: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::of(datagram, MessageType::StaleReply)?;
        let reply = Self { receiver: reader.index()?, nonce: *reader.array()?, sealed: *reader.array()? };
        reader.end()?;
        Ok(reply)
    }

    /// Appends the message to `out`.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(MessageType::StaleReply as u8);
        out.extend_from_slice(&self.receiver.to_be_bytes());
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.sealed);
    }
}

/// Splits a handshake message without its MACs into header and Noise message.
fn split(
    datagram: &[u8],
    header: usize,
    len: std::ops::RangeInclusive<usize>,
) -> Result<(&[u8], &[u8]), ParseError> {
    // The lower bound keeps an answer from being longer than its question; the upper one bounds the work of a
    // forgery.
    if !len.contains(&datagram.len()) {
        return Err(ParseError::Length);
    }
    Ok(datagram[..datagram.len() - MACS].split_at(header))
}
