//! Nodes' handshakes: initiations, from the cheapest check to the dearest (docs/reference/PROTOCOL.md,
//! section 5).

use std::time::Instant;

use peersock_overlay::load::Admission;
use peersock_overlay::noise::{MacWriter, Received, ResponsePayload};
use peersock_overlay::wire::Initiation;
use peersock_overlay::{NetworkId, Psk, SessionIndex, Suite, SuiteSet};
use rand::RngExt;

use crate::budget::{Budget, Nanos};
use crate::client::{Buckets, Client, MAX_PENDING, PENDING_LIFETIME, Pending};
use crate::clients::Slot;
use crate::session::Session;
use crate::{Root, Source};

/// Stale replies per second and burst of one node.
const STALE_REPLIES: Budget = Budget::new(4, 8);

/// Initiations of one known node from where it receives, and cookies sent there, once strangers have used up
/// the common budget. So a flood ends no session. A node needs one of each in two minutes.
const OF_KNOWN: Budget = Budget::new(1, 5);

/// Minimum interval between answers to a node that has [`MAX_PENDING`] unused sessions; each answer replaces
/// one of them.
const ANSWER_INTERVAL: u64 = 200_000_000;

impl Root {
    pub(crate) fn on_initiation(&mut self, now: Instant, source: Source, datagram: &[u8]) {
        let Ok(initiation) = Initiation::parse(datagram) else {
            return self.counters.handshake_malformed.increment();
        };
        // The cheapest check: only senders that know this root's ID pass.
        if !self.cookies.check_mac1(datagram) {
            return self.counters.mac1_invalid.increment();
        }
        // Replays are dropped before the load check, so that they use up no budget.
        if self.recent.contains(datagram) {
            return self.counters.initiations_replayed.increment();
        }
        // A cookie is a keyed hash of the address, without a connection's number. A client on another
        // connection from the same port has received the cookie as well.
        let (at, known) = (self.nanos(now), self.clients.by_source(&source));
        let (cookies, clients) = (&self.cookies, &mut self.clients);
        let mut take_known = |bucket: fn(&mut Buckets) -> &mut Nanos| {
            let client = known.and_then(|slot| clients.get_mut(slot));
            client.is_some_and(|client| OF_KNOWN.take(bucket(&mut client.buckets), 1, at))
        };
        let mut has_cookie = false;
        let check_cookie = || {
            has_cookie = cookies.check_mac2(now, source.remote(), datagram);
            has_cookie
        };
        let admission = self
            .load
            .admit(source.remote(), now, check_cookie, || take_known(|buckets| &mut buckets.handshakes));
        match admission {
            Admission::Accept => {}
            // Strangers may have used up the budget of all, so a known node still gets a cookie.
            Admission::Refuse if has_cookie || !take_known(|buckets| &mut buckets.cookies) => {
                return self.counters.handshakes_refused.increment();
            }
            Admission::Refuse | Admission::DemandCookie => {
                let Some(nonce) = self.random() else { return };
                let reply = self.cookies.reply(now, source.remote(), datagram, initiation.sender, nonce);
                let mut out = Vec::new();
                reply.iter().for_each(|reply| reply.emit(&mut out));
                self.counters.cookies_sent.increment();
                self.outbox.answer(&self.counters, source, out);
                return;
            }
        }
        let Ok(received) = Received::read(&self.config.identity, datagram) else {
            return self.counters.handshake_unauthentic.increment();
        };
        // Only authentic initiations, so that forged ones cannot displace them.
        self.recent.insert(datagram);
        if received.payload().network != NetworkId::ROOTS {
            return self.counters.strangers_refused.increment();
        }
        self.accept(now, source, received);
    }

