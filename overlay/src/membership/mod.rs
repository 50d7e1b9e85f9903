//! Membership of a managed network: signed statements about who is a member, with which name, addresses and
//! rights.
//!
//! A managed network has a *network key* (Ed25519), whose stretched hash is the network's ID. With it the
//! network delegates to *issuers*, which are nodes that run a controller. An issuer signs a [`Certificate`]
//! for each member. A member may sign a [`ProcessCertificate`] for a program that has its own keys. All
//! statements that lead from the network key to one node are its [`Credentials`]; nodes show them to each
//! other in their session. Another key can follow the network key; the ID stays the first one's.
//!
//! | statement | signed by | says |
//! |---|---|---|
//! | [`Succession`] | the network key | this key follows; delegations by the old one count until then |
//! | [`Delegation`] | the network key | this node may issue certificates and revocations until then |
//! | [`Certificate`] | an issuer | this node is a member, with this name, these addresses, tags and claims |
//! | [`ProcessCertificate`] | a member | these keys belong to a program of this member |
//! | [`Head`] | an issuer | these are all [`Revocations`] at this time |
//!
//! Certificates prove that a right is fresh; they are short-lived, and a controller renews them. The right
//! itself lasts until somebody takes it away. Revocations name a node and the lowest serial that counts for
//! it, never a certificate: signatures have several valid forms, so hashes of certificates would not do.
//!
//! Nothing here reads a clock. Times are [`UnixTime`]s that the caller passes.

mod certificate;
mod credentials;
mod delegation;
mod key;
mod label;
pub mod pace;
mod process;
mod refusal;
mod request;
mod revocation;
mod rules;
mod spare;
mod succession;
#[cfg(test)]
mod tests;
mod time;

pub use certificate::{Certificate, Grant, InvalidGrant, Role};
pub use credentials::{Admission, Credentials};
pub use delegation::{Delegation, Rights};
pub use key::{NetworkKey, NetworkSecret, ParseNetworkKeyError};
pub use label::{MemberName, ParseLabelError, Tag};
pub use process::ProcessCertificate;
pub use refusal::Refusal;
pub use request::{Answer, CertifyRequest, Code, Denial, Question, Token};
pub use revocation::{Head, Revocation, Revocations};
pub use rules::{RulesHead, RulesRank, SignedRules};
pub use spare::Spare;
pub use succession::{NetworkKeys, Succession};
pub use time::{Serial, UnixTime};

/// Time by which clocks may differ: a statement counts from this long before its serial on.
pub const CLOCK_TOLERANCE: std::time::Duration = std::time::Duration::from_secs(600);

/// Time by which a statement may be ahead of a clock that is not certainly wrong, and counts all the same;
/// see [`UnixTime::for_statement`]. A node that is further behind has no certificate that counts for others,
/// and needs a controller's answer anyway.
pub const CATCH_UP: std::time::Duration = std::time::Duration::from_secs(86_400);
