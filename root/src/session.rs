use peersock_overlay::noise::SessionKeys;
use peersock_overlay::wire::{DATA_OVERHEAD, Data};
use peersock_overlay::{Provider, SessionIndex, Suite};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::budget::Nanos;

/// Session with a node as the root keeps it: the keys as bytes, counters, and a window of 64 packets.
///
/// A node in `overlay` keeps an expanded cipher and a window of 8192, for bulk data. A root gets a packet of
/// each client every few seconds, so it expands the key for each packet.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Session {
    send: [u8; 32],
    receive: [u8; 32],
    /// Counter of the next packet.
    next: u64,
    #[zeroize(skip)]
    window: Window,
    #[zeroize(skip)]
    suite: Suite,
    /// Index chosen by the root.
    #[zeroize(skip)]
    pub(crate) index: SessionIndex,
    #[zeroize(skip)]
    remote_index: SessionIndex,
    #[zeroize(skip)]
    pub(crate) established: Nanos,
}

/// Counter value that neither side reaches.
const COUNTER_LIMIT: u64 = 1 << 60;

/// Lifetime of a session.
pub(crate) const SESSION_LIFETIME: Nanos = 180_000_000_000;

impl Session {
    pub(crate) fn new(keys: &SessionKeys, now: Nanos) -> Self {
        Self {
            send: keys.send,
            receive: keys.receive,
            next: 0,
            window: Window::default(),
            suite: keys.suite,
            index: keys.index,
            remote_index: keys.remote_index,
            established: now,
        }
    }

    pub(crate) fn expires(&self) -> Nanos {
        self.established.saturating_add(SESSION_LIFETIME)
    }

    /// Authenticates a packet and writes its plaintext to `out`. Returns `None` if it is not authentic, or a
    /// replay; `out` is then undefined.
    pub(crate) fn open(&mut self, provider: &dyn Provider, data: &Data<'_>, out: &mut Vec<u8>) -> Option<()> {
        if !self.window.may_be_new(data.counter) {
            return None;
        }
        let key = provider.key(self.suite, &self.receive)?;
        out.clear();
        out.resize(data.sealed.len() - (DATA_OVERHEAD - peersock_overlay::DATA_HEADER), 0);
        key.open(data.counter, data.sealed, out).ok()?;
        // Only an authentic packet moves the window, because a forged counter would shut out real packets.
        self.window.mark(data.counter);
        Some(())
    }

    /// Seals a plaintext into a datagram; returns `None` if the key is used up.
    pub(crate) fn seal(&mut self, provider: &dyn Provider, plaintext: &[u8]) -> Option<Vec<u8>> {
        if self.next >= COUNTER_LIMIT {
            return None;
        }
        let key = provider.key(self.suite, &self.send)?;
        let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
        Data::write_header(&mut datagram, self.remote_index, self.next);
        key.seal(self.next, plaintext, &mut datagram[peersock_overlay::DATA_HEADER..]);
        self.next += 1;
        Some(datagram)
    }
}

/// Replay window: the received ones of the last 64 counters.
#[derive(Debug, Default, Clone, Copy)]
struct Window {
    /// Highest counter plus one, 0 before any.
    next: u64,
    /// Bit n is set if the counter `next - 1 - n` was received.
    seen: u64,
}

impl Window {
    fn may_be_new(&self, counter: u64) -> bool {
        // No sender gets there, and the additions below cannot overflow.
        if counter >= COUNTER_LIMIT {
            return false;
        }
        match self.next.checked_sub(counter + 1) {
            None => true,
            // An older counter than the window holds may be a replay.
            Some(back) => back < 64 && self.seen & (1 << back) == 0,
        }
    }

    fn mark(&mut self, counter: u64) {
        match (counter + 1).checked_sub(self.next) {
            Some(ahead) if ahead > 0 => {
                self.seen = if ahead < 64 { self.seen << ahead } else { 0 } | 1;
                self.next = counter + 1;
            }
            _ => self.seen |= 1 << (self.next - 1 - counter),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(steps in prop::collection::vec((0u64..80, any::<bool>()), 1..300)) {
            let (mut window, mut seen, mut at) = (Window::default(), BTreeSet::new(), 0u64);
            for (step, back) in steps {
                at = if back { at.saturating_sub(step) } else { at + step };
                let highest = seen.last().copied().unwrap_or(0);
                let expected = !seen.contains(&at) && at + 64 > highest;
                prop_assert_eq!(window.may_be_new(at), expected, "counter {}", at);
                if expected {
                    window.mark(at);
                    seen.insert(at);
                }
            }
        }
    }

    #[test]
    fn counters_at_the_limit_are_refused() {
        assert!(!Window::default().may_be_new(COUNTER_LIMIT));
        assert!(!Window::default().may_be_new(u64::MAX));
    }
}
