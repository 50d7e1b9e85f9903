//! Claims on the command line: bytes for programs, which peersock does not read.

use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
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
            Some(digits) => {
                let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes());
                bytes.map_err(|_| "after `hex:` come pairs of hexadecimal digits")?
            }
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

/// Returns the bytes as lower-case hexadecimal digits, as programs get them in JSON.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
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
