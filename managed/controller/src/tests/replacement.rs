//! Machines with new keys, which replace members.

use peersock_overlay::membership::Role;

use super::*;
use crate::{Approval, Asked, Change, ChangeError, Holder};

/// Returns an invite that replaces a machine.
fn replacing(lab: &mut Lab, node: u32) -> Token {
    lab.invite(&InviteOptions::from(Approval { replaces: Some(id(node)), ..Approval::default() }))
}

fn change(lab: &mut Lab, node: u32, change: &Change) {
    lab.controller.change(lab.now, "alice", &id(node).to_string(), change).expect("a member");
}

/// Returns a network with a member 1, and its credentials.
fn with_member() -> (Lab, Credentials) {
    let mut lab = Lab::with(Settings {
        ipv4: pool("10.7.0.0", 24),
        ipv6: pool("fd01:2::", 64),
        ephemeral_ipv4: true,
        ..Settings::default()
    });
    let token = lab.open_invite();
    let credentials = lab.join(1, Some(&token));
    (lab, credentials)
}

/// Returns the numbers of the log's lines about replacements.
fn replacements(lab: &Lab) -> Vec<String> {
    let lines = lab.controller.log(0, 1_000).expect("readable").into_iter();
    lines
        .filter(|line| line.action == "replace")
        .map(|line| format!("{} by {}", line.what, line.who))
        .collect()
}

#[test]
fn a_machine_takes_over_all_that_the_member_has_when_it_joins() {
    let (mut lab, old) = with_member();
    let token = replacing(&mut lab, 1);
    // After the invite was made.
    let changed = Change {
        name: Some(name("beta")),
        role: Some(Role::Admin),
        tags: Some(tags(&["db"])),
        claims: Some(vec![1, 2, 3]),
        outlive: Some(Some(5 * HOUR)),
        ..Change::default()
    };
    change(&mut lab, 1, &changed);
    let reserved: IpAddr = "10.7.0.77".parse().expect("an address");
    lab.controller.reserve(lab.now, "alice", reserved, &Holder::Node(id(1))).expect("free");
    let shown = lab.controller.invites().expect("readable");
    let shown = shown.iter().find(|one| one.replaces.is_some()).expect("the invite");
    assert_eq!((shown.replaces, &shown.name), (Some(id(1)), &Some(name("beta"))));

    let before = lab.join(1, None).certificate().grant().clone();
    let new = lab.join(2, Some(&token));
    let grant = new.certificate().grant();
    assert_eq!((&grant.name, grant.role, grant.is_ephemeral), (&name("beta"), Role::Admin, false));
    assert_eq!((&grant.tags, &grant.claims), (&tags(&["db"]), &vec![1, 2, 3]));
    // A reservation says which address it gets next, as if the member had joined again.
    assert_eq!((grant.ipv4.map(IpAddr::from), grant.ipv6), (Some(reserved), before.ipv6));
    let lifetime = new.certificate().end().since(new.certificate().serial().time());
    assert_eq!(lifetime, 6 * HOUR);
    assert_eq!(lab.controller.reservations().expect("readable"), [(reserved, Holder::Node(id(2)))]);
    assert_eq!(lab.refusal(&old, 1), Some(Refusal::Revoked));
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Removed));
    let label = crate::Invite::label_of(&token);
    assert_eq!(replacements(&lab), [format!("beta {} {} by invite {label}", id(1), id(2))]);
}

#[test]
fn the_address_moves_at_once_and_has_one_holder() {
    let (mut lab, old) = with_member();
    let token = replacing(&mut lab, 1);
    let new = lab.join(2, Some(&token));
    let (before, after) = (old.certificate().grant(), new.certificate().grant());
    assert_eq!((&after.name, after.ipv4, after.ipv6), (&before.name, before.ipv4, before.ipv6));
    let address = before.ipv4.expect("a pool").into();
    assert_eq!(lab.controller.memory().addresses.get(&address), Some(&id(2)));
    assert_eq!(lab.controller.memory().names.get(&before.name), Some(&id(2)));
    // Also in a store that is opened again, and after all rests.
    lab.pass(3 * DAY);
    lab.controller.flush(lab.now).expect("writable");
    assert_eq!(lab.join(2, None).certificate().grant().ipv4, before.ipv4);
    let open = lab.open_invite();
    assert_ne!(lab.join(3, Some(&open)).certificate().grant().ipv4, before.ipv4);
}

