//! Connections without state until the cookie in their sequence number returns (RFC 4987 3.6).

use std::net::SocketAddr;

use super::{Connection, Settings, own_mss};
use crate::State;
use crate::host::clock::Time;
use crate::tcp::options::Options;
use crate::tcp::segment::Outgoing;
use crate::tcp::sequence;

impl Connection {
    /// Creates a connection whose SYN was answered with a cookie; the acknowledgement is processed next.
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
        // The SYN-ACK was sent with a known window but at an unknown time. Two tries prevent a round-trip
        // time sample.
        connection.receiver.offer_in_syn();
        connection.syn.tries = 2;
        connection
    }

    /// Returns the initial sequence numbers, ours and the peer's, of another answer to the same SYN, if `ack`
    /// acknowledges that one.
    pub(crate) fn other_answer(&self, ack: u32) -> Option<(u32, u32)> {
        let isn = ack.wrapping_sub(1);
        (self.state == State::SynReceived && isn != self.isn).then_some((isn, self.irs))
    }

    /// Becomes the connection that an earlier answer to the same SYN promised, with a cookie as its number.
    pub(crate) fn become_cookies(
        &mut self,
        now: Time,
        addresses: (SocketAddr, SocketAddr),
        isn: u32,
        mss: u16,
    ) {
        *self = Self::from_cookie(self.settings.clone(), now, addresses, (isn, self.irs), mss);
    }

    /// Writes the SYN-ACK that carries a cookie; returns the packet's length. It offers the window of a new
    /// connection.
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
