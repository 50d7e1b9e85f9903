//! A C program that shares the node of a state directory with other programs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::build::{Mode, Program, launcher};
use crate::run;

/// Ends a process when a test fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns a command of the program `peersock`, which uses nothing but the loopback interface.
fn peersock(words: &[&str], state: &Path) -> Command {
    let mut command = Command::new(launcher());
    command
        .args(words)
        .env("PEERSOCK_INTERFACE", "lo")
        .env_remove("PEERSOCK_STATE")
        .arg("--state")
        .arg(state);
    command
}

/// Returns an ad-hoc network that no other test uses.
pub(crate) fn network() -> String {
    format!("ff{:04x}ffff000000", run::port() % 6000 + 1)
}

/// Starts `peersock node` in a state directory, and waits for it.
fn start_node(state: &Path) -> Ended {
    let mut node = peersock(&["node"], state).stderr(Stdio::piped()).spawn().expect("it is built");
    let mut line = String::new();
    let stderr = node.stderr.take().expect("a pipe");
    BufReader::new(stderr).read_line(&mut line).expect("it says that it runs");
    assert!(line.contains("share it"), "{line}");
    Ended(node)
}

#[test]
fn a_c_program_shares_a_node_and_is_told_when_it_is_killed() {
    let Some(program) = Program::new("shared.c").with_launcher().build(Mode::Plain) else { return };
    let (state, network) = (program.folder.path().join("state"), network());
    let mut node = start_node(&state);
    let mut sharing = Command::new(&program.path);
    // After the end of the node it starts none by an installed program.
    sharing.env("PEERSOCK_PROGRAM", "none").env_remove("PEERSOCK_OWN_NODE");
    let mut sharing = Ended(sharing.arg(&state).arg(&network).stdout(Stdio::piped()).spawn().expect("built"));
    let mut lines = BufReader::new(sharing.0.stdout.take().expect("a pipe")).lines();
    let address = lines.next().expect("its address").expect("text");

    // A program under `run` shares the node, and has the network that its command line names.
    let at = format!("[{address}]:7000");
    let listening = peersock(&["listen", "-n", &network, "7000"], &state).output().expect("it is built");
    let said = String::from_utf8_lossy(&listening.stderr).into_owned();
    assert!(!listening.status.success() && said.contains("in use"), "{said}");

    // Another member.
    let elsewhere = tempfile::tempdir().expect("a directory");
    let mut dial = peersock(&["dial", "--quiet", "-n", &network, &at], elsewhere.path());
    let mut dial = Ended(dial.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is built"));
    dial.0.stdin.take().expect("a pipe").write_all(b"hello from beta\n").expect("it reads");
    let mut echo = String::new();
    dial.0.stdout.take().expect("a pipe").read_to_string(&mut echo).expect("text");
    assert_eq!(echo, "hello from beta\n");
    assert_eq!(lines.next().expect("a line").expect("text"), "echoed");

    node.0.kill().expect("it is our child");
    node.0.wait().expect("it is our child");
    assert!(sharing.0.wait().expect("it is our child").success());
}
