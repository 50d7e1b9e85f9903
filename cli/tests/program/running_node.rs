//! Managed networks that a machine joins, leaves and makes while programs use its node.

use std::process::Command;

use serde_json::Value;

use crate::common::{Finished, Running, run, wait_until};
use crate::machines::Machines;

/// A network that needs no membership.
const OPEN: &str = "ff0001ffff000000";

impl Machines {
    /// Starts a program that uses the machine's node for something else. Returns its address, too.
    fn other_program(&self, machine: &str) -> (Running, String) {
        let running = Running::start(self.command(machine, &["listen", "-k", "-n", OPEN, "7100"]));
        let address = running.wait_for_target();
        (running, address)
    }

    fn status(&self, machine: &str) -> Value {
        serde_json::from_str(&self.ok(machine, &["status", "--json"])).expect("JSON")
    }

    /// Returns true if the machine's node has joined a network.
    fn has_joined(&self, machine: &str, id: &str) -> bool {
        let status = self.status(machine);
        status["networks"].as_array().expect("a list").iter().any(|one| one["id"] == id)
    }

    /// Returns the process of the machine's node.
    fn process(&self, machine: &str) -> String {
        std::fs::read_to_string(self.directory(machine).join("lock")).expect("a lock")
    }
}

#[test]
fn a_machine_makes_joins_names_and_leaves_networks_while_its_programs_run() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let (_other, _) = machines.other_program("beta");
    let node = machines.process("beta");

    let made = machines.ok("beta", &["network", "create", "own"]);
    assert!(made.contains("network own"), "{made}");
    let joined = machines.ok("beta", &["join", &machines.invite(&["--name", "beta"]), "--as", "team"]);
    assert!(joined.starts_with("joined team as beta, 10.77.0.2"), "{joined}");
    assert!(machines.ok("beta", &["join", &id, "--as", "crew"]).contains("is a member already of crew"));
    assert!(machines.ok("beta", &["join", &id, "--as", "team"]).contains("is a member already of team"));
    let listed = machines.ok("beta", &["networks"]);
    assert!(listed.contains("team") && listed.contains("own"), "{listed}");

    // No program uses the network now, and the next program uses it by the same node.
    wait_until("the node stays in the network", || !machines.has_joined("beta", &id));
    let (listening, address) = machines.listen("beta", "7000");
    machines.admit("gamma");
    let reached = run(machines.command("gamma", &["dial", "-n", "team", &format!("{address}:7000")]));
    assert!(reached.status.success(), "{}", reached.stderr);
    assert_eq!(machines.process("beta"), node);
    // An invite for a member is no harm while its programs use the network.
    let again = machines.ok("beta", &["join", &machines.invite(&[]), "--as", "team"]);
    assert!(again.contains("team as beta, 10.77.0.2"), "{again}");

    let left = machines.ok("beta", &["leave", "team"]);
    assert!(left.contains("left team"), "{left}");
    assert!(!machines.ok("beta", &["networks"]).contains("team"));
    let unreached = run(machines.command("gamma", &["dial", "-n", "team", "--timeout", "3", "beta:7000"]));
    assert!(!unreached.status.success());
    drop(listening);
    let back = machines.ok("beta", &["join", &machines.invite(&[]), "--as", "team"]);
    assert!(back.contains("joined team as beta, 10.77.0.2"), "{back}");
    let (_listening, address) = machines.listen("beta", "7000");
    let reached = run(machines.command("gamma", &["dial", "-n", "team", &format!("{address}:7000")]));
    assert!(reached.status.success(), "{}", reached.stderr);
    assert_eq!(machines.process("beta"), node);
}

#[test]
fn programs_start_while_a_machine_waits_for_approval_and_a_second_wait_shows_the_same_code() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let join = ["join", &id, "--as", "team", "--name", "beta"];
    let waiting = Running::start(machines.command("beta", &join));
    let code = waiting.wait_for_stderr("waiting for approval, code ");
    let code = code.split(':').next().expect("a code").to_owned();
    let (_other, _) = machines.other_program("beta");
    let second = Running::start(machines.command("beta", &join));
    assert_eq!(second.wait_for_stderr("waiting for approval, code ").split(':').next(), Some(&*code));
    // One that is killed takes nothing from the other one.
    let killed = Running::start(machines.command("beta", &join));
    killed.wait_for_stderr("waiting for approval, code ");
    drop(killed);
    machines.ok("alpha", &["network", "approve", &code]);
    for waited in [waiting, second] {
        let finished = waited.wait_for_end().success();
        assert!(finished.text().starts_with("joined team as beta, 10.77.0.2"), "{}", finished.text());
    }
    wait_until("the node stays in the network", || !machines.has_joined("beta", &id));
}

