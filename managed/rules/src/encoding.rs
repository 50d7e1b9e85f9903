//! Encoding of a set of rules, which is signed and sent to members.
//!
//! ```text
//! set        version 1 = 1 | default 1 | selectors 2, each | rules 2, each
//! selector   0, length 1, tag | 1, length 1, name | 2, node ID 32 | 3, IPv4 4, bits 1 | 4, IPv6 16, bits 1
//! rule       action 1 | line 2 | from | to | via | protocols | ports | length 1, note
//! from, to, via   count 1, numbers of selectors 2 each
//! protocols       count 1, each 1
//! ports           count 1, first 2 and last 2 of each
//! ```
//!
//! Numbers are big-endian. An action is 0 to allow and 1 to deny. The selectors are those of all rules,
//! ascending, each once; rules refer to them by their numbers from 0 on. A count of 255 means everything, and
//! 0 is refused. A note of length 0 is none.
//!
//! Each set has exactly one encoding, so what is read is what was signed: the decoder encodes again and
//! compares.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::{Action, PortRange, Prefix, Rule, RuleSet, Scope, Selector};

const VERSION: u8 = 1;

/// Count of a list that is everything.
const EVERYTHING: u8 = u8::MAX;

/// Returns the encoding of rules, which may be longer than allowed.
pub(crate) fn encode(default: Action, rules: &[Rule]) -> Vec<u8> {
    let mut out = vec![VERSION, default as u8];
    let lists = rules.iter().flat_map(|rule| [&rule.from, &rule.to, &rule.via]);
    let selectors: BTreeSet<&Selector> = lists.flat_map(|scope| scope.list()).collect();
    let selectors: Vec<&Selector> = selectors.into_iter().collect();
    put_u16(&mut out, selectors.len());
    selectors.iter().for_each(|selector| put_selector(&mut out, selector));
    put_u16(&mut out, rules.len());
    for rule in rules {
        out.push(rule.action as u8);
        put_u16(&mut out, rule.line.into());
        for scope in [&rule.from, &rule.to, &rule.via] {
            put_scope(&mut out, scope, |out, selector| {
                put_u16(out, selectors.binary_search(&selector).unwrap_or_default());
            });
        }
        put_scope(&mut out, &rule.protocols, |out, protocol| out.push(*protocol));
        put_scope(&mut out, &rule.ports, |out, range| {
            put_u16(out, range.first().into());
            put_u16(out, range.last().into());
        });
        put_text(&mut out, rule.note.as_deref().unwrap_or_default());
    }
    out
}

/// Appends a number. One that does not fit belongs to a set that is too long anyway.
fn put_u16(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
}

fn put_selector(out: &mut Vec<u8>, selector: &Selector) {
    match selector {
        Selector::Tag(tag) => {
            out.push(0);
            put_text(out, tag);
        }
        Selector::Member(name) => {
            out.push(1);
            put_text(out, name);
        }
        Selector::Node(node) => {
            out.push(2);
            out.extend_from_slice(node);
        }
        Selector::Hosts(prefix) => {
            match prefix.address() {
                IpAddr::V4(address) => {
                    out.push(3);
                    out.extend_from_slice(&address.octets());
                }
                IpAddr::V6(address) => {
                    out.push(4);
                    out.extend_from_slice(&address.octets());
                }
            }
            out.push(prefix.length());
        }
    }
}

fn put_scope<T>(out: &mut Vec<u8>, scope: &Scope<T>, put: impl Fn(&mut Vec<u8>, &T)) {
    match scope {
        Scope::All => out.push(EVERYTHING),
        Scope::Only(list) => {
            out.push(u8::try_from(list.len()).unwrap_or(0));
            list.iter().for_each(|item| put(out, item));
        }
    }
}

impl RuleSet {
    /// Decodes a set, from any bytes.
    ///
    /// # Errors
    /// Returns the reason why the bytes are no encoding of a set.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > Self::MAX_LEN {
            return Err(DecodeError::Length);
        }
        let mut reader = Reader(bytes);
        match reader.u8()? {
            VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        let default = reader.action()?;
        let selectors = reader.many(3, Reader::selector)?;
        let rules = reader.many(9, |reader| reader.rule(&selectors))?;
        if !reader.0.is_empty() {
            return Err(DecodeError::Length);
        }
        let set = Self::new(default, rules).map_err(|_| DecodeError::Value)?;
        if set.encode() == bytes { Ok(set) } else { Err(DecodeError::Value) }
    }
}

/// Reason why bytes are no encoding of a set of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are too many, too few, or end within a field.
    #[error("wrong length")]
    Length,
    /// The encoding has another version.
    #[error("version {0} of the encoding of rules is unknown")]
    Version(u8),
    /// A field has a value that no set has, or that another encoding has already.
    #[error("a field has a wrong value")]
    Value,
}

