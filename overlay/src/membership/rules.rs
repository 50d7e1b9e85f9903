//! Statement of an issuer about the access rules of a network. The rules themselves are bytes that only the
//! layer above reads.

use std::sync::Arc;

use super::key::signed_bytes;
use super::{Delegation, NetworkKey, NetworkKeys, Refusal, Revocations, Serial, UnixTime};
use crate::crypto::hash;
use crate::id::{Identity, NetworkId, NodeId};
use crate::wire::{ParseError, Reader};

const LABEL: &[u8] = b"peersock rules v1";
const HASH_LABEL: &[u8] = b"peersock rules hash v1";

/// Order of the statements about rules in a network: the later version counts, then the later time, then the
/// greater hash. So all nodes prefer the same one of two that a stolen key or a restored store has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RulesRank {
    /// Version of the rules.
    pub version: u64,
    /// Time at which the statement was signed.
    pub time: UnixTime,
    /// First bytes of the hash of the rules.
    pub digest: [u8; 16],
}

impl RulesRank {
    /// Length in bytes.
    pub const LEN: usize = 8 + 8 + 16;

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self {
            version: reader.u64()?,
            time: UnixTime::from_millis(reader.u64()?),
            digest: *reader.array()?,
        })
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(&self.time.as_millis().to_be_bytes());
        out.extend_from_slice(&self.digest);
    }
}

/// Signed statement of an issuer that these are the access rules of the network. It is the beginning of what
/// a member fetches: the rules follow.
///
/// ```text
/// delegation 145 | version 8 | time 8 | length of the rules 4 | hash of the rules 32 | signature 64
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RulesHead {
    delegation: Delegation,
    version: u64,
    time: UnixTime,
    length: u32,
    hash: [u8; 32],
    signature: [u8; 64],
}

impl RulesHead {
    /// Length in bytes.
    pub const LEN: usize = Delegation::LEN + 8 + 8 + 4 + 32 + 64;

    /// Maximum length of the rules in bytes.
    pub const MAX_RULES_LEN: usize = 65_536;

    /// Signs rules, by the issuer that the delegation names. Rules that are too long count nowhere.
    pub fn sign(
        issuer: &Identity,
        delegation: Delegation,
        network: NetworkId,
        version: u64,
        time: UnixTime,
        rules: &[u8],
    ) -> Self {
        let length = u32::try_from(rules.len()).unwrap_or(u32::MAX);
        let hash = hash::hash(&[HASH_LABEL, rules]);
        let mut head = Self { delegation, version, time, length, hash, signature: [0; 64] };
        head.signature = issuer.sign(&signed_bytes(LABEL, network, &head.body()));
        head
    }

    /// Returns the version, which grows with each change of the rules: the milliseconds of the Unix time at
    /// which the rules were applied, or a little more.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns when the statement was signed.
    pub fn time(&self) -> UnixTime {
        self.time
    }

    /// Returns the delegation of the issuer that has signed.
    pub fn delegation(&self) -> &Delegation {
        &self.delegation
    }

    /// Returns the node that has signed.
    pub fn issuer(&self) -> NodeId {
        self.delegation.issuer().node_id()
    }

    /// Returns the place of the statement among others.
    pub fn rank(&self) -> RulesRank {
        let digest = *self.hash.first_chunk().expect("a hash has 32 bytes");
        RulesRank { version: self.version, time: self.time, digest }
    }

    /// Returns the length of the rules in bytes.
    pub fn rules_len(&self) -> usize {
        self.length as usize
    }

    /// Returns true if these are the rules of the statement.
    pub fn is_about(&self, rules: &[u8]) -> bool {
        rules.len() == self.length as usize && hash::hash(&[HASH_LABEL, rules]) == self.hash
    }

    /// Checks the signatures and the time, for a node that knows these keys of the network. Returns the key
    /// that has made the issuer.
    ///
    /// # Errors
    /// Returns the statement that does not hold, as a [`Refusal`].
    pub fn verify(
        &self,
        keys: &NetworkKeys,
        network: NetworkId,
        now: UnixTime,
        revoked: &Revocations,
    ) -> Result<NetworkKey, Refusal> {
        // A version beyond the time would leave no room for later rules. Rules both admit and remove, so an
        // issuer needs both rights.
        let rights = self.delegation.rights();
        if !(rights.issues && rights.revokes && !rights.renews_only)
            || self.length as usize > Self::MAX_RULES_LEN
            || self.version > self.time.as_millis()
        {
            return Err(Refusal::Issuer);
        }
        if revoked.covers(&self.issuer(), self.delegation.serial()) {
            return Err(Refusal::Revoked);
        }
        self.delegation.check_time(now)?;
        if !Serial::from_u64(self.time.as_millis()).has_begun(now) {
            return Err(Refusal::NotYetValid);
        }
        let key = keys.signer_of(&self.delegation, network)?;
        keys.check(&key, now)?;
        let message = signed_bytes(LABEL, network, &self.body());
        match self.delegation.issuer().verify(&message, &self.signature) {
            true => Ok(key),
            false => Err(Refusal::Unauthentic),
        }
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(Self::LEN);
        self.delegation.emit(&mut body);
        body.extend_from_slice(&self.version.to_be_bytes());
        body.extend_from_slice(&self.time.as_millis().to_be_bytes());
        body.extend_from_slice(&self.length.to_be_bytes());
        body.extend_from_slice(&self.hash);
        body
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self {
            delegation: Delegation::read(reader)?,
            version: reader.u64()?,
            time: UnixTime::from_millis(reader.u64()?),
            length: reader.u32()?,
            hash: *reader.array()?,
            signature: *reader.array()?,
        })
    }

    /// Parses the statement at the beginning of some bytes. No signature is checked.
    ///
    /// # Errors
    /// Returns a [`ParseError`] if there is none.
    pub fn parse_start(bytes: &[u8]) -> Result<Self, ParseError> {
        Self::read(&mut Reader(bytes))
    }
}

/// Access rules of a network, as an issuer has signed them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRules {
    head: RulesHead,
    /// The statement and then the rules, as they are sent and kept.
    bytes: Arc<[u8]>,
}

impl SignedRules {
    /// Maximum length of the bytes.
    pub const MAX_LEN: usize = RulesHead::LEN + RulesHead::MAX_RULES_LEN;

    /// Joins a statement and its rules.
    pub fn new(head: RulesHead, rules: &[u8]) -> Self {
        let bytes = [head.body().as_slice(), &head.signature, rules].concat().into();
        Self { head, bytes }
    }

    /// Parses the bytes. No signature is checked.
    ///
    /// # Errors
    /// Returns a [`ParseError`] if they are no statement and exactly its rules.
    pub fn parse(bytes: Arc<[u8]>) -> Result<Self, ParseError> {
        let mut reader = Reader(&bytes);
        let head = RulesHead::read(&mut reader)?;
        // Before the hash, which costs time for each byte.
        if reader.0.len() > RulesHead::MAX_RULES_LEN {
            return Err(ParseError::Length);
        }
        if !head.is_about(reader.0) {
            return Err(ParseError::Value);
        }
        Ok(Self { head, bytes })
    }

    /// Returns the statement.
    pub fn head(&self) -> &RulesHead {
        &self.head
    }

    /// Returns the rules.
    pub fn rules(&self) -> &[u8] {
        &self.bytes[RulesHead::LEN..]
    }

    /// Returns the statement and the rules.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }
}
