use std::net::SocketAddr;

use crate::Time;

/// One UDP datagram on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Its source, as the next hop sees it.
    pub from: SocketAddr,
    /// Its destination, as the next hop sees it.
    pub to: SocketAddr,
    /// The UDP payload.
    pub payload: Vec<u8>,
    /// When its first copy was sent.
    pub sent: Time,
}

impl Datagram {
    /// Bytes of the IP packet that carries it.
    pub fn wire_len(&self) -> usize {
        let ip = if self.to.is_ipv4() { 20 } else { 40 };
        self.payload.len() + ip + 8
    }
}

/// Cuts a UDP GSO batch into its datagrams: all of `segment_size` bytes, but the last may be shorter.
///
/// ```
/// let parts: Vec<_> = peersock_sim::net::split_segments(b"aabbc", Some(2)).collect();
/// assert_eq!(parts, [&b"aa"[..], b"bb", b"c"]);
/// ```
pub fn split_segments(contents: &[u8], segment_size: Option<usize>) -> impl Iterator<Item = &[u8]> {
    contents.chunks(segment_size.unwrap_or(contents.len()).max(1))
}
