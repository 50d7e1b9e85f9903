//! The wire format: a greeting, then frames.
//!
//! ```text
//!  greeting  "psfiles" (7 bytes), version (1 byte)
//!  frame     kind (1 byte: 0 a message, 1 content), length (3 bytes, network order), the bytes
//! ```
//!
//! A message is [`FromSender`] or [`FromReceiver`] in postcard encoding, at most 16 KiB. Content is 1 to 256
//! KiB of a file. A frame that announces more is rejected before memory is allocated for it.

use std::io::{self, Read, Write};

use peersock_primitives::is_deceptive;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::{DATA_BYTES, MESSAGE_BYTES, REASON_BYTES};
use crate::manifest::Entry;

const MAGIC: &[u8; 7] = b"psfiles";

/// Version of the protocol after the greeting.
pub(crate) const VERSION: u8 = 3;

const MESSAGE: u8 = 0;
const CONTENT: u8 = 1;

pub(crate) type Hash = [u8; 32];

/// A message of a sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromSender {
    /// Start of the manifest; `entries` messages of [`Entry`](FromSender::Entry) follow.
    Manifest {
        /// Number of entries.
        entries: u32,
        /// Number of entries that the sender cannot send.
        left_out: u32,
    },
    /// The next entry of the manifest.
    Entry(Entry),
    /// The answer to the next comparison: the BLAKE3 hash of the first bytes of the sender's file. `None` if
    /// its length differs from the manifest.
    Hash(Option<Hash>),
    /// Content of a file follows.
    Begin {
        /// Number of the entry.
        index: u32,
        /// Offset in bytes, as requested.
        offset: u64,
    },
    /// The file is complete.
    End {
        /// BLAKE3 hash of the whole file.
        hash: Hash,
    },
    /// All requested files have been sent.
    Complete,
    /// The sender gives up.
    Failed {
        /// Reason, for people.
        reason: String,
        /// True if another attempt soon is worthwhile.
        again: bool,
    },
}

/// A message of a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromReceiver {
    /// A request for a hash: the receiver has a file of this length, or its beginning. It keeps its own hash
    /// to itself. Sent in the order of the entries, at most once per entry.
    Compare {
        /// Number of the entry.
        index: u32,
        /// Number of bytes to hash, from the beginning of the file.
        length: u64,
    },
    /// The end of the comparisons.
    Compared,
    /// A request for a file. Sent in the order of the entries.
    Want {
        /// Number of the entry.
        index: u32,
        /// Number of bytes that the receiver has, and that are identical.
        offset: u64,
    },
    /// The end of the requests.
    Wanted,
    /// Everything is verified and written.
    Received,
    /// The receiver requested only the manifest.
    Listed,
    /// The receiver gives up.
    Failed {
        /// Reason, for people. Contains no names of existing files.
        reason: String,
    },
    /// The receiver is occupied by another sender. Another attempt soon is worthwhile. Only a receiver that
    /// waits for members of its network says this, so it needs no other version.
    Busy,
}

macro_rules! messages {
    ($($message:ty),+) => {$(
        impl $message {
            /// Encodes the message as a frame.
            pub fn to_frame(&self) -> Vec<u8> {
                frame(self)
            }

            /// Decodes a frame, which must contain exactly this message.
            ///
            /// # Errors
            /// [`WireError`] if it does not.
            pub fn from_frame(mut frame: &[u8]) -> Result<$message, WireError> {
                let message = read_message(&mut frame)?;
                match frame {
                    [] => Ok(message),
                    _ => Err(WireError::Message),
                }
            }
        }
    )+};
}

messages!(FromSender, FromReceiver);

