//! Names in timers and indices. Never reused, so that a stale one finds nothing.

/// A peer in one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PeerKey(pub(crate) u64);

/// A remote node, whatever networks it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeKey(pub(crate) u64);
