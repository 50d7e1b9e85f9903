//! Managed networks: credentials in sessions, requests to a controller, revocations.

use std::collections::BTreeSet;
use std::time::Duration;

use peersock_overlay::membership::{
    Answer, Certificate, CertifyRequest, Code, Credentials, Delegation, Denial, Grant, Head, NetworkSecret,
    Question, Refusal, Revocation, Revocations, Rights, Serial, Succession, Token, UnixTime,
};
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
    pub(super) identity: Identity,
    pub(super) delegation: Delegation,
    /// Successions from the network's first key on, and the seed of the last one.
    pub(super) successions: Vec<Succession>,
    pub(super) key: u8,
    pub(super) lifetime: Duration,
    pub(super) epoch: u64,
    pub(super) revoked: Revocations,
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

    pub(super) fn sign(&self, grant: Grant, at: Duration) -> Credentials {
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
    pub(super) fn revoke_for(&mut self, identity: u8, at: Duration, lasts: Duration) -> (Head, Revocations) {
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
        spare: None,
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
    // A program that waits for the stranger hears that it cannot be reached.
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

/// A thief of a controller's key can certify a member again and again. Others have removed that controller,
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
    // None of these members is there, so none shows its credentials.
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

/// Lets two nodes exchange packets and checks that they arrive.
pub(super) fn assert_reach(net: &mut Net, from: usize, to: usize) {
    net.nodes[to].inbox.clear();
    net.send(from, to, b"still");
    net.run(2 * SECOND);
    assert_eq!(net.received(to), [b"still".to_vec()]);
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
pub(super) fn kept(net: &Net, node: usize) -> ManagedNetwork {
    let known = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
    let mut kept = ManagedNetwork::new(id());
    (kept.key, kept.credentials) = (Some(secret().public()), known.credentials().cloned());
    kept.revocations = known.heads().cloned().collect();
    kept.others = known.other_revocations();
    kept.rules = known.all_rules().cloned().collect();
    kept.signed_time = known.signed_time();
    kept
}

/// Returns true if a node observes a removal.
pub(super) fn observes(net: &Net, node: usize, removed: u8) -> bool {
    let known = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
    known.revocations().iter().any(|(node, _)| node == node_id(removed))
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
