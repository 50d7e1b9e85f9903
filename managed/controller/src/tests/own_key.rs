//! Changes of the controller's own node key in place.

use peersock_overlay::membership::{NetworkKeys, Role};

use super::*;
use crate::{Approval, Holder, RecoverError, Standing, StoreError};

/// Seed of the key that follows [`SEED`].
const NEXT: [u8; 32] = [201; 32];
const LATER: [u8; 32] = [202; 32];

/// Returns a network in a file with a member 1, whose controller does not run, and the member's credentials.
fn stopped(path: &Path) -> Credentials {
    let mut lab = Lab::at(path);
    let token = lab.open_invite();
    let credentials = lab.join(1, Some(&token));
    lab.controller.flush(lab.now).expect("writable");
    credentials
}

fn node_of(seed: [u8; 32]) -> NodeId {
    Identity::from_seed(&seed).node_id()
}

/// Opens the network with the machine's identity, as each command does.
fn opened(path: &Path, seed: [u8; 32], now: UnixTime) -> Result<Lab, StoreError> {
    let controller = Controller::open(Store::open(path)?, &seed)?;
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    Ok(Lab { controller, words: RecoveryWords::draw(&mut rng), rng, now })
}

/// Opens the network, and serves it.
fn served(path: &Path, seed: [u8; 32], now: UnixTime) -> Lab {
    let mut lab = opened(path, seed, now).expect("a network");
    lab.controller.start(now, Duration::ZERO).expect("a good store");
    lab
}

fn prepare(lab: &mut Lab, seed: [u8; 32], is_now: bool) -> Result<UnixTime, RecoverError> {
    lab.controller.prepare_node_key(lab.now, &mut lab.rng, "alice", &seed, None, is_now)
}

/// Copies a store that no process has open.
fn copied(path: &Path, name: &str) -> PathBuf {
    let copy = path.with_file_name(name);
    let store = Store::open(path).expect("it exists");
    store.backup(&copy).expect("a new file");
    copy
}

fn prepared_rows(lab: &Lab) -> i64 {
    let sql = "SELECT count(*) FROM next_key";
    lab.controller.store.db().query_row(sql, [], |row| row.get(0)).expect("a number")
}

fn has_retired(lab: &mut Lab, seed: [u8; 32]) -> bool {
    lab.head_set().iter().any(|(node, _)| node == node_of(seed))
}

fn member_of(lab: &Lab, seed: [u8; 32]) -> Option<crate::Member> {
    lab.controller.find(&node_of(seed).to_string()).ok()
}

#[test]
fn the_next_key_has_all_that_the_former_one_had() {
    let (_folder, path) = place();
    let member = stopped(&path);
    let mut lab = opened(&path, SEED, NOW).expect("a network");
    let reserved: IpAddr = "10.7.0.77".parse().expect("an address");
    lab.controller.reserve(NOW, "alice", reserved, &Holder::Node(node_of(SEED))).expect("free");
    let before = lab.controller.credentials(NOW).expect("a right");
    let own = member_of(&lab, SEED).expect("a member");
    let delegation = before.delegation().clone();
    lab.now = NOW.plus(HOUR);
    let ends = prepare(&mut lab, NEXT, false).expect("the key is stored");
    assert_eq!(ends, lab.now.plus(DAY + peersock_overlay::membership::CLOCK_TOLERANCE));
    // Nothing has changed for the present key.
    assert_eq!(*lab.controller.head(lab.now).0.delegation(), delegation);
    drop(lab);

    let mut lab = served(&path, NEXT, NOW.plus(2 * HOUR));
    let after = member_of(&lab, NEXT).expect("a member");
    assert_eq!((after.standing, &after.grant.name), (Standing::Member, &own.grant.name));
    assert_eq!((after.grant.ipv4, after.grant.ipv6), (own.grant.ipv4, own.grant.ipv6));
    assert_eq!((after.grant.role, &after.grant.tags), (Role::Admin, &own.grant.tags));
    assert_eq!(lab.controller.reservations().expect("readable"), [(reserved, Holder::Node(node_of(NEXT)))]);
    assert_eq!(member_of(&lab, SEED).expect("known").standing, Standing::Removed);
    let credentials = lab.controller.credentials(lab.now).expect("a right");
    let (network, key) = (lab.controller.network(), lab.controller.key());
    let admission = credentials.authenticate(&key, network, &node_of(NEXT)).expect("signed by the network");
    assert_eq!(admission.check(lab.now, &lab.head_set()), Ok(()));
    assert!(credentials.certificate().serial() > before.certificate().serial(), "members follow name");
    assert_eq!(*credentials.delegation().issuer(), *Identity::from_seed(&NEXT).public());

    // The network's key is sealed for the next key.
    assert!(lab.controller.recovery_words().expect("readable").is_some());
    assert_eq!(prepared_rows(&lab), 0);
    let lines = lab.controller.log(0, 100).expect("readable");
    let line = lines.iter().find(|line| line.action == "rekey controller").expect("a line");
    assert_eq!((&*line.who, line.at), ("alice", NOW.plus(HOUR)));
    assert!(line.what.contains(&node_of(SEED).to_string()), "{}", line.what);

    // Members go on with what the former key has signed, and get certificates of the next one.
    assert_eq!(lab.refusal(&member, 1), None);
    assert_eq!(lab.controller.members_to_visit(), [*identity(1).public()]);
    let renewed = lab.join(1, None);
    assert_eq!(*renewed.delegation().issuer(), *Identity::from_seed(&NEXT).public());
    assert_eq!(renewed.certificate().grant(), member.certificate().grant());
    assert!(lab.controller.members_to_visit().is_empty());
    assert_eq!(lab.controller.delegate(lab.now.plus(40 * DAY)), Ok(true), "it renews the right");
}

