//! Access rules of a managed network, which both ends of each flow enforce.
//!
//! The overlay verifies the rules and knows who is who; the crate `peersock_rules` decides. Here is the one
//! place for each direction at which a packet of a new flow meets them: [`Datapath::refuses_incoming`] and
//! [`Datapath::refuses_outgoing`]. TCP connections of the stack are judged by their first segment, and again
//! when rules or identities change. Packets of other flows look up their flow in the table of their peer, so
//! answers need no rule. A network without rules costs one comparison for each packet.

mod effects;
mod table;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use peersock_overlay::membership::{SignedRules, Tag};
use peersock_overlay::{NetworkId, Peer, PeerDescription};
use peersock_primitives::sync;
use peersock_rules::{Action, Compiled, Decision, End, Flow, RuleSet, Subject, protocol};
use peersock_stack::{Batch, InterfaceId, PacketEnds, PacketPart, Undelivered, packet_ends, tcp_reset};

pub use effects::{Effect, EndedAt};

use crate::networks::Known;
use crate::socket::PeerLink;
use crate::{Datapath, Offload};
use table::{Allowed, FlowEnds, FlowTable};

/// Minimum interval of lines in the log about one peer.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Number of a member's tags that are looked at; a certificate has fewer.
const MAX_TAGS: usize = 64;

/// Rules of one network, and this node's own identity there.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// True while there are rules that refuse anything.
    is_on: AtomicBool,
    /// Grows with each change of the rules or of an identity.
    generation: AtomicU64,
    applied: RwLock<Option<Arc<Applied>>>,
    own: RwLock<Option<Arc<Own>>>,
}

/// This node in a network.
#[derive(Debug, PartialEq)]
pub(super) struct Own {
    described: PeerDescription,
    addresses: Vec<IpAddr>,
}

/// Rules that count.
#[derive(Debug)]
pub(super) struct Applied {
    compiled: Compiled,
    /// False if the rules have a form that this version cannot read: then everything is refused.
    is_readable: bool,
}

impl Applied {
    fn new(signed: &SignedRules) -> Self {
        match RuleSet::decode(signed.rules()) {
            Ok(set) => Self { compiled: Compiled::new(set), is_readable: true },
            Err(error) => {
                tracing::warn!(%error, "the network's rules cannot be read: all flows are refused");
                let none = RuleSet::new(Action::Deny, Vec::new()).expect("no rule is a valid set");
                Self { compiled: Compiled::new(none), is_readable: false }
            }
        }
    }

    fn refuses_anything(&self) -> bool {
        let set = self.compiled.rules();
        set.default_action() == Action::Deny || set.rules().iter().any(|rule| rule.action == Action::Deny)
    }
}

/// Share of a peer's state that belongs to rules.
#[derive(Debug, Default)]
pub(super) struct PeerFlows {
    /// Grows with each change of the peer's identity.
    generation: AtomicU64,
    table: OnceLock<Box<FlowTable>>,
    /// Time of the last line in the log.
    logged: Mutex<Option<Instant>>,
}

impl PeerFlows {
    fn table(&self) -> &FlowTable {
        self.table.get_or_init(Box::default)
    }

