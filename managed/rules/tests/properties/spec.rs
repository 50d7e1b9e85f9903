//! Random files in a small world, with a naive interpreter that shares no code with the crate.

use std::net::IpAddr;

use peersock_rules::{End, Flow, Subject};
use proptest::prelude::*;

/// File as a test has made it.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) default_allows: bool,
    pub(crate) rules: Vec<RuleSpec>,
}

#[derive(Debug, Clone)]
pub(crate) struct RuleSpec {
    allows: bool,
    /// `*` alone, or selectors.
    from: Vec<String>,
    to: Vec<String>,
    via: Vec<String>,
    /// Text in the file, and the numbers; none for everything.
    protocol: (String, Vec<u8>),
    /// Ranges; none for all.
    ports: Vec<(u16, u16)>,
    has_note: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct EndSpec {
    name: Option<String>,
    tags: Vec<String>,
    node: u8,
    host: Option<IpAddr>,
}

#[derive(Debug, Clone)]
pub(crate) struct FlowSpec {
    from: EndSpec,
    to: EndSpec,
    protocol: u8,
    port: u16,
}

const BLOCKS: [&str; 8] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.3/32",
    "10.1.2.128/25",
    "::/0",
    "fd00:1::/32",
    "fd00:1::7/128",
];

const HOSTS: [&str; 8] = [
    "10.1.2.3",
    "10.1.2.129",
    "10.200.0.1",
    "192.0.2.1",
    "255.255.255.254",
    "fd00:1::7",
    "fd00:1::8",
    "::ffff:10.1.2.3",
];

impl Spec {
    /// Writes the file. Rule number n, from 0 on, begins in line 3 + 9 n.
    pub(crate) fn text(&self) -> String {
        let default = if self.default_allows { "allow" } else { "deny" };
        let mut text = format!("# rules\ndefault = \"{default}\"\n");
        for rule in &self.rules {
            let list = |items: &[String]| match items {
                [one] => format!("\"{one}\""),
                many => format!(
                    "[{}]",
                    many.iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ")
                ),
            };
            let action = if rule.allows { "allow" } else { "deny" };
            text += &format!(
                "[[rule]]\naction = \"{action}\"\nfrom = {}\nto = {}\n",
                list(&rule.from),
                list(&rule.to)
            );
            text += &format!("protocol = {}\n", rule.protocol.0);
            let has_ports = rule.protocol.1.iter().any(|number| matches!(number, 6 | 17));
            text += &match (&rule.ports[..], has_ports) {
                ([], false) => "# all ports\n".to_owned(),
                ([], true) => "ports = \"*\"\n".to_owned(),
                (ports, _) => {
                    let ranges = ports.iter().map(|(first, last)| match first == last {
                        true => first.to_string(),
                        false => format!("\"{first}-{last}\""),
                    });
                    format!("ports = [{}]\n", ranges.collect::<Vec<_>>().join(", "))
                }
            };
            text += &match &rule.via[..] {
                [] => "# any gateway\n".to_owned(),
                via => format!("via = {}\n", list(via)),
            };
            text += if rule.has_note { "note = \"because\"\n" } else { "# no note\n" };
            text += "\n";
        }
        text
    }

    /// Decides as the reference page says: allowed or not, and the line of the deciding rule.
    pub(crate) fn decide(&self, flow: &FlowSpec) -> (bool, Option<u16>) {
        let matching: Vec<usize> = (0..self.rules.len()).filter(|at| self.rules[*at].matches(flow)).collect();
        let line = |at: usize| Some(3 + 9 * at as u16);
        if let Some(deny) = matching.iter().find(|at| !self.rules[**at].allows) {
            return (false, line(*deny));
        }
        match matching.first() {
            Some(allow) => (true, line(*allow)),
            None => (self.default_allows, None),
        }
    }
}

impl RuleSpec {
    fn matches(&self, flow: &FlowSpec) -> bool {
        let protocol = self.protocol.1.is_empty() || self.protocol.1.contains(&flow.protocol);
        let has_port = |(first, last): &(u16, u16)| *first <= flow.port && flow.port <= *last;
        let port = self.ports.is_empty() || self.ports.iter().any(has_port);
        protocol && port && self.names(&self.from, &flow.from) && self.names(&self.to, &flow.to)
    }

    fn names(&self, list: &[String], end: &EndSpec) -> bool {
        list.iter().any(|selector| match (selector.as_str(), end.host) {
            ("*", _) => true,
            (block, Some(host)) if block.contains('/') => {
                let gateway = EndSpec { host: None, ..end.clone() };
                is_in(block, host) && (self.via.is_empty() || self.names(&self.via, &gateway))
            }
            (member, None) if !member.contains('/') => end.is(member),
            _ => false,
        })
    }
}

/// Compares the bits of an address one by one.
fn is_in(block: &str, host: IpAddr) -> bool {
    let (first, length) = block.split_once('/').expect("a block");
    let bits = |address: IpAddr| -> Vec<bool> {
        let octets = match address.to_canonical() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect()
    };
    let (first, host) = (bits(first.parse().expect("an address")), bits(host));
    let length: usize = length.parse().expect("a length");
    first.len() == host.len() && first[..length] == host[..length]
}

impl EndSpec {
    fn is(&self, selector: &str) -> bool {
        match selector.split_once(':').expect("a kind") {
            ("tag", tag) => self.tags.iter().any(|own| own == tag),
            ("member", name) => self.name.as_deref() == Some(name),
            (_, node) => node == node_digits(self.node),
        }
    }
}

