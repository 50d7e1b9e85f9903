//! Header fields for the demultiplexer, and resets for segments that belong to no connection.

use std::net::SocketAddr;

use smoltcp::wire::TcpPacket;

use super::segment::Outgoing;
use crate::ip::IpHeader;

/// Bits of the header's control byte (RFC 9293 3.1, RFC 3168 6.1).
pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 1 << 1;
pub(super) const RST: u8 = 1 << 2;
pub(super) const PSH: u8 = 1 << 3;
pub(super) const ACK: u8 = 1 << 4;
pub(super) const URG: u8 = 1 << 5;
pub(super) const ECE: u8 = 1 << 6;
pub(super) const CWR: u8 = 1 << 7;

/// Fixed part of the TCP header, without the checksum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fixed {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) seq: u32,
    /// Acknowledgement number, valid only with [`ACK`].
    pub(super) ack: u32,
    /// Length in bytes, options included. The segment is at least that long.
    pub(super) header_len: usize,
    flags: u8,
    pub(super) window: u16,
    /// Urgent pointer, valid only with [`URG`].
    pub(super) urgent: u16,
}

impl Fixed {
    /// Reads the header at the beginning of `bytes`, if it is complete.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let &[s, p, d, q, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, u0, u1] =
            bytes.first_chunk::<20>()?;
        let header_len = usize::from(offset >> 4) * 4;
        // A data offset below five words, or beyond the packet, is malformed (RFC 9293 3.1).
        (20..=bytes.len()).contains(&header_len).then_some(Self {
            source_port: u16::from_be_bytes([s, p]),
            destination_port: u16::from_be_bytes([d, q]),
            seq: u32::from_be_bytes([s0, s1, s2, s3]),
            ack: u32::from_be_bytes([a0, a1, a2, a3]),
            header_len,
            flags,
            window: u16::from_be_bytes([w0, w1]),
            urgent: u16::from_be_bytes([u0, u1]),
        })
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Fields of an arriving segment that the demultiplexer needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TcpHeader {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: Option<u32>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) payload: usize,
}

/// Reasons to drop a segment without processing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcpError {
    Malformed,
    Checksum,
}

impl TcpHeader {
    /// Reads the TCP header of the IP packet `packet`.
    pub(crate) fn parse(packet: &[u8], ip: &IpHeader, verify: bool) -> Result<Self, TcpError> {
        let bytes = &packet[ip.header_len..ip.total_len];
        let fixed = Fixed::read(bytes).ok_or(TcpError::Malformed)?;
        // Port 0 is reserved (RFC 6335 6), so no socket can have it.
        if fixed.source_port == 0 || fixed.destination_port == 0 {
            return Err(TcpError::Malformed);
        }
        let valid =
            || TcpPacket::new_unchecked(bytes).verify_checksum(&ip.source.into(), &ip.destination.into());
        if verify && !valid() {
            return Err(TcpError::Checksum);
        }
        Ok(Self {
            source_port: fixed.source_port,
            destination_port: fixed.destination_port,
            seq: fixed.seq,
            ack: fixed.has(ACK).then_some(fixed.ack),
            syn: fixed.has(SYN),
            fin: fixed.has(FIN),
            rst: fixed.has(RST),
            payload: bytes.len() - fixed.header_len,
        })
    }

    /// Returns true if the segment requests a new connection.
    pub(crate) fn opens(&self) -> bool {
        self.syn && self.ack.is_none() && !self.rst && !self.fin
    }

    /// Writes the reset that answers this segment (RFC 9293 3.10.7.1); returns the length in `buf`, or 0 for
    /// none.
    pub(crate) fn write_reset(&self, ip: &IpHeader, checksums: bool, buf: &mut [u8]) -> usize {
        // A reset never answers a reset, because two hosts could go on forever.
        if self.rst {
            return 0;
        }
        let local = SocketAddr::new(ip.destination, self.destination_port);
        let remote = SocketAddr::new(ip.source, self.source_port);
        let answer = Outgoing {
            // RFC 9293 3.10.7.1: the number must be the one that the peer expects, or it ignores the reset.
            seq: self.ack.unwrap_or(0),
            ack: match self.ack {
                Some(_) => None,
                None => Some(self.seq.wrapping_add(self.sequence_len())),
            },
            rst: true,
            ..Outgoing::default()
        };
        answer.write_alone(buf, (local, remote), checksums)
    }

    fn sequence_len(&self) -> u32 {
        self.payload as u32 + u32::from(self.syn) + u32::from(self.fin)
    }
}
