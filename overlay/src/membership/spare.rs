use std::time::Duration;

use super::{Admission, Certificate, Credentials, Delegation, Serial, UnixTime};
use crate::id::{Identity, NetworkId};
use crate::wire::{ParseError, Reader};

/// Right of a member to renew certificates while it reaches no controller. Such a member is a *spare*: it has
/// no store, and repeats what a certificate says that counts.
///
/// ```text
/// delegation 145 | lifetime of a certificate 4 (seconds)
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spare {
    delegation: Delegation,
    lifetime: u32,
}

impl Spare {
    /// Length in bytes.
    pub const LEN: usize = Delegation::LEN + 4;

    /// Creates the right from a delegation with [`Rights::RENEWALS`](super::Rights::RENEWALS). The
    /// certificates last for `lifetime`, in whole seconds.
    pub fn new(delegation: Delegation, lifetime: Duration) -> Self {
        Self { delegation, lifetime: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX) }
    }

    /// Returns the delegation.
    pub fn delegation(&self) -> &Delegation {
        &self.delegation
    }

    /// Returns the lifetime of the certificates.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.lifetime.into())
    }

    /// Returns the bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        self.emit(&mut out);
        out
    }

    /// Appends the bytes to `out`.
    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        self.delegation.emit(out);
        out.extend_from_slice(&self.lifetime.to_be_bytes());
    }

    /// Parses the bytes. The signature is not checked.
    ///
    /// # Errors
    /// Returns a [`ParseError`] if they are no such right.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader(bytes);
        let spare = Self::read(&mut reader)?;
        reader.end()?;
        Ok(spare)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let delegation = Delegation::read(reader)?;
        if !delegation.rights().renews_only {
            return Err(ParseError::Value);
        }
        Ok(Self { delegation, lifetime: reader.u32()? })
    }

    /// Renews a member's credentials that count. `None` for those of a program, which its machine renews, and
    /// of an ephemeral member, whose addresses a controller gives on soon after the last certificate that it
    /// knows.
    pub(crate) fn renew(
        &self,
        identity: &Identity,
        network: NetworkId,
        admission: &Admission,
        now: UnixTime,
    ) -> Option<Credentials> {
        let (known, grant) = (admission.credentials(), admission.grant());
        if admission.is_process() || grant.is_ephemeral {
            return None;
        }
        // Not the time: a removal that a controller signs later is above it whatever the spare's clock says.
        let serial = Serial::next(UnixTime::default(), Some(known.certificate().serial()));
        // Never earlier than before: a member may last longer than those of which the lifetime is.
        let end = now.plus(self.lifetime()).max(known.certificate().end()).min(self.delegation.end());
        let lifetime = end.since(serial.time());
        let certificate = Certificate::sign(identity, network, grant.clone(), serial, lifetime).ok()?;
        Some(Credentials::new(*known.key(), self.delegation.clone(), certificate))
    }
}
