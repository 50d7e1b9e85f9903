//! Every message: written ones are read back, and any bytes are safe to parse.

use proptest::prelude::*;

use super::*;
use crate::contact::Contact;
use crate::contact::tests::any_contact;
use crate::crypto::{Suite, SuiteSet};
use crate::id::{DiscoveryKey, Identity, NetworkId, Psk};

proptest! {
    #[test]
    fn any_bytes_are_safe_to_parse(mut bytes in prop::collection::vec(any::<u8>(), 0..1300), kind in 0xD0u8..=0xDF, version: bool) {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let (true, Some(second)) = (version, bytes.get_mut(1)) {
            *second = VERSION;
        }
        let parsed = [
            Initiation::parse(&bytes).is_ok().then_some(MessageType::Initiation),
            Response::parse(&bytes).is_ok().then_some(MessageType::Response),
            CookieReply::parse(&bytes).is_ok().then_some(MessageType::CookieReply),
            Data::parse(&bytes).is_ok().then_some(MessageType::Data),
            Beacon::parse(&bytes).is_ok().then_some(MessageType::Beacon),
            Hello::open(&key(), &bytes).is_ok().then_some(MessageType::Hello),
            UnknownSession::parse(&bytes).is_ok().then_some(MessageType::UnknownSession),
            StaleReply::parse(&bytes).is_ok().then_some(MessageType::StaleReply),
            Relayed::parse(&bytes).is_ok().then_some(MessageType::Relayed),
            Announcement::parse(&bytes).is_ok().then_some(MessageType::Announcement),
        ];
        // At most one parser accepts the bytes, and only the one that byte 0 names.
        for message in parsed.into_iter().flatten() {
            prop_assert_eq!(MessageType::of(&bytes), Some(message));
        }
        let _ = Control::parse(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = 9;
        }
        let _ = Candidates::parse(&bytes);
    }

    #[test]
    fn candidates_round_trip(
        of_tcp: bool, is_question: bool, id: u32, round_trip: u16, contact in any_contact(),
        seeds in prop::collection::vec(any::<u8>(), 0..6)
    ) {
        let shown = |seed: &u8| RootVoucher {
            root: [*seed; 8],
            voucher: Voucher { time: 5, address: ([192, 0, 2, *seed], 7).into(), signature: [*seed; 64] },
        };
        let vouchers = seeds.iter().map(shown).collect();
        let mut message = Candidates { of_tcp, is_question, id, round_trip, contact, vouchers };
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        message.vouchers.truncate(Candidates::MAX_VOUCHERS);
        prop_assert!(Candidates::is_one(&plaintext));
        prop_assert!(plaintext.len() + DATA_OVERHEAD <= 1200, "it fits into any path's datagram");
        for cut in 0..plaintext.len() {
            prop_assert!(Candidates::parse(&plaintext[..cut]).is_err());
        }
        plaintext.push(0);
        prop_assert_eq!(Candidates::parse(&plaintext), Ok(message), "what follows is for later versions");
    }

    #[test]
    fn data_round_trips(receiver: [u8; 3], counter: u64, sealed in prop::collection::vec(any::<u8>(), 16..100)) {
        let receiver = SessionIndex::from_be_bytes(receiver);
        let mut datagram = [&[0; 12], &sealed[..]].concat();
        Data::write_header(&mut datagram, receiver, counter);
        prop_assert_eq!(Data::parse(&datagram), Ok(Data { receiver, counter, sealed: &sealed }));
    }

    #[test]
    fn handshake_messages_round_trip(
        [sender, receiver]: [[u8; 3]; 2], rest in prop::collection::vec(any::<u8>(), 193..400), aes: bool
    ) {
        let (sender, receiver) = (SessionIndex::from_be_bytes(sender), SessionIndex::from_be_bytes(receiver));
        let header = Initiation::header(sender);
        let datagram = [&header[..], &rest].concat();
        let noise = &rest[..rest.len() - 32];
        prop_assert_eq!(Initiation::parse(&datagram), Ok(Initiation { sender, header: &header, noise }));

        let suite = if aes { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 };
        let header = Response::header(suite, receiver, sender);
        let datagram = [&header[..], &rest].concat();
        prop_assert_eq!(
            Response::parse(&datagram),
            Ok(Response { suite, receiver, sender, header: &header, noise })
        );
    }

    #[test]
    fn cookie_reply_round_trips(receiver: [u8; 3], nonce: [u8; 24], sealed: [u8; 32]) {
        let reply = CookieReply { receiver: SessionIndex::from_be_bytes(receiver), nonce, sealed };
        let mut datagram = Vec::new();
        reply.emit(&mut datagram);
        prop_assert_eq!(datagram.len(), CookieReply::LEN);
        prop_assert_eq!(CookieReply::parse(&datagram), Ok(reply));
    }

    #[test]
    fn stale_reply_round_trips(receiver: [u8; 3], nonce: [u8; 24], sealed: [u8; 28]) {
        let reply = StaleReply { receiver: SessionIndex::from_be_bytes(receiver), nonce, sealed };
        let mut datagram = Vec::new();
        reply.emit(&mut datagram);
        prop_assert_eq!(datagram.len(), StaleReply::LEN);
        prop_assert_eq!(StaleReply::parse(&datagram), Ok(reply));
    }

    #[test]
    fn beacon_round_trips(
        salt: [u8; 16], tags in prop::collection::vec(any::<[u8; 16]>(), 0..=Beacon::MAX_TAGS), filler: u8
    ) {
        let mut datagram = Vec::new();
        Beacon::emit(salt, &tags, |rest| rest.fill(filler), &mut datagram);
        let beacon = Beacon::parse(&datagram).expect("its own form");
        prop_assert_eq!(beacon.salt, salt);
        prop_assert!(beacon.tags().is_sorted());
        prop_assert!(tags.iter().all(|tag| beacon.contains(tag)));
        prop_assert_eq!(datagram.len(), Beacon::LEN);
    }

    #[test]
    fn announcement_round_trips(seed: [u8; 32], cut in 0..Announcement::LEN, more in 1..9usize) {
        let announcement = Announcement { identity: *Identity::from_seed(&seed).public() };
        let mut datagram = Vec::new();
        announcement.emit(&mut datagram);
        prop_assert_eq!(datagram.len(), Announcement::LEN);
        prop_assert_eq!(Announcement::parse(&datagram), Ok(announcement));
        prop_assert_eq!(Announcement::parse(&datagram[1..cut.max(1)]).is_ok(), false);
        datagram.resize(Announcement::LEN + more, 0);
        prop_assert_eq!(Announcement::parse(&datagram), Err(ParseError::Length));
    }

    #[test]
    fn hello_round_trips(seed: [u8; 32], instance: u64, reply_wanted: bool, suites: u8, nonces: [[u8; 24]; 2]) {
        let [nonce, echo] = nonces;
        let identity = *Identity::from_seed(&seed).public();
        let hello = Hello { identity, instance, reply_wanted, suites: SuiteSet::from_wire(suites), echo };
        let mut datagram = Vec::new();
        hello.seal(&key(), nonce, &mut datagram);
        prop_assert_eq!(datagram.len(), Hello::LEN);
        prop_assert_eq!(Hello::open(&key(), &datagram), Ok(hello));
    }

    #[test]
    fn unknown_session_is_the_head_of_the_packet(mut packet in prop::collection::vec(any::<u8>(), 28..200)) {
        packet[0] = MessageType::Data as u8;
        let mut reply = Vec::new();
        prop_assert!(UnknownSession::answer(&packet, &mut reply));
        prop_assert_eq!(reply.len(), UnknownSession::LEN);
        let (data, parsed) = (Data::parse(&packet).expect("long enough"), UnknownSession::parse(&reply));
        let echo = data.sealed[..16].try_into().expect("16 bytes");
        prop_assert_eq!(parsed, Ok(UnknownSession { index: data.receiver, counter: data.counter, echo }));
    }

    #[test]
    fn control_round_trips(message in control()) {
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        prop_assert!(matches!(plaintext[0], 0x01..=0x0f), "never taken for an IP packet");
        prop_assert_eq!(Control::parse(&plaintext), Ok(message));
        if !matches!(message, Control::Probe { .. }) {
            plaintext.push(0);
            prop_assert_eq!(Control::parse(&plaintext), Ok(message), "what follows is for later versions");
            plaintext.truncate(plaintext.len() - 2);
            if let Control::Birthday { id, step, is_fast: true } = message {
                let of_earlier_version = Control::Birthday { id, step, is_fast: false };
                prop_assert_eq!(Control::parse(&plaintext), Ok(of_earlier_version));
                plaintext.pop();
            }
            prop_assert_eq!(Control::parse(&plaintext), Err(ParseError::Length));
        }
    }
}

