use std::time::Duration;

use super::certificate::text;
use super::key::signed_bytes;
use super::{MemberName, Refusal, Serial, UnixTime, label};
use crate::id::{Identity, NetworkId, NodeId, PublicIdentity};
use crate::wire::{ParseError, Reader};

const LABEL: &[u8] = b"peersock process certificate v1";

/// Statement of a member that a node is a program of its machine. The program has the member's rights, and
/// its own keys and self-certifying address.
///
/// ```text
/// the member's identity 64 | serial 8 | end 8 | length 1, label, if any | signature 64
/// ```
///
/// The node itself is not written, because the session shows it; the signature covers its ID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProcessCertificate {
    machine: PublicIdentity,
    label: Option<MemberName>,
    serial: Serial,
    end: UnixTime,
    signature: [u8; 64],
}

impl ProcessCertificate {
    /// Maximum lifetime. A revoked program whose machine is revoked too ends with the machine.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(3600);

    /// Maximum length in bytes.
    pub const MAX_LEN: usize = PublicIdentity::LEN + 8 + 8 + (1 + MemberName::MAX_LEN) + 64;

    /// Signs a certificate for the program with the keys `process`, which lasts for `lifetime`, at most
    /// [`Self::MAX_LIFETIME`]. With a label the program alone can be addressed: `label.machine`.
    pub fn sign(
        machine: &Identity,
        network: NetworkId,
        process: &NodeId,
        label: Option<MemberName>,
        serial: Serial,
        lifetime: Duration,
    ) -> Self {
        let end = serial.time().plus(lifetime.min(Self::MAX_LIFETIME));
        let mut certificate = Self { machine: *machine.public(), label, serial, end, signature: [0; 64] };
        certificate.signature = machine.sign(&signed_bytes(LABEL, network, &certificate.body(process)));
        certificate
    }

    /// Returns the member's public keys.
    pub fn machine(&self) -> &PublicIdentity {
        &self.machine
    }

    /// Returns the label under which the program alone is addressed.
    pub fn label(&self) -> Option<&MemberName> {
        self.label.as_ref()
    }

    /// Returns the serial.
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// Returns when the certificate ends.
    pub fn end(&self) -> UnixTime {
        self.end
    }

    /// Returns the end, or that of the longest lifetime if it is earlier: then the certificate never counts.
    pub(super) fn last_end(&self) -> UnixTime {
        self.end.min(self.serial.time().plus(Self::MAX_LIFETIME))
    }

    pub(crate) fn verify(&self, process: &NodeId, network: NetworkId) -> Result<(), Refusal> {
        let message = signed_bytes(LABEL, network, &self.body(process));
        if self.machine.verify(&message, &self.signature) { Ok(()) } else { Err(Refusal::Unauthentic) }
    }

    pub(crate) fn check_time(&self, now: UnixTime) -> Result<(), Refusal> {
        if !self.serial.has_begun(now) {
            return Err(Refusal::NotYetValid);
        }
        let is_short = self.end == self.last_end();
        if is_short && now < self.end { Ok(()) } else { Err(Refusal::Expired) }
    }

    fn fields(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(Self::MAX_LEN);
        fields.extend_from_slice(&self.machine.to_bytes());
        fields.extend_from_slice(&self.serial.as_u64().to_be_bytes());
        fields.extend_from_slice(&self.end.as_millis().to_be_bytes());
        match &self.label {
            Some(name) => label::emit(name.as_str(), &mut fields),
            None => fields.push(0),
        }
        fields
    }

    fn body(&self, process: &NodeId) -> Vec<u8> {
        [process.as_bytes(), self.fields().as_slice()].concat()
    }

    /// Returns the bytes, at most [`Self::MAX_LEN`].
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::MAX_LEN);
        self.emit(&mut out);
        out
    }

    /// Parses the bytes, which have exactly one form. No signature is checked.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader(bytes);
        let certificate = Self::read(&mut reader)?;
        reader.end()?;
        Ok(certificate)
    }

    /// Appends the certificate to `out`.
    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.fields());
        out.extend_from_slice(&self.signature);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self {
            machine: PublicIdentity::from_bytes(reader.array()?).map_err(|_| ParseError::Value)?,
            serial: Serial::from_u64(reader.u64()?),
            end: UnixTime::from_millis(reader.u64()?),
            label: match reader.0.first() {
                Some(0) => reader.u8().map(|_| None)?,
                _ => Some(text(reader)?),
            },
            signature: *reader.array()?,
        })
    }
}
