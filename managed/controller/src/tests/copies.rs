//! Copied state directories: the runs that are taken for copies, the one of two that is kept, and members
//! that are held.

use super::*;
use crate::{Approval, CLONE_WINDOW, OnClone, Standing};

const HOME: &str = "198.51.100.1";
const AWAY: &str = "203.0.113.1";

/// Number of seconds between two looks at the sessions, as the caller of the controller has them.
const LOOK: u64 = 5;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Returns a network with these copies of members, and machine 1 in it, at home in its fifth run.
fn lab(on_clone: OnClone) -> Lab {
    let mut lab = Lab::with(Settings { on_clone, ..Settings::default() });
    with_member(&mut lab);
    lab
}

/// Returns the same with a store in a file, and a network that refuses both copies.
fn lab_at(path: &Path) -> Lab {
    let mut lab = Lab::at(path);
    let settings = Settings { on_clone: OnClone::RefuseBoth, ..lab.controller.settings() };
    lab.controller.set_settings(lab.now, "alice", &settings).expect("valid");
    with_member(&mut lab);
    lab
}

fn with_member(lab: &mut Lab) {
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    assert_eq!(ask(lab, HOME, 20, 5), None);
    lab.pass(MINUTE);
}

fn ask(lab: &mut Lab, source: &str, run: u64, starts: u64) -> Option<Denial> {
    denial(&lab.ask_from(1, source, run_of(1, run, starts)))
}

/// Returns the number of members of which two runs were seen, after what was noted is written.
fn accused(lab: &mut Lab) -> usize {
    lab.controller.flush(lab.now).expect("writable");
    lab.controller.second_runs().expect("readable").len()
}

fn note_both(lab: &mut Lab, [one, other]: [&str; 2]) {
    lab.controller.note_both(lab.now, &id(1), [ip(one), ip(other)]);
}

/// Lets time pass in which a session with the member is seen at an address.
fn pass_with_session(lab: &mut Lab, source: &str, time: Duration) {
    for _ in 0..time.as_secs() / LOOK {
        lab.pass(Duration::from_secs(LOOK));
        lab.controller.note_heard(lab.now, &id(1), ip(source));
    }
}

/// A snapshot of a virtual machine, or a kill before the count of the run was written. The earlier run is
/// gone, and the new one has the same address, so its session must not count as a sign of the earlier one.
#[test]
fn a_machine_that_was_set_back_is_no_copy_and_gets_certificates_soon() {
    for (source, starts) in [(HOME, 5), (HOME, 2), (AWAY, 5)] {
        let mut lab = lab(OnClone::RefuseBoth);
        pass_with_session(&mut lab, HOME, MINUTE);
        assert_eq!(ask(&mut lab, source, 30, starts), Some(Denial::Cloned), "the earlier one may be there");
        pass_with_session(&mut lab, source, CLONE_WINDOW);
        assert_eq!(ask(&mut lab, source, 30, starts), None);
        // It restarts, and goes on.
        for run in 31..40 {
            pass_with_session(&mut lab, source, MINUTE);
            assert_eq!(ask(&mut lab, source, run, starts + run - 30), None);
        }
        assert_eq!(accused(&mut lab), 0);
    }
}

#[test]
fn who_restarts_moves_or_has_another_clock_is_no_copy() {
    let mut lab = lab(OnClone::RefuseBoth);
    for run in 0..20_u8 {
        // Killed and started again at once, at another address.
        let source = format!("192.0.2.{run}");
        assert_eq!(ask(&mut lab, &source, 100 + u64::from(run), 6 + u64::from(run)), None);
        // The same run at another address, then as before.
        assert_eq!(ask(&mut lab, AWAY, 100 + u64::from(run), 6 + u64::from(run)), None);
        pass_with_session(&mut lab, AWAY, 10 * MINUTE);
        assert_eq!(ask(&mut lab, &source, 100 + u64::from(run), 6 + u64::from(run)), None);
    }
    let now = lab.now;
    for leap in [DAY, Duration::ZERO, HOUR] {
        lab.now = now.plus(leap);
        pass_with_session(&mut lab, AWAY, MINUTE);
        assert_eq!(ask(&mut lab, AWAY, 119, 25), None);
    }
    // After a clock that was ahead, the controller's time runs at half speed.
    lab.now = now;
    lab.controller.head(lab.now);
    lab.pass(2 * CLONE_WINDOW);
    assert_eq!(ask(&mut lab, HOME, 300, 3), None);
    assert_eq!(accused(&mut lab), 0);
}

#[test]
fn many_machines_do_not_accuse_each_other() {
    let mut lab = lab(OnClone::RefuseBoth);
    let token = lab.open_invite();
    for machine in 2..52 {
        lab.join(machine, Some(&token));
    }
    for _ in 0..3 {
        lab.pass(MINUTE);
        for machine in 2..52 {
            // All of them have the same description, number of runs and address.
            let answer = lab.ask_from(machine, HOME, run_of(machine, u64::from(machine), 2));
            assert_eq!(denial(&answer), None);
        }
    }
    assert_eq!(accused(&mut lab), 0);
}

