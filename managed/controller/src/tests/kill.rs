use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use rand::RngExt as _;

use super::*;

const MACHINES: u32 = 6;
const VARIABLE: &str = "PEERSOCK_CONTROLLER_KILL_TEST";

fn token_of(node: u32) -> Token {
    let mut bytes = [7; Token::LEN];
    bytes[..4].copy_from_slice(&node.to_be_bytes());
    Token::from_bytes(bytes)
}

/// Is the process that is killed, if the variable names a store and a first machine.
#[test]
fn joins_until_killed() {
    let Ok(text) = std::env::var(VARIABLE) else { return };
    let (first, path) = text.split_once(' ').expect("a number and a path");
    let first: u32 = first.parse().expect("a number");
    let mut lab = Lab::open(Path::new(path), first.into());
    eprintln!("\nready");
    for node in first..first + MACHINES {
        if let Answer::Certified { credentials, .. } = lab.ask(node, Some(&token_of(node))) {
            let grant = credentials.certificate().grant();
            eprintln!("{node} {} {}", grant.name, grant.ipv4.expect("a pool"));
        }
        if node % 4 == 3 {
            lab.controller.flush(lab.now).expect("room");
        }
    }
}

/// Makes a token for each of the machines of a child. `replaced` returns the member that a machine replaces.
fn make_tokens(lab: &mut Lab, first: u32, replaced: impl Fn(u32) -> Option<NodeId>) {
    (first..first + MACHINES).for_each(|node| make_token(lab, node, replaced(node)));
}

fn make_token(lab: &mut Lab, node: u32, replaced: Option<NodeId>) {
    let (hash, replaced) = (token_of(node).hash(), replaced.map(|node| *node.as_bytes()));
    let made = lab.controller.write(|write, _| {
        write.run(
            "INSERT INTO tokens (hash, uses, made, made_by, ends, role, tags, is_ephemeral, replaces)
                VALUES (?, 1, 0, 'test', ?, 0, '', 0, ?)",
            (hash, i64::MAX, replaced),
        )
    });
    made.expect("room");
}

/// Test that is the killed process: it admits machines, or makes changes.
const JOINS: &str = "tests::kill::joins_until_killed";
const CHANGES: &str = "tests::kill::changes_until_killed";

