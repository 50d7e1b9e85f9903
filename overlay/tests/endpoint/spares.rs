//! Spares: members that renew certificates while no controller answers.

use std::time::Duration;

use peersock_overlay::membership::{
    Answer, Credentials, Delegation, Grant, Head, Question, Refusal, Revocation, Revocations, Rights, Serial,
    Spare, UnixTime,
};
use peersock_overlay::{Event, Gone, Identity, ManagedNetwork, NetworkConfig, PublicIdentity};

use crate::managed::{
    Authority, CONTROLLER, DAY, SECOND, assert_reach, certified, config, id, kept, members, network, node_id,
    observes, say, secret, serve, set_revocations,
};
use crate::net::{Net, UNIX_TIME};

const HOUR: Duration = Duration::from_secs(3600);

/// Place of the spare, and of two other members.
const SPARE: usize = 1;
const SECOND_MEMBER: usize = 2;
const THIRD: usize = 3;

/// Longest time until a spare knows that no controller answers, and members have asked it: two renewals.
const TAKEN_OVER: Duration = Duration::from_secs(2 * 2400 + 60);

fn public(identity: u8) -> PublicIdentity {
    *Identity::from_seed(&[identity; 32]).public()
}

fn since_start(net: &Net) -> Duration {
    net.now - crate::net::instant()
}

/// Returns the right that the network key gives a node at `at`, with certificates of this lifetime.
fn right(identity: u8, at: Duration, lasts: Duration, lifetime: Duration) -> Spare {
    let serial = Serial::next(UnixTime::from(UNIX_TIME + at), None);
    let delegation = Delegation::sign(&secret(), id(), public(identity), serial, lasts, Rights::RENEWALS);
    Spare::new(delegation, lifetime)
}

