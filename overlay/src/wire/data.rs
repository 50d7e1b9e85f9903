use super::{MessageType, ParseError, Reader, SessionIndex};
use crate::crypto::TAG;

/// Number of bytes in front of the ciphertext of a data packet.
pub const DATA_HEADER: usize = 12;
/// Number of bytes that a data packet adds to its plaintext: header and tag.
pub const DATA_OVERHEAD: usize = DATA_HEADER + TAG;

/// A sealed packet.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |     0xD4      |          index of the receiver's session      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                            counter                            |
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    ciphertext, then 16 bytes of tag           |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<'a> {
    /// Index of the receiver's session.
    pub receiver: SessionIndex,
    /// Number of the packet in that session, which makes the nonce.
    pub counter: u64,
    /// Ciphertext and tag, at least 16 bytes.
    pub sealed: &'a [u8],
}

impl<'a> Data<'a> {
    /// Parses a datagram.
    /// Returns [`ParseError::Length`] under 28 bytes, and [`ParseError::Type`] for another message.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::of(datagram, MessageType::Data)?;
        let (receiver, counter) = (reader.index()?, reader.u64()?);
        // A datagram without a whole tag cannot be authentic, and the ciphers expect one.
        if reader.0.len() < DATA_OVERHEAD - DATA_HEADER {
            return Err(ParseError::Length);
        }
        Ok(Self { receiver, counter, sealed: reader.0 })
    }

    /// Writes the 12 bytes in front of the ciphertext.
    ///
    /// # Panics
    /// Panics if `datagram` is shorter than that.
    pub fn write_header(datagram: &mut [u8], receiver: SessionIndex, counter: u64) {
        datagram[0] = MessageType::Data as u8;
        datagram[1..4].copy_from_slice(&receiver.to_be_bytes());
        datagram[4..DATA_HEADER].copy_from_slice(&counter.to_be_bytes());
    }
}
