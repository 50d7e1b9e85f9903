//! C programs that join a managed network.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::build::{Mode, Program, launcher};

/// Process that is killed at the end of its test.
struct Controller(Child);

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns a command of `peersock` on a machine.
fn peersock(state: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(launcher());
    command.args(words).env("PEERSOCK_STATE", state).env("PEERSOCK_INTERFACE", "lo");
    command.env("PEERSOCK_PERSIST", "0").env_remove("PEERSOCK_OWN_NODE");
    command
}

/// A network with a controller on a machine, which ends with it.
struct Team {
    place: tempfile::TempDir,
    id: String,
    _serving: Controller,
}

impl Team {
    fn new() -> Team {
        let place = tempfile::tempdir().expect("room");
        let alpha = place.path().join("alpha");
        let said = ok(&alpha, &["network", "create", "team", "--pool", "10.77.0.0/24", "--name", "alpha"]);
        let line = said.lines().find_map(|line| line.strip_prefix("network team")).expect("the network's ID");
        let id = line.chars().filter(char::is_ascii_hexdigit).collect();
        let serving = peersock(&alpha, &["controller", "-n", "team"]).stderr(Stdio::piped()).spawn();
        let mut serving = Controller(serving.expect("it is built"));
        let said = BufReader::new(serving.0.stderr.take().expect("a pipe")).lines();
        let mut said = said.map(|line| line.expect("text"));
        assert!(said.any(|line| line.contains("serving team")), "it ends");
        Team { place, id, _serving: serving }
    }

    fn machine(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Runs a command on the controller's machine.
    fn administer(&self, words: &[&str]) -> String {
        ok(&self.machine("alpha"), words)
    }
}

fn ok(state: &Path, words: &[&str]) -> String {
    let output = peersock(state, words).output().expect("it is built");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[test]
fn a_program_joins_by_an_invite_with_its_own_node_or_the_one_of_its_machine() {
    let Some(program) = Program::new("managed.c").with_launcher().build(Mode::Plain) else { return };
    let team = Team::new();
    for (owner, shares, address) in [("own", "1", "10.77.0.2"), ("shared", "", "10.77.0.3")] {
        let state = team.machine(owner);
        let invite = team.administer(&["network", "invite", "--name", owner]);
        // The invite is used once, and leads the same machine to the same place again.
        let mut before = None;
        for _ in 0..2 {
            let mut command = Command::new(&program.path);
            command.arg(&state).arg(&invite).env("PEERSOCK_PROGRAM", launcher());
            command.env("PEERSOCK_OWN_NODE", shares).env("PEERSOCK_PERSIST", "0");
            let output = command.output().expect("it was just built");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let line = String::from_utf8(output.stdout).expect("text").trim().to_owned();
            let words: Vec<_> = line.split(' ').collect();
            assert!(words[0] == owner && words.contains(&address), "{line}");
            assert_eq!(*before.get_or_insert_with(|| line.clone()), line);
        }
    }
}

#[test]
fn a_program_of_libzt_s_kind_joins_by_the_id_once_somebody_admits_it() {
    let Some(program) = Program::new("libzt_managed.c").build(Mode::Plain) else { return };
    let team = Team::new();
    let start = |machine: &str| {
        let mut command = Command::new(&program.path);
        command.arg(team.machine(machine)).arg(&team.id);
        Controller(command.stdout(Stdio::piped()).spawn().expect("it was just built"))
    };
    for (machine, decision) in [("beta", "approve"), ("gamma", "deny"), ("beta", "")] {
        let line = decided(&team, &mut start(machine), decision);
        assert_eq!(line, if decision == "deny" { "denied" } else { "10.77.0.2" });
    }
}

#[test]
fn a_program_joins_by_the_id_with_its_own_node_or_the_one_of_its_machine() {
    let Some(program) = Program::new("managed_by_id.c").with_launcher().build(Mode::Plain) else { return };
    let team = Team::new();
    let cases = [
        ("own", "1", "approve", "own 10.77.0.2"),
        ("own", "1", "", "own 10.77.0.2"),
        ("shared", "", "approve", "shared 10.77.0.3"),
        ("shared", "", "", "shared 10.77.0.3"),
        ("refused", "1", "deny", "denied"),
        ("refused-too", "", "deny", "denied"),
    ];
    for (machine, shares, decision, expected) in cases {
        let mut command = Command::new(&program.path);
        command.arg(team.machine(machine)).arg(&team.id).env("PEERSOCK_PROGRAM", launcher());
        command.env("PEERSOCK_OWN_NODE", shares).env("PEERSOCK_PERSIST", "0").stdout(Stdio::piped());
        let mut running = Controller(command.spawn().expect("it was just built"));
        assert_eq!(decided(&team, &mut running, decision), expected, "{machine}");
    }
}

/// Decides about a program's request once it waits, if it is to wait. Returns its last line, after its end.
fn decided(team: &Team, running: &mut Controller, decision: &str) -> String {
    let said = BufReader::new(running.0.stdout.take().expect("a pipe")).lines();
    let mut said = said.map(|line| line.expect("text"));
    let mut line = said.next().expect("a line");
    if decision.is_empty() {
        // A member that starts again may not wait at all.
        line = if line == "waits" { said.next().expect("a line") } else { line };
    } else {
        assert_eq!(line, "waits");
        let members = || team.administer(&["network", "members", "--json"]);
        let until = Instant::now() + Duration::from_secs(60);
        let code = loop {
            let found: serde_json::Value = serde_json::from_str(&members()).expect("JSON");
            if let Some(code) = found["pending"][0]["code"].as_str() {
                break code.to_owned();
            }
            assert!(Instant::now() < until, "the request does not arrive");
            std::thread::sleep(Duration::from_millis(50));
        };
        team.administer(&["network", decision, &code]);
        line = said.next().expect("a line");
    }
    assert!(running.0.wait().expect("it is a child").success());
    line
}

#[test]
fn a_program_is_told_who_has_connected() {
    let Some(program) = Program::new("identify.c").with_launcher().build(Mode::Plain) else { return };
    let team = Team::new();
    let invite = |words: &[&str]| team.administer(&[&["network", "invite"][..], words].concat());
    let of_worker = ["--name", "worker", "--tag", "db", "--tag", "blue", "--claims", "hex:0001ff"];
    let worker = team.machine("worker");
    ok(&worker, &["join", &invite(&of_worker), "--as", "team"]);
    for shares in ["", "1"] {
        let state = team.machine(&format!("service{shares}"));
        let mut command = Command::new(&program.path);
        command.arg(&state).arg(invite(&["--name", &format!("service{shares}")]));
        command.env("PEERSOCK_PROGRAM", launcher()).env("PEERSOCK_OWN_NODE", shares);
        command.env("PEERSOCK_PERSIST", "0").stdout(Stdio::piped());
        let mut running = Controller(command.spawn().expect("it was just built"));
        let mut said = BufReader::new(running.0.stdout.take().expect("a pipe")).lines();
        let port = said.next().expect("a port").expect("text");
        let target = format!("service{shares}:{port}");
        let mut dialing = peersock(&worker, &["dial", "-n", "team", &target]);
        let mut dialing = Controller(dialing.stdin(Stdio::null()).spawn().expect("it is built"));
        let node = said.next().expect("it does not fail").expect("text");
        assert!(ok(&worker, &["id"]).contains(&node), "{node} is another node");
        assert!(running.0.wait().expect("it is a child").success());
        dialing.0.wait().expect("it is a child");
    }
}
