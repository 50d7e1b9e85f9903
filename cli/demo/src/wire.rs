//! Messages between the processes of the demonstration.
//!
//! Pipes carry one JSON object per line. A connection over the overlay begins with one byte for its purpose,
//! [`ECHO`] or [`FETCH`].

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use peersock_terminal::failure::{Failure, Outcome};
use peersock_terminal::output::print;

/// Purpose of a connection: the server returns every byte.
pub(super) const ECHO: u8 = b'E';

/// Purpose of a connection: the server sends the content and closes.
pub(super) const FETCH: u8 = b'F';

/// Size of a ping-pong message in bytes.
pub(super) const PING_BYTES: usize = 64;

/// A line from a child: its result, or the reason of its failure. Only the parent talks to people.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said<T> {
    Done(T),
    Failed { message: String, hint: Option<String> },
}

/// Prints a child's line.
pub(super) fn say<T: Serialize>(said: &Said<T>) -> Outcome {
    print(serde_json::to_string(said).expect("the messages are made of texts and finite numbers"))
}

/// Reports a child's failure to the parent, which prints it.
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

/// Message of the server once it is listening.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listening {
    pub(super) place: Place,
    pub(super) port: u16,
}

/// Results of the client.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Findings {
    pub(super) client: Place,
    /// The server's UDP endpoint, as the client's node sees it.
    pub(super) path: String,
    /// Largest datagram on that path, in bytes.
    pub(super) datagram_bytes: usize,
    pub(super) cipher_suite: String,
    /// Time from the start of the client's process until a session with the server exists.
    pub(super) found_ms: f64,
    /// Time from the start of the client's process until the first byte from the server.
    pub(super) first_byte_ms: f64,
    pub(super) size: u64,
    /// Time from the request until the last byte.
    pub(super) transfer_seconds: f64,
    pub(super) sha256: String,
    pub(super) round_trips: usize,
    pub(super) ping_pong_p50_us: f64,
    pub(super) ping_pong_p99_us: f64,
}
