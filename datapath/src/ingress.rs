//! Incoming datagrams: opened, checked, coalesced, and given to the stack.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use peersock_overlay::wire::MessageType;
use peersock_overlay::{Attention, DATA_OVERHEAD, Opened, RecvMeta, RelayReader, Session, data_index};
use peersock_stack::{Batch, Claim, Coalescer, Flushed, InterfaceId, may_pass};

use crate::addresses::{destination_address, source_address};
use crate::networks::Known;
use crate::{Datapath, Device, device, ecn};

/// Flag in the coalescer's keys: a device takes the interface's packets.
const TO_DEVICE: u64 = 1 << 32;

/// State of one receiver: buffers kept between batches. Its holder has the receive role.
#[derive(Default)]
pub struct Ingress {
    coalescer: Coalescer,
    batch: Batch,
    /// Session of the last datagram, so that a batch needs one look-up.
    last: Option<Last>,
    /// Reader of the header that roots prepend.
    relay: RelayReader,
    /// Device that got the last packet.
    device: Option<(InterfaceId, Arc<dyn Device>)>,
}

struct Last {
    session: Arc<Session>,
    network: Option<Known>,
    /// Inner source address found to be the peer's.
    owned: Option<IpAddr>,
    /// Inner destination found to be this node's, where a device takes the packets.
    reached: Option<IpAddr>,
    /// True once this batch's origin was reported to the session.
    noted: bool,
}

impl Datapath {
    /// Takes in one received batch: datagrams of `stride` bytes, the last of which may be shorter.
    ///
    /// Routers have `marked` all or none of them (RFC 3168 CE). Call [`Datapath::finish_receive`] when no
    /// more datagrams are available.
    pub fn receive(
        &self,
        now: Instant,
        ingress: &mut Ingress,
        meta: RecvMeta,
        batch: &[u8],
        stride: usize,
        marked: bool,
    ) {
        if let Some(last) = &mut ingress.last {
            last.noted = false;
        }
        for datagram in batch.chunks(stride.max(1)) {
            // Most datagrams are session data, so the check for relayed ones comes second.
            if self.receive_data(now, ingress, meta, datagram, marked) {
                continue;
            }
            let (meta, datagram) = match MessageType::of(datagram) {
                Some(MessageType::Relayed) => {
                    let opened = ingress.relay.open(&self.relays, meta.remote, datagram);
                    let Some((header, datagram)) = opened else { continue };
                    (RecvMeta { relay: Some(header), ..meta }, datagram)
                }
                _ => (meta, datagram),
            };
            if meta.relay.is_none() || !self.receive_data(now, ingress, meta, datagram, marked) {
                self.with_control(now, &mut ingress.batch, |endpoint, now| {
                    endpoint.handle_datagram(now, meta, datagram);
                });
            }
        }
    }

    /// Hands the coalesced packets to the stack, sends its answers and notifies waiting threads.
    pub fn finish_receive(&self, now: Instant, ingress: &mut Ingress) {
        self.flush(now, ingress);
        // Keeping the session here would keep the session of a removed peer alive.
        ingress.last = None;
        ingress.device = None;
        self.settle(now, &mut ingress.batch);
    }

