//! Encrypted peer-to-peer sockets.
//!
//! A program joins a virtual network by its 64-bit ID and opens ordinary TCP and UDP sockets to the other
//! members, wherever they are: no privilege, no daemon, no TUN device, no account. Each process is its own
//! network card: a userspace TCP/IP stack over an encrypted overlay, both inside this library.
//!
//! * [`node()`] and [`Node::builder`]: the node, its identity and its networks;
//! * [`TcpStream`], [`TcpListener`], [`UdpSocket`]: asynchronous sockets, for any executor;
//! * [`blocking`]: the same for threads;
//! * `http`, with the features `axum` and `hyper`: adapters for axum, hyper and tonic;
//! * [`settings`]: the table of a node's settings, for other languages and command lines;
//! * [`netcheck`], [`interfaces`]: checks of the machine's network;
//! * [`overlay`]: the types of identities, networks and addresses.
//!
//! # Features
//!
//! All but `axum` and `hyper` are on by default. With `default-features = false` the crate has sockets,
//! ad-hoc networks, discovery on local networks, and roots that are reached by UDP, and needs no C compiler.
//!
//! | feature | adds |
//! |---|---|
//! | `aws-lc` | the data ciphers of AWS-LC, several times as fast as the portable ones. Needs a C compiler |
//! | `dht` | nodes meet by the BitTorrent DHT: [`NodeBuilder::dht`] |
//! | `dns` | lists of roots in the DNS: [`RootSource::Dns`] |
//! | `portmap` | ports that routers open by PCP, NAT-PMP and UPnP: [`NodeBuilder::port_mapping`] |
//! | `static-networks` | networks that a TOML file describes: [`Network::from_file`] |
//! | `streams` | TCP: to roots (`tcp:`), and between nodes where no UDP passes |
//! | `tls` | TLS and WebSockets (`tls:`, `wss:`, `turns:`), with `streams`. Needs a C compiler |
//! | `turn` | addresses on TURN servers, with `streams`: [`NodeBuilder::turn`] |
//!
//! The API is the same in all builds. A setting that needs a missing feature, in the program or in the
//! environment, fails with a [`MissingFeature`] that names the feature.
//!
//! ```
//! use std::io::{Read, Write};
//!
//! use peersock::blocking::{TcpListener, TcpStream};
//! use peersock::{IdentitySource, Interfaces, Network, Node};
//!
//! let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
//! let network = node.join(Network::ad_hoc("ff00500050000000".parse()?))?;
//!
//! let listener = TcpListener::bind_on(&node, "[::]:80")?;
//! let mut client = TcpStream::connect_on(&node, (network.address(), 80))?;
//! let (mut server, _) = listener.accept()?;
//! client.write_all(b"hello")?;
//! let mut hello = [0; 5];
//! server.read_exact(&mut hello)?;
//! assert_eq!(&hello, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod driver;
mod node;
mod socket;
mod sys;

pub mod attach;
pub mod blocking;
/// Networks for a device of the machine, such as a TUN device, instead of sockets: see
/// [`Node::join_device`](crate::Node::join_device).
pub mod device {
    pub use peersock_datapath::{Device, Offload, Segments};
    pub use peersock_stack::PartialChecksum;

    pub use crate::node::DeviceSender;
}
#[cfg(any(feature = "axum", feature = "hyper"))]
pub mod http;
pub mod interfaces;
pub mod management;
pub mod net;
pub mod netcheck;
pub mod settings;
pub mod state;

use peersock_primitives::sync;

pub use config::network_id;
#[doc(hidden)]
pub use config::packed;
pub use config::{
    ConfigError, Dht, HostEndpoint, Invite, MissingFeature, Network, ParseDhtError, ParseEndpointError,
    ParseInviteError, ParseRootError, RootAddress, RootDomain, RootEndpoint, RootSource, RootTransport,
    RootsError,
};
pub use driver::Interfaces;
pub use net::{TcpListener, TcpStream, UdpSocket};
#[cfg(feature = "dns")]
#[doc(hidden)]
pub use node::listed_in;
pub use node::{
    Answerer, AttemptStatus, CandidateStatus, Conflict, ContactStatus, DhtStatus, Event, Events, FlowStatus,
    IdentitySource, Joined, MemberQuestion, MembershipStatus, NetworkStatus, Node, NodeBuilder, PeerIdentity,
    PeerStatus, Ports, Presence, ProgramStatus, RootChanges, RootListStatus, RootStatus, Seat, SeatError,
    Seed, Standing, StartError, Status, Traffic, TurnStatus, Undelivered, current_node, node,
};
pub use peersock_datapath::Unanswered;
pub use peersock_nat::turn::{TurnServer, TurnServerError, TurnTransport};
pub use peersock_overlay as overlay;
pub use peersock_overlay::{
    JoinError, NamedNode, NetworkId, NetworkIdError, NetworkSummary, Nickname, NicknameError, NicknameText,
    NodeId, ParseNicknameError, PublicIdentity, RootState,
};
pub use peersock_stack::{CongestionControl, State as TcpState, TcpInfo, UnknownCongestionControl};
pub use socket::ToSocketAddrs;

/// Compiles and runs the program in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
