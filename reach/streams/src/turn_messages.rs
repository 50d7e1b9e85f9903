//! Messages of TURN in a stream of bytes (RFC 8656, 12.5; RFC 8489, 6.2.2).
//!
//! Messages follow each other directly; each has its length in the third and fourth byte. A STUN message's
//! length counts the bytes after its header of 20. A ChannelData frame's length counts the bytes after its
//! header of 4, which are padded to a multiple of four. A server's first message is STUN, because channels
//! need a request. So an HTTP server's answer, whose first letter looks like a channel, is detected.

use std::error::Error;
use std::fmt;

/// Bytes that every message begins with: its type or channel, and its length.
const HEADER: usize = 4;

/// The length of a STUN header.
const STUN_HEADER: usize = 20;

/// Bytes after the length of every STUN message (RFC 8489, 5).
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Error: neither a STUN message nor a ChannelData frame has arrived, so the other end is no TURN server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotTurn;

impl fmt::Display for NotTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("what arrives is no message of a TURN server")
    }
}

impl Error for NotTurn {}

/// Finds the messages of a TURN server in a stream of bytes, regardless of how TCP cuts it.
///
/// It keeps at most one incomplete message, which is less than 65,560 bytes long.
#[derive(Debug, Default)]
pub struct TurnReader {
    /// The beginning of a message.
    partial: Vec<u8>,
    /// Set once a STUN message has arrived.
    is_turn: bool,
}

impl TurnReader {
    /// Calls `message` with each message that `bytes` completes, in order. ChannelData keeps its padding.
    ///
    /// # Errors
    /// If something else arrives. The stream is unusable then, because the beginning of the next message is
    /// unknown.
    pub fn read(&mut self, mut bytes: &[u8], mut message: impl FnMut(&[u8])) -> Result<(), NotTurn> {
        while !self.partial.is_empty() {
            let wanted = self.length(&self.partial)?.unwrap_or(HEADER);
            let (taken, rest) = bytes.split_at(bytes.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(taken);
            bytes = rest;
            // Refuse an invalid message as soon as it is recognised, whatever length it claims.
            let whole = self.length(&self.partial)?;
            if self.partial.len() < wanted {
                return Ok(());
            }
            if whole == Some(self.partial.len()) {
                self.is_turn = true;
                message(&self.partial);
                // An idle connection keeps no memory for messages.
                self.partial = Vec::new();
            }
        }
        while let Some(whole) = self.length(bytes)? {
            let Some((one, next)) = bytes.split_at_checked(whole) else { break };
            self.is_turn = true;
            message(one);
            bytes = next;
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// Returns the number of bytes of the incomplete message.
    pub fn pending(&self) -> usize {
        self.partial.len()
    }

    /// Returns the total length of the message that begins there; `None` if its header is incomplete.
    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, NotTurn> {
        // RFC 8656 (12): channels are 0x4000 to 0x4fff.
        let end = if self.is_turn { 0x50 } else { 0x40 };
        if bytes.first().is_some_and(|first| *first >= end) {
            return Err(NotTurn);
        }
        let Some(&[first, _, high, low]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if first >= 0x40 {
            return Ok(Some(HEADER + length.next_multiple_of(4)));
        }
        // RFC 8489 (5): the type begins with two zero bits, and the length is a multiple of 4 because
        // attributes are padded.
        let cookie = &bytes[HEADER..bytes.len().min(HEADER + MAGIC_COOKIE.len())];
        let is_stun = length % 4 == 0 && MAGIC_COOKIE.starts_with(cookie);
        is_stun.then_some(Some(STUN_HEADER + length)).ok_or(NotTurn)
    }
}

/// Appends a message. Pads ChannelData.
pub(crate) fn write(message: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(message);
    // RFC 8656 (12.5): over a stream the padding is mandatory. STUN messages already have such a length.
    out.resize(out.len() + message.len().next_multiple_of(4) - message.len(), 0);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn channel_data(data: &[u8]) -> Vec<u8> {
        [&[0x40, 1], &(data.len() as u16).to_be_bytes()[..], data].concat()
    }

    fn stun(attributes: &[u8]) -> Vec<u8> {
        let length = (attributes.len() as u16).to_be_bytes();
        [&[1, 3], &length[..], &MAGIC_COOKIE, &[7; 12], attributes].concat()
    }

    proptest! {
        #[test]
        fn messages_survive_any_cuts(
            contents in vec((any::<bool>(), vec(any::<u8>(), 0..100)), 0..20),
            cuts in vec(1usize..150, 1..40),
        ) {
            let message = |(is_stun, data): &(bool, Vec<u8>)| {
                if *is_stun { stun(&data.repeat(4)) } else { channel_data(data) }
            };
            let messages: Vec<_> = [stun(&[])].into_iter().chain(contents.iter().map(message)).collect();
            let mut stream = Vec::new();
            messages.iter().for_each(|message| write(message, &mut stream));
            let (mut reader, mut read, mut rest) = (TurnReader::default(), Vec::new(), &stream[..]);
            for cut in cuts.into_iter().cycle() {
                let (chunk, next) = rest.split_at(cut.min(rest.len()));
                reader.read(chunk, |message| read.push(message.to_vec())).expect("they are messages");
                rest = next;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(read.len(), messages.len());
            for (read, message) in read.iter().zip(&messages) {
                prop_assert_eq!(&read[..message.len()], &message[..]);
                prop_assert!(read.len() % 4 == 0 && read[message.len()..].iter().all(|byte| *byte == 0));
            }
            prop_assert_eq!(reader.pending(), 0);
        }

        #[test]
        fn whatever_arrives_is_bounded(chunks in vec(vec(any::<u8>(), 0..5000), 0..60)) {
            let mut reader = TurnReader::default();
            for chunk in chunks {
                if reader.read(&chunk, |_| ()).is_err() {
                    break;
                }
                prop_assert!(reader.pending() < STUN_HEADER + 65_540);
            }
        }
    }

    #[test]
    fn garbage_is_refused_at_its_first_wrong_byte_whatever_length_it_has() {
        let cases: [(&[u8], usize); 5] = [
            (b"SSH-2.0", 1),
            (b"HTTP/1.1 400 Bad Request", 1),
            (b"\x50\x00\x00\x00", 1),
            (b"\x01\x01\x00\x03", 4),
            (b"\x01\x01\xff\xfc\x21\x13", 6),
        ];
        for (bytes, bad) in cases {
            let mut reader = TurnReader::default();
            for (at, byte) in bytes.iter().enumerate().take(bad) {
                let read = reader.read(&[*byte], |_| panic!("no message"));
                assert_eq!(read.is_err(), at + 1 == bad, "{bytes:?} at {at}");
            }
            assert_eq!(TurnReader::default().read(bytes, |_| panic!("no message")), Err(NotTurn));
        }
    }
}
