//! Signed messages: a node's record, and its knock at another node's mailbox.

use std::time::Duration;

use peersock_overlay::{Contact, Identity, PublicIdentity};
use thiserror::Error;

use crate::keys::{MeetingKeys, NodeTail, SKEW};
use crate::seal::PLAIN_LEN;

const RECORD: u8 = 1;
const KNOCK: u8 = 2;
const SIGNATURE: usize = 64;

/// Time after its creation in which a knock is answered, in addition to the difference of clocks.
const KNOCK_LIFETIME: Duration = Duration::from_secs(60);

/// The record that a node has published of itself in one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The node's identity.
    pub identity: PublicIdentity,
    /// The time of creation, in milliseconds since the Unix epoch by the node's clock. It grows with every
    /// record, even if that clock goes back by less than [`SKEW`].
    pub sequence: u64,
    /// Validity in seconds.
    pub lifetime: u16,
    /// Number of slots of the node's mailbox; 0 if it reads none and does not punch.
    pub slots: u8,
    /// Interval in seconds at which an idle node reads them.
    pub poll: u8,
    /// The endpoints at which it can be reached.
    pub contact: Contact,
}

impl Record {
    /// The smallest number of slots of a mailbox. A node that knocks without a record uses this number.
    pub const MIN_SLOTS: u8 = 2;

    /// The largest number of slots of a mailbox.
    pub const MAX_SLOTS: u8 = 8;

    /// Encodes the record, signed by the node.
    ///
    /// ```text
    /// offset  0      1          65         73         75      76      77        n           n+64
    ///        +------+----------+----------+----------+-------+-------+---------+-----------+-------+
    ///        | 1    | identity | sequence | lifetime | slots | poll  | contact | signature | zeros |
    ///        | 1    | 64       | 8        | 2        | 1     | 1     | 5+19c   | 64        |       |
    ///        +------+----------+----------+----------+-------+-------+---------+-----------+-------+
    /// ```
    pub fn sign(&self, keys: &MeetingKeys, own: &Identity) -> [u8; PLAIN_LEN] {
        let mut out = vec![RECORD];
        out.extend(self.identity.to_bytes());
        out.extend(self.sequence.to_be_bytes());
        out.extend(self.lifetime.to_be_bytes());
        out.extend([self.slots, self.poll]);
        self.contact.emit(&mut out);
        finish(out, own, &Self::context(keys))
    }

    /// Parses a record and checks its signature, not its age.
    /// Fails with the fault in the record.
    pub fn verify(keys: &MeetingKeys, plain: &[u8]) -> Result<Self, Refused> {
        let (head, rest) = Head::parse(plain, RECORD)?;
        let (fixed, rest) = rest.split_first_chunk::<4>().ok_or(Refused::Form)?;
        let (contact, rest) = Contact::parse(rest).ok_or(Refused::Form)?;
        let record = Self {
            identity: head.identity,
            sequence: head.sequence,
            lifetime: u16::from_be_bytes([fixed[0], fixed[1]]),
            slots: if fixed[2] == 0 { 0 } else { fixed[2].clamp(Self::MIN_SLOTS, Self::MAX_SLOTS) },
            poll: fixed[3],
            contact,
        };
        check(plain, rest, &head.identity, &Self::context(keys))?;
        Ok(record)
    }

    /// Checks that the record is valid at `unix`, with clocks that differ by [`SKEW`] at most.
    /// Fails if the record is too old, or from the future.
    pub fn check_age(&self, unix: Duration) -> Result<(), Refused> {
        check_age(self.sequence, Duration::from_secs(self.lifetime.into()), unix)
    }

    fn context(keys: &MeetingKeys) -> Vec<u8> {
        [&b"peersock dht record v1"[..], &keys.binding()].concat()
    }
}

/// A node's request to be met, left in another one's mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knock {
    /// The node that knocks.
    pub identity: PublicIdentity,
    /// The time of creation, in milliseconds since the Unix epoch by that node's clock; it grows with each
    /// knock.
    pub sequence: u64,
    /// The time at which both sides begin to punch, by the same clock.
    pub start: u64,
    /// The endpoints at which the node can be reached.
    pub contact: Contact,
}

impl Knock {
    /// Longest delay between a knock's creation and the start of punching.
    pub const MAX_START: Duration = Duration::from_secs(10);

