//! Rules one by one.

use std::fmt;
use std::str::FromStr;

use crate::protocol;
use crate::selector::{Complaint, Selector, shown};
use crate::words::listed;

/// Answer to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The flow is allowed.
    Allow,
    /// The flow is refused.
    Deny,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Action::Allow => "allow",
            Action::Deny => "deny",
        })
    }
}

/// Everything, or some things only. An empty list is refused everywhere, so it never widens a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope<T> {
    /// Everything, as `*` in a file.
    All,
    /// These, at least one, in ascending order.
    Only(Vec<T>),
}

impl<T> Scope<T> {
    /// Returns the list, which is empty for everything.
    pub fn list(&self) -> &[T] {
        match self {
            Scope::All => &[],
            Scope::Only(list) => list,
        }
    }

    /// Returns true for everything.
    pub fn is_all(&self) -> bool {
        matches!(self, Scope::All)
    }

    /// Returns true if everything is meant, or one of the list fits.
    pub fn any(&self, mut fits: impl FnMut(&T) -> bool) -> bool {
        match self {
            Scope::All => true,
            Scope::Only(list) => list.iter().any(&mut fits),
        }
    }
}

/// Ports from a first to a last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Returns the ports; `None` if the first one is 0 or above the last one.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first != 0 && first <= last).then_some(Self { first, last })
    }

    /// Returns the first port.
    pub fn first(&self) -> u16 {
        self.first
    }

    /// Returns the last port.
    pub fn last(&self) -> u16 {
        self.last
    }

    /// Returns true if a port is in the range.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Sorts ranges, and joins those without a gap between them.
    pub(crate) fn join(ranges: &mut Vec<PortRange>) {
        ranges.sort_unstable();
        let mut joined: Vec<PortRange> = Vec::with_capacity(ranges.len());
        for range in ranges.drain(..) {
            match joined.last_mut() {
                Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                    last.last = last.last.max(range.last);
                }
                _ => joined.push(range),
            }
        }
        *ranges = joined;
    }
}

impl FromStr for PortRange {
    type Err = Complaint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hint = "ports are numbers from 1 to 65535, as 5432 or \"8000-8100\"";
        let number = |text: &str| -> Option<u16> {
            let text = text.trim();
            text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten()
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first), number(last)) {
            (Some(first), Some(last)) => Self::new(first, last).ok_or_else(|| match first {
                0 => Complaint::new("no flow has port 0", hint),
                _ => Complaint::new(
                    format!("`{}` ends before it begins", shown(text)),
                    format!("write \"{last}-{first}\""),
                ),
            }),
            _ => Err(Complaint::new(format!("`{}` is no port", shown(text)), hint)),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Rule of a set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Answer to the flows that the rule matches.
    pub action: Action,
    /// Line of the file, counted from 1; at most 65,535.
    pub line: u16,
    /// Ends that open the flow. `All` is every member, and every host behind a gateway.
    pub from: Scope<Selector>,
    /// Ends to which the flow is opened.
    pub to: Scope<Selector>,
    /// Gateways of the hosts that `from` or `to` lists. Other than `All` only if either of the two lists
    /// hosts, and nothing else, and the other one lists no hosts.
    pub via: Scope<Selector>,
    /// Numbers of IP protocols.
    pub protocols: Scope<u8>,
    /// Ports at the end to which the flow is opened. Other than `All` only with TCP and UDP.
    pub ports: Scope<PortRange>,
    /// Text for people; at most [`Rule::MAX_NOTE_LEN`] bytes without control characters, not empty.
    pub note: Option<Box<str>>,
}

impl Rule {
    /// Maximum number of items in each list.
    pub const MAX_LIST: usize = 64;

    /// Maximum length of a note in bytes.
    pub const MAX_NOTE_LEN: usize = 120;