fn node_digits(node: u8) -> String {
    format!("{node:02x}").repeat(32)
}

impl FlowSpec {
    /// Calls a function with the flow.
    pub(crate) fn with<T>(&self, call: impl FnOnce(Flow<'_>) -> T) -> T {
        Self::with_all(&[self], |flows| call(flows[0]))
    }

    /// Calls a function with several flows.
    pub(crate) fn with_all<T>(flows: &[&FlowSpec], call: impl FnOnce(Vec<Flow<'_>>) -> T) -> T {
        let ends = |flow: &FlowSpec| [flow.from.clone(), flow.to.clone()];
        let parts: Vec<_> = flows.iter().map(|flow| ends(flow)).collect();
        let tags: Vec<[Vec<&str>; 2]> = parts
            .iter()
            .map(|ends| [0, 1].map(|side| ends[side].tags.iter().map(String::as_str).collect()))
            .collect();
        let nodes: Vec<[[u8; 32]; 2]> =
            parts.iter().map(|ends| [0, 1].map(|side| [ends[side].node; 32])).collect();
        let end = |at: usize, side: usize| End {
            member: Subject {
                name: parts[at][side].name.as_deref(),
                tags: &tags[at][side],
                node: &nodes[at][side],
            },
            host: parts[at][side].host,
        };
        call(
            (0..flows.len())
                .map(|at| Flow {
                    from: end(at, 0),
                    to: end(at, 1),
                    protocol: flows[at].protocol,
                    port: flows[at].port,
                })
                .collect(),
        )
    }
}

/// Makes files with some number of rules.
pub(crate) fn spec(rules: std::ops::Range<usize>) -> impl Strategy<Value = Spec> {
    (any::<bool>(), prop::collection::vec(rule(), rules))
        .prop_map(|(default_allows, rules)| Spec { default_allows, rules })
}

fn member() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..4_u8).prop_map(|tag| format!("tag:t{tag}")),
        (0..4_u8).prop_map(|name| format!("member:m{name}")),
        (0..3_u8).prop_map(|node| format!("node:{}", node_digits(node))),
    ]
}

fn block() -> impl Strategy<Value = String> {
    (0..BLOCKS.len()).prop_map(|at| BLOCKS[at].to_owned())
}

fn everything() -> impl Strategy<Value = Vec<String>> {
    Just(vec!["*".to_owned()])
}

fn members() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![1 => everything(), 2 => prop::collection::vec(member(), 1..4)]
}

/// Makes `from`, `to` and `via`.
fn ends() -> impl Strategy<Value = (Vec<String>, Vec<String>, Vec<String>)> {
    let any = || {
        prop_oneof![
            1 => everything(),
            2 => prop::collection::vec(prop_oneof![2 => member(), 1 => block()], 1..4),
        ]
    };
    let blocks = || prop::collection::vec(block(), 1..4);
    let gateways = || prop::collection::vec(member(), 1..3);
    prop_oneof![
        3 => (any(), any()).prop_map(|(from, to)| (from, to, Vec::new())),
        1 => (blocks(), members(), gateways()),
        1 => (members(), blocks(), gateways()),
    ]
}

fn rule() -> impl Strategy<Value = RuleSpec> {
    let protocols = prop_oneof![
        Just(("\"*\"".to_owned(), vec![])),
        Just(("\"tcp\"".to_owned(), vec![6])),
        Just(("[\"udp\", \"tcp\"]".to_owned(), vec![6, 17])),
        Just(("\"icmp\"".to_owned(), vec![1, 58])),
        Just(("[47, \"tcp\", 1]".to_owned(), vec![1, 6, 47])),
        Just(("6".to_owned(), vec![6])),
    ];
    let range = || {
        prop_oneof![
            (1..8_u16, 0..4_u16).prop_map(|(first, more)| (first, first + more)),
            Just((65_535, 65_535)),
            Just((1, 65_535)),
        ]
    };
    let ports = prop_oneof![Just(Vec::new()), prop::collection::vec(range(), 1..4)];
    (any::<bool>(), ends(), protocols, ports, any::<bool>()).prop_map(
        |(allows, (from, to, via), protocol, mut ports, has_note)| {
            if protocol.1.is_empty() || protocol.1.iter().any(|number| !matches!(number, 6 | 17)) {
                ports.clear();
            }
            RuleSpec { allows, from, to, via, protocol, ports, has_note }
        },
    )
}

fn end() -> impl Strategy<Value = EndSpec> {
    let tags = prop::collection::btree_set(0..5_u8, 0..4);
    let host =
        prop::option::weighted(0.4, (0..HOSTS.len()).prop_map(|at| HOSTS[at].parse().expect("an address")));
    (prop::option::of(0..5_u8), tags, 0..4_u8, host).prop_map(|(name, tags, node, host)| EndSpec {
        name: name.map(|name| format!("m{name}")),
        tags: tags.iter().map(|tag| format!("t{tag}")).collect(),
        node,
        host,
    })
}

/// Makes flows.
pub(crate) fn flow() -> impl Strategy<Value = FlowSpec> {
    let protocol = prop::sample::select(vec![0_u8, 1, 6, 6, 6, 17, 17, 47, 58, 255]);
    let port = prop_oneof![0..14_u16, Just(65_535)];
    (end(), end(), protocol, port).prop_map(|(from, to, protocol, port)| FlowSpec {
        from,
        to,
        protocol,
        port,
    })
}
