//! Meeting of the nodes of one network by the BitTorrent DHT (BEP 5, BEP 44), without any root.
//!
//! # Contents of the DHT
//!
//! A node that wants to be found publishes a [`Record`] with its identity, its addresses and its NAT's
//! behavior. The record is signed by the identity and sealed for the network's members. The node publishes it
//! at two [`Location`]s. The first follows from its overlay address: a peer that knows only the address finds
//! it, but every member can write there. The second has a signing key that is the node's blinded identity
//! key, so no other node can write there. A peer that wants to meet the node leaves a [`Knock`] in its
//! mailbox, which the node reads every few seconds. Then both punch by a [`HolePunch`] plan.
//!
//! All keys change every hour ([`EPOCH`]), and follow from the network's discovery key ([`MeetingKeys`]).
//! Without that key an outsider can neither find, read nor write anything, nor tell which items belong
//! together. `docs/reference/PROTOCOL.md` specifies every byte, and the worst that an attacker can do.
//!
//! # Two halves
//!
//! [`Rendezvous`] decides what to read and write, and when, and which answers to believe. It does no I/O:
//! time and randomness are arguments, operations and events are polled out. [`Service`] runs it with the
//! library `mainline` in a separate thread.
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