    /// Encodes the knock for the node at `reader`, signed by the node that knocks.
    ///
    /// ```text
    /// offset  0      1          65         73         81        n           n+64
    ///        +------+----------+----------+----------+---------+-----------+-------+
    ///        | 2    | identity | sequence | start    | contact | signature | zeros |
    ///        | 1    | 64       | 8        | 8        | 5+19c   | 64        |       |
    ///        +------+----------+----------+----------+---------+-----------+-------+
    /// ```
    pub fn sign(&self, keys: &MeetingKeys, own: &Identity, reader: &NodeTail) -> [u8; PLAIN_LEN] {
        let mut out = vec![KNOCK];
        out.extend(self.identity.to_bytes());
        out.extend(self.sequence.to_be_bytes());
        out.extend(self.start.to_be_bytes());
        self.contact.emit(&mut out);
        finish(out, own, &Self::context(keys, reader))
    }

    /// Parses a knock for `reader` and checks its signature, not its age.
    /// Fails with the fault in the knock.
    pub fn verify(keys: &MeetingKeys, reader: &NodeTail, plain: &[u8]) -> Result<Self, Refused> {
        let (head, rest) = Head::parse(plain, KNOCK)?;
        let (start, rest) = rest.split_first_chunk::<8>().ok_or(Refused::Form)?;
        let (contact, rest) = Contact::parse(rest).ok_or(Refused::Form)?;
        let start = u64::from_be_bytes(*start);
        let knock = Self { identity: head.identity, sequence: head.sequence, start, contact };
        check(plain, rest, &head.identity, &Self::context(keys, reader))?;
        Ok(knock)
    }

    /// Checks that the knock is still to be answered at `unix`.
    /// Fails if the knock is too old, or from the future.
    pub fn check_age(&self, unix: Duration) -> Result<(), Refused> {
        check_age(self.sequence, KNOCK_LIFETIME, unix)
    }

    /// Returns the time from now until both sides begin, if the reader's clock says `unix`. At most
    /// [`Self::MAX_START`].
    ///
    /// A knock cannot be read before it was made. So a clock that shows an earlier time is behind by at least
    /// the difference.
    pub fn start_in(&self, unix: Duration) -> Duration {
        let now = (unix.as_millis() as u64).max(self.sequence);
        Duration::from_millis(self.start.saturating_sub(now)).min(Self::MAX_START)
    }

    fn context(keys: &MeetingKeys, reader: &NodeTail) -> Vec<u8> {
        [&b"peersock dht knock v1"[..], &keys.binding(), &reader.0].concat()
    }
}

/// Reasons for not using an item that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refused {
    /// The item is not sealed by a member for this place.
    #[error("it is not sealed by a member for this place")]
    Sealed,
    /// The item's form is wrong.
    #[error("its form is wrong")]
    Form,
    /// The item belongs to another node.
    #[error("it is of another node")]
    Node,
    /// The item's signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// The item is too old.
    #[error("it is too old")]
    Expired,
    /// The item is from the future, by more than clocks may differ.
    #[error("it is from the future")]
    Future,
    /// The item, or a newer one, was seen before.
    #[error("it was seen before")]
    Replay,
    /// The rate limit is exceeded.
    #[error("there are too many")]
    Rate,
}

struct Head {
    identity: PublicIdentity,
    sequence: u64,
}

impl Head {
    fn parse(plain: &[u8], kind: u8) -> Result<(Self, &[u8]), Refused> {
        let (first, rest) = plain.split_first().ok_or(Refused::Form)?;
        let (identity, rest) = rest.split_first_chunk().ok_or(Refused::Form)?;
        let (sequence, rest) = rest.split_first_chunk().ok_or(Refused::Form)?;
        if *first != kind {
            return Err(Refused::Form);
        }
        let identity = PublicIdentity::from_bytes(identity).map_err(|_| Refused::Form)?;
        Ok((Self { identity, sequence: u64::from_be_bytes(*sequence) }, rest))
    }
}

/// Signs the bytes of `out`, and pads with zeros.
fn finish(mut out: Vec<u8>, own: &Identity, context: &[u8]) -> [u8; PLAIN_LEN] {
    let signature = own.sign(&[context, &out].concat());
    out.extend(signature);
    out.resize(PLAIN_LEN, 0);
    out.try_into().expect("16 candidates and the rest are less than 600 bytes")
}

/// Checks the signature at the beginning of `rest`, the end of `plain`.
fn check(plain: &[u8], rest: &[u8], identity: &PublicIdentity, context: &[u8]) -> Result<(), Refused> {
    let signature: &[u8; SIGNATURE] = rest.first_chunk().ok_or(Refused::Form)?;
    let signed = &plain[..plain.len() - rest.len()];
    match identity.verify(&[context, signed].concat(), signature) {
        true => Ok(()),
        false => Err(Refused::Signature),
    }
}

