use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{ParseError, Reader};

const PROBE: u8 = 0x01;
const PROBE_ACK: u8 = 0x02;
const PARAMS: u8 = 0x03;
const CLOSE: u8 = 0x04;
const ELSEWHERE: u8 = 0x05;

/// A message between two nodes inside their session: a data packet whose plaintext begins with 1 to 15.
///
/// ```text
/// Probe     0x01 | id 4 | zeros up to the size that is probed
/// ProbeAck  0x02 | id 4 | size 2
/// Params    0x03 | UDP receive buffer 4 | instance 8
/// Close     0x04 | reason 1
/// Elsewhere 0x05 | instance 8 | port 2 | address 16
/// ```
///
/// Bytes behind these fields are ignored, so that later versions can add some.
///
/// ```
/// use peersock_overlay::wire::Control;
///
/// let message = Control::ProbeAck { id: 7, size: 1452 };
/// let mut plaintext = Vec::new();
/// message.emit(&mut plaintext);
/// assert_eq!(Control::parse(&plaintext), Ok(message));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control {
    /// Asks for a [`Control::ProbeAck`]: does a datagram of this size pass, is this path alive? (RFC 8899)
    Probe {
        /// Chosen by the sender.
        id: u32,
        /// Length of the plaintext, padding included, in bytes.
        len: ProbeSize,
    },
    /// Answers a probe. It is as short as can be, whatever the probe's size was.
    ProbeAck {
        /// From the probe.
        id: u32,
        /// The probe's size as its receiver saw it: bytes of UDP payload.
        size: u16,
    },
    /// What the sender's side of the session is like. Sent when it changes.
    Params {
        /// The size of the sender's UDP receive buffer, in bytes.
        receive_buffer: u32,
        /// The sender's instance, as in its hellos.
        instance: u64,
    },
    /// The sender leaves; the session is over.
    Close {
        /// Why; 0 is "leaving the network". Others are yet undefined and mean the same.
        reason: u8,
    },
    /// Another node with the receiver's identity has had a session with the sender just now.
    Elsewhere {
        /// That node's instance.
        instance: u64,
        /// Where the sender reached it. On the wire an IPv4 address is an IPv4-mapped IPv6 address.
        remote: SocketAddr,
    },
}

impl Control {
    /// Reads a plaintext.
    ///
    /// # Errors
    /// [`ParseError::Type`] for an unknown message, which a receiver ignores; [`ParseError::Length`] if it is cut off.
    pub fn parse(plaintext: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader(plaintext);
        Ok(match reader.u8()? {
            PROBE => Self::Probe {
                id: reader.u32()?,
                len: ProbeSize::new(plaintext.len()).ok_or(ParseError::Length)?,
            },
            PROBE_ACK => Self::ProbeAck { id: reader.u32()?, size: reader.u16()? },
            PARAMS => Self::Params { receive_buffer: reader.u32()?, instance: reader.u64()? },
            CLOSE => Self::Close { reason: reader.u8()? },
            ELSEWHERE => {
                let (instance, port) = (reader.u64()?, reader.u16()?);
                let address = Ipv6Addr::from(*reader.array()?).to_canonical();
                Self::Elsewhere { instance, remote: SocketAddr::new(address, port) }
            }
            _ => return Err(ParseError::Type),
        })
    }

    /// Appends the plaintext to `out`.
    pub fn emit(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Probe { id, len } => {
                let end = out.len() + len.get();
                out.push(PROBE);
                out.extend_from_slice(&id.to_be_bytes());
                out.resize(end, 0);
            }
            Self::ProbeAck { id, size } => {
                out.push(PROBE_ACK);
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(&size.to_be_bytes());
            }
            Self::Params { receive_buffer, instance } => {
                out.push(PARAMS);
                out.extend_from_slice(&receive_buffer.to_be_bytes());
                out.extend_from_slice(&instance.to_be_bytes());
            }
            Self::Close { reason } => out.extend_from_slice(&[CLOSE, reason]),
            Self::Elsewhere { instance, remote } => {
                let address = match remote.ip() {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                out.push(ELSEWHERE);
                out.extend_from_slice(&instance.to_be_bytes());
                out.extend_from_slice(&remote.port().to_be_bytes());
                out.extend_from_slice(&address.octets());
            }
        }
    }
}

/// The length of a probe's plaintext: 7 to 65,535 bytes. A shorter one would be outdone by its answer.
///
/// ```
/// use peersock_overlay::wire::ProbeSize;
///
/// assert_eq!(ProbeSize::new(1200).map(ProbeSize::get), Some(1200));
/// assert!(ProbeSize::new(6).is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeSize(u16);

impl ProbeSize {
    /// The shortest probe: as long as a [`Control::ProbeAck`].
    pub const MIN: Self = Self(7);

    /// `None` out of range.
    pub fn new(len: usize) -> Option<Self> {
        u16::try_from(len).ok().map(Self).filter(|size| *size >= Self::MIN)
    }

    /// The length, in bytes.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}
