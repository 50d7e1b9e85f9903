//! A session from its keys to its end, and its requests for control's attention.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::crypto::{Portable, default_provider};
use crate::id::{Identity, NetworkId};
use crate::network::NetworkIndex;
use crate::reach::{Path, SocketIndex};
use crate::testing::instant;

#[test]
fn packets_pass_in_both_directions_with_every_suite() {
    let provider = default_provider();
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305].into_iter().filter(|s| provider.suites().has(*s))
    {
        let pair = Pair::with(suite, &*provider);
        for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
            for len in [0, 1, 40, 1400, 65_000] {
                let plaintext = vec![0x45; len];
                let datagram = seal(from, &plaintext);
                assert_eq!(datagram.len(), len + DATA_OVERHEAD);
                assert_eq!(data_index(&datagram), Some(to.index()));
                assert_eq!(open(to, &datagram), Ok(plaintext));
            }
        }
        let expected = SessionStats {
            sent_packets: 5,
            sent_bytes: 66_441,
            received_packets: 5,
            received_bytes: 66_441,
            lost_packets: 0,
        };
        assert_eq!(pair.a.stats(), expected);
        assert_eq!(pair.b.stats(), expected);
    }
}

#[test]
fn each_packet_is_accepted_once_and_drops_are_counted() {
    let pair = Pair::new();
    let datagrams: Vec<_> = (0..3).map(|n| seal(&pair.a, &[0x40 + n])).collect();
    for datagram in datagrams.iter().rev() {
        assert!(open(&pair.b, datagram).is_ok());
        assert_eq!(open(&pair.b, datagram), Err(OpenError::Replayed));
    }
    let mut forged = datagrams[0].clone();
    forged[5] ^= 1;
    assert_eq!(open(&pair.b, &forged), Err(OpenError::Unauthentic), "another counter");
    forged[5] ^= 1;
    *forged.last_mut().expect("not empty") ^= 1;
    assert_eq!(open(&pair.b, &forged), Err(OpenError::Unauthentic), "a replay that is also altered");
    assert_eq!(open(&pair.b, &datagrams[0][..27]), Err(OpenError::Malformed));
    assert_eq!(open(&pair.a, &datagrams[0]), Err(OpenError::Malformed), "for the other end");

    let counters = &pair.counters;
    assert_eq!(counters.data_replayed.get(), 3);
    assert_eq!(counters.data_unauthentic.get(), 2);
    assert_eq!(counters.data_malformed.get(), 2);
}

#[test]
fn a_key_that_has_sealed_much_asks_once_to_be_replaced() {
    let provider = default_provider();
    for (suite, worn) in [(Suite::Aes256Gcm, true), (Suite::ChaCha20Poly1305, false)] {
        if !provider.suites().has(suite) {
            continue;
        }
        let pair = Pair::with(suite, &*provider);
        let now = instant();
        seal(&pair.a, &[0x45]);
        pair.a.note_sent(now);
        pair.a.peer().activity().arm();
        assert!(!pair.a.note_sent(now));
        // A key of AES-GCM is replaced after 2^38 bytes.
        pair.a.sealing.volume.pretend(5, 1 << 38);
        assert_eq!((pair.a.note_sent(now), pair.a.note_sent(now)), (worn, false));
        assert_eq!(pair.a.is_worn(), worn);
    }
}

#[test]
fn forged_packet_from_the_future_does_not_move_the_window() {
    let pair = Pair::new();
    let first = seal(&pair.a, &[0x60]);
    let mut forged = seal(&pair.a, &[0x60]);
    forged[4..12].copy_from_slice(&1_000_000_u64.to_be_bytes());
    assert_eq!(open(&pair.b, &forged), Err(OpenError::Unauthentic));
    assert!(open(&pair.b, &first).is_ok());
}

#[test]
fn packets_behind_the_window_are_too_old() {
    let pair = Pair::new();
    let first = seal(&pair.a, &[]);
    let second = seal(&pair.a, &[]);
    // The replay window is 8,192 packets wide.
    for _ in 2..8192 {
        seal(&pair.a, &[]);
    }
    let newest = seal(&pair.a, &[]);
    assert!(open(&pair.b, &newest).is_ok());
    assert_eq!(open(&pair.b, &first), Err(OpenError::TooOld));
    assert!(open(&pair.b, &second).is_ok());
    assert_eq!(pair.counters.data_too_old.get(), 1);
}

