//! The program and its descendants: starting them, passing on signals, and waiting.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Sent};

use super::filter;
use crate::failure::{Failure, Outcome};
use crate::output::escape;
use crate::signals::{heeded, is_ignored};
use crate::stdio::note;

/// Delay after which a waiting user is told what runs on; most descendants end with the program.
const REPORT_DELAY: Duration = Duration::from_secs(1);

/// The filter of the program's system calls.
#[derive(Debug)]
pub(super) enum Filter {
    None,
    /// Blocks calls that the preloaded library does not see.
    Bypasses,
    /// Also blocks Internet sockets.
    Internet,
    /// Socket calls are handled by a supervisor.
    Notified(peersock_seccomp::Filter),
}

/// Times of signals that asked for the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests(Arc<Mutex<Vec<Instant>>>);

impl Requests {
    pub(super) fn note(&self, at: Instant) {
        self.lock().push(at);
    }

    /// Returns the time of the last request.
    pub(super) fn last(&self) -> Option<Instant> {
        self.lock().last().copied()
    }

    /// Returns the requests since a point in time.
    pub(super) fn since(&self, begin: Instant) -> Vec<Instant> {
        self.lock().iter().copied().filter(|at| *at >= begin).collect()
    }

    /// Returns a function that returns true after a request from now on.
    pub(super) fn further(&self) -> impl Fn() -> bool + use<> {
        let (requests, begin) = (self.clone(), Instant::now());
        move || !requests.since(begin).is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.0.lock().expect("no panic under this lock")
    }
}

/// The outcome of the program and its descendants.
pub(super) struct Ended {
    /// Exit status of the program, as a shell would report it.
    pub(super) status: u8,
    /// Descendants that run on, because they did not end after a second request.
    pub(super) left: Vec<Pid>,
}

enum Event {
    ProgramEnded(u8),
    AllEnded,
    /// A request to end, after the program has ended.
    Asked,
    Failed(io::Error),
}

/// Runs the program until it and all its descendants have ended, and records requests to end in `requests`,
/// also afterwards. `guard` is a child that does not belong to the program. Unless `quiet`, a line reports
/// descendants that the program leaves.
pub(super) fn run(
    command: Command,
    filter: Filter,
    requests: &Requests,
    guard: Option<u32>,
    quiet: bool,
    started: impl FnOnce(Pid) -> Outcome,
) -> Outcome<Ended> {
    // Becomes the subreaper, so that the program's daemons become children here and their end is noticed.
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).map_err(|error| super::refused("prctl", error.into()))?;
    // Leaves signals ignored that nohup(1) has ignored, because the program inherits this but no handlers.
    let passed = heeded([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH]);
    let mut signals = SignalsInfo::<WithOrigin>::new(passed)?;
    // Installs a handler, because with SIGCHLD ignored the status of children is lost (wait(2)).
    signal_hook::flag::register(SIGCHLD, Arc::default())?;
    let guard = guard.and_then(|guard| Pid::from_raw(guard as i32));
    let name = command.get_program().display().to_string();
    let mut child = spawn(command, filter)?;
    let program = Pid::from_raw(child.id() as i32).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    if let Err(error) = started(program) {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    let (events, happened) = mpsc::channel();
    let running = Arc::new(Mutex::new(Some(program)));
    let (target, asking) = (Arc::clone(&running), events.clone());
    let requests = requests.clone();
    thread::Builder::new().name("signals".into()).spawn(move || {
        for origin in signals.forever() {
            let asks = matches!(origin.signal, SIGINT | SIGQUIT | SIGTERM);
            if asks {
                requests.note(Instant::now());
            }
            let by_terminal = matches!(origin.signal, SIGINT | SIGQUIT | SIGWINCH)
                && !matches!(origin.cause, Cause::Sent(Sent::User | Sent::TKill | Sent::Queue));
            if let Some(signal) = Signal::from_named_raw(origin.signal) {
                let program = *target.lock().expect("no panic under this lock");
                pass_on(signal, by_terminal, program, guard);
                if asks && program.is_none() {
                    let _ = asking.send(Event::Asked);
                }
            }
        }
    })?;
    thread::Builder::new().name("children".into()).spawn(move || reap(program, guard, &running, &events))?;
    wait(&happened, &name, guard, quiet)
}

