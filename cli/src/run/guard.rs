//! A process beside the launcher that detects its death. It then ends the connections and sockets that
//! programs wait for, and prints the reason, because no other process knows it.
//!
//! ```text
//! launcher ---- a pipe, the guard's stdin ----> guard
//! ```
//!
//! One byte says how the launcher ends. End of file without it means that the launcher was killed.

use std::env;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use peersock_socket_server::FdServer;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use super::children::{children, describe};
use super::serving_node::ServingNode;
use crate::failure::Outcome;
use crate::managed::INVITE_VARIABLE;
use crate::secret::SECRET_VARIABLE;
use crate::stdio;

/// Arguments of the guard itself.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Process of the shared node, which ends the sockets if it lives
    #[arg(long)]
    shared: Option<i32>,

    /// Path of the shared node's socket, which is there after the node was killed
    #[arg(long, requires = "shared")]
    socket: Option<PathBuf>,
}

/// Byte sent when all programs have ended.
const ALL_ENDED: u8 = 1;

/// Byte sent when some programs run on, which the launcher has reported.
const SOME_LEFT: u8 = 2;

/// Time in which a shared node ends the sockets of a launcher that was killed.
const NODE_TIME: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// The guard of a running launcher.
pub(super) struct Guard(Child);

impl Guard {
    /// Starts the guard. Returns `None` if the system does not allow another process.
    pub(super) fn start(node: &ServingNode) -> Option<Guard> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("peersock")
            .arg("run-guard")
            .args(node.shared().map(|(process, _)| format!("--shared={process}")))
            .args(node.shared().into_iter().flat_map(|(_, socket)| [Path::new("--socket"), socket]))
            .env_remove(SECRET_VARIABLE)
            .env_remove(INVITE_VARIABLE)
            .env(peersock_socket_server::ENVIRONMENT, node.environment());
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        // Uses a separate process group, because Ctrl-C must not reach the guard.
        let started = command.process_group(0).spawn();
        let started = started.inspect_err(|error| tracing::debug!(%error, "no guard watches the launcher"));
        let guard = Guard(started.ok()?);
        // The guard must be distinguishable from the program's children, or the launcher would wait for it.
        if children().iter().all(|child| child.as_raw_pid() as u32 != guard.id()) {
            guard.dismiss();
            return None;
        }
        Some(guard)
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Ends the guard after all programs have ended.
    pub(super) fn dismiss(mut self) {
        self.tell(ALL_ENDED);
        let _ = self.0.wait();
    }

    /// Makes the guard close the sockets of programs that run on after the launcher.
    pub(super) fn leave(mut self) {
        self.tell(SOME_LEFT);
    }

    fn tell(&mut self, byte: u8) {
        if let Some(mut pipe) = self.0.stdin.take() {
            // The guard may have been killed.
            let _ = pipe.write_all(&[byte]);
        }
    }
}

/// Runs the guard's process.
pub(crate) fn run(args: &Args) -> Outcome {
    let node = env::var(peersock_socket_server::ENVIRONMENT).unwrap_or_default();
    let (tag, _) =
        FdServer::parse_environment(&node).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let shared = args.shared.and_then(Pid::from_raw);
    let shared = shared.map(|process| rustix::process::pidfd_open(process, PidfdFlags::empty()));
    let mut byte = [0];
    let was_killed = match io::stdin().lock().read(&mut byte)? {
        0 => true,
        _ if byte[0] == SOME_LEFT => false,
        _ => return Ok(()),
    };
    // A shared node ends the sockets itself, unless it was killed as well. Both would wake event loops twice.
    let node = shared.filter(|_| was_killed);
    let holders = match &node {
        Some(_) => FdServer::holders_of(tag),
        None => FdServer::end_sockets_of(tag),
    };
    let left: Vec<_> = holders.into_iter().filter_map(pid).collect();
    if was_killed && !left.is_empty() {
        stdio::note(format_args!(
            "`peersock run` was killed, so the programs that it has started have no network: {}; stop them \
             with `kill`, and start them again under `peersock run`",
            describe(&left)
        ));
    }
    let is_left = || args.socket.as_ref().is_none_or(|socket| socket.exists());
    if node.is_some_and(|node| node.is_err() || node.is_ok_and(|node| has_ended(&node))) && is_left() {
        FdServer::end_sockets_of(tag);
    }
    Ok(())
}

/// Waits for a moment, and returns true if the process has ended.
fn has_ended(process: &OwnedFd) -> bool {
    let mut waits = [PollFd::new(process, PollFlags::IN)];
    rustix::event::poll(&mut waits, Some(&NODE_TIME)).is_ok_and(|ended| ended > 0)
}

fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(number.cast_signed())
}
