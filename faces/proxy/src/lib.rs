//! Proxies and forwards into an overlay, for programs that do not know it.
//!
//! A [`Proxy`] speaks SOCKS 5 (CONNECT, BIND, UDP ASSOCIATE) and HTTP (CONNECT and plain requests) on one
//! port. [`Forwards`] listen on the system's network and lead to an address of the overlay, or the other way
//! round, for TCP, UDP and Unix domain sockets. Both use the node that they are given, and implement none of
//! the overlay. A [`Ticket`] is a text that leads to one service in a separate network.
//!
//! Every relayed connection keeps TCP's semantics. The end of one direction is passed on and leaves the other
//! direction open. A reset on one side resets the other side, and a slow reader slows the sender down. A
//! connection that is given up is reset, so that the peer does not take its data for complete.
//!
//! All resources are bounded. Connections, UDP associations and flows are limited in number, and one client
//! on another machine gets half of them. A member counts as one client at all its addresses. A client has 10
//! s to complete its request. Heads of HTTP have 64 KiB and 100 fields, messages of SOCKS 513 bytes; a relay
//! keeps 128 KiB in each direction.
#![forbid(unsafe_code)]

mod activation;
mod attempts;
mod connection;
mod credentials;
mod datagrams;
mod error;
mod event;
mod forward;
mod gate;
mod http;
mod identity;
mod listener;
mod overlay;
mod owner;
mod place;
mod proxy;
mod relay;
mod serve;
mod slots;
mod socks;
mod stop;
mod stream;
mod target;
mod ticket;

/// Accepting, counting and ending of clients, for other faces of this project that serve clients. Not a
/// stable interface.
#[doc(hidden)]
pub mod serving {
    pub use crate::connection::{Connection, Reading, Writing};
    pub use crate::datagrams::Datagrams;
    pub use crate::listener::{Listener, listen};
    pub use crate::overlay::OverlayEvents;
    pub use crate::owner::Owner;
    pub use crate::serve::{Client, Reception, called};
    pub use crate::slots::{Slot, Slots, Standing};
    pub use crate::stop::Stop;
    pub use crate::stream::{Link, Probe};
}

/// Functions for fuzz targets. Not a stable interface.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::identity::http::passed;
}

pub use activation::Activated;
pub use credentials::{Credentials, CredentialsError};
pub use event::{Event, Tell};
pub use forward::{ForwardSettings, Forwards};
pub use identity::Introduction;
pub use overlay::Overlay;
pub use place::{Forward, Place, PlaceError, Protocol};
pub use proxy::{ListenError, Proxy, ProxySettings};
pub use stop::Stopper;
pub use target::{Host, Target};
pub use ticket::{Ticket, TicketError};
