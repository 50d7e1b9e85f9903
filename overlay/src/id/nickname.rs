//! Nicknames, which nodes claim at roots.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use thiserror::Error;

use super::NodeId;

/// Suffix of every nickname's text.
const SUFFIX: &str = ".peersock";

/// Name that a node claims at its roots: 1 to 32 ASCII letters, digits and hyphens, without a hyphen at
/// either end. Upper-case letters are read as lower-case ones.
///
/// ```
/// use peersock_overlay::Nickname;
///
/// let nickname: Nickname = "Alice-2".parse()?;
/// assert_eq!(nickname.as_str(), "alice-2");
/// assert!("alice's".parse::<Nickname>().is_err());
/// # Ok::<(), peersock_overlay::ParseNicknameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nickname(Box<str>);

impl Nickname {
    /// Maximum length, in bytes.
    pub const MAX_LEN: usize = 32;

    /// Returns the text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses the wire form, which is unique for each nickname.
    pub(crate) fn from_wire(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        // Only the lower-case form: signatures cover the text, so each nickname has one form on the wire.
        text.parse().ok().filter(|read: &Self| read.as_str() == text)
    }
}

impl FromStr for Nickname {
    type Err = ParseNicknameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > Self::MAX_LEN {
            return Err(ParseNicknameError::Length(text.chars().count()));
        }
        // ASCII only, because letters that look alike in other scripts would let one name pass for another.
        if let Some(wrong) = text.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
            return Err(ParseNicknameError::Character(wrong));
        }
        // RFC 1123 2.1: otherwise `alice.peersock` would be no host name.
        if text.starts_with('-') || text.ends_with('-') {
            return Err(ParseNicknameError::Hyphen);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nickname({})", self.0)
    }
}

/// Text that a user gives to others so that they find a node, for example
/// `alice.9f86d081884c7d659a2f.peersock`: a nickname and the first 10 bytes of the ID of the node that has
/// claimed it, as 20 hex digits. No other node can be found by that. `alice.peersock` leaves the digits out;
/// its reader then depends on the roots, see `docs/reference/SECURITY.md`.
///
/// ```
/// use peersock_overlay::{Identity, NicknameText};
///
/// let (alice, other) = (Identity::from_seed(&[1; 32]).node_id(), Identity::from_seed(&[2; 32]).node_id());
/// let text = NicknameText::of("alice".parse()?, &alice);
/// assert_eq!(text.to_string().parse(), Ok(text.clone()));
/// assert!(text.matches(&alice) && !text.matches(&other));
///
/// let short: NicknameText = "alice.peersock".parse()?;
/// assert!(short.matches(&alice) && short.matches(&other));
/// # Ok::<(), peersock_overlay::ParseNicknameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NicknameText {
    /// Nickname in the text.
    pub nickname: Nickname,
    /// First bytes of the node's ID, if the text has them.
    pub node: Option<[u8; 10]>,
}

impl NicknameText {
    /// Returns the text that leads to this node and to no other.
    pub fn of(nickname: Nickname, node: &NodeId) -> Self {
        Self { nickname, node: node.as_bytes().first_chunk().copied() }
    }

    /// Returns true if the text may belong to that node.
    pub fn matches(&self, node: &NodeId) -> bool {
        self.node.is_none_or(|begin| node.as_bytes().starts_with(&begin))
    }

    /// Returns true if a text looks like one: it ends with `.peersock`, ignoring case.
    pub fn is_one(text: &str) -> bool {
        without_suffix(text).is_some()
    }
}

fn without_suffix(text: &str) -> Option<&str> {
    let (front, end) = text.split_at_checked(text.len().checked_sub(SUFFIX.len())?)?;
    end.eq_ignore_ascii_case(SUFFIX).then_some(front)
}

impl FromStr for NicknameText {
    type Err = ParseNicknameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let front = without_suffix(text).ok_or(ParseNicknameError::Suffix)?;
        let Some((nickname, digits)) = front.split_once('.') else {
            return Ok(Self { nickname: front.parse()?, node: None });
        };
        let node = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok();
        let node = node.and_then(|bytes| bytes.try_into().ok()).ok_or(ParseNicknameError::Digits)?;
        Ok(Self { nickname: nickname.parse()?, node: Some(node) })
    }
}

impl fmt::Display for NicknameText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => f.pad(&format!("{}.{}{SUFFIX}", self.nickname, HEXLOWER.encode(node))),
            None => f.pad(&format!("{}{SUFFIX}", self.nickname)),
        }
    }
}

/// Reason why a text is no nickname.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseNicknameError {
    /// The nickname has this many characters.
    #[error("a nickname has 1 to 32 characters, this has {0}")]
    Length(usize),
    /// The nickname has a forbidden character.
    #[error("a nickname has letters a to z, digits and hyphens only, not '{0}'")]
    Character(char),
    /// The nickname begins or ends with a hyphen.
    #[error("a nickname does not begin or end with a hyphen")]
    Hyphen,
    /// The text does not end with `.peersock`.
    #[error("a nickname's text ends with .peersock, as alice.peersock does")]
    Suffix,
    /// The part between the name and the end is not 20 hex digits.
    #[error("between name and .peersock there are the first 20 hex digits of the node's ID, or nothing")]
    Digits,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip_and_have_one_form() {
        let node = NodeId::from_bytes([0xab; 32]);
        let text = NicknameText::of("alice".parse().unwrap(), &node);
        assert_eq!(text.to_string(), "alice.abababababababababab.peersock");
        for form in ["alice.abababababababababab.peersock", "ALICE.ABABABABABABABABABAB.PeerSock"] {
            assert!(NicknameText::is_one(form));
            assert_eq!(form.parse(), Ok(text.clone()));
        }
        assert_eq!("Alice.peersock".parse::<NicknameText>().unwrap().to_string(), "alice.peersock");
    }

    #[test]
    fn what_is_wrong_is_said() {
        use ParseNicknameError::{Character, Digits, Hyphen, Length, Suffix};
        let long = "a".repeat(33);
        for (text, error) in [
            ("", Length(0)),
            (&*long, Length(33)),
            ("a b", Character(' ')),
            ("a.b", Character('.')),
            ("ä", Character('ä')),
            ("-a", Hyphen),
            ("a-", Hyphen),
        ] {
            assert_eq!(text.parse::<Nickname>(), Err(error), "{text}");
        }
        for (text, error) in [
            ("alice", Suffix),
            ("é", Suffix),
            ("peersock", Suffix),
            (".peersock", Length(0)),
            ("alice.peersock.internal", Suffix),
            ("alice.ab.peersock", Digits),
            ("alice.abababababababababag.peersock", Digits),
            ("alice..peersock", Digits),
            ("al_ice.abababababababababab.peersock", Character('_')),
        ] {
            assert_eq!(text.parse::<NicknameText>(), Err(error), "{text}");
        }
        assert!(!NicknameText::is_one("peersock") && !NicknameText::is_one("ééééé"));
    }

    #[test]
    fn the_wire_has_lower_case_only() {
        assert!(Nickname::from_wire(b"alice").is_some());
        for bytes in [&b"Alice"[..], b"", b"a.b", &[0xff], &[b'a'; 33]] {
            assert_eq!(Nickname::from_wire(bytes), None);
        }
    }
}
