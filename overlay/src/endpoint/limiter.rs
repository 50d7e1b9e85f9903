//! Buckets for sources that an attacker may make up: tables of a fixed size.

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use peersock_primitives::Key;

use crate::bucket::{Bucket, Rate};

/// A bucket per source and a common one, which also bounds what many sources can do. A source is a prefix
/// (IPv4 /24, IPv6 /56) or one address with its port.
///
/// The table has a fixed size. Sources in the same slot share its bucket; the slot depends on the endpoint's
/// seed.
#[derive(Debug)]
pub struct Limiter {
    all: Bucket,
    sources: Sources,
}

/// Buckets per source, without a common one.
#[derive(Debug)]
pub(super) struct Sources {
    each: Rate,
    /// Times when each slot's bucket is full.
    slots: Box<[Instant]>,
    key: Key,
}

const SLOTS: usize = 1024;

impl Limiter {
    /// Creates buckets with the rate `all` for all together and `per_source` for each prefix. `key` is random
    /// and secret.
    pub fn new(all: Rate, per_source: Rate, key: u64, now: Instant) -> Self {
        Self { all: Bucket::new(all, now), sources: Sources::new(per_source, key, now) }
    }

    /// Takes one token from the bucket of `source`'s prefix and one from the common bucket.
    pub fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        // The source's bucket comes first, so that a flooder who has emptied it does not drain the common
        // one.
        self.sources.take(prefix_of(source), now) && self.all.take(now)
    }

    /// Like [`Self::take`], with a bucket for this address and port, because neighbours share a prefix and
    /// the nodes of one machine share an address.
    pub fn take_address(&mut self, source: SocketAddr, now: Instant) -> bool {
        self.sources.take((source.ip().to_canonical(), source.port()), now) && self.all.take(now)
    }

    /// Returns true if [`Self::take`] would find a token.
    pub(super) fn has(&self, source: IpAddr, now: Instant) -> bool {
        self.sources.has(prefix_of(source), now) && self.all.has(1, now)
    }
}

impl Sources {
    pub(super) fn new(each: Rate, key: u64, now: Instant) -> Self {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&key.to_be_bytes());
        // A keyed hash chooses the slots, so that an attacker cannot aim at the slot of a victim.
        Self { each, slots: vec![now; SLOTS].into_boxed_slice(), key: Key::new(&seed, "limiter") }
    }

    pub(super) fn take(&mut self, source: impl Hash, now: Instant) -> bool {
        let slot = self.slot(source);
        self.each.take(&mut self.slots[slot], now)
    }

    pub(super) fn has(&self, source: impl Hash, now: Instant) -> bool {
        self.each.has(1, self.slots[self.slot(source)], now)
    }

    fn slot(&self, source: impl Hash) -> usize {
        self.key.digest(source) as usize % SLOTS
    }
}

/// Returns the prefix of an address that one Internet subscriber usually has: IPv4 /24, IPv6 /56.
pub fn prefix_of(source: IpAddr) -> u64 {
    match source.to_canonical() {
        // A /24, the least that is routed on the Internet, so one attacker seldom has several.
        IpAddr::V4(address) => u64::from(address.to_bits() >> 8),
        // The highest bit keeps IPv6 prefixes apart from IPv4 ones, which have 24 bits.
        IpAddr::V6(address) => ((address.to_bits() >> 72) as u64) | 1 << 63,
    }
}

/// Returns the wider prefix of an address, of a provider whose subscribers may have many narrow ones: IPv4
/// /16, IPv6 /32.
pub fn provider_of(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits() >> 16),
        // A /32, which registries give to one provider.
        IpAddr::V6(address) => (address.to_bits() >> 96) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;

    #[test]
    fn prefixes_have_their_own_budget() {
        let start = instant();
        let mut limiter = Limiter::new(Rate::per_second(9, 9), Rate::per_second(1, 1), 7, start);
        assert!(limiter.take("192.0.2.1".parse().unwrap(), start));
        assert!(!limiter.take("192.0.2.77".parse().unwrap(), start));
        assert!(!limiter.take("::ffff:192.0.2.9".parse().unwrap(), start));
        assert!(limiter.take("198.51.100.1".parse().unwrap(), start));
    }
}
