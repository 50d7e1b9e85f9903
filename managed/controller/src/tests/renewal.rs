use super::*;
use crate::{Change, ChangeError, CreateError, RecoverError, RecoveryWords};

#[test]
fn a_member_that_was_away_for_years_gets_a_certificate() {
    let mut lab = Lab::new();
    let token = lab.invite(&InviteOptions::default());
    let before = lab.join(1, Some(&token)).certificate().grant().clone();
    for years in [1, 3] {
        lab.pass(365 * DAY * years);
        // As the controller does each hour.
        assert_eq!(lab.controller.delegate(lab.now), Ok(true));
        lab.controller.flush(lab.now).expect("writable");
        assert_eq!(*lab.join(1, None).certificate().grant(), before);
    }
}

#[test]
fn renewals_write_nothing_and_one_flush_writes_all() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    (1..20).for_each(|node| drop(lab.join(node, Some(&token))));
    lab.pass(HOUR);
    lab.controller.flush(lab.now).expect("writable");
    let writes = lab.controller.store.db().total_changes();
    lab.pass(MINUTE);
    let later: Vec<_> = (1..20).map(|node| lab.join(node, None)).collect();
    assert_eq!(lab.controller.store.db().total_changes(), writes);
    lab.controller.flush(lab.now).expect("writable");
    let rows = dump(&lab.controller);
    assert!(later.iter().all(|one| rows.contains(&one.certificate().serial().to_string())));
}

#[test]
fn a_certificate_does_not_outlive_the_delegation() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    let end = lab.controller.status(lab.now).expect("readable").delegation_end;
    lab.now = end.minus(HOUR);
    let credentials = lab.join(1, None);
    assert_eq!(credentials.certificate().end(), end);
    assert_eq!(lab.controller.status(lab.now).expect("readable").delegation_warning, Some(1));
    lab.now = end;
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Unavailable));
    assert_eq!(lab.controller.status(lab.now).expect("readable").delegation_warning, Some(0));
    assert_eq!(lab.controller.delegate(lab.now), Ok(true));
    assert_eq!(lab.controller.delegate(lab.now), Ok(false));
    lab.join(1, None);
}

#[test]
fn recovery_words_renew_an_offline_networks_delegation() {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let new = NewNetwork { is_offline: true, ..new_network(Settings::default()) };
    let store = Store::in_memory().expect("memory");
    let (mut controller, words) =
        Controller::create(store, &SEED, &new, NOW, &mut rng, id_of).expect("empty");
    assert_eq!(id_of(&controller.key()), Some(controller.network()), "keys without an ID are not used");
    let status = controller.status(NOW).expect("readable");
    assert_eq!(status.delegation_end, NOW.plus(365 * DAY));
    assert!(!status.renews_delegation);
    assert_eq!(controller.delegate(NOW.plus(300 * DAY)), Ok(false), "there is no key");
    let shown = words.to_string();
    let typed: RecoveryWords = shown.parse().expect("as shown");
    let other = RecoveryWords::draw(&mut rng);
    let late = NOW.plus(400 * DAY);
    assert_eq!(
        controller.recover(late, &mut rng, "alice", &other, None, true),
        Err(RecoverError::OtherNetwork)
    );
    controller.recover(late, &mut rng, "alice", &typed, None, true).expect("the network's words");
    assert_eq!(controller.status(late).expect("readable").delegation_end, late.plus(365 * DAY));
    controller.recover(late, &mut rng, "alice", &typed, None, false).expect("the network's words");
    let status = controller.status(late).expect("readable");
    assert!(status.renews_delegation);
    assert_eq!(status.delegation_end, late.plus(90 * DAY + Duration::from_millis(1)), "its serial is later");
    // Another machine with the store, and one without it.
    let Controller { store, .. } = controller;
    let mut moved = Controller::open(store, &[201; 32]).expect("the store has no secret of the identity");
    assert_eq!(moved.credentials(late), None);
    assert_eq!(moved.delegate(late), Err(RecoverError::OtherIdentity));
    moved.recover(late, &mut rng, "alice", &typed, None, false).expect("the network's words");
    assert_eq!(moved.delegate(late.plus(31 * DAY)), Ok(true));
    let own = moved.credentials(late.plus(31 * DAY)).expect("a member again");
    assert_eq!(own.certificate().grant().role, peersock_overlay::membership::Role::Admin);
    let store = Store::in_memory().expect("memory");
    let settings = Settings { ipv4: pool("10.7.0.0", 24), ..Settings::default() };
    let new = NewNetwork { settings, ..new };
    let later = late.plus(32 * DAY);
    let (id, keys) = (moved.network(), moved.network_keys());
    let again = Controller::create_again(store, &[202; 32], &new, later, &mut rng, &typed, id, &keys);
    let mut again = again.expect("the words of the key");
    assert_eq!((again.network(), again.key()), (moved.network(), moved.key()));
    // It may issue nothing before it has heard the network's head, and gives no address that may be held.
    again.start(later, HOUR).expect("a good store");
    assert_eq!(again.status(later).expect("readable").unsettled_until, Some(later.plus(HOUR)));
    let (head, set) = moved.head(later);
    assert_eq!(again.note_head(later, &head, &set.to_bytes()), Ok(false));
    let own = again.credentials(later.plus(MINUTE)).expect("a delegation");
    assert_eq!(own.certificate().grant().ipv4, None);
}

