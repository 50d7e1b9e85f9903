use peersock_overlay::membership::CLOCK_TOLERANCE;

use super::*;
use crate::Approval;

/// Returns a controller that serves, and a second process on the same file.
fn two(folder: &tempfile::TempDir) -> (Lab, Lab) {
    let path = folder.path().join("store/controller.db");
    let lab = Lab::at(&path);
    (lab, Lab::open(&path, 2))
}

#[test]
fn a_command_approves_and_the_running_controller_notices() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lab, mut command) = two(&folder);
    let Answer::Pending { code, .. } = lab.ask(1, None) else { panic!("a stranger waits") };
    assert_eq!(command.controller.pending().expect("readable").len(), 1);
    let approval = Approval { tags: tags(&["db"]), ..Approval::default() };
    let code = code.to_string();
    command.controller.approve(command.now, &mut command.rng, "bob", &code, &approval).expect("it waits");
    assert_eq!(lab.join(1, None).certificate().grant().tags, tags(&["db"]));
    let token = command.open_invite();
    lab.join(2, Some(&token));
    command.revoke(2);
    assert_eq!(denial(&lab.ask(2, None)), Some(Denial::Removed));
    assert_eq!(lab.head_set(), command.head_set());
}

#[test]
fn a_certificate_that_is_signed_during_a_removal_by_another_process_is_void() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lab, mut command) = two(&folder);
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    command.revoke(1);
    // The handle for renewals looks at no store, so it signs once more, also with a later clock.
    let renewals = lab.controller.renewals();
    let source = source_of(1).parse().expect("an address");
    let later = lab.now.plus(MINUTE);
    let answer = renewals.answer(later, identity(1).public(), source, &certify(1, None));
    let Some(Answer::Certified { credentials, .. }) = answer else { panic!("not noticed yet") };
    lab.now = later;
    assert_eq!(lab.refusal(&credentials, 1), Some(Refusal::Revoked));
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Removed));
    let entry = lab.head_set().iter().next().map(|(_, entry)| entry).expect("one");
    assert!(entry.until >= credentials.certificate().end().plus(10 * MINUTE));
    command.now = later;
    assert_eq!(command.head_set(), lab.head_set());
}

#[test]
fn a_removal_after_another_change_reaches_what_was_signed_in_the_same_millisecond() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lab, mut command) = two(&folder);
    let token = lab.open_invite();
    lab.join(3, Some(&token));
    let change = crate::Change { name: Some(name("other")), ..crate::Change::default() };
    command.controller.change(command.now, "bob", &id(3).to_string(), &change).expect("a member");
    // The command does not know of this certificate, whose serial is the lowest that counts.
    let renewed = lab.join(3, None);
    command.revoke(3);
    assert_eq!(denial(&lab.ask(3, None)), Some(Denial::Removed));
    assert_eq!(lab.refusal(&renewed, 3), Some(Refusal::Revoked));
}

#[test]
fn a_removal_by_another_process_shows_how_long_the_last_certificate_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lab, mut command) = two(&folder);
    let token = lab.open_invite();
    lab.join(3, Some(&token));
    lab.controller.flush(lab.now).expect("writable");
    lab.pass(30 * MINUTE);
    let renewed = lab.join(3, None);
    command.now = lab.now;
    command.revoke(3);
    // The process that serves signs the removal, before it writes what renewals have noted.
    lab.controller.head(lab.now);
    let reopened = Lab::open(&folder.path().join("store/controller.db"), 7);
    let removed = reopened.controller.find(&id(3).to_string()).expect("it was removed just now");
    assert_eq!(removed.ends, renewed.certificate().end());
    // A member whose clock is behind accepts the certificate for longer.
    let end = removed.accepted_until();
    assert_eq!(end, renewed.certificate().end().plus(CLOCK_TOLERANCE));
    let unaware = Revocations::default();
    let behind = end.minus(CLOCK_TOLERANCE).minus(Duration::from_millis(1));
    assert_eq!(check(&lab.controller, &renewed, 3, behind, &unaware), Ok(()));
}

#[test]
fn renewals_are_answered_while_another_process_holds_the_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lab, command) = two(&folder);
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    lab.controller.store.db().busy_timeout(Duration::from_millis(1)).expect("a setting");
    command.controller.store.db().execute_batch("BEGIN IMMEDIATE").expect("nobody writes");
    lab.join(1, None);
    assert_eq!(denial(&lab.ask(2, Some(&token))), Some(Denial::Unavailable), "late, and not wrong");
    command.controller.store.db().execute_batch("ROLLBACK").expect("it has begun");
    lab.join(2, Some(&token));
}

#[test]
fn two_processes_admit_without_a_double_address_or_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lab, mut command) = two(&folder);
    let token = lab.open_invite();
    let path = folder.path().join("store/controller.db");
    drop(command.controller);
    let threads: Vec<_> = (0..2_u32)
        .map(|thread| {
            let (path, token) = (path.clone(), token.clone());
            std::thread::spawn(move || {
                let mut lab = Lab::open(&path, u64::from(thread) + 10);
                let join = |n: u32| {
                    let node = 100 * (thread + 1) + n;
                    let same = CertifyRequest { name: Some(name("same")), ..request(node, Some(&token)) };
                    // The other thread may hold the store for longer than a request waits.
                    (0..100).find_map(|_| {
                        match lab.ask_from(node, &source_of(node), Question::Certify(same.clone())) {
                            Answer::Certified { credentials, .. } => {
                                Some(credentials.certificate().grant().clone())
                            }
                            _ => None,
                        }
                    })
                };
                (0..25).map(join).collect::<Option<Vec<_>>>().expect("each gets its turn")
            })
        })
        .collect();
    let grants: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
    let names: std::collections::BTreeSet<_> = grants.iter().map(|grant| grant.name.clone()).collect();
    let addresses: std::collections::BTreeSet<_> = grants.iter().filter_map(|grant| grant.ipv4).collect();
    assert_eq!((names.len(), addresses.len()), (50, 50));
    assert_eq!(lab.controller.members().expect("readable").len(), 51);
    command = Lab::open(&path, 3);
    assert_eq!(dump(&command.controller), dump(&lab.controller));
}