#[test]
fn counter_ends_the_session_and_never_wraps() {
    let pair = Pair::new();
    pair.a.sealing.volume.pretend(MESSAGE_LIMIT - 1, 0);
    let mut out = [0; 64];
    assert!(pair.a.seal(&[0x45], &mut out).is_ok());
    for _ in 0..3 {
        assert_eq!(pair.a.seal(&[0x45], &mut out), Err(SealError::Expired));
    }
    assert_eq!(pair.counters.seal_expired.get(), 3);

    // A peer's counter past the limit is refused.
    let mut past = [0; 64];
    Data::write_header(&mut past, pair.b.index(), MESSAGE_LIMIT);
    assert_eq!(open(&pair.b, &past), Err(OpenError::Expired));
}

#[test]
fn short_buffers_are_errors_that_use_up_no_counter() {
    let pair = Pair::new();
    assert_eq!(pair.a.seal(&[0x45; 10], &mut [0; 37]), Err(SealError::NoRoom));
    let datagram = seal(&pair.a, &[0x45; 10]);
    assert_eq!(datagram[4..12], [0; 8]);
    assert_eq!(pair.b.open(&datagram, &mut [0; 9]), Err(OpenError::NoRoom));
    assert!(open(&pair.b, &datagram).is_ok(), "that was not a receipt");
}

#[test]
fn erased_session_neither_seals_nor_opens_whoever_holds_it() {
    let pair = Pair::new();
    let datagram = seal(&pair.a, &[0x45]);
    let held = Arc::clone(&pair.b);
    pair.b.erase();
    assert_eq!(open(&held, &datagram), Err(OpenError::Expired));
    assert_eq!(held.seal(&[], &mut [0; 28]), Err(SealError::Expired));
    assert_eq!(pair.counters.data_expired.get(), 1);
}

#[test]
fn session_past_its_age_erases_itself_and_says_so_once() {
    let pair = Pair::new();
    pair.peer_of_a().activity().arm();
    assert!(!pair.a.note_sent(pair.base + REJECT_AFTER - Duration::from_millis(1)));
    assert!(pair.a.note_sent(pair.base + REJECT_AFTER));
    assert!(!pair.a.note_sent(pair.base + REJECT_AFTER));
    assert!(pair.a.is_erased());
}

#[test]
fn attention_is_asked_for_once_when_its_time_has_come() {
    let pair = Pair::new();
    pair.peer_of_a().activity().arm();
    pair.a.set_attention(Some(pair.base + Duration::from_secs(120)));
    assert!(!pair.a.note_sent(pair.base + Duration::from_secs(119)));
    assert!(pair.a.note_sent(pair.base + Duration::from_secs(121)));
    assert!(!pair.a.note_sent(pair.base + Duration::from_secs(122)));
}

#[test]
fn responder_waits_for_the_first_packet() {
    let pair = Pair::new();
    let meta = pair.source("192.0.2.1:1");
    pair.make_quiet(&pair.b, &meta);
    assert!(pair.a.is_confirmed() && !pair.b.is_confirmed());
    assert!(pair.b.note_received(pair.base, &meta));
    pair.b.confirm();
    assert!(!pair.b.note_received(pair.base, &meta));
}

#[test]
fn another_source_is_told_until_control_makes_it_the_path() {
    let pair = Pair::new();
    let (home, away) = (pair.source("192.0.2.1:1"), pair.source("198.51.100.1:1"));
    pair.make_quiet(&pair.a, &home);
    assert!(!pair.a.note_received(pair.base, &home));
    assert!(pair.a.note_received(pair.base, &away));
    let elsewhere = RecvMeta { socket: SocketIndex(7), ..home };
    assert!(pair.a.note_received(pair.base, &elsewhere), "another of our sockets is another path");
    assert!(!pair.a.note_received(pair.base, &RecvMeta { multicast: true, ..away }), "that is no path");
    pair.make_quiet(&pair.a, &away);
    assert!(!pair.a.note_received(pair.base, &away));
}

