//! Managed networks: what the driver tells the overlay about membership, and this node's own addresses, which
//! follow from its credentials.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::membership::{
    Answer, Credentials, Head, MemberName, NetworkKey, ProcessCertificate, Question, Refusal, Revocations,
    SignedRules, Token,
};
use peersock_overlay::{Membership, NetworkIndex, Peer, PublicIdentity};
use peersock_stack::{Batch, Cidr};

use crate::Datapath;
use crate::networks::{routes, within};

impl Datapath {
    /// Reads the membership of a managed network; `None` for other networks.
    pub fn membership<T>(&self, network: NetworkIndex, read: impl FnOnce(&Membership) -> T) -> Option<T> {
        self.control().membership(network).map(read)
    }

    /// Returns the wall clock by which the overlay judges statements. It does not follow steps of the
    /// system's clock.
    pub fn unix_time(&self, now: Instant) -> Duration {
        self.control().unix_time(self.clock.overlay(now))
    }

    /// Sets the key of a managed network that was joined by its ID alone.
    pub fn set_network_key(&self, now: Instant, network: NetworkIndex, key: NetworkKey, batch: &mut Batch) {
        self.with_control(now, batch, |endpoint, now| endpoint.set_network_key(now, network, key));
        self.settle(now, batch);
    }

    /// Replaces this node's credentials in a managed network.
    ///
    /// # Errors
    /// Returns the reason if they are not this node's in this network.
    pub fn set_credentials(
        &self,
        now: Instant,
        network: NetworkIndex,
        credentials: &Credentials,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let result = self
            .with_control(now, batch, |endpoint, now| endpoint.set_credentials(now, network, credentials));
        self.follow_own_addresses(now, network, batch);
        self.settle(now, batch);
        result
    }

    /// Makes this node a controller of a managed network, or an ordinary member again.
    pub fn set_controller(
        &self,
        now: Instant,
        network: NetworkIndex,
        is_controller: bool,
        batch: &mut Batch,
    ) {
        self.with_control(now, batch, |endpoint, now| endpoint.set_controller(now, network, is_controller));
        self.settle(now, batch);
    }

    /// Begins sessions with members to which this node, a controller, may be unknown
    /// ([`Endpoint::visit_members`](peersock_overlay::Endpoint::visit_members)).
    pub fn visit_members(
        &self,
        now: Instant,
        network: NetworkIndex,
        members: &[PublicIdentity],
        batch: &mut Batch,
    ) {
        let sought =
            self.with_control(now, batch, |endpoint, now| endpoint.visit_members(now, network, members));
        self.settle(now, batch);
        // Without the control lock, because the callback is not the data path's code.
        sought.iter().for_each(|peer| self.tell_wanted(peer));
    }

    /// Corrects the clock of a program's node in a managed network, as the node of its machine has learned.
    pub fn set_clock_offset(&self, now: Instant, network: NetworkIndex, millis: i64, batch: &mut Batch) {
        self.with_control(now, batch, |endpoint, now| endpoint.set_clock_offset(now, network, millis));
        self.settle(now, batch);
    }

    /// Returns true if this node has a session with a controller of a managed network.
    pub fn has_controller(&self, network: NetworkIndex) -> bool {
        self.control().has_controller(network)
    }

    /// Returns the certificate of this node in a static network, if it is a program's beside a member's.
    pub fn program(&self, network: NetworkIndex) -> Option<ProcessCertificate> {
        self.control().programs(network)?.own().cloned()
    }

    /// Replaces that certificate, and shows it to all peers.
    ///
    /// # Errors
    /// Returns the reason if it is not this node's.
    pub fn set_program(
        &self,
        now: Instant,
        network: NetworkIndex,
        certificate: ProcessCertificate,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let result =
            self.with_control(now, batch, |endpoint, now| endpoint.set_program(now, network, certificate));
        self.settle(now, batch);
        result
    }

