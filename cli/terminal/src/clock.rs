//! The start time of this process.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Records the start time; called first in `main`.
pub fn start() {
    START.get_or_init(Instant::now);
}

/// Returns the time since [`start`].
pub fn since_start() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}
