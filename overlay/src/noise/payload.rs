use super::Timestamp;
use crate::crypto::SuiteSet;
use crate::id::NetworkId;
use crate::wire::{Candidates, Initiation, Response};

/// Maximum length of an introduction, which a byte says.
const MAX_INTRODUCTION: usize = 255;

/// Content of an initiation besides its keys.
///
/// ```text
/// offset  0             32        40           52         60               64
///        +-------------+---------+------------+----------+----------------+--------+
///        | Ed25519 key | network | timestamp  | instance | receive buffer | suites |
///        | 32          | 8       | 12         | 8        | 4              | 1      |
///        +-------------+---------+------------+----------+----------------+--------+
/// offset  65          66
///        +-----------+-----------------------+---------
///        | length L  | introduction          | room ..
///        | 1, if any | L                     | ignored
///        +-----------+-----------------------+---------
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitiationPayload {
    /// Network of the session.
    pub network: NetworkId,
    /// Timestamp newer than that of every earlier initiation to this responder.
    pub timestamp: Timestamp,
    /// Random number drawn at each start of the initiator.
    pub instance: u64,
    /// Size of the initiator's UDP receive buffer, in bytes.
    pub receive_buffer: u32,
    /// Data suites to choose from.
    pub suites: SuiteSet,
    /// Process certificate by which a listed member has made the initiator a program of it; empty for
    /// members, and in networks without a list. A longer one than 255 bytes is left out.
    pub introduction: Vec<u8>,
    /// Number of zeros behind these fields, in bytes; at most [`Self::MAX_ROOM`] are written. They leave room
    /// for a question in the response, because a response is never longer than its initiation.
    pub room: usize,
}

impl InitiationPayload {
    /// Length on the wire with the Ed25519 key and without room, in bytes.
    pub(super) const LEN: usize = 65;

    /// Maximum room of an initiation, in bytes.
    pub const MAX_ROOM: usize = Initiation::MAX - Initiation::MIN;

    /// Returns the number of bytes that a response may have behind its fields without exceeding this
    /// initiation.
    pub fn room_in_response(&self) -> usize {
        Initiation::MIN - Response::MIN + Self::introduced(&self.introduction) + self.room
    }

    /// Returns the number of bytes that an introduction takes.
    pub(crate) fn introduced(introduction: &[u8]) -> usize {
        match introduction.len() {
            len @ 1..=MAX_INTRODUCTION => 1 + len,
            _ => 0,
        }
    }

    pub(super) fn emit(&self, ed25519: &[u8; 32]) -> Vec<u8> {
        let introduced = Self::introduced(&self.introduction);
        let mut bytes = vec![0; Self::LEN + (introduced + self.room).min(Self::MAX_ROOM)];
        bytes[..32].copy_from_slice(ed25519);
        bytes[32..40].copy_from_slice(&self.network.as_u64().to_be_bytes());
        bytes[40..52].copy_from_slice(self.timestamp.as_bytes());
        bytes[52..60].copy_from_slice(&self.instance.to_be_bytes());
        bytes[60..64].copy_from_slice(&self.receive_buffer.to_be_bytes());
        bytes[64] = self.suites.to_wire();
        if introduced > 0 {
            bytes[Self::LEN] = u8::try_from(self.introduction.len()).expect("at most 255 bytes");
            bytes[Self::LEN + 1..Self::LEN + introduced].copy_from_slice(&self.introduction);
        }
        bytes
    }

    /// Returns the payload and the Ed25519 key, or `None` if it is cut off or the network ID is invalid.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, [u8; 32])> {
        let (bytes, more): (&[u8; Self::LEN], _) = bytes.split_first_chunk()?;
        // Earlier versions write zeros here, which say that there is none.
        let introduction = match more.split_first() {
            Some((&len, more)) => more.get(..len.into())?,
            None => &[],
        };
        let payload = Self {
            network: NetworkId::new(u64::from_be_bytes(field(bytes, 32))).ok()?,
            timestamp: Timestamp::from_bytes(field(bytes, 40)),
            instance: u64::from_be_bytes(field(bytes, 52)),
            receive_buffer: u32::from_be_bytes(field(bytes, 60)),
            suites: SuiteSet::from_wire(bytes[64]),
            introduction: introduction.to_vec(),
            room: more.len() - Self::introduced(introduction),
        };
        Some((payload, field(bytes, 0)))
    }
}

/// Content of a response besides its keys.
///
/// ```text
/// offset  0          8                12
///        +----------+----------------+------------------
///        | instance | receive buffer | question, if any
///        | 8        | 4              |
///        +----------+----------------+------------------
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponsePayload {
    /// Random number drawn at each start of the responder.
    pub instance: u64,
    /// Size of the responder's UDP receive buffer, in bytes.
    pub receive_buffer: u32,
    /// The responder's addresses, with a question about the initiator's. Only the initiator can read it, with
    /// the network's key. Any other content in this place reads as `None`.
    pub question: Option<Candidates>,
}

impl ResponsePayload {
    /// Length on the wire without a question, in bytes.
    pub(super) const LEN: usize = 12;

    pub(super) fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend(self.instance.to_be_bytes());
        bytes.extend(self.receive_buffer.to_be_bytes());
        if let Some(question) = &self.question {
            question.emit(&mut bytes);
        }
        bytes
    }

    /// Parses the payload; returns `None` if it is cut off.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (bytes, more): (&[u8; Self::LEN], _) = bytes.split_first_chunk()?;
        // Unknown bytes are no error, because a later version may use this place for something else.
        let question = Candidates::parse(more).ok();
        Some(Self {
            instance: u64::from_be_bytes(field(bytes, 0)),
            receive_buffer: u32::from_be_bytes(field(bytes, 8)),
            question: question.filter(|question| question.is_question && !question.of_tcp),
        })
    }
}

/// Returns the `N` bytes at an offset that is known to be inside.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes")
}
