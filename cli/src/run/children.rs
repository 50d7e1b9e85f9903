//! The program and its descendants: started, told of signals, and waited for.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Sent};

use super::filter;
use crate::failure::{Failure, Outcome};

/// How the program's system calls are filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    None,
    /// What the preloaded library does not see.
    Bypasses,
    /// Whatever leaves the machine, too.
    Internet,
}

/// Runs the program until it and all its descendants have ended; gives the program's exit status as a shell would.
pub(super) fn run(command: Command, filter: Filter, started: impl FnOnce()) -> Outcome<u8> {
    // Programs that become daemons leave their parents; they shall be ours then, so that we know when they end.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut signals =
        SignalsInfo::<WithOrigin>::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH])?;
    let child = spawn(command, filter)?;
    started();
    let program = Pid::from_raw(child.id() as i32).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let running = Arc::new(Mutex::new(Some(program)));
    let target = Arc::clone(&running);
    thread::Builder::new().name("signals".into()).spawn(move || {
        for origin in signals.forever() {
            let by_terminal = matches!(origin.signal, SIGINT | SIGQUIT | SIGWINCH)
                && !matches!(origin.cause, Cause::Sent(Sent::User | Sent::TKill | Sent::Queue));
            if let Some(signal) = Signal::from_named_raw(origin.signal) {
                pass_on(signal, by_terminal, *target.lock().expect("no panic under this lock"));
            }
        }
    })?;
    let mut result = 0;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => {
                *running.lock().expect("no panic under this lock") = None;
                result = exit_status(status);
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(result),
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
}

/// Starts the program with its system calls filtered, in a thread of its own: they are a thread's, and its children's.
fn spawn(mut command: Command, filter: Filter) -> Outcome<Child> {
    let spawning = thread::Builder::new().name("start".into()).spawn(move || {
        if filter != Filter::None {
            filter::apply(filter == Filter::Internet)?;
        }
        command.spawn().map_err(|error| Failure {
            status: if error.kind() == io::ErrorKind::PermissionDenied { 126 } else { 127 },
            message: format!("{}: {error}", command.get_program().display()),
        })
    })?;
    spawning.join().expect("starting a program does not panic")
}

/// Passes a signal on to the program, or to what it has left behind.
fn pass_on(signal: Signal, by_terminal: bool, program: Option<Pid>) {
    let targets = match program {
        // It has had it as well.
        Some(_) if by_terminal => Vec::new(),
        Some(program) => vec![program],
        None => children(),
    };
    for target in targets {
        // It may have ended just now.
        let _ = rustix::process::kill_process(target, signal);
    }
}

/// Daemons, mostly: the processes whose parents have ended, and which are ours since.
fn children() -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let numbers = |list: String| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>();
    lists.flat_map(numbers).filter_map(Pid::from_raw).collect()
}

/// What a shell makes of it.
fn exit_status(status: WaitStatus) -> u8 {
    let status = ExitStatus::from_raw(status.as_raw());
    let signal = status.signal().map(|signal| 128 + signal);
    status.code().or(signal).unwrap_or(1) as u8
}
