//! `peersock id --rekey` on the machine of a controller: the network goes on, and the former key ends.

use std::fs;
use std::time::{Duration, Instant};

use peersock::state::StateDir;
use peersock::{NetworkId, PublicIdentity};
use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Finished, Running, run, signal, wait_until};
use crate::machines::Machines;
use crate::star::Star;

/// Returns the key of a machine.
fn key_of(machines: &Machines, machine: &str) -> PublicIdentity {
    StateDir::peek_identity(&machines.directory(machine)).expect("readable").expect("an identity")
}

/// Gives a machine another key, as soon as its node has noticed the end of its last program.
fn rekeyed(machines: &Machines, machine: &str, options: &[&str]) -> Finished {
    let done = std::cell::RefCell::new(None);
    wait_until("the node does not end", || {
        let finished = run(machines.command(machine, &[&["id", "--rekey"], options].concat()));
        let is_in_use = finished.stderr.contains("is in use by");
        done.replace(Some(finished));
        !is_in_use
    });
    done.take().expect("a command").success()
}

/// Ends a controller, and gives its machine another key.
fn rotated(machines: &Machines, serving: Running, options: &[&str]) -> String {
    let before = key_of(machines, "alpha");
    signal(Signal::TERM, serving.id());
    serving.finish();
    let told = rekeyed(machines, "alpha", options);
    let after = key_of(machines, "alpha");
    assert_ne!(before, after);
    assert!(told.text().contains(&after.to_string()), "{}", told.text());
    told.stderr
}

/// Returns the issuer of the certificate that a machine has kept, and the controllers that it knows.
fn kept(machines: &Machines, machine: &str, id: &str) -> (PublicIdentity, Vec<PublicIdentity>) {
    let id: NetworkId = id.parse().expect("an ID");
    let record = StateDir::membership(&machines.directory(machine), id).expect("readable").expect("a record");
    (*record.credentials.expect("a member").delegation().issuer(), record.controllers)
}

/// Waits until machines have certificates of the controller's present key. Returns the time that took.
fn wait_for_renewal(machines: &Machines, id: &str, members: &[&str]) -> Duration {
    let (begun, key) = (Instant::now(), key_of(machines, "alpha"));
    for machine in members {
        wait_until("a member does not come back", || kept(machines, machine, id).0 == key);
    }
    begun.elapsed()
}

/// Holds a connection from gamma to beta.
struct Talk {
    listening: Running,
    dialing: Running,
    said: usize,
}

impl Talk {
    fn begin(machines: &Machines) -> Talk {
        let (listening, _) = machines.listen("beta", "7000");
        let words = ["dial", "-n", "team", "--peer-timeout", "0", "beta:7000"];
        let dialing = Running::start(machines.command("gamma", &words));
        let mut talk = Talk { listening, dialing, said: 0 };
        talk.go_on();
        talk
    }

    fn go_on(&mut self) {
        self.said += 1;
        let line = format!("line {}\n", self.said);
        self.dialing.send(line.as_bytes());
        self.listening.wait_for_stdout(&line);
    }
}

fn standing(machines: &Machines, key: &PublicIdentity) -> String {
    let node = key.node_id().to_string();
    let members = machines.members();
    let found = members.iter().find(|one| one["node"] == *node).expect("known");
    found["standing"].as_str().expect("a word").to_owned()
}

/// Copies a machine's state directory, as a thief does.
fn steal(machines: &Machines, from: &str, to: &str) {
    let (from, to) = (machines.directory(from), machines.directory(to));
    fs::create_dir(&to).expect("room");
    fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("its mode");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    }
}

