//! Start of the node by the first program.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use peersock::settings::{BUSY_POLL_VARIABLE, DHT_VARIABLE, ROOTS_VARIABLE, STUN_VARIABLE, TURN_VARIABLE};

/// Variables that a node does not inherit: the first program's libraries and secret, the node of an outer
/// program, and settings, which the first message has.
const FOREIGN: [&str; 13] = [
    "LD_PRELOAD",
    "PEERSOCK_NODE",
    "PEERSOCK_RULES",
    "PEERSOCK_SECRET",
    "PEERSOCK_TICKET",
    "PEERSOCK_CODE",
    "PEERSOCK_SEND_CODE",
    "PEERSOCK_INTERFACE",
    ROOTS_VARIABLE,
    DHT_VARIABLE,
    TURN_VARIABLE,
    STUN_VARIABLE,
    BUSY_POLL_VARIABLE,
];

/// The command that starts the node.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The `peersock` program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl Launch {
    /// Starts the node's process, which serves the returned connection first. The process is no child of this
    /// one when this returns, so it is not waited for, and its end is not noticed.
    ///
    /// # Errors
    /// The program cannot be started.
    pub(crate) fn start(&self) -> io::Result<UnixStream> {
        let (own, its) = UnixStream::pair()?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(OwnedFd::from(its)).stdout(Stdio::null()).stderr(Stdio::null());
        for variable in FOREIGN {
            command.env_remove(variable);
        }
        let mut child = command.spawn()?;
        // The child ends at once, and its own child is the node. If SIGCHLD is ignored, the status is lost.
        match child.wait() {
            Ok(status) if !status.success() => {
                Err(io::Error::other(format!("the node's process has ended at once: {status}")))
            }
            _ => Ok(own),
        }
    }
}
