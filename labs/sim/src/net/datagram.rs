use std::net::SocketAddr;

use crate::Time;

/// A UDP datagram under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Its source, as the next hop sees it.
    pub from: SocketAddr,
    /// Its destination, as the next hop sees it.
    pub to: SocketAddr,
    /// The UDP payload.
    pub payload: Vec<u8>,
    /// Time at which its first copy was sent.
    pub sent: Time,
}

impl Datagram {
    /// Returns the size in bytes of the IP packet that carries it.
    pub fn wire_len(&self) -> usize {
        let ip = if self.to.is_ipv4() { 20 } else { 40 };
        self.payload.len() + ip + 8
    }
}

/// Splits a UDP GSO batch into datagrams of `segment_size` bytes. The last one may be shorter.
pub fn split_segments(contents: &[u8], segment_size: Option<usize>) -> impl Iterator<Item = &[u8]> {
    contents.chunks(segment_size.unwrap_or(contents.len()).max(1))
}
