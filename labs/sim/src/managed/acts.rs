//! The acts of a story, and their order.

use std::time::Duration;

use super::Managed;
use super::story::{MINUTE, OUTLIVE, SECOND, Story};
use crate::Violation;

type Told = Result<(), Violation>;

/// Plays a story.
pub(super) fn play(story: &mut Story, told: &Managed, back: &mut Duration) -> Told {
    everybody_joins(story, told.members)?;
    more_issuers(story)?;
    // Until certificates have ended.
    story.strand();
    let mut acts = [flapping, cut_in_two, wrong_clocks, to_and_fro, restarts];
    for at in (1..acts.len()).rev() {
        acts.swap(at, story.random.below(at + 1));
    }
    for act in acts.into_iter().take(told.acts) {
        act(story)?;
    }
    old_store(story)?;
    stolen_key(story)?;
    all_away(story)?;
    story.end_island();
    *back = story.wait_for_all()?;
    // Removed nodes go on trying until nothing counts any more.
    story.run(10 * MINUTE)?;
    story.measure_removal()
}

/// The members join while the controller serves.
fn everybody_joins(story: &mut Story, members: usize) -> Told {
    for _ in 0..members {
        story.join();
        let pause = story.random.duration(Duration::from_millis(50)..=SECOND);
        story.run(pause)?;
    }
    story.wait_for_all()?;
    for _ in 0..3 {
        story.measure_removal()?;
    }
    Ok(())
}

/// Two further issuers serve from backups: the second one of the first one's store, and the third one of the
/// second one's.
fn more_issuers(story: &mut Story) -> Told {
    story.add_office(1);
    story.run(3 * MINUTE)?;
    story.join();
    story.measure_removal()?;
    story.run(MINUTE)?;
    story.add_office(2);
    story.run(3 * MINUTE)
}

/// All paths go up and down, and members are removed meanwhile.
fn flapping(story: &mut Story) -> Told {
    story.field.faults.flaps = Some(story.random.duration(2 * SECOND..=20 * SECOND));
    story.field.faults.loss = 0.05;
    for _ in 0..3 {
        story.run(2 * MINUTE)?;
        let at = story.random.below(story.offices.len());
        let removed = story.pick_known(at);
        story.revoke(removed, at);
    }
    story.run(2 * MINUTE)?;
    story.field.faults.flaps = None;
    story.field.faults.loss = 0.002;
    story.run(MINUTE)
}

/// Half of all machines hear nothing of the other half, in which members are removed.
fn cut_in_two(story: &mut Story) -> Told {
    let machines = 0..story.field.machines.len();
    story.field.faults.groups = machines.map(|number| (number, u8::from(story.random.chance(0.5)))).collect();
    for at in [0, 1] {
        let removed = story.pick_known(at);
        story.revoke(removed, at);
        story.run(5 * MINUTE)?;
    }
    let length = story.random.duration(10 * MINUTE..=30 * MINUTE);
    story.run(length)?;
    story.field.faults.groups.clear();
    story.run(2 * MINUTE)
}

/// Machines start again with wrong clocks.
fn wrong_clocks(story: &mut Story) -> Told {
    const HOUR: i64 = 3_600_000;
    const YEAR: i64 = 365 * 24 * HOUR;
    for number in story.served() {
        if !story.random.chance(0.4) {
            continue;
        }
        let of_two_hours = story.random.within(0..=4 * HOUR as u64) as i64 - 2 * HOUR;
        let since_1970 = i64::try_from(super::field::UNIX_TIME.as_millis()).unwrap_or(i64::MAX);
        let clock = match story.random.below(10) {
            0..=6 => of_two_hours,
            7 => 20 * YEAR,
            8 => -20 * YEAR,
            _ => 60_000 - since_1970,
        };
        story.crash(number);
        story.field.machines[number].clock = clock;
        story.start(number);
    }
    story.run(MINUTE)?;
    let removed = story.pick_member();
    story.revoke(removed, 0);
    story.run(10 * MINUTE)
}

