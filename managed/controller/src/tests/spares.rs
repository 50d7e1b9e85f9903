//! Members that may renew certificates while no controller answers.

use peersock_overlay::membership::{Answer, Question, Refusal, Spare};

use super::{DAY, HOUR, Lab, NOW, certify, id, name, place, source_of, tags};
use crate::{Approval, Change, ChangeError, Controller, DELEGATION_LIFETIME, InviteOptions, Settings};

fn set(lab: &mut Lab, node: u32, is_spare: bool) -> Result<(), ChangeError> {
    let change = Change { spare: Some(is_spare), ..Change::default() };
    lab.controller.change(lab.now, "alice", &id(node).to_string(), &change).map(|_| ())
}

/// Returns the right that a member gets with its next certificate.
fn right(lab: &mut Lab, node: u32) -> Option<Spare> {
    match lab.ask(node, None) {
        Answer::Certified { spare, .. } => spare.map(|spare| *spare),
        other => panic!("{other:?}"),
    }
}

/// Returns true if no revocation covers a right.
fn counts(lab: &mut Lab, spare: &Spare) -> bool {
    let delegation = spare.delegation();
    !lab.head_set().covers(&delegation.issuer().node_id(), delegation.serial())
}

#[test]
fn a_spare_gets_a_right_with_its_certificate_and_nobody_else_does() {
    let mut lab = Lab::with(Settings { outlive: 5 * HOUR, ..Settings::default() });
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    lab.join(2, Some(&token));
    assert_eq!(right(&mut lab, 1), None);
    set(&mut lab, 1, true).expect("the key is here");
    let given = right(&mut lab, 1).expect("a spare");
    let delegation = given.delegation();
    assert_eq!(delegation.issuer().node_id(), id(1));
    assert!(delegation.rights().renews_only && delegation.rights().issues);
    assert_eq!(delegation.end(), NOW.plus(DELEGATION_LIFETIME));
    let keys = lab.controller.network_keys();
    assert!(keys.signer_of(delegation, lab.controller.network()).is_ok());
    assert!(counts(&mut lab, &given));
    // As long as those of the controller itself, or those that last shortest.
    assert_eq!(given.lifetime(), 6 * HOUR);
    let change = Change { outlive: Some(Some(2 * HOUR)), ..Change::default() };
    lab.controller.change(lab.now, "alice", &id(2).to_string(), &change).expect("a member");
    assert_eq!(right(&mut lab, 1).expect("a spare").lifetime(), 3 * HOUR);
    assert_eq!(right(&mut lab, 2), None);
    // Twice is once.
    set(&mut lab, 1, true).expect("it is one");
    assert_eq!(right(&mut lab, 1).expect("a spare").delegation(), delegation);
}

#[test]
fn what_takes_the_right_voids_it() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    set(&mut lab, 1, true).expect("the key is here");
    let (given, before) = (right(&mut lab, 1).expect("a spare"), lab.join(1, None));
    set(&mut lab, 1, false).expect("a member");
    assert!(!counts(&mut lab, &given));
    assert_eq!(lab.refusal(&before, 1), Some(Refusal::Revoked));
    assert_eq!(right(&mut lab, 1), None);
    // Given again, it is above the revocation.
    set(&mut lab, 1, true).expect("the key is here");
    let again = right(&mut lab, 1).expect("a spare");
    assert!(counts(&mut lab, &again) && again.delegation().serial() > given.delegation().serial());
    lab.revoke(1);
    assert!(!counts(&mut lab, &again));
    // A removal of a spare is published until its delegation has ended, whatever its own certificate says.
    lab.pass(60 * DAY);
    lab.controller.delegate(lab.now).expect("the key is here");
    lab.flush_steadily();
    assert!(!counts(&mut lab, &again));
    lab.pass(31 * DAY);
    lab.flush_steadily();
    assert!(lab.head_set().iter().next().is_none());
}

#[test]
fn a_right_is_signed_again_before_it_ends_and_when_it_is_void() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    set(&mut lab, 1, true).expect("the key is here");
    let first = right(&mut lab, 1).expect("a spare");
    lab.pass(DELEGATION_LIFETIME / 3);
    lab.controller.delegate(lab.now).expect("the key is here");
    let second = right(&mut lab, 1).expect("a spare");
    assert_eq!(second.delegation().end(), lab.now.plus(DELEGATION_LIFETIME));
    assert!(counts(&mut lab, &first) && counts(&mut lab, &second));
    // Another tag voids all that was signed of the member, and what it has signed.
    let change = Change { added_tags: tags(&["web"]), ..Change::default() };
    lab.controller.change(lab.now, "alice", &id(1).to_string(), &change).expect("a member");
    assert!(!counts(&mut lab, &second));
    assert_eq!(right(&mut lab, 1), None);
    lab.controller.delegate(lab.now).expect("the key is here");
    let third = right(&mut lab, 1).expect("a spare");
    assert!(counts(&mut lab, &third));
    // With a tag in the same change, too.
    let change = Change { added_tags: tags(&["db"]), spare: Some(false), ..Change::default() };
    lab.controller.change(lab.now, "alice", &id(1).to_string(), &change).expect("a member");
    let change = Change { name: Some(name("other")), spare: Some(true), ..Change::default() };
    lab.controller.change(lab.now, "alice", &id(1).to_string(), &change).expect("a member");
    let fourth = right(&mut lab, 1).expect("a spare");
    assert!(counts(&mut lab, &fourth));
    // By another network key.
    lab.pass(HOUR);
    let next = lab.controller.draw_next_key(&mut lab.rng, None).expect("the key is here");
    let end = lab.now.plus(DAY);
    lab.controller.rekey(lab.now, &mut lab.rng, "alice", &next, end, false).expect("one more");
    assert_eq!(right(&mut lab, 1), None);
    lab.controller.delegate(lab.now).expect("the key is here");
    let fifth = right(&mut lab, 1).expect("a spare");
    let keys = lab.controller.network_keys();
    assert_eq!(keys.signer_of(fifth.delegation(), lab.controller.network()).as_ref(), Ok(keys.last()));
}

