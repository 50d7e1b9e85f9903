//! Filter of a raw socket for ICMP messages.

/// Set of ICMP or ICMPv6 message types that a raw socket receives: ICMP6_FILTER (RFC 3542 3.2), Linux's
/// ICMP_FILTER. All by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpFilter {
    /// Bits by type; a set bit blocks.
    blocked: [u64; 4],
}

impl IcmpFilter {
    /// Returns a filter that accepts every message.
    pub fn pass_all() -> Self {
        Self { blocked: [0; 4] }
    }

    /// Returns a filter that accepts no message.
    pub fn block_all() -> Self {
        Self { blocked: [u64::MAX; 4] }
    }

    /// Accepts messages of type `kind`.
    pub fn pass(&mut self, kind: u8) {
        self.blocked[usize::from(kind >> 6)] &= !(1 << (kind & 63));
    }

    /// Blocks messages of type `kind`.
    pub fn block(&mut self, kind: u8) {
        self.blocked[usize::from(kind >> 6)] |= 1 << (kind & 63);
    }

    /// Returns true if messages of type `kind` are accepted.
    pub fn passes(&self, kind: u8) -> bool {
        self.blocked[usize::from(kind >> 6)] >> (kind & 63) & 1 == 0
    }
}

impl Default for IcmpFilter {
    fn default() -> Self {
        Self::pass_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_own_bit() {
        for kind in 0..=255 {
            let mut filter = IcmpFilter::pass_all();
            filter.block(kind);
            assert!((0..=255).all(|other| filter.passes(other) == (other != kind)));
            filter.pass(kind);
            assert_eq!(filter, IcmpFilter::default());
        }
    }
}
