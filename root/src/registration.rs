//! Registrations, which make nodes findable. The newest one of a node counts.

use std::time::Instant;

use peersock_overlay::load::{Limiter, Rate};
use peersock_overlay::wire::{self, Channel, NoticeCode, Registration, RelayToken, RootMessage, Voucher};
use rand::RngExt;

use crate::budget::{Budget, Nanos};
use crate::client::Registered;
use crate::clients::Slot;
use crate::{Root, Source};

/// Registrations per second and burst of one node, because each costs a signature to verify and one to make.
const NODE_REGISTRATION_BUDGET: Budget = Budget::new(1, 5);

/// Vouchers per second and burst of one node, because each costs a signature to make.
const VOUCHERS_OF_ONE: Budget = Budget::new(1, 5);

/// Limits on registrations of all nodes together. New nodes cannot use up the share of renewals, and one
/// source prefix cannot use up the share of others.
#[derive(Debug)]
pub(crate) struct Registrations {
    new: Limiter,
    renewals: Limiter,
    vouchers: Limiter,
}

impl Registrations {
    /// Returns full limiters. `key` is random and kept secret.
    pub(crate) fn new(key: u64, now: Instant) -> Self {
        let limiter = || Limiter::new(Rate::per_second(2000, 4000), Rate::per_second(200, 1000), key, now);
        Self { new: limiter(), renewals: limiter(), vouchers: limiter() }
    }
}

/// Minimum lifetime in seconds; a shorter one would end before it is useful, so it is refused.
const MIN_LIFETIME_SECONDS: u32 = 10;

impl Root {
    /// Handles a registration in the session that was made at `since`.
    pub(crate) fn on_register(
        &mut self,
        now: Instant,
        slot: Slot,
        since: Nanos,
        asked: &Registration,
        access: &[u8],
    ) {
        let at = self.nanos(now);
        let Some(client) = self.clients.get_mut(slot) else { return };
        let is_known = client.registered.is_some();
        let of_all = if is_known { &mut self.registrations.renewals } else { &mut self.registrations.new };
        let Some(path) = client.path() else { return };
        if !NODE_REGISTRATION_BUDGET.take(&mut client.buckets.registrations, 1, at)
            || !of_all.take(path.ip(), now)
        {
            return self.counters.registrations_limited.increment();
        }
        // The answer may have been lost, so a repeated registration is accepted, too.
        let is_repeated = client.registered.is_some_and(|known| known.registration == *asked);
        // A session is as fresh as its handshake, which cannot be replayed. So a registration in a later
        // session is newer, whatever the node's clock did in between. A registration from an earlier session
        // is late.
        let is_newer = since > client.sequence_since || asked.sequence > client.sequence;
        if since < client.sequence_since && !is_repeated {
            // It was delayed; the node has registered in a newer session since, so it gets no notice.
            return self.counters.registrations_refused.increment();
        }
        let node = client.id;
        // A renewal needs no access check, because the pass of another root is only valid for an hour.
        let may = is_known || self.lets_in(now, &node, access);
        let Some(client) = self.clients.get(slot) else { return };
        // A repeated registration needs no check, because it is equal to the verified one.
        let drains = self.draining.is_some() && client.registered.is_none();
        let is_good = may && asked.lifetime >= MIN_LIFETIME_SECONDS && (is_repeated || is_newer);
        if drains {
            return self.notice(slot, NoticeCode::Drains, 0, at);
        }
        if !is_good || (!is_repeated && !asked.verify(&client.identity, &self.id)) {
            self.counters.registrations_refused.increment();
            return self.notice(slot, NoticeCode::Refused, 0, at);
        }
        if !is_repeated {
            self.take_registration(slot, since, asked, at);
        }
        self.counters.registrations.increment();
        self.tell_registered(now, slot);
    }

    fn take_registration(&mut self, slot: Slot, since: Nanos, asked: &Registration, at: Nanos) {
        let lifetime = asked.lifetime.min(self.config.limits.lifetime);
        let (channel, token) = match self.clients.get(slot).and_then(|client| client.registered) {
            // A renewal keeps the channel, so that frames of peers still arrive.
            Some(known) => (known.channel, known.token),
            None => (self.free_channel(), RelayToken::from_be_bytes(self.rng.random())),
        };
        let expires = at.saturating_add(u64::from(lifetime) * 1_000_000_000);
        let Some(client) = self.clients.get_mut(slot) else { return };
        (client.sequence, client.sequence_since) = (asked.sequence, since);
        let registered = Registered { registration: *asked, channel, token, expires };
        let entry = self.clients.update(slot, |client| {
            client.registered = Some(registered);
            client.entry_for(at)
        });
        self.clients.set_channel(channel, slot);
        self.clients.schedule(slot);
        if let Some((directory, (entry, lifetime))) = self.directory.as_mut().zip(entry.flatten()) {
            directory.registered(&entry, lifetime);
        }
    }

    /// Confirms a node's registration, with the address it was seen from.
    pub(crate) fn tell_registered(&mut self, now: Instant, slot: Slot) {
        let (at, time) = (self.nanos(now), self.unix_seconds(now));
        let Some(client) = self.clients.get(slot) else { return };
        let (Some(registered), Some(path)) = (client.registered, client.path()) else { return };
        let rate = self.config.relay.rate();
        let message = RootMessage::Registered(wire::Registered {
            sequence: registered.registration.sequence,
            lifetime: (registered.expires.saturating_sub(at) / 1_000_000_000) as u32,
            relays: rate.is_some(),
            drains: self.draining.is_some(),
            token: registered.token,
            channel: registered.channel,
            rate: rate.unwrap_or_default(),
            // Signed by the root, because peers trust an address more that the node did not choose itself.
            voucher: Voucher::sign(&self.config.identity, &client.id, time, path.observed()),
            tcp: path.connection().map(|end| Voucher::sign_tcp(&self.config.identity, &client.id, time, end)),
        });
        self.tell(slot, &message);
    }

    /// Sends a registered node a voucher for the address that the request came from. The answer is sealed and
    /// goes to that address, so a node that does not receive there cannot use the voucher.
    pub(crate) fn on_vouch(&mut self, now: Instant, source: Source, slot: Slot) {
        // The address seen over a stream is useless for UDP.
        if !matches!(source, Source::Udp { .. }) {
            return self.counters.control_unknown.increment();
        }
        let (at, time) = (self.nanos(now), self.unix_seconds(now));
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.registered.is_some()) else {
            return self.counters.vouchers_refused.increment();
        };
        if !VOUCHERS_OF_ONE.take(&mut client.buckets.vouchers, 1, at)
            || !self.registrations.vouchers.take(source.ip(), now)
        {
            return self.counters.vouchers_refused.increment();
        }
        let voucher = Voucher::sign(&self.config.identity, &client.id, time, source.observed());
        self.counters.vouchers.increment();
        self.answer_there(slot, source, &RootMessage::Vouched(voucher));
    }

    /// Returns an unused channel. 0 means none.
    fn free_channel(&mut self) -> Channel {
        loop {
            let channel = Channel(self.rng.random());
            if channel.0 != 0 && self.clients.by_channel(channel).is_none() {
                return channel;
            }
        }
    }
}
