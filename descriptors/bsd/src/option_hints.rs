//! What has been set on some overlay socket in this process: where nothing was, the calls that it concerns
//! cost nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use peersock_fd::option_table::Note;
use peersock_fd::{ALWAYS_FITS, ALWAYS_WHOLE};

/// SO_LINGER.
static LINGERS: AtomicBool = AtomicBool::new(false);
/// IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IPV6_DONTFRAG, or extension headers.
static FORBIDS_CUTTING: AtomicBool = AtomicBool::new(false);

/// Whether some socket may have SO_LINGER, so that closing is this library's.
pub fn lingers() -> bool {
    LINGERS.load(Ordering::Relaxed)
}

/// Whether a datagram of so many bytes may be too long for any packet, or for its path and must perhaps not
/// be cut, so that sending is this library's.
pub fn may_be_too_long(length: usize) -> bool {
    length > ALWAYS_FITS || (length > ALWAYS_WHOLE && FORBIDS_CUTTING.load(Ordering::Relaxed))
}

pub(crate) fn note(note: Note) {
    match note {
        Note::Linger => LINGERS.store(true, Ordering::Relaxed),
        Note::Cutting => FORBIDS_CUTTING.store(true, Ordering::Relaxed),
        Note::Nothing => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_packet_has_room_for_may_always_be_too_long() {
        assert!(may_be_too_long(65_508));
        assert!(!may_be_too_long(65_507));
        note(Note::Cutting);
        assert!(may_be_too_long(1_125));
        assert!(!may_be_too_long(1_124));
    }
}
