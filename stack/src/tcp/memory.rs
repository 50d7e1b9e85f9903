//! What all connections of a node occupy together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A node-wide account of buffered bytes. Relaxed: it bounds, it does not order.
#[derive(Debug)]
pub(crate) struct Memory {
    used: AtomicUsize,
    limit: usize,
}

impl Memory {
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit }
    }

    /// Whether buffers may grow.
    pub(crate) fn has_room(&self) -> bool {
        self.used() < self.limit
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sub(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Changes under this are not worth an atomic operation on a line that all connections share.
const GRAIN: usize = 16 << 10;

/// What one connection has told the account.
#[derive(Debug, Default)]
pub(crate) struct Charge(usize);

impl Charge {
    /// The connection occupies `bytes` now.
    pub(crate) fn update(&mut self, memory: &Memory, bytes: usize) {
        let told = bytes / GRAIN * GRAIN;
        if told == self.0 {
            return;
        }
        if told > self.0 {
            memory.add(told - self.0);
        } else {
            memory.sub(self.0 - told);
        }
        self.0 = told;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_follows_its_connections() {
        let memory = Memory::new(100 << 10);
        let (mut one, mut other) = (Charge::default(), Charge::default());
        one.update(&memory, 70 << 10);
        other.update(&memory, 15 << 10);
        assert_eq!((memory.used(), memory.has_room()), (64 << 10, true));
        other.update(&memory, 50 << 10);
        assert!(!memory.has_room());
        one.update(&memory, 0);
        other.update(&memory, 0);
        assert_eq!(memory.used(), 0);
    }
}
