//! Peers of an allocation: permissions for their IP addresses, and channels.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::message::CHANNELS;

/// Limit of IP addresses with a permission; half as many may never have answered, because peers choose the
/// addresses a node sends to. The least recently used one makes room, after at least 30 s without use. One
/// that has answered never makes room for one that has not.
pub const MAX_PERMISSIONS: usize = 64;

/// Limit of permissions for addresses that have never answered.
const MAX_STRANGERS: usize = MAX_PERMISSIONS / 2;

/// Rate limit of new strangers: this number at once, and further ones at this interval.
const STRANGERS_AT_ONCE: u32 = 8;
const STRANGER_EACH: Duration = Duration::from_secs(1);

/// Limit of channels that the server may still have.
const MAX_CHANNELS: usize = 256;

/// Lifetime of a permission (RFC 8656, 9). It is renewed a minute earlier.
const PERMISSION: Duration = Duration::from_secs(300);
/// Lifetime of a channel (RFC 8656, 12).
const CHANNEL: Duration = Duration::from_secs(600);
const EARLIER: Duration = Duration::from_secs(60);

/// Time after the end of a channel until its number or its peer may be bound differently (RFC 8656, 12).
const RESERVED: Duration = Duration::from_secs(300);

/// Idle time after which a permission or channel is not renewed.
const UNUSED: Duration = Duration::from_secs(300);

/// Idle time after which a permission can make room for others.
const PERMISSION_MIN_IDLE: Duration = Duration::from_secs(30);

/// Wait after a refusal until the same request may be sent again.
const REFUSED: Duration = Duration::from_secs(60);

/// Limit of datagrams for one address that wait for its permission.
const MAX_HELD_DATAGRAMS: usize = 2;

/// Number of datagrams after which a peer that has answered gets a channel.
const CHANNEL_MIN_DATAGRAMS: u32 = 4;

/// The permissions and channels of one allocation.
#[derive(Debug, Default)]
pub(super) struct Peers {
    permissions: BTreeMap<IpAddr, Permission>,
    channels: BTreeMap<SocketAddr, Channel>,
    by_number: BTreeMap<u16, SocketAddr>,
    last_number: u16,
    /// Time until which the permissions that strangers have taken count.
    strangers_until: Option<Instant>,
}

#[derive(Debug)]
struct Permission {
    /// End of the permission, if it was ever granted.
    until: Option<Instant>,
    is_asked: bool,
    /// Set once a datagram came from the address.
    has_answered: bool,
    refused_until: Option<Instant>,
    used: Instant,
    held: VecDeque<(SocketAddr, Vec<u8>)>,
    /// The last used ports of the address: datagrams sent, and a flag for an answer.
    ports: BTreeMap<u16, Port>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Port {
    sent: u32,
    has_answered: bool,
}

/// Limit of the ports of one address that are counted.
const MAX_PORTS: usize = 8;

#[derive(Debug)]
struct Channel {
    number: u16,
    /// End of the binding, if it was ever granted.
    until: Option<Instant>,
    is_asked: bool,
    /// Time until which neither the number nor the peer may be bound differently.
    reserved_until: Instant,
    refused_until: Option<Instant>,
    used: Instant,
}

/// The way of a datagram to a peer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// This channel.
    Channel(u16),
    /// A Send indication.
    Indication,
    /// The datagram waits for a permission.
    Held,
    /// The datagram is dropped.
    No,
}

/// A request to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Permission(IpAddr),
    Channel(SocketAddr, u16),
}

impl Peers {
    /// Decides how to send `data` to a peer; stores it if it must wait.
    pub(super) fn send(&mut self, peer: SocketAddr, data: &[u8], now: Instant) -> Way {
        if let Some(channel) = self.channels.get_mut(&peer) {
            channel.used = now;
        }
        if !self.permissions.contains_key(&peer.ip()) {
            let is_known = self.has_channel(peer.ip());
            if !self.make_room(is_known, now) {
                return Way::No;
            }
            self.permissions.insert(peer.ip(), Permission::new(is_known, now));
        }
        let Some(permission) = self.permissions.get_mut(&peer.ip()) else { return Way::No };
        permission.used = now;
        let port = permission.count(peer.port());
        port.sent = port.sent.saturating_add(1);
        if permission.until.is_none_or(|until| until <= now) {
            if permission.refused_until.is_some_and(|until| now < until) {
                return Way::No;
            }
            if permission.held.len() == MAX_HELD_DATAGRAMS {
                permission.held.pop_front();
            }
            permission.held.push_back((peer, data.to_vec()));
            return Way::Held;
        }
        match self.channels.get(&peer).filter(|channel| channel.until.is_some_and(|until| now < until)) {
            Some(channel) => Way::Channel(channel.number),
            None => Way::Indication,
        }
    }

