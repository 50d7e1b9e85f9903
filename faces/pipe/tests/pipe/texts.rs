//! The address texts of nodes.

use std::io::Write as _;

use data_encoding::BASE64URL_NOPAD;
use flate2::{Compression, write::ZlibEncoder};
use peersock::overlay::Identity;
use peersock_pipe::{NodeAddress, NodeAddressError};
use proptest::prelude::*;
use serde_json::{Value, json};

const PREFIX: &str = "peersock-node:1:";
/// The table of claims, which Python's tests play, too.
const CLAIMS: &str = include_str!("../../../../tests/claims/node_addresses.txt");

/// Returns the rest of each row of a claim.
fn rows(claim: &str) -> Vec<&'static str> {
    let rows: Vec<_> = CLAIMS.lines().filter_map(|line| line.strip_prefix(claim).map(str::trim)).collect();
    assert!(!rows.is_empty(), "{claim}");
    rows
}

fn packed(data: &[u8]) -> String {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::best());
    packer.write_all(data).expect("memory");
    format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&packer.finish().expect("memory")))
}

fn text(value: &Value) -> String {
    packed(value.to_string().as_bytes())
}

fn dict() -> Value {
    let identity = Identity::from_seed(&[7; 32]);
    let key = identity.public();
    json!({
        "id": key.node_id().to_string(),
        "public_key": key.to_string(),
        "networks": {"ff0001ffff000000": ["fd00::1"], "fe00000000000001": ["fd00::2", "10.77.0.1"]},
        "port": 10001,
        "candidates": ["192.0.2.1:5", "[2001:db8::1]:5"],
        "interfaces": [{
            "name": "eth0",
            "index": 2,
            "nat": {
                "type": 5, "nat_info": "restrict port", "delta": {"type": 6, "value": 0},
                "delta_info": "random", "is_known": false,
            },
            "rp": {
                "2": [{
                    "af": 2,
                    "nic_ips": [{"ip": "192.168.0.2", "cidr": 32, "af": 2}],
                    "ext_ips": [{"ip": "192.0.2.1", "cidr": 32, "af": 2}],
                }],
                "10": [],
            },
        }],
        "roots": ["ab".repeat(32)],
    })
}

fn good() -> NodeAddress {
    text(&dict()).parse().expect("it is an address")
}

#[test]
fn python_and_rust_read_each_others_texts() {
    let texts = rows("text ");
    assert_eq!(texts.len(), 2);
    for text in texts {
        let address: NodeAddress = text.parse().expect("it is an address");
        assert_eq!(address, good());
        assert_eq!(address.interfaces[0].name(), "eth0");
        assert_eq!(address.candidates[1].to_string(), "[2001:db8::1]:5");
    }
}

#[test]
fn texts_are_read_as_they_are_written() {
    let address = good();
    let text = address.to_string();
    assert!(text.is_ascii() && text.lines().count() == 1);
    assert_eq!(format!(" {text}\n").parse(), Ok(address.clone()));
    // A later version may contain more keys, and other values.
    let mut more = dict();
    more["more"] = json!([1]);
    more["candidates"].as_array_mut().expect("a list").push("[fe80::1%eth0]:5".into());
    more["interfaces"].as_array_mut().expect("a list").push(json!({"a": 1}));
    assert_eq!(self::text(&more).parse(), Ok(address));
}

#[test]
fn texts_that_make_no_sense_are_refused() {
    let refused = rows("refuse ").into_iter().map(|row| {
        let (name, value) = row.split_once(' ').expect("a key and a value");
        (name, serde_json::from_str(value).expect("JSON"))
    });
    let too_many = [
        ("networks", json!({"ff0001ffff000000": vec!["fd00::1"; 65]})),
        ("candidates", json!(vec!["192.0.2.1:5"; 65])),
    ];
    for (name, value) in refused.chain(too_many) {
        let mut changed = dict();
        changed[name] = Value::clone(&value);
        let error = text(&changed).parse::<NodeAddress>().expect_err(name);
        assert!(matches!(error, NodeAddressError::Content(_)), "{name} {value}: {error}");
        changed.as_object_mut().expect("a dictionary").remove(name);
        assert!(text(&changed).parse::<NodeAddress>().is_err(), "without {name}");
    }
}

#[test]
fn texts_that_are_damaged_are_refused() {
    let good = text(&dict());
    for (text, error) in [
        (String::new(), NodeAddressError::Form),
        ("name.tld".into(), NodeAddressError::Form),
        (good.replace(":1:", ":2:"), NodeAddressError::Form),
        (format!("{PREFIX}{}", "A".repeat(32 << 10)), NodeAddressError::Form),
        (good[..good.len() - 3].into(), NodeAddressError::Damaged),
        (format!("{good}AAAA"), NodeAddressError::Damaged),
        (format!("{}!{}", &good[..30], &good[30..]), NodeAddressError::Damaged),
        (PREFIX.into(), NodeAddressError::Damaged),
        // A short text of a long value, and one of a deeply nested value.
        (packed(&vec![b' '; 8 << 20]), NodeAddressError::Damaged),
        (packed("[".repeat(60_000).as_bytes()), NodeAddressError::Damaged),
    ] {
        assert_eq!(text.parse::<NodeAddress>(), Err(error), "{text:.40}");
    }
    for value in [json!(5), json!([]), json!({})] {
        assert!(matches!(text(&value).parse::<NodeAddress>(), Err(NodeAddressError::Content(_))));
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(".*", inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_is_too_strange(
        text in ".*",
        data in prop::collection::vec(any::<u8>(), 0..200),
        value in value(),
    ) {
        let encoded = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&data));
        for text in [text.clone(), format!("{PREFIX}{text}"), encoded, packed(&data), self::text(&value)] {
            prop_assert!(text.parse::<NodeAddress>().is_err());
        }
    }

    #[test]
    fn one_field_may_be_anything(at in 0..7_usize, value in value()) {
        let mut changed = dict();
        let name = changed.as_object().and_then(|dict| dict.keys().nth(at)).expect("it has seven").clone();
        changed[&name] = value;
        // An accepted text is written and read as the same address.
        if let Ok(address) = text(&changed).parse::<NodeAddress>() {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn a_text_with_other_characters_is_damaged_or_the_same(
        at in any::<prop::sample::Index>(),
        other in "[A-Za-z0-9_-]",
    ) {
        let mut text = good().to_string();
        let at = PREFIX.len() + at.index(text.len() - PREFIX.len());
        text.replace_range(at..=at, &other);
        // zlib has a checksum, so a changed text is refused or has the same content.
        if let Ok(address) = text.parse::<NodeAddress>() {
            prop_assert_eq!(address, good());
        }
    }
}
