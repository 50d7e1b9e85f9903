//! Standing of a node in a managed network, and the state of its membership.

use std::fmt;
use std::time::Duration;

use peersock_overlay::PublicIdentity;
use peersock_overlay::membership::{Code, Denial, Grant, NetworkKey, Refusal, UnixTime};

/// Standing of a node in a managed network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// No controller has answered yet.
    Asking,
    /// A person has to approve this node; both sides see the code.
    Pending(Code),
    /// A controller refuses this node. It asks again later.
    Denied(Denial),
    /// A member has refused this node's credentials, and no controller has renewed them yet.
    Refused(Refusal),
    /// The node is a member.
    Member,
}

impl Standing {
    /// Returns true once a controller has decided. It can decide otherwise later.
    pub(in super::super) fn is_decided(&self) -> bool {
        match self {
            Self::Member => true,
            Self::Denied(reason) => *reason != Denial::Unavailable,
            Self::Asking | Self::Pending(_) | Self::Refused(_) => false,
        }
    }
}

impl Standing {
    /// Returns the standing as another process of this user reads it.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Asking => "asking".to_owned(),
            Self::Pending(code) => format!("pending {code}"),
            Self::Denied(reason) => format!("denied {}", reason.code()),
            Self::Refused(reason) => format!("refused {}", reason.code()),
            Self::Member => "member".to_owned(),
        }
    }

    /// Reads what [`to_text`](Self::to_text) returns. Reasons of later versions are still reasons.
    pub(crate) fn from_text(text: &str) -> Option<Standing> {
        let number = |text: &str| text.parse::<u8>().ok().filter(|code| *code > 0);
        Some(match text.split_once(' ') {
            None if text == "asking" => Self::Asking,
            None if text == "member" => Self::Member,
            Some(("pending", code)) => Self::Pending(code.parse().ok()?),
            Some(("denied", code)) => {
                Self::Denied(Denial::from_code(number(code)?).unwrap_or(Denial::Refused))
            }
            Some(("refused", code)) => {
                Self::Refused(Refusal::from_code(number(code)?).unwrap_or(Refusal::Unauthentic))
            }
            _ => return None,
        })
    }
}

/// Says it for people, as the end of a sentence about a network.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asking => f.write_str("no controller has answered this node"),
            Self::Pending(code) => write!(f, "somebody has to approve this node, code {code}"),
            Self::Denied(reason) => write!(f, "the controller does not admit this node: {reason}"),
            Self::Refused(reason) => write!(f, "members refuse this node: {reason}"),
            Self::Member => f.write_str("this node is a member"),
        }
    }
}

/// State of a node's membership in a managed network.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MembershipStatus {
    /// Standing of the node.
    pub standing: Standing,
    /// Network key, once it is known.
    pub key: Option<NetworkKey>,
    /// Content of this node's certificate.
    pub grant: Option<Grant>,
    /// End of this node's credentials.
    pub end: Option<UnixTime>,
    /// Time by which the network judges now.
    pub time: UnixTime,
    /// Known controllers.
    pub controllers: Vec<PublicIdentity>,
    /// Time since a controller has answered in this run of the node.
    pub heard: Option<Duration>,
    /// Epoch and time of the revocations that were signed last.
    pub revocations: Option<(u64, UnixTime)>,
    /// True once a controller itself has told this run of the node its newest revocations.
    pub is_up_to_date: bool,
}