    /// Brings lists into their order, without repetitions.
    pub(crate) fn normalize(&mut self) {
        for scope in [&mut self.from, &mut self.to, &mut self.via] {
            if let Scope::Only(list) = scope {
                list.sort_unstable();
                list.dedup();
            }
        }
        if let Scope::Only(protocols) = &mut self.protocols {
            protocols.sort_unstable();
            protocols.dedup();
        }
        if let Scope::Only(ports) = &mut self.ports {
            PortRange::join(ports);
        }
    }

    /// Returns the rule's error, if it has one.
    pub(crate) fn complaint(&self) -> Option<&'static str> {
        let is_length = |length: usize| (1..=Self::MAX_LIST).contains(&length);
        let ends = [&self.from, &self.to, &self.via];
        let lengths = ends.map(|scope| scope.is_all() || is_length(scope.list().len()));
        let has_lengths = lengths.iter().all(|fits| *fits)
            && (self.protocols.is_all() || is_length(self.protocols.list().len()))
            && (self.ports.is_all() || is_length(self.ports.list().len()));
        let is_note = |note: &str| (1..=Self::MAX_NOTE_LEN).contains(&note.len()) && !has_controls(note);
        if !has_lengths {
            Some("a list is empty, or has more than 64 items")
        } else if !ends.iter().all(|scope| scope.list().iter().all(Selector::is_valid)) {
            Some("a tag, name or block of addresses cannot exist")
        } else if self.line == 0 {
            Some("lines are counted from 1")
        } else if !self.has_good_gateways() {
            Some("gateways need blocks of addresses at one end, and nothing else there")
        } else if !self.ports.is_all() && !self.has_ports() {
            Some("ports need TCP or UDP, and no other protocol")
        } else if !self.note.as_deref().is_none_or(is_note) {
            Some("the note is empty, longer than 120 bytes, or has control characters")
        } else {
            None
        }
    }

    /// Returns true if the rule's protocols have ports, all of them.
    fn has_ports(&self) -> bool {
        !self.protocols.is_all() && self.protocols.list().iter().all(|number| protocol::has_ports(*number))
    }

    fn has_good_gateways(&self) -> bool {
        let hosts = |scope: &Scope<Selector>| scope.list().iter().filter(|one| one.is_hosts()).count();
        let is_one_end = |one: &Scope<Selector>, other| {
            hosts(one) > 0 && hosts(one) == one.list().len() && hosts(other) == 0
        };
        hosts(&self.via) == 0
            && (self.via.is_all() || is_one_end(&self.from, &self.to) || is_one_end(&self.to, &self.from))
    }
}

/// Returns true if a text can act on a terminal, or turn its direction.
pub(crate) fn has_controls(text: &str) -> bool {
    let is_control = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
    };
    text.chars().any(is_control)
}

/// Returns the name of a protocol, or its number.
pub(crate) fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "icmp of IPv4".to_owned(),
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        protocol::ICMPV6 => "icmp of IPv6".to_owned(),
        other => format!("protocol {other}"),
    }
}

/// Returns a list of ends as text.
pub(crate) fn ends_text(scope: &Scope<Selector>) -> String {
    match scope {
        Scope::All => "*".to_owned(),
        Scope::Only(list) => listed(list),
    }
}

