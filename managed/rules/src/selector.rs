//! Selectors, by which a rule names ends of flows.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use thiserror::Error;

use crate::Prefix;
use crate::words::nearest;

/// Ends of flows that a rule names.
///
/// As text: `tag:db`, `member:alpha`, `node:` with the 64 hexadecimal digits of a node ID, or a block of
/// addresses as `10.1.0.0/16`. Upper-case letters are read as lower-case ones. The first three are members
/// themselves, and never hosts behind them; a block is hosts behind gateways, and never members.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// Members with a tag: 1 to 32 letters `a` to `z`, digits and inner hyphens.
    Tag(Box<str>),
    /// Member with a name: of the form of a tag with up to 63 characters, and no number.
    Member(Box<str>),
    /// Member by the ID of its node.
    Node([u8; 32]),
    /// Hosts behind gateways, by their addresses.
    Hosts(Prefix),
}

impl Selector {
    /// Maximum length of a tag in bytes.
    pub const MAX_TAG_LEN: usize = 32;

    /// Maximum length of a member's name in bytes.
    pub const MAX_MEMBER_LEN: usize = 63;

    /// Returns the selector of members with a tag.
    ///
    /// # Errors
    /// Returns what is wrong with the tag.
    pub fn tag(text: &str) -> Result<Self, Complaint> {
        label(text, "tag", Self::MAX_TAG_LEN).map(Selector::Tag)
    }

    /// Returns the selector of the member with a name.
    ///
    /// # Errors
    /// Returns what is wrong with the name.
    pub fn member(text: &str) -> Result<Self, Complaint> {
        let name = label(text, "name", Self::MAX_MEMBER_LEN)?;
        match is_number(&name) {
            true => Err(Complaint::new(
                format!("no member can have the name `{name}`, because programs take numbers for addresses"),
                "`peersock network members` lists the names",
            )),
            false => Ok(Selector::Member(name)),
        }
    }

    /// Returns the selector of the member with a node.
    ///
    /// # Errors
    /// Returns what is wrong with the digits.
    pub fn node(digits: &str) -> Result<Self, Complaint> {
        let bytes = HEX.decode(digits.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Selector::Node).ok_or_else(|| {
            Complaint::new(
                format!("`{}` is no node ID", shown(digits)),
                "an ID has 64 hexadecimal digits; `peersock network members --json` lists them",
            )
        })
    }

    /// Returns the selector of hosts in a block of addresses.
    ///
    /// # Errors
    /// Returns what is wrong with the block.
    pub fn hosts(text: &str) -> Result<Self, Complaint> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let length = if address.is_ipv4() { 32 } else { 128 };
            return Err(Complaint::new(
                format!("`{address}` is an address and no block"),
                format!("write `{address}/{length}` for a single host"),
            ));
        }
        let read = |(address, length): (&str, &str)| {
            let is_plain = length.len() <= 3 && length.bytes().all(|digit| digit.is_ascii_digit());
            let length = length.parse().ok().filter(|_| is_plain)?;
            let address: IpAddr = address.parse().ok()?;
            Some((address, Prefix::new(address, length)?))
        };
        let Some((first, prefix)) = text.split_once('/').and_then(read) else {
            return Err(Complaint::new(
                format!("`{}` is no block of addresses", shown(text)),
                "write it as `10.1.0.0/16` or `2001:db8:1::/48`",
            ));
        };
        if prefix.address() != first {
            return Err(Complaint::new(
                format!("`{}` has bits behind its length", shown(text)),
                format!("the block is `{prefix}`"),
            ));
        }
        match prefix.has_hosts() {
            true => Ok(Selector::Hosts(prefix)),
            false => Err(Complaint::new(
                format!("no host behind a gateway has an address in `{prefix}`"),
                "loopback, link-local, multicast and IPv4-mapped addresses never pass a gateway",
            )),
        }
    }

    /// Returns true for hosts behind gateways.
    pub fn is_hosts(&self) -> bool {
        matches!(self, Selector::Hosts(_))
    }

    /// Returns true if the selector has the form that its text would be read as.
    pub(crate) fn is_valid(&self) -> bool {
        match self {
            Selector::Tag(text) => Self::tag(text).as_ref() == Ok(self),
            Selector::Member(text) => Self::member(text).as_ref() == Ok(self),
            Selector::Node(_) => true,
            Selector::Hosts(prefix) => prefix.has_hosts(),
        }
    }
}

/// Words in front of the colon.
const KINDS: [&str; 3] = ["tag", "member", "node"];

impl FromStr for Selector {
    type Err = Complaint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Addresses of IPv6 have colons, too.
        if text.contains('/') || text.parse::<IpAddr>().is_ok() {
            return Self::hosts(text);
        }
        match text.split_once(':') {
            Some(("tag", tag)) => Self::tag(tag),
            Some(("member", name)) => Self::member(name),
            Some(("node", digits)) => Self::node(digits),
            Some((kind, rest)) => Err(Complaint::new(
                format!("`{}` is neither `tag:`, `member:` nor `node:`", shown(text)),
                match nearest(kind, &KINDS) {
                    Some(kind) => format!("write `{kind}:{}`", shown(rest)),
                    None => FORMS.to_owned(),
                },
            )),
            None if Self::tag(text).is_ok() => Err(Complaint::new(
                format!("`{text}` is neither `tag:`, `member:` nor `node:`"),
                format!("write `member:{text}` for the member with this name, or `tag:{text}`"),
            )),
            None => Err(Complaint::new(format!("`{}` names no end of a flow", shown(text)), FORMS)),
        }
    }
}