#[test]
fn a_wait_that_is_killed_leaves_no_network_behind() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let (_other, _) = machines.other_program("beta");
    let waiting = Running::start(machines.command("beta", &["join", &id, "--as", "team"]));
    waiting.wait_for_stderr("waiting for approval, code ");
    assert!(machines.has_joined("beta", &id));
    drop(waiting);
    wait_until("the node stays in the network", || !machines.has_joined("beta", &id));
    // The request and the name stay.
    let repeated = run(machines.command("beta", &["join", &id, "--wait", "0s"]));
    repeated.failure(1, &["waits for approval"]);
    assert!(machines.ok("beta", &["networks"]).contains("team"));
}

#[test]
fn a_node_that_shares_itself_with_nobody_joins_too() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let mut own = machines.command("beta", &["listen", "-k", "-n", OPEN, "7100"]);
    own.env("PEERSOCK_OWN_NODE", "1");
    let own = Running::start(own);
    own.wait_for_target();
    for variable in ["", "1"] {
        let mut join = machines.command("beta", &["join", &machines.invite(&[]), "--name", "beta"]);
        join.env("PEERSOCK_OWN_NODE", variable);
        let joined = run(join).success();
        assert!(joined.text().contains(" as beta, 10.77.0.2"), "{}", joined.text());
    }
    wait_until("the node stays in the network", || !machines.has_joined("beta", &id));
    assert!(machines.ok("beta", &["leave", &id]).contains("left"));
    drop(own);
    assert!(machines.refused("beta", &["leave", &id]).contains("has not joined"));
}

#[test]
fn two_joins_at_once_on_a_machine_without_a_node_are_one_membership() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let invite = machines.invite(&["--name", "beta"]);
    let start = |own: &str| {
        let mut command = machines.command("beta", &["join", &invite, "--as", "team"]);
        command.env("PEERSOCK_OWN_NODE", own);
        Running::start(command)
    };
    let joins: Vec<_> = ["", "", "", "1", "1"].into_iter().map(start).collect();
    for joined in joins {
        let finished = joined.wait_for_end().success();
        assert!(finished.text().contains("beta, 10.77.0.2"), "{}", finished.text());
    }
    assert_eq!(machines.members().len(), 2);
    assert!(machines.ok("beta", &["networks"]).contains(&id));
}

#[test]
fn one_of_two_networks_that_are_joined_at_once_gets_a_name() {
    let machines = Machines::new();
    let (id, serving) = machines.network();
    let first = machines.invite(&["--uses", "2"]);
    drop(serving);
    machines.ok("omega", &["network", "create", "crew", "--name", "omega"]);
    let crew = Running::start(machines.command("omega", &["controller", "-n", "crew"]));
    crew.wait_for_stderr("serving crew");
    let second = machines.ok("omega", &["network", "invite", "--uses", "2"]);
    let joining = [("beta", ""), ("gamma", "1")].map(|(machine, own)| {
        let mut join = machines.command(machine, &["join", &first, "--as", "office", "--name", machine]);
        join.env("PEERSOCK_OWN_NODE", own);
        let joining = Running::start(join);
        joining.wait_for_stderr("looking for a controller");
        // No network has the name yet, and no other network gets it.
        let said = format!("network {id} has the name `office` on this machine");
        for words in [&["join", &second, "--as", "office"][..], &["network", "create", "office"]] {
            run(machines.command(machine, words)).failure(1, &[&said, "hint: choose another name"]);
        }
        joining
    });
    let _serving = machines.serve("alpha");
    for (machine, joining) in ["beta", "gamma"].iter().zip(joining) {
        let finished = joining.wait_for_end().success();
        assert!(finished.text().starts_with(&format!("joined office as {machine}")), "{}", finished.text());
        // The other invite is not used.
        let joined = machines.ok(machine, &["join", &second, "--as", "crew", "--name", machine]);
        assert!(joined.starts_with(&format!("joined crew as {machine}")), "{joined}");
        let listed = machines.ok(machine, &["networks"]);
        assert!(listed.contains("office") && listed.contains("crew"), "{listed}");
    }
}

#[test]
fn each_of_several_joins_of_one_network_gives_its_name_or_says_that_another_one_has() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let joining = ["team", "crew", "office"].map(|name| {
        let joining =
            Running::start(machines.command("beta", &["join", &id, "--as", name, "--name", "beta"]));
        let code = joining.wait_for_stderr("waiting for approval, code ")[..7].to_owned();
        (name, joining, code)
    });
    machines.ok("alpha", &["network", "approve", &joining[0].2]);
    for (name, joining, _) in joining {
        let finished = joining.wait_for_end().success();
        let is_applied = finished.text().starts_with(&format!("joined {name} as beta"));
        let is_told = finished.stderr.contains(&format!("here, and not {name}: another command"));
        assert!(is_applied != is_told, "{name}: {}{}", finished.text(), finished.stderr);
    }
    let listed = machines.ok("beta", &["networks"]);
    assert!(["team", "crew", "office"].iter().any(|name| listed.starts_with(name)), "{listed}");
}