#[test]
fn the_invite_is_used_once_and_nothing_of_it_is_left_to_the_old_key() {
    let (mut lab, _) = with_member();
    let token = replacing(&mut lab, 1);
    let first = lab.join(2, Some(&token)).certificate().grant().clone();
    // Again by the same key, as after a crash of either side.
    assert_eq!(*lab.join(2, Some(&token)).certificate().grant(), first);
    assert_eq!(denial(&lab.ask(3, Some(&token))), Some(Denial::UsedInvite));
    assert_eq!(denial(&lab.ask(1, Some(&token))), Some(Denial::Removed), "the old key shows it");
    lab.revoke(2);
    for node in [1, 2] {
        assert_eq!(denial(&lab.ask(node, Some(&token))), Some(Denial::Removed));
    }
    assert_eq!(denial(&lab.ask(3, Some(&token))), Some(Denial::UsedInvite));
    assert_eq!(replacements(&lab).len(), 1);
}

#[test]
fn of_two_keys_in_one_batch_one_gets_it() {
    let (mut lab, _) = with_member();
    let (open, tokens) = (lab.open_invite(), [replacing(&mut lab, 1), replacing(&mut lab, 1)]);
    let asked = |node: u32, token: Option<&Token>| Asked {
        peer: *identity(node).public(),
        source: source_of(node).parse().expect("an address"),
        question: certify(node, token),
    };
    // The old key renews between them.
    let batch = [
        asked(2, Some(&tokens[0])),
        asked(1, None),
        asked(3, Some(&tokens[0])),
        asked(4, Some(&tokens[1])),
        asked(2, Some(&tokens[0])),
        asked(5, Some(&open)),
        asked(5, Some(&tokens[1])),
    ];
    let answers = lab.controller.answer_all(lab.now, &mut lab.rng, &batch);
    let denials: Vec<_> = answers.iter().map(denial).collect();
    let (used, taken, known) = (Denial::UsedInvite, Denial::NameTaken, Denial::KnownKey);
    assert_eq!(denials, [None, None, Some(used), Some(taken), None, None, Some(known)]);
    let Answer::Certified { credentials, .. } = &answers[1] else { panic!("no certificate") };
    assert_eq!(lab.refusal(credentials, 1), Some(Refusal::Revoked), "what it has got is void");
    assert_eq!(lab.join(2, None).certificate().grant().name, name("machine-1"));
}

#[test]
fn a_member_that_shows_it_is_refused_and_goes_on_as_it_was() {
    let (mut lab, old) = with_member();
    let open = lab.open_invite();
    lab.join(5, Some(&open));
    let token = replacing(&mut lab, 1);
    let rows = dump(&lab.controller);
    for node in [1, 5] {
        assert_eq!(denial(&lab.ask(node, Some(&token))), Some(Denial::KnownKey));
        let question = certify(node, Some(&token));
        let source = source_of(node).parse().expect("an address");
        let renewals = lab.controller.renewals();
        assert_eq!(renewals.answer(lab.now, identity(node).public(), source, &question), None);
    }
    assert_eq!(dump(&lab.controller), rows);
    assert_eq!(lab.refusal(&old, 1), None);
    for node in [1, 5] {
        lab.join(node, None);
        lab.join(node, Some(&open));
    }
    lab.join(2, Some(&token));
    // A key that was removed before the invite was made is not the new one either.
    lab.revoke(5);
    lab.pass(MINUTE);
    let token = replacing(&mut lab, 5);
    assert_eq!(denial(&lab.ask(5, Some(&token))), Some(Denial::KnownKey));
    assert_eq!(lab.join(6, Some(&token)).certificate().grant().name, name("machine-5"));
}

