//! Replaces `portmap` in builds without the feature of that name: no router is asked.

#[path = "portmap/router.rs"]
mod router;

use std::time::Duration;

pub use router::{Found, Gateway, Protocol};

/// Returns no protocol, without asking.
pub fn find(_: &Gateway, _: Duration) -> Vec<Found> {
    Vec::new()
}
