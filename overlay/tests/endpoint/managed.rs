//! Managed networks: credentials in sessions, requests to a controller, revocations.

use std::collections::BTreeSet;
use std::time::Duration;

use peersock_overlay::membership::{
    Answer, Certificate, CertifyRequest, Code, Credentials, Delegation, Denial, Grant, Head, NetworkSecret,
    Question, Refusal, Revocation, Revocations, Rights, Serial, Succession, Token, UnixTime,
};
use peersock_overlay::wire::MembershipMessage;
use peersock_overlay::{
    DATA_OVERHEAD, Event, Gone, Identity, Lookup, ManagedNetwork, NetworkConfig, NetworkId, NetworkIndex,
    NodeId,
};

use crate::net::{Net, UNIX_TIME};

pub(super) const DAY: Duration = Duration::from_secs(86_400);
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Identity of the controller in these tests.
pub(super) const CONTROLLER: u8 = 9;

/// First byte of an initiation.
const INITIATION: u8 = 0xD1;

/// Seed of the network's first key.
const FIRST_KEY: u8 = 77;

pub(super) fn id() -> NetworkId {
    "8056c2e21c000001".parse().expect("a managed ID")
}

pub(super) fn secret() -> NetworkSecret {
    NetworkSecret::from_seed(&[FIRST_KEY; 32])
}

pub(super) fn node_id(identity: u8) -> NodeId {
    Identity::from_seed(&[identity; 32]).node_id()
}

/// Signer of the certificates and revocations in these tests.
pub(super) struct Authority {
    identity: Identity,
    delegation: Delegation,
    /// Successions from the network's first key on, and the seed of the last one.
    successions: Vec<Succession>,
    key: u8,
    lifetime: Duration,
    epoch: u64,
    revoked: Revocations,
}

impl Authority {
    pub(super) fn new() -> Self {
        Self::with(CONTROLLER, 365 * DAY)
    }

    /// Returns the issuer with this identity, whose delegation lasts for `lasts` from the start on.
    pub(super) fn with(identity: u8, lasts: Duration) -> Self {
        let identity = Identity::from_seed(&[identity; 32]);
        let serial = Serial::next(UnixTime::from(UNIX_TIME), None);
        let delegation = Delegation::sign(&secret(), id(), *identity.public(), serial, lasts, Rights::ALL);
        let (successions, lifetime, revoked) = (Vec::new(), DAY, Revocations::default());
        Self { identity, delegation, successions, key: FIRST_KEY, lifetime, epoch: 0, revoked }
    }

    /// Returns the issuer with certificates that last for this time.
    pub(super) fn lasting(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// Replaces the network's key by that of another seed, and renews the delegation by it. The former key
    /// counts until `end`. Times are after the start.
    pub(super) fn rekey(&mut self, seed: u8, at: Duration, end: Duration) {
        let [former, next] = [self.key, seed].map(|seed| NetworkSecret::from_seed(&[seed; 32]));
        let end = UnixTime::from(UNIX_TIME + end);
        self.successions.push(Succession::sign(&former, id(), next.public(), end));
        self.key = seed;
        let serial = Serial::next(UnixTime::from(UNIX_TIME + at), None);
        let issuer = *self.identity.public();
        self.delegation = Delegation::sign(&next, id(), issuer, serial, 365 * DAY, Rights::ALL);
    }

    /// Returns credentials that are signed at `at` after the start.
    pub(super) fn credentials(&self, identity: u8, at: Duration) -> Credentials {
        let mut grant = Grant::new(node_id(identity), format!("node-{identity}").parse().expect("a name"));
        (grant.ipv4, grant.ipv4_length) = (Some([10, 7, 0, identity].into()), 24);
        self.sign(grant, at)
    }

    fn sign(&self, grant: Grant, at: Duration) -> Credentials {
        let serial = Serial::next(UnixTime::from(UNIX_TIME + at), None);
        let signed = Certificate::sign(&self.identity, id(), grant, serial, self.lifetime);
        let credentials =
            Credentials::new(secret().public(), self.delegation.clone(), signed.expect("a good grant"));
        credentials.with_successions(&self.successions)
    }

    /// Revokes what was signed for a node until `at` after the start.
    pub(super) fn revoke(&mut self, identity: u8, at: Duration) -> (Head, Revocations) {
        self.revoke_for(identity, at, 2 * DAY)
    }

    /// Does the same with an entry that lasts for `lasts` only.
    fn revoke_for(&mut self, identity: u8, at: Duration, lasts: Duration) -> (Head, Revocations) {
        let now = UnixTime::from(UNIX_TIME + at);
        let min_serial = Serial::next(now, Some(Serial::next(now, None)));
        self.revoked.add(node_id(identity), Revocation { min_serial, until: now.plus(lasts) });
        self.epoch += 1;
        let head = Head::sign(&self.identity, self.delegation.clone(), id(), self.epoch, now, &self.revoked);
        (head, self.revoked.clone())
    }
}

pub(super) fn config(credentials: Option<Credentials>) -> NetworkConfig {
    let key = Some(secret().public());
    NetworkConfig::Managed(Box::new(ManagedNetwork { key, credentials, ..ManagedNetwork::new(id()) }))
}

/// Creates nodes with these identities on one LAN, all of them members.
pub(super) fn members(authority: &Authority, identities: &[u8]) -> Net {
    let mut net = Net::new();
    for &identity in identities {
        let node = net.add(identity);
        let mut config = ManagedNetwork::new(id());
        config.key = Some(secret().public());
        config.credentials = Some(authority.credentials(identity, Duration::ZERO));
        config.is_controller = identity == CONTROLLER;
        net.join(node, &NetworkConfig::Managed(Box::new(config)));
    }
    net.run(Duration::from_secs(4));
    net
}

pub(super) fn network(net: &Net, node: usize) -> NetworkIndex {
    net.nodes[node].endpoint.networks()[0].index
}

pub(super) fn expelled(net: &Net, node: usize) -> usize {
    net.count(node, |event| matches!(event, Event::PeerGone(_, Gone::Expelled)))
}

/// Answers the requests for credentials at a node, as its controller does.
pub(super) fn serve(
    net: &mut Net,
    node: usize,
    answer: impl Fn(&NodeId, &CertifyRequest, Duration) -> Answer,
) {
    let start = crate::net::instant();
    let asked: Vec<_> =
        net.nodes[node].events.extract_if(.., |(_, event)| matches!(event, Event::Asked(..))).collect();
    for (_, event) in asked {
        let Event::Asked(peer, number, question) = event else { unreachable!() };
        let Question::Certify(request) = *question else { continue };
        let answer = answer(peer.id(), &request, net.now - start);
        net.nodes[node].endpoint.answer(net.now, &peer, number, &answer);
    }
    net.pump();
}

/// Returns an answer with credentials that are signed now.
pub(super) fn certified(authority: &Authority, node: &NodeId, at: Duration) -> Answer {
    let identity = (1..=255).find(|identity| node_id(*identity) == *node).expect("a test's identity");
    Answer::Certified {
        time: UnixTime::from(UNIX_TIME + at),
        renew_after: 2400,
        credentials: Box::new(authority.credentials(identity, at)),
    }
}

/// Sends a plaintext that the node itself would not send, in its authentic session.
pub(super) fn say(net: &mut Net, from: usize, to: usize, plaintext: &[u8]) {
    let peer = net.peer(from, to);
    let (session, path) = (peer.session().expect("a session"), peer.path().expect("a path"));
    let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
    session.seal(plaintext, &mut datagram).expect("a session");
    net.transmit(from, &path.place, datagram);
}

#[test]
fn members_reach_each_other_by_name_and_granted_address() {
    let mut net = members(&Authority::new(), &[1, 2]);
    net.send(0, 1, b"hello");
    net.run(SECOND);
    assert_eq!(net.received(1), [b"hello".to_vec()]);
    // Both know each other's granted addresses and names now, without anybody else.
    let at = network(&net, 1);
    net.send_to(1, at, [10, 7, 0, 1].into(), b"back");
    net.run(SECOND);
    assert_eq!(net.received(0), [b"back".to_vec()]);
    let named = net.nodes[1].endpoint.addresses_named("NODE-1", |_| true);
    assert!(named.contains(&[10, 7, 0, 1].into()), "{named:?}");
    let own = net.nodes[1].endpoint.addresses(at);
    assert_eq!(own[1..], [std::net::IpAddr::from([10, 7, 0, 2])]);
    assert_eq!((net.counter(0, "peers_admitted"), net.counter(1, "peers_admitted")), (1, 1));
}

#[test]
fn a_member_without_an_address_in_the_pool_is_led_to_none() {
    let authority = Authority::new();
    let mut net = members(&authority, &[1]);
    let bare = net.add(2);
    let grant = Grant::new(node_id(2), "bare".parse().expect("a name"));
    net.join(bare, &config(Some(authority.sign(grant, Duration::ZERO))));
    net.run(4 * SECOND);
    net.send(bare, 0, b"hello");
    net.run(SECOND);
    // To its system, the pool is somewhere else.
    let at = network(&net, bare);
    let named = net.nodes[bare].endpoint.addresses_named("node-1", |_| true);
    assert_eq!(named, [net.address(bare, at, 0)]);
    let own = authority.credentials(2, SECOND);
    net.nodes[bare].endpoint.set_credentials(net.now, at, &own).expect("its own");
    assert_eq!(net.nodes[bare].endpoint.addresses_named("node-1", |_| true).len(), 2);
}

#[test]
fn nothing_passes_from_or_to_a_node_without_credentials() {
    let authority = Authority::new();
    let mut net = members(&authority, &[1]);
    let stranger = net.add(2);
    net.join(stranger, &config(None));
    net.run(Duration::from_secs(4));
    net.send(0, stranger, b"secret");
    net.send(stranger, 0, b"knock");
    net.run(Duration::from_secs(20));
    assert!(net.received(0).is_empty() && net.received(stranger).is_empty());
    let dropped = net.counter(0, "data_not_admitted");
    assert!(dropped > 0, "the stranger knows this node's credentials, and has tried");
    // A stranger that keeps to no rule seals a packet in its authentic session.
    say(&mut net, stranger, 0, b"\x60evil");
    net.run(SECOND);
    assert!(net.received(0).is_empty());
    assert_eq!(net.counter(0, "data_not_admitted"), dropped + 1);
    // Whoever waits for the stranger hears that it cannot be reached.
    assert!(net.peer(0, stranger).sender().is_none());
}

#[test]
fn a_member_that_leaves_and_joins_again_is_admitted_again() {
    let authority = Authority::new();
    let mut net = members(&authority, &[1, 2]);
    net.send(0, 1, b"first");
    net.run(SECOND);
    for round in 0..3 {
        let at = network(&net, 1);
        net.nodes[1].endpoint.leave(net.now, at);
        net.pump();
        net.run(SECOND);
        net.join(1, &config(Some(authority.credentials(2, Duration::ZERO))));
        net.run(4 * SECOND);
        net.nodes[0].inbox.clear();
        net.send(1, 0, b"again");
        net.run(2 * SECOND);
        assert_eq!(net.received(0), [b"again".to_vec()], "round {round}");
        net.nodes[1].inbox.clear();
        net.send(0, 1, b"back");
        net.run(2 * SECOND);
        assert_eq!(net.received(1), [b"back".to_vec()], "round {round}");
    }
}

#[test]
fn credentials_of_another_node_do_not_help() {
    let authority = Authority::new();
    let mut net = members(&authority, &[1]);
    let thief = net.add(2);
    let network_config = config(None);
    net.join(thief, &network_config);
    let stolen = authority.credentials(3, Duration::ZERO);
    let at = network(&net, thief);
    let refused = net.nodes[thief].endpoint.set_credentials(net.now, at, &stolen);
    assert_eq!(refused, Err(Refusal::Holder));
}

#[test]
fn lost_datagrams_delay_the_admission_and_no_more() {
    let mut net = members(&Authority::new(), &[1, 2]);
    let mut dice = 0_u32;
    net.filter = Box::new(move |_| {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        dice >> 24 >= 76
    });
    net.send(0, 1, b"hello");
    net.wait(Duration::from_secs(20), |net| net.peer(0, 1).is_admitted() && net.peer(1, 0).is_admitted());
}

#[test]
fn a_revocation_reaches_everybody_and_ends_what_was_open() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2, 3]);
    // The controller knows 1 alone, so that the revocation has to travel from peer to peer.
    for (from, to) in [(0, 1), (1, 2), (2, 3), (1, 3)] {
        net.send(from, to, b"open");
    }
    net.run(SECOND);
    let (head, set) = authority.revoke(3, Duration::from_secs(10));
    let at = network(&net, 0);
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by the issuer");
    let took = net.wait(5 * SECOND, |net| expelled(net, 1) == 1 && expelled(net, 2) == 1);
    assert!(took < SECOND, "{took:?}");
    for member in [1, 2] {
        let before = net.received(3).len();
        net.send(member, 3, b"late");
        net.run(5 * SECOND);
        assert_eq!(net.received(3).len(), before);
        let before = net.received(member).len();
        net.send(3, member, b"late");
        net.run(5 * SECOND);
        assert_eq!(net.received(member).len(), before);
    }
    // It heard why, and others still reach each other.
    assert!(net.count(3, |event| matches!(event, Event::RefusedBy(_, Refusal::Revoked))) > 0);
    net.send(1, 2, b"on");
    net.run(SECOND);
    assert_eq!(net.received(2).last(), Some(&b"on".to_vec()));
    // An old head changes nothing, and a later certificate counts.
    let again = authority.credentials(3, Duration::from_secs(100));
    let at = network(&net, 3);
    net.nodes[3].endpoint.set_credentials(net.now, at, &again).expect("its own");
    net.pump();
    net.run(2 * SECOND);
    net.send(3, 1, b"again");
    net.run(SECOND);
    assert_eq!(net.received(1).last(), Some(&b"again".to_vec()));
}

