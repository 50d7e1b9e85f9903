//! Spares: members that renew certificates while they reach no controller.
//!
//! A spare renews the certificates of members that have a session with it, and its own one. It tells of
//! itself by a head of an empty set of revocations, which spreads as all heads do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::Endpoint;
use crate::id::NodeId;
use crate::membership::{Answer, Head, Revocations, Spare, pace};
use crate::network::{Membership, NetworkIndex};
use crate::session::Peer;

impl Endpoint {
    /// Returns true if this node may renew certificates of others.
    pub(super) fn is_spare(&self, network: NetworkIndex) -> bool {
        self.membership(network).is_some_and(|known| known.spare().is_some())
    }

    /// Returns true if an issuer is a spare.
    pub(super) fn is_spare_at(&self, network: NetworkIndex, issuer: &NodeId) -> bool {
        self.membership(network).is_some_and(|known| known.is_spare(issuer))
    }

    /// Takes over the right to renew certificates that a controller gives this node, or takes from it.
    pub(super) fn set_spare(&mut self, now: Instant, network: NetworkIndex, spare: Option<&Spare>) {
        let own = self.own_id;
        let Some(membership) = self.membership_mut(network) else { return };
        if !membership.set_spare(spare, &own) {
            tracing::warn!("a controller's answer has a right to renew certificates that is not this node's");
        }
        self.tell_of_spare(now, network);
    }

    /// Signs a head by the right to renew certificates, so that members know this node as a spare.
    pub(in super::super) fn tell_of_spare(&mut self, now: Instant, network: NetworkIndex) {
        let unix_time = self.core.clock.unix_time(now);
        let Some(membership) = self.membership(network) else { return };
        let Some(spare) = membership.spare() else { return };
        let own = membership.heads().find(|(head, _)| head.issuer() == self.own_id);
        if own.is_some_and(|(head, _)| head.delegation() == spare.delegation()) {
            return;
        }
        let (time, delegation) = (membership.time(unix_time), spare.delegation().clone());
        // Above the epochs of earlier rights, which began earlier.
        let epoch = spare.delegation().serial().as_u64();
        let none = Revocations::default();
        let Some(network_id) = self.networks.get(&network).map(|joined| joined.id) else { return };
        let head = Head::sign(&self.core.identity, delegation, network_id, epoch, time, &none);
        if let Err(refusal) = self.set_revocations(now, network, &head, &none) {
            tracing::warn!(%refusal, "the right to renew certificates does not count");
        }
    }

    /// Answers a member that asks for another certificate, as a spare. It is silent until no controller has
    /// answered its own question: a controller may know why a member gets none.
    pub(super) fn renew_for(&mut self, now: Instant, peer: &Arc<Peer>, id: u32) {
        let joined = self.networks.get(&peer.network());
        let is_alone = joined.is_some_and(|joined| joined.asking.alone_since.is_some());
        if !is_alone || !peer.is_admitted() {
            return;
        }
        if let Some(answer) = self.renewal(now, peer.network(), peer.id()) {
            self.answer(now, peer, id, &answer);
        }
    }

    /// Renews this node's own certificate by its right, because no controller has answered. Returns false if
    /// it has no right that counts.
    pub(super) fn renew_own(&mut self, now: Instant, network: NetworkIndex) -> bool {
        let own = self.own_id;
        let renewed = self.renewal(now, network, &own);
        let Some(Answer::Certified { credentials, renew_after, .. }) = renewed else { return false };
        if let Err(refusal) = self.set_credentials(now, network, &credentials) {
            tracing::warn!(%refusal, "a spare's own certificate does not count");
            return false;
        }
        let pause = pace::renewal(Duration::from_secs(renew_after.into()), self.draw());
        if let Some(joined) = self.networks.get_mut(&network)
            && joined.asking.alone_since.replace(now).is_none()
        {
            tracing::info!(network = %joined.id, "no controller answers: this node renews certificates");
        }
        self.ask_for_credentials_at(now, network, now + pause);
        true
    }

    fn renewal(&self, now: Instant, network: NetworkIndex, node: &NodeId) -> Option<Answer> {
        let unix_time = self.core.clock.unix_time(now);
        let membership: &Membership = self.membership(network)?;
        let (credentials, lifetime) = membership.renew_for(&self.core.identity, node, unix_time)?;
        let renew_after = pace::RENEW_BY.min(lifetime / 3).as_secs();
        Some(Answer::Certified {
            time: membership.time(unix_time),
            renew_after: u32::try_from(renew_after).unwrap_or(u32::MAX),
            credentials: Box::new(credentials),
            spare: None,
        })
    }
}
