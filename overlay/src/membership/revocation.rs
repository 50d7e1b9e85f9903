//! Revocations, and the signed head by which nodes notice that they lack some.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::key::signed_bytes;
use super::{CLOCK_TOLERANCE, Delegation, NetworkKey, NetworkKeys, Refusal, Serial, UnixTime};
use crate::crypto::hash;
use crate::id::{Identity, NetworkId, NodeId};
use crate::wire::{ParseError, Reader};

const HASH_LABEL: &[u8] = b"peersock revocation set v1";
const HEAD_LABEL: &[u8] = b"peersock revocations v1";

/// Statement that certificates of a node no longer count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revocation {
    /// Lowest serial that counts. A node that is admitted again gets a certificate with a larger one.
    pub min_serial: Serial,
    /// Time at which the last certificate with a lower serial ends, so that no node needs the statement any
    /// more.
    pub until: UnixTime,
}

/// Revocations of a network, by node. Issuers and programs can be revoked like members.
///
/// They are the bytes that issuers sign, and copies share them: a set of 10,000 takes half a megabyte.
#[derive(Clone, PartialEq, Eq)]
pub struct Revocations(Arc<[u8]>);

impl Default for Revocations {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Makes a set of many entries at once. Of two entries of a node, what goes further counts.
impl FromIterator<(NodeId, Revocation)> for Revocations {
    fn from_iter<I: IntoIterator<Item = (NodeId, Revocation)>>(entries: I) -> Self {
        let mut by_node = BTreeMap::new();
        for (node, revocation) in entries {
            by_node
                .entry(node)
                .and_modify(|entry: &mut Revocation| entry.extend(&revocation))
                .or_insert(revocation);
        }
        Self::of(by_node.into_iter())
    }
}

impl Revocation {
    /// Makes the statement go as far as another one about the same node.
    fn extend(&mut self, other: &Self) {
        self.min_serial = self.min_serial.max(other.min_serial);
        self.until = self.until.max(other.until);
    }
}

impl Revocations {
    /// Length of one entry in bytes: a node ID, a serial and a time.
    pub const ENTRY_LEN: usize = 32 + 8 + 8;

    /// Maximum number of entries that a node accepts.
    pub const MAX_ENTRIES: usize = 10_000;

    /// Makes the set of entries in ascending order of their nodes.
    fn of(entries: impl Iterator<Item = (NodeId, Revocation)>) -> Self {
        let mut out = Vec::with_capacity(entries.size_hint().0 * Self::ENTRY_LEN);
        for (node, revocation) in entries {
            out.extend_from_slice(node.as_bytes());
            out.extend_from_slice(&revocation.min_serial.as_u64().to_be_bytes());
            out.extend_from_slice(&revocation.until.as_millis().to_be_bytes());
        }
        Self(out.into())
    }

    fn entries(&self) -> &[[u8; Self::ENTRY_LEN]] {
        self.0.as_chunks().0
    }

    fn place_of(&self, node: &NodeId) -> Option<usize> {
        self.entries().binary_search_by(|entry| entry[..32].cmp(node.as_bytes())).ok()
    }

    fn get(&self, node: &NodeId) -> Option<Revocation> {
        self.place_of(node).map(|at| read_entry(&self.entries()[at]).1)
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Returns true if no node is revoked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the entries in ascending order of their nodes.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Revocation)> {
        self.entries().iter().map(read_entry)
    }

    /// Returns true if a statement about `node` with this serial no longer counts.
    pub fn covers(&self, node: &NodeId, serial: Serial) -> bool {
        self.get(node).is_some_and(|revocation| serial < revocation.min_serial)
    }

    /// Adds an entry, at the cost of a copy of the set. What is there stays unless the new entry goes
    /// further, so no later statement can take a revocation back.
    pub fn add(&mut self, node: NodeId, revocation: Revocation) {
        self.merge(&Self::of(std::iter::once((node, revocation))));
    }

