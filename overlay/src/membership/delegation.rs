use std::time::Duration;

use super::key::signed_bytes;
use super::{NetworkKey, NetworkSecret, Refusal, Serial, UnixTime};
use crate::id::{NetworkId, PublicIdentity};
use crate::wire::{ParseError, Reader};

const LABEL: &[u8] = b"peersock delegation v1";

/// Time before the end in which people are told to renew a delegation.
const ENDING: Duration = Duration::from_secs(60 * 86_400);

/// Rights of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rights {
    /// True if the issuer may sign certificates.
    pub issues: bool,
    /// True if the issuer may sign revocations.
    pub revokes: bool,
    /// True if the issuer only renews what members have, and does so while it reaches no other issuer. It
    /// admits no node and answers no look-ups. Members believe that: their signatures cannot show it.
    pub renews_only: bool,
}

impl Rights {
    /// All rights.
    pub const ALL: Self = Self { issues: true, revokes: true, renews_only: false };

    /// Rights of a [`Spare`](super::Spare). It signs an empty set of revocations, so that members know it.
    pub const RENEWALS: Self = Self { renews_only: true, ..Self::ALL };

    fn to_wire(self) -> u8 {
        u8::from(self.issues) | u8::from(self.revokes) << 1 | u8::from(self.renews_only) << 2
    }

    fn from_wire(byte: u8) -> Option<Self> {
        // Unknown rights are refused, because a statement has exactly one form.
        let rights = Self { issues: byte & 1 != 0, revokes: byte & 2 != 0, renews_only: byte & 4 != 0 };
        (byte <= 7 && (rights.issues || !rights.renews_only)).then_some(rights)
    }
}

/// Statement of the network key that a node is an issuer.
///
/// ```text
/// offset  0              64       72    80       81
///        +--------------+--------+-----+--------+-----------+
///        | the issuer's | serial | end | rights | signature |
///        | identity 64  | 8      | 8   | 1      | 64        |
///        +--------------+--------+-----+--------+-----------+
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Delegation {
    issuer: PublicIdentity,
    serial: Serial,
    end: UnixTime,
    rights: Rights,
    signature: [u8; 64],
}

impl Delegation {
    /// Length in bytes.
    pub const LEN: usize = PublicIdentity::LEN + 8 + 8 + 1 + 64;

    /// Signs a delegation that lasts for `lifetime` from its serial on.
    pub fn sign(
        secret: &NetworkSecret,
        network: NetworkId,
        issuer: PublicIdentity,
        serial: Serial,
        lifetime: Duration,
        rights: Rights,
    ) -> Self {
        let end = serial.time().plus(lifetime);
        let mut delegation = Self { issuer, serial, end, rights, signature: [0; 64] };
        delegation.signature = secret.sign(&signed_bytes(LABEL, network, &delegation.body()));
        delegation
    }

    /// Returns the issuer's public keys.
    pub fn issuer(&self) -> &PublicIdentity {
        &self.issuer
    }

    /// Returns the serial.
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// Returns when the delegation ends.
    pub fn end(&self) -> UnixTime {
        self.end
    }

    /// Returns true if somebody has to renew it soon: 60 days are left at most, and less than half of its
    /// lifetime. A controller that has the network's key renews it long before.
    pub fn is_ending(&self, now: UnixTime) -> bool {
        let (left, lifetime) = (self.end.since(now), self.end.since(self.serial.time()));
        left <= ENDING && left < lifetime / 2
    }

    /// Returns the issuer's rights.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// Checks the signature. The times are checked by [`Self::check_time`], because they change.
    pub(super) fn verify(&self, key: &NetworkKey, network: NetworkId) -> Result<(), Refusal> {
        let message = signed_bytes(LABEL, network, &self.body());
        if key.verify(&message, &self.signature) { Ok(()) } else { Err(Refusal::Issuer) }
    }

    pub(super) fn check_time(&self, now: UnixTime) -> Result<(), Refusal> {
        if !self.serial.has_begun(now) {
            return Err(Refusal::NotYetValid);
        }
        if now < self.end { Ok(()) } else { Err(Refusal::IssuerExpired) }
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(Self::LEN);
        body.extend_from_slice(&self.issuer.to_bytes());
        body.extend_from_slice(&self.serial.as_u64().to_be_bytes());
        body.extend_from_slice(&self.end.as_millis().to_be_bytes());
        body.push(self.rights.to_wire());
        body
    }

    /// Returns the bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        self.emit(&mut out);
        out
    }

    /// Parses the bytes. The signature is not checked.
    ///
    /// # Errors
    /// Returns a [`ParseError`] if they are no delegation.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader(bytes);
        let delegation = Self::read(&mut reader)?;
        reader.end()?;
        Ok(delegation)
    }

    /// Appends the delegation to `out`.
    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.body());
        out.extend_from_slice(&self.signature);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self {
            issuer: PublicIdentity::from_bytes(reader.array()?).map_err(|_| ParseError::Value)?,
            serial: Serial::from_u64(reader.u64()?),
            end: UnixTime::from_millis(reader.u64()?),
            rights: Rights::from_wire(reader.u8()?).ok_or(ParseError::Value)?,
            signature: *reader.array()?,
        })
    }
}
