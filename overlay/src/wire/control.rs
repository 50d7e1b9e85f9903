use std::net::SocketAddr;

use super::{DATA_OVERHEAD, ParseError, Reader, write_address};

const PROBE: u8 = 0x01;
const PROBE_ACK: u8 = 0x02;
const PARAMS: u8 = 0x03;
const CLOSE: u8 = 0x04;
const ELSEWHERE: u8 = 0x05;
const CHALLENGE: u8 = 0x06;
const ANSWER: u8 = 0x07;
const BIRTHDAY: u8 = 0x0A;
/// Flag of [`Control::Birthday`].
const BIRTHDAY_FAST: u8 = 1;

/// Flag of a challenge whose sender is where it comes from.
const SENDER_HERE_FLAG: u8 = 1;

/// Message between two nodes inside their session: a data packet whose plaintext begins with 1 to 15.
///
/// ```text
/// Probe     0x01 | id 4 | zeros up to the size that is probed
/// ProbeAck  0x02 | id 4 | size 2
/// Params    0x03 | UDP receive buffer 4 | instance 8
/// Close     0x04 | reason 1
/// Elsewhere 0x05 | instance 8 | port 2 | address 16
/// Challenge 0x06 | data 8 | flags 1
/// Answer    0x07 | data 8
/// Birthday  0x0A | id 4 | step 1: 0 ask, 1 agree, 2 refuse, 3 stop | flags 1, if any: bit 0 fast
/// ```
///
/// Bytes behind these fields are ignored, so that later versions can add some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control {
    /// Question for a [`Control::ProbeAck`], which tests whether a datagram of this size passes and the path
    /// is alive (RFC 8899).
    Probe {
        /// Id chosen by the sender.
        id: u32,
        /// Length of the plaintext, padding included, in bytes.
        len: ProbeSize,
    },
    /// Answer to a probe. It has the minimum size, whatever the probe's size was.
    ProbeAck {
        /// Id of the probe.
        id: u32,
        /// Size of the probe as its receiver saw it: bytes of UDP payload.
        size: u16,
    },
    /// Description of the sender's side of the session, sent when that changes.
    Params {
        /// Size of the sender's UDP receive buffer, in bytes.
        receive_buffer: u32,
        /// Instance of the sender, as in its hellos.
        instance: u64,
    },
    /// The sender leaves; the session is over.
    Close {
        /// Reason; 0 is "leaving the network". Others are undefined so far and mean the same.
        reason: u8,
    },
    /// Another node with the receiver's identity has had a session with the sender just now.
    Elsewhere {
        /// Instance of that node.
        instance: u64,
        /// Address at which the sender reached it. On the wire an IPv4 address is an IPv4-mapped IPv6
        /// address.
        remote: SocketAddr,
    },
    /// Question whether the receiver receives at the destination of this message (RFC 9000, section 8.2).
    Challenge {
        /// Unpredictable bytes.
        data: [u8; 8],
        /// True if the sender is where this comes from. The message is then long enough to pay for an answer
        /// and a challenge.
        here: bool,
    },
    /// Answer to a challenge, from the address where it arrived to its source.
    Answer {
        /// Data of the challenge.
        data: [u8; 8],
    },
    /// Arrangement of a search for a direct path: one side sends from many ports, the other one to many.
    Birthday {
        /// Id chosen by the asking side.
        id: u32,
        /// Step of the arrangement.
        step: BirthdayStep,
        /// In a question, true if the sender supports the fast timing. In an agreement, true if both sides
        /// use it, because the question had it. Otherwise meaningless.
        is_fast: bool,
    },
}

/// Message of one side of a search by many ports to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BirthdayStep {
    /// "My NAT gives each destination another port: send to many ports of the address where your roots see
    /// me by IPv4. I send from many."
    Ask,
    /// The same by IPv6.
    AskIpv6,
    /// "I do so in 1.5 s and half a round trip." With the fast timing, in 0.3 s and half a round trip.
    Agree,
    /// "I do not."
    Refuse,
    /// "I cannot send from many ports after all, or need no more."
    Stop,
}

