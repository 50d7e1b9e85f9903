//! The two sides of a measurement, as written on a command line.

use std::net::SocketAddr;

use clap::Subcommand;

use crate::workload::Workload;

/// What a process does.
#[derive(Subcommand)]
pub(crate) enum Role {
    /// Serve every workload; prints one line {"address": …} when ready
    Serve {
        /// The address to listen on; port 0 takes any
        address: SocketAddr,
    },
    /// Run one workload against a server and print its result
    Client {
        /// The server's address
        address: SocketAddr,
        #[command(subcommand)]
        workload: Workload,
    },
}

/// Makes this process end when its parent ends, however that happens.
pub(crate) fn follow_parent() {
    let kill = Some(rustix::process::Signal::KILL);
    if let Err(e) = rustix::process::set_parent_process_death_signal(kill) {
        eprintln!("cannot follow the parent process: {e}");
    }
}