#[test]
fn an_invite_takes_over_from_a_wait_for_approval() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    for (machine, own) in [("beta", ""), ("gamma", "1")] {
        let mut join = machines.command(machine, &["join", &id, "--as", "team"]);
        join.env("PEERSOCK_OWN_NODE", own);
        let waiting = Running::start(join);
        waiting.wait_for_stderr("waiting for approval, code ");
        let joined = machines.ok(machine, &["join", &machines.invite(&["--name", machine]), "--as", "team"]);
        assert!(joined.starts_with(&format!("joined team as {machine}")), "{joined}");
        let finished = waiting.wait_for_end().success();
        assert!(finished.text().starts_with(&format!("joined team as {machine}")), "{}", finished.text());
    }
    let listed = machines.ok("alpha", &["network", "members"]);
    assert!(!listed.contains("waits"), "{listed}");
}

#[test]
fn joins_and_leaves_follow_each_other_at_once() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    for is_running in [false, true] {
        let other = is_running.then(|| machines.other_program("beta"));
        for _ in 0..6 {
            let invite = machines.invite(&["--name", "beta"]);
            let joined = machines.ok("beta", &["join", &invite, "--as", "team"]);
            assert!(joined.starts_with("joined team as beta, 10.77.0.2"), "{joined}");
            let grouped = format!("{}-{}-{}-{}", &id[..4], &id[4..8], &id[8..12], &id[12..]);
            assert!(machines.ok("beta", &["leave", &grouped]).contains("left"));
        }
        drop(other);
    }
    assert_eq!(machines.members().len(), 2);
}

#[test]
fn no_network_gets_the_id_of_another_one_as_its_name() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let invite = machines.invite(&[]);
    for name in [OPEN, "e18a-4c02-77d1-9b3f"] {
        let refused = machines.refused("beta", &["join", &invite, "--as", name]);
        assert!(refused.contains("is the ID of a network"), "{refused}");
        let refused = machines.refused("alpha", &["network", "create", name]);
        assert!(refused.contains("is the ID of a network"), "{refused}");
    }
    let joined = machines.ok("beta", &["join", &invite, "--as", &id, "--name", "beta"]);
    assert!(joined.starts_with(&format!("joined {id} as beta")), "{joined}");
    assert!(machines.ok("alpha", &["network", "settings", "-n", &id]).contains("10.77.0.0/24"));
}

#[test]
fn a_network_that_is_served_here_is_not_left() {
    let machines = Machines::new();
    let (id, serving) = machines.network();
    let refused = machines.refused("alpha", &["leave", "team", "--force"]);
    assert!(refused.contains("a controller serves network") && refused.contains(&id), "{refused}");
    assert!(refused.contains("hint: end `peersock controller`"), "{refused}");
    assert_eq!(machines.members().len(), 1);
    drop(serving);
    assert!(machines.ok("alpha", &["leave", "team", "--force"]).contains("left team"));
}

#[test]
fn a_network_is_not_left_beside_a_process_that_shares_no_node() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    machines.admit("beta");
    let root = ["root", "--listen", "127.0.0.1", "--port", "0"];
    let mut root = machines.command("beta", &root);
    root.arg("--state").arg(machines.directory("beta"));
    let root = Running::start(root);
    root.wait_for_stderr("listening on");
    let refused = machines.refused("beta", &["leave", &id]);
    assert!(refused.contains(&format!("is in use by process {}", root.id())), "{refused}");
    assert!(refused.contains(&format!("`kill {}`", root.id())), "{refused}");
}

#[test]
fn a_join_without_an_invite_right_after_a_wrong_one_asks_for_approval() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let used = machines.invite(&["--name", "gamma"]);
    machines.ok("gamma", &["join", &used]);
    let _other = machines.other_program("beta");
    assert!(machines.refused("beta", &["join", &used]).contains("as often as it may be"));
    let refused = machines.refused("beta", &["join", &id, "--wait", "0s"]);
    assert!(refused.contains("the request waits for approval, code"), "{refused}");
}

