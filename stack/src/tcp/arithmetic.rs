//! Arithmetic of rates and times that does not overflow.

pub(crate) use crate::host::clock::length;

/// Returns `value * factor / divisor`, rounded down and saturating. A divisor of 0 counts as 1.
#[inline]
pub(crate) fn scaled(value: u64, factor: u64, divisor: u64) -> u64 {
    let divisor = divisor.max(1);
    match value.checked_mul(factor) {
        Some(product) => product / divisor,
        None => {
            let product = u128::from(value) * u128::from(factor) / u128::from(divisor);
            u64::try_from(product).unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_may_be_larger_than_results() {
        assert_eq!(scaled(7, 3, 0), 21);
        assert_eq!(scaled(7, 3, 2), 10);
        assert_eq!(scaled(u64::MAX, 1000, 1000), u64::MAX);
        assert_eq!(scaled(u64::MAX, 2, 1), u64::MAX);
    }
}
