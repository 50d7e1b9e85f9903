//! Arriving segments: RFC 9293 3.10.7, with RFC 5961's defence against forged segments.

use std::time::Duration;

use super::{ALL_READ, Connection, millis};
use crate::State;
use crate::host::clock::{Time, after};
use crate::tcp::options::MAX_BLOCKS;
use crate::tcp::segment::Segment;
use crate::tcp::sender::Acknowledgement;
use crate::tcp::sequence;

/// Delay of a SYN after the reset that makes room for it, in case the network reorders the two.
const AFTER_RESET: Duration = Duration::from_millis(5);

/// Maximum number of such early SYNs per connection.
const EARLY_SYN_RETRIES: u8 = 3;

/// Remaining action for a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No action.
    Done,
    /// Answer with a reset, because the segment belongs to another connection.
    Reset,
    /// Only count that memory was too short for all of the data.
    Refused,
}

impl Connection {
    /// Processes one segment.
    pub(crate) fn process(&mut self, now: Time, segment: &Segment<'_>) -> Verdict {
        let verdict = match self.state {
            State::Closed => Verdict::Done,
            State::SynSent => self.process_in_syn_sent(now, segment),
            _ => self.process_synchronized(now, segment),
        };
        self.account();
        verdict
    }

    /// Processes a segment in SYN-SENT (RFC 9293 3.10.7.3).
    fn process_in_syn_sent(&mut self, now: Time, segment: &Segment<'_>) -> Verdict {
        let ours = self.is_syn_acknowledged(segment.ack);
        if segment.ack.is_some() && !ours {
            // A reset with a wrong acknowledgement is old or forged.
            if segment.rst {
                return Verdict::Done;
            }
            if !segment.syn {
                self.retry_syn_early(now);
            }
            return Verdict::Reset;
        }
        if segment.rst {
            // Without our number in it, any stranger could have sent the reset.
            if ours {
                self.state = State::Closed;
            }
            return Verdict::Done;
        }
        if !segment.syn {
            return Verdict::Done;
        }
        self.take_syn(now, segment);
        self.heard = now;
        if ours {
            self.establish(now);
            // The window of a SYN is never scaled (RFC 7323 2.2).
            self.take_window(now, 0, 1, u64::from(segment.window));
            // At once, because the peer's application would otherwise not hear of a program that is killed
            // just after connect.
            self.receiver.acknowledge_now();
        } else {
            // Simultaneous open (RFC 9293 3.5, figure 7).
            self.state = State::SynReceived;
            self.syn.due = true;
            self.window_ack = 0;
        }
        Verdict::Done
    }

    /// Sends the SYN again soon, after the peer has answered for an older connection of these addresses.
    fn retry_syn_early(&mut self, now: Time) {
        let Some(again) = self.syn.again.filter(|_| self.syn.early_retries < EARLY_SYN_RETRIES) else {
            return;
        };
        // Our reset ends that connection, so there is no need to wait a second, as in Linux. Only a few
        // times, because the peer may ignore the reset.
        self.syn.early_retries += 1;
        self.syn.again = Some(again.min(after(now, AFTER_RESET)));
    }

    fn process_synchronized(&mut self, now: Time, segment: &Segment<'_>) -> Verdict {
        // RFC 7323 3.2: a segment without timestamps is dropped silently once they are in use.
        let stamped = segment.options.timestamps.is_some() || segment.rst || segment.syn;
        if self.timestamps.is_some() && !stamped {
            return Verdict::Done;
        }
        let next = self.receiver.nxt();
        let start = sequence::offset(self.irs, next, segment.seq);
        let acceptable = start.filter(|&start| self.is_acceptable(now, start, segment));
        let Some(start) = acceptable else {
            if !segment.rst && self.may_challenge(now) {
                self.repeat_duplicate(start, segment);
                self.receiver.acknowledge_now();
            }
            return Verdict::Done;
        };
        if segment.rst {
            return self.process_reset(now, (start, next), segment);
        }
        if segment.syn {
            return self.process_syn(now, start, segment);
        }
        // RFC 9293 3.10.7.4: every segment of a synchronized connection carries an acknowledgement.
        let Some(ack) = segment.ack else { return Verdict::Done };
        if self.state == State::SynReceived {
            // RFC 9293 3.10.7.4: in SYN-RECEIVED, an unacceptable acknowledgement is answered with a reset.
            if !self.is_syn_acknowledged(segment.ack) {
                return Verdict::Reset;
            }
            self.establish(now);
            self.take_window(now, start, 1, u64::from(segment.window) << self.peer_scale);
        }
        self.heard = now;
        // RFC 7323 4.3: only a segment that starts at or before the last acknowledgement sets TS.Recent.
        if let (Some(timestamps), Some((value, _))) = (&mut self.timestamps, segment.options.timestamps)
            && start <= self.receiver.acked()
        {
            timestamps.update(now, value);
        }
        if !self.process_ack(now, start, ack, segment) {
            return Verdict::Done;
        }
        self.process_data(now, start, segment)
    }

