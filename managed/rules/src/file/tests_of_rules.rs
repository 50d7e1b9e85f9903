//! Tests that a file has for its rules: reading of `[[test]]`, and running.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Notes;
use super::rules::{port, protocols};
use super::table::{Item, Table, kind, number, scope};
use super::{RuleFile, action};
use crate::rule::{protocol_name, protocols_text};
use crate::{Action, Compiled, Complaint, Decision, End, Flow, Scope, Selector, Subject, protocol};

const KEYS: [&str; 6] = ["from", "to", "via", "protocol", "port", "expect"];

const ENDS: &str = "write \"tag:web\", [\"member:alpha\", \"tag:web\"] for a member with both, an address behind a \
                    gateway, or \"*\" for a member that no rule names";
const PROTOCOLS: &str = "write \"tcp\", \"udp\", \"icmp\", or the number of an IP protocol";
const PORT: &str = "write the port as `port = 5432`";
const GATEWAY: &str = "describe the gateway as `via = \"tag:office\"`, or leave `via` out for any gateway";

/// Test of the rules, of which a file has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Line of the test, counted from 1.
    pub line: usize,
    /// Answer that all flows of the test get if the rules are right.
    pub expect: Action,
    from: TestEnd,
    to: TestEnd,
    protocols: Vec<u8>,
    port: u16,
}

/// End of a test's flow: a member that has what is listed and nothing else, or a host behind such a member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct TestEnd {
    name: Option<Box<str>>,
    tags: Vec<Box<str>>,
    node: Option<[u8; 32]>,
    host: Option<IpAddr>,
}

/// Test that the rules do not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Place of the test in [`RuleFile::tests`].
    pub test: usize,
    /// Line of the test, counted from 1.
    pub line: usize,
    /// Answer that the test expects.
    pub expect: Action,
    /// Answer of the rules.
    pub decision: Decision,
    /// The test's flow, in words.
    pub flow: String,
    /// Text of the rule that decided; `None` for the default.
    pub rule: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: the test expects {} for {}, but ", self.line, self.expect, self.flow)?;
        match (&self.decision.rule, &self.rule) {
            (Some(rule), Some(text)) => {
                write!(f, "rule {} (line {}) decides: {text}", rule.number, rule.line)
            }
            _ => write!(f, "no rule matches, and the default is {}", self.decision.action),
        }
    }
}

impl RuleFile {
    /// Runs the tests, and returns those that the rules do not pass. New rules may be applied only if all
    /// pass.
    pub fn failures(&self) -> Vec<Failure> {
        let compiled = Compiled::new(self.rules.clone());
        let tests = self.tests.iter().enumerate();
        tests.filter_map(|(at, test)| test.run(at, &compiled)).collect()
    }
}

impl Test {
    fn run(&self, at: usize, rules: &Compiled) -> Option<Failure> {
        let (from_tags, to_tags) = (self.from.tags(), self.to.tags());
        let flow = |protocol| Flow {
            from: self.from.end(&from_tags),
            to: self.to.end(&to_tags),
            protocol,
            port: self.port,
        };
        let wrong = self.protocols.iter().find_map(|protocol| {
            let decision = rules.decide(&flow(*protocol));
            (decision.action != self.expect).then_some((*protocol, decision))
        });
        let (protocol, decision) = wrong?;
        let rule = decision.rule.map(|rule| rules.rule(rule).to_string());
        let flow = self.describe(protocol);
        Some(Failure { test: at, line: self.line, expect: self.expect, decision, flow, rule })
    }

    fn describe(&self, number: u8) -> String {
        let flow = format!("{} from {} to {}", protocol_name(number), self.from, self.to);
        if protocol::has_ports(number) { format!("{flow}, port {}", self.port) } else { flow }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocols = protocols_text(&Scope::Only(self.protocols.clone()));
        write!(f, "{} {protocols} from {} to {}", self.expect, self.from, self.to)?;
        if self.port != 0 { write!(f, ", port {}", self.port) } else { Ok(()) }
    }
}

impl TestEnd {
    fn tags(&self) -> Vec<&str> {
        self.tags.iter().map(AsRef::as_ref).collect()
    }

    fn end<'a>(&'a self, tags: &'a [&'a str]) -> End<'a> {
        // No node has this ID, because no keys with this hash are known.
        const NOBODY: &[u8; 32] = &[0; 32];
        let node = self.node.as_ref().unwrap_or(NOBODY);
        End { member: Subject { name: self.name.as_deref(), tags, node }, host: self.host }
    }

    /// Adds what a selector says about the member.
    fn add(&mut self, selector: Selector) -> Result<(), Complaint> {
        let is_second = match &selector {
            Selector::Tag(tag) => {
                self.tags.push(tag.clone());
                false
            }
            Selector::Member(name) => self.name.replace(name.clone()).is_some(),
            Selector::Node(node) => self.node.replace(*node).is_some(),
            Selector::Hosts(_) => {
                return Err(Complaint::new("a test is about one host, and not about a block", ENDS));
            }
        };
        match is_second {
            true => {
                Err(Complaint::new("a test is about one member, and this one has two names or IDs", ENDS))
            }
            false => Ok(()),
        }
    }
}

