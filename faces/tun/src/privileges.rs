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
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets)?;
    Ok(())
}
