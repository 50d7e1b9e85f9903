//! The encrypted overlay of peersock: identity, handshake, sessions, peers, paths and discovery.
//!
//! # A pure state machine
//!
//! Nothing in this crate opens a socket, reads a clock, starts a thread or asks the operating system for
//! randomness. Datagrams, the time and random seeds come in as arguments; datagrams, events and the next
//! deadline are polled out. The same inputs give the same outputs, so a whole network of nodes runs in one
//! deterministic simulation.
//!
//! # Two halves
//!
//! **Control.** One state machine, used by `&mut`, knows peers and paths, runs handshakes and discovery, and
//! decides which session and which path a peer has. It is given received datagrams and the time, and then
//! drained until it has nothing more to send or to report.
//!
//! **Data.** A finished handshake becomes a [`Session`], shared behind an `Arc`. [`Session::seal`] and
//! [`Session::open`] take `&self`, need no control lock and allocate nothing. A received datagram goes
//!
//! ```text
//! datagram -> data_index -> SessionTable::get -> Session::open -> IP packet
//!                                                    |
//!                                                    +-> Session::note_received: "does control want to know?"
//! ```
//!
//! and a packet to send goes [`Routes::get`] -> [`Peer::sender`] (once per batch) -> [`Session::seal`] ->
//! socket. [`Routes`] has the owner of an address; the driver asks control only about unknown addresses. The
//! two `note_*` calls update a few atomics, and only occasionally report that the control half has to act.
//!
//! # Protocol
//!
//! `docs/reference/PROTOCOL.md` specifies every byte. [`wire`] holds the message layouts, [`noise`] the
//! handshake (`Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` with the message flow of WireGuard), and [`Provider`]
//! the ciphers of the data packets.
#![forbid(unsafe_code)]

mod bucket;
mod contact;
mod counters;
mod crypto;
mod endpoint;
mod id;
mod link;
mod network;
mod reach;
mod roots;
mod routes;
#[cfg(test)]
#[path = "routes/tests.rs"]
mod routes_tests;
mod session;
#[cfg(test)]
mod testing;
mod text;

pub mod membership;
pub mod noise;
pub mod wire;

/// Rate limits against strangers' messages, for users other than [`Endpoint`] that answer handshakes.
pub mod load {
    pub use crate::bucket::Rate;
    pub use crate::endpoint::{Admission, HandshakeLoad, Limiter, Recent, prefix_of, provider_of};
}

use peersock_primitives::sync;

#[cfg(feature = "aws-lc")]
pub use crypto::AwsLc;
pub use crypto::{
    AeadError, AeadKey, EntropySource, KeySource, NoEntropy, Portable, Provider, Restricted, Suite, SuiteSet,
    default_provider,
};

pub use contact::{
    Candidate, CandidateKind, Contact, DirectAttempt, DirectOutcome, Filtering, HolePunch, Mapping, Nat,
    NotTried, Shot, TcpAction, TcpPunch, TcpTarget, WantedSocket,
};
pub use counters::Counters;
pub use endpoint::{
    AddressError, Endpoint, EndpointConfig, JoinError, Limits, Lookup, NetworkInfo, PeerInfo,
};
pub use id::{
    BlindedKey, DiscoveryKey, Identity, NetworkId, NetworkKind, Nickname, NicknameText, NodeId,
    ParseIdentityError, ParseNetworkIdError, ParseNicknameError, ParseNodeIdError, Psk, PublicIdentity,
};
pub use link::{Attention, Elsewhere, Event, Gone, Transmit};
pub use network::{
    Exit, ManagedNetwork, Membership, NetworkConfig, NetworkConfigError, NetworkIdError, NetworkIndex,
    NetworkSummary, PeerDescription, Policy, Prefix, Programs, StaticMember, StaticNetwork, UsedMember,
    is_endpoint, is_route,
};
pub use peersock_primitives::Counter;
pub use reach::{Path, Place, RecvMeta, SizeState, SocketIndex, SocketInfo};
pub use roots::{
    MAX_ROOTS, NamedNode, NicknameError, RelayReader, Relays, RootConfig, RootInfo, RootState, WantedStream,
};
pub use routes::{Route, Routes};
pub use session::{
    OpenError, Opened, Peer, SealError, Sender, Session, SessionStats, SessionTable, Watch, data_index,
};
pub use wire::{DATA_HEADER, DATA_OVERHEAD, SessionIndex};