#[test]
fn a_controller_s_key_changes_and_its_network_goes_on() {
    let machines = Machines::new();
    let (id, serving) = machines.network();
    ["beta", "gamma"].iter().for_each(|machine| machines.admit(machine));
    let mut talk = Talk::begin(&machines);
    let before = machines.invite(&["--name", "delta"]);
    let (first, old) = (key_of(&machines, "alpha"), kept(&machines, "beta", &id).0);
    assert_eq!(first, old);
    let used = machines.refused("alpha", &["id", "--rekey"]);
    assert!(used.contains("is in use by"), "{used}");

    let told = rotated(&machines, serving, &[]);
    for said in [
        "team goes on with the new key: start `peersock controller -n team` again",
        "what the former one has signed counts for another 1d",
        "invites of team from before lead here on the local network and by the DHT alone",
        "make a backup of team",
    ] {
        assert!(told.contains(said), "{said} is not in {told}");
    }
    assert!(!told.contains("invite --replace"), "the machine has its network: {told}");
    let networks = machines.ok("alpha", &["networks"]);
    assert!(networks.contains("10.77.0.1"), "{networks}");
    talk.go_on();

    let serving = machines.serve("alpha");
    let second = key_of(&machines, "alpha");
    assert_eq!(
        (standing(&machines, &second), standing(&machines, &first)),
        ("member".into(), "removed".into())
    );
    wait_until("beta does not learn the key", || kept(&machines, "beta", &id).1.contains(&second));
    talk.go_on();
    // By the name and address of before, with an invite from before and one from after.
    let (_own, address) = machines.listen("alpha", "7001");
    assert_eq!(address, "10.77.0.1");
    for to in ["alpha:7001", "10.77.0.1:7001"] {
        let reached = machines.dial("gamma", to);
        assert!(reached.status.success(), "{to}: {}", reached.stderr);
    }
    let joined = machines.ok("delta", &["join", &before, "--as", "team"]);
    assert!(joined.starts_with("joined team as delta"), "{joined}");
    machines.admit("epsilon");
    assert!(machines.dial("delta", "beta:7000").status.success());
    // No member was out.
    talk.go_on();
    assert_eq!(kept(&machines, "delta", &id).0, second);
    drop((_own, serving));
}

#[test]
fn a_stolen_key_of_a_controller_ends_at_once_and_members_are_back() {
    let machines = Machines::new();
    let (id, serving) = machines.network();
    ["beta", "gamma"].iter().for_each(|machine| machines.admit(machine));
    let talk = Talk::begin(&machines);
    steal(&machines, "alpha", "thief");
    let told = rotated(&machines, serving, &["--now"]);
    for said in ["team has revoked the former key", "peersock network rekey --now -n team"] {
        assert!(told.contains(said), "{said} is not in {told}");
    }
    let _serving = machines.serve("alpha");
    let took = wait_for_renewal(&machines, &id, &["beta", "gamma"]);
    eprintln!("members are back after {took:?}");
    wait_until("gamma does not reach beta", || machines.dial("gamma", "beta:7000").status.success());
    // The thief has the credentials of before.
    let refused = machines.dial("thief", "10.77.0.2:7000");
    assert!(!refused.status.success(), "{}", refused.stderr);
    drop(talk);
    // Its record is written once it has heard the removal, which may come behind its certificate.
    let thief = key_of(&machines, "thief");
    wait_until("beta does not forget the key", || !kept(&machines, "beta", &id).1.contains(&thief));
}

#[test]
fn members_that_only_a_root_leads_to_follow_the_controller_s_key() {
    let test = "members_that_only_a_root_leads_to_follow_the_controller_s_key";
    let Some(star) = Star::build(test, &["alpha", "beta", "gamma", "delta"]) else { return };
    let machines = Machines::apart(star);
    let (id, serving) = machines.network();
    ["beta", "gamma"].iter().for_each(|machine| machines.admit(machine));
    let mut talk = Talk::begin(&machines);
    rotated(&machines, serving, &[]);
    let serving = machines.serve("alpha");
    let second = key_of(&machines, "alpha");
    for machine in ["beta", "gamma"] {
        wait_until("a member does not learn the key", || kept(&machines, machine, &id).1.contains(&second));
    }
    talk.go_on();
    machines.admit("delta");

    rotated(&machines, serving, &["--now"]);
    let _serving = machines.serve("alpha");
    let took = wait_for_renewal(&machines, &id, &["beta", "gamma"]);
    eprintln!("members are back after {took:?}");
    wait_until("gamma does not reach beta", || machines.dial("gamma", "beta:7000").status.success());
}

