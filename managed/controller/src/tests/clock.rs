//! Clocks that were ahead and are right again, as an attacker would use them.

use peersock_overlay::membership::CLOCK_TOLERANCE;
use rand::{Rng, RngExt};

use super::*;
use crate::admission::hex;
use crate::{Approval, Change, ClockState, MAX_LEAP};

/// Time by which members accept statements that are ahead of their clocks.
const CATCH_UP: Duration = DAY;

/// A member whose clock is right, and what it has heard.
#[derive(Clone, Default)]
struct Observer {
    revoked: Revocations,
    head: Option<Head>,
}

impl Observer {
    /// Shows it a head as a session does. It drops one that is not newer than the known one.
    fn hear(&mut self, controller: &Controller, right: UnixTime, (head, set): &(Head, Revocations)) {
        if self.head.as_ref().is_some_and(|known| !head.is_newer_than(known)) {
            return;
        }
        let signed = head.time().max(head.delegation().serial().time());
        let at = right.max(signed.min(right.plus(CATCH_UP)));
        let (keys, network) = (controller.network_keys(), controller.network());
        head.verify(&keys, network, at, &self.revoked).expect("members accept the head");
        self.revoked.merge(&head.read_set(&set.to_bytes()).expect("the set of the head"));
        self.head = Some(head.clone());
    }

    fn accepts(&self, controller: &Controller, right: UnixTime, node: u32, shown: &Credentials) -> bool {
        let signed = shown.certificate().serial().time().max(shown.delegation().serial().time());
        let at = right.max(signed.min(right.plus(CATCH_UP)));
        check(controller, shown, node, at, &self.revoked).is_ok()
    }
}

/// A controller on a machine whose clock may be wrong, and members whose clocks are right.
struct World {
    path: PathBuf,
    _folder: tempfile::TempDir,
    lab: Option<Lab>,
    right: UnixTime,
    ahead: Duration,
    issued: Vec<(u32, Credentials)>,
    removed: std::collections::BTreeSet<u32>,
    /// Hears each head at once.
    observer: Observer,
    token: Token,
}

impl World {
    fn new(members: u32) -> Self {
        let (folder, path) = place();
        let mut lab = Lab::at(&path);
        lab.controller.watch_clock();
        let token = lab.open_invite();
        let issued = (1..=members).map(|node| (node, lab.join(node, Some(&token)))).collect();
        lab.controller.flush(lab.now).expect("writable");
        Self {
            path,
            _folder: folder,
            right: lab.now,
            lab: Some(lab),
            ahead: Duration::ZERO,
            issued,
            removed: Default::default(),
            observer: Observer::default(),
            token,
        }
    }

    fn clock(&self) -> UnixTime {
        self.right.plus(self.ahead)
    }

    fn lab(&mut self) -> &mut Lab {
        let clock = self.clock();
        let lab = self.lab.as_mut().expect("it serves");
        lab.now = clock;
        lab
    }

    /// Passes time, in which a controller that serves writes.
    fn pass(&mut self, time: Duration) {
        self.right = self.right.plus(time);
        if self.lab.is_some() {
            let now = self.clock();
            self.lab().controller.flush(now).expect("writable");
        }
    }

    /// Kills the controller, and starts it again with a clock. Returns the judgement of the clock: the
    /// controller serves if it is right.
    fn restart(&mut self, ahead: Duration) -> ClockState {
        self.lab = None;
        self.ahead = ahead;
        let mut lab = self.command();
        let state = lab.controller.clock(lab.now);
        if state == ClockState::Right {
            lab.controller.start(lab.now, Duration::ZERO).expect("a good store");
            self.lab = Some(lab);
            self.spread();
        }
        state
    }

    /// Returns what a command of this machine has.
    fn command(&self) -> Lab {
        let mut lab = Lab::open(&self.path, self.right.as_millis());
        lab.controller.watch_clock();
        lab.now = self.clock();
        lab
    }

    /// Lets a node ask for a certificate, which members accept.
    fn certified(&mut self, node: u32) -> Option<Credentials> {
        let token = self.token.clone();
        let lab = self.lab.as_mut()?;
        lab.now = self.right.plus(self.ahead);
        let answer = lab.ask(node, Some(&token));
        let Answer::Certified { credentials, .. } = answer else {
            eprintln!("{node}: {answer:?}");
            return None;
        };
        self.issued.push((node, (*credentials).clone()));
        self.spread();
        Some(*credentials)
    }