#[test]
fn a_member_that_is_gone_leaves_what_nobody_has_taken() {
    let (mut lab, old) = with_member();
    change(&mut lab, 1, &Change { tags: Some(tags(&["db"])), ..Change::default() });
    let tokens: Vec<_> = (0..3).map(|_| replacing(&mut lab, 1)).collect();
    lab.revoke(1);
    lab.pass(MINUTE);
    let grant = lab.join(2, Some(&tokens[0])).certificate().grant().clone();
    let before = old.certificate().grant();
    assert_eq!((&grant.name, grant.ipv4, grant.ipv6), (&before.name, before.ipv4, before.ipv6));
    assert_eq!(grant.tags, tags(&["db"]));
    assert_eq!(lab.head_set().len(), 1, "it is removed once");
    // The name has another holder.
    let rows = dump(&lab.controller);
    assert_eq!(denial(&lab.ask(3, Some(&tokens[1]))), Some(Denial::NameTaken));
    assert_eq!(dump(&lab.controller), rows, "a refusal burns nothing");
    change(&mut lab, 2, &Change { name: Some(name("other")), ..Change::default() });
    let later = lab.join(3, Some(&tokens[1])).certificate().grant().clone();
    assert_eq!((&later.name, later.tags), (&before.name, tags(&["db"])));
    assert_ne!(later.ipv4, before.ipv4, "the address has another holder");
}

#[test]
fn a_key_that_is_replaced_is_not_replaced_again() {
    let (mut lab, _) = with_member();
    let open = lab.open_invite();
    let tokens = [replacing(&mut lab, 1), replacing(&mut lab, 1)];
    let blocked = |lab: &Lab| {
        let invites = lab.controller.invites().expect("readable").into_iter();
        let blocked = invites.filter(|one| one.is_blocked).map(|one| one.label);
        blocked.collect::<std::collections::BTreeSet<_>>()
    };
    assert!(blocked(&lab).is_empty());
    lab.join(2, Some(&tokens[0]));
    assert_eq!(blocked(&lab), tokens.iter().map(crate::Invite::label_of).collect());
    lab.ask(7, None);
    let approval = Approval { replaces: Some(id(1)), ..Approval::default() };
    let refused = |lab: &mut Lab| {
        let options = InviteOptions::from(Approval { replaces: Some(id(1)), ..Approval::default() });
        let invited = lab.controller.invite(lab.now, &mut lab.rng, "alice", &options).map(drop);
        let approved = lab.controller.approve(lab.now, &mut lab.rng, "alice", &id(7).to_string(), &approval);
        let replaced = Err(ChangeError::Replaced(name("machine-1")));
        assert_eq!((invited, approved.map(drop)), (replaced.clone(), replaced));
    };
    refused(&mut lab);
    // The result is the same after a change of the name, which leaves the earlier name to no member.
    change(&mut lab, 2, &Change { name: Some(name("other")), ..Change::default() });
    assert!(blocked(&lab).is_empty());
    refused(&mut lab);
    // One that was removed only can be replaced, until another member has its name.
    lab.join(5, Some(&open));
    lab.revoke(5);
    lab.pass(MINUTE);
    let token = replacing(&mut lab, 5);
    assert_eq!(lab.join(6, Some(&token)).certificate().grant().name, name("machine-5"));
}

#[test]
fn an_address_that_is_reserved_for_another_stays_so() {
    let (mut lab, old) = with_member();
    let token = replacing(&mut lab, 1);
    lab.revoke(1);
    let before = old.certificate().grant();
    let address = before.ipv4.expect("a pool").into();
    lab.controller.reserve(lab.now, "alice", address, &Holder::Name(name("gamma"))).expect("it rests");
    let grant = lab.join(2, Some(&token)).certificate().grant().clone();
    assert_eq!((&grant.name, grant.ipv6), (&before.name, before.ipv6));
    assert_ne!(grant.ipv4, before.ipv4);
    let gamma =
        lab.invite(&InviteOptions::from(Approval { name: Some(name("gamma")), ..Approval::default() }));
    assert_eq!(lab.join(3, Some(&gamma)).certificate().grant().ipv4, before.ipv4);
}

