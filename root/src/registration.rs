//! Who can be found: registrations, of which the newest counts.

use std::time::Instant;

use peersock_overlay::load::{Limiter, Rate};
use peersock_overlay::wire::{self, Channel, NoticeCode, Registration, RelayToken, RootMessage, Voucher};
use rand::RngExt;

use crate::budget::{Budget, Nanos};
use crate::client::Registered;
use crate::clients::Slot;
use crate::{Root, Source};

/// A registration costs a signature to check and one to make. Of one node:
const OF_ONE: Budget = Budget::new(1, 5);

/// A voucher costs a signature to make. Of one node:
const VOUCHERS_OF_ONE: Budget = Budget::new(1, 5);

/// What nodes together may register: those that come do not use up what those that stay need, and those of
/// one source prefix not what others need.
#[derive(Debug)]
pub(crate) struct Registrations {
    new: Limiter,
    renewals: Limiter,
    vouchers: Limiter,
}

impl Registrations {
    /// `key` is random and kept secret.
    pub(crate) fn new(key: u64, now: Instant) -> Self {
        let limiter = || Limiter::new(Rate::per_second(2000, 4000), Rate::per_second(200, 1000), key, now);
        Self { new: limiter(), renewals: limiter(), vouchers: limiter() }
    }
}

/// Shorter lifetimes, in seconds, are refused: they would be over before they are of use.
const SHORTEST: u32 = 10;

impl Root {
    /// A node asks in the session that was made at `since`.
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
        if !OF_ONE.take(&mut client.buckets.registrations, 1, at) || !of_all.take(path.ip(), now) {
            return self.counters.registrations_limited.increment();
        }
        // The answer may have been lost, so the same registration again is as good as new.
        let is_repeated = client.registered.is_some_and(|known| known.registration == *asked);
        // A session is as fresh as its handshake, in which nothing can be repeated. So what a node says in a
        // later one is newer, whatever its clock did in between; and what was said in an earlier one is late.
        let is_newer = since > client.sequence_since || asked.sequence > client.sequence;
        if since < client.sequence_since && !is_repeated {
            // It was a while on its way; the node has said something else since.
            return self.counters.registrations_refused.increment();
        }
        let node = client.id;
        // Who was let in stays so while it renews: what another root gives for access is good for an hour.
        let may = is_known || self.lets_in(now, &node, access);
        let Some(client) = self.clients.get(slot) else { return };
        let drains = self.draining.is_some() && client.registered.is_none();
        let is_good = may && asked.lifetime >= SHORTEST && (is_repeated || is_newer);
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

    /// Tells a registered node that it is, and where it is seen.
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
            voucher: Voucher::sign(&self.config.identity, &client.id, time, path.observed()),
            tcp: path.connection().map(|end| Voucher::sign_tcp(&self.config.identity, &client.id, time, end)),
        });
        self.tell(slot, &message);
    }

    /// A registered node asks for a voucher for the address that this came from. The answer is sealed and
    /// goes there, so a node that does not receive there never has it to show.
    pub(crate) fn on_vouch(&mut self, now: Instant, source: Source, slot: Slot) {
        // Over a stream no address is seen that is of use.
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

    /// A name that nobody has. 0 stands for none.
    fn free_channel(&mut self) -> Channel {
        loop {
            let channel = Channel(self.rng.random());
            if channel.0 != 0 && self.clients.by_channel(channel).is_none() {
                return channel;
            }
        }
    }
}
