//! Path checks for datagrams without an answer, because no protocol above them tests the path as TCP does.
//! The interval of the checks doubles for a silent peer, so one that does not answer costs little.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use peersock_overlay::{Lookup, Peer, SizeState};
use peersock_primitives::sync;
use peersock_stack::{Batch, Error};

use crate::Datapath;
use crate::events::owned;
use crate::networks::JoinedNetwork;
use crate::socket::PeerLink;

/// Delay of the first check after a datagram.
const FIRST_CHECK_DELAY: Duration = Duration::from_secs(1);

/// Silence below which a peer counts as present. Less than [`FIRST_CHECK_DELAY`] because the overlay's times
/// are rounded.
const PRESENT_SILENCE: Duration = Duration::from_millis(500);

/// Limit of doublings: each check without an answer doubles the delay of the next one, up to 64 seconds.
const MAX_DOUBLINGS: u32 = 6;

/// Limit of peers with a pending check; no further peer is added until one was checked.
const MAX_PENDING_CHECKS: usize = 4096;

/// State of the checks of one peer: whether one is pending, and how many in a row found silence.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    is_due: AtomicBool,
    in_vain: AtomicU32,
}

/// Peers with a pending check, and when it is due.
#[derive(Default)]
pub(super) struct Doubts(Mutex<Queue>);

/// Peers by due time, and by number where the times are equal.
#[derive(Default)]
struct Queue {
    by_time: BTreeMap<(Instant, u64), Weak<Peer>>,
    numbered: u64,
}

impl Doubts {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.lock().by_time.first_key_value().map(|((at, _), _)| *at)
    }

    /// Adds a peer; returns false if the queue is full.
    fn add(&self, at: Instant, peer: Weak<Peer>) -> bool {
        let mut queue = self.lock();
        let has_room = queue.by_time.len() < MAX_PENDING_CHECKS;
        if has_room {
            // Several peers may have the same time, and an entry must not replace another peer's.
            let number = queue.numbered;
            queue.numbered += 1;
            queue.by_time.insert((at, number), peer);
        }
        has_room
    }

    fn take_due(&self, now: Instant) -> Vec<Arc<Peer>> {
        let mut queue = self.lock();
        let mut due = Vec::new();
        // All at once, so that the lock is free again before control's lock is taken.
        while let Some(first) = queue.by_time.first_entry().filter(|first| first.key().0 <= now) {
            due.extend(first.remove().upgrade());
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        sync::lock(&self.0)
    }
}

impl Datapath {
    /// Schedules a check because a datagram has left for a peer.
    pub(super) fn doubt_later(&self, now: Instant, peer: &Arc<Peer>) {
        let doubt = &PeerLink::of(peer).doubt;
        // The load spares most datagrams a write to a shared cache line.
        if doubt.is_due.load(Ordering::Relaxed) || doubt.is_due.swap(true, Ordering::Relaxed) {
            return;
        }
        let at = now + FIRST_CHECK_DELAY * (1 << doubt.in_vain.load(Ordering::Relaxed).min(MAX_DOUBLINGS));
        // Weak, so that a pending check does not keep a removed peer.
        match self.doubts.add(at, Arc::downgrade(peer)) {
            true => self.sink.wake_at(at),
            false => doubt.is_due.store(false, Ordering::Relaxed),
        }
    }

    /// Checks peers that have sent nothing since a datagram was sent to them.
    pub(super) fn look_at_doubts(&self, now: Instant, batch: &mut Batch) {
        for peer in self.doubts.take_due(now) {
            let doubt = &PeerLink::of(&peer).doubt;
            doubt.is_due.store(false, Ordering::Relaxed);
            let silence = peer.unanswered(self.overlay_time(now)).unwrap_or_default();
            // A peer that is heard has a path that works, and a probe would cost a packet each way.
            if silence < PRESENT_SILENCE {
                doubt.in_vain.store(0, Ordering::Relaxed);
                continue;
            }
            // Each check in vain makes the next one later, so an absent peer costs less and less.
            doubt.in_vain.fetch_add(1, Ordering::Relaxed);
            let state = self.with_control(now, batch, |endpoint, now| {
                endpoint.confirm_size(now, &peer);
                endpoint.size_state(now, &peer)
            });
            if state == Some(SizeState::TooSmall) {
                self.fail_datagrams(&peer, batch);
            }
        }
    }

    /// Fails sockets that send datagrams to a peer whose path carries too little.
    pub(super) fn fail_datagrams(&self, peer: &Peer, batch: &mut Batch) {
        if let Some(interface) = self.interface_by_network(peer.network()) {
            self.stack.fail_datagrams(interface, &owned(peer), Error::MessageSize, batch);
        }
    }

    /// Returns the state of the datagram size of the path to an address; with `confirm`, tests it. Returns
    /// `None` if no peer with a path has the address.
    pub fn size_state(
        &self,
        now: Instant,
        network: &JoinedNetwork,
        address: IpAddr,
        confirm: bool,
    ) -> Option<SizeState> {
        let Lookup::Peer(peer) = self.find(now, network, address) else { return None };
        let mut batch = Batch::default();
        let state = self.with_control(now, &mut batch, |endpoint, now| {
            if confirm {
                endpoint.confirm_size(now, &peer);
            }
            endpoint.size_state(now, &peer)
        });
        self.settle(now, &mut batch);
        state
    }
}