    /// Handles a sealed datagram of a known session; returns false if it is none.
    fn receive_data(
        &self,
        now: Instant,
        ingress: &mut Ingress,
        meta: RecvMeta,
        datagram: &[u8],
        marked: bool,
    ) -> bool {
        let Some(index) = data_index(datagram) else { return false };
        let known = ingress.last.as_ref().is_some_and(|last| last.session.index() == index);
        if !known {
            let Some(session) = self.sessions.get(index) else { return false };
            let network = self.known_by_network(session.peer().network());
            ingress.last = Some(Last { session, network, owned: None, reached: None, noted: false });
        }
        let Some(last) = &mut ingress.last else { return false };
        // Opened in place behind the pending segments, which saves a copy.
        let slot = ingress.coalescer.slot(datagram.len() - DATA_OVERHEAD);
        // Forged or replayed data of a known session must not take the control lock.
        let Ok(opened) = last.session.open(datagram, slot) else { return true };
        if !last.noted {
            last.noted = true;
            if last.session.note_received(self.clock.overlay(now), &meta) {
                // Control learns of the datagram before the packet is delivered, because it may be the first
                // one of a successor session.
                let why = Attention::received(meta, datagram.len(), opened);
                self.with_control(now, &mut ingress.batch, |endpoint, now| {
                    endpoint.session_attention(now, &last.session, why);
                });
            }
        }
        let length = match opened {
            Opened::Packet(length) => length,
            Opened::Control(length) => {
                let (session, message) = (Arc::clone(&last.session), slot[..length].to_vec());
                // Data that the peer sent before a control message (it may leave) must be delivered first.
                self.flush(now, ingress);
                self.with_control(now, &mut ingress.batch, |endpoint, now| {
                    endpoint.handle_control(now, &session, meta, &message);
                });
                return true;
            }
            Opened::Unknown(_) => {
                self.counters.inner_malformed.increment();
                return true;
            }
        };
        let packet = &slot[..length];
        let Some(source) = source_address(packet) else {
            self.counters.inner_malformed.increment();
            return true;
        };
        // A peer could otherwise forge another member's address.
        if last.owned != Some(source) {
            let peer = last.session.peer();
            if self.is_of(peer, source) {
                last.owned = Some(source);
            } else if !last.network.as_ref().is_some_and(|own| self.is_error_from_behind(own, peer, packet)) {
                self.counters.inner_source_not_owned.increment();
                return true;
            }
        }
        let Some(network) = &last.network else {
            self.counters.inner_no_network.increment();
            return true;
        };
        let interface = network.interface;
        let mut claim = Claim::Sockets;
        if network.device.is_some() {
            let destination = destination_address(packet);
            if last.reached.is_none() || last.reached != destination {
                // A device may route packets on, so peers must not reach more than this node's addresses
                // through it.
                if !destination.is_some_and(|to| to.is_multicast() || self.is_own(network, to)) {
                    self.counters.inner_not_for_device.increment();
                    return true;
                }
                last.reached = destination;
            }
            if !may_pass(packet, &network.ports) {
                self.counters.device_port_refused.increment();
                return true;
            }
            claim = self.stack.claim(interface, packet);
        }
        if network.guard.is_on() {
            let (peer, is_for_device) = (last.session.peer(), claim != Claim::Sockets);
            if self.refuses_incoming(now, network, peer, packet, is_for_device, &mut ingress.batch) {
                return true;
            }
        }
        if let Some(group) = group_of(packet) {
            self.note_group_packet(now, interface, last.session.peer(), (group, packet), &mut ingress.batch);
        }
        // A mark that cannot be passed on means loss, because the sender would not hear of the congestion
        // (RFC 6040).
        if marked && !ecn::mark(&mut slot[..length]) {
            self.counters.inner_congested.increment();
            return true;
        }
        if claim == Claim::Both {
            self.stack.receive(now, interface, &mut slot[..length].to_vec(), &mut ingress.batch);
        }
        let Ingress { coalescer, batch, device, .. } = ingress;
        let key = u64::from(interface.0);
        let flushed = match claim {
            Claim::Sockets => coalescer.commit(key, length),
            Claim::Other | Claim::Both => coalescer.commit_even(key | TO_DEVICE, length),
        };
        if let Some(flushed) = flushed {
            self.hand_over(now, flushed, device, batch);
        }
        true
    }

    /// Delivers a packet to the receiver of the interface's packets: the stack, or a device.
    fn hand_over(
        &self,
        now: Instant,
        flushed: Flushed<'_>,
        known: &mut Option<(InterfaceId, Arc<dyn Device>)>,
        batch: &mut Batch,
    ) {
        let interface = interface_of(&flushed);
        if flushed.key & TO_DEVICE == 0 {
            return self.stack.receive(now, interface, flushed.packet, batch);
        }
        if known.as_ref().is_none_or(|(of, _)| *of != interface) {
            let found = self.known_by_interface(interface).and_then(|network| network.device);
            *known = found.map(|device| (interface, device));
        }
        if let Some((_, device)) = known {
            device::deliver(&**device, flushed);
        }
    }

    fn flush(&self, now: Instant, ingress: &mut Ingress) {
        let Ingress { coalescer, batch, device, .. } = ingress;
        if let Some(flushed) = coalescer.flush() {
            self.hand_over(now, flushed, device, batch);
        }
    }
}

/// Returns the interface in the coalescer's key, which keeps packets of two networks apart.
fn interface_of(flushed: &Flushed<'_>) -> InterfaceId {
    InterfaceId(flushed.key as u32)
}

/// Returns the group that a packet is sent to, if any.
fn group_of(packet: &[u8]) -> Option<IpAddr> {
    destination_address(packet).filter(IpAddr::is_multicast)
}
