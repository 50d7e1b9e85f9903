//! Hints whether certain options were set on any overlay socket of this process; while not, the affected
//! calls have no extra cost.

use std::sync::atomic::{AtomicBool, Ordering};

use peersock_fd::option_table::Note;
use peersock_fd::{ALWAYS_FITS, ALWAYS_WHOLE};

/// SO_LINGER.
static LINGERS: AtomicBool = AtomicBool::new(false);
/// IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IPV6_DONTFRAG, or extension headers.
static FORBIDS_CUTTING: AtomicBool = AtomicBool::new(false);

/// Returns true if any socket may have SO_LINGER, so that this library must handle closing.
pub fn lingers() -> bool {
    LINGERS.load(Ordering::Relaxed)
}

/// Returns true if a datagram of `length` bytes may exceed any packet, or exceed its path while fragmentation
/// is forbidden, so that this library must handle sending.
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
