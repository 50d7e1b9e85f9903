//! Peers whose machine reports that no program listens at their port: the peer's program was probably killed.
//!
//! Anyone who can guess the quoted bytes can forge an ICMP error (RFC 5927), so one error proves nothing. It
//! starts a handshake at once. The peer counts as dead only if errors for packets we have really sent keep
//! coming while nothing authentic is heard. Then its flows end, as with kernel sockets when a program is
//! killed. The session stays, in case the errors were false.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Context, Effect, Event, Gone, Link, Reason, Timer};
use crate::session::Peer;
use crate::wire::{MessageType, SessionIndex};

/// Time of refusals without any authentic packet after which a peer is dead.
const REFUSALS_UNTIL_DEAD: Duration = Duration::from_millis(1500);

/// The same on a local network.
// One of three initiations would long have been answered.
const DEAD_AFTER_AT_HAND: Duration = Duration::from_secs(1);

/// The same on this machine, where nothing is lost and no outsider can forge an error.
const DEAD_AFTER_HERE: Duration = Duration::from_millis(600);

/// Upper bound of a round trip on a local network.
const MAX_LOCAL_ROUND_TRIP: Duration = Duration::from_millis(20);

/// The same where a NAT box or a firewall may be refusing: it may have forgotten a live peer, and learns of
/// it again when the peer sends something.
const DEAD_AFTER_FAR: Duration = Duration::from_secs(20);

/// Time within which a live peer with connections is heard: each side probes the other within 25 s, and
/// begins a handshake if the probe is not answered.
const HEARD_WITHIN: Duration = Duration::from_secs(28);

/// Time within which no NAT box forgets a peer. RFC 4787 (REQ-5) asks for two minutes, and 30 s is the
/// shortest common default.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Time within which refusals count as one.
// They may answer packets that left together.
const MIN_REFUSAL_INTERVAL: Duration = Duration::from_millis(500);

/// Number of bytes an error must quote to show that its sender has seen the datagram: a data packet's header,
/// or an initiation's index and 7 bytes of its ephemeral key.
pub(crate) const QUOTED: usize = 12;

/// Maximum distance of a packet number in an error from the last number sent.
const RECENT_PACKETS: u64 = 1 << 16;

/// Errors for packets to a peer since the peer was last heard.
#[derive(Debug)]
pub(crate) struct Refusal {
    first: Instant,
    last: Instant,
    /// Set once the driver has been told that the peer is gone.
    told: bool,
}

impl Refusal {
    /// Returns true while it is undecided whether the peer is dead.
    pub(crate) fn is_open(&self) -> bool {
        !self.told
    }
}

impl Link {
    /// Handles a refusal of a packet to the peer's path.
    pub(crate) fn on_refused(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        match &mut self.refusal {
            Some(refusal) if !is_heard(&self.handle, refusal.first) => {
                refusal.last = now;
                // Neither the driver nor any connection waits for a verdict.
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
        // The machine refuses for all networks, so the node's other links look too.
        cx.effects.push(Effect::Doubted);
        self.judge_refusal(cx);
    }

    /// Decides whether a refused peer is dead, or schedules the next check.
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
        // A NAT box forgets a suspended machine, and refuses packets for it from then on. Connections without
        // pending data survive that.
        let Some(at) = self.dead_at(cx, first) else { return };
        if cx.now < at {
            return cx.set_timer(Timer::Refusal, Some(at));
        }
        // Refusals at one moment may all answer packets that left together.
        let Some(refusal) = self.refusal.as_mut().filter(|_| last >= first + MIN_REFUSAL_INTERVAL) else {
            return;
        };
        if !std::mem::replace(&mut refusal.told, true) {
            cx.core.counters.peers_refused_to_answer.increment();
            tracing::debug!(peer = %handle.logged(), "no socket listens where the peer was");
            cx.core.emit(Event::PeerGone(handle, Gone::Refused));
        }
    }

    /// Returns when a peer refused since `first` is dead, if nothing is heard from it until then.
    fn dead_at(&self, cx: &Context<'_>, first: Instant) -> Option<Instant> {
        // Packets in any network count, because a NAT box knows nothing of networks, and probes in one
        // network replace those in all others.
        let lately = cx.heard().filter(|at| first.saturating_duration_since(*at) < REMEMBERED);
        if lately.is_some()
            && let Some(time) = self.dead_after(cx)
        {
            return Some(first + time);
        }
        match lately {
            Some(heard) if self.handle.is_watched() => {
                Some((first + DEAD_AFTER_FAR).min((first + REFUSALS_UNTIL_DEAD).max(heard + HEARD_WITHIN)))
            }
            Some(_) => Some(first + DEAD_AFTER_FAR),
            None => Some(first.max(self.handle.activity().unanswered_since()?) + DEAD_AFTER_FAR),
        }
    }

    /// Returns true if `quoted` is the beginning of a datagram recently sent to this peer.
    pub(crate) fn has_sent_quoted(&self, quoted: &[u8]) -> bool {
        // A shorter quotation could be guessed, and a forged error would then end connections (RFC 5927).
        let Some(header) = quoted.first_chunk::<QUOTED>() else { return false };
        if self.attempt.as_ref().is_some_and(|attempt| attempt.has_sent(quoted)) {
            return true;
        }
        let [_, a, b, c, counter @ ..] = *header;
        let (index, counter) = (SessionIndex::from_be_bytes([a, b, c]), u64::from_be_bytes(counter));
        // Index and counter of a packet that was sent: an attacker off the path knows neither.
        header[0] == MessageType::Data as u8
            && self.sessions.iter().any(|live| {
                let sent = live.session.sent_packets();
                live.session.remote_index() == index && counter < sent && sent - counter <= RECENT_PACKETS
            })
    }

    /// Returns true if the peer is on this machine or on a local network: its address has no meaning
    /// elsewhere, and answers come at once.
    pub(super) fn is_at_hand(&self, cx: &Context<'_>) -> bool {
        self.dead_after(cx).is_some_and(|time| time <= DEAD_AFTER_AT_HAND)
    }

    /// Returns how long refusals must last until the peer is dead, if the refuser is most likely the peer's
    /// machine: the address is configured or local, or cannot be behind address translation.
    fn dead_after(&self, cx: &Context<'_>) -> Option<Duration> {
        // Behind a root there are no ICMP errors of the peer's machine.
        let place = cx.reach.place().filter(|place| place.relay().is_none())?;
        let ip = place.remote().ip().to_canonical();
        if ip.is_loopback() {
            return Some(DEAD_AFTER_HERE);
        }
        let is_local = is_local(ip);
        // A private address may also lie behind a VPN, where a router on the way may refuse for the peer.
        if is_local && cx.reach.rtt().is_some_and(|rtt| rtt <= MAX_LOCAL_ROUND_TRIP) {
            return Some(DEAD_AFTER_AT_HAND);
        }
        // Elsewhere a firewall may have forgotten the peer and refuse for it.
        (is_local || ip.is_ipv6() || cx.reach.is_configured(&place.remote())).then_some(REFUSALS_UNTIL_DEAD)
    }
}

/// Returns true for an address of a local network or of a link, false for one of the Internet.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        // On a local network no NAT box or firewall is between, so the refusal is the machine's.
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Returns true if an authentic packet has come from the peer since then.
fn is_heard(peer: &Peer, since: Instant) -> bool {
    peer.activity().last_received().is_some_and(|at| at >= since)
}
