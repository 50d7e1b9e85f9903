//! Urgent data (RFC 9293 3.8.5), in line as RFC 6093 advises: a mark in the stream that is told of before it
//! is reached.

use std::time::Instant;

use super::Flow;
use crate::Error;

impl Flow {
    /// As [`write`](Self::write), and tells the peer that what is queued is urgent up to the last byte of
    /// this: `send` with MSG_OOB.
    ///
    /// The peer is told at once, even while its window is closed. It stays one stream: nothing overtakes what
    /// was written before. If more urgent data follows before the peer has read this, the mark moves. For new
    /// protocols RFC 6093 advises against it.
    ///
    /// # Errors
    /// As [`write`](Self::write). If not all of `data` fits, the last byte that does is the urgent one.
    pub fn write_urgent(&self, now: Instant, data: &[u8]) -> Result<usize, Error> {
        self.write_with(now, data.len(), |connection| connection.write_urgent(data))
    }

    /// How many bytes are to be read up to the last urgent one, which is included; 0 if there is nothing
    /// urgent.
    ///
    /// It may be more than has arrived, and is what the peer says: up to 65,535 bytes more than it has sent.
    /// While it is not 0, [`Ready::URGENT`](crate::Ready::URGENT) is set.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # use peersock_stack::*;
    /// # let now = Instant::now();
    /// # let stack = Stack::new(Config::default(), [7; 32], now);
    /// # let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse()?]));
    /// let flow = stack.tcp_connect(now, net, None, "10.0.0.2:80".parse()?, TcpOptions::default())?;
    /// assert_eq!((flow.urgent_left(), flow.is_at_mark()), (0, false));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn urgent_left(&self) -> usize {
        usize::try_from(self.lock().urgent_left()).unwrap_or(usize::MAX)
    }

    /// Whether the next byte to be read is the last urgent one: `sockatmark`, SIOCATMARK with SO_OOBINLINE. A
    /// read that begins before it ends there.
    pub fn is_at_mark(&self) -> bool {
        self.lock().urgent_left() == 1
    }
}
