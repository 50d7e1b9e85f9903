//! Warnings about rules without effect.

use std::ops::Range;

use super::problem::Notes;
use crate::{Action, Complaint, Rule, RuleSet};

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
        if let Some((other, deny)) = denies.find(|(_, other)| other.covers(rule, budget)) {
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
        wide.action == rule.action && wide.covers(rule, budget) && (*other < at || !rule.covers(wide, budget))
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