const FORMS: &str = "write `tag:NAME`, `member:NAME`, `node:ID`, a block as `10.1.0.0/16`, or \"*\" alone";

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Tag(tag) => write!(f, "tag:{tag}"),
            Selector::Member(name) => write!(f, "member:{name}"),
            Selector::Node(node) => write!(f, "node:{}", HEX.encode(node)),
            Selector::Hosts(prefix) => prefix.fmt(f),
        }
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({self})")
    }
}

/// Error in a part of a rule, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text}; {hint}")]
pub struct Complaint {
    /// Error in one sentence, without a full stop.
    pub text: String,
    /// Correct form, or the next thing to do.
    pub hint: String,
}

impl Complaint {
    pub(crate) fn new(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { text: text.into(), hint: hint.into() }
    }
}

/// Returns a tag or name in lower case. The overlay has the same rule for certificates.
fn label(text: &str, kind: &str, max: usize) -> Result<Box<str>, Complaint> {
    let complaint = |what: String| {
        let hint = format!("a {kind} has 1 to {max} letters from a to z, digits and inner hyphens");
        Err(Complaint::new(what, hint))
    };
    if let Some(wrong) = text.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
        return complaint(format!("{kind} `{}` has the character `{}`", shown(text), wrong.escape_debug()));
    }
    if text.is_empty() {
        return complaint(format!("the {kind} is empty"));
    }
    if text.len() > max {
        return complaint(format!("{kind} `{}` has {} characters", shown(text), text.len()));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return complaint(format!("{kind} `{text}` begins or ends with a hyphen"));
    }
    Ok(text.to_ascii_lowercase().into())
}

/// Returns true for a name that inet_aton(3) takes for an IPv4 address, so that no member has it.
fn is_number(name: &str) -> bool {
    match name.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => name.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Returns a text of a file as an error quotes it: short, and without characters that act on a terminal.
pub(crate) fn shown(text: &str) -> String {
    const MAX: usize = 80;
    let mut short: String = text.chars().take(MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_selector_has_one_text() {
        let node = "00".repeat(31) + "ff";
        for (text, canonical) in [
            ("tag:db", "tag:db"),
            ("tag:DB-1", "tag:db-1"),
            ("member:Alpha", "member:alpha"),
            (&format!("node:{}", node.to_uppercase()), &format!("node:{node}")),
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8:0::/48", "2001:db8::/48"),
        ] {
            let selector: Selector = text.parse().expect(text);
            assert_eq!(selector.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(selector.clone()));
            assert!(selector.is_valid(), "{text}");
        }
    }

    #[test]
    fn errors_say_how_to_write_it() {
        let long = format!("tag:{}", "a".repeat(33));
        for (text, error, hint) in [
            ("db", "neither `tag:`", "write `member:db` for the member with this name, or `tag:db`"),
            ("tags:db", "neither `tag:`", "write `tag:db`"),
            ("group:db", "neither `tag:`", "write `tag:NAME`"),
            ("tag:", "the tag is empty", "1 to 32 letters"),
            ("tag:a b", "has the character ` `", "1 to 32 letters"),
            ("tag:bücher", "has the character `ü`", "1 to 32 letters"),
            ("tag:-a", "begins or ends with a hyphen", "inner hyphens"),
            (&long, "has 33 characters", "1 to 32 letters"),
            ("member:10", "no member can have the name `10`", "network members"),
            ("member:0xa", "no member can have the name", "network members"),
            ("member:web.alpha", "has the character `.`", "1 to 63 letters"),
            ("node:12", "no node ID", "64 hexadecimal digits"),
            ("10.1.0.5", "is an address and no block", "write `10.1.0.5/32`"),
            ("fd00::1", "is an address and no block", "write `fd00::1/128`"),
            ("10.1.0.0/33", "no block", "10.1.0.0/16"),
            ("10.1.0.0/+16", "no block", "10.1.0.0/16"),
            ("10.1.0.5/16", "bits behind its length", "the block is `10.1.0.0/16`"),
            ("224.0.0.0/4", "no host behind a gateway", "multicast"),
            ("", "names no end", "write `tag:NAME`"),
            ("*", "names no end", "\"*\" alone"),
        ] {
            let complaint = text.parse::<Selector>().expect_err(text);
            assert!(complaint.text.contains(error), "{text}: {}", complaint.text);
            assert!(complaint.hint.contains(hint), "{text}: {}", complaint.hint);
        }
    }

    #[test]
    fn what_errors_quote_is_short_and_harmless() {
        let complaint = format!("tag:\u{1b}[2J{}", "x".repeat(500)).parse::<Selector>().expect_err("no tag");
        assert!(complaint.text.len() < 200 && !complaint.text.contains('\u{1b}'), "{complaint}");
    }
}
