//! A process beside `peersock up` that keeps CAP_NET_ADMIN, which the node's process drops. It restores
//! settings of the interfaces that others remove, and removes the exit's rules at the end.
//!
//! ```text
//! node ---- one byte, then another ----> guard, with CAP_NET_ADMIN
//! ```
//!
//! The guard receives only the node's bytes and kernel events. End of file without a last byte means that the
//! node was killed. The exit's rules then stay, so that no traffic bypasses the exit.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use peersock_tun::{
    Change, EXIT_TABLE, Filter, Upkeep, User, has_exit_rules, keep_network_privilege, remove_exit_rules,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::fork::{be, fork, stand_apart};
use crate::failure::{Failure, Outcome};
use crate::stdio;

/// Message: the node has set up everything; keep it.
const KEEP: u8 = 1;

/// Message: the node ends; remove the exit's rules.
const RELEASE: u8 = 2;

/// Message: the node ends, and the exit's rules belong to another command.
const DISMISS: u8 = 3;

/// Answer of the guard once signals no longer end it.
const READY: u8 = 4;

/// Maximum number of restored settings named in one line; the others are counted.
const MAX_NAMED_SETTINGS: usize = 4;

/// The guard of a running node.
#[derive(Debug)]
pub(super) struct Guard {
    process: Pid,
    pipe: UnixStream,
    /// Kept until both processes have ended.
    _filters: Vec<Filter>,
    has_exit: bool,
    /// True if a killed run has left rules, which block the machine's traffic until a new run is up.
    is_closed: bool,
}

impl Guard {
    /// Starts the guard, while this process has its privileges and a single thread, and has set no rules. The
    /// guard continues as `user`.
    pub(super) fn start(upkeep: Upkeep, has_exit: bool, user: Option<User>) -> Outcome<Guard> {
        let failed = |error: io::Error| {
            Failure::new(
                format_args!("cannot start the process that keeps the interfaces as they are: {error}"),
                "check that the program may start processes here (a sandbox may forbid it, or `ulimit -u`)",
            )
        };
        // Assumes leftover rules if that cannot be determined.
        let is_closed = has_exit && has_exit_rules().unwrap_or(true);
        let (mut pipe, its) = UnixStream::pair().map_err(failed)?;
        let Some(process) = fork().map_err(failed)? else {
            drop(pipe);
            be(|| guard(its, upkeep, has_exit, user))
        };
        drop(its);
        let mut answer = [0];
        match pipe.read(&mut answer).map_err(failed)? {
            1 if answer[0] == READY => {
                Ok(Guard { process, pipe, _filters: upkeep.into_filters(), has_exit, is_closed })
            }
            _ => Err(failed(io::Error::other("it ended at once"))),
        }
    }

    /// Makes the guard keep all settings from now on.
    pub(super) fn keep(&mut self) {
        // A failure shows at the end.
        let _ = self.pipe.write_all(&[KEEP]);
    }

    /// Records that the node is up; from now on its end removes the rules.
    pub(super) fn note_up(&mut self) {
        self.is_closed = false;
    }

    /// Makes the guard remove the exit's rules, and waits. A killed run's rules stay if this run is not up.
    pub(super) fn release(mut self) {
        if self.is_closed {
            return self.leave();
        }
        // The guard may have been killed.
        let is_told = self.pipe.write_all(&[RELEASE]).is_ok();
        if !(self.has_ended_well() && is_told) && self.has_exit {
            stdio::note(format_args!("the exit's rules are still there: {REMOVAL}"));
        }
    }

    /// Ends the guard without a message; existing rules do not belong to this node.
    pub(super) fn dismiss(mut self) {
        let _ = self.pipe.write_all(&[DISMISS]);
        self.has_ended_well();
    }

    /// Leaves the rules in place. The guard prints a message.
    pub(super) fn leave(self) {
        let _ = self.pipe.shutdown(std::net::Shutdown::Write);
        self.has_ended_well();
    }