    /// Returns true for an acceptable segment (RFC 9293 3.10.7.4, first step, and RFC 7323 5.3).
    fn is_acceptable(&mut self, now: Time, start: u64, segment: &Segment<'_>) -> bool {
        if let Some(timestamps) = &self.timestamps
            && let Some((value, _)) = segment.options.timestamps
            && !segment.rst
            && !segment.syn
            && timestamps.is_old(now, value)
        {
            return false;
        }
        let end = start + segment.len();
        let edge = self.receiver.edge().max(self.receiver.nxt());
        // Duplicates are acceptable back to the last acknowledgement sent, because their acknowledgements may
        // be new.
        end >= self.receiver.acked() && start <= edge
    }

    /// Records an old segment as a duplicate, to be reported (RFC 2883).
    fn repeat_duplicate(&mut self, start: Option<u64>, segment: &Segment<'_>) {
        let next = self.receiver.nxt();
        if let Some(start) = start
            && !segment.payload.is_empty()
            && start + segment.payload.len() as u64 <= next
            && start > 0
        {
            self.receiver.on_duplicate(start, start + segment.payload.len() as u64);
        }
    }

    /// Returns true if another challenge may be sent.
    fn may_challenge(&mut self, now: Time) -> bool {
        let now = millis(now);
        if now.wrapping_sub(self.challenged) >= 1000 {
            (self.challenged, self.challenges) = (now, 0);
        }
        // RFC 5961 section 7 limits answers to segments that a stranger could forge.
        self.challenges = self.challenges.saturating_add(1);
        self.challenges <= super::CHALLENGES
    }

    /// Returns true if a segment acknowledges our SYN, and nothing more.
    pub(crate) fn is_syn_acknowledged(&self, ack: Option<u32>) -> bool {
        ack == Some(sequence::wire(self.isn, 1)) && self.syn.tries > 0
    }

    /// Processes a reset.
    fn process_reset(&mut self, now: Time, (start, next): (u64, u64), segment: &Segment<'_>) -> Verdict {
        if self.state == State::TimeWait {
            return Verdict::Done;
        }
        // Only the next expected number resets (RFC 5961 section 3), and no reset ends TIME-WAIT (RFC 1337).
        // A text of `ALL_READ` applies to data up to the acknowledgement number.
        if start == next {
            self.state = State::Closed;
            let read = segment.ack.filter(|_| segment.payload == ALL_READ);
            let read = read.and_then(|ack| sequence::offset(self.isn, self.sender.una(), ack));
            let (all, sent) = (self.sender.queued_end(), self.sender.nxt());
            // The peer must have read all written data; the FIN may be included.
            self.was_read = read.is_some_and(|read| (all..=sent).contains(&read));
        } else if self.may_challenge(now) {
            self.receiver.acknowledge_now();
        }
        Verdict::Done
    }

    /// Answers a SYN with an acknowledgement (RFC 5961 section 4), or with the SYN-ACK during the handshake.
    fn process_syn(&mut self, now: Time, start: u64, segment: &Segment<'_>) -> Verdict {
        if self.state == State::SynReceived && start == 0 {
            if self.is_syn_acknowledged(segment.ack) {
                // RFC 9293 3.5, figure 7: simultaneous open.
                self.establish(now);
                self.take_window(now, 0, 1, u64::from(segment.window));
                self.receiver.acknowledge_now();
            } else {
                // The peer repeats its SYN, so the answer was lost.
                self.syn.due = true;
            }
        } else if self.may_challenge(now) {
            self.receiver.acknowledge_now();
        }
        Verdict::Done
    }

    /// Processes the acknowledgement (RFC 9293 3.10.7.4, fifth step). Returns `false` if the rest of the
    /// segment must be ignored.
    fn process_ack(&mut self, now: Time, start: u64, ack: u32, segment: &Segment<'_>) -> bool {
        // RFC 5961 section 5: an acknowledgement that is too old or of unsent data may be forged.
        let (una, nxt) = (self.sender.una(), self.sender.nxt());
        let oldest = una.saturating_sub(self.sender.largest_window());
        let ack = sequence::offset(self.isn, una, ack).filter(|ack| (oldest..=nxt).contains(ack));
        let Some(ack) = ack else {
            if self.may_challenge(now) {
                self.receiver.acknowledge_now();
            }
            return false;
        };
        let window = u64::from(segment.window) << self.peer_scale;
        // RFC 5681 section 2: a duplicate acknowledgement leaves the window unchanged.
        let same_window = ack + window == self.sender.edge();
        if ack >= self.sender.una() {
            let mut blocks = [(0, 0); MAX_BLOCKS];
            let (count, duplicate) = self.read_blocks(ack, segment, &mut blocks);
            let rtt = self.round_trip(now, segment);
            let acknowledgement = Acknowledgement {
                ack,
                blocks: &blocks[..count],
                duplicate,
                ece: segment.ece && self.ecn.on,
                rtt,
                pure: segment.payload.is_empty() && !segment.fin && same_window,
            };
            self.sender.on_ack(now, &acknowledgement);
        }
        self.take_window(now, start, ack, window);
        self.after_ack();
        true
    }