/// A process that is killed at any moment leaves one identity, and networks whose right is for that.
#[test]
fn a_change_that_is_killed_can_be_repeated() {
    let machines = Machines::new();
    let (id, serving) = machines.network();
    machines.admit("beta");
    signal(Signal::TERM, serving.id());
    serving.finish();
    machines.ok("alpha", &["network", "create", "office", "--name", "alpha"]);
    rekeyed(&machines, "alpha", &[]);
    let begun = Instant::now();
    rekeyed(&machines, "alpha", &[]);
    // Over the whole time that the command takes here.
    let step = begun.elapsed() / 10;
    let mut keys = vec![key_of(&machines, "alpha")];
    for round in 0..12 {
        let running = Running::start(machines.command("alpha", &["id", "--rekey"]));
        std::thread::sleep(step * round);
        signal(Signal::KILL, running.id());
        running.finish();
        keys.push(key_of(&machines, "alpha"));
        for network in ["team", "office"] {
            let listed = machines.ok("alpha", &["network", "members", "-n", network, "--json"]);
            let listed: Value = serde_json::from_str(&listed).expect("JSON");
            let own = key_of(&machines, "alpha").node_id().to_string();
            let is_own = |one: &&Value| one["node"] == *own && one["standing"] == "member";
            let all = listed["members"].as_array().expect("a list");
            assert_eq!(all.iter().filter(is_own).count(), 1, "{network}: {listed}");
        }
    }
    keys.dedup();
    eprintln!("{} of 12 had decided before they were killed", keys.len() - 1);
    rekeyed(&machines, "alpha", &["--now"]);
    let _serving = machines.serve("alpha");
    let (_listening, _) = machines.listen("beta", "7000");
    wait_for_renewal(&machines, &id, &["beta"]);
}

#[test]
fn what_cannot_follow_changes_nothing_and_is_said() {
    let machines = Machines::new();
    machines.create(&[]);
    let (_, words) = {
        let made =
            run(machines.command("alpha", &["network", "create", "paper", "--offline", "--name", "alpha"]));
        let words = made.stderr.lines().find_map(|line| line.split("it restores the network: ").nth(1));
        ((), words.expect("words").to_owned())
    };
    let before = key_of(&machines, "alpha");
    let rekey = ["id", "--rekey"];
    let refused = machines.with_words("alpha", &rekey, "");
    refused
        .failure(2, &["nothing is changed, because the key of paper is on paper", "recovery words of paper"]);
    let others = Machines::new();
    let (_, other) = others.create(&[]);
    let refused = machines.with_words("alpha", &rekey, &other);
    refused.failure(1, &["nothing is changed, because paper cannot follow", "another network"]);
    assert_eq!(key_of(&machines, "alpha"), before);
    let changed = machines.with_words("alpha", &rekey, &words).success();
    assert!(changed.stderr.contains("paper goes on with the new key"), "{}", changed.stderr);
    assert!(changed.stderr.contains("team goes on with the new key"), "{}", changed.stderr);
    assert_ne!(key_of(&machines, "alpha"), before);

    // A machine without a controller, and an option alone.
    machines.ok("beta", &["id"]);
    let refused = machines.refused("beta", &["id", "--rekey", "--now"]);
    assert!(
        refused.contains("no network has its controller here") && refused.contains("--replace"),
        "{refused}"
    );
    assert!(machines.refused("beta", &["id", "--now"]).contains("--rekey"));

    // A store that cannot be read stops all.
    let store = fs::read_dir(machines.directory("alpha").join("controllers")).expect("a folder").flatten();
    let store = store.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "db"));
    let (store, before) = (store.expect("a store"), key_of(&machines, "alpha"));
    let good = fs::read(&store).expect("a file");
    fs::write(&store, "no store, but a text that is long enough to be read as the header of one, and more")
        .expect("room");
    machines.refused("alpha", &rekey);
    assert_eq!(key_of(&machines, "alpha"), before);
    fs::write(&store, good).expect("room");
    machines.with_words("alpha", &rekey, &words).success();
}