    fn spread(&mut self) {
        let now = self.clock();
        let Some(lab) = &mut self.lab else { return };
        let head = lab.controller.head(now);
        // Signed once, and not at each look.
        assert_eq!(lab.controller.head(now).0, head.0);
        if head.0.time() <= self.right.plus(CATCH_UP) {
            self.observer.hear(&lab.controller, self.right, &head);
        }
    }

    fn remove(&mut self, node: u32, by_command: bool) {
        let (key, mut other) = (id(node).to_string(), self.command());
        let lab = if by_command { &mut other } else { self.lab() };
        lab.controller.revoke(lab.now, "alice", &[&key], true).expect("a member");
        self.removed.insert(node);
        self.spread();
    }

    fn approve(&mut self, node: u32, by_command: bool) {
        let (key, mut other) = (id(node).to_string(), self.command());
        let lab = if by_command { &mut other } else { self.lab() };
        lab.controller.approve(lab.now, &mut lab.rng, "alice", &key, &Approval::default()).expect("known");
        self.removed.remove(&node);
        self.spread();
    }

    /// Checks that no removed member is accepted now or later, by a member that has heard all heads and by
    /// one that hears the newest only.
    fn check_removed(&self, what: &str) {
        let Some(lab) = &self.lab else { return };
        for (node, shown) in self.issued.iter().filter(|(node, _)| self.removed.contains(node)) {
            for hours in [0, 1, 2, 3, 12, 18, 24, 48, 41 * 24] {
                let at = self.right.plus(hours * HOUR);
                assert!(
                    !self.observer.accepts(&lab.controller, at, *node, shown),
                    "{what}: {node} {hours} h"
                );
            }
        }
    }

    fn check_addresses(&mut self) {
        let mut held = std::collections::BTreeMap::new();
        for member in self.command().controller.members().expect("readable") {
            for address in member.grant.addresses().filter(|_| member.is_member()) {
                assert_eq!(held.insert(address, member.grant.node), None, "two holders");
            }
        }
        // Of all certificates that count now, no two nodes share an address.
        let lab = self.lab.as_ref().expect("it serves");
        let mut counting = std::collections::BTreeMap::new();
        for (node, shown) in &self.issued {
            if self.observer.accepts(&lab.controller, self.right, *node, shown) {
                let address = shown.certificate().grant().ipv4;
                assert_eq!(*counting.entry(address).or_insert(*node), *node, "{address:?}");
            }
        }
    }
}

#[test]
fn after_two_hours_ahead_a_controller_serves_at_once_and_removals_reach_all_that_was_signed() {
    let mut world = World::new(4);
    world.remove(2, false);
    let before = world.clock();
    assert_eq!(world.restart(2 * HOUR), ClockState::Right);
    let certificate = world.certified(3).expect("a member");
    assert!(certificate.certificate().serial().time() >= before.plus(2 * HOUR));
    // The note of this one is lost.
    world.certified(4).expect("a member");
    world.certified(5).expect("it joins by a good invite");
    assert_eq!(world.restart(Duration::ZERO), ClockState::Right);
    for node in [1, 3, 4, 5, 6] {
        let renewed = world.certified(node).expect("served at once");
        assert!(world.observer.accepts(
            &world.lab.as_ref().expect("it serves").controller,
            world.right,
            node,
            &renewed
        ));
    }
    world.check_removed("2 was removed before");
    for (node, by_command) in [(3, false), (4, true), (5, false)] {
        world.remove(node, by_command);
        world.check_removed("removed since");
    }
    world.check_addresses();
    // The time is that of the clock again after twice the difference.
    world.pass(7 * HOUR);
    let renewed = world.certified(1).expect("a member");
    assert_eq!(renewed.certificate().serial().time(), world.right);
}

/// Time that passes at half speed is time that has passed, and no jump of the clock.
#[test]
fn a_clock_that_falls_back_for_a_moment_leads_the_time_nowhere() {
    for back in [10 * HOUR, 40 * DAY, 19_000 * DAY] {
        let mut world = World::new(2);
        let right = world.clock();
        let fallen = right.minus(back);
        for (passed, now) in [(1, fallen), (2, fallen), (3, right), (4, right)] {
            let now = now.plus(Duration::from_secs(passed));
            world.lab().controller.flush(now).expect("writable");
            let lab = world.lab();
            lab.now = now;
            let Answer::Certified { credentials, .. } = lab.ask(1, None) else { panic!("a member") };
            let ahead = credentials.certificate().serial().time().since(right);
            assert!(ahead <= Duration::from_secs(passed), "{back:?}: {ahead:?}");
        }
        world.right = right.plus(Duration::from_secs(5));
        assert_eq!(world.restart(Duration::ZERO), ClockState::Right, "{back:?}");
        let renewed = world.certified(1).expect("a member");
        assert_eq!(renewed.certificate().serial().time(), world.right);
    }
}

