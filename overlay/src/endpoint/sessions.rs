//! The life of a session after its handshake: confirmation, succession, roaming, rekey, end.

use std::sync::Arc;
use std::time::Instant;

use super::handshake::Reason;
use super::mtud::{BASE, Mtud};
use super::paths::socket_for;
use super::peers::{Moving, PeerKey};
use super::timing::{REJECT_AFTER, RETRY_MIN, UNCONFIRMED_FOR};
use super::{Endpoint, Event, Gone, Timer};
use crate::session::{DATA_OVERHEAD, Path, RecvMeta, Session};
use crate::wire::{Control, ProbeSize};

/// No packet that we make is shorter than a probe, so that a probe may answer it.
const SHORTEST_PACKET: usize = DATA_OVERHEAD + ProbeSize::MIN.get();

impl Endpoint {
    /// To be called when [`Session::note_received`] (with the packet's `meta`) or [`Session::note_sent`] (without) said
    /// that control wants to know. An authentic packet confirms a session; from another source than the path it is
    /// answered by a probe, and the path moves there when that is answered.
    pub fn session_attention(&mut self, now: Instant, session: &Arc<Session>, meta: Option<RecvMeta>) {
        let Some(key) = self.key_of(session.peer()) else { return };
        self.expire_sessions(now, key);
        if let Some(meta) = meta {
            self.heard_on(now, key, session, &meta);
        }
        self.rekey_if_due(now, key);
        self.watch_path(now, key);
        self.arm_activity(now, key);
    }

