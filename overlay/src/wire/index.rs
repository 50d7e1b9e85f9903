use std::fmt;

/// Receiver's name for a session: 24 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionIndex(u32);

impl SessionIndex {
    /// Creates an index from the three bytes on the wire.
    pub const fn from_be_bytes([a, b, c]: [u8; 3]) -> Self {
        Self(u32::from_be_bytes([0, a, b, c]))
    }

    /// Creates an index from the low 24 bits of a number.
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits & 0xff_ffff)
    }

    /// Returns the three bytes on the wire.
    pub const fn to_be_bytes(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }
}

impl fmt::Debug for SessionIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionIndex({:06x})", self.0)
    }
}
