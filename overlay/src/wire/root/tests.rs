//! Messages of roots: written ones are read back, any bytes are safe to parse, and signatures bind every
//! field.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::id::Identity;

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn registration() -> Registration {
    Registration::sign(&identity(1), &identity(2).node_id(), 1_800_000_000_123, 600)
}

fn voucher() -> Voucher {
    let address = "192.0.2.1:4000".parse().expect("an address");
    Voucher::sign(&identity(2), &identity(1).node_id(), 1_800_000_000, address)
}

fn referral() -> Referral {
    let root = RootRecord::sign(&identity(2), 1_800_000_000, "192.0.2.1:7420,tls:root.example:443");
    let root = root.expect("it is short");
    Referral { identity: *identity(1).public(), registration: registration(), root }
}

/// Returns one message of each kind.
fn messages() -> Vec<RootMessage> {
    let entry = Entry { identity: *identity(1).public(), channel: Channel(9), registration: registration() };
    let codes = [NoticeCode::Drains, NoticeCode::NoChannel, NoticeCode::OverRate, NoticeCode::NotRegistered];
    let found = [Ok(entry), Err(NotFound::Unknown), Err(NotFound::Limited), Err(NotFound::Partial)];
    let keys = [LookUpKey::Prefix([7; 10]), LookUpKey::Id(identity(1).node_id())];
    let registered = Registered {
        sequence: 5,
        lifetime: 600,
        relays: true,
        drains: false,
        token: RelayToken::from_be_bytes([1, 2, 3]),
        channel: Channel(u64::MAX),
        rate: 1 << 20,
        voucher: voucher(),
        tcp: None,
    };
    let by_tcp = Registered { tcp: Some(voucher()), ..registered };
    let mut all = vec![
        RootMessage::Register { registration: registration(), access: Vec::new() },
        RootMessage::Register { registration: registration(), access: b"let me in".to_vec() },
        RootMessage::Registered(registered),
        RootMessage::Registered(by_tcp),
        RootMessage::Notice { code: NoticeCode::Refused, channel: Channel(0) },
        RootMessage::Referred { id: 77, pass: [5; 32], referral: Box::new(referral()) },
        RootMessage::Vouch,
        RootMessage::Vouched(voucher()),
    ];
    all.extend(keys.map(|key| RootMessage::LookUp { id: 77, key }));
    all.extend(found.map(|result| RootMessage::Found { id: 77, result }));
    all.extend(codes.map(|code| RootMessage::Notice { code, channel: Channel(3) }));
    all
}

#[test]
fn what_is_written_is_read() {
    for message in messages() {
        let mut bytes = Vec::new();
        message.emit(&mut bytes);
        assert!(RootMessage::is_one(&bytes));
        assert_eq!(RootMessage::parse(&bytes), Ok(message.clone()));
        bytes.extend([0xff; 9]);
        assert_eq!(RootMessage::parse(&bytes), Ok(message), "later versions may add fields");
    }
}

#[test]
fn what_is_cut_off_is_refused() {
    for message in messages() {
        let mut bytes = Vec::new();
        message.emit(&mut bytes);
        for len in 0..bytes.len() {
            assert!(RootMessage::parse(&bytes[..len]).is_err(), "{message:?} at {len}");
        }
    }
}

#[test]
fn a_registration_is_for_one_node_root_sequence_and_lifetime() {
    let (node, root) = (*identity(1).public(), identity(2).node_id());
    let good = registration();
    assert!(good.verify(&node, &root));
    assert!(!good.verify(identity(3).public(), &root));
    assert!(!good.verify(&node, &identity(3).node_id()));
    assert!(!Registration { sequence: good.sequence + 1, ..good }.verify(&node, &root));
    assert!(!Registration { lifetime: good.lifetime + 1, ..good }.verify(&node, &root));
}

#[test]
fn a_voucher_is_for_one_node_time_and_address() {
    let (node, root) = (identity(1).node_id(), *identity(2).public());
    let good = voucher();
    assert!(good.verify(&root, &node));
    assert!(!good.verify(identity(3).public(), &node));
    assert!(!good.verify(&root, &identity(3).node_id()));
    assert!(!Voucher { time: good.time + 1, ..good }.verify(&root, &node));
    let elsewhere = SocketAddr::new(IpAddr::from([192, 0, 2, 2]), 4000);
    assert!(!Voucher { address: elsewhere, ..good }.verify(&root, &node));
    // A signature for one purpose is useless for the other.
    assert!(!Voucher { signature: registration().signature, ..good }.verify(identity(1).public(), &node));
}

