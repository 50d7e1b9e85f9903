//! When this process began.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Called first thing in `main`.
pub fn start() {
    START.get_or_init(Instant::now);
}

/// Time since [`start`].
pub fn since_start() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}