#[test]
fn types_stay_clear_of_stun_and_turn() {
    // RFC 7983, section 7: 0 to 3 is STUN, 64 to 79 TURN channels.
    let ours: Vec<u8> = (0..=255).filter(|b| MessageType::of(&[*b]).is_some()).collect();
    assert_eq!(ours, [0xD1, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA]);
    for byte in ours {
        assert_eq!(MessageType::of(&[byte]).map(|t| t as u8), Some(byte));
    }
}

// The answered node has sent at least as much: a beacon for a hello, a hello for an initiation, and so on.
#[test]
fn no_answer_is_longer_than_its_question() {
    let chain = [Beacon::LEN, Hello::LEN, Hello::LEN, Initiation::MIN, Response::MIN, CookieReply::LEN];
    assert!(chain.is_sorted_by(|question, answer| question >= answer), "{chain:?}");
    const { assert!(Announcement::LEN >= Initiation::MIN) };
}

#[test]
fn lengths_and_versions_are_checked() {
    let sender = SessionIndex::from_be_bytes([1, 2, 3]);
    let mut initiation = Initiation::header(sender).to_vec();
    for (len, ok) in
        [(4, false), (Initiation::MIN - 1, false), (Initiation::MIN, true), (1200, true), (1201, false)]
    {
        initiation.resize(len, 7);
        assert_eq!(Initiation::parse(&initiation).is_ok(), ok, "{len} bytes");
    }
    initiation.truncate(300);
    initiation[1] = 2;
    assert_eq!(Initiation::parse(&initiation), Err(ParseError::Version(2)));

    let mut response = Response::header(Suite::Aes256Gcm, sender, sender).to_vec();
    response.resize(Response::MIN, 7);
    assert!(Response::parse(&response).is_ok());
    response[1] = 3;
    assert_eq!(Response::parse(&response), Err(ParseError::Version(3)));

    let mut beacon = vec![0xD5, VERSION];
    for (tags, ok) in [(0, false), (1, false), (15, false), (16, true), (17, false)] {
        beacon.resize(18 + 16 * tags, 7);
        assert_eq!(Beacon::parse(&beacon).is_ok(), ok, "{tags} tags");
    }
    beacon.resize(Beacon::LEN + 1, 7);
    assert_eq!(Beacon::parse(&beacon), Err(ParseError::Length));
    beacon[1] = 0;
    assert_eq!(Beacon::parse(&beacon), Err(ParseError::Version(0)));
}