    /// Records a datagram from a peer in a Data indication. Returns false if no permission was requested for
    /// it.
    pub(super) fn heard(&mut self, peer: SocketAddr, now: Instant) -> bool {
        let Some(permission) = self.permissions.get_mut(&peer.ip()) else { return false };
        (permission.used, permission.has_answered) = (now, true);
        permission.count(peer.port()).has_answered = true;
        true
    }

    /// Returns the peer of a requested channel.
    pub(super) fn by_number(&mut self, number: u16, now: Instant) -> Option<SocketAddr> {
        let peer = *self.by_number.get(&number)?;
        let channel = self.channels.get_mut(&peer)?;
        channel.used = now;
        self.heard(peer, now).then_some(peer)
    }

    /// Returns the next due request, and marks it as pending.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Ask> {
        self.forget(now);
        let due = self.permissions.iter_mut().find(|(_, one)| one.due().is_some_and(|at| at <= now));
        if let Some((ip, permission)) = due {
            permission.is_asked = true;
            return Some(Ask::Permission(*ip));
        }
        let due = self.channels.iter_mut().find(|(_, one)| one.due().is_some_and(|at| at <= now));
        if let Some((peer, channel)) = due {
            channel.is_asked = true;
            return Some(Ask::Channel(*peer, channel.number));
        }
        self.begin_channel(now)
    }

    /// Returns the time at which the next request or expiry is due.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let permissions =
            self.permissions.values().flat_map(|one| one.due().into_iter().chain([one.end(now)]));
        let channels = self.channels.values().flat_map(|one| one.due().into_iter().chain([one.end()]));
        let wanted = self.wants_channel(now).is_some().then_some(now);
        permissions.chain(channels).chain(wanted).min()
    }

    /// Handles the server's answer about a permission. Returns the datagrams that have waited for it.
    pub(super) fn permitted(
        &mut self,
        ip: IpAddr,
        is_granted: bool,
        now: Instant,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let Some(permission) = self.permissions.get_mut(&ip) else { return Vec::new() };
        permission.is_asked = false;
        let held = std::mem::take(&mut permission.held);
        if !is_granted {
            permission.refused_until = Some(now + REFUSED);
            return Vec::new();
        }
        (permission.until, permission.refused_until) = (Some(now + PERMISSION), None);
        held.into()
    }

    /// Handles the server's answer about a channel.
    pub(super) fn bound(&mut self, peer: SocketAddr, is_granted: bool, now: Instant) {
        let Some(channel) = self.channels.get_mut(&peer) else { return };
        channel.is_asked = false;
        if is_granted {
            (channel.until, channel.refused_until) = (Some(now + CHANNEL), None);
            channel.reserved_until = now + CHANNEL + RESERVED;
        } else {
            channel.refused_until = Some(now + REFUSED);
        }
    }

    /// Returns true if a channel leads to the address, which means that it has answered.
    fn has_channel(&self, ip: IpAddr) -> bool {
        self.channels.range(SocketAddr::new(ip, 0)..).next().is_some_and(|(peer, _)| peer.ip() == ip)
    }

    /// Makes room for the permission of a new address; `is_known` is true if it has answered before. Returns
    /// false if there is none.
    fn make_room(&mut self, is_known: bool, now: Instant) -> bool {
        let strangers = self.permissions.values().filter(|one| !one.has_answered).count();
        let taken = self.strangers_until.map_or(now, |until| until.max(now)) + STRANGER_EACH;
        if !is_known && taken > now + STRANGER_EACH * STRANGERS_AT_ONCE {
            return false;
        }
        let is_full = self.permissions.len() >= MAX_PERMISSIONS;
        if is_full || (!is_known && strangers >= MAX_STRANGERS) {
            let mut idle: Vec<_> =
                self.permissions.iter().filter(|(_, one)| now >= one.used + PERMISSION_MIN_IDLE).collect();
            idle.retain(|(_, one)| is_known || !one.has_answered);
            let oldest = idle.iter().min_by_key(|(_, one)| (one.has_answered, one.used)).map(|(ip, _)| **ip);
            let Some(oldest) = oldest else { return false };
            self.permissions.remove(&oldest);
        }
        if !is_known {
            self.strangers_until = Some(taken);
        }
        true
    }

    /// Removes permissions and channels that end now.
    fn forget(&mut self, now: Instant) {
        self.permissions.retain(|_, one| now < one.end(now));
        let ended: Vec<_> =
            self.channels.iter().filter(|(_, one)| one.end() <= now).map(|(peer, _)| *peer).collect();
        for peer in ended {
            if let Some(channel) = self.channels.remove(&peer) {
                self.by_number.remove(&channel.number);
            }
        }
    }

    /// Returns a peer that should get a channel.
    fn wants_channel(&self, now: Instant) -> Option<SocketAddr> {
        if self.channels.len() == MAX_CHANNELS {
            return None;
        }
        let granted = self.permissions.iter().filter(|(_, one)| one.until.is_some_and(|until| now < until));
        let mut peers = granted.flat_map(|(ip, one)| {
            let often =
                one.ports.iter().filter(|(_, port)| port.has_answered && port.sent >= CHANNEL_MIN_DATAGRAMS);
            often.map(|(port, _)| SocketAddr::new(*ip, *port))
        });
        peers.find(|peer| !self.channels.contains_key(peer))
    }

    fn begin_channel(&mut self, now: Instant) -> Option<Ask> {
        let peer = self.wants_channel(now)?;
        // There are sixteen times as many numbers as channels.
        let next = self.last_number.max(*CHANNELS.start() - 1) + 1;
        let mut numbers = (next..=*CHANNELS.end()).chain(CHANNELS);
        let number = numbers.find(|one| !self.by_number.contains_key(one))?;
        self.last_number = number;
        self.by_number.insert(number, peer);
        // The channel may be bound even if the answer is lost.
        let reserved_until = now + CHANNEL + RESERVED + EARLIER;
        let channel =
            Channel { number, until: None, is_asked: true, reserved_until, refused_until: None, used: now };
        self.channels.insert(peer, channel);
        Some(Ask::Channel(peer, number))
    }
}

