//! Changes of a connection by segments, by time, and at its end.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::time_wait::{Late, TimeWait};
use super::{Flow, Inner};
use crate::host::clock::{Time, after, earlier, since};
use crate::host::timers::{NEVER, Tick, tick_at};
use crate::ip::{IpHeader, MAX_HEADERS};
use crate::tcp::{Connection, Ending, Outgoing, SYN_TIMEOUT, Segment, TcpHeader, Verdict};
use crate::{Batch, Departure, Error, InterfaceId, KeepAlive, Listener, State};

/// Time for which a handshake waits for a place of its listener's backlog. Its SYN has been retransmitted by
/// then.
const HELD_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// Time within which another SYN is a duplicate made by the network: peers wait for a second (RFC 6298 2).
const DOUBLED: Duration = Duration::from_millis(500);

impl Flow {
    /// Processes a segment of this connection. Returns `false` if the connection has made room meanwhile, and
    /// the segment has no flow.
    pub(crate) fn receive(
        &self,
        time: Time,
        packet: &[u8],
        (ip, tcp): (&IpHeader, &TcpHeader),
        batch: &mut Batch,
    ) -> bool {
        let mut inner = self.lock();
        let time = inner.pass(time);
        if !inner.linked {
            return false;
        }
        if inner.is_held {
            let is_young = inner.waiting.is_some_and(|waiting| since(time, waiting) < DOUBLED);
            if tcp.opens() && is_young {
                return true;
            }
            // A retransmitted SYN starts anew, because a place may be free now.
            self.unlink(&mut inner);
            self.refresh(&mut inner, time);
            // A reset ends the handshake; any other segment is looked at anew.
            return tcp.rst;
        }
        if inner.time_wait.is_some() {
            let syn = if tcp.opens() { Segment::read(packet, ip.header_len) } else { None };
            let timestamp = syn.and_then(|syn| syn.options.timestamps).map(|(value, _)| value);
            return self.receive_late(&mut inner, time, (tcp, timestamp), batch);
        }
        let Inner { connection, listener, .. } = &mut *inner;
        let Some(connection) = connection.as_mut() else { return false };
        let before = connection.state();
        let Some(segment) = Segment::read(packet, ip.header_len) else { return true };
        if before == State::SynReceived
            && let Some(listener) = listener
        {
            self.take_cookie(time, listener, tcp, connection);
        }
        match connection.process(time, &segment) {
            Verdict::Done => {}
            Verdict::Refused => self.shared.counters.tcp_memory_refused.increment(),
            Verdict::Reset => {
                let checksums = self.interface.checksums;
                batch.reply(self.interface.id, self.remote().ip(), MAX_HEADERS, |buf| {
                    tcp.write_reset(ip, checksums, buf)
                });
            }
        }
        let heard = connection.heard();
        // A peer that never closes could otherwise prolong FIN-WAIT-2 with any segment.
        if !(inner.orphaned && before == State::FinWait2) {
            inner.heard = inner.heard.max(heard);
        }
        if heard == time {
            // Packets pass again, so the stored error is outdated.
            inner.soft = None;
        }
        self.after_segment(&mut inner, (time, before), tcp, batch);
        self.refresh(&mut inner, time);
        true
    }

    /// Keeps the answer that the peer accepted. A SYN with a place may have been answered with a cookie
    /// before, and the peer may acknowledge the cookie. The place stays.
    fn take_cookie(
        &self,
        time: Time,
        listener: &Weak<Listener>,
        tcp: &TcpHeader,
        connection: &mut Connection,
    ) {
        let ack = tcp.ack.filter(|_| !tcp.syn && !tcp.rst);
        let Some((isn, irs)) = ack.and_then(|ack| connection.other_answer(ack)) else { return };
        let addresses = self.endpoints();
        if listener.upgrade().is_some_and(|listener| listener.has_given_cookies(time))
            && let Some(mss) = self.shared.cookies.check(time, addresses, irs, isn)
        {
            self.shared.counters.tcp_cookies_accepted.increment();
            connection.become_cookies(time, addresses, isn, mss);
        }
    }

