//! Dropping of privileges that are not needed once the device exists.

use std::io;
use std::os::unix::fs::MetadataExt as _;

use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_ambient_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs,
};

use crate::User;

/// Gives up all capabilities of the calling thread and its future threads, permanently; call it before other
/// threads exist. Files of the user can still be opened.
///
/// # Errors
/// The errors of prctl(2) and capset(2).
pub fn give_up_privileges() -> io::Result<()> {
    set_no_new_privs(true)?;
    keep(CapabilitySet::empty())
}

/// Becomes a user, if one is given, and gives up all capabilities but `CAP_NET_ADMIN`, as
/// [`give_up_privileges`] does. This is for the process that keeps devices unchanged
/// ([`Upkeep`](crate::Upkeep)), and removes [`ExitRoutes`](crate::ExitRoutes) when the node is gone.
///
/// # Errors
/// The errors of [`give_up_privileges`] and [`User::become_it`]; `PermissionDenied` if the thread lacks the
/// capability.
pub fn keep_network_privilege(user: Option<User>) -> io::Result<()> {
    set_no_new_privs(true)?;
    if let Some(user) = user {
        set_keep_capabilities(true)?;
        user.become_it()?;
        set_keep_capabilities(false)?;
    }
    keep(CapabilitySet::NET_ADMIN)
}

/// Returns true if the program has `CAP_NET_ADMIN` from its file (setcap(8)), and every user of this machine
/// may execute the file. Then every user can do what this program does, with everyone's network.
pub fn is_privileged_for_all() -> bool {
    // A user's processes have it from elsewhere if it is ambient (capabilities(7)).
    let is_user = !geteuid().is_root();
    let is_ambient = capability_is_in_ambient_set(CapabilitySet::NET_ADMIN).unwrap_or(true);
    let has_it = capabilities(None).is_ok_and(|sets| sets.permitted.contains(CapabilitySet::NET_ADMIN));
    let is_open = || {
        let file = std::fs::metadata("/proc/self/exe");
        file.is_ok_and(|file| file.mode() & 0o001 != 0)
    };
    is_user && has_it && !is_ambient && is_open()
}

fn keep(kept: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}
