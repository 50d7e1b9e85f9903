//! Claims on the command line: bytes for programs, which peersock does not read.

use std::str::FromStr;

use peersock::overlay::membership::Grant;

/// Beginning of claims that are given as hexadecimal digits.
const HEX: &str = "hex:";

/// Claims of a member: a text, or `hex:` and digits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Claims(pub(super) Vec<u8>);

impl FromStr for Claims {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = match text.strip_prefix(HEX) {
            Some(digits) => from_hex(digits).ok_or("after `hex:` come pairs of hexadecimal digits")?,
            None => text.as_bytes().to_vec(),
        };
        match bytes.len() {
            length if length > Grant::MAX_CLAIMS_LEN => {
                Err(format!("it has {length} bytes; {} are allowed", Grant::MAX_CLAIMS_LEN))
            }
            _ => Ok(Self(bytes)),
        }
    }
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| Some(char::from(*byte).to_digit(16)? as u8);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    digits.as_bytes().chunks(2).map(pair).collect()
}

/// Returns the bytes as lower-case hexadecimal digits, as programs get them in JSON.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_digits_are_read() {
        for (text, bytes) in [
            ("plan=gold", Ok(&b"plan=gold"[..])),
            ("", Ok(b"")),
            ("hex:00FF0a", Ok(&[0, 255, 10])),
            ("hex:", Ok(b"")),
            ("hex:0", Err(())),
            ("hex:+1", Err(())),
            ("hex:0g", Err(())),
        ] {
            assert_eq!(
                text.parse::<Claims>().map_err(drop),
                bytes.map(|bytes| Claims(bytes.to_vec())),
                "{text}"
            );
        }
        assert!("c".repeat(128).parse::<Claims>().is_ok());
        assert!("c".repeat(129).parse::<Claims>().is_err_and(|error| error.contains("128")));
        assert_eq!(to_hex(&[0, 255, 10]), "00ff0a");
    }
}
