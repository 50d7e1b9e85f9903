//! What nobody needs any more when the device is there.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

/// Gives up all capabilities of the calling thread and of those that it starts from now on, for good: call it
/// before there are others. Files that belong to the user can be opened as before.
///
/// ```no_run
/// peersock_tun::give_up_privileges()?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// What prctl(2) and capset(2) say.
pub fn give_up_privileges() -> io::Result<()> {
    set_no_new_privs(true)?;
    keep(CapabilitySet::empty())
}

/// Gives up all capabilities but `CAP_NET_ADMIN`, as [`give_up_privileges`] does: for the process that removes
/// [`ExitRoutes`](crate::ExitRoutes) when the node is gone.
///
/// # Errors
/// As [`give_up_privileges`]; `PermissionDenied` if the thread does not have it.
pub fn keep_network_privilege() -> io::Result<()> {
    set_no_new_privs(true)?;
    keep(CapabilitySet::NET_ADMIN)
}

fn keep(kept: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}
