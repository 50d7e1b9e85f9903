//! No node can aim another's search at third parties.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::wire::{Candidates, RootVoucher, Voucher};
use peersock_overlay::{Candidate, CandidateKind, Contact, Identity, Mapping, Nat};

use crate::attack::{Attack, victim};
use crate::nat::{On, Ports};
use crate::net::{Net, Sent, UNIX_TIME, open_network};
use crate::punching::homes;
use crate::referrals::referral;
use crate::roots::{apart, apart_with_liars, talk, use_root, use_roots};

const SECOND: Duration = Duration::from_secs(1);
const SYMMETRIC: (On, On, Ports, bool) = (On::Endpoint, On::Endpoint, Ports::Random, false);

#[test]
fn addresses_that_no_root_vouches_for_get_a_few_small_packets() {
    let mut net = lying();
    say(&mut net, &[victim()], Nat::default());
    net.send(0, 1, b"first");
    talk(&mut net, 20 * SECOND);
    let hits = hits(&net, |to| to == victim());
    // An address without a voucher gets the first six challenges of a round.
    assert_eq!(hits, [38; 6]);
}

#[test]
fn who_names_ever_new_addresses_is_believed_no_more() {
    let mut net = lying();
    net.send(0, 1, b"first");
    let begin = net.now;
    for turn in 0..300u16 {
        // A whole network of victims, 16 addresses each time, and predictable ports.
        let all: Vec<SocketAddr> =
            (0..16).map(|host| ([203, 0, 113, 100 + host], 1000 + turn).into()).collect();
        let nat = Nat { mapping: Mapping::AddressDependent, port_delta: 1, ..Nat::default() };
        say(&mut net, &all, nat);
        net.send(0, 1, b"on");
        net.send(1, 0, b"and on");
        net.run(SECOND / 2);
    }
    let seconds = (net.now - begin).as_secs();
    let hits = hits(&net, |to| {
        to.ip().to_string().starts_with("203.0.113.1") && to.port() >= 1000 && to.port() < 2000
    });
    // The budget for such addresses of one node: 24 challenges at once, and one in 5 s.
    let most = 24 + seconds as usize / 5 + 1;
    assert!((24..=most).contains(&hits.len()), "{} in {seconds} s", hits.len());
    assert!(hits.iter().all(|len| *len == 38));
    let told: usize = net
        .sent
        .iter()
        .filter(|sent| sent.from.port() == 7420 && sent.at >= begin)
        .map(|sent| sent.bytes.len())
        .sum();
    assert!(hits.iter().sum::<usize>() * 20 < told, "it costs the liar much more");
}

#[test]
fn private_addresses_are_for_neighbours_that_a_root_has_seen() {
    let mut net = lying();
    // It claims to be behind the box of node 0, and names machines there.
    let own = net.nodes[0].endpoint.roots(net.now)[0].observed.expect("a voucher");
    let inside: SocketAddr = "10.0.0.77:22".parse().unwrap();
    say(&mut net, &[SocketAddr::new(own.ip(), 1), inside, "127.0.0.1:53".parse().unwrap()], Nat::default());
    net.send(0, 1, b"first");
    talk(&mut net, 20 * SECOND);
    assert_eq!(hits(&net, |to| to == inside || to.ip().is_loopback()), [0; 0]);
}

#[test]
fn a_clock_that_is_wrong_is_no_reason_to_doubt_what_roots_say() {
    // A clock without a battery, and one in another time zone.
    for wrong in [SECOND, UNIX_TIME + 7200 * SECOND] {
        let mut net = apart(1);
        net.restart(0, 4000, wrong);
        net.join(0, &open_network());
        use_roots(&mut net, 0);
        net.run(5 * SECOND);
        net.send(0, 1, b"first");
        talk(&mut net, 10 * SECOND);
        let attempts = net.nodes[0].endpoint.peers()[0].attempts.clone();
        assert!(!attempts.is_empty() && attempts.iter().all(|attempt| attempt.vouched), "{attempts:?}");
    }
}