impl fmt::Display for TestEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.iter().map(|name| format!("member:{name}"));
        let node = self.node.iter().map(|node| Selector::Node(*node).to_string());
        let tags = self.tags.iter().map(|tag| format!("tag:{tag}"));
        let member: Vec<_> = name.chain(node).chain(tags).collect();
        match (self.host, member.is_empty()) {
            (None, true) => f.write_str("*"),
            (None, false) => f.write_str(&member.join("+")),
            (Some(host), true) => write!(f, "{host}"),
            (Some(host), false) => write!(f, "{host} behind {}", member.join("+")),
        }
    }
}

/// Reads a test. Notes errors, and returns `None` if there is one.
pub(super) fn read(table: &DeTable<'_>, span: Range<usize>, notes: &mut Notes<'_>) -> Option<Test> {
    let table = Table::new(table, span, "the test", &KEYS, notes);
    let mut from = end(&table, "from", notes);
    let mut to = end(&table, "to", notes);
    let is_good = gateway(&table, from.as_mut(), to.as_mut(), notes);
    let protocols = read_protocols(&table, notes);
    let port = read_port(&table, protocols.as_deref(), notes);
    let hint = "write `expect = \"allow\"` or `expect = \"deny\"`";
    let expect = table.require("expect", hint, notes).and_then(|value| action(value, hint, notes));
    let line = notes.line(table.span.start);
    let test = Test { line, expect: expect?, from: from?, to: to?, protocols: protocols?, port: port? };
    is_good.then_some(test)
}

fn end(table: &Table<'_>, key: &str, notes: &mut Notes<'_>) -> Option<TestEnd> {
    let value = table.require(key, ENDS, notes)?;
    if let Some(host) = value.get_ref().as_str().and_then(|text| text.parse::<IpAddr>().ok()) {
        return Some(TestEnd { host: Some(host.to_canonical()), ..TestEnd::default() });
    }
    member(value, ENDS, notes)
}

/// Reads what one member has.
fn member(value: &Spanned<DeValue<'_>>, hint: &str, notes: &mut Notes<'_>) -> Option<TestEnd> {
    let mut member = TestEnd::default();
    scope(value, hint, notes, |item| match item {
        Item::Text(text) if text.parse::<IpAddr>().is_ok() => Err(Complaint::new(
            "an address stands for one host, which is no member",
            "give the address alone",
        )),
        Item::Text(text) => member.add(text.parse()?).map(|()| vec![()]),
        Item::Number(_) => Err(Complaint::new("a number names no end of a flow", hint)),
    })?;
    member.tags.sort_unstable();
    member.tags.dedup();
    Some(member)
}

/// Reads the gateway of the host, and adds it to the host's end. Returns false if there is an error.
fn gateway(
    table: &Table<'_>,
    from: Option<&mut TestEnd>,
    to: Option<&mut TestEnd>,
    notes: &mut Notes<'_>,
) -> bool {
    let Some(value) = table.get("via") else { return true };
    let Some(gateway) = member(value, GATEWAY, notes) else { return false };
    let mut hosts: Vec<_> = [from, to].into_iter().flatten().filter(|end| end.host.is_some()).collect();
    match &mut hosts[..] {
        [end] => {
            **end = TestEnd { host: end.host, ..gateway };
            true
        }
        others => {
            let text = match others.len() {
                0 => "`via` needs an address behind the gateway in `from` or `to`",
                _ => "`from` and `to` are addresses, so it is unclear whose gateway `via` describes",
            };
            notes.error(value.span(), Complaint::new(text, GATEWAY));
            false
        }
    }
}

fn read_protocols(table: &Table<'_>, notes: &mut Notes<'_>) -> Option<Vec<u8>> {
    let value = table.require("protocol", PROTOCOLS, notes)?;
    let complaint = match value.get_ref() {
        DeValue::Array(_) => Complaint::new("a test has one protocol, and no list", PROTOCOLS),
        _ => match scope(value, PROTOCOLS, notes, protocols)? {
            Scope::Only(list) => return Some(list),
            Scope::All => Complaint::new("a test has one protocol, and not all", PROTOCOLS),
        },
    };
    notes.error(value.span(), complaint);
    None
}

/// Returns the port, or 0 if the protocol has none; `None` for an error.
fn read_port(table: &Table<'_>, protocols: Option<&[u8]>, notes: &mut Notes<'_>) -> Option<u16> {
    let has_ports = protocols?.iter().any(|number| protocol::has_ports(*number));
    let Some(value) = table.get("port") else {
        return if has_ports { table.require("port", PORT, notes).map(|_| 0) } else { Some(0) };
    };
    let complaint = match value.get_ref() {
        _ if !has_ports => Complaint::new("the protocol has no ports", "leave the line out"),
        DeValue::Integer(integer) => match port(number(integer)) {
            Some(port) => return Some(port),
            None => Complaint::new("this is no port", "ports are numbers from 1 to 65535"),
        },
        other => Complaint::new(format!("{} is no port", kind(other)), PORT),
    };
    notes.error(value.span(), complaint);
    None
}
