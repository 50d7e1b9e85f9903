//! Clocks that are wrong, and times that issuers have signed.

use std::time::Duration;

use peersock_overlay::membership::{Answer, Denial, Refusal, Revocations, UnixTime};
use peersock_overlay::{Event, ManagedNetwork, NetworkConfig};

use crate::managed::{
    Authority, CONTROLLER, DAY, SECOND, assert_reach, certified, config, id, kept, members, network,
    observes, secret, serve, set_revocations,
};
use crate::net::{Net, UNIX_TIME};

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

/// Returns the time by which a node judges, and its own clock.
fn times(net: &Net, node: usize) -> (UnixTime, UnixTime) {
    let clock = UNIX_TIME + (net.now - crate::net::instant());
    let membership = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
    (membership.time(clock), UnixTime::from(clock))
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
                    Answer::Certified { time, renew_after, credentials, spare: None }
                }
                _ => unreachable!(),
            });
        }
        let answered = net.count(1, |event| matches!(event, Event::Answered(..)));
        assert!((least..=most).contains(&answered), "{renew_after}: {answered} in two hours");
    }
}