    fn receive_late(
        &self,
        inner: &mut Inner,
        time: Time,
        (tcp, timestamp): (&TcpHeader, Option<u32>),
        batch: &mut Batch,
    ) -> bool {
        let Some(wait) = &mut inner.time_wait else { return false };
        match wait.segment(time, tcp, timestamp) {
            Late::Ignore => true,
            Late::Forget => {
                self.unlink(inner);
                self.refresh(inner, time);
                true
            }
            Late::Acknowledge => {
                let ending = wait.ending;
                self.acknowledge(time, &ending, batch);
                true
            }
            Late::MakeRoom => {
                self.shared.counters.tcp_time_wait_reused.increment();
                self.unlink(inner);
                self.refresh(inner, time);
                false
            }
        }
    }

    /// Acknowledges the peer's FIN again in TIME-WAIT.
    pub(crate) fn repeat_last_ack(&self, now: Instant, batch: &mut Batch) {
        let (mut inner, time) = self.lock_at(now);
        let waiting = inner.time_wait.as_ref().map(|wait| wait.ending);
        let ending = inner.live().filter(|connection| connection.state() == State::TimeWait);
        if let Some(ending) = waiting.or(ending.map(|connection| connection.ending())) {
            self.acknowledge(time, &ending, batch);
        }
    }

    fn acknowledge(&self, time: Time, ending: &Ending, batch: &mut Batch) {
        let &Ending { snd_nxt: seq, rcv_nxt, marking, .. } = ending;
        let mut answer = Outgoing { seq, ack: Some(rcv_nxt), marking, ..Outgoing::default() };
        answer.options.timestamps = ending.timestamps.map(|timestamps| timestamps.option(time));
        batch.reply(self.interface.id, self.remote().ip(), MAX_HEADERS, |buf| {
            answer.write_alone(buf, self.endpoints(), self.interface.checksums)
        });
    }

    /// Updates the socket after a segment has changed the connection.
    fn after_segment(
        &self,
        inner: &mut Inner,
        (time, before): (Time, State),
        tcp: &TcpHeader,
        batch: &mut Batch,
    ) {
        let state = inner.state();
        if before.is_connecting() && !state.is_connecting() && state != State::Closed {
            self.established(inner, time);
        }
        if state == State::Closed && before != State::Closed && tcp.rst {
            self.was_reset(inner, before);
            let handshake = inner.connection.as_ref().filter(|_| before == State::SynReceived);
            if handshake.is_some_and(|connection| connection.is_syn_acknowledged(tcp.ack))
                && inner.listener().is_some_and(|listener| listener.takes_reset())
            {
                // The peer was connected: its acknowledgement was lost, or comes later. So the application
                // learns of the connection.
                self.established(inner, time);
                self.hand_over(inner, batch);
            }
        }
        if matches!(state, State::CloseWait | State::Closing | State::LastAck | State::TimeWait) {
            inner.ended = true;
        }
        // With TCP_DEFER_ACCEPT the listener gets the flow only when data has come.
        if inner.connected && state != State::Closed && !inner.is_deferred(time) {
            self.hand_over(inner, batch);
        }
        if inner.readable() > inner.held() {
            if inner.orphaned {
                // RFC 1122 4.2.2.13: data for an application that has closed the socket.
                self.refuse(inner);
            } else if inner.read_shut && matches!(before, State::FinWait1 | State::FinWait2) {
                // As in Linux: with both directions shut down, data is refused in the same way.
                self.refuse(inner);
                inner.error = Some(Error::ConnectionReset);
            } else if inner.held() > 0 {
                inner.hold();
            } else if inner.read_shut {
                inner.discard();
            }
        }
    }

    fn established(&self, inner: &mut Inner, time: Time) {
        inner.connected = true;
        self.shared.counters.tcp_established.increment();
        if let Some(owners) = self.shared.owners.get() {
            owners.established(self.interface.id, self.remote().ip(), &self.context);
        }
        let wait = inner.listener().and_then(|listener| listener.options().defer_accept);
        inner.defer(wait.map(|wait| after(time, wait)));
    }