/// Error of received data that is not understood.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The stream has failed or ended.
    #[error("{0}")]
    Stream(#[from] io::Error),
    /// The other end is another program.
    #[error("the other end does not speak the protocol of `peersock send`")]
    Magic,
    /// The other end speaks another version.
    #[error("the other end speaks version {0} of the protocol, and this one version {VERSION}")]
    Version(u8),
    /// The kind of the frame is unknown.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// The announced length of a frame exceeds the limit.
    #[error("a frame of {0} bytes is too long")]
    Long(u32),
    /// A message cannot be decoded, or has trailing bytes.
    #[error("an invalid message")]
    Message,
    /// A frame arrived out of place.
    #[error("{0}")]
    Unexpected(&'static str),
}

/// Writes the greeting.
pub(crate) fn write_greeting(stream: &mut impl Write) -> io::Result<()> {
    stream.write_all(MAGIC)?;
    stream.write_all(&[VERSION])
}

/// Reads the greeting.
///
/// # Errors
/// [`WireError::Magic`], [`WireError::Version`], and errors of the stream.
pub fn read_greeting(stream: &mut impl Read) -> Result<(), WireError> {
    let mut greeting = [0; MAGIC.len() + 1];
    stream.read_exact(&mut greeting)?;
    let (magic, version) = greeting.split_at(MAGIC.len());
    match (magic == MAGIC, version[0]) {
        (false, _) => Err(WireError::Magic),
        (true, VERSION) => Ok(()),
        (true, other) => Err(WireError::Version(other)),
    }
}

/// A message of either end.
pub(crate) trait Message: Serialize + DeserializeOwned {}

impl Message for FromSender {}
impl Message for FromReceiver {}

pub(crate) fn write_message(stream: &mut impl Write, message: &impl Message) -> io::Result<()> {
    stream.write_all(&frame(message))
}

fn frame(message: &impl Message) -> Vec<u8> {
    let bytes = postcard::to_extend(message, vec![0; HEADER]).expect("memory is all that it needs");
    let mut bytes: Vec<u8> = bytes;
    let header = header(MESSAGE, bytes.len() - HEADER);
    bytes[..HEADER].copy_from_slice(&header);
    bytes
}

/// Number of header bytes before a frame's content.
pub(crate) const HEADER: usize = 4;

/// Writes 1 to [`DATA_BYTES`] bytes of content. They follow room for the header in `buffer`, so that one
/// write sends both.
pub(crate) fn write_content(stream: &mut impl Write, buffer: &mut [u8], length: usize) -> io::Result<()> {
    buffer[..HEADER].copy_from_slice(&header(CONTENT, length));
    stream.write_all(&buffer[..HEADER + length])
}

fn header(kind: u8, length: usize) -> [u8; HEADER] {
    let length = u32::try_from(length).expect("frames are short");
    (u32::from(kind) << 24 | length).to_be_bytes()
}

/// A frame from the sender.
pub(crate) enum Frame {
    Message(FromSender),
    /// Number of content bytes in the buffer.
    Content(usize),
}

/// Reads one frame; content goes to `buffer`, which has [`DATA_BYTES`] bytes.
pub(crate) fn read_frame(stream: &mut impl Read, buffer: &mut [u8]) -> Result<Frame, WireError> {
    match read_header(stream)? {
        (MESSAGE, length) => Ok(Frame::Message(read_body(stream, length)?)),
        (_, length) => {
            let length = length as usize;
            stream.read_exact(&mut buffer[..length])?;
            Ok(Frame::Content(length))
        }
    }
}

/// Reads one message.
pub(crate) fn read_message<M: Message>(stream: &mut impl Read) -> Result<M, WireError> {
    match read_header(stream)? {
        (MESSAGE, length) => read_body(stream, length),
        _ => Err(WireError::Unexpected("content where a message belongs")),
    }
}

/// Reads a header and returns the frame's kind and length, which are within the limits.
fn read_header(stream: &mut impl Read) -> Result<(u8, u32), WireError> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let [kind, ..] = header;
    let length = u32::from_be_bytes(header) & 0xff_ffff;
    let longest = match kind {
        MESSAGE => MESSAGE_BYTES,
        CONTENT => DATA_BYTES,
        other => return Err(WireError::Kind(other)),
    };
    match length as usize {
        0 => Err(WireError::Message),
        within if within <= longest => Ok((kind, length)),
        _ => Err(WireError::Long(length)),
    }
}

fn read_body<M: Message>(stream: &mut impl Read, length: u32) -> Result<M, WireError> {
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body)?;
    match postcard::take_from_bytes(&body) {
        Ok((message, [])) => Ok(message),
        _ => Err(WireError::Message),
    }
}

/// Returns a reason that is safe to show: bounded, without characters that control a terminal.
pub(crate) fn printable(reason: &str) -> String {
    let shown: String =
        reason.chars().map(|c| if is_deceptive(c) { char::REPLACEMENT_CHARACTER } else { c }).collect();
    let end = (0..=shown.len().min(REASON_BYTES)).rev().find(|end| shown.is_char_boundary(*end));
    shown[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_refused_before_anything_is_kept() {
        for (header, reads) in [
            ([0, 0, 0, 0], false),
            ([0, 0, 0x40, 1], false),
            ([1, 4, 0, 1], false),
            ([2, 0, 0, 1], false),
            ([1, 4, 0, 0], true),
            ([0, 0, 0x40, 0], true),
        ] {
            assert_eq!(read_header(&mut &header[..]).is_ok(), reads, "{header:?}");
        }
    }

    #[test]
    fn nothing_may_follow_a_message() {
        let mut frame = FromReceiver::Wanted.to_frame();
        frame[3] += 1;
        frame.push(0);
        assert!(matches!(FromReceiver::from_frame(&frame), Err(WireError::Message)));
    }

    #[test]
    fn bits_that_change_a_programs_user_are_refused() {
        let honest = postcard::to_extend(&0o777_u16, Vec::new()).unwrap();
        assert!(postcard::from_bytes::<crate::Permissions>(&honest).is_ok());
        let set_user_id = postcard::to_extend(&0o4755_u16, Vec::new()).unwrap();
        assert!(postcard::from_bytes::<crate::Permissions>(&set_user_id).is_err());
    }

    #[test]
    fn reasons_do_not_draw_on_terminals_and_are_short() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(printable("a\u{202e}b\u{2028}"), "a\u{fffd}b\u{fffd}");
        assert!(printable(&"é".repeat(4000)).len() <= REASON_BYTES);
    }

    #[test]
    fn other_programs_and_versions_are_told_apart() {
        let greet = |bytes: &[u8]| read_greeting(&mut &bytes[..]);
        assert!(greet(b"psfiles\x03").is_ok());
        assert!(matches!(greet(b"psfiles\x01"), Err(WireError::Version(1))));
        assert!(matches!(greet(b"GET / HT"), Err(WireError::Magic)));
        assert!(matches!(greet(b"psf"), Err(WireError::Stream(_))));
    }
}
