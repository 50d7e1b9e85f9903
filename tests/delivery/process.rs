//! Another process of the test's own program, with one test to run there, and a separate node. Tests of
//! several crates include this file.

use std::env;
use std::fmt::Display;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Variable set in the process. It has the order for its test.
const VARIABLE: &str = "PEERSOCK_TEST_VICTIM";

/// The process, which is killed on drop.
pub(crate) struct Process {
    child: Child,
    /// Address on which it listens, or from which it has connected.
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts the program with only `test`, which gets `order`, and waits for the address that it prints.
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

    /// Lets the process go on, if it waits for that.
    pub(crate) fn go_on(&mut self) {
        self.child.stdin.take().expect("it is told once").write_all(b"\n").expect("it listens");
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is our child");
    }

    /// Stops the process, and returns once it does nothing any more.
    #[allow(dead_code, reason = "few tests stop it")]
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let stopped = waitpid(Some(Pid::from_child(&self.child)), WaitOptions::UNTRACED);
        assert!(stopped.is_ok_and(|stopped| stopped.is_some_and(|(_, status)| status.stopped())));
    }

    /// Kills the process, if it has not ended, and waits for its end.
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

/// Returns the order in such a process; `None` in the process of the tests.
pub(crate) fn order() -> Option<String> {
    env::var(VARIABLE).ok()
}

/// Prints this process's address for its parent.
pub(crate) fn say(address: impl Display) {
    // The test harness may have begun a line.
    eprintln!("\n{address}");
}

/// Waits until the parent calls [`Process::go_on`].
pub(crate) fn wait_to_go_on() {
    let read = io::stdin().read_line(&mut String::new()).expect("a pipe");
    assert_ne!(read, 0, "nobody says so any more");
}