    /// Passes the connection to its listener, if that has not happened yet.
    fn hand_over(&self, inner: &mut Inner, batch: &mut Batch) {
        inner.defer(None);
        let Some(listener) = inner.listener.take() else { return };
        let listener = listener.upgrade();
        let this = self.this.upgrade();
        let accepting = listener.zip(this).filter(|(listener, this)| listener.enqueue(this.clone()));
        if let Some((listener, _)) = accepting {
            self.shared.counters.tcp_accepts.increment();
            batch.touch_listener(&self.shared.rounds, listener);
        } else {
            // Without its listener, no program will ever take the connection.
            inner.orphaned = true;
            self.reset(inner);
        }
    }

    fn was_reset(&self, inner: &mut Inner, before: State) {
        let counters = &self.shared.counters;
        let error = match before {
            // RFC 9293 3.10.7.4: a reset after a simultaneous open is a refusal, too.
            State::SynSent | State::SynReceived if inner.listener.is_none() => {
                counters.tcp_refused.increment();
                Error::ConnectionRefused
            }
            _ => {
                counters.tcp_resets_received.increment();
                // As in Linux: the peer has sent everything and will not receive further data.
                if before == State::CloseWait { Error::BrokenPipe } else { Error::ConnectionReset }
            }
        };
        inner.lose_to_reset(error);
        if !inner.orphaned {
            inner.error = Some(error);
        }
    }

    /// Handles a timer set for `tick`; returns `true` if the flow has output or new readiness.
    pub(crate) fn on_timer(&self, tick: Tick, time: Time, batch: &mut Batch) -> bool {
        let mut inner = self.lock();
        let time = inner.pass(time);
        if inner.alarm.first != tick {
            // Superseded by an earlier timer.
            return false;
        }
        // The displaced entry is now the next one in the wheel.
        inner.alarm.first = std::mem::replace(&mut inner.alarm.second, NEVER);
        if !inner.linked {
            return false;
        }
        if let Some(wait) = &inner.time_wait {
            // A FIN may have moved the end of TIME-WAIT after the timer was set.
            if wait.expires() <= time {
                self.unlink(&mut inner);
                self.refresh(&mut inner, time);
            } else {
                self.arm(&mut inner, time);
            }
            return false;
        }
        if self.gives_up_at(&inner).is_some_and(|due| due <= time) {
            if inner.is_held {
                self.shared.counters.tcp_backlog_overflows.increment();
                self.unlink(&mut inner);
                self.refresh(&mut inner, time);
                return false;
            }
            self.shared.counters.tcp_timeouts.increment();
            let error = inner.soft.take().unwrap_or(Error::TimedOut);
            self.kill(&mut inner, error);
            self.refresh(&mut inner, time);
            return true;
        }
        if inner.deferred().is_some_and(|until| until <= time) {
            self.hand_over(&mut inner, batch);
        }
        match self.due_at(&mut inner, time) {
            Some(due) if due <= time => {
                // A blocked path has no egress to set the timer, so the attempt's end must be armed here.
                self.arm_end(&mut inner, time);
                true
            }
            _ => {
                self.arm(&mut inner, time);
                false
            }
        }
    }

    /// Sets the timer for the next deadline, unless an earlier one is set.
    pub(super) fn arm(&self, inner: &mut Inner, time: Time) {
        inner.watch(time);
        // Work due now was just done or was impossible, so the timer waits at least a millisecond.
        if let Some(due) = self.due_at(inner, time) {
            self.arm_at(inner, time, due);
        }
    }

    /// Does the same with the connection's own deadline given.
    pub(super) fn arm_for(&self, inner: &mut Inner, time: Time, connection: Option<Time>) {
        inner.watch(time);
        if let Some(due) = earlier(self.gives_up_or_hands_over_at(inner), connection) {
            self.arm_at(inner, time, due);
        }
    }

