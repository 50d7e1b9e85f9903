//! The load program of the benchmarks. One side serves, and the other runs one workload and prints one JSON
//! object. Goodput is counted where the bytes arrive. `cargo xtask bench` runs it in rounds and makes the
//! table. Any pair of its commands also works by hand between two machines:
//!
//! ```text
//! b$ peersock-bench kernel serve 10.0.0.2:5001
//! a$ peersock-bench kernel client 10.0.0.2:5001 bulk --secs 5
//! {"kind":"bulk","gbps":14.1,...}
//! ```
//!
//! The contenders are modules, and each has the same two sides:
//!
//! | module | what it is |
//! |---|---|
//! | [`descriptors`] | peersock's sockets as file descriptors |
//! | [`kernel`] | kernel TCP, not encrypted |
//! | [`limit`] | UDP with GSO, GRO and AES-256-GCM, no TCP above it: what a lossless layer could reach |
//! | [`overlay`] | peersock |
//! | [`quic`] | quinn: QUIC streams, with its windows enlarged |
//!
//! [`udp_server`], [`growth`] and [`crowd`] have no contender. They measure an overlay server's work per
//! datagram, the growth of that work, and the number of peers that a node accepts at once.
//!
//! [`workload`] holds the work itself, generic over a [`workload::Transport`], so that kernel TCP and
//! peersock run identical code. [`role`] holds the two sides, [`report`] the client's output, and [`usage`]
//! the resources that a process has used.
#![allow(clippy::print_stdout, reason = "a program whose results go to standard output")]

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod crowd;
mod descriptors;
mod growth;
mod kernel;
mod limit;
mod overlay;
mod quic;
mod report;
mod role;
mod udp_server;
mod usage;
mod workload;

use descriptors::Descriptors;
use overlay::{NodeOptions, Overlay};
use role::Role;
use workload::Transport;

/// Loads the network and measures it: peersock, kernel TCP, quinn and the encrypted-UDP limit.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  peersock-bench kernel serve 127.0.0.1:5001
  peersock-bench kernel client 127.0.0.1:5001 bulk --streams 8 --secs 5
  peersock-bench peersock --seed 1 serve [::]:5003
  peersock-bench peersock client [fd…]:5003 ping-pong"
)]
struct Cli {
    /// End when the parent process ends, for whatever reason
    #[arg(long, global = true)]
    die_with_parent: bool,
    #[command(subcommand)]
    contender: Contender,
}

#[derive(Subcommand)]
enum Contender {
    /// Kernel TCP
    Kernel(Side),
    /// UDP GSO and GRO with AES-256-GCM, and nothing above
    Limit(Side),
    /// QUIC streams by quinn
    Quinn(Side),
    /// The overlay, with a node in each process
    Peersock(NodeSide),
    /// The overlay, with sockets that are file descriptors
    PeersockFd(NodeSide),
    /// UDP server on the overlay with many clients, all in this process
    UdpServer(udp_server::Options),
    /// Cost of a packet on the overlay with many members, peers and networks, all in this process
    Growth(growth::Options),
    /// Many nodes that connect to one node at once, and the effect of stopping that node for a while
    Crowd(crowd::Options),
    /// No network: keep one processor busy until the process is ended
    Spin,
}

#[derive(Args)]
struct Side {
    #[command(subcommand)]
    role: Role,
}

#[derive(Args)]
struct NodeSide {
    #[command(flatten)]
    node: NodeOptions,
    #[command(subcommand)]
    role: Role,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.die_with_parent {
        role::follow_parent();
    }
    match run(cli.contender) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("peersock-bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(contender: Contender) -> std::io::Result<()> {
    match contender {
        Contender::Kernel(Side { role }) => play(&kernel::Kernel, &role),
        Contender::Limit(Side { role }) => match role {
            Role::Serve { address } => limit::serve(address),
            Role::Client { address, workload } => limit::client(address, &workload),
        },
        Contender::Quinn(Side { role }) => match role {
            Role::Serve { address } => quic::serve(address),
            Role::Client { address, workload } => quic::client(address, &workload),
        },
        Contender::Peersock(NodeSide { node, role }) => play(&Overlay::start(&node)?, &role),
        Contender::PeersockFd(NodeSide { node, role }) => play(&Descriptors::start(&node)?, &role),
        Contender::UdpServer(options) => udp_server::run(&options),
        Contender::Growth(options) => growth::run(&options),
        Contender::Crowd(options) => crowd::run(&options),
        Contender::Spin => loop {
            std::hint::spin_loop();
        },
    }
}

fn play<T: Transport + Sync>(transport: &T, role: &Role) -> std::io::Result<()> {
    match role {
        Role::Serve { address } => workload::serve(transport, *address),
        Role::Client { address, workload } => workload::run(transport, *address, workload),
    }
}