/// Members that talk to nobody hear of a removal, because each keeps a session with a controller.
#[test]
fn a_revocation_reaches_members_that_were_never_asked_for_anything() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2, 3]);
    net.send(1, 2, b"open");
    net.run(10 * SECOND);
    let (head, set) = authority.revoke(2, Duration::from_secs(14));
    let at = network(&net, 0);
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by the issuer");
    let took = net.wait(5 * SECOND, |net| {
        expelled(net, 1) == 1
            && [1, 3].iter().all(|&node| {
                let at = network(net, node);
                net.nodes[node].endpoint.membership(at).is_some_and(|known| known.revocations().len() == 1)
            })
    });
    assert!(took < SECOND, "{took:?}");
}

/// Words that were told while the path was cut are lost, and nobody waits for the next minute.
#[test]
fn a_revocation_during_an_outage_is_heard_soon_after_it() {
    for outage in [1, 5, 15, 25, 40, 100] {
        let mut authority = Authority::new();
        let mut net = members(&authority, &[CONTROLLER, 1, 2]);
        net.send(1, 0, b"open");
        net.run(10 * SECOND);
        separate(&mut net, &[(0, 1), (1, 2)]);
        net.run(SECOND);
        let (head, set) = authority.revoke(2, net.now - crate::net::instant());
        set_revocations(&mut net, 0, &(head, set));
        net.run(outage * SECOND);
        net.filter = Box::new(|_| true);
        let took = net.wait(Duration::from_secs(100), |net| {
            let known = net.nodes[1].endpoint.membership(network(net, 1)).expect("managed");
            !known.revocations().is_empty()
        });
        assert!(took < 21 * SECOND, "{took:?} after {outage} s");
    }
}

/// A removal is heard within 5 s wherever a word about it can pass by then.
#[test]
fn words_about_a_removal_that_are_lost_are_soon_repeated() {
    for outage in [400, 1500, 3000] {
        let mut authority = Authority::new();
        let mut net = members(&authority, &[CONTROLLER, 1]);
        net.send(1, 0, b"open");
        net.run(10 * SECOND);
        separate(&mut net, &[(0, 1)]);
        let removal = authority.revoke(66, net.now - crate::net::instant());
        set_revocations(&mut net, 0, &removal);
        net.run(Duration::from_millis(outage));
        separate(&mut net, &[]);
        let took = net.wait(Duration::from_secs(100), |net| observes(net, 1, 66));
        assert!(took < SECOND, "{took:?} after {outage} ms");
    }
}

#[test]
fn heads_that_are_lost_at_the_beginning_of_a_session_are_soon_repeated() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[1, 2]);
    let removal = authority.revoke(66, net.now - crate::net::instant());
    set_revocations(&mut net, 0, &removal);
    net.run(10 * SECOND);
    let (from, head) = (net.nodes[0].socket, Head::LEN + 2 + DATA_OVERHEAD);
    let mut lost = 0;
    net.filter = Box::new(move |sent| {
        lost += u32::from(sent.from == from && sent.bytes.len() == head);
        lost > 3 || sent.from != from || sent.bytes.len() != head
    });
    net.send(0, 1, b"open");
    let took = net.wait(Duration::from_secs(100), |net| observes(net, 1, 66));
    assert!(took < 4 * SECOND, "{took:?}");
}

/// Makes a set of this many removals, which is different in each round.
fn many(round: u32, entries: u32, lasts: Duration) -> Revocations {
    let entry = |n: u32| {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&[round.to_be_bytes(), n.to_be_bytes()].concat());
        let until = UnixTime::from(UNIX_TIME).plus(lasts);
        (NodeId::from_bytes(bytes), Revocation { min_serial: Serial::from_u64(1), until })
    };
    (0..entries).map(entry).collect()
}

#[test]
fn a_large_set_arrives_whole_in_spite_of_loss() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1]);
    net.send(0, 1, b"open");
    net.run(SECOND);
    authority.revoked = many(0, 10_000, 2 * DAY);
    authority.epoch = 4;
    let head = Head::sign(
        &authority.identity,
        authority.delegation.clone(),
        id(),
        5,
        UnixTime::from(UNIX_TIME),
        &authority.revoked,
    );
    let mut dice = 1_u32;
    net.filter = Box::new(move |_| {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        dice >> 24 >= 25
    });
    let at = network(&net, 0);
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &authority.revoked).expect("signed");
    let at = network(&net, 1);
    net.wait(Duration::from_secs(60), |net| {
        net.nodes[1].endpoint.membership(at).is_some_and(|known| known.revocations().len() == 10_000)
    });
}

