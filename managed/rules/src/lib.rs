//! Access rules of a managed network: which member may open which flow to which other one.
//!
//! A person writes the rules into a [`RuleFile`], together with tests of them. The file becomes a
//! [`RuleSet`], which has exactly one [encoding](RuleSet::encode), so that it can be signed and sent to
//! members. A member compiles the set once ([`Compiled`]) and then decides about each new flow.
//!
//! **Meaning.** A rule allows or denies the flows that it matches. Rules have no order: a flow is refused if
//! any rule that matches it denies, and otherwise allowed if any rule that matches it allows. The set's
//! default decides about flows that no rule matches. A flow is what begins at one end: `from` is the end that
//! opens it, and answers belong to it.
//!
//! **Cost.** Each rule has a number, and a set of rules is a set of 1,024 bits. For every tag, name and node
//! that rules mention there is the set of rules that mention it; for blocks of addresses and for ports, which
//! overlap, there are the sets of the intervals between their bounds. A decision looks up the few sets of its
//! two members and its port, and intersects them: some hundred words, however many members there are.
//! `tests/cost.rs` counts the lookups.
//!
//! **Trust.** Every text and every sequence of bytes is survived. A set has at most [`RuleSet::MAX_RULES`]
//! rules and [`RuleSet::MAX_LEN`] bytes, from which follows at most about 10 MiB for its compiled form. All
//! functions are deterministic: nothing here reads a clock, a file or the system's randomness.
//!
//! ```
//! use peersock_rules::{Compiled, End, Flow, RuleFile, Subject, protocol};
//!
//! let file = r#"
//!     default = "deny"
//!
//!     [[rule]]
//!     action = "allow"
//!     from = "tag:web"
//!     to = "tag:db"
//!     protocol = "tcp"
//!     ports = 5432
//! "#;
//! # #[cfg(feature = "file")] {
//! let rules = Compiled::new(RuleFile::parse(file.as_bytes()).expect("a valid file").rules);
//! let alpha = Subject { name: Some("alpha"), tags: &["web"], node: &[1; 32] };
//! let beta = Subject { name: Some("beta"), tags: &["db"], node: &[2; 32] };
//! let flow = Flow { from: End::member(alpha), to: End::member(beta), protocol: protocol::TCP, port: 5432 };
//! let decision = rules.decide(&flow);
//! assert!(decision.is_allowed());
//! assert_eq!(decision.rule.map(|rule| rule.line), Some(4));
//! assert!(!rules.decide(&Flow { port: 22, ..flow }).is_allowed());
//! # }
//! ```
#![forbid(unsafe_code)]

mod bits;
mod compiled;
mod encoding;
mod explain;
#[cfg(feature = "file")]
mod file;
mod flow;
mod intervals;
mod prefix;
mod preview;
mod rule;
mod selector;
mod set;
mod words;

pub use compiled::{Compiled, Decision, RuleRef, Steps};
pub use encoding::DecodeError;
pub use explain::{Explanation, NearMiss, Reason, Side, explain};
#[cfg(feature = "file")]
pub use file::{Failure, Problem, RuleFile, Test};
pub use flow::{End, Flow, Subject, protocol};
pub use prefix::Prefix;
pub use preview::{EndedFlow, Preview, preview};
pub use rule::{Action, PortRange, Rule, Scope};
pub use selector::{Complaint, Selector};
pub use set::{InvalidRules, RuleSet};
