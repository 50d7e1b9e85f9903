//! A simulated network: hosts on LANs, joined by a core that represents the Internet.
//!
//! ```text
//!   host ──up──▶ switch ──down──▶ host          one LAN; multicast and broadcast go to every host on it
//!                  │  ▲
//!                 out  in                       the gateway, perhaps with a NAT box or a firewall
//!                  ▼  │
//!                  core ──in──▶ another LAN's gateway
//! ```
//!
//! A gateway may lead to another LAN instead of the core, for example a NAT box behind a NAT box.
//!
//! Every arrow is a [`Pipe`]: a row of small [`Stage`]s such as delay, loss or a rate with a queue. A fault
//! is a temporary extra stage. [`Net`] performs no I/O and has no clock. Callers push packets with the time
//! and poll deliveries. [`Net::next_arrival`] returns the time of the next poll.

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