#[test]
fn timers_are_wanted_only_while_something_waits() {
    let pair = Pair::new();
    let (now, meta) = (pair.base + Duration::from_secs(1), pair.source("192.0.2.1:1"));
    pair.make_quiet(&pair.a, &meta);
    let activity = pair.peer_of_a().activity();
    activity.disarm();

    // A keepalive, sent or received, starts nothing.
    seal(&pair.a, &[]);
    assert!(!pair.a.note_sent(now));
    assert!(open(&pair.a, &seal(&pair.b, &[])).is_ok());
    assert!(!pair.a.note_received(now, &meta));
    assert_eq!((activity.unanswered_since(), activity.owed_since()), (None, None));

    // Sent data waits for any answer, counted from the first.
    seal(&pair.a, &[0x45]);
    assert!(pair.a.note_sent(now));
    seal(&pair.a, &[0x45]);
    assert!(pair.a.note_sent(now + Duration::from_secs(1)), "nobody armed a timer yet");
    assert_eq!(activity.unanswered_since(), Some(now));
    activity.arm();
    assert!(!pair.a.note_sent(now + Duration::from_secs(2)));
    assert!(open(&pair.a, &seal(&pair.b, &[])).is_ok());
    assert!(pair.a.note_received(now + Duration::from_secs(3), &meta), "it ends a silence");
    assert_eq!(activity.unanswered_since(), None);
    assert!(activity.take_silence() && !activity.take_silence());
    seal(&pair.a, &[0x45]);
    assert!(!pair.a.note_sent(now + Duration::from_millis(3000)));
    assert!(open(&pair.a, &seal(&pair.b, &[])).is_ok());
    assert!(!pair.a.note_received(now + Duration::from_millis(3400), &meta), "an answer like any other");
    assert!(!activity.take_silence());

    // Received data calls for any answer.
    activity.disarm();
    assert!(open(&pair.a, &seal(&pair.b, &[0x60])).is_ok());
    assert!(pair.a.note_received(now + Duration::from_secs(4), &meta));
    assert_eq!(activity.owed_since(), Some(now + Duration::from_secs(4)));
    seal(&pair.a, &[]);
    assert!(!pair.a.note_sent(now + Duration::from_secs(5)));
    assert_eq!(activity.owed_since(), None);
    assert_eq!(activity.last_received(), Some(now + Duration::from_secs(4)));
    assert_eq!(activity.last_sent(), Some(now + Duration::from_secs(5)));
}

#[test]
fn peer_owns_its_certified_and_its_listed_addresses() {
    let listed: IpAddr = "10.1.2.3".parse().expect("valid");
    let identity = *Identity::from_seed(&[1; 32]).public();
    let network: NetworkId = "fe00000000000001".parse().expect("valid");
    let peer = Peer::new(identity, NetworkIndex(0), network, &[listed], Watched::default(), instant());
    let certified = IpAddr::V6(network.address_of(&identity.node_id()));
    assert_eq!(peer.addresses(), [certified, listed]);
    assert!(peer.owns(certified) && peer.owns(listed));
    assert!(!peer.owns("10.1.2.4".parse().expect("valid")));
}

#[test]
fn sender_needs_a_session_and_a_path() {
    let pair = Pair::new();
    let peer = pair.peer_of_a();
    assert!(peer.sender().is_none());
    assert!(peer.set_session(Some(Arc::clone(&pair.a))).is_none());
    assert!(peer.sender().is_none());
    let path = pair.path("192.0.2.1:1");
    peer.set_path(Some(path));
    let sender = peer.sender().expect("both are there");
    assert_eq!((sender.session.index(), sender.path), (pair.a.index(), path));
    peer.set_session(None);
    assert!(peer.sender().is_none());
}

#[test]
fn receive_limit_is_half_of_what_the_peer_said() {
    let pair = Pair::new();
    pair.peer_of_a().set_receive_buffer(5_000_001);
    assert_eq!(pair.peer_of_a().receive_limit(), 2_500_000);
}

#[test]
fn table_gives_each_index_once_and_is_bounded() {
    let table = SessionTable::new(2);
    let first = table.reserve(|| 0xff00_0001).expect("free");
    assert_eq!(first.to_be_bytes(), [0, 0, 1], "24 bits");
    assert!(table.get(first).is_none(), "reserved is not there yet");
    let mut draws = [1, 1, 2].into_iter();
    let second = table.reserve(|| draws.next().expect("three draws do")).expect("free");
    assert_eq!(second.to_be_bytes(), [0, 0, 2]);
    assert!(table.reserve(|| 3).is_none(), "full");
    table.remove(first);
    assert!(table.reserve(|| 2).is_none(), "a generator that is stuck does not hang it");
    assert_eq!(table.len(), 1);

    let pair = Pair::new();
    table.insert(Arc::clone(&pair.a));
    assert!(table.get(pair.a.index()).is_some_and(|s| Arc::ptr_eq(&s, &pair.a)));
    assert!(table.remove(pair.a.index()).is_some());
    assert!(table.get(pair.a.index()).is_none());
}

