use peersock_overlay::membership::{CLOCK_TOLERANCE, Role};

use super::*;
use crate::{Approval, Change, ChangeError, Standing};

#[test]
fn a_removed_member_is_refused_by_all_that_know_the_head() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    let (first, second) = (lab.join(1, Some(&token)), lab.join(2, Some(&token)));
    let epoch = lab.controller.head(lab.now).0.epoch();
    lab.revoke(1);
    assert_eq!(lab.controller.head(lab.now).0.epoch(), epoch + 1);
    assert_eq!(lab.refusal(&first, 1), Some(Refusal::Revoked));
    assert_eq!(lab.refusal(&second, 2), None);
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Removed));
    assert_eq!(denial(&lab.ask(1, Some(&token))), Some(Denial::Removed), "the token's right is gone");
    // The entry is forgotten when the last certificate has ended for all clocks, and then the epoch grows.
    let end = first.certificate().end();
    lab.now = end.plus(10 * MINUTE).minus(Duration::from_millis(1));
    lab.flush_steadily();
    assert_eq!(lab.head_set().len(), 1);
    lab.now = end.plus(21 * MINUTE);
    lab.flush_steadily();
    assert!(lab.head_set().is_empty());
    assert_eq!(lab.controller.head(lab.now).0.epoch(), epoch + 2);
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Removed), "it stays removed");
    lab.pass(31 * DAY);
    lab.flush_steadily();
    assert!(matches!(lab.ask(1, None), Answer::Pending { .. }), "and may ask after 30 days");
}

#[test]
fn a_clock_that_is_ahead_for_some_time_forgets_no_removal() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    let first = lab.join(1, Some(&token));
    lab.revoke(1);
    lab.flush_steadily();
    let right = lab.now;
    lab.controller.watch_clock();
    // The machine starts without the time, and hears it after half an hour.
    for step in 0..6 {
        lab.now = right.plus(7300 * DAY + step * 5 * MINUTE);
        lab.controller.flush(lab.now).expect("writable");
    }
    lab.now = right.plus(30 * MINUTE);
    lab.controller.flush(lab.now).expect("writable");
    assert_eq!(lab.head_set().len(), 1);
    assert_eq!(lab.refusal(&first, 1), Some(Refusal::Revoked));
    // What has ended is forgotten all the same.
    lab.now = first.certificate().end().plus(21 * MINUTE);
    lab.controller.accept_clock(lab.now, "alice").expect("writable");
    lab.flush_steadily();
    assert!(lab.head_set().is_empty());
}

#[test]
fn revoke_approve_revoke_in_one_millisecond_is_right() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    let key = id(1).to_string();
    let mut issued = vec![lab.join(1, Some(&token))];
    for _ in 0..5 {
        issued.push(lab.join(1, None));
        lab.revoke(1);
        assert!(
            issued
                .iter()
                .all(|one| one.certificate().serial() < issued[issued.len() - 1].certificate().serial()
                    || one == &issued[issued.len() - 1])
        );
        for one in &issued {
            assert_eq!(lab.refusal(one, 1), Some(Refusal::Revoked));
        }
        lab.controller.approve(lab.now, &mut lab.rng, "alice", &key, &Approval::default()).expect("known");
        let again = lab.join(1, None);
        assert_eq!(lab.refusal(&again, 1), None);
        issued.push(again);
    }
}