#[test]
fn a_node_joins_by_its_controller_and_renews_for_days() {
    let authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1]);
    let new = net.add(2);
    net.join(new, &config(None));
    // A person takes a while to decide.
    for second in 0..30 {
        net.run(SECOND);
        let code = Code::from_bits(5);
        serve(&mut net, 0, |node, _, at| match second < 20 {
            true => Answer::Pending { time: UnixTime::from(UNIX_TIME + at), retry_after: 2, code },
            false => certified(&authority, node, at),
        });
    }
    net.run(SECOND);
    let pending = net.count(
        new,
        |event| matches!(event, Event::Answered(_, answer) if matches!(**answer, Answer::Pending { .. })),
    );
    assert!((5..=20).contains(&pending), "{pending}");
    let at = network(&net, new);
    assert!(net.nodes[new].endpoint.membership(at).expect("managed").credentials().is_some());
    net.send(new, 1, b"hello");
    net.run(SECOND);
    assert_eq!(net.received(1).last(), Some(&b"hello".to_vec()));
    // Three days with certificates of a day: the connection holds without a gap.
    for hour in 0..24 * 3 {
        for _ in 0..12 {
            net.run(Duration::from_secs(300));
            serve(&mut net, 0, |node, _, at| certified(&authority, node, at));
        }
        let (at, since) = (network(&net, 0), net.now - crate::net::instant());
        let own = authority.credentials(CONTROLLER, since);
        net.nodes[0].endpoint.set_credentials(net.now, at, &own).expect("its own");
        net.nodes[1].inbox.clear();
        net.send(new, 1, b"still");
        net.run(2 * SECOND);
        serve(&mut net, 0, |node, _, at| certified(&authority, node, at));
        assert_eq!(net.received(1), [b"still".to_vec()], "after {hour} hours");
    }
    assert_eq!(expelled(&net, 1), 0);
}

#[test]
fn without_a_controller_members_stay_until_their_certificates_end() {
    let authority = Authority::new();
    let mut net = members(&authority, &[1, 2]);
    net.send(0, 1, b"open");
    net.run(SECOND);
    net.run(Duration::from_secs(23 * 3600));
    net.nodes[1].inbox.clear();
    net.send(0, 1, b"late");
    net.run(5 * SECOND);
    assert_eq!(net.received(1), [b"late".to_vec()]);
    net.run(Duration::from_secs(3600));
    assert!(!net.peer(0, 1).is_admitted() && !net.peer(1, 0).is_admitted());
    // A controller that comes back admits them again, without a person.
    let controller = net.add(CONTROLLER);
    let mut config = ManagedNetwork::new(id());
    config.key = Some(secret().public());
    config.credentials = Some(authority.credentials(CONTROLLER, Duration::from_secs(24 * 3600)));
    config.is_controller = true;
    net.join(controller, &NetworkConfig::Managed(Box::new(config)));
    // Within the longest pause of those who wait for it.
    for _ in 0..1300 {
        net.run(SECOND);
        serve(&mut net, controller, |node, _, at| certified(&authority, node, at));
    }
    net.nodes[1].inbox.clear();
    net.send(0, 1, b"back");
    net.run(5 * SECOND);
    assert_eq!(net.received(1), [b"back".to_vec()]);
}

/// The first controller that a member knows is gone for good, or silent.
#[test]
fn each_controller_that_can_be_reached_is_asked() {
    // A controller that is unknown is heard of from members, before `peersock join` gives up after 20 s.
    for (is_there, knows_both, within) in
        [(false, true, 20), (true, true, 20), (false, false, 8), (true, false, 18)]
    {
        let authority = Authority::new();
        let mut net = members(&authority, &[CONTROLLER, 1]);
        if is_there {
            // It has a session with everybody, and never answers.
            let silent = net.add(8);
            net.join(silent, &config(Some(authority.credentials(8, Duration::ZERO))));
            net.run(SECOND);
        }
        let new = net.add(2);
        let mut known = ManagedNetwork::new(id());
        known.key = Some(secret().public());
        known.controllers = vec![*Identity::from_seed(&[8; 32]).public()];
        if knows_both {
            known.controllers.push(*Identity::from_seed(&[CONTROLLER; 32]).public());
        }
        net.join(new, &NetworkConfig::Managed(Box::new(known)));
        let at = network(&net, new);
        let mut seconds = 0;
        while net.nodes[new].endpoint.membership(at).expect("managed").credentials().is_none() {
            net.run(SECOND);
            serve(&mut net, 0, |node, _, at| certified(&authority, node, at));
            seconds += 1;
            assert!(seconds < within, "there: {is_there}, both known: {knows_both}");
        }
    }
}

/// Returns the number of datagrams that a member sends in an hour in which it wants another certificate, and
/// no controller is there. Then it meets one again.
#[test]
fn a_member_whose_controller_is_away_asks_rarely_and_is_back_soon() {
    let authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1]);
    net.nodes[0].up = false;
    net.run(Duration::from_secs(2 * 3600));
    net.sent.clear();
    net.run(Duration::from_secs(3600));
    let from = net.nodes[1].socket;
    let count = |kind| net.sent.iter().filter(|sent| sent.from == from && sent.bytes[0] == kind).count();
    // Each minute a try of five rounds to reach the controller, and one beacon for it.
    assert!(count(0xD1) < 60 * 9 && count(0xD5) < 60 * 5, "{} {}", count(0xD1), count(0xD5));
    net.nodes[0].up = true;
    let asked = |net: &Net| net.count(0, |event| matches!(event, Event::Asked(..)));
    let took = net.wait(Duration::from_secs(3600), |net| asked(net) > 0);
    assert!(took < Duration::from_secs(65), "{took:?}");
}

/// A thief answers with the only key that the member knows. A member's credentials name another controller.
#[test]
fn a_member_that_its_only_known_controller_removes_finds_another_one() {
    let (authority, other) = (Authority::new(), Authority::with(8, 365 * DAY));
    let mut net = members(&authority, &[CONTROLLER, 1]);
    let honest = net.add(8);
    let mut described = ManagedNetwork::new(id());
    (described.key, described.is_controller) = (Some(secret().public()), true);
    described.credentials = Some(other.credentials(8, Duration::ZERO));
    net.join(honest, &NetworkConfig::Managed(Box::new(described)));
    let mut known = ManagedNetwork::new(id());
    (known.key, known.controllers) = (Some(secret().public()), vec![*authority.identity.public()]);
    let new = net.add(2);
    net.join(new, &NetworkConfig::Managed(Box::new(known)));
    let at = network(&net, new);
    let mut waited = 0;
    while net.nodes[new].endpoint.membership(at).expect("managed").credentials().is_none() {
        net.run(SECOND);
        serve(&mut net, 0, |_, _, at| Answer::Denied {
            time: UnixTime::from(UNIX_TIME + at),
            reason: Denial::Removed,
        });
        serve(&mut net, honest, |node, _, at| certified(&other, node, at));
        waited += 1;
        assert!(waited < 300, "it asks the thief again and again");
    }
    assert!(!net.nodes[new].endpoint.membership(at).expect("managed").is_removed());
}

/// Whoever has a controller's key can certify a member again and again. Others have removed that controller,
/// and tell the member nothing but that they refuse its credentials.
#[test]
fn a_member_whose_credentials_are_refused_asks_another_controller_than_their_issuer() {
    let (stolen, mut honest) = (Authority::new(), Authority::with(8, 365 * DAY));
    let mut net = members(&stolen, &[CONTROLLER]);
    for identity in [8, 2] {
        let node = net.add(identity);
        let mut described = ManagedNetwork::new(id());
        (described.key, described.is_controller) = (Some(secret().public()), identity == 8);
        described.credentials = Some(honest.credentials(identity, Duration::ZERO));
        net.join(node, &NetworkConfig::Managed(Box::new(described)));
    }
    net.run(SECOND);
    let removal = honest.revoke(CONTROLLER, net.now - crate::net::instant());
    set_revocations(&mut net, 1, &removal);
    net.run(SECOND);
    let member = net.add(1);
    let mut described = ManagedNetwork::new(id());
    (described.key, described.controllers) = (Some(secret().public()), vec![*stolen.identity.public()]);
    described.credentials = Some(stolen.credentials(1, Duration::ZERO));
    net.join(member, &NetworkConfig::Managed(Box::new(described)));
    net.send(member, 2, b"hello");
    let at = network(&net, member);
    let issuer = |net: &Net| {
        let known = net.nodes[member].endpoint.membership(at).expect("managed");
        known.credentials().expect("a member").delegation().issuer().node_id()
    };
    let began = net.now;
    while issuer(&net) != node_id(8) {
        net.run(SECOND / 10);
        serve(&mut net, 0, |node, _, at| certified(&stolen, node, at));
        serve(&mut net, 1, |node, _, at| certified(&honest, node, at));
        assert!(net.now - began < 10 * SECOND, "it asks the thief again and again");
    }
    assert_reach(&mut net, member, 2);
}

