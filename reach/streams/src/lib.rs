//! Datagrams over TCP, TLS and WebSocket between a node and a root of peersock, where UDP does not pass.
//!
//! The client's end is a [`Connector`], which makes a [`Connection`] to a [`Target`], through the proxy that
//! [`ProxySettings`] name. The server's end is a [`Server`] for many clients, which distinguishes all
//! transports on one port. Both carry the same datagrams as UDP and treat them as UDP does: none is
//! retransmitted, and a sender never waits. On a slow connection the oldest datagrams are dropped. The
//! connection then looks like a lossy link with a short queue, which congestion control in the layers above
//! expects.
//!
//! | transport | what passes on the wire |
//! |---|---|
//! | `tcp` | each datagram after its length, 16 bits; 0 is a keepalive, and the client's first frame |
//! | `tls` | the same inside TLS 1.3; ALPN is [`ALPN`] |
//! | `wss` | one binary message for each datagram (RFC 6455) at [`PATH`], in TLS 1.3; ALPN is `http/1.1` |
//!
//! Keepalives of a WebSocket are pings. A datagram has 1 to [`MAX_DATAGRAM`] bytes. All sessions of peersock
//! are encrypted and authenticated end to end inside these datagrams. TLS serves to pass firewalls and to
//! hide the protocol; see [`RootKey`] for the certificates.
//!
//! Two nodes use the same frames on connections between them, each by its [`PeerPort`].
//!
//! A [`Connector`] also connects to TURN servers by TCP and TLS (RFC 8656), in the same way. The datagrams
//! are then TURN messages, as [`TurnReader`] finds them.
//!
//! Two features are on by default. Without `tls` a target by TLS or WebSocket is an error. `server`, which
//! needs `tls`, adds `Server` with its certificates.
#![forbid(unsafe_code)]

mod carrier;
mod client;
mod connection;
mod dial;
mod error;
mod framing;
mod peer_streams;
mod proxy;
mod pump;
mod queue;
#[cfg(feature = "server")]
mod server;
pub mod socks;
mod target;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod turn_messages;
mod turn_target;

pub use client::{ConnectOptions, Connector, PATH};
pub use connection::{Closed, Connection, Counters, Receiver, SendError, Sender};
pub use dial::Way;
pub use error::ConnectError;
pub use framing::{FrameReader, FrameTooLong, MAX_DATAGRAM};
pub use peer_streams::{PeerListener, PeerPort};
pub use proxy::{ConnectAnswer, ParseProxyError, Proxy, ProxySettings};
pub use pump::Timing;
pub use queue::QueueLimits;
#[cfg(feature = "server")]
pub use server::{
    ConnectionId, Limits, Server, ServerCounters, ServerEvent, ServerHandle, ServerOptions, UpgradeRequest,
};
pub use target::{Target, Transport};
pub use tls::ALPN;
#[cfg(feature = "server")]
pub use tls::{CertificateError, CertificateFiles, RootKey, ServerTls};
pub use turn_messages::{NotTurn, TurnReader};
pub use turn_target::{TurnTarget, TurnTls};
