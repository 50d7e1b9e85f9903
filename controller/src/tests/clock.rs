//! A clock that was ahead at one start, and is right again.

use super::*;
use crate::RecoverError;

const AHEAD: [Duration; 3] =
    [Duration::from_secs(2 * 3600), Duration::from_secs(40 * 86_400), Duration::from_secs(7300 * 86_400)];

/// Starts the controller again, as after a crash of its machine, with the clock at a time.
fn restarted(path: &Path, now: UnixTime) -> Lab {
    let mut lab = Lab::open(path, now.as_millis());
    lab.now = now;
    lab.controller.start(now, Duration::ZERO).expect("a good store");
    lab
}

/// Lets a machine join with a token, or renew, while heads may be ahead by as much as members accept.
fn certified(lab: &mut Lab, node: u32, token: Option<&Token>) -> Credentials {
    let answer = lab.ask(node, token);
    let Answer::Certified { credentials, .. } = answer else { panic!("{node} gets none: {answer:?}") };
    assert_eq!(refusal_by_members(lab, &credentials, node), None, "{node}");
    *credentials
}

fn found(lab: &mut Lab, asker: u32, of: u32) -> Answer {
    lab.ask_from(asker, &source_of(asker), Question::FindName(name(&format!("machine-{of}"))))
}

/// Returns the reason for which a member that has heard of the newest removals refuses the credentials, while
/// it takes certificates that are up to 18 hours ahead.
fn refusal_by_members(lab: &mut Lab, credentials: &Credentials, node: u32) -> Option<Refusal> {
    let latest = credentials.certificate().serial().time().min(lab.now.plus(18 * HOUR));
    let now = lab.now.max(latest);
    let (head, set) = lab.controller.head(lab.now);
    let (keys, network) = (lab.controller.network_keys(), lab.controller.network());
    let by = head.time().max(lab.now).min(lab.now.plus(DAY));
    head.verify(&keys, network, by, &Revocations::default()).expect("members take it");
    let set = head.read_set(&set.to_bytes()).expect("the set of the head");
    check(&lab.controller, credentials, node, now, &set).err()
}

#[test]
fn after_a_clock_that_was_ahead_the_present_time_is_signed_again() {
    for ahead in AHEAD {
        let (_folder, path) = place();
        let mut lab = Lab::at(&path);
        let token = lab.open_invite();
        // 1 stays, 2 is removed before, 3 while the clock is ahead, 4 after it; 5 joins then.
        let mut issued: Vec<_> = (1..=4).map(|node| (node, lab.join(node, Some(&token)))).collect();
        lab.revoke(2);
        lab.controller.flush(lab.now).expect("writable");
        let (right, epoch) = (lab.now, lab.controller.head(lab.now).0.epoch());
        drop(lab);

        let mut lab = restarted(&path, right.plus(ahead));
        lab.controller.delegate(lab.now).expect("the key is stored");
        let serial = lab.controller.head(lab.now).0.delegation().serial();
        assert!(
            serial.time() <= right.plus(MINUTE),
            "{ahead:?}: a delegation tells no time in the first hour"
        );
        issued.extend([3, 4].map(|node| (node, lab.join(node, None))));
        let invite = lab.invite(&InviteOptions { lifetime: HOUR, uses: 9, ..InviteOptions::default() });
        issued.push((5, lab.join(5, Some(&invite))));
        lab.controller.credentials(lab.now).expect("a member");
        lab.revoke(3);
        lab.pass(MINUTE);
        lab.controller.flush(lab.now).expect("writable");
        drop(lab);

        let mut lab = restarted(&path, right.plus(10 * MINUTE));
        let lag = lab.controller.clock_lag(lab.now);
        assert!(lag > ahead - HOUR, "{ahead:?}: {lag:?}");
        assert_eq!(lab.controller.accept_clock(lab.now, "alice", None), Ok(Vec::new()));
        assert_eq!(lab.controller.clock_lag(lab.now), Duration::ZERO);
        let (head, _) = lab.controller.head(lab.now);
        assert!(head.epoch() > epoch + 1 && head.delegation().end() <= lab.now.plus(91 * DAY));
        assert!(head.delegation().serial().time() <= lab.now);
        let own = lab.controller.credentials(lab.now).expect("a member");
        assert!(own.certificate().serial().time() <= lab.now.plus(MINUTE), "{ahead:?}");
        for node in [1, 4, 5] {
            let renewed = certified(&mut lab, node, None).certificate().serial().time();
            assert!(renewed <= lab.now.plus(MINUTE), "{ahead:?}: {node} has {renewed:?}");
            lab.pass(MINUTE);
        }
        assert!(matches!(found(&mut lab, 1, 4), Answer::Found { .. }));
        let token = lab.open_invite();
        certified(&mut lab, 6, Some(&token));
        // Two holders of one address are none.
        let status = lab.controller.members().expect("readable");
        let held: Vec<_> =
            status.iter().filter(|one| one.is_member()).filter_map(|one| one.grant.ipv4).collect();
        assert!(held.iter().all(|one| held.iter().filter(|other| *other == one).count() == 1));
        // An invite of an hour lasts an hour.
        lab.pass(HOUR);
        assert_eq!(denial(&lab.ask(7, Some(&invite))), Some(Denial::ExpiredInvite));

        lab.revoke(4);
        for (node, credentials) in &issued {
            let is_removed = (2..=4).contains(node);
            let refusal = refusal_by_members(&mut lab, credentials, *node);
            let is_far = credentials.certificate().serial().time() > lab.now.plus(18 * HOUR);
            assert!(
                !is_removed || refusal == Some(Refusal::Revoked) || is_far && refusal.is_some(),
                "{node}"
            );
        }
        // Removed members stay removed, also when the time comes at which their certificates begin.
        lab.controller.flush(lab.now).expect("writable");
        for before in [20 * HOUR, 16 * HOUR, 10 * HOUR, HOUR, Duration::ZERO] {
            let time = right.plus(ahead).minus(before);
            if time <= lab.now {
                continue;
            }
            lab.now = time;
            lab.controller.delegate(time).expect("the key is stored");
            lab.controller.flush(lab.now).expect("writable");
            for (node, credentials) in issued.iter().filter(|(node, _)| (2..=4).contains(node)) {
                let refusal = refusal_by_members(&mut lab, credentials, *node);
                assert!(refusal.is_some(), "{ahead:?}, {before:?} before: {node} is accepted");
            }
        }
    }
}