fn check_age(made_ms: u64, lifetime: Duration, unix: Duration) -> Result<(), Refused> {
    let made = Duration::from_millis(made_ms);
    if unix > made + lifetime + SKEW {
        return Err(Refused::Expired);
    }
    if made > unix.saturating_add(SKEW) {
        return Err(Refused::Future);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use peersock_overlay::{DiscoveryKey, NetworkId};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_contact, contact};

    fn keys(port: u16) -> MeetingKeys {
        let network = NetworkId::ad_hoc(port..=port).expect("a port range");
        MeetingKeys::new(&DiscoveryKey::new(network, None, None))
    }

    fn node(seed: u8) -> Identity {
        Identity::from_seed(&[seed; 32])
    }

    fn tail(seed: u8) -> NodeTail {
        NodeTail::of(&node(seed).node_id())
    }

    fn record(contact: Contact) -> Record {
        Record {
            identity: *node(1).public(),
            sequence: 1_000_000,
            lifetime: 600,
            slots: 2,
            poll: 15,
            contact,
        }
    }

    fn knock(contact: Contact) -> Knock {
        Knock { identity: *node(1).public(), sequence: 1_000_000, start: 1_003_000, contact }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_signed_is_verified(contact in any_contact()) {
            let plain = record(contact.clone()).sign(&keys(80), &node(1));
            prop_assert_eq!(Record::verify(&keys(80), &plain), Ok(record(contact.clone())));
            let reader = tail(2);
            let plain = knock(contact.clone()).sign(&keys(80), &node(1), &reader);
            prop_assert_eq!(Knock::verify(&keys(80), &reader, &plain), Ok(knock(contact)));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..PLAIN_LEN)) {
            prop_assert!(Record::verify(&keys(80), &bytes).is_err());
            prop_assert!(Knock::verify(&keys(80), &tail(2), &bytes).is_err());
        }

        #[test]
        fn no_changed_byte_before_the_padding_passes(at in 0..77_usize + 5 + 19 + 64, bit in 0..8_u8) {
            let mut plain = record(contact(&["198.51.100.7:5"])).sign(&keys(80), &node(1));
            plain[at] ^= 1 << bit;
            prop_assert!(Record::verify(&keys(80), &plain).is_err());
        }
    }

    #[test]
    fn signatures_are_for_one_network_one_reader_one_purpose() {
        let reader = tail(2);
        let plain = record(contact(&["198.51.100.7:5"])).sign(&keys(80), &node(1));
        assert_eq!(Record::verify(&keys(81), &plain), Err(Refused::Signature));
        assert_eq!(Knock::verify(&keys(80), &reader, &plain), Err(Refused::Form));
        let plain = knock(contact(&["198.51.100.7:5"])).sign(&keys(80), &node(1), &reader);
        assert_eq!(Knock::verify(&keys(81), &reader, &plain), Err(Refused::Signature));
        assert_eq!(Knock::verify(&keys(80), &tail(3), &plain), Err(Refused::Signature));
    }

    #[test]
    fn nobody_signs_for_another_node() {
        let plain = record(contact(&["198.51.100.7:5"])).sign(&keys(80), &node(2));
        assert_eq!(Record::verify(&keys(80), &plain), Err(Refused::Signature));
    }

    #[test]
    fn age_counts_from_both_sides() {
        let record = record(Contact::default());
        let at = |seconds| record.check_age(Duration::from_secs(seconds));
        assert_eq!(at(699), Err(Refused::Future));
        assert_eq!(at(700), Ok(()));
        assert_eq!(at(1000 + 600 + 300), Ok(()));
        assert_eq!(at(1000 + 600 + 301), Err(Refused::Expired));
        let of_the_end = Record { sequence: u64::MAX, ..record };
        assert_eq!(of_the_end.check_age(Duration::from_secs(5)), Err(Refused::Future));
    }

    #[test]
    fn the_start_is_never_far_off() {
        let knock = knock(Contact::default());
        let start_in = |ms| knock.start_in(Duration::from_millis(ms)).as_millis();
        assert_eq!(start_in(1_001_000), 2000);
        assert_eq!(start_in(1_005_000), 0, "it is past");
        assert_eq!(start_in(900_000), 3000, "this clock is behind");
        let late = Knock { start: u64::MAX, ..knock };
        assert_eq!(late.start_in(Duration::ZERO), Knock::MAX_START);
    }
}
