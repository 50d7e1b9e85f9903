//! Which ICMP messages a raw socket wants.

/// The types of ICMP or ICMPv6 messages that a raw socket receives: ICMP6_FILTER (RFC 3542 3.2), Linux's
/// ICMP_FILTER. All by default.
///
/// ```
/// use peersock_stack::IcmpFilter;
///
/// let mut filter = IcmpFilter::block_all();
/// filter.pass(129); // ICMPv6 echo replies
/// assert!(filter.passes(129) && !filter.passes(128));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpFilter {
    /// A set bit blocks.
    blocked: [u64; 4],
}

impl IcmpFilter {
    /// Every message is received.
    pub fn pass_all() -> Self {
        Self { blocked: [0; 4] }
    }

    /// No message is received.
    pub fn block_all() -> Self {
        Self { blocked: [u64::MAX; 4] }
    }

    /// Messages of type `kind` are received.
    pub fn pass(&mut self, kind: u8) {
        self.blocked[usize::from(kind >> 6)] &= !(1 << (kind & 63));
    }

    /// Messages of type `kind` are not received.
    pub fn block(&mut self, kind: u8) {
        self.blocked[usize::from(kind >> 6)] |= 1 << (kind & 63);
    }

    /// Whether messages of type `kind` are received.
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
