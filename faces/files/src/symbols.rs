//! The characters of a code: Crockford's base32, with two characters that detect typing errors.
//!
//! A code is a word of a Reed-Solomon code over the field of 32 elements. The sum of all symbols is zero, and
//! so is the sum weighted by powers of 2 that depend on the place. Words differ in at least three places, so
//! any two wrong characters are detected, and every swap of two characters.

/// Crockford's alphabet: without I, L, O and U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Number of random characters.
pub(crate) const RANDOM: usize = 13;

/// Total number of characters.
pub(crate) const ALL: usize = RANDOM + 2;

/// The polynomial x^5 + x^2 + 1 that reduces products; 2 is a primitive element.
const POLYNOMIAL: u8 = 0b10_0101;

/// Returns the value of a character; characters that are easily confused with another have its value.
pub(crate) fn value(character: char) -> Option<u8> {
    let character = match character.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let character = u8::try_from(character).ok()?;
    ALPHABET.iter().position(|known| *known == character).map(|at| at as u8)
}

/// Returns the character for a value below 32.
pub(crate) fn character(value: u8) -> char {
    char::from(ALPHABET[usize::from(value)])
}

/// Sets the last two symbols so that both sums are zero.
pub(crate) fn complete(symbols: &mut [u8; ALL]) {
    symbols[RANDOM..].fill(0);
    let (sum, weighted) = sums(symbols);
    let (first, second) = (power(RANDOM), power(RANDOM + 1));
    // first * a + second * b = weighted, a + b = sum
    symbols[RANDOM] = multiply(weighted ^ multiply(second, sum), inverse(first ^ second));
    symbols[RANDOM + 1] = sum ^ symbols[RANDOM];
}

/// Returns true if both sums are zero.
pub(crate) fn is_complete(symbols: &[u8; ALL]) -> bool {
    sums(symbols) == (0, 0)
}

fn sums(symbols: &[u8; ALL]) -> (u8, u8) {
    symbols.iter().enumerate().fold((0, 0), |(sum, weighted), (place, symbol)| {
        (sum ^ symbol, weighted ^ multiply(power(place), *symbol))
    })
}

/// Returns 2 to the power of `exponent`.
fn power(exponent: usize) -> u8 {
    (0..exponent).fold(1, |product, _| multiply(product, 2))
}

/// Returns the inverse of a nonzero value: every element to the power of 31 is 1.
fn inverse(value: u8) -> u8 {
    (0..30).fold(1, |product, _| multiply(product, value))
}

fn multiply(a: u8, b: u8) -> u8 {
    let mut product = 0;
    for bit in (0..5).rev() {
        product <<= 1;
        if product & 0x20 != 0 {
            product ^= POLYNOMIAL;
        }
        if b >> bit & 1 != 0 {
            product ^= a;
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_has_all_elements_but_zero_as_powers() {
        let mut seen: Vec<_> = (0..31).map(power).collect();
        seen.sort_unstable();
        assert_eq!(seen, (1..32).collect::<Vec<u8>>());
        assert!((1..32).all(|value| multiply(value, inverse(value)) == 1));
    }

    #[test]
    fn any_two_wrong_symbols_are_noticed() {
        let mut symbols: [u8; ALL] = std::array::from_fn(|place| (place * 7 % 32) as u8);
        complete(&mut symbols);
        assert!(is_complete(&symbols));
        for first in 0..ALL {
            for second in 0..ALL {
                for change in 1..32u8 {
                    for other in 0..32u8 {
                        let mut wrong = symbols;
                        wrong[first] ^= change;
                        wrong[second] ^= if first == second { 0 } else { other };
                        assert!(!is_complete(&wrong), "{first} {second}");
                    }
                }
            }
        }
    }

    #[test]
    fn characters_are_read_as_they_are_written_and_as_they_are_mistaken() {
        assert!((0..32).all(|value| super::value(character(value)) == Some(value)));
        assert_eq!(['o', 'i', 'L', 'a'].map(value), [Some(0), Some(1), Some(1), Some(10)]);
        assert_eq!(['u', '-', 'é', '\0'].map(value), [None; 4]);
    }
}
