use std::io::{BufRead, BufReader, Read as _};
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
    for node in first..first + MACHINES {
        let (hash, replaced) = (token_of(node).hash(), replaced(node).map(|node| *node.as_bytes()));
        let made = lab.controller.write(|write, _| {
            write.run(
                "INSERT INTO tokens (hash, uses, made, made_by, ends, role, tags, is_ephemeral, replaces)
                    VALUES (?, 1, 0, 'test', ?, 0, '', 0, ?)",
                (hash, i64::MAX, replaced),
            )
        });
        made.expect("room");
    }
}

fn start_child(path: &Path, first: u32) -> Child {
    Command::new(std::env::current_exe().expect("the test itself"))
        .args(["--exact", "tests::kill::joins_until_killed", "--nocapture", "--test-threads=1"])
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
    let children: Vec<_> = firsts.iter().map(|first| start_child(&path, *first)).collect();
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

/// Kills a process that admits machines from `first` on, at a random moment. Returns what it has told.
fn kill_child(path: &Path, first: u32, rng: &mut ChaCha20Rng) -> Vec<String> {
    let mut child = start_child(path, first);
    let mut output = BufReader::new(child.stderr.take().expect("a pipe"));
    assert!(output.by_ref().lines().map_while(Result::ok).any(|line| line == "ready"));
    std::thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
    child.kill().expect("SIGKILL");
    child.wait().expect("it was started");
    // What was written before the end is still in the pipe; the last line may be cut.
    let mut text = String::new();
    output.read_to_string(&mut text).expect("a pipe");
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let told = whole.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    told.map(str::to_owned).collect()
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
        let told = kill_child(&path, first, &mut rng);
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
        let told = kill_child(&path, first, &mut rng);
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
