//! The test vectors to which `docs/reference/PROTOCOL.md`, section "Meeting by a DHT", refers. They are made
//! from fixed inputs and compared with the committed ones.
//!
//! After a deliberate change, `PEERSOCK_WRITE_VECTORS=1 cargo test -p peersock-dht --test vectors` rewrites
//! `vectors/meeting.json`.

use std::path::PathBuf;
use std::time::Duration;

use data_encoding::HEXLOWER;
use peersock_dht::{
    Candidate, CandidateKind, Contact, Filtering, HolePunch, Item, Knock, Location, Mapping, MeetingKeys,
    Nat, NodeTail, Record,
};
use peersock_overlay::{DiscoveryKey, Identity, NetworkId, Psk};
use serde_json::{Map, Value};

const NOW: Duration = Duration::from_secs(1_700_000_000);

#[test]
fn committed_vectors_are_what_the_code_does() {
    let values = values();
    let map: Map<_, _> =
        values.iter().map(|(name, text)| ((*name).to_owned(), Value::String(text.clone()))).collect();
    let json = format!("{:#}\n", Value::Object(map));
    if std::env::var_os("PEERSOCK_WRITE_VECTORS").is_some() {
        std::fs::write(path("tests/vectors/meeting.json"), json).expect("can write the vectors");
        return;
    }
    let committed =
        std::fs::read_to_string(path("tests/vectors/meeting.json")).expect("the vectors are there");
    assert_eq!(committed, json, "vectors/meeting.json is not what the code does");
}

fn values() -> Vec<(&'static str, String)> {
    let (a, b) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
    let network: NetworkId = "ff1f901f99000000".parse().expect("an ad-hoc network");
    let discovery = DiscoveryKey::new(network, Some(&Psk::new([3; 32])), None);
    let keys = MeetingKeys::new(&discovery);
    let (of_a, of_b) = (NodeTail::of(&a.node_id()), NodeTail::of(&b.node_id()));
    let own = Location::Own(*a.public());
    let (epoch_a, epoch_b) = (keys.epoch(&of_a, NOW), keys.epoch(&of_b, NOW));

    let record = Record {
        identity: *a.public(),
        sequence: 1_700_000_000_123,
        lifetime: 5400,
        slots: 2,
        poll: 15,
        contact: contact("192.0.2.1:5000", "10.0.0.1:5000"),
    };
    let knock = Knock {
        identity: *a.public(),
        sequence: 1_700_000_000_456,
        start: 1_700_000_003_456,
        contact: record.contact.clone(),
    };
    let record_plain = record.sign(&keys, &a);
    let knock_plain = knock.sign(&keys, &a, &of_b);
    assert_eq!(Record::verify(&keys, &record_plain), Ok(record));
    assert_eq!(Knock::verify(&keys, &of_b, &knock_plain), Ok(knock.clone()));

    let public = |location: &Location, epoch| HEXLOWER.encode(&keys.public(location, epoch));
    let item = keys.seal(&own, epoch_a, &a, 1_700_000_000, &record_plain, &[7; 32]).expect("its own");
    assert_eq!(keys.open(&own, epoch_a, &item), Ok(record_plain));
    let pair = Location::Pair { writer: *a.public(), reader: of_b };
    vec![
        ("meeting key", HEXLOWER.encode(discovery.meeting_key())),
        ("epoch of A", epoch_a.number().to_string()),
        ("epoch of B", epoch_b.number().to_string()),
        ("open place of A", public(&Location::Open(of_a), epoch_a)),
        ("own place of A", public(&own, epoch_a)),
        ("slot 0 of B", public(&Location::Slot { owner: of_b, index: 0 }, epoch_b)),
        ("slot 1 of B", public(&Location::Slot { owner: of_b, index: 1 }, epoch_b)),
        ("place of A's knocks at B", public(&pair, epoch_b)),
        ("record of A, plaintext without the zeros at its end", trimmed(&record_plain)),
        ("knock of A at B, plaintext without the zeros at its end", trimmed(&knock_plain)),
        ("the record as the value at A's own place, random bytes 07..", HEXLOWER.encode(&item.value)),
        ("the place in the DHT's space of IDs, SHA-1 of the key", place(&item)),
        ("its signature", HEXLOWER.encode(&item.signature)),
        (
            "milliseconds at which B sends to 192.0.2.1:5000, if it reads the knock one second after it was made",
            {
                let own = contact("198.51.100.2:6000", "10.0.0.2:6000");
                let start_in = knock.start_in(Duration::from_millis(1_700_000_001_456));
                let plan = HolePunch::new(&own, &knock.contact, start_in);
                let times = plan.shots().iter().map(|shot| shot.after.as_millis().to_string());
                times.collect::<Vec<_>>().join(" ")
            },
        ),
    ]
}

fn contact(mapped: &str, interface: &str) -> Contact {
    let nat = Nat {
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::AddressAndPortDependent,
        ..Nat::default()
    };
    let candidate = |kind, text: &str| Candidate { kind, address: text.parse().expect("an address") };
    Contact::new(
        nat,
        [candidate(CandidateKind::Mapped, mapped), candidate(CandidateKind::Interface, interface)],
    )
}

fn trimmed(plain: &[u8]) -> String {
    let end = plain.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    HEXLOWER.encode(&plain[..end])
}

/// Returns the place at which the DHT stores an item (BEP 44).
fn place(item: &Item) -> String {
    mainline::MutableItem::target_from_key(&item.key, None).to_string()
}

fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative)
}
