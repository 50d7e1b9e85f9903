//! Connections of which nothing is kept until the cookie in their sequence number comes back (RFC 4987 3.6).

use std::net::SocketAddr;

use super::{Connection, Settings};
use crate::State;
use crate::clock::Time;
use crate::ip::MAX_PACKET;
use crate::tcp::options::Options;
use crate::tcp::segment::Outgoing;
use crate::tcp::sequence;

impl Connection {
    /// A connection whose SYN has come and was answered with a cookie; the acknowledgement is about to be processed.
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
        connection.receiver.offer(0);
        connection.syn.tries = 2;
        connection
    }

    /// Writes the SYN-ACK that carries a cookie; gives the packet's length.
    pub(crate) fn write_cookie(
        (local, remote): (SocketAddr, SocketAddr),
        isn: u32,
        irs: u32,
        checksums: bool,
        buf: &mut [u8],
    ) -> usize {
        let header_len = if local.is_ipv4() { 40 } else { 60 };
        let options = Options { mss: Some((MAX_PACKET - header_len) as u16), ..Options::default() };
        let ack = Some(sequence::wire(irs, 1));
        let answer = Outgoing { seq: isn, ack, syn: true, window: u16::MAX, options, ..Outgoing::default() };
        let length = answer.write(buf, (local, remote), 0).unwrap_or(0);
        if checksums && length > 0 {
            crate::checksum::fill_tcp(&mut buf[..length]);
        }
        length
    }
}
