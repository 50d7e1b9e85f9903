//! Explanations of decisions, for people.

use std::fmt;

use crate::compiled::Criteria;
use crate::rule::{ends_text, protocol_name, protocols_text};
use crate::words::listed;
use crate::{
    Action, Compiled, Decision, End, Flow, Rule, RuleRef, Scope, Selector, Steps, Subject, protocol,
};

/// Number of rules that nearly match which a reason names.
const NEAR_MISSES: usize = 3;

/// Side of a flow. Both sides decide, each by the rules that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Member that opens the flow, or the gateway of the host that opens it. It refuses before anything is
    /// sent.
    From,
    /// Member to which the flow is opened, or the gateway in front of the host.
    To,
}

/// Rule that would have allowed a refused flow, if one thing were different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// Rule of the set.
    pub rule: RuleRef,
    /// Difference between the rule and the flow, as part of a sentence.
    pub text: String,
}

/// Decision of one side, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Decision.
    pub decision: Decision,
    /// Text of the rule that decided; `None` for the default.
    pub rule: Option<String>,
    /// Note of the rule.
    pub note: Option<String>,
    /// Rules that nearly allow the flow, if the default refuses it; at most three.
    pub near_misses: Vec<NearMiss>,
}

/// Explanation why a flow is allowed or refused.
///
/// As text it has one or more lines, without a line feed at the end. Each line but the first is indented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Reason of the side that opens the flow.
    pub from: Reason,
    /// Reason of the other side.
    pub to: Reason,
    /// Names of both sides.
    names: [String; 2],
}

/// Explains the decisions about a flow by the rules that each of its sides has. They are the same rules, but
/// for the moment in which new ones spread.
pub fn explain(flow: &Flow<'_>, from: &Compiled, to: &Compiled) -> Explanation {
    Explanation {
        from: reason(flow, from),
        to: reason(flow, to),
        names: [name_of(&flow.from.member), name_of(&flow.to.member)],
    }
}

impl Explanation {
    /// Returns true if both sides allow the flow.
    pub fn is_allowed(&self) -> bool {
        self.refuser().is_none()
    }

    /// Returns the side that refuses the flow: the one that opens it, if both do.
    pub fn refuser(&self) -> Option<Side> {
        match (self.from.decision.action, self.to.decision.action) {
            (Action::Deny, _) => Some(Side::From),
            (_, Action::Deny) => Some(Side::To),
            _ => None,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to] = &self.names;
        match self.refuser() {
            None => write!(f, "allowed: {}", self.from)?,
            Some(Side::From) => write!(f, "refused by {from}: {}", self.from)?,
            Some(Side::To) => {
                write!(f, "refused by {to}: {}", self.to)?;
                write!(f, "\n  {from} has other rules, which allow it: {}", sentence(&self.from))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", sentence(self))?;
        if let Some(note) = &self.note {
            write!(f, "\n  note: {note}")?;
        }
        for miss in &self.near_misses {
            write!(f, "\n  rule {} (line {}) allows it {}", miss.rule.number, miss.rule.line, miss.text)?;
        }
        Ok(())
    }
}

/// Returns the reason without its further lines.
fn sentence(reason: &Reason) -> String {
    match (&reason.decision.rule, &reason.rule) {
        (Some(rule), Some(text)) => format!("rule {} (line {}): {text}", rule.number, rule.line),
        _ => format!("no rule matches, and the default is {}", reason.decision.action),
    }
}

fn reason(flow: &Flow<'_>, rules: &Compiled) -> Reason {
    let decision = rules.decide(flow);
    let rule = decision.rule.map(|rule| rules.rule(rule));
    let is_default = rule.is_none() && !decision.is_allowed();
    Reason {
        decision,
        rule: rule.map(ToString::to_string),
        note: rule.and_then(|rule| rule.note.as_deref()).map(str::to_owned),
        near_misses: if is_default { near_misses(flow, rules) } else { Vec::new() },
    }
}

/// Returns the allowing rules that match a refused flow in all respects but one.
fn near_misses(flow: &Flow<'_>, rules: &Compiled) -> Vec<NearMiss> {
    let Criteria { from, to, protocol, port } = rules.criteria(flow, &mut Steps::default());
    let misses = [
        (to.and(&protocol).and(&port).without(&from), Difference::From),
        (from.and(&protocol).and(&port).without(&to), Difference::To),
        (from.and(&to).and(&port).without(&protocol), Difference::Protocol),
        (from.and(&to).and(&protocol).without(&port), Difference::Port),
    ];
    let mut near: Vec<_> = (misses.into_iter())
        .flat_map(|(bits, difference)| bits.iter().map(move |at| (at, difference)))
        .filter(|(at, _)| rules.rules().rules()[*at].action == Action::Allow)
        .collect();
    near.sort_by_key(|(at, _)| *at);
    near.truncate(NEAR_MISSES);
    near.into_iter()
        .map(|(at, difference)| NearMiss {
            rule: rules.rule_ref(at),
            text: difference.text(flow, &rules.rules().rules()[at]),
        })
        .collect()
}

#[derive(Debug, Clone, Copy)]
enum Difference {
    From,
    To,
    Protocol,
    Port,
}

impl Difference {
    fn text(self, flow: &Flow<'_>, rule: &Rule) -> String {
        match self {
            Difference::From => end_text("from", &rule.from, &rule.via, &flow.from),
            Difference::To => end_text("to", &rule.to, &rule.via, &flow.to),
            Difference::Protocol => format!("with {} only", protocols_text(&rule.protocols)),
            Difference::Port => match protocol::has_ports(flow.protocol) {
                true => format!("at {} {} only", protocol_name(flow.protocol), listed(rule.ports.list())),
                false => "with other protocols only".to_owned(),
            },
        }
    }
}

/// Returns the ends that a rule names, and what the end of the flow is instead.
fn end_text(word: &str, scope: &Scope<Selector>, via: &Scope<Selector>, end: &End<'_>) -> String {
    let name = name_of(&end.member);
    let hosts = || {
        scope.list().iter().any(|selector| {
            matches!(selector, Selector::Hosts(prefix)
        if end.host.is_some_and(|host| prefix.contains(host.to_canonical())))
        })
    };
    let tags = match end.member.tags {
        [] => format!("{name} has no tags"),
        tags => format!("{name} has {}", listed(tags.iter().map(|tag| format!("tag:{tag}")))),
    };
    match end.host {
        Some(_) if hosts() => format!("{word} hosts behind {} only; {tags}", ends_text(via)),
        Some(host) => format!("{word} {} only, not {word} {host} behind {name}", ends_text(scope)),
        None if scope.list().iter().all(Selector::is_hosts) => {
            format!("{word} hosts in {} only, not {word} {name} itself", ends_text(scope))
        }
        None => format!("{word} {} only; {tags}", ends_text(scope)),
    }
}

/// Returns the name of a member, or the beginning of its node's ID.
fn name_of(member: &Subject<'_>) -> String {
    match member.name {
        Some(name) => name.to_owned(),
        None => data_encoding::HEXLOWER.encode(&member.node[..5]),
    }
}
