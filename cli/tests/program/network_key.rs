//! `peersock network rekey`: another key for a network, its members and its controllers.

use serde_json::Value;

use crate::common::{Finished, Running, run, wait_until};
use crate::machines::Machines;

/// Returns the words that a change of the key has shown.
fn new_words(replaced: &Finished) -> String {
    let words = replaced.stderr.lines().find_map(|line| line.split("from now on: ").nth(1));
    words.expect("words").to_owned()
}

/// Returns the number of changes of the network's key that a machine has kept.
fn changes(machines: &Machines, machine: &str, id: &str) -> usize {
    let record = std::fs::read_to_string(machines.directory(machine).join(format!("{id}.network")));
    let record: Value = serde_json::from_str(&record.expect("a record")).expect("JSON");
    record["successions"].as_array().map_or(0, Vec::len)
}

fn dials(machines: &Machines, machine: &str) -> bool {
    machines.dial(machine, "beta:7000").status.success()
}

#[test]
fn a_network_goes_on_with_another_key() {
    let machines = Machines::new();
    let (id, words) = machines.create(&[]);
    let before = machines.directory("before.db").to_str().expect("text").to_owned();
    machines.ok("alpha", &["network", "backup", &before]);
    let serving = machines.serve("alpha");
    let invite = machines.invite(&["--uses", "2"]);
    machines.admit("beta");
    let (listening, _) = machines.listen("beta", "7000");

    let replaced = machines.with_words("alpha", &["network", "rekey", "-n", "team"], "").success();
    let told = replaced.text();
    assert!(told.starts_with("team has another key, and the former one counts for another"), "{told}");
    assert!(!replaced.stderr.contains("no controller serves"), "{}", replaced.stderr);
    for part in ["give it the new words within 1d: ", "the key can change 2 more times"] {
        assert!(replaced.stderr.contains(part), "{part} is not in {}", replaced.stderr);
    }
    let new = new_words(&replaced);
    serving.wait_for_stderr("the right to issue certificates is renewed");
    wait_until("beta does not follow", || changes(&machines, "beta", &id) == 1);
    // An invite from before leads to the same network, and machines of both times reach each other.
    machines.ok("gamma", &["join", &invite, "--as", "team"]);
    assert_eq!(changes(&machines, "gamma", &id), 1);
    wait_until("gamma does not reach beta", || dials(&machines, "gamma"));

    // The former words count for nothing, and the new ones for the same network.
    let renew = ["network", "renew", "-n", "team"];
    let refused = machines.with_words("alpha", &renew, &words);
    refused.failure(1, &["has replaced the one of these words", "peersock network rekey"]);
    machines.with_words("alpha", &renew, &new).success();
    let after = machines.directory("after.db").to_str().expect("text").to_owned();
    machines.ok("alpha", &["network", "backup", &after]);
    let restore = |machine: &str, file: &str, words: &str| {
        machines.with_words(machine, &["network", "restore", "team", "--backup", file], words)
    };
    restore("zeta", &after, &words).failure(1, &["has replaced the one of these words"]);
    restore("zeta", &before, &new).failure(1, &["belong to another network"]);
    let restored = restore("zeta", &after, &new).success();
    assert!(restored.text().replace('-', "").contains(&id), "{}", restored.text());

    // Another controller, which had its right from the former key.
    restore("delta", &before, &words).success();
    machines.with_words("delta", &renew, &new).failure(1, &["another network", "peersock controller"]);
    let second = machines.serve("delta");
    let address = machines.ok("delta", &["addr", &id]);
    machines.ok("alpha", &["ping", "-n", "team", "-c", "1", &address]);
    second.wait_for_stderr("another controller has changed the network's key");
    machines.with_words("delta", &renew, &new).success();
    second.wait_for_stderr("the right to issue certificates is renewed");
    drop(second);

    // No member needs the controller, also after a restart.
    drop(serving);
    drop(listening);
    let (_listening, _) = machines.listen("beta", "7000");
    wait_until("gamma does not reach beta without the controller", || dials(&machines, "gamma"));

    // The next one ends the key before at once, and the members are back when they have certificates by it.
    let serving = machines.serve("alpha");
    let replaced = machines.with_words("alpha", &["network", "rekey", "--now", "-n", "team"], "").success();
    assert!(replaced.text().contains("counts no more"), "{}", replaced.text());
    serving.wait_for_stderr("the right to issue certificates is renewed");
    wait_until("beta does not follow again", || changes(&machines, "beta", &id) == 2);
    wait_until("gamma does not reach beta again", || dials(&machines, "gamma"));
}

