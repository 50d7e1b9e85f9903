//! Helpers for the crate's own tests.

use std::time::Instant;

/// Returns some point in time: the cores take time as an argument, so any will do.
#[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}
