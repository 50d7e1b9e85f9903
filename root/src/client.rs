use std::time::Duration;

use peersock_overlay::noise::Timestamp;
use peersock_overlay::wire::{Channel, Entry, Registration, RelayToken};
use peersock_overlay::{NodeId, PublicIdentity, SessionIndex};

use crate::Source;
use crate::budget::Nanos;
use crate::roaming::Outstanding;
use crate::room::Worth;
use crate::session::Session;

/// A node that has a session with the root, or is registered, or both.
pub(crate) struct Client {
    pub(crate) id: NodeId,
    pub(crate) identity: PublicIdentity,
    /// Of its initiations.
    pub(crate) newest: Timestamp,
    /// Where it has last shown that it receives. Without this it is not counted among the nodes, and gets
    /// nothing but answers.
    pub(crate) place: Option<Source>,
    /// It was there and is registered, but its stream has ended, or another node is there now.
    pub(crate) is_away: bool,
    /// When something authentic came from it last, a relayed frame included.
    pub(crate) heard: Nanos,
    /// The same from where it has shown that it receives.
    pub(crate) heard_at_path: Nanos,
    /// By which it stands in the order of those that give way, if it does.
    pub(crate) filed: Nanos,
    /// What it has sent on last, the one before, and those that it has not used yet.
    pub(crate) current: Option<Box<Session>>,
    pub(crate) previous: Option<Box<Session>>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) challenge: Option<Box<Outstanding>>,
    pub(crate) registered: Option<Registered>,
    /// Of its last registration, which must not come again in the same session.
    pub(crate) sequence: u64,
    /// When the session was made in which that came.
    pub(crate) sequence_since: Nanos,
    /// When the session was made in which its last claim of a nickname came, and that claim's sequence.
    pub(crate) nicknames: (Nanos, u64),
    pub(crate) buckets: Buckets,
    /// When it is to be looked at; what the table of deadlines has.
    pub(crate) deadline: Nanos,
}

/// A response that the node has not used yet, and where it went: who uses it has received it there.
pub(crate) struct Pending {
    pub(crate) session: Session,
    pub(crate) source: Source,
}

/// What a node has while it can be found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registered {
    pub(crate) registration: Registration,
    pub(crate) channel: Channel,
    pub(crate) token: RelayToken,
    pub(crate) expires: Nanos,
}

/// When each of the node's buckets is full again.
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
    /// The notice that the budget is used up has an interval of its own.
    pub(crate) over_rate: Nanos,
    pub(crate) free: Nanos,
    pub(crate) relay: Nanos,
}

/// Answered handshakes of one node that it has not used yet.
pub(crate) const MAX_PENDING: usize = 4;

/// How long they are kept.
pub(crate) const PENDING_LIFETIME: Nanos = Duration::from_secs(12).as_nanos() as Nanos;

/// A node that says nothing for so long is not there: it has missed three keepalives.
pub(crate) const SILENCE: Nanos = Duration::from_secs(90).as_nanos() as Nanos;

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

    /// Where it receives.
    pub(crate) fn path(&self) -> Option<Source> {
        self.place.filter(|_| !self.is_away)
    }

    /// Whether it counts as a node: it has shown that it receives somewhere.
    pub(crate) fn is_node(&self) -> bool {
        self.place.is_some()
    }

    /// What is lost with it, if it may give way.
    pub(crate) fn worth(&self) -> Option<Worth> {
        match (&self.registered, self.is_away) {
            (None, _) => Some(Worth::Unregistered),
            (Some(_), true) => Some(Worth::Away),
            (Some(_), false) => None,
        }
    }

    /// Its registration, if it is registered and has lately been heard of.
    pub(crate) fn present(&self, now: Nanos) -> Option<&Registered> {
        let registered = self.registered.as_ref()?;
        (now < registered.expires && now < self.heard.saturating_add(SILENCE)).then_some(registered)
    }

    /// What is told to whoever looks it up.
    pub(crate) fn entry(&self, now: Nanos) -> Option<Entry> {
        let Registered { registration, channel, .. } = *self.present(now)?;
        Some(Entry { identity: self.identity, channel, registration })
    }

    /// The same with the seconds for which it stays, at least 1.
    pub(crate) fn entry_for(&self, now: Nanos) -> Option<(Entry, u32)> {
        let left = self.present(now)?.expires.saturating_sub(now).div_ceil(1_000_000_000);
        Some((self.entry(now)?, u32::try_from(left).unwrap_or(u32::MAX)))
    }

    /// The session of that index; true if it has been used before.
    pub(crate) fn session(&mut self, index: SessionIndex) -> Option<(&mut Session, bool)> {
        let used = [&mut self.current, &mut self.previous].into_iter().flatten();
        let used = used.map(|session| (&mut **session, true));
        let unused = self.pending.iter_mut().map(|pending| (&mut pending.session, false));
        used.chain(unused).find(|(session, _)| session.index == index)
    }

    /// Takes out what is too old, for its index to be given free.
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
            self.pending = Vec::new();
        }
        gone
    }

    /// All indices of its sessions.
    pub(crate) fn indices(&self) -> Vec<SessionIndex> {
        let used = [&self.current, &self.previous].into_iter().flatten().map(|session| session.index);
        used.chain(self.pending.iter().map(|pending| pending.session.index)).collect()
    }

    /// When something of it runs out next.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        let used = [&self.current, &self.previous].into_iter().flatten().map(|session| session.expires());
        let unused = self.pending.iter().map(|pending| pending.session.established + PENDING_LIFETIME);
        let registered = self.registered.iter().map(|registered| registered.expires);
        used.chain(unused).chain(registered).min()
    }
}
