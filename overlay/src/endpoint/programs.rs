//! Programs of the members that a network's description lists: nodes with their own keys, certified by a
//! member's key. A program shows its certificate in each handshake that it begins.

use std::time::{Duration, Instant};

use super::Endpoint;
use crate::id::{NodeId, PublicIdentity};
use crate::link::{Event, Gone, Link, Reason, Timer};
use crate::membership::{Answer, MemberName, ProcessCertificate, Refusal};
use crate::network::{NetworkIndex, Programs};

/// Interval at which a program sees to its session with its machine's node, which tells others of it.
const KEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Longest time until certificates are checked again. The system's clock may be set meanwhile.
const CHECK_AT_LEAST: Duration = Duration::from_secs(600);

impl Endpoint {
    /// Replaces the certificate of this node, which is a program's beside a listed member's, and shows it to
    /// all peers. Does nothing in other networks.
    ///
    /// # Errors
    /// Returns the reason if the certificate is not this node's.
    pub fn set_program(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        certificate: ProcessCertificate,
    ) -> Result<(), Refusal> {
        let own = self.own_id;
        let Some(programs) = self.programs_mut(network) else { return Ok(()) };
        programs.set_own(&own, certificate)?;
        // Only a handshake shows it, and sessions with idle peers need none.
        for key in self.peers_in(network) {
            self.link(now, key, |link, cx| link.attempt(cx, Reason::Age));
        }
        Ok(())
    }

    /// Returns the programs that this node knows; `None` if the network's description lists no members.
    pub fn programs(&self, network: NetworkIndex) -> Option<&Programs> {
        self.networks.get(&network)?.policy.programs()
    }

    fn programs_mut(&mut self, network: NetworkIndex) -> Option<&mut Programs> {
        self.networks.get_mut(&network)?.policy.programs_mut()
    }

    /// Begins what a program does all the time: its session with its machine's node.
    pub(super) fn begin_programs(&mut self, now: Instant, network: NetworkIndex) {
        if self.programs(network).is_some_and(|programs| programs.own().is_some()) {
            self.on_programs_timer(now, network);
        }
    }

    /// Admits the sender of a handshake as a program, by the certificate in it.
    pub(super) fn introduce(&mut self, now: Instant, network: NetworkIndex, node: &NodeId, bytes: &[u8]) {
        // Members show none, and what cannot be read is no reason to refuse a member.
        let Ok(certificate) = ProcessCertificate::parse(bytes) else { return };
        self.admit_program(now, network, node, certificate, true);
    }

    fn admit_program(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        node: &NodeId,
        certificate: ProcessCertificate,
        is_shown: bool,
    ) -> bool {
        let unix_time = self.core.clock.unix_time(now);
        let Some(joined) = self.networks.get_mut(&network) else { return false };
        if let Err(refusal) = joined.policy.introduce(node, certificate, is_shown, unix_time) {
            tracing::debug!(network = %joined.id, %refusal, "the certificate of a program does not count");
            return false;
        }
        if let Some(peer) = joined.by_node.get(node).and_then(|key| self.peers.get(*key)) {
            peer.link.handle.describe(&*joined.policy);
        }
        self.arm_programs(now, network);
        true
    }

    /// Forgets the certificate of a node that has not become a peer.
    pub(super) fn forget_program(&mut self, network: NetworkIndex, node: &NodeId) {
        // This node's own admits it for as long as the network is joined.
        if *node != self.own_id
            && let Some(programs) = self.programs_mut(network)
        {
            programs.forget(node);
        }
    }

    fn arm_programs(&mut self, now: Instant, network: NetworkIndex) {
        let unix_time = self.core.clock.unix_time(now);
        let Some(programs) = self.programs(network) else { return };
        // A little later, so that the end has passed by then.
        let ends = programs
            .next_end(&self.own_id, unix_time)
            .map(|left| left.min(CHECK_AT_LEAST) + Duration::from_millis(1));
        let keeps = programs.own().map(|_| KEEP_INTERVAL);
        match ends.into_iter().chain(keeps).min() {
            Some(pause) => self.core.timers.set(Timer::Programs(network), now + pause),
            None => self.core.timers.clear(Timer::Programs(network)),
        }
    }

    pub(super) fn on_programs_timer(&mut self, now: Instant, network: NetworkIndex) {
        let unix_time = self.core.clock.unix_time(now);
        let Some(programs) = self.programs(network) else { return };
        let machine = programs.machine().copied();
        for node in programs.ended(&self.own_id, unix_time) {
            self.end_program(now, network, &node);
        }
        if let Some(machine) = machine {
            self.keep_one(now, network, &[machine]);
        }
        self.arm_programs(now, network);
    }

    /// Forgets a program whose certificate has ended.
    fn end_program(&mut self, now: Instant, network: NetworkIndex, node: &NodeId) {
        let known = self.networks.get(&network).and_then(|joined| joined.by_node.get(node).copied());
        if let Some(key) = known {
            if let Some(peer) = self.peers.get(key) {
                let handle = peer.link.handle.clone();
                tracing::info!(peer = %handle.logged(), "the certificate of a program has ended");
                self.core.emit(Event::PeerGone(handle, Gone::Expelled));
            }
            // Unlike in managed networks, no message could show another certificate in the old session.
            self.remove_peer(now, key);
        }
        self.forget_program(network, node);
    }

    /// Returns this node's answer to the question for a program of a listed member.
    pub(super) fn listed_program(
        &self,
        network: NetworkIndex,
        label: &MemberName,
        machine: &MemberName,
    ) -> Option<Answer> {
        let joined = self.networks.get(&network)?;
        let programs = joined.policy.programs()?;
        let mut nodes = joined.policy.nodes_named(&format!("{label}.{machine}"));
        nodes.sort_by_key(|node| !self.is_node_connected(joined, node));
        nodes.into_iter().find_map(|node| {
            let peer = self.peers.get(*joined.by_node.get(&node)?)?;
            let certificate = Box::new(programs.get(&node)?.clone());
            Some(Answer::Program { identity: *peer.link.handle.identity(), certificate })
        })
    }

    /// Makes a program a peer that a listed member has named. Returns true if it is one now.
    pub(super) fn on_found_program(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        identity: &PublicIdentity,
        certificate: &ProcessCertificate,
    ) -> bool {
        let node = identity.node_id();
        if node == self.own_id || !self.admit_program(now, network, &node, certificate.clone(), false) {
            return false;
        }
        let known = self.networks.get(&network).and_then(|joined| joined.by_node.get(&node).copied());
        let Some(key) = known.or_else(|| self.add_peer(now, network, *identity, None)) else {
            self.forget_program(network, &node);
            return false;
        };
        self.link(now, key, Link::announce);
        true
    }
}