#[test]
fn requests_of_both_in_turn_are_a_copy() {
    let mut lab = lab(OnClone::KeepOlder);
    assert_eq!(ask(&mut lab, AWAY, 30, 5), Some(Denial::Cloned));
    assert_eq!(ask(&mut lab, AWAY, 30, 5), Some(Denial::Cloned));
    assert_eq!(accused(&mut lab), 0, "the first run may be gone");
    assert_eq!(ask(&mut lab, HOME, 20, 5), None);
    assert_eq!(accused(&mut lab), 0, "the state of the memory may have been set back");
    assert_eq!(ask(&mut lab, AWAY, 30, 5), Some(Denial::Cloned));
    assert_eq!(accused(&mut lab), 1);
}

/// A directory that is copied while its machine runs has a larger count at its next start.
#[test]
fn the_older_of_two_is_kept_also_if_the_copy_counts_further() {
    for (renews_first, relay) in [(false, None), (true, None), (true, Some("192.0.2.99"))] {
        let mut lab = lab(OnClone::KeepOlder);
        if renews_first {
            assert_eq!(ask(&mut lab, AWAY, 30, 6), None, "it looks like a restart");
            lab.pass(MINUTE);
        }
        // The first path of a session is often a root's.
        relay.into_iter().for_each(|relay| note_both(&mut lab, [AWAY, relay]));
        note_both(&mut lab, [AWAY, HOME]);
        assert_eq!(accused(&mut lab), 1);
        let told = lab.controller.second_runs().expect("readable")[&id(1)];
        let (kept, other) = relay.map_or((HOME, AWAY), |relay| (AWAY, relay));
        assert_eq!((told.kept, told.refused), (Some(ip(kept)), ip(other)), "as of the first notice");
        for _ in 0..20 {
            pass_with_session(&mut lab, HOME, MINUTE);
            note_both(&mut lab, [HOME, AWAY]);
            assert_eq!(ask(&mut lab, AWAY, 30, 6), Some(Denial::Cloned));
            assert_eq!(ask(&mut lab, HOME, 20, 5), None);
        }
        // The older one restarts, which gives it the same count as the copy.
        assert_eq!(ask(&mut lab, HOME, 21, 6), None);
        assert_eq!(ask(&mut lab, AWAY, 30, 6), Some(Denial::Cloned));
        // It is switched off, and the copy takes over.
        lab.pass(CLONE_WINDOW);
        assert_eq!(ask(&mut lab, AWAY, 30, 6), None);
    }
}

#[test]
fn two_at_one_address_are_told_apart_by_their_sessions() {
    let mut lab = lab(OnClone::KeepOlder);
    for _ in 0..20 {
        note_both(&mut lab, [HOME, HOME]);
        pass_with_session(&mut lab, HOME, MINUTE);
        assert_eq!(ask(&mut lab, HOME, 30, 5), Some(Denial::Cloned));
    }
    assert_eq!(ask(&mut lab, HOME, 20, 5), None);
    let told = lab.controller.second_runs().expect("readable");
    assert!(told.is_empty() && accused(&mut lab) == 1);
}

#[test]
fn both_are_refused_until_a_person_decides_also_after_a_restart_of_the_controller() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store/controller.db");
    let mut lab = lab_at(&path);
    let early = lab.open_invite();
    lab.pass(MINUTE);
    note_both(&mut lab, [AWAY, HOME]);
    let both_are_refused = |lab: &mut Lab| {
        for (source, run, starts) in [(HOME, 20, 5), (AWAY, 30, 6), (AWAY, 31, 7)] {
            assert_eq!(ask(lab, source, run, starts), Some(Denial::Cloned));
        }
        // An invite from before is no decision about the copies.
        assert_ne!(denial(&lab.ask(1, Some(&early))), None);
    };
    both_are_refused(&mut lab);
    assert_eq!(accused(&mut lab), 1);
    both_are_refused(&mut lab);
    assert_eq!(denial(&lab.ask(1, Some(&early))), Some(Denial::Cloned));
    // The certificates until then count: no other member has to hear of it.
    assert_eq!(lab.head_set().len(), 0);
    drop(lab.controller);
    let mut lab = Lab { now: lab.now.plus(HOUR), ..Lab::open(&path, 2) };
    lab.controller.start(lab.now, Duration::ZERO).expect("a good store");
    both_are_refused(&mut lab);
    let held = lab.controller.find(&id(1).to_string()).expect("known");
    assert_eq!(held.standing, Standing::Held);
    assert_ne!(held.copied, UnixTime::default());
    assert_eq!(lab.controller.status(lab.now).expect("readable").held, 1);
    // With the other setting, too: what was decided about a member stays.
    let settings = lab.controller.settings();
    lab.controller.set_settings(lab.now, "alice", &Settings::default()).expect("valid");
    both_are_refused(&mut lab);
    lab.controller.set_settings(lab.now, "alice", &settings).expect("valid");

    // The copy is switched off, and a person approves the other one. Sessions show both for some seconds
    // more.
    let approval = Approval::default();
    let subject = id(1).to_string();
    lab.controller.approve(lab.now, &mut lab.rng, "alice", &subject, &approval).expect("held");
    lab.pass(Duration::from_secs(20));
    note_both(&mut lab, [AWAY, HOME]);
    assert_eq!(ask(&mut lab, HOME, 20, 5), None);
    lab.pass(HOUR);
    assert_eq!(ask(&mut lab, HOME, 20, 5), None);
    // If both go on, the member is held again.
    note_both(&mut lab, [AWAY, HOME]);
    both_are_refused(&mut lab);
    lab.controller.flush(lab.now).expect("writable");

    // A new key takes over what the member has; the old one is removed.
    let replaces = lab.controller.find(&subject).expect("known").grant.node;
    let options = InviteOptions::from(Approval { replaces: Some(replaces), ..Approval::default() });
    let token = lab.controller.invite(lab.now, &mut lab.rng, "alice", &options).expect("valid");
    let name = lab.join(2, Some(&token)).certificate().grant().name.clone();
    assert_eq!(name, lab.controller.find(&subject).expect("known").grant.name);
    assert_eq!(ask(&mut lab, AWAY, 30, 6), Some(Denial::Removed));
    assert_eq!(ask(&mut lab, HOME, 20, 5), Some(Denial::Removed));
}

