use std::time::Duration;

use peersock_overlay::noise::Timestamp;
use peersock_overlay::wire::{Channel, Entry, Registration, RelayToken};
use peersock_overlay::{NodeId, PublicIdentity, SessionIndex};

use crate::Source;
use crate::budget::Nanos;
use crate::eviction::{ABSENT_SILENCE, Worth};
use crate::roaming::Outstanding;
use crate::session::Session;

/// Node that has a session with the root, or is registered, or both.
pub(crate) struct Client {
    pub(crate) id: NodeId,
    pub(crate) identity: PublicIdentity,
    /// Timestamp of its newest initiation.
    pub(crate) newest: Timestamp,
    /// Place where it has last shown that it receives. Without one it does not count as a node, and gets only
    /// answers.
    pub(crate) place: Option<Source>,
    /// True if it is registered, but its stream has ended, or another node has its place now.
    pub(crate) is_away: bool,
    /// Time of the last authentic packet from it, including relayed frames.
    pub(crate) heard: Nanos,
    /// Time of the last authentic packet from its place.
    pub(crate) heard_at_path: Nanos,
    /// Time by which it is sorted in the eviction order, if it is there.
    pub(crate) filed: Nanos,
    /// Its last used session, the one before, and the sessions that it has not used yet.
    pub(crate) current: Option<Box<Session>>,
    pub(crate) previous: Option<Box<Session>>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) challenge: Option<Box<Outstanding>>,
    pub(crate) registered: Option<Registered>,
    /// Sequence of its last registration, which must not be repeated in the same session.
    pub(crate) sequence: u64,
    /// Creation time of the session in which that registration came.
    pub(crate) sequence_since: Nanos,
    /// Creation time of the session of its last nickname claim, and that claim's sequence.
    pub(crate) nicknames: (Nanos, u64),
    pub(crate) buckets: Buckets,
    /// Next expiry, equal to its entry in the table of deadlines.
    pub(crate) deadline: Nanos,
}

/// Response that the node has not used yet, and its destination: a node that uses the session has received
/// the response there.
pub(crate) struct Pending {
    pub(crate) session: Session,
    pub(crate) source: Source,
}

/// State of a node that can be found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registered {
    pub(crate) registration: Registration,
    pub(crate) channel: Channel,
    pub(crate) token: RelayToken,
    pub(crate) expires: Nanos,
}

/// Times at which the node's buckets are full again.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Buckets {
    pub(crate) stale_replies: Nanos,
    pub(crate) handshakes: Nanos,
    pub(crate) cookies: Nanos,
    pub(crate) registrations: Nanos,
    pub(crate) vouchers: Nanos,
    pub(crate) look_ups: Nanos,
    pub(crate) nicknames: Nanos,
    pub(crate) notices: Nanos,
    /// Interval of the notice that the budget is used up.
    pub(crate) over_rate: Nanos,
    pub(crate) free: Nanos,
    pub(crate) relay: Nanos,
}

/// Limit of answered handshakes of one node that it has not used yet.
pub(crate) const MAX_PENDING: usize = 4;

/// Lifetime of such handshakes.
pub(crate) const PENDING_LIFETIME: Nanos = Duration::from_secs(12).as_nanos() as Nanos;

impl Client {
    pub(crate) fn new(identity: PublicIdentity, newest: Timestamp) -> Self {
        Self {
            id: identity.node_id(),
            identity,
            newest,
            place: None,
            is_away: false,
            filed: 0,
            heard: 0,
            heard_at_path: 0,
            current: None,
            previous: None,
            pending: Vec::new(),
            challenge: None,
            registered: None,
            sequence: 0,
            sequence_since: 0,
            nicknames: (0, 0),
            buckets: Buckets::default(),
            deadline: Nanos::MAX,
        }
    }

    /// Returns the place where it receives.
    pub(crate) fn path(&self) -> Option<Source> {
        self.place.filter(|_| !self.is_away)
    }

    /// Returns true if it counts as a node: it has shown that it receives somewhere.
    pub(crate) fn is_node(&self) -> bool {
        self.place.is_some()
    }

    /// Returns the loss if it is evicted, unless it must stay.
    pub(crate) fn worth(&self) -> Option<Worth> {
        match (&self.registered, self.is_away) {
            (None, _) => Some(Worth::Unregistered),
            (Some(_), true) => Some(Worth::Away),
            (Some(_), false) => None,
        }
    }

    /// Returns its registration, if it is registered and was heard lately.
    pub(crate) fn present(&self, now: Nanos) -> Option<&Registered> {
        let registered = self.registered.as_ref()?;
        (now < registered.expires && now < self.heard.saturating_add(ABSENT_SILENCE)).then_some(registered)
    }

    /// Returns the answer to a look-up.
    pub(crate) fn entry(&self, now: Nanos) -> Option<Entry> {
        let Registered { registration, channel, .. } = *self.present(now)?;
        Some(Entry { identity: self.identity, channel, registration })
    }

    /// Returns the answer to a look-up with the remaining seconds, at least 1.
    pub(crate) fn entry_for(&self, now: Nanos) -> Option<(Entry, u32)> {
        let left = self.present(now)?.expires.saturating_sub(now).div_ceil(1_000_000_000);
        Some((self.entry(now)?, u32::try_from(left).unwrap_or(u32::MAX)))
    }

    /// Returns the session with an index, and true if it has been used before.
    pub(crate) fn session(&mut self, index: SessionIndex) -> Option<(&mut Session, bool)> {
        let used = [&mut self.current, &mut self.previous].into_iter().flatten();
        let used = used.map(|session| (&mut **session, true));
        let unused = self.pending.iter_mut().map(|pending| (&mut pending.session, false));
        used.chain(unused).find(|(session, _)| session.index == index)
    }

    /// Removes expired sessions, and returns their indices for reuse.
    pub(crate) fn take_expired(&mut self, now: Nanos) -> Vec<SessionIndex> {
        let mut gone = Vec::new();
        for slot in [&mut self.current, &mut self.previous] {
            gone.extend(slot.take_if(|session| now >= session.expires()).map(|session| session.index));
        }
        self.pending.retain(|Pending { session, .. }| {
            let stays = now < session.established.saturating_add(PENDING_LIFETIME);
            if !stays {
                gone.push(session.index);
            }
            stays
        });
        if self.pending.is_empty() {
            // Frees the memory, because a root has at most 1 KiB per node.
            self.pending = Vec::new();
        }
        gone
    }

    /// Returns all indices of its sessions.
    pub(crate) fn indices(&self) -> Vec<SessionIndex> {
        let used = [&self.current, &self.previous].into_iter().flatten().map(|session| session.index);
        used.chain(self.pending.iter().map(|pending| pending.session.index)).collect()
    }

    /// Returns the time of its next expiry.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        let used = [&self.current, &self.previous].into_iter().flatten().map(|session| session.expires());
        let unused = self.pending.iter().map(|pending| pending.session.established + PENDING_LIFETIME);
        let registered = self.registered.iter().map(|registered| registered.expires);
        used.chain(unused).chain(registered).min()
    }
}