#[test]
fn a_leap_of_a_day_and_more_needs_a_word_and_signs_nothing() {
    for ahead in [19 * HOUR, 40 * DAY, 7300 * DAY] {
        let mut world = World::new(3);
        world.pass(MINUTE);
        assert_eq!(world.restart(ahead), ClockState::Leapt(ahead));
        // Commands count from the last time.
        world.remove(2, true);
        let mut command = world.command();
        let change = Change { tags: Some(tags(&["db"])), ..Change::default() };
        command.controller.change(command.now, "alice", "machine-1", &change).expect("a member");
        let right = world.right;
        assert!(command.controller.head(command.now).0.time() <= right.plus(HOUR + MINUTE));
        assert_eq!(command.controller.delegate(command.now), Ok(false));
        // One that serves all the same gives no certificates.
        let token = world.token.clone();
        command.controller.start(command.now, Duration::ZERO).expect("a good store");
        for node in [1, 9] {
            assert_eq!(denial(&command.ask(node, Some(&token))), Some(Denial::Unavailable));
        }
        command.controller.flush(command.now).expect("writable");
        drop(command);

        world.right = right.plus(5 * MINUTE);
        assert_eq!(world.restart(Duration::ZERO), ClockState::Right, "{ahead:?}");
        for node in [1, 3, 4] {
            let renewed = world.certified(node).expect("served at once");
            assert!(renewed.certificate().serial().time() <= world.right.plus(HOUR));
        }
        assert_eq!(world.certified(2), None);
        world.check_removed("removed meanwhile");
        world.check_addresses();
    }
}

#[test]
fn a_leap_while_it_serves_gives_no_certificates_until_the_clock_is_right_or_accepted() {
    let mut world = World::new(2);
    for ahead in [40 * DAY, 7300 * DAY] {
        world.ahead = ahead;
        assert_eq!(world.certified(1), None);
        let (now, peer) = (world.clock(), *identity(1).public());
        let renewals = world.lab().controller.renewals();
        let answer = renewals.answer(now, &peer, "192.0.2.1".parse().expect("an address"), &certify(1, None));
        assert_eq!(answer.as_ref().and_then(denial), Some(Denial::Unavailable));
        world.pass(MINUTE);
        assert!(matches!(world.lab().controller.clock(now), ClockState::Leapt(_)));
        assert_eq!(world.certified(1), None, "a flush confirms no clock");
        world.ahead = Duration::ZERO;
        assert!(world.certified(1).is_some());
    }
    // It was off for 40 days.
    world.right = world.right.plus(40 * DAY);
    assert_eq!(world.certified(1), None);
    world.command().controller.accept_clock(world.clock(), "alice").expect("writable");
    let renewed = world.certified(1).expect("a member");
    assert_eq!(renewed.certificate().serial().time(), world.right);
}

#[test]
fn a_clock_that_was_ahead_again_and_again_is_never_signed_by_twice() {
    let mut world = World::new(5);
    for round in 0..2_u32 {
        for ahead in [2 * HOUR, Duration::ZERO, 3 * HOUR, HOUR, Duration::ZERO] {
            assert_eq!(world.restart(ahead), ClockState::Right, "{round} {ahead:?}");
            for node in 1..=5 {
                if !world.removed.contains(&node) {
                    world.certified(node).expect("a member");
                }
            }
            // Twice without a flush, by this process and by a command.
            for node in [1, 2] {
                world.remove(node, node == 1);
                world.check_removed("first");
                world.approve(node, node == 2);
                // A command's decision counts from an hour later.
                world.right = world.right.plus(Duration::from_secs(3));
                world.certified(node).expect("approved");
                world.certified(node).expect("approved");
                world.remove(node, node == 2);
                world.check_removed("second");
                world.approve(node, node == 1);
                world.right = world.right.plus(Duration::from_secs(3));
                world.certified(node).expect("approved");
            }
            world.check_addresses();
        }
        world.pass(10 * HOUR);
    }
}

#[test]
fn a_change_after_a_clock_that_was_ahead_reaches_the_member_at_once() {
    let mut world = World::new(2);
    assert_eq!(world.restart(2 * HOUR), ClockState::Right);
    let earlier = world.certified(1).expect("a member");
    assert_eq!(world.restart(Duration::ZERO), ClockState::Right);
    for by_command in [true, false] {
        let mut command = world.command();
        let lab = if by_command { &mut command } else { world.lab() };
        let change = Change { tags: Some(tags(&[if by_command { "a" } else { "b" }])), ..Change::default() };
        lab.controller.change(lab.now, "alice", "machine-1", &change).expect("a member");
        let changed = world.certified(1).expect("a member");
        let controller = &world.lab.as_ref().expect("it serves").controller;
        assert!(world.observer.accepts(controller, world.right, 1, &changed));
        assert!(!world.observer.accepts(controller, world.right, 1, &earlier));
    }
}