#[test]
fn debug_shows_no_key() {
    let text = format!("{:?}", Pair::new().a);
    assert!(text.contains("[redacted]") && text.len() < 250, "{text}");
}

#[test]
fn threads_share_a_session_without_repeating_a_counter() {
    let pair = Pair::new();
    let per_thread = 500;
    let datagrams: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..per_thread).map(|_| seal(&pair.a, &[0x45; 20])).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect()
    });
    let opened: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| datagrams.iter().filter(|d| open(&pair.b, d).is_ok()).count()))
            .collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).sum()
    });
    assert_eq!(opened, 4 * per_thread);
    assert_eq!(pair.counters.data_replayed.get(), 3 * 4 * per_thread as u64);
}

proptest! {
    #[test]
    fn any_bytes_are_refused(mut datagram in prop::collection::vec(any::<u8>(), 0..200), aim: bool) {
        let pair = Pair::new();
        if aim && datagram.len() >= 12 {
            Data::write_header(&mut datagram, pair.b.index(), 3);
        }
        prop_assert!(open(&pair.b, &datagram).is_err());
    }

    #[test]
    fn data_index_and_parser_agree(mut datagram in prop::collection::vec(any::<u8>(), 0..60), data: bool) {
        if let (true, Some(first)) = (data, datagram.first_mut()) {
            *first = MessageType::Data as u8;
        }
        prop_assert_eq!(data_index(&datagram), Data::parse(&datagram).ok().map(|d| d.receiver));
    }
}

const REJECT_AFTER: Duration = Duration::from_secs(180);

/// Both ends of one session.
struct Pair {
    base: Instant,
    a: Arc<Session>,
    b: Arc<Session>,
    counters: Arc<Counters>,
}

impl Pair {
    fn new() -> Self {
        Self::with(Suite::ChaCha20Poly1305, &Portable)
    }

    fn with(suite: Suite, provider: &dyn Provider) -> Self {
        let base = instant();
        let counters = Arc::new(Counters::default());
        let ends = [(1, 2, true), (2, 1, false)].map(|(ours, theirs, initiator)| {
            let keys = SessionKeys {
                send: [ours; 32],
                receive: [theirs; 32],
                hash: [0; 32],
                suite,
                initiator,
                index: SessionIndex::from_be_bytes([0, 0, ours]),
                remote_index: SessionIndex::from_be_bytes([0, 0, theirs]),
            };
            let identity = *Identity::from_seed(&[theirs; 32]).public();
            let network = NetworkId::ad_hoc(1..=2).expect("a range");
            let peer = Arc::new(Peer::new(identity, NetworkIndex(0), network, &[], Watched::default(), base));
            let session = Session::new(&keys, provider, peer, Arc::clone(&counters), REJECT_AFTER, base);
            Arc::new(session.expect("the provider has the suite"))
        });
        let [a, b] = ends;
        Self { base, a, b, counters }
    }

    fn peer_of_a(&self) -> &Peer {
        self.a.peer()
    }

    /// Makes the source the path and marks a timer as running, so that nothing else asks for attention.
    fn make_quiet(&self, session: &Session, meta: &RecvMeta) {
        let path = Path { place: meta.place(), datagram_size: 1200, turn: false };
        session.peer().set_path(Some(path));
        session.peer().activity().arm();
    }

    fn source(&self, remote: &str) -> RecvMeta {
        RecvMeta { remote: address(remote), socket: SocketIndex(0), multicast: false, relay: None }
    }

    fn path(&self, remote: &str) -> Path {
        Path { place: self.source(remote).place(), datagram_size: 1200, turn: false }
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address and port")
}

fn seal(session: &Session, plaintext: &[u8]) -> Vec<u8> {
    let mut out = vec![0; plaintext.len() + DATA_OVERHEAD];
    let len = session.seal(plaintext, &mut out).expect("a live session and room enough");
    assert_eq!(len, out.len());
    out
}

fn open(session: &Session, datagram: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut out = vec![0; datagram.len()];
    session.open(datagram, &mut out).map(|opened| out[..opened.len()].to_vec())
}
