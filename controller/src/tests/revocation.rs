use peersock_overlay::membership::Role;

use super::*;
use crate::{Approval, Change, Controller, Store};

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
    lab.controller.flush(lab.now).expect("writable");
    assert_eq!(lab.head_set().len(), 1);
    lab.now = end.plus(21 * MINUTE);
    lab.controller.flush(lab.now).expect("writable");
    assert!(lab.head_set().is_empty());
    assert_eq!(lab.controller.head(lab.now).0.epoch(), epoch + 2);
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Removed), "it stays removed");
    lab.pass(31 * DAY);
    lab.controller.flush(lab.now).expect("writable");
    assert!(matches!(lab.ask(1, None), Answer::Pending { .. }), "and may ask after 30 days");
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
    let second = lab.join(1, None);
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
    let options = InviteOptions { replaces: Some(own), ..InviteOptions::default() };
    let invite = lab.controller.invite(lab.now, &mut lab.rng, "alice", &options);
    assert_eq!(invite.err(), Some(crate::ChangeError::OwnNode));
    lab.ask(2, None);
    let approval = Approval { replaces: Some(own), ..Approval::default() };
    let key = id(2).to_string();
    let approved = lab.controller.approve(lab.now, &mut lab.rng, "alice", &key, &approval);
    assert_eq!(approved.err(), Some(crate::ChangeError::OwnNode));
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
    moved.recover(now, &mut rng, "alice", &words, false).expect("the network's words");
    let change = Change { role: Some(Role::Member), ..Change::default() };
    moved.change(now, "alice", &former.to_string(), &change).expect("a member");
    moved.revoke(now, "alice", &[&former.to_string()], false).expect("a member");
    moved.start(now, Duration::ZERO).expect("a good store");
    while now < delegation.end() {
        moved.flush(now).expect("writable");
        let (head, set) = moved.head(now);
        let set = head.read_set(&set.to_bytes()).expect("the set of the head");
        assert!(set.covers(&former, delegation.serial()), "{now:?}");
        now = now.plus(10 * DAY);
    }
    now = delegation.end().plus(21 * MINUTE);
    moved.flush(now).expect("writable");
    assert!(moved.head(now).1.is_empty(), "nobody needs it any more");
}
