//! Incoming messages.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

/// A datagram, or a piece of a stream, and its sender. Cheap to clone; it dereferences to its bytes.
///
/// ```
/// use peersock_pipe::Message;
///
/// let message = Message::new(*b"hello", ([127, 0, 0, 1], 7).into());
/// assert_eq!(&message[..], b"hello");
/// assert_eq!(message.from().port(), 7);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    data: Arc<Vec<u8>>,
    from: SocketAddr,
}

impl Message {
    /// Makes a message from a sender.
    pub fn new(data: impl Into<Vec<u8>>, from: SocketAddr) -> Message {
        Message { data: Arc::new(data.into()), from }
    }

    /// Returns the sender; for a stream, the other end.
    pub fn from(&self) -> SocketAddr {
        self.from
    }

    /// Returns the bytes.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Returns the bytes as a vector, copied if the message is shared.
    pub fn into_vec(self) -> Vec<u8> {
        Arc::unwrap_or_clone(self.data)
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.data
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl fmt::Debug for Message {
    /// Writes neither the bytes nor the address, because messages end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("bytes", &self.data.len()).finish_non_exhaustive()
    }
}
