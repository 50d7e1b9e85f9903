//! Programs that use a node.

use serde::{Deserialize, Serialize};

/// A program that uses the node through sockets that are file descriptors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProgramStatus {
    /// Name of the program.
    pub name: String,
    /// Process that has started it, such as `peersock run`.
    pub process: u32,
    /// IDs of the networks that it has.
    pub networks: Vec<String>,
}

impl ProgramStatus {
    /// Describes a program.
    pub fn new(name: impl Into<String>, process: u32, networks: Vec<String>) -> ProgramStatus {
        ProgramStatus { name: name.into(), process, networks }
    }
}
