use super::*;
use crate::{Additions, Approval, ChangeError, Decision, Standing};

/// Returns a network after a copy of its store was made, with member 1 removed, member 2 with other tags and
/// member 5 admitted since; and the copy.
fn restored(folder: &Path) -> (Lab, Lab) {
    let (lab, old, _) = restored_with_invite(folder);
    (lab, old)
}

/// Does the same with a snapshot of the machine's disk, which has no mark of a backup.
fn set_back(folder: &Path) -> (Lab, Lab) {
    let (lab, old) = restored(folder);
    old.controller.store.db().pragma_update(None, "application_id", 0).expect("writable");
    (lab, old)
}

/// Returns a network and a backup as [`restored`] does, and the invite by which all have joined, which the
/// copy knows.
fn restored_with_invite(folder: &Path) -> (Lab, Lab, Token) {
    let (path, copy) = (folder.join("store/controller.db"), folder.join("store/copy.db"));
    let mut lab = Lab::at(&path);
    let token = lab.open_invite();
    (1..=3).for_each(|node| drop(lab.join(node, Some(&token))));
    lab.controller.flush(lab.now).expect("writable");
    lab.controller.backup(&copy).expect("a new file");
    lab.pass(HOUR);
    lab.join(5, Some(&token));
    lab.revoke(1);
    let change = crate::Change { tags: Some(tags(&["db"])), ..Default::default() };
    lab.controller.change(lab.now, "alice", "machine-2", &change).expect("a member");
    let mut old = Lab::open(&copy, 5);
    old.now = lab.now.plus(MINUTE);
    (lab, old, token)
}

#[test]
fn who_reads_a_store_or_a_backup_finds_names_and_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let (lab, _old, token) = restored_with_invite(folder.path());
    let words = lab.words.to_string();
    drop(lab);
    let files = std::fs::read_dir(folder.path().join("store")).expect("it is there");
    let files: Vec<_> =
        files.map(|file| std::fs::read(file.expect("a file").path()).expect("readable")).collect();
    let holds =
        |text: &[u8]| files.iter().filter(|file| file.windows(text.len()).any(|part| part == text)).count();
    assert!(holds(b"machine-2") >= 2, "the store and its copy");
    for secret in [&SEED[..], token.as_bytes(), words.as_bytes()] {
        assert_eq!(holds(secret), 0);
    }
}

#[test]
fn an_old_copy_issues_nothing_until_it_has_heard_a_head() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lab, mut old) = restored(folder.path());
    old.controller.start(old.now, HOUR).expect("a good file");
    assert!(old.controller.status(old.now).expect("readable").unsettled_until.is_some());
    let token = old.open_invite();
    for (node, token) in [(1, None), (3, None), (4, Some(&token)), (4, None)] {
        assert_eq!(denial(&old.ask(node, token)), Some(Denial::Unavailable), "{node}");
    }
    let (head, set) = lab.controller.head(lab.now);
    assert_eq!(old.controller.note_head(old.now, &head, &set.to_bytes()), Ok(true));
    assert!(old.controller.head(old.now).0.epoch() > head.epoch(), "the epoch jumps");
    assert_eq!(denial(&old.ask(3, None)), Some(Denial::Unavailable), "others may know more");
    old.pass(Duration::from_secs(5));
    old.join(3, None);
    // The removed member, and the one with other tags, wait for a person: the set does not tell them apart.
    assert_eq!(denial(&old.ask(1, None)), Some(Denial::Removed));
    assert_eq!(denial(&old.ask(2, None)), Some(Denial::Removed));
    assert_eq!(old.controller.find("machine-2").expect("a row").standing, Standing::Held);
    assert_eq!(old.controller.status(old.now).expect("readable").held, 2);
    let key = id(2).to_string();
    old.controller.approve(old.now, &mut old.rng, "alice", &key, &Approval::default()).expect("held");
    let grant = old.join(2, None).certificate().grant().clone();
    assert_eq!((grant.name, grant.ipv4), (name("machine-2"), Some([10, 7, 0, 3].into())));
    // Member 5, which the copy does not know, has 10.7.0.5; no other one gets it before its certificate ends.
    let lost = lab.join(5, None);
    let new = old.join(4, Some(&token));
    assert_eq!(new.certificate().grant().ipv4, None);
    old.now = lost.certificate().end().plus(HOUR);
    old.flush_steadily();
    assert_eq!(old.join(4, None).certificate().grant().ipv4, Some([10, 7, 0, 5].into()));
}