/// A later invite admits the machine again, as after a removal.
#[test]
fn a_held_member_can_be_removed_or_invited_again() {
    let mut lab = lab(OnClone::RefuseBoth);
    note_both(&mut lab, [AWAY, HOME]);
    lab.controller.flush(lab.now).expect("writable");
    lab.pass(MINUTE);
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    lab.pass(MINUTE);
    note_both(&mut lab, [AWAY, HOME]);
    lab.controller.flush(lab.now).expect("writable");
    lab.revoke(1);
    assert_eq!(ask(&mut lab, HOME, 20, 5), Some(Denial::Removed));
}

/// A removal by another controller ends the certificates of a member that is held, too.
#[test]
fn a_removal_by_another_controller_reaches_a_held_member() {
    let mut lab = lab(OnClone::RefuseBoth);
    lab.pass(HOUR);
    assert_eq!(ask(&mut lab, HOME, 20, 5), None);
    let serial = lab.controller.find(&id(1).to_string()).expect("known").serial;
    note_both(&mut lab, [AWAY, HOME]);
    lab.controller.flush(lab.now).expect("writable");
    // It was removed before the last renewal, of which the other controller did not know.
    let removed = lab.now.minus(2 * MINUTE);
    let removal = lab.other_issuer(99).head(1, lab.now, [(id(1), removed, lab.now.plus(DAY))]);
    assert_eq!(lab.note(&removal), Ok(true));
    assert!(lab.head_set().covers(&id(1), serial));
    assert_eq!(ask(&mut lab, HOME, 20, 5), Some(Denial::Removed));
}

/// Another process changes the member before the notice of the copies is written.
#[test]
fn a_change_by_another_process_takes_no_notice_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store/controller.db");
    let mut lab = lab_at(&path);
    lab.controller.flush(lab.now).expect("writable");
    let mut command = Lab { now: lab.now, ..Lab::open(&path, 2) };
    note_both(&mut lab, [AWAY, HOME]);
    let change = crate::Change { tags: Some(tags(&["db"])), ..crate::Change::default() };
    command.controller.change(command.now, "bob", &id(1).to_string(), &change).expect("a member");
    assert_eq!(ask(&mut lab, HOME, 20, 5), Some(Denial::Cloned));
    lab.controller.flush(lab.now).expect("writable");
    assert_eq!(dump(&lab.controller), dump(&command.controller));
    assert_eq!(lab.controller.find(&id(1).to_string()).expect("known").standing, Standing::Held);

    // A removal that comes first stays one.
    with_second(&mut lab);
    note_both_of(&mut lab, 2);
    command.controller.revoke(command.now, "bob", &[&id(2).to_string()], true).expect("a member");
    lab.controller.flush(lab.now).expect("writable");
    assert_eq!(lab.controller.find(&id(2).to_string()).expect("known").standing, Standing::Removed);
    assert_eq!(denial(&lab.ask(2, None)), Some(Denial::Removed));
}

fn with_second(lab: &mut Lab) {
    let token = lab.open_invite();
    lab.join(2, Some(&token));
    lab.controller.flush(lab.now).expect("writable");
    lab.pass(MINUTE);
}

fn note_both_of(lab: &mut Lab, machine: u32) {
    lab.controller.note_both(lab.now, &id(machine), [ip(AWAY), ip(HOME)]);
}

/// A controller holds no node that it does not know as a member, and never itself.
#[test]
fn strangers_and_the_controllers_own_node_are_not_held() {
    let mut lab = lab(OnClone::RefuseBoth);
    note_both_of(&mut lab, 7);
    assert_eq!(accused(&mut lab), 0);
    let own = *Identity::from_seed(&SEED).public();
    lab.controller.note_both(lab.now, &own.node_id(), [ip(AWAY), ip(HOME)]);
    lab.controller.flush(lab.now).expect("writable");
    assert!(lab.controller.credentials(lab.now).is_some());
    assert_eq!(lab.controller.status(lab.now).expect("readable").held, 0);
}
