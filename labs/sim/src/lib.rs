//! Deterministic simulation of many peersock nodes in virtual time.
//!
//! Both real cores, joined by the node's real data path, run on simulated hosts. Their datagrams cross a
//! simulated network that delays, loses, doubles, reorders, alters and cuts. Small programs talk over their
//! sockets. Every event follows from one seed.
//!
//! * [`net`]: hosts, LANs, links, NAT boxes. It knows nothing of peersock.
//! * [`Node`]: one node with its programs, called as the driver would call it.
//! * [`World`]: nodes and network in one virtual time, with continuous checks.
//! * [`scenario`]: a whole story from a seed. `cargo run --release -p peersock-sim -- run` runs thousands.
//!
//! # What is checked
//!
//! Every byte of every TCP stream is a function of its network, conversation, direction and place. So each
//! byte read proves that it is the right one, once and in order. UDP datagrams are numbered, and none may
//! come twice. An observer of the wire looks for reused nonces. The world limits the numbers of peers,
//! sessions and connections, and the events per virtual second. After the last fault all pairs that can reach
//! one another must have a new connection within [`Limits::recovery`]. Every conversation must complete, and
//! no state may be left behind. A panic is a failure like any other.
//!
//! In some scenarios an adversary is a member of a network ([`World::admit`]): it has keys, and sends
//! messages of every kind from any address. Then no node may send more to an address that never received
//! anything than came from there. No path may lead to such an address, and every promise to honest nodes must
//! still hold.
//!
//! The attacker in `tests/hostile` gives nodes datagrams by [`World::strike`] and compares
//! [`World::counters`] with the datagrams it sent.
//!
//! ```
//! let report = peersock_sim::scenario::Scenario::new(7).run();
//! assert!(report.violation.is_none());
//! ```

mod apps;
pub mod cells;
mod content;
pub mod managed;
pub mod net;
mod node;
pub mod scenario;
mod trace;
mod wire;
mod world;

pub use apps::{Ledger, Plan, Reader, Script, Side, Step, Violation};
pub use content::Content;
pub use node::{Node, NodeConfig, Sent};
pub use peersock_testnet::Random;
pub use trace::Trace;
pub use wire::{Sender, WireObserver};
pub use world::{
    DISCOVERY_PORT, IntruderConfig, Limits, Machine, MachineConfig, Processor, RootPlace, Share, Tap, Tapped,
    World,
};

/// Virtual time since the scenario began.
pub type Time = std::time::Duration;
