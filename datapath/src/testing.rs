//! What the tests share.

use std::time::Instant;

/// Some point in time: any will do.
#[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}