    fn has_ended_well(&self) -> bool {
        let ended = retry_on_intr(|| waitpid(Some(self.process), WaitOptions::empty()));
        ended.is_ok_and(|end| end.is_some_and(|(_, end)| end.exit_status() == Some(0)))
    }
}

/// Command for removing the rules by hand.
const REMOVAL: &str = "remove the rules with `ip rule flush protocol 74` and `ip -6 rule flush protocol 74`";

// The text contains the table's number.
const _: () = assert!(EXIT_TABLE == 74);

fn guard(mut pipe: UnixStream, mut upkeep: Upkeep, has_exit: bool, user: Option<User>) -> Outcome {
    // Without the tun devices, so that the interfaces disappear with the node.
    stand_apart(upkeep.descriptors().chain([pipe.as_fd()]))?;
    keep_network_privilege(user)?;
    pipe.write_all(&[READY])?;
    let mut is_kept = false;
    loop {
        match wait(&pipe, is_kept.then_some(&mut upkeep))? {
            Some(KEEP) => is_kept = true,
            Some(RELEASE) if has_exit => {
                return remove_exit_rules().map_err(|error| {
                    Failure::new(format_args!("cannot remove the exit's rules: {error}"), REMOVAL)
                });
            }
            Some(_) => return Ok(()),
            None if has_exit => {
                stdio::note(format_args!(
                    "the node has ended unexpectedly, and no traffic can bypass its exit: start it again, or \
                     {REMOVAL}"
                ));
                return Ok(());
            }
            None => return Ok(()),
        }
    }
}

/// Returns the node's next byte; `None` at end of file. Keeps all settings meanwhile.
fn wait(mut pipe: &UnixStream, mut upkeep: Option<&mut Upkeep>) -> io::Result<Option<u8>> {
    loop {
        let timeout = upkeep.as_ref().and_then(|upkeep| upkeep.timeout());
        let (is_said, is_changed) = {
            let mut fds = vec![PollFd::new(pipe, PollFlags::IN)];
            if let Some(upkeep) = &upkeep {
                fds.push(PollFd::from_borrowed_fd(upkeep.changes(), PollFlags::IN));
            }
            let timeout = timeout.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let is_ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
            (is_ready(0), is_ready(1))
        };
        if is_said {
            let mut byte = [0];
            match pipe.read(&mut byte) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                count => return Ok((count? == 1).then_some(byte[0])),
            }
        }
        if let Some(upkeep) = &mut upkeep {
            if is_changed {
                upkeep.note_changes();
            }
            upkeep.look().into_iter().for_each(|change| tell(&change));
        }
    }
}

/// Tells the user about changes by others.
fn tell(change: &Change) {
    match change {
        Change::Down { device } => stdio::note(format_args!(
            "another program has set {device} down: no member can be reached until it is up again (`ip link \
             set {device} up`)"
        )),
        Change::SetAgain { device, parts } => stdio::note(format_args!(
            "another program has removed {} from {device}, and it is set again{}",
            names(parts),
            match parts.iter().any(|part| part.starts_with("rule")) {
                true => ": for a moment packets could bypass the exit",
                false => "",
            }
        )),
        Change::Failed { device, part, source } => stdio::note(format_args!(
            "{device} lacks {part}, which cannot be set again: {source}; `ip monitor` shows when it is \
             removed"
        )),
        _ => {}
    }
}

fn names(parts: &[String]) -> String {
    let (named, others) = parts.split_at(parts.len().min(MAX_NAMED_SETTINGS));
    let named = named.join(", ");
    if others.is_empty() { named } else { format!("{named} and {} more", others.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        let parts: Vec<_> = (1..=6).map(|number| format!("part {number}")).collect();
        assert_eq!(names(&parts[..2]), "part 1, part 2");
        assert_eq!(names(&parts), "part 1, part 2, part 3, part 4 and 2 more");
    }
}
