//! A process beside the launcher that sees it die, and ends then what its programs wait for: connections and
//! datagrams that will not come any more.
//!
//! ```text
//! launcher ---- a pipe, the guard's stdin ----> guard
//! ```
//!
//! One byte says that all is well. An end without it means that the launcher was killed.

use std::env;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use peersock::FdServer;

use super::children::children;
use crate::failure::Outcome;

/// The arguments of the guard itself.
#[derive(clap::Args)]
pub(crate) struct Args;

/// The guard of a launcher that runs.
pub(super) struct Guard(Child);

impl Guard {
    /// Starts it. It does without where the system does not allow another process.
    pub(super) fn start(server: &FdServer) -> Option<Guard> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("peersock").arg("run-guard").env(peersock::ENVIRONMENT, server.environment());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C is not for it.
        let started = command.process_group(0).spawn();
        let started = started.inspect_err(|error| tracing::debug!(%error, "nobody guards the launcher"));
        let guard = Guard(started.ok()?);
        // It must be told from the program's children, or the launcher would wait for it.
        if children().iter().all(|child| child.as_raw_pid() as u32 != guard.id()) {
            guard.dismiss();
            return None;
        }
        Some(guard)
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// The programs have ended: there is nothing to guard any more.
    pub(super) fn dismiss(mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            // It may have been killed.
            let _ = pipe.write_all(&[1]);
        }
        let _ = self.0.wait();
    }
}

/// The guard's process.
pub(crate) fn run(_: &Args) -> Outcome {
    let node = env::var(peersock::ENVIRONMENT).unwrap_or_default();
    let (tag, _) =
        FdServer::parse_environment(&node).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut byte = [0];
    if matches!(io::stdin().lock().read(&mut byte), Ok(0)) {
        FdServer::end_sockets_of(tag);
    }
    Ok(())
}