    fn arm_at(&self, inner: &mut Inner, time: Time, due: Time) {
        let tick = tick_at(due.max(after(time, Duration::from_millis(1))));
        // The earlier entry fires anyway and then sets the next one.
        if tick >= inner.alarm.first {
            return;
        }
        // The wheel has no removal, so a superseded entry stays and fires later.
        if inner.alarm.second == NEVER {
            inner.alarm.second = inner.alarm.first;
        }
        inner.alarm.first = tick;
        self.shared.timers.insert(tick, self.this.clone());
    }

    /// Sets the timer for the end of the peer's silence, regardless of earlier deadlines.
    fn arm_end(&self, inner: &mut Inner, time: Time) {
        if let Some(due) = self.gives_up_at(inner) {
            self.arm_at(inner, time, due);
        }
    }

    /// Arms the end of a connection attempt, which must end even if the path is blocked from the start.
    pub(crate) fn begin(&self, time: Time) {
        let mut inner = self.lock();
        self.arm_end(&mut inner, time);
    }

    /// Lists the flow in the next batch of timers.
    pub(crate) fn arm_now(&self, time: Time) {
        let mut inner = self.lock();
        self.arm(&mut inner, time);
    }

    fn due_at(&self, inner: &mut Inner, time: Time) -> Option<Time> {
        if !inner.linked {
            return None;
        }
        if let Some(wait) = &inner.time_wait {
            return Some(wait.expires());
        }
        if inner.is_held {
            return self.gives_up_at(inner);
        }
        let connection = inner.live().and_then(|connection| connection.deadline(time));
        earlier(self.gives_up_or_hands_over_at(inner), connection)
    }

    fn gives_up_or_hands_over_at(&self, inner: &Inner) -> Option<Time> {
        earlier(self.gives_up_at(inner), inner.deferred())
    }

    /// Returns the time at which the connection is given up because the peer acknowledges nothing or is
    /// silent.
    fn gives_up_at(&self, inner: &Inner) -> Option<Time> {
        let config = &self.shared.config;
        let state = inner.state();
        if let Some(waiting) = inner.waiting {
            match state {
                _ if inner.is_held => return Some(after(waiting, HELD_HANDSHAKE_TIMEOUT)),
                State::SynSent => {
                    // As in Linux, which checks the timeout at each retransmission of the SYN.
                    let user_timeout = inner.user_timeout().unwrap_or(config.syn_timeout).max(SYN_TIMEOUT);
                    return Some(after(waiting, user_timeout.min(config.syn_timeout)));
                }
                // Half of it, as in Linux (`tcp_synack_retries` 5).
                State::SynReceived => return Some(after(waiting, config.syn_timeout / 2)),
                _ => {}
            }
            // Retransmissions back off to a minute (RFC 6298 (2.5)), and the last one must have its chance.
            let user_timeout = inner.user_timeout().unwrap_or(config.user_timeout);
            let stalled = inner.stalled_since(waiting).map(|since| after(since, user_timeout));
            // No application waits for a peer that answers but accepts no data (tcp_orphan_retries).
            let orphan = inner.orphaned.then(|| after(inner.progress(waiting), config.orphan_timeout * 3));
            let stalled = earlier(stalled, orphan);
            // As in Linux, the user timeout also limits the time that an answering peer may have no room.
            // Keep-alives lift this limit, because they already show that the peer is there.
            let wanted = inner.cold.as_ref().filter(|cold| !cold.keepalive.on);
            let full = wanted.and_then(|cold| cold.full_since.zip(cold.user_timeout));
            return earlier(full.map(|(since, timeout)| after(since, timeout)), stalled);
        }
        if inner.orphaned && state == State::FinWait2 {
            return Some(after(inner.heard, config.orphan_timeout));
        }
        let cold = inner.cold.as_ref().filter(|_| inner.connection.is_some())?;
        let KeepAlive { on, idle, interval, probes } = cold.keepalive;
        let first = after(inner.heard, idle).max(cold.watched.filter(|_| on)?);
        // As in Linux, a user timeout replaces the number of probes, but leaves time for one probe.
        let unanswered = match cold.user_timeout {
            Some(timeout) => timeout.saturating_sub(idle).max(interval),
            None => interval.saturating_mul(probes),
        };
        Some(after(first, unanswered))
    }