/// A controller that was restored from a backup does not know the members that came later.
#[test]
fn a_member_that_one_controller_does_not_know_asks_the_others() {
    for answer in [
        |time| Answer::Pending { time, retry_after: 5, code: Code::from_bits(5) },
        |time| Answer::Denied { time, reason: Denial::Removed },
    ] {
        let (authority, other) = (Authority::new(), Authority::with(8, 365 * DAY));
        let mut net = members(&authority, &[CONTROLLER, 1]);
        let restored = net.add(8);
        let mut config = ManagedNetwork::new(id());
        (config.key, config.is_controller) = (Some(secret().public()), true);
        config.credentials = Some(other.credentials(8, Duration::ZERO));
        net.join(restored, &NetworkConfig::Managed(Box::new(config)));
        net.send(1, restored, b"hello");
        net.run(SECOND);
        // It answers while the other one is away.
        net.nodes[0].up = false;
        let is_asked =
            |net: &Net, node: usize| net.count(node, |event| matches!(event, Event::Asked(..))) > 0;
        net.wait(Duration::from_secs(2 * 3600), |net| is_asked(net, restored));
        serve(&mut net, restored, |_, _, at| answer(UnixTime::from(UNIX_TIME + at)));
        net.nodes[0].up = true;
        let began = net.now;
        let at = network(&net, 1);
        let serial = |net: &Net| {
            let known = net.nodes[1].endpoint.membership(at).expect("managed");
            known.credentials().expect("a member").certificate().serial()
        };
        let before = serial(&net);
        while serial(&net) == before {
            net.run(SECOND);
            serve(&mut net, restored, |_, _, at| answer(UnixTime::from(UNIX_TIME + at)));
            serve(&mut net, 0, |node, _, at| certified(&authority, node, at));
            assert!(
                net.now - began < Duration::from_secs(300),
                "the member asks the same one again and again"
            );
        }
        let known = net.nodes[1].endpoint.membership(at).expect("managed");
        assert!(!known.is_removed());
    }
}

/// Certificates last an hour longer than members go on without a controller.
#[test]
fn no_certificate_ends_while_the_controllers_are_away_for_as_long_as_promised() {
    let authority = Authority::new();
    let names: Vec<u8> = std::iter::once(CONTROLLER).chain(10..40).collect();
    let mut net = members(&authority, &names);
    for _ in 0..4 * 360 {
        net.run(10 * SECOND);
        serve(&mut net, 0, |node, _, at| certified(&authority, node, at));
    }
    let begun = net.now - crate::net::instant();
    for node in 1..net.nodes.len() {
        let known = net.nodes[node].endpoint.membership(network(&net, node)).expect("managed");
        let end = known.credentials().expect("a member").end();
        let left = end.since(UnixTime::from(UNIX_TIME + begun));
        // The longest pause until a member asks again is 20 minutes.
        assert!(left >= Duration::from_secs(23 * 3600 + 1200), "{left:?}");
    }
}

#[test]
fn the_id_alone_leads_to_the_key_and_a_denial_is_told() {
    let authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER]);
    let new = net.add(2);
    net.join(new, &NetworkConfig::Managed(Box::new(ManagedNetwork::new(id()))));
    net.wait(10 * SECOND, |net| net.count(1, |event| matches!(event, Event::KeyClaimed(..))) > 0);
    let claimed = net.nodes[new].events.iter().find_map(|(_, event)| match event {
        Event::KeyClaimed(_, key) => Some(*key),
        _ => None,
    });
    assert_eq!(claimed, Some(secret().public()));
    let at = network(&net, new);
    net.nodes[new].endpoint.set_network_key(net.now, at, secret().public());
    net.pump();
    for _ in 0..5 {
        net.run(SECOND);
        serve(&mut net, 0, |_, _, at| Answer::Denied {
            time: UnixTime::from(UNIX_TIME + at),
            reason: Denial::UnknownInvite,
        });
    }
    net.run(SECOND);
    let denied = net.count(new, |event| {
        matches!(event, Event::Answered(_, answer)
            if matches!(**answer, Answer::Denied { reason: Denial::UnknownInvite, .. }))
    });
    assert_eq!(denied, 1);
}

#[test]
fn an_invite_for_another_key_is_shown_once() {
    let authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER]);
    let node = net.add(1);
    let NetworkConfig::Managed(mut known) = config(None) else { unreachable!() };
    known.request.token = Some(Token::from_bytes([7; Token::LEN]));
    net.join(node, &NetworkConfig::Managed(known));
    for _ in 0..130 {
        net.run(SECOND);
        serve(&mut net, 0, |node, request, at| match request.token {
            Some(_) => Answer::Denied { time: UnixTime::from(UNIX_TIME + at), reason: Denial::KnownKey },
            None => certified(&authority, node, at),
        });
    }
    let answers = net.nodes[node].events.iter().filter_map(|(_, event)| match event {
        Event::Answered(_, answer) => Some(&**answer),
        _ => None,
    });
    let answers: Vec<_> = answers.collect();
    // The member renews by the key that it has.
    assert!(matches!(
        answers[..],
        [Answer::Denied { reason: Denial::KnownKey, .. }, Answer::Certified { .. }]
    ));
}

#[test]
fn wrong_clocks_join_and_judge_by_signed_time() {
    let authority = Authority::new();
    for wrong in [Duration::ZERO, UNIX_TIME - Duration::from_secs(7200), UNIX_TIME + 7300 * DAY] {
        let mut net = members(&authority, &[CONTROLLER, 1]);
        let mut late = net.add(2);
        net.restart(late, 4000, wrong);
        late = net.nodes.len() - 1;
        net.join(late, &config(None));
        for _ in 0..20 {
            net.run(SECOND);
            serve(&mut net, 0, |node, _, at| certified(&authority, node, at));
        }
        net.send(late, 1, b"hello");
        net.run(2 * SECOND);
        assert_eq!(net.received(1), [b"hello".to_vec()], "{wrong:?}");
        net.send(1, late, b"back");
        net.run(2 * SECOND);
        assert_eq!(net.received(late), [b"back".to_vec()], "{wrong:?}");
    }
}

#[test]
fn nodes_that_do_not_answer_hide_no_others() {
    let (authority, mut net) = (Authority::new(), Net::new());
    net.filter = Box::new(|sent| sent.bytes[0] != INITIATION);
    for identity in 1..=20 {
        let node = net.add(identity);
        net.join(node, &config((identity > 1).then(|| authority.credentials(identity, Duration::ZERO))));
    }
    // At first it asks so often that it waits for several rounds at a time.
    net.run(Duration::from_secs(120));
    net.sent.clear();
    net.run(Duration::from_secs(2 * 3600));
    let own = net.nodes[0].socket;
    let tried = net.sent.iter().filter(|sent| sent.from == own && sent.bytes[0] == INITIATION);
    let met: BTreeSet<_> = tried.map(|sent| sent.to).collect();
    for node in &net.nodes[1..] {
        assert!(met.contains(&node.socket), "{met:?}");
    }
}

#[test]
fn look_ups_find_members_and_only_members_get_answers() {
    let authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2]);
    let at = network(&net, 1);
    // 1 has never met 2: the LAN's hellos are not credentials. A packet asks the controller.
    let outside = net.nodes[1].endpoint.lookup(net.now, at, [10, 8, 0, 2].into());
    assert!(matches!(outside, Lookup::NoRoute), "{outside:?}");
    let question = Question::FindAddress([10, 7, 0, 2].into());
    net.send_to(1, at, [10, 7, 0, 2].into(), b"found");
    net.wait(5 * SECOND, |net| net.count(0, |event| matches!(event, Event::Asked(..))) > 0);
    let Some((_, Event::Asked(peer, number, asked))) =
        net.nodes[0].events.iter().find(|(_, event)| matches!(event, Event::Asked(..))).cloned()
    else {
        panic!("a question")
    };
    assert_eq!(*asked, question);
    let answer = Answer::Found {
        identity: *Identity::from_seed(&[2; 32]).public(),
        credentials: Box::new(authority.credentials(2, Duration::ZERO)),
    };
    net.nodes[0].endpoint.answer(net.now, &peer, number, &answer);
    net.pump();
    net.run(2 * SECOND);
    net.send_to(1, at, [10, 7, 0, 2].into(), b"again");
    net.run(2 * SECOND);
    assert!(net.received(2).contains(&b"again".to_vec()));

    let stranger = net.add(5);
    net.join(stranger, &config(None));
    net.run(4 * SECOND);
    net.nodes[0].events.clear();
    let at = network(&net, stranger);
    assert!(net.nodes[stranger].endpoint.find_member(net.now, at, &question));
    net.run(6 * SECOND);
    let asked = |event: &Event| {
        matches!(event, Event::Asked(_, _, question)
        if !matches!(**question, Question::Certify(_)))
    };
    assert_eq!(net.count(0, asked), 0);
}

