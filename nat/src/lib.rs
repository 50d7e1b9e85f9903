//! What a node finds out about its own network.
#![forbid(unsafe_code)]

mod behavior;
pub mod host;
pub mod interfaces;
pub mod netcheck;
pub mod portmap;
pub mod probe;
mod socket;
pub mod stun;

pub use behavior::{Delta, DeltaKind, Filtering, Mapping, Nat, NatKind, Observations, Sample};
