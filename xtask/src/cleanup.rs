//! Reverts a command's changes to the machine, however the command ends.
//!
//! A [`Guard`] undoes its action when dropped, which covers success and errors. Ctrl-C and SIGTERM end the
//! process without unwinding. So guards are also listed here, and a signal undoes them all.

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{io, thread};

use peersock_primitives::sync;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use crate::Result;

/// An action to undo.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Undo {
    /// End a process that was started here.
    End(Pid),
    /// Remove a network namespace that was made here, and with it its half of the veth pair.
    RemoveNamespace(String),
}

impl Undo {
    fn run(&self) {
        match self {
            Undo::End(pid) => {
                // The process may have ended by itself.
                let _ = kill_process(*pid, Signal::TERM);
            }
            Undo::RemoveNamespace(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "del", name]).stdin(Stdio::null());
                if !command.status().is_ok_and(|status| status.success()) {
                    eprintln!("cannot remove the network namespace {name}: ip netns del {name}");
                }
            }
        }
    }
}

static PENDING: Mutex<Vec<Undo>> = Mutex::new(Vec::new());

fn pending() -> MutexGuard<'static, Vec<Undo>> {
    sync::lock(&PENDING)
}

/// Guard that undoes its action when dropped.
#[derive(Debug)]
pub(crate) struct Guard(Undo);

impl Guard {
    /// Starts a process and registers its end in one step, so that a signal comes before both or after both.
    /// Fails if the process cannot be started.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Guard)> {
        let mut pending = pending();
        let child = command.spawn()?;
        let undo = Undo::End(Pid::from_child(&child));
        pending.push(undo.clone());
        Ok((child, Guard(undo)))
    }

    /// Registers an action. Call it right after the change that it undoes.
    pub(crate) fn new(undo: Undo) -> Guard {
        pending().push(undo.clone());
        Guard(undo)
    }

    /// Forgets the action, because it happened by itself.
    pub(crate) fn disarm(self) {
        self.unregister();
        std::mem::forget(self);
    }

    /// Removes the action from the list. Returns false if it was no longer registered.
    fn unregister(&self) -> bool {
        let mut pending = pending();
        let found = pending.iter().rposition(|undo| *undo == self.0);
        found.map(|i| pending.remove(i)).is_some()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.unregister() {
            self.0.run();
        }
    }
}

/// Makes SIGINT and SIGTERM undo everything, newest first, and exit with code 130.
/// Fails if a handler was set before.
pub(crate) fn on_interrupt() -> Result<()> {
    ctrlc::set_handler(|| {
        // Hold the lock until the exit, so that no new action can be registered.
        let mut pending = pending();
        while let Some(undo) = pending.pop() {
            undo.run();
        }
        reap();
        eprintln!("interrupted");
        std::process::exit(130);
    })?;
    Ok(())
}

/// Waits a short time for children to end.
fn reap() {
    let deadline = Instant::now() + Duration::from_secs(2);
    // An error means that no children are left.
    while let Ok(ended) = wait(WaitOptions::NOHANG)
        && Instant::now() < deadline
    {
        if ended.is_none() {
            thread::sleep(Duration::from_millis(10));
        }
    }
}
