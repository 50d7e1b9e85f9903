//! Changes of the network's key.

use peersock_overlay::membership::{NetworkKeys, Succession};

use super::*;
use crate::{Approval, CreateError, RecoverError, StoreError};

impl Lab {
    /// Changes the network's key by the one in the store, and returns the new words.
    fn rekey(&mut self, end: UnixTime) -> Result<RecoveryWords, RecoverError> {
        let next = self.controller.draw_next_key(&mut self.rng, None)?;
        self.controller.rekey(self.now, &mut self.rng, "alice", &next, end, false)?;
        Ok(next.words().clone())
    }
}

fn row(controller: &Controller) -> (Option<Vec<u8>>, Vec<u8>, Vec<u8>, i64) {
    let sql = "SELECT sealed, successions, delegation, links FROM network";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    controller.store.db().query_row(sql, [], read).expect("a network")
}

fn lines(controller: &Controller, action: &str) -> usize {
    controller.log(0, 100).expect("readable").iter().filter(|line| line.action == action).count()
}

#[test]
fn a_new_key_counts_beside_the_running_controller_and_after_a_restart() {
    let (_folder, path) = place();
    let mut lab = Lab::at(&path);
    let token = lab.open_invite();
    let before = lab.join(1, Some(&token));
    let (first, network) = (lab.controller.key(), lab.controller.network());
    let epoch = lab.controller.head(lab.now).0.epoch();
    lab.pass(HOUR);
    let mut command = Lab::open(&path, 2);
    command.now = lab.now;
    let end = lab.now.plus(DAY);
    let words = command.rekey(end).expect("the key is stored");
    // Who knows the first key alone accepts what is signed from now on, which `join` checks.
    let after = lab.join(1, None);
    assert_eq!((after.key(), after.successions().len()), (&first, 1));
    assert_eq!((lab.controller.key(), lab.controller.network()), (first, network));
    let keys = lab.controller.network_keys();
    assert_eq!(*keys.last(), words.secret().public());
    let holder = id(1);
    let (known, _) = before.authenticate_by(&keys, network, &holder).expect("signed by the first key");
    assert_eq!(keys.check(known.signer(), end.minus(MINUTE)), Ok(()));
    assert_eq!(keys.check(known.signer(), end), Err(Refusal::KeyEnded));
    // Its head needs the new key, too.
    let (head, _) = lab.controller.head(lab.now);
    let none = Revocations::default();
    assert_eq!(head.verify(&NetworkKeys::new(first), network, lab.now, &none), Err(Refusal::Issuer));
    assert_eq!(head.verify(&keys, network, lab.now, &none), Ok(words.secret().public()));
    assert!(head.epoch() > epoch, "members replace the head that they have");
    assert_eq!(lines(&lab.controller, "rekey"), 1);

    // After a restart with the program off, the key in the store goes on to renew the right.
    drop((lab, command));
    let mut again = Lab::open(&path, 3);
    again.controller.start(again.now, Duration::ZERO).expect("a good store");
    again.now = end.plus(60 * DAY);
    assert_eq!(again.controller.delegate(again.now), Ok(true));
    assert_eq!(again.join(1, None).successions(), after.successions());
    let status = again.controller.status(again.now).expect("readable");
    assert!(status.renews_delegation && status.delegation_end > again.now.plus(80 * DAY));
}

#[test]
fn a_change_of_the_key_that_fails_at_any_statement_changes_nothing() {
    for statement in 0..20 {
        let mut lab = Lab::new();
        let before = row(&lab.controller);
        lab.controller.store.faults.set(Some(statement));
        let done = lab.rekey(NOW);
        if lab.controller.store.faults.replace(None).is_some() {
            assert!(done.is_ok() && statement > 3, "{statement}: {done:?}");
            assert_ne!(row(&lab.controller), before);
            return;
        }
        assert!(matches!(done, Err(RecoverError::Store(StoreError::Other(_)))), "{statement}: {done:?}");
        assert_eq!(row(&lab.controller), before, "{statement}");
        assert_eq!((lines(&lab.controller, "rekey"), lines(&lab.controller, "delegate")), (0, 0));
        lab.rekey(NOW).expect("no fault any more");
    }
    panic!("an operation without an end");
}