impl Permission {
    fn new(has_answered: bool, now: Instant) -> Self {
        Self {
            until: None,
            is_asked: false,
            has_answered,
            refused_until: None,
            used: now,
            held: VecDeque::new(),
            ports: BTreeMap::new(),
        }
    }

    fn count(&mut self, port: u16) -> &mut Port {
        if self.ports.len() >= MAX_PORTS && !self.ports.contains_key(&port) {
            self.ports.clear();
        }
        self.ports.entry(port).or_default()
    }

    /// Returns the time at which the permission must be requested.
    fn due(&self) -> Option<Instant> {
        if self.is_asked {
            return None;
        }
        let renewal = || self.until.map(|until| until - EARLIER).filter(|at| *at < self.used + UNUSED);
        let at = if self.held.is_empty() { renewal()? } else { self.used };
        Some(self.refused_until.map_or(at, |refused| at.max(refused)))
    }

    /// Returns the time at which the permission is forgotten. A pending request extends it until there is an
    /// answer.
    fn end(&self, now: Instant) -> Instant {
        let end = self.used + UNUSED;
        let end = self.refused_until.map_or(end, |refused| end.max(refused));
        if self.is_asked { end.max(now + EARLIER) } else { end }
    }
}

impl Channel {
    /// Returns the time at which the channel must be requested again.
    fn due(&self) -> Option<Instant> {
        let renewal = self.until.map(|until| until - EARLIER).filter(|at| *at < self.used + UNUSED)?;
        let at = self.refused_until.map_or(renewal, |refused| renewal.max(refused));
        (!self.is_asked).then_some(at)
    }

    fn end(&self) -> Instant {
        self.reserved_until
    }
}