    /// Updates everything that depends on the connection's state. Every call ends with it.
    pub(super) fn refresh(&self, inner: &mut Inner, time: Time) {
        let is_held = inner.is_held;
        if let Some(connection) = inner.live() {
            // A held handshake was never answered, so it needs no reset.
            if connection.is_finished() || (is_held && connection.state() == State::Closed) {
                self.unlink(inner);
            } else if connection.state() == State::TimeWait
                && connection.deadline(time).is_none_or(|due| due > time)
            {
                // The last acknowledgement must leave first, because the record that remains only answers
                // segments.
                let length = self.shared.config.time_wait;
                inner.time_wait = Some(Box::new(TimeWait::new(time, length, connection.ending())));
                inner.ended = true;
                inner.waiting = None;
                self.arm(inner, time);
            } else {
                let (waits, is_full) = (connection.awaits_ack(), connection.waits_for_room());
                inner.waiting = waits.then(|| inner.waiting.unwrap_or(time));
                if let Some(cold) = &mut inner.cold {
                    cold.full_since = is_full.then(|| cold.full_since.unwrap_or(time));
                }
            }
        }
        // As in Linux, TIME-WAIT does not wait for the reader, because it concerns only addresses and ports.
        let has_ended = !inner.linked || inner.time_wait.is_some();
        // Unread data remains for the application.
        if has_ended && (inner.orphaned || inner.readable() == 0) {
            inner.connection = None;
        }
        self.publish(inner);
    }

    pub(super) fn publish(&self, inner: &mut Inner) {
        self.ready.store(inner.readiness().bits(), Ordering::Release);
    }

    /// Ends the connection with an error and without a reset.
    pub(super) fn kill(&self, inner: &mut Inner, error: Error) {
        inner.lose_to_silence(error);
        if !inner.orphaned {
            inner.error = Some(error);
        }
        self.unlink(inner);
    }

    /// Makes the connection send a reset; the flow ends when the reset has left.
    pub(super) fn reset(&self, inner: &mut Inner) {
        inner.lose_to_own_reset();
        let is_read = inner.is_read();
        if let Some(connection) = inner.live() {
            connection.abort(is_read);
            self.shared.counters.tcp_resets_sent.increment();
        }
    }

    /// Resets as [`Flow::reset`] does, because of refused data. The peer must learn of it even if its FIN has
    /// arrived.
    fn refuse(&self, inner: &mut Inner) {
        inner.lose_to_own_reset();
        if let Some(connection) = inner.live() {
            connection.refuse();
            self.shared.counters.tcp_resets_sent.increment();
        }
    }

    /// Removes the flow from the demultiplexer: CLOSED.
    pub(super) fn unlink(&self, inner: &mut Inner) {
        if !std::mem::replace(&mut inner.linked, false) {
            return;
        }
        self.shared.flows.remove(&self.key);
        inner.time_wait = None;
        self.note_ended(inner);
        // A held handshake has no place to free.
        let listener = inner.listener.take().filter(|_| !inner.is_held);
        if let Some(listener) = listener.and_then(|listener| listener.upgrade()) {
            listener.forget_handshake(inner.latest);
        }
    }

    /// Marks a new flow as waiting for a place of its listener's backlog.
    pub(crate) fn hold(&self) {
        self.lock().is_held = true;
    }

    /// Ends a held flow whose listener is gone.
    pub(crate) fn end_held(&self, time: Time) {
        let mut inner = self.lock();
        let time = inner.pass(time);
        if inner.linked && inner.is_held {
            self.unlink(&mut inner);
            self.refresh(&mut inner, time);
        }
    }

    /// Gives a held flow a place; the stack's next timeout answers its SYN. Returns false if it no longer
    /// waits. The lock of another flow that had a place may be held meanwhile, because a held flow locks no
    /// other.
    pub(crate) fn let_in(&self, time: Time) -> bool {
        let mut inner = self.lock();
        let time = inner.pass(time);
        if !inner.linked || !inner.is_held {
            return false;
        }
        inner.is_held = false;
        // The time of the handshake starts only now.
        inner.waiting = Some(time);
        self.arm(&mut inner, time);
        true
    }