#[test]
fn a_change_of_tags_name_role_or_claims_makes_earlier_certificates_void() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    let role = Some(Role::Operator);
    for change in [
        Change { tags: Some(tags(&["db"])), ..Change::default() },
        Change { tags: Some(Vec::new()), ..Change::default() },
        Change { name: Some(name("other")), ..Change::default() },
        Change { role, ..Change::default() },
        Change { claims: Some(vec![1, 2, 3]), ..Change::default() },
    ] {
        let before = lab.join(1, None);
        lab.controller.change(lab.now, "alice", &id(1).to_string(), &change).expect("a member");
        assert_eq!(lab.refusal(&before, 1), Some(Refusal::Revoked), "{change:?}");
        let after = lab.join(1, None);
        assert_eq!(lab.refusal(&after, 1), None);
        assert_ne!(before.certificate().grant(), after.certificate().grant());
    }
    // What is not in the certificate makes none void.
    let before = lab.join(1, None);
    let change = Change { outlive: Some(Some(2 * HOUR)), ..Change::default() };
    lab.controller.change(lab.now, "alice", "other", &change).expect("a member");
    assert_eq!(lab.refusal(&before, 1), None);
    let too_long = Change { claims: Some(vec![0; 129]), ..Change::default() };
    assert!(lab.controller.change(lab.now, "alice", "other", &too_long).is_err());
}

#[test]
fn heads_are_signed_again_within_10_minutes_and_epochs_stay() {
    let mut lab = Lab::new();
    let first = lab.controller.head(lab.now).0;
    lab.pass(MINUTE);
    assert_eq!(lab.controller.head(lab.now).0, first);
    lab.pass(9 * MINUTE);
    let second = lab.controller.head(lab.now).0;
    assert_eq!(second.epoch(), first.epoch());
    assert!(lab.now.since(second.time()) <= 5 * MINUTE);
}

#[test]
fn a_clock_that_goes_back_keeps_serials_and_revocations_right() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    let first = lab.join(1, Some(&token));
    lab.now = lab.now.minus(5 * MINUTE);
    let Answer::Certified { credentials: second, time, .. } = lab.ask(1, None) else { panic!("a member") };
    assert!(time >= NOW, "the controller's time never goes back");
    assert!(second.certificate().serial() > first.certificate().serial());
    lab.revoke(1);
    for one in [&first, &second] {
        assert_eq!(lab.refusal(one, 1), Some(Refusal::Revoked));
    }
}

#[test]
fn no_change_of_the_controllers_own_node_touches_what_it_has_issued() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    let member = lab.join(1, Some(&token));
    let change = Change { name: Some(name("other")), tags: Some(tags(&["a"])), ..Change::default() };
    lab.controller.change(lab.now, "alice", "controller", &change).expect("a member");
    assert_eq!(
        lab.controller.credentials(lab.now).expect("a member").certificate().grant().name,
        name("other")
    );
    assert_eq!(lab.refusal(&member, 1), None);
    let own = Identity::from_seed(&SEED).node_id();
    let options = InviteOptions::from(Approval { replaces: Some(own), ..Approval::default() });
    let invite = lab.controller.invite(lab.now, &mut lab.rng, "alice", &options);
    assert_eq!(invite.err(), Some(ChangeError::OwnNode));
    lab.ask(2, None);
    let approval = Approval { replaces: Some(own), ..Approval::default() };
    let key = id(2).to_string();
    let approved = lab.controller.approve(lab.now, &mut lab.rng, "alice", &key, &approval);
    assert_eq!(approved.err(), Some(ChangeError::OwnNode));
}

#[test]
fn a_former_controller_stays_revoked_until_its_delegation_ends() {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let new = new_network(Settings::default());
    let store = Store::in_memory().expect("memory");
    let (controller, words) = Controller::create(store, &SEED, &new, NOW, &mut rng, id_of).expect("empty");
    let former = controller.memory().identity.node_id();
    let delegation = controller.memory().delegation.clone();
    // The store moves to another machine. The first one is removed, after it was no administrator any more.
    let Controller { store, .. } = controller;
    let mut moved = Controller::open(store, &[201; 32]).expect("the store has no secret of the identity");
    let mut now = NOW.plus(HOUR);
    moved.recover(now, &mut rng, "alice", &words, None, false).expect("the network's words");
    let change = Change { role: Some(Role::Member), ..Change::default() };
    moved.change(now, "alice", &former.to_string(), &change).expect("a member");
    moved.revoke(now, "alice", &[&former.to_string()], false).expect("a member");
    moved.start(now, Duration::ZERO).expect("a good store");
    while now < delegation.end() {
        for minutes in (0..=12).rev().map(|step| step * 5 * MINUTE) {
            moved.flush(now.minus(minutes)).expect("writable");
        }
        let (head, set) = moved.head(now);
        let set = head.read_set(&set.to_bytes()).expect("the set of the head");
        assert!(set.covers(&former, delegation.serial()), "{now:?}");
        now = now.plus(10 * DAY);
    }
    now = delegation.end().plus(21 * MINUTE);
    for minutes in (0..=12).rev().map(|step| step * 5 * MINUTE) {
        moved.flush(now.minus(minutes)).expect("writable");
    }
    assert!(moved.head(now).1.is_empty(), "nobody needs it any more");
}

