//! Memory that a thread holds, and the number of its allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator with counters per thread, so that concurrent tests do not disturb each other.
pub struct Counting;

thread_local! {
    static IN_USE: Cell<isize> = const { Cell::new(0) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

impl Counting {
    /// Returns the bytes that this thread has allocated and not freed. The value is negative if it has freed
    /// memory of other threads. Only differences are meaningful.
    pub fn in_use() -> isize {
        IN_USE.get()
    }

    /// Returns the number of this thread's allocations.
    pub fn calls() -> usize {
        CALLS.get()
    }
}

// SAFETY: each call is passed on unchanged to the system's allocator, which keeps the contract.
#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends no longer has these values.
        let _ = IN_USE.try_with(|bytes| bytes.set(bytes.get() + layout.size() as isize));
        let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = IN_USE.try_with(|bytes| bytes.set(bytes.get() - layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}