#[test]
fn hello_of_another_network_or_altered_is_not_authentic() {
    let hello = Hello {
        identity: *Identity::from_seed(&[1; 32]).public(),
        instance: 1,
        reply_wanted: false,
        suites: SuiteSet::NONE,
        echo: [0; 24],
    };
    let mut datagram = Vec::new();
    hello.seal(&key(), [0; 24], &mut datagram);
    let other = DiscoveryKey::new(NetworkId::ad_hoc(1..=2).expect("a range"), Some(&Psk::new([1; 32])), None);
    assert_eq!(Hello::open(&other, &datagram), Err(ParseError::Unauthentic));
    for at in 2..datagram.len() {
        datagram[at] ^= 1;
        assert_eq!(Hello::open(&key(), &datagram), Err(ParseError::Unauthentic), "byte {at}");
        datagram[at] ^= 1;
    }
    datagram.push(0);
    assert_eq!(Hello::open(&key(), &datagram), Err(ParseError::Length));
}

// An identity with an invalid key must not pass, even if its sender has the discovery key.
#[test]
fn hello_with_an_impossible_key_is_refused() {
    use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};

    let mut datagram = vec![0; Hello::LEN - 16];
    datagram[..2].copy_from_slice(&[0xD6, VERSION]);
    let (head, plaintext) = datagram.split_at_mut(26);
    let tag = XChaCha20Poly1305::new(key().hello_key().into())
        .encrypt_inout_detached(&[0; 24].into(), &head[..2], plaintext.into())
        .expect("short");
    datagram.extend_from_slice(&tag);
    assert_eq!(Hello::open(&key(), &datagram), Err(ParseError::Value));
}

