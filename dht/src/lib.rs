//! Nodes of one network meet by the BitTorrent DHT (BEP 5, BEP 44), without any root.
//!
//! # What is where
//!
//! A node that wants to be found publishes a [`Record`]: its identity, addresses and what its NAT does,
//! signed by its identity and sealed for the network's members. It does so at two [`Location`]s: one that
//! follows from its overlay address, where who knows only that finds it, but every member can write; and one
//! whose signing key is the node's own, blinded, so that nobody else can write there. Who wants to meet it
//! leaves a [`Knock`] in its mailbox, which the node reads every few seconds; then both punch by a
//! [`HolePunch`] plan.
//!
//! All keys change every hour ([`EPOCH`]), and follow from the network's discovery key ([`MeetingKeys`]): who
//! has not got that can neither find, read nor write anything, nor tell which items belong together.
//! `docs/PROTOCOL.md` has every byte, and what an attacker can do at worst.
//!
//! # Two halves
//!
//! [`Rendezvous`] decides what to read and write, and when, and what of the answers to believe. It does no
//! I/O: time and randomness are arguments, operations and events are polled out. [`Service`] runs it with the
//! library `mainline` in a thread of its own.
#![forbid(unsafe_code)]

mod driver;
mod item;
mod keys;
mod ping;
mod record;
mod rendezvous;
mod seal;
#[cfg(test)]
mod testing;

pub use driver::{Bootstrap, Service, Settings, StartError, answers_any};
pub use item::Item;
pub use keys::{EPOCH, Epoch, ItemSigner, Location, MeetingKeys, NodeTail, SKEW};
pub use peersock_overlay::{Candidate, CandidateKind, Contact, Filtering, HolePunch, Mapping, Nat, Shot};
pub use ping::{PingAnswer, ping_question};
pub use record::{Knock, Record, Refused};
pub use rendezvous::{
    Answer, Config, Counters, Event, Moment, Network, Operation, OperationId, Outcome, Rendezvous, Target,
};
pub use seal::{PLAIN_LEN, SEALED_LEN};
