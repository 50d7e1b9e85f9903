//! Programs that use a node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A program that uses the node through sockets that are file descriptors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProgramStatus {
    /// Name of the program.
    pub name: String,
    /// Process that has started it, such as `peersock run`.
    pub process: u32,
    /// IDs of the networks that it has.
    pub networks: Vec<String>,
    /// Number of its TCP connections.
    #[serde(default)]
    pub streams: u64,
    /// Ports of its TCP listeners.
    #[serde(default)]
    pub listeners: BTreeSet<u16>,
    /// Number of its datagram sockets.
    #[serde(default)]
    pub datagram_sockets: u64,
    /// Addresses at the other ends of its TCP connections and connected datagram sockets.
    #[serde(default)]
    pub peers: BTreeSet<IpAddr>,
    /// Bytes that it has sent since its start, without headers.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Bytes that it has received since its start, without headers.
    #[serde(default)]
    pub received_bytes: u64,
}

impl ProgramStatus {
    /// Describes a program.
    pub fn new(name: impl Into<String>, process: u32, networks: Vec<String>) -> ProgramStatus {
        ProgramStatus { name: name.into(), process, networks, ..ProgramStatus::default() }
    }
}
