//! Attachment of programs to the node that the programs of a user share: one identity, one set of addresses,
//! one registration at the roots.
//!
//! ```text
//! program ──── connection ────> node (`peersock node`)
//!    │   <──── tag and token ────  │  one server of sockets for each program, with the program's networks
//!    └── requests of sockets ────> │
//! ```
//!
//! A node listens on the Unix socket `node.sock` in its state directory. A program connects there, names its
//! networks and settings, and gets the tag and the token of its server. The connection stays: its end tells
//! each side that the other has gone. A program that finds no node starts one, which gets its first
//! connection as standard input.
//!
//! * [`Attached`]: the program's side;
//! * [`Connection`]: the node's side of one program's connection;
//! * [`ProgramNode`]: the node of a program in C or Python, which shares one or has one in its process.
//!
//! Each message is a length (four bytes, little endian) and a JSON document, see [`Ask`] and [`Reply`].

mod client;
mod connection;
mod events;
mod frame;
mod messages;
mod nicknames;
mod place;
mod program_node;
mod questions;
mod seat;
mod shared_node;
mod start;
mod variables;

pub use client::{AttachError, Attached, GRACE, Told};
pub use connection::Connection;
pub use events::ProgramEvents;
pub use messages::{Ask, Joining, Network, Refusal, Reply, Setting, VERSION, Wish};
pub use nicknames::NicknameRefusal;
pub use peersock_fd::NodeTag;
pub use place::Namespaces;
pub use program_node::{JoinFailure, NodeError, ProgramNode};
pub use questions::{Answer, Question, STEP};
pub use seat::{Answered, Asked, Bytes, Reached, SeatAsk, SeatReply, SignedSet};
pub use start::{Launch, has_low_limits, may_start_node};
pub use variables::{persist, wants_own_node};