    /// Takes over revocations that a controller on this node has signed.
    ///
    /// # Errors
    /// Returns the reason if the head does not count.
    pub fn set_revocations(
        &self,
        now: Instant,
        network: NetworkIndex,
        head: &Head,
        set: &Revocations,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let result =
            self.with_control(now, batch, |endpoint, now| endpoint.set_revocations(now, network, head, set));
        self.settle(now, batch);
        result
    }

    /// Takes over access rules that a controller on this node has signed.
    ///
    /// # Errors
    /// Returns the reason if they do not count.
    pub fn set_rules(
        &self,
        now: Instant,
        network: NetworkIndex,
        rules: SignedRules,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let result = self.with_control(now, batch, |endpoint, now| endpoint.set_rules(now, network, rules));
        self.settle(now, batch);
        result
    }

    /// Answers a question that [`Event::Asked`](peersock_overlay::Event::Asked) has reported.
    pub fn answer_member(
        &self,
        now: Instant,
        peer: &Arc<Peer>,
        number: u32,
        answer: &Answer,
        batch: &mut Batch,
    ) {
        self.with_control(now, batch, |endpoint, now| endpoint.answer(now, peer, number, answer));
        self.settle(now, batch);
    }

    /// Asks the controllers of a managed network for credentials now, with another invite or wished name.
    pub fn ask_again(
        &self,
        now: Instant,
        network: NetworkIndex,
        (token, name): (Option<Token>, Option<MemberName>),
        batch: &mut Batch,
    ) {
        self.with_control(now, batch, |endpoint, now| endpoint.ask_again(now, network, token, name));
        self.settle(now, batch);
    }

    /// Notes that a controller has removed this node's machine from a network: connections in it end.
    pub fn set_removed(&self, now: Instant, network: NetworkIndex, batch: &mut Batch) {
        self.with_control(now, batch, |endpoint, _| endpoint.set_removed(network, true));
        self.settle(now, batch);
    }

    /// Asks the controllers of a managed network for a member, or for a machine's program, by its name.
    /// Returns false if that is not possible now.
    pub fn find_name(&self, now: Instant, network: NetworkIndex, name: &str, batch: &mut Batch) -> bool {
        let asked = self.with_control(now, batch, |endpoint, now| endpoint.find_name(now, network, name));
        self.settle(now, batch);
        asked
    }

    /// Notes the members of a managed network that this node has sent data to since the last call. Returns
    /// true if they are others now, or have another name or address.
    pub fn note_used(&self, network: NetworkIndex) -> bool {
        self.control().note_used(network)
    }

    /// Returns true if a controller has just said that no node of a managed network has this name.
    pub fn is_name_absent(&self, now: Instant, network: NetworkIndex, name: &str) -> bool {
        self.control().is_name_absent(now, network, name)
    }

    /// Asks the controllers of a managed network for a member. Returns false if that is not possible now.
    pub fn find_member(
        &self,
        now: Instant,
        network: NetworkIndex,
        question: &Question,
        batch: &mut Batch,
    ) -> bool {
        let asked =
            self.with_control(now, batch, |endpoint, now| endpoint.find_member(now, network, question));
        self.settle(now, batch);
        asked
    }

    /// Gives the stack the addresses that this node has in a network now.
    pub(super) fn follow_own_addresses(&self, now: Instant, network: NetworkIndex, batch: &mut Batch) {
        let Some(known) = self.networks.find(|known| known.index == network, Clone::clone) else { return };
        let (addresses, prefixes) = {
            let endpoint = self.control();
            let prefixes = endpoint.membership(network).map(|_| endpoint.prefixes(network));
            (endpoint.addresses(network), prefixes)
        };
        let changed = prefixes.filter(|_| addresses != known.addresses);
        if let Some(prefixes) = changed {
            let routes = routes(&prefixes, &addresses);
            let own: Vec<Cidr> = addresses.iter().map(|address| within(*address, &prefixes)).collect();
            self.stack.set_addresses(now, known.interface, &own, batch);
            self.networks.replace(crate::JoinedNetwork { addresses, prefixes: own, routes, ..known });
        }
        self.follow_own_identity(now, network, batch);
    }
}