#[test]
fn a_key_on_paper_is_replaced_by_its_words() {
    let machines = Machines::new();
    let (_, words) = machines.create(&["--offline"]);
    let others = Machines::new();
    let (_, other) = others.create(&[]);
    let rekey = ["network", "rekey", "-n", "team"];
    machines.with_words("alpha", &rekey, &other).failure(1, &["belong to another network"]);
    let mut last = words.clone();
    for _ in 0..3 {
        let replaced = machines.with_words("alpha", &rekey, &last).success();
        assert!(replaced.stderr.contains("no controller serves team now"), "{}", replaced.stderr);
        last = new_words(&replaced);
    }
    let fourth = machines.with_words("alpha", &rekey, &last);
    assert!(!fourth.stderr.contains("write this down"), "{}", fourth.stderr);
    fourth.failure(1, &["changed 3 times", "peersock network create"]);
    machines.with_words("alpha", &rekey, &words).failure(1, &["has replaced the one of these words"]);
    machines.with_words("alpha", &["network", "renew", "-n", "team"], &last).success();
    let serving = Running::start(machines.command("alpha", &["controller"]));
    serving.wait_for_stderr("serving team");
    machines.admit("beta");
}

/// Returns true if a process waits for a lock of a file.
fn waits_for_lock(process: u32) -> bool {
    let locks = std::fs::read_to_string("/proc/locks").expect("a list of the kernel");
    let process = process.to_string();
    locks.lines().any(|line| line.contains("-> FLOCK") && line.split_whitespace().any(|word| word == process))
}

#[test]
fn of_two_changes_of_the_key_at_once_one_is_refused() {
    let machines = Machines::new();
    machines.create(&[]);
    let turn = std::fs::File::open(machines.directory("alpha")).expect("a directory");
    turn.lock().expect("no command has it");
    let start = || Running::start(machines.command("alpha", &["network", "rekey", "-n", "team"]));
    let commands = [(); 2].map(|()| {
        let command = start();
        wait_until("the command does not wait", || waits_for_lock(command.id()));
        command
    });
    drop(turn);
    let ended = commands.map(Running::finish);
    let (done, refused): (Vec<_>, Vec<_>) = ended.into_iter().partition(|one| one.status.success());
    assert_eq!((done.len(), refused.len()), (1, 1));
    for refused in refused {
        assert!(!refused.stderr.contains("write this down"), "{}", refused.stderr);
        refused.failure(1, &["another command has just changed the network's key", "run the command again"]);
    }
    for done in done {
        assert!(done.stderr.contains("the key can change 2 more times"), "{}", done.stderr);
        machines.with_words("alpha", &["network", "renew", "-n", "team"], &new_words(&done)).success();
    }
}

/// Runs a command whose messages no person can read, through a shell. Returns its exit code.
fn unread(machines: &Machines, messages: &str, arguments: &[&str]) -> Option<i32> {
    let script = format!("exec \"$0\" \"$@\" 2>{messages}");
    let command = machines.command("alpha", arguments);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    shell.status().expect("sh runs").code()
}

#[test]
fn a_network_whose_words_nobody_can_read_is_not_made() {
    let machines = Machines::new();
    let controllers = machines.directory("alpha").join("controllers");
    let stores = || {
        let entries = std::fs::read_dir(&controllers).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().ends_with(".db")).count()
    };
    for messages in ["/dev/full", "/dev/null", "&-"] {
        let offline = ["network", "create", "paper", "--offline"];
        assert_eq!(unread(&machines, messages, &offline), Some(1), "{messages}");
        assert_eq!(stores(), 0, "{messages}: its key is lost");
        // With a stored key as well: no person has its words, and no machine is a member.
        assert_eq!(unread(&machines, messages, &["network", "create", "team"]), Some(1), "{messages}");
        assert_eq!(stores(), 0, "{messages}");
        let none = run(machines.command("alpha", &["networks"])).success();
        assert!(none.stderr.contains("joined no network"), "{}", none.stderr);
        let shown = machines.with_words("alpha", &["network", "create", "team"], "").success();
        assert!(shown.stderr.contains("write this down"), "{}", shown.stderr);
        assert_eq!(stores(), 1, "{messages}");
        machines.ok("alpha", &["leave", "team", "--force"]);
        std::fs::remove_dir_all(&controllers).expect("they are there");
    }
    assert!(machines.with_words("alpha", &["network", "create", "paper", "--offline"], "").status.success());
}
