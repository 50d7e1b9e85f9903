//! The program and its descendants: started, told of signals, and waited for.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::thread;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Sent};

use crate::failure::{Failure, Outcome};

/// Runs the program until it and all its descendants have ended; gives the program's exit status as a shell would.
pub(super) fn run(mut command: Command, started: impl FnOnce()) -> Outcome<u8> {
    // Programs that become daemons leave their parents; they shall be ours then, so that we know when they end.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut signals =
        SignalsInfo::<WithOrigin>::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH])?;
    let name = command.get_program().to_owned();
    let child = command.spawn().map_err(|error| Failure {
        status: if error.kind() == io::ErrorKind::PermissionDenied { 126 } else { 127 },
        message: format!("{}: {error}", name.display()),
    })?;
    started();
    let program = Pid::from_raw(child.id() as i32).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for origin in signals.forever() {
            // What a terminal sends, the program has had as well.
            let by_terminal = matches!(origin.signal, SIGINT | SIGQUIT | SIGWINCH)
                && !matches!(origin.cause, Cause::Sent(Sent::User | Sent::TKill | Sent::Queue));
            if let Some(signal) = Signal::from_named_raw(origin.signal)
                && !by_terminal
            {
                // It may have ended just now.
                let _ = rustix::process::kill_process(program, signal);
            }
        }
    })?;
    let mut result = 0;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => result = exit_status(status),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(result),
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
}

/// What a shell makes of it.
fn exit_status(status: WaitStatus) -> u8 {
    let status = ExitStatus::from_raw(status.as_raw());
    let signal = status.signal().map(|signal| 128 + signal);
    status.code().or(signal).unwrap_or(1) as u8
}
