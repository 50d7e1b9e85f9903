//! Keys of a network that have followed each other.

use super::key::signed_bytes;
use super::{Delegation, NetworkKey, NetworkSecret, Refusal, UnixTime};
use crate::id::NetworkId;
use crate::wire::{ParseError, Reader};

const LABEL: &[u8] = b"peersock succession v1";

/// Statement of a network key that another key follows it.
///
/// ```text
/// offset  0         32                  40          104
///        +---------+-------------------+-----------+
///        | new key | end of the old    | signature |
///        | 32      | key 8             | 64        |
///        +---------+-------------------+-----------+
/// ```
///
/// The old key signs. It has no serial, because each key has one successor, and the credentials of the
/// largest member have no room for more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Succession {
    key: NetworkKey,
    end: UnixTime,
    signature: [u8; 64],
}

impl Succession {
    /// Length in bytes.
    pub const LEN: usize = NetworkKey::LEN + 8 + 64;

    /// Signs the statement that `key` follows the one of `old`. Delegations by the old key count until `end`.
    pub fn sign(old: &NetworkSecret, network: NetworkId, key: NetworkKey, end: UnixTime) -> Self {
        let mut succession = Self { key, end, signature: [0; 64] };
        succession.signature = old.sign(&signed_bytes(LABEL, network, &succession.body()));
        succession
    }

    /// Returns the new key.
    pub fn key(&self) -> &NetworkKey {
        &self.key
    }

    /// Returns the time until which delegations by the old key count.
    pub fn end(&self) -> UnixTime {
        self.end
    }

    fn is_by(&self, old: &NetworkKey, network: NetworkId) -> bool {
        old.verify(&signed_bytes(LABEL, network, &self.body()), &self.signature)
    }

    fn body(&self) -> Vec<u8> {
        [self.key.as_bytes().as_slice(), &self.end.as_millis().to_be_bytes()].concat()
    }

    /// Returns the bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.body().as_slice(), &self.signature].concat()
    }

    /// Parses the bytes, which have exactly one form. No signature is checked.
    ///
    /// # Errors
    /// Returns a [`ParseError`] if they are no succession.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader(bytes);
        let succession = Self::read(&mut reader)?;
        reader.end()?;
        Ok(succession)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self {
            key: NetworkKey::from_bytes(*reader.array()?).map_err(|_| ParseError::Value)?,
            end: UnixTime::from_millis(reader.u64()?),
            signature: *reader.array()?,
        })
    }
}

/// Keys of a network: the first one, to which its ID is bound for ever, and those that have followed it. The
/// signatures of all successions were checked.
///
/// The first successor of a key that a node learns is the only one that it accepts. The end of a key can come
/// earlier, and never later.
///
/// ```
/// use peersock_overlay::NetworkId;
/// use peersock_overlay::membership::{NetworkKeys, NetworkSecret, Refusal, Succession, UnixTime};
///
/// let network: NetworkId = "8056c2e21c000001".parse()?;
/// let [first, second, other] = [1, 2, 3].map(|seed| NetworkSecret::from_seed(&[seed; 32]));
/// let end = UnixTime::from_millis(1_800_000_000_000);
/// let to = |next: &NetworkSecret| vec![Succession::sign(&first, network, next.public(), end)];
///
/// let known = NetworkKeys::new(first.public()).extended(network, &to(&second))?;
/// assert_eq!(*known.last(), second.public());
/// assert_eq!(known.check(&first.public(), end), Err(Refusal::KeyEnded));
/// assert_eq!(known.extended(network, &to(&other)), Err(Refusal::OtherSuccession));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NetworkKeys {
    first: NetworkKey,
    successions: Vec<Succession>,
}

impl NetworkKeys {
    /// Maximum number of successions of one network.
    pub const MAX_SUCCESSIONS: usize = 3;

    /// Returns the keys of a network of which only the first one is known.
    pub fn new(first: NetworkKey) -> Self {
        Self { first, successions: Vec::new() }
    }

    /// Returns the first key, whose stretched hash is the network's ID.
    pub fn first(&self) -> &NetworkKey {
        &self.first
    }

    /// Returns the key that no known one has followed.
    pub fn last(&self) -> &NetworkKey {
        self.successions.last().map_or(&self.first, Succession::key)
    }

    /// Returns the successions in their order, at most [`Self::MAX_SUCCESSIONS`].
    pub fn successions(&self) -> &[Succession] {
        &self.successions
    }

    /// Returns these keys with those that successions from the first key on add. Costs one Ed25519 operation
    /// for each that is not known.
    ///
    /// # Errors
    /// Returns [`Refusal::OtherSuccession`] if one of these keys has also signed another successor, and
    /// [`Refusal::Issuer`] if a succession is not signed by the key before, or leads back.
    pub fn extended(&self, network: NetworkId, shown: &[Succession]) -> Result<Self, Refusal> {
        let mut keys = self.clone();
        for (at, link) in shown.iter().take(Self::MAX_SUCCESSIONS).enumerate() {
            let known = keys.successions.get(at);
            // Checked when it was learned, and members see it in all credentials.
            if known == Some(link) {
                continue;
            }
            let old = at.checked_sub(1).map_or(&keys.first, |before| &keys.successions[before].key);
            if !link.is_by(old, network) {
                return Err(Refusal::Issuer);
            }
            match known {
                // Of two ends the earlier one counts, so that a thief of the old key gains no time for it.
                Some(known) if known.key == link.key => {
                    if link.end < known.end {
                        keys.successions[at] = link.clone();
                    }
                }
                // Behind the check of the signature, so that only the holder of the key can alarm people.
                Some(_) => return Err(Refusal::OtherSuccession),
                // Each key has one end, so none can come twice.
                None if keys.rank(&link.key).is_some() => return Err(Refusal::Issuer),
                None => keys.successions.push(link.clone()),
            }
        }
        Ok(keys)
    }

    /// Returns true if a key is one of these.
    pub fn contains(&self, key: &NetworkKey) -> bool {
        self.rank(key).is_some()
    }

    /// Returns the number of known keys before this one; `None` if it is not known.
    pub(crate) fn rank(&self, key: &NetworkKey) -> Option<usize> {
        if self.first == *key {
            return Some(0);
        }
        self.successions.iter().position(|link| link.key == *key).map(|at| at + 1)
    }

    /// Returns the time from which delegations by a key no longer count; `None` if no key has followed it.
    ///
    /// A key ends at the latest when one of its successors does, so that a second rotation can end both.
    pub fn end_of(&self, key: &NetworkKey) -> Option<UnixTime> {
        let rank = self.rank(key)?;
        self.successions[rank..].iter().map(Succession::end).min()
    }

    /// Checks that delegations by a key count at a time.
    ///
    /// # Errors
    /// Returns [`Refusal::KeyEnded`] if they do not any more.
    pub fn check(&self, key: &NetworkKey, now: UnixTime) -> Result<(), Refusal> {
        if self.end_of(key).is_some_and(|end| end <= now) { Err(Refusal::KeyEnded) } else { Ok(()) }
    }

    /// Returns the known key that has signed a delegation, at the cost of up to four Ed25519 operations.
    pub fn signer_of(&self, delegation: &Delegation, network: NetworkId) -> Result<NetworkKey, Refusal> {
        // The newest first, because older ones sign no more.
        let newest_first = self.successions.iter().rev().map(Succession::key).chain([&self.first]);
        let mut signers = newest_first.filter(|key| delegation.verify(key, network).is_ok());
        signers.next().copied().ok_or(Refusal::Issuer)
    }
}