    /// Adds all entries of another set. Returns true if that changed anything.
    pub fn merge(&mut self, other: &Self) -> bool {
        let (mut mine, mut others) = (self.iter().peekable(), other.iter().peekable());
        let next = move || match (mine.peek(), others.peek()) {
            (Some((node, _)), Some((other, _))) if node == other => {
                let ((node, mut entry), (_, other)) = (mine.next()?, others.next()?);
                entry.extend(&other);
                Some((node, entry))
            }
            (Some((node, _)), Some((other, _))) if other < node => others.next(),
            (None, _) => others.next(),
            _ => mine.next(),
        };
        let merged = Self::of(std::iter::from_fn(next));
        let has_changed = merged != *self;
        // Shared with the newest set that says all.
        if merged == *other {
            *self = other.clone();
        } else if has_changed {
            *self = merged;
        }
        has_changed
    }

    /// Returns the entries that go further than those of another set.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Self {
        let goes_further = |node: &NodeId, one: &Revocation| {
            other.get(node).is_none_or(|known| known.min_serial < one.min_serial || known.until < one.until)
        };
        Self::of(self.iter().filter(|(node, one)| goes_further(node, one)))
    }

    /// Keeps an entry, if there is one, until the last of these statements that it covers has ended for all
    /// clocks.
    pub(crate) fn keep(&mut self, node: &NodeId, statements: &[(Serial, UnixTime)]) {
        let Some(at) = self.place_of(node) else { return };
        let (_, entry) = read_entry(&self.entries()[at]);
        // A removed node may sign for any later time, and no node accepts these ends.
        let covered = statements.iter().filter(|(serial, _)| *serial < entry.min_serial);
        let Some(until) = covered.map(|(_, end)| end.plus(CLOCK_TOLERANCE)).max() else { return };
        if entry.until < until {
            let end = (at + 1) * Self::ENTRY_LEN;
            Arc::make_mut(&mut self.0)[end - 8..end].copy_from_slice(&until.as_millis().to_be_bytes());
        }
    }

    /// Forgets the entries that no node needs any more.
    pub fn forget(&mut self, now: UnixTime) {
        if self.iter().any(|(_, revocation)| revocation.until <= now) {
            *self = Self::of(self.iter().filter(|(_, revocation)| now < revocation.until));
        }
    }

    /// Returns the set's bytes: the entries in ascending order of their nodes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// Returns the same bytes without a copy.
    pub(crate) fn shared(&self) -> Arc<[u8]> {
        Arc::clone(&self.0)
    }

    /// Parses the bytes of a set, which has exactly one form.
    ///
    /// # Errors
    /// Returns a [`ParseError`] for bytes that [`Self::to_bytes`] does not make, and for too many entries.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        Self::parse_shared(bytes.into())
    }

    fn parse_shared(bytes: Arc<[u8]>) -> Result<Self, ParseError> {
        let (entries, rest) = bytes.as_chunks::<{ Self::ENTRY_LEN }>();
        if !rest.is_empty() || entries.len() > Self::MAX_ENTRIES {
            return Err(ParseError::Length);
        }
        if !entries.is_sorted_by(|one, next| one[..32] < next[..32]) {
            return Err(ParseError::Value);
        }
        Ok(Self(bytes))
    }

    fn hash(&self) -> [u8; 32] {
        hash::hash(&[HASH_LABEL, &self.0])
    }
}

fn read_entry(bytes: &[u8; Revocations::ENTRY_LEN]) -> (NodeId, Revocation) {
    let (node, rest) = bytes.split_first_chunk().expect("an entry begins with a node ID");
    let [min_serial, until] = rest.as_chunks().0 else { unreachable!("an entry ends with two numbers") };
    let revocation = Revocation {
        min_serial: Serial::from_u64(u64::from_be_bytes(*min_serial)),
        until: UnixTime::from_millis(u64::from_be_bytes(*until)),
    };
    (NodeId::from_bytes(*node), revocation)
}

/// Signed statement of an issuer about all revocations of the network at one time. Its epoch grows with each
/// change, so a node that hears of a larger one of this issuer knows that it lacks something. Epochs of two
/// issuers say nothing about each other: else a stolen key would hide what the others sign.
///
/// ```text
/// delegation 145 | epoch 8 | time 8 | number of entries 4 | hash of the set 32 | signature 64
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Head {
    delegation: Delegation,
    epoch: u64,
    time: UnixTime,
    entries: u32,
    hash: [u8; 32],
    signature: [u8; 64],
}