#[test]
fn a_root_that_another_one_has_named_vouches_for_little() {
    let mut net = apart_with_liars(2);
    net.roots[1].root.lies().seen_at = Some(victim());
    (0..2).for_each(|node| use_root(&mut net, node, node));
    net.run(SECOND);
    net.roots[1].root.lies().seen_at = None;
    let referral = referral(&net);
    net.roots[0].root.fake().referrals = vec![(referral, [7; 32])];
    let begin = net.now;
    for turn in 0..120 {
        let all: Vec<_> =
            (0..16).map(|port| SocketAddr::new(victim().ip(), 1000 + 16 * turn + port)).collect();
        say(&mut net, &all, Nat::default());
        net.send(0, 1, b"on");
        net.send(1, 0, b"and on");
        net.run(SECOND / 2);
    }
    let attempts = net.nodes[0].endpoint.peers()[0].attempts.clone();
    assert!(attempts.iter().any(|attempt| attempt.vouched), "{attempts:?}");
    let seconds = (net.now - begin).as_secs() as usize;
    let hits =
        net.sent.iter().filter(|sent| sent.from == net.nodes[0].socket && sent.to.ip() == victim().ip());
    let hits: Vec<_> = hits.map(|sent| sent.bytes.len()).collect();
    // The budgets for addresses that guests vouch for, and for those without a voucher.
    let (by_guests, unvouched) = (60 + seconds, 24 + seconds / 5 + 1);
    assert!((30..=by_guests + unvouched).contains(&hits.len()), "{} in {seconds} s", hits.len());
    assert!(hits.iter().all(|len| *len == 38));
}

#[test]
fn a_voucher_for_somebody_else_or_of_somebody_else_is_none() {
    // Authentic messages of a member through its session, each with a voucher that says it is at the victim.
    let mut attack = Attack::with_session();
    let root = Identity::from_seed(&[0xA1; 32]);
    let voucher = Voucher::sign(&root, attack.adversary.id(), UNIX_TIME.as_secs(), victim());
    let address = Candidate { kind: CandidateKind::Mapped, address: victim() };
    for id in 0..100 {
        let message = Candidates {
            of_tcp: false,
            is_question: id % 2 == 0,
            id,
            round_trip: 0,
            contact: Contact::new(Nat::default(), [address]),
            vouchers: vec![RootVoucher::new(&root.node_id(), voucher); 4],
        };
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        attack.send_sealed(crate::attack::home(), &plaintext);
        attack.send_sealed(victim(), &plaintext);
        attack.run(SECOND / 5);
    }
    assert_eq!(attack.path(), Some(crate::attack::home()));
    assert!(attack.net.counter(0, "candidates_sent") <= 20, "questions are answered now and then");
}

#[test]
fn a_message_that_was_altered_on_the_way_is_not_read() {
    let mut net = homes(SYMMETRIC, SYMMETRIC, 1, 10 * Duration::from_millis(1));
    net.filter = Box::new(|_| true);
    net.send(0, 1, b"first");
    // Every packet of the length of such a message comes twice, once with one bit changed.
    for _ in 0..200 {
        let (now, before) = (net.now, net.sent.len());
        net.run(5 * Duration::from_millis(1));
        let frames: Vec<Sent> = net.sent[before..].to_vec();
        for mut frame in
            frames.into_iter().filter(|frame| frame.bytes[0] == 0xD9 && frame.from.port() == 7420)
        {
            let last = frame.bytes.len() - 20;
            frame.bytes[last] ^= 1;
            frame.at = now;
            net.inject(frame);
        }
    }
    let said = net.nodes[1].endpoint.contact().candidates().to_vec();
    let known = net.nodes[0].endpoint.peers()[0].contact.clone().expect("it was told");
    assert_eq!(known.candidates(), said);
    assert!(net.counter(0, "data_unauthentic") > 0);
}

/// Creates two nodes that cannot punch; node 1 lies about its addresses.
fn lying() -> Net {
    homes(SYMMETRIC, SYMMETRIC, 1, 10 * Duration::from_millis(1))
}

fn say(net: &mut Net, addresses: &[SocketAddr], nat: Nat) {
    let all = addresses.iter().map(|address| Candidate { kind: CandidateKind::Mapped, address: *address });
    net.nodes[1].endpoint.set_contact(net.now, Contact::new(nat, all));
    net.pump();
}

/// Returns the lengths of the packets from node 0 to such addresses.
fn hits(net: &Net, is_victim: impl Fn(SocketAddr) -> bool) -> Vec<usize> {
    // Packets inside its LAN have its private address.
    let from = [net.nats[0].external, net.nodes[0].socket.ip()];
    let hit = |sent: &&Sent| from.contains(&sent.from.ip()) && is_victim(sent.to);
    net.sent.iter().filter(hit).map(|sent| sent.bytes.len()).collect()
}
