//! Cost of a decision: counted in steps, and measured on request.

use std::hint::black_box;
use std::time::Instant;

use peersock_rules::{
    Action, Compiled, Decision, End, Flow, PortRange, Prefix, Rule, RuleSet, Scope, Selector, Steps, Subject,
    protocol,
};

#[test]
fn a_decision_takes_as_many_lookups_under_few_rules_as_under_many() {
    let costs = [10, 100, RuleSet::MAX_RULES].map(|rules| {
        let compiled = Compiled::new(set(rules, 2));
        let (decision, steps) = with_flow(|flow| compiled.decide_counted(&flow));
        assert_eq!(decision.rule.map(|rule| rule.number), Some(8), "{rules} rules");
        steps
    });
    // Two members, each with its node, its name and four tags.
    assert!(costs.iter().all(|steps| steps.lookups == 2 * (1 + 1 + 4)), "{costs:?}");
    // 100 times as many ports make 7 more halvings.
    assert!(costs[2].probes <= costs[0].probes + 7, "{costs:?}");
    assert!(costs[2].probes <= 12, "{costs:?}");
}

#[test]
fn a_decision_takes_as_many_lookups_for_few_members_as_for_many() {
    let costs =
        [2, 20].map(|members| with_flow(|flow| Compiled::new(set(300, members)).decide_counted(&flow)));
    assert_eq!(costs[0], costs[1]);
}

#[test]
fn the_worst_flow_takes_few_steps() {
    // A certificate has room for 64 tags of one letter, more than there are of them.
    let letters: Vec<String> = ('a'..='z').chain('0'..='9').map(String::from).collect();
    let tags: Vec<&str> = letters.iter().map(String::as_str).collect();
    let member = Subject { name: Some("alpha"), tags: &tags, node: &[1; 32] };
    let compiled = Compiled::new(behind_gateways());
    let host = |host: &str| End::behind(member, host.parse().expect("an address"));
    let flow = Flow { from: host("10.1.2.3"), to: host("10.3.2.1"), protocol: protocol::UDP, port: 53 };
    let (decision, steps) = compiled.decide_counted(&flow);
    assert!(decision.is_allowed());
    assert!(steps.lookups <= 2 * (tags.len() + 2), "{steps:?}");
    assert!(steps.probes <= 3 * 12, "{steps:?}");
}

/// Measures: `cargo test --release -p peersock-rules --test cost -- --ignored --nocapture`.
#[test]
#[ignore = "cargo xtask test --only slow: it measures"]
fn the_time_of_a_decision_under_a_thousand_rules() {
    for (name, set) in
        [("10 rules", set(10, 2)), ("1,000 rules", set(1_000, 2)), ("20 members each", set(300, 20))]
    {
        let length = set.encode().len();
        let begin = Instant::now();
        let compiled = Compiled::new(set);
        let compiled_in = begin.elapsed();
        let one = with_flow(|flow| nanoseconds(|| compiled.decide(black_box(&flow))));
        eprintln!("{name}: {length} bytes, compiled in {compiled_in:?}, {one:.0} ns for a flow");
    }
    let compiled = Compiled::new(behind_gateways());
    let gateway = Subject { name: Some("gate"), tags: &["office"], node: &[1; 32] };
    let host = |host: &str| End::behind(gateway, host.parse().expect("an address"));
    let flow = Flow { from: host("10.1.2.3"), to: host("10.3.2.1"), protocol: protocol::UDP, port: 53 };
    eprintln!("1,000 rules between gateways: {:.0} ns", nanoseconds(|| compiled.decide(black_box(&flow))));
}

/// Returns the mean time of a decision.
fn nanoseconds(decide: impl Fn() -> Decision) -> f64 {
    const ROUNDS: u32 = 200_000;
    let begin = Instant::now();
    (0..ROUNDS).for_each(|_| _ = black_box(decide()));
    begin.elapsed().as_nanos() as f64 / f64::from(ROUNDS)
}

/// Calls a function with a flow between two members with four tags each, which rule 8 allows.
fn with_flow<T>(call: impl FnOnce(Flow<'_>) -> T) -> T {
    let from = Subject { name: Some("alpha"), tags: &["from-7", "staff", "from-1", "linux"], node: &[1; 32] };
    let to = Subject { name: Some("beta"), tags: &["to-7", "to-2", "debian", "east"], node: &[2; 32] };
    call(Flow { from: End::member(from), to: End::member(to), protocol: protocol::TCP, port: 1_070 })
}

/// Makes rules that are all different: each has its own tags and ports, and names some members.
fn set(rules: usize, members: usize) -> RuleSet {
    let rule = |at: usize| {
        let ends = |side: &str| {
            let tag = Selector::tag(&format!("{side}-{at}")).expect("a tag");
            let names = (0..members).map(|name| Selector::member(&format!("m{}", name % 20 + at % 10)));
            let node = Selector::Node([3; 32]);
            Scope::Only(names.map(|name| name.expect("a name")).chain([tag, node]).collect())
        };
        let ports = PortRange::new(1_000 + 10 * at as u16, 1_005 + 10 * at as u16).expect("ports");
        Rule {
            action: if at.is_multiple_of(3) { Action::Deny } else { Action::Allow },
            line: at as u16 + 1,
            from: ends("from"),
            to: ends("to"),
            via: Scope::All,
            protocols: Scope::Only(vec![protocol::TCP]),
            ports: Scope::Only(vec![ports]),
            note: None,
        }
    };
    let rules = (0..rules).map(rule).collect();
    RuleSet::new(Action::Deny, rules).expect("valid rules")
}

/// Makes rules for hosts behind gateways, in blocks that lie in each other.
fn behind_gateways() -> RuleSet {
    let rule = |at: usize| {
        let block = |net: u8| {
            let length = [8, 16, 24, 32][at % 4];
            let prefix = Prefix::new([10, net, (at / 4) as u8, 1].into(), length).expect("a block");
            Scope::Only(vec![Selector::Hosts(prefix)])
        };
        Rule {
            action: Action::Allow,
            line: at as u16 + 1,
            from: block(1),
            to: block(3),
            via: Scope::All,
            protocols: Scope::Only(vec![protocol::UDP]),
            ports: Scope::All,
            note: None,
        }
    };
    RuleSet::new(Action::Deny, (0..RuleSet::MAX_RULES).map(rule).collect()).expect("valid rules")
}

#[test]
fn a_set_without_rules_takes_no_lookup() {
    let compiled = Compiled::new(RuleSet::new(Action::Allow, Vec::new()).expect("no rules"));
    let (decision, steps) = with_flow(|flow| compiled.decide_counted(&flow));
    assert_eq!(decision, Decision { action: Action::Allow, rule: None });
    assert_eq!(steps, Steps { lookups: 0, probes: 1 });
}
