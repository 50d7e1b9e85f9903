//! The token that programs send.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Random bytes of a generated token, before encoding.
const GENERATED_BYTES: usize = 24;

/// Shortest and longest accepted token.
const MIN_TOKEN_BYTES: usize = 16;
const MAX_TOKEN_BYTES: usize = 255;

/// The token that programs send with each request. It is wiped from memory when dropped, and never displayed.
///
/// ```
/// use peersock_rest::Token;
///
/// let token = Token::parse("a token of sixteen or more".replace(' ', "-").as_str())?;
/// assert!(token.is(b"a-token-of-sixteen-or-more"));
/// assert_eq!(format!("{token:?}"), "Token([redacted])");
/// # Ok::<(), peersock_rest::TokenError>(())
/// ```
pub struct Token(Zeroizing<String>);

/// Error: a text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a token has {MIN_TOKEN_BYTES} to {MAX_TOKEN_BYTES} letters, digits and signs of ._~+/=- and nothing else"
)]
pub struct TokenError;

impl Token {
    /// Makes a new token of 192 random bits.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> io::Result<Token> {
        let mut bytes = Zeroizing::new([0; GENERATED_BYTES]);
        getrandom::fill(bytes.as_mut_slice()).map_err(io::Error::other)?;
        Ok(Token(Zeroizing::new(BASE64URL_NOPAD.encode(bytes.as_slice()))))
    }

    /// Parses a token of 16 to 255 characters that an HTTP field can carry (RFC 6750, 2.1); surrounding white
    /// space is ignored.
    ///
    /// # Errors
    /// If the text is no token.
    pub fn parse(text: &str) -> Result<Token, TokenError> {
        let text = text.trim();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~+/=-".contains(&byte);
        let is_token =
            (MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&text.len()) && text.bytes().all(is_plain);
        is_token.then(|| Token(Zeroizing::new(text.to_owned()))).ok_or(TokenError)
    }

    /// Returns true if the bytes equal the token, in constant time.
    pub fn is(&self, shown: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(shown).into()
    }

    /// Writes the token into a file of mode 0600, which replaces an existing one.
    ///
    /// ```
    /// use std::os::unix::fs::PermissionsExt;
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("token");
    /// let token = peersock_rest::Token::generate()?;
    /// token.write(&path)?;
    /// assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    /// assert!(token.is(std::fs::read_to_string(&path)?.trim().as_bytes()));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// The system's errors.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        // Replace an existing file or link instead of writing into it, because it may belong to another user.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        writeln!(file, "{}", self.0.as_str())
    }

    /// Returns true if a value of the field Authorization contains the token as `Bearer`.
    pub(crate) fn is_bearer(&self, value: &[u8]) -> bool {
        after_scheme(value, b"bearer").is_some_and(|shown| self.is(shown))
    }

    /// Returns true if the value contains the token as the password of `Basic`. Browsers keep Basic
    /// credentials they have seen, and add them to the requests of all pages.
    pub(crate) fn is_basic(&self, value: &[u8]) -> bool {
        let Some(shown) = after_scheme(value, b"basic") else { return false };
        let Ok(pair) = BASE64.decode(shown).map(Zeroizing::new) else { return false };
        let colon = pair.iter().position(|byte| *byte == b':');
        colon.is_some_and(|colon| self.is(&pair[colon + 1..]))
    }
}

/// Returns the value after the scheme, if the scheme is this one.
fn after_scheme<'a>(value: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    value[..space].eq_ignore_ascii_case(scheme).then(|| value[space..].trim_ascii())
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_by_two_schemes() {
        let token = Token::parse("0123456789abcdef\n").expect("it is one");
        let basic = |text: &str| format!("basic {}", BASE64.encode(text.as_bytes()));
        for shown in ["Bearer 0123456789abcdef", "bEARER  0123456789abcdef "] {
            assert!(token.is_bearer(shown.as_bytes()) && !token.is_basic(shown.as_bytes()), "{shown}");
        }
        let shown = basic("anna:0123456789abcdef");
        assert!(token.is_basic(shown.as_bytes()) && !token.is_bearer(shown.as_bytes()));
        let wrong = ["", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Token 0123456789abcdef", "Basic !"];
        for shown in wrong.into_iter().chain([&basic("0123456789abcdef")[..], &basic("a:b")]) {
            assert!(!token.is_bearer(shown.as_bytes()) && !token.is_basic(shown.as_bytes()), "{shown}");
        }
    }

    #[test]
    fn what_no_field_can_carry_is_no_token() {
        for text in ["", "too short", "0123456789abcde", "0123456789abcde\u{e9}", "0123456789 abcdef"] {
            assert_eq!(Token::parse(text).err(), Some(TokenError), "{text}");
        }
        assert!(Token::parse(&"x".repeat(256)).is_err());
        let (one, other) = (Token::generate().expect("randomness"), Token::generate().expect("randomness"));
        assert!(!one.is(other.0.as_bytes()) && Token::parse(&one.0).is_ok());
    }
}
