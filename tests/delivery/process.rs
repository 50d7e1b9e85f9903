//! Another process of the test's own program, with one test to run there, and a node of its own. Tests of
//! several crates include this file.

use std::env;
use std::fmt::Display;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Set in the process: what its test is to do.
const VARIABLE: &str = "PEERSOCK_TEST_VICTIM";

/// The process. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    /// Where it listens, or from where it has connected.
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts the program with `test` alone, which finds `order`, and waits for the address that it says.
    pub(crate) fn start(test: &str, order: &str) -> Process {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "--nocapture", test])
            .env(VARIABLE, order)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = BufReader::new(child.stderr.take().expect("a pipe"));
        let address = output.lines().map_while(Result::ok).find_map(|line| line.parse().ok());
        Process { child, address: address.expect("it says where it is") }
    }

    /// Lets it go on, where it waits for that.
    pub(crate) fn go_on(&mut self) {
        self.child.stdin.take().expect("it is told once").write_all(b"\n").expect("it listens");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is our child");
    }

    /// Kills it, if it has not ended, and waits until it has.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The order, in such a process; `None` in that of the tests.
pub(crate) fn order() -> Option<String> {
    env::var(VARIABLE).ok()
}

/// Says to who has started this process where it is.
pub(crate) fn say(address: impl Display) {
    // The test harness may have begun a line.
    eprintln!("\n{address}");
}

/// Waits until who has started this process says [`Process::go_on`].
pub(crate) fn wait_to_go_on() {
    let read = io::stdin().read_line(&mut String::new()).expect("a pipe");
    assert_ne!(read, 0, "nobody says so any more");
}
