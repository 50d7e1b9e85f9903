//! Heads of a stolen issuer's key hide, delay and fill nothing.

use std::time::Duration;

use peersock_overlay::membership::{Head, Revocations, UnixTime};
use peersock_overlay::wire::MembershipMessage;
use peersock_overlay::{DATA_OVERHEAD, NetworkConfig};

use crate::managed::{
    Authority, CONTROLLER, DAY, SECOND, config, kept, members, network, node_id, say, separate,
    set_revocations,
};
use crate::net::{Net, UNIX_TIME};
use crate::removals::many;

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
    // A change reaches all members at once, whichever of them have met the thief's next head before.
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
    // The last entry does not fit any more: no node asks for this set.
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
