//! TCP segments in IP packets, with a separate writer and reader, so that the stack's code does not check
//! itself.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// Letters of the flags, from the lowest bit on.
const LETTERS: [char; 8] = ['F', 'S', 'R', 'P', 'A', 'U', 'E', 'W'];

/// A segment with absolute numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    pub(crate) ecn: u8,
    pub(crate) dscp: u8,
    pub(crate) hops: u8,
    pub(crate) options: Vec<Choice>,
    pub(crate) payload: Vec<u8>,
}

/// A TCP option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    Mss(u16),
    Scale(u8),
    SackPermitted,
    Sack(Vec<(u32, u32)>),
    Timestamps(u32, u32),
    /// Any other option, as on the wire.
    Raw(Vec<u8>),
}

impl Segment {
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn timestamps(&self) -> Option<(u32, u32)> {
        self.options.iter().find_map(|option| match option {
            Choice::Timestamps(value, echo) => Some((*value, *echo)),
            _ => None,
        })
    }

    /// Returns the IP packet, with checksums.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut options: Vec<u8> = self.options.iter().flat_map(Choice::write).collect();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut tcp = Vec::new();
        tcp.extend(self.source.port().to_be_bytes());
        tcp.extend(self.destination.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([((20 + options.len()) / 4 * 16) as u8, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0, 0]);
        tcp.extend(self.urgent.to_be_bytes());
        tcp.extend(options);
        tcp.extend(&self.payload);
        let sum = checksum(&tcp, self.pseudo_header(tcp.len()));
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut packet = self.ip_header(tcp.len(), 6);
        packet.append(&mut tcp);
        packet
    }

    /// Returns the ICMP error about this segment from its destination, without a checksum.
    pub(crate) fn complaint(&self, kind: u8, code: u8) -> Vec<u8> {
        let icmp = [&[kind, code, 0, 0, 0, 0, 0, 0][..], &self.write()].concat();
        let (source, destination) = (self.destination, self.source);
        let back = Self { source, destination, ecn: 0, dscp: 0, hops: 64, ..self.clone() };
        let protocol = if self.source.is_ipv4() { 1 } else { 58 };
        [back.ip_header(icmp.len(), protocol), icmp].concat()
    }

