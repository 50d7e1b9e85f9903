//! Description of a managed network, by which a node joins it.

use std::sync::Arc;

use super::super::UsedMember;
use crate::id::{NetworkId, Psk, PublicIdentity};
use crate::membership::{
    CertifyRequest, Credentials, Head, NetworkKey, Revocations, SignedRules, Spare, Succession, UnixTime,
};

/// Network whose controllers admit the members, as one node knows it. Two descriptions are equal if they can
/// be of the same network, however much each knows of it.
#[derive(Debug, Clone)]
pub struct ManagedNetwork {
    /// ID of kind [`NetworkKind::Managed`](crate::NetworkKind::Managed).
    pub id: NetworkId,
    /// First key, whose stretched hash is the ID. Without it no node is admitted; see
    /// [`Endpoint::set_network_key`](crate::Endpoint::set_network_key).
    pub key: Option<NetworkKey>,
    /// Successions of that key that this node has learned. They are ignored if one is not signed right.
    pub successions: Vec<Succession>,
    /// Credentials of this node; `None` until a controller has admitted it.
    pub credentials: Option<Credentials>,
    /// Request for credentials, repeated until a controller has decided, and for each renewal.
    pub request: CertifyRequest,
    /// Nodes that are known to be controllers, the preferred one first. More become known by credentials.
    pub controllers: Vec<PublicIdentity>,
    /// Newest known head of each issuer, with the bytes of its set as they were signed.
    pub revocations: Vec<(Head, Arc<[u8]>)>,
    /// Revocations besides these, which issuers have signed before.
    pub others: Revocations,
    /// Newest known statement of each issuer about access rules.
    pub rules: Vec<SignedRules>,
    /// Members that this node has used, the last one at the end; [`UsedMember::MAX`] of them count. They lead
    /// to members by name while no controller answers, and prove nothing.
    pub used: Vec<UsedMember>,
    /// Newest time that an issuer has signed and that this node's clock has reached; see
    /// [`Membership::signed_time`](super::Membership::signed_time).
    pub signed_time: UnixTime,
    /// True if this node answers requests for credentials:
    /// [`Event::Asked`](crate::Event::Asked) reports them. It can change later:
    /// [`Endpoint::set_controller`](crate::Endpoint::set_controller).
    pub is_controller: bool,
    /// Right of this node to renew others' certificates while it reaches no controller.
    pub spare: Option<Spare>,
    /// True if this node is a program's, beside the node of a member. Its credentials come from the member,
    /// so it asks no controller for any.
    pub is_program: bool,
    /// Milliseconds by which this node's clock is behind the controllers', as the node of its machine has
    /// learned; negative if it is ahead. A program asks no controller, so no other node tells it.
    pub clock_offset: i64,
    /// Pre-shared key, with which the network is refused: credentials protect it, and somebody who gives a
    /// secret expects another network.
    pub psk: Option<Psk>,
}

impl ManagedNetwork {
    /// Returns the network of which nothing but the ID is known.
    pub fn new(id: NetworkId) -> Self {
        Self {
            id,
            key: None,
            successions: Vec::new(),
            credentials: None,
            request: CertifyRequest::default(),
            controllers: Vec::new(),
            revocations: Vec::new(),
            others: Revocations::default(),
            rules: Vec::new(),
            used: Vec::new(),
            signed_time: UnixTime::default(),
            is_controller: false,
            spare: None,
            is_program: false,
            clock_offset: 0,
            psk: None,
        }
    }
}

impl PartialEq for ManagedNetwork {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && (self.key == other.key || self.key.is_none() || other.key.is_none())
    }
}
