//! Attempts to reach a node directly, for display.

use std::net::SocketAddr;
use std::time::Instant;

use super::{CandidateKind, NotTried};

/// Attempt to reach a node at one of its addresses; see [`PeerInfo::attempts`].
///
/// [`PeerInfo::attempts`]: crate::PeerInfo::attempts
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectAttempt {
    /// Address that was tried.
    pub address: SocketAddr,
    /// Source from which the node knows the address.
    pub kind: CandidateKind,
    /// True for a port that the node has not named: its NAT box was expected to use it next, or the node was
    /// heard there.
    pub predicted: bool,
    /// True if many ports were tried, because the box of one of the nodes gives each destination an
    /// unpredictable port. The port of the address is 0 if this node sent to many ports, and not from many.
    pub by_many_ports: bool,
    /// True if a TCP connection to the address was tried.
    pub by_tcp: bool,
    /// True if a root of this node, or a guest, has seen the node at that IP address. Other addresses get
    /// only a few packets.
    pub vouched: bool,
    /// Number of packets sent there in the last round; for TCP, the maximum number of connections tried.
    pub sent: u32,
    /// Time of the last of these packets.
    pub tried: Option<Instant>,
    /// Outcome of the attempt.
    pub outcome: DirectOutcome,
}

/// Outcome of an attempt to reach a node at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectOutcome {
    /// The address is being tried.
    Trying,
    /// The node has answered from there.
    Answered,
    /// Nothing came back.
    Silent,
    /// Nothing was sent there.
    NotTried(NotTried),
}

impl std::fmt::Display for DirectOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trying => f.pad("being tried"),
            Self::Answered => f.pad("answered"),
            Self::Silent => f.pad("no answer"),
            Self::NotTried(why) => why.fmt(f),
        }
    }
}
