//! What a thread holds of memory, and how often it has asked for some.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted for each thread: tests beside each other do not disturb each other.
///
/// ```
/// use peersock_testnet::Counting;
///
/// #[global_allocator]
/// static ALLOCATOR: Counting = Counting;
///
/// let before = Counting::in_use();
/// let bytes = vec![0_u8; 1000];
/// assert_eq!(Counting::in_use() - before, 1000);
/// drop(bytes);
/// assert_eq!(Counting::in_use(), before);
/// ```
pub struct Counting;

thread_local! {
    static IN_USE: Cell<isize> = const { Cell::new(0) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

impl Counting {
    /// Bytes that this thread has asked for and not given back; less than none if it has given back what
    /// others have asked for. Only the difference of two looks means something.
    pub fn in_use() -> isize {
        IN_USE.get()
    }

    /// How often this thread has asked for memory.
    pub fn calls() -> usize {
        CALLS.get()
    }
}

// SAFETY: each call is passed on unchanged to the system's allocator, which keeps the contract.
#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends has no such values any more.
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
