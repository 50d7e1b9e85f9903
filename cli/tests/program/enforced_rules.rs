//! Rules of a network that real programs meet: refusals at once, open connections that end, and no
//! controller.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Running, run, write_file};
use crate::machines::Machines;

/// Time in which a refused program has its answer. One without an answer waits for a minute.
const AT_ONCE: Duration = Duration::from_secs(15);

const DB_ONLY: &str = "default = \"deny\"\n\n[[rule]]\naction = \"allow\"\nfrom = \"member:gamma\"\n\
                       to = \"tag:db\"\nprotocol = \"tcp\"\nports = 7000\nnote = \"the shop\"\n";

#[test]
fn members_enforce_the_rules_that_a_person_applies_also_without_the_controller() {
    let machines = Machines::new();
    let (_, serving) = machines.network();
    let invite = machines.invite(&["--name", "beta", "--tag", "db"]);
    machines.ok("beta", &["join", &invite, "--as", "team"]);
    machines.admit("gamma");
    let (listening, address) = machines.listen("beta", "7000");
    let (other, _) = machines.listen("beta", "7001");
    let (to, to_other) = (format!("{address}:7000"), format!("{address}:7001"));
    assert!(machines.dial("gamma", &to_other).status.success(), "there are no rules yet");
    let dial = |to: &str, listening: &Running| {
        let mut open = Running::start(machines.command("gamma", &["dial", "-n", "team", to]));
        open.send(b"hello\n");
        listening.wait_for_stdout("hello");
        open
    };
    let (open, mut bystander) = (dial(&to_other, &other), dial(&to, &listening));

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.toml");
    write_file(&file, DB_ONLY, 0o600);
    let path = file.to_str().expect("a path of the test");
    let applied = machines.ok("alpha", &["network", "rules", "apply", path, "--json"]);
    let applied: Value = serde_json::from_str(&applied).expect("JSON");
    assert_eq!((&applied["know"], &applied["ended"]), (&applied["connected"], &Value::Array(Vec::new())));
    let ended = open.wait_for_end();
    assert!(!ended.status.success(), "the open connection goes on: {}", ended.stderr);
    let refused = |machine: &str, to: &str| {
        let begun = Instant::now();
        let dialed = machines.dial(machine, to);
        assert!(!dialed.status.success(), "{to} is reached");
        assert!(begun.elapsed() < AT_ONCE, "{:?}: {}", begun.elapsed(), dialed.stderr);
        dialed.stderr
    };
    let said = refused("gamma", &to_other);
    assert!(said.contains("do not allow it") && said.contains("peersock why"), "{said}");
    bystander.send(b"it goes on\n");
    listening.wait_for_stdout("it goes on");
    assert!(machines.dial("gamma", &to).status.success(), "a rule allows it");
    let why = machines.ok("gamma", &["why", "gamma", &to]);
    assert!(why.starts_with("allowed: ") && why.contains("note: the shop"), "{why}");
    assert!(machines.ok("gamma", &["networks"]).contains("rules of "));
    assert_eq!(machines.ok("alpha", &["network", "rules", "show"]), DB_ONLY.trim_end());

    // Both machines start again while no controller is there.
    drop((serving, listening, other, bystander));
    ["alpha", "beta", "gamma"].iter().for_each(|machine| machines.wait_for_end_of_node(machine));
    let (_listening, _) = machines.listen("beta", "7000");
    let (_other, _) = machines.listen("beta", "7001");
    refused("gamma", &to_other);
    assert!(machines.dial("gamma", &to).status.success());
    let why = run(machines.command("gamma", &["why", "beta:7001", "--to-tag", "db", "--json"]));
    let why: Value = serde_json::from_slice(&why.stdout).expect("JSON");
    assert_eq!((&why["allowed"], &why["refused_by"]), (&false.into(), &"from".into()));
}