#[test]
fn the_former_key_is_revoked_when_all_that_it_has_signed_has_ended() {
    let (_folder, path) = place();
    let mut lab = Lab::at(&path);
    // Longer than the network's certificates last.
    let options = InviteOptions::from(Approval { outlive: Some(5 * DAY), ..Approval::default() });
    let token = lab.invite(&options);
    let member = lab.join(1, Some(&token));
    lab.controller.flush(lab.now).expect("writable");
    prepare(&mut lab, NEXT, false).expect("the key is stored");
    drop(lab);
    let mut lab = served(&path, NEXT, NOW);
    lab.controller.flush(lab.now).expect("writable");
    assert!(!has_retired(&mut lab, SEED));
    lab.now = member.certificate().end();
    lab.controller.flush(lab.now).expect("writable");
    assert!(!has_retired(&mut lab, SEED), "a clock may be behind");
    drop(lab);
    // Also after a restart, and by a command nothing is done.
    let late = member.certificate().end().plus(HOUR);
    let mut command = opened(&path, NEXT, late).expect("a network");
    command.controller.flush(late).expect("writable");
    assert!(!has_retired(&mut command, SEED));
    drop(command);
    let mut lab = served(&path, NEXT, late);
    let epoch = lab.controller.head(late).0.epoch();
    lab.controller.flush(late).expect("writable");
    assert!(has_retired(&mut lab, SEED));
    assert!(lab.controller.head(late).0.epoch() > epoch);
    assert!(lab.head_set().covers(&node_of(SEED), member.delegation().serial()));
    lab.controller.flush(late.plus(MINUTE)).expect("writable");
    let lines = lab.controller.log(0, 100).expect("readable");
    assert_eq!(lines.iter().filter(|line| line.action == "retire key").count(), 1);
    // It stays revoked as long as its last delegation lasts.
    lab.now = member.delegation().end();
    lab.flush_steadily();
    assert!(has_retired(&mut lab, SEED));
}

