//! A malicious server, or a forger of its answers; and the contents of the log.

use peersock_testnet::Log;
use stun_types::attribute::{
    AttributeStaticType as _, MessageIntegrity, PasswordAlgorithmValue, PasswordAlgorithms,
};
use tracing_subscriber::fmt::format::FmtSpan;

use super::*;
use crate::stun::Answer;

/// Returns everything that is logged within `call`.
fn logged(call: impl FnOnce()) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        tracing::trace!("the log is on");
        call();
    });
    let text = log.text();
    assert!(text.contains("the log is on"));
    text
}

#[test]
fn a_log_of_everything_has_neither_password_nor_key() {
    let text = logged(|| {
        let mut world = World::new(Server::default());
        assert_eq!(world.events(), [Event::Allocated(at(RELAYED))]);
        world.pass(10 * MINUTE);
        world.client.close();
        world.exchange();
        assert!(world.server.count(REFRESH) >= 2);
        tracing::trace!(client = ?world.client, "it can be printed");
    });
    let key = LongTermKeyCredentials::new("alice".into(), "sesame".into(), "realm".into())
        .make_key(IntegrityAlgorithm::Sha1);
    let printed = format!("{key:?}");
    let (_, bytes) = printed.split_once("bytes: [").expect("the key's bytes");
    let (bytes, _) = bytes.split_once(']').expect("the end of the list");
    let hex: String = bytes.split(", ").map(|byte| format!("{:02x}", byte.parse::<u8>().unwrap())).collect();
    assert_eq!(hex.len(), 32, "MD5");
    for secret in ["sesame", bytes, &hex, "IntegrityKey"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[test]
fn malformed_datagrams_are_no_reason_to_log() {
    let header = |length: u8| {
        let mut bytes = Server::data(PEER, b"data");
        bytes[3] = length;
        bytes
    };
    let text = logged(|| {
        let mut world = World::new(Server::default());
        for length in 0..=255 {
            let bytes = header(length);
            world.client.handle(world.now, &bytes);
            assert_eq!(Answer::parse(&bytes), None);
            assert_eq!(crate::stun::request_id(&bytes), None);
        }
    });
    // The level follows the time; the STUN library also logs an attribute ERROR-CODE.
    let levels: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert!(levels.contains(&"TRACE"), "{text}");
    assert!(!levels.iter().any(|level| ["WARN", "ERROR"].contains(level)), "{text}");
}

#[test]
fn a_refresh_without_a_lifetime_ends_the_allocation() {
    let mut world = World::new(Server { names_lifetime: false, ..Server::default() });
    for _ in 0..100 {
        let Some(next) = world.client.poll_timeout(world.now) else { break };
        world.now = world.now.max(next);
        world.client.handle_timeout(world.now);
        world.exchange();
    }
    assert_eq!(world.server.count(REFRESH), 1);
    assert_eq!(world.events(), [Event::Allocated(at(RELAYED)), Event::Ended(Failure::Nonsense)]);
}

#[test]
fn a_relayed_address_is_as_public_as_the_server() {
    let good = [
        ("127.0.0.1", "127.0.0.1:5"),
        ("127.0.0.1", "10.0.0.1:5"),
        ("localhost", "127.0.0.1:5"),
        ("192.168.1.1", "192.168.1.2:5"),
        ("192.168.1.1", RELAYED),
        ("[fe80::1]", "10.1.1.1:5"),
        ("198.51.100.1", RELAYED),
        ("turn.example.org", RELAYED),
    ];
    let bad = [
        ("192.168.1.1", "127.0.0.1:5"),
        ("turn.example.org", "127.0.0.1:5"),
        ("198.51.100.1", "127.0.0.1:5"),
        ("198.51.100.1", "127.1.2.3:5"),
        ("198.51.100.1", "0.1.2.3:5"),
        ("198.51.100.1", "10.0.0.1:5"),
        ("198.51.100.1", "100.64.0.1:5"),
        ("198.51.100.1", "169.254.1.1:5"),
        ("198.51.100.1", "255.255.255.255:5"),
        ("127.0.0.1", "255.255.255.255:5"),
        ("[2001:db8::1]", "192.168.1.1:5"),
    ];
    let made = |host: &str, relayed: &'static str| {
        let is_ipv4 = at(relayed).is_ipv4();
        let server = Server { relayed, ..Server::default() };
        World::with(server, &format!("turn:alice:sesame@{host}"), is_ipv4).events()
    };
    for (host, relayed) in good {
        assert_eq!(made(host, relayed), [Event::Allocated(at(relayed))], "{host}");
    }
    for (host, relayed) in bad {
        assert_eq!(made(host, relayed), [Event::Ended(Failure::Nonsense)], "{host} {relayed}");
    }
    for relayed in ["[::1]:5", "[fd00::1]:5", "[fe80::1]:5"] {
        assert_eq!(made("198.51.100.1", relayed), [Event::Ended(Failure::Nonsense)], "{relayed}");
    }
}

#[test]
fn the_address_that_is_talked_to_counts_more_than_the_name() {
    let made = |named: &str, address: &str, relayed: &'static str| {
        let mut world = World::silent(named);
        world.client = world.client.at(at(address));
        world.server = Server { relayed, ..Server::default() };
        world.pass(Duration::from_secs(1));
        world.events()
    };
    assert_eq!(
        made("turn.example.org", "192.168.1.1:3478", "10.0.0.1:5"),
        [Event::Allocated(at("10.0.0.1:5"))]
    );
    assert_eq!(
        made("turn.example.org", "198.51.100.1:3478", "10.0.0.1:5"),
        [Event::Ended(Failure::Nonsense)]
    );
    assert_eq!(made("127.0.0.1", "198.51.100.1:3478", "127.0.0.1:5"), [Event::Ended(Failure::Nonsense)]);
}

