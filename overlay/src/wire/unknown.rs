use super::{DATA_OVERHEAD, MessageType, ParseError, Reader, SessionIndex};

/// Answer to a data packet of an unknown session, for example after a restart.
///
/// ```text
/// offset  0     1         4           12
///        +----+---------+-----------+---------------------------------+
///        |0xD7| index 3 | counter 8 | the next 16 bytes of the packet |
///        +----+---------+-----------+---------------------------------+
/// ```
///
/// It is the first 28 bytes of that packet with another type, so it is never longer than the packet. Anyone
/// can forge it, so it is only a reason to try a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownSession {
    /// The index that the packet had.
    pub index: SessionIndex,
    /// The counter that the packet had.
    pub counter: u64,
    /// The first 16 bytes behind the packet's header.
    pub echo: [u8; 16],
}

impl UnknownSession {
    /// Length on the wire, in bytes: that of the shortest data packet.
    pub const LEN: usize = DATA_OVERHEAD;

    /// Reads a datagram.
    ///
    /// # Errors
    /// Returns [`ParseError::Length`] unless it has exactly [`Self::LEN`] bytes, and [`ParseError::Type`] for
    /// another message.
    pub fn parse(datagram: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::of(datagram, MessageType::UnknownSession)?;
        let message = Self { index: reader.index()?, counter: reader.u64()?, echo: *reader.array()? };
        reader.end()?;
        Ok(message)
    }

    /// Appends the answer to `packet` to `out`; `false` if that is no data packet.
    pub fn answer(packet: &[u8], out: &mut Vec<u8>) -> bool {
        match packet.get(..Self::LEN) {
            Some(head) if head[0] == MessageType::Data as u8 => {
                out.push(MessageType::UnknownSession as u8);
                // The echo shows that the sender saw the packet. It is no longer than the packet, so a forged
                // source gains nothing.
                out.extend_from_slice(&head[1..]);
                true
            }
            _ => false,
        }
    }
}
