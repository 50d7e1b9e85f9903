use super::Timestamp;
use crate::crypto::SuiteSet;
use crate::id::NetworkId;

/// What an initiation says besides its keys.
///
/// ```text
/// offset  0             32        40           52         60               64       65
///        +-------------+---------+------------+----------+----------------+--------+---------
///        | Ed25519 key | network | timestamp  | instance | receive buffer | suites | more ..
///        | 32          | 8       | 12         | 8        | 4              | 1      | ignored
///        +-------------+---------+------------+----------+----------------+--------+---------
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitiationPayload {
    /// The network that the session is for.
    pub network: NetworkId,
    /// Newer than that of every initiation before, to this responder.
    pub timestamp: Timestamp,
    /// Random at each start of the initiator.
    pub instance: u64,
    /// The size of the initiator's UDP receive buffer, in bytes.
    pub receive_buffer: u32,
    /// The data suites to choose from.
    pub suites: SuiteSet,
}

impl InitiationPayload {
    /// Length on the wire with the Ed25519 key, in bytes.
    pub(super) const LEN: usize = 65;

    pub(super) fn emit(&self, ed25519: &[u8; 32]) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(ed25519);
        bytes[32..40].copy_from_slice(&self.network.as_u64().to_be_bytes());
        bytes[40..52].copy_from_slice(self.timestamp.as_bytes());
        bytes[52..60].copy_from_slice(&self.instance.to_be_bytes());
        bytes[60..64].copy_from_slice(&self.receive_buffer.to_be_bytes());
        bytes[64] = self.suites.to_wire();
        bytes
    }

    /// The payload and the Ed25519 key, or `None` if it is cut off or the network ID is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, [u8; 32])> {
        let bytes: &[u8; Self::LEN] = bytes.first_chunk()?;
        let payload = Self {
            network: NetworkId::new(u64::from_be_bytes(field(bytes, 32))).ok()?,
            timestamp: Timestamp::from_bytes(field(bytes, 40)),
            instance: u64::from_be_bytes(field(bytes, 52)),
            receive_buffer: u32::from_be_bytes(field(bytes, 60)),
            suites: SuiteSet::from_wire(bytes[64]),
        };
        Some((payload, field(bytes, 0)))
    }
}

/// What a response says besides its keys.
///
/// ```text
/// offset  0          8                12
///        +----------+----------------+---------
///        | instance | receive buffer | more ..
///        | 8        | 4              | ignored
///        +----------+----------------+---------
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponsePayload {
    /// Random at each start of the responder.
    pub instance: u64,
    /// The size of the responder's UDP receive buffer, in bytes.
    pub receive_buffer: u32,
}

impl ResponsePayload {
    /// Length on the wire, in bytes.
    pub(super) const LEN: usize = 12;

    pub(super) fn emit(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.instance.to_be_bytes());
        bytes[8..].copy_from_slice(&self.receive_buffer.to_be_bytes());
        bytes
    }

    /// `None` if it is cut off.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.first_chunk()?;
        Some(Self {
            instance: u64::from_be_bytes(field(bytes, 0)),
            receive_buffer: u32::from_be_bytes(field(bytes, 8)),
        })
    }
}

/// The `N` bytes at an offset that is known to be inside.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes")
}