#[test]
fn after_the_time_for_heads_the_store_is_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_lab, mut old) = set_back(folder.path());
    old.controller.start(old.now, MINUTE).expect("a good file");
    let refused =
        old.controller.approve(old.now, &mut old.rng, "alice", &id(1).to_string(), &Approval::default());
    assert_eq!(refused.err(), Some(ChangeError::Unsettled));
    old.pass(MINUTE);
    old.join(3, None);
}

#[test]
fn a_new_network_and_one_that_hears_its_own_head_do_not_wait() {
    let mut lab = Lab::new();
    lab.controller.start(lab.now, HOUR).expect("a good store");
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    lab.revoke(1);
    let (head, set) = lab.controller.head(lab.now);
    lab.controller.start(lab.now, HOUR).expect("a good store");
    assert_eq!(denial(&lab.ask(2, Some(&token))), Some(Denial::Unavailable));
    assert_eq!(lab.controller.note_head(lab.now, &head, &set.to_bytes()), Ok(false));
    assert_eq!(lab.controller.head(lab.now).0.epoch(), head.epoch());
    lab.pass(Duration::from_secs(5));
    lab.join(2, Some(&token));
}

#[test]
fn forged_heads_and_other_sets_are_refused() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    let before = dump(&lab.controller);
    lab.revoke(1);
    let (head, set) = lab.controller.head(lab.now);
    let mut other = Lab::new();
    let note = |lab: &mut Lab, bytes: &[u8], set: &[u8]| {
        let head = Head::parse(bytes).expect("of the right length");
        lab.controller.note_head(lab.now, &head, set)
    };
    let mut forged = head.to_bytes();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for (bytes, set) in [(forged, set.to_bytes()), (head.to_bytes(), Vec::new())] {
        assert!(matches!(note(&mut other, &bytes, &set), Err(NoteError::Refused(_))));
    }
    assert_eq!(note(&mut other, &head.to_bytes(), &set.to_bytes()), Ok(true), "the same network");
    assert!(!dump(&other.controller).is_empty() && !before.is_empty());
}

#[test]
fn a_removal_that_is_heard_after_a_renewal_from_a_snapshot_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lab, mut old) = set_back(folder.path());
    old.controller.start(old.now, Duration::from_secs(5)).expect("a good file");
    old.pass(Duration::from_secs(5));
    // No node that knows of the removal has come.
    let renewed = old.join(1, None);
    old.pass(MINUTE);
    let (head, set) = lab.controller.head(lab.now);
    assert_eq!(old.note(&(head.clone(), set.to_bytes())), Ok(true));
    assert_eq!(old.controller.find("machine-1").expect("a row").standing, Standing::Held);
    assert_eq!(old.refusal(&renewed, 1), Some(Refusal::Revoked), "what was issued in between is void");
    assert_eq!(denial(&old.ask(1, None)), Some(Denial::Removed));
    // A person who approves it again has decided later than the removal.
    old.pass(MINUTE);
    let key = id(1).to_string();
    old.controller.approve(old.now, &mut old.rng, "alice", &key, &Approval::default()).expect("held");
    let again = old.join(1, None);
    assert_eq!(old.note(&(head, set.to_bytes())), Ok(false));
    old.join(1, None);
    assert_eq!(old.refusal(&again, 1), None);
}