/// Lets time pass until a refresh is due, and returns the request.
fn refresh_of(world: &mut World) -> Vec<u8> {
    loop {
        world.now = world.client.poll_timeout(world.now).expect("an allocation").max(world.now);
        world.client.handle_timeout(world.now);
        while let Some(datagram) = world.client.poll_transmit() {
            if Message::from_bytes(&datagram).expect("a message").has_method(REFRESH) {
                return datagram;
            }
            let answer = world.server.handle(&datagram).expect("an answer");
            world.client.handle(world.now, &answer);
        }
    }
}

#[test]
fn a_forged_refusal_does_not_end_a_standing_allocation() {
    for (code, realm) in [(400, "realm"), (401, "realm"), (438, "another"), (438, "realm")] {
        let mut world = World::new(Server::default());
        world.events();
        let datagram = refresh_of(&mut world);
        let request = Message::from_bytes(&datagram).expect("a message");
        assert!(request.raw_attribute(MessageIntegrity::TYPE).is_some());
        let mut forger = Server { realm, nonce: "forged", ..Server::default() };
        let mut forged = forger.refuse(&request, code, false);
        assert_eq!(world.client.handle(world.now, &forged), None);
        // With the forger's nonce, requests are signed anew up to the limit.
        for _ in 0..10 {
            let Some(datagram) = world.client.poll_transmit() else { break };
            forged = forger.refuse(&Message::from_bytes(&datagram).expect("a message"), code, false);
            world.client.handle(world.now, &forged);
        }
        assert_eq!(forger.seen.len(), 0);
        forger.is_silent = true;
        let answer = world.server.handle(&datagram).expect("an answer");
        assert_eq!(world.client.handle(world.now, &answer), None);
        world.pass(20 * MINUTE);
        assert_eq!((world.events(), world.client.relayed()), (vec![], Some(at(RELAYED))), "{code} {realm}");
    }
}

#[test]
fn a_refusal_that_nobody_contradicts_ends_the_allocation_in_the_end() {
    for (code, why) in [(400, Failure::Refused(400, "no".into())), (401, Failure::Unauthorized)] {
        let mut world = World::new(Server::default());
        world.events();
        let mut datagrams = vec![refresh_of(&mut world)];
        for _ in 0..100 {
            for datagram in datagrams.drain(..) {
                let message = Message::from_bytes(&datagram).expect("a message");
                if message.has_method(REFRESH) {
                    let refusal = world.server.refuse(&message, code, false);
                    world.client.handle(world.now, &refusal);
                }
            }
            assert_eq!(world.client.relayed().is_none(), world.client.poll_timeout(world.now).is_none());
            let Some(next) = world.client.poll_timeout(world.now) else { break };
            world.now = world.now.max(next);
            world.client.handle_timeout(world.now);
            datagrams.extend(std::iter::from_fn(|| world.client.poll_transmit()));
        }
        assert_eq!(world.events(), [Event::Ended(why)]);
    }
}

#[test]
fn the_goodbye_leaves_first() {
    let mut world = World::new(Server::default());
    let mut out = Vec::new();
    assert_eq!(world.client.send(world.now, at(PEER), b"x", &mut out), Sent::Held);
    world.client.close();
    let datagram = world.client.poll_transmit().expect("the goodbye");
    let message = Message::from_bytes(&datagram).expect("a message");
    assert!(message.has_method(REFRESH));
    assert_eq!(message.raw_attribute(LIFETIME).expect("a lifetime").value.to_vec(), [0; 4]);
    assert_eq!(world.client.poll_transmit(), None);
}

#[test]
fn a_server_that_offers_endless_algorithms_is_left() {
    let most = 16_300;
    for offered in [1, 8, 9, most] {
        let server = "turn:alice:sesame@192.0.2.1".parse().expect("a server");
        let mut client = Client::new(&server, true, [7; 32], Instant::now());
        let request = client.poll_transmit().expect("the first one");
        let request = Message::from_bytes(&request).expect("a message");
        let mut answer = Message::builder_error(&request, MessageWriteVec::new());
        let error = ErrorCode::builder(ErrorCode::UNAUTHORIZED).build().expect("a code");
        answer.add_attribute(&error).expect("room");
        answer.add_attribute(&Realm::new("realm").expect("short")).expect("room");
        answer.add_attribute(&Nonce::new("obMatJos2AAAAnonce").expect("short")).expect("room");
        let algorithms = vec![PasswordAlgorithmValue::SHA256; offered];
        answer.add_attribute(&PasswordAlgorithms::new(&algorithms)).expect("room");
        let answer = answer.finish();
        assert!(answer.len() <= 65_507, "a datagram has room for it");
        assert_eq!(client.handle(Instant::now(), &answer), None);
        // The server wants its offer repeated in full.
        let signed = client.poll_transmit().map_or(0, |request| request.len());
        let event = client.poll_event();
        match offered {
            ..=8 => assert!((100..400).contains(&signed) && event.is_none(), "{offered}: {signed} bytes"),
            _ => assert_eq!((signed, event), (0, Some(Event::Ended(Failure::Unauthorized))), "{offered}"),
        }
    }
}
