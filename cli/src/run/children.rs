//! The program and its descendants: started, told of signals, and waited for.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Instant;

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

/// When signals came that ask for the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests(Arc<Mutex<Vec<Instant>>>);

impl Requests {
    pub(super) fn note(&self, at: Instant) {
        self.lock().push(at);
    }

    /// When the last one came.
    pub(super) fn last(&self) -> Option<Instant> {
        self.lock().last().copied()
    }

    /// Those that have come since.
    pub(super) fn since(&self, begin: Instant) -> Vec<Instant> {
        self.lock().iter().copied().filter(|at| *at >= begin).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.0.lock().expect("no panic under this lock")
    }
}

/// Runs the program until it and all its descendants have ended; gives the program's exit status as a shell
/// would, and notes in `requests` who asks for its end, also afterwards. The `guard` is a child that is none
/// of the program's.
pub(super) fn run(
    command: Command,
    filter: Filter,
    requests: &Requests,
    guard: Option<u32>,
    started: impl FnOnce(Pid) -> io::Result<()>,
) -> Outcome<u8> {
    // Programs that become daemons leave their parents; they shall be ours then, so that we know when they end.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut signals =
        SignalsInfo::<WithOrigin>::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH])?;
    let guard = guard.and_then(|guard| Pid::from_raw(guard as i32));
    let mut child = spawn(command, filter)?;
    let program = Pid::from_raw(child.id() as i32).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    if let Err(error) = started(program) {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error.into());
    }
    let running = Arc::new(Mutex::new(Some(program)));
    let target = Arc::clone(&running);
    let requests = requests.clone();
    thread::Builder::new().name("signals".into()).spawn(move || {
        for origin in signals.forever() {
            if matches!(origin.signal, SIGINT | SIGQUIT | SIGTERM) {
                requests.note(Instant::now());
            }
            let by_terminal = matches!(origin.signal, SIGINT | SIGQUIT | SIGWINCH)
                && !matches!(origin.cause, Cause::Sent(Sent::User | Sent::TKill | Sent::Queue));
            if let Some(signal) = Signal::from_named_raw(origin.signal) {
                let program = *target.lock().expect("no panic under this lock");
                pass_on(signal, by_terminal, program, guard);
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
        let has_ended = running.lock().expect("no panic under this lock").is_none();
        if has_ended && guard.is_some() && children() == guard.as_slice() {
            return Ok(result);
        }
    }
}

/// Starts the program with its system calls filtered, in a thread of its own: they are a thread's, and its children's.
fn spawn(mut command: Command, filter: Filter) -> Outcome<Child> {
    let spawning = thread::Builder::new().name("start".into()).spawn(move || {
        if filter != Filter::None {
            filter::apply(filter == Filter::Internet)?;
        }
        command.spawn().map_err(|error| {
            let status = if error.kind() == io::ErrorKind::PermissionDenied { 126 } else { 127 };
            Failure::with_status(
                status,
                format_args!("cannot start {}: {error}", command.get_program().display()),
                "check that the file is a program, and the interpreter that its first line names",
            )
        })
    })?;
    spawning.join().expect("starting a program does not panic")
}

/// Passes a signal on to the program, or to what it has left behind.
fn pass_on(signal: Signal, by_terminal: bool, program: Option<Pid>, guard: Option<Pid>) {
    let targets = match program {
        // It has had it as well.
        Some(_) if by_terminal => Vec::new(),
        Some(program) => vec![program],
        None => children().into_iter().filter(|child| Some(*child) != guard).collect(),
    };
    for target in targets {
        // It may have ended just now.
        let _ = rustix::process::kill_process(target, signal);
    }
}

/// The launcher's own children: beside the program daemons, mostly, whose parents have ended, and which are
/// ours since.
pub(super) fn children() -> Vec<Pid> {
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