#[test]
fn the_words_of_a_former_key_count_for_nothing_and_the_fourth_change_is_refused() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    let mut all = vec![lab.words.clone()];
    for change in 1..=3 {
        lab.pass(DAY);
        all.push(lab.rekey(lab.now.plus(DAY)).expect("there is room"));
        assert_eq!(lab.join(1, Some(&token)).successions().len(), change);
    }
    assert_eq!(lab.rekey(lab.now).err(), Some(RecoverError::TooManyKeys));
    let recover = |lab: &mut Lab, words: &RecoveryWords| {
        lab.controller.recover(lab.now, &mut lab.rng, "alice", words, None, false)
    };
    for former in &all[..3] {
        assert_eq!(recover(&mut lab, former), Err(RecoverError::Followed));
        let drawn = lab.controller.draw_next_key(&mut lab.rng, Some(former));
        assert_eq!(drawn.err(), Some(RecoverError::Followed));
    }
    let stranger = RecoveryWords::draw(&mut lab.rng);
    assert_eq!(recover(&mut lab, &stranger), Err(RecoverError::OtherNetwork));
    recover(&mut lab, &all[3]).expect("the last ones");
    lab.join(1, None);
    // Two commands at once: the second one has drawn its key by words that are former ones now.
    let mut lab = Lab::new();
    let late = lab.controller.draw_next_key(&mut lab.rng, None).expect("stored");
    lab.rekey(NOW).expect("stored");
    let refused = lab.controller.rekey(NOW, &mut lab.rng, "bob", &late, NOW, false);
    assert_eq!(refused, Err(RecoverError::Followed));
}

#[test]
fn a_key_on_paper_is_changed_by_its_words_and_stays_on_paper() {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let new = NewNetwork { is_offline: true, ..new_network(Settings::default()) };
    let store = Store::in_memory().expect("memory");
    let (mut controller, words) =
        Controller::create(store, &SEED, &new, NOW, &mut rng, id_of).expect("empty");
    assert_eq!(controller.draw_next_key(&mut rng, None).err(), Some(RecoverError::Offline));
    let next = controller.draw_next_key(&mut rng, Some(&words)).expect("the network's words");
    controller.rekey(NOW, &mut rng, "alice", &next, NOW, true).expect("the network's words");
    assert_eq!(row(&controller).0, None);
    assert!(!format!("{next:?}").contains(' ') || !format!("{next:?}").contains(&next.words().to_string()));
    let status = controller.status(NOW).expect("readable");
    assert!(!status.renews_delegation && status.delegation_end >= NOW.plus(365 * DAY));
    controller.recover(NOW, &mut rng, "alice", next.words(), None, true).expect("the new words");
}

#[test]
fn another_controller_goes_on_until_the_end_and_renews_by_the_new_words_once_it_knows_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut one = Lab::at(&folder.path().join("store/controller.db"));
    let token = one.open_invite();
    one.join(1, Some(&token));
    let copy = folder.path().join("store/copy.db");
    one.controller.backup(&copy).expect("a new file");
    let mut two = Lab::open(&copy, 2);
    let Controller { store, .. } = two.controller;
    two.controller = Controller::open(store, &[201; 32]).expect("a network");
    let words = one.words.clone();
    two.controller.recover(NOW, &mut two.rng, "alice", &words, None, false).expect("the network's words");
    two.controller.start(NOW, Duration::ZERO).expect("a good store");
    let end = NOW.plus(2 * DAY);
    let new_words = one.rekey(end).expect("stored");

    // It does not know the new key yet.
    let recover = |two: &mut Lab, words: &RecoveryWords| {
        two.controller.recover(two.now, &mut two.rng, "bob", words, None, false)
    };
    assert_eq!(recover(&mut two, &new_words), Err(RecoverError::OtherNetwork));
    let head = |one: &mut Lab| {
        let (head, set) = one.controller.head(one.now);
        (head, set.to_bytes())
    };
    assert_eq!(two.note(&head(&mut one)), Err(NoteError::Refused(Refusal::Issuer)));
    // Its node has learned it.
    let keys = one.controller.network_keys();
    assert_eq!(two.controller.note_keys(NOW, keys.successions()), Ok(true));
    assert_eq!(two.controller.note_keys(NOW, keys.successions()), Ok(false));
    assert!(two.note(&head(&mut one)).is_ok());
    // Its right is the former key's, so it ends with that, and what is sealed cannot renew it.
    let status = two.controller.status(two.now).expect("readable");
    assert_eq!((status.delegation_end, status.renews_delegation), (end, false));
    assert_eq!(status.delegation_warning, Some(7));
    two.now = end.minus(HOUR);
    let short = two.join(1, None);
    assert!(short.successions().is_empty() && short.certificate().end() <= end);
    assert_eq!(two.controller.delegate(two.now), Ok(false));
    assert_eq!(recover(&mut two, &words), Err(RecoverError::Followed));
    two.now = end;
    assert_eq!(denial(&two.ask(1, None)), Some(Denial::Unavailable));
    recover(&mut two, &new_words).expect("the words of the last key");
    assert_eq!(two.join(1, None).successions(), keys.successions());
    assert_eq!(two.controller.delegate(two.now.plus(60 * DAY)), Ok(true));
}

