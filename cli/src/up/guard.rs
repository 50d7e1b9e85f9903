//! A process beside `peersock up` that keeps CAP_NET_ADMIN, which the node's process drops. It restores
//! settings of the interfaces that others remove, and removes the exit's rules at the end.
//!
//! ```text
//! node ---- one byte, then another ----> guard, with CAP_NET_ADMIN
//! ```
//!
//! The guard is a fork of the node's process that never executes a program, so no command exists with which
//! others could start one. It receives only the node's bytes and kernel events. End of file without a last
//! byte means that the node was killed. The exit's rules then stay, so that no traffic bypasses the exit.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use peersock_tun::{
    Change, EXIT_TABLE, Filter, Upkeep, User, has_exit_rules, keep_network_privilege, remove_exit_rules,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, WaitOptions, setpgid, waitpid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

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
        let Some(process) = fork().map_err(failed)? else { be_the_guard(its, upkeep, has_exit, user) };
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

/// Forks this process; returns `None` in the child.
#[allow(unsafe_code)]
fn fork() -> io::Result<Option<Pid>> {
    // Other threads do not exist in a fork, but their locks stay held.
    if fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return Err(io::Error::other("other threads run already"));
    }
    // SAFETY: no other thread is there, so that the copy may do whatever this process may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child)),
    }
}

/// Runs the guard's process until it exits. Nothing that belongs to the node is dropped in it.
fn be_the_guard(pipe: UnixStream, upkeep: Upkeep, has_exit: bool, user: Option<User>) -> ! {
    let done = catch_unwind(AssertUnwindSafe(|| guard(pipe, upkeep, has_exit, user)));
    std::process::exit(match done {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => {
            stdio::note(&failure);
            1
        }
        Err(_) => 101,
    })
}

fn guard(mut pipe: UnixStream, mut upkeep: Upkeep, has_exit: bool, user: Option<User>) -> Outcome {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Ignored, because these signals are for the node, whose last message comes by the pipe.
        signal_hook::flag::register(signal, Arc::default())?;
    }
    // Leaves the process group, because Ctrl-C must not reach the guard.
    setpgid(None, None).map_err(io::Error::from)?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing).map_err(io::Error::from)?;
    rustix::stdio::dup2_stdout(&nothing).map_err(io::Error::from)?;
    // Before its number is closed with all others.
    drop(nothing);
    // Closes the tun devices, so that the interfaces disappear with the node.
    close_all_but(upkeep.descriptors().chain([pipe.as_fd()]));
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

/// Closes all descriptors except the standard ones and these.
#[allow(unsafe_code)]
fn close_all_but<'a>(kept: impl Iterator<Item = BorrowedFd<'a>>) {
    let mut kept: Vec<RawFd> = kept.map(|fd| fd.as_raw_fd()).collect();
    kept.sort_unstable();
    let close = |first: RawFd, last: libc::c_uint| {
        // SAFETY: what is closed belongs to the node's process, whose values this one uses no more and never
        // drops. A kernel without the call leaves it open, until this process ends with the node.
        unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, last, 0) };
    };
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close(first, (fd - 1) as libc::c_uint);
        }
        first = first.max(fd + 1);
    }
    close(first, libc::c_uint::MAX);
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
