//! Urgent data (RFC 9293 3.8.5), in line as RFC 6093 advises: a mark in the stream that is announced in
//! advance.

use std::time::Instant;

use super::Flow;
use crate::Error;

impl Flow {
    /// Writes as [`write`](Self::write) does, and announces to the peer that the queue is urgent up to the
    /// last byte of `data`: `send` with MSG_OOB.
    ///
    /// The announcement is sent at once, even while the peer's window is closed. The data stays in the stream
    /// and does not overtake earlier data. If more urgent data follows before the peer has read this, the
    /// mark moves. RFC 6093 advises against urgent data in new protocols.
    ///
    /// # Errors
    /// Fails as [`write`](Self::write) does. If only a part of `data` fits, the last byte that fits is the
    /// urgent one.
    pub fn write_urgent(&self, now: Instant, data: &[u8]) -> Result<usize, Error> {
        self.write_with(now, data.len(), |connection| connection.write_urgent(data))
    }

    /// Returns the number of unread bytes up to and including the last urgent one; 0 if nothing is urgent.
    ///
    /// The number may exceed the data that has arrived, and comes from the peer: up to 65,535 bytes more than
    /// it has sent. While it is not 0, [`Ready::URGENT`](crate::Ready::URGENT) is set.
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

    /// Returns true if the next byte to be read is the last urgent one: `sockatmark`, SIOCATMARK with
    /// SO_OOBINLINE. A read that begins before this byte ends there.
    pub fn is_at_mark(&self) -> bool {
        self.lock().urgent_left() == 1
    }
}
