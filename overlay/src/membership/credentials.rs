use std::sync::Arc;

use super::{
    Certificate, Delegation, Grant, MemberName, NetworkKey, NetworkKeys, ProcessCertificate, Refusal,
    Revocations, Serial, Succession, UnixTime,
};
use crate::id::{NetworkId, NodeId, PublicIdentity};
use crate::wire::{ParseError, Reader};

const VERSION: u8 = 1;
/// Flag of credentials that end with a process certificate.
const OF_PROCESS: u8 = 1;
/// Flag of credentials with successions of the network key.
const WITH_SUCCESSIONS: u8 = 2;

/// All statements that lead from the network key to one node.
///
/// ```text
/// version 1 | flags 1: bit 0 with a process certificate, bit 1 with successions | network key 32
///   | number of successions 1 and 104 for each, if any | delegation 145 | certificate
///   | process certificate, if any
/// ```
///
/// The network key is the first one. With successions, the key of the last one has signed the delegation.
/// Without, it is any key that the reader knows; who knows the first one alone accepts no other.
///
/// The bytes say by themselves who is a member, and need no announcement of issuers: an unknown issuer's
/// delegation comes with them. They prove nothing about who shows them; the session does.
///
/// ```
/// use std::time::Duration;
/// use peersock_overlay::membership::{
///     Certificate, Credentials, Delegation, Grant, NetworkSecret, Revocations, Rights, Serial, UnixTime,
/// };
/// use peersock_overlay::{Identity, NetworkId};
///
/// let (secret, network) = (NetworkSecret::from_seed(&[1; 32]), "8056c2e21c000001".parse::<NetworkId>()?);
/// let (controller, node) = (Identity::from_seed(&[2; 32]), Identity::from_seed(&[3; 32]));
/// let now = UnixTime::from_millis(1_800_000_000_000);
/// let (serial, day) = (Serial::next(now, None), Duration::from_secs(86_400));
///
/// let delegation =
///     Delegation::sign(&secret, network, *controller.public(), serial, 365 * day, Rights::ALL);
/// let grant = Grant::new(node.node_id(), "alpha".parse()?);
/// let certificate = Certificate::sign(&controller, network, grant, serial, day)?;
/// let credentials = Credentials::new(secret.public(), delegation, certificate);
///
/// let read = Credentials::parse(&credentials.to_bytes())?;
/// let admission = read.authenticate(&secret.public(), network, &node.node_id())?;
/// assert!(admission.check(now, &Revocations::default()).is_ok());
/// assert!(admission.check(now.plus(day), &Revocations::default()).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    key: NetworkKey,
    successions: Vec<Succession>,
    /// Shared, because members know many credentials of one issuer.
    delegation: Arc<Delegation>,
    certificate: Certificate,
    process: Option<Box<ProcessCertificate>>,
}

impl Credentials {
    /// Maximum length in bytes. A datagram of 1,200 bytes has room for them.
    pub const MAX_LEN: usize = Self::MAX_LEN_ALONE + 1 + NetworkKeys::MAX_SUCCESSIONS * Succession::LEN;

    /// Maximum length without successions.
    pub(crate) const MAX_LEN_ALONE: usize =
        2 + NetworkKey::LEN + Delegation::LEN + Certificate::MAX_LEN + ProcessCertificate::MAX_LEN;

    /// Combines the statements about a member of a network whose key has not changed. It checks none of them.
    pub fn new(key: NetworkKey, delegation: Delegation, certificate: Certificate) -> Self {
        Self { key, successions: Vec::new(), delegation: Arc::new(delegation), certificate, process: None }
    }

    /// Returns the credentials with successions that lead from the first key to the one that has signed the
    /// delegation, at most [`NetworkKeys::MAX_SUCCESSIONS`].
    #[must_use]
    pub fn with_successions(&self, successions: &[Succession]) -> Self {
        let successions = successions.iter().take(NetworkKeys::MAX_SUCCESSIONS).cloned().collect();
        Self { successions, ..self.clone() }
    }

    /// Returns the credentials of a program of this member.
    #[must_use]
    pub fn of_process(&self, process: ProcessCertificate) -> Self {
        Self { process: Some(Box::new(process)), ..self.clone() }
    }

    /// Returns the network's first key that the credentials claim.
    pub fn key(&self) -> &NetworkKey {
        &self.key
    }