    /// Creates a session if the initiation is new and the table has room. The sender holds the key that it
    /// names.
    fn accept(&mut self, now: Instant, source: Source, received: Received) {
        let (at, timestamp) = (self.nanos(now), received.payload().timestamp);
        let slot = match self.clients.by_id(&received.initiator().node_id()) {
            Some(slot) => slot,
            None => {
                // Forged addresses can add as many strangers as initiations are accepted in a pending
                // session's lifetime, once without and once with a cookie.
                let limits = &self.config.limits;
                let waiting =
                    (PENDING_LIFETIME / 1_000_000_000) as usize * limits.handshakes_per_second as usize;
                let most = 2 * (waiting + limits.handshake_burst as usize);
                if self.clients.unproven() >= most.min(limits.nodes) {
                    return self.counters.handshakes_refused.increment();
                }
                self.clients.insert(Client::new(*received.initiator(), timestamp))
            }
        };
        let Some(client) = self.clients.get_mut(slot) else { return };
        let is_known = client.current.is_some() || !client.pending.is_empty() || client.registered.is_some();
        // A timestamp that is not newer may be a replay; a node whose clock went back learns the newest one.
        if is_known && timestamp <= client.newest {
            let newest = client.newest;
            let may_answer = STALE_REPLIES.take(&mut client.buckets.stale_replies, 1, at);
            self.counters.initiations_stale.increment();
            if may_answer && let Some(nonce) = self.random() {
                let mut reply = Vec::new();
                received.stale_reply(newest, nonce).emit(&mut reply);
                self.outbox.answer(&self.counters, source, reply);
            }
            return;
        }
        client.newest = timestamp;
        if self.respond(now, source, slot, received).is_none() && !self.clients.schedule(slot) {
            self.clients.remove(slot);
        }
    }

    fn respond(&mut self, now: Instant, source: Source, slot: Slot, received: Received) -> Option<()> {
        let at = self.nanos(now);
        let client = self.clients.get_mut(slot)?;
        let (id, mut gone) = (client.id, client.take_expired(at));
        if client.pending.len() >= MAX_PENDING {
            let last = client.pending.last().map_or(0, |pending| pending.session.established);
            if at < last.saturating_add(ANSWER_INTERVAL) {
                self.clients.free_indices(gone);
                self.counters.handshakes_refused.increment();
                return None;
            }
            // The first answer stays, because it arrives first and is used first, however long the path.
            gone.push(client.pending.remove(1).session.index);
        }
        self.clients.free_indices(gone);
        let Some(suite) = choose(self.config.provider.suites(), received.payload().suites) else {
            self.counters.suites_unsupported.increment();
            return None;
        };
        let index = self.free_index()?;
        let Ok(ephemeral) = self.keys.draw() else {
            self.counters.entropy_failures.increment();
            return None;
        };
        let answer = ResponsePayload {
            instance: self.instance,
            receive_buffer: self.config.receive_buffer,
            question: None,
        };
        let mut response = Vec::new();
        let keys = received.respond(&Psk::open(), *ephemeral, index, suite, &answer, &mut response).ok()?;
        MacWriter::new(&id).append(now, &mut response);
        self.clients.set_index(index, slot);
        let client = self.clients.get_mut(slot)?;
        client.pending.push(Pending { session: Session::new(&keys, at), source });
        self.clients.schedule(slot);
        self.counters.handshakes_answered.increment();
        tracing::debug!(node = %id, to = %source, "initiation answered");
        self.outbox.answer(&self.counters, source, response);
        Some(())
    }

    /// Returns an unused session index. Few of the 2^24 indices are in use, so a few tries suffice.
    fn free_index(&mut self) -> Option<SessionIndex> {
        (0..32)
            .map(|_| SessionIndex::from_be_bytes(self.rng.random()))
            .find(|index| self.clients.by_index(*index).is_none())
    }
}

/// Chooses ChaCha20-Poly1305 unless only AES is offered: its keys cost nothing to set up, and a root handles
/// little data.
fn choose(ours: SuiteSet, theirs: SuiteSet) -> Option<Suite> {
    let both = [Suite::ChaCha20Poly1305, Suite::Aes256Gcm];
    both.into_iter().find(|suite| ours.has(*suite) && theirs.has(*suite))
}
