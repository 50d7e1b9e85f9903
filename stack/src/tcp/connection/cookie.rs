//! Connections of which nothing is kept until the cookie in their sequence number comes back (RFC 4987 3.6).

use std::net::SocketAddr;

use super::{Connection, Settings, own_mss};
use crate::State;
use crate::host::clock::Time;
use crate::tcp::options::Options;
use crate::tcp::segment::Outgoing;
use crate::tcp::sequence;

impl Connection {
    /// A connection whose SYN has come and was answered with a cookie; the acknowledgement is about to be
    /// processed.
    pub(crate) fn from_cookie(
        settings: Settings,
        now: Time,
        addresses: (SocketAddr, SocketAddr),
        (isn, irs): (u32, u32),
        mss: u16,
    ) -> Self {
        let mut connection = Self::new(settings, now, addresses, isn);
        connection.irs = irs;
        connection.peer_mss = mss;
        connection.timestamps = None;
        connection.state = State::SynReceived;
        // The answer has left: with which window is known, when is not.
        connection.receiver.offer_in_syn();
        connection.syn.tries = 2;
        connection
    }

    /// If the peer acknowledges another answer to its SYN than this connection's: the initial sequence
    /// numbers of that one, ours and the peer's.
    pub(crate) fn other_answer(&self, ack: u32) -> Option<(u32, u32)> {
        let isn = ack.wrapping_sub(1);
        (self.state == State::SynReceived && isn != self.isn).then_some((isn, self.irs))
    }

    /// Becomes the connection that an earlier answer to the same SYN has promised, with a cookie as its
    /// number.
    pub(crate) fn become_cookies(
        &mut self,
        now: Time,
        addresses: (SocketAddr, SocketAddr),
        isn: u32,
        mss: u16,
    ) {
        *self = Self::from_cookie(self.settings.clone(), now, addresses, (isn, self.irs), mss);
    }

    /// Writes the SYN-ACK that carries a cookie; gives the packet's length. It offers the window that a new
    /// connection has.
    pub(crate) fn write_cookie(
        (local, remote): (SocketAddr, SocketAddr),
        isn: u32,
        irs: u32,
        (settings, checksums): (&Settings, bool),
        buf: &mut [u8],
    ) -> usize {
        let mss = own_mss(local, settings.max_segment);
        let options = Options { mss: Some(mss), ..Options::default() };
        let ack = Some(sequence::wire(irs, 1));
        let (marking, window) = (settings.marking, settings.receiver(Time::ZERO).offer_in_syn());
        let answer = Outgoing { seq: isn, ack, syn: true, window, options, marking, ..Outgoing::default() };
        answer.write_alone(buf, (local, remote), checksums)
    }
}