#[test]
fn an_address_follows_the_newest_member_that_a_controller_has_named() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1]);
    let (at, address) = (network(&net, 1), std::net::IpAddr::from([10, 7, 0, 77]));
    // Nobody of them is there, so none shows its credentials.
    for (round, identity) in [(1, 5), (2, 6), (3, 7)] {
        let signed = Duration::from_secs(10 * round);
        net.run(10 * SECOND);
        if round == 3 {
            let (head, set) = authority.revoke(6, signed);
            let of_controller = network(&net, 0);
            net.nodes[0].endpoint.set_revocations(net.now, of_controller, &head, &set).expect("its own");
            net.run(2 * SECOND);
        }
        net.nodes[0].events.clear();
        let question = Question::FindName("beta".parse().expect("a name"));
        assert!(net.nodes[1].endpoint.find_member(net.now, at, &question));
        net.wait(5 * SECOND, |net| net.count(0, |event| matches!(event, Event::Asked(..))) > 0);
        let Some((_, Event::Asked(peer, number, _))) =
            net.nodes[0].events.iter().find(|(_, event)| matches!(event, Event::Asked(..))).cloned()
        else {
            panic!("a question")
        };
        let mut grant = Grant::new(node_id(identity), "beta".parse().expect("a name"));
        (grant.ipv4, grant.ipv4_length) = (Some([10, 7, 0, 77].into()), 24);
        let credentials = Box::new(authority.sign(grant, signed));
        let identity = *Identity::from_seed(&[identity; 32]).public();
        net.nodes[0].endpoint.answer(net.now, &peer, number, &Answer::Found { identity, credentials });
        net.pump();
        net.run(SECOND);
        let found = net.nodes[1].endpoint.lookup(net.now, at, address);
        assert!(
            matches!(&found, Lookup::Peer(peer) if *peer.id() == identity.node_id()),
            "{round}: {found:?}"
        );
        assert_eq!(net.nodes[1].endpoint.name_at(address, |_| true).as_deref(), Some("beta"));
    }
}

/// Returns the time by which a node judges, and its own clock.
fn times(net: &Net, node: usize) -> (UnixTime, UnixTime) {
    let clock = UNIX_TIME + (net.now - crate::net::instant());
    let membership = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
    (membership.time(clock), UnixTime::from(clock))
}

/// Lets two nodes exchange packets and checks that they arrive.
pub(super) fn assert_reach(net: &mut Net, from: usize, to: usize) {
    net.nodes[to].inbox.clear();
    net.send(from, to, b"still");
    net.run(2 * SECOND);
    assert_eq!(net.received(to), [b"still".to_vec()]);
}

#[test]
fn an_issuer_does_not_lead_clocks_that_are_right() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[1, 2]);
    net.send(0, 1, b"open");
    net.run(SECOND);
    // Somebody has the issuer's key, and signs with a date in 80 days, and one in half a day.
    for (identity, ahead) in [(3, 80 * DAY), (4, DAY / 2)] {
        let thief = net.add(identity);
        net.join(thief, &config(Some(authority.credentials(identity, ahead))));
        net.run(4 * SECOND);
        net.send(thief, 0, b"evil");
        net.run(2 * SECOND);
        let (time, clock) = times(&net, 0);
        assert_eq!(time, clock, "{ahead:?}");
    }
    assert!(!net.peer(0, 2).is_admitted(), "it is from the future");
    let at = network(&net, 0);
    let (head, set) = authority.revoke(7, DAY / 2);
    net.nodes[0]
        .endpoint
        .set_revocations(net.now, at, &head, &set)
        .expect("a clock can be behind by as much");
    let (head, set) = authority.revoke(8, 80 * DAY);
    let refused = net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set);
    assert_eq!(refused, Err(Refusal::NotYetValid));
    net.run(Duration::from_secs(1300));
    let (time, clock) = times(&net, 0);
    assert_eq!(time, clock);
    let membership = net.nodes[0].endpoint.membership(at).expect("managed");
    assert!(membership.signed_time() <= clock, "this is what the node keeps on disk");
    assert_reach(&mut net, 0, 1);
    assert_reach(&mut net, 1, 0);
}

#[test]
fn a_revoked_issuer_loses_its_effect_on_clocks_that_are_behind() {
    let (mut authority, stolen) = (Authority::with(8, 365 * DAY), Authority::new());
    let mut net = Net::new();
    let late = net.add(1);
    net.restart(late, 4000, Duration::ZERO);
    net.join(late, &config(None));
    let thief = net.add(3);
    net.join(thief, &config(Some(stolen.credentials(3, 80 * DAY))));
    net.run(4 * SECOND);
    net.send(late, thief, b"hello");
    net.run(2 * SECOND);
    let at = network(&net, late);
    let time = |net: &Net| {
        let membership = net.nodes[late].endpoint.membership(at).expect("managed");
        membership.time(net.now - crate::net::instant())
    };
    let start = UnixTime::from(UNIX_TIME);
    assert_eq!(time(&net), start.plus(80 * DAY), "nobody else has said the time");
    // A second issuer is enough to stop that.
    let good = net.add(2);
    net.join(good, &config(Some(authority.credentials(2, DAY))));
    net.run(4 * SECOND);
    net.send(late, good, b"hello");
    net.run(2 * SECOND);
    assert_eq!(time(&net), start.plus(DAY));
    assert!(net.peer(late, good).is_admitted());
    // Neither does its key alone say the time again, after a head that revokes it.
    let (head, set) = authority.revoke(CONTROLLER, 2 * DAY);
    net.nodes[late].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by an issuer");
    assert_eq!(time(&net), start.plus(2 * DAY));
    net.run(20 * SECOND);
    assert!(!net.peer(late, thief).is_admitted());
    assert_eq!(time(&net), start.plus(2 * DAY));
}

#[test]
fn an_answer_does_not_end_the_members_that_count() {
    let authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2]);
    net.send(1, 2, b"open");
    net.run(SECOND);
    let mut answers = 0;
    for _ in 0..130 {
        net.run(Duration::from_secs(30));
        answers += net.count(0, |event| matches!(event, Event::Asked(..)));
        serve(&mut net, 0, |_, _, at| Answer::Denied {
            time: UnixTime::from(UNIX_TIME + at).plus(80 * DAY),
            reason: Denial::Refused,
        });
    }
    assert!(answers > 0, "members renew in the first hour");
    let (time, clock) = times(&net, 1);
    assert_eq!(time, clock);
    assert_reach(&mut net, 1, 2);
}

#[test]
fn answers_count_only_from_issuers_whose_delegation_counts() {
    let answered = |net: &Net, node| net.count(node, |event| matches!(event, Event::Answered(..)));
    // Ended, revoked, and none at all.
    let past = Authority::with(CONTROLLER, Duration::from_secs(5));
    let mut net = members(&past, &[CONTROLLER]);
    let new = net.add(2);
    net.join(new, &config(None));
    net.run(Duration::from_secs(2));
    for _ in 0..10 {
        serve(&mut net, 0, |node, _, at| certified(&past, node, at));
        net.run(SECOND);
    }
    assert_eq!(answered(&net, new), 0, "its delegation has ended");

    let (revoked, mut other) = (Authority::new(), Authority::with(8, 365 * DAY));
    let mut net = members(&revoked, &[CONTROLLER]);
    let new = net.add(2);
    let (head, set) = other.revoke(CONTROLLER, Duration::ZERO);
    let mut known = ManagedNetwork::new(id());
    known.key = Some(secret().public());
    known.controllers = vec![*Identity::from_seed(&[CONTROLLER; 32]).public()];
    known.revocations = vec![(head, set.to_bytes().into())];
    net.join(new, &NetworkConfig::Managed(Box::new(known)));
    let mut asked = 0;
    for _ in 0..10 {
        net.run(SECOND);
        asked += net.count(0, |event| matches!(event, Event::Asked(..)));
        serve(&mut net, 0, |node, _, at| certified(&revoked, node, at));
    }
    assert!(asked > 0);
    assert_eq!(answered(&net, new), 0, "it is revoked");

    let mut net = Net::new();
    let (impostor, new) = (net.add(CONTROLLER), net.add(2));
    let mut config = ManagedNetwork::new(id());
    config.key = Some(secret().public());
    config.is_controller = true;
    net.join(impostor, &NetworkConfig::Managed(Box::new(config.clone())));
    config.is_controller = false;
    config.controllers = vec![*Identity::from_seed(&[CONTROLLER; 32]).public()];
    net.join(new, &NetworkConfig::Managed(Box::new(config)));
    let mut asked = 0;
    for round in 0..10 {
        net.run(SECOND);
        asked += net.count(0, |event| matches!(event, Event::Asked(..)));
        serve(&mut net, impostor, |node, _, at| match round % 2 {
            0 => Answer::Denied { time: UnixTime::from(UNIX_TIME + at), reason: Denial::Removed },
            _ => certified(&other, node, at),
        });
    }
    assert!(asked > 0);
    assert_eq!(answered(&net, new), 0, "nobody has delegated to it");
}

/// Returns what a node keeps on disk.
fn kept(net: &Net, node: usize) -> ManagedNetwork {
    let known = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
    let mut kept = ManagedNetwork::new(id());
    (kept.key, kept.credentials) = (Some(secret().public()), known.credentials().cloned());
    kept.revocations = known.heads().cloned().collect();
    kept.others = known.other_revocations();
    kept.signed_time = known.signed_time();
    kept
}

