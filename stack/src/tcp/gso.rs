//! In-place cutting of one large TCP packet into wire packets.

use std::net::IpAddr;

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, TcpSeqNumber};

use crate::ip::checksum;
use crate::ip::{IpHeader, MAX_HEADERS, MAX_PACKET};

/// A TCP packet of up to 65,535 bytes, to be sent in pieces of at most one segment's payload.
///
/// [`next`](Self::next) writes each header over the tail of the piece before. The caller must have consumed
/// (sealed, sent or copied) that piece by then. So no payload byte moves.
///
/// ```no_run
/// # fn seal(_: &[u8]) {}
/// # let (flow, limits): (peersock_stack::Flow, peersock_stack::Egress) = unreachable!();
/// # let now = unreachable!();
/// let mut buf = vec![0; peersock_stack::MAX_PACKET];
/// while let Some(mut packets) = flow.egress(now, &limits, &mut buf) {
///     while let Some(packet) = packets.next(&mut buf) {
///         seal(packet);
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct SuperSegment {
    header: [u8; MAX_HEADERS],
    ip_len: usize,
    header_len: usize,
    len: usize,
    segment: usize,
    checksums: bool,
    /// Position of the next piece's payload.
    offset: usize,
    done: bool,
}

impl SuperSegment {
    /// Returns a TCP packet of another host's stack (such as a kernel with segmentation offload), to be cut
    /// at `segment` payload bytes. Returns `None` unless `packet` is one whole TCP packet without IP options,
    /// extension headers or fragmentation.
    ///
    /// ```
    /// assert!(peersock_stack::SuperSegment::from_packet(&[0x60; 40], 1400).is_none());
    /// ```
    pub fn from_packet(packet: &[u8], segment: usize) -> Option<Self> {
        let ip = IpHeader::parse(packet, false).ok()?;
        // The packet is another host's, which may be a fragment or padded.
        let is_whole = ip.plain && ip.protocol == IpProtocol::Tcp && ip.total_len == packet.len();
        let tcp = TcpPacket::new_checked(packet.get(ip.header_len..).filter(|_| is_whole)?).ok()?;
        let header_len = ip.header_len + usize::from(tcp.header_len());
        Some(Self::new(packet, header_len, segment, false))
    }

    /// Describes a TCP packet with a plain IP header, headers of `header_len` bytes, and cuts at `segment`
    /// payload bytes.
    pub(crate) fn new(packet: &[u8], header_len: usize, segment: usize, checksums: bool) -> Self {
        let mut header = [0; MAX_HEADERS];
        header[..header_len].copy_from_slice(&packet[..header_len]);
        Self {
            header,
            ip_len: if packet[0] >> 4 == 4 { 20 } else { 40 },
            header_len,
            len: packet.len(),
            // A segment size of 0 would never reach the end of the packet.
            segment: segment.clamp(1, MAX_PACKET),
            checksums,
            offset: header_len,
            done: false,
        }
    }

    /// Returns the bytes of the whole packet, headers included.
    #[expect(clippy::len_without_is_empty, reason = "a packet has a header at least")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the bytes of the IP and TCP headers with which each wire packet starts.
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Returns the bytes of payload.
    pub fn payload_len(&self) -> usize {
        self.len - self.header_len
    }

    /// Returns the number of wire packets.
    pub fn packets(&self) -> usize {
        self.payload_len().div_ceil(self.segment).max(1)
    }

    /// Returns the bytes of each wire packet but the last, which may be shorter.
    pub fn packet_len(&self) -> usize {
        self.header_len + self.segment.min(self.payload_len())
    }

    /// Returns the destination of the inner packets.
    pub fn destination(&self) -> IpAddr {
        match self.ip_len {
            20 => Ipv4Packet::new_unchecked(&self.header[..]).dst_addr().into(),
            _ => Ipv6Packet::new_unchecked(&self.header[..]).dst_addr().into(),
        }
    }

    /// Returns the next wire packet, contiguous in `buf`. `buf` must be the buffer that
    /// [`Flow::egress`](crate::Flow::egress) filled, or that holds the original packet. PSH and FIN are set
    /// on the last packet only, CWR on the first, URG while urgent data remains.
    ///
    /// # Panics
    /// If `buf` is shorter than [`len`](Self::len).
    pub fn next<'a>(&mut self, buf: &'a mut [u8]) -> Option<&'a [u8]> {
        if self.done {
            return None;
        }
        let start = self.offset - self.header_len;
        let end = self.len.min(self.offset + self.segment);
        // The header overwrites the end of the piece before, which has left already, so no payload is copied.
        let packet = &mut buf[start..end];
        let sent = self.offset - self.header_len;
        self.offset = end;
        self.done = end == self.len;
        // A packet that leaves in one piece keeps its header.
        if sent > 0 || !self.done {
            packet[..self.header_len].copy_from_slice(&self.header[..self.header_len]);
            self.adapt_header(packet, sent);
        }
        if self.checksums {
            checksum::fill_tcp(packet);
        }
        Some(packet)
    }

    /// Adapts the header to a piece whose payload starts `sent` bytes into the whole payload.
    fn adapt_header(&self, packet: &mut [u8], sent: usize) {
        let total = packet.len();
        match self.ip_len {
            20 => Ipv4Packet::new_unchecked(&mut *packet).set_total_len(total as u16),
            _ => Ipv6Packet::new_unchecked(&mut *packet).set_payload_len((total - 40) as u16),
        }
        let mut tcp = TcpPacket::new_unchecked(&mut packet[self.ip_len..]);
        let seq = tcp.seq_number().0.wrapping_add(sent as i32);
        tcp.set_seq_number(TcpSeqNumber(seq));
        if sent > 0 {
            // RFC 3168 6.1.2: only the first new data packet announces the reduced window.
            tcp.set_cwr(false);
        }
        if tcp.urg() {
            // The urgent pointer counts from the segment's sequence number (RFC 9293 3.1).
            let left = usize::from(tcp.urgent_at()).saturating_sub(sent);
            tcp.set_urg(left > 0);
            tcp.set_urgent_at(left as u16);
        }
        if !self.done {
            // They belong to the end of the data, so only the last packet carries them.
            tcp.set_psh(false);
            tcp.set_fin(false);
        }
    }
}
