//! The measured rivals.

use std::fmt;

use clap::ValueEnum;

use super::super::session::Case;
use super::tunnel::Tunnel;
use super::{Lab, overlays, peersock, wireguard};
use crate::Result;
use crate::bench::programs::has;

/// Measured contender, in the order of the table.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub(super) enum Rival {
    /// Kernel TCP over the link itself, not encrypted
    Kernel,
    /// UDP GSO and GRO with AES-256-GCM, no stack
    Limit,
    /// Sockets of the overlay
    Peersock,
    /// Sockets of the overlay that are file descriptors
    PeersockFd,
    /// TCP of the kernel over `peersock up`
    PeersockUp,
    /// QUIC streams by quinn, with its windows enlarged
    Quinn,
    /// QUIC streams by iroh
    Iroh,
    /// TCP of the kernel over wireguard-go
    WireguardGo,
    /// TCP of the kernel over boringtun
    Boringtun,
    /// TCP of the kernel over gotatun
    Gotatun,
    /// onetun: a port that a program forwards into WireGuard, without an interface
    Onetun,
    /// TCP of the kernel over EasyTier
    Easytier,
    /// TCP of the kernel over Nebula
    Nebula,
    /// TCP of the kernel over tinc
    Tinc,
}

/// Way that a rival carries a program's bytes.
pub(super) enum Kind {
    /// Inside the load program itself.
    Library,
    /// By separate programs, which carry the kernel TCP.
    Tunnel(fn(&Lab) -> Result<Tunnel>),
}

impl Rival {
    /// Returns the way the rival carries bytes.
    pub(super) fn kind(self) -> Kind {
        match self {
            Rival::Kernel
            | Rival::Limit
            | Rival::Peersock
            | Rival::PeersockFd
            | Rival::Quinn
            | Rival::Iroh => Kind::Library,
            Rival::PeersockUp => Kind::Tunnel(peersock::up),
            Rival::WireguardGo => Kind::Tunnel(wireguard::go),
            Rival::Boringtun => Kind::Tunnel(wireguard::boringtun),
            Rival::Gotatun => Kind::Tunnel(wireguard::gotatun),
            Rival::Onetun => Kind::Tunnel(wireguard::onetun),
            Rival::Easytier => Kind::Tunnel(overlays::easytier),
            Rival::Nebula => Kind::Tunnel(overlays::nebula),
            Rival::Tinc => Kind::Tunnel(overlays::tinc),
        }
    }

    /// Returns the load program's arguments: for the rival's own connections, or for kernel sockets.
    pub(super) fn words(self) -> &'static [&'static str] {
        match self {
            // The load program over iroh is a separate program, which ends with its parent by itself.
            Rival::Iroh => &[],
            Rival::Limit => &["--die-with-parent", "limit"],
            Rival::Quinn => &["--die-with-parent", "quinn"],
            Rival::Peersock => &["--die-with-parent", "peersock", "--network", peersock::NETWORK],
            Rival::PeersockFd => &["--die-with-parent", "peersock-fd", "--network", peersock::NETWORK],
            _ => &["--die-with-parent", "kernel"],
        }
    }

    /// Returns the server's further arguments: the seeds of identities, so that addresses are known.
    pub(super) fn words_of_server(self) -> &'static [&'static str] {
        match self {
            Rival::Peersock => &["--seed", "1"],
            Rival::PeersockFd => &["--seed", "2"],
            _ => &[],
        }
    }

    /// Returns true if a case is measured with this rival. Plain datagrams have no connections. onetun 0.3
    /// accepts uploads faster than it sends them until it runs out of memory.
    pub(super) fn takes(self, case: Case) -> bool {
        match self {
            Rival::Limit => matches!(case, Case::Stream1 | Case::PingPong),
            Rival::Onetun => matches!(case, Case::PingPong | Case::Connections),
            _ => true,
        }
    }

    /// Returns a hint on how to install the rival, if it is not installed.
    pub(super) fn missing(self) -> Option<&'static str> {
        const WIREGUARD: &str = "apt-get install wireguard-go wireguard-tools";
        let (programs, how): (&[&str], _) = match self {
            Rival::WireguardGo => (&["wireguard-go", "wg"], WIREGUARD),
            Rival::Boringtun => (&["boringtun-cli", "wg"], "cargo install --locked boringtun-cli"),
            Rival::Gotatun => (&["gotatun", "wg"], "cargo install --locked gotatun-cli"),
            Rival::Onetun => (&["onetun", "wireguard-go", "wg"], "cargo install --locked onetun"),
            Rival::Easytier => (&["easytier-core"], "cargo install --locked easytier@2.0.3"),
            Rival::Nebula => (&["nebula", "nebula-cert"], "apt-get install nebula"),
            Rival::Tinc => (&["tincd"], "apt-get install tinc"),
            _ => return None,
        };
        (!programs.iter().all(|program| has(program))).then_some(how)
    }

    /// Returns the rival's name in the results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Rival::Kernel => "kernel",
            Rival::Limit => "limit",
            Rival::Peersock => "peersock",
            Rival::PeersockFd => "peersock-fd",
            Rival::PeersockUp => "peersock-up",
            Rival::Quinn => "quinn",
            Rival::Iroh => "iroh",
            Rival::WireguardGo => "wireguard-go",
            Rival::Boringtun => "boringtun",
            Rival::Gotatun => "gotatun",
            Rival::Onetun => "onetun",
            Rival::Easytier => "easytier",
            Rival::Nebula => "nebula",
            Rival::Tinc => "tinc",
        }
    }
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Rival::Kernel => "kernel TCP, no cipher",
            Rival::Limit => "encrypted UDP (limit)",
            Rival::PeersockFd => "peersock, descriptors",
            Rival::PeersockUp => "peersock up",
            Rival::Easytier => "EasyTier",
            Rival::Nebula => "Nebula",
            other => other.name(),
        })
    }
}
