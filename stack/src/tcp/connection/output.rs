//! Outgoing segments and their times.

use std::net::SocketAddr;
use std::time::Duration;

use super::{ALL_READ, Connection, own_mss};
use crate::State;
use crate::host::clock::{Time, after, earlier, since};
use crate::ip::MAX_PACKET;
use crate::socket::flow::Egress;
use crate::tcp::options::{MAX_BLOCKS, Options};
use crate::tcp::segment::{ECT0, Outgoing};
use crate::tcp::sender::{INITIAL_WINDOW, Plan};
use crate::tcp::sequence;

/// Timeout of the first SYN (RFC 6298 2.1), which doubles with each further try, and its maximum.
pub(crate) const SYN_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_SYN_TIMEOUT: Duration = Duration::from_secs(60);

/// A super-segment in the caller's buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    /// Bytes in total, and bytes of headers.
    pub(crate) len: usize,
    pub(crate) header_len: usize,
    /// Payload of each wire packet but the last, bytes.
    pub(crate) segment: usize,
}

/// Destination buffer of a packet, and the local and remote addresses in it.
struct Out<'a> {
    addresses: (SocketAddr, SocketAddr),
    buf: &'a mut [u8],
}

impl Connection {
    /// Writes at most one super-segment to `buf`, which holds [`MAX_PACKET`] bytes. Returns `None` if there
    /// is nothing to send before [`deadline`](Self::deadline).
    pub(crate) fn emit(
        &mut self,
        now: Time,
        limits: &Egress,
        addresses: (SocketAddr, SocketAddr),
        buf: &mut [u8],
    ) -> Option<Written> {
        let out = &mut Out { addresses, buf };
        if out.buf.len() < MAX_PACKET {
            return None;
        }
        self.take_limits(limits);
        self.run_timers(now);
        if self.reset_due {
            // A peer whose SYN was not acknowledged would take a reset as a refusal, so acknowledge first.
            let only_syn_came = self.receiver.nxt() == 1;
            if only_syn_came && self.receiver.is_answer_due(now, self.mss()) {
                return self.emit_ack(now, out);
            }
            self.reset_due = false;
            let reset = Outgoing {
                rst: true,
                urgent: 0,
                options: Options::default(),
                ..self.header(now, self.wire_nxt())
            };
            let text = if self.says_read { ALL_READ } else { &[] };
            let packet = self.finish(out, &reset, text.len())?;
            out.buf[packet.header_len..packet.len].copy_from_slice(text);
            return Some(packet);
        }
        match self.state {
            State::Closed => None,
            State::SynReceived if !self.syn.due && self.receiver.is_answer_due(now, self.mss()) => {
                self.emit_ack(now, out)
            }
            State::SynSent | State::SynReceived => self.emit_syn(now, out),
            _ => self.emit_synchronized(now, out),
        }
    }

    /// Returns the time at which [`emit`](Self::emit) has something to do; now or earlier if it has already.
    pub(crate) fn deadline(&mut self, now: Time) -> Option<Time> {
        if self.reset_due || self.expedite_due {
            return Some(now);
        }
        match self.state {
            State::Closed => None,
            State::SynSent | State::SynReceived => {
                if self.syn.due || self.receiver.is_answer_due(now, self.mss()) {
                    Some(now)
                } else {
                    self.syn.again
                }
            }
            _ => self.deadline_synchronized(now),
        }
    }

    /// Returns true if [`emit`](Self::emit) has something to send.
    pub(crate) fn has_output(&mut self, now: Time) -> bool {
        self.deadline(now).is_some_and(|due| due <= now)
    }

    /// Returns the time of the next output after an emission, if there is certainly nothing to send now.
    /// Returns `None` if only the next [`emit`](Self::emit) can tell.
    pub(crate) fn rest(&mut self, now: Time) -> Option<Option<Time>> {
        let standing = matches!(self.state, State::Established | State::CloseWait);
        let due = self.reset_due || self.expedite_due || self.receiver.is_answer_due(now, self.mss());
        if !standing || due || !self.sender.rest(now) {
            return None;
        }
        let next = self.next_timer();
        next.is_none_or(|at| at > now).then_some(next)
    }

    fn deadline_synchronized(&mut self, now: Time) -> Option<Time> {
        if self.receiver.is_answer_due(now, self.mss()) {
            return Some(now);
        }
        let planned = match self.sender.plan(now) {
            Plan::Send { .. } | Plan::WindowProbe => return Some(now),
            Plan::Wait(until) => until,
        };
        if self.sender.is_urgent_due() {
            return Some(now);
        }
        earlier(planned, self.next_timer())
    }

