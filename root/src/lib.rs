//! Root of peersock: a server that finds nodes, and relays sealed datagrams between them.
//!
//! # A pure state machine
//!
//! [`Root`] opens no socket, reads no clock and starts no thread. A driver hands it each datagram with its
//! origin ([`Source`]) and the time; then it drains the outgoing datagrams and polls the next deadline:
//!
//! ```text
//! handle_datagram / handle_answer / handle_timeout / drain
//!     then poll_transmit until it has nothing more, then poll_timeout
//! ```
//!
//! The same inputs give the same outputs, so simulation runs the code that serves. [`server`] is such a
//! driver, on tokio.
//!
//! # Functions
//!
//! A node makes an ordinary session with the root (`handshake`), which is kept in little more than its keys
//! (`session`). The node is *proven* where it receives (`roaming`). In the session it registers
//! (`registration`), looks others up (`lookup`), and gets notices. Relayed frames (`relay`) are outside the
//! session: the root forwards them by their header, unread. STUN requests (`stun`) need no session at all.
//!
//! # Limits on strangers
//!
//! Every datagram costs a bounded amount of work and memory. An address that has not shown that it receives
//! gets at most as many bytes as came from there: [`Root`] keeps a credit for each datagram (`outbox`).
//! Tables have limits ([`Limits`]), and each limit has a counter ([`Counters`]).
#![deny(unsafe_code)]

mod budget;
mod client;
mod clients;
mod config;
mod control;
mod counters;
mod directory;
mod draining;
mod eviction;
mod handshake;
mod lookup;
mod nicknames;
mod outbox;
mod registration;
mod relay;
mod roaming;
mod root;
#[cfg(feature = "server")]
pub mod server;
mod session;
mod source;
pub mod stun;
#[cfg(test)]
mod tests;

pub use config::{Config, Limits, RelayPolicy};
pub use counters::Counters;
pub use directory::{Answer, Directory, QuestionId};
pub use root::Root;
pub use source::Source;