#[test]
fn a_stolen_key_is_revoked_at_once_with_all_before_it() {
    let (_folder, path) = place();
    let member = stopped(&path);
    let mut lab = opened(&path, SEED, NOW).expect("a network");
    prepare(&mut lab, NEXT, false).expect("the key is stored");
    let mut lab = opened(&path, NEXT, NOW.plus(HOUR)).expect("a network");
    // What the former key could sign still counts.
    assert!(!has_retired(&mut lab, SEED));
    let between = lab.join(1, None);
    assert_eq!(prepare(&mut lab, LATER, true), Ok(lab.now));
    drop(lab);
    // A command takes it up as well, before any controller runs.
    let mut lab = opened(&path, LATER, NOW.plus(2 * HOUR)).expect("a network");
    for (former, credentials) in [(SEED, &member), (NEXT, &between)] {
        assert!(has_retired(&mut lab, former));
        assert_eq!(lab.refusal(credentials, 1), Some(Refusal::Revoked));
    }
    lab.controller.start(lab.now, Duration::ZERO).expect("a good store");
    let renewed = lab.join(1, None);
    assert_eq!(*renewed.delegation().issuer(), *Identity::from_seed(&LATER).public());
    // The former keys are out, and their heads count no more.
    for former in [SEED, NEXT] {
        let asked = certify(0, None);
        let peer = *Identity::from_seed(&former).public();
        let source = "192.0.2.1".parse().expect("an address");
        let answer = lab.controller.answer(lab.now, &mut lab.rng, &peer, source, asked);
        assert_eq!(denial(&answer), Some(Denial::Removed));
    }
    let thief = Identity::from_seed(&SEED);
    let set = Revocations::default();
    let delegation = member.delegation().clone();
    let head = Head::sign(&thief, delegation, lab.controller.network(), 9, lab.now, &set);
    assert_eq!(lab.note(&(head, set.to_bytes())), Err(NoteError::Refused(Refusal::Revoked)));
}

/// The store is copied after each step, and both identities of the machine go on with each copy.
#[test]
fn a_kill_at_each_step_leaves_a_controller_for_the_key_that_the_machine_has() {
    for is_now in [false, true] {
        let (_folder, path) = place();
        stopped(&path);
        let untouched = copied(&path, "untouched.db");
        let mut lab = opened(&path, SEED, NOW).expect("a network");
        prepare(&mut lab, NEXT, is_now).expect("the key is stored");
        drop(lab);
        let prepared = copied(&path, "prepared.db");
        drop(opened(&path, NEXT, NOW).expect("a network"));
        let taken = copied(&path, "taken.db");

        // Killed before the rename: the machine has the former key.
        for (step, copy) in [&untouched, &prepared].into_iter().enumerate() {
            let copy = copied(copy, &format!("before-{step}.db"));
            // A command that looks at the network in between drops nothing, because the rename may follow.
            let mut command = opened(&copy, SEED, NOW).expect("a network");
            command.join(1, None);
            assert_eq!(prepared_rows(&command), step as i64);
            drop(command);
            let mut lab = served(&copy, SEED, NOW);
            assert_eq!(prepared_rows(&lab), 0, "the start drops it");
            lab.join(1, None);
            assert!(!has_retired(&mut lab, SEED));
            // The command is run again, with another key.
            prepare(&mut lab, LATER, is_now).expect("the key is stored");
            drop(lab);
            let mut lab = served(&copy, LATER, NOW.plus(MINUTE));
            assert_eq!(has_retired(&mut lab, SEED), is_now);
            assert!(member_of(&lab, NEXT).is_none(), "the key that was lost is no member");
            lab.join(1, None);
        }
        // Killed after the rename: the machine has the next key.
        for (step, copy) in [&prepared, &taken].into_iter().enumerate() {
            let copy = copied(copy, &format!("after-{step}.db"));
            let mut lab = served(&copy, NEXT, NOW);
            assert_eq!((prepared_rows(&lab), has_retired(&mut lab, SEED)), (0, is_now));
            lab.join(1, None);
            let lines = lab.controller.log(0, 100).expect("readable");
            assert_eq!(lines.iter().filter(|line| line.action == "rekey controller").count(), 1);
        }
    }
}

#[test]
fn a_later_preparation_replaces_the_one_before_and_a_command_can_drop_it() {
    let (_folder, path) = place();
    stopped(&path);
    let mut lab = opened(&path, SEED, NOW).expect("a network");
    prepare(&mut lab, NEXT, true).expect("the key is stored");
    prepare(&mut lab, LATER, false).expect("the key is stored");
    assert_eq!(prepared_rows(&lab), 1);
    // The key of the first one was never the machine's.
    let copy = copied(&path, "copy.db");
    let mut stranger = opened(&copy, NEXT, NOW).expect("a network");
    assert!(member_of(&stranger, NEXT).is_none() && stranger.controller.credentials(NOW).is_none());
    drop(stranger);
    lab.controller.drop_prepared_key().expect("writable");
    assert_eq!(prepared_rows(&lab), 0);
    drop(lab);
    assert!(opened(&path, LATER, NOW).expect("a network").controller.credentials(NOW).is_none());
    served(&path, SEED, NOW).join(1, None);
}