/// Members are removed, taken back and removed again before anybody can have heard.
fn to_and_fro(story: &mut Story) -> Told {
    for ends_removed in [true, false, true] {
        let number = story.pick_member();
        let node = story.field.machines[number].id();
        let pauses = [Duration::from_millis(20), Duration::from_millis(700), 3 * SECOND];
        story.revoke_node(node, 0);
        for _ in 0..2 {
            let pause = *story.random.pick(&pauses);
            story.run(pause)?;
            assert!(story.readmit(node, 0), "it was removed");
            let pause = *story.random.pick(&pauses);
            story.run(pause)?;
            story.revoke_node(node, 0);
        }
        match ends_removed {
            true => story.field.machines[number].is_hostile = true,
            false => assert!(story.readmit(node, 0), "it was removed"),
        }
        story.run(MINUTE)?;
    }
    story.run(2 * MINUTE)
}

/// Machines crash and start again, hostile ones with what they had before their removal.
fn restarts(story: &mut Story) -> Told {
    for _ in 0..5 {
        for number in 0..story.field.machines.len() {
            let machine = &story.field.machines[number];
            let may = story.offices.iter().all(|office| office.machine != number);
            let chance = if machine.is_hostile { 0.5 } else { 0.1 };
            if machine.is_up() && may && story.random.chance(chance) {
                story.crash(number);
                story.start(number);
            }
        }
        story.run(30 * SECOND)?;
    }
    let at = story.random.below(story.offices.len());
    story.offices[at].crash(&mut story.field);
    story.run(2 * MINUTE)?;
    story.offices[at].restart(&mut story.field, None);
    story.run(MINUTE)
}

/// The first controller comes back with an old store while 30 % of the members are away.
fn old_store(story: &mut Story) -> Told {
    let backup = story.backup(0, "old");
    let made = story.field.now;
    story.run(MINUTE)?;
    for _ in 0..2 {
        let removed = story.pick_member();
        story.revoke(removed, 0);
    }
    story.join();
    story.run(MINUTE)?;
    story.offices[0].crash(&mut story.field);
    let mut away = Vec::new();
    for number in story.served() {
        if story.random.chance(0.3) {
            story.crash(number);
            away.push(number);
        }
    }
    let pause = story.random.duration(2 * SECOND..=5 * MINUTE);
    story.run(pause)?;
    story.oracle.forget(story.offices[0].machine, made);
    story.offices[0].restart(&mut story.field, Some(&backup));
    story.run(MINUTE)?;
    // No new member gets the address of the machine that the old store does not know.
    story.join();
    story.join();
    story.run(10 * MINUTE)?;
    for number in away {
        story.start(number);
    }
    story.run(2 * MINUTE)
}

/// Somebody steals the key of the first issuer. When people notice, they go on with the second one.
fn stolen_key(story: &mut Story) -> Told {
    story.is_covered = false;
    story.steal(0);
    let unnoticed = story.random.duration(5 * MINUTE..=15 * MINUTE);
    story.run(unnoticed)?;
    story.used = 1;
    let stolen = story.field.machines[story.offices[0].machine].id();
    story.revoke_node(stolen, 1);
    story.run(2 * MINUTE)?;
    // What the thief has removed, people take back, at each controller that has believed it.
    story.approve_held(1);
    story.approve_held(2);
    story.run(25 * MINUTE)?;
    story.is_covered = true;
    Ok(())
}

/// All controllers are away for almost as long as the network goes on without.
fn all_away(story: &mut Story) -> Told {
    for office in &mut story.offices {
        if office.is_up() {
            office.crash(&mut story.field);
        }
    }
    story.run(OUTLIVE - SECOND)?;
    for at in [1, 2] {
        story.offices[at].restart(&mut story.field, None);
    }
    Ok(())
}
