//! Effect of new rules on open flows, before they are applied.

use std::collections::BTreeSet;
use std::fmt;

use crate::{Compiled, Decision, Flow};

/// Flow that ends under new rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedFlow {
    /// Place of the flow in the list, from 0 on.
    pub flow: usize,
    /// Decision of the present rules. They may refuse the flow already, if it is about to end.
    pub before: Decision,
    /// Decision of the new rules, which refuses the flow.
    pub after: Decision,
}

/// Effect of new rules on open flows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preview {
    /// Flows that end, in the order of the list.
    pub ended: Vec<EndedFlow>,
    /// Number of flows in the list.
    pub flows: usize,
    /// Number of members that have opened the flows that end, or forwarded them.
    pub members: usize,
}

/// Returns which of some open flows new rules end: exactly those that the new rules refuse.
pub fn preview<'a>(present: &Compiled, new: &Compiled, open: impl IntoIterator<Item = Flow<'a>>) -> Preview {
    let mut preview = Preview::default();
    let mut members = BTreeSet::new();
    for (at, flow) in open.into_iter().enumerate() {
        preview.flows += 1;
        let after = new.decide(&flow);
        if !after.is_allowed() {
            members.insert(flow.from.member.node);
            preview.ended.push(EndedFlow { flow: at, before: present.decide(&flow), after });
        }
    }
    preview.members = members.len();
    preview
}

impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        match self.ended.len() {
            0 => write!(f, "would end none of {}", number(self.flows, "open flow")),
            ended => write!(
                f,
                "would end {ended} of {}, opened by {}",
                number(self.flows, "open flow"),
                number(self.members, "member")
            ),
        }
    }
}
