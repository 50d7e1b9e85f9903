use std::fmt;

/// Data cipher. The discriminant is its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Suite {
    /// AES-256-GCM (NIST SP 800-38D), preferred where both ends have AES instructions.
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305 = 2,
}

impl Suite {
    /// Returns the suite with this number.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// Returns the suite's number on the wire.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// Returns the 96-bit nonce of a packet counter, as Noise defines it: 32 zero bits, then the counter,
    /// big-endian for AES-GCM and little-endian for ChaCha20-Poly1305 (Noise, section 12).
    pub(crate) fn nonce(self, counter: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&match self {
            // The byte orders of Noise (section 12.4 for AESGCM, 12.3 for ChaChaPoly).
            Self::Aes256Gcm => counter.to_be_bytes(),
            Self::ChaCha20Poly1305 => counter.to_le_bytes(),
        });
        nonce
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        })
    }
}

/// Suites a node offers, and whether its processor has AES instructions. One byte on the wire.
///
/// ```
/// use peersock_overlay::{Suite, SuiteSet};
///
/// let phone = SuiteSet::AES_256_GCM | SuiteSet::CHACHA20_POLY1305;
/// let server = phone | SuiteSet::FAST_AES;
/// assert_eq!(server.choose(server), Some(Suite::Aes256Gcm));
/// assert_eq!(server.choose(phone), Some(Suite::ChaCha20Poly1305));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SuiteSet(u8);

impl SuiteSet {
    /// Empty set.
    pub const NONE: Self = Self(0);
    /// [`Suite::Aes256Gcm`], bit 0.
    pub const AES_256_GCM: Self = Self(1);
    /// [`Suite::ChaCha20Poly1305`], bit 1.
    pub const CHACHA20_POLY1305: Self = Self(1 << 1);
    /// AES runs in hardware, bit 2. Not a suite.
    pub const FAST_AES: Self = Self(1 << 2);

    const KNOWN: u8 = 0b111;

    /// Creates a set from the byte on the wire. Bits of unknown suites are dropped.
    pub const fn from_wire(bits: u8) -> Self {
        // Unknown bits are suites of later versions, which this node cannot choose.
        Self(bits & Self::KNOWN)
    }

    /// Returns the byte on the wire.
    pub const fn to_wire(self) -> u8 {
        self.0
    }

    /// Returns true if every bit of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the set of one suite.
    pub const fn of(suite: Suite) -> Self {
        match suite {
            Suite::Aes256Gcm => Self::AES_256_GCM,
            Suite::ChaCha20Poly1305 => Self::CHACHA20_POLY1305,
        }
    }

    /// Returns true if `suite` is in this set.
    pub const fn has(self, suite: Suite) -> bool {
        self.contains(Self::of(suite))
    }

    /// Chooses the suite for two nodes: AES if it is fast on both, else ChaCha20, else AES, else none.
    ///
    /// Both ends get the same result, but only the responder's counts.
    pub const fn choose(self, other: Self) -> Option<Suite> {
        // The rule is symmetric, so both sides choose the same suite, whichever of them begins.
        let both = Self(self.0 & other.0);
        if both.has(Suite::Aes256Gcm) && (both.contains(Self::FAST_AES) || !both.has(Suite::ChaCha20Poly1305))
        {
            Some(Suite::Aes256Gcm)
        } else if both.has(Suite::ChaCha20Poly1305) {
            Some(Suite::ChaCha20Poly1305)
        } else {
            None
        }
    }
}

impl std::ops::BitOr for SuiteSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for SuiteSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::AES_256_GCM, "AES-256-GCM"),
            (Self::CHACHA20_POLY1305, "ChaCha20-Poly1305"),
            (Self::FAST_AES, "fast AES"),
        ];
        f.debug_set().entries(names.iter().filter(|(bit, _)| self.contains(*bit)).map(|(_, n)| n)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choice_is_the_same_on_both_sides() {
        for a in 0..8 {
            for b in 0..8 {
                let (a, b) = (SuiteSet::from_wire(a), SuiteSet::from_wire(b));
                assert_eq!(a.choose(b), b.choose(a));
                if let Some(suite) = a.choose(b) {
                    assert!(a.has(suite) && b.has(suite));
                }
            }
        }
    }

    #[test]
    fn aes_needs_hardware_on_both_unless_nothing_else_is_left() {
        let soft = SuiteSet::AES_256_GCM | SuiteSet::CHACHA20_POLY1305;
        let fast = soft | SuiteSet::FAST_AES;
        assert_eq!(fast.choose(fast), Some(Suite::Aes256Gcm));
        assert_eq!(fast.choose(soft), Some(Suite::ChaCha20Poly1305));
        assert_eq!(fast.choose(SuiteSet::AES_256_GCM), Some(Suite::Aes256Gcm));
        assert_eq!(SuiteSet::CHACHA20_POLY1305.choose(SuiteSet::AES_256_GCM), None);
        assert_eq!(SuiteSet::FAST_AES.choose(fast), None);
    }

    #[test]
    fn unknown_bits_are_dropped() {
        assert_eq!(SuiteSet::from_wire(0xff).to_wire(), 0b111);
    }

    #[test]
    fn nonces_are_those_of_noise() {
        let counter = 0x0102_0304_0506_0708;
        assert_eq!(Suite::Aes256Gcm.nonce(counter), [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(Suite::ChaCha20Poly1305.nonce(counter), [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
    }
}
