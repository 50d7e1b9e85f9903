//! A peer whose machine says that nobody listens at its port: probably its program was killed.
//!
//! Anybody can forge an ICMP error who can guess what it quotes (RFC 5927), so one error proves nothing. It
//! starts a handshake at once. Only if errors go on coming for what we have really sent, and nothing
//! authentic is heard meanwhile, is the peer taken for dead. Then its flows end as the kernel's do when a
//! program is killed; the session stays, in case that the errors did not tell the truth.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Context, Effect, Event, Gone, Link, Reason, Timer};
use crate::session::Peer;
use crate::wire::{MessageType, SessionIndex};

/// A peer is dead when its machine has refused what we sent for so long and nothing was heard.
const DEAD_AFTER: Duration = Duration::from_millis(1500);

/// The same on a local network: an answer to one of three initiations would have come many times over.
const DEAD_AFTER_AT_HAND: Duration = Duration::from_secs(1);

/// The same on this machine, where nothing is lost and nobody else can say so.
const DEAD_AFTER_HERE: Duration = Duration::from_millis(600);

/// No round trip on a local network takes longer.
const AT_HAND: Duration = Duration::from_millis(20);

/// The same, where a NAT box or a firewall may be what refuses: it may have forgotten a peer that lives, and
/// learn of it again when the peer sends something.
const DEAD_AFTER_FAR: Duration = Duration::from_secs(20);

/// A peer that lives and has connections would have been heard within this time: each side probes the other
/// within 25 s, and begins a handshake if that is not answered.
const HEARD_WITHIN: Duration = Duration::from_secs(28);

/// No box forgets a peer that was heard from within this time. RFC 4787 (REQ-5) asks for two minutes, and 30
/// s are the shortest default that is common.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Refusals of packets that left together are one, however many errors come.
const APART: Duration = Duration::from_millis(500);

/// Bytes of a datagram that an error must quote to show that its sender has seen it: those of a data packet's
/// header, or an initiation's index and 7 bytes of its ephemeral key.
pub(crate) const QUOTED: usize = 12;

/// A packet number in an error may be so far behind the last one sent.
const RECENT_PACKETS: u64 = 1 << 16;

/// Errors that have come for what we sent to a peer since it was heard from.
#[derive(Debug)]
pub(crate) struct Refusal {
    first: Instant,
    last: Instant,
    /// The driver has been told that the peer is gone.
    told: bool,
}

impl Refusal {
    /// Whether it is still to be found out if the peer is dead.
    pub(crate) fn is_open(&self) -> bool {
        !self.told
    }
}

impl Link {
    /// What we sent to the peer's path was refused.
    pub(crate) fn on_refused(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        match &mut self.refusal {
            Some(refusal) if !is_heard(&self.handle, refusal.first) => {
                refusal.last = now;
                // Nobody waits to hear how that ends.
                let first = refusal.first;
                if refusal.told || self.dead_at(cx, first).is_none() {
                    return;
                }
            }
            refusal => {
                // Forged errors must not buy a handshake each.
                if !self.refusals.take(now) {
                    return;
                }
                *refusal = Some(Refusal { first: now, last: now, told: false });
            }
        }
        self.attempt(cx, Reason::Hint);
        cx.effects.push(Effect::Doubted);
        self.judge_refusal(cx);
    }

    /// Decides whether a peer that was refused is dead, or when to look again.
    pub(crate) fn judge_refusal(&mut self, cx: &mut Context<'_>) {
        let handle = self.handle.clone();
        let Some((first, last)) = self
            .refusal
            .as_ref()
            .map(|refusal| (refusal.first, refusal.last))
            .filter(|(first, _)| !is_heard(&handle, *first))
        else {
            self.refusal = None;
            return;
        };
        // A machine that is suspended is forgotten by its NAT box, and refused from then on. Connections that
        // wait for nothing outlive that.
        let Some(at) = self.dead_at(cx, first) else { return };
        if cx.now < at {
            return cx.set_timer(Timer::Refusal, Some(at));
        }
        let Some(refusal) = self.refusal.as_mut().filter(|_| last >= first + APART) else { return };
        if !std::mem::replace(&mut refusal.told, true) {
            cx.core.counters.peers_refused_to_answer.increment();
            tracing::debug!(peer = %handle.logged(), "nobody listens where the peer was");
            cx.core.emit(Event::PeerGone(handle, Gone::Refused));
        }
    }

    /// When a peer is dead that has been refused since `first`, if nothing is heard from it until then.
    fn dead_at(&self, cx: &Context<'_>, first: Instant) -> Option<Instant> {
        // Whatever the network: a NAT box knows nothing of networks, and probes in one stand for those in
        // all.
        let lately = cx.heard().filter(|at| first.saturating_duration_since(*at) < REMEMBERED);
        if lately.is_some()
            && let Some(time) = self.dead_after(cx)
        {
            return Some(first + time);
        }
        match lately {
            Some(heard) if self.handle.is_watched() => {
                Some((first + DEAD_AFTER_FAR).min((first + DEAD_AFTER).max(heard + HEARD_WITHIN)))
            }
            Some(_) => Some(first + DEAD_AFTER_FAR),
            None => Some(first.max(self.handle.activity().unanswered_since()?) + DEAD_AFTER_FAR),
        }
    }

    /// Whether `quoted` is the beginning of something that we have sent to this peer not long ago.
    pub(crate) fn has_sent_quoted(&self, quoted: &[u8]) -> bool {
        let Some(header) = quoted.first_chunk::<QUOTED>() else { return false };
        if self.attempt.as_ref().is_some_and(|attempt| attempt.has_sent(quoted)) {
            return true;
        }
        let [_, a, b, c, counter @ ..] = *header;
        let (index, counter) = (SessionIndex::from_be_bytes([a, b, c]), u64::from_be_bytes(counter));
        header[0] == MessageType::Data as u8
            && self.sessions.iter().any(|live| {
                let sent = live.session.sent_packets();
                live.session.remote_index() == index && counter < sent && sent - counter <= RECENT_PACKETS
            })
    }

    /// Whether the peer is on this machine or on a local network of it: its address has no meaning elsewhere,
    /// and the answers come at once.
    pub(super) fn is_at_hand(&self, cx: &Context<'_>) -> bool {
        self.dead_after(cx).is_some_and(|time| time <= DEAD_AFTER_AT_HAND)
    }

    /// How long the peer is refused until it is dead, if who refuses is most likely the peer's own machine,
    /// unless a firewall has had the time to forget the peer: the address is configured or local, or cannot
    /// be behind address translation.
    fn dead_after(&self, cx: &Context<'_>) -> Option<Duration> {
        let place = cx.reach.place().filter(|place| place.relay().is_none())?;
        let ip = place.remote().ip().to_canonical();
        if ip.is_loopback() {
            return Some(DEAD_AFTER_HERE);
        }
        let is_local = is_local(ip);
        if is_local && cx.reach.rtt().is_some_and(|rtt| rtt <= AT_HAND) {
            return Some(DEAD_AFTER_AT_HAND);
        }
        (is_local || ip.is_ipv6() || cx.reach.is_configured(&place.remote())).then_some(DEAD_AFTER)
    }
}

/// Whether an address is one of a local network or of a link, and not of the Internet.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Whether something authentic has come from the peer since then.
fn is_heard(peer: &Peer, since: Instant) -> bool {
    peer.activity().last_received().is_some_and(|at| at >= since)
}
