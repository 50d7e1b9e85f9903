//! A separate network for a command.

use std::process::Command;

use super::command::works;

/// A separate network for a command, with only the loopback interface.
pub(super) struct Alone;

impl Alone {
    const COMMAND: [&str; 6] = ["unshare", "--net", "--pid", "--mount-proc", "--fork", "--kill-child"];
    /// Reason for its absence.
    pub(super) const WITHOUT: &str = "needs root and iproute2, for a separate network";

    /// Returns the network, or None if this user cannot make one.
    pub(super) fn new() -> Option<Alone> {
        let mut probe = Command::new(Self::COMMAND[0]);
        probe.args(&Self::COMMAND[1..]).args(["ip", "link", "set", "lo", "up"]);
        works(probe).then_some(Alone)
    }

    /// Makes a command run in the network.
    pub(super) fn wrap(&self, command: &mut Command) {
        command.args(Self::COMMAND).args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    }
}