#[test]
fn another_issuer_s_epochs_lead_nobody_and_its_removals_count() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let store = Store::open(&folder.path().join("store/controller.db")).expect("a folder of the test");
    let new = new_network(Settings::default());
    let (mut one, words) = Controller::create(store, &SEED, &new, NOW, &mut rng, id_of).expect("empty");
    one.start(NOW, Duration::ZERO).expect("a good store");
    let copy = folder.path().join("store/copy.db");
    one.backup(&copy).expect("a new file");
    let mut two = Controller::open(Store::open(&copy).expect("it exists"), &[201; 32]).expect("a network");
    let now = NOW.plus(HOUR);
    two.recover(now, &mut rng, "alice", &words, None, false).expect("the network's words");
    two.start(now, Duration::ZERO).expect("a good store");
    // The second key is stolen, and signs the highest epoch that counts.
    let before = one.head(now).0.epoch();
    let evil = {
        let memory = two.memory();
        let time = now.plus(CLOCK_TOLERANCE);
        let (delegation, set) = (memory.delegation.clone(), Revocations::default());
        Head::sign(&memory.identity, delegation, memory.network, time.as_millis(), time, &set)
    };
    assert_eq!(one.note_head(now, &evil, &[]), Ok(false));
    assert_eq!(one.head(now).0.epoch(), before);
    // What another one removes is taken over, whatever its epoch, and then both are quiet.
    let mut set = Revocations::default();
    let min_serial = Serial::next(now, None);
    set.add(id(1), Revocation { min_serial, until: now.plus(DAY) });
    let removal = {
        let memory = two.memory();
        Head::sign(&memory.identity, memory.delegation.clone(), memory.network, 1, now, &set)
    };
    assert_eq!(one.note_head(now, &removal, &set.to_bytes()), Ok(true));
    let (head, own) = one.head(now);
    assert!(own.covers(&id(1), Serial::from_u64(min_serial.as_u64() - 1)) && head.epoch() == before + 1);
    head.verify(&one.network_keys(), one.network(), now, &Revocations::default()).expect("members take it");
    assert_eq!(two.note_head(now, &head, &own.to_bytes()), Ok(true));
    let (answer, answered) = two.head(now);
    assert_eq!(one.note_head(now, &answer, &answered.to_bytes()), Ok(false));
    assert_eq!(one.head(now).0.epoch(), before + 1);
}

/// Returns made-up removals of unknown nodes, with ends in a hundred years.
fn made_up(first: u16, count: u16, time: UnixTime) -> Vec<(NodeId, UnixTime, UnixTime)> {
    let node = |number: u16| {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        NodeId::from_bytes(bytes)
    };
    (first..first + count).map(|number| (node(number), time, time.plus(36_500 * DAY))).collect()
}