/// Returns a controller, a spare and two members, with certificates of two hours.
fn office() -> (Net, Authority) {
    let authority = Authority::new().lasting(2 * HOUR);
    let mut net = members(&authority, &[CONTROLLER, 1, 2, 3]);
    for (from, to) in [(1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (2, 3)] {
        net.send(from, to, b"open");
    }
    net.run(2 * SECOND);
    let given = right(1, since_start(&net), 90 * DAY, 2 * HOUR);
    make_spare(&mut net, &authority, Some(given));
    (net, authority)
}

/// Lets the spare ask its controller, which gives it this right or none.
fn make_spare(net: &mut Net, authority: &Authority, spare: Option<Spare>) {
    let at = network(net, SPARE);
    net.nodes[SPARE].endpoint.ask_again(net.now, at, None, None);
    net.run(SECOND / 2);
    serve_with(net, authority, spare.as_ref());
    net.run(SECOND);
}

/// Answers the requests for credentials at the controller, with this right for the spare.
fn serve_with(net: &mut Net, authority: &Authority, spare: Option<&Spare>) {
    serve(net, 0, |node, _, at| match certified(authority, node, at) {
        Answer::Certified { time, renew_after, credentials, .. } if *node == node_id(1) => {
            Answer::Certified { time, renew_after, credentials, spare: spare.cloned().map(Box::new) }
        }
        other => other,
    });
}

/// Starts the controller again, which renews its own certificate.
fn bring_back(net: &mut Net, authority: &Authority) {
    net.nodes[0].up = true;
    let (at, own) = (network(net, 0), authority.credentials(CONTROLLER, since_start(net)));
    net.nodes[0].endpoint.set_credentials(net.now, at, &own).expect("its own");
    net.run(2 * SECOND);
}

/// Returns how often the members were expelled, apart from the controller.
fn expelled(net: &Net) -> usize {
    fn is_meant(event: &Event) -> bool {
        matches!(event, Event::PeerGone(peer, Gone::Expelled) if *peer.id() != node_id(CONTROLLER))
    }
    (1..4).map(|node| net.count(node, is_meant)).sum()
}

fn own(net: &Net, node: usize) -> Credentials {
    let known = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
    known.credentials().expect("a member").clone()
}

fn is_by_spare(net: &Net, node: usize) -> bool {
    *own(net, node).delegation().issuer() == public(1)
}

fn is_spare(net: &Net) -> bool {
    let known = net.nodes[SPARE].endpoint.membership(network(net, SPARE)).expect("managed");
    known.spare().is_some()
}

#[test]
fn members_go_on_by_a_spare_for_as_long_as_the_controller_is_lost() {
    let (mut net, authority) = office();
    assert!(is_spare(&net));
    for node in [SECOND_MEMBER, THIRD] {
        let known = net.nodes[node].endpoint.membership(network(&net, node)).expect("managed");
        assert!(known.controllers().contains(&public(1)), "node {node} knows it before it is needed");
    }
    let before = [1, 2, 3].map(|node| own(&net, node));
    net.nodes[0].up = false;
    net.run(TAKEN_OVER);
    for node in 1..4 {
        assert!(is_by_spare(&net, node), "node {node}");
        let (now, then) = (own(&net, node), &before[node - 1]);
        assert_eq!(now.certificate().grant(), then.certificate().grant());
        // Below what a controller signs, whatever the clocks say.
        let renewals = now.certificate().serial().as_u64() - then.certificate().serial().as_u64();
        assert!((1..=10).contains(&renewals), "{renewals}");
    }
    net.run(12 * HOUR);
    assert_eq!(expelled(&net), 0);
    assert_reach(&mut net, SECOND_MEMBER, THIRD);
    let left = own(&net, THIRD).end().since(UnixTime::from(UNIX_TIME + since_start(&net)));
    assert!(left > HOUR, "{left:?}");

    bring_back(&mut net, &authority);
    let begun = net.now;
    while (1..4).any(|node| is_by_spare(&net, node)) {
        assert!(net.now - begun < TAKEN_OVER, "members go back to the controller");
        net.run(SECOND);
        serve(&mut net, 0, |node, _, at| certified(&authority, node, at));
    }
    assert_eq!(expelled(&net), 0);
}

#[test]
fn a_spare_that_is_restarted_goes_on() {
    let (mut net, authority) = office();
    net.nodes[0].up = false;
    net.run(TAKEN_OVER);
    let spare = {
        let known = net.nodes[SPARE].endpoint.membership(network(&net, SPARE)).expect("managed");
        known.spare().cloned()
    };
    let description = ManagedNetwork { spare, ..kept(&net, SPARE) };
    let since = since_start(&net);
    net.restart(SPARE, 4000, UNIX_TIME + since);
    net.join(SPARE, &NetworkConfig::Managed(Box::new(description)));
    net.run(6 * HOUR);
    assert!((1..4).all(|node| is_by_spare(&net, node)));
    net.send(SECOND_MEMBER, SPARE, b"still");
    net.run(2 * SECOND);
    assert!(net.received(SPARE).contains(&b"still".to_vec()));
    drop(authority);
}

#[test]
fn a_removal_covers_what_a_spare_has_renewed_also_if_its_clock_is_ahead() {
    for ahead in [Duration::ZERO, DAY] {
        let (mut net, mut authority) = office();
        net.nodes[0].up = false;
        if !ahead.is_zero() {
            // Its right and its certificate are those of before.
            let known = net.nodes[SPARE].endpoint.membership(network(&net, SPARE)).expect("managed");
            let description = ManagedNetwork { spare: known.spare().cloned(), ..kept(&net, SPARE) };
            let since = since_start(&net);
            net.restart(SPARE, 4000, UNIX_TIME + since + HOUR);
            net.join(SPARE, &NetworkConfig::Managed(Box::new(description)));
            net.send(SECOND_MEMBER, SPARE, b"open");
            net.send(THIRD, SPARE, b"open");
        }
        net.run(TAKEN_OVER);
        assert!(is_by_spare(&net, SECOND_MEMBER));
        bring_back(&mut net, &authority);
        let head = authority.revoke(2, since_start(&net));
        set_revocations(&mut net, 0, &head);
        net.run(TAKEN_OVER);
        assert!(observes(&net, THIRD, 2) && observes(&net, SPARE, 2));
        let peer = net.peer(THIRD, SECOND_MEMBER);
        assert!(!peer.is_admitted(), "{ahead:?} ahead");
        let known = net.nodes[THIRD].endpoint.membership(network(&net, THIRD)).expect("managed");
        assert_eq!(known.clock_offset(), 0, "a spare's clock corrects no other one");
        assert!(net.count(SECOND_MEMBER, |event| matches!(event, Event::RefusedBy(..))) > 0);
    }
}

/// Asks the spare as a member does that wants no controller's decision.
fn ask_spare(net: &mut Net, from: usize) -> bool {
    net.run(SECOND);
    let question = Question::Certify(Default::default()).to_bytes();
    let asked = [&[0x0f, 0, 0, 0, 0, 1][..], &question].concat();
    net.sent.clear();
    say(net, from, SPARE, &asked);
    net.run(SECOND / 20);
    let (own, to) = (net.nodes[SPARE].socket, net.nodes[from].socket);
    net.sent.iter().any(|one| one.from == own && one.to == to && one.bytes.len() > 300)
}

#[test]
fn a_spare_is_silent_while_a_controller_answers_and_to_strangers_always() {
    let (mut net, authority) = office();
    let given = right(1, since_start(&net), 90 * DAY, 2 * HOUR);
    for _ in 0..4 * 360 {
        net.run(10 * SECOND);
        serve_with(&mut net, &authority, Some(&given));
    }
    assert!(!ask_spare(&mut net, SECOND_MEMBER));
    let stranger = net.add(5);
    net.join(stranger, &config(None));
    net.nodes[0].up = false;
    net.run(TAKEN_OVER);
    net.send(stranger, SPARE, b"open");
    net.run(2 * SECOND);
    assert!(ask_spare(&mut net, SECOND_MEMBER));
    assert!(!ask_spare(&mut net, stranger));
}

#[test]
fn the_right_ends_with_a_removal_with_a_controllers_answer_and_at_its_time() {
    // By an answer without it.
    let (mut net, authority) = office();
    make_spare(&mut net, &authority, None);
    assert!(!is_spare(&net));
    // By a removal, also if the spare itself does not hear of it.
    let (mut net, mut authority) = office();
    let head = authority.revoke(1, since_start(&net));
    set_revocations(&mut net, 0, &head);
    net.run(5 * SECOND);
    net.nodes[0].up = false;
    net.run(TAKEN_OVER);
    assert!(!(2..4).any(|node| is_by_spare(&net, node)));
    // At the end of the delegation, with all that it has signed.
    let (mut net, authority) = office();
    let given = right(1, since_start(&net), 4 * HOUR, 2 * HOUR);
    make_spare(&mut net, &authority, Some(given));
    net.nodes[0].up = false;
    net.run(3 * HOUR);
    assert!(is_by_spare(&net, SECOND_MEMBER));
    net.run(2 * HOUR);
    assert!(!net.peer(THIRD, SECOND_MEMBER).is_admitted());
}

#[test]
fn a_right_that_is_another_nodes_or_of_another_key_is_none() {
    let authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1]);
    net.send(1, 0, b"open");
    net.run(2 * SECOND);
    let other = right(2, Duration::ZERO, DAY, HOUR);
    let foreign = {
        let key = peersock_overlay::membership::NetworkSecret::from_seed(&[99; 32]);
        let serial = Serial::next(UnixTime::from(UNIX_TIME), None);
        Spare::new(Delegation::sign(&key, id(), public(1), serial, DAY, Rights::RENEWALS), HOUR)
    };
    for wrong in [other, foreign] {
        make_spare(&mut net, &authority, Some(wrong));
        assert!(!is_spare(&net));
    }
}

