//! A node's processor. Work takes time, and meanwhile datagrams wait in the node's sockets.

use std::time::Duration;

use super::{Event, World};
use crate::Time;
use crate::wire::Sender;

/// Time that a node's work takes. Without a processor, work takes no time.
#[derive(Debug, Clone, Copy)]
pub struct Processor {
    /// Time of one X25519 operation.
    pub x25519: Duration,
    /// Time of all other work for a datagram received or sent.
    pub datagram: Duration,
}

impl Processor {
    /// One core of a usual machine.
    pub const USUAL: Self = Self { x25519: Duration::from_micros(45), datagram: Duration::from_micros(5) };
}

/// Share of a processor that a node gets while others keep it busy: a slice of each period.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Time for which the node runs.
    pub slice: Duration,
    /// Time from the begin of one slice to that of the next, longer than a slice.
    pub period: Duration,
}

/// The work that a node had done at the last look, and the time until which it is at work.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) processor: Option<Processor>,
    pub(super) busy_until: Time,
    pub(super) x25519: u64,
    /// Its share of the processor until that time.
    pub(super) share: Option<(Share, Time)>,
}

impl Work {
    /// Returns the time from which on the node can work that has something to do at `at`.
    fn begin(&self, at: Time) -> Time {
        let at = at.max(self.busy_until);
        match self.share {
            Some((share, until)) if at < until && share.phase(at) >= share.slice => {
                (at + (share.period - share.phase(at))).min(until)
            }
            _ => at,
        }
    }

    /// Returns the time at which work is done that takes so long and can begin at `at`.
    fn end(&self, at: Time, mut took: Duration) -> Time {
        let mut at = self.begin(at);
        while let Some((share, until)) = self.share.filter(|(_, until)| at < *until) {
            let left = (share.slice - share.phase(at)).min(until - at);
            if took <= left {
                break;
            }
            took -= left;
            at = self.begin(at + left);
        }
        at + took
    }
}

impl Share {
    fn phase(&self, at: Time) -> Duration {
        Duration::from_nanos((at.as_nanos() % self.period.as_nanos()) as u64)
    }
}

impl World {
    /// Gives a node a processor.
    pub fn set_processor(&mut self, number: usize, processor: Processor) {
        self.machines[number].work.processor = Some(processor);
    }

    /// Pauses a node's process for this long, as SIGSTOP does, while its sockets buffer what they have room
    /// for.
    pub fn pause(&mut self, number: usize, time: Duration) {
        let (now, work) = (self.now, &mut self.machines[number].work);
        work.busy_until = work.busy_until.max(now + time);
        self.trace.note(now, format_args!("{number} is paused for {time:?}"), &[]);
    }

    /// Other processes keep the processor of a node busy for so long: the node gets this share of it.
    pub fn crowd_out(&mut self, number: usize, time: Duration, share: Share) {
        let until = self.now + time;
        self.machines[number].work.share = Some((share, until));
        self.trace.note(self.now, format_args!("{number} gets {share:?} until {until:?}"), &[]);
    }

    /// Returns true if a node is at work, so that what is due now has to wait; it is done then.
    pub(super) fn defer(&mut self, sender: Sender, event: impl Fn(Sender) -> Event) -> bool {
        let begin = self.machines[sender.node].work.begin(self.now);
        let is_busy = begin > self.now;
        if is_busy {
            self.queue.push(begin, event(sender));
        }
        is_busy
    }

    /// Charges a node for the work it has just done. `datagrams` is the number received or sent.
    pub(super) fn charge(&mut self, number: usize, datagrams: usize) {
        let machine = &mut self.machines[number];
        let (Some(processor), Some(node)) = (machine.work.processor, &machine.node) else { return };
        let done = node.x25519();
        let new = done.saturating_sub(std::mem::replace(&mut machine.work.x25519, done));
        let took = processor.x25519 * new as u32 + processor.datagram * datagrams as u32;
        machine.work.busy_until = machine.work.end(self.now, took);
    }
}
