//! Compiled form of rules, which decides about flows.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};
use std::net::IpAddr;

use crate::bits::Bits;
use crate::intervals::Intervals;
use crate::prefix::number;
use crate::{Action, End, Flow, Rule, RuleSet, Scope, Selector, Subject, protocol};

/// Rules in a form that decides about a flow in the same time for few and many of them.
#[derive(Debug)]
pub struct Compiled {
    set: RuleSet,
    denies: Bits,
    from: Ends,
    to: Ends,
    /// Rules for hosts behind any gateway, and behind certain ones.
    any_gateway: Bits,
    gateways: Members,
    protocols: Protocols,
    /// Rules for all ports, and by port.
    any_port: Bits,
    ports: Intervals,
}

/// Answer to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    /// Allowed or refused.
    pub action: Action,
    /// Rule that decided; `None` for the set's default. Of several rules it is the first in the file.
    pub rule: Option<RuleRef>,
}

impl Decision {
    /// Returns true if the flow is allowed.
    pub fn is_allowed(&self) -> bool {
        self.action == Action::Allow
    }
}

/// Place of a rule in its set and file, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleRef {
    /// Number of the rule in its set.
    pub number: u16,
    /// Line of the rule in its file.
    pub line: u16,
}

/// Cost of one decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Steps {
    /// Lookups in hash tables, each of one name, tag or node.
    pub lookups: usize,
    /// Comparisons of numbers in binary searches.
    pub probes: usize,
}

/// Rules that match a flow in one respect each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Criteria {
    pub(crate) from: Bits,
    pub(crate) to: Bits,
    pub(crate) protocol: Bits,
    pub(crate) port: Bits,
}

impl Criteria {
    fn all(&self) -> Bits {
        self.from.and(&self.to).and(&self.protocol).and(&self.port)
    }
}

impl Compiled {
    /// Compiles rules.
    pub fn new(set: RuleSet) -> Self {
        let rules = set.rules();
        let matching = |is_in: fn(&Rule) -> bool| {
            let mut bits = Bits::NONE;
            let all = rules.iter().enumerate();
            all.filter(|(_, rule)| is_in(rule)).for_each(|(at, _)| bits.insert(at));
            bits
        };
        let lists = |list: fn(&Rule) -> &Scope<Selector>| rules.iter().map(list).enumerate();
        let any_port = matching(|rule| rule.ports.is_all());
        let ports: Vec<_> = (rules.iter().enumerate())
            .flat_map(|(at, rule)| rule.ports.list().iter().map(move |range| (at, range)))
            .map(|(at, range)| (at, range.first().into()..=range.last().into()))
            .collect();
        Self {
            denies: matching(|rule| rule.action == Action::Deny),
            from: Ends::new(matching(|rule| rule.from.is_all()), lists(|rule| &rule.from)),
            to: Ends::new(matching(|rule| rule.to.is_all()), lists(|rule| &rule.to)),
            any_gateway: matching(|rule| rule.via.is_all()),
            gateways: Members::new(lists(|rule| &rule.via)),
            protocols: Protocols::new(rules),
            any_port,
            ports: Intervals::new(any_port, &ports),
            set,
        }
    }

    /// Returns the rules.
    pub fn rules(&self) -> &RuleSet {
        &self.set
    }

    /// Decides about a flow.
    pub fn decide(&self, flow: &Flow<'_>) -> Decision {
        self.decision(self.criteria(flow, &mut Steps::default()))
    }

    /// Decides about a flow, and counts the steps. They depend on the number of tags that both members have,
    /// and on the logarithm of the number of ports and blocks in the rules.
    pub fn decide_counted(&self, flow: &Flow<'_>) -> (Decision, Steps) {
        let mut steps = Steps::default();
        (self.decision(self.criteria(flow, &mut steps)), steps)
    }

    fn decision(&self, criteria: Criteria) -> Decision {
        let matching = criteria.all();
        match matching.and(&self.denies).first().or_else(|| matching.first()) {
            Some(at) => Decision { action: self.set.rules()[at].action, rule: Some(self.rule_ref(at)) },
            None => Decision { action: self.set.default_action(), rule: None },
        }
    }

    pub(crate) fn rule_ref(&self, at: usize) -> RuleRef {
        RuleRef { number: at as u16 + 1, line: self.set.rules()[at].line }
    }

    /// Returns the rules that a reference of a decision of this set means.
    pub(crate) fn rule(&self, rule: RuleRef) -> &Rule {
        &self.set.rules()[usize::from(rule.number) - 1]
    }

    pub(crate) fn criteria(&self, flow: &Flow<'_>, steps: &mut Steps) -> Criteria {
        let port = match protocol::has_ports(flow.protocol) {
            true => *self.ports.lookup(flow.port.into(), || steps.probes += 1),
            false => self.any_port,
        };
        Criteria {
            from: self.end(&self.from, &flow.from, steps),
            to: self.end(&self.to, &flow.to, steps),
            protocol: *self.protocols.of(flow.protocol),
            port,
        }
    }

