//! Limits of clients.

use std::time::Duration;

/// Limit of pipes.
pub(crate) const MAX_PIPES: usize = 256;

/// Limit of listeners.
pub(crate) const MAX_LISTENERS: usize = 32;

/// Limit of one listener's connections that are not taken yet: twice the limit of one member. Further ones
/// wait to be accepted.
pub(crate) const MAX_WAITING_CONNECTIONS: usize = 2 * DEFAULT_CONNECTIONS_PER_MEMBER;

/// Default limit of one member's connections that are pipes of listeners.
pub(crate) const DEFAULT_CONNECTIONS_PER_MEMBER: usize = 64;

/// Limit of subscriptions of a pipe.
pub(crate) const MAX_SUBSCRIPTIONS: usize = 8;

/// Limits of one queue: messages, and bytes.
pub(crate) const MAX_QUEUED_MESSAGES: usize = 1024;
pub(crate) const MAX_QUEUED_BYTES: usize = 1 << 20;

/// Limit of all queues together, in bytes.
pub(crate) const MAX_QUEUED_BYTES_OF_ALL: usize = 64 << 20;

/// Bytes that a message counts in addition to its data.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// Longest message of a stream, and size of one read, in bytes.
pub(crate) const MAX_STREAM_MESSAGE_BYTES: usize = 64 << 10;

/// Longest body that is not streamed, and longest message of a WebSocket, in bytes.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 20;

/// Limit in bytes of the answers to pings that wait for a WebSocket client which takes nothing; beyond it the
/// client is given up.
pub(crate) const MAX_WAITING_PONG_BYTES: usize = 64 << 10;

/// Longest datagram in bytes, as UDP over IPv4 can carry.
pub(crate) const MAX_DATAGRAM_BYTES: usize = 65_507;

/// Longest name in bytes, and longest regular expression.
pub(crate) const MAX_NAME_BYTES: usize = 64;
pub(crate) const MAX_PATTERN_BYTES: usize = 1024;

/// Memory limit in bytes of a compiled regular expression, and of its execution.
pub(crate) const MAX_PATTERN_MEMORY_BYTES: usize = 256 << 10;

/// Timeout for an admitted client's request head, and for idle time between two requests.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Timeout of a pause in a body that is not streamed.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Limit in bytes of a head that is incomplete after a read, so that no head exceeds 64 KiB; and limit of its
/// fields.
pub(crate) const MAX_HEAD_BYTES: usize = 32 << 10;
pub(crate) const MAX_FIELDS: usize = 100;

/// Default timeout of waiting for a message, as in P2PD, and its maximum, in seconds.
pub(crate) const DEFAULT_WAIT_SECONDS: f64 = 2.0;
pub(crate) const MAX_WAIT_SECONDS: f64 = 3600.0;

/// Time for which data on a closed connection is read and discarded.
pub(crate) const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Keepalive interval of a stream of events.
pub(crate) const EVENTS_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
