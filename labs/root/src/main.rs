//! Measurement of a root that runs as a separate process with its sockets on loopback.
//!
//! - `relay`: frames that it relays per second of processor time, and their delay, compared with coturn, in
//!   turns.
//! - `nodes`: memory, processor time and packets of up to 50,000 registered nodes, which are simulated here
//!   with real handshakes.
//!
//! Processor time is that of the server's process, as the kernel accounts it: it includes system calls, and
//! on loopback also the way of a datagram into its receiver's socket.
#![allow(clippy::print_stdout, reason = "a program whose results go to standard output")]

mod client;
mod nodes;
mod relay;
mod server;
mod turn;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use peersock_root::Source;

/// Measures a root: its relay compared with coturn's, and the cost of many nodes.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Relay between pairs of nodes, compared with coturn if it is installed
    Relay(relay::Options),
    /// Register many nodes, and keep them registered
    Nodes(nodes::Options),
    /// Run the measured root
    #[command(hide = true)]
    Serve,
}

fn main() -> ExitCode {
    let done = match Cli::parse().what {
        What::Relay(options) => relay::run(&options),
        What::Nodes(options) => nodes::run(&options),
        What::Serve => server::serve(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peersock-root-lab: {error}");
            ExitCode::FAILURE
        }
    }
}