/// Lets another process act while `lab` waits for the store.
fn meanwhile(lab: &Lab, folder: &tempfile::TempDir, steps: impl FnOnce(&mut Lab) + Send + 'static) {
    let mut other = Lab::open(&folder.path().join("store/controller.db"), 20);
    lab.controller.store.meanwhile.0.set(Some(Box::new(move || steps(&mut other))));
}

#[test]
fn two_changes_of_a_member_at_once_both_count() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lab, mut command) = two(&folder);
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    let node = id(1).to_string();
    let begin = crate::Change { tags: Some(tags(&["db", "old"])), ..crate::Change::default() };
    lab.controller.change(lab.now, "alice", &node, &begin).expect("a member");
    let subject = node.clone();
    meanwhile(&command, &folder, move |other| {
        let change = crate::Change {
            name: Some(name("renamed")),
            added_tags: tags(&["web"]),
            claims: Some(b"claims".to_vec()),
            outlive: Some(Some(5 * HOUR)),
            ..crate::Change::default()
        };
        other.controller.change(other.now, "bob", &subject, &change).expect("a member");
    });
    let change = crate::Change {
        added_tags: tags(&["mail", "both"]),
        removed_tags: tags(&["old", "never", "both"]),
        ..crate::Change::default()
    };
    let after = command.controller.change(command.now, "alice", &node, &change).expect("a member");
    assert_eq!(after.grant.tags, tags(&["db", "mail", "web"]));
    assert_eq!((after.grant.name.as_str(), &after.grant.claims[..]), ("renamed", &b"claims"[..]));
    assert_eq!(after.outlive, Some(5 * HOUR));
    let renewed = lab.join(1, None);
    assert_eq!(renewed.certificate().grant().tags, after.grant.tags);
}

#[test]
fn two_changes_of_the_settings_at_once_both_count() {
    let folder = tempfile::tempdir().expect("a folder");
    let (lab, mut command) = two(&folder);
    meanwhile(&command, &folder, |other| {
        let changed = other.controller.change_settings(other.now, "bob", |settings| {
            (settings.outlive, settings.ipv4) = (5 * HOUR, pool("10.8.0.0", 16));
        });
        changed.expect("valid");
    });
    let after =
        command.controller.change_settings(command.now, "alice", |settings| settings.ephemeral_ipv4 = true);
    let expected = Settings {
        outlive: 5 * HOUR,
        ipv4: pool("10.8.0.0", 16),
        ephemeral_ipv4: true,
        ..Settings::default()
    };
    assert_eq!(after, Ok(expected.clone()));
    drop(lab);
    assert_eq!(Lab::open(&folder.path().join("store/controller.db"), 3).controller.settings(), expected);
    // An address of a pool that has just ended is reserved for no member.
    meanwhile(&command, &folder, |other| {
        let changed = other.controller.change_settings(other.now, "bob", |settings| settings.ipv4 = None);
        changed.expect("valid");
    });
    let (address, holder) = ("10.8.0.9".parse().expect("an address"), crate::Holder::Name(name("beta")));
    let reserved = command.controller.reserve(command.now, "alice", address, &holder);
    assert_eq!(reserved, Err(crate::ChangeError::NotInPool(address)));
}

#[test]
fn of_two_decisions_about_a_machine_at_once_one_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lab, mut command) = two(&folder);
    let decided = |code: &str| Some(crate::ChangeError::Decided(code.to_owned()));
    let code_of = |lab: &mut Lab, node| {
        let Answer::Pending { code, .. } = lab.ask(node, None) else { panic!("a stranger waits") };
        code.to_string()
    };
    let approve = |lab: &mut Lab, code: &str| {
        lab.controller.approve(lab.now, &mut lab.rng, "alice", code, &Approval::default())
    };
    // A denial, and then an approval that was begun before.
    let (code, other_code) = (code_of(&mut lab, 1), code_of(&mut lab, 2));
    let text = code.clone();
    meanwhile(&command, &folder, move |other| {
        other.controller.deny(other.now, "bob", &text).expect("it waits");
    });
    assert_eq!(approve(&mut command, &code).err(), decided(&code));
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Declined));
    // An approval, and then a denial or another approval.
    let text = other_code.clone();
    meanwhile(&command, &folder, move |other| {
        other
            .controller
            .approve(other.now, &mut other.rng, "bob", &text, &Approval::default())
            .expect("it waits");
    });
    assert_eq!(command.controller.deny(command.now, "alice", &other_code).err(), decided(&other_code));
    lab.join(2, None);
    let code = code_of(&mut lab, 3);
    let text = code.clone();
    meanwhile(&command, &folder, move |other| {
        let approval = Approval { tags: tags(&["db"]), ..Approval::default() };
        other.controller.approve(other.now, &mut other.rng, "bob", &text, &approval).expect("it waits");
    });
    assert_eq!(approve(&mut command, &code).err(), decided(&code));
    assert_eq!(lab.join(3, None).certificate().grant().tags, tags(&["db"]));
    // A machine that was refused before can be approved.
    approve(&mut command, &id(1).to_string()).expect("a decision of its own");
    lab.join(1, None);
}