impl Control {
    /// Length of the plaintext of a challenge without `here`, in bytes.
    pub const CHALLENGE_LEN: usize = 10;

    /// Length of the plaintext of an answer, in bytes.
    pub const ANSWER_LEN: usize = 9;

    /// Length of the plaintext of a challenge with `here`, in bytes. The receiver answers with two packets,
    /// each of which has a header and a tag.
    pub const HERE_LEN: usize = Self::CHALLENGE_LEN + Self::ANSWER_LEN + DATA_OVERHEAD;

    /// Returns true if the message may be sent from anywhere, so that it does not locate its sender (RFC
    /// 9000, section 9.1).
    pub fn is_probing(&self) -> bool {
        matches!(self, Self::Challenge { here: false, .. } | Self::Answer { .. })
    }

    /// Parses a plaintext.
    ///
    /// # Errors
    /// Returns [`ParseError::Type`] for an unknown message, which a receiver ignores, and
    /// [`ParseError::Length`] if it is cut off.
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
            ELSEWHERE => Self::Elsewhere { instance: reader.u64()?, remote: reader.address()? },
            CHALLENGE => {
                let (data, here) = (*reader.array()?, reader.u8()? & SENDER_HERE_FLAG != 0);
                // The peer answers it with two packets, so it must be as long as both.
                if here && plaintext.len() < Self::HERE_LEN {
                    return Err(ParseError::Length);
                }
                Self::Challenge { data, here }
            }
            ANSWER => Self::Answer { data: *reader.array()? },
            BIRTHDAY => {
                let id = reader.u32()?;
                let step = match reader.u8()? {
                    0 => BirthdayStep::Ask,
                    1 => BirthdayStep::Agree,
                    2 => BirthdayStep::Refuse,
                    3 => BirthdayStep::Stop,
                    4 => BirthdayStep::AskIpv6,
                    _ => return Err(ParseError::Type),
                };
                // Earlier versions send no flags.
                let is_fast = reader.u8().is_ok_and(|flags| flags & BIRTHDAY_FAST != 0);
                Self::Birthday { id, step, is_fast }
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
                out.push(ELSEWHERE);
                out.extend_from_slice(&instance.to_be_bytes());
                write_address(&remote, out);
            }
            Self::Challenge { data, here } => {
                let end = out.len() + if here { Self::HERE_LEN } else { Self::CHALLENGE_LEN };
                out.push(CHALLENGE);
                out.extend_from_slice(&data);
                out.push(if here { SENDER_HERE_FLAG } else { 0 });
                out.resize(end, 0);
            }
            Self::Answer { data } => {
                out.push(ANSWER);
                out.extend_from_slice(&data);
            }
            Self::Birthday { id, step, is_fast } => {
                out.push(BIRTHDAY);
                out.extend_from_slice(&id.to_be_bytes());
                out.push(match step {
                    BirthdayStep::Ask => 0,
                    BirthdayStep::Agree => 1,
                    BirthdayStep::Refuse => 2,
                    BirthdayStep::Stop => 3,
                    BirthdayStep::AskIpv6 => 4,
                });
                if is_fast {
                    out.push(BIRTHDAY_FAST);
                }
            }
        }
    }
}

/// Length of a probe's plaintext: 7 to 65,535 bytes. A shorter probe would be shorter than its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeSize(u16);

impl ProbeSize {
    /// Shortest probe, as long as a [`Control::ProbeAck`].
    pub const MIN: Self = Self(7);

    /// Creates a size; returns `None` out of range.
    pub fn new(len: usize) -> Option<Self> {
        u16::try_from(len).ok().map(Self).filter(|size| *size >= Self::MIN)
    }

    /// Returns the length, in bytes.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}
