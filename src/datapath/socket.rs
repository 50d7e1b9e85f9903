//! What the node keeps for each socket of the stack: who waits for it, where its packets go, and its send stage.

use std::any::Any;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};

use peersock_overlay::Peer;

use super::Route;
use super::membership::Reported;
use super::multicast::Asked;
use crate::wait::Waiters;

/// The node's share of one socket's state.
#[derive(Default)]
pub struct SocketState {
    pub(crate) waiters: Waiters,
    /// Where packets to this address went last.
    route: Mutex<Option<(IpAddr, Route)>>,
    stage: Stage,
    /// Bytes in flight that this flow has reported to its peer's [`PeerLink`].
    reported: AtomicI64,
    /// The largest packet that it wants to send, bytes; 0 for what the path takes.
    largest_packet: AtomicUsize,
}

impl SocketState {
    /// The state kept in a socket's context slot, made on first use.
    pub(crate) fn of(context: &OnceLock<Arc<dyn Any + Send + Sync>>) -> &SocketState {
        context
            .get_or_init(|| Arc::new(SocketState::default()))
            .downcast_ref()
            .expect("only the data path fills the contexts of sockets")
    }

    /// Has packets that are larger than so many bytes be sent in fragments, whatever the path takes:
    /// IPV6_USE_MIN_MTU.
    pub(crate) fn set_largest_packet(&self, bytes: Option<usize>) {
        self.largest_packet.store(bytes.unwrap_or(0), Ordering::Relaxed);
    }

    /// What packets of this socket may have of bytes where the path takes `mtu`.
    pub(crate) fn limit(&self, mtu: usize) -> usize {
        match self.largest_packet.load(Ordering::Relaxed) {
            0 => mtu,
            largest => largest.min(mtu),
        }
    }

    pub(super) fn is_limited(&self) -> bool {
        self.largest_packet.load(Ordering::Relaxed) != 0
    }

    pub(super) fn route(&self, destination: IpAddr) -> Option<Route> {
        let cached = self.lock_route();
        cached.as_ref().filter(|(address, _)| *address == destination).map(|(_, route)| route.clone())
    }

    pub(super) fn set_route(&self, destination: IpAddr, route: Option<&Route>) {
        *self.lock_route() = route.map(|route| (destination, route.clone()));
    }

    fn lock_route(&self) -> MutexGuard<'_, Option<(IpAddr, Route)>> {
        self.route.lock().expect("no panic under this lock")
    }

    pub(super) fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Tells the peer's link how many bytes this flow has in flight now; returns what all its flows have.
    pub(super) fn report_in_flight(&self, link: &PeerLink, now: usize) -> usize {
        let now = now as i64;
        let change = now - self.reported.swap(now, Ordering::Relaxed);
        let total = link.in_flight.fetch_add(change, Ordering::Relaxed) + change;
        total.max(0) as usize
    }
}

impl std::fmt::Debug for SocketState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketState").finish_non_exhaustive()
    }
}

/// Keeps one flow's segments in order while any thread may send them: one thread at a time works, for all.
///
/// Nobody waits. Who finds the stage taken leaves a note, and the holder looks for notes before and after it leaves.
#[derive(Debug, Default)]
pub(super) struct Stage {
    taken: Mutex<()>,
    note: AtomicBool,
}

impl Stage {
    /// Runs `work` until no thread has asked for it since it last began, unless another thread is already doing so.
    pub(super) fn run(&self, mut work: impl FnMut()) {
        self.note.store(true, Ordering::SeqCst);
        while self.note.load(Ordering::SeqCst) {
            match self.taken.try_lock() {
                Ok(_held) => {
                    self.note.store(false, Ordering::SeqCst);
                    work();
                }
                // The holder sees the note when it is done.
                Err(TryLockError::WouldBlock) => return,
                Err(TryLockError::Poisoned(_)) => unreachable!("work does not panic"),
            }
        }
    }
}

/// What the data path keeps for each peer.
#[derive(Debug, Default)]
pub(super) struct PeerLink {
    /// Unacknowledged bytes of all flows to the peer.
    in_flight: AtomicI64,
    /// When a packet to a group asked for a session.
    pub(super) asked: Asked,
    /// Which groups it wants.
    pub(super) reported: Reported,
}

impl PeerLink {
    /// The link kept in a peer's context slot, made on first use.
    pub(super) fn of(peer: &Peer) -> &PeerLink {
        peer.context()
            .get_or_init(|| Arc::new(PeerLink::default()))
            .downcast_ref()
            .expect("only the data path fills the contexts of peers")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_note_left_while_the_stage_is_taken_is_worked_off_by_its_holder() {
        let stage = Stage::default();
        let runs = AtomicUsize::new(0);
        stage.run(|| {
            if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                stage.run(|| panic!("the stage is taken"));
            }
        });
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn every_request_from_many_threads_is_followed_by_work() {
        let stage = Stage::default();
        let asked = AtomicUsize::new(0);
        let seen = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        asked.fetch_add(1, Ordering::SeqCst);
                        stage.run(|| seen.store(asked.load(Ordering::SeqCst), Ordering::SeqCst));
                    }
                });
            }
        });
        assert_eq!(seen.load(Ordering::SeqCst), 40_000);
    }
}