#[test]
fn a_member_that_is_forgotten_is_replaced_as_it_was_when_the_invite_was_made() {
    let (mut lab, _) = with_member();
    let shape = Change { tags: Some(tags(&["db"])), outlive: Some(Some(5 * HOUR)), ..Change::default() };
    change(&mut lab, 1, &shape);
    let options = InviteOptions {
        lifetime: 100 * DAY,
        approval: Approval { replaces: Some(id(1)), ..Approval::default() },
        ..InviteOptions::default()
    };
    let token = lab.invite(&options);
    lab.revoke(1);
    lab.pass(31 * DAY);
    for _ in 0..2 {
        lab.flush_steadily();
        lab.pass(HOUR);
    }
    assert_eq!(lab.controller.members().expect("readable").len(), 1);
    let new = lab.join(2, Some(&token));
    let grant = new.certificate().grant();
    assert_eq!((&grant.name, &grant.tags), (&name("machine-1"), &tags(&["db"])));
    assert_eq!(new.certificate().end().since(new.certificate().serial().time()), 6 * HOUR);
}

#[test]
fn an_ephemeral_or_held_member_is_replaced_like_others() {
    let (mut lab, _) = with_member();
    let token = lab.invite(&InviteOptions::from(Approval { is_ephemeral: true, ..Approval::default() }));
    let before = lab.join(2, Some(&token)).certificate().grant().clone();
    let token = replacing(&mut lab, 2);
    let after = lab.join(3, Some(&token)).certificate().grant().clone();
    assert!(after.is_ephemeral);
    assert_eq!((after.name, after.ipv4), (before.name, before.ipv4));
    // Another issuer has removed it.
    let other = lab.other_issuer(99);
    lab.pass(MINUTE);
    let end = lab.now.plus(DAY);
    assert_eq!(lab.note(&other.head(1, lab.now, [(id(1), lab.now, end)])), Ok(true));
    let token = replacing(&mut lab, 1);
    assert_eq!(lab.join(4, Some(&token)).certificate().grant().name, name("machine-1"));
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Removed));
}

#[test]
fn nobody_replaces_a_controller() {
    let (mut lab, _) = with_member();
    let make = |lab: &mut Lab, options: &InviteOptions| {
        lab.controller.invite(lab.now, &mut lab.rng, "alice", options).err()
    };
    let of = |node| InviteOptions::from(Approval { replaces: Some(node), ..Approval::default() });
    let own = Identity::from_seed(&SEED).node_id();
    assert_eq!(make(&mut lab, &of(own)), Some(ChangeError::OwnNode));
    assert_eq!(make(&mut lab, &of(id(77))), Some(ChangeError::NotFound(id(77).to_string())));
    let twice = InviteOptions { uses: 2, ..of(id(1)) };
    assert_eq!(make(&mut lab, &twice), Some(ChangeError::Range("the number of uses")));
    // The network key makes a member an issuer after the invite was made.
    let token = replacing(&mut lab, 1);
    let (network, issuer) = (lab.controller.network(), *identity(1).public());
    let right = crate::delegation::sign(&lab.words.secret(), network, issuer, lab.now, None, false);
    let noted = lab.controller.write(|write, _| crate::controller::note_issuer(write, &right));
    noted.expect("room");
    assert_eq!(make(&mut lab, &of(id(1))), Some(ChangeError::Issuer(name("machine-1"))));
    let rows = dump(&lab.controller);
    assert_eq!(denial(&lab.ask(2, Some(&token))), Some(Denial::Refused));
    assert_eq!(dump(&lab.controller), rows);
    lab.ask(3, None);
    let approval = Approval { replaces: Some(id(1)), ..Approval::default() };
    let key = id(3).to_string();
    let approved = lab.controller.approve(lab.now, &mut lab.rng, "alice", &key, &approval);
    assert_eq!(approved.err(), Some(ChangeError::Issuer(name("machine-1"))));
}

