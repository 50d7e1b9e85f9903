//! Who can be found: registrations, of which the newest counts.

use std::time::Instant;

use peersock_overlay::wire::{self, Channel, NoticeCode, Registration, RelayToken, RootMessage, Voucher};
use rand::RngExt;
use subtle::ConstantTimeEq;

use crate::Root;
use crate::budget::Budget;
use crate::client::Registered;
use crate::clients::Slot;

/// A registration costs a signature to check and one to make. Of one node:
const OF_ONE: Budget = Budget::new(1, 5);
/// Of all nodes together:
const OF_ALL: Budget = Budget::new(2000, 4000);

/// Shorter lifetimes, in seconds, are refused: they would be over before they are of use.
const SHORTEST: u32 = 10;

impl Root {
    pub(crate) fn on_register(&mut self, now: Instant, slot: Slot, asked: &Registration, access: &[u8]) {
        let at = self.nanos(now);
        let Some(client) = self.clients.get_mut(slot) else { return };
        if !OF_ONE.take(&mut client.buckets.registrations, 1, at)
            || !OF_ALL.take(&mut self.registrations, 1, at)
        {
            return self.counters.registrations_limited.increment();
        }
        let expected = self.config.access.as_ref();
        let may = expected.is_none_or(|expected| bool::from(expected.as_slice().ct_eq(access)));
        // The answer may have been lost, so the same registration again is as good as new.
        let is_repeated = client.registered.is_some_and(|known| known.registration == *asked);
        let is_newer = asked.sequence > client.sequence;
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
            self.take_registration(slot, asked, at);
        }
        self.counters.registrations.increment();
        self.tell_registered(now, slot);
    }

    fn take_registration(&mut self, slot: Slot, asked: &Registration, at: u64) {
        let lifetime = asked.lifetime.min(self.config.limits.lifetime);
        let (channel, token) = match self.clients.get(slot).and_then(|client| client.registered) {
            Some(known) => (known.channel, known.token),
            None => (self.free_channel(), RelayToken::from_be_bytes(self.rng.random())),
        };
        let expires = at.saturating_add(u64::from(lifetime) * 1_000_000_000);
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.sequence = asked.sequence;
        client.registered = Some(Registered { registration: *asked, channel, token, expires });
        let entry = client.entry(at);
        self.clients.set_channel(channel, slot);
        self.clients.schedule(slot);
        if let Some((directory, entry)) = self.directory.as_mut().zip(entry) {
            directory.registered(&entry);
        }
    }

    /// Tells a registered node that it is, and where it is seen.
    pub(crate) fn tell_registered(&mut self, now: Instant, slot: Slot) {
        let (at, time) = (self.nanos(now), self.unix_seconds(now));
        let Some(client) = self.clients.get(slot) else { return };
        let (Some(registered), Some(path)) = (client.registered, client.path) else { return };
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
        });
        self.tell(slot, &message);
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
