//! A network to simulate: hosts on LANs, joined by a core that stands for the Internet.
//!
//! ```text
//!   host ──up──▶ switch ──down──▶ host          one LAN; multicast and broadcast go to every host on it
//!                  │  ▲
//!                 out  in                       the gateway, perhaps with a NAT box or a firewall
//!                  ▼  │
//!                  core ──in──▶ another LAN's gateway
//! ```
//!
//! A gateway may lead to another LAN instead of the core: a NAT box behind a NAT box.
//!
//! Every arrow is a [`Pipe`]: a row of small [`Stage`]s such as delay, loss or a rate with a queue. A fault
//! is one more stage for a while. [`Net`] performs no I/O and has no clock: packets go in with the time,
//! deliveries are polled out, and [`Net::next_arrival`] says when to ask again.

mod datagram;
mod firewall;
mod host;
mod nat;
mod pipe;
mod stage;
mod tcp;
#[cfg(test)]
mod tests;
mod topology;

pub use datagram::{Datagram, split_segments};
pub use firewall::Firewall;
pub use host::{Attachment, HostId};
pub use nat::{Behaviour, Nat, NatConfig, PortDelta};
pub use pipe::{FaultId, Pipe};
pub use stage::Stage;
pub use tcp::{Passes, TcpWay};
pub use topology::{Delivery, Gateway, LanId, LinkId, Net, NetStats, Prefixes};