#[test]
fn a_referral_is_the_word_of_the_node_and_of_the_root() {
    let good = referral();
    assert!(good.verify());
    let record = |change: fn(&mut RootRecord)| {
        let mut referral = referral();
        change(&mut referral.root);
        referral.verify()
    };
    assert!(!record(|root| root.time += 1));
    assert!(!record(|root| root.endpoints.push('1')));
    assert!(!record(|root| root.identity = *identity(3).public()));
    assert!(!Referral { identity: *identity(3).public(), ..referral() }.verify());
    // A root at which the node is not registered.
    let elsewhere = RootRecord::sign(&identity(3), 1_800_000_000, "192.0.2.1:7420").expect("it is short");
    assert!(elsewhere.verify());
    assert!(!Referral { root: elsewhere, ..referral() }.verify());
}

#[test]
fn a_record_has_few_addresses_and_none_that_nothing_can_be_sent_to() {
    let addresses = |text: &str| RootRecord::sign(&identity(2), 1, text).map(|record| record.addresses());
    let one = |text: &str| text.parse::<SocketAddr>().expect("an address");
    assert_eq!(
        addresses(
            "192.0.2.1,[2001:db8::1]:5,name:7420,tcp:192.0.2.2:7420, ,192.0.2.3:0,224.0.0.1:1,0.0.0.0:1"
        ),
        Some(vec![one("192.0.2.1:7420"), one("[2001:db8::1]:5")])
    );
    let many: Vec<_> = (1..20).map(|n| format!("192.0.2.{n}:1")).collect();
    assert_eq!(addresses(&many.join(",")).map(|all| all.len()), Some(8));
    assert_eq!(addresses(&"1".repeat(601)), None);
    let mut message = Vec::new();
    let root = RootRecord::sign(&identity(2), 1, &"1".repeat(600)).expect("it is just short enough");
    let referral = Box::new(Referral { root, ..referral() });
    RootMessage::Referred { id: 1, pass: [0; 32], referral }.emit(&mut message);
    assert!(message.len() + crate::DATA_OVERHEAD <= 1200, "{}", message.len());
}

proptest! {
    #[test]
    fn any_bytes_are_safe_to_parse(mut bytes in prop::collection::vec(any::<u8>(), 0..500), kind in 0u8..8) {
        if let [first, second, ..] = &mut bytes[..] {
            (*first, *second) = (ROOT, kind);
        }
        if let Ok(message) = RootMessage::parse(&bytes) {
            let mut again = Vec::new();
            message.emit(&mut again);
            prop_assert_eq!(RootMessage::parse(&again), Ok(message));
        }
    }
}

#[test]
fn streams_of_a_record_are_those_by_addresses_that_a_connection_can_lead_to() {
    let streams = |endpoints: &str| {
        let record = RootRecord::sign(&identity(2), 1, endpoints).expect("it is short");
        record.streams().iter().map(|way| format!("{:?} {}", way.kind, way.address)).collect::<Vec<_>>()
    };
    let all = "192.0.2.1, tcp:192.0.2.1:443,tls:[2001:db8::1]:443,wss:192.0.2.1:8443";
    assert_eq!(streams(all), ["Tcp 192.0.2.1:443", "Tls [2001:db8::1]:443", "WebSocket 192.0.2.1:8443"]);
    for none in
        ["", "tcp:7420", "tls:root.example:443", "quic:192.0.2.1:443", "tcp:192.0.2.1", "tcp:192.0.2.1:0"]
    {
        assert_eq!(streams(none), [""; 0], "{none}");
    }
    assert_eq!(streams("tcp:224.0.0.1:443,tcp:0.0.0.0:443"), [""; 0]);
    let many = (1..20).map(|port| format!("tcp:192.0.2.1:{port}")).collect::<Vec<_>>().join(",");
    assert_eq!(streams(&many).len(), 8);
}

proptest! {
    #[test]
    fn any_text_of_endpoints_is_safe_to_read(text in "((tcp|tls|wss|x)?:?[0-9.:\\[\\]a-f,]{0,20}){0,20}") {
        if let Some(record) = RootRecord::sign(&identity(2), 1, &text) {
            prop_assert!(record.streams().len() <= 8 && record.addresses().len() <= 8);
        }
    }
}