#[test]
fn a_store_holds_one_network() {
    let lab = Lab::new();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let Controller { store, .. } = lab.controller;
    let again = Controller::create(store, &SEED, &new_network(Settings::default()), NOW, &mut rng, id_of);
    assert_eq!(again.err(), Some(CreateError::Exists));
    let store = Store::in_memory().expect("memory");
    let none = Controller::create(store, &SEED, &new_network(Settings::default()), NOW, &mut rng, |_| None);
    assert_eq!(none.err(), Some(CreateError::NoId));
}

#[test]
fn of_two_runs_of_one_identity_the_older_is_kept_while_it_is_heard() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    let (home, away) = ("198.51.100.1", "203.0.113.1");
    // A restart is none.
    assert_eq!(denial(&lab.ask_from(1, home, run_of(1, 20, 5))), None);
    // The same number again, and one that goes back.
    for starts in [5, 4] {
        lab.pass(MINUTE);
        assert_eq!(denial(&lab.ask_from(1, away, run_of(1, 30, starts))), Some(Denial::Cloned));
        assert_eq!(denial(&lab.ask_from(1, home, run_of(1, 20, 5))), None, "the older run renews");
    }
    let seen = lab.controller.status(lab.now).expect("readable").second_runs;
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].0, seen[0].1.kept), (id(1), home.parse().ok()));
    assert_eq!(seen[0].1.refused, away.parse::<IpAddr>().expect("an address"));
    // The log names both, once, for the person who watches the controller and for other processes.
    lab.controller.flush(lab.now).expect("writable");
    let told = lab.controller.second_runs().expect("readable");
    assert_eq!(told.len(), 1);
    assert_eq!(told[&id(1)].addresses(), seen[0].1.addresses());
    assert_eq!(told[&id(1)].kept, home.parse().ok());
    let lines = |lab: &Lab| {
        let lines = lab.controller.log(0, 100).expect("readable");
        lines.iter().filter_map(crate::LogLine::second_run).count()
    };
    assert_eq!(lines(&lab), 1);
    assert_eq!(denial(&lab.ask_from(1, away, run_of(1, 30, 5))), Some(Denial::Cloned));
    assert_eq!(denial(&lab.ask_from(1, "203.0.113.2", run_of(1, 40, 5))), Some(Denial::Cloned));
    lab.controller.flush(lab.now).expect("writable");
    assert_eq!(lines(&lab), 1, "another address counts an hour later");
    // Signs of life of the session count for the older one, and the copy's do not.
    lab.pass(2 * MINUTE);
    lab.controller.note_heard(lab.now, &id(1), home.parse().expect("an address"));
    lab.pass(2 * MINUTE);
    lab.controller.note_heard(lab.now, &id(1), away.parse().expect("an address"));
    assert_eq!(denial(&lab.ask_from(1, away, run_of(1, 30, 5))), Some(Denial::Cloned));
    lab.pass(MINUTE);
    assert_eq!(denial(&lab.ask_from(1, away, run_of(1, 30, 5))), None, "3 minutes of silence");
    assert_eq!(denial(&lab.ask_from(1, home, run_of(1, 20, 5))), Some(Denial::Cloned));
    assert_eq!(denial(&lab.ask_from(1, away, run_of(1, 30, 5))), None);
    assert_eq!(denial(&lab.ask_from(1, home, run_of(1, 20, 5))), Some(Denial::Cloned));
    lab.controller.flush(lab.now).expect("writable");
    assert_eq!(lines(&lab), 1, "the same two");
    lab.pass(HOUR);
    let third = "203.0.113.2";
    assert_eq!(denial(&lab.ask_from(1, third, run_of(1, 40, 5))), None);
    lab.controller.flush(lab.now).expect("writable");
    assert_eq!(lines(&lab), 1, "the others are silent, and may be gone");
    assert_eq!(denial(&lab.ask_from(1, away, run_of(1, 30, 5))), Some(Denial::Cloned));
    assert_eq!(denial(&lab.ask_from(1, third, run_of(1, 40, 5))), None);
    assert_eq!(denial(&lab.ask_from(1, away, run_of(1, 30, 5))), Some(Denial::Cloned));
    lab.controller.flush(lab.now).expect("writable");
    assert_eq!(lines(&lab), 2);
}

