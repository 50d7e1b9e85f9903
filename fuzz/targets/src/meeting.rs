//! Data that nodes read in a DHT, where anyone can store anything.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use arbitrary::Arbitrary;
use peersock_dht::{
    Candidate, CandidateKind, Contact, HolePunch, Knock, Location, Mapping, MeetingKeys, Nat, NodeTail,
    PLAIN_LEN, PingAnswer, Record,
};
use peersock_overlay::{DiscoveryKey, Identity, NetworkId};

use crate::input::{Damage, damaged, one};

#[derive(Debug, Arbitrary)]
struct Input {
    unix: u32,
    sequence: u64,
    lifetime: u16,
    slots: u8,
    start: u64,
    maps_anew: bool,
    port_delta: i16,
    addresses: Vec<(u8, IpAddr, u16)>,
    of_the_peer: Vec<(u8, IpAddr, u16)>,
    damages: Vec<Damage>,
}

/// Checks records and knocks: random bytes are refused, signed and sealed data is read, and altered data is
/// refused. Plans for any two contacts aim only at named endpoints and ports near them.
pub fn meeting(data: &[u8]) {
    let (keys, node) = (keys(80), Identity::from_seed(&[1; 32]));
    let reader = NodeTail::of(&Identity::from_seed(&[2; 32]).node_id());
    assert!(Record::verify(&keys, data).is_err(), "no other holder has the key");
    assert!(Knock::verify(&keys, &reader, data).is_err(), "no other holder has the key");
    let _ = PingAnswer::parse(data);
    let Some(input) = one::<Input>(data) else { return };
    pinged(&input);

    let identity = *node.public();
    let contact = contact(&input, &input.addresses);
    let Input { sequence, lifetime, slots, start, .. } = input;
    let record = Record { identity, sequence, lifetime, slots, poll: 1, contact: contact.clone() };
    let plain = record.sign(&keys, &node);
    let read = Record::verify(&keys, &plain).expect("it is signed");
    assert_eq!(read.contact, contact);
    let knock = Knock { identity, sequence, start, contact: contact.clone() };
    assert_eq!(Knock::verify(&keys, &reader, &knock.sign(&keys, &node, &reader)), Ok(knock.clone()));
    let unix = Duration::from_secs(input.unix.into());
    // Neither call fails at any time.
    let _ = (read.check_age(unix), knock.check_age(unix));
    assert!(knock.start_in(unix) <= Knock::MAX_START);

    altered(&keys, &node, &plain, &input);
    let theirs = self::contact(&input, &input.of_the_peer);
    planned(&contact, &theirs, knock.start_in(unix));
}

fn altered(keys: &MeetingKeys, node: &Identity, plain: &[u8; PLAIN_LEN], input: &Input) {
    let own = Location::Own(*node.public());
    let epoch = keys.epoch(&own.owner(), Duration::from_secs(input.unix.into()));
    let item = keys.seal(&own, epoch, node, 1, plain, &[7; 32]).expect("its own place");
    assert_eq!(keys.open(&own, epoch, &item), Ok(*plain));
    assert!(self::keys(81).open(&own, epoch, &item).is_err());
    let mut bad = item.clone();
    bad.value = damaged(&item.value, &input.damages);
    assert_eq!(keys.open(&own, epoch, &bad).is_ok(), bad == item);
    // The author can seal as a member, but cannot sign for the node.
    let bytes = damaged(plain, &input.damages);
    if let Ok(record) = Record::verify(keys, &bytes) {
        assert_eq!(Record::verify(keys, plain), Ok(record), "only what is behind the signature has changed");
    }
}

/// Checks a DHT node's answer to a ping. An altered answer yields at most another endpoint.
fn pinged(input: &Input) {
    let head = b"d2:ip6:\xcb\0\x71\x07\x1c\xfc1:rd2:id20:abcdefghij01234567895:nodesl1:a1:be1:xi-7ee1:t4:";
    let answer = [&head[..], &input.unix.to_be_bytes(), b"1:v4:RS\0\x011:y1:re"].concat();
    let read = PingAnswer::parse(&answer).expect("an answer");
    assert_eq!((read.transaction, read.seen.port()), (input.unix.to_be_bytes(), 7420));
    let _ = PingAnswer::parse(&damaged(&answer, &input.damages));
}

fn planned(own: &Contact, peer: &Contact, start_in: Duration) {
    let plan = HolePunch::new(own, peer, start_in);
    let named = |to: &SocketAddr| peer.candidates().iter().any(|candidate| candidate.address.ip() == to.ip());
    assert!(plan.shots().iter().all(|shot| named(&shot.to)));
    assert!(plan.shots().is_sorted_by_key(|shot| shot.after));
    assert!(plan.shots().len() <= HolePunch::MAX_TARGETS * HolePunch::MAX_SHOTS_EACH);
}

fn contact(input: &Input, addresses: &[(u8, IpAddr, u16)]) -> Contact {
    let mapping = if input.maps_anew { Mapping::AddressDependent } else { Mapping::EndpointIndependent };
    let nat = Nat { mapping, port_delta: input.port_delta, ..Nat::default() };
    let kinds = [CandidateKind::Interface, CandidateKind::Mapped, CandidateKind::Forwarded];
    let candidates = addresses.iter().map(|(kind, ip, port)| Candidate {
        kind: kinds[usize::from(*kind) % 3],
        address: SocketAddr::new(*ip, *port),
    });
    Contact::new(nat, candidates)
}

fn keys(port: u16) -> MeetingKeys {
    let network = NetworkId::ad_hoc(port..=port).expect("a range");
    MeetingKeys::new(&DiscoveryKey::new(network, None, None))
}