#[test]
fn a_thief_s_removals_take_no_room_of_a_controller_s_own() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    let credentials: Vec<_> = (1..=3).map(|node| lab.join(node, Some(&token))).collect();
    let thief = lab.other_issuer(99);
    lab.pass(MINUTE);
    lab.revoke(1);
    // As many as a set can have, and then as many others.
    for epoch in 1..=2_u16 {
        let removals = made_up(epoch * 10_000, 10_000, lab.now);
        let head = thief.head(epoch.into(), lab.now, removals);
        assert!(lab.note(&head).is_ok());
        // The member's removal is in a head that members take, which `refusal` checks.
        assert_eq!(lab.refusal(&credentials[0], 1), Some(Refusal::Revoked));
        lab.revoke(u32::from(epoch) + 1);
        assert_eq!(
            lab.refusal(&credentials[usize::from(epoch)], u32::from(epoch) + 1),
            Some(Refusal::Revoked)
        );
        assert!(lab.head_set().len() <= 2_000, "{}", lab.head_set().len());
    }
    // The same removals in another head are nothing new.
    let epoch = lab.controller.head(lab.now).0.epoch();
    assert_eq!(lab.note(&thief.head(3, lab.now, made_up(20_000, 10_000, lab.now))), Ok(false));
    assert_eq!(lab.controller.head(lab.now).0.epoch(), epoch);
    // No certificate that they cover can last for longer.
    lab.pass(32 * DAY);
    lab.flush_steadily();
    assert!(lab.head_set().len() < 100, "{}", lab.head_set().len());
}

#[test]
fn another_issuer_s_removals_of_members_go_before_made_up_ones() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    let credentials = lab.join(1, Some(&token));
    let other = lab.other_issuer(99);
    lab.pass(MINUTE);
    let end = lab.now.plus(DAY);
    let removals = made_up(0, 9_999, lab.now).into_iter().chain([(id(1), lab.now, end)]);
    assert_eq!(lab.note(&other.head(1, lab.now, removals)), Ok(true));
    assert_eq!(lab.refusal(&credentials, 1), Some(Refusal::Revoked));
    assert_eq!(lab.controller.find("machine-1").expect("a row").standing, Standing::Held);
    // It ended long ago, so no node needs it.
    let ended = [(id(2), lab.now.minus(40 * DAY), lab.now.plus(DAY))];
    assert_eq!(lab.note(&other.head(2, lab.now, ended)), Ok(false));
}

#[test]
fn another_issuer_does_not_remove_a_controller_from_its_own_store() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    let thief = lab.other_issuer(99);
    lab.pass(MINUTE);
    let own = Identity::from_seed(&SEED).node_id();
    let end = lab.now.plus(DAY);
    assert_eq!(lab.note(&thief.head(1, lab.now, [(own, lab.now, end)])), Ok(false));
    assert!(lab.controller.credentials(lab.now).is_some());
    lab.join(1, Some(&token));
    assert!(lab.head_set().is_empty());
}

#[test]
fn many_members_that_a_thief_removes_leave_room_for_own_removals() {
    let mut lab = Lab::with(Settings::default());
    let token = lab.open_invite();
    let asked: Vec<_> = (1..=10_010)
        .map(|node| crate::Asked {
            peer: *identity(node).public(),
            source: source_of(node).parse().expect("an address"),
            question: certify(node, Some(&token)),
        })
        .collect();
    lab.controller.answer_all(lab.now, &mut lab.rng, &asked);
    let thief = lab.other_issuer(99);
    lab.pass(MINUTE);
    let end = lab.now.plus(DAY);
    assert_eq!(
        lab.note(&thief.head(1, lab.now, (1..=10_000).map(|node| (id(node), lab.now, end)))),
        Ok(true)
    );
    assert_eq!(lab.controller.status(lab.now).expect("readable").held, 10_000);
    for node in 10_001..=10_010 {
        let key = id(node).to_string();
        assert_ne!(
            lab.controller.revoke(lab.now, "alice", &[&key], true),
            Err(ChangeError::TooManyRevocations)
        );
    }
    let set = lab.head_set();
    let is_removed = |node| set.iter().any(|(known, _)| known == id(node));
    assert!((10_001..=10_010).all(is_removed) && set.len() == Revocations::MAX_ENTRIES);
}