#[test]
fn a_second_successor_and_unsigned_ones_are_not_learned() {
    let mut lab = Lab::new();
    let (secret, network) = (lab.words.secret(), lab.controller.network());
    lab.rekey(NOW).expect("stored");
    let before = row(&lab.controller);
    let thief = RecoveryWords::draw(&mut lab.rng).secret();
    let rival = Succession::sign(&secret, network, thief.public(), NOW);
    let forged = Succession::sign(&thief, network, thief.public(), NOW);
    for (wrong, refusal) in [(rival, Refusal::OtherSuccession), (forged, Refusal::Issuer)] {
        let noted = lab.controller.note_keys(NOW, &[wrong]);
        assert_eq!(noted, Err(NoteError::Refused(refusal)));
    }
    // A shorter chain takes nothing back.
    assert_eq!(lab.controller.note_keys(NOW, &[]), Ok(false));
    assert_eq!(row(&lab.controller), before);
    // A thief's issuer by the former key is none.
    let issuer = lab.other_issuer(99);
    let head = issuer.head(5, NOW, [(id(1), NOW, NOW.plus(DAY))]);
    assert_eq!(lab.note(&head), Err(NoteError::Refused(Refusal::KeyEnded)));
}

#[test]
fn a_network_is_made_again_by_the_words_of_the_last_key_and_its_keys() {
    let mut lab = Lab::new();
    let former = lab.words.clone();
    let words = lab.rekey(NOW).expect("stored");
    let (network, keys) = (lab.controller.network(), lab.controller.network_keys());
    let new = new_network(Settings::default());
    let mut again = |words: &RecoveryWords| {
        let store = Store::in_memory().expect("memory");
        Controller::create_again(store, &[202; 32], &new, NOW, &mut lab.rng, words, network, &keys)
    };
    assert_eq!(again(&former).err(), Some(CreateError::OtherKey));
    let mut made = again(&words).expect("the last ones");
    assert_eq!((made.network(), made.network_keys()), (network, keys.clone()));
    let own = made.credentials(NOW).expect("a delegation");
    assert_eq!(own.successions(), keys.successions());
}

#[test]
fn a_store_from_before_is_migrated_and_its_key_can_change() {
    let (_folder, path) = place();
    let mut lab = Lab::at(&path);
    let token = lab.open_invite();
    let before = lab.join(1, Some(&token));
    lab.controller.flush(NOW).expect("writable");
    let downgrade = "ALTER TABLE network DROP COLUMN successions; ALTER TABLE network DROP COLUMN links;
        ALTER TABLE tokens DROP COLUMN claims; ALTER TABLE network DROP COLUMN on_clone;
        ALTER TABLE members DROP COLUMN copied; ALTER TABLE members DROP COLUMN spare;
        ALTER TABLE network DROP COLUMN served;
        DROP TABLE next_key;
        ALTER TABLE issuers DROP COLUMN retires; ALTER TABLE issuers DROP COLUMN last_serial;
        ALTER TABLE network DROP COLUMN rekeyed; ALTER TABLE network DROP COLUMN rules_file;
        ALTER TABLE network DROP COLUMN rules; ALTER TABLE network DROP COLUMN rules_version;
        PRAGMA user_version = 4";
    lab.controller.store.db().execute_batch(downgrade).expect("nothing needs them");
    drop(lab);
    let mut lab = Lab::open(&path, 2);
    lab.pass(MINUTE);
    let (renewed, first) = (lab.join(1, None), NetworkKeys::new(*before.key()));
    assert_eq!((renewed.delegation(), lab.controller.network_keys()), (before.delegation(), first));
    lab.rekey(lab.now).expect("stored");
    assert_eq!(lab.join(1, None).successions().len(), 1);
}

#[test]
fn the_longest_certificate_says_how_long_a_former_key_is_needed() {
    let mut lab = Lab::new();
    assert_eq!(lab.controller.longest_lifetime(), DAY);
    let options = InviteOptions::from(Approval { outlive: Some(5 * DAY), ..Approval::default() });
    let token = lab.invite(&options);
    let credentials = lab.join(1, Some(&token)).certificate().clone();
    let lasts = credentials.end().since(credentials.serial().time());
    assert_eq!((lasts, lab.controller.longest_lifetime()), (5 * DAY + HOUR, 5 * DAY + HOUR));
}