    fn ip_header(&self, length: usize, protocol: u8) -> Vec<u8> {
        let class = self.dscp << 2 | self.ecn;
        let mut header = Vec::new();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header.extend([0x45, class]);
                header.extend((20 + length as u16).to_be_bytes());
                header.extend([0, 0, 0x40, 0, self.hops, protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let sum = checksum(&header, 0);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (source, destination) => {
                header.extend([0x60 | class >> 4, class << 4, 0, 0]);
                header.extend((length as u16).to_be_bytes());
                header.extend([protocol, self.hops]);
                header.extend(octets(source));
                header.extend(octets(destination));
            }
        }
        header
    }

    fn pseudo_header(&self, length: usize) -> u32 {
        let addresses = [octets(self.source.ip()), octets(self.destination.ip())].concat();
        sum(&addresses) + 6 + length as u32
    }

    /// Reads an IP packet; with `verify`, its checksums must be right.
    pub(crate) fn read(packet: &[u8], verify: bool) -> Result<Self, String> {
        let ipv4 = packet[0] >> 4 == 4;
        let (header, length, class, hops) = match ipv4 {
            true => (20, usize::from(word(packet, 2)), packet[1], packet[8]),
            false => (40, 40 + usize::from(word(packet, 4)), (word(packet, 0) >> 4) as u8, packet[7]),
        };
        let protocol = packet[if ipv4 { 9 } else { 6 }];
        if length != packet.len() || protocol != 6 {
            return Err(format!("protocol {protocol}, {} bytes, {length} by the header", packet.len()));
        }
        if verify && ipv4 && checksum(&packet[..20], 0) != 0 {
            return Err("a wrong checksum of the IP header".to_owned());
        }
        let (source, destination) = match ipv4 {
            true => (address(&packet[12..16]), address(&packet[16..20])),
            false => (address(&packet[8..24]), address(&packet[24..40])),
        };
        let tcp = &packet[header..];
        let data = usize::from(tcp[12] >> 4) * 4;
        let segment = Self {
            source: SocketAddr::new(source, word(tcp, 0)),
            destination: SocketAddr::new(destination, word(tcp, 2)),
            seq: long(tcp, 4),
            ack: long(tcp, 8),
            flags: tcp[13],
            window: word(tcp, 14),
            urgent: word(tcp, 18),
            ecn: class & 3,
            dscp: class >> 2,
            hops,
            options: read_options(&tcp[20..data])?,
            payload: tcp[data..].to_vec(),
        };
        if tcp[12] & 0xf != 0 {
            return Err("reserved bits are set".to_owned());
        }
        if verify && checksum(tcp, segment.pseudo_header(tcp.len())) != 0 {
            return Err("a wrong checksum of TCP".to_owned());
        }
        Ok(segment)
    }
}

impl Choice {
    fn write(&self) -> Vec<u8> {
        match self {
            Self::Mss(mss) => [&[2, 4][..], &mss.to_be_bytes()].concat(),
            Self::Scale(shift) => vec![1, 3, 3, *shift],
            Self::SackPermitted => vec![1, 1, 4, 2],
            Self::Sack(blocks) => {
                let mut bytes = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
                for (start, end) in blocks {
                    bytes.extend(start.to_be_bytes());
                    bytes.extend(end.to_be_bytes());
                }
                bytes
            }
            Self::Timestamps(value, echo) => {
                [&[1, 1, 8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()
            }
            Self::Raw(bytes) => bytes.clone(),
        }
    }
}

fn read_options(mut bytes: &[u8]) -> Result<Vec<Choice>, String> {
    let mut options = Vec::new();
    while let Some((&kind, rest)) = bytes.split_first() {
        match kind {
            0 => break,
            1 => {
                bytes = rest;
                continue;
            }
            _ => {}
        }
        let length = rest.first().map_or(0, |&length| usize::from(length));
        let value = bytes.get(2..length).ok_or("an option with a wrong length")?;
        options.push(match (kind, value.len()) {
            (2, 2) => Choice::Mss(word(value, 0)),
            (3, 1) => Choice::Scale(value[0]),
            (4, 0) => Choice::SackPermitted,
            (5, _) => Choice::Sack(value.chunks(8).map(|block| (long(block, 0), long(block, 4))).collect()),
            (8, 8) => Choice::Timestamps(long(value, 0), long(value, 4)),
            _ => Choice::Raw(bytes[..length].to_vec()),
        });
        bytes = &bytes[length..];
    }
    Ok(options)
}

/// Flags in letters.
pub(crate) struct Flags(pub(crate) u8);

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In the usual order of names: SYN-ACK, FIN-ACK.
        for bit in [1, 0, 2, 3, 4, 5, 6, 7] {
            if self.0 >> bit & 1 == 1 {
                write!(f, "{}", LETTERS[bit])?;
            }
        }
        if self.0 == 0 { f.write_str("-") } else { Ok(()) }
    }
}

/// Reads flags from letters; `-` means none.
pub(crate) fn read_flags(text: &str) -> Option<u8> {
    let mut flags = 0;
    for letter in text.chars().filter(|&letter| letter != '-') {
        flags |= 1 << LETTERS.iter().position(|&known| known == letter)?;
    }
    Some(flags)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(octets) => octets.into(),
        Err(_) => <[u8; 16]>::try_from(bytes).expect("four or sixteen bytes").into(),
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) << 16 | u32::from(word(bytes, at + 2))
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

/// Returns the Internet checksum (RFC 1071).
fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut total = start + sum(bytes);
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}
