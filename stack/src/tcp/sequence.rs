//! Sequence numbers as stream offsets that do not wrap.
//!
//! Offset 0 is the SYN, the first byte of data is 1, and the FIN follows the last byte. On the wire an offset
//! is added to the initial sequence number, modulo 2^32 (RFC 9293 3.4).

/// Returns the sequence number of `offset`.
pub(crate) fn wire(initial: u32, offset: u64) -> u32 {
    initial.wrapping_add(offset as u32)
}

/// Returns the offset nearest to `near` with the sequence number `wire`; `None` if it would lie before the
/// SYN.
pub(crate) fn offset(initial: u32, near: u64, wire: u32) -> Option<u64> {
    // Read as signed, the wrapping difference is the shorter way around.
    let ahead = wire.wrapping_sub(self::wire(initial, near)) as i32;
    near.checked_add_signed(i64::from(ahead))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn offsets_survive_the_wire(initial: u32, near in 0u64..1 << 40, ahead in -(1i64 << 31)..1 << 31) {
            let there = near.checked_add_signed(ahead);
            let number = wire(initial, near.wrapping_add_signed(ahead));
            prop_assert_eq!(offset(initial, near, number), there);
        }
    }
}
