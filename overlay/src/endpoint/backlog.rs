//! Initiations that wait for the processor.
//!
//! Five X25519 operations take longer than a hundred data packets, so a crowd of newcomers must not delay the
//! sessions' data. A few initiations are handled as they come. The others wait here, and some of them are
//! handled whenever the driver has read its sockets ([`Endpoint::handle_timeout`]). So handshakes get the
//! processor time that data leaves over.
//!
//! [`Endpoint::handle_timeout`]: crate::Endpoint::handle_timeout

use std::collections::VecDeque;

use crate::reach::RecvMeta;
use crate::wire::Initiation;

/// Knowledge about an initiation's sender before its keys are checked, from the last in line to the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// The source may be forged.
    Unproven,
    /// A cookie shows that the sender receives at its source.
    Proven,
    /// The sender receives at its source, which is the path of a peer.
    Known,
}

/// Initiation that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) meta: RecvMeta,
    pub(super) datagram: Vec<u8>,
}

/// Queues of waiting initiations, one for each [`Standing`].
#[derive(Debug, Default)]
pub(super) struct Backlog([VecDeque<Waiting>; 3]);

/// Maximum number of waiting initiations per standing.
const MAX_WAITING: usize = 1024;

/// Number of waiting initiations from which cookies are required: some 100 ms of processor time.
// The rate does not matter then, because the processor is behind in any case.
const COOKIES_FROM_WAITING: usize = 512;

const _: () = assert!(3 * MAX_WAITING * Initiation::MAX <= 4 << 20, "memory that strangers can fill");

impl Backlog {
    /// Returns true if the processor is so far behind that forged sources would delay proven ones.
    pub(super) fn is_long(&self) -> bool {
        self.0.iter().map(VecDeque::len).sum::<usize>() >= COOKIES_FROM_WAITING
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(VecDeque::is_empty)
    }

    /// Queues an initiation. Returns false if there is no room. A new one replaces a waiting one of the same
    /// source, unless the source may be forged.
    pub(super) fn push(&mut self, standing: Standing, meta: RecvMeta, datagram: &[u8]) -> bool {
        let queue = &mut self.0[standing as usize];
        let waiting = Waiting { meta, datagram: datagram.to_vec() };
        let is_senders = |old: &&mut Waiting| old.meta.origin() == meta.origin();
        // A sender that repeats has given up its earlier initiation. A forger must not replace a victim's.
        if standing != Standing::Unproven
            && let Some(old) = queue.iter_mut().find(is_senders)
        {
            *old = waiting;
            return true;
        }
        // A full queue refuses the newcomer, so that a flood cannot push out those that wait.
        let has_room = queue.len() < MAX_WAITING;
        if has_room {
            queue.push_back(waiting);
        }
        has_room
    }

    /// Removes and returns the oldest initiation of the highest standing.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        // Known peers first: their sessions would otherwise end in a flood of strangers.
        self.0.iter_mut().rev().find_map(VecDeque::pop_front)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::reach::SocketIndex;

    fn from(port: u16) -> RecvMeta {
        let remote = SocketAddr::from(([192, 0, 2, 1], port));
        RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None }
    }

    #[test]
    fn who_is_known_goes_first_and_else_the_oldest() {
        let mut backlog = Backlog::default();
        let came = [
            (Standing::Unproven, 1),
            (Standing::Proven, 2),
            (Standing::Known, 3),
            (Standing::Proven, 4),
            (Standing::Known, 5),
        ];
        for (standing, port) in came {
            assert!(backlog.push(standing, from(port), b"initiation"));
        }
        let order: Vec<_> = std::iter::from_fn(|| backlog.pop()).map(|one| one.meta.remote.port()).collect();
        assert_eq!(order, [3, 5, 2, 4, 1]);
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_sender_that_receives_there_has_one_place_and_forgers_cannot_take_it() {
        let mut backlog = Backlog::default();
        assert!(backlog.push(Standing::Proven, from(1), b"first"));
        assert!(backlog.push(Standing::Proven, from(1), b"second"));
        assert!(backlog.push(Standing::Unproven, from(1), b"forged"));
        assert!(backlog.push(Standing::Unproven, from(1), b"forged too"));
        let all: Vec<_> = std::iter::from_fn(|| backlog.pop()).map(|one| one.datagram).collect();
        assert_eq!(all, [&b"second"[..], b"forged", b"forged too"]);
    }

    #[test]
    fn strangers_fill_no_more_than_their_own_queue() {
        let mut backlog = Backlog::default();
        let kept = (0..=u16::MAX).filter(|port| backlog.push(Standing::Unproven, from(*port), &[0; 198]));
        assert_eq!(kept.count(), MAX_WAITING);
        assert!(backlog.is_long());
        assert!(backlog.push(Standing::Proven, from(1), &[0; 198]));
        assert!(backlog.push(Standing::Known, from(1), &[0; 198]));
    }
}
