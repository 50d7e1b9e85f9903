//! Operations that Linux allows only to some programs.

use rustix::thread::{CapabilitySet, capabilities};

/// Returns true if the calling thread has CAP_NET_RAW, which Linux requires for hop-by-hop or destination
/// options. This does not protect peers; programs see the same behavior as without the overlay.
pub(crate) fn has_net_raw() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_RAW))
}
