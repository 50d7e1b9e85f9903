//! What has been set on some overlay socket in this process: where nothing was, the calls that it concerns
//! cost nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use peersock_fd::option_table::Note;

/// SO_LINGER.
static LINGERS: AtomicBool = AtomicBool::new(false);
/// IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IPV6_DONTFRAG, or extension headers.
static FORBIDS_CUTTING: AtomicBool = AtomicBool::new(false);

/// Whether some socket may have SO_LINGER, so that closing is this library's.
pub fn lingers() -> bool {
    LINGERS.load(Ordering::Relaxed)
}

/// Whether a datagram of so many bytes may be too long for its path and must perhaps not be cut, so that
/// sending is this library's.
pub fn may_be_too_long(length: usize) -> bool {
    length > peersock_fd::ALWAYS_WHOLE && FORBIDS_CUTTING.load(Ordering::Relaxed)
}

pub(crate) fn note(note: Note) {
    match note {
        Note::Linger => LINGERS.store(true, Ordering::Relaxed),
        Note::Cutting => FORBIDS_CUTTING.store(true, Ordering::Relaxed),
        Note::Nothing => {}
    }
}
