//! A process beside `peersock up --exit` that has kept the right to remove the exit's rules, which the node's
//! own process gives up. It hears nothing but one byte from there.
//!
//! ```text
//! node ---- a pipe, the guard's stdin ----> guard, with CAP_NET_ADMIN
//! ```
//!
//! With the byte it removes the rules, or leaves those of another program alone. An end without it means that
//! the node was killed: the rules stay, and nothing leaves the machine past the exit that it was told to use.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use peersock_tun::{EXIT_TABLE, has_exit_rules, keep_network_privilege, remove_exit_rules};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::failure::{Failure, Outcome};
use crate::stdio;

/// The arguments of the guard itself.
#[derive(clap::Args)]
pub(crate) struct Args;

/// The node ends: the rules are to go.
const RELEASE: u8 = 1;

/// There are no rules of this node.
const DISMISS: u8 = 2;

/// What the guard says when no signal ends it any more.
const READY: &str = "ready";

/// The guard of a node that runs.
#[derive(Debug)]
pub(super) struct Guard {
    process: Child,
    /// A run that was killed has left rules, which keep the machine closed until a run is up again.
    is_closed: bool,
}

impl Guard {
    /// Starts it, while this process still has its privileges and has set no rules.
    pub(super) fn start() -> io::Result<Guard> {
        // Where nobody knows, nothing is opened.
        let is_closed = has_exit_rules().unwrap_or(true);
        let mut command = Command::new("/proc/self/exe");
        command.arg0("peersock").arg("up-guard").stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C is not for it.
        let mut child = command.process_group(0).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match line.trim() == READY {
            true => Ok(Guard { process: child, is_closed }),
            false => Err(io::Error::other(format!("it ended at once ({})", child.wait()?))),
        }
    }

    /// The node is up: when it ends now, the machine is opened.
    pub(super) fn note_up(&mut self) {
        self.is_closed = false;
    }

    /// Has the rules removed, and waits until they are. Where a run before was killed and this one is not up,
    /// they stay.
    pub(super) fn release(mut self) {
        if self.is_closed {
            return self.leave();
        }
        // It may have been killed.
        let is_told = self.process.stdin.take().is_some_and(|mut pipe| pipe.write_all(&[RELEASE]).is_ok());
        let is_done = self.process.wait().is_ok_and(|status| status.success());
        if !(is_told && is_done) {
            stdio::note(format_args!("the exit's rules are still there: {REMOVAL}"));
        }
    }

    /// Ends it without a word: the rules that there are, if any, are not this node's.
    pub(super) fn dismiss(mut self) {
        if let Some(mut pipe) = self.process.stdin.take() {
            // It may have been killed.
            let _ = pipe.write_all(&[DISMISS]);
        }
        let _ = self.process.wait();
    }

    /// Leaves the rules as they are. The guard says so.
    pub(super) fn leave(mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// How the rules are removed by hand.
const REMOVAL: &str = "remove the rules with `ip rule flush protocol 74` and `ip -6 rule flush protocol 74`";

// The text has the table's number.
const _: () = assert!(EXIT_TABLE == 74);

/// The guard's process.
pub(crate) fn run(_: &Args) -> Outcome {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // They are for the node, whose last word comes by the pipe.
        signal_hook::flag::register(signal, Arc::default())?;
    }
    keep_network_privilege()?;
    writeln!(io::stdout(), "{READY}")?;
    let mut byte = [0];
    let count = loop {
        match io::stdin().lock().read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => break done?,
        }
    };
    if count == 1 && byte[0] == DISMISS {
        return Ok(());
    }
    if count == 0 || byte[0] != RELEASE {
        stdio::note(format_args!(
            "the node has ended without a word, and nothing leaves this machine past its exit: start it \
             again, or {REMOVAL}"
        ));
        return Ok(());
    }
    remove_exit_rules()
        .map_err(|error| Failure::new(format_args!("cannot remove the exit's rules: {error}"), REMOVAL))
}
