//! Access rules: files of people, and encodings that members receive.

use std::net::IpAddr;

use peersock_overlay::membership::{MemberName, Tag};
use peersock_rules::{
    Action, Compiled, End, Flow, Rule, RuleFile, RuleSet, Scope, Selector, Subject, explain, preview,
};

/// Checks files of rules: errors lie in the file, and what is accepted has an encoding. Tags and names are
/// those that certificates can have.
pub fn rule_files(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        assert_eq!(Selector::tag(text).is_ok(), text.parse::<Tag>().is_ok());
        assert_eq!(Selector::member(text).is_ok(), text.parse::<MemberName>().is_ok());
        if let Ok(selector) = text.parse::<Selector>() {
            assert_eq!(selector.to_string().parse(), Ok(selector));
        }
    }
    match RuleFile::parse(data) {
        Ok(file) => {
            assert_eq!(RuleSet::decode(&file.rules.encode()).as_ref(), Ok(&file.rules));
            let failures = file.failures();
            assert!(failures.iter().all(|failure| failure.decision.action != failure.expect));
        }
        Err(problems) => {
            assert!((1..=20).contains(&problems.len()));
            let lines = data.iter().filter(|byte| **byte == b'\n').count() + 1;
            for problem in problems {
                assert!((1..=lines).contains(&problem.line) && problem.column > 0);
                assert!(problem.to_string().chars().all(|c| !c.is_control() || c == '\n'));
            }
        }
    }
}

/// Checks encodings of rules: each set has one. Its compiled form decides as the rules say one by one, about
/// flows between the ends that the rules name.
pub fn rule_sets(data: &[u8]) {
    let Ok(set) = RuleSet::decode(data) else { return };
    assert_eq!(set.encode(), data);
    let compiled = Compiled::new(set.clone());
    let named =
        |list: fn(&Rule) -> &Scope<Selector>| set.rules().iter().flat_map(move |rule| list(rule).list());
    let gateway = named(|rule| &rule.via).next();
    let ends = |list: fn(&Rule) -> &Scope<Selector>| -> Vec<Named> {
        let firsts = named(list).take(4).map(|selector| Named::of(selector, gateway));
        firsts.chain([Named::default()]).collect()
    };
    let protocols = set.rules().iter().flat_map(|rule| rule.protocols.list()).copied();
    let protocols: Vec<u8> = protocols.take(2).chain([6]).collect();
    let ports = set.rules().iter().flat_map(|rule| rule.ports.list()).map(|range| range.last());
    let ports: Vec<u16> = ports.take(2).chain([0]).collect();
    for from in &ends(|rule| &rule.from) {
        for to in &ends(|rule| &rule.to) {
            let tags = [&from.tags, &to.tags].map(|tags| tags.iter().map(String::as_str).collect::<Vec<_>>());
            for (protocol, port) in protocols.iter().flat_map(|p| ports.iter().map(move |port| (*p, *port))) {
                let flow = Flow { from: from.end(&tags[0]), to: to.end(&tags[1]), protocol, port };
                let decision = compiled.decide(&flow);
                let expected = decide(&set, &flow);
                assert_eq!(decision.rule.map(|rule| usize::from(rule.number)), expected);
                let action = expected.map_or(set.default_action(), |number| set.rules()[number - 1].action);
                assert_eq!(decision.action, action);
                let explained = explain(&flow, &compiled, &compiled);
                assert_eq!(explained.is_allowed(), decision.is_allowed());
                assert!(explained.to_string().chars().all(|c| !c.is_control() || c == '\n'));
                assert_eq!(preview(&compiled, &compiled, [flow]).ended.is_empty(), decision.is_allowed());
            }
        }
    }
}

/// End that a selector names.
#[derive(Default)]
struct Named {
    tags: Vec<String>,
    name: Option<String>,
    node: [u8; 32],
    host: Option<IpAddr>,
}

impl Named {
    fn of(selector: &Selector, gateway: Option<&Selector>) -> Self {
        match selector {
            Selector::Tag(tag) => Self { tags: vec![tag.to_string()], ..Self::default() },
            Selector::Member(name) => Self { name: Some(name.to_string()), ..Self::default() },
            Selector::Node(node) => Self { node: *node, ..Self::default() },
            Selector::Hosts(prefix) => {
                let gateway = gateway.filter(|gateway| !gateway.is_hosts());
                let gateway = gateway.map(|gateway| Self::of(gateway, None)).unwrap_or_default();
                Self { host: Some(prefix.address()), ..gateway }
            }
        }
    }

    fn end<'a>(&'a self, tags: &'a [&'a str]) -> End<'a> {
        End { member: Subject { name: self.name.as_deref(), tags, node: &self.node }, host: self.host }
    }
}

/// Returns the number of the rule that decides, from 1 on.
fn decide(set: &RuleSet, flow: &Flow<'_>) -> Option<usize> {
    let matching = || set.rules().iter().enumerate().filter(|(_, rule)| matches(rule, flow));
    let deny = matching().find(|(_, rule)| rule.action == Action::Deny);
    deny.or_else(|| matching().next()).map(|(at, _)| at + 1)
}

fn matches(rule: &Rule, flow: &Flow<'_>) -> bool {
    rule.protocols.any(|protocol| *protocol == flow.protocol)
        && (rule.ports.any(|range| range.contains(flow.port)))
        && names(&rule.from, &rule.via, &flow.from)
        && names(&rule.to, &rule.via, &flow.to)
}

fn names(scope: &Scope<Selector>, via: &Scope<Selector>, end: &End<'_>) -> bool {
    scope.any(|selector| match (selector, end.host) {
        (Selector::Hosts(prefix), Some(host)) => {
            let gateway = End::member(end.member);
            prefix.contains(host.to_canonical()) && names(via, &Scope::All, &gateway)
        }
        (Selector::Tag(tag), None) => end.member.tags.contains(&tag.as_ref()),
        (Selector::Member(name), None) => end.member.name == Some(name.as_ref()),
        (Selector::Node(node), None) => end.member.node == node,
        _ => false,
    })
}