#[test]
fn revocations_of_all_issuers_survive_a_restart() {
    let issuers = [20, 21, 22];
    let mut authorities = issuers.map(|identity| Authority::with(identity, 365 * DAY));
    let mut net = Net::new();
    let node = net.add(1);
    net.join(node, &config(Some(authorities[0].credentials(1, Duration::ZERO))));
    let at = network(&net, node);
    // Each has removed another member, and not heard of the others.
    for (authority, removed) in authorities.iter_mut().zip([2, 3, 4]) {
        authority.epoch = u64::from(removed);
        let (head, set) = authority.revoke(removed, SECOND);
        net.nodes[node].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by an issuer");
    }
    let kept = kept(&net, node);
    assert_eq!((kept.revocations.len(), kept.others.len()), (3, 0));
    net.restart(node, 4000, UNIX_TIME + SECOND);
    net.join(node, &NetworkConfig::Managed(Box::new(kept)));
    for removed in [2, 3, 4] {
        let former = net.add(removed);
        net.join(former, &config(Some(authorities[0].credentials(removed, Duration::ZERO))));
        net.run(4 * SECOND);
        net.send(former, node, b"back");
        net.run(2 * SECOND);
        assert!(!net.peer(node, former).is_admitted(), "{removed}");
    }
    assert!(net.received(node).is_empty());
}

/// Returns true if a node observes a removal.
fn observes(net: &Net, node: usize, removed: u8) -> bool {
    let known = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
    known.revocations().iter().any(|(node, _)| node == node_id(removed))
}

/// Starts a node whose clock is ahead, with a head that removes 66 on its disk.
fn starts_ahead(net: &mut Net, authority: &mut Authority, ahead: Duration) -> usize {
    let (head, set) = authority.revoke(66, SECOND);
    let node = net.add(1);
    net.restart(node, 4000, UNIX_TIME + ahead);
    let mut known = ManagedNetwork::new(id());
    known.key = Some(secret().public());
    known.revocations = vec![(head, set.to_bytes().into())];
    net.join(node, &NetworkConfig::Managed(Box::new(known)));
    node
}

/// Lets 66 show the credentials that it had before its removal, and checks that a node refuses them.
fn assert_stays_removed(net: &mut Net, authority: &Authority, node: usize) {
    let former = net.add(66);
    net.join(former, &config(Some(authority.credentials(66, Duration::ZERO))));
    net.run(4 * SECOND);
    net.send(former, node, b"back");
    net.run(2 * SECOND);
    assert!(!net.peer(node, former).is_admitted());
    assert!(net.received(node).is_empty());
}

#[test]
fn a_clock_that_is_ahead_forgets_no_removal() {
    // Behind the end of the entry, and behind that of the delegation.
    for (ahead, restarts) in
        [3 * DAY, 7300 * DAY].into_iter().flat_map(|ahead| [(ahead, false), (ahead, true)])
    {
        let mut authority = Authority::new();
        let mut net = members(&authority, &[CONTROLLER]);
        let node = starts_ahead(&mut net, &mut authority, ahead);
        let (head, set) = authority.revoke(67, Duration::from_secs(2));
        let at = network(&net, node);
        // By a clock that is too far ahead, the delegation has ended.
        let _ = net.nodes[node].endpoint.set_revocations(net.now, at, &head, &set);
        net.run(Duration::from_secs(90));
        let kept = kept(&net, node);
        assert!(!kept.revocations.is_empty(), "{ahead:?}: the node goes on showing the head to others");
        if restarts {
            net.restart(node, 4000, UNIX_TIME + (net.now - crate::net::instant()));
            net.join(node, &NetworkConfig::Managed(Box::new(kept)));
        } else {
            for _ in 0..60 {
                net.run(SECOND);
                serve(&mut net, 0, |node, _, at| certified(&authority, node, at));
            }
            let known = net.nodes[node].endpoint.membership(at).expect("managed");
            assert!(known.clock_offset() < 0, "{ahead:?}: the controller has corrected the clock");
        }
        assert!(observes(&net, node, 66), "{ahead:?}, restarts: {restarts}");
        assert_stays_removed(&mut net, &authority, node);
    }
}

#[test]
fn an_issuer_and_a_clock_that_are_ahead_forget_no_removal_by_another_issuer() {
    let (mut honest, mut stolen) = (Authority::new(), Authority::with(8, 365 * DAY));
    let mut net = members(&honest, &[CONTROLLER]);
    let node = starts_ahead(&mut net, &mut honest, 3 * DAY);
    for (removed, at) in [(67, 3 * DAY), (68, 3 * DAY + SECOND)] {
        let head = stolen.revoke(removed, at);
        set_revocations(&mut net, node, &head);
    }
    assert!(observes(&net, node, 66) && observes(&net, node, 67));
}

#[test]
fn a_removal_is_forgotten_when_issuers_have_signed_after_its_end() {
    let (mut first, mut second) = (Authority::new(), Authority::with(8, 365 * DAY));
    let mut net = members(&first, &[CONTROLLER]);
    let head = first.revoke_for(66, SECOND, 20 * SECOND);
    set_revocations(&mut net, 0, &head);
    net.run(60 * SECOND);
    let at = net.now - crate::net::instant();
    let head = second.revoke(67, at);
    set_revocations(&mut net, 0, &head);
    assert!(observes(&net, 0, 66), "one issuer alone says that its time is over");
    first.revoked = Revocations::default();
    let head = first.revoke(68, at);
    set_revocations(&mut net, 0, &head);
    assert!(!observes(&net, 0, 66));
    assert!(observes(&net, 0, 67) && observes(&net, 0, 68));
}

#[test]
fn an_issuer_s_answer_delays_the_next_question_by_a_bounded_time() {
    for (renew_after, least, most) in [(u32::MAX, 2, 6), (0, 700, 720)] {
        let authority = Authority::new();
        let mut net = members(&authority, &[CONTROLLER, 1]);
        for _ in 0..720 {
            net.run(10 * SECOND);
            serve(&mut net, 0, |node, _, at| match certified(&authority, node, at) {
                Answer::Certified { time, credentials, .. } => {
                    Answer::Certified { time, renew_after, credentials }
                }
                _ => unreachable!(),
            });
        }
        let answered = net.count(1, |event| matches!(event, Event::Answered(..)));
        assert!((least..=most).contains(&answered), "{renew_after}: {answered} in two hours");
    }
}

/// Waits until a node has a session with another one, and returns the time from then until it observes a
/// removal.
fn hears_after_session(net: &mut Net, node: usize, from: usize, removed: u8) -> Duration {
    let at = network(net, node);
    let address = net.address(node, at, from);
    net.wait(Duration::from_secs(130), |net| {
        let found = net.nodes[node].endpoint.lookup(net.now, at, address);
        matches!(found, Lookup::Peer(peer) if peer.session().is_some())
    });
    net.wait(Duration::from_secs(130), |net| observes(net, node, removed))
}

#[test]
fn a_node_that_restarts_hears_of_removals_as_soon_as_it_has_a_session() {
    // The node knows no head, or an older one.
    for knows_older in [false, true] {
        let mut authority = Authority::new();
        let mut net = members(&authority, &[CONTROLLER, 1]);
        net.send(1, 0, b"open");
        net.run(SECOND);
        if knows_older {
            let older = authority.revoke(65, Duration::from_secs(5));
            set_revocations(&mut net, 0, &older);
            net.run(20 * SECOND);
        }
        let kept = kept(&net, 1);
        assert_eq!(kept.revocations.len(), usize::from(knows_older));
        net.nodes[1].up = false;
        let removal = authority.revoke(66, net.now - crate::net::instant());
        set_revocations(&mut net, 0, &removal);
        net.run(20 * SECOND);
        assert!(net.peer(0, 1).is_admitted(), "it has not said goodbye");
        net.restart(1, 4001, UNIX_TIME + (net.now - crate::net::instant()));
        net.join(1, &NetworkConfig::Managed(Box::new(kept)));
        let took = hears_after_session(&mut net, 1, 0, 66);
        assert!(took < SECOND, "{took:?}, knows an older one: {knows_older}");
    }
}

#[test]
fn a_node_hears_in_each_session_what_it_has_missed_without_one() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1]);
    net.send(1, 0, b"open");
    net.run(SECOND);
    separate(&mut net, &[(0, 1)]);
    net.wait(Duration::from_secs(600), |net| {
        net.peer(0, 1).session().is_none() && net.peer(1, 0).session().is_none()
    });
    let removal = authority.revoke(66, net.now - crate::net::instant());
    set_revocations(&mut net, 0, &removal);
    net.run(20 * SECOND);
    separate(&mut net, &[]);
    let took = hears_after_session(&mut net, 1, 0, 66);
    assert!(took < SECOND, "{took:?}");
}

/// A node whose words are lost in one direction still learns of a newer head, because its own is answered.
#[test]
fn who_shows_an_older_head_is_answered_by_the_newer_one_and_no_more() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[1, 2]);
    net.send(0, 1, b"open");
    net.run(SECOND);
    let (older, _) = authority.revoke(65, Duration::from_secs(5));
    let newer = authority.revoke(66, Duration::from_secs(5));
    set_revocations(&mut net, 0, &newer);
    set_revocations(&mut net, 1, &newer);
    net.run(20 * SECOND);
    net.sent.clear();
    for _ in 0..100 {
        say(&mut net, 1, 0, &MembershipMessage::Head(&older.to_bytes()).to_bytes());
    }
    net.run(SECOND);
    // A burst for all of a peer's messages, then four a second.
    let answers = net.sent.iter().filter(|sent| sent.from == net.nodes[0].socket).count();
    assert!((1..=40).contains(&answers), "{answers}");
}

