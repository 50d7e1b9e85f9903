//! A node by HTTP, for programs of the same machine that have no library of peersock's.
//!
//! [`Rest`] serves what a node knows of itself, and *pipes*: named TCP connections and UDP sockets of the
//! overlay that live in the server, from which messages are taken and to which they are sent by requests. A
//! pipe can also be read and written as a stream, become a raw two-way relay (`Upgrade: tcp`), or be a
//! WebSocket. Under `/v1` are the routes of this project, described by [`OPENAPI`]; beside them are those of
//! P2PD, so that its examples work.
//!
//! It listens on loopback addresses and at Unix domain sockets alone. What a web page can do is refused: the
//! field Host must name this machine (against DNS rebinding), Origin must be one that was allowed, and on
//! loopback addresses every request shows a token. A Unix domain socket that this process has made is open
//! to its own user, who shows none.
//!
//! All of it is bounded: connections and pipes by count, messages that wait by 1 MiB and 1024 for each queue
//! and 64 MiB for all, bodies that are not streamed by 1 MiB, heads by 64 KiB, 100 fields and 30 s, the
//! first one with its token by 10 s; while all places are taken, who has shown no token makes room. The
//! sender of a stream waits while a queue is full; of datagrams the oldest are dropped, and counted.
#![forbid(unsafe_code)]

mod access;
mod api;
#[doc(hidden)]
pub mod fuzzing;
mod limits;
mod pipe;
mod problem;
mod server;
mod token;

pub use access::{Origin, OriginError};
pub use api::OPENAPI;
pub use server::{Rest, RestError, RestSettings};
pub use token::{Token, TokenError};
