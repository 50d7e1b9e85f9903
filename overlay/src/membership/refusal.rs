use thiserror::Error;

/// Reason why a node's credentials do not make it a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes are no credentials, or of a later version.
    #[error("the credentials are malformed")]
    Malformed,
    /// Another network key has signed. One of the two networks only has the same ID.
    #[error("the credentials are of another network with the same ID")]
    OtherNetwork,
    /// The network key has not signed the delegation, or the delegation does not allow this.
    #[error("the issuer of the certificate has no right to issue it")]
    Issuer,
    /// The delegation has ended.
    #[error("the issuer's delegation has ended")]
    IssuerExpired,
    /// A signature does not fit.
    #[error("the certificate is not authentic")]
    Unauthentic,
    /// The statements are about another node.
    #[error("the certificate belongs to another node")]
    Holder,
    /// By this clock, the statement was signed in the future.
    #[error("the certificate is from the future: one of the two clocks is wrong")]
    NotYetValid,
    /// The certificate has ended.
    #[error("the certificate has ended")]
    Expired,
    /// The node, its machine or its issuer has been revoked.
    #[error("the member has been revoked")]
    Revoked,
    /// Another key has followed the network key that made the issuer, and the old key counts no longer.
    #[error("the issuer's right is by a former key of the network")]
    KeyEnded,
    /// A network key has signed two successors, and this node has learned the other one first. Somebody else
    /// has that key.
    #[error("the network's key has two successors, and another one was learned first")]
    OtherSuccession,
}

/// Refusals by their number on the wire, from 1 on.
const CODES: [Refusal; 11] = [
    Refusal::Malformed,
    Refusal::OtherNetwork,
    Refusal::Issuer,
    Refusal::IssuerExpired,
    Refusal::Unauthentic,
    Refusal::Holder,
    Refusal::NotYetValid,
    Refusal::Expired,
    Refusal::Revoked,
    Refusal::KeyEnded,
    Refusal::OtherSuccession,
];

impl Refusal {
    /// Returns the number on the wire, from 1 on.
    pub fn code(self) -> u8 {
        let at = CODES.iter().position(|refusal| *refusal == self);
        at.map_or(0, |at| at as u8 + 1)
    }

    /// Returns the refusal with this number; `None` for 0, and for numbers of later versions.
    pub fn from_code(code: u8) -> Option<Self> {
        CODES.get(usize::from(code).checked_sub(1)?).copied()
    }
}
