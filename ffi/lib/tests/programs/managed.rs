//! C programs that join a managed network by an invite.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

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

#[test]
fn a_program_joins_by_an_invite_with_its_own_node_or_the_one_of_its_machine() {
    let Some(program) = Program::new("managed.c").with_launcher().build(Mode::Plain) else { return };
    let place = tempfile::tempdir().expect("room");
    let alpha = place.path().join("alpha");
    let ok = |words: &[&str]| {
        let output = peersock(&alpha, words).output().expect("it is built");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    ok(&["network", "create", "team", "--pool", "10.77.0.0/24", "--name", "alpha"]);
    let serving = peersock(&alpha, &["controller", "-n", "team"]).stderr(Stdio::piped()).spawn();
    let mut serving = Controller(serving.expect("it is built"));
    let said = BufReader::new(serving.0.stderr.take().expect("a pipe")).lines();
    let mut said = said.map(|line| line.expect("text"));
    assert!(said.any(|line| line.contains("serving team")), "it ends");
    for (owner, shares, address) in [("own", "1", "10.77.0.2"), ("shared", "", "10.77.0.3")] {
        let state = place.path().join(owner);
        let invite = ok(&["network", "invite", "--name", owner]);
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