    fn next_timer(&self) -> Option<Time> {
        earlier(earlier(self.sender.next_timer(), self.receiver.answer_at()), self.keepalive_at())
    }

    /// Makes the next [`emit`](Self::emit) retransmit unacknowledged data, if there is any.
    pub(crate) fn expedite(&mut self) {
        self.expedite_due = true;
    }

    fn run_expedite(&mut self, now: Time) {
        match self.state {
            State::SynSent | State::SynReceived => {
                self.syn.due = true;
                // The lost tries say nothing about the path that has come back, so the backoff starts anew.
                self.syn.tries = self.syn.tries.min(1);
            }
            State::Closed => {}
            _ => self.sender.expedite(now, INITIAL_WINDOW * self.mss()),
        }
    }

    fn take_limits(&mut self, limits: &Egress) {
        // All headers together take less than 120 bytes.
        self.segment = limits.segment.clamp(1, MAX_PACKET - 120) as u16;
        // SACK blocks in data segments leave less room for the data.
        let mss = self.mss() - sack_len(self.data_blocks());
        let segments = (MAX_PACKET as u64 - 120) / mss;
        let most = segments.min(limits.max_segments as u64).max(1);
        self.sender.set_limits(mss, most, limits.in_flight_cap as u64);
    }

    fn run_timers(&mut self, now: Time) {
        if std::mem::take(&mut self.expedite_due) {
            self.run_expedite(now);
        }
        if self.syn.again.is_some_and(|at| at <= now) {
            self.syn.due = true;
        }
        if !matches!(self.state, State::Closed | State::SynSent | State::SynReceived) {
            self.sender.run_timers(now);
        }
        if self.keepalive_at().is_some_and(|at| at <= now) {
            // RFC 9293 3.8.4: a keep-alive is the same segment as a window probe, which the peer must answer.
            self.sender.window_probe_due = true;
            self.note_probe(now);
        }
    }

    fn note_probe(&mut self, now: Time) {
        self.unanswered = match self.probed > self.heard {
            true => {
                let since_last = since(now, self.probed).as_millis();
                self.unanswered.saturating_add(u32::try_from(since_last).unwrap_or(u32::MAX))
            }
            false => 0,
        };
        self.probed = now;
    }

    /// Returns the time of the next keep-alive (RFC 9293 3.8.4).
    fn keepalive_at(&self) -> Option<Time> {
        // A peer without room gets keep-alives too, because the pauses between window probes grow to a
        // minute. An application with keep-alives wants an answer sooner.
        let has_room = !self.sender.is_shut_out();
        let due = self.settings.keepalive.after(self.heard, self.probed, has_room)?;
        let open =
            matches!(self.state, State::Established | State::CloseWait | State::FinWait1 | State::FinWait2);
        (open && (!self.sender.awaits_ack() || !has_room)).then_some(due)
    }

    fn emit_syn(&mut self, now: Time, out: &mut Out<'_>) -> Option<Written> {
        if !std::mem::take(&mut self.syn.due) {
            return None;
        }
        // Early tries follow a challenge, not a timeout, so they do not double the timeout.
        let timeout = SYN_TIMEOUT * (1 << self.syn.tries.saturating_sub(self.syn.early_retries).min(6));
        self.syn.again = Some(after(now, timeout.min(MAX_SYN_TIMEOUT)));
        self.syn.tries = self.syn.tries.saturating_add(1);
        let answers = self.state == State::SynReceived;
        let options = Options {
            mss: Some(own_mss(out.addresses.0, self.settings.max_segment)),
            // RFC 7323 2.2: the answer has a window scale only if the SYN had one.
            window_scale: match answers {
                true => self.own_scale,
                false => Some(self.wanted_scale()),
            },
            sack_permitted: !answers || self.sender.sack,
            timestamps: self.timestamps.map(|timestamps| timestamps.option(now)),
            ..Options::default()
        };
        let syn = Outgoing {
            seq: self.isn,
            ack: answers.then(|| self.wire_ack()),
            syn: true,
            // RFC 3168 6.1.1: the second SYN is without ECN, because some middleboxes drop SYNs with ECN.
            ece: if answers { self.ecn.on } else { self.settings.ecn && self.syn.tries == 1 },
            cwr: !answers && self.settings.ecn && self.syn.tries == 1,
            window: self.receiver.offer_in_syn(),
            options,
            marking: self.settings.marking,
            ..Outgoing::default()
        };
        self.finish(out, &syn, 0)
    }