impl Head {
    /// Length in bytes.
    pub const LEN: usize = Delegation::LEN + 8 + 8 + 4 + 32 + 64;

    /// Signs a head for a set, by the issuer that the delegation names.
    pub fn sign(
        issuer: &Identity,
        delegation: Delegation,
        network: NetworkId,
        epoch: u64,
        time: UnixTime,
        set: &Revocations,
    ) -> Self {
        let entries = u32::try_from(set.len()).unwrap_or(u32::MAX);
        let mut head = Self { delegation, epoch, time, entries, hash: set.hash(), signature: [0; 64] };
        head.signature = issuer.sign(&signed_bytes(HEAD_LABEL, network, &head.body()));
        head
    }

    /// Returns the number that grows with each change.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns when the head was signed.
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

    /// Returns true if another head is about the same set.
    pub fn has_set_of(&self, other: &Self) -> bool {
        (self.entries, self.hash) == (other.entries, other.hash)
    }

    /// Returns the length of the set in bytes.
    pub fn set_len(&self) -> usize {
        self.entries as usize * Revocations::ENTRY_LEN
    }

    /// Returns the beginning of the set's hash, which tells two sets of one epoch apart.
    pub fn digest(&self) -> [u8; 8] {
        *self.hash.first_chunk().expect("a hash has 32 bytes")
    }

    /// Returns true if this head is newer than another one of the same issuer.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        other.is_older_than(self.epoch, self.digest())
    }

    /// Returns true if another head of the same issuer with this epoch and digest is newer. Of two heads of
    /// one epoch, which a stolen key or a restored store can make, all nodes prefer the same one.
    pub fn is_older_than(&self, epoch: u64, digest: [u8; 8]) -> bool {
        (self.epoch, self.digest()) < (epoch, digest)
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
        // An epoch beyond the time would leave no room for later heads, so that no removal would count again.
        let is_too_late = self.epoch > self.time.as_millis();
        let rights = self.delegation.rights();
        // A spare removes no member, also if its key is stolen.
        if !rights.revokes
            || rights.renews_only && self.entries > 0
            || self.entries as usize > Revocations::MAX_ENTRIES
            || is_too_late
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
        let message = signed_bytes(HEAD_LABEL, network, &self.body());
        match self.delegation.issuer().verify(&message, &self.signature) {
            true => Ok(key),
            false => Err(Refusal::Unauthentic),
        }
    }

    /// Returns the set that the bytes are, if it is the one of this head. Entries that name serials after
    /// the head's time count up to it, so that no issuer can exclude a node for ever.
    pub fn read_set(&self, bytes: &[u8]) -> Option<Revocations> {
        self.read_shared(bytes.into())
    }

    /// Returns the same without a copy of the bytes.
    pub(crate) fn read_shared(&self, bytes: Arc<[u8]>) -> Option<Revocations> {
        let set = Revocations::parse_shared(bytes).ok()?;
        if set.len() != self.entries as usize || set.hash() != self.hash {
            return None;
        }
        let last = Serial::next(self.time, Some(Serial::from_u64(self.time.as_millis())));
        if set.iter().all(|(_, entry)| entry.min_serial <= last) {
            return Some(set);
        }
        let limited = |entry: Revocation| Revocation { min_serial: entry.min_serial.min(last), ..entry };
        Some(Revocations::of(set.iter().map(|(node, entry)| (node, limited(entry)))))
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(Self::LEN);
        self.delegation.emit(&mut body);
        body.extend_from_slice(&self.epoch.to_be_bytes());
        body.extend_from_slice(&self.time.as_millis().to_be_bytes());
        body.extend_from_slice(&self.entries.to_be_bytes());
        body.extend_from_slice(&self.hash);
        body
    }

    /// Returns the bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.body().as_slice(), &self.signature].concat()
    }

    /// Parses the bytes. No signature is checked.
    ///
    /// # Errors
    /// Returns a [`ParseError`] if they are no head.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader(bytes);
        let head = Self {
            delegation: Delegation::read(&mut reader)?,
            epoch: reader.u64()?,
            time: UnixTime::from_millis(reader.u64()?),
            entries: reader.u32()?,
            hash: *reader.array()?,
            signature: *reader.array()?,
        };
        reader.end()?;
        Ok(head)
    }
}