#[test]
fn an_issuer_stays_revoked_until_its_delegation_ends() {
    let (mut authority, former) = (Authority::with(8, 365 * DAY), Authority::new());
    let mut net = members(&authority, &[1]);
    let friend = net.add(2);
    net.join(friend, &config(Some(former.credentials(2, Duration::ZERO))));
    net.run(4 * SECOND);
    net.send(0, friend, b"hello");
    net.run(2 * SECOND);
    assert!(net.peer(0, friend).is_admitted());
    // The entry of one issuer ends early for the other one, which it does not know.
    let at = network(&net, 0);
    let (head, set) = authority.revoke_for(CONTROLLER, Duration::from_secs(10), 20 * SECOND);
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by an issuer");
    net.run(Duration::from_secs(60));
    authority.revoked = Revocations::default();
    let (head, set) = authority.revoke(7, Duration::from_secs(60));
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by an issuer");
    let again = former.credentials(2, Duration::from_secs(60));
    let at = network(&net, friend);
    net.nodes[friend].endpoint.set_credentials(net.now, at, &again).expect("its own");
    net.run(4 * SECOND);
    net.send(friend, 0, b"again");
    net.run(2 * SECOND);
    assert!(!net.peer(0, friend).is_admitted());
}

#[test]
fn a_member_that_does_not_deliver_a_set_keeps_nobody_from_it() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2, 3]);
    for (from, to) in [(1, 2), (1, 3), (2, 0), (3, 0), (2, 3)] {
        net.send(from, to, b"open");
    }
    net.run(4 * SECOND);
    for n in 100..200 {
        authority.revoke(n, Duration::from_secs(8));
    }
    let (head, set) = authority.revoke(200, Duration::from_secs(8));
    // 1 never hears the controller. 2 tells it of the head, and is silent when it is asked for the set.
    let sockets: Vec<_> = net.nodes.iter().map(|node| node.socket).collect();
    net.filter = Box::new(move |sent| {
        let is_between = |a: usize, b: usize| sent.from == sockets[a] && sent.to == sockets[b];
        let is_part = sent.bytes.len() > 700 && is_between(2, 1);
        !(is_part || is_between(0, 1) || is_between(1, 0))
    });
    let at = network(&net, 0);
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by the issuer");
    let at = network(&net, 1);
    let took = net.wait(Duration::from_secs(300), |net| {
        net.nodes[1].endpoint.membership(at).is_some_and(|known| known.revocations().len() == 101)
    });
    assert!(took < 5 * SECOND, "{took:?}");
}

/// Returns a head of a stolen key with the highest epoch that counts anywhere, with its set.
fn thief_s_head(stolen: &mut Authority, removed: u8, at: Duration) -> (Head, Revocations) {
    let time = at + DAY - Duration::from_secs(60);
    stolen.epoch = UnixTime::from(UNIX_TIME + time).as_millis() - 1;
    stolen.revoke(removed, time)
}

/// Returns true if a node knows that `issuer` is revoked.
fn knows(net: &Net, node: usize, issuer: &Authority) -> bool {
    let known = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
    known.revocations().covers(&issuer.identity.node_id(), issuer.delegation.serial())
}

pub(super) fn set_revocations(net: &mut Net, node: usize, (head, set): &(Head, Revocations)) {
    let at = network(net, node);
    net.nodes[node].endpoint.set_revocations(net.now, at, head, set).expect("signed by an issuer");
    net.pump();
}

/// Keeps two nodes apart until the filter is replaced.
pub(super) fn separate(net: &mut Net, apart: &[(usize, usize)]) {
    let apart: Vec<_> = apart.iter().map(|&(a, b)| (net.nodes[a].socket, net.nodes[b].socket)).collect();
    net.filter = Box::new(move |sent| {
        !apart.iter().any(|&(a, b)| (sent.from, sent.to) == (a, b) || (sent.from, sent.to) == (b, a))
    });
}

#[test]
fn a_stolen_key_does_not_hide_its_own_revocation() {
    let (mut honest, mut stolen) = (Authority::with(8, 365 * DAY), Authority::new());
    // 0 hears the honest controller only, 2 the thief only; 1 is between them, and has met the thief's head.
    let mut net = members(&honest, &[1, 2, 3]);
    for (from, to) in [(0, 1), (1, 2), (0, 2)] {
        net.send(from, to, b"open");
    }
    net.run(SECOND);
    separate(&mut net, &[(0, 1), (0, 2)]);
    let evil = thief_s_head(&mut stolen, 77, Duration::from_secs(5));
    set_revocations(&mut net, 2, &evil);
    net.run(2 * SECOND);
    let good = honest.revoke(CONTROLLER, Duration::from_secs(6));
    set_revocations(&mut net, 0, &good);
    net.run(2 * SECOND);
    assert!(!knows(&net, 1, &stolen) && !knows(&net, 2, &stolen), "nobody has told them");
    separate(&mut net, &[(0, 2)]);
    let took = net.wait(Duration::from_secs(200), |net| knows(net, 1, &stolen) && knows(net, 2, &stolen));
    assert!(took < Duration::from_secs(62), "{took:?}");
    // A change reaches everybody at once, whoever has met the thief's next head before.
    let stolen = &mut Authority::with(10, 365 * DAY);
    for node in [0, 2] {
        let evil = thief_s_head(stolen, 78 + node as u8, net.now - crate::net::instant());
        set_revocations(&mut net, node, &evil);
        net.run(SECOND);
    }
    let good = honest.revoke(10, net.now - crate::net::instant());
    set_revocations(&mut net, 0, &good);
    let took = net.wait(5 * SECOND, |net| (0..3).all(|node| knows(net, node, stolen)));
    assert!(took < SECOND, "{took:?}");
}

/// The thief is not known yet, and hides the removal of another member.
#[test]
fn a_later_epoch_of_one_issuer_hides_no_removal_by_another() {
    let (mut honest, mut stolen) = (Authority::with(8, 365 * DAY), Authority::new());
    let mut net = members(&honest, &[1, 2, 3, 4]);
    for (from, to) in [(0, 1), (1, 2), (2, 3)] {
        net.send(from, to, b"open");
    }
    net.run(SECOND);
    separate(&mut net, &[(0, 2), (0, 3), (1, 3)]);
    let evil = thief_s_head(&mut stolen, 77, Duration::from_secs(5));
    set_revocations(&mut net, 1, &evil);
    net.run(12 * SECOND);
    // Through 1 and 2, which both have the thief's head.
    let good = honest.revoke(66, Duration::from_secs(20));
    set_revocations(&mut net, 0, &good);
    let has = |net: &Net, node: usize| {
        let known = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
        [66, 77].iter().all(|&one| known.revocations().covers(&node_id(one), honest.delegation.serial()))
    };
    let took = net.wait(Duration::from_secs(100), |net| (0..4).all(|node| has(net, node)));
    assert!(took < SECOND, "{took:?}");
}

#[test]
fn a_thief_s_head_on_disk_hides_nothing_after_a_restart() {
    let (mut honest, mut stolen) = (Authority::with(8, 365 * DAY), Authority::new());
    let mut net = members(&honest, &[1, 2]);
    let evil = thief_s_head(&mut stolen, 77, Duration::from_secs(4));
    set_revocations(&mut net, 0, &evil);
    let good = honest.revoke(CONTROLLER, Duration::from_secs(4));
    set_revocations(&mut net, 1, &good);
    let stored = kept(&net, 0);
    net.restart(0, 4001, UNIX_TIME + Duration::from_secs(4));
    net.join(0, &NetworkConfig::Managed(Box::new(stored.clone())));
    net.run(4 * SECOND);
    net.send(0, 1, b"open");
    let took = net.wait(Duration::from_secs(62), |net| knows(net, 0, &stolen));
    assert!(took < 5 * SECOND, "{took:?}");
    // And it tells others, after another restart.
    let informed = kept(&net, 0);
    assert_eq!(informed.revocations, kept(&net, 1).revocations);
    net.restart(0, 4002, UNIX_TIME + Duration::from_secs(20));
    net.join(0, &NetworkConfig::Managed(Box::new(informed.clone())));
    net.nodes[1].up = false;
    let new = net.add(3);
    let mut uninformed = stored;
    uninformed.credentials = Some(honest.credentials(3, Duration::ZERO));
    net.join(new, &NetworkConfig::Managed(Box::new(uninformed.clone())));
    net.run(4 * SECOND);
    net.send(new, 0, b"open");
    net.wait(Duration::from_secs(62), |net| knows(net, new, &stolen));
    // A head that does not count any more by what else is on disk is not shown to anybody.
    uninformed.others = informed.revocations[0].0.read_set(&informed.revocations[0].1).expect("its set");
    net.restart(new, 4003, UNIX_TIME + Duration::from_secs(40));
    let at = net.join(new, &NetworkConfig::Managed(Box::new(uninformed)));
    assert_eq!(net.nodes[new].endpoint.membership(at).expect("managed").heads().count(), 0);
}

/// Returns the number of words about heads in ten minutes between two members that have met with these.
fn words(heads: [Option<(Head, Revocations)>; 2]) -> usize {
    let mut net = members(&Authority::with(20, 365 * DAY), &[1, 2]);
    for (node, head) in heads.iter().enumerate() {
        if let Some(head) = head {
            set_revocations(&mut net, node, head);
        }
    }
    net.send(0, 1, b"open");
    net.run(Duration::from_secs(70));
    assert!(net.peer(0, 1).is_admitted() && net.peer(1, 0).is_admitted());
    net.sent.clear();
    net.run(Duration::from_secs(600));
    let have = MembershipMessage::Have { issuer: [0; 8], epoch: 0, digest: [0; 8] }.to_bytes().len();
    let words = [have + DATA_OVERHEAD, Head::LEN + 2 + DATA_OVERHEAD];
    net.sent.iter().filter(|sent| words.contains(&sent.bytes.len())).count()
}

