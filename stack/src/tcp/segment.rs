//! An arriving TCP segment, and the headers of an outgoing one.

use std::net::SocketAddr;

use smoltcp::wire::IpProtocol;

use super::header::{ACK, CWR, ECE, FIN, Fixed, PSH, RST, SYN, URG};
use super::options::{MAX_OPTIONS, Options};
use crate::IpOptions;
use crate::ip::checksum;
use crate::ip::{HOP_LIMIT, write_header};

/// An arriving segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment<'a> {
    pub(crate) seq: u32,
    pub(crate) ack: Option<u32>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) ece: bool,
    pub(crate) cwr: bool,
    /// Window field of the header, not scaled.
    pub(crate) window: u16,
    /// Urgent pointer if URG is set: distance from the sequence number to the byte after the urgent data.
    pub(crate) urgent: Option<u16>,
    pub(crate) options: Options,
    pub(crate) payload: &'a [u8],
    /// True if a router has marked the packet (RFC 3168 CE).
    pub(crate) marked: bool,
}

impl<'a> Segment<'a> {
    /// Reads the TCP packet at `ip_len` in an IP packet, if it is well formed.
    #[inline]
    pub(crate) fn read(packet: &'a [u8], ip_len: usize) -> Option<Self> {
        let bytes = packet.get(ip_len..)?;
        let fixed = Fixed::read(bytes)?;
        let (header, payload) = bytes.split_at(fixed.header_len);
        Some(Self {
            seq: fixed.seq,
            ack: fixed.has(ACK).then_some(fixed.ack),
            syn: fixed.has(SYN),
            fin: fixed.has(FIN),
            rst: fixed.has(RST),
            ece: fixed.has(ECE),
            cwr: fixed.has(CWR),
            window: fixed.window,
            urgent: fixed.has(URG).then_some(fixed.urgent),
            options: Options::parse(&header[20..]),
            payload,
            marked: ecn(packet) == CE,
        })
    }

    /// Returns the length in the space of sequence numbers.
    pub(crate) fn len(&self) -> u64 {
        // RFC 9293 3.4: SYN and FIN take one number each, so that they are acknowledged like data.
        self.payload.len() as u64 + u64::from(self.syn) + u64::from(self.fin)
    }
}

/// Code points of RFC 3168 in the IP header.
pub(crate) const ECT0: u8 = 0b10;
const CE: u8 = 0b11;

fn ecn(packet: &[u8]) -> u8 {
    match packet[0] >> 4 {
        // The same two bits, but IPv6's traffic class begins in the middle of the first byte.
        4 => packet[1] & 0b11,
        _ => packet[1] >> 4 & 0b11,
    }
}

/// Returns the bytes of the IP and TCP headers, without options, of a packet from `local`.
pub(crate) fn header_len(local: SocketAddr) -> usize {
    if local.is_ipv4() { 40 } else { 60 }
}

/// Fields of the IP headers of a connection's packets, except ECN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marking {
    hop_limit: u8,
    /// Differentiated services codepoint at its place in the header: the two ECN bits are 0.
    services: u8,
}

impl Default for Marking {
    fn default() -> Self {
        Self { hop_limit: HOP_LIMIT, services: 0 }
    }
}

impl From<&IpOptions> for Marking {
    fn from(options: &IpOptions) -> Self {
        // RFC 1122 3.2.1.7: a host sends no packet with a TTL of 0.
        Self { hop_limit: options.hop_limit.max(1), services: options.traffic_class.dscp() << 2 }
    }
}

/// Headers of an outgoing segment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outgoing {
    pub(crate) seq: u32,
    pub(crate) ack: Option<u32>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) psh: bool,
    pub(crate) ece: bool,
    pub(crate) cwr: bool,
    pub(crate) window: u16,
    /// Urgent pointer; 0 for none.
    pub(crate) urgent: u16,
    pub(crate) options: Options,
    /// ECN code point of the IP header.
    pub(crate) ecn: u8,
    pub(crate) marking: Marking,
}