#[test]
fn a_machine_whose_disk_was_full_joins_when_it_has_room_again() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let invite = machines.invite(&["--name", "beta"]);
    let state = machines.directory("beta");
    std::fs::create_dir(&state).expect("room");
    // The other program keeps the node, which has tried to write before.
    let script = "set -e; mount -t tmpfs -o size=256k,mode=700 tmpfs \"$PEERSOCK_STATE\"
        \"$0\" listen -k -n \"$3\" 9000 2> \"$4\" & other=$!
        trap 'kill $other; wait $other || true' EXIT
        until grep -q listening \"$4\"; do sleep 0.05; done
        cat /dev/zero > \"$PEERSOCK_STATE/large\" 2> /dev/null || true
        \"$0\" join \"$2\" && exit 9
        rm \"$PEERSOCK_STATE/large\"
        \"$0\" join \"$2\"";
    let said = machines.directory("said");
    let Some(finished) =
        in_a_namespace(&machines, script, &[&id, &invite, OPEN, said.to_str().expect("text")])
    else {
        eprintln!("SKIP a_machine_whose_disk_was_full: no mount namespace here");
        return;
    };
    assert!(finished.status.success(), "{}{}", finished.text(), finished.stderr);
    assert!(finished.stderr.contains("the membership is not kept"), "{}", finished.stderr);
    assert!(finished.text().starts_with("joined team as beta"), "{}", finished.text());
}

#[test]
fn programs_share_a_node_whose_disk_is_full_and_a_change_that_cannot_be_kept_is_refused() {
    let machines = Machines::new();
    let state = machines.directory("beta");
    std::fs::create_dir(&state).expect("room");
    let script = "set -e; mount -t tmpfs -o size=8m,mode=700 tmpfs \"$PEERSOCK_STATE\"
        said() { until grep -q \"$1\" \"$2\"; do sleep 0.05; done; }
        \"$0\" listen -k -n \"$1\" 9000 2> \"$2/first\" > \"$2/got-first\" & first=$!
        trap 'kill $first $second; wait' EXIT
        said listening \"$2/first\"
        cat /dev/zero > \"$PEERSOCK_STATE/large\" 2> /dev/null || true
        \"$0\" listen -k -n \"$1\" 9001 2> \"$2/second\" > \"$2/got-second\" & second=$!
        said listening \"$2/second\"
        place=$(sed -n 's/.*listening on \\(.*\\):9001 .*/\\1/p' \"$2/second\")
        # By a third program of the node, and from elsewhere.
        echo within | \"$0\" dial -n \"$1\" \"$place:9001\"
        echo from elsewhere | \"$0\" dial -n \"$1\" --state \"$2/gamma\" \"$place:9000\"
        said within \"$2/got-second\"; said elsewhere \"$2/got-first\"
        \"$0\" network create team --pool 10.77.0.0/24 && exit 9
        \"$0\" status --json
        rm \"$PEERSOCK_STATE/large\"
        \"$0\" network create team --pool 10.77.0.0/24 > \"$2/made\"";
    let folder = machines.directory("gamma").parent().expect("a folder").to_owned();
    let Some(finished) = in_a_namespace(&machines, script, &[OPEN, folder.to_str().expect("text")]) else {
        eprintln!("SKIP programs_share_a_node_whose_disk_is_full: no mount namespace here");
        return;
    };
    assert!(finished.status.success(), "{}{}", finished.text(), finished.stderr);
    assert!(finished.stderr.contains("no space is left for the store"), "{}", finished.stderr);
    assert!(finished.stderr.contains("hint: check the disk"), "{}", finished.stderr);
    let status: Value = serde_json::from_str(finished.text()).expect("JSON");
    assert_eq!(status["programs"].as_array().expect("a list").len(), 2, "{status}");
}

/// Runs a script as the machine `beta`, with the program as `$0`, in a namespace in which it may mount file
/// systems. Returns `None` where there is none.
fn in_a_namespace(machines: &Machines, script: &str, arguments: &[&str]) -> Option<Finished> {
    in_namespaces(machines, "beta", &["--mount"], script, arguments)
}

/// Runs a script as a machine, with the program as `$0`, in namespaces of which it is the root user. Returns
/// `None` where there are none.
pub(crate) fn in_namespaces(
    machines: &Machines,
    machine: &str,
    namespaces: &[&str],
    script: &str,
    arguments: &[&str],
) -> Option<Finished> {
    if namespaces.contains(&"--mount") && !may_mount() {
        return None;
    }
    let mut command = Command::new("unshare");
    let own = machines.command(machine, &[]);
    command.args(["--user", "--map-root-user"]).args(namespaces).args(["bash", "-c", script]);
    command.arg(own.get_program()).args(arguments);
    for (name, value) in own.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let finished = run(command);
    (!finished.stderr.contains("unshare:")).then_some(finished)
}

/// Returns true if a test may mount a file system in a namespace.
fn may_mount() -> bool {
    let words = ["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"];
    Command::new("unshare").args(words).status().is_ok_and(|status| status.success())
}
