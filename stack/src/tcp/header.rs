//! What the demultiplexer reads of a segment, and the reset for one that belongs to no connection.

use std::net::SocketAddr;

use smoltcp::wire::TcpPacket;

use super::segment::Outgoing;
use crate::ip::IpHeader;

/// What the demultiplexer needs of an arriving segment.
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

/// Why a segment is dropped unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcpError {
    Malformed,
    Checksum,
}

impl TcpHeader {
    /// Reads the TCP header of the IP packet `packet`.
    pub(crate) fn parse(packet: &[u8], ip: &IpHeader, verify: bool) -> Result<Self, TcpError> {
        let bytes = &packet[ip.header_len..ip.total_len];
        let view = TcpPacket::new_checked(bytes).map_err(|_| TcpError::Malformed)?;
        if view.src_port() == 0 || view.dst_port() == 0 {
            return Err(TcpError::Malformed);
        }
        if verify && !view.verify_checksum(&ip.source.into(), &ip.destination.into()) {
            return Err(TcpError::Checksum);
        }
        Ok(Self {
            source_port: view.src_port(),
            destination_port: view.dst_port(),
            seq: view.seq_number().0 as u32,
            ack: view.ack().then(|| view.ack_number().0 as u32),
            syn: view.syn(),
            fin: view.fin(),
            rst: view.rst(),
            payload: view.payload().len(),
        })
    }

    /// Whether it asks for a new connection.
    pub(crate) fn opens(&self) -> bool {
        self.syn && self.ack.is_none() && !self.rst && !self.fin
    }

    /// The reset that answers it (RFC 9293 3.10.7.1): the packet's length in `buf`, 0 for none.
    pub(crate) fn write_reset(&self, ip: &IpHeader, checksums: bool, buf: &mut [u8]) -> usize {
        if self.rst {
            return 0;
        }
        let local = SocketAddr::new(ip.destination, self.destination_port);
        let remote = SocketAddr::new(ip.source, self.source_port);
        let answer = Outgoing {
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