#[test]
fn changes_and_removals_need_a_member_an_admin_and_for_many_a_word() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    (1..=11).for_each(|node| drop(lab.join(node, Some(&token))));
    let own = Change { role: Some(peersock_overlay::membership::Role::Member), ..Change::default() };
    let refused = lab.controller.change(lab.now, "alice", "controller", &own);
    assert_eq!(refused.err(), Some(ChangeError::LastAdmin));
    let refused = lab.controller.revoke(lab.now, "alice", &["controller"], true);
    assert_eq!(refused.err(), Some(ChangeError::OwnNode));
    let four = ["machine-1", "machine-2", "machine-3", "10.7.0.5"];
    let before = dump(&lab.controller);
    let refused = lab.controller.revoke(lab.now, "alice", &four, false);
    assert_eq!(refused.err(), Some(ChangeError::Mass { count: 4, of: 12 }));
    assert!(lab.controller.revoke(lab.now, "alice", &["machine-1", "nobody"], true).is_err());
    assert_eq!(dump(&lab.controller), before);
    assert_eq!(lab.controller.revoke(lab.now, "alice", &four, true).expect("confirmed").len(), 4);
    assert_eq!(lab.controller.revoke(lab.now, "alice", &[&id(1).to_string()], true), Ok(Vec::new()), "again");
    let lines = lab.controller.log(0, 100).expect("readable");
    let count = |action: &str| lines.iter().filter(|line| line.action == action).count();
    assert_eq!((count("create"), count("invite"), count("admit"), count("revoke")), (1, 1, 12, 4));
    assert!(lines.is_sorted_by_key(|line| line.number));
    for change in ["UPDATE log SET who = ''", "DELETE FROM log"] {
        assert!(lab.controller.store.db().execute(change, []).is_err(), "{change}");
    }
}

#[test]
fn invites_of_a_removed_member_end_with_it() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    let options = InviteOptions { uses: 9, ..InviteOptions::default() };
    let mut invite = |by: &str| lab.controller.invite(lab.now, &mut lab.rng, by, &options).expect("valid");
    // A person may be called as the member is.
    let (own, namesakes) = (invite(&id(1).to_string()), invite("machine-1"));
    lab.revoke(1);
    assert_eq!(denial(&lab.ask(2, Some(&own))), Some(Denial::UnknownInvite));
    lab.join(2, Some(&namesakes));
}