fn start_child(test: &str, path: &Path, first: u32) -> Child {
    Command::new(std::env::current_exe().expect("the test itself"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(VARIABLE, format!("{first} {}", path.display()))
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs again")
}

#[test]
fn processes_that_admit_at_the_same_time_give_no_address_twice() {
    let (_folder, path) = place();
    let mut lab = Lab::at(&path);
    let firsts = [0, 100, 200, 300];
    firsts.iter().for_each(|first| make_tokens(&mut lab, *first, |_| None));
    let children: Vec<_> = firsts.iter().map(|first| start_child(JOINS, &path, *first)).collect();
    for child in children {
        assert!(child.wait_with_output().expect("it was started").status.success());
    }
    let mut addresses = std::collections::BTreeSet::new();
    for first in firsts {
        for node in first..first + MACHINES {
            addresses.insert(lab.join(node, Some(&token_of(node))).certificate().grant().ipv4);
        }
    }
    assert_eq!(addresses.len(), firsts.len() * MACHINES as usize);
}

#[test]
fn a_controller_killed_at_any_point_loses_nothing_and_burns_nothing() {
    kill_often(100, 3);
}

#[test]
#[ignore = "cargo xtask test --only slow: 500 rounds"]
fn a_controller_killed_500_times_loses_nothing_and_burns_nothing() {
    kill_often(500, 4);
}

/// Kills a process that works for machines from `first` on, at a random moment. Returns what it has told.
fn kill_child(test: &str, path: &Path, first: u32, rng: &mut ChaCha20Rng) -> Vec<String> {
    kill_after(test, path, first, 0, Duration::from_micros(rng.random_range(0..20_000)))
}

/// Does the same some time after the process has told a number of things.
fn kill_after(test: &str, path: &Path, first: u32, told: usize, time: Duration) -> Vec<String> {
    let mut child = start_child(test, path, first);
    let mut output = BufReader::new(child.stderr.take().expect("a pipe"));
    // The last line may be cut.
    let mut lines = std::iter::from_fn(|| {
        let mut line = String::new();
        output.read_line(&mut line).expect("a pipe");
        line.strip_suffix('\n').map(str::to_owned)
    });
    let is_told = |line: &String| line.starts_with(|c: char| c.is_ascii_digit());
    assert!(lines.any(|line| line == "ready"));
    let mut all: Vec<_> = lines.by_ref().filter(is_told).take(told).collect();
    std::thread::sleep(time);
    child.kill().expect("SIGKILL");
    child.wait().expect("it was started");
    // What was written before the end is still in the pipe.
    all.extend(lines.filter(is_told));
    all
}

#[test]
fn a_controller_killed_while_machines_replace_others_leaves_one_holder_of_each_name_and_address() {
    let (_folder, path) = place();
    let mut lab = Lab::at(&path);
    let open = lab.open_invite();
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let before: Vec<_> =
        (0..MACHINES).map(|node| lab.join(node, Some(&open)).certificate().grant().clone()).collect();
    lab.controller.flush(lab.now).expect("room");
    let mut unfinished = 0;
    // In each round, new keys replace those of the round before.
    for round in 1..=30 {
        let first = round * MACHINES;
        let mut lab = Lab::open(&path, round.into());
        make_tokens(&mut lab, first, |node| Some(id(node - MACHINES)));
        drop(lab);
        let told = kill_child(JOINS, &path, first, &mut rng);
        unfinished += usize::from(told.len() < MACHINES as usize);
        let mut lab = Lab::open(&path, round.into());
        lab.controller.store.check().expect("a good file");
        for (place, node) in (first..first + MACHINES).enumerate() {
            let grant = lab.join(node, Some(&token_of(node))).certificate().grant().clone();
            assert_eq!((&grant.name, grant.ipv4), (&before[place].name, before[place].ipv4));
            let earlier = node - MACHINES;
            assert_eq!(denial(&lab.ask(earlier, None)), Some(Denial::Removed));
            assert_eq!(denial(&lab.ask(earlier, Some(&token_of(node)))), Some(Denial::Removed));
            assert_eq!(denial(&lab.ask(900_000, Some(&token_of(node)))), Some(Denial::UsedInvite));
        }
        lab.controller.flush(lab.now).expect("room");
        let count =
            |sql| lab.controller.store.db().query_row(sql, [], |row| row.get::<_, u32>(0)).expect("a number");
        assert_eq!(count("SELECT count(*) FROM members WHERE state = 0"), MACHINES + 1);
        assert_eq!(count("SELECT count(*) FROM addresses"), MACHINES + 1);
        assert_eq!(count("SELECT count(*) FROM log WHERE action = 'replace'"), round * MACHINES);
    }
    eprintln!("{unfinished} rounds ended early");
    assert!(unfinished > 0);
}

/// Kills a process that admits machines, in each round at a random moment.
fn kill_often(rounds: u32, seed: u64) {
    let (_folder, path) = place();
    drop(Lab::at(&path));
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let (mut unfinished, mut acknowledged) = (0, 0);
    for round in 0..rounds {
        let first = round * MACHINES;
        let mut lab = Lab::open(&path, round.into());
        make_tokens(&mut lab, first, |_| None);
        drop(lab);
        let told = kill_child(JOINS, &path, first, &mut rng);
        acknowledged += told.len();
        unfinished += usize::from(told.len() < MACHINES as usize);

        let mut lab = Lab::open(&path, round.into());
        lab.controller.store.check().expect("a good file");
        for (place, node) in (first..first + MACHINES).enumerate() {
            let grant = lab.join(node, Some(&token_of(node))).certificate().grant().clone();
            let shown = format!("{node} {} {}", grant.name, grant.ipv4.expect("a pool"));
            assert_eq!(grant.name, name(&format!("machine-{node}")));
            if let Some(told) = told.get(place) {
                assert_eq!(*told, shown, "an acknowledged member has changed");
            }
            assert_eq!(denial(&lab.ask(900_000, Some(&token_of(node)))), Some(Denial::UsedInvite));
        }
        let count =
            |sql| lab.controller.store.db().query_row(sql, [], |row| row.get::<_, u32>(0)).expect("a number");
        let expected = first + MACHINES;
        assert_eq!(count("SELECT count(*) FROM token_uses"), expected);
        assert_eq!(count("SELECT count(DISTINCT node) FROM addresses"), expected + 1);
        assert_eq!(count("SELECT count(*) FROM addresses"), expected + 1);
        assert_eq!(count("SELECT count(*) FROM members WHERE state = 0"), expected + 1);
    }
    eprintln!("{rounds} rounds: {unfinished} ended early, {acknowledged} answers were told");
    assert!(unfinished > 0 && acknowledged > 0);
}

/// Network whose controller is killed while it makes changes: of the first two machines of a round, one is
/// changed and one removed, the third one waits and is denied, and the fourth one has an invite that ends.
mod changes {
    use super::*;
    use crate::Approval;
    use crate::{Change, OnClone, Standing};

    /// Number of changes of a round, and of nodes that one has for itself.
    const STEPS: usize = 6;
    const SPACE: u32 = 16;

    /// Returns a time in a round, in seconds after its beginning. The clock never goes back.
    fn time_in(first: u32, seconds: u64) -> UnixTime {
        NOW.plus(Duration::from_secs(u64::from(first / SPACE) * 10 + seconds))
    }

    /// Settings that the process of a round makes.
    fn settings_of(first: u32, before: &Settings) -> Settings {
        let is_even = first.is_multiple_of(2 * SPACE);
        let on_clone = if is_even { OnClone::KeepOlder } else { OnClone::RefuseBoth };
        Settings { outlive: HOUR + first * Duration::from_secs(1), on_clone, ..before.clone() }
    }

    fn change_of(first: u32) -> Change {
        Change {
            name: Some(name(&format!("other-{first}"))),
            tags: Some(tags(&["db", "far"])),
            ..Change::default()
        }
    }

    fn invite_of(first: u32) -> InviteOptions {
        InviteOptions::from(Approval { name: Some(name(&format!("new-{first}"))), ..Approval::default() })
    }

    /// Makes one change of each kind, and tells after each what it was and the epoch of the removals.
    pub(super) fn make_all(lab: &mut Lab, first: u32) {
        // The store does not know the certificates of a moment ago.
        lab.now = time_in(first, 1);
        let now = lab.now;
        for step in 0..STEPS {
            let subject = |node: u32| id(node).to_string();
            let controller = &mut lab.controller;
            let told = match step {
                0 => controller.change(now, "alice", &subject(first), &change_of(first)).map(|_| ()),
                1 => controller.revoke(now, "alice", &[&subject(first + 1)], false).map(|_| ()),
                2 => controller.deny(now, "alice", &subject(first + 2)),
                3 => {
                    let settings = settings_of(first, &controller.settings());
                    controller.set_settings(now, "alice", &settings)
                }
                4 => controller.end_invite(now, "alice", &label_of(first + 3)),
                _ => {
                    let token = lab.invite(&invite_of(first));
                    eprintln!("{step} {} {}", epoch(lab), crate::admission::hex(token.as_bytes()));
                    continue;
                }
            };
            told.expect("it can be changed");
            eprintln!("{step} {}", epoch(lab));
        }
    }

    fn label_of(node: u32) -> String {
        crate::Invite::label_of(&token_of(node))
    }

    fn epoch(lab: &mut Lab) -> u64 {
        lab.controller.head(lab.now).0.epoch()
    }

    /// Credentials of the machines that are changed and removed, and the settings, before the changes.
    struct Before {
        credentials: [Credentials; 2],
        settings: Settings,
    }

    fn prepare(lab: &mut Lab, open: &Token, first: u32) -> Before {
        make_token(lab, first + 3, None);
        let credentials = [first, first + 1].map(|node| lab.join(node, Some(open)));
        assert!(matches!(lab.ask(first + 2, None), Answer::Pending { .. }));
        Before { credentials, settings: lab.controller.settings() }
    }

    /// Returns which changes a store holds, each of which it has to hold whole or not at all.
    fn found(lab: &mut Lab, first: u32, before: &Before) -> [bool; STEPS] {
        let logged = |action: &str, what: &str| {
            let sql = "SELECT count(*) FROM log WHERE action = ? AND what LIKE '%' || ? || '%'";
            let count = lab.controller.store.db().query_row(sql, (action, what), |row| row.get::<_, u32>(0));
            assert!(count.as_ref().is_ok_and(|count| *count <= 1), "{action} {what}: {count:?}");
            count == Ok(1)
        };
        let written = [
            logged("change", &format!("machine-{first} to other-{first},")),
            logged("revoke", &id(first + 1).to_string()),
            logged("deny", &id(first + 2).to_string()),
            logged("settings", &format!("{} s ", settings_of(first, &before.settings).outlive.as_secs())),
            logged("end invite", &label_of(first + 3)),
        ];
        let member = |node: u32| lab.controller.find(&id(node).to_string()).expect("a member");
        let (changed, removed) = (member(first), member(first + 1));
        let names = [name(&format!("machine-{first}")), name(&format!("other-{first}"))];
        assert_eq!(changed.grant.name, names[usize::from(written[0])]);
        assert_eq!(changed.grant.tags, if written[0] { tags(&["db", "far"]) } else { Vec::new() });
        assert_eq!(removed.standing == Standing::Removed, written[1]);
        // Without it, others accept the certificate from before.
        for (place, credentials) in before.credentials.iter().enumerate() {
            let refused = written[place].then_some(Refusal::Revoked);
            assert_eq!(lab.refusal(credentials, first + place as u32), refused);
        }
        let denied = written[2].then_some(Denial::Declined);
        assert_eq!(denial(&lab.ask(first + 2, None)), denied);
        let waits = lab
            .controller
            .pending()
            .expect("readable")
            .iter()
            .any(|one| one.identity == *identity(first + 2).public());
        assert_eq!(waits, !written[2]);
        let settings = match written[3] {
            true => settings_of(first, &before.settings),
            false => before.settings.clone(),
        };
        assert_eq!(lab.controller.settings(), settings);
        let ended = written[4].then_some(Denial::ExpiredInvite);
        assert_eq!(denial(&lab.ask(first + 3, Some(&token_of(first + 3)))), ended);
        let invites = lab.controller.invites().expect("readable");
        let wished = invite_of(first).approval.name;
        let made: Vec<_> = invites.iter().filter(|invite| invite.name == wished).collect();
        assert!(made.len() <= 1);
        let is_logged = made.first().is_none_or(|made| {
            let sql = "SELECT count(*) FROM log WHERE action = 'invite' AND what = ?";
            let count = lab.controller.store.db().query_row(sql, [&made.label], |row| row.get::<_, u32>(0));
            count == Ok(1)
        });
        assert!(is_logged);
        let [changed, revoked, declined, set, ended] = written;
        [changed, revoked, declined, set, ended, !made.is_empty()]
    }

    /// Kills a process that makes changes, in each round at a random moment.
    pub(super) fn kill_often(rounds: u32, seed: u64) {
        let (_folder, path) = place();
        let mut lab = Lab::at(&path);
        let open = lab.open_invite();
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (mut at, mut newest) = ([0; STEPS + 1], 0);
        for round in 0..rounds {
            let first = (round + 1) * SPACE;
            lab.now = time_in(first, 0);
            let before = prepare(&mut lab, &open, first);
            newest = newest.max(epoch(&mut lab));
            drop(lab);
            let steps = rng.random_range(0..=STEPS);
            let time = Duration::from_micros(rng.random_range(0..10_000));
            let told = kill_after(CHANGES, &path, first, steps, time);
            at[told.len()] += 1;

            lab = Lab::open(&path, round.into());
            lab.now = time_in(first, 2);
            lab.controller.store.check().expect("a good file");
            for (step, line) in told.iter().enumerate() {
                let mut words = line.split(' ');
                assert_eq!(words.next(), Some(&*step.to_string()), "{told:?}");
                newest = newest.max(words.next().expect("an epoch").parse().expect("a number"));
            }
            let now = epoch(&mut lab);
            assert!(now >= newest, "round {round}: members know epoch {newest}, and the store has {now}");
            newest = now;
            let found = found(&mut lab, first, &before);
            let count = found.iter().take_while(|is_there| **is_there).count();
            assert!(count >= told.len(), "round {round}: {told:?} were told, and the store has {found:?}");
            assert!(count <= told.len() + 1, "round {round}: they are made one after another");
            assert!(found[count..].iter().all(|is_there| !is_there), "round {round}: {found:?}");
            if let Some(token) = told.get(STEPS - 1).and_then(|line| line.split(' ').nth(2)) {
                let joined = lab.join(first + 900_000, Some(&read_token(token)));
                assert_eq!(Some(joined.certificate().grant().name.clone()), invite_of(first).approval.name);
            }
        }
        eprintln!("{rounds} rounds by the number of changes that were told: {at:?}");
        assert!(at[STEPS] < rounds && at[0] < rounds, "the moments are not random: {at:?}");
    }

    fn read_token(hex: &str) -> Token {
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hexadecimal");
        Token::from_bytes(std::array::from_fn(byte))
    }
}

/// Is the process that is killed, as [`joins_until_killed`].
#[test]
fn changes_until_killed() {
    let Ok(text) = std::env::var(VARIABLE) else { return };
    let (first, path) = text.split_once(' ').expect("a number and a path");
    let first: u32 = first.parse().expect("a number");
    let mut lab = Lab::open(Path::new(path), first.into());
    eprintln!("\nready");
    changes::make_all(&mut lab, first);
}

#[test]
fn a_controller_killed_while_it_changes_the_network_keeps_each_change_that_was_told_whole() {
    changes::kill_often(60, 6);
}

#[test]
#[ignore = "cargo xtask test --only slow: 500 rounds"]
fn a_controller_killed_500_times_while_it_changes_the_network_keeps_what_was_told() {
    changes::kill_often(500, 7);
}