#[test]
fn a_restored_controller_gets_an_address_when_those_of_the_pool_are_given_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_lab, mut old) = on_another_machine(folder.path());
    old.controller.start(old.now, MINUTE).expect("a good file");
    let grant = |old: &mut Lab| {
        let credentials = old.controller.credentials(old.now).expect("a member");
        credentials.certificate().grant().clone()
    };
    assert_eq!(grant(&mut old).ipv4, None);
    let until = |old: &mut Lab| old.controller.status(old.now).expect("readable").addresses_rest_until;
    // A certificate for a day, by a clock that is 10 minutes behind.
    assert_eq!(until(&mut old), Some(old.now.plus(DAY + 10 * MINUTE)));
    old.pass(2 * DAY);
    old.controller.flush(old.now).expect("writable");
    assert_eq!(grant(&mut old).ipv4, None, "the clock may be ahead");
    old.flush_steadily();
    assert_eq!(grant(&mut old).ipv4, Some([10, 7, 0, 5].into()));
    assert_eq!(grant(&mut old).ipv4_length, 16);
    assert_eq!(until(&mut old), None);
}

#[test]
fn a_network_key_that_is_removed_is_in_no_file() {
    let (folder, path) = place();
    let mut lab = Lab::at(&path);
    let sql = "SELECT sealed FROM network";
    let sealed: Vec<u8> = lab.controller.store.db().query_row(sql, [], |row| row.get(0)).expect("a key");
    let files = || {
        let names = ["controller.db", "controller.db-wal"].map(|name| folder.path().join("store").join(name));
        names.iter().flat_map(|name| std::fs::read(name).expect("it exists")).collect::<Vec<u8>>()
    };
    let is_there = || files().windows(sealed.len()).any(|window| window == sealed);
    assert!(is_there());
    // By a command beside the running controller.
    let mut command = Lab::open(&path, 2);
    let (now, words) = (lab.now, lab.words.clone());
    command.controller.recover(now, &mut command.rng, "alice", &words, None, true).expect("the words");
    assert!(!is_there());
    assert_eq!(lab.controller.recovery_words().expect("readable").map(|_| ()), None);
    assert_eq!(lab.controller.delegate(lab.now.plus(80 * DAY)), Ok(false));
}

/// Returns the store of [`restored`] after `network restore` on another machine, with the issuer of before.
fn on_another_machine(folder: &Path) -> (Lab, Lab) {
    let (lab, mut old) = restored(folder);
    move_to_another_machine(folder, &lab, &mut old);
    (lab, old)
}

fn move_to_another_machine(folder: &Path, lab: &Lab, old: &mut Lab) {
    let store = Store::open(&folder.join("store/copy.db")).expect("it exists");
    old.controller = Controller::open(store, &[201; 32]).expect("a network");
    old.controller
        .recover(old.now, &mut old.rng, "alice", &lab.words, None, false)
        .expect("the network's words");
    old.controller.note_restored(old.now).expect("writable");
}

#[test]
fn renewals_from_a_backup_wait_for_members_and_joins_do_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lab, mut old) = on_another_machine(folder.path());
    let (head, set) = lab.controller.head(lab.now);
    let head = (head, set.to_bytes());
    old.controller.start(old.now, Duration::from_secs(5)).expect("a good file");
    old.pass(Duration::from_secs(5));
    for node in [1, 3] {
        assert_eq!(denial(&old.ask(node, None)), Some(Denial::Unavailable), "{node}");
    }
    let token = old.open_invite();
    old.join(4, Some(&token));
    old.revoke(3);
    old.pass(5 * MINUTE);
    assert_eq!(denial(&old.ask(3, None)), Some(Denial::Removed));
    assert_eq!(denial(&old.ask(1, None)), Some(Denial::Unavailable));
    old.join(4, None);
    // A member that knows of the removal comes.
    assert_eq!(old.note(&head), Ok(true));
    old.pass(Duration::from_secs(5));
    assert_eq!(denial(&old.ask(1, None)), Some(Denial::Removed));
    assert!(old.head_set().iter().any(|(node, _)| node == id(1)));
    // From then on the store is not a backup any more.
    old.controller.flush(old.now).expect("writable");
    old.controller.start(old.now, Duration::ZERO).expect("a good file");
    assert_eq!(old.controller.status(old.now).expect("readable").renewals_rest_until, None);
}

