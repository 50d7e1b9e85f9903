//! Messages inside a session before sealing. A root is node B.

use std::net::SocketAddr;

use peersock_overlay::wire::{
    BirthdayStep, Candidates, Channel, Control, Entry, LookUpKey, NicknameClaim, NicknameMessage,
    NicknameOwner, NoticeCode, ProbeSize, Registered, Registration, RelayToken, RootMessage, RootVoucher,
    Voucher,
};
use peersock_overlay::{Candidate, CandidateKind, Contact, Identity, Mapping, Nat, Nickname, NodeId};

use crate::Section;

pub(crate) fn control() -> Section {
    let mut section = Section::new("Control messages (plaintext)");
    for (name, message) in [
        (
            "probe 01020304 of 20 bytes",
            Control::Probe { id: 0x0102_0304, len: ProbeSize::new(20).expect("in range") },
        ),
        ("its acknowledgement, 48 bytes seen", Control::ProbeAck { id: 0x0102_0304, size: 48 }),
        (
            "parameters: 1 MiB, instance of A",
            Control::Params { receive_buffer: 0x10_0000, instance: 0x1111_2222_3333_4444 },
        ),
        ("challenge 0102030405060708", Control::Challenge { data: [1, 2, 3, 4, 5, 6, 7, 8], here: false }),
        ("the same, here", Control::Challenge { data: [1, 2, 3, 4, 5, 6, 7, 8], here: true }),
        ("its answer", Control::Answer { data: [1, 2, 3, 4, 5, 6, 7, 8] }),
        ("close", Control::Close { reason: 0 }),
        (
            "elsewhere: instance of A, 192.0.2.1:5000",
            Control::Elsewhere {
                instance: 0x1111_2222_3333_4444,
                remote: "192.0.2.1:5000".parse().expect("an address"),
            },
        ),
        (
            "birthday 01020304 is asked for",
            Control::Birthday { id: 0x0102_0304, step: BirthdayStep::Ask, is_fast: false },
        ),
        (
            "birthday 01020304 is asked for, fast",
            Control::Birthday { id: 0x0102_0304, step: BirthdayStep::Ask, is_fast: true },
        ),
    ] {
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        section.hex(name, &plaintext);
    }
    section
}

/// Returns A's candidates for B, with a voucher of B as a root.
pub(crate) fn candidates() -> Section {
    let mut section = Section::new("Candidates of A, a question, with a voucher of B as a root (plaintext)");
    let (root, node) = root_and_node();
    let by_udp = Voucher::sign(&root, &node, TIME, address());
    let by_tcp = Voucher::sign_tcp(&root, &node, TIME, address());
    for (name, of_tcp, voucher) in [("for UDP", false, by_udp), ("for TCP", true, by_tcp)] {
        let mapping = if of_tcp { Mapping::Unknown } else { Mapping::EndpointIndependent };
        let candidate = Candidate { kind: CandidateKind::Mapped, address: address() };
        let message = Candidates {
            of_tcp,
            is_question: true,
            id: 0x0102_0304,
            round_trip: 40,
            contact: Contact::new(Nat { mapping, ..Nat::default() }, [candidate]),
            vouchers: vec![RootVoucher { root: RootVoucher::name_of(&root.node_id()), voucher }],
        };
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        assert_eq!(Candidates::parse(&plaintext), Ok(message));
        section.hex(name, &plaintext);
    }
    section
}

/// Returns a question of B without any voucher.
pub(crate) fn candidates_of_b() -> Candidates {
    let candidate = Candidate { kind: CandidateKind::Mapped, address: address() };
    let contact = Contact::new(Nat::default(), [candidate]);
    let (of_tcp, is_question) = (false, true);
    Candidates { of_tcp, is_question, id: 0x0506_0708, round_trip: 0, contact, vouchers: Vec::new() }
}

/// Returns the messages between A and B as its root.
pub(crate) fn of_roots() -> Section {
    let mut section = Section::new("Messages between A and B as a root (plaintext)");
    let (root, node) = root_and_node();
    let a = Identity::from_seed(&[1; 32]);
    let registration = Registration::sign(&a, &root.node_id(), 1_700_000_000_123, 600);
    let channel = Channel(0x0102_0304_0506_0708);
    let registered = Registered {
        sequence: registration.sequence,
        lifetime: registration.lifetime,
        relays: true,
        drains: false,
        token: RelayToken::from_be_bytes([0x0a, 0x0b, 0x0c]),
        channel,
        rate: 8_000_000,
        voucher: Voucher::sign(&root, &node, TIME, address()),
        tcp: None,
    };
    let nowhere = "[::]:0".parse().expect("an address");
    let by_stream = Registered {
        voucher: Voucher::sign(&root, &node, TIME, nowhere),
        tcp: Some(Voucher::sign_tcp(&root, &node, TIME, address())),
        ..registered
    };
    let of_ipv6 = "[2001:db8::1]:5000".parse().expect("an address");
    let key = LookUpKey::Prefix(node.as_bytes()[..10].try_into().expect("10 bytes"));
    let found = Entry { identity: *a.public(), channel, registration };
    let alice: Nickname = "alice".parse().expect("a nickname");
    let claim = NicknameClaim::sign(&a, &root.node_id(), &alice, 1_700_000_000_123, 3600, 10001);
    let (id, owner) = (0x0102_0304, NicknameOwner { identity: *a.public(), claim });
    let nickname = RootMessage::Nickname;
    for (name, message) in [
        (
            "register: 600 s, access token \"open\"",
            RootMessage::Register { registration, access: b"open".into() },
        ),
        ("registered: seen at 192.0.2.1:5000", RootMessage::Registered(registered)),
        ("registered: by a stream from 192.0.2.1:5000", RootMessage::Registered(by_stream)),
        ("vouch", RootMessage::Vouch),
        (
            "vouched: seen at [2001:db8::1]:5000",
            RootMessage::Vouched(Voucher::sign(&root, &node, TIME, of_ipv6)),
        ),
        ("look-up of A by the first 10 bytes", RootMessage::LookUp { id: 0x0102_0304, key }),
        ("found", RootMessage::Found { id: 0x0102_0304, result: Ok(found) }),
        ("notice: nobody has that channel", RootMessage::Notice { code: NoticeCode::NoChannel, channel }),
        (
            "claim of \"alice\" for 3600 s, port 10001",
            nickname(NicknameMessage::Claim { nickname: alice.clone(), claim }),
        ),
        ("claimed", nickname(NicknameMessage::Claimed { sequence: claim.sequence, result: Ok(3600) })),
        ("look-up of \"alice\"", nickname(NicknameMessage::Find { id, nickname: alice })),
        ("it is A's", nickname(NicknameMessage::Found { id, result: Ok(owner) })),
    ] {
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        assert_eq!(RootMessage::parse(&plaintext), Ok(message));
        section.hex(name, &plaintext);
    }
    section
}

/// Seconds since the Unix epoch.
const TIME: u64 = 1_700_000_000;

fn root_and_node() -> (Identity, NodeId) {
    (Identity::from_seed(&[2; 32]), Identity::from_seed(&[1; 32]).node_id())
}

fn address() -> SocketAddr {
    "192.0.2.1:5000".parse().expect("an address")
}
