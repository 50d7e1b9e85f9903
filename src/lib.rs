//! Skeleton.

mod config;
pub mod control;
pub mod state;

pub use config::{ConfigError, Network};
pub use peersock_overlay as overlay;