/// Another machine may have replaced the member after the backup.
#[test]
fn no_member_of_a_backup_is_replaced_before_renewals_begin() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_lab, mut old) = on_another_machine(folder.path());
    old.controller.start(old.now, Duration::from_secs(5)).expect("a good file");
    old.pass(Duration::from_secs(5));
    let options = InviteOptions {
        lifetime: DAY,
        approval: Approval { replaces: Some(id(3)), ..Approval::default() },
        ..InviteOptions::default()
    };
    let token = old.invite(&options);
    assert_eq!(denial(&old.ask(6, Some(&token))), Some(Denial::Unavailable));
    let Answer::Pending { code, .. } = old.ask(7, None) else { panic!("it waits for a person") };
    let approval = Approval { replaces: Some(id(3)), ..Approval::default() };
    let code = code.to_string();
    let refused = old.controller.approve(old.now, &mut old.rng, "alice", &code, &approval);
    assert_eq!(refused.err(), Some(ChangeError::Unsettled));
    old.pass(15 * MINUTE);
    let before = old.controller.find(&id(3).to_string()).expect("a row");
    let grant = old.join(6, Some(&token)).certificate().grant().clone();
    assert_eq!((grant.name, grant.ipv4), (before.grant.name, before.grant.ipv4));
}

#[test]
fn the_removal_of_a_lost_controller_waits_for_renewals_or_for_a_word() {
    let folder = tempfile::tempdir().expect("a folder");
    let (lab, mut old) = on_another_machine(folder.path());
    let lost = lab.controller.memory().identity.node_id().to_string();
    old.controller.start(old.now, Duration::ZERO).expect("a good file");
    let refused = old.controller.revoke(old.now, "alice", &[&lost], false);
    assert!(matches!(refused, Err(ChangeError::Restored(_))), "{refused:?}");
    // Another member's removal voids nothing else.
    old.revoke(3);
    old.pass(15 * MINUTE);
    old.controller.flush(old.now).expect("writable");
    let removed = old.controller.revoke(old.now, "alice", &[&lost], false).expect("renewals have begun");
    assert_eq!(removed.len(), 1);

    let folder = tempfile::tempdir().expect("a folder");
    let (_lab, mut old) = on_another_machine(folder.path());
    old.controller.start(old.now, Duration::ZERO).expect("a good file");
    // Its key may be stolen.
    let removed = old.controller.revoke(old.now, "alice", &[&lost], true).expect("it is confirmed");
    assert_eq!(removed.len(), 1);
}

#[test]
fn renewals_from_a_backup_wait_for_a_bounded_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lab, mut old) = on_another_machine(folder.path());
    // What this machine itself knows is no word of a member.
    let (head, set) = lab.controller.head(lab.now);
    assert_eq!(old.note(&(head, set.to_bytes())), Ok(true));
    old.controller.start(old.now, Duration::ZERO).expect("a good file");
    old.pass(14 * MINUTE);
    assert_eq!(denial(&old.ask(3, None)), Some(Denial::Unavailable));
    assert_eq!(denial(&old.ask(1, None)), Some(Denial::Removed));
    old.pass(MINUTE);
    old.join(3, None);
}

#[test]
fn an_old_invite_admits_no_machine_that_was_removed_after_the_backup() {
    for is_elsewhere in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut lab, mut old, token) = restored_with_invite(folder.path());
        // The copy knows member 1, and not 5 and 6.
        lab.join(6, Some(&token));
        (5..=6).for_each(|node| lab.revoke(node));
        if is_elsewhere {
            move_to_another_machine(folder.path(), &lab, &mut old);
        }
        let (head, set) = lab.controller.head(lab.now);
        old.controller.start(old.now, HOUR).expect("a good file");
        assert_eq!(old.note(&(head, set.to_bytes())), Ok(true));
        old.pass(Duration::from_secs(5));
        for node in [1, 2, 5, 6] {
            assert_eq!(denial(&old.ask(node, Some(&token))), Some(Denial::Removed), "{node}, {is_elsewhere}");
        }
        old.join(7, Some(&token));
        // Who makes an invite later wants the machine back, or does not know of the removal.
        let later = old.open_invite();
        [1, 5].into_iter().for_each(|node| drop(old.join(node, Some(&later))));
        // A person decides about the others.
        assert!(matches!(old.ask(6, None), Answer::Pending { .. }), "{is_elsewhere}");
        let key = id(6).to_string();
        old.controller.approve(old.now, &mut old.rng, "alice", &key, &Approval::default()).expect("it waits");
        old.join(6, Some(&token));
    }
}

