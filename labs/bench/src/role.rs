//! The two sides of a measurement, as written on a command line.

use std::net::SocketAddr;

use clap::Subcommand;

use crate::workload::Workload;

/// Role of a process.
#[derive(Subcommand)]
pub(crate) enum Role {
    /// Serve every workload; prints one line {"address": …} when ready
    Serve {
        /// Address to listen on; port 0 picks a free one
        address: SocketAddr,
    },
    /// Run one workload against a server and print its result
    Client {
        /// Address of the server
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
