//! A network of its own for a command.

use std::process::Command;

use super::command::works;

/// A network of its own for a command, with the loopback interface alone.
pub(super) struct Alone;

impl Alone {
    const COMMAND: [&str; 6] = ["unshare", "--net", "--pid", "--mount-proc", "--fork", "--kill-child"];
    /// The reason why there may be none.
    pub(super) const WITHOUT: &str = "needs root and iproute2, for a network of its own";

    /// None if this user cannot.
    pub(super) fn new() -> Option<Alone> {
        let mut probe = Command::new(Self::COMMAND[0]);
        probe.args(&Self::COMMAND[1..]).args(["ip", "link", "set", "lo", "up"]);
        works(probe).then_some(Alone)
    }

    /// Has a command run there.
    pub(super) fn wrap(&self, command: &mut Command) {
        command.args(Self::COMMAND).args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    }
}
