//! TCP packets that no connection makes: resets and the acknowledgements of TIME-WAIT.

use std::net::SocketAddr;

use smoltcp::wire::{IpProtocol, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr};

use crate::ip::{HOP_LIMIT, IpHeader, checksum_caps, write_header};

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
        let answer = Bare {
            local: SocketAddr::new(ip.destination, self.destination_port),
            remote: SocketAddr::new(ip.source, self.source_port),
            control: TcpControl::Rst,
            seq: self.ack.unwrap_or(0),
            ack: match self.ack {
                Some(_) => None,
                None => Some(self.seq.wrapping_add(self.sequence_len())),
            },
            timestamps: None,
        };
        answer.write(checksums, buf)
    }

    fn sequence_len(&self) -> u32 {
        self.payload as u32 + u32::from(self.syn) + u32::from(self.fin)
    }
}

/// A TCP packet without data.
pub(crate) struct Bare {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) control: TcpControl,
    pub(crate) seq: u32,
    pub(crate) ack: Option<u32>,
    pub(crate) timestamps: Option<(u32, u32)>,
}

impl Bare {
    /// Writes it as an IP packet; gives the length, 0 if `buf` is too short.
    pub(crate) fn write(&self, checksums: bool, buf: &mut [u8]) -> usize {
        let repr = TcpRepr {
            src_port: self.local.port(),
            dst_port: self.remote.port(),
            control: self.control,
            seq_number: TcpSeqNumber(self.seq as i32),
            ack_number: self.ack.map(|ack| TcpSeqNumber(ack as i32)),
            window_len: 0,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: self.timestamps.map(|(value, echo)| TcpTimestampRepr::new(value, echo)),
            payload: &[],
        };
        let addresses = (self.local.ip(), self.remote.ip());
        let protocol = (IpProtocol::Tcp, HOP_LIMIT);
        let Some(ip_len) = write_header(buf, addresses, protocol, repr.buffer_len(), checksums) else {
            return 0;
        };
        let total = ip_len + repr.buffer_len();
        let mut view = TcpPacket::new_unchecked(&mut buf[ip_len..total]);
        let caps = checksum_caps(checksums);
        repr.emit(&mut view, &addresses.0.into(), &addresses.1.into(), &caps);
        total
    }
}