    /// Frees this flow's addresses for a new connection with the initial sequence number `isn`. This requires
    /// TIME-WAIT and distinguishable sequence numbers (RFC 6191's condition, by sequence numbers).
    pub(crate) fn make_room(&self, time: Time, isn: u32) -> bool {
        let mut inner = self.lock();
        let gives_way =
            inner.linked && inner.time_wait.as_ref().is_some_and(|wait| wait.gives_way_to(time, isn));
        if gives_way {
            self.shared.counters.tcp_time_wait_reused.increment();
            self.unlink(&mut inner);
            self.refresh(&mut inner, time);
        }
        gives_way
    }

    /// Makes the next egress retransmit outstanding data; with `stalled` only after a retransmission timeout.
    /// Returns false if there is nothing to do.
    pub(crate) fn expedite(&self, stalled: bool) -> bool {
        let mut inner = self.lock();
        let waits = inner.waiting.is_some();
        match inner.live() {
            Some(connection) if waits && (!stalled || connection.is_stalled()) => {
                connection.expedite();
                true
            }
            _ => false,
        }
    }

    /// Returns true if something waits for an acknowledgement.
    pub(crate) fn is_waiting(&self) -> bool {
        self.lock().waiting.is_some()
    }

    /// Ends the connection with an error and a reset if something waits for an acknowledgement. Returns false
    /// if nothing waits.
    pub(crate) fn fail_waiting(&self, now: Instant, error: Error) -> bool {
        let (mut inner, time) = self.lock_at(now);
        if inner.waiting.is_none() || !inner.linked {
            return false;
        }
        inner.lose_to_silence(error);
        if !inner.orphaned {
            inner.error = Some(error);
        }
        match inner.state() {
            State::SynSent | State::TimeWait => self.unlink(&mut inner),
            // `reset` would record the loss as caused by this end.
            _ => {
                let is_read = inner.is_read();
                if let Some(connection) = inner.live() {
                    connection.abort(is_read);
                    self.shared.counters.tcp_resets_sent.increment();
                }
            }
        }
        self.refresh(&mut inner, time);
        true
    }

    /// Ends the connection as the peer's reset would, because the program at its other end is gone. A
    /// connection attempt continues, because the peer's successor may answer it, unless nothing passes.
    /// Returns false if nothing changes.
    pub(crate) fn lose_peer(&self, now: Instant, departure: Departure) -> bool {
        let (mut inner, time) = self.lock_at(now);
        let before = inner.state();
        match before {
            State::SynSent if departure == Departure::Barred => {
                if !inner.orphaned {
                    inner.error = Some(Error::HostUnreachable);
                }
                self.unlink(&mut inner);
            }
            State::Closed | State::SynSent => return false,
            // The peer that could repeat its FIN is gone.
            State::TimeWait => self.unlink(&mut inner),
            _ if departure == Departure::Orderly && inner.has_told_all() => {
                if let Some(connection) = inner.live() {
                    connection.forget();
                }
                // As after a reset in this state, further writes fail. Nothing is lost by that.
                if before == State::CloseWait && !inner.orphaned {
                    inner.error = Some(Error::BrokenPipe);
                }
            }
            _ => {
                if departure == Departure::Presumed {
                    self.reset(&mut inner);
                } else if let Some(connection) = inner.live() {
                    connection.forget();
                }
                self.was_reset(&mut inner, before);
            }
        }
        self.refresh(&mut inner, time);
        true
    }

    /// Ends the connection with a reset, because its network is left.
    pub(crate) fn abandon(&self, now: Instant) {
        // The lock must be free again for `abort_because`.
        let is_delivered = {
            let inner = self.lock();
            inner.orphaned && inner.state() == State::FinWait2
        };
        // A closed connection whose peer has everything (FIN-WAIT-2) is only forgotten, because a reset would
        // mean unread data.
        if !is_delivered {
            self.abort_because(now, Error::NetworkDown);
        }
    }

    /// Returns true if the connection uses `interface`.
    pub(crate) fn is_on(&self, interface: InterfaceId) -> bool {
        self.interface.id == interface
    }
}