/// Returns a list of protocols as text.
pub(crate) fn protocols_text(scope: &Scope<u8>) -> String {
    const BOTH: [u8; 2] = [protocol::ICMP, protocol::ICMPV6];
    match scope {
        Scope::All => "every protocol".to_owned(),
        Scope::Only(list) if BOTH.iter().all(|number| list.contains(number)) => {
            let others = list.iter().filter(|number| !BOTH.contains(number));
            listed(std::iter::once("icmp".to_owned()).chain(others.map(|number| protocol_name(*number))))
        }
        Scope::Only(list) => listed(list.iter().map(|number| protocol_name(*number))),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (ends_text(&self.from), ends_text(&self.to));
        write!(f, "{} from {from} to {to}", self.action)?;
        if !self.via.is_all() {
            write!(f, " via {}", ends_text(&self.via))?;
        }
        write!(f, ", {}", protocols_text(&self.protocols))?;
        if let Scope::Only(ports) = &self.ports {
            write!(f, " {}", listed(ports))?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns a rule that allows TCP to one port, from one tag to another.
    pub(crate) fn rule() -> Rule {
        let tag = |text| Scope::Only(vec![Selector::tag(text).expect("a tag")]);
        Rule {
            action: Action::Allow,
            line: 3,
            from: tag("web"),
            to: tag("db"),
            via: Scope::All,
            protocols: Scope::Only(vec![6]),
            ports: Scope::Only(vec![PortRange::new(5432, 5432).expect("a port")]),
            note: None,
        }
    }

    #[test]
    fn a_rule_reads_as_a_sentence() {
        assert_eq!(rule().to_string(), "allow from tag:web to tag:db, tcp 5432");
        let wide =
            Rule { from: Scope::All, protocols: Scope::Only(vec![1, 58]), ports: Scope::All, ..rule() };
        assert_eq!(wide.to_string(), "allow from * to tag:db, icmp");
        let block: Selector = "10.1.0.0/16".parse().expect("a block");
        let gateway = Rule { to: Scope::Only(vec![block]), via: rule().to, ..rule() };
        assert_eq!(gateway.to_string(), "allow from tag:web to 10.1.0.0/16 via tag:db, tcp 5432");
    }

    #[test]
    fn rules_that_cannot_be_are_refused() {
        let block = || Scope::Only(vec!["10.1.0.0/16".parse::<Selector>().expect("a block")]);
        let mixed = Scope::Only(vec![rule().to.list()[0].clone(), block().list()[0].clone()]);
        assert_eq!(rule().complaint(), None);
        assert_eq!(Rule { to: block(), via: rule().to, ..rule() }.complaint(), None);
        for wrong in [
            Rule { from: Scope::Only(vec![]), ..rule() },
            Rule { protocols: Scope::Only(vec![]), ..rule() },
            Rule { ports: Scope::Only(vec![]), ..rule() },
            Rule { protocols: Scope::Only((0..=64).collect()), ports: Scope::All, ..rule() },
            Rule { protocols: Scope::All, ..rule() },
            Rule { protocols: Scope::Only(vec![1, 6]), ..rule() },
            Rule { line: 0, ..rule() },
            Rule { from: Scope::Only(vec![Selector::Tag("A".into())]), ..rule() },
            Rule { from: Scope::Only(vec![Selector::Member("7".into())]), ..rule() },
            Rule { via: rule().to, ..rule() },
            Rule { to: block(), via: block(), ..rule() },
            Rule { to: block(), from: block(), via: rule().to, ..rule() },
            Rule { to: mixed, via: rule().to, ..rule() },
            Rule { note: Some("".into()), ..rule() },
            Rule { note: Some("a\nb".into()), ..rule() },
            Rule { note: Some("\u{202e}b".into()), ..rule() },
            Rule { note: Some("x".repeat(121).into()), ..rule() },
        ] {
            assert!(wrong.complaint().is_some(), "{wrong}");
        }
    }

    #[test]
    fn ports_are_joined_and_read() {
        let range = |first, last| PortRange::new(first, last).expect("ports");
        let mut ports = vec![range(9, 9), range(1, 3), range(4, 5), range(2, 2), range(65535, 65535)];
        PortRange::join(&mut ports);
        assert_eq!(ports, [range(1, 5), range(9, 9), range(65535, 65535)]);
        assert_eq!("8000-8100".parse(), Ok(range(8000, 8100)));
        assert_eq!("1 - 2".parse(), Ok(range(1, 2)));
        assert_eq!(range(7, 7).to_string(), "7");
        for (text, hint) in [
            ("0", "from 1 to 65535"),
            ("9-8", "write \"8-9\""),
            ("65536", "from 1"),
            ("-1", "from 1"),
            ("+1", "from 1"),
            ("http", "from 1"),
            ("1-2-3", "from 1"),
        ] {
            let complaint = text.parse::<PortRange>().expect_err(text);
            assert!(complaint.hint.contains(hint), "{text}: {complaint}");
        }
    }
}