    /// Makes each flow of the peer meet the rules again with its next packet.
    fn renew(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

impl Guard {
    /// Returns true if packets have to be judged. Without rules that is all that they cost.
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    fn applied(&self) -> Option<Arc<Applied>> {
        sync::read(&self.applied).clone()
    }

    /// Replaces the rules. Returns true if they refuse anything.
    fn set_rules(&self, applied: Option<Applied>) -> bool {
        let is_on = applied.as_ref().is_some_and(Applied::refuses_anything);
        *sync::write(&self.applied) = applied.map(Arc::new);
        self.renew();
        // Last, so that no packet finds the switch on and no rules.
        self.is_on.store(is_on, Ordering::Release);
        is_on
    }

    /// Replaces what is known of this node itself. Returns true if that changes anything.
    pub(super) fn set_own(&self, described: PeerDescription, addresses: Vec<IpAddr>) -> bool {
        let own = Own { described, addresses };
        let mut known = sync::write(&self.own);
        let is_same = known.as_ref().is_some_and(|known| **known == own);
        if !is_same {
            *known = Some(Arc::new(own));
            drop(known);
            self.renew();
        }
        !is_same
    }

    /// Makes each flow meet the rules again with its next packet.
    fn renew(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Decides about a flow between this node and a peer.
    fn decide(&self, id: NetworkId, peer: &Peer, flow: &FlowEnds, is_ours: bool) -> Decision {
        let Some(applied) = self.applied() else { return Decision { action: Action::Allow, rule: None } };
        let own = sync::read(&self.own).clone();
        applied.decide(own.as_deref(), id, peer, flow, is_ours)
    }
}

impl Applied {
    fn decide(
        &self,
        own: Option<&Own>,
        id: NetworkId,
        peer: &Peer,
        flow: &FlowEnds,
        is_ours: bool,
    ) -> Decision {
        let theirs = peer.description(id);
        let (mut my_tags, mut their_tags) = ([""; MAX_TAGS], [""; MAX_TAGS]);
        let mine = own.map(|own| subject(&own.described, &mut my_tags));
        // Without an identity nothing is known of this node, and no rule names it.
        let mine = mine.unwrap_or(Subject { name: None, tags: &[], node: &[0; 32] });
        let their = subject(&theirs, &mut their_tags);
        // A group is no host: a datagram to it is a flow to each member that receives it.
        let is_member = |address: IpAddr, is_its: bool| address.is_multicast() || is_its;
        let is_own = own.is_some_and(|own| own.addresses.contains(&flow.local));
        let here = match is_member(flow.local, is_own) {
            true => End::member(mine),
            false => End::behind(mine, flow.local),
        };
        let there = match is_member(flow.remote, peer.has_address(flow.remote)) {
            true => End::member(their),
            false => End::behind(their, flow.remote),
        };
        let (from, to, port) =
            if is_ours { (here, there, flow.remote_port) } else { (there, here, flow.local_port) };
        self.compiled.decide(&Flow { from, to, protocol: flow.protocol, port })
    }
}

/// Returns a member as rules see it: a program with its own keys is its machine's.
fn subject<'a>(described: &'a PeerDescription, tags: &'a mut [&'a str; MAX_TAGS]) -> Subject<'a> {
    let count = described.tags.len().min(MAX_TAGS);
    for (place, tag) in tags.iter_mut().zip(&described.tags) {
        *place = Tag::as_str(tag);
    }
    Subject { name: described.name.as_deref(), tags: &tags[..count], node: described.machine.as_bytes() }
}

impl Datapath {
    /// Judges a packet from a peer. Returns true if it is refused; then the peer has its answer.
    pub(super) fn refuses_incoming(
        &self,
        now: Instant,
        network: &Known,
        peer: &Arc<Peer>,
        packet: &[u8],
        is_for_device: bool,
        batch: &mut Batch,
    ) -> bool {
        if self.allows(now, network, peer, packet, true, is_for_device) {
            return false;
        }
        self.counters.rules_refused_in.increment();
        self.log_refusal(now, network, peer, packet, "from");
        let Some(mut answer) = self.refusal(now, packet) else { return true };
        // Without a session nobody waits for the answer any more.
        if let Some(sender) = peer.sender() {
            self.send_sealed(now, network.interface, &sender.unasked(), &mut answer, batch);
        }
        true
    }

    /// Judges a packet to a peer. Returns true if it is refused; the caller answers.
    pub(super) fn refuses_outgoing(
        &self,
        now: Instant,
        network: &Known,
        peer: &Arc<Peer>,
        packet: &[u8],
        is_from_device: bool,
    ) -> bool {
        if self.allows(now, network, peer, packet, false, is_from_device) {
            return false;
        }
        self.counters.rules_refused_out.increment();
        self.log_refusal(now, network, peer, packet, "to");
        true
    }

    /// Returns the network of an interface, if it has rules. Costs one comparison while no network has any.
    pub(super) fn guarded(&self, interface: InterfaceId) -> Option<Known> {
        if !self.has_rules.load(Ordering::Acquire) {
            return None;
        }
        self.known_by_interface(interface).filter(|network| network.guard.is_on())
    }

    /// Returns the answer to a refused packet: a reset for TCP, and else an error of ICMP.
    fn refusal(&self, now: Instant, packet: &[u8]) -> Option<Vec<u8>> {
        tcp_reset(packet).or_else(|| self.stack.icmp_error(now, packet, Undelivered::Prohibited))
    }

    /// Answers the host behind a device about its refused packet.
    pub(super) fn answer_refused(&self, now: Instant, network: &Known, packet: &[u8]) {
        if let Some(device) = &network.device
            && let Some(answer) = self.refusal(now, packet)
        {
            device.deliver(&answer, &Offload::default());
        }
    }

    /// Tells the socket, or the host behind a device, that a packet which has waited for its peer is refused.
    pub(super) fn tell_refused(&self, now: Instant, network: &Known, packet: &[u8], batch: &mut Batch) {
        self.answer_refused(now, network, packet);
        if let Some(mut error) = self.refusal(now, packet) {
            self.stack.receive(now, network.interface, &mut error, batch);
        }
    }

