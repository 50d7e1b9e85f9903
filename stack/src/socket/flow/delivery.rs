//! What becomes of the bytes that were written to a connection.

use std::sync::Arc;

use super::{Flow, Inner};
use crate::{Error, Stack, State};

/// What has become of the bytes that were written to a connection, see [`Flow::delivery`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// Something waits for an acknowledgement: the handshake, data, or the end.
    Pending,
    /// The peer has acknowledged everything so far; after [`Flow::shutdown_write`] or [`Flow::close`], the
    /// end too.
    Done,
    /// The connection has ended otherwise, and the peer's application has not had everything.
    Lost(Loss),
}

/// What a connection has not delivered when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// What ended it.
    pub error: Error,
    /// Bytes that the peer has not acknowledged. 0 does not mean that the peer's application had read the
    /// others: a peer that closes with data unread resets the connection. Peers with this stack say in the
    /// reset if it had; that is no loss.
    pub unacked: u64,
}

impl Flow {
    /// Whether everything that was written has arrived, as far as TCP can tell. An answer other than
    /// [`Delivery::Pending`] stays the same once the flow is [closed](Self::close), with one exception: a
    /// peer that has acknowledged the end and not sent its own (FIN-WAIT-2) can still reset the connection,
    /// which makes a loss of
    /// [`Delivery::Done`].
    ///
    /// It is no loss if nothing was written, or if the application has asked for a reset
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
            State::FinWait2 | State::TimeWait | State::Closed => false,
        };
        if waits { Delivery::Pending } else { Delivery::Done }
    }
}

impl Inner {
    pub(super) fn loss(&self) -> Option<Loss> {
        self.cold.as_ref().and_then(|cold| cold.loss)
    }

    /// The peer has reset the connection: it has not read what came, or not all of it, unless it says so.
    pub(super) fn lose_to_reset(&mut self, error: Error) {
        let short = |connection: &crate::tcp::Connection| connection.has_written() && !connection.was_read();
        if self.connection.as_ref().is_some_and(|connection| short(connection)) {
            self.lose(error);
        }
    }

    /// Whether both ends have said all they will say so far, and have acknowledged it: the peer has ended its
    /// direction, and no data of this end waits for an acknowledgement.
    pub(super) fn has_told_all(&self) -> bool {
        self.ended && self.connection.as_ref().is_some_and(|connection| connection.unacked() == 0)
    }

    /// The peer is out of reach: what it has acknowledged to the end it has had.
    pub(super) fn lose_to_silence(&mut self, error: Error) {
        let short = |connection: &crate::tcp::Connection| connection.has_written() && !connection.end_acked();
        if self.connection.as_ref().is_some_and(|connection| short(connection)) {
            self.lose(error);
        }
    }

    /// This end resets the connection.
    pub(super) fn lose_to_own_reset(&mut self) {
        let unacked = self.connection.as_ref().is_some_and(|connection| connection.unacked() > 0);
        // Whoever asks for a reset has asked for the loss.
        if unacked && !self.reset_on_close {
            self.lose(Error::ConnectionAborted);
        }
    }

    /// There is no memory to wait for the peer any longer.
    pub(super) fn lose_to_shortage(&mut self) {
        self.lose(Error::OutOfMemory);
    }

    fn lose(&mut self, error: Error) {
        let unacked = self.connection.as_ref().map_or(0, |connection| connection.unacked() as u64);
        self.cold().loss = Some(Loss { error, unacked });
    }
}

impl Stack {
    /// All connections, also those that are not closed to the end yet.
    pub fn all_flows(&self) -> Vec<Arc<Flow>> {
        self.shared.flows.filter(|_| true)
    }

    /// The standing connections that wait for acknowledgements of data. Looks at every flow.
    pub fn waiting_flows(&self) -> Vec<Arc<Flow>> {
        // Outside of the table's locks, under which no flow may be locked.
        let mut waiting = self.all_flows();
        waiting.retain(|flow| flow.delivery() == Delivery::Pending && flow.unacked() > 0);
        waiting
    }

    /// How many standing connections wait for acknowledgements of data, and of how many bytes. Looks at every
    /// flow.
    pub fn undelivered(&self) -> (u64, u64) {
        let waiting = self.waiting_flows();
        (waiting.len() as u64, waiting.iter().map(|flow| flow.unacked() as u64).sum())
    }
}