#[test]
fn another_controller_takes_over_a_removal_of_a_clock_that_is_ahead() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    let shown = lab.join(1, Some(&token));
    let other = lab.other_issuer(9);
    let removal = |now: UnixTime| other.head(1, now, [(id(1), now, now.plus(3 * DAY))]);
    assert_eq!(
        lab.note(&removal(lab.now.plus(MAX_LEAP + HOUR))),
        Err(NoteError::Refused(Refusal::NotYetValid))
    );
    let ahead = lab.now.plus(2 * HOUR);
    assert_eq!(lab.note(&removal(ahead)), Ok(true));
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Removed));
    let (head, set) = lab.controller.head(lab.now);
    assert!(head.read_set(&set.to_bytes()).expect("its set").covers(&id(1), shown.certificate().serial()));
    // A person admits it again, with a serial that counts.
    let key = id(1).to_string();
    lab.controller.approve(lab.now, &mut lab.rng, "alice", &key, &Approval::default()).expect("held");
    let Answer::Certified { credentials, .. } = lab.ask(1, None) else { panic!("a member") };
    assert!(credentials.certificate().serial().time() >= ahead);
    assert_eq!(check(&lab.controller, &credentials, 1, ahead, &set), Ok(()));
}

/// A thief must not lead a controller's heads beyond what members accept.
#[test]
fn a_controller_whose_time_is_ahead_takes_over_no_removal_that_is_too_far_ahead_for_members() {
    let mut world = World::new(3);
    let (right, other) = (world.right, world.lab().other_issuer(9));
    world.restart(16 * HOUR);
    assert_eq!(world.restart(Duration::ZERO), ClockState::Right);
    let mut refused = 0;
    for hours in [34, 26, 20, 17] {
        let ahead = right.plus(hours * HOUR);
        let head = other.head(hours.into(), ahead, [(id(2), ahead, ahead.plus(3 * DAY))]);
        refused += u32::from(world.lab().note(&head).is_err());
        world.remove(1, false);
        world.check_removed("by this controller");
        world.approve(1, false);
        world.certified(1).expect("approved");
    }
    assert_eq!(refused, 3);
}

#[test]
fn a_removal_reaches_the_lost_certificates_of_a_member_whose_floor_is_ahead() {
    let mut world = World::new(1);
    let other = world.lab().other_issuer(9);
    let ahead = world.right.plus(17 * HOUR);
    let head = other.head(1, ahead, [(id(1), ahead, ahead.plus(3 * DAY))]);
    assert_eq!(world.lab().note(&head), Ok(true));
    for _ in 0..3 {
        world.approve(1, false);
        (0..3).for_each(|_| drop(world.certified(1).expect("approved")));
        // Their notes are lost.
        assert_eq!(world.restart(Duration::ZERO), ClockState::Right);
        world.remove(1, false);
        world.check_removed("lost");
    }
}

#[test]
fn a_store_that_fails_stops_no_renewals_and_a_removal_reaches_those_of_an_hour() {
    let mut world = World::new(2);
    world.restart(5 * HOUR);
    world.lab().controller.store.db().execute_batch("PRAGMA query_only = ON").expect("a setting");
    for _ in 0..5 {
        world.right = world.right.plus(10 * MINUTE);
        world.certified(1).expect("renewals go on");
    }
    world.right = world.right.minus(50 * MINUTE);
    assert_eq!(world.restart(Duration::ZERO), ClockState::Right);
    world.remove(1, false);
    world.check_removed("not written");
    world.lab().controller.store.db().execute_batch("PRAGMA query_only = ON").expect("a setting");
    for _ in 0..30 {
        world.right = world.right.plus(10 * MINUTE);
        world.certified(2).expect("renewals go on");
    }
}

#[test]
fn a_clock_that_is_far_behind_waits_and_commands_count_all_the_same() {
    let mut world = World::new(2);
    world.pass(40 * DAY);
    let right = world.right;
    world.right = UnixTime::from_millis(1000);
    let ClockState::Behind(lag) = world.restart(Duration::ZERO) else { panic!("1970") };
    assert!(lag > 365 * DAY);
    world.remove(1, true);
    world.right = right.plus(CLOCK_TOLERANCE);
    world.command().controller.accept_clock(world.right, "alice").expect("writable");
    assert_eq!(world.restart(Duration::ZERO), ClockState::Right);
    world.check_removed("in 1970");
    assert_eq!(world.certified(1), None);
    assert!(world.certified(2).is_some());
}