impl Outgoing {
    /// Writes the headers for `payload_len` bytes of payload. Returns the packet's length, or `None` if it
    /// does not fit.
    pub(crate) fn write(
        &self,
        buf: &mut [u8],
        (local, remote): (SocketAddr, SocketAddr),
        payload_len: usize,
    ) -> Option<usize> {
        let mut options = [0; MAX_OPTIONS];
        let options_len = self.options.write(&mut options);
        let tcp_len = 20 + options_len;
        let addresses = (local.ip(), remote.ip());
        let protocol = (IpProtocol::Tcp, self.marking.hop_limit);
        let ip_len = write_header(buf, addresses, protocol, tcp_len + payload_len, false)?;
        let class = self.marking.services | self.ecn;
        match ip_len {
            20 => buf[1] = class,
            _ => buf[..2].copy_from_slice(&[0x60 | class >> 4, class << 4]),
        }
        let tcp = &mut buf[ip_len..ip_len + tcp_len];
        tcp[..2].copy_from_slice(&local.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&remote.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.unwrap_or(0).to_be_bytes());
        tcp[12] = (tcp_len as u8 / 4) << 4;
        tcp[13] = self.flags();
        tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
        // The checksum is filled in later, and only on interfaces that use one.
        tcp[16..18].fill(0);
        tcp[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        tcp[20..].copy_from_slice(&options[..options_len]);
        Some(ip_len + tcp_len + payload_len)
    }

    fn flags(&self) -> u8 {
        let flag = |set, flag| if set { flag } else { 0 };
        flag(self.fin, FIN)
            | flag(self.syn, SYN)
            | flag(self.rst, RST)
            | flag(self.psh, PSH)
            | flag(self.ack.is_some(), ACK)
            | flag(self.urgent > 0, URG)
            | flag(self.ece, ECE)
            | flag(self.cwr, CWR)
    }

    /// Writes the segment as a packet without data; returns the length, or 0 if it does not fit.
    pub(crate) fn write_alone(
        &self,
        buf: &mut [u8],
        addresses: (SocketAddr, SocketAddr),
        checksums: bool,
    ) -> usize {
        let length = self.write(buf, addresses, 0).unwrap_or(0);
        if checksums && length > 0 {
            checksum::fill_tcp(&mut buf[..length]);
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_is_what_arrives() {
        for (local, remote) in [("10.0.0.1:1", "10.0.0.2:2"), ("[fd00::1]:1", "[fd00::2]:2")] {
            let (local, remote): (SocketAddr, SocketAddr) = (local.parse().unwrap(), remote.parse().unwrap());
            let mut outgoing = Outgoing {
                seq: 0xffff_fffe,
                ack: Some(7),
                fin: true,
                psh: true,
                ece: true,
                window: 513,
                urgent: 3,
                ecn: CE,
                ..Outgoing::default()
            };
            outgoing.options.timestamps = Some((1, 2));
            outgoing.options.sack.push((3, 4));
            let mut buf = [0; 200];
            let header = header_len(local) + 24;
            let len = outgoing.write(&mut buf, (local, remote), 4).unwrap();
            assert_eq!(len, header + 4);
            buf[header..len].copy_from_slice(b"data");
            let ip_len = if local.is_ipv4() { 20 } else { 40 };
            let segment = Segment::read(&buf[..len], ip_len).unwrap();
            assert_eq!((segment.seq, segment.ack, segment.window), (0xffff_fffe, Some(7), 513));
            assert_eq!((segment.fin, segment.syn, segment.rst), (true, false, false));
            assert_eq!((segment.ece, segment.cwr, segment.marked), (true, false, true));
            assert_eq!(segment.urgent, Some(3));
            assert_eq!((segment.options, segment.payload), (outgoing.options, &b"data"[..]));
            assert!(outgoing.write(&mut buf[..header], (local, remote), 4).is_none());
        }
    }
}