    fn emit_synchronized(&mut self, now: Time, out: &mut Out<'_>) -> Option<Written> {
        let due = self.receiver.is_answer_due(now, self.mss());
        // A pure acknowledgement has room for more blocks than a segment with data.
        if due && self.receiver.has_blocks() {
            return self.emit_ack(now, out);
        }
        match self.sender.plan(now) {
            Plan::Send { start, end, again } => self.emit_data(now, out, (start, end, again)),
            Plan::WindowProbe => {
                self.sender.window_probe_due = false;
                self.note_probe(now);
                let seq = sequence::wire(self.isn, self.sender.una().saturating_sub(1));
                let probe = self.emit_bare(now, seq, out);
                // The probe lies before the peer's window, where receivers ignore the urgent pointer, so it
                // must be sent again.
                self.sender.set_urgent_due(true);
                probe
            }
            Plan::Wait(_) if due || self.sender.is_urgent_due() => self.emit_ack(now, out),
            Plan::Wait(_) => None,
        }
    }

    fn emit_ack(&mut self, now: Time, out: &mut Out<'_>) -> Option<Written> {
        // SND.NXT even during retransmissions, because the peer ignores the acknowledgement of an older
        // number.
        self.emit_bare(now, self.wire_nxt(), out)
    }

    /// Writes a segment without data: an acknowledgement with SACK blocks.
    fn emit_bare(&mut self, now: Time, seq: u32, out: &mut Out<'_>) -> Option<Written> {
        let mut header = self.header(now, seq);
        self.receiver.on_acknowledged();
        self.sender.set_urgent_due(false);
        if self.sender.sack {
            self.report(self.most_blocks(), &mut header);
        } else {
            // Unreported news would keep an acknowledgement due for ever.
            self.receiver.report_nothing();
        }
        self.finish(out, &header, 0)
    }

    /// Returns the number of SACK blocks that fit beside the other options.
    fn most_blocks(&self) -> usize {
        if self.timestamps.is_some() { MAX_BLOCKS - 1 } else { MAX_BLOCKS }
    }

    /// Returns the number of SACK blocks in a segment with data (RFC 2018 section 3). Blocks are left out if
    /// they take more than an eighth of the segment.
    fn data_blocks(&self) -> usize {
        let blocks = self.receiver.ranges().min(self.most_blocks());
        let room = self.mss() / 8;
        if self.sender.sack && sack_len(blocks) <= room { blocks } else { 0 }
    }

    fn report(&mut self, most: usize, header: &mut Outgoing) {
        let irs = self.irs;
        let blocks = &mut header.options.sack;
        self.receiver.report(most, |start, end| {
            blocks.push((sequence::wire(irs, start), sequence::wire(irs, end)));
        });
    }

    fn emit_data(
        &mut self,
        now: Time,
        out: &mut Out<'_>,
        (start, end, again): (u64, u64, bool),
    ) -> Option<Written> {
        let mut header = self.header(now, sequence::wire(self.isn, start));
        let (length, fin) = self.sender.measure(start, end);
        header.fin = fin;
        // PSH with the last queued byte, because nothing follows for now.
        header.psh = !fin && end >= self.sender.queued_end();
        // RFC 3168 6.1.5: retransmissions are not ECN-capable, so that forged packets cannot reduce the
        // window.
        if self.ecn.on && !again {
            header.ecn = ECT0;
            header.cwr = std::mem::take(&mut self.sender.tell_reduced);
        }
        let blocks = self.data_blocks();
        if blocks > 0 {
            self.report(blocks, &mut header);
        }
        self.receiver.on_acknowledged();
        self.receiver.on_answered(now);
        self.sender.set_urgent_due(false);
        self.sender.on_sent(now, start, end, again);
        let packet = self.finish(out, &header, length)?;
        self.sender.copy(start, &mut out.buf[packet.header_len..packet.len]);
        Some(packet)
    }

    /// Returns the header of a segment of an established connection.
    fn header(&mut self, now: Time, seq: u32) -> Outgoing {
        let timestamps = self.timestamps.map(|timestamps| timestamps.option(now));
        Outgoing {
            seq,
            ack: Some(self.wire_ack()),
            ece: self.ecn.echo,
            window: self.receiver.offer(self.mss()),
            urgent: self.urgent_pointer(seq),
            options: Options { timestamps, ..Options::default() },
            marking: self.settings.marking,
            ..Outgoing::default()
        }
    }

    /// Writes the headers for `payload` bytes that follow them.
    fn finish(&self, out: &mut Out<'_>, header: &Outgoing, payload: usize) -> Option<Written> {
        let len = header.write(out.buf, out.addresses, payload)?;
        Some(Written { len, header_len: len - payload, segment: self.sender.mss() as usize })
    }
}

/// Returns the padded bytes of an option with this number of SACK blocks.
fn sack_len(blocks: usize) -> u64 {
    if blocks == 0 { 0 } else { 4 + 8 * blocks as u64 }
}