/// Random clocks, crashes, removals, admissions and changes, by the process that serves and by commands.
#[test]
fn no_order_of_clocks_and_crashes_brings_a_removed_member_back() {
    for seed in 0..15 {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut world = World::new(4);
        for step in 0..60 {
            let what = format!("seed {seed}, step {step}");
            let (node, by_command) = (rng.random_range(1..=4), rng.random_bool(0.5));
            match rng.random_range(0..10) {
                0 => _ = world.restart(pick(&mut rng)),
                // The clock is set while the controller serves.
                1 => world.ahead = pick(&mut rng),
                2 => world.pass(rng.random_range(1..20) * MINUTE),
                3 => world.pass(Duration::from_millis(rng.random_range(1..5000))),
                4 if world.lab.is_some() && !world.removed.contains(&node) => world.remove(node, by_command),
                5 if world.lab.is_some() && world.removed.contains(&node) => world.approve(node, by_command),
                6 if world.lab.is_some() && !world.removed.contains(&node) => {
                    let mut command = world.command();
                    let lab = if by_command { &mut command } else { world.lab() };
                    let change = Change { tags: Some(tags(&[&format!("t{step}")])), ..Change::default() };
                    let subject = id(node).to_string();
                    lab.controller.change(lab.now, "alice", &subject, &change).expect("a member");
                    world.spread();
                }
                _ => {
                    let credentials = world.certified(node);
                    assert!(credentials.is_none() || !world.removed.contains(&node), "{what}");
                }
            }
            world.check_removed(&what);
        }
        // With a right clock it serves, at the latest after the time by which it may have been ahead.
        world.pass(2 * MAX_LEAP);
        let state = world.restart(Duration::ZERO);
        if let ClockState::Leapt(_) = state {
            world.command().controller.accept_clock(world.right, "alice").expect("writable");
            assert_eq!(world.restart(Duration::ZERO), ClockState::Right);
        }
        assert!(world.lab.is_some(), "seed {seed}: {state:?}");
        for node in (1..=4).filter(|node| !world.removed.contains(node)).collect::<Vec<_>>() {
            let renewed = world.certified(node).expect("a member");
            let controller = &world.lab.as_ref().expect("it serves").controller;
            assert!(world.observer.accepts(controller, world.right, node, &renewed), "seed {seed}");
        }
        world.check_removed(&format!("seed {seed}, at the end"));
        world.check_addresses();
    }
}

fn pick(rng: &mut impl Rng) -> Duration {
    let hours = [0, 0, 0, 1, 2, 5, 17, 40 * 24, 7300 * 24][rng.random_range(0..9)];
    hours * HOUR
}

/// Leaves a controller 5 minutes ahead, where commands still count from an hour after the store's time. They
/// count from the clock again 10 minutes later.
fn nearly_caught_up(world: &mut World) {
    world.restart(2 * HOUR);
    world.restart(Duration::ZERO);
    (0..35).for_each(|_| world.pass(10 * MINUTE));
}

#[test]
fn removals_and_invites_count_in_their_order_where_the_time_was_ahead() {
    let mut world = World::new(3);
    nearly_caught_up(&mut world);
    let early = world.command().open_invite();
    world.pass(20 * MINUTE);
    world.remove(1, true);
    assert_eq!(denial(&world.lab().ask(1, Some(&early))), Some(Denial::Removed));
    let again = world.command().open_invite();
    assert!(matches!(world.lab().ask(1, Some(&again)), Answer::Certified { .. }));

    // The other way round: a removal by a time that is ahead, and an invite after it.
    nearly_caught_up(&mut world);
    world.remove(2, true);
    world.pass(20 * MINUTE);
    let wanted = world.command().open_invite();
    assert!(matches!(world.lab().ask(2, Some(&wanted)), Answer::Certified { .. }));
}

#[test]
fn an_invite_ends_at_once_where_the_time_is_ahead() {
    let mut world = World::new(1);
    world.restart(2 * HOUR);
    world.restart(Duration::ZERO);
    let token = world.command().open_invite();
    let label = hex(&token.hash()[..4]);
    let mut command = world.command();
    command.controller.end_invite(command.now, "alice", &label).expect("an invite");
    drop(command);
    assert_eq!(denial(&world.lab().ask(7, Some(&token))), Some(Denial::ExpiredInvite));
}
