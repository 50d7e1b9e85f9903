//! Limits of clients.

use std::time::Duration;

/// Limit of pipes.
pub(crate) const MOST_PIPES: usize = 256;

/// Limit of listeners.
pub(crate) const MOST_LISTENERS: usize = 32;

/// Limit of one listener's connections that are not taken yet: twice the limit of one member. Further ones
/// wait to be accepted.
pub(crate) const MOST_WAITING: usize = 2 * MOST_OF_MEMBER;

/// Default limit of one member's connections that are pipes of listeners.
pub(crate) const MOST_OF_MEMBER: usize = 64;

/// Limit of subscriptions of a pipe.
pub(crate) const MOST_SUBSCRIPTIONS: usize = 8;

/// Limits of one queue: messages, and bytes.
pub(crate) const MOST_MESSAGES: usize = 1024;
pub(crate) const MOST_QUEUED: usize = 1 << 20;

/// Limit of all queues together, in bytes.
pub(crate) const MOST_QUEUED_IN_ALL: usize = 64 << 20;

/// Bytes that a message counts in addition to its data.
pub(crate) const MESSAGE_COST: usize = 64;

/// Longest message of a stream, and size of one read, in bytes.
pub(crate) const PIECE: usize = 64 << 10;

/// Longest body that is not streamed, and longest message of a WebSocket, in bytes.
pub(crate) const MOST_OF_BODY: usize = 1 << 20;

/// Limit in bytes of the answers to pings that wait for a WebSocket client which takes nothing; beyond it the
/// client is given up.
pub(crate) const MOST_OF_PONGS: usize = 64 << 10;

/// Longest datagram in bytes, as UDP over IPv4 can carry.
pub(crate) const MOST_OF_DATAGRAM: usize = 65_507;

/// Longest name in bytes, and longest regular expression.
pub(crate) const MOST_OF_NAME: usize = 64;
pub(crate) const MOST_OF_PATTERN: usize = 1024;

/// Memory limit in bytes of a compiled regular expression, and of its execution.
pub(crate) const MOST_OF_PROGRAM: usize = 256 << 10;

/// Timeout for an admitted client's request head, and for idle time between two requests.
pub(crate) const HEAD: Duration = Duration::from_secs(30);

/// Timeout of a pause in a body that is not streamed.
pub(crate) const BODY: Duration = Duration::from_secs(30);

/// Limit in bytes of a head that is incomplete after a read, so that no head exceeds 64 KiB; and limit of its
/// fields.
pub(crate) const MOST_OF_HEAD: usize = 32 << 10;
pub(crate) const MOST_FIELDS: usize = 100;

/// Default timeout of waiting for a message, as in P2PD, and its maximum, in seconds.
pub(crate) const PATIENCE: f64 = 2.0;
pub(crate) const MOST_PATIENCE: f64 = 3600.0;

/// Time for which data on a closed connection is read and discarded.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(10);

/// Keepalive interval of a stream of events.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