    /// An authentic packet came in on a session.
    pub(super) fn heard_on(&mut self, now: Instant, key: PeerKey, session: &Arc<Session>, meta: &RecvMeta) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.live(session).is_none() {
            return;
        }
        peer.used = now;
        let handle = peer.handle.clone();
        if !session.is_confirmed() {
            self.establish(now, key, session);
        }
        if handle.path().is_some_and(|path| (path.socket, path.remote) != (meta.socket, meta.remote)) {
            // What is sent now would go to the old place. The answer to the probe confirms the new one.
            self.try_path(now, key, meta, SHORTEST_PACKET);
        } else if handle.activity().take_silence() {
            self.emit(Event::PathConfirmed(handle));
        }
    }

    /// Asks the peer for an answer at `meta`, from where `bytes` came and where it may be now; the answer makes that
    /// the path. Until then it may be a genuine packet that somebody held back and sends from a forged address.
    pub(super) fn try_path(&mut self, now: Instant, key: PeerKey, meta: &RecvMeta, bytes: usize) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(session) = peer.current() else { return };
        let asked = peer.moving.as_ref().filter(|moving| moving.to == *meta);
        if meta.multicast || asked.is_some_and(|moving| now < moving.sent + RETRY_MIN) {
            return;
        }
        peer.candidates.heard(meta, bytes, false, now);
        let mut message = Vec::new();
        let probe = peer.next_probe;
        Control::Probe { id: probe, len: ProbeSize::MIN }.emit(&mut message);
        if !peer.candidates.spend(&meta.remote, message.len() + DATA_OVERHEAD) {
            return;
        }
        peer.next_probe = probe.wrapping_add(1);
        peer.moving = Some(Moving { to: *meta, probe, sent: now });
        self.counters.probes_sent.increment();
        self.send_sealed(now, key, &session, meta, &message);
    }

    /// Tries the paths whose socket is gone from another one, where there is one.
    pub(super) fn leave_lost_sockets(&mut self, now: Instant) {
        let elsewhere = |path: Path| {
            let socket = socket_for(&self.sockets, Some(path.socket), &path.remote)?;
            let meta = RecvMeta { remote: path.remote, socket: socket.index, multicast: false };
            (socket.index != path.socket).then_some(meta)
        };
        let moves = self.peers.iter().filter_map(|(key, peer)| Some((key, elsewhere(peer.handle.path()?)?)));
        let moves: Vec<_> = moves.collect();
        for (key, meta) in moves {
            self.try_path(now, key, &meta, 0);
        }
    }

    /// The peer has proved that it has the session's keys: it is usable, and the newest one is sent on.
    pub(super) fn establish(&mut self, now: Instant, key: PeerKey, session: &Arc<Session>) {
        session.confirm();
        let Some(peer) = self.peers.get_mut(key) else { return };
        let before = peer.current();
        if before.as_ref().is_some_and(|before| before.established() > session.established()) {
            return;
        }
        let Some(live) = peer.live(session) else { return };
        let (instance, path) = (live.instance, live.path);
        peer.handle.set_receive_buffer(live.receive_buffer);
        let succeeded = peer.instance.replace(instance).filter(|old| *old != instance);
        let restarted = succeeded.is_some();
        // An instance that comes back after its successor: both are alive.
        let other = succeeded.filter(|old| peer.former.succeed(*old, instance)).zip(peer.handle.path());
        peer.handle.set_session(Some(session.clone()));
        peer.departed = false;
        peer.refusal = None;
        peer.told = None;
        peer.candidates.heard(&path, 0, true, now);
        let obsolete = peer.take_obsolete(session, instance);
        let (handle, network) = (peer.handle.clone(), peer.handle.network());
        // A handshake that began before this one did has reached its end by it.
        let satisfied = peer.attempt.as_ref().is_some_and(|a| a.started <= session.established());

        self.discard(obsolete);
        self.discovery.acknowledged(&path.remote, network, key);
        if satisfied {
            self.end_attempt(key);
        }
        self.announce(key);
        self.counters.sessions_established.increment();
        tracing::debug!(
            peer = %handle.id(),
            suite = %session.suite(),
            initiator = session.is_initiator(),
            restarted,
            "session established"
        );
        if restarted {
            self.emit(Event::PeerGone(handle.clone(), Gone::Restarted));
        }
        if restarted && before.is_some() {
            self.emit(Event::SessionLost(handle.clone()));
        }
        self.move_path(now, key, &path);
        handle.activity().take_silence();
        let ready = restarted || before.is_none();
        // Both sides have heard each other just now.
        self.emit(if ready { Event::SessionReady(handle) } else { Event::PathConfirmed(handle) });
        if let Some((other, there)) = other {
            self.on_alternation(now, key, other, there.remote);
        }
        self.arm_expiry(key);
        self.watch_path(now, key);
        self.arm_activity(now, key);
    }

    /// Makes a place at which the peer proved to receive the path.
    pub(super) fn move_path(&mut self, now: Instant, key: PeerKey, meta: &RecvMeta) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let before = peer.handle.path();
        let source = (meta.socket, meta.remote);
        if before.is_some_and(|path| (path.socket, path.remote) == source) && peer.mtud.is_some() {
            // The same path with a new session: what did not pass two minutes ago may pass now.
            peer.mtud.iter_mut().for_each(Mtud::search);
        } else {
            let max = socket_for(&self.sockets, Some(meta.socket), &meta.remote)
                .map_or(BASE, |socket| socket.max_datagram);
            let left = peer.left.take().filter(|(socket, remote, _)| (*socket, *remote) == source);
            let mtud = left.map_or_else(|| Mtud::new(meta.remote, max, now), |(_, _, mtud)| mtud);
            let datagram_size = mtud.current();
            let old = peer.mtud.replace(mtud);
            peer.left = before.zip(old).map(|(path, mtud)| (path.socket, path.remote, mtud));
            peer.handle.set_path(Some(Path { socket: meta.socket, remote: meta.remote, datagram_size }));
            before.iter().for_each(|path| self.live_paths.remove(path.remote, key));
            self.live_paths.add(meta.remote, key);
            let handle = peer.handle.clone();
            if before.is_some() {
                self.counters.paths_moved.increment();
            }
            self.emit(Event::PathChanged(handle));
        }
        self.probe_mtu(now, key);
    }

    fn rekey_if_due(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let Some(session) = peer.current() else { return };
        let Some(live) = peer.live(&session) else { return };
        if (now >= live.rekey_at || session.is_worn()) && peer.attempt.is_none() {
            self.counters.rekeys.increment();
            self.attempt(now, key, Reason::Traffic);
        }
    }

    pub(super) fn on_expire_timer(&mut self, now: Instant, key: PeerKey) {
        self.expire_sessions(now, key);
        self.forget_unconfirmed(now, key);
        self.arm_expiry(key);
    }

    /// Ends the sessions that have reached their age.
    pub(super) fn expire_sessions(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let expired = peer.take_expired(REJECT_AFTER, now);
        if !expired.is_empty() {
            self.drop_sessions(key, expired);
        }
    }

    /// Forgets our answers to initiations that were not followed by a packet.
    pub(super) fn forget_unconfirmed(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let unused = peer.take_unconfirmed(UNCONFIRMED_FOR, now);
        self.discard(unused);
    }

    /// Removes sessions of a peer; tells if that was the last usable one.
    pub(super) fn drop_sessions(&mut self, key: PeerKey, dropped: Vec<Arc<Session>>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let current = peer.current();
        let lost =
            current.is_some_and(|current| dropped.iter().any(|session| Arc::ptr_eq(session, &current)));
        self.discard(dropped);
        if !lost {
            return;
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.handle.set_session(None);
        let handle = peer.handle.clone();
        self.timers.clear(Timer::Activity(key));
        self.timers.clear(Timer::Mtu(key));
        handle.activity().disarm();
        tracing::debug!(peer = %handle.id(), "session lost");
        self.emit(Event::SessionLost(handle));
    }

    /// Erases sessions that no peer has any more.
    pub(super) fn discard(&mut self, sessions: Vec<Arc<Session>>) {
        for session in sessions {
            session.erase();
            self.sessions.remove(session.index());
            let Some(key) = self.key_of(session.peer()) else { continue };
            if let Some(peer) = self.peers.get_mut(key) {
                peer.past.add(&session.stats());
            }
            self.refile(key);
        }
    }

    fn arm_expiry(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let end = peer.sessions.iter().map(|live| {
            let lifetime = if live.session.is_confirmed() { REJECT_AFTER } else { UNCONFIRMED_FOR };
            live.session.established() + lifetime
        });
        match end.min() {
            Some(at) => self.timers.set(Timer::Expire(key), at),
            None => self.timers.clear(Timer::Expire(key)),
        }
    }
}