/// Waits until all processes have ended, or until the second request to end the remaining ones.
fn wait(happened: &Receiver<Event>, name: &str, guard: Option<Pid>, quiet: bool) -> Outcome<Ended> {
    let (mut status, mut has_ended, mut asked) = (0, false, 0);
    let mut to_say = false;
    loop {
        let event = match to_say {
            true => happened.recv_timeout(REPORT_DELAY),
            false => happened.recv().map_err(RecvTimeoutError::from),
        };
        match event {
            Ok(Event::ProgramEnded(its)) => (status, has_ended, to_say) = (its, true, !quiet),
            Ok(Event::AllEnded) => return Ok(Ended { status, left: Vec::new() }),
            Ok(Event::Asked) if asked > 0 => return Ok(Ended { status, left: left_behind(guard) }),
            Ok(Event::Asked) => (asked, to_say) = (1, has_ended),
            Ok(Event::Failed(error)) => return Err(error.into()),
            Err(RecvTimeoutError::Timeout) => {
                to_say = false;
                let left = describe(&left_behind(guard));
                match asked {
                    0 => note(format_args!("{name} has ended, and its children still run: {left}")),
                    _ => note(format_args!("still running: {left}; the same signal again leaves them alone")),
                }
            }
            Err(RecvTimeoutError::Disconnected) => unreachable!("the thread of signals does not end"),
        }
    }
}

/// Waits for children (the program and its orphans) and reports events.
fn reap(program: Pid, guard: Option<Pid>, running: &Mutex<Option<Pid>>, events: &Sender<Event>) {
    loop {
        let event = match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => {
                *running.lock().expect("no panic under this lock") = None;
                Some(Event::ProgramEnded(exit_status(status)))
            }
            Ok(_) | Err(Errno::INTR) => None,
            Err(Errno::CHILD) => Some(Event::AllEnded),
            Err(error) => Some(Event::Failed(error.into())),
        };
        let is_last = matches!(event, Some(Event::AllEnded | Event::Failed(_)));
        event.into_iter().for_each(|event| drop(events.send(event)));
        let has_ended = running.lock().expect("no panic under this lock").is_none();
        if is_last {
            return;
        }
        if has_ended && guard.is_some() && left_behind(guard).is_empty() {
            let _ = events.send(Event::AllEnded);
            return;
        }
    }
}

/// Starts the program with its system calls filtered, in a separate thread, because filters apply to a thread
/// and its children.
///
/// The thread stays, because for PR_SET_PDEATHSIG the parent is the starting thread, not the process.
fn spawn(mut command: Command, filter: Filter) -> Outcome<Child> {
    let (started, starts) = mpsc::channel();
    let start = move || {
        match filter {
            Filter::None => {}
            Filter::Bypasses => filter::apply(false)?,
            Filter::Internet => filter::apply(true)?,
            Filter::Notified(filter) => filter::notify(filter)?,
        }
        command.spawn().map_err(|error| {
            let status = if error.kind() == io::ErrorKind::PermissionDenied { 126 } else { 127 };
            Failure::with_status(
                status,
                format_args!("cannot start {}: {error}", command.get_program().display()),
                "check that the file is a program, and the interpreter that its first line names",
            )
        })
    };
    thread::Builder::new().name("start".into()).spawn(move || {
        let child = start();
        let stays = child.is_ok();
        let _ = started.send(child);
        if stays {
            loop {
                thread::park();
            }
        }
    })?;
    starts.recv().expect("starting a program does not panic")
}

/// Passes a signal on to the program, or to its remaining descendants.
fn pass_on(signal: Signal, by_terminal: bool, program: Option<Pid>, guard: Option<Pid>) {
    let targets = match program {
        // The terminal has already sent the signal to the program.
        Some(_) if by_terminal => Vec::new(),
        Some(program) => vec![(program, signal)],
        None => left_behind(guard).into_iter().map(|child| (child, asking(signal, child))).collect(),
    };
    for (target, signal) in targets {
        // The process may have ended just now.
        let _ = rustix::process::kill_process(target, signal);
    }
}

/// Returns the signal that makes a process end: SIGTERM if the process ignores `signal`, as background jobs
/// of shells ignore Ctrl-C.
fn asking(signal: Signal, process: Pid) -> Signal {
    let is_asking = matches!(signal, Signal::INT | Signal::QUIT);
    if is_asking && is_ignored(signal, process) { Signal::TERM } else { signal }
}

/// Returns the descendants that the program has left.
fn left_behind(guard: Option<Pid>) -> Vec<Pid> {
    children().into_iter().filter(|child| Some(*child) != guard).collect()
}

/// Returns processes with their names, for people.
pub(super) fn describe(processes: &[Pid]) -> String {
    let described = processes.iter().map(|process| {
        let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        format!("{} ({process})", escape(name.trim_end()))
    });
    described.collect::<Vec<_>>().join(", ")
}

/// Returns this process's children: the program, and daemons that were reparented here.
pub(super) fn children() -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let numbers = |list: String| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>();
    lists.flat_map(numbers).filter_map(Pid::from_raw).collect()
}

/// Returns the exit status as a shell reports it.
fn exit_status(status: WaitStatus) -> u8 {
    let status = ExitStatus::from_raw(status.as_raw());
    let signal = status.signal().map(|signal| 128 + signal);
    status.code().or(signal).unwrap_or(1) as u8
}
