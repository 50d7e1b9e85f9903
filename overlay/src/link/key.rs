//! Keys for timers and indices. A key is never reused, so a stale one finds nothing.

/// Key of a peer in one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PeerKey(pub(crate) u64);

/// Key of a remote node, whatever networks it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeKey(pub(crate) u64);