#[test]
fn a_right_survives_a_restart_and_a_backup() {
    let (folder, path) = place();
    let given = {
        let mut lab = Lab::at(&path);
        let token = lab.open_invite();
        lab.join(1, Some(&token));
        set(&mut lab, 1, true).expect("the key is here");
        lab.controller.backup(&folder.path().join("store/copy.db")).expect("room");
        right(&mut lab, 1).expect("a spare")
    };
    for path in [path, folder.path().join("store/copy.db")] {
        let mut lab = Lab::open(&path, 2);
        let members = lab.controller.members().expect("readable");
        let member = members.iter().find(|member| member.grant.node == id(1)).expect("a member");
        assert_eq!(member.spare.as_ref(), Some(given.delegation()));
    }
}

#[test]
fn few_lasting_members_can_be_spares_and_the_controller_is_none() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    let count = Controller::MAX_SPARES as u32;
    for node in 1..=count + 1 {
        lab.join(node, Some(&token));
    }
    for node in 1..=count {
        set(&mut lab, node, true).expect("a member");
    }
    assert_eq!(set(&mut lab, count + 1, true), Err(ChangeError::TooManySpares));
    set(&mut lab, 1, false).expect("a member");
    set(&mut lab, count + 1, true).expect("there is room");
    let own = lab
        .controller
        .members()
        .expect("readable")
        .into_iter()
        .find(|one| one.admitted_by.as_ref() == "create");
    let own = own.expect("the controller").grant.node.to_string();
    let change = Change { spare: Some(true), ..Change::default() };
    assert_eq!(lab.controller.change(lab.now, "alice", &own, &change).err(), Some(ChangeError::OwnNode));
    let ephemeral = lab.invite(&InviteOptions {
        approval: Approval { is_ephemeral: true, ..Approval::default() },
        ..InviteOptions::default()
    });
    lab.join(50, Some(&ephemeral));
    set(&mut lab, 2, false).expect("a member");
    assert!(matches!(set(&mut lab, 50, true), Err(ChangeError::EphemeralSpare(_))));
}

#[test]
fn a_network_whose_key_is_on_paper_has_no_spares() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    let words = lab.words.clone();
    lab.controller.recover(lab.now, &mut lab.rng, "alice", &words, None, true).expect("the right words");
    assert_eq!(set(&mut lab, 1, true), Err(ChangeError::KeyElsewhere));
}

/// A spare has renewed the other member meanwhile, of which the controller knows nothing.
#[test]
fn members_are_found_after_a_controller_was_away_for_longer_than_certificates_last() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    for node in 1..=3 {
        lab.join(node, Some(&token));
    }
    let find = |lab: &mut Lab| lab.ask_from(1, &source_of(1), Question::FindName(name("machine-2")));
    lab.pass(3 * DAY);
    lab.join(1, None);
    assert_eq!(find(&mut lab), Answer::Absent, "without spares it cannot be there");
    set(&mut lab, 3, true).expect("the key is here");
    let Answer::Found { credentials, .. } = find(&mut lab) else { panic!("it may be there") };
    assert_eq!(lab.refusal(&credentials, 2), None);
    lab.revoke(2);
    assert_eq!(find(&mut lab), Answer::Absent);
    assert!(matches!(lab.ask_from(2, &source_of(2), certify(2, None)), Answer::Denied { .. }));
}

#[test]
fn a_removal_is_published_for_as_long_as_a_spare_may_not_hear_of_it() {
    for has_spare in [false, true] {
        let mut lab = Lab::new();
        let token = lab.open_invite();
        for node in 1..=2 {
            lab.join(node, Some(&token));
        }
        if has_spare {
            set(&mut lab, 1, true).expect("the key is here");
        }
        lab.revoke(2);
        let until = |lab: &mut Lab| {
            let set = lab.head_set();
            let entry = set.iter().find(|(node, _)| *node == id(2)).expect("a removal");
            entry.1.until.since(NOW)
        };
        assert_eq!(until(&mut lab) > 89 * DAY, has_spare);
        // Its address rests for as long.
        let resting: i64 = {
            let sql = "SELECT until FROM addresses WHERE until IS NOT NULL";
            lab.controller.store.db().query_row(sql, [], |row| row.get(0)).expect("an address")
        };
        assert_eq!(resting as u64 > NOW.plus(89 * DAY).as_millis(), has_spare);
    }
}

#[test]
fn a_spare_that_was_removed_is_none_when_it_is_a_member_again() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    set(&mut lab, 1, true).expect("the key is here");
    lab.revoke(1);
    let (node, approval) = (id(1).to_string(), Approval::default());
    lab.controller.approve(lab.now, &mut lab.rng, "alice", &node, &approval).expect("removed");
    lab.controller.delegate(lab.now).expect("the key is here");
    assert_eq!(right(&mut lab, 1), None);
}

#[test]
fn an_ephemeral_member_that_is_gone_is_not_found() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    set(&mut lab, 1, true).expect("the key is here");
    let ephemeral = lab.invite(&InviteOptions::from(Approval { is_ephemeral: true, ..Approval::default() }));
    lab.join(2, Some(&ephemeral));
    let find = |lab: &mut Lab| lab.ask_from(1, &source_of(1), Question::FindName(name("machine-2")));
    assert!(matches!(find(&mut lab), Answer::Found { .. }));
    lab.pass(HOUR);
    assert_eq!(find(&mut lab), Answer::Absent);
}
