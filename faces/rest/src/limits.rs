//! How much clients may have.

use std::time::Duration;

/// The most pipes.
pub(crate) const MOST_PIPES: usize = 256;

/// The most listeners.
pub(crate) const MOST_LISTENERS: usize = 32;

/// Connections of one listener that nobody has taken yet: twice as many as one member may have. More wait to
/// be accepted.
pub(crate) const MOST_WAITING: usize = 2 * MOST_OF_MEMBER;

/// Connections of one member that are pipes of listeners, unless the settings say otherwise.
pub(crate) const MOST_OF_MEMBER: usize = 64;

/// The most subscriptions of a pipe.
pub(crate) const MOST_SUBSCRIPTIONS: usize = 8;

/// The most that waits in one queue: messages, and bytes.
pub(crate) const MOST_MESSAGES: usize = 1024;
pub(crate) const MOST_QUEUED: usize = 1 << 20;

/// The most that waits in all queues together, bytes.
pub(crate) const MOST_QUEUED_IN_ALL: usize = 64 << 20;

/// What a message costs beside its bytes.
pub(crate) const MESSAGE_COST: usize = 64;

/// The longest message of a stream: what is read at once, bytes.
pub(crate) const PIECE: usize = 64 << 10;

/// The longest body that is not streamed, and the longest message of a WebSocket, bytes.
pub(crate) const MOST_OF_BODY: usize = 1 << 20;

/// The most answers to pings that wait for a WebSocket's client which takes nothing, bytes; then it is given
/// up.
pub(crate) const MOST_OF_PONGS: usize = 64 << 10;

/// The longest datagram: what UDP over IPv4 carries, bytes.
pub(crate) const MOST_OF_DATAGRAM: usize = 65_507;

/// The longest name, bytes, and the longest regular expression.
pub(crate) const MOST_OF_NAME: usize = 64;
pub(crate) const MOST_OF_PATTERN: usize = 1024;

/// What a compiled regular expression may take, bytes, and the same while it runs.
pub(crate) const MOST_OF_PROGRAM: usize = 256 << 10;

/// Longest time that a client that is let in takes for the head of a request, and is idle between two.
pub(crate) const HEAD: Duration = Duration::from_secs(30);

/// How long a client may send nothing of a body that is not streamed.
pub(crate) const BODY: Duration = Duration::from_secs(30);

/// The most of a head that is not whole after a read, bytes, so that none has more than 64 KiB; and its most
/// fields.
pub(crate) const MOST_OF_HEAD: usize = 32 << 10;
pub(crate) const MOST_FIELDS: usize = 100;

/// How long a message is waited for if nothing is said, as by P2PD; and at most, seconds.
pub(crate) const PATIENCE: f64 = 2.0;
pub(crate) const MOST_PATIENCE: f64 = 3600.0;

/// How long what still comes by a connection that was closed is read and thrown away.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(10);

/// How often a stream of events says that it is there.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