/// A spare whose program was changed: it gives a name, or admits a machine.
#[test]
fn a_spare_changes_no_certificate_and_admits_no_machine() {
    let authority = Authority::new().lasting(2 * HOUR);
    let mut net = members(&authority, &[CONTROLLER, 1, 2]);
    let since = since_start(&net);
    // As a controller's, so that the test answers.
    let mut liar = Authority::with(1, 90 * DAY).lasting(2 * HOUR);
    liar.delegation = right(1, since, 90 * DAY, 2 * HOUR).delegation().clone();
    net.restart(1, 4000, UNIX_TIME + since);
    let mut description = ManagedNetwork::new(id());
    (description.key, description.is_controller) = (Some(secret().public()), true);
    description.credentials = Some(liar.credentials(1, since));
    net.join(1, &NetworkConfig::Managed(Box::new(description)));
    net.send(2, 1, b"open");
    net.run(2 * SECOND);
    net.nodes[0].up = false;
    let joiner = net.add(4);
    net.join(joiner, &config(None));
    let before = own(&net, 2);
    for _ in 0..2 * 360 {
        net.run(10 * SECOND);
        serve(&mut net, 1, |node, _, at| {
            let mut grant = Grant::new(*node, "other".parse().expect("a name"));
            grant.tags = vec!["admin".parse().expect("a tag")];
            Answer::Certified {
                time: UnixTime::from(UNIX_TIME + at),
                renew_after: 2400,
                credentials: Box::new(liar.sign(grant, at)),
                spare: None,
            }
        });
    }
    assert_eq!(own(&net, 2), before);
    assert!(
        net.nodes[joiner]
            .endpoint
            .membership(network(&net, joiner))
            .expect("managed")
            .credentials()
            .is_none()
    );
}