/// Reader of a part of the bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(DecodeError::Length)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(DecodeError::Length)?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn action(&mut self) -> Result<Action, DecodeError> {
        match self.u8()? {
            0 => Ok(Action::Allow),
            1 => Ok(Action::Deny),
            _ => Err(DecodeError::Value),
        }
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let len = self.u8()?;
        std::str::from_utf8(self.bytes(len.into())?).map_err(|_| DecodeError::Value)
    }

    /// Reads items behind their number. Each has at least `least` bytes, so no number alone takes memory.
    fn many<T>(
        &mut self,
        least: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = usize::from(self.u16()?);
        if count * least > self.0.len() {
            return Err(DecodeError::Length);
        }
        (0..count).map(|_| read(self)).collect()
    }

    fn selector(&mut self) -> Result<Selector, DecodeError> {
        let selector = match self.u8()? {
            0 => Selector::Tag(self.text()?.into()),
            1 => Selector::Member(self.text()?.into()),
            2 => Selector::Node(self.array()?),
            3 => self.hosts(|octets: [u8; 4]| Ipv4Addr::from(octets).into())?,
            4 => self.hosts(|octets: [u8; 16]| Ipv6Addr::from(octets).into())?,
            _ => return Err(DecodeError::Value),
        };
        Ok(selector)
    }

    fn hosts<const N: usize>(&mut self, address: fn([u8; N]) -> IpAddr) -> Result<Selector, DecodeError> {
        let address = address(self.array()?);
        Prefix::new(address, self.u8()?).map(Selector::Hosts).ok_or(DecodeError::Value)
    }

    fn scope<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Scope<T>, DecodeError> {
        match self.u8()? {
            EVERYTHING => Ok(Scope::All),
            count if (1..=Rule::MAX_LIST).contains(&count.into()) => {
                (0..count).map(|_| read(self)).collect::<Result<_, _>>().map(Scope::Only)
            }
            _ => Err(DecodeError::Value),
        }
    }

    fn rule(&mut self, selectors: &[Selector]) -> Result<Rule, DecodeError> {
        let action = self.action()?;
        let line = self.u16()?;
        let ends = |reader: &mut Self| {
            reader
                .scope(|reader| selectors.get(usize::from(reader.u16()?)).cloned().ok_or(DecodeError::Value))
        };
        Ok(Rule {
            action,
            line,
            from: ends(self)?,
            to: ends(self)?,
            via: ends(self)?,
            protocols: self.scope(Self::u8)?,
            ports: self
                .scope(|reader| PortRange::new(reader.u16()?, reader.u16()?).ok_or(DecodeError::Value))?,
            note: Some(self.text()?).filter(|note| !note.is_empty()).map(Into::into),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> RuleSet {
        let rule = Rule {
            action: Action::Allow,
            line: 4,
            from: Scope::Only(vec![Selector::tag("web").expect("a tag"), Selector::Node([7; 32])]),
            to: Scope::Only(vec!["10.1.0.0/16".parse().expect("a block")]),
            via: Scope::Only(vec![Selector::member("gate").expect("a name")]),
            protocols: Scope::Only(vec![6]),
            ports: Scope::Only(vec![PortRange::new(22, 22).expect("a port")]),
            note: Some("administrators".into()),
        };
        let deny = Rule {
            action: Action::Deny,
            line: 9,
            from: Scope::All,
            to: Scope::Only(vec!["fd00::/8".parse().expect("a block")]),
            via: Scope::All,
            protocols: Scope::All,
            ports: Scope::All,
            note: None,
        };
        RuleSet::new(Action::Deny, vec![deny, rule]).expect("valid rules")
    }

    #[test]
    fn the_encoding_is_that_of_the_drawing() {
        let node = [7; 32];
        let selectors: [&[u8]; 6] = [
            b"\x00\x05\x00\x03web\x01\x04gate\x02",
            &node,
            b"\x03\x0a\x01\x00\x00\x10\x04\xfd",
            &[0; 15],
            b"\x08",
            b"",
        ];
        let rules: [&[u8]; 3] = [
            b"\x00\x02\x00\x00\x04\x02\x00\x00\x00\x02\x01\x00\x03\x01\x00\x01\x01\x06\x01\x00\x16\x00\x16",
            b"\x0eadministrators",
            b"\x01\x00\x09\xff\x01\x00\x04\xff\xff\xff\x00",
        ];
        let expected = [&b"\x01\x01"[..], &selectors.concat(), &rules.concat()].concat();
        assert_eq!(set().encode(), expected);
        assert_eq!(RuleSet::decode(&expected), Ok(set()));
    }

    #[test]
    fn damaged_encodings_are_refused_or_mean_something_else() {
        let bytes = set().encode();
        for at in 0..bytes.len() {
            assert!(RuleSet::decode(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(other) = RuleSet::decode(&damaged) {
                    assert_ne!(other, set(), "bit {bit} of byte {at}");
                    assert_eq!(other.encode(), damaged);
                }
            }
        }
        assert_eq!(RuleSet::decode(&[&bytes[..], &[0]].concat()), Err(DecodeError::Length));
        assert_eq!(RuleSet::decode(&[2, 0]), Err(DecodeError::Version(2)));
    }

    #[test]
    fn numbers_alone_take_no_memory() {
        assert_eq!(RuleSet::decode(&[1, 0, 0xff, 0xff, 0, 1, b'a']), Err(DecodeError::Length));
        assert_eq!(RuleSet::decode(&[1, 0, 0, 0, 0xff, 0xff]), Err(DecodeError::Length));
        assert_eq!(RuleSet::decode(&vec![1; RuleSet::MAX_LEN + 1]), Err(DecodeError::Length));
    }

    #[test]
    fn a_selector_without_a_rule_is_refused() {
        assert_eq!(RuleSet::decode(&[1, 0, 0, 1, 0, 1, b'a', 0, 0]), Err(DecodeError::Value));
        assert!(RuleSet::decode(&[1, 0, 0, 0, 0, 0]).is_ok());
    }
}
