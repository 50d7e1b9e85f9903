//! Warnings about rules without effect.

use std::ops::Range;

use super::problem::Notes;
use crate::{Action, Complaint, PortRange, Rule, RuleSet, Scope, Selector};

/// Number of comparisons of blocks, so that files with long lists take no minutes. Then warnings are missing.
const BUDGET: usize = 20_000_000;

/// Notes rules that change no decision. `spans` has their places in the file, by their order there.
pub(super) fn warn(set: &RuleSet, spans: &[Range<usize>], notes: &mut Notes<'_>) {
    let mut budget = BUDGET;
    for (at, rule) in set.rules().iter().enumerate() {
        let span = spans.get(at).cloned().unwrap_or_default();
        if let Some(complaint) = without_effect(set, at, rule, &mut budget) {
            notes.warn(span, complaint);
        }
    }
}

fn without_effect(set: &RuleSet, at: usize, rule: &Rule, budget: &mut usize) -> Option<Complaint> {
    let rules = || set.rules().iter().enumerate().filter(move |(other, _)| *other != at);
    if rule.action == Action::Allow {
        let mut denies = rules().filter(|(_, other)| other.action == Action::Deny);
        if let Some((other, deny)) = denies.find(|(_, other)| covers(other, rule, budget)) {
            return Some(Complaint::new(
                format!(
                    "the rule has no effect: rule {} (line {}) denies all that it allows",
                    other + 1,
                    deny.line
                ),
                "rules have no order, and deny wins: make that rule narrower, or remove this one",
            ));
        }
        if set.default_action() == Action::Allow {
            return Some(Complaint::new(
                "the rule has no effect: the default is allow, and no rule that allows overrides one that denies",
                "write `default = \"deny\"`, make the rules that deny narrower, or remove this one",
            ));
        }
    }
    // Of two equal rules the second one is noted.
    let wider = rules().find(|(other, wide)| {
        wide.action == rule.action
            && covers(wide, rule, budget)
            && (*other < at || !covers(rule, wide, budget))
    });
    wider.map(|(other, wide)| {
        Complaint::new(
            format!(
                "the rule has no effect: rule {} (line {}) has the same answer to all its flows",
                other + 1,
                wide.line
            ),
            "remove it",
        )
    })
}

/// Returns true if a rule matches every flow that a narrower one matches, as far as their texts tell. It
/// takes comparisons of blocks from the budget, and returns false once there are none.
fn covers(wide: &Rule, narrow: &Rule, budget: &mut usize) -> bool {
    let mut ends = |wide: &Scope<Selector>, narrow: &Scope<Selector>| {
        has_all(wide, narrow, |list: &[Selector], one: &Selector| {
            list.binary_search(one).is_ok() || is_in_block(list, one, budget)
        })
    };
    let has_ports = |list: &[PortRange], one: &PortRange| {
        list.iter().any(|range| range.contains(one.first()) && range.contains(one.last()))
    };
    has_all(&wide.protocols, &narrow.protocols, |list, one| list.binary_search(one).is_ok())
        && has_all(&wide.ports, &narrow.ports, has_ports)
        && ends(&wide.from, &narrow.from)
        && ends(&wide.to, &narrow.to)
        && ends(&wide.via, &narrow.via)
}

fn has_all<T>(wide: &Scope<T>, narrow: &Scope<T>, mut has: impl FnMut(&[T], &T) -> bool) -> bool {
    match (wide, narrow) {
        (Scope::All, _) => true,
        (Scope::Only(_), Scope::All) => false,
        (Scope::Only(wide), Scope::Only(narrow)) => narrow.iter().all(|one| has(wide, one)),
    }
}

fn is_in_block(list: &[Selector], one: &Selector, budget: &mut usize) -> bool {
    let Selector::Hosts(narrow) = one else { return false };
    list.iter().any(|selector| {
        *budget = budget.saturating_sub(1);
        matches!(selector, Selector::Hosts(wide) if *budget > 0 && wide.covers(narrow))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::tests::rule;

    #[test]
    fn a_wider_rule_covers_a_narrower_one() {
        let covers = |wide: &Rule, narrow: &Rule| covers(wide, narrow, &mut 1_000);
        let wide = Rule { from: Scope::All, ..rule() };
        assert!(covers(&wide, &rule()) && !covers(&rule(), &wide) && covers(&rule(), &rule()));
        let ports = |first, last| Scope::Only(vec![PortRange::new(first, last).expect("ports")]);
        assert!(covers(&Rule { ports: ports(1, 6000), ..rule() }, &rule()));
        assert!(!covers(&Rule { ports: ports(1, 5431), ..rule() }, &rule()));
    }

    #[test]
    fn a_block_covers_the_blocks_in_it_within_the_budget() {
        let hosts = |text: &str| Scope::Only(vec![text.parse::<Selector>().expect("a block")]);
        let (site, room) = (hosts("10.0.0.0/8"), hosts("10.1.0.0/16"));
        let to = |to: &Scope<Selector>| Rule { to: to.clone(), ..rule() };
        assert!(covers(&to(&site), &to(&room), &mut 2) && !covers(&to(&room), &to(&site), &mut 2));
        assert!(!covers(&to(&site), &to(&room), &mut 1));
        let gateway = Rule { via: rule().to, ..to(&site) };
        assert!(!covers(&gateway, &to(&site), &mut 9) && covers(&to(&site), &gateway, &mut 9));
    }
}
