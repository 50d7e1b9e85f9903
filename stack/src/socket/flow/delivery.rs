//! Delivery of the bytes written to a connection.

use std::sync::Arc;

use super::{Flow, Inner};
use crate::{Error, Stack, State};

/// State of the bytes written to a connection, see [`Flow::delivery`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// The handshake, data, or the end waits for an acknowledgement.
    Pending,
    /// The peer has acknowledged everything so far; after [`Flow::shutdown_write`] or [`Flow::close`], also
    /// the end.
    Done,
    /// The connection has ended otherwise, and the peer's application has not received everything.
    Lost(Loss),
}

/// Undelivered data at the end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// Error that ended the connection.
    pub error: Error,
    /// Bytes that the peer has not acknowledged. Even 0 does not mean that the peer's application read
    /// everything, because a peer that closes with unread data resets the connection. A peer with this stack
    /// says in the reset if its application had read everything; that is no loss.
    pub unacked: u64,
}

impl Flow {
    /// Returns the state of everything written, as far as TCP can tell. After [`close`](Self::close), a
    /// result other than [`Delivery::Pending`] is final, with one exception. In FIN-WAIT-2 the peer has
    /// acknowledged the end and not sent its own; its reset still turns [`Delivery::Done`] into a loss.
    ///
    /// There is no loss if nothing was written, or if the application has requested a reset
    /// ([`set_reset_on_close`](Self::set_reset_on_close)).
    ///
    /// ```
    /// # use std::time::Instant;
    /// # use peersock_stack::*;
    /// # let now = Instant::now();
    /// # let stack = Stack::new(Config::default(), [7; 32], now);
    /// # let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse()?]));
    /// let flow = stack.tcp_connect(now, net, None, "10.0.0.2:80".parse()?, TcpOptions::default())?;
    /// assert_eq!(flow.delivery(), Delivery::Pending);
    /// flow.close(now);
    /// assert_eq!(flow.delivery(), Delivery::Done, "nothing was written");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delivery(&self) -> Delivery {
        let mut inner = self.lock();
        if let Some(loss) = inner.loss() {
            return Delivery::Lost(loss);
        }
        let waits = match inner.state() {
            State::SynSent | State::SynReceived | State::FinWait1 | State::Closing | State::LastAck => true,
            State::Established | State::CloseWait => {
                inner.live().is_some_and(|connection| connection.unacked() > 0)
            }
            // The peer has acknowledged the FIN, and with it everything before, or the loss above says
            // otherwise.
            State::FinWait2 | State::TimeWait | State::Closed => false,
        };
        if waits { Delivery::Pending } else { Delivery::Done }
    }
}

impl Inner {
    pub(super) fn loss(&self) -> Option<Loss> {
        self.cold.as_ref().and_then(|cold| cold.loss)
    }

    /// Records a loss after the peer's reset, unless the reset says that everything was read.
    pub(super) fn lose_to_reset(&mut self, error: Error) {
        // An acknowledgement shows only that the peer's stack has the data, and a reset discards what its
        // program has not read.
        let short = |connection: &crate::tcp::Connection| connection.has_written() && !connection.was_read();
        if self.connection.as_ref().is_some_and(|connection| short(connection)) {
            self.lose(error);
        }
    }

    /// Returns true if both ends have nothing outstanding: the peer has ended its direction, and no data of
    /// this end waits for an acknowledgement.
    pub(super) fn has_told_all(&self) -> bool {
        self.ended && self.connection.as_ref().is_some_and(|connection| connection.unacked() == 0)
    }

    /// Records a loss because the peer is unreachable, unless it has acknowledged the end.
    pub(super) fn lose_to_silence(&mut self, error: Error) {
        // An acknowledged FIN covers all data before it.
        let short = |connection: &crate::tcp::Connection| connection.has_written() && !connection.end_acked();
        if self.connection.as_ref().is_some_and(|connection| short(connection)) {
            self.lose(error);
        }
    }

    /// Records a loss because this end resets the connection.
    pub(super) fn lose_to_own_reset(&mut self) {
        let unacked = self.connection.as_ref().is_some_and(|connection| connection.unacked() > 0);
        // An application that requests a reset accepts the loss.
        if unacked && !self.reset_on_close {
            self.lose(Error::ConnectionAborted);
        }
    }

    /// Records a loss because memory is too short to wait for the peer.
    pub(super) fn lose_to_shortage(&mut self) {
        self.lose(Error::OutOfMemory);
    }

    fn lose(&mut self, error: Error) {
        let unacked = self.connection.as_ref().map_or(0, |connection| connection.unacked() as u64);
        self.cold().loss = Some(Loss { error, unacked });
    }
}

impl Stack {
    /// Returns all connections, including those that are closing.
    pub fn all_flows(&self) -> Vec<Arc<Flow>> {
        self.shared.flows.filter(|_| true)
    }

    /// Returns the connections that wait for acknowledgements of data. Visits every flow.
    pub fn waiting_flows(&self) -> Vec<Arc<Flow>> {
        // Filtered outside the table's locks, because no flow may be locked under them.
        let mut waiting = self.all_flows();
        waiting.retain(|flow| flow.delivery() == Delivery::Pending && flow.unacked() > 0);
        waiting
    }

    /// Returns the number of connections that wait for acknowledgements of data, and the number of bytes.
    /// Visits every flow.
    pub fn undelivered(&self) -> (u64, u64) {
        let waiting = self.waiting_flows();
        (waiting.len() as u64, waiting.iter().map(|flow| flow.unacked() as u64).sum())
    }
}
