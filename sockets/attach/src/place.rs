//! Namespaces in which programs and the node must be together.

use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// Namespaces of a process (namespaces(7)), by their inodes. The names of sockets belong to a network
/// namespace, and the numbers of processes to a PID namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Zeroize)]
pub struct Namespaces {
    /// Network namespace; 0 if unknown.
    pub network: u64,
    /// PID namespace; 0 if unknown.
    pub process: u64,
}

impl Namespaces {
    /// Returns those of this process.
    pub fn own() -> Namespaces {
        let inode =
            |name: &str| std::fs::metadata(format!("/proc/self/ns/{name}")).map_or(0, |file| file.ino());
        Namespaces { network: inode("net"), process: inode("pid") }
    }

    /// Returns the name of a namespace in which both differ.
    pub fn difference(&self, other: &Namespaces) -> Option<&'static str> {
        match () {
            () if self.network != other.network => Some("network namespace"),
            () if self.process != other.process => Some("PID namespace"),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_where_it_is() {
        let own = Namespaces::own();
        assert_ne!((own.network, own.process), (0, 0));
        assert_eq!(own.difference(&Namespaces::own()), None);
        let elsewhere = Namespaces { network: own.network + 1, ..own };
        assert_eq!(own.difference(&elsewhere), Some("network namespace"));
        let inside = Namespaces { process: own.process + 1, ..own };
        assert_eq!(own.difference(&inside), Some("PID namespace"));
    }
}
