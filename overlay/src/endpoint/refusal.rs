//! A peer whose machine says that nobody listens at its port: probably its program was killed.
//!
//! Anybody can forge an ICMP error who can guess what it quotes (RFC 5927), so one error proves nothing. It
//! starts a handshake at once. Only if errors go on coming for what we have really sent, and nothing
//! authentic is heard meanwhile, is the peer taken for dead. Then its flows end as the kernel's do when a
//! program is killed; the session stays, in case that the errors did not tell the truth.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::handshake::Reason;
use super::peers::{PeerKey, PeerState};
use super::{Endpoint, Event, Gone, Timer};
use crate::reach::Reach;
use crate::session::SessionIndex;
use crate::wire::MessageType;

/// A peer is dead when its machine has refused what we sent for so long and nothing was heard.
const DEAD_AFTER: Duration = Duration::from_millis(1500);

/// The same, where a NAT box or a firewall may be what refuses: it may have forgotten a peer that lives, and
/// learn of it again when the peer sends something.
const DEAD_AFTER_FAR: Duration = Duration::from_secs(20);

/// No box forgets a peer that was heard from within this time. RFC 4787 (REQ-5) asks for two minutes, and 30
/// s are the shortest default that is common.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Refusals of packets that left together are one, however many errors come.
const APART: Duration = Duration::from_millis(500);

/// Bytes of a datagram that an error must quote to show that its sender has seen it: those of a data packet's
/// header, or an initiation's index and 7 bytes of its ephemeral key.
const QUOTED: usize = 12;

/// A packet number in an error may be so far behind the last one sent.
const RECENT_PACKETS: u64 = 1 << 16;

/// Errors that have come for what we sent to a peer since it was heard from.
#[derive(Debug)]
pub(super) struct Refusal {
    first: Instant,
    last: Instant,
    /// The driver has been told that the peer is gone.
    told: bool,
}

impl Refusal {
    /// Whether it is still to be found out if the peer is dead.
    pub(super) fn is_open(&self) -> bool {
        !self.told
    }
}

impl Endpoint {
    /// The system says that nobody listens at `remote` (ICMP port unreachable, ECONNREFUSED): a datagram from
    /// one of the driver's sockets was refused, of which `quoted` is the beginning, as far as the error
    /// repeats it.
    ///
    /// Ends nothing by itself. A peer that is refused again and again for 1.5 s (20 s where a NAT box or
    /// firewall may speak for it) and says nothing itself is reported by [`Event::PeerGone`].
    pub fn handle_refusal(&mut self, now: Instant, remote: SocketAddr, quoted: &[u8]) {
        if !self.hints.refusals.take(remote.ip(), now) {
            return;
        }
        let at_path = |peer: &PeerState| peer.handle.path().is_some_and(|path| path.remote() == remote);
        let sent = self.peers.iter().find(|(_, peer)| at_path(peer) && has_sent(peer, quoted));
        if let Some((key, _)) = sent {
            self.counters.refusals.increment();
            return self.refused(now, key);
        }
        // Some routers quote less. That much can be guessed, so it is worth a handshake now and then, and no
        // more.
        let hinted = quoted.len() < QUOTED;
        let near = if hinted { self.peers.iter().find(|(_, peer)| at_path(peer)) } else { None };
        let Some((key, _)) = near else { return };
        if let Some(peer) = self.peers.get_mut(key)
            && peer.attempt.is_none()
            && peer.hints.take(now)
        {
            self.attempt(now, key, Reason::Hint);
        }
    }

    /// What we sent to a peer's path was refused.
    fn refused(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        match &mut peer.refusal {
            Some(refusal) if !is_heard(&peer.handle, refusal.first) => refusal.last = now,
            refusal => {
                // Forged errors must not buy a handshake each.
                if !peer.refusals.take(now) {
                    return;
                }
                *refusal = Some(Refusal { first: now, last: now, told: false });
            }
        }
        self.attempt(now, key, Reason::Hint);
        self.judge_refusal(now, key);
    }

    /// Decides whether a peer that was refused is dead, or when to look again.
    pub(super) fn judge_refusal(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let handle = peer.handle.clone();
        let patience =
            if is_near(peer, &self.nodes[peer.node].reach, now) { DEAD_AFTER } else { DEAD_AFTER_FAR };
        let Some(refusal) = peer.refusal.as_mut().filter(|refusal| !is_heard(&handle, refusal.first)) else {
            peer.refusal = None;
            return;
        };
        let again = refusal.last >= refusal.first + APART;
        if now < refusal.first + patience {
            self.timers.set(Timer::Refusal(key), refusal.first + patience);
        } else if again && !std::mem::replace(&mut refusal.told, true) {
            self.counters.peers_refused_to_answer.increment();
            tracing::debug!(?handle, "nobody listens where the peer was");
            self.emit(Event::PeerGone(handle, Gone::Refused));
        }
    }
}

/// Whether something authentic has come from the peer since then.
fn is_heard(peer: &crate::session::Peer, since: Instant) -> bool {
    peer.activity().last_received().is_some_and(|at| at >= since)
}

/// Whether `quoted` is the beginning of something that we have sent to this peer not long ago.
fn has_sent(peer: &PeerState, quoted: &[u8]) -> bool {
    let Some(header) = quoted.first_chunk::<QUOTED>() else { return false };
    if peer.attempt.as_ref().is_some_and(|attempt| attempt.has_sent(quoted)) {
        return true;
    }
    let [_, a, b, c, counter @ ..] = *header;
    let (index, counter) = (SessionIndex::from_be_bytes([a, b, c]), u64::from_be_bytes(counter));
    header[0] == MessageType::Data as u8
        && peer.sessions.iter().any(|live| {
            let sent = live.session.sent_packets();
            live.session.remote_index() == index && counter < sent && sent - counter <= RECENT_PACKETS
        })
}

/// Whether who refuses is most likely the peer's own machine: the address is configured or local, or cannot
/// be behind address translation, and no firewall has had the time to forget the peer.
fn is_near(peer: &PeerState, reach: &Reach, now: Instant) -> bool {
    let Some(path) = peer.handle.path() else { return false };
    let local = match path.remote().ip().to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(_) => true,
    };
    let heard = peer.handle.activity().last_received();
    let lately = heard.is_some_and(|at| now.saturating_duration_since(at) < REMEMBERED);
    lately && (local || reach.is_configured(&path.remote()))
}
