//! Mutable items of the DHT (BEP 44), and how they are sealed.

use ed25519_dalek::{Signature, VerifyingKey};
use peersock_overlay::Identity;

use crate::keys::{Epoch, ItemSigner, Location, MeetingKeys};
use crate::record::Refused;
use crate::seal::{self, PLAIN_LEN};

/// A mutable item, as nodes of the DHT store it after checking its signature.
///
/// ```
/// use std::time::Duration;
/// use peersock_dht::{Item, Location, MeetingKeys};
/// use peersock_overlay::{DiscoveryKey, Identity, NetworkId};
///
/// let keys = MeetingKeys::new(&DiscoveryKey::new(NetworkId::ad_hoc(80..=80)?, None, None));
/// let node = Identity::from_seed(&[1; 32]);
/// let own = Location::Own(*node.public());
/// let epoch = keys.epoch(&own.owner(), Duration::ZERO);
/// let item = Item::new(&keys.signer(&own, epoch, &node).expect("its own"), 1, vec![0; 640]);
/// assert!(item.is_authentic());
/// # Ok::<(), peersock_overlay::ParseNetworkIdError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The Ed25519 key that signed it. The SHA-1 hash of the key is its place in the DHT.
    pub key: [u8; 32],
    /// The sequence number. Nodes of the DHT replace an item only by one with a higher number.
    pub sequence: i64,
    /// The value, without its bencoding.
    pub value: Vec<u8>,
    /// The signature of sequence and value.
    pub signature: [u8; 64],
}

impl Item {
    /// Signs an item.
    pub fn new(signer: &ItemSigner, sequence: i64, value: Vec<u8>) -> Self {
        let signature = signer.sign(&signable(sequence, &value));
        Self { key: signer.public(), sequence, value, signature }
    }

    /// Returns true if the signature is valid.
    pub fn is_authentic(&self) -> bool {
        VerifyingKey::from_bytes(&self.key).is_ok_and(|key| {
            let signature = Signature::from_bytes(&self.signature);
            key.verify_strict(&signable(self.sequence, &self.value), &signature).is_ok()
        })
    }
}

impl MeetingKeys {
    /// Seals a record or knock for a location, with 32 random bytes, as the item that the DHT stores there.
    /// Returns `None` if only another node may write there.
    pub fn seal(
        &self,
        location: &Location,
        epoch: Epoch,
        own: &Identity,
        sequence: i64,
        plain: &[u8; PLAIN_LEN],
        random: &[u8; 32],
    ) -> Option<Item> {
        let signer = self.signer(location, epoch, own)?;
        let key = self.seal_key(&location.owner(), epoch);
        let sealed = seal::seal(&key, &signer.public(), plain, random);
        Some(Item::new(&signer, sequence, sealed.to_vec()))
    }

    /// Opens an item that was sealed for a location.
    /// Errors: [`Refused::Signature`] or [`Refused::Sealed`].
    pub fn open(&self, location: &Location, epoch: Epoch, item: &Item) -> Result<[u8; PLAIN_LEN], Refused> {
        let key = self.public(location, epoch);
        if item.key != key || !item.is_authentic() {
            return Err(Refused::Signature);
        }
        seal::open(&self.seal_key(&location.owner(), epoch), &key, &item.value).ok_or(Refused::Sealed)
    }
}

/// Returns the signed bytes (BEP 44, without salt): the bencoded pairs without the dictionary around them.
fn signable(sequence: i64, value: &[u8]) -> Vec<u8> {
    let mut out = format!("3:seqi{sequence}e1:v{}:", value.len()).into_bytes();
    out.extend_from_slice(value);
    out
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    #[test]
    fn the_test_vector_of_bep_44_is_authentic() {
        // BEP 44, test 1: mutable, without salt.
        let mut item = Item {
            key: hex!("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548"),
            sequence: 1,
            value: b"Hello World!".to_vec(),
            signature: hex!(
                "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff"
                "1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01"
            ),
        };
        assert!(item.is_authentic());
        item.sequence = 2;
        assert!(!item.is_authentic());
    }
}
