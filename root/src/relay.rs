//! Frames between two nodes: forwarded by their header, unread, unchanged except for that header.

use std::time::Instant;

use peersock_overlay::wire::{MessageType, NoticeCode, Relayed};

use crate::budget::{Budget, Nanos};
use crate::{Config, RelayPolicy, Root, Source};

/// Budgets of the frames that a node sends through the root.
#[derive(Debug)]
pub(crate) struct Budgets {
    /// Budget of every registered node for meeting another: handshakes and candidates.
    free: Budget,
    relay: Relay,
}

#[derive(Debug)]
enum Relay {
    Off,
    Limited { node: Budget, prefix: Budget },
    Unlimited,
}

/// Free bytes per second, and at once.
const FREE: Budget = Budget::new(2000, FREE_AT_ONCE);
const FREE_AT_ONCE: u32 = 16_000;

/// Limit of one notice per second that a node sends too much.
const OVER_RATE: Budget = Budget::new(1, 1);

/// Returns the budget of a rate, with a quarter of a second's worth at once, at least 256 KiB, which is a
/// burst of congestion control.
fn bytes(rate: u32) -> Budget {
    Budget::new(rate, (rate / 4).max(256 << 10))
}

impl Budgets {
    pub(crate) fn new(config: &Config) -> Self {
        let relay = match config.relay {
            RelayPolicy::Off => Relay::Off,
            RelayPolicy::Unlimited => Relay::Unlimited,
            RelayPolicy::Limited { per_node, per_prefix } => {
                Relay::Limited { node: bytes(per_node), prefix: bytes(per_prefix) }
            }
        };
        Self { free: FREE, relay }
    }

    /// Returns the bucket of a new node, which holds as much as the free share.
    pub(crate) fn new_relay(&self, at: Nanos) -> Nanos {
        match &self.relay {
            Relay::Limited { node, .. } => {
                // Not a whole burst, because a node that leaves and returns would get a new one each time.
                let mut full_at = at.saturating_add(node.depth());
                node.give(&mut full_at, FREE_AT_ONCE);
                full_at
            }
            Relay::Off | Relay::Unlimited => at,
        }
    }
}

impl Root {
    /// Relays a frame from one node to another: overwrites its header, and returns its destination. `None` if
    /// it goes nowhere; then there may be a notice to transmit.
    ///
    /// This is the fast path: no allocation, no system call, two table look-ups.
    #[inline]
    pub fn relay(&mut self, now: Instant, source: Source, frame: &mut [u8]) -> Option<Source> {
        let Ok((header, inner)) = Relayed::parse(frame) else {
            self.counters.relay_malformed.increment();
            return None;
        };
        if inner.is_empty() {
            self.counters.relay_malformed.increment();
            return None;
        }
        let (at, is_handshake) = (self.nanos(now), is_handshake(inner));
        let Some(from) = self.clients.by_source(&source) else {
            // A source that is no node has no session for a notice.
            self.counters.relay_unknown_source.increment();
            return None;
        };
        let to = self.clients.by_channel(header.channel);
        let (sender, prefix) = self.clients.sender(from)?;
        let Some(registered) = sender.registered else {
            self.counters.relay_unknown_source.increment();
            self.notice(from, NoticeCode::NotRegistered, 0, at);
            return None;
        };
        // The token protects the node's budget, not the content.
        if registered.token != header.token {
            // No notice here, because a wrong token may come from a forged source.
            self.counters.relay_unknown_source.increment();
            return None;
        }
        // The token is secret, so the frame shows that the node is there.
        (sender.heard, sender.heard_at_path) = (at, at);
        let buckets = &mut sender.buckets;
        let paid = match (&self.budgets.relay, prefix) {
            (Relay::Unlimited, _) => true,
            (Relay::Limited { node, prefix: shared }, Some(prefix)) => {
                // The node's bucket is checked before the prefix pays, so that a refused frame costs its
                // neighbours nothing.
                let fits = node.has(buckets.relay, frame.len(), at)
                    && shared.take(&mut prefix.relay, frame.len(), at);
                fits && node.take(&mut buckets.relay, frame.len(), at)
            }
            (Relay::Limited { .. } | Relay::Off, _) => false,
        };
        // If nothing else is relayed, the free share covers all that is needed to meet. If the relay share is
        // used up, bulk data must not use up the free one as well.
        let is_free = is_handshake || matches!(self.budgets.relay, Relay::Off);
        if !(paid || is_free && self.budgets.free.take(&mut buckets.free, frame.len(), at)) {
            self.counters.relay_over_rate.increment();
            if OVER_RATE.take(&mut buckets.over_rate, 1, at) {
                self.notice(from, NoticeCode::OverRate, header.channel.0, at);
            }
            return None;
        }
        let receiver = to.and_then(|to| self.clients.get(to));
        let place = receiver.and_then(|client| Some((client.present(at)?.token, client.path()?)));
        let Some((token, path)) = place else {
            self.counters.relay_no_channel.increment();
            self.notice(from, NoticeCode::NoChannel, header.channel.0, at);
            return None;
        };
        // The receiver gets the sender's channel, so that its answer finds the way back.
        frame[..Relayed::LEN].copy_from_slice(&Relayed { token, channel: registered.channel }.to_bytes());
        self.counters.relayed.increment();
        self.counters.relayed_bytes.add(frame.len() as u64);
        Some(path)
    }
}

/// Returns true if a datagram is part of a handshake between two nodes.
fn is_handshake(datagram: &[u8]) -> bool {
    use MessageType::{CookieReply, Initiation, Response, StaleReply, UnknownSession};
    matches!(
        MessageType::of(datagram),
        Some(Initiation | Response | CookieReply | StaleReply | UnknownSession)
    )
}