#[test]
fn the_program_admits_no_machine_that_was_removed_after_the_backup() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lab, mut old, token) = restored_with_invite(folder.path());
    lab.join(6, Some(&token));
    (5..=6).for_each(|node| lab.revoke(node));
    old.controller.set_approval_program(true);
    old.controller.start(old.now, Duration::ZERO).expect("a good file");
    // The program is about to decide when a member comes that knows more.
    assert_eq!(denial(&old.ask(5, None)), Some(Denial::Unavailable));
    let asked = old.controller.take_inquiries(old.now).expect("readable");
    let [inquiry] = &asked[..] else { panic!("{asked:?}") };
    let (head, set) = lab.controller.head(lab.now);
    assert_eq!(old.note(&(head, set.to_bytes())), Ok(true));
    let decision = Some(Decision::Allow(Additions::default()));
    old.controller.decide(old.now, &mut old.rng, inquiry, decision).expect("it waits");
    for node in [5, 6] {
        assert!(matches!(old.ask(node, None), Answer::Pending { .. }), "{node}");
        assert!(!old.controller.awaits_program(old.now, &id(node)), "people see it");
    }
    assert_eq!(old.controller.take_inquiries(old.now), Ok(Vec::new()));
    let key = id(5).to_string();
    old.controller.approve(old.now, &mut old.rng, "alice", &key, &Approval::default()).expect("it waits");
    old.join(5, None);
}

#[test]
fn a_backup_that_is_put_in_its_place_by_hand_counts_as_restored_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lab, mut old) = restored(folder.path());
    let (head, set) = lab.controller.head(lab.now);
    // A command counts, too: another member may have the address that it would give.
    old.controller.note_if_backup(old.now).expect("writable");
    let approved = old.invite(&InviteOptions::default());
    let mut second = Lab::open(&folder.path().join("store/copy.db"), 6);
    second.controller.note_if_backup(old.now.plus(DAY)).expect("writable");
    let rest = old.controller.status(old.now).expect("readable").addresses_rest_until;
    assert!(rest.is_some_and(|rest| rest < old.now.plus(2 * DAY)), "it was noted once: {rest:?}");
    old.controller.start(old.now, Duration::from_secs(5)).expect("a good file");
    old.pass(Duration::from_secs(5));
    for node in [1, 3] {
        assert_eq!(denial(&old.ask(node, None)), Some(Denial::Unavailable), "{node}");
    }
    assert_eq!(old.join(6, Some(&approved)).certificate().grant().ipv4, None, "the pool rests");
    assert_eq!(old.note(&(head, set.to_bytes())), Ok(true));
    old.pass(Duration::from_secs(5));
    assert_eq!(denial(&old.ask(1, None)), Some(Denial::Removed));
    old.join(3, None);
}

#[test]
fn a_controller_that_starts_with_a_backup_notes_it_and_a_copy_of_the_store_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let (lab, mut old) = restored(folder.path());
    old.controller.start(old.now, Duration::from_secs(5)).expect("a good file");
    assert!(old.controller.status(old.now).expect("readable").renewals_rest_until.is_some());
    let moved = folder.path().join("store/moved.db");
    lab.controller.copy_to(&moved).expect("a new file");
    let mut moved = Lab::open(&moved, 7);
    moved.controller.start(lab.now, Duration::ZERO).expect("a good file");
    let status = moved.controller.status(lab.now).expect("readable");
    assert_eq!((status.renewals_rest_until, status.addresses_rest_until), (None, None));
}