#[test]
fn a_full_disk_stops_a_preparation_and_a_taking_up_until_it_has_room() {
    let fill = |lab: &Lab| {
        let db = lab.controller.store.db();
        db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA query_only = ON").expect("a setting");
    };
    let (_folder, path) = place();
    stopped(&path);
    let mut lab = opened(&path, SEED, NOW).expect("a network");
    fill(&lab);
    assert!(matches!(prepare(&mut lab, NEXT, true), Err(RecoverError::Store(_))));
    lab.controller.store.db().execute_batch("PRAGMA query_only = OFF").expect("a setting");
    assert_eq!(prepared_rows(&lab), 0);
    prepare(&mut lab, NEXT, true).expect("there is room");
    drop(lab);
    let store = Store::open(&path).expect("it exists");
    store.db().execute_batch("PRAGMA query_only = ON").expect("a setting");
    assert_eq!(Controller::open(store, &NEXT).err(), Some(StoreError::ReadOnly));
    let mut lab = served(&path, NEXT, NOW);
    assert!(has_retired(&mut lab, SEED));
    lab.join(1, None);
}

#[test]
fn a_step_that_fails_at_any_statement_changes_nothing() {
    let (_folder, path) = place();
    stopped(&path);
    let mut lab = opened(&path, SEED, NOW).expect("a network");
    let mut last = 0;
    for statement in 0..50 {
        lab.controller.store.faults.set(Some(statement));
        let done = prepare(&mut lab, NEXT, true);
        if lab.controller.store.faults.replace(None).is_some() {
            assert!(done.is_ok(), "{done:?}");
            break;
        }
        assert!(matches!(done, Err(RecoverError::Store(_))), "{statement}: {done:?}");
        assert_eq!(prepared_rows(&lab), 0, "{statement}");
        last = statement;
    }
    assert!(last > 1);
    drop(lab);
    let identity = Identity::from_seed(&NEXT);
    let rows = dump(&opened(&copied(&path, "rows.db"), SEED, NOW).expect("a network").controller);
    for statement in 0..100 {
        let copy = copied(&path, &format!("{statement}.db"));
        let store = Store::open(&copy).expect("it exists");
        store.faults.set(Some(statement));
        let done = crate::own_key::take_up(&store, &identity);
        let is_over = store.faults.replace(None).is_some();
        drop(store);
        if is_over {
            assert_eq!(done, Ok(()));
            assert!(statement > 10, "{statement}");
            return;
        }
        assert!(matches!(done, Err(StoreError::Other(_))), "{statement}: {done:?}");
        assert_eq!(dump(&opened(&copy, SEED, NOW).expect("a network").controller), rows, "{statement}");
        served(&copy, NEXT, NOW).join(1, None);
    }
    panic!("an operation without an end");
}

#[test]
fn two_networks_of_a_machine_change_their_key_together() {
    let (one, other) = (place(), place());
    [&one.1, &other.1].into_iter().for_each(|path| drop(stopped(path)));
    // The first is prepared, and the command is killed; then it is run again, with another key.
    let mut lab = opened(&one.1, SEED, NOW).expect("a network");
    prepare(&mut lab, NEXT, false).expect("the key is stored");
    for path in [&one.1, &other.1] {
        let mut lab = opened(path, SEED, NOW).expect("a network");
        prepare(&mut lab, LATER, false).expect("the key is stored");
    }
    // Killed after the rename: each network follows when it is opened next.
    for path in [&one.1, &other.1] {
        let mut lab = served(path, LATER, NOW);
        lab.join(1, None);
        assert!(member_of(&lab, LATER).expect("known").is_member());
        assert!(member_of(&lab, NEXT).is_none());
    }
}

