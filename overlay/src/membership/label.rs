//! Names of members and tags: short texts that are part of host names and rules.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Name of a member: a label of a host name (RFC 1123, 2.1) of 1 to 63 letters `a` to `z`, digits and
/// hyphens, without a hyphen at either end, and no number. Upper-case letters are read as lower-case ones.
///
/// ```
/// use peersock_overlay::membership::MemberName;
///
/// assert_eq!("Alpha-2".parse::<MemberName>()?.as_str(), "alpha-2");
/// assert!("10".parse::<MemberName>().is_err(), "programs take it for the address 0.0.0.10");
/// assert_eq!(MemberName::cleaned("Anna's PC").map(|name| name.to_string()), Some("anna-s-pc".into()));
/// # Ok::<(), peersock_overlay::membership::ParseLabelError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberName(Box<str>);

impl MemberName {
    /// Maximum length in bytes.
    pub const MAX_LEN: usize = 63;

    /// Returns the text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name that is nearest to a wish, such as a machine's host name: other characters become
    /// hyphens, and the rest is cut off. `None` if nothing is left.
    pub fn cleaned(wish: &str) -> Option<Self> {
        let mut text = String::new();
        // The first label only: a host name with a domain names the same machine.
        for c in wish.split('.').next()?.chars() {
            match c.to_ascii_lowercase() {
                c if c.is_ascii_alphanumeric() => text.push(c),
                _ if text.is_empty() || text.ends_with('-') => {}
                _ => text.push('-'),
            }
        }
        text.truncate(Self::MAX_LEN);
        text.trim_end_matches('-').parse().ok()
    }

    /// Returns the name with a number, for a name that is taken: `alpha-2`. It is cut to fit.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        let suffix = format!("-{number}");
        let kept = self.0[..self.0.len().min(Self::MAX_LEN - suffix.len())].trim_end_matches('-');
        Self(format!("{kept}{suffix}").into())
    }
}

impl FromStr for MemberName {
    type Err = ParseLabelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match is_number(text) {
            true => Err(ParseLabelError::Number),
            false => parse(text, Self::MAX_LEN).map(Self),
        }
    }
}

/// Returns true if inet_aton(3) takes a name for an IPv4 address, as it does with a single number. Programs
/// would then connect to that address, outside of the overlay.
fn is_number(name: &str) -> bool {
    let is_hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hex = name.strip_prefix("0x").or_else(|| name.strip_prefix("0X"));
    !name.is_empty() && hex.map_or_else(|| name.bytes().all(|byte| byte.is_ascii_digit()), is_hex)
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberName({})", self.0)
    }
}

/// Tag of a member, by which rules name groups: of the form of a [`MemberName`], with at most 32 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Box<str>);

impl Tag {
    /// Maximum length in bytes.
    pub const MAX_LEN: usize = 32;

    /// Returns the text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ParseLabelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text, Self::MAX_LEN).map(Self)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({})", self.0)
    }
}

/// Reason why a text is no name or tag.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseLabelError {
    /// The text is empty, or has more characters than `max`.
    #[error("has {length} characters instead of 1 to {max}")]
    Length {
        /// Number of characters.
        length: usize,
        /// Maximum number.
        max: usize,
    },
    /// The character is neither a letter from `a` to `z`, nor a digit, nor a hyphen.
    #[error("has the character `{0}`: letters from a to z, digits and hyphens are allowed")]
    Character(char),
    /// The text begins or ends with a hyphen.
    #[error("begins or ends with a hyphen")]
    Hyphen,
    /// The text is a number, and names a member.
    #[error("is a number, which programs take for an address")]
    Number,
}

fn parse(text: &str, max: usize) -> Result<Box<str>, ParseLabelError> {
    // ASCII only, because letters that look alike in other scripts would let one name pass for another.
    if let Some(wrong) = text.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
        return Err(ParseLabelError::Character(wrong));
    }
    if text.is_empty() || text.len() > max {
        return Err(ParseLabelError::Length { length: text.len(), max });
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(ParseLabelError::Hyphen);
    }
    Ok(text.to_ascii_lowercase().into())
}

/// Appends a text behind its length (1 byte).
pub(super) fn emit(text: &str, out: &mut Vec<u8>) {
    debug_assert!(text.len() <= u8::MAX.into(), "labels are short");
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}
