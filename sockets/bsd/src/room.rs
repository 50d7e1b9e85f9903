//! Room for the library's own descriptors in a process that has no free number left.
//!
//! In Linux connect(2), bind(2), listen(2) and sendto(2) need no descriptor. Here they may put another socket
//! under the program's number, and that socket has its own number for a moment.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Result;
use peersock_fd::Errno;

/// Growth of the soft limit (RLIMIT_NOFILE).
const ROOM: u64 = 8;

/// Number of tries, because other threads of the program may take the numbers.
const TRIES: u32 = 4;

/// Opens a socket that the program does not see, and that needs its number only for a moment. If no number is
/// free, the soft limit is higher meanwhile, where the hard limit permits it.
/// Fails with the errors of `open`, EMFILE if the hard limit is reached.
pub(crate) fn with_room<T>(open: impl Fn() -> Result<T>) -> Result<T> {
    let mut opened = open();
    for _ in 0..TRIES {
        if !matches!(opened, Err(Errno::MFILE)) {
            break;
        }
        let Some(_room) = Room::make() else { break };
        opened = open();
    }
    opened
}

/// A soft limit that was raised. There is no lock, because a child forked under one would wait forever. When
/// several threads do this at once, the limit may stay a little higher, and is never lower than before.
struct Room {
    usual: Rlimit,
    raised: Rlimit,
}

impl Room {
    /// Returns `None` if the system does not permit it.
    fn make() -> Option<Self> {
        let usual = getrlimit(Resource::Nofile);
        let soft = usual.current?.saturating_add(ROOM);
        let soft = usual.maximum.map_or(soft, |hard| soft.min(hard));
        let raised = Rlimit { current: Some(soft), ..usual };
        (raised != usual && setrlimit(Resource::Nofile, raised).is_ok()).then_some(Self { usual, raised })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // The program, or another thread here, may have set another one.
        if getrlimit(Resource::Nofile) == self.raised {
            let _ = setrlimit(Resource::Nofile, self.usual);
        }
    }
}