#[test]
fn a_network_key_on_paper_is_needed_and_stays_there() {
    let (_folder, path) = place();
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let new = NewNetwork { is_offline: true, ..new_network(Settings::default()) };
    let store = Store::open(&path).expect("a new file");
    let (controller, words) = Controller::create(store, &SEED, &new, NOW, &mut rng, id_of).expect("empty");
    drop(controller);
    let mut lab = opened(&path, SEED, NOW).expect("a network");
    assert_eq!(prepare(&mut lab, NEXT, true), Err(RecoverError::Offline));
    let stranger = RecoveryWords::draw(&mut rng);
    let mut with = |lab: &mut Lab, words: &RecoveryWords| {
        lab.controller.prepare_node_key(NOW, &mut rng, "alice", &NEXT, Some(words), true)
    };
    assert_eq!(with(&mut lab, &stranger), Err(RecoverError::OtherNetwork));
    assert_eq!(prepared_rows(&lab), 0);
    with(&mut lab, &words).expect("the network's words");
    drop(lab);
    let mut lab = served(&path, NEXT, NOW);
    assert!(!lab.controller.has_key());
    let status = lab.controller.status(NOW).expect("readable");
    assert!(status.delegation_end >= NOW.plus(365 * DAY) && !status.renews_delegation);
    assert!(has_retired(&mut lab, SEED));
}

/// A prepared key has the network's key of that time, which is not to come back.
#[test]
fn other_changes_of_the_right_drop_what_was_prepared() {
    let (_folder, path) = place();
    stopped(&path);
    let mut lab = opened(&path, SEED, NOW).expect("a network");
    let words = lab.controller.recovery_words().expect("readable").expect("stored");
    prepare(&mut lab, NEXT, true).expect("the key is stored");
    lab.controller.recover(NOW, &mut lab.rng, "alice", &words, None, true).expect("the words");
    assert_eq!(prepared_rows(&lab), 0);
    assert_eq!(prepare(&mut lab, NEXT, true), Err(RecoverError::Offline));
    lab.controller.recover(NOW, &mut lab.rng, "alice", &words, None, false).expect("the words");
    prepare(&mut lab, NEXT, true).expect("the key is stored again");
    drop(lab);

    let (_folder, path) = place();
    stopped(&path);
    let mut lab = opened(&path, SEED, NOW).expect("a network");
    prepare(&mut lab, NEXT, true).expect("the key is stored");
    let next = lab.controller.draw_next_key(&mut lab.rng, None).expect("stored");
    lab.controller.rekey(NOW, &mut lab.rng, "alice", &next, NOW, false).expect("the words");
    assert_eq!(prepared_rows(&lab), 0);
    // With the network's last key, the next one shows its successions.
    prepare(&mut lab, LATER, true).expect("the key is stored");
    drop(lab);
    let mut lab = served(&path, LATER, NOW);
    assert_eq!(lab.join(1, None).successions().len(), 1);
    let (keys, network) = (lab.controller.network_keys(), lab.controller.network());
    let (head, _) = lab.controller.head(NOW);
    let signer = head.verify(&keys, network, NOW, &Revocations::default());
    assert_eq!(signer.as_ref(), Ok(keys.last()));
    assert_ne!(keys, NetworkKeys::new(*keys.first()));
}

#[test]
fn what_the_former_key_has_sealed_is_gone_from_the_file() {
    let (_folder, path) = place();
    stopped(&path);
    let mut lab = opened(&path, SEED, NOW).expect("a network");
    let sql = "SELECT sealed FROM network";
    let sealed: Vec<u8> = lab.controller.store.db().query_row(sql, [], |row| row.get(0)).expect("stored");
    prepare(&mut lab, NEXT, true).expect("the key is stored");
    drop(lab);
    drop(opened(&path, NEXT, NOW).expect("a network"));
    for suffix in ["", "-wal"] {
        let file = PathBuf::from(format!("{}{suffix}", path.display()));
        let bytes = std::fs::read(file).unwrap_or_default();
        assert!(!bytes.windows(sealed.len()).any(|part| part == sealed), "{suffix}");
    }
}

/// Thousands of removals leave no room for the former key's, which goes first.
#[test]
fn the_revocation_of_a_stolen_key_is_always_published() {
    let (_folder, path) = place();
    stopped(&path);
    let mut lab = opened(&path, SEED, NOW).expect("a network");
    let filled = lab.controller.write(|write, _| {
        write.run(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                INSERT INTO revocations (node, min_serial, until) SELECT randomblob(32), 1, ?2 FROM n",
            (Revocations::MAX_ENTRIES, i64::MAX),
        )
    });
    filled.map_err(|error: StoreError| error).expect("room");
    prepare(&mut lab, NEXT, true).expect("the key is stored");
    drop(lab);
    assert!(has_retired(&mut served(&path, NEXT, NOW), SEED));
}
