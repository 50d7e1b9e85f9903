//! Machines that only a root leads to each other: network namespaces, each with a cable to the one of the
//! root, which forwards nothing. They are removed with the test. This needs root and `ip`.

use std::ffi::OsStr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::{Running, without_variables};

/// Address of the root.
const ROOT: &str = "10.97.0.1";

/// Number of stars that were built in this process, because tests may run in threads of one process.
static STARS: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Star {
    machines: Vec<String>,
    /// Namespaces of the root and of the machines.
    names: Vec<String>,
    /// Line by which nodes find the root.
    roots: String,
    root: Option<Running>,
    _state: tempfile::TempDir,
}

impl Star {
    /// Builds namespaces for these machines, and starts the root. Returns `None`, after printing why, if that
    /// is impossible.
    pub(crate) fn build(test: &str, machines: &[&str]) -> Option<Star> {
        let number = STARS.fetch_add(1, Ordering::Relaxed);
        let name = |end: usize| format!("ps-{}-star{number}-{end}", std::process::id());
        let names: Vec<_> = (0..=machines.len()).map(name).collect();
        if !ip(["netns", "add", &names[0]]) {
            eprintln!("SKIP {test}: network namespaces need root and the program ip");
            return None;
        }
        let state = tempfile::tempdir().expect("a directory");
        let machines = machines.iter().map(|&machine| machine.to_owned()).collect();
        let mut star = Star { machines, names, roots: String::new(), root: None, _state: state };
        star.lay();
        let words = ["root", "--listen", ROOT, "--drain", "0"];
        let mut command = within(&star.names[0], &words);
        command.env("PEERSOCK_STATE", star._state.path().join("root"));
        let root = Running::start(command);
        star.roots = root.wait_for_stdout("\n").trim().to_owned();
        star.root = Some(root);
        Some(star)
    }

    fn lay(&self) {
        let hub = &self.names[0];
        assert!(ip(["-n", hub, "link", "set", "lo", "up"]));
        assert!(ip(["-n", hub, "addr", "add", &format!("{ROOT}/32"), "dev", "lo"]));
        for (number, end) in self.names.iter().enumerate().skip(1) {
            let link = format!("cable{number}");
            assert!(ip(["netns", "add", end]));
            assert!(ip([
                "link", "add", &link, "netns", end, "type", "veth", "peer", "name", &link, "netns", hub
            ]));
            for (side, host) in [(end, 2), (hub, 1)] {
                let address = format!("10.97.{number}.{host}/24");
                assert!(ip(["-n", side, "addr", "add", &address, "dev", &link]));
                assert!(ip(["-n", side, "link", "set", "lo", "up"]));
                assert!(ip(["-n", side, "link", "set", &link, "up"]));
            }
            // Nothing else can be reached, whatever the system forwards.
            let by = format!("10.97.{number}.1");
            assert!(ip(["-n", end, "route", "add", ROOT, "via", &by]));
        }
    }

    /// Returns a command of the program on a machine, whose node uses the root.
    pub(crate) fn command(&self, machine: &str, words: &[&str]) -> Command {
        let place = self.machines.iter().position(|one| one == machine).expect("a machine of the star");
        let mut command = within(&self.names[place + 1], words);
        command.env("PEERSOCK_ROOTS", &self.roots);
        command
    }
}

impl Drop for Star {
    fn drop(&mut self) {
        drop(self.root.take());
        for name in &self.names {
            ip(["netns", "del", name]);
        }
    }
}

/// Returns a command of the program in a namespace.
fn within(name: &str, words: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", name, env!("CARGO_BIN_EXE_peersock")]).args(words);
    without_variables(&mut command);
    command
}

fn ip(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> bool {
    let done = Command::new("ip").args(words).output();
    done.is_ok_and(|output| output.status.success())
}
