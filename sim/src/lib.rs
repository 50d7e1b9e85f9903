//! Deterministic simulation of many peersock nodes in virtual time.

mod apps;
mod content;
pub mod net;
mod node;
mod random;
pub mod scenario;
mod trace;
mod wire;
mod world;

pub use apps::{Ledger, Plan, Reader, Script, Side, Step, Violation};
pub use content::Content;
pub use node::{Node, NodeConfig, Sent};
pub use random::Random;
pub use trace::Trace;
pub use wire::{Sender, WireObserver};
pub use world::{DISCOVERY_PORT, Limits, Machine, MachineConfig, Tap, Tapped, World};

/// Virtual time since the scenario began.
pub type Time = std::time::Duration;
