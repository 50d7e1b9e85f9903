//! Prefix lengths that occur in the table, so that a look-up probes no others.

use std::net::IpAddr;

use crate::network::Prefix;

use super::sync::{self, AtomicU64, Mutex, Ordering};

/// Lengths in use that are shorter than a whole address, which is probed in any case.
pub(super) struct Lengths {
    /// One bit per length: below 32 of IPv4, below 64 and below 128 of IPv6.
    set: [AtomicU64; 3],
    /// Number of entries of each length.
    counts: Mutex<[u32; PLACES]>,
}

/// Number of counters, one per length of both families.
const PLACES: usize = 3 * 64;

impl Lengths {
    pub(super) fn new() -> Self {
        Self { set: std::array::from_fn(|_| AtomicU64::new(0)), counts: Mutex::new([0; PLACES]) }
    }

    /// Returns the lengths of the prefixes that may contain `address`, the longest first.
    pub(super) fn in_use(&self, address: IpAddr) -> impl Iterator<Item = u8> {
        let load = |word: usize| self.set[word].load(Ordering::SeqCst);
        let mut left = match address {
            IpAddr::V4(_) => u128::from(load(0)),
            IpAddr::V6(_) => u128::from(load(2)) << 64 | u128::from(load(1)),
        };
        std::iter::from_fn(move || {
            let longest = left.checked_ilog2()?;
            left &= !(1 << longest);
            Some(longest as u8)
        })
    }

    pub(super) fn add(&self, prefix: &Prefix) {
        let Some(place) = place(prefix) else { return };
        let mut counts = sync::lock(&self.counts);
        counts[place] += 1;
        self.set[place / 64].fetch_or(1 << (place % 64), Ordering::SeqCst);
    }

    pub(super) fn remove(&self, prefix: &Prefix) {
        let Some(place) = place(prefix) else { return };
        let mut counts = sync::lock(&self.counts);
        counts[place] -= 1;
        if counts[place] == 0 {
            self.set[place / 64].fetch_and(!(1 << (place % 64)), Ordering::SeqCst);
        }
    }
}

/// Returns the counter's index for a length; `None` for a whole address.
fn place(prefix: &Prefix) -> Option<usize> {
    let length = usize::from(prefix.length());
    let is_whole = *prefix == prefix.address().into();
    (!is_whole).then_some(if prefix.address().is_ipv4() { length } else { 64 + length })
}