    /// Returns the rules that name an end of a flow.
    fn end(&self, ends: &Ends, end: &End<'_>, steps: &mut Steps) -> Bits {
        let Some(host) = end.host else {
            let mut bits = ends.all;
            ends.members.add(&end.member, &mut bits, steps);
            return bits;
        };
        // A rule with gateways lists hosts at one end only, and there it names this end if the gateway is
        // one of them. At its other end it lists members, so it does not name this end, or everything.
        let mut gateways = self.any_gateway;
        self.gateways.add(&end.member, &mut gateways, steps);
        let mut bits = ends.hosts(host, steps).and(&gateways);
        bits.unite(&ends.all);
        bits
    }
}

/// Rules by the ends that they name, on one side.
#[derive(Debug)]
struct Ends {
    all: Bits,
    members: Members,
    ipv4: Intervals,
    ipv6: Intervals,
}

impl Ends {
    fn new<'a>(all: Bits, lists: impl Iterator<Item = (usize, &'a Scope<Selector>)> + Clone) -> Self {
        let blocks = |is_ipv4: bool| -> Vec<_> {
            let selectors =
                lists.clone().flat_map(|(at, scope)| scope.list().iter().map(move |one| (at, one)));
            let prefixes = selectors.filter_map(|(at, selector)| match selector {
                Selector::Hosts(prefix) => Some((at, prefix)),
                _ => None,
            });
            prefixes
                .filter(|(_, prefix)| prefix.address().is_ipv4() == is_ipv4)
                .map(|(at, prefix)| (at, prefix.range()))
                .collect()
        };
        let (ipv4, ipv6) = (blocks(true), blocks(false));
        Self {
            all,
            members: Members::new(lists),
            ipv4: Intervals::new(Bits::NONE, &ipv4),
            ipv6: Intervals::new(Bits::NONE, &ipv6),
        }
    }

    /// Returns the rules that list a block with an address.
    fn hosts(&self, host: IpAddr, steps: &mut Steps) -> Bits {
        let host = host.to_canonical();
        let blocks = if host.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        *blocks.lookup(number(host), || steps.probes += 1)
    }
}

/// Hash table with the same hasher everywhere, because the system's randomness is not for pure code. The keys
/// are those of signed rules, so no other party can choose keys that collide.
type Table<K> = HashMap<K, Bits, BuildHasherDefault<DefaultHasher>>;

/// Rules by the members that they name.
#[derive(Debug, Default)]
struct Members {
    tags: Table<Box<str>>,
    names: Table<Box<str>>,
    nodes: Table<[u8; 32]>,
}

impl Members {
    fn new<'a>(lists: impl Iterator<Item = (usize, &'a Scope<Selector>)>) -> Self {
        let mut members = Self::default();
        for (at, selector) in lists.flat_map(|(at, scope)| scope.list().iter().map(move |one| (at, one))) {
            let bits = match selector {
                Selector::Tag(tag) => members.tags.entry(tag.clone()).or_insert(Bits::NONE),
                Selector::Member(name) => members.names.entry(name.clone()).or_insert(Bits::NONE),
                Selector::Node(node) => members.nodes.entry(*node).or_insert(Bits::NONE),
                Selector::Hosts(_) => continue,
            };
            bits.insert(at);
        }
        members
    }

    /// Adds the rules that name a member.
    fn add(&self, member: &Subject<'_>, bits: &mut Bits, steps: &mut Steps) {
        add(&self.nodes, member.node, bits, steps);
        if let Some(name) = member.name {
            add(&self.names, name, bits, steps);
        }
        for tag in member.tags {
            add(&self.tags, *tag, bits, steps);
        }
    }
}

fn add<K, Q>(table: &Table<K>, key: &Q, bits: &mut Bits, steps: &mut Steps)
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    if table.is_empty() {
        return;
    }
    steps.lookups += 1;
    if let Some(found) = table.get(key) {
        bits.unite(found);
    }
}

/// Rules by protocol.
#[derive(Debug)]
struct Protocols {
    /// Place of each protocol's set. The first set is of those that no rule lists.
    places: [u16; 256],
    sets: Vec<Bits>,
}

impl Protocols {
    fn new(rules: &[Rule]) -> Self {
        let mut any = Bits::NONE;
        let all = rules.iter().enumerate();
        all.clone().filter(|(_, rule)| rule.protocols.is_all()).for_each(|(at, _)| any.insert(at));
        let mut protocols = Self { places: [0; 256], sets: vec![any] };
        for (at, rule) in all {
            for number in rule.protocols.list() {
                let place = &mut protocols.places[usize::from(*number)];
                if *place == 0 {
                    *place = protocols.sets.len() as u16;
                    protocols.sets.push(any);
                }
                protocols.sets[usize::from(*place)].insert(at);
            }
        }
        protocols
    }

    fn of(&self, number: u8) -> &Bits {
        &self.sets[usize::from(self.places[usize::from(number)])]
    }
}