    /// Returns the successions of the network key that the credentials claim.
    pub fn successions(&self) -> &[Succession] {
        &self.successions
    }

    /// Returns the issuer's delegation.
    pub fn delegation(&self) -> &Delegation {
        &self.delegation
    }

    /// Returns the member's certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Returns the certificate of the program that shows the credentials, if it is not the member itself.
    pub fn process(&self) -> Option<&ProcessCertificate> {
        self.process.as_deref()
    }

    /// Returns the bytes, at most [`Self::MAX_LEN`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::MAX_LEN);
        let of_process = if self.process.is_some() { OF_PROCESS } else { 0 };
        let with_successions = if self.successions.is_empty() { 0 } else { WITH_SUCCESSIONS };
        out.extend_from_slice(&[VERSION, of_process | with_successions]);
        out.extend_from_slice(self.key.as_bytes());
        if !self.successions.is_empty() {
            out.push(self.successions.len() as u8);
            self.successions.iter().for_each(|one| out.extend_from_slice(&one.to_bytes()));
        }
        self.delegation.emit(&mut out);
        self.certificate.emit(&mut out);
        if let Some(process) = &self.process {
            process.emit(&mut out);
        }
        out
    }

    /// Parses the bytes. Credentials have exactly one form.
    ///
    /// # Errors
    /// Returns a [`ParseError`] if the bytes are not in it. No signature is checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader(bytes);
        match reader.u8()? {
            VERSION => {}
            other => return Err(ParseError::Version(other)),
        }
        let flags = reader.u8()?;
        if flags & !(OF_PROCESS | WITH_SUCCESSIONS) != 0 {
            return Err(ParseError::Value);
        }
        let key = NetworkKey::from_bytes(*reader.array()?).map_err(|_| ParseError::Value)?;
        let count = if flags & WITH_SUCCESSIONS != 0 { reader.u8()? } else { 0 };
        if usize::from(count) > NetworkKeys::MAX_SUCCESSIONS || (flags & WITH_SUCCESSIONS != 0 && count == 0)
        {
            return Err(ParseError::Value);
        }
        let successions: Result<_, _> = (0..count).map(|_| Succession::read(&mut reader)).collect();
        let successions = successions?;
        let delegation = Arc::new(Delegation::read(&mut reader)?);
        let certificate = Certificate::read(&mut reader)?;
        let process = if flags & OF_PROCESS != 0 {
            Some(Box::new(ProcessCertificate::read(&mut reader)?))
        } else {
            None
        };
        reader.end()?;
        Ok(Self { key, successions, delegation, certificate, process })
    }

    /// Returns when a controller has issued the certificate, which the member has heard then; `None` if the
    /// member is the controller itself.
    pub fn heard(&self) -> Option<UnixTime> {
        let is_own = self.delegation.issuer().node_id() == self.certificate.grant().node;
        (!is_own).then(|| self.certificate.serial().time())
    }

    /// Returns when the first of the statements ends.
    pub fn end(&self) -> UnixTime {
        let process = self.process().map(ProcessCertificate::end);
        let own = self.delegation.end().min(self.certificate.end());
        process.map_or(own, |end| end.min(own))
    }

    /// Checks all signatures as somebody who knows the network's first key alone.
    ///
    /// # Errors
    /// Returns the statement that does not hold, as a [`Refusal`].
    pub fn authenticate(
        &self,
        key: &NetworkKey,
        network: NetworkId,
        holder: &NodeId,
    ) -> Result<Admission, Refusal> {
        self.authenticate_by(&NetworkKeys::new(*key), network, holder).map(|(admission, _)| admission)
    }

    /// Checks all signatures, at the cost of two or three Ed25519 operations, and of up to three others for
    /// keys that are not known. Returns the keys that are known from now on, too. The admission still has to
    /// be checked against revocations and the time, also the end of the key that has made the issuer.
    ///
    /// # Errors
    /// Returns the statement that does not hold, as a [`Refusal`].
    pub fn authenticate_by(
        &self,
        keys: &NetworkKeys,
        network: NetworkId,
        holder: &NodeId,
    ) -> Result<(Admission, NetworkKeys), Refusal> {
        if self.key != *keys.first() {
            return Err(Refusal::OtherNetwork);
        }
        let grant = self.certificate.grant();
        let machine = self.process.as_ref().map_or(*holder, |process| process.machine().node_id());
        if grant.node != machine {
            return Err(Refusal::Holder);
        }
        if !self.delegation.rights().issues {
            return Err(Refusal::Issuer);
        }
        let keys = keys.extended(network, &self.successions)?;
        let signer = match self.successions.last() {
            Some(last) => self.delegation.verify(last.key(), network).map(|()| *last.key())?,
            None => keys.signer_of(&self.delegation, network)?,
        };
        self.certificate.verify(self.delegation.issuer(), network)?;
        if let Some(process) = &self.process {
            process.verify(holder, network)?;
        }
        Ok((Admission { credentials: self.clone(), holder: *holder, signer }, keys))
    }
}