#[test]
fn issuers_that_contradict_each_other_cause_no_endless_pulling() {
    let at = Duration::from_secs(4);
    let good = Authority::with(8, 365 * DAY).revoke(CONTROLLER, at);
    let other = Authority::with(8, 365 * DAY).revoke(66, at);
    let evil = thief_s_head(&mut Authority::new(), 77, at);
    let counter = thief_s_head(&mut Authority::new(), 8, at);
    let quiet = words([Some(good.clone()), Some(good.clone())]);
    // A word of each side in the minute and after a handshake, for each issuer.
    assert!((20..=2 * 16).contains(&quiet), "{quiet}");
    for pair in [[Some(evil.clone()), Some(other)], [Some(evil), Some(good.clone())]] {
        let busy = words(pair);
        assert!(busy <= 2 * quiet, "{busy}, {quiet}");
    }
    // Each has revoked the other's issuer, and refuses its head: three words in place of one.
    let busy = words([Some(counter), Some(good)]);
    assert!(busy > quiet && busy <= 3 * quiet, "{busy}, {quiet}");
}

#[test]
fn made_up_and_contradictory_heads_of_a_thief_delay_no_other_issuer() {
    let (mut honest, mut stolen) = (Authority::with(8, 365 * DAY), Authority::new());
    let mut net = members(&honest, &[1, 2, 3]);
    for (from, to) in [(0, 1), (1, 2)] {
        net.send(from, to, b"open");
    }
    net.run(SECOND);
    separate(&mut net, &[(0, 2)]);
    // 2 shows heads of sets that it does not have, also two of one epoch, and delivers other bytes.
    let evil = |net: &mut Net, stolen: &mut Authority, round: u8| {
        for removed in [100 + round, 150 + round] {
            stolen.epoch -= u64::from(removed >= 150);
            let (head, _) = stolen.revoke(removed, Duration::from_secs(5));
            say(net, 2, 1, &MembershipMessage::Head(&head.to_bytes()).to_bytes());
            if round.is_multiple_of(2) {
                let bytes = &vec![round; head.set_len()][..head.set_len().min(MembershipMessage::MAX_PART)];
                let part = MembershipMessage::Part { digest: head.digest(), offset: 0, bytes };
                say(net, 2, 1, &part.to_bytes());
            }
        }
        net.run(SECOND);
    };
    for round in 0..30 {
        evil(&mut net, &mut stolen, round);
    }
    let known = net.nodes[1].endpoint.membership(network(&net, 1)).expect("managed");
    assert!(known.revocations().is_empty() && net.counter(1, "credentials_refused") > 0);
    // Another peer informs it at once, and so does this one.
    let good = honest.revoke(66, Duration::from_secs(35));
    set_revocations(&mut net, 0, &good);
    let revoked = |net: &Net, node: u8| {
        let known = net.nodes[1].endpoint.membership(network(net, 1)).expect("managed");
        known.revocations().covers(&node_id(node), honest.delegation.serial())
    };
    let took = net.wait(5 * SECOND, |net| revoked(net, 66));
    assert!(took < SECOND, "{took:?}");
    for round in 30..50 {
        evil(&mut net, &mut stolen, round);
    }
    let mut honest = Authority { epoch: 1, ..Authority::with(8, 365 * DAY) };
    let good = honest.revoke(CONTROLLER, Duration::from_secs(60));
    separate(&mut net, &[(0, 1), (0, 2)]);
    set_revocations(&mut net, 2, &good);
    let took = net.wait(5 * SECOND, |net| revoked(net, CONTROLLER));
    assert!(took < SECOND, "{took:?}");
}

/// A slow set of one issuer does not keep another one's waiting.
#[test]
fn a_set_that_comes_slowly_delays_no_other_issuer() {
    let (mut honest, mut stolen) = (Authority::with(8, 365 * DAY), Authority::new());
    let mut net = members(&honest, &[1, 2]);
    net.send(0, 1, b"open");
    net.run(SECOND);
    stolen.revoked = many(0, 10_000, 2 * DAY);
    let (head, set) = thief_s_head(&mut stolen, 77, Duration::from_secs(5));
    // The last entry does not fit any more: nobody asks for this set.
    assert_eq!(set.len(), 10_001);
    say(&mut net, 1, 0, &MembershipMessage::Head(&head.to_bytes()).to_bytes());
    stolen.revoked = Revocations::default();
    stolen.revoked = set.iter().take(9_000).collect();
    let (head, set) = thief_s_head(&mut stolen, 77, Duration::from_secs(5));
    say(&mut net, 1, 0, &MembershipMessage::Head(&head.to_bytes()).to_bytes());
    let bytes = set.to_bytes();
    let mut parts = bytes.chunks(MembershipMessage::MAX_PART).enumerate();
    let mut deliver = move |net: &mut Net| {
        let (at, bytes) = parts.next().expect("there are more");
        let offset = (at * MembershipMessage::MAX_PART) as u32;
        let part = MembershipMessage::Part { digest: head.digest(), offset, bytes };
        say(net, 1, 0, &part.to_bytes());
        net.run(2 * SECOND);
    };
    (0..20).for_each(|_| deliver(&mut net));
    let good = honest.revoke(CONTROLLER, Duration::from_secs(40));
    set_revocations(&mut net, 1, &good);
    let took = net.wait(5 * SECOND, |net| knows(net, 0, &stolen));
    assert!(took < SECOND, "{took:?}");
    // What is under way from a revoked issuer is given up.
    net.run(2 * SECOND);
    let before = net.sent.len();
    (0..10).for_each(|_| deliver(&mut net));
    assert!(net.sent.len() - before < 60, "{}", net.sent.len() - before);
}

#[test]
fn the_sets_of_a_stolen_key_fill_no_memory() {
    let (mut honest, mut stolen) = (Authority::with(8, 365 * DAY), Authority::new());
    let mut net = members(&honest, &[1]);
    let good = honest.revoke(66, Duration::from_secs(4));
    set_revocations(&mut net, 0, &good);
    for round in 0..20_u32 {
        stolen.revoked = many(round, Revocations::MAX_ENTRIES as u32 - 1, 7300 * DAY);
        let evil = stolen.revoke(77, Duration::from_secs(4));
        set_revocations(&mut net, 0, &evil);
    }
    let known = net.nodes[0].endpoint.membership(network(&net, 0)).expect("managed");
    assert!(known.revocations().len() <= 8 * Revocations::MAX_ENTRIES, "{}", known.revocations().len());
    let has = |node| known.revocations().covers(&node_id(node), honest.delegation.serial());
    assert!(has(66) && has(77));
}

/// A thief can remove the other issuers as well. The network key makes a new one.
#[test]
fn a_new_issuer_removes_a_thief_that_has_removed_all_others() {
    let (honest, mut stolen) = (Authority::with(8, 365 * DAY), Authority::new());
    let mut net = members(&honest, &[1, 2]);
    for node in [0, 1] {
        let evil = thief_s_head(&mut stolen, 8, Duration::from_secs(5));
        set_revocations(&mut net, node, &evil);
    }
    let mut new = Authority::with(20, 365 * DAY);
    let controller = net.add(20);
    net.join(controller, &config(Some(new.credentials(20, Duration::ZERO))));
    let good = new.revoke(CONTROLLER, Duration::from_secs(6));
    set_revocations(&mut net, controller, &good);
    net.run(4 * SECOND);
    for node in [0, 1] {
        net.send(node, controller, b"open");
    }
    let took = net.wait(Duration::from_secs(62), |net| knows(net, 0, &stolen) && knows(net, 1, &stolen));
    assert!(took < 5 * SECOND, "{took:?}");
}

#[test]
fn a_removed_node_is_told_at_once_that_it_reaches_nobody_until_it_is_admitted_again() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2]);
    net.send(1, 2, b"hello");
    net.send(1, 0, b"hello");
    net.run(SECOND);
    let (head, set) = authority.revoke(1, net.now - crate::net::instant());
    let at = network(&net, 0);
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by the issuer");
    for _ in 0..50 {
        serve(&mut net, 0, |_, _, at| Answer::Denied {
            time: UnixTime::from(UNIX_TIME + at),
            reason: Denial::Removed,
        });
        net.run(SECOND / 10);
    }
    // What was open has ended, and what begins ends at once.
    assert_eq!(expelled(&net, 1), 2);
    let unreachable = |event: &Event| matches!(event, Event::PeerUnreachable(_));
    let before = net.count(1, unreachable);
    net.send(1, 2, b"late");
    net.pump();
    assert_eq!(net.count(1, unreachable), before + 1);
    // Its controller certifies it again a minute or two later.
    for _ in 0..1300 {
        serve(&mut net, 0, |node, _, at| certified(&authority, node, at));
        net.run(SECOND / 10);
    }
    let before = net.received(2).len();
    net.send(1, 2, b"again");
    net.run(SECOND);
    assert_eq!(net.received(2).len(), before + 1);
}
