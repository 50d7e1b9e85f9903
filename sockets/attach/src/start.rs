//! Start of the node by the first program.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Variables that a node does not inherit.
const FOREIGN: [&str; 4] = ["LD_PRELOAD", "PEERSOCK_NODE", "PEERSOCK_RULES", "PEERSOCK_SECRET"];

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
        // The first program's libraries and secret, and the node of an outer program, are not the node's.
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
