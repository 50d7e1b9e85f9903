//! A node's HTTP server, for programs of the same machine without a peersock library.
//!
//! [`Rest`] serves a node's state, and *pipes*: named TCP connections and UDP sockets of the overlay that
//! live in the server. Requests send and receive their messages. A pipe can also be read and written as a
//! stream, become a raw two-way relay (`Upgrade: tcp`), or be a WebSocket. The routes of this project are
//! under `/v1`, described by [`OPENAPI`]; the server also has P2PD's routes, so that its examples work.
//!
//! The server listens only on loopback addresses and at Unix domain sockets. It refuses web pages without
//! permission. The field Host must name this machine (against DNS rebinding), Origin must be allowed, and on
//! loopback addresses every request needs a token. A Unix domain socket that this process has made is open to
//! its user, without a token.
//!
//! All resources are bounded. Connections and pipes are limited in number, and bodies that are not streamed
//! to 1 MiB. Waiting messages are limited to 1 MiB and 1024 for each queue, and 64 MiB in total. Heads are
//! limited to 64 KiB, 100 fields and 30 s, the first one, with its token, to 10 s. While all places are
//! taken, clients without a token make room. The sender of a stream waits while a queue is full; of datagrams
//! the oldest are dropped, and counted.
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