#[test]
fn another_process_can_say_that_the_clock_is_right() {
    let (_folder, path) = place();
    let mut lab = Lab::at(&path);
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    lab.controller.flush(lab.now).expect("writable");
    lab.pass(40 * DAY);
    lab.join(1, None);
    lab.controller.credentials(lab.now).expect("a member");
    lab.controller.note_heard(lab.now, &id(1), "192.0.2.1".parse().expect("an address"));
    lab.controller.flush(lab.now).expect("writable");
    // Signed since, and not written.
    lab.pass(MINUTE);
    lab.join(1, None);
    lab.now = NOW.plus(HOUR);
    assert!(lab.controller.clock_lag(lab.now) > 39 * DAY);
    let mut command = Lab::open(&path, 2);
    command.controller.accept_clock(lab.now, "alice", None).expect("the right is no later");
    assert_eq!(lab.controller.clock_lag(lab.now), Duration::ZERO);
    assert!(lab.join(1, None).certificate().serial().time() <= lab.now.plus(MINUTE));
    lab.controller.flush(lab.now).expect("writable");
    assert_eq!(Lab::open(&path, 4).controller.clock_lag(lab.now), Duration::ZERO);
    let members = lab.controller.members().expect("readable");
    assert!(members.iter().all(|member| member.seen <= lab.now), "or a copy would be refused for 40 days");
}

#[test]
fn a_member_that_was_changed_by_a_clock_that_was_ahead_is_named() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    lab.join(2, Some(&token));
    lab.pass(40 * DAY);
    lab.join(1, None);
    let change = crate::Change { tags: Some(vec!["db".parse().expect("a tag")]), ..crate::Change::default() };
    lab.controller.change(lab.now, "alice", &id(1).to_string(), &change).expect("a member");
    lab.now = NOW.plus(HOUR);
    assert_eq!(lab.controller.accept_clock(lab.now, "alice", None), Ok(vec![name("machine-1")]));
}

#[test]
fn a_right_by_words_of_a_clock_that_was_ahead_needs_them_again() {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let new = NewNetwork { is_offline: true, ..new_network(Settings::default()) };
    let store = Store::in_memory().expect("memory");
    let late = NOW.plus(40 * DAY);
    let (mut controller, words) =
        Controller::create(store, &SEED, &new, late, &mut rng, id_of).expect("empty");
    assert!(controller.clock_lag(NOW) > 39 * DAY);
    assert_eq!(controller.accept_clock(NOW, "alice", None), Err(RecoverError::Offline));
    let other = RecoveryWords::draw(&mut rng);
    assert_eq!(controller.accept_clock(NOW, "alice", Some(&other)), Err(RecoverError::OtherNetwork));
    assert!(controller.clock_lag(NOW) > 39 * DAY);
    controller.accept_clock(NOW, "alice", Some(&words)).expect("the network's words");
    assert_eq!(controller.clock_lag(NOW), Duration::ZERO);
    assert!(controller.credentials(NOW).is_some() && !controller.has_key());
    assert_eq!(controller.status(NOW).expect("readable").delegation_end, NOW.plus(365 * DAY));
}
