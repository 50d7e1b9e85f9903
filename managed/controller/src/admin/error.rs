//! Reasons for which a change is refused.

use std::net::IpAddr;

use peersock_overlay::membership::{Denial, InvalidGrant, MemberName, Revocations};
use thiserror::Error;

use super::{Holder, MIN_NODE_DIGITS};
use crate::admission::Fail;
use crate::controller::Controller;
use crate::store::StoreError;

/// Reason why a change is not made. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// No member or request has this name, code, address or key.
    #[error("nothing in the network is called \"{0}\"")]
    NotFound(String),
    /// No member or request has this name, and it has too few digits for a node ID.
    #[error(
        "nothing in the network is called \"{0}\", and a node ID needs {MIN_NODE_DIGITS} digits at least"
    )]
    FewDigits(String),
    /// Several keys begin with these digits, or one does and another member has them as its name.
    #[error("\"{0}\" can mean several nodes")]
    Ambiguous(String),
    /// The change concerns more than a quarter of all members, and was not confirmed.
    #[error("this would remove {count} of {of} members")]
    Mass {
        /// Number of members that would be removed.
        count: usize,
        /// Number of all members.
        of: usize,
    },
    /// The store was restored, and renews no certificates yet; those that the member has issued would be
    /// void. It was not confirmed.
    #[error("members would be out until renewals begin, because {0} has issued their certificates")]
    Restored(MemberName),
    /// Without this member, no one could administer the network.
    #[error("this is the network's last administrator")]
    LastAdmin,
    /// The controller's own node stays a member.
    #[error("this is the controller's own node")]
    OwnNode,
    /// The removal of a member that may issue certificates, or has issued some, would make these void.
    #[error("{0} is a controller, or was one")]
    Issuer(MemberName),
    /// Another member has the name.
    #[error("another member has the name {0}")]
    NameTaken(MemberName),
    /// Another machine has replaced the removed member, or has its name.
    #[error("that key is removed, and another machine has taken over {0}")]
    Replaced(MemberName),
    /// The pool has no free address.
    #[error("the network has no free address")]
    NoAddress,
    /// The address belongs to no pool.
    #[error("the address {0} is in no pool of the network")]
    NotInPool(IpAddr),
    /// No member can have the address: the network's own one, or the broadcast address.
    #[error("the address {0} is the first or the last one of its pool, which no member can have")]
    Unassignable(IpAddr),
    /// Another member has the address.
    #[error("the address {0} belongs to member {1}")]
    AddressTaken(IpAddr, MemberName),
    /// There is a reservation of the address.
    #[error("the address {0} is reserved for {1} already")]
    Reserved(IpAddr, Holder),
    /// There is no reservation of the address.
    #[error("the address {0} is not reserved")]
    NotReserved(IpAddr),
    /// The content does not fit into a certificate.
    #[error(transparent)]
    Grant(#[from] InvalidGrant),
    /// A number is out of its range.
    #[error("the value of {0} is out of its range")]
    Range(&'static str),
    /// More revocations than members accept would be in force.
    #[error("more than {max} revocations would be in force", max = Revocations::MAX_ENTRIES)]
    TooManyRevocations,
    /// The store may be an old copy, and no member has shown the newest revocations yet.
    #[error("the controller has not heard from members yet whether its store is the newest")]
    Unsettled,
    /// The network has as many spares as it can have.
    #[error("{max} members renew certificates already", max = Controller::MAX_SPARES)]
    TooManySpares,
    /// The member is forgotten soon after it was last heard.
    #[error("{0} is ephemeral, and could not renew its own certificate")]
    EphemeralSpare(MemberName),
    /// The network key is not here, or another one has followed it.
    #[error("this needs the network's key, which is not on this machine")]
    KeyElsewhere,
    /// Another process has decided about the machine meanwhile.
    #[error("somebody else has just decided about \"{0}\"")]
    Decided(String),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Fail> for ChangeError {
    fn from(fail: Fail) -> Self {
        match fail {
            Fail::Store(error) => Self::Store(error),
            Fail::Denied(Denial::NoAddress) => Self::NoAddress,
            Fail::Denied(Denial::Unavailable) => Self::Unsettled,
            Fail::Denied(_) => Self::Range("the approval"),
        }
    }
}
