//! What was tried to reach a node directly, for people to see.

use std::net::SocketAddr;
use std::time::Instant;

use super::{CandidateKind, NotTried};

/// What has been tried to reach a node at one of its addresses; see [`PeerInfo::attempts`].
///
/// [`PeerInfo::attempts`]: crate::PeerInfo::attempts
///
/// ```
/// use peersock_overlay::{DirectAttempt, DirectOutcome};
///
/// fn tell(attempt: &DirectAttempt) -> String {
///     match attempt.outcome {
///         DirectOutcome::NotTried(why) => format!("{}: {why}", attempt.address),
///         outcome => format!("{}: {} sent, {outcome}", attempt.address, attempt.sent),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectAttempt {
    /// The address.
    pub address: SocketAddr,
    /// Where the node knows it from.
    pub kind: CandidateKind,
    /// A port that the node has not named: its NAT box was expected to use it next, or the node was heard
    /// there.
    pub predicted: bool,
    /// The node's box, or this one's, gives each destination a port that nobody can guess: many ports were
    /// sent to, or sent from. The port of the address is 0 in the first case.
    pub by_many_ports: bool,
    /// A TCP connection to there was tried.
    pub by_tcp: bool,
    /// Whether a root of this node's has seen the node at that IP address, also one that another root has
    /// named. Others get a few packets only.
    pub vouched: bool,
    /// Packets sent there in the last round; by TCP, the most connections that were tried.
    pub sent: u32,
    /// When the last of these was sent.
    pub tried: Option<Instant>,
    /// What came of it.
    pub outcome: DirectOutcome,
}

/// What came of an attempt to reach a node at an address.
///
/// ```
/// use peersock_overlay::DirectOutcome;
///
/// assert_eq!(DirectOutcome::Silent.to_string(), "no answer");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectOutcome {
    /// It is being tried.
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