/// Credentials whose signatures are right, and the node that has shown them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    credentials: Credentials,
    holder: NodeId,
    signer: NetworkKey,
}

impl Admission {
    /// Returns the credentials.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Shares the delegation with another admission by the same one.
    pub(crate) fn share_with(&mut self, other: &Self) {
        if self.credentials.delegation == other.credentials.delegation {
            self.credentials.delegation = Arc::clone(&other.credentials.delegation);
        }
    }

    /// Returns the network key that has made the issuer. [`NetworkKeys::check`] says whether it still counts.
    pub fn signer(&self) -> &NetworkKey {
        &self.signer
    }

    /// Returns the node that is admitted: the member, or a program of it.
    pub fn holder(&self) -> &NodeId {
        &self.holder
    }

    /// Returns the content of the member's certificate.
    pub fn grant(&self) -> &Grant {
        self.credentials.certificate.grant()
    }

    /// Returns true if the node is a program with its own keys, and not the member's shared node.
    pub fn is_process(&self) -> bool {
        self.credentials.process.is_some()
    }

    /// Returns the label under which the program alone is addressed.
    pub fn label(&self) -> Option<&MemberName> {
        self.credentials.process.as_ref()?.label()
    }

    /// Returns true if the node may issue certificates: it is its own issuer.
    pub fn is_issuer(&self) -> bool {
        self.credentials.delegation.issuer().node_id() == self.holder
    }

    /// Returns the public keys of the issuer.
    pub fn issuer(&self) -> &PublicIdentity {
        self.credentials.delegation.issuer()
    }

    /// Returns when the first of the statements ends.
    pub fn end(&self) -> UnixTime {
        self.credentials.end()
    }

    /// Returns the statements about the member, with their serials and the ends until which they can count.
    pub(crate) fn statements(&self) -> Vec<(Serial, UnixTime)> {
        let Credentials { certificate, process, .. } = &self.credentials;
        let of_process = process.as_deref().map(|process| (process.serial(), process.last_end()));
        std::iter::once((certificate.serial(), certificate.end())).chain(of_process).collect()
    }

    /// Returns the newest time that an issuer has signed. No clock that is right shows an earlier one, apart
    /// from the tolerance.
    pub fn signed_time(&self) -> UnixTime {
        self.credentials.certificate.serial().time().max(self.credentials.delegation.serial().time())
    }

    /// Checks the statements against the time and the revocations.
    ///
    /// # Errors
    /// Returns the first reason for which the node is no member now, as a [`Refusal`].
    pub fn check(&self, now: UnixTime, revoked: &Revocations) -> Result<(), Refusal> {
        let Credentials { delegation, certificate, process, .. } = &self.credentials;
        let mut named: Vec<(NodeId, Serial)> = vec![
            (delegation.issuer().node_id(), delegation.serial()),
            (certificate.grant().node, certificate.serial()),
        ];
        // A removal of the machine ends what it has signed until then, also beside a later certificate.
        let of_process = |process: &ProcessCertificate| {
            [self.holder, certificate.grant().node].map(|node| (node, process.serial()))
        };
        named.extend(process.as_deref().map(of_process).into_iter().flatten());
        // First, because a revoked node must not hear that it only has to renew.
        if named.iter().any(|(node, serial)| revoked.covers(node, *serial)) {
            return Err(Refusal::Revoked);
        }
        delegation.check_time(now)?;
        certificate.check_time(now)?;
        process.as_ref().map_or(Ok(()), |process| process.check_time(now))
    }
}