#[test]
fn a_small_network_with_its_only_other_admin_is_no_mass_and_keeps_the_admin() {
    let (mut lab, _) = with_member();
    change(&mut lab, 1, &Change { role: Some(Role::Admin), ..Change::default() });
    let own = Change { role: Some(Role::Member), ..Change::default() };
    lab.controller.change(lab.now, "alice", "controller", &own).expect("another one administers");
    let token = replacing(&mut lab, 1);
    assert_eq!(lab.join(2, Some(&token)).certificate().grant().role, Role::Admin);
    let revoked = lab.controller.revoke(lab.now, "alice", &[&id(2).to_string()], false);
    assert_eq!(revoked.err(), Some(ChangeError::LastAdmin));
}

#[test]
fn no_replacement_makes_more_revocations_than_members_accept() {
    let (mut lab, _) = with_member();
    let token = replacing(&mut lab, 1);
    let until = lab.now.plus(DAY).as_millis() as i64;
    let filled = lab.controller.write(|write, _| {
        for number in 0..Revocations::MAX_ENTRIES as u32 {
            let mut node = [9; 32];
            node[..4].copy_from_slice(&number.to_be_bytes());
            write.run("INSERT INTO revocations (node, min_serial, until) VALUES (?, 1, ?)", (node, until))?;
        }
        crate::controller::bump_epoch(write)
    });
    filled.expect("room");
    let rows = dump(&lab.controller);
    assert_eq!(denial(&lab.ask(2, Some(&token))), Some(Denial::Unavailable));
    assert_eq!(dump(&lab.controller), rows);
    lab.join(1, None);
    lab.pass(2 * DAY);
    lab.flush_steadily();
    let token = replacing(&mut lab, 1);
    lab.join(2, Some(&token));
}

#[test]
fn an_address_that_the_machine_had_itself_rests() {
    let (mut lab, _) = with_member();
    let open = lab.open_invite();
    let former = lab.join(2, Some(&open)).certificate().grant().ipv4;
    lab.revoke(2);
    lab.pass(MINUTE);
    let token = replacing(&mut lab, 1);
    lab.join(2, Some(&token));
    let next = lab.join(3, Some(&open)).certificate().grant().ipv4;
    assert_ne!(next, former, "members that are away may accept the removed one there");
    lab.pass(3 * DAY);
    lab.flush_steadily();
    assert_eq!(lab.join(4, Some(&open)).certificate().grant().ipv4, former);
}

#[test]
fn an_invite_that_has_ended_or_was_ended_replaces_nobody() {
    let (mut lab, old) = with_member();
    let tokens = [replacing(&mut lab, 1), replacing(&mut lab, 1)];
    lab.pass(MINUTE);
    let label = crate::Invite::label_of(&tokens[0]);
    lab.controller.end_invite(lab.now, "alice", &label).expect("it exists");
    assert_eq!(denial(&lab.ask(2, Some(&tokens[0]))), Some(Denial::ExpiredInvite));
    lab.pass(HOUR);
    assert_eq!(denial(&lab.ask(2, Some(&tokens[1]))), Some(Denial::ExpiredInvite));
    assert_eq!(lab.refusal(&old, 1), None);
}

#[test]
fn an_approval_program_hears_of_the_name_and_tags_that_the_machine_takes_over() {
    let (mut lab, _) = with_member();
    change(&mut lab, 1, &Change { tags: Some(tags(&["db"])), ..Change::default() });
    let token = replacing(&mut lab, 1);
    lab.controller.set_approval_program(true);
    lab.ask(2, Some(&token));
    let inquiry = lab.controller.take_inquiries(lab.now).expect("readable").pop().expect("a question");
    assert_eq!((&inquiry.name, &inquiry.tags), (&Some(name("machine-1")), &tags(&["db"])));
    let additions = crate::Additions { tags: tags(&["new"]), ..crate::Additions::default() };
    let decision = Some(crate::Decision::Allow(additions));
    lab.controller.decide(lab.now, &mut lab.rng, &inquiry, decision).expect("it is followed");
    let grant = lab.join(2, Some(&token)).certificate().grant().clone();
    assert_eq!((grant.name, grant.tags), (name("machine-1"), tags(&["db", "new"])));
}
