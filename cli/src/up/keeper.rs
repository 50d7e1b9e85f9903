//! A process beside `peersock up` that stores what the node learns of managed networks, for a node that goes
//! on as a user without access to its state directory.
//!
//! It is root without any capability, so that it may write into root's directory, and takes nothing but
//! records of networks from the node.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use peersock::state::StateDir;
use peersock_tun::give_up_privileges;

use super::fork::{be, fork, stand_apart};
use crate::failure::{Failure, Outcome};

/// Starts the process, while this one has a single thread. It ends with the returned end of its stream.
pub(super) fn start(path: &Path) -> Outcome<UnixStream> {
    let failed = |error: io::Error| {
        Failure::new(
            format_args!("cannot start the process that writes into {}: {error}", path.display()),
            "check that the program may start processes here (a sandbox may forbid it, or `ulimit -u`)",
        )
    };
    let (mine, its) = UnixStream::pair().map_err(failed)?;
    if fork().map_err(failed)?.is_none() {
        drop(mine);
        be(|| {
            stand_apart([its.as_fd()].into_iter())?;
            give_up_privileges()?;
            Ok(StateDir::keep_for(path, its)?)
        });
    }
    Ok(mine)
}
