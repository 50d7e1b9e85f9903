//! Detection of a process that runs in another process's memory, as a child of vfork(2) does until it
//! executes a program. Its descriptor table is separate, so it must leave alone what the memory says about
//! descriptors.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

/// Size of the mapping, enough for one number; the kernel gives a whole page.
const MAPPING_BYTES: usize = 4096;

/// The process that owns this memory, 0 before the first check. Forked children find 0 there
/// (MADV_WIPEONFORK), and children of vfork(2) their parent.
static OWNER: AtomicPtr<AtomicI32> = AtomicPtr::new(ptr::null_mut());

/// Returns true if the memory belongs to another process. The first caller counts as its owner. Always false
/// before Linux 4.14.
pub(crate) fn is_borrowed() -> bool {
    let Some(owner) = owner() else { return false };
    let own = rustix::process::getpid().as_raw_pid();
    owner.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed).is_err_and(|known| known != own)
}

fn owner() -> Option<&'static AtomicI32> {
    let mut known = OWNER.load(Ordering::Acquire);
    if known.is_null() {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: the kernel chooses an unused address.
        let page = unsafe { libc::mmap(ptr::null_mut(), MAPPING_BYTES, access, kind, -1, 0) };
        if page == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: the whole mapping that was made above.
        let is_wiped = unsafe { libc::madvise(page, MAPPING_BYTES, libc::MADV_WIPEONFORK) } == 0;
        let new = page.cast::<AtomicI32>();
        let stored = match is_wiped {
            true => OWNER.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire),
            false => Err(ptr::null_mut()),
        };
        known = stored.map_or_else(|other| other, |_| new);
        if known != new {
            // SAFETY: the whole mapping that was made above, which no other thread knows.
            unsafe { libc::munmap(page, MAPPING_BYTES) };
        }
    }
    // SAFETY: a page of zeros is a valid number, it is aligned, and it is never unmapped once it is stored.
    unsafe { known.as_ref() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_that_of_who_looks_first() {
        assert!(!is_borrowed());
        let owner = owner().expect("Linux has this since 4.14");
        let own = owner.swap(1, Ordering::Relaxed);
        assert!(is_borrowed(), "it is the first process's");
        // A forked child finds 0.
        owner.store(0, Ordering::Relaxed);
        assert!(!is_borrowed());
        assert_eq!(owner.load(Ordering::Relaxed), own);
    }
}
