//! Networks that are restored from backups, words or a member's machine, and the right of controllers.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{PATIENCE, Running, run};
use crate::machines::Machines;

/// The machine of the controller is lost, and there is no backup.
#[test]
fn members_join_a_network_again_that_is_restored_by_its_words_alone() {
    let machines = Machines::new();
    let (_, words) = machines.create(&[]);
    let serving = machines.serve("alpha");
    machines.admit("beta");
    drop(serving);
    let again =
        machines.with_words("epsilon", &["network", "restore", "office", "--name", "epsilon"], &words);
    assert!(again.success().text().starts_with("network office"));
    let serving = Running::start(machines.command("epsilon", &["controller"]));
    serving.wait_for_stderr("serving office");
    let invite = machines.ok("epsilon", &["network", "invite", "--name", "beta"]);
    let joined = machines.ok("beta", &["join", &invite]);
    assert!(joined.contains("joined team as beta"), "{joined}");
    assert!(machines.ok("epsilon", &["network", "members"]).contains("beta"));
}

#[test]
fn a_network_is_restored_on_another_machine_by_its_words() {
    let machines = Machines::new();
    let (id, words) = machines.create(&[]);
    let serving = machines.serve("alpha");
    machines.admit("beta");
    let file = machines.folder().join("backup.db");
    let file = file.to_str().expect("text");
    machines.ok("alpha", &["network", "backup", file]);
    assert!(machines.refused("alpha", &["network", "backup", file]).contains("exists already"));
    let mut odd = machines.command("alpha", &["network", "backup", "file:odd.db"]);
    odd.current_dir(machines.folder());
    assert!(run(odd).status.success());
    let odd = std::fs::metadata(machines.folder().join("file:odd.db")).expect("no URI");
    assert!(odd.len() > 0 && odd.mode() & 0o077 == 0);
    drop(serving);

    let restore = ["network", "restore", "team", "--backup", file];
    let wrong = machines.with_words("gamma", &restore, "abandon ability\n");
    wrong.failure(2, &["there are 12 recovery words, these are 2"]);
    let shuffled = words.split(' ').rev().collect::<Vec<_>>().join(" ");
    assert!(!machines.with_words("gamma", &restore, &shuffled).status.success());
    // As people type them.
    let typed = words.to_uppercase().replace(' ', "\n");
    let restored = machines.with_words("gamma", &restore, &typed).success();
    assert!(restored.text().replace('-', "").contains(&id), "{}", restored.text());
    machines.with_words("gamma", &restore, &words).failure(2, &["is here already"]);
    let listed = machines.ok("gamma", &["network", "members"]);
    assert!(listed.contains("alpha") && listed.contains("beta") && listed.contains("10.77.0.2"), "{listed}");
    let _serving = machines.serve("gamma");
    let early = machines.refused("gamma", &["network", "revoke", "alpha"]);
    assert!(early.contains("members would be out") && early.contains("--yes-all-of-them"), "{early}");
    // Renewals wait for a member, which needs another certificate once the old controller is removed.
    let seen = || {
        let listed: Value =
            serde_json::from_str(&machines.ok("gamma", &["network", "members", "--json"])).expect("JSON");
        let members = listed["members"].as_array().expect("a list").clone();
        members.iter().find(|member| member["name"] == "beta").expect("a member")["seen"].as_u64()
    };
    let (before, begun) = (seen(), Instant::now());
    let (_listening, address) = machines.listen("beta", "7000");
    assert_eq!(address, "10.77.0.2");
    let new = machines.ok("gamma", &["addr", &id]);
    machines.ok("beta", &["ping", "-n", "team", "-c", "1", &new]);
    while seen() <= before {
        assert!(begun.elapsed() < PATIENCE, "gamma does not meet beta");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The old controller's machine is a member among others there.
    while !run(machines.command("gamma", &["network", "revoke", "alpha"])).status.success() {
        assert!(begun.elapsed() < PATIENCE, "gamma does not begin to renew");
        std::thread::sleep(Duration::from_millis(50));
    }
    let invite = machines.ok("gamma", &["network", "invite", "--name", "delta"]);
    let joined = machines.ok("delta", &["join", &invite, "--as", "team"]);
    // The lost machine may have given the next address away since the backup.
    assert!(joined.contains("team as delta, fd"), "{joined}");
    while let dialed = machines.dial("delta", "beta:7000")
        && !dialed.status.success()
    {
        assert!(begun.elapsed() < PATIENCE, "{}", dialed.stderr);
    }
}

#[test]
fn the_right_of_a_controller_without_the_networks_key_is_renewed_by_words() {
    let machines = Machines::new();
    let (_, words) = machines.create(&["--offline"]);
    let others = Machines::new();
    let (_, other) = others.create(&[]);
    let renew = ["network", "renew", "-n", "team"];
    machines.with_words("alpha", &renew, &other).failure(1, &["belong to another network"]);
    machines.with_words("alpha", &renew, "").failure(2, &["these are 0"]);
    let renewed = machines.with_words("alpha", &renew, &words).success();
    assert!(renewed.text().starts_with("team issues certificates for another 36"), "{}", renewed.text());
    // The key of the other network is kept, until `--offline` removes it.
    let renewed = others.with_words("alpha", &renew, &other).success();
    assert!(renewed.text().starts_with("team issues certificates for another 89d"), "{}", renewed.text());
    let renewed = others.with_words("alpha", &[&renew[..], &["--offline"]].concat(), &other).success();
    assert!(renewed.text().starts_with("team issues certificates for another 36"), "{}", renewed.text());
}

/// Makes a network with two members and a backup of it. Returns its ID, words, backup and controller.
fn backed_up(machines: &Machines) -> (String, String, String, Running) {
    let (id, words) = machines.create(&[]);
    let serving = machines.serve("alpha");
    ["beta", "gamma"].iter().for_each(|machine| machines.admit(machine));
    let file = machines.file("backup.db");
    machines.ok("alpha", &["network", "backup", &file]);
    (id, words, file, serving)
}

#[test]
fn a_member_s_machine_becomes_the_controller_with_what_it_knows() {
    let machines = Machines::new();
    let (id, words, file, serving) = backed_up(&machines);
    // The member hears of a removal that the backup does not hold.
    let (listening, _) = machines.listen("beta", "7000");
    machines.ok("alpha", &["network", "revoke", "gamma"]);
    let knows = |record: &Value| {
        let sets = record["revocations"].as_array().expect("a list");
        sets.iter().any(|one| one["set"] != "")
    };
    let begun = Instant::now();
    while !knows(&machines.record("beta", &id)) {
        assert!(begun.elapsed() < PATIENCE, "beta hears nothing of the removal");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop((listening, serving));
    machines.wait_for_end_of_node("beta");
    let before = machines.record("beta", &id);
    // Its local name is the network's already.
    let restored = machines.with_words("beta", &["network", "restore", "team", "--backup", &file], &words);
    restored.success();
    let after = machines.record("beta", &id);
    assert!(knows(&after), "the removal is lost: {after}");
    assert_eq!((&before["wish"], &before["name"]), (&after["wish"], &after["name"]));
    assert!(after["starts"].as_u64() >= before["starts"].as_u64() && before["starts"].as_u64() > Some(0));
    assert!(after["controllers"].as_array().expect("a list").len() > 1, "{after}");
    let listed = machines.ok("beta", &["network", "members"]);
    assert!(listed.lines().any(|line| line.starts_with("held") && line.contains("gamma")), "{listed}");
    let serving = machines.serve("beta");
    serving.wait_for_stderr("renewals wait");
    let invite = machines.ok("beta", &["network", "invite", "--name", "delta"]);
    machines.ok("delta", &["join", &invite]);
}

#[test]
fn a_machine_becomes_the_controller_while_its_programs_run() {
    let machines = Machines::new();
    let (id, words, file, serving) = backed_up(&machines);
    let (_listening, _) = machines.listen("beta", "7000");
    drop(serving);
    machines.wait_for_end_of_node("alpha");
    let node = std::fs::read_to_string(machines.directory("beta").join("lock")).expect("a lock");
    let restore = ["network", "restore", "crew", "--backup", &file];
    machines.with_words("beta", &restore, &words).success();
    assert!(machines.ok("beta", &["networks"]).starts_with("crew "));
    let serving = Running::start(machines.command("beta", &["controller", "-n", "crew"]));
    serving.wait_for_stderr("serving ");
    let now = std::fs::read_to_string(machines.directory("beta").join("lock")).expect("a lock");
    assert_eq!(now, node, "the node goes on");
    let invite = machines.ok("beta", &["network", "invite", "--name", "delta"]);
    machines.ok("delta", &["join", &invite, "--as", "team"]);
    // Delta has no IPv4 address yet: the lost machine may have given the next one away.
    let addresses = machines.ok("beta", &["addr", &id]);
    let own = addresses.lines().next().expect("the address of its key");
    let reached = machines.dial("delta", &format!("[{own}]:7000"));
    assert!(reached.status.success(), "{}", reached.stderr);
    // A machine that has not known the network, with a program in another one.
    let open = ["listen", "-k", "-n", "ff0001ffff000000", "7100"];
    let other = Running::start(machines.command("epsilon", &open));
    other.wait_for_stderr("listening on ");
    machines.with_words("epsilon", &restore, &words).success();
    assert!(machines.ok("epsilon", &["networks"]).contains(&id));
}

#[test]
fn a_network_that_is_restored_by_another_name_is_found_by_both() {
    let machines = Machines::new();
    let (id, words) = machines.create(&[]);
    let file = machines.folder().join("team.db").to_str().expect("text").to_owned();
    machines.ok("alpha", &["network", "backup", &file]);
    let restore = ["network", "restore", "crew", "--backup", &file];
    let restored = machines.with_words("gamma", &restore, &words).success();
    assert!(restored.stderr.contains("`peersock controller -n crew`"), "{}", restored.stderr);
    for name in ["crew", "team", &id] {
        assert!(
            machines.ok("gamma", &["network", "settings", "-n", name]).contains("10.77.0.0/24"),
            "{name}"
        );
    }
}

#[test]
fn backups_and_words_are_checked_before_they_are_used() {
    let machines = Machines::new();
    let (_, words) = machines.create(&[]);
    let others = Machines::new();
    let (_, other) = others.create(&[]);
    let file = machines.file("backup.db");
    machines.ok("alpha", &["network", "backup", &file]);
    let nowhere = machines.file("nowhere/backup.db");
    let failed = machines.refused("alpha", &["network", "backup", &nowhere]);
    assert_eq!(failed.matches(&nowhere).count(), 1, "{failed}");
    let serving = machines.serve("alpha");
    machines.admit("beta");
    drop(serving);
    // The machine knows which network it has joined by that name.
    let refused = machines.with_words("beta", &["network", "restore", "team"], &other);
    refused.failure(1, &["the recovery words belong to another network"]);
    machines
        .with_words("gamma", &["network", "restore", "team", "--backup", &file], &other)
        .failure(1, &["the recovery words belong to another network"]);
    let mut running = Running::start(machines.command("gamma", &["network", "restore", "team"]));
    running.send(b"jewel \xff\xfe penalty\n");
    running.finish().failure(2, &["these are no recovery words", "no text"]);
    // One page is overwritten.
    let mut bytes = std::fs::read(&file).expect("a backup");
    let page = 3 * 4096;
    bytes[page..page + 4096].fill(0x5a);
    std::fs::write(&file, bytes).expect("room");
    let damaged = machines.with_words("gamma", &["network", "restore", "team", "--backup", &file], &words);
    damaged.failure(1, &[&file, "damaged"]);
    assert!(!machines.folder().join("gamma/controllers").exists());
}
