//! What the processes of the demonstration say to each other.
//!
//! Over pipes: one JSON object per line. Over the overlay: a connection begins with one byte that says what
//! it is for, [`ECHO`] or [`FETCH`].

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use peersock_terminal::failure::{Failure, Outcome};
use peersock_terminal::output::print;

/// The server returns every byte.
pub(super) const ECHO: u8 = b'E';

/// The server sends the content and closes.
pub(super) const FETCH: u8 = b'F';

/// Bytes of one ping-pong message.
pub(super) const PING_BYTES: usize = 64;

/// A line from a child: its result, or why it has none. The parent is the only one that speaks to a person.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said<T> {
    Done(T),
    Failed { message: String, hint: Option<String> },
}

/// Prints a child's line.
pub(super) fn say<T: Serialize>(said: &Said<T>) -> Outcome {
    print(serde_json::to_string(said).expect("the messages are made of texts and finite numbers"))
}

/// Lets a child's failure be told by the parent.
pub(super) fn tell_parent(outcome: Outcome) -> Outcome {
    outcome.or_else(|failure| {
        say(&Said::<()>::Failed {
            message: failure.message().to_owned(),
            hint: failure.hint().map(str::to_owned),
        })?;
        Err(Failure::silent(failure.status()))
    })
}

/// One of the two nodes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) node_id: String,
    pub(super) address: Ipv6Addr,
}

/// What the server says once it is listening.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listening {
    pub(super) place: Place,
    pub(super) port: u16,
}

/// What the client found out.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Findings {
    pub(super) client: Place,
    /// The server's UDP endpoint, as the client's node sees it.
    pub(super) path: String,
    /// Largest datagram on that path, in bytes.
    pub(super) datagram_bytes: usize,
    pub(super) cipher_suite: String,
    /// From the start of the client's process until there was a session with the server.
    pub(super) found_ms: f64,
    /// From the start of the client's process until the first byte from the server.
    pub(super) first_byte_ms: f64,
    pub(super) size: u64,
    /// From the request until the last byte.
    pub(super) transfer_seconds: f64,
    pub(super) sha256: String,
    pub(super) round_trips: usize,
    pub(super) ping_pong_p50_us: f64,
    pub(super) ping_pong_p99_us: f64,
}