#[test]
fn a_newcomer_is_not_up_to_date_by_a_spares_word() {
    let (mut net, authority) = office();
    net.nodes[0].up = false;
    net.run(SECOND);
    let newcomer = net.add(6);
    net.join(newcomer, &config(Some(authority.credentials(6, since_start(&net)))));
    net.send(newcomer, SPARE, b"open");
    net.run(90 * SECOND);
    let known = net.nodes[newcomer].endpoint.membership(network(&net, newcomer)).expect("managed");
    assert!(known.heads().any(|(head, _)| head.issuer() == node_id(1)), "it has the spare's head");
    assert!(!known.is_up_to_date());
}

#[test]
fn ephemeral_members_are_not_renewed() {
    let (mut net, authority) = office();
    let at = since_start(&net);
    let mut grant = Grant::new(node_id(2), "node-2".parse().expect("a name"));
    grant.is_ephemeral = true;
    let of_second = network(&net, SECOND_MEMBER);
    let ephemeral = authority.sign(grant, at);
    net.nodes[SECOND_MEMBER].endpoint.set_credentials(net.now, of_second, &ephemeral).expect("its own");
    net.run(SECOND);
    net.nodes[0].up = false;
    net.run(3 * HOUR);
    assert!(is_by_spare(&net, THIRD) && !is_by_spare(&net, SECOND_MEMBER));
}

#[test]
fn a_spare_shortens_no_certificate() {
    let (mut net, authority) = office();
    let given = right(1, since_start(&net), 90 * DAY, Duration::from_secs(600));
    make_spare(&mut net, &authority, Some(given));
    let before = own(&net, THIRD);
    net.nodes[0].up = false;
    net.run(TAKEN_OVER);
    assert!(is_by_spare(&net, THIRD) && own(&net, THIRD).end() >= before.end());
}

/// The key of a spare is stolen.
#[test]
fn a_spares_head_removes_no_member() {
    let (mut net, _authority) = office();
    let spare = {
        let known = net.nodes[SPARE].endpoint.membership(network(&net, SPARE)).expect("managed");
        known.spare().expect("a spare").clone()
    };
    let now = UnixTime::from(UNIX_TIME + since_start(&net));
    let mut set = Revocations::default();
    set.add(node_id(3), Revocation { min_serial: Serial::next(now, None), until: now.plus(DAY) });
    let identity = Identity::from_seed(&[1; 32]);
    let head = Head::sign(&identity, spare.delegation().clone(), id(), now.as_millis(), now, &set);
    for node in [SPARE, SECOND_MEMBER] {
        let at = network(&net, node);
        let taken = net.nodes[node].endpoint.set_revocations(net.now, at, &head, &set);
        assert_eq!(taken, Err(Refusal::Issuer));
    }
    net.run(5 * SECOND);
    assert_reach(&mut net, SECOND_MEMBER, THIRD);
}
