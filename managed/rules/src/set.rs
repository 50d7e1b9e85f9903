//! Rules of a whole network.

use thiserror::Error;

use crate::encoding::encode;
use crate::{Action, Rule};

/// Rules of a network, which are valid, within all limits, and in their only form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    default: Action,
    rules: Vec<Rule>,
}

impl RuleSet {
    /// Maximum number of rules.
    pub const MAX_RULES: usize = 1_000;

    /// Maximum length of the encoding in bytes.
    pub const MAX_LEN: usize = 65_536;

    /// Returns the set of some rules, which are sorted by their lines. Lists in the rules may have any order.
    ///
    /// # Errors
    /// Returns the limit that is exceeded, or the rule that cannot be.
    pub fn new(default: Action, mut rules: Vec<Rule>) -> Result<Self, InvalidRules> {
        if rules.len() > Self::MAX_RULES {
            return Err(InvalidRules::Count(rules.len()));
        }
        rules.sort_by_key(|rule| rule.line);
        for (number, rule) in (1..).zip(&mut rules) {
            rule.normalize();
            if let Some(complaint) = rule.complaint() {
                return Err(InvalidRules::Rule { number, complaint });
            }
        }
        let set = Self { default, rules };
        match set.encode().len() {
            length if length > Self::MAX_LEN => Err(InvalidRules::Length(length)),
            _ => Ok(set),
        }
    }

    /// Returns the answer to flows that no rule matches.
    pub fn default_action(&self) -> Action {
        self.default
    }

    /// Returns the rules in the order of their lines.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Returns the only encoding of the set, at most [`Self::MAX_LEN`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self.default, &self.rules)
    }
}

/// Reason why rules make no set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidRules {
    /// The rules are too many.
    #[error("there are {0} rules; {max} are allowed", max = RuleSet::MAX_RULES)]
    Count(usize),
    /// The rules are too long together.
    #[error("the rules have {0} bytes as members receive them; {max} are allowed", max = RuleSet::MAX_LEN)]
    Length(usize),
    /// A rule cannot be.
    #[error("rule {number}: {complaint}")]
    Rule {
        /// Number of the rule, counted from 1.
        number: usize,
        /// Error in the rule.
        complaint: &'static str,
    },
}