    /// Returns true if rules refuse a TCP connection that this node is about to open.
    pub(super) fn refuses_connection(
        &self,
        network: &Known,
        peer: &Peer,
        flow: &peersock_stack::Flow,
    ) -> bool {
        let ends = tcp_ends(flow);
        let decision = network.guard.decide(network.id, peer, &ends, true);
        if !decision.is_allowed() {
            self.counters.rules_refused_out.increment();
        }
        !decision.is_allowed()
    }

    fn allows(
        &self,
        now: Instant,
        network: &Known,
        peer: &Arc<Peer>,
        packet: &[u8],
        is_incoming: bool,
        is_with_device: bool,
    ) -> bool {
        // A packet that hides its ends cannot be judged.
        let Some(ends) = packet_ends(packet) else { return false };
        let flow = self.flow_of(network, peer, &ends, is_incoming);
        let guard = &network.guard;
        let decide = |is_ours| guard.decide(network.id, peer, &flow, is_ours).is_allowed();
        let is_tcp = ends.protocol == protocol::TCP;
        match ends.part {
            PacketPart::Apart => true,
            // Segments without a connection mean nothing to the stack, which ends refused ones at once.
            PacketPart::Continues if !is_with_device => true,
            PacketPart::Opens if !(is_tcp && is_with_device) => decide(!is_incoming),
            // The end that gets the answer has asked.
            PacketPart::Answers => decide(is_incoming),
            _ => self.allows_in_table(now, network, peer, &flow, (ends.part, is_incoming), decide),
        }
    }

    fn allows_in_table(
        &self,
        now: Instant,
        network: &Known,
        peer: &Peer,
        flow: &FlowEnds,
        (part, is_incoming): (PacketPart, bool),
        decide: impl Fn(bool) -> bool,
    ) -> bool {
        let flows = &PeerLink::of(peer).flows;
        let table = flows.table();
        // Read first: a change meanwhile makes the flow meet the rules again. Both only grow.
        let generation = network.guard.generation() + flows.generation.load(Ordering::Acquire);
        let known = table.find(now, flow).filter(|_| part != PacketPart::Opens);
        if known.is_some_and(|known| known.generation == generation) {
            return true;
        }
        let opener = match (known, part) {
            (Some(known), _) => decide(known.is_ours).then_some(known.is_ours),
            // A connection that is older than this node's run shows not who has opened it.
            (None, PacketPart::Continues) => {
                [!is_incoming, is_incoming].into_iter().find(|ours| decide(*ours))
            }
            (None, _) => decide(!is_incoming).then_some(!is_incoming),
        };
        match opener {
            Some(is_ours) => table.put(*flow, Allowed { generation, is_ours, used: now }),
            None => table.remove(flow),
        }
        opener.is_some()
    }

    /// Returns the flow of a packet. One to a group is between the addresses by which answers come.
    fn flow_of(&self, network: &Known, peer: &Peer, ends: &PacketEnds, is_incoming: bool) -> FlowEnds {
        let mut flow = FlowEnds::of(ends, is_incoming);
        let is_same = |address: &&IpAddr| address.is_ipv4() == ends.destination.is_ipv4();
        if ends.destination.is_multicast() {
            if is_incoming {
                let own = sync::read(&network.guard.own).clone();
                let own = own.as_ref().and_then(|own| own.addresses.iter().find(is_same));
                flow.local = own.copied().unwrap_or(flow.local);
            } else if let Some(address) = peer.addresses().iter().find(is_same) {
                flow.remote = *address;
            }
        }
        flow
    }

    fn log_refusal(&self, now: Instant, network: &Known, peer: &Peer, packet: &[u8], word: &'static str) {
        // A refused program may try again and again.
        let mut logged = sync::lock(&PeerLink::of(peer).flows.logged);
        if logged.is_some_and(|at| now.saturating_duration_since(at) < LOG_INTERVAL) {
            return;
        }
        *logged = Some(now);
        drop(logged);
        let Some(ends) = packet_ends(packet) else { return };
        let described = peer.description(network.id);
        let name = described.name.as_deref().unwrap_or("a member without a name");
        tracing::info!(
            peer = name,
            protocol = ends.protocol,
            port = ends.ports.1,
            "the network's rules refuse a flow {word} this peer"
        );
    }
}

/// Returns the ends of a TCP connection of the stack.
fn tcp_ends(flow: &peersock_stack::Flow) -> FlowEnds {
    let (local, remote) = (flow.local(), flow.remote());
    FlowEnds {
        protocol: protocol::TCP,
        local: local.ip(),
        remote: remote.ip(),
        local_port: local.port(),
        remote_port: remote.port(),
    }
}
