//! Nicknames that this node claims at its roots, and nicknames that it looks up there.
//!
//! A claim is signed for one root, and made anew after each registration there: so it is renewed before it
//! ends, and a root that was restarted learns of it. A question goes to all roots, and the answers are
//! compared: see `docs/reference/PROTOCOL.md`, "What a node does with roots".

mod claims;
mod questions;

use std::time::Duration;

use thiserror::Error;

pub(crate) use claims::{Answered, Claims};
pub(crate) use questions::{Questions, is_current};

use crate::id::{NodeId, PublicIdentity};

/// Wait for further roots after the first answer.
const FURTHER_ROOTS_WAIT: Duration = Duration::from_secs(2);

/// First wait for an answer; it doubles up to the second value.
const ANSWER_WAIT_BOUNDS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(8)];

/// Returns the wait after this number of repetitions.
fn repeat_after(tries: u32) -> Duration {
    (ANSWER_WAIT_BOUNDS[0] * 2u32.pow(tries.min(8))).min(ANSWER_WAIT_BOUNDS[1])
}

/// Node that was found by a nickname.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedNode {
    /// Keys of the node.
    pub identity: PublicIdentity,
    /// Overlay port at which it takes connections of nodes that use the nickname; 0 if it names none.
    pub port: u16,
}

/// Reason why a nickname is not this node's, or leads to no node.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NicknameError {
    /// Another node has the nickname.
    #[error("another node has this nickname: choose another one")]
    Taken,
    /// This node already claims four.
    #[error("a node has four nicknames at most: release one first")]
    TooMany,
    /// The roots have no room for the nickname.
    #[error("the roots have no room for more nicknames of this node: release one, or try again later")]
    Full,
    /// The roots refuse the nickname.
    #[error("the roots refuse the nickname: this node is not registered there")]
    Refused,
    /// The nickname was released while its claim was pending, or claimed with another port.
    #[error("the nickname was given back, or claimed for another port, while its roots were waited for")]
    GivenBack,
    /// No node has the nickname.
    #[error(
        "no root of this node knows the nickname: its owner has to use one of the same roots, and the clocks of \
         both machines have to agree to within five minutes"
    )]
    NotFound,
    /// Roots name several nodes, all of which have signed that the nickname is theirs.
    #[error(
        "the roots name {} nodes with this nickname: take the text that the owner's program shows, which has \
         20 digits before .peersock", .0.len()
    )]
    Ambiguous(Vec<NodeId>),
    /// No root has answered in time.
    #[error("no root has answered about the nickname: look at `peersock status`, or try again later")]
    NoAnswer,
    /// The node uses no roots.
    #[error("nicknames are kept by roots, and this node uses none: name one, as docs/use/ROOT.md says")]
    NoRoots,
    /// The node was shut down.
    #[error("the node is shut down")]
    Stopped,
}

impl From<NicknameError> for std::io::Error {
    fn from(error: NicknameError) -> Self {
        use std::io::ErrorKind;
        let kind = match &error {
            NicknameError::Taken => ErrorKind::AddrInUse,
            NicknameError::TooMany | NicknameError::Full => ErrorKind::QuotaExceeded,
            NicknameError::Refused => ErrorKind::PermissionDenied,
            NicknameError::GivenBack => ErrorKind::Interrupted,
            NicknameError::NotFound | NicknameError::Ambiguous(_) => ErrorKind::NotFound,
            NicknameError::NoAnswer => ErrorKind::TimedOut,
            NicknameError::NoRoots => ErrorKind::AddrNotAvailable,
            NicknameError::Stopped => ErrorKind::NetworkDown,
        };
        Self::new(kind, error)
    }
}