#[test]
fn unknown_session_answers_data_only() {
    let mut reply = Vec::new();
    for packet in [&[0xD4; 27][..], &[0xD7; 60], &[]] {
        assert!(!UnknownSession::answer(packet, &mut reply));
    }
    assert!(reply.is_empty());
}

#[test]
fn probe_carries_its_size() {
    let mut plaintext = vec![9];
    let len = ProbeSize::new(1172).expect("in range");
    Control::Probe { id: 1, len }.emit(&mut plaintext);
    assert_eq!(plaintext.len(), 1 + 1172, "appended behind what was there");
    assert_eq!(Control::parse(&plaintext[1..]), Ok(Control::Probe { id: 1, len }));
    assert_eq!(Control::parse(&[1, 0, 0, 0]), Err(ParseError::Length));
    assert_eq!(Control::parse(&[]), Err(ParseError::Length));
    assert_eq!(Control::parse(&[0x0f, 1, 2]), Err(ParseError::Type));
}

#[test]
fn candidates_with_too_many_vouchers_are_refused() {
    let contact = Contact::default();
    let (id, vouchers) = (1, Vec::new());
    let message = Candidates { of_tcp: false, is_question: true, id, round_trip: 0, contact, vouchers };
    let mut plaintext = Vec::new();
    message.emit(&mut plaintext);
    plaintext.extend([0; 1000]);
    let count = 8 + 5;
    plaintext[count] = 5;
    assert_eq!(Candidates::parse(&plaintext), Err(ParseError::Length));
    plaintext[count] = 4;
    assert_eq!(Candidates::parse(&plaintext).map(|parsed| parsed.vouchers.len()), Ok(4));
    assert_eq!(Candidates::parse(&[8]), Err(ParseError::Type));
}

// Earlier versions send no flags, and later ones may send others.
#[test]
fn a_search_by_many_ports_is_fast_only_if_its_flag_says_so() {
    let message = |is_fast| Ok(Control::Birthday { id: 7, step: BirthdayStep::Agree, is_fast });
    for (flags, is_fast) in
        [(&[][..], false), (&[0], false), (&[1], true), (&[0xFE], false), (&[0xFF, 9], true)]
    {
        let plaintext = [&[0x0A, 0, 0, 0, 7, 1], flags].concat();
        assert_eq!(Control::parse(&plaintext), message(is_fast), "{flags:?}");
    }
}

const BIRTHDAY: [BirthdayStep; 5] =
    [BirthdayStep::Ask, BirthdayStep::AskIpv6, BirthdayStep::Agree, BirthdayStep::Refuse, BirthdayStep::Stop];

fn control() -> impl Strategy<Value = Control> {
    prop_oneof![
        (any::<u32>(), 5usize..=65_535)
            .prop_map(|(id, len)| Control::Probe { id, len: ProbeSize::new(len).expect("in range") }),
        any::<(u32, u16)>().prop_map(|(id, size)| Control::ProbeAck { id, size }),
        any::<(u32, u64)>()
            .prop_map(|(receive_buffer, instance)| Control::Params { receive_buffer, instance }),
        any::<u8>().prop_map(|reason| Control::Close { reason }),
        (any::<u32>(), prop::sample::select(BIRTHDAY.to_vec()), any::<bool>())
            .prop_map(|(id, step, is_fast)| Control::Birthday { id, step, is_fast }),
        (any::<u64>(), any::<[u8; 4]>(), any::<u16>())
            .prop_map(|(instance, ip, port)| Control::Elsewhere { instance, remote: (ip, port).into() }),
        (any::<u64>(), any::<[u16; 8]>(), any::<u16>())
            .prop_map(|(instance, ip, port)| Control::Elsewhere { instance, remote: (ip, port).into() }),
    ]
}

fn key() -> DiscoveryKey {
    DiscoveryKey::new(NetworkId::ad_hoc(1..=2).expect("a range"), None, None)
}
