//! Helpers shared by the tests.

use std::time::Instant;

/// Returns an arbitrary point in time.
#[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}
