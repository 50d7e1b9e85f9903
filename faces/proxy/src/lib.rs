//! Proxies and forwards into an overlay, for programs that know nothing of it.
//!
//! A [`Proxy`] speaks SOCKS 5 (CONNECT, BIND, UDP ASSOCIATE) and HTTP (CONNECT and plain requests) on one
//! port. [`Forwards`] listen on the system's network and lead to an address of the overlay, or the other way
//! round, for TCP, UDP and Unix domain sockets. Both use the node that they are given, and have nothing of
//! the overlay's own in them.
//!
//! Every connection that is relayed keeps what TCP says: an end of one direction is passed on and leaves the
//! other one open, a reset on one side is a reset on the other, and who reads slowly slows the sender down. A
//! connection that is given up is reset, so that nobody takes what it has for complete.
//!
//! All of it is bounded: connections, UDP associations and flows by count, half of them for one client that
//! is on another machine, which is a member at whichever of its addresses; a client has 10 s to say what it
//! wants; heads of HTTP have 64 KiB and 100 fields, messages of SOCKS 513 bytes; a relay keeps 128 KiB in
//! each direction.
#![forbid(unsafe_code)]

mod activation;
mod attempts;
mod credentials;
mod datagrams;
mod error;
mod event;
mod forward;
mod gate;
mod http;
mod listener;
mod owner;
mod place;
mod proxy;
mod relay;
mod serve;
mod slots;
pub mod socks;
mod stop;
mod stream;
mod target;

/// How clients are accepted, counted and ended, for other faces of this project that serve clients. No stable
/// interface.
#[doc(hidden)]
pub mod serving {
    pub use crate::listener::{Listener, listen};
    pub use crate::owner::Owner;
    pub use crate::serve::{Client, Reception, called};
    pub use crate::slots::{Slot, Slots, Standing};
    pub use crate::stop::Stop;
    pub use crate::stream::{Link, Probe};
}

pub use activation::Activated;
pub use credentials::{Credentials, CredentialsError};
pub use event::{Event, Tell};
pub use forward::{ForwardSettings, Forwards};
pub use place::{Forward, Place, PlaceError, Protocol};
pub use proxy::{ListenError, Proxy, ProxySettings};
pub use stop::Stopper;
pub use target::{Host, Target};