    fn round_trip(&self, now: Time, segment: &Segment<'_>) -> Option<Duration> {
        let (_, echo) = segment.options.timestamps?;
        self.timestamps.as_ref()?.round_trip(now, echo)
    }

    /// Reads the SACK blocks as stream offsets, without invalid ones, and a reported duplicate (RFC 2883
    /// section 4).
    fn read_blocks(
        &self,
        ack: u64,
        segment: &Segment<'_>,
        blocks: &mut [(u64, u64); MAX_BLOCKS],
    ) -> (usize, Option<(u64, u64)>) {
        if !self.sender.sack || segment.options.sack.is_empty() {
            return (0, None);
        }
        let mut all = [(0, 0); MAX_BLOCKS];
        let mut read = 0;
        for (start, end) in segment.options.sack.iter() {
            let start = sequence::offset(self.isn, ack, start);
            let end = sequence::offset(self.isn, ack, end);
            // Data that was never sent cannot have arrived.
            if let (Some(start), Some(end)) = (start, end)
                && start < end
                && end <= self.sender.nxt()
            {
                all[read] = (start, end);
                read += 1;
            } else if read == 0 {
                // The first block is a duplicate or the latest news; if it is invalid, the meaning of the
                // others is unknown.
                return (0, None);
            }
        }
        let first = all[0];
        let covered = all[1..read].iter().any(|other| other.0 <= first.0 && first.1 <= other.1);
        let duplicate = (read > 0 && (first.1 <= ack || covered)).then_some(first);
        let mut count = 0;
        for &(start, end) in &all[usize::from(duplicate.is_some())..read] {
            if start >= ack {
                blocks[count] = (start, end);
                count += 1;
            }
        }
        (count, duplicate)
    }

    /// Takes the peer's window.
    fn take_window(&mut self, now: Time, seq: u64, ack: u64, window: u64) {
        // An older segment must not shrink it (RFC 9293 3.10.7.4). Of two segments with the same numbers, the
        // larger window is newer.
        let newer = (seq, ack) > (self.window_seq, self.window_ack);
        let same = (seq, ack) == (self.window_seq, self.window_ack);
        if newer || (same && ack + window > self.sender.edge()) {
            (self.window_seq, self.window_ack) = (seq, ack);
            self.sender.set_window(now, ack + window);
        }
    }

    fn after_ack(&mut self) {
        if !self.sender.fin_acked() {
            return;
        }
        self.state = match self.state {
            State::FinWait1 => State::FinWait2,
            State::Closing => State::TimeWait,
            State::LastAck => State::Closed,
            other => other,
        };
    }

    /// Processes data and FIN (RFC 9293 3.10.7.4, seventh and eighth step).
    fn process_data(&mut self, now: Time, start: u64, segment: &Segment<'_>) -> Verdict {
        // RFC 3168 6.1.3: the echo goes on until the sender says that it has reacted.
        if segment.cwr {
            self.ecn.echo = false;
        }
        // Only data is ECN-capable (RFC 3168 6.1.4). Two ends that answered marked acknowledgements would
        // never stop.
        if segment.marked && self.ecn.on && !segment.payload.is_empty() {
            self.ecn.echo = true;
            self.receiver.acknowledge_now();
        }
        let receiving = matches!(self.state, State::Established | State::FinWait1 | State::FinWait2);
        if let Some(pointer) = segment.urgent.filter(|_| receiving) {
            self.receiver.on_urgent(start + u64::from(pointer));
        }
        if segment.payload.is_empty() && !segment.fin {
            return Verdict::Done;
        }
        if !receiving {
            // All of it came before; the peer has missed the acknowledgement.
            self.receiver.acknowledge_now();
            return Verdict::Done;
        }
        let content = (start, segment.payload, segment.fin);
        let mss = self.mss();
        let complete = self.receiver.on_segment(now, content, mss, &self.settings.memory);
        if self.receiver.is_finished() {
            self.state = match self.state {
                State::Established => State::CloseWait,
                State::FinWait1 => State::Closing,
                State::FinWait2 => State::TimeWait,
                other => other,
            };
        }
        if complete { Verdict::Done } else { Verdict::Refused }
    }
}
