//! Datagrams in a stream of bytes.
//!
//! ```text
//!  0                   1
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
//! +-------------------------------+----------------+
//! |       length, big endian      |    datagram    |  and so on
//! +-------------------------------+----------------+
//! ```
//!
//! A length of 0 is a keepalive. A client's first frame is a keepalive, so the first byte of a connection is
//! 0. A listener can thereby distinguish it from a TLS record (0x16) and from HTTP (a letter).

use std::error::Error;
use std::fmt;

/// The longest datagram that a stream carries, in bytes.
///
/// It is longer than any UDP datagram on a network with frames of 9,000 bytes, and short enough that a
/// stranger makes a listener keep little. Its length never begins with the letter of an HTTP method (0x41 to
/// 0x5a).
pub const MAX_DATAGRAM: usize = 16_384;

/// Bytes in front of each datagram.
pub(crate) const HEADER: usize = 2;

/// Error: a frame claims to be longer than [`MAX_DATAGRAM`], so the other end does not speak this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameTooLong(
    /// The length that the frame claims, in bytes.
    pub usize,
);

impl fmt::Display for FrameTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a frame of {} bytes; at most {MAX_DATAGRAM} are allowed", self.0)
    }
}

impl Error for FrameTooLong {}

/// Finds the frames in a stream of bytes, regardless of how TCP cuts it. Keeps at most one incomplete frame.
///
/// ```
/// use peersock_streams::FrameReader;
///
/// let mut reader = FrameReader::default();
/// let mut frames = Vec::new();
/// reader.read(&[0, 0, 0, 3, b'a'], |frame| frames.push(frame.to_vec()))?;
/// reader.read(b"bc", |frame| frames.push(frame.to_vec()))?;
/// assert_eq!(frames, [b"".to_vec(), b"abc".to_vec()]);
/// # Ok::<(), peersock_streams::FrameTooLong>(())
/// ```
#[derive(Debug, Default)]
pub struct FrameReader {
    /// The beginning of a frame, with its length.
    partial: Vec<u8>,
}

impl FrameReader {
    /// Calls `frame` with each frame that `bytes` completes, in order.
    ///
    /// # Errors
    /// If a frame is too long. The stream is unusable then, because the beginning of the next frame is
    /// unknown.
    pub fn read(&mut self, mut bytes: &[u8], mut frame: impl FnMut(&[u8])) -> Result<(), FrameTooLong> {
        while !self.partial.is_empty() {
            let wanted = match self.partial.first_chunk() {
                Some(header) => HEADER + length(*header)?,
                None => HEADER,
            };
            let taken = bytes.len().min(wanted - self.partial.len());
            self.partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.partial.len() < wanted {
                return Ok(());
            }
            // Only the complete header tells the frame's length.
            if let Some(header) = self.partial.first_chunk()
                && self.partial.len() == HEADER + length(*header)?
            {
                frame(&self.partial[HEADER..]);
                // An idle connection keeps no memory for frames.
                self.partial = Vec::new();
            }
        }
        while let Some((header, rest)) = bytes.split_first_chunk() {
            let Some((datagram, next)) = rest.split_at_checked(length(*header)?) else { break };
            frame(datagram);
            bytes = next;
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// Returns the number of bytes of the incomplete frame.
    pub fn pending(&self) -> usize {
        self.partial.len()
    }
}

/// Appends a datagram after its length. It must not be longer than [`MAX_DATAGRAM`].
pub(crate) fn write(datagram: &[u8], out: &mut Vec<u8>) {
    debug_assert!(datagram.len() <= MAX_DATAGRAM, "the queue takes none that is longer");
    out.extend_from_slice(&(datagram.len() as u16).to_be_bytes());
    out.extend_from_slice(datagram);
}

fn length(header: [u8; HEADER]) -> Result<usize, FrameTooLong> {
    let length = usize::from(u16::from_be_bytes(header));
    if length <= MAX_DATAGRAM { Ok(length) } else { Err(FrameTooLong(length)) }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_survive_any_cuts(
            datagrams in vec(vec(any::<u8>(), 0..400), 0..20),
            cuts in vec(1usize..700, 1..40),
        ) {
            let mut stream = Vec::new();
            datagrams.iter().for_each(|datagram| write(datagram, &mut stream));
            let (mut reader, mut read, mut rest) = (FrameReader::default(), Vec::new(), &stream[..]);
            for cut in cuts.into_iter().cycle() {
                let (chunk, next) = rest.split_at(cut.min(rest.len()));
                reader.read(chunk, |frame| read.push(frame.to_vec())).expect("no frame is too long");
                rest = next;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(read, datagrams);
            prop_assert_eq!(reader.pending(), 0);
        }
    }

    #[test]
    fn frames_that_are_too_long_are_refused_before_they_are_kept() {
        for cut in 0..=2 {
            let bytes = (MAX_DATAGRAM as u16 + 1).to_be_bytes();
            let mut reader = FrameReader::default();
            let first = reader.read(&bytes[..cut], |_| panic!("no frame"));
            let second = reader.read(&bytes[cut..], |_| panic!("no frame"));
            let refused = [first, second].contains(&Err(FrameTooLong(MAX_DATAGRAM + 1)));
            assert!(refused, "cut after {cut}");
            assert!(reader.pending() <= HEADER);
        }
    }

    #[test]
    fn the_longest_frame_is_taken() {
        let mut frames = 0;
        let mut reader = FrameReader::default();
        let mut stream = Vec::new();
        write(&[7; MAX_DATAGRAM], &mut stream);
        for byte in stream {
            reader.read(&[byte], |frame| frames += usize::from(frame == [7; MAX_DATAGRAM])).expect("allowed");
        }
        assert_eq!(frames, 1);
    }

    #[test]
    fn no_length_begins_like_http_or_tls_client_hello() {
        // The first frame is a keepalive, so the first byte of a connection is 0.
        let mut out = Vec::new();
        write(&[], &mut out);
        assert_eq!(out, [0, 0]);
        assert!((MAX_DATAGRAM >> 8) < usize::from(b'A'));
    }
}