#[test]
fn of_two_changes_at_once_one_counts_and_the_other_is_refused() {
    for _ in 0..20 {
        let (_folder, path) = place();
        let first = Lab::at(&path).controller.network_keys();
        let barrier = std::sync::Barrier::new(2);
        let change = |seed| {
            let mut lab = Lab::open(&path, seed);
            let next = lab.controller.draw_next_key(&mut lab.rng, None).expect("stored");
            barrier.wait();
            let changed = lab.controller.rekey(NOW, &mut lab.rng, "alice", &next, NOW, false);
            changed.map(|_| next.words().secret().public())
        };
        let done = std::thread::scope(|scope| {
            let both = [2, 3].map(|seed| scope.spawn(move || change(seed)));
            both.map(|one| one.join().expect("no panic"))
        });
        let lab = Lab::open(&path, 4);
        let keys = lab.controller.network_keys();
        let counting: Vec<_> = done.iter().flatten().collect();
        assert_eq!(
            (counting.len(), keys.successions().len()),
            (1, first.successions().len() + 1),
            "{done:?}"
        );
        assert_eq!(counting, [keys.last()]);
        let refused = done.iter().find_map(|one| one.as_ref().err()).expect("one is refused");
        assert!(matches!(refused, RecoverError::Changed | RecoverError::Followed), "{refused:?}");
    }
}

/// Changes the network's key beside another change of the right to issue certificates or of the keys, twenty
/// times. Whichever comes first, at `later` the right is that of a key that credentials show.
fn change_beside(later: UnixTime, other: impl Fn(&mut Lab, &RecoveryWords) + Sync) {
    for _ in 0..20 {
        let (_folder, path) = place();
        let former = Lab::at(&path).controller.recovery_words().expect("readable").expect("stored");
        let barrier = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut lab = Lab::open(&path, 2);
                let next = lab.controller.draw_next_key(&mut lab.rng, None).expect("stored");
                barrier.wait();
                let changed = lab.controller.rekey(NOW, &mut lab.rng, "alice", &next, NOW, false).err();
                let allowed = [None, Some(RecoverError::Changed), Some(RecoverError::Followed)];
                assert!(allowed.contains(&changed), "{changed:?}");
            });
            scope.spawn(|| {
                let mut lab = Lab::open(&path, 3);
                barrier.wait();
                other(&mut lab, &former);
            });
        });
        let mut lab = Lab::open(&path, 4);
        lab.now = later;
        let (keys, network) = (lab.controller.network_keys(), lab.controller.network());
        let links = row(&lab.controller).3 as usize;
        let signer = links.checked_sub(1).map_or(*keys.first(), |at| *keys.successions()[at].key());
        let (head, _) = lab.controller.head(lab.now);
        assert_eq!(head.verify(&keys, network, lab.now, &Revocations::default()), Ok(signer));
        assert!(lab.controller.status(lab.now).expect("readable").delegation_end > lab.now, "it has ended");
    }
}

#[test]
fn a_renewal_by_the_former_words_beside_a_change_breaks_nothing() {
    change_beside(NOW, |lab, former| {
        // Before the change it counts.
        let _ = lab.controller.recover(NOW, &mut lab.rng, "bob", former, None, false);
    });
}

#[test]
fn a_renewal_by_the_stored_key_beside_a_change_breaks_nothing() {
    let later = NOW.plus(DAY * 40);
    change_beside(later, |lab, _| {
        lab.controller.delegate(later).expect("a good store");
    });
}

#[test]
fn another_controller_s_key_beside_a_change_breaks_nothing() {
    change_beside(NOW, |lab, former| {
        let key = RecoveryWords::draw(&mut lab.rng).secret().public();
        let link = Succession::sign(&former.secret(), lab.controller.network(), key, NOW.plus(DAY));
        let _ = lab.controller.note_keys(NOW, &[link]);
    });
}

/// A log that another process reads may keep the key, and all else is done.
#[test]
fn a_key_that_stays_in_the_log_is_told() {
    let (_folder, path) = place();
    let mut lab = Lab::at(&path);
    let words = lab.words.clone();
    let reader = rusqlite::Connection::open(&path).expect("a store");
    reader.execute_batch("BEGIN; SELECT * FROM network;").expect("readable");
    let recover = |lab: &mut Lab| lab.controller.recover(NOW, &mut lab.rng, "alice", &words, None, true);
    assert_eq!(recover(&mut lab), Ok(false));
    assert!(!lab.controller.has_key());
    reader.execute_batch("COMMIT").expect("it was open");
    assert_eq!(recover(&mut lab), Ok(true));
}
