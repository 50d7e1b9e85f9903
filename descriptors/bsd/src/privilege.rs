//! What Linux allows to some programs only.

use rustix::thread::{CapabilitySet, capabilities};

/// Whether the calling thread has CAP_NET_RAW, which Linux asks for where a program names hop-by-hop or
/// destination options. Peers are not protected by that; programs meet what they would meet without the
/// overlay.
pub(crate) fn has_net_raw() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_RAW))
}
